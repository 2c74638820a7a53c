/* Which groups are concerned by what happens in a namespace: found once for each event, or part of a socket's life, and
 * kept until a registration comes or goes, so that a thousand groups cost an event no more than those that handle it.
 * Clients choose the names of events: the table is bounded, and begun anew when it is full. */
#include "agents_private.h"
#include <stdlib.h>

enum { ROUTES_MAX = 4096, KEY_BYTES = 3 + LIMIT_NAMESPACE_BYTES + LIMIT_EVENT_NAME_BYTES };

struct route {
    UT_hash_handle hh;
    uint64_t registrations; /* as g->registrations, when it was found */
    unsigned n;
    struct group **groups;
    uint32_t key_n;
    char key[]; /* part of the life, or 0; length of the namespace in two bytes; namespace, event */
};

static void drop_route(struct agents *g, struct route *r)
{
    HASH_DEL(g->routes, r);
    free(r->groups);
    free(r);
}

void routes_free(struct agents *g)
{
    while (g->routes)
        drop_route(g, g->routes);
}

static bool concerns(const struct group *group, struct span nsp, struct span event, unsigned life)
{
    if (event.n == 0 && !(group->life & life))
        return false;
    for (const struct shape *shape = group->shapes; shape; shape = shape->next) {
        const struct agents_member *m = shape->pool.heap[0];
        if (event.n ? member_fits_event(m, nsp, event) : member_fits_life(m, nsp, life))
            return true;
    }
    return false;
}

/* False: no memory. */
static bool fill(struct agents *g, struct route *r, struct span nsp, struct span event, unsigned life)
{
    r->n = 0;
    for (struct group *group = g->groups; group; group = group->hh.next)
        r->n += concerns(group, nsp, event, life);
    struct group **groups = realloc(r->groups, (r->n + 1) * sizeof(struct group *));
    if (!groups)
        return false;
    r->groups = groups;
    r->n = 0;
    for (struct group *group = g->groups; group; group = group->hh.next)
        if (concerns(group, nsp, event, life))
            groups[r->n++] = group;
    r->registrations = g->registrations;
    return true;
}

static struct route *add_route(struct agents *g, struct span key)
{
    if (HASH_COUNT(g->routes) >= ROUTES_MAX)
        routes_free(g);
    struct route *r = calloc(1, sizeof(*r) + key.n);
    if (!r)
        return NULL;
    r->key_n = (uint32_t)key.n;
    memcpy(r->key, key.p, key.n);
    HASH_ADD(hh, g->routes, key, r->key_n, r);
    return r;
}

unsigned routes_find(struct agents *g, struct span nsp, struct span event, unsigned life,
                     struct group *const **groups)
{
    char text[KEY_BYTES], *p = text;
    struct route *r;
    if (!g->groups || nsp.n > LIMIT_NAMESPACE_BYTES || event.n > LIMIT_EVENT_NAME_BYTES)
        return 0;
    *p++ = (char)life;
    *p++ = (char)(nsp.n >> 8);
    *p++ = (char)nsp.n;
    p = mempcpy(p, nsp.p, nsp.n);
    p = mempcpy(p, event.p, event.n);
    struct span key = {text, (size_t)(p - text)};
    HASH_FIND(hh, g->routes, key.p, key.n, r);
    if (!r)
        r = add_route(g, key);
    if (!r)
        return 0;
    if (r->registrations != g->registrations && !fill(g, r, nsp, event, life)) {
        drop_route(g, r);
        return 0;
    }
    *groups = r->groups;
    return r->n;
}
