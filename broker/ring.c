/* Records are kept in the order of their arrival in one list, whose head is what goes next, and for each origin in an
 * array by number. Both lose their oldest together, so an origin's array is a ring whose start only moves on. */
#include "ring.h"
#include "err.h"
#include "table.h"
#include <stdlib.h>

struct entry {
    struct entry *next; /* younger, of any origin */
    struct part *part;
    uint64_t at_ms;
    uint32_t n;
    char raw[];
};

/* What is held of one origin. */
struct part {
    uint64_t key[2];
    uint64_t first; /* number of the oldest entry, when count > 0 */
    struct entry **entry;
    size_t head, count, cap; /* cap: a power of two */
    UT_hash_handle hh;
};

struct ring {
    struct ring_options options;
    struct part *parts;
    struct entry *oldest, **end;
    uint64_t bytes;
};

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
    struct part *p;
    HASH_FIND(hh, r->parts, key, sizeof(key), p);
    return p;
}

static struct part *obtain(struct ring *r, struct mesh_origin origin)
{
    struct part *p = find(r, origin);
    if (p)
        return p;
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
    HASH_DEL(r->parts, p);
    free(p->entry);
    free(p);
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof(*e) + e->n + sizeof(struct entry *);
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
        p->head = (p->head + 1) & (p->cap - 1);
        p->first++;
        if (--p->count == 0)
            drop_part(r, p);
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

static int make_room(struct part *p)
{
    if (p->count < p->cap)
        return 0;
    size_t cap = p->cap ? p->cap * 2 : 64;
    struct entry **entry = malloc(cap * sizeof(struct entry *));
    if (!entry)
        return ERR_MEMORY;
    for (size_t i = 0; i < p->count; i++)
        entry[i] = p->entry[(p->head + i) & (p->cap - 1)];
    free(p->entry);
    p->entry = entry;
    p->head = 0;
    p->cap = cap;
    return 0;
}

int ring_add(struct ring *r, uint64_t now_ms, struct mesh_origin origin, uint64_t seq, struct span raw)
{
    struct part *p = obtain(r, origin);
    if (!p)
        return ERR_MEMORY;
    if (p->count > 0 && seq != p->first + p->count)
        return ERR_STATE;
    struct entry *e = malloc(sizeof(*e) + raw.n);
    if (!e || make_room(p)) {
        free(e);
        if (p->count == 0)
            drop_part(r, p);
        return ERR_MEMORY;
    }
    *e = (struct entry){.part = p, .at_ms = now_ms, .n = (uint32_t)raw.n};
    memcpy(e->raw, raw.p, raw.n);
    if (p->count == 0)
        p->first = seq;
    p->entry[(p->head + p->count++) & (p->cap - 1)] = e;
    *r->end = e;
    r->end = &e->next;
    r->bytes += entry_bytes(e);
    while (r->bytes > r->options.max_bytes && r->oldest != e)
        drop_oldest(r);
    return 0;
}

void ring_restart(struct ring *r, struct mesh_origin origin)
{
    struct part *p = find(r, origin);
    if (!p)
        return;
    /* The entries leave with their turn; nobody finds them until then. */
    for (size_t i = 0; i < p->count; i++)
        p->entry[(p->head + i) & (p->cap - 1)]->part = NULL;
    drop_part(r, p);
}

bool ring_range(const struct ring *r, struct mesh_origin origin, uint64_t *first, uint64_t *last)
{
    const struct part *p = find(r, origin);
    if (!p)
        return false;
    *first = p->first;
    *last = p->first + p->count - 1;
    return true;
}

struct span ring_get(const struct ring *r, struct mesh_origin origin, uint64_t seq)
{
    const struct part *p = find(r, origin);
    if (!p || seq < p->first || seq - p->first >= p->count)
        return (struct span){NULL, 0};
    const struct entry *e = p->entry[(p->head + (size_t)(seq - p->first)) & (p->cap - 1)];
    return (struct span){e->raw, e->n};
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
