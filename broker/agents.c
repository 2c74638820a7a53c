#include "agents_private.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "mp.h"
#include <stdlib.h>
#include <time.h>

enum {
    ERRORS_MS = 1000, /* in which an agent may make */
    ERRORS_MAX = 100, /* so many of the worst sorts */
};

/* ---- the end of an agent ---- */

void agent_end(struct agent *a, enum agent_code code, const char *reason)
{
    if (a->is_over)
        return;
    if (code != AGENT_CODES) {
        struct agent_record *r = agents_out(a->agents, AGENT_BYE);
        r->code = span_of(agent_code(code));
        r->text = span_of(agent_code_text(code));
        agent_put(a, r);
    }
    log_event(LOG_INFO, "agent_gone", LOG_TEXT("agent", a->name), LOG_TEXT("instance", a->instance),
              LOG_TEXT("why", code == AGENT_CODES ? reason : agent_code(code)));
    a->is_over = true;
    a->over_reason = reason;
    agent_dirty(a);
}

static void drop_input(struct agent *a)
{
    while (a->input) {
        struct parcel *p = a->input;
        a->input = p->next;
        free(p);
    }
    a->input_end = &a->input;
}

static void agent_free(struct agent *a)
{
    struct agents *g = a->agents;
    a->is_over = true;
    a->is_dirty = true; /* it does not come into that list any more */
    tasks_fail(a, NULL);
    while (a->regs)
        reg_free(a->regs, a->over_reason);
    requests_forget(a);
    drop_input(a);
    admissions_free(a);
    if (a->number)
        agents_set(g, GATEWAY_INSTANCE, a->number, (struct span){"", 0});
    HASH_DELETE(hh, g->agents, a);
    if (!a->is_replaced)
        HASH_DELETE(hh_instance, g->by_instance, a);
    metrics_set(g->metrics, METRIC_AGENTS, HASH_COUNT(g->agents));
    agent_free_out(a);
    free(a);
}

static void go_on(struct agent *a);

/* It takes again what it did not take. */
static void see_room(struct agent *a)
{
    bool was_full = a->was_full;
    a->was_full = agent_is_full(a);
    for (struct reg *reg = a->regs; reg && was_full && !a->was_full; reg = reg->hh.next)
        if (reg->member)
            member_lighter(reg->member);
}

/* Granting, pumping and reading on may make others dirty, also this one again. */
static void on_flush(struct reactor_task *task)
{
    struct agents *g = container_of(task, struct agents, flush);
    while (g->dirty) {
        struct agent *a = g->dirty;
        g->dirty = a->dirty_next;
        a->is_dirty = false;
        if (a->is_waiting && !a->is_over)
            go_on(a);
        if (!a->is_over)
            agent_pump(a);
        uint64_t grant = a->received - a->unfinished + AGENTS_WINDOW;
        if (!a->is_over && grant - a->granted >= AGENTS_WINDOW / 2 && grant > a->granted)
            agent_grant(a);
        agent_flush(a);
        see_room(a);
        if (a->is_over && !a->is_dirty)
            agent_free(a);
    }
}

/* ---- answers to those who are no agents yet ---- */

static void send_error(struct agents *g, struct span identity, enum agent_code code, const char *text)
{
    struct agent_record *r = agents_out(g, AGENT_ERROR);
    r->code = span_of(agent_code(code));
    r->text = span_of(text ? text : agent_code_text(code));
    if (code == AGENT_E_VERSION)
        agent_with(r, AGENT_F_HIGHEST)->version = AGENT_VERSION;
    if (code == AGENT_E_UNAVAILABLE)
        agent_with(r, AGENT_F_RETRY_MS)->retry_ms = AGENTS_BEAT_MS;
    msgpack_sbuffer_clear(&g->scratch);
    if (agent_write(&g->scratch, r) == 0)
        g->link.send(g->link.link, identity, (struct span){g->scratch.data, g->scratch.size});
}

/* ---- HELLO ---- */

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void send_welcome(struct agent *a)
{
    struct agents *g = a->agents;
    struct agent_record *r = agents_out(g, AGENT_WELCOME);
    r->version = AGENT_VERSION;
    r->node = g->options.name;
    r->credit = AGENTS_WINDOW;
    agent_with(r, AGENT_F_CLUSTER)->cluster = g->options.cluster;
    agent_with(r, AGENT_F_ORIGIN)->origin = span_of(g->hub->options.origin);
    agent_with(r, AGENT_F_HEARTBEAT_MS)->heartbeat_ms = AGENTS_HEARTBEAT_MS;
    agent_with(r, AGENT_F_TIMEOUT_MS)->timeout_ms = AGENTS_TIMEOUT_MS;
    agent_with(r, AGENT_F_WINDOW_MS)->window_ms = g->options.window_ms;
    agent_with(r, AGENT_F_TIME_MS)->time_ms = wall_ms();
    agent_with(r, AGENT_F_MESSAGE_BYTES)->message_bytes = LIMIT_AGENT_MESSAGE_BYTES;
    agent_with(r, AGENT_F_MAX_CALLS)->max_calls = LIMIT_AGENT_CALLS;
    agent_with(r, AGENT_F_MAX_REGISTRATIONS)->max_registrations = LIMIT_AGENT_REGISTRATIONS;
    agent_with(r, AGENT_F_MAX_DEADLINE_MS)->max_deadline_ms = LIMIT_AGENT_DEADLINE_MS;
    agents_put_peers(g, r);
    agent_put(a, r);
    agent_flush(a);
    /* It is alone in its message, and not counted. */
    a->sent = 0;
    a->credit = a->first_credit;
    agent_count_unread(a);
}

static struct agent *agent_new(struct agents *g, struct span identity, const struct agent_record *hello)
{
    struct agent *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->agents = g;
    a->since_ms = a->heard_ms = a->sent_ms = agents_now(g);
    a->granted = AGENTS_WINDOW;
    a->credit = a->first_credit = hello->credit;
    a->blocked_end = &a->blocked;
    a->ready_end = &a->ready;
    a->input_end = &a->input;
    a->over_reason = "died";
    msgpack_sbuffer_init(&a->out);
    memcpy(a->name, hello->name.p, hello->name.n);
    memcpy(a->instance, hello->instance.p, hello->instance.n);
    a->about_n = (uint32_t)hello->about.n;
    memcpy(a->about, hello->about.p ? hello->about.p : "", a->about_n);
    a->identity_n = (uint32_t)identity.n;
    memcpy(a->identity, identity.p, identity.n);
    HASH_ADD(hh, g->agents, identity, a->identity_n, a);
    HASH_ADD(hh_instance, g->by_instance, instance, strlen(a->instance), a);
    metrics_set(g->metrics, METRIC_AGENTS, HASH_COUNT(g->agents));
    return a;
}

/* It is freed at the end of the turn; until then another one has its name. */
static void replace(struct agent *older)
{
    agent_end(older, AGENT_E_REPLACED, "died");
    HASH_DELETE(hh_instance, older->agents->by_instance, older);
    older->is_replaced = true;
}

static void take_hello(struct agents *g, struct span identity, const struct agent_record *r)
{
    struct agent *older;
    if (r->version < 1) {
        send_error(g, identity, AGENT_E_VERSION, NULL);
        return;
    }
    if (!g->is_ready || g->is_draining) {
        send_error(g, identity, AGENT_E_UNAVAILABLE, g->is_draining ? "the node drains" : "not ready yet");
        return;
    }
    HASH_FIND(hh_instance, g->by_instance, r->instance.p, r->instance.n, older);
    if (older)
        replace(older);
    struct agent *a = agent_new(g, identity, r);
    if (!a) {
        send_error(g, identity, AGENT_E_MEMORY, NULL);
        return;
    }
    log_event(LOG_INFO, "agent", LOG_TEXT("agent", a->name), LOG_TEXT("instance", a->instance),
              LOG_SPAN("about", r->about));
    send_welcome(a);
    agents_say_instance(a);
}

/* The first message of a connection. */
static void take_first(struct agents *g, struct span identity, struct span message)
{
    struct agent_reader reader = agent_open(message);
    int got = agent_read(&reader, &g->in);
    if (got < 0 && g->in.kind == AGENT_HELLO && (got == ERR_ARGUMENT || got == ERR_LIMIT))
        send_error(g, identity, got == ERR_LIMIT ? AGENT_E_LIMIT : AGENT_E_ARGUMENT, g->in.wrong);
    else if (got != 1 || g->in.kind != AGENT_HELLO)
        send_error(g, identity, AGENT_E_HELLO, NULL);
    else
        take_hello(g, identity, &g->in);
}

/* ---- records ---- */

static void take_credit(struct agent *a, const struct agent_record *r)
{
    if (r->credit <= a->credit)
        return;
    a->credit = r->credit;
    agent_count_unread(a);
    agent_dirty(a);
}

static void count_error(struct agent *a)
{
    uint64_t now = agents_now(a->agents);
    if (now - a->errors_ms > ERRORS_MS) {
        a->errors_ms = now;
        a->errors = 0;
    }
    if (++a->errors >= ERRORS_MAX)
        agent_end(a, AGENT_E_MALFORMED, "died");
}

/* What a machine says of itself: agent_read() knows nothing of it. */
static bool is_of_machine(const struct agent_record *r)
{
    return r->raw.n > 0 && (unsigned)r->kind >= 40 && (unsigned)r->kind <= 47;
}

static void take_machine(struct agent *a, const struct agent_record *r)
{
    struct agents *g = a->agents;
    if (!request_allowed(a, r))
        return;
    int err = machines_take(g->machines, agents_now(g), wall_ms(), r->raw);
    if (err == ERR_KIND) {
        agent_put_error(a, r->id, AGENT_E_UNKNOWN_KIND, NULL);
        count_error(a);
    } else if (err == ERR_LIMIT) {
        agent_put_error(a, r->id, AGENT_E_LIMIT, "too many machines");
    } else if (err == ERR_MEMORY) {
        agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
    } else if (err) {
        agent_put_error(a, r->id, err == ERR_VERSION ? AGENT_E_VERSION : AGENT_E_ARGUMENT, NULL);
    } else {
        agent_ok(a, r->id, agents_out(g, AGENT_OK));
        if (g->on_machine)
            g->on_machine(g->on_machine_user, r->raw);
    }
}

static void answer_unread(struct agent *a, int got, const struct agent_record *r)
{
    enum agent_code code = got == ERR_KIND    ? AGENT_E_UNKNOWN_KIND
                           : got == ERR_LIMIT ? AGENT_E_LIMIT
                                              : AGENT_E_ARGUMENT;
    bool is_answer = r->kind == AGENT_OK || r->kind == AGENT_ERROR;
    struct agents *g = a->agents;
    if (got == ERR_KIND && is_of_machine(r)) {
        take_machine(a, r);
        return;
    }
    uint64_t id = r->id;
    if (is_answer && id) { /* whoever asked must not wait for what cannot be read */
        struct agent_record *failed = agents_out(g, AGENT_ERROR);
        failed->id = id;
        failed->code = span_of(agent_code(AGENT_E_FAILED));
        failed->text = SPAN("the agent's answer could not be read");
        task_answered(a, failed);
    }
    agent_put_error(a, id, code, r->wrong);
    if (got == ERR_KIND)
        count_error(a);
}

/* False: it has to wait, with all that is behind it. */
static bool run(struct agent *a, struct agent_record *r)
{
    enum agent_code code;
    if (!agent_from_agent(r->kind)) {
        agent_put_error(a, r->id, AGENT_E_UNKNOWN_KIND, NULL);
        count_error(a);
        return true;
    }
    if (!agent_check(r, &code)) {
        uint64_t id = r->id;
        const char *wrong = r->wrong;
        if (r->kind == AGENT_OK || r->kind == AGENT_ERROR) {
            struct agent_record *failed = agents_out(a->agents, AGENT_ERROR);
            failed->id = id;
            failed->code = span_of(agent_code(AGENT_E_FAILED));
            failed->text = SPAN("the agent's answer is not valid");
            task_answered(a, failed);
        }
        agent_put_error(a, id, code, wrong);
        return true;
    }
    if (agent_waits_for_admission(a, r))
        return false;
    switch (r->kind) {
    case AGENT_CREDIT:
        take_credit(a, r);
        return true;
    case AGENT_BYE:
        agent_end(a, AGENT_CODES, "ended");
        return true;
    case AGENT_OK:
    case AGENT_ERROR:
        task_answered(a, r);
        return true;
    case AGENT_EMIT:
        return agent_emit(a, r);
    case AGENT_SUBSCRIBE:
        return agent_subscribe(a, r);
    case AGENT_HANDLE:
        agent_handle(a, r);
        return true;
    case AGENT_REGISTER:
        agent_register(a, r);
        return true;
    case AGENT_WATCH:
        agent_watch(a, r);
        return true;
    case AGENT_UNDO:
        agent_undo(a, r);
        return true;
    case AGENT_TELL:
        agent_tell(a, r);
        return true;
    case AGENT_ASK:
        agent_ask(a, r);
        return true;
    case AGENT_HELLO:
        agent_put_error(a, 0, AGENT_E_HELLO, NULL);
        return true;
    default:
        agent_act(a, r);
        return true;
    }
}

/* ---- messages ---- */

static bool may_exceed(enum agent_kind kind)
{
    return kind == AGENT_CREDIT || kind == AGENT_BYE || kind == AGENT_OK || kind == AGENT_ERROR;
}

/* From one message: how much of it is done with. in_excess: it was begun without a grant. */
static size_t run_message(struct agent *a, struct span message, bool in_excess)
{
    struct agents *g = a->agents;
    struct agent_reader reader = agent_open(message);
    while (!a->is_over) {
        const char *before = reader.p;
        int got = agent_read(&reader, &g->in);
        if (got == 0)
            break;
        metrics_add(g->metrics, METRIC_AGENT_RECORDS, 1);
        if (got == ERR_AGENT) {
            agent_put_error(a, 0, AGENT_E_MALFORMED, NULL);
            count_error(a);
            break;
        }
        if (in_excess && !(got == 1 && may_exceed(g->in.kind)))
            agent_put_error(a, g->in.id, AGENT_E_CREDIT, NULL);
        else if (got != 1)
            answer_unread(a, got, &g->in);
        else if (!run(a, &g->in))
            return (size_t)(before - message.p);
    }
    return message.n;
}

static void wait_with(struct agent *a, struct span rest)
{
    struct parcel *p = malloc(sizeof(*p) + rest.n);
    if (!p) {
        agent_end(a, AGENT_E_MEMORY, "died");
        return;
    }
    *p = (struct parcel){.newest = a->newest, .n = rest.n};
    memcpy(p->bytes, rest.p, rest.n);
    *a->input_end = p;
    a->input_end = &p->next;
    a->unfinished += rest.n;
    a->is_waiting = true;
    agents_look_soon(a->agents);
}

static void go_on(struct agent *a)
{
    while (a->input && !a->is_over) {
        struct parcel *p = a->input;
        a->newest = p->newest;
        size_t done = run_message(a, (struct span){p->bytes, p->n}, false);
        a->unfinished -= done;
        if (done < p->n) {
            p->n -= done;
            memmove(p->bytes, p->bytes + done, p->n);
            return;
        }
        a->input = p->next;
        if (!a->input)
            a->input_end = &a->input;
        free(p);
    }
    a->is_waiting = false;
}

static void take_message(struct agent *a, struct span message)
{
    bool in_excess = a->received >= a->granted;
    const struct cluster *cluster = a->agents->hub->cluster;
    a->heard_ms = agents_now(a->agents);
    a->newest = cluster ? cluster_newest(cluster) : 0;
    a->received += message.n;
    a->excess += in_excess ? message.n : 0;
    if (a->excess > AGENTS_WINDOW) {
        agent_end(a, AGENT_E_CREDIT, "died");
        return;
    }
    if (a->is_waiting) {
        wait_with(a, message);
        return;
    }
    size_t done = run_message(a, message, in_excess);
    if (done < message.n && !a->is_over)
        wait_with(a, (struct span){message.p + done, message.n - done});
    agent_dirty(a);
}

void agents_receive(struct agents *g, struct span identity, struct span message)
{
    struct agent *a;
    if (identity.n > AGENTS_IDENTITY_BYTES)
        return;
    HASH_FIND(hh, g->agents, identity.p, identity.n, a);
    if (!a)
        take_first(g, identity, message);
    else if (!a->is_over)
        take_message(a, message);
}

/* ---- time ---- */

void agents_look_soon(struct agents *g)
{
    if (!timer_pending(&g->look))
        reactor_timer_set(g->reactor, &g->look, AGENTS_LOOK_MS);
}

static void on_look(struct timer *t)
{
    struct agents *g = container_of(t, struct agents, look);
    bool again = confirms_look(g);
    again = acts_look(g) || again;
    for (struct agent *a = g->agents; a; a = a->hh.next) {
        if (a->is_waiting || a->blocked || a->n_behind)
            agent_dirty(a);
        again = again || a->is_waiting;
    }
    if (again)
        agents_look_soon(g);
}

static void send_node(struct agent *a)
{
    struct agents *g = a->agents;
    if (!agent_may_send(a))
        return;
    struct agent_record *r = agents_out(g, AGENT_NODE);
    agents_put_peers(g, r);
    agent_with(r, AGENT_F_DRAINING)->draining = g->is_draining;
    agent_put(a, r);
    a->tells_node = false;
}

static void beat(struct agent *a, uint64_t now, bool was_late)
{
    if (was_late) /* it was this node that did not listen */
        a->heard_ms = now;
    a->tells_node = a->tells_node || a->agents->nodes_changed;
    if (now - a->heard_ms > AGENTS_TIMEOUT_MS) {
        agent_end(a, AGENT_E_SILENT, "died");
        return;
    }
    if (a->tells_node)
        send_node(a);
    if (now - a->sent_ms + AGENTS_BEAT_MS > AGENTS_HEARTBEAT_MS)
        agent_grant(a);
}

static void on_beat(struct timer *t)
{
    struct agents *g = container_of(t, struct agents, beat);
    uint64_t now = agents_now(g);
    bool was_late = g->beat_ms && now - g->beat_ms > AGENTS_TIMEOUT_MS / 2;
    g->beat_ms = now;
    for (struct agent *a = g->agents; a; a = a->hh.next)
        beat(a, now, was_late);
    g->nodes_changed = false;
    keys_expire(g);
    known_expire(g);
    clients_expire(g);
    subscriptions_expire(g);
    agents_say_loads(g);
    machines_expire(g->machines, now);
    acts_look(g);
    reactor_timer_set(g->reactor, t, AGENTS_BEAT_MS);
}

/* ---- life ---- */

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    struct agents *g = user;
    (void)received;
    calls_forget_node(g, from);
    tasks_forget_node(g, from);
    acts_forget_node(g, from);
    clients_node_died(g, from);
    known_forget(g, from);
}

struct agents *agents_new(struct reactor *r, struct hub *h, struct metrics *m, const struct agents_options *o,
                          const struct agents_link *link)
{
    struct agents *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->reactor = r;
    g->hub = h;
    g->metrics = m;
    g->options = *o;
    g->link = *link;
    g->confirms_end = &g->confirms;
    g->flush.run = on_flush;
    timer_init(&g->beat, on_beat);
    timer_init(&g->look, on_look);
    msgpack_sbuffer_init(&g->scratch);
    msgpack_sbuffer_init(&g->told);
    g->machines = machines_new(&(struct machines_options){.max = 0});
    if (!g->machines) {
        agents_free(&g);
        return NULL;
    }
    keys_expire(g); /* which makes room for the first ones */
    if (h->cluster)
        cluster_listen(h->cluster, MESH_TOPIC_AGENTS,
                       &(struct cluster_part){.user = g,
                                              .on_set = agents_on_set,
                                              .on_void = agents_on_void,
                                              .on_message = agents_on_message,
                                              .on_dead = on_dead});
    return g;
}

void agents_free(struct agents **gp)
{
    struct agents *g = *gp;
    if (!g)
        return;
    struct agent *a, *next;
    HASH_ITER(hh, g->agents, a, next)
    {
        agent_end(a, AGENT_E_UNAVAILABLE, "node");
        agent_flush(a);
        agent_free(a);
    }
    if (g->hub->handler.user == g)
        g->hub->handler = (struct hub_handler){.user = NULL};
    if (g->hub->cluster)
        cluster_listen(g->hub->cluster, MESH_TOPIC_AGENTS, &(struct cluster_part){.user = NULL});
    reactor_timer_cancel(g->reactor, &g->beat);
    reactor_timer_cancel(g->reactor, &g->look);
    calls_free(g);
    clients_free(g);
    acts_free(g);
    confirms_free(g);
    emit_acks_free(g);
    keys_free(g);
    members_free(g);
    known_free(g);
    reactor_undefer(g->reactor, &g->flush, REACTOR_FLUSH);
    machines_free(&g->machines);
    msgpack_sbuffer_destroy(&g->scratch);
    msgpack_sbuffer_destroy(&g->told);
    free(g);
    *gp = NULL;
}

void agents_start(struct agents *g)
{
    g->is_ready = true;
    agents_say_node(g);
    reactor_timer_set(g->reactor, &g->beat, AGENTS_BEAT_MS);
}

void agents_drain(struct agents *g)
{
    if (g->is_draining)
        return;
    g->is_draining = true;
    agents_set(g, GATEWAY_NODE, 0, (struct span){"", 0});
    for (struct agent *a = g->agents; a; a = a->hh.next)
        send_node(a);
}

struct machines *agents_machines(const struct agents *g)
{
    return g->machines;
}

void agents_watch_machines(struct agents *g, void (*on_machine)(void *user, struct span message), void *user)
{
    g->on_machine = on_machine;
    g->on_machine_user = user;
}
