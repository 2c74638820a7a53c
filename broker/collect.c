/* What a node tells the one that has emitted number seq:
 *
 *   ANSWER  [1, seq, sid, args, [bin, …]]      one client's
 *   DONE    [2, seq, expected, answered]       there are no more */
#include "collect.h"
#include "container.h"
#include "err.h"
#include "mp.h"
#include <stdlib.h>

enum {
    TELL_ANSWER = 1,
    TELL_DONE = 2,
    LATE_MS = 500, /* for the other nodes' last word, beyond the time that clients have */
    TIMEOUT_MAX_MS = 3600 * 1000,
};

/* What this node collects for another. */
struct serve {
    struct serve *next;
    struct collects *collects;
    struct mesh_origin from;
    uint64_t seq, answered;
    struct ack_wait wait;
};

struct collects {
    struct reactor *reactor;
    struct hub *hub;
    struct cluster *cluster;
    struct collect *waiting; /* by seq */
    struct serve *serving;
    struct peers_position positions[LIMIT_OFFSET_ORIGINS];
    msgpack_sbuffer scratch;
};

static bool same(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

/* ---- for others ---- */

static void tell(struct serve *s)
{
    msgpack_sbuffer *b = &s->collects->scratch;
    cluster_tell(s->collects->cluster, s->from, MESH_TOPIC_ACKS, (struct span){b->data, b->size});
}

static void on_served_ack(struct ack_wait *w, struct socket *from, struct span args,
                          const struct span *attachments, unsigned n_attachments)
{
    struct serve *s = container_of(w, struct serve, wait);
    struct mp_writer out;
    msgpack_sbuffer_clear(&s->collects->scratch);
    mp_begin(&out, &s->collects->scratch);
    mp_put_array(&out, 5);
    mp_put_uint(&out, TELL_ANSWER);
    mp_put_uint(&out, s->seq);
    mp_put_text(&out, (struct span){from->sid, ID_CHARS}, LIMIT_ROOM_BYTES);
    mp_put_text(&out, args, UINT32_MAX);
    mp_put_array(&out, n_attachments);
    for (unsigned i = 0; i < n_attachments; i++)
        mp_put_bin(&out, attachments[i]);
    s->answered++;
    if (mp_end(&out) == 0)
        tell(s);
}

static void on_served(struct ack_wait *w)
{
    struct serve *s = container_of(w, struct serve, wait), **at = &s->collects->serving;
    struct mp_writer out;
    msgpack_sbuffer_clear(&s->collects->scratch);
    mp_begin(&out, &s->collects->scratch);
    mp_put_array(&out, 4);
    mp_put_uint(&out, TELL_DONE);
    mp_put_uint(&out, s->seq);
    mp_put_uint(&out, s->answered + w->missing);
    mp_put_uint(&out, s->answered);
    if (mp_end(&out) == 0)
        tell(s);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

int collects_serve(struct collects *cs, struct mesh_origin from, uint64_t seq, uint64_t timeout_ms,
                   struct emit *e)
{
    struct serve *s = calloc(1, sizeof(*s));
    if (!s)
        return ERR_MEMORY;
    s->collects = cs;
    s->from = from;
    s->seq = seq;
    s->wait.on_ack = on_served_ack;
    s->wait.on_done = on_served;
    ack_wait_start(&s->wait, cs->hub, (uint32_t)(timeout_ms < TIMEOUT_MAX_MS ? timeout_ms : TIMEOUT_MAX_MS));
    e->wait = &s->wait;
    int err = hub_deliver(cs->hub, e);
    if (err) {
        ack_wait_cancel(&s->wait);
        free(s);
        return err;
    }
    s->next = cs->serving;
    cs->serving = s;
    return 0;
}

/* ---- for this node ---- */

static void forget(struct collect *c)
{
    reactor_timer_cancel(c->collects->reactor, &c->late);
    if (c->done)
        return;
    c->done = true;
    HASH_DEL(c->collects->waiting, c);
    free(c->open);
    c->open = NULL;
}

static void done_if_complete(struct collect *c)
{
    if (!c->near_done || c->n_open > 0)
        return;
    forget(c);
    c->on_done(c);
}

static void on_near_ack(struct ack_wait *w, struct socket *from, struct span args,
                        const struct span *attachments, unsigned n_attachments)
{
    struct collect *c = container_of(w, struct collect, near);
    c->expected++;
    c->answered++;
    c->on_ack(c, (struct span){from->sid, ID_CHARS}, args, attachments, n_attachments);
}

static void on_near_done(struct ack_wait *w)
{
    struct collect *c = container_of(w, struct collect, near);
    c->expected += w->missing;
    c->near_done = true;
    done_if_complete(c);
}

/* Who has not said so by now never will. */
static void on_late(struct timer *t)
{
    struct collect *c = container_of(t, struct collect, late);
    if (!c->near_done) { /* its fan-out is under way still */
        reactor_timer_set(c->collects->reactor, t, LATE_MS);
        return;
    }
    c->n_open = 0;
    done_if_complete(c);
}

static int list_others(struct collects *cs, struct collect *c)
{
    unsigned n =
        cs->cluster ? peers_positions(cluster_peers(cs->cluster), cs->positions, LIMIT_OFFSET_ORIGINS) : 0;
    c->open = n > 1 ? calloc(n, sizeof(c->open[0])) : NULL;
    if (n > 1 && !c->open)
        return ERR_MEMORY;
    for (unsigned i = 1; i < n; i++)
        if (cs->positions[i].lives)
            c->open[c->n_open++].origin = cs->positions[i].origin;
    return 0;
}

int collect_emit(struct collects *cs, struct collect *c, struct emit *e, uint32_t timeout_ms)
{
    c->collects = cs;
    c->n_open = 0;
    c->expected = c->answered = 0;
    c->near_done = c->done = false;
    c->near.on_ack = on_near_ack;
    c->near.on_done = on_near_done;
    timer_init(&c->late, on_late);
    if (list_others(cs, c))
        return ERR_MEMORY;
    ack_wait_start(&c->near, cs->hub, timeout_ms);
    e->wait = &c->near;
    e->ack_ms = timeout_ms;
    int err = hub_emit(cs->hub, e, &c->seq);
    if (err) {
        ack_wait_cancel(&c->near);
        free(c->open);
        c->open = NULL;
        return err;
    }
    HASH_ADD(hh, cs->waiting, seq, sizeof(c->seq), c);
    reactor_timer_set(cs->reactor, &c->late, (uint64_t)timeout_ms + LATE_MS);
    return 0;
}

void collect_cancel(struct collect *c)
{
    if (!c->near_done)
        ack_wait_cancel(&c->near);
    forget(c);
}

static void take_answer(struct collect *c, struct mp_cursor *in)
{
    struct span attachments[LIMIT_ATTACHMENTS];
    struct span sid = mp_get_text(in, LIMIT_ROOM_BYTES), args = mp_get_text(in, UINT32_MAX);
    unsigned n = mp_get_count(in, LIMIT_ATTACHMENTS);
    for (unsigned i = 0; i < n; i++)
        attachments[i] = mp_get_bin(in);
    if (!in->bad)
        c->on_ack(c, sid, args, attachments, n);
}

static void close_node(struct collect *c, struct mesh_origin from)
{
    for (unsigned i = 0; i < c->n_open; i++) {
        if (!same(c->open[i].origin, from))
            continue;
        c->open[i] = c->open[--c->n_open];
        done_if_complete(c);
        return;
    }
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct collects *cs = user;
    struct mp_cursor in = mp_open(bytes);
    struct collect *c;
    mp_get_array(&in);
    uint64_t op = mp_get_uint(&in), seq = mp_get_uint(&in);
    HASH_FIND(hh, cs->waiting, &seq, sizeof(seq), c);
    if (in.bad || !c)
        return;
    if (op == TELL_ANSWER) {
        take_answer(c, &in);
    } else if (op == TELL_DONE) {
        uint64_t expected = mp_get_uint(&in), answered = mp_get_uint(&in);
        c->expected += expected;
        c->answered += answered;
        close_node(c, from);
    }
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    struct collects *cs = user;
    struct collect *c, *next;
    (void)received;
    HASH_ITER(hh, cs->waiting, c, next)
    close_node(c, from);
}

/* ---- life ---- */

struct collects *collects_new(struct reactor *r, struct hub *h, struct cluster *cluster)
{
    struct collects *cs = calloc(1, sizeof(*cs));
    if (!cs)
        return NULL;
    cs->reactor = r;
    cs->hub = h;
    cs->cluster = cluster;
    msgpack_sbuffer_init(&cs->scratch);
    h->collects = cs;
    if (cluster)
        cluster_listen(cluster, MESH_TOPIC_ACKS,
                       &(struct cluster_part){.user = cs, .on_message = on_message, .on_dead = on_dead});
    return cs;
}

void collects_free(struct collects **csp)
{
    struct collects *cs = *csp;
    if (!cs)
        return;
    cs->hub->collects = NULL;
    if (cs->cluster)
        cluster_listen(cs->cluster, MESH_TOPIC_ACKS, &(struct cluster_part){.user = NULL});
    while (cs->serving) {
        struct serve *s = cs->serving;
        cs->serving = s->next;
        ack_wait_cancel(&s->wait);
        free(s);
    }
    msgpack_sbuffer_destroy(&cs->scratch);
    free(cs);
    *csp = NULL;
}
