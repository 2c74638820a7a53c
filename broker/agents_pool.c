/* Who of many is least busy: a heap of members by their load, so that one of a thousand is found without looking at all.
 * Loads change under it. What has become busier is found at the top and sinks then; who has become less busy has to be
 * said (member_lighter()), or is seen at the next beat. */
#include "agents_private.h"
#include "err.h"
#include <stdlib.h>

bool member_before(const struct agents_member *a, const struct agents_member *b)
{
    if (a->seen_load != b->seen_load)
        return a->seen_load < b->seen_load;
    if ((a->reg != NULL) != (b->reg != NULL))
        return a->reg != NULL;
    return a->used < b->used;
}

static void put_at(struct pool *p, unsigned place, struct agents_member *m)
{
    p->heap[place] = m;
    m->place = place;
}

static void rise(struct pool *p, struct agents_member *m)
{
    unsigned place = m->place;
    for (; place > 0 && member_before(m, p->heap[(place - 1) / 2]); place = (place - 1) / 2)
        put_at(p, place, p->heap[(place - 1) / 2]);
    put_at(p, place, m);
}

static void sink(struct pool *p, struct agents_member *m)
{
    unsigned place = m->place, child;
    while ((child = 2 * place + 1) < p->n) {
        if (child + 1 < p->n && member_before(p->heap[child + 1], p->heap[child]))
            child++;
        if (!member_before(p->heap[child], m))
            break;
        put_at(p, place, p->heap[child]);
        place = child;
    }
    put_at(p, place, m);
}

int pool_add(struct pool *p, struct agents_member *m)
{
    if (p->n == p->cap) {
        unsigned cap = p->cap ? 2 * p->cap : 4;
        struct agents_member **more = realloc(p->heap, cap * sizeof(struct agents_member *));
        if (!more)
            return ERR_MEMORY;
        p->heap = more;
        p->cap = cap;
    }
    m->pool = p;
    m->seen_load = member_load(m);
    put_at(p, p->n++, m);
    rise(p, m);
    return 0;
}

void pool_remove(struct agents_member *m)
{
    struct pool *p = m->pool;
    struct agents_member *last = p->heap[--p->n];
    m->pool = NULL;
    if (last == m)
        return;
    put_at(p, m->place, last);
    rise(p, last);
    sink(p, last);
}

void pool_free(struct pool *p)
{
    free(p->heap);
    *p = (struct pool){.n = 0};
}

struct agents_member *pool_least(struct pool *p)
{
    struct agents_member *m = NULL;
    while (p->n > 0 && p->heap[0] != m) {
        m = p->heap[0];
        m->seen_load = member_load(m);
        sink(p, m);
    }
    return m;
}

void member_lighter(struct agents_member *m)
{
    uint64_t load = member_load(m);
    if (!m->pool || load > m->seen_load)
        return;
    m->seen_load = load;
    rise(m->pool, m);
}

void member_used(struct agents *g, struct agents_member *m)
{
    m->used = ++g->used;
    m->seen_load = member_load(m);
    rise(m->pool, m);
    sink(m->pool, m);
}
