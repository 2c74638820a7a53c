/* What is known of one origin moves through these states:
 *
 *   state    begins when                          what it means
 *   NEW      a hello names it                     its past goes into the ring, if it is held somewhere
 *   LIVE     it was heard                         records are taken in order; holes are repaired
 *   DEAD     not heard for peer_timeout           its sockets are gone; its tail is settled from what others have
 *   (gone)   DEAD for two windows and more        no offset names it any more: it is forgotten
 *
 * A DEAD one that is heard again (it was frozen, or cut off) is LIVE again where it was; its sockets are asked for anew.
 * A node that starts again is another origin: its new boot makes the old one of the same name DEAD at once. */
#include "container.h"
#include "err.h"
#include "log.h"
#include "peers_private.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    FILL_LATER = 1024,       /* records of a peer's past that a node that is ready still takes for its ring */
    UNHEARD_PEER_MS = 60000, /* one that others told of and that never answers is let go */
    HELLO_NEWER_MS = 10000,  /* to one that was heard in an older version only: a hello may have been lost */
    FULL_MS = 60000,         /* between two complaints that there are too many peers */
    JUST_DEAD_MS = 10000,
    SILENT_MS = 3 * HEARTBEAT_MS,
};

/* ---- origins and peers ---- */

struct origin *peers_find_origin(const struct peers *m, struct mesh_origin id)
{
    uint64_t key[2] = {id.tag, id.boot};
    struct origin *o;
    HASH_FIND(hh, m->origins, key, sizeof(key), o);
    return o;
}

static struct origin *new_origin(struct peers *m, struct mesh_origin id)
{
    struct origin *o = calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    o->id = id;
    o->key[0] = id.tag;
    o->key[1] = id.boot;
    o->heard_ms = peers_now_ms(m);
    o->held.end = &o->held.first;
    o->late.end = &o->late.first;
    HASH_ADD(hh, m->origins, key, sizeof(o->key), o);
    return o;
}

struct origin *peers_obtain_dead(struct peers *m, struct mesh_origin id)
{
    struct origin *o = peers_find_origin(m, id);
    if (o || same_origin(id, m->options.self))
        return o;
    o = new_origin(m, id);
    if (o) {
        o->state = ORIGIN_DEAD;
        o->died_ms = o->last_ms = peers_now_ms(m);
    }
    return o;
}

static void free_origin(struct peers *m, struct origin *o)
{
    HASH_DEL(m->origins, o);
    held_drop_all(&o->held);
    held_drop_all(&o->late);
    free(o->heard);
    free(o);
}

struct peer *peers_of_origin(const struct peers *m, const struct origin *o)
{
    struct peer *p = m->peers;
    while (p && p->origin != o)
        p = p->next;
    return p;
}

static struct peer *peer_at(const struct peers *m, struct span router)
{
    struct peer *p = m->peers;
    while (p && !span_eq(span_of(p->router), router) &&
           !(p->own_router[0] && span_eq(span_of(p->own_router), router)))
        p = p->next;
    return p;
}

/* version 0: the peer's is not known yet, so it gets this in every one that is spoken here. */
static void say_hello(struct peers *m, struct peer *p, unsigned version, struct span asked)
{
    const struct peers_options *o = &m->options;
    bool answer = version != 0;
    p->hello_ms = peers_now_ms(m);
    struct mesh_hello hello = {
        .name = o->name,
        .pub = peer_is_local(p) ? o->local_pub : o->pub,
        .router = peer_is_local(p) ? o->local_router : o->router,
        .host = o->host,
        .newest = m->seq,
        .asked = answer ? asked : span_of(p->router),
        .answer = answer,
    };
    struct mesh_record record = {.kind = MESH_HELLO, .hello = hello};
    peers_send_as(m, p, answer ? version : o->version, &record);
    if (!answer && o->version > 1)
        peers_send_as(m, p, o->version - 1, &record);
}

static void complain_full(struct peers *m, struct span router)
{
    if (m->full_ms && peers_now_ms(m) - m->full_ms < FULL_MS)
        return;
    m->full_ms = peers_now_ms(m);
    log_event(LOG_WARN, "too_many_peers", LOG_UINT("limit", LIMIT_OFFSET_ORIGINS),
              LOG_SPAN("refused", router));
}

static struct peer *new_peer(struct peers *m, struct span pub, struct span router)
{
    unsigned n = 0;
    for (const struct peer *p = m->peers; p; p = p->next)
        n++;
    if (n >= LIMIT_OFFSET_ORIGINS) {
        complain_full(m, router);
        return NULL;
    }
    if (router.n == 0 || router.n > MESH_ENDPOINT_BYTES || pub.n > MESH_ENDPOINT_BYTES)
        return NULL;
    struct peer *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    memcpy(p->router, router.p, router.n);
    memcpy(p->pub, pub.p, pub.n);
    msgpack_sbuffer_init(&p->batch);
    p->since_ms = peers_now_ms(m);
    p->channel = m->link.open(m->link.link, pub, router);
    if (!p->channel) {
        free(p);
        return NULL;
    }
    p->next = m->peers;
    m->peers = p;
    return p;
}

static void free_peer(struct peers *m, struct peer *p)
{
    struct peer **at = &m->peers;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    m->link.close(m->link.link, p->channel);
    msgpack_sbuffer_destroy(&p->batch);
    free(p);
}

int peers_add_peer(struct peers *m, struct span pub, struct span router)
{
    struct peer *p = peer_at(m, router);
    if (!p)
        p = new_peer(m, pub, router);
    if (!p)
        return ERR_MEMORY;
    p->was_named = true;
    return 0;
}

void peers_found(struct peers *m, struct span pub, struct span router)
{
    struct peer *p = peer_at(m, router);
    if (!p && !span_eq(router, m->options.router))
        p = new_peer(m, pub, router);
    if (p && !p->was_named)
        p->is_awaited = !m->is_ready;
}

/* ---- who knows whom ---- */

static struct mesh_endpoints endpoints_of(const struct peer *p)
{
    bool has_own = p->own_router[0] != '\0' && !peer_is_local(p);
    return (struct mesh_endpoints){span_of(has_own ? p->own_pub : p->pub),
                                   span_of(has_own ? p->own_router : p->router)};
}

/* Whoever was told of this node only learns of the others that it can reach, and they of it: nodes of a host by their
 * paths, those of other hosts by their addresses. */
static void introduce(struct peers *m, const struct peer *newcomer)
{
    struct mesh_record one = {.kind = MESH_PEERS, .peers = {.n = 1, .peer = {endpoints_of(newcomer)}}};
    struct mesh_record all = {.kind = MESH_PEERS};
    for (const struct peer *p = m->peers; p; p = p->next) {
        if (p == newcomer || !peer_lives(p))
            continue;
        if (!peer_is_local(p) || peer_is_local(newcomer))
            all.peers.peer[all.peers.n++] = endpoints_of(p);
        if (!peer_is_local(newcomer) || peer_is_local(p))
            peers_send_record(m, p, &one);
    }
    if (all.peers.n)
        peers_send_record(m, newcomer, &all);
}

void life_peers(struct peers *m, const struct mesh_peers *list)
{
    const struct peers_options *o = &m->options;
    for (unsigned i = 0; i < list->n; i++) {
        struct mesh_endpoints e = list->peer[i];
        bool is_path = e.router.n > 6 && memcmp(e.router.p, "ipc://", 6) == 0;
        if ((is_path ? o->local_router.n : o->router.n) == 0)
            continue; /* it could not answer */
        if (!span_eq(e.router, o->router) && !span_eq(e.router, o->local_router) && !peer_at(m, e.router))
            new_peer(m, e.pub, e.router);
    }
}

/* ---- life ---- */

static bool is_filled(const struct peers *m)
{
    for (const struct origin *o = m->origins; o; o = o->hh.next)
        if (origin_is_filling(o))
            return false;
    return true;
}

static void check_ready(struct peers *m)
{
    bool waited = peers_now_ms(m) - m->started_ms >= m->options.start_wait_ms;
    if (m->is_ready || !is_filled(m))
        return;
    for (struct peer *p = m->peers; p && !waited; p = p->next) {
        const struct origin *o = p->origin;
        if (!o && (p->was_named || p->is_awaited))
            return;
        if (o && o->state != ORIGIN_DEAD &&
            (o->state == ORIGIN_NEW || !o->hears_this_boot || o->presence != PRESENCE_KNOWN))
            return;
    }
    m->is_ready = true;
    m->user.on_ready(m->user.user);
}

static void count_peers(struct peers *m)
{
    metrics_set(m->metrics, METRIC_MESH_PEERS, peers_alive(m));
}

static void die(struct peers *m, struct origin *o)
{
    log_event(LOG_WARN, "peer_dead", LOG_UINT("tag", o->id.tag), LOG_UINT("boot", o->id.boot),
              LOG_UINT("received", o->received));
    o->state = ORIGIN_DEAD;
    o->died_ms = peers_now_ms(m);
    o->last_ms = o->heard_ms;
    o->is_dated = true;
    o->hears_this_boot = false;
    presence_forget(o);
    if (m->user.on_dead)
        m->user.on_dead(m->user.user, o->id, o->received);
    m->user.on_presence_void(m->user.user, o->id);
    count_peers(m);
    peers_choose_version(m);
}

void life_heard(struct peers *m, struct origin *o)
{
    o->heard_ms = peers_now_ms(m);
    o->was_heard = true;
    if (o->state == ORIGIN_LIVE)
        return;
    log_event(LOG_INFO, "peer_live", LOG_UINT("tag", o->id.tag), LOG_UINT("boot", o->id.boot));
    o->state = ORIGIN_LIVE;
    count_peers(m);
    peers_choose_version(m);
    presence_ask(m, o);
    if (peers_of_origin(m, o))
        introduce(m, peers_of_origin(m, o));
}

/* Its past, as far as it is held, goes into the ring before this node is ready. Until then nobody here has waited for
 * any of it, so the last hello tells where the past ends; the first one may have waited in a queue for long. */
static void begin_origin(struct peers *m, struct origin *o, uint64_t newest)
{
    bool fills = !m->is_ready || newest <= FILL_LATER;
    o->has_begun = true;
    if (o->newest < newest)
        o->newest = newest;
    if (fills && o->fill_to < newest)
        o->fill_to = newest;
    if (!fills && o->received == 0) {
        o->received = newest;
        records_tell_gap(m, o, 1, newest);
    }
}

static void set_own(struct peer *p, struct span pub, struct span router)
{
    snprintf(p->own_pub, sizeof(p->own_pub), "%.*s", (int)pub.n, pub.p);
    snprintf(p->own_router, sizeof(p->own_router), "%.*s", (int)router.n, router.p);
}

/* Both lead to the same node: the way over the host's own path stays, or else the first. */
static struct peer *fold(struct peers *m, struct peer *first, struct peer *second)
{
    bool is_second = peer_is_local(second) && !peer_is_local(first);
    struct peer *keep = is_second ? second : first, *drop = is_second ? first : second;
    msgpack_sbuffer batch = keep->batch;
    keep->was_named |= drop->was_named;
    keep->is_awaited |= drop->is_awaited;
    if (!keep->origin)
        keep->origin = drop->origin;
    if (batch.size == 0) {
        keep->batch = drop->batch;
        drop->batch = batch;
    }
    if (peer_is_local(keep))
        set_own(keep, span_of(drop->pub), span_of(drop->router));
    free_peer(m, drop);
    return keep;
}

/* The peer that said this hello. One that was named by another address than it calls itself is still one. */
static struct peer *peer_of_hello(struct peers *m, const struct mesh_hello *hello)
{
    struct peer *p = peer_at(m, hello->router);
    struct peer *named = hello->answer && hello->asked.n ? peer_at(m, hello->asked) : NULL;
    if (!named || named == p)
        return p ? p : new_peer(m, hello->pub, hello->router);
    struct peer *keep = p ? fold(m, named, p) : named;
    if (keep == named)
        set_own(named, hello->pub, hello->router);
    return keep;
}

/* A node of this host may have been found by its address, too. */
static struct peer *fold_all(struct peers *m, struct peer *p)
{
    struct peer *other = m->peers;
    while (other) {
        if (other != p && other->origin == p->origin) {
            p = fold(m, other, p);
            other = m->peers;
        } else {
            other = other->next;
        }
    }
    return p;
}

/* This origin is there now. False: it was there before the one that is, and these are late words of it. */
static bool take_seat(struct peers *m, struct peer *p, struct origin *o)
{
    bool is_taken = p->origin && p->origin != o && p->origin->state != ORIGIN_DEAD;
    if (is_taken && o->is_over)
        return false;
    if (is_taken)
        die(m, p->origin); /* started again */
    if (p->origin && p->origin != o)
        p->origin->is_over = true;
    p->origin = o;
    o->is_over = false;
    return true;
}

void life_hello(struct peers *m, const struct mesh_head *head, const struct mesh_hello *hello)
{
    struct peer *p = peer_of_hello(m, hello);
    struct origin *o = peers_find_origin(m, head->origin);
    if (!o && p)
        o = new_origin(m, head->origin);
    if (!p || !o || !take_seat(m, p, o))
        return;
    p = fold_all(m, p);
    if (!m->is_ready || !o->has_begun)
        begin_origin(m, o, hello->newest);
    peers_heard_version(m, o, head->version);
    snprintf(p->name, sizeof(p->name), "%.*s", (int)hello->name.n, hello->name.p);
    if (!hello->answer)
        say_hello(m, p, head->version, hello->asked);
}

void life_own_hello(struct peers *m, const struct mesh_hello *hello)
{
    struct peer *p = hello->asked.n ? peer_at(m, hello->asked) : NULL;
    if (p && !p->origin)
        free_peer(m, p);
}

/* The vectors of all tell the newest number that anybody has of each origin, also of a dead one. A node that is not
 * ready yet also takes the past of origins that were dead before it began. */
static void take_heard(struct peers *m, const struct mesh_heard *h)
{
    struct origin *o = peers_find_origin(m, h->origin);
    if (!o && !m->is_ready && h->seq > 0)
        o = peers_obtain_dead(m, h->origin);
    if (!o || o->state != ORIGIN_DEAD || o->newest >= h->seq)
        return;
    o->newest = h->seq;
    if (!m->is_ready)
        o->fill_to = h->seq;
}

void life_heartbeat(struct peers *m, struct origin *o, const struct mesh_heartbeat *beat)
{
    struct mesh_heard *copy = malloc((beat->n_heard + 1) * sizeof(*copy));
    if (!copy)
        return;
    memcpy(copy, beat->heard, beat->n_heard * sizeof(*copy));
    free(o->heard);
    o->beat_ms = peers_now_ms(m);
    o->heard = copy;
    o->n_heard = beat->n_heard;
    o->is_draining = beat->draining;
    if (o->newest < beat->newest)
        o->newest = beat->newest;
    for (unsigned i = 0; i < o->n_heard; i++) {
        if (!same_origin(copy[i].origin, m->options.self)) {
            take_heard(m, &copy[i]);
            continue;
        }
        o->hears_us = copy[i].seq;
        o->hears_this_boot = true;
    }
}

enum urgency { LIVING, JUST_DEAD, LONG_DEAD, URGENCIES };

/* As the peers tell, each of what it has heard itself. UINT64_MAX: none of them has. */
static uint64_t silence_of(const struct peers *m, const struct origin *o)
{
    uint64_t least_ms = UINT64_MAX;
    for (const struct origin *p = m->origins; p; p = p->hh.next) {
        if (p->state != ORIGIN_LIVE)
            continue;
        for (unsigned i = 0; i < p->n_heard; i++) {
            if (!same_origin(p->heard[i].origin, o->id) || p->heard[i].silent_ms == 0)
                continue;
            uint64_t silent_ms = p->heard[i].silent_ms + (peers_now_ms(m) - p->beat_ms);
            if (silent_ms < least_ms)
                least_ms = silent_ms;
        }
    }
    return least_ms;
}

/* All who keep something of a dead origin let it go at the same time, also who has only heard of it: an offset that does
 * not name it must mean the same to all. So what counts is when anybody has heard it last. */
static void note_silence(struct peers *m, struct origin *o, uint64_t silent_ms)
{
    uint64_t now = peers_now_ms(m);
    if (o->is_dated && silent_ms >= now - o->last_ms)
        return;
    o->last_ms = now - silent_ms;
    o->is_dated = true;
}

static void drop_if_old(struct peers *m, const struct origin *o)
{
    if (peers_now_ms(m) - o->last_ms > peers_kept_ms(m))
        ring_restart(m->ring, o->id);
}

static void look_after_dead(struct peers *m, struct origin *o)
{
    uint64_t silent_ms = silence_of(m, o);
    if (silent_ms != UINT64_MAX)
        note_silence(m, o, silent_ms);
    drop_if_old(m, o);
}

void peers_date(struct peers *m, struct mesh_origin id, uint64_t silent_ms)
{
    struct origin *o = peers_find_origin(m, id);
    if (!o || o->state != ORIGIN_DEAD)
        return;
    note_silence(m, o, silent_ms);
    drop_if_old(m, o);
}

static enum urgency urgency_of(const struct peers *m, const struct origin *o)
{
    if (o->state != ORIGIN_DEAD)
        return LIVING;
    return peers_now_ms(m) - o->died_ms < JUST_DEAD_MS ? JUST_DEAD : LONG_DEAD;
}

static uint64_t silent_ms_of(const struct peers *m, const struct origin *o)
{
    uint64_t silent_ms = peers_now_ms(m) - o->heard_ms;
    return silent_ms ? silent_ms : 1;
}

/* The living first: they wait to be confirmed. Then those whose last words are still looked for. */
static void list_heard(const struct peers *m, struct mesh_heartbeat *beat)
{
    beat->n_heard = 0;
    for (unsigned urgency = LIVING; urgency < URGENCIES; urgency++)
        for (struct origin *o = m->origins; o && beat->n_heard < LIMIT_OFFSET_ORIGINS; o = o->hh.next)
            if (urgency_of(m, o) == urgency)
                beat->heard[beat->n_heard++] =
                    (struct mesh_heard){o->id, o->received, o->was_heard ? silent_ms_of(m, o) : 0};
}

static void send_heartbeat(struct peers *m)
{
    struct mesh_record *record = &m->record;
    struct mesh_heartbeat *beat = &record->heartbeat;
    record->kind = MESH_HEARTBEAT;
    beat->newest = m->seq;
    beat->sent_us = peers_now_ms(m) * 1000;
    beat->ready = m->is_ready;
    beat->draining = m->is_draining;
    list_heard(m, beat);
    peers_send_batch(m); /* what it counts comes before it */
    if (peers_begin(m, &m->scratch, m->pub_version) == 0 && mesh_write(&m->scratch, record) == 0)
        m->link.publish(m->link.link, peers_message(&m->scratch));
}

/* Nobody can still ask for anything of these. */
static void forget_old(struct peers *m)
{
    uint64_t now = peers_now_ms(m), after_ms = peers_named_ms(m) + peers_kept_ms(m), number;
    struct peer *p, *next;
    struct origin *o, *tmp;
    for (p = m->peers; p; p = next) {
        next = p->next;
        bool is_dead = p->origin && p->origin->state == ORIGIN_DEAD && now - p->origin->last_ms > after_ms;
        bool is_unheard = !p->origin && !p->was_named && now - p->since_ms > UNHEARD_PEER_MS;
        /* A sibling says hello by itself when it starts; a host may have been told of nobody. */
        if (is_unheard || (is_dead && (!p->was_named || peer_is_local(p))))
            free_peer(m, p);
        else if (is_dead)
            p->origin = NULL;
    }
    HASH_ITER(hh, m->origins, o, tmp)
    {
        if (o->state == ORIGIN_DEAD && now - o->last_ms > after_ms && !peers_of_origin(m, o) &&
            !ring_range(m->ring, o->id, &number, &number))
            free_origin(m, o);
    }
}

/* Who has fallen silent may have started again, and may not have been told of this node. */
static void greet(struct peers *m)
{
    uint64_t now = peers_now_ms(m);
    for (struct peer *p = m->peers; p; p = p->next) {
        bool is_here = peer_lives(p) && now - p->origin->heard_ms <= SILENT_MS;
        bool is_older = is_here && p->origin->version < m->options.version;
        uint64_t since_ms = now - p->hello_ms;
        if (is_here ? is_older && since_ms >= HELLO_NEWER_MS : since_ms >= HELLO_MS)
            say_hello(m, p, 0, (struct span){"", 0});
    }
}

static void on_heartbeat(struct timer *t)
{
    struct peers *m = container_of(t, struct peers, heartbeat);
    struct origin *o, *tmp;
    uint64_t now = peers_now_ms(m);
    /* Who was frozen itself has heard nobody, and that says nothing about them. */
    if (m->beat_ms && now - m->beat_ms > m->options.peer_timeout_ms / 2)
        for (o = m->origins; o; o = o->hh.next)
            o->heard_ms = o->state == ORIGIN_DEAD ? o->heard_ms : now;
    m->beat_ms = now;
    reactor_timer_set(m->reactor, t, HEARTBEAT_MS);
    send_heartbeat(m);
    greet(m);
    m->is_busy = m->user.is_busy && m->user.is_busy(m->user.user);
    HASH_ITER(hh, m->origins, o, tmp)
    {
        if (o->state != ORIGIN_DEAD && now - o->heard_ms + HEARTBEAT_MS > m->options.peer_timeout_ms)
            die(m, o);
        if (o->state == ORIGIN_LIVE)
            presence_ask(m, o);
        else if (o->state == ORIGIN_DEAD)
            look_after_dead(m, o);
        records_look_for_holes(m, o);
    }
    ring_expire(m->ring, now);
    metrics_set(m->metrics, METRIC_RING_BYTES, ring_bytes(m->ring));
    metrics_set(m->metrics, METRIC_RING_HELD, ring_window_ms(m->ring, now) / 1000);
    forget_old(m);
    check_ready(m);
}

void life_init(struct peers *m)
{
    timer_init(&m->heartbeat, on_heartbeat);
}

void life_free(struct peers *m)
{
    reactor_timer_cancel(m->reactor, &m->heartbeat);
    while (m->peers)
        free_peer(m, m->peers);
    while (m->origins)
        free_origin(m, m->origins);
}
