/* What an agent says: messages are read record by record, and each record is carried out, in order. One that has to wait
 * keeps all behind it waiting. */
#include "agents_private.h"
#include "err.h"
#include <stdlib.h>

enum {
    ERRORS_MS = 1000, /* in which an agent may make */
    ERRORS_MAX = 100, /* so many of the worst sorts */
    WORK = 8192,      /* for one agent in a turn: what a message of 64 KiB may ask for, some 10 ms */
};

/* ---- records ---- */

static void take_credit(struct agent *a, const struct agent_record *r)
{
    uint64_t credit = agent_credit(r->credit, a->sent);
    if (credit <= a->credit)
        return;
    a->credit = credit;
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
    int err = machines_take(g->machines, agents_now(g), agents_wall_ms(), r->raw);
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
static bool carry_out(struct agent *a, struct agent_record *r)
{
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

static void refuse(struct agent *a, const struct agent_record *r, enum agent_code code)
{
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
}

/* As carry_out(). */
static bool run(struct agent *a, struct agent_record *r)
{
    enum agent_code code;
    if (!agent_from_agent(r->kind)) {
        agent_put_error(a, r->id ? r->id : r->reg, AGENT_E_UNKNOWN_KIND, NULL); /* the second element */
        count_error(a);
        return true;
    }
    if (!agent_check(r, &code)) {
        refuse(a, r, code);
        return true;
    }
    return !agent_waits_for_admission(a, r) && carry_out(a, r);
}

/* ---- messages ---- */

static bool may_exceed(enum agent_kind kind)
{
    return kind == AGENT_CREDIT || kind == AGENT_BYE || kind == AGENT_OK || kind == AGENT_ERROR;
}

static void refuse_excess(struct agent *a, const struct agent_record *r)
{
    agent_put_error(a, r->id, AGENT_E_CREDIT, NULL);
    a->excess += r->raw.n;
    if (a->excess > AGENTS_WINDOW)
        agent_end(a, AGENT_E_CREDIT, "died");
}

/* The others' turn? What is left of its message waits then. */
static bool has_had_its_share(struct agent *a)
{
    uint64_t now = agents_now(a->agents);
    if (a->work_ms != now) {
        a->work_ms = now;
        a->work = 0;
    }
    return a->work >= WORK;
}

/* From one message: how much of it is done with. in_excess: it was begun without a grant. */
static size_t run_message(struct agent *a, struct span message, bool in_excess)
{
    struct agents *g = a->agents;
    struct agent_reader reader = agent_open(message);
    while (!a->is_over && reader.p < reader.end) {
        const char *before = reader.p;
        uint64_t looked_at = g->looked_at;
        if (has_had_its_share(a))
            return (size_t)(before - message.p);
        int got = agent_read(&reader, &g->in);
        metrics_add(g->metrics, METRIC_AGENT_RECORDS, 1);
        if (got == ERR_AGENT) {
            agent_put_error(a, 0, AGENT_E_MALFORMED, NULL);
            count_error(a);
            break;
        }
        if (in_excess && !(got == 1 && may_exceed(g->in.kind)))
            refuse_excess(a, &g->in);
        else if (got != 1)
            answer_unread(a, got, &g->in);
        else if (!run(a, &g->in))
            return (size_t)(before - message.p);
        a->work += 1 + g->looked_at - looked_at;
    }
    return message.n;
}

static void wait_with(struct agent *a, struct span rest, bool in_excess)
{
    if (a->input_bytes + rest.n > AGENTS_INPUT) { /* what may be sent without a grant, too */
        agent_end(a, AGENT_E_CREDIT, "died");
        return;
    }
    struct parcel *p = malloc(sizeof(*p) + rest.n);
    if (!p) {
        agent_end(a, AGENT_E_MEMORY, "died");
        return;
    }
    *p = (struct parcel){.newest = a->newest, .in_excess = in_excess, .n = rest.n};
    memcpy(p->bytes, rest.p, rest.n);
    *a->input_end = p;
    a->input_end = &p->next;
    a->input_bytes += rest.n;
    a->unfinished += rest.n;
    a->is_waiting = true;
    agents_look_soon(a->agents);
}

void agent_go_on(struct agent *a)
{
    while (a->input && !a->is_over && !has_had_its_share(a)) {
        struct parcel *p = a->input;
        a->newest = p->newest;
        size_t done = run_message(a, (struct span){p->bytes, p->n}, p->in_excess);
        a->unfinished -= done;
        a->input_bytes -= done;
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
    a->is_waiting = a->input != NULL;
}

void agent_drop_input(struct agent *a)
{
    while (a->input) {
        struct parcel *p = a->input;
        a->input = p->next;
        free(p);
    }
    a->input_end = &a->input;
}

void agent_take_message(struct agent *a, struct span message)
{
    bool in_excess = a->received >= a->granted;
    const struct cluster *cluster = a->agents->hub->cluster;
    a->heard_ms = agents_now(a->agents);
    a->newest = cluster ? cluster_newest(cluster) : 0;
    a->received += message.n;
    if (a->is_waiting) {
        wait_with(a, message, in_excess);
        return;
    }
    size_t done = run_message(a, message, in_excess);
    if (done < message.n && !a->is_over)
        wait_with(a, (struct span){message.p + done, message.n - done}, in_excess);
    agent_dirty(a);
}
