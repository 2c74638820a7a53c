/* What goes to agents: records are put together to messages, sent at the end of the turn. What an agent has not granted
 * waits in the queue of its registration, whose bounds are those of proto/agent.md, "Flow control". */
#include "agents_private.h"
#include "err.h"
#include "log.h"
#include <stdlib.h>

enum {
    TOLD_BYTES = 1024 * 1024,         /* that wait for one registration */
    BLOCKED_BYTES = 8 * 1024 * 1024,  /* that the link does not take from one agent's messages */
    UNREAD_BYTES = 256 * 1024 * 1024, /* of all agents together; beyond that each may have */
    UNREAD_EACH_BYTES = 64 * 1024,    /* so much */
};

struct agent_record *agents_out(struct agents *g, enum agent_kind kind)
{
    agent_init(&g->out, kind);
    return &g->out;
}

void agent_dirty(struct agent *a)
{
    if (a->is_dirty)
        return;
    a->is_dirty = true;
    a->dirty_next = a->agents->dirty;
    a->agents->dirty = a;
    reactor_defer(a->agents->reactor, &a->agents->flush, REACTOR_FLUSH);
}

void agent_count_unread(struct agent *a)
{
    uint64_t finished = a->credit - a->first_credit, unread = a->sent > finished ? a->sent - finished : 0;
    a->agents->sent_unread += unread - a->unread;
    a->unread = unread;
}

/* ---- messages ---- */

static void block(struct agent *a, struct span message)
{
    struct parcel *p = malloc(sizeof(*p) + message.n);
    if (!p || a->blocked_bytes + message.n > BLOCKED_BYTES) {
        free(p);
        agent_end(a, AGENT_CODES, "died");
        return;
    }
    *p = (struct parcel){.n = message.n};
    memcpy(p->bytes, message.p, message.n);
    *a->blocked_end = p;
    a->blocked_end = &p->next;
    a->blocked_bytes += message.n;
    agents_look_soon(a->agents);
}

/* False: the link takes no more. */
static bool send_message(struct agent *a, struct span message)
{
    struct agents *g = a->agents;
    int err = g->link.send(g->link.link, (struct span){a->identity, a->identity_n}, message);
    if (err == ERR_NOT_FOUND)
        agent_end(a, AGENT_CODES, "died");
    return err != ERR_BUSY;
}

static void drop_blocked(struct agent *a)
{
    struct parcel *p = a->blocked;
    a->blocked = p->next;
    if (!a->blocked)
        a->blocked_end = &a->blocked;
    a->blocked_bytes -= p->n;
    free(p);
}

static void finish_message(struct agent *a)
{
    struct span message = {a->out.data, a->out.size};
    if (message.n == 0)
        return;
    if (a->blocked || !send_message(a, message))
        block(a, message);
    a->sent += message.n;
    a->sent_ms = agents_now(a->agents);
    msgpack_sbuffer_clear(&a->out);
    agent_count_unread(a);
}

void agent_flush(struct agent *a)
{
    while (a->blocked && send_message(a, (struct span){a->blocked->bytes, a->blocked->n}))
        drop_blocked(a);
    if (a->blocked)
        agents_look_soon(a->agents);
    finish_message(a);
}

void agent_free_out(struct agent *a)
{
    while (a->blocked)
        drop_blocked(a);
    a->agents->sent_unread -= a->unread;
    msgpack_sbuffer_destroy(&a->out);
}

void agent_put_bytes(struct agent *a, struct span record)
{
    if (a->is_over)
        return;
    if (a->out.size > 0 && a->out.size + record.n > AGENT_BATCH_BYTES)
        finish_message(a);
    if (msgpack_sbuffer_write(&a->out, record.p, record.n))
        agent_end(a, AGENT_CODES, "died"); /* never a silent hole */
    agent_dirty(a);
}

void agent_put(struct agent *a, const struct agent_record *r)
{
    size_t before = a->out.size;
    if (a->is_over)
        return;
    if (before > AGENT_BATCH_BYTES / 2) { /* it may not fit */
        msgpack_sbuffer *b = &a->agents->scratch;
        msgpack_sbuffer_clear(b);
        if (agent_write(b, r) == 0)
            agent_put_bytes(a, (struct span){b->data, b->size});
        else
            agent_end(a, AGENT_CODES, "died");
        return;
    }
    if (agent_write(&a->out, r))
        agent_end(a, AGENT_CODES, "died");
    agent_dirty(a);
}

void agent_put_error(struct agent *a, uint64_t id, enum agent_code code, const char *text)
{
    struct agent_record *r = agents_out(a->agents, AGENT_ERROR);
    r->id = id;
    r->code = span_of(agent_code(code));
    r->text = span_of(text ? text : agent_code_text(code));
    if (code == AGENT_E_BUSY || code == AGENT_E_UNAVAILABLE)
        agent_with(r, AGENT_F_RETRY_MS)->retry_ms = AGENTS_BEAT_MS;
    agent_put(a, r);
}

/* ---- credit ---- */

bool agent_may_send(const struct agent *a)
{
    const struct agents *g = a->agents;
    return !a->is_over && a->sent + a->out.size < a->credit &&
           (g->sent_unread < UNREAD_BYTES || a->unread + a->out.size < UNREAD_EACH_BYTES);
}

bool agent_is_full(const struct agent *a)
{
    return a->ready || a->n_behind > 0 || !agent_may_send(a);
}

uint64_t agent_credit(uint64_t said, uint64_t sent)
{
    return said - sent > AGENTS_CREDIT && said > sent ? sent + AGENTS_CREDIT : said;
}

/* An agent that does not read its answers is not granted more to ask. */
void agent_grant(struct agent *a)
{
    uint64_t grant = a->received - a->unfinished + AGENTS_WINDOW;
    if (a->sent + a->out.size < a->credit + AGENTS_WINDOW && grant > a->granted)
        a->granted = grant;
    struct agent_record *r = agents_out(a->agents, AGENT_CREDIT);
    r->credit = a->granted;
    agent_put(a, r);
}

/* ---- queues of registrations ---- */

static void make_ready(struct reg *reg)
{
    struct agent *a = reg->agent;
    if (reg->is_ready || !reg->first)
        return;
    reg->is_ready = true;
    reg->ready_next = NULL;
    *a->ready_end = reg;
    a->ready_end = &reg->ready_next;
}

static void leave_ready(struct reg *reg)
{
    struct agent *a = reg->agent;
    struct reg **at = &a->ready;
    if (!reg->is_ready)
        return;
    while (*at != reg)
        at = &(*at)->ready_next;
    *at = reg->ready_next;
    if (!*at)
        a->ready_end = at;
    reg->is_ready = false;
}

static void drop_parcel(struct reg *reg)
{
    struct parcel *p = reg->first;
    reg->first = p->next;
    if (!reg->first)
        reg->last = &reg->first;
    reg->n_calls -= p->task != NULL;
    reg->n_told -= p->is_told;
    reg->told_bytes -= p->is_told ? p->n : 0;
    reg->agent->n_life -= p->is_life;
    free(p);
}

void reg_drop_parcels(struct reg *reg)
{
    leave_ready(reg);
    while (reg->first)
        drop_parcel(reg);
}

static bool limit_reached(const struct reg *reg)
{
    return reg->limit > 0 && reg->with_agent >= reg->limit;
}

static enum agent_code check_bounds(struct reg *reg, bool is_call, bool is_life, size_t n)
{
    struct agent *a = reg->agent;
    if (is_life) {
        if (a->n_life >= LIMIT_AGENT_LIFE_WAITING)
            agent_end(a, AGENT_E_SLOW, "died");
        return a->is_over ? AGENT_E_DIED : AGENT_CODES;
    }
    if (is_call)
        return reg->n_calls >= LIMIT_AGENT_WAITING ? AGENT_E_BUSY : AGENT_CODES;
    return reg->n_told >= LIMIT_AGENT_WAITING || reg->told_bytes + n > TOLD_BYTES ? AGENT_E_BUSY
                                                                                  : AGENT_CODES;
}

static enum agent_code queue(struct reg *reg, const struct agent_record *r, struct task *task)
{
    msgpack_sbuffer *b = &reg->agent->agents->scratch;
    bool is_told = r->kind == AGENT_TOLD, is_life = !task && !is_told;
    msgpack_sbuffer_clear(b);
    if (agent_write(b, r))
        return AGENT_E_MEMORY;
    enum agent_code code = check_bounds(reg, task != NULL, is_life, b->size);
    if (code != AGENT_CODES)
        return code;
    struct parcel *p = malloc(sizeof(*p) + b->size);
    if (!p)
        return AGENT_E_MEMORY;
    *p = (struct parcel){.task = task, .is_life = is_life, .is_told = is_told, .n = b->size};
    memcpy(p->bytes, b->data, b->size);
    *reg->last = p;
    reg->last = &p->next;
    reg->n_calls += task != NULL;
    reg->n_told += is_told;
    reg->told_bytes += is_told ? p->n : 0;
    reg->agent->n_life += is_life;
    make_ready(reg);
    return AGENT_CODES;
}

static void mark_sent(struct reg *reg, struct task *task)
{
    if (!task)
        return;
    task->is_sent = true;
    reg->with_agent++;
}

enum agent_code reg_put(struct reg *reg, const struct agent_record *r, struct task *task)
{
    if (reg->agent->is_over)
        return AGENT_E_DIED;
    if (reg->first || !agent_may_send(reg->agent) || (task && limit_reached(reg)))
        return queue(reg, r, task);
    mark_sent(reg, task);
    agent_put(reg->agent, r);
    return AGENT_CODES;
}

/* One record of this registration. False: it has to wait for answers. */
static bool send_one(struct reg *reg)
{
    struct parcel *p = reg->first;
    if (p->task && limit_reached(reg))
        return false;
    mark_sent(reg, p->task);
    agent_put_bytes(reg->agent, (struct span){p->bytes, p->n});
    drop_parcel(reg);
    return true;
}

/* In turn, one record of each. One that reaches its limit comes back with an answer. */
void agent_pump(struct agent *a)
{
    while (a->ready && agent_may_send(a)) {
        struct reg *reg = a->ready;
        bool goes_on = send_one(reg) && reg->first;
        leave_ready(reg);
        if (goes_on)
            make_ready(reg);
    }
    if (a->n_behind > 0 && agent_may_send(a))
        agent_catch_up(a);
}

void reg_emptied(struct reg *reg)
{
    if (!reg->first)
        leave_ready(reg);
}

void reg_go_on(struct reg *reg)
{
    make_ready(reg);
    agent_pump(reg->agent);
}
