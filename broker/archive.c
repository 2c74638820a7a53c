#include "archive.h"
#include "archive_private.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "ring.h"
#include <stdlib.h>

enum {
    FIRST_BATCHES = 4, /* of the first question, when nothing is known of their size */
    MAX_BATCHES = 1024,
    RETRY_MS = 50,
};

void archive_tell_held(const struct archive *a)
{
    metrics_set(a->metrics, METRIC_RECOVERY_HELD_BYTES, a->held_bytes);
}

/* ---- taking what is read ---- */

/* A batch with the numbers first..last follows what was read up to from - 1. */
static void choose_takers(struct sweep *s, uint64_t from, uint64_t first, uint64_t last)
{
    struct leg *next;
    for (struct leg *leg = s->legs; leg; leg = next) {
        next = leg->next;
        leg->takes = leg->wanted >= first && leg->wanted <= last;
        if (leg->wanted >= from && leg->wanted < first)
            fetch_give_up(leg->fetch, ERR_NOT_FOUND); /* it has been trimmed */
    }
}

/* False: this is not what a mirror holds. */
static bool take_batch(struct sweep *s, uint64_t from, const struct store_batch *batch, uint64_t received)
{
    struct mesh_record *record = &s->archive->record;
    struct mesh_reader reader = {batch->records.p, batch->records.p + batch->records.n};
    uint64_t due = 0;
    int got;
    while ((got = mesh_read(&reader, record)) == 1 && record->seq > 0 && (due == 0 || record->seq == due)) {
        if (due == 0)
            choose_takers(s, from, record->seq, batch->last);
        due = record->seq + 1;
        if (record->seq <= received)
            fetches_offer(s);
    }
    if (got != 0 || due != batch->last + 1)
        return false;
    for (struct leg *leg = s->legs; leg; leg = leg->next)
        if (leg->takes)
            leg->wanted = (batch->last < received ? batch->last : received) + 1;
    return true;
}

static struct peers_position find_position(const struct archive *a, struct mesh_origin origin)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(a->peers, position, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++)
        if (position[i].origin.tag == origin.tag && position[i].origin.boot == origin.boot)
            return position[i];
    return (struct peers_position){.received = 0};
}

/* The first number that the ring has, or would have. */
static uint64_t first_held(const struct archive *a, const struct peers_position *p)
{
    uint64_t first, last;
    return ring_range(peers_ring(a->peers), p->origin, &first, &last) ? first : p->received + 1;
}

static void settle(struct sweep *s, const struct peers_position *p)
{
    uint64_t end = first_held(s->archive, p);
    struct leg *next;
    for (struct leg *leg = s->legs; leg; leg = next) {
        next = leg->next;
        if (leg->wanted < end)
            continue;
        leg_settle(leg);
    }
}

/* ---- sweeps ---- */

static void drop_sweep(struct sweep *s)
{
    struct sweep **at = &s->archive->sweeps;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

static void give_up_all(struct sweep *s, int err)
{
    while (s->legs)
        fetch_give_up(s->legs->fetch, err);
}

static void comes_to_nothing(struct sweep *s, int err)
{
    struct archive *a = s->archive;
    uint64_t now = reactor_now_ms(a->reactor);
    if (s->vain_since_ms == 0)
        s->vain_since_ms = now;
    s->again_ms = now + RETRY_MS;
    if (!err && !find_position(a, s->origin).lives) /* of the dead nothing more comes */
        give_up_all(s, ERR_NOT_FOUND);
    else if (now - s->vain_since_ms >= a->options.patience_ms)
        give_up_all(s, err ? ERR_STORE : ERR_NOT_FOUND);
}

static void take_batches(struct sweep *s, const struct store_batch *batch, unsigned n)
{
    struct archive *a = s->archive;
    struct peers_position p = find_position(a, s->origin);
    uint64_t from = s->after + 1, bytes = 0;
    if (p.received == 0) /* forgotten meanwhile: it is over for long */
        give_up_all(s, ERR_NOT_FOUND);
    for (unsigned i = 0; i < n && s->legs; i++) {
        bytes += batch[i].records.n;
        if (!take_batch(s, from, &batch[i], p.received)) {
            log_event(LOG_WARN, "mirror_read", LOG_UINT("tag", s->origin.tag),
                      LOG_UINT("batch", batch[i].last), LOG_TEXT("error", "not what a node writes there"));
            give_up_all(s, ERR_NOT_FOUND);
        }
        from = batch[i].last + 1;
    }
    metrics_add(a->metrics, METRIC_RECOVERY_READ_BYTES, bytes);
    uint64_t count = LIMIT_RECOVERY_READ_BYTES / (bytes / n + 1);
    s->count = count < 1 ? 1 : count < MAX_BATCHES ? (unsigned)count : MAX_BATCHES;
    s->at = from - 1;
    s->vain_since_ms = s->again_ms = 0;
    settle(s, &p);
}

static void on_batches(void *user, int err, const struct store_batch *batch, unsigned n)
{
    struct sweep *s = user;
    struct archive *a = s->archive;
    s->is_asking = false;
    a->asking--;
    if (s->legs && (err || n == 0))
        comes_to_nothing(s, err);
    else if (s->legs)
        take_batches(s, batch, n);
    archive_tell_held(a);
    archive_go_on(a);
}

/* Goes on upwards while somebody waits there, else again from below. */
static uint64_t next_after(const struct sweep *s)
{
    uint64_t lowest = UINT64_MAX, ahead = UINT64_MAX;
    for (const struct leg *leg = s->legs; leg; leg = leg->next) {
        if (leg->wanted < lowest)
            lowest = leg->wanted;
        if (leg->wanted > s->at && leg->wanted < ahead)
            ahead = leg->wanted;
    }
    return (ahead < UINT64_MAX ? ahead : lowest) - 1;
}

static void ask(struct sweep *s)
{
    struct archive *a = s->archive;
    struct sweep **at = &a->sweeps;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    while (*at)
        at = &(*at)->next;
    *at = s; /* the others have their turn first */
    s->next = NULL;
    s->after = next_after(s);
    s->is_asking = true;
    a->asking++;
    metrics_add(a->metrics, METRIC_RECOVERY_READS, 1);
    a->store->calls->read(a->store->store, s->origin, s->after, s->count, on_batches, s);
}

static struct sweep *next_sweep(const struct archive *a)
{
    uint64_t now = reactor_now_ms(a->reactor);
    struct sweep *s = a->sweeps;
    while (s && (s->is_asking || !s->legs || s->again_ms > now))
        s = s->next;
    return s;
}

/* Nobody waits for them any more. */
static void drop_idle(struct archive *a)
{
    struct sweep *next;
    for (struct sweep *s = a->sweeps; s; s = next) {
        next = s->next;
        if (!s->legs && !s->is_asking)
            drop_sweep(s);
    }
}

void archive_go_on(struct archive *a)
{
    struct sweep *s;
    drop_idle(a);
    while (a->asking < LIMIT_RECOVERY_READS && (s = next_sweep(a)))
        ask(s);
    for (s = a->sweeps; s; s = s->next)
        if (!s->is_asking && s->again_ms && !timer_pending(&a->again))
            reactor_timer_set(a->reactor, &a->again, RETRY_MS);
}

static void on_again(struct timer *t)
{
    archive_go_on(container_of(t, struct archive, again));
}

struct sweep *archive_sweep(struct archive *a, struct mesh_origin origin)
{
    struct sweep *s = a->sweeps;
    while (s && (s->origin.tag != origin.tag || s->origin.boot != origin.boot))
        s = s->next;
    if (s)
        return s;
    s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    *s = (struct sweep){.next = a->sweeps, .archive = a, .origin = origin, .count = FIRST_BATCHES};
    a->sweeps = s;
    return s;
}

/* ---- life ---- */

struct archive *archive_new(struct reactor *r, struct metrics *metrics, const struct archive_options *o,
                            const struct store *store, struct peers *peers)
{
    struct archive *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->reactor = r;
    a->metrics = metrics;
    a->options = *o;
    a->store = store;
    a->peers = peers;
    a->done_end = &a->done;
    a->waiting_end = &a->waiting;
    a->tell.run = fetches_tell;
    timer_init(&a->again, on_again);
    return a;
}

void archive_free(struct archive **ap)
{
    struct archive *a = *ap;
    if (!a)
        return;
    reactor_undefer(a->reactor, &a->tell, REACTOR_WORK);
    reactor_timer_cancel(a->reactor, &a->again);
    while (a->sweeps)
        drop_sweep(a->sweeps);
    free(a);
    *ap = NULL;
}
