/* Records are kept in the order of their arrival in one list, whose head is what goes next, for each origin in an array
 * by number, and, when they are emits, in an array for each room that they are for. All of these are in the order of
 * arrival and lose their oldest together, so an array is a ring whose start only moves on: an entry that goes is the
 * first one wherever it is. */
#include "ring.h"
#include "err.h"
#include "table.h"
#include "topic.h"
#include <stdlib.h>

/* Entries, oldest first. */
struct queue {
    struct entry **entry;
    size_t head, count, cap; /* cap: a power of two */
};

/* A room of a namespace, or the whole namespace. */
struct topic {
    struct queue queue;
    UT_hash_handle hh;
    uint32_t n;
    char name[]; /* length of the namespace in two bytes, namespace, room */
};

struct entry {
    struct entry *next; /* younger, of any origin */
    struct part *part;
    uint64_t order; /* of arrival */
    uint64_t seq, at_ms;
    uint32_t n, n_topics;
    struct topic *topic[]; /* then the record's bytes */
};

/* What is held of one origin. */
struct part {
    uint64_t key[2];
    uint64_t first; /* number of the oldest entry, when count > 0 */
    struct queue queue;
    UT_hash_handle hh;
};

struct ring {
    struct ring_options options;
    struct part *parts;
    struct part *last; /* that was added to: mostly the next one too */
    struct topic *topics;
    struct entry *oldest, **end;
    uint64_t bytes, order;
    bool is_held;
};

/* ---- queues ---- */

static int queue_reserve(struct queue *q)
{
    if (q->count < q->cap)
        return 0;
    size_t cap = q->cap ? q->cap * 2 : 4;
    struct entry **entry = malloc(cap * sizeof(struct entry *));
    if (!entry)
        return ERR_MEMORY;
    for (size_t i = 0; i < q->count; i++)
        entry[i] = q->entry[(q->head + i) & (q->cap - 1)];
    free(q->entry);
    q->entry = entry;
    q->head = 0;
    q->cap = cap;
    return 0;
}

static struct entry *queue_at(const struct queue *q, size_t i)
{
    return q->entry[(q->head + i) & (q->cap - 1)];
}

static void queue_put(struct queue *q, struct entry *e)
{
    q->entry[(q->head + q->count++) & (q->cap - 1)] = e;
}

static void queue_drop_first(struct queue *q)
{
    q->head = (q->head + 1) & (q->cap - 1);
    q->count--;
}

/* ---- parts and topics ---- */

struct ring *ring_new(const struct ring_options *o)
{
    struct ring *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->options = *o;
    r->end = &r->oldest;
    return r;
}

static struct part *find(const struct ring *r, struct mesh_origin origin)
{
    uint64_t key[2] = {origin.tag, origin.boot};
    struct part *p = r->last;
    if (p && p->key[0] == key[0] && p->key[1] == key[1])
        return p;
    HASH_FIND(hh, r->parts, key, sizeof(key), p);
    return p;
}

static struct part *obtain(struct ring *r, struct mesh_origin origin)
{
    struct part *p = find(r, origin);
    if (p) {
        r->last = p;
        return p;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->key[0] = origin.tag;
    p->key[1] = origin.boot;
    HASH_ADD(hh, r->parts, key, sizeof(p->key), p);
    return p;
}

static void drop_part(struct ring *r, struct part *p)
{
    if (r->last == p)
        r->last = NULL;
    HASH_DEL(r->parts, p);
    free(p->queue.entry);
    free(p);
}

static struct topic *find_topic(const struct ring *r, struct span nsp, struct span room)
{
    char name[TOPIC_BYTES];
    struct topic *t;
    HASH_FIND(hh, r->topics, name, topic_name(name, nsp, room), t);
    return t;
}

static struct topic *obtain_topic(struct ring *r, struct span nsp, struct span room)
{
    struct topic *t = find_topic(r, nsp, room);
    char name[TOPIC_BYTES];
    uint32_t n = topic_name(name, nsp, room);
    if (t)
        return t;
    t = calloc(1, sizeof(*t) + n);
    if (!t)
        return NULL;
    t->n = n;
    memcpy(t->name, name, n);
    HASH_ADD(hh, r->topics, name, n, t);
    r->bytes += sizeof(*t) + n;
    return t;
}

static void drop_topic_if_empty(struct ring *r, struct topic *t)
{
    if (t->queue.count > 0)
        return;
    HASH_DEL(r->topics, t);
    r->bytes -= sizeof(*t) + t->n;
    free(t->queue.entry);
    free(t);
}

/* ---- entries ---- */

static char *raw_of(const struct entry *e)
{
    return (char *)(uintptr_t)(e->topic + e->n_topics);
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof(*e) + e->n + sizeof(struct entry *) + 2 * e->n_topics * sizeof(struct topic *);
}

static void drop_oldest(struct ring *r)
{
    struct entry *e = r->oldest;
    struct part *p = e->part;
    r->oldest = e->next;
    if (!r->oldest)
        r->end = &r->oldest;
    r->bytes -= entry_bytes(e);
    if (p) { /* not of a part that was restarted */
        queue_drop_first(&p->queue);
        p->first++;
        if (p->queue.count == 0)
            drop_part(r, p);
    }
    for (uint32_t i = 0; i < e->n_topics; i++) {
        queue_drop_first(&e->topic[i]->queue);
        drop_topic_if_empty(r, e->topic[i]);
    }
    free(e);
}

void ring_free(struct ring **rp)
{
    struct ring *r = *rp;
    if (!r)
        return;
    while (r->oldest)
        drop_oldest(r);
    free(r);
    *rp = NULL;
}

static struct entry *new_entry(struct span raw, const struct mesh_emit *emit)
{
    unsigned most = !emit || emit->is_volatile ? 0 : emit->n_to ? emit->n_to : 1;
    struct entry *e = malloc(sizeof(*e) + most * sizeof(struct topic *) + raw.n);
    if (e)
        *e = (struct entry){.n = (uint32_t)raw.n};
    return e;
}

/* Into the queue of every room that the emit is for. */
static int enter_topics(struct ring *r, struct entry *e, const struct mesh_emit *emit)
{
    unsigned n = !emit || emit->is_volatile ? 0 : emit->n_to ? emit->n_to : 1;
    for (unsigned i = 0; i < n; i++) {
        struct topic *t = obtain_topic(r, emit->nsp, emit->n_to ? emit->to[i] : (struct span){"", 0});
        if (!t)
            return ERR_MEMORY;
        if (t->queue.count && queue_at(&t->queue, t->queue.count - 1) == e)
            continue; /* a room that is named twice */
        if (queue_reserve(&t->queue)) {
            drop_topic_if_empty(r, t);
            return ERR_MEMORY;
        }
        queue_put(&t->queue, e);
        e->topic[e->n_topics++] = t;
    }
    return 0;
}

/* Takes back what enter_topics() did: the entry is the last one everywhere. */
static void leave_topics(struct ring *r, struct entry *e)
{
    for (uint32_t i = 0; i < e->n_topics; i++) {
        e->topic[i]->queue.count--;
        drop_topic_if_empty(r, e->topic[i]);
    }
}

/* The newest one stays, however large it is. */
static void drop_excess(struct ring *r)
{
    while (!r->is_held && r->bytes > r->options.max_bytes && r->oldest && r->oldest->next)
        drop_oldest(r);
}

void ring_hold(struct ring *r)
{
    r->is_held = true;
}

void ring_let_go(struct ring *r)
{
    r->is_held = false;
    drop_excess(r);
}

int ring_add(struct ring *r, uint64_t now_ms, struct mesh_origin origin, uint64_t seq, struct span raw,
             const struct mesh_emit *emit)
{
    struct part *p = obtain(r, origin);
    if (!p)
        return ERR_MEMORY;
    if (r->options.no_rooms)
        emit = NULL;
    if (p->queue.count > 0 && seq != p->first + p->queue.count)
        return ERR_STATE;
    struct entry *e = new_entry(raw, emit);
    if (!e || queue_reserve(&p->queue) || enter_topics(r, e, emit)) {
        if (e)
            leave_topics(r, e);
        free(e);
        if (p->queue.count == 0)
            drop_part(r, p);
        return ERR_MEMORY;
    }
    e->part = p;
    e->seq = seq;
    e->at_ms = now_ms;
    e->order = r->order++;
    memcpy(raw_of(e), raw.p, raw.n);
    if (p->queue.count == 0)
        p->first = seq;
    queue_put(&p->queue, e);
    *r->end = e;
    r->end = &e->next;
    r->bytes += entry_bytes(e);
    drop_excess(r);
    return 0;
}

void ring_restart(struct ring *r, struct mesh_origin origin)
{
    struct part *p = find(r, origin);
    if (!p)
        return;
    /* The entries leave with their turn; nobody finds them until then. */
    for (size_t i = 0; i < p->queue.count; i++)
        queue_at(&p->queue, i)->part = NULL;
    drop_part(r, p);
}

bool ring_range(const struct ring *r, struct mesh_origin origin, uint64_t *first, uint64_t *last)
{
    const struct part *p = find(r, origin);
    if (!p)
        return false;
    *first = p->first;
    *last = p->first + p->queue.count - 1;
    return true;
}

struct span ring_get(const struct ring *r, struct mesh_origin origin, uint64_t seq)
{
    const struct part *p = find(r, origin);
    if (!p || seq < p->first || seq - p->first >= p->queue.count)
        return (struct span){NULL, 0};
    const struct entry *e = queue_at(&p->queue, (size_t)(seq - p->first));
    return (struct span){raw_of(e), e->n};
}

/* ---- by room ---- */

static uint64_t since_of(const struct offset *since, uint32_t tag)
{
    unsigned low = 0, high = since->n;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (since->entry[middle].origin < tag)
            low = middle + 1;
        else
            high = middle;
    }
    return low < since->n && since->entry[low].origin == tag ? since->entry[low].seq : 0;
}

/* Nothing that came before this can be wanted. */
static uint64_t first_order(const struct ring *r, const struct offset *since)
{
    uint64_t order = UINT64_MAX;
    for (const struct part *p = r->parts; p; p = p->hh.next) {
        uint64_t seq = since_of(since, (uint32_t)p->key[0]) + 1;
        if (seq < p->first)
            seq = p->first;
        if (seq - p->first < p->queue.count) {
            uint64_t at = queue_at(&p->queue, (size_t)(seq - p->first))->order;
            order = at < order ? at : order;
        }
    }
    return order;
}

/* The queue's first entry that is not older than order. */
static size_t lower_bound(const struct queue *q, uint64_t order)
{
    size_t low = 0, high = q->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (queue_at(q, middle)->order < order)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The queues of a search, walked through side by side: a heap, whose first one has the oldest entry. */
struct walk {
    const struct queue *queue;
    size_t at;
};

static struct entry *entry_at(const struct walk *w)
{
    return queue_at(w->queue, w->at);
}

static void sift_down(struct walk *w, unsigned n, unsigned i)
{
    for (;;) {
        unsigned oldest = i;
        for (unsigned child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (entry_at(&w[child])->order < entry_at(&w[oldest])->order)
                oldest = child;
        if (oldest == i)
            return;
        struct walk other = w[i];
        w[i] = w[oldest];
        w[oldest] = other;
        i = oldest;
    }
}

/* The oldest entry that is left, which is passed in every queue that has it; NULL: none. */
static const struct entry *next_of(struct walk *w, unsigned *n)
{
    const struct entry *next = *n > 0 ? entry_at(w) : NULL;
    while (*n > 0 && entry_at(w) == next) {
        if (++w->at == w->queue->count)
            *w = w[--*n];
        sift_down(w, *n, 0);
    }
    return next;
}

static void begin_walk(const struct ring *r, struct walk *w, unsigned *n, struct span nsp, struct span room,
                       uint64_t order)
{
    bool has_name = nsp.n <= LIMIT_NAMESPACE_BYTES && room.n <= LIMIT_ROOM_BYTES;
    const struct topic *t = has_name ? find_topic(r, nsp, room) : NULL;
    size_t at = t ? lower_bound(&t->queue, order) : 0;
    if (t && at < t->queue.count)
        w[(*n)++] = (struct walk){&t->queue, at};
}

/* All of the walks in the order of their entries, behind since, until f says false. */
static void visit(struct walk *w, unsigned n, const struct offset *since,
                  bool (*f)(void *user, const struct ring_found *), void *user)
{
    const struct entry *e;
    for (unsigned i = n / 2; i-- > 0;)
        sift_down(w, n, i);
    while ((e = next_of(w, &n))) {
        if (!e->part || e->seq <= since_of(since, (uint32_t)e->part->key[0]))
            continue;
        struct ring_found found = {.origin = {(uint32_t)e->part->key[0], e->part->key[1]},
                                   .seq = e->seq,
                                   .at_ms = e->at_ms,
                                   .raw = {raw_of(e), e->n}};
        if (!f(user, &found))
            return;
    }
}

int ring_search(const struct ring *r, const struct ring_search *s,
                bool (*f)(void *user, const struct ring_found *), void *user)
{
    struct walk *w = malloc((s->n_rooms + 1) * sizeof(*w));
    uint64_t order = first_order(r, s->since);
    unsigned n = 0;
    if (!w)
        return ERR_MEMORY;
    begin_walk(r, w, &n, s->nsp, (struct span){"", 0}, order);
    for (unsigned i = 0; i < s->n_rooms; i++)
        begin_walk(r, w, &n, s->nsp, s->rooms[i], order);
    visit(w, n, s->since, f, user);
    free(w);
    return 0;
}

static void begin_part(const struct part *p, struct walk *w, unsigned *n, const struct offset *since)
{
    uint64_t had = since_of(since, (uint32_t)p->key[0]);
    uint64_t at = had >= p->first ? had - p->first + 1 : 0;
    if (at < p->queue.count)
        w[(*n)++] = (struct walk){&p->queue, at};
}

int ring_walk(const struct ring *r, const struct offset *since,
              bool (*f)(void *user, const struct ring_found *), void *user)
{
    struct walk *w = malloc((HASH_COUNT(r->parts) + 1) * sizeof(*w));
    unsigned n = 0;
    if (!w)
        return ERR_MEMORY;
    for (const struct part *p = r->parts; p; p = p->hh.next)
        begin_part(p, w, &n, since);
    visit(w, n, since, f, user);
    free(w);
    return 0;
}

void ring_expire(struct ring *r, uint64_t now_ms)
{
    while (r->oldest && now_ms - r->oldest->at_ms > r->options.max_ms)
        drop_oldest(r);
}

uint64_t ring_bytes(const struct ring *r)
{
    return r->bytes;
}

uint64_t ring_window_ms(const struct ring *r, uint64_t now_ms)
{
    return r->oldest ? now_ms - r->oldest->at_ms : 0;
}
