#include "store_memory.h"
#include "container.h"
#include "err.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 2000, TAG_GRACE_MS = 1000 };

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                   \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* ---- what is kept ---- */

struct text {
    char *p;
    size_t n;
};

struct origin {
    struct origin *next;
    struct mesh_origin id;
    uint64_t until_ms, lease_until_ms;
    struct text name, host, pub, router;
};

struct batch {
    struct batch *next;
    uint64_t last;
    struct text records;
};

struct mirror {
    struct mirror *next;
    struct mesh_origin id;
    uint64_t until_ms, newest;
    struct batch *first;
};

/* The expiry of all sessions of an owner. */
struct owner {
    struct owner *next;
    uint32_t tag;
    uint64_t until_ms;
};

struct session {
    UT_hash_handle hh;
    uint32_t tag;
    uint64_t epoch;
    bool has_moved;
    uint32_t moved_to;
    struct text entry;
    size_t key_n;
    char key[]; /* tag and pid */
};

struct store_memory {
    bool is_away, is_full;
    struct origin *origins;
    struct mirror *mirrors;
    struct owner *owners;
    struct session *sessions;
    struct store_memory_client *clients;
};

/* ---- questions ---- */

enum call { RENEW, RESIGN, APPEND, READ, PUT, DROP, CLAIM };

/* What a question borrowed, and what its answer lends. */
struct copy {
    struct copy *next;
    char bytes[];
};

struct question {
    struct question *next;
    enum call call;
    union {
        store_done *done;
        store_members *members;
        store_batches *batches;
        store_claimed *claimed;
    } answer;
    void *user;
    uint64_t number, arrives_ms, due_ms, asked_ms;
    bool has_arrived;
    struct copy *copies;
    /* ---- arguments ---- */
    struct store_member self;
    struct mesh_origin origin;
    struct store_batch batch;
    uint64_t keep_ms, oldest, after, epoch;
    unsigned count;
    uint32_t owner;
    struct span pid, entry;
    /* ---- answers ---- */
    int err;
    unsigned n;
    struct store_member *members;
    struct store_batch *batches;
    struct store_claim claim;
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

static void *must_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    MUST(p);
    return p;
}

static void set_text(struct text *t, struct span from)
{
    char *p = must_alloc(from.n);
    if (from.n)
        memcpy(p, from.p, from.n);
    free(t->p);
    *t = (struct text){p, from.n};
}

static struct span copy_span(struct question *q, struct span from)
{
    struct copy *c = must_alloc(sizeof(*c) + from.n);
    if (from.n)
        memcpy(c->bytes, from.p, from.n);
    c->next = q->copies;
    q->copies = c;
    return (struct span){c->bytes, from.n};
}

static struct span copy_text(struct question *q, const struct text *t)
{
    return copy_span(q, (struct span){t->p, t->n});
}

static void question_free(struct question *q)
{
    while (q->copies) {
        struct copy *next = q->copies->next;
        free(q->copies);
        q->copies = next;
    }
    free(q->members);
    free(q->batches);
    free(q);
}

/* ---- what expires ---- */

static void batches_free(struct mirror *m)
{
    while (m->first) {
        struct batch *next = m->first->next;
        free(m->first->records.p);
        free(m->first);
        m->first = next;
    }
}

static void origin_free(struct origin *o)
{
    free(o->name.p);
    free(o->host.p);
    free(o->pub.p);
    free(o->router.p);
    free(o);
}

static void session_free(struct store_memory *m, struct session *s)
{
    HASH_DEL(m->sessions, s);
    free(s->entry.p);
    free(s);
}

static void drop_sessions(struct store_memory *m, uint32_t tag, bool all)
{
    struct session *s, *next;
    HASH_ITER(hh, m->sessions, s, next)
    {
        if (all || s->tag == tag)
            session_free(m, s);
    }
}

static void expire_origins(struct store_memory *m, uint64_t now_ms)
{
    for (struct origin **at = &m->origins; *at;) {
        struct origin *o = *at;
        if (o->until_ms > now_ms) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        origin_free(o);
    }
}

static void expire_mirrors(struct store_memory *m, uint64_t now_ms)
{
    for (struct mirror **at = &m->mirrors; *at;) {
        struct mirror *mirror = *at;
        if (mirror->until_ms > now_ms) {
            at = &mirror->next;
            continue;
        }
        *at = mirror->next;
        batches_free(mirror);
        free(mirror);
    }
}

static void expire_owners(struct store_memory *m, uint64_t now_ms)
{
    for (struct owner **at = &m->owners; *at;) {
        struct owner *o = *at;
        if (o->until_ms > now_ms) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        drop_sessions(m, o->tag, false);
        free(o);
    }
}

static void expire(struct store_memory *m, uint64_t now_ms)
{
    expire_origins(m, now_ms);
    expire_mirrors(m, now_ms);
    expire_owners(m, now_ms);
}

/* ---- finding ---- */

static bool same_origin(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

static struct origin *find_origin(struct store_memory *m, struct mesh_origin id)
{
    struct origin *o = m->origins;
    while (o && !same_origin(o->id, id))
        o = o->next;
    return o;
}

static struct mirror *find_mirror(struct store_memory *m, struct mesh_origin id)
{
    struct mirror *mirror = m->mirrors;
    while (mirror && !same_origin(mirror->id, id))
        mirror = mirror->next;
    return mirror;
}

static struct owner *find_owner(struct store_memory *m, uint32_t tag)
{
    struct owner *o = m->owners;
    while (o && o->tag != tag)
        o = o->next;
    return o;
}

static struct session *find_session(struct store_memory *m, uint32_t tag, struct span pid)
{
    char key[sizeof(tag) + 256];
    struct session *s;
    MUST(pid.n <= 256);
    memcpy(key, &tag, sizeof(tag));
    if (pid.n)
        memcpy(key + sizeof(tag), pid.p, pid.n);
    HASH_FIND(hh, m->sessions, key, sizeof(tag) + pid.n, s);
    return s;
}

/* The session's place, made when it is not there; with the owner's expiry, which is set only when there is none yet. */
static struct session *place(struct store_memory *m, uint32_t tag, struct span pid, uint64_t until_ms)
{
    struct session *s = find_session(m, tag, pid);
    if (!find_owner(m, tag)) {
        struct owner *o = must_alloc(sizeof(*o));
        *o = (struct owner){.next = m->owners, .tag = tag, .until_ms = until_ms};
        m->owners = o;
    }
    if (s)
        return s;
    s = must_alloc(sizeof(*s) + sizeof(tag) + pid.n);
    s->tag = tag;
    s->key_n = sizeof(tag) + pid.n;
    memcpy(s->key, &tag, sizeof(tag));
    if (pid.n)
        memcpy(s->key + sizeof(tag), pid.p, pid.n);
    HASH_ADD_KEYPTR(hh, m->sessions, s->key, s->key_n, s);
    return s;
}

static void extend(struct store_memory *m, struct mesh_origin id, uint64_t until_ms)
{
    struct mirror *mirror = find_mirror(m, id);
    struct owner *owner = find_owner(m, id.tag);
    if (mirror)
        mirror->until_ms = until_ms;
    if (owner)
        owner->until_ms = until_ms;
}

/* ---- what questions do ---- */

static void list_members(struct store_memory *m, struct question *q, uint64_t now_ms)
{
    for (struct origin *o = m->origins; o; o = o->next)
        q->n++;
    q->members = must_alloc(q->n * sizeof(*q->members));
    struct store_member *out = q->members;
    for (struct origin *o = m->origins; o; o = o->next, out++) {
        *out = (struct store_member){.origin = o->id, .lives = o->lease_until_ms > now_ms};
        if (!out->lives)
            continue;
        out->name = copy_text(q, &o->name);
        out->host = copy_text(q, &o->host);
        out->pub = copy_text(q, &o->pub);
        out->router = copy_text(q, &o->router);
    }
}

static int do_renew(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    struct store_memory *m = c->memory;
    struct mesh_origin id = q->self.origin;
    struct origin *o;
    for (o = m->origins; o; o = o->next)
        if (o->id.tag == id.tag && o->id.boot != id.boot)
            return ERR_STATE;
    o = find_origin(m, id);
    if (!o) {
        o = must_alloc(sizeof(*o));
        o->id = id;
        o->next = m->origins;
        m->origins = o;
    }
    o->until_ms = now_ms + q->keep_ms + TAG_GRACE_MS;
    o->lease_until_ms = now_ms + STORE_LEASE_MS;
    set_text(&o->name, q->self.name);
    set_text(&o->host, q->self.host);
    set_text(&o->pub, q->self.pub);
    set_text(&o->router, q->self.router);
    extend(m, id, now_ms + q->keep_ms);
    list_members(m, q, now_ms);
    return 0;
}

static int do_resign(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    struct origin *o = find_origin(c->memory, q->origin);
    if (o) {
        o->lease_until_ms = 0;
        o->until_ms = now_ms + q->keep_ms + TAG_GRACE_MS;
    }
    extend(c->memory, q->origin, now_ms + q->keep_ms);
    return 0;
}

static int do_append(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    struct mirror *mirror = find_mirror(c->memory, q->origin);
    struct batch **at, *b;
    if (c->memory->is_full)
        return ERR_STORE;
    if (!mirror) {
        mirror = must_alloc(sizeof(*mirror));
        *mirror =
            (struct mirror){.next = c->memory->mirrors, .id = q->origin, .until_ms = now_ms + q->keep_ms};
        c->memory->mirrors = mirror;
    }
    if (q->batch.last <= mirror->newest)
        return 0;
    for (at = &mirror->first; *at; at = &(*at)->next)
        ;
    *at = b = must_alloc(sizeof(*b));
    mirror->newest = b->last = q->batch.last;
    set_text(&b->records, q->batch.records);
    while (mirror->first && mirror->first->last < q->oldest) {
        b = mirror->first;
        mirror->first = b->next;
        free(b->records.p);
        free(b);
    }
    return 0;
}

static int do_read(struct store_memory_client *c, struct question *q)
{
    struct mirror *mirror = find_mirror(c->memory, q->origin);
    struct batch *b = mirror ? mirror->first : NULL, *first;
    while (b && b->last <= q->after)
        b = b->next;
    for (first = b; b && q->n < q->count; b = b->next)
        q->n++;
    q->batches = must_alloc(q->n * sizeof(*q->batches));
    for (unsigned i = 0; i < q->n; i++, first = first->next)
        q->batches[i] = (struct store_batch){first->last, copy_text(q, &first->records)};
    return 0;
}

static bool is_fenced(const struct session *s, uint64_t epoch)
{
    return s && (s->epoch > epoch || (s->has_moved && s->epoch == epoch));
}

static int do_put(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    struct session *s = find_session(c->memory, q->origin.tag, q->pid);
    if (is_fenced(s, q->epoch))
        return ERR_MOVED;
    if (c->memory->is_full)
        return ERR_STORE;
    s = place(c->memory, q->origin.tag, q->pid, now_ms + q->keep_ms);
    s->has_moved = false;
    s->epoch = q->epoch;
    set_text(&s->entry, q->entry);
    return 0;
}

static int do_drop(struct store_memory_client *c, struct question *q)
{
    struct session *s = find_session(c->memory, q->origin.tag, q->pid);
    if (is_fenced(s, q->epoch))
        return ERR_MOVED;
    if (s)
        session_free(c->memory, s);
    return 0;
}

static int do_claim(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    struct session *s = find_session(c->memory, q->owner, q->pid), *mine;
    struct owner *self = find_owner(c->memory, q->origin.tag);
    if (!s)
        return ERR_NOT_FOUND;
    q->claim.epoch = s->epoch;
    if (s->has_moved) {
        q->claim.moved_to = s->moved_to;
        return ERR_MOVED;
    }
    if (self)
        self->until_ms = now_ms + q->keep_ms;
    q->claim.entry = copy_text(q, &s->entry);
    q->claim.epoch++;
    s->has_moved = true;
    s->moved_to = q->origin.tag;
    s->epoch = q->claim.epoch;
    set_text(&s->entry, (struct span){NULL, 0});
    mine = place(c->memory, q->origin.tag, q->pid, now_ms + q->keep_ms);
    mine->has_moved = false;
    mine->epoch = q->claim.epoch;
    set_text(&mine->entry, q->claim.entry);
    return 0;
}

static void arrive(struct store_memory_client *c, struct question *q, uint64_t now_ms)
{
    q->has_arrived = true;
    expire(c->memory, now_ms);
    switch (q->call) {
    case RENEW:
        q->err = do_renew(c, q, now_ms);
        break;
    case RESIGN:
        q->err = do_resign(c, q, now_ms);
        break;
    case APPEND:
        q->err = do_append(c, q, now_ms);
        break;
    case READ:
        q->err = do_read(c, q);
        break;
    case PUT:
        q->err = do_put(c, q, now_ms);
        break;
    case DROP:
        q->err = do_drop(c, q);
        break;
    case CLAIM:
        q->err = do_claim(c, q, now_ms);
        break;
    }
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
    return must_alloc(sizeof(struct store_memory));
}

void store_memory_free(struct store_memory **m)
{
    if (!*m)
        return;
    MUST(!(*m)->clients);
    store_memory_lose(*m);
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
    m->is_full = is_full;
}

void store_memory_lose(struct store_memory *m)
{
    expire_origins(m, UINT64_MAX);
    expire_mirrors(m, UINT64_MAX);
    expire_owners(m, UINT64_MAX);
    drop_sessions(m, 0, true);
}

unsigned store_memory_owners(const struct store_memory *m, struct span pid, uint64_t now_ms)
{
    unsigned n = 0;
    for (struct owner *o = m->owners; o; o = o->next) {
        const struct session *s = find_session((struct store_memory *)m, o->tag, pid);
        n += s && !s->has_moved && o->until_ms > now_ms;
    }
    return n;
}
