#include "store_memory.h"
#include "container.h"
#include "err.h"
#include "store_kept.h"

enum { TIMEOUT_MS = 2000 };

struct store_memory {
    struct kept *kept;
    bool is_away;
    struct store_memory_client *clients;
};

struct store_memory_client {
    struct store_memory_client *next;
    struct store_memory *memory;
    struct reactor *reactor;
    struct store_user user;
    struct timer timer;
    struct reactor_task task;
    bool is_cut, is_up, has_self;
    unsigned delay_ms;
    struct mesh_origin self;
    uint64_t keep_ms, asked, last_due_ms;
    struct question *first, **tail;
};

static void arrive(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    q->has_arrived = true;
    kept_do(c->memory->kept, q, now_ms);
}

/* ---- answers ---- */

static void answer(struct store_memory_client *c, struct question *q)
{
    switch (q->call) {
    case RENEW:
        if (q->err == 0) {
            c->self = q->self.origin;
            c->has_self = true;
        } else if (q->err == ERR_STATE) {
            c->has_self = false;
        }
        q->answer.members(q->user, q->err, q->members, q->err ? 0 : q->n);
        break;
    case READ:
        q->answer.batches(q->user, q->err, q->batches, q->err ? 0 : q->n);
        break;
    case CLAIM:
        q->answer.claimed(q->user, q->err,
                          q->err == ERR_STORE ? &(struct store_claim){.epoch = 0} : &q->claim);
        break;
    default:
        q->answer.done(q->user, q->err);
        break;
    }
    question_free(q);
}

static struct question *pop(struct store_memory_client *c)
{
    struct question *q = c->first;
    c->first = q->next;
    if (!c->first)
        c->tail = &c->first;
    return q;
}

/* Up to this number; effects stay. */
static void fail(struct store_memory_client *c, uint64_t number)
{
    while (c->first && c->first->number <= number) {
        struct question *q = pop(c);
        q->err = ERR_STORE;
        answer(c, q);
    }
}

static bool is_reachable(const struct store_memory_client *c)
{
    return !c->is_cut && !c->memory->is_away;
}

static void go_down(struct store_memory_client *c)
{
    c->last_due_ms = 0; /* what is asked from now on is for another connection, which waits for nothing of this one */
    fail(c, c->asked);
    if (c->is_up) {
        c->is_up = false;
        c->user.on_down(c->user.user);
    }
}

static void set_timer(struct store_memory_client *c, uint64_t now_ms)
{
    uint64_t at_ms = UINT64_MAX;
    for (struct question *q = c->first; q; q = q->next) {
        uint64_t next_ms = q->has_arrived ? q->due_ms : q->arrives_ms;
        at_ms = next_ms < at_ms ? next_ms : at_ms;
    }
    if (c->first && c->first->asked_ms + TIMEOUT_MS < at_ms)
        at_ms = c->first->asked_ms + TIMEOUT_MS;
    reactor_timer_cancel(c->reactor, &c->timer);
    if (at_ms != UINT64_MAX)
        reactor_timer_set(c->reactor, &c->timer, at_ms > now_ms ? at_ms - now_ms : 0);
}

static void step(struct store_memory_client *c)
{
    uint64_t now_ms = reactor_now_ms(c->reactor), number = c->asked;
    if (c->first && c->first->asked_ms + TIMEOUT_MS <= now_ms && c->first->due_ms > now_ms)
        go_down(c);
    if (!is_reachable(c)) {
        go_down(c);
        return;
    }
    if (!c->is_up) {
        c->is_up = true;
        c->user.on_up(c->user.user);
    }
    for (struct question *q = c->first; q; q = q->next)
        if (!q->has_arrived && q->arrives_ms <= now_ms && q->number <= number)
            arrive(c, q, now_ms);
    while (c->first && c->first->has_arrived && c->first->due_ms <= now_ms && c->first->number <= number)
        answer(c, pop(c));
    set_timer(c, now_ms);
}

static void on_timer(struct timer *t)
{
    struct store_memory_client *c = container_of(t, struct store_memory_client, timer);
    step(c);
}

static void on_task(struct reactor_task *task)
{
    struct store_memory_client *c = container_of(task, struct store_memory_client, task);
    step(c);
}

/* ---- asking ---- */

static struct question *ask(struct store_memory_client *c, enum call call, void *user)
{
    struct question *q = must_alloc(sizeof(*q));
    uint64_t now_ms = reactor_now_ms(c->reactor);
    q->call = call;
    q->user = user;
    q->number = ++c->asked;
    q->asked_ms = now_ms;
    q->arrives_ms = now_ms + c->delay_ms / 2;
    q->due_ms = now_ms + c->delay_ms;
    if (q->due_ms < c->last_due_ms) {
        q->due_ms = c->last_due_ms;
        q->arrives_ms = q->due_ms;
    }
    c->last_due_ms = q->due_ms;
    q->origin = c->self;
    q->keep_ms = c->keep_ms;
    if (!c->has_self && call != RENEW && call != READ) {
        q->has_arrived = true;
        q->err = ERR_STORE;
    }
    *c->tail = q;
    c->tail = &q->next;
    reactor_defer(c->reactor, &c->task, REACTOR_WORK);
    return q;
}

static void on_call_renew(void *store, const struct store_member *self, uint64_t keep_ms, store_members *done,
                          void *user)
{
    struct store_memory_client *c = store;
    struct question *q = ask(c, RENEW, user);
    q->answer.members = done;
    q->keep_ms = c->keep_ms = keep_ms;
    q->self = *self;
    q->self.name = copy_span(q, self->name);
    q->self.host = copy_span(q, self->host);
    q->self.pub = copy_span(q, self->pub);
    q->self.router = copy_span(q, self->router);
}

static void on_call_resign(void *store, uint64_t keep_ms, store_done *done, void *user)
{
    struct store_memory_client *c = store;
    struct question *q = ask(c, RESIGN, user);
    q->answer.done = done;
    q->keep_ms = c->keep_ms = keep_ms;
}

static void on_call_append(void *store, const struct store_batch *batch, uint64_t oldest, store_done *done,
                           void *user)
{
    struct question *q = ask(store, APPEND, user);
    q->answer.done = done;
    q->batch = (struct store_batch){batch->last, copy_span(q, batch->records)};
    q->oldest = oldest;
}

static void on_call_read(void *store, struct mesh_origin origin, uint64_t after, unsigned count,
                         store_batches *done, void *user)
{
    struct question *q = ask(store, READ, user);
    q->answer.batches = done;
    q->origin = origin;
    q->after = after;
    q->count = count;
}

static void on_call_put(void *store, struct span pid, uint64_t epoch, struct span entry, store_done *done,
                        void *user)
{
    struct question *q = ask(store, PUT, user);
    q->answer.done = done;
    q->pid = copy_span(q, pid);
    q->epoch = epoch;
    q->entry = copy_span(q, entry);
}

static void on_call_drop(void *store, struct span pid, uint64_t epoch, store_done *done, void *user)
{
    struct question *q = ask(store, DROP, user);
    q->answer.done = done;
    q->pid = copy_span(q, pid);
    q->epoch = epoch;
}

static void on_call_claim(void *store, uint32_t owner, struct span pid, store_claimed *done, void *user)
{
    struct question *q = ask(store, CLAIM, user);
    q->answer.claimed = done;
    q->owner = owner;
    q->pid = copy_span(q, pid);
}

struct store store_memory_store(struct store_memory_client *c)
{
    static const struct store_calls calls = {.renew = on_call_renew,
                                             .resign = on_call_resign,
                                             .append = on_call_append,
                                             .read = on_call_read,
                                             .put = on_call_put,
                                             .drop = on_call_drop,
                                             .claim = on_call_claim};
    return (struct store){.calls = &calls, .store = c};
}

/* ---- life ---- */

struct store_memory *store_memory_new(void)
{
    struct store_memory *m = must_alloc(sizeof(*m));
    m->kept = kept_new();
    return m;
}

void store_memory_free(struct store_memory **m)
{
    if (!*m)
        return;
    MUST(!(*m)->clients);
    kept_free(&(*m)->kept);
    free(*m);
    *m = NULL;
}

struct store_memory_client *store_memory_open(struct store_memory *m, struct reactor *r,
                                              const struct store_user *user)
{
    struct store_memory_client *c = must_alloc(sizeof(*c));
    c->memory = m;
    c->reactor = r;
    c->user = *user;
    c->tail = &c->first;
    c->task.run = on_task;
    timer_init(&c->timer, on_timer);
    c->next = m->clients;
    m->clients = c;
    reactor_defer(r, &c->task, REACTOR_WORK);
    return c;
}

static void leave(struct store_memory_client *c)
{
    struct store_memory_client **at = &c->memory->clients;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    reactor_undefer(c->reactor, &c->task, REACTOR_WORK);
    reactor_timer_cancel(c->reactor, &c->timer);
    free(c);
}

void store_memory_close(struct store_memory_client **c)
{
    if (!*c)
        return;
    while ((*c)->first)
        fail(*c, (*c)->asked);
    leave(*c);
    *c = NULL;
}

void store_memory_kill(struct store_memory_client **c)
{
    if (!*c)
        return;
    while ((*c)->first)
        question_free(pop(*c));
    leave(*c);
    *c = NULL;
}

/* ---- faults ---- */

static void wake(struct store_memory_client *c)
{
    reactor_defer(c->reactor, &c->task, REACTOR_WORK);
}

void store_memory_set_away(struct store_memory *m, bool is_away)
{
    m->is_away = is_away;
    for (struct store_memory_client *c = m->clients; c; c = c->next)
        wake(c);
}

void store_memory_cut(struct store_memory_client *c, bool is_cut)
{
    c->is_cut = is_cut;
    wake(c);
}

void store_memory_set_delay(struct store_memory_client *c, unsigned delay_ms)
{
    c->delay_ms = delay_ms;
}

void store_memory_set_full(struct store_memory *m, bool is_full)
{
    kept_set_full(m->kept, is_full);
}

void store_memory_lose(struct store_memory *m)
{
    kept_lose(m->kept);
}

unsigned store_memory_owners(const struct store_memory *m, struct span pid, uint64_t now_ms)
{
    return kept_owners(m->kept, pid, now_ms);
}

uint64_t store_memory_newest(const struct store_memory *m, struct mesh_origin origin)
{
    return kept_newest(m->kept, origin);
}
