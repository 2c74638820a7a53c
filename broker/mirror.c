#include "mirror.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "ring.h"
#include <stdlib.h>

enum {
    WAIT_MS = 5,             /* for more to send with it */
    BATCH_BYTES = 64 * 1024, /* sent without waiting */
    RETRY_MS = 200,
    READ_BATCHES = 32, /* of one question */
    MARKS = 256,
};

/* Which number was the newest at which time, for trimming. */
struct mark {
    uint64_t at_ms, seq;
};

/* A dead origin whose last words are looked for. It may have gone on for a while after it was heard last: all that it has
 * said was read when it was read after its lease had ended. */
struct tail {
    struct tail *next;
    struct mesh_origin origin;
    bool is_reading, was_read;
    uint64_t ended_ms; /* since when the store has not said that it lives; 0: it does */
};

/* An origin that is being read. */
struct reading {
    struct reading *next;
    struct mirror *mirror;
    struct mesh_origin origin;
    uint64_t after;
    bool is_start;     /* mirror_fill() waits for it */
    uint64_t last_ms;  /* of a start: when it was there last, */
    bool goes_on;      /* and that it says more may be */
    bool is_last;      /* its lease had ended long before */
    struct tail *tail; /* NULL: it is of a start */
};

struct mirror {
    struct reactor *reactor;
    struct metrics *metrics;
    struct mirror_options options;
    const struct store *store;
    struct peers *peers;
    struct timer timer;
    uint64_t acked; /* the store has all up to this number */
    uint64_t sent;  /* in the append that is under way */
    bool is_sending;
    struct tail *tails;
    struct reading *readings; /* their answers are owed, but for the first fill's that wait for their turn */
    unsigned filling;
    void (*done)(void *user);
    void *done_user;
    struct mark mark[MARKS];
    unsigned first_mark, n_marks;
    msgpack_sbuffer batch;
};

/* ---- appending ---- */

static void set_mark(struct mirror *m, uint64_t seq)
{
    uint64_t now = reactor_now_ms(m->reactor);
    struct mark *last = m->n_marks ? &m->mark[(m->first_mark + m->n_marks - 1) % MARKS] : NULL;
    if (last && now - last->at_ms < m->options.window_ms / (MARKS - 2))
        return;
    if (m->n_marks == MARKS) {
        m->first_mark = (m->first_mark + 1) % MARKS;
        m->n_marks--;
    }
    m->mark[(m->first_mark + m->n_marks++) % MARKS] = (struct mark){now, seq};
}

/* The first number that is young enough to be kept. */
static uint64_t oldest_kept(struct mirror *m)
{
    uint64_t now = reactor_now_ms(m->reactor), oldest = 0;
    while (m->n_marks > 1 && now - m->mark[(m->first_mark + 1) % MARKS].at_ms > m->options.window_ms) {
        m->first_mark = (m->first_mark + 1) % MARKS;
        m->n_marks--;
    }
    if (m->n_marks && now - m->mark[m->first_mark].at_ms > m->options.window_ms)
        oldest = m->mark[m->first_mark].seq;
    return oldest;
}

static void retry_later(struct mirror *m)
{
    if (!timer_pending(&m->timer))
        reactor_timer_set(m->reactor, &m->timer, RETRY_MS);
}

static void tell_behind(struct mirror *m)
{
    metrics_set(m->metrics, METRIC_MIRROR_BEHIND, peers_newest(m->peers) - m->acked);
}

static void on_appended(void *user, int err)
{
    struct mirror *m = user;
    m->is_sending = false;
    if (err) {
        retry_later(m);
        return;
    }
    m->acked = m->sent;
    tell_behind(m);
    if (peers_newest(m->peers) > m->acked)
        mirror_wake(m);
}

/* What the ring has lost before it could be sent. */
static void skip_lost(struct mirror *m, uint64_t first)
{
    log_event(LOG_WARN, "mirror_gap", LOG_UINT("from", m->acked + 1), LOG_UINT("to", first - 1));
    metrics_add(m->metrics, METRIC_MIRROR_LOST, first - 1 - m->acked);
    m->acked = first - 1;
}

/* Fills m->batch. False: there is nothing. */
static bool collect(struct mirror *m)
{
    const struct ring *ring = peers_ring(m->peers);
    struct peers_position self;
    uint64_t first, last;
    peers_positions(m->peers, &self, 1);
    if (!ring_range(ring, self.origin, &first, &last) || last <= m->acked)
        return false;
    if (first > m->acked + 1)
        skip_lost(m, first);
    msgpack_sbuffer_clear(&m->batch);
    for (m->sent = m->acked; m->sent < last && m->batch.size < BATCH_BYTES; m->sent++) {
        struct span raw = ring_get(ring, self.origin, m->sent + 1);
        if (msgpack_sbuffer_write(&m->batch, raw.p, raw.n))
            break;
    }
    return m->sent > m->acked;
}

static void send_next(struct mirror *m)
{
    reactor_timer_cancel(m->reactor, &m->timer);
    if (m->is_sending || !collect(m))
        return;
    m->is_sending = true;
    set_mark(m, m->sent);
    struct store_batch batch = {.last = m->sent, .records = {m->batch.data, m->batch.size}};
    m->store->calls->append(m->store->store, &batch, oldest_kept(m), on_appended, m);
}

static void on_timer(struct timer *t)
{
    send_next(container_of(t, struct mirror, timer));
}

void mirror_wake(struct mirror *m)
{
    tell_behind(m);
    if (!m->is_sending && !timer_pending(&m->timer))
        reactor_timer_set(m->reactor, &m->timer, WAIT_MS);
}

void mirror_hurry(struct mirror *m)
{
    send_next(m);
}

bool mirror_has(const struct mirror *m, uint64_t seq)
{
    return m->acked >= seq;
}

void mirror_resume(struct mirror *m)
{
    send_next(m);
}

/* ---- reading ---- */

static void read_more(struct reading *r);

static void drop_tail(struct mirror *m, struct tail *t)
{
    struct tail **at = &m->tails;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
}

static bool same_origin(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

/* A dead origin, as far as this node knows: NULL: there is none in the list, and no memory for it. */
static struct tail *obtain_tail(struct mirror *m, struct mesh_origin origin)
{
    struct tail *t = m->tails;
    while (t && !same_origin(t->origin, origin))
        t = t->next;
    if (t)
        return t;
    t = calloc(1, sizeof(*t));
    if (t) {
        *t = (struct tail){.next = m->tails, .origin = origin};
        m->tails = t;
    }
    return t;
}

static void end_reading(struct reading *r, int err)
{
    struct mirror *m = r->mirror;
    struct reading **at = &m->readings;
    bool is_start = r->is_start;
    if (is_start && !err) {
        peers_fill(m->peers, r->origin, (struct span){"", 0}); /* there may have been nothing */
        peers_date(m->peers, r->origin, reactor_now_ms(m->reactor) - r->last_ms);
    }
    if (is_start && (err || r->goes_on)) /* this node may never hear it itself, and so never find it dead */
        obtain_tail(m, r->origin);
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    if (r->tail) {
        r->tail->is_reading = false;
        r->tail->was_read = true;
    }
    if (r->tail && !err && r->is_last)
        drop_tail(m, r->tail);
    free(r);
    if (is_start && --m->filling == 0)
        m->done(m->done_user);
}

static void on_batches(void *user, int err, const struct store_batch *batch, unsigned n)
{
    struct reading *r = user;
    for (unsigned i = 0; i < n && !err; i++) {
        err = peers_fill(r->mirror->peers, r->origin, batch[i].records);
        r->after = batch[i].last;
    }
    if (err)
        log_event(LOG_WARN, "mirror_read", LOG_UINT("tag", r->origin.tag), LOG_TEXT("error", err_text(err)));
    if (err || n == 0)
        end_reading(r, err);
    else
        read_more(r);
}

static void read_more(struct reading *r)
{
    const struct store *store = r->mirror->store;
    store->calls->read(store->store, r->origin, r->after, READ_BATCHES, on_batches, r);
}

static struct reading *new_reading(struct mirror *m, struct mesh_origin origin, uint64_t after)
{
    struct reading *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    *r = (struct reading){.next = m->readings, .mirror = m, .origin = origin, .after = after};
    m->readings = r;
    return r;
}

void mirror_fill(struct mirror *m, const struct store_member *members, unsigned n, void (*done)(void *user),
                 void *user)
{
    struct peers_position self;
    m->done = done;
    m->done_user = user;
    m->filling = 1; /* this call's own */
    peers_positions(m->peers, &self, 1);
    for (unsigned i = 0; i < n; i++) {
        struct reading *r =
            members[i].origin.tag == self.origin.tag ? NULL : new_reading(m, members[i].origin, 0);
        if (!r)
            continue;
        r->is_start = true;
        r->last_ms = reactor_now_ms(m->reactor) - members[i].silent_ms;
        r->goes_on = members[i].lives;
        m->filling++;
        read_more(r);
    }
    if (--m->filling == 0)
        done(user);
}

/* ---- the last words of the dead ---- */

static void read_tail(struct mirror *m, struct tail *t, uint64_t received)
{
    struct reading *r = t->is_reading ? NULL : new_reading(m, t->origin, received);
    if (!r)
        return;
    r->tail = t;
    /* A store that has forgotten everything is told by who lives, soon. */
    r->is_last = t->ended_ms && reactor_now_ms(m->reactor) - t->ended_ms >= STORE_LEASE_MS;
    t->is_reading = true;
    read_more(r);
}

void mirror_settle(struct mirror *m, struct mesh_origin origin, uint64_t received)
{
    struct tail *t = obtain_tail(m, origin);
    if (t)
        read_tail(m, t, received);
}

bool mirror_is_settled(const struct mirror *m)
{
    for (const struct tail *t = m->tails; t; t = t->next)
        if (!t->was_read)
            return false;
    return true;
}

static bool is_listed_alive(const struct store_member *members, unsigned n, struct mesh_origin origin)
{
    for (unsigned i = 0; i < n; i++)
        if (same_origin(members[i].origin, origin))
            return members[i].lives;
    return false;
}

/* False: it is heard again, or not known here any more. */
static bool is_dead(const struct mirror *m, struct mesh_origin origin, uint64_t *received)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(m->peers, position, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++) {
        if (!same_origin(position[i].origin, origin))
            continue;
        *received = position[i].received;
        return !position[i].lives;
    }
    return false;
}

void mirror_on_members(struct mirror *m, const struct store_member *members, unsigned n)
{
    struct tail *next;
    for (unsigned i = 0; i < n; i++)
        peers_date(m->peers, members[i].origin, members[i].silent_ms);
    for (struct tail *t = m->tails; t; t = next) {
        uint64_t received;
        next = t->next;
        if (is_listed_alive(members, n, t->origin))
            t->ended_ms = 0;
        else if (t->ended_ms == 0)
            t->ended_ms = reactor_now_ms(m->reactor);
        if (is_dead(m, t->origin, &received))
            read_tail(m, t, received);
        else if (!t->is_reading)
            drop_tail(m, t);
    }
}

/* ---- what the store has of others ---- */

struct question {
    void (*done)(void *user, bool has);
    void *user;
};

static void on_found(void *user, int err, const struct store_batch *batch, unsigned n)
{
    struct question q = *(struct question *)user;
    (void)batch;
    free(user);
    q.done(q.user, err == 0 && n > 0);
}

void mirror_look_up(struct mirror *m, struct mesh_origin origin, uint64_t seq,
                    void (*done)(void *user, bool has), void *user)
{
    struct question *q = malloc(sizeof(*q));
    if (!q) {
        done(user, false);
        return;
    }
    *q = (struct question){done, user};
    m->store->calls->read(m->store->store, origin, seq - 1, 1, on_found, q);
}

/* ---- start and end ---- */

struct mirror *mirror_new(struct reactor *r, struct metrics *metrics, const struct mirror_options *o,
                          const struct store *store, struct peers *peers)
{
    struct mirror *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->reactor = r;
    m->metrics = metrics;
    m->options = *o;
    m->store = store;
    m->peers = peers;
    timer_init(&m->timer, on_timer);
    msgpack_sbuffer_init(&m->batch);
    return m;
}

void mirror_free(struct mirror **mp)
{
    struct mirror *m = *mp;
    if (!m)
        return;
    reactor_timer_cancel(m->reactor, &m->timer);
    while (m->readings) {
        struct reading *r = m->readings;
        m->readings = r->next;
        free(r);
    }
    while (m->tails)
        drop_tail(m, m->tails);
    msgpack_sbuffer_destroy(&m->batch);
    free(m);
    *mp = NULL;
}
