#include "room_list.h"
#include "first.h"
#include "print.h"
#include <inttypes.h>
#include <stdio.h>

/* A room here and of the same name on other nodes. */
struct pair {
    const struct room *near, *far;
};

static struct span name_of(const struct room *room)
{
    return (struct span){room->name, room->name_n};
}

static uint64_t members_of(const struct pair *p)
{
    return (p->near ? room_count(p->near) : 0) + (p->far ? room_count(p->far) : 0);
}

/* Each counts since there is a member of its kind. */
static uint64_t emits_of(const struct pair *p)
{
    uint64_t near = p->near ? p->near->emits : 0, far = p->far ? p->far->emits : 0;
    return near > far ? near : far;
}

static bool matches(const struct room *room, const struct room_question *q)
{
    struct span nsp = nsp_name(room->nsp), name = name_of(room);
    if (name.n == 0 || name.p[0] == '\xff' || (q->ns.n && !span_eq(nsp, q->ns)))
        return false;
    return q->q.n == 0 || memmem(name.p, name.n, q->q.p, q->q.n) != NULL;
}

/* The same on every node, so that a page may begin on one and go on on another. */
static uint64_t hash(struct span nsp, struct span name)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < nsp.n; i++)
        h = (h ^ (uint8_t)nsp.p[i]) * 1099511628211u;
    h *= 1099511628211u;
    for (size_t i = 0; i < name.n; i++)
        h = (h ^ (uint8_t)name.p[i]) * 1099511628211u;
    return h;
}

/* The largest first. */
static void offer(struct first *f, const struct pair *p, const struct room_question *q)
{
    const struct room *room = p->near ? p->near : p->far;
    char key[FIRST_KEY_BYTES];
    uint64_t size = q->by_traffic ? emits_of(p) : members_of(p);
    if (!matches(room, q) || (q->by_traffic && size == 0))
        return;
    int n = snprintf(key, sizeof(key), "%016" PRIx64 "%016" PRIx64, UINT64_MAX - size,
                     hash(nsp_name(room->nsp), name_of(room)));
    first_offer(f, key, (size_t)n, room);
}

static struct pair pair_of(struct hub *h, struct cluster *cluster, const struct room *room)
{
    struct nsp *near = hub_find(h, nsp_name(room->nsp));
    struct nsp *far = cluster ? cluster_far(cluster, nsp_name(room->nsp)) : NULL;
    return (struct pair){near ? room_find(near, name_of(room)) : NULL,
                         far ? room_find(far, name_of(room)) : NULL};
}

static void walk(struct hub *h, struct cluster *cluster, const struct room_question *q, struct first *f)
{
    struct pair p;
    for (const struct nsp *nsp = h->nsps; nsp; nsp = nsp->hh.next) {
        struct nsp *far = cluster ? cluster_far(cluster, nsp_name(nsp)) : NULL;
        for (p.near = nsp->rooms; p.near; p.near = p.near->hh.next) {
            p.far = far ? room_find(far, name_of(p.near)) : NULL;
            offer(f, &p, q);
        }
    }
    for (const struct nsp *nsp = cluster ? cluster_far_first(cluster) : NULL; nsp; nsp = nsp->hh.next) {
        struct nsp *near = hub_find(h, nsp_name(nsp));
        for (p.far = nsp->rooms; p.far; p.far = p.far->hh.next) {
            p.near = near ? room_find(near, name_of(p.far)) : NULL;
            if (!p.near)
                offer(f, &p, q);
        }
    }
}

static void print_room(struct printer *out, const struct pair *p)
{
    const struct room *room = p->near ? p->near : p->far;
    print_span(out, SPAN("{\"ns\":"));
    print_quoted(out, nsp_name(room->nsp));
    print_span(out, SPAN(",\"name\":"));
    print_quoted(out, name_of(room));
    print_format(out, ",\"members\":%" PRIu64 ",\"emits\":%" PRIu64 "}", members_of(p), emits_of(p));
}

int room_list_json(struct hub *h, struct cluster *cluster, const struct room_question *q, msgpack_sbuffer *b)
{
    static struct first first; /* large; the reactor's thread only */
    struct printer p = print_begin(b);
    first_begin(&first, q->limit, q->after);
    walk(h, cluster, q, &first);
    print_format(&p, "{\"ok\":true,\"total\":%" PRIu64 ",\"rooms\":[", first.total);
    for (unsigned i = 0; i < first.n; i++) {
        struct pair pair = pair_of(h, cluster, first.at[i].what);
        print_span(&p, i > 0 ? SPAN(",") : SPAN(""));
        print_room(&p, &pair);
    }
    print_span(&p, SPAN("],\"next\":"));
    if (first.has_more && first.n > 0)
        print_quoted(&p, (struct span){first.at[first.n - 1].key, first.at[first.n - 1].key_n});
    else
        print_span(&p, SPAN("null"));
    print_span(&p, SPAN("}"));
    return print_end(&p);
}
