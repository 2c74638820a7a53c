#include "agents_private.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include <stdlib.h>

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

static void agent_free(struct agent *a)
{
    struct agents *g = a->agents;
    a->is_over = true;
    a->is_dirty = true; /* it does not come into that list any more */
    tasks_fail(a, NULL);
    while (a->regs)
        reg_free(a->regs, a->over_reason);
    requests_forget(a);
    agent_drop_input(a);
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
            agent_go_on(a);
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
    agent_with(r, AGENT_F_TIME_MS)->time_ms = agents_wall_ms();
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
    a->credit = a->first_credit = agent_credit(hello->credit, 0);
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

/* ---- messages ---- */

void agents_receive(struct agents *g, struct span identity, struct span message)
{
    struct agent *a;
    if (identity.n > AGENTS_IDENTITY_BYTES)
        return;
    HASH_FIND(hh, g->agents, identity.p, identity.n, a);
    if (!a)
        take_first(g, identity, message);
    else if (!a->is_over)
        agent_take_message(a, message);
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
    routes_free(g);
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
