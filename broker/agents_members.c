/* Registrations, and who of those in a group or at an address gets something. */
#include "agents_private.h"
#include "err.h"
#include <stdlib.h>

/* ---- members ---- */

struct agents_member *member_find(struct agents *g, struct mesh_origin origin, uint64_t number)
{
    struct member_key key = {origin.tag, origin.boot, number};
    struct agents_member *m;
    HASH_FIND(hh, g->members, &key, sizeof(key), m);
    return m;
}

static bool namespace_fits(struct span pattern, struct span nsp)
{
    bool is_admin = nsp.n >= 6 && memcmp(nsp.p, "/admin", 6) == 0;
    return span_eq(pattern, nsp) || (span_eq(pattern, SPAN("*")) && !is_admin);
}

bool patterns_fit_namespace(const struct span *patterns, unsigned n, struct span nsp)
{
    bool fits = n == 0 && span_eq(nsp, SPAN("/"));
    for (unsigned i = 0; i < n && !fits; i++)
        fits = namespace_fits(patterns[i], nsp);
    return fits;
}

bool patterns_fit_event(const struct span *patterns, unsigned n, struct span event)
{
    bool fits = false;
    for (unsigned i = 0; i < n && !fits; i++)
        fits = agent_pattern_fits(patterns[i], event);
    return fits;
}

bool member_fits_event(const struct agents_member *m, struct span nsp, struct span event)
{
    return patterns_fit_event(m->patterns + m->n_namespaces, m->n_events, event) &&
           patterns_fit_namespace(m->patterns, m->n_namespaces, nsp);
}

bool member_fits_life(const struct agents_member *m, struct span nsp, unsigned life)
{
    return (m->life & life) && patterns_fit_namespace(m->patterns, m->n_namespaces, nsp);
}

static bool reg_is_full(const struct reg *reg)
{
    return agent_is_full(reg->agent) || (reg->limit > 0 && reg->unanswered >= reg->limit);
}

uint64_t member_load(const struct agents_member *m)
{
    if (!m->reg)
        return m->own + m->others;
    return m->reg->unanswered + (reg_is_full(m->reg) ? GATEWAY_FULL : 0);
}

struct span *spans_copy(const struct span *a, unsigned n_a, const struct span *b, unsigned n_b)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < n_a + n_b; i++)
        bytes += i < n_a ? a[i].n : b[i - n_a].n;
    struct span *copy = malloc((n_a + n_b) * sizeof(*copy) + bytes + 1);
    char *p = (char *)(copy + n_a + n_b);
    for (unsigned i = 0; copy && i < n_a + n_b; i++) {
        struct span from = i < n_a ? a[i] : b[i - n_a];
        copy[i] = (struct span){p, from.n};
        p = mempcpy(p, from.p, from.n);
    }
    return copy;
}

/* ---- groups and addresses ---- */

static struct group *obtain_group(struct agents *g, struct span name)
{
    struct group *group;
    HASH_FIND(hh, g->groups, name.p, name.n, group);
    if (group)
        return group;
    group = calloc(1, sizeof(*group) + name.n);
    if (!group)
        return NULL;
    group->name_n = (uint32_t)name.n;
    memcpy(group->name, name.p, name.n);
    HASH_ADD(hh, g->groups, name, group->name_n, group);
    return group;
}

struct address *address_find(struct agents *g, struct span name)
{
    struct address *address;
    HASH_FIND(hh, g->addresses, name.p, name.n, address);
    return address;
}

struct address *address_obtain(struct agents *g, struct span name)
{
    struct address *address = address_find(g, name);
    if (address)
        return address;
    address = calloc(1, sizeof(*address) + name.n);
    if (!address)
        return NULL;
    address->name_n = (uint32_t)name.n;
    memcpy(address->name, name.p, name.n);
    HASH_ADD(hh, g->addresses, name, address->name_n, address);
    return address;
}

void address_drop_if_unused(struct agents *g, struct address *address)
{
    if (address->members.n > 0 || address->watchers)
        return;
    HASH_DELETE(hh, g->addresses, address);
    pool_free(&address->members);
    free(address);
}

static void sum_life(struct group *group)
{
    group->life = 0;
    for (const struct shape *shape = group->shapes; shape; shape = shape->next)
        group->life |= shape->pool.heap[0]->life;
}

static void drop_sticky(struct group *group, struct sticky *s)
{
    HASH_DELETE(hh, group->stickies, s);
    free(s);
}

static void drop_group_if_empty(struct agents *g, struct group *group)
{
    if (group->shapes)
        return;
    while (group->stickies)
        drop_sticky(group, group->stickies);
    HASH_DELETE(hh, g->groups, group);
    free(group);
}

void groups_forget_session(struct agents *g, struct span sid)
{
    struct sticky *s;
    for (struct group *group = g->groups; group; group = group->hh.next) {
        HASH_FIND(hh, group->stickies, sid.p, ID_CHARS, s);
        if (s)
            drop_sticky(group, s);
    }
}

/* Watchers hear when an address has its first actor, or none any more. */
void address_tell_watchers(struct agents *g, struct address *address, const char *reason)
{
    bool is_alive = address->members.n > 0;
    if (is_alive == address->is_alive)
        return;
    address->is_alive = is_alive;
    for (struct reg *reg = address->watchers; reg; reg = reg->watch_next) {
        struct agent_record *r = agents_out(g, is_alive ? AGENT_BACK : AGENT_GONE);
        r->reg = reg->id;
        r->reason = span_of(reason);
        reg_put(reg, r, NULL);
    }
}

/* ---- who gets it ---- */

static bool fits(const struct agents_member *m, struct span nsp, struct span event, unsigned life)
{
    return event.n ? member_fits_event(m, nsp, event) : member_fits_life(m, nsp, life);
}

static uint64_t hash_bytes(const void *bytes, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
    return h;
}

/* Every node gives one pair of session and member the same rank. */
static uint64_t rank(const struct agents_member *m, uint64_t session)
{
    uint64_t h = m->hash ^ session;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

/* observe: of those who only look on, or of the others. gone: an origin whose members do not count; tag 0: none. */
static struct agents_member *choose_by_rank(struct group *group, bool observe, struct span nsp,
                                            struct span event, unsigned life, struct span sid,
                                            struct mesh_origin gone)
{
    uint64_t session = hash_bytes(sid.p, sid.n), best_rank = 0;
    struct agents_member *best = NULL;
    for (struct shape *shape = group->shapes; shape; shape = shape->next) {
        if (shape->pool.heap[0]->observe != observe || !fits(shape->pool.heap[0], nsp, event, life))
            continue;
        for (unsigned i = 0; i < shape->pool.n; i++) {
            struct agents_member *m = shape->pool.heap[i];
            uint64_t its_rank = rank(m, session);
            if ((best && its_rank <= best_rank) || same_origin(m->origin, gone))
                continue;
            best = m;
            best_rank = its_rank;
        }
    }
    return best;
}

/* The one that it had before, as long as that is there. Who is new is looked for among all of them. */
static struct agents_member *choose_sticky(struct agents *g, struct group *group, bool observe,
                                           struct span nsp, struct span event, unsigned life, struct span sid)
{
    struct agents_member *known = NULL;
    struct sticky *s;
    HASH_FIND(hh, group->stickies, sid.p, ID_CHARS, s);
    if (s)
        HASH_FIND(hh, g->members, &s->key, sizeof(s->key), known);
    if (known && known->observe == observe && fits(known, nsp, event, life))
        return known;
    struct agents_member *best =
        choose_by_rank(group, observe, nsp, event, life, sid, (struct mesh_origin){.tag = 0, .boot = 0});
    if (!best || known)
        return best;
    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            return best;
        memcpy(s->sid, sid.p, ID_CHARS);
        HASH_ADD(hh, group->stickies, sid, ID_CHARS, s);
    }
    s->key = best->key;
    return best;
}

/* Who only looks on gets what nobody of the group answers. */
static bool is_better(const struct agents_member *m, const struct agents_member *than)
{
    return m->observe == than->observe ? member_before(m, than) : than->observe;
}

struct agents_member *group_choose(struct agents *g, struct group *group, struct span nsp, struct span event,
                                   unsigned life, struct span sid)
{
    struct agents_member *best = NULL;
    bool sticky = false;
    if (event.n == 0 && !(group->life & life))
        return NULL;
    for (struct shape *shape = group->shapes; shape; shape = shape->next) {
        if (!fits(shape->pool.heap[0], nsp, event, life))
            continue;
        struct agents_member *m = pool_least(&shape->pool);
        sticky = sticky || m->sticky;
        if (!best || is_better(m, best))
            best = m;
    }
    if (best && sticky && sid.n == ID_CHARS)
        best = choose_sticky(g, group, best->observe, nsp, event, life, sid);
    if (best)
        member_used(g, best);
    return best;
}

struct agents_member *group_choose_alike(struct group *group, struct span nsp, unsigned life, struct span sid,
                                         struct mesh_origin gone)
{
    struct agents_member *m = choose_by_rank(group, false, nsp, SPAN(""), life, sid, gone);
    return m ? m : choose_by_rank(group, true, nsp, SPAN(""), life, sid, gone);
}

struct agents_member *address_choose(struct agents *g, struct address *address)
{
    struct agents_member *best = pool_least(&address->members);
    if (best)
        member_used(g, best);
    return best;
}

/* ---- making and removing ---- */

static bool spans_equal(const struct span *a, const struct span *b, unsigned n)
{
    bool equal = true;
    for (unsigned i = 0; i < n && equal; i++)
        equal = span_eq(a[i], b[i]);
    return equal;
}

static bool is_alike(const struct agents_member *a, const struct agents_member *b)
{
    return a->life == b->life && a->sticky == b->sticky && a->observe == b->observe &&
           a->n_namespaces == b->n_namespaces && a->n_events == b->n_events &&
           spans_equal(a->patterns, b->patterns, a->n_namespaces + a->n_events);
}

static struct shape *shape_of(struct group *group, const struct agents_member *m)
{
    struct shape *shape = group->shapes;
    while (shape && !is_alike(shape->pool.heap[0], m))
        shape = shape->next;
    return shape;
}

static int enter_group(struct group *group, struct agents_member *m)
{
    struct shape *shape = shape_of(group, m);
    if (shape)
        return pool_add(&shape->pool, m);
    shape = calloc(1, sizeof(*shape));
    if (!shape || pool_add(&shape->pool, m)) {
        free(shape);
        return ERR_MEMORY;
    }
    shape->next = group->shapes;
    group->shapes = shape;
    return 0;
}

static void leave_group(struct group *group, struct agents_member *m)
{
    struct shape *shape = shape_of(group, m), **at = &group->shapes;
    pool_remove(m);
    if (shape->pool.n > 0)
        return;
    while (*at != shape)
        at = &(*at)->next;
    *at = shape->next;
    pool_free(&shape->pool);
    free(shape);
}

static int link_member(struct agents *g, struct agents_member *m)
{
    if (m->group ? enter_group(m->group, m) : pool_add(&m->address->members, m))
        return ERR_MEMORY;
    g->registrations += m->group != NULL;
    HASH_ADD(hh, g->members, key, sizeof(m->key), m);
    if (m->group)
        m->group->life |= m->life;
    else
        address_tell_watchers(g, m->address, "");
    return 0;
}

/* Of one that is nowhere yet. */
static void discard(struct agents *g, struct agents_member *m)
{
    if (m->group)
        drop_group_if_empty(g, m->group);
    if (m->address)
        address_drop_if_unused(g, m->address);
    free(m->patterns);
    free(m);
}

/* r: HANDLE or REGISTER. */
struct agents_member *member_new(struct agents *g, struct mesh_origin origin, uint64_t number,
                                 struct span name, const struct agent_record *r)
{
    bool is_handle = r->kind == AGENT_HANDLE;
    struct agents_member *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->key = (struct member_key){origin.tag, origin.boot, number};
    m->hash = hash_bytes(&m->key, sizeof(m->key));
    m->origin = origin;
    memcpy(m->name, name.p, name.n);
    m->sticky = r->sticky;
    m->observe = r->observe;
    m->shared = r->shared;
    m->life = is_handle ? r->life : 0;
    m->deadline_ms = agents_deadline(r->deadline_ms);
    m->n_namespaces = r->n_namespaces;
    m->n_events = is_handle ? r->n_events : 0;
    m->patterns = spans_copy(r->namespaces, r->n_namespaces, r->events, m->n_events);
    if (is_handle)
        m->group = obtain_group(g, agent_has(r, AGENT_F_GROUP) ? r->group : name);
    else
        m->address = address_obtain(g, r->address);
    if (m->patterns && (m->group || m->address) && link_member(g, m) == 0)
        return m;
    discard(g, m);
    return NULL;
}

void member_remove(struct agents *g, struct agents_member *m, const char *reason)
{
    HASH_DELETE(hh, g->members, m);
    if (m->group) {
        g->registrations++;
        leave_group(m->group, m);
        sum_life(m->group);
        drop_group_if_empty(g, m->group);
    } else {
        pool_remove(m);
        address_tell_watchers(g, m->address, m->reason[0] ? m->reason : reason);
        address_drop_if_unused(g, m->address);
    }
    free(m->patterns);
    free(m);
}

void members_free(struct agents *g)
{
    while (g->members)
        member_remove(g, g->members, "node");
}
