/* What is known of one origin moves through these states:
 *
 *   state    begins when                          what it means
 *   NEW      a hello names it                     its numbers count from the one it said then
 *   LIVE     it was heard                         records are taken in order; holes are repaired
 *   DEAD     not heard for peer_timeout           its sockets are gone; its tail is settled from what others have
 *
 * A DEAD one that is heard again (it was frozen, or cut off) is LIVE again where it was; its sockets are asked for anew.
 * A node that starts again is another origin: its new boot makes the old one of the same name DEAD at once.
 *
 * A hole is a number that somebody is known to have (a later record, or a heartbeat says so) and this node has not.
 * It is asked for at once, then every REPAIR_AGAIN_MS from the next one who may have it. What comes behind it waits.
 * Without any progress for HOLE_WAIT_MS, or when everybody says it is gone, it is declared lost. */
#include "peers.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    HEARTBEAT_MS = 100,
    HELLO_MS = 250, /* until a peer has answered */
    REPAIR_AGAIN_MS = 50,
    HOLE_WAIT_MS = 500,
    HELD_BYTES = 8 * 1024 * 1024, /* behind holes of one origin; what does not fit is repaired later */
    BATCH_BYTES = 64 * 1024,      /* of one message */
    REPAIR_BYTES = 1024 * 1024,   /* answered to one request */
};

enum origin_state { ORIGIN_NEW, ORIGIN_LIVE, ORIGIN_DEAD };
enum presence_state { PRESENCE_UNKNOWN, PRESENCE_ASKED, PRESENCE_KNOWN };

/* A record that waits: for a hole before it, or for the snapshot of presence. */
struct held {
    struct held *next;
    uint64_t seq;
    size_t n;
    char raw[];
};

struct held_list {
    struct held *first, **end;
    size_t bytes;
};

struct origin {
    struct mesh_origin id;
    uint64_t key[2];
    enum origin_state state;
    uint64_t heard_ms;
    uint64_t received; /* all up to this number */
    uint64_t newest;   /* that anybody is known to have */
    struct held_list held;
    uint64_t progress_ms, asked_ms; /* of the hole being repaired */
    uint64_t asked_to;              /* the last number of the answer that is coming; 0: not known */
    unsigned asked_n;
    bool in_hole;
    enum presence_state presence;
    uint64_t presence_as_of, presence_asked_ms;
    uint64_t presence_since; /* received when it was asked for: an older snapshot answers an older question */
    bool presence_begun;     /* its first part has come */
    uint32_t presence_parts; /* how many of them */
    struct held_list late;   /* presence records that came during the snapshot */
    uint64_t hears_us;       /* our number that it has */
    bool hears_this_boot;
    bool is_over; /* started again: what is still under way from then counts no more */
    unsigned n_heard;
    struct mesh_heard *heard; /* what it has of others */
    UT_hash_handle hh;
};

/* Somebody at known endpoints, whichever origin that is at the moment. */
struct peer {
    struct peer *next;
    struct peers_channel *channel;
    struct origin *origin; /* NULL: has not answered yet */
    uint64_t hello_ms;
    bool was_named; /* given by configuration: a start waits for it */
    char name[MESH_NAME_BYTES + 1];
    char router[MESH_ENDPOINT_BYTES + 1];
};

struct peers {
    struct reactor *reactor;
    struct metrics *metrics;
    struct peers_options options;
    struct peers_link link;
    struct peers_user user;
    struct ring *ring;
    struct origin *origins;
    struct peer *peers;
    uint64_t seq; /* own newest */
    msgpack_sbuffer batch, scratch, parts;
    size_t head_n; /* of an empty batch */
    struct reactor_task flush;
    struct timer heartbeat;
    uint64_t started_ms, beat_ms;
    bool is_ready;
    struct mesh_record record; /* large: one is enough */
};

static uint64_t now_ms(const struct peers *m)
{
    return reactor_now_ms(m->reactor);
}

/* ---- messages ---- */

static int begin(struct peers *m, msgpack_sbuffer *b)
{
    msgpack_sbuffer_clear(b);
    return mesh_write_head(b, &(struct mesh_head){.version = MESH_VERSION,
                                                  .cluster = m->options.cluster,
                                                  .origin = m->options.self});
}

static struct span message(const msgpack_sbuffer *b)
{
    return (struct span){b->data, b->size};
}

static void send_batch(struct peers *m)
{
    if (m->batch.size <= m->head_n)
        return;
    m->link.publish(m->link.link, message(&m->batch));
    begin(m, &m->batch);
}

static void on_flush(struct reactor_task *task)
{
    send_batch(container_of(task, struct peers, flush));
}

/* Puts records that are written already behind those of this turn. */
static void add_to_batch(struct peers *m, const char *raw, size_t n)
{
    if (m->batch.size + n > BATCH_BYTES)
        send_batch(m);
    msgpack_sbuffer_write(&m->batch, raw, n);
    reactor_defer(m->reactor, &m->flush, REACTOR_FLUSH);
}

uint64_t peers_publish(struct peers *m, struct mesh_record *record)
{
    record->seq = m->seq + 1;
    msgpack_sbuffer_clear(&m->scratch);
    if (mesh_write(&m->scratch, record))
        return 0;
    m->seq++;
    if (ring_add(m->ring, now_ms(m), m->options.self, m->seq, message(&m->scratch)))
        ring_restart(m->ring, m->options.self);
    add_to_batch(m, m->scratch.data, m->scratch.size);
    return m->seq;
}

uint64_t peers_newest(const struct peers *m)
{
    return m->seq;
}

static void send_to(struct peers *m, const struct peer *p, const struct mesh_record *record)
{
    if (begin(m, &m->scratch) == 0 && mesh_write(&m->scratch, record) == 0)
        m->link.send(m->link.link, p->channel, message(&m->scratch));
}

/* ---- origins and peers ---- */

static bool same(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

static struct origin *find_origin(const struct peers *m, struct mesh_origin id)
{
    uint64_t key[2] = {id.tag, id.boot};
    struct origin *o;
    HASH_FIND(hh, m->origins, key, sizeof(key), o);
    return o;
}

static struct origin *new_origin(struct peers *m, struct mesh_origin id, uint64_t newest)
{
    struct origin *o = calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    o->id = id;
    o->key[0] = id.tag;
    o->key[1] = id.boot;
    o->received = o->newest = newest;
    o->heard_ms = now_ms(m);
    o->held.end = &o->held.first;
    o->late.end = &o->late.first;
    HASH_ADD(hh, m->origins, key, sizeof(o->key), o);
    return o;
}

static struct peer *peer_of(const struct peers *m, const struct origin *o)
{
    struct peer *p = m->peers;
    while (p && p->origin != o)
        p = p->next;
    return p;
}

static struct peer *peer_at(const struct peers *m, struct span router)
{
    struct peer *p = m->peers;
    while (p && !span_eq(span_of(p->router), router))
        p = p->next;
    return p;
}

static bool is_local(const struct peer *p)
{
    return strncmp(p->router, "ipc://", 6) == 0;
}

static void say_hello(struct peers *m, struct peer *p, bool answer)
{
    const struct peers_options *o = &m->options;
    p->hello_ms = now_ms(m);
    struct mesh_hello hello = {
        .name = o->name,
        .pub = is_local(p) ? o->local_pub : o->pub,
        .router = is_local(p) ? o->local_router : o->router,
        .host = o->host,
        .newest = m->seq,
        .answer = answer,
    };
    send_to(m, p, &(struct mesh_record){.kind = MESH_HELLO, .hello = hello});
}

static struct peer *new_peer(struct peers *m, struct span pub, struct span router)
{
    if (router.n > MESH_ENDPOINT_BYTES)
        return NULL;
    struct peer *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    memcpy(p->router, router.p, router.n);
    p->channel = m->link.open(m->link.link, pub, router);
    if (!p->channel) {
        free(p);
        return NULL;
    }
    p->next = m->peers;
    m->peers = p;
    return p;
}

int peers_add_peer(struct peers *m, struct span pub, struct span router)
{
    if (peer_at(m, router))
        return 0;
    struct peer *p = new_peer(m, pub, router);
    if (!p)
        return ERR_MEMORY;
    p->was_named = true;
    return 0;
}

/* ---- lists of waiting records ---- */

static int hold(struct held_list *list, uint64_t seq, struct span raw)
{
    struct held *h = malloc(sizeof(*h) + raw.n), **at = &list->first;
    if (!h)
        return ERR_MEMORY;
    h->seq = seq;
    h->n = raw.n;
    memcpy(h->raw, raw.p, raw.n);
    /* Nearly always the last. */
    if (list->first && container_of(list->end, struct held, next)->seq < seq)
        at = list->end;
    while (*at && (*at)->seq < seq)
        at = &(*at)->next;
    if (*at && (*at)->seq == seq) {
        free(h);
        return 0;
    }
    h->next = *at;
    *at = h;
    if (!h->next)
        list->end = &h->next;
    list->bytes += raw.n;
    return 0;
}

static struct held *take_first(struct held_list *list)
{
    struct held *h = list->first;
    list->first = h->next;
    if (!list->first)
        list->end = &list->first;
    list->bytes -= h->n;
    return h;
}

static void drop_all(struct held_list *list)
{
    while (list->first)
        free(take_first(list));
}

/* ---- taking records in ---- */

static bool is_presence(enum mesh_kind kind)
{
    return kind >= MESH_ENTER && kind <= MESH_PART;
}

/* The snapshot begins anew: whatever is said until it is asked for is in it. */
static void forget_presence(struct origin *o)
{
    o->presence = PRESENCE_UNKNOWN;
    o->presence_begun = false;
    drop_all(&o->late);
}

static void hold_late(struct origin *o, const struct mesh_record *record)
{
    if (o->late.bytes + record->raw.n > HELD_BYTES || hold(&o->late, record->seq, record->raw))
        forget_presence(o);
}

static void deliver(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (record->kind == MESH_EMIT)
        m->user.on_emit(m->user.user, o->id, record->seq, &record->emit);
    else if (!is_presence(record->kind))
        return;
    else if (o->presence == PRESENCE_KNOWN && record->seq > o->presence_as_of)
        m->user.on_presence(m->user.user, o->id, record->kind, &record->presence);
    else if (o->presence == PRESENCE_ASKED) /* before that: the snapshot will include it */
        hold_late(o, record);
}

static void accept_next(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    o->received = record->seq;
    o->progress_ms = now_ms(m);
    if (o->newest < record->seq)
        o->newest = record->seq;
    if (ring_add(m->ring, now_ms(m), o->id, record->seq, record->raw)) {
        ring_restart(m->ring, o->id);
        ring_add(m->ring, now_ms(m), o->id, record->seq, record->raw);
    }
    deliver(m, o, record);
}

/* A record on its own, as rings and lists keep it. */
static bool read_raw(struct peers *m, const char *raw, size_t n)
{
    struct mesh_reader r = {raw, raw + n};
    return mesh_read(&r, &m->record) == 1;
}

static void accept_held(struct peers *m, struct origin *o)
{
    while (o->held.first && o->held.first->seq <= o->received + 1) {
        struct held *h = take_first(&o->held);
        if (h->seq == o->received + 1 && read_raw(m, h->raw, h->n))
            accept_next(m, o, &m->record);
        free(h);
    }
}

static void take_numbered(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (record->seq <= o->received) {
        metrics_add(m->metrics, METRIC_MESH_DUPLICATES, 1);
        return;
    }
    if (record->seq == o->received + 1) {
        accept_next(m, o, record);
        return;
    }
    if (o->newest < record->seq)
        o->newest = record->seq;
    if (o->held.bytes + record->raw.n <= HELD_BYTES)
        hold(&o->held, record->seq, record->raw);
}

/* ---- holes ---- */

static bool has(const struct origin *who, struct mesh_origin of, uint64_t seq)
{
    for (unsigned i = 0; i < who->n_heard; i++)
        if (same(who->heard[i].origin, of))
            return who->heard[i].seq >= seq;
    return false;
}

/* Whom to ask the nth time: the origin itself while it lives, then others who have the number. */
static struct peer *whom_to_ask(const struct peers *m, const struct origin *o, unsigned nth)
{
    struct peer *able[LIMIT_OFFSET_ORIGINS];
    unsigned n = 0;
    if (o->state == ORIGIN_LIVE && peer_of(m, o))
        able[n++] = peer_of(m, o);
    for (struct peer *p = m->peers; p && n < LIMIT_OFFSET_ORIGINS; p = p->next)
        if (p->origin && p->origin != o && p->origin->state == ORIGIN_LIVE &&
            has(p->origin, o->id, o->received + 1))
            able[n++] = p;
    return n ? able[nth % n] : NULL;
}

static void declare_lost(struct peers *m, struct origin *o, uint64_t last)
{
    uint64_t first = o->received + 1;
    log_event(LOG_WARN, "mesh_gap", LOG_UINT("tag", o->id.tag), LOG_UINT("boot", o->id.boot),
              LOG_UINT("from", first), LOG_UINT("to", last));
    metrics_add(m->metrics, METRIC_MESH_LOST, last - o->received);
    o->received = last;
    o->progress_ms = now_ms(m);
    ring_restart(m->ring, o->id);
    forget_presence(o); /* who came and went in the gap is not known */
    m->user.on_gap(m->user.user, o->id, first, last);
    accept_held(m, o);
}

static void ask_for_repair(struct peers *m, struct origin *o)
{
    uint64_t now = now_ms(m), to = o->held.first ? o->held.first->seq - 1 : o->newest;
    uint64_t last_ms = o->asked_ms > o->progress_ms ? o->asked_ms : o->progress_ms;
    bool is_answered = o->asked_to && o->received >= o->asked_to;
    struct peer *p;
    if (o->asked_ms && !is_answered && now - last_ms < REPAIR_AGAIN_MS)
        return;
    if (o->asked_ms && !is_answered)
        o->asked_n++; /* somebody else may answer */
    p = whom_to_ask(m, o, o->asked_n);
    o->asked_ms = now;
    o->asked_to = 0;
    if (!p)
        return;
    metrics_add(m->metrics, METRIC_MESH_REPAIRS_ASKED, 1);
    send_to(m, p,
            &(struct mesh_record){
                .kind = MESH_REPAIR,
                .repair = {.origin = o->id, .from = o->received + 1, .to = to},
            });
}

static void look_for_holes(struct peers *m, struct origin *o)
{
    if (o->received >= o->newest) {
        o->in_hole = false;
        return;
    }
    if (!o->in_hole) {
        metrics_add(m->metrics, METRIC_MESH_HOLES, 1);
        o->in_hole = true;
        o->progress_ms = now_ms(m);
        o->asked_ms = o->asked_to = 0;
        o->asked_n = 0;
    }
    if (now_ms(m) - o->progress_ms > HOLE_WAIT_MS)
        declare_lost(m, o, o->held.first ? o->held.first->seq - 1 : o->newest);
    else
        ask_for_repair(m, o);
}

/* The last number from first on that one answer may hold. */
static uint64_t end_of_answer(const struct peers *m, struct mesh_origin origin, uint64_t first, uint64_t last)
{
    size_t bytes = 0;
    uint64_t seq = first;
    while (seq <= last && bytes < REPAIR_BYTES)
        bytes += ring_get(m->ring, origin, seq++).n;
    return seq - 1;
}

/* Somebody asks: what of it is here goes in messages of a bounded size, up to a bounded sum; it asks again for more. */
static void answer_repair(struct peers *m, const struct peer *p, const struct mesh_repair *asked)
{
    uint64_t first = UINT64_MAX, last = 0, seq = asked->from;
    struct mesh_repair answer = *asked;
    ring_range(m->ring, asked->origin, &first, &last);
    if (seq < first)
        seq = first;
    answer.gone_to = seq > asked->to ? asked->to : seq - 1;
    last = end_of_answer(m, asked->origin, seq, last < asked->to ? last : asked->to);
    answer.to = last;
    do {
        if (begin(m, &m->scratch) ||
            mesh_write(&m->scratch, &(struct mesh_record){.kind = MESH_REPAIRED, .repair = answer}))
            return;
        for (; seq <= last && m->scratch.size < BATCH_BYTES; seq++) {
            struct span raw = ring_get(m->ring, asked->origin, seq);
            msgpack_sbuffer_write(&m->scratch, raw.p, raw.n);
        }
        m->link.send(m->link.link, p->channel, message(&m->scratch));
    } while (seq <= last);
}

/* ---- presence ---- */

void peers_put_presence(struct peers *m, enum mesh_kind kind, const struct mesh_presence *presence)
{
    mesh_write(&m->parts, &(struct mesh_record){.kind = kind, .presence = *presence});
}

static void answer_presence(struct peers *m, const struct peer *p)
{
    /* All in one go, so that it is the state after exactly one number. */
    msgpack_sbuffer_clear(&m->parts);
    m->user.put_presence(m->user.user, m);
    const char *parts = m->parts.size ? m->parts.data : "";
    struct mesh_reader r = {parts, parts + m->parts.size};
    bool last = false;
    int got = 1;
    for (uint32_t number = 0; !last; number++) {
        msgpack_sbuffer part;
        msgpack_sbuffer_init(&part);
        while (part.size < BATCH_BYTES && (got = mesh_read(&r, &m->record)) == 1)
            msgpack_sbuffer_write(&part, m->record.raw.p, m->record.raw.n);
        last = got != 1;
        struct mesh_record head = {
            .kind = MESH_PRESENCE,
            .part = {.as_of = m->seq, .first = number == 0, .last = last, .number = number}};
        if (begin(m, &m->scratch) == 0 && mesh_write(&m->scratch, &head) == 0) {
            if (part.size)
                msgpack_sbuffer_write(&m->scratch, part.data, part.size);
            m->link.send(m->link.link, p->channel, message(&m->scratch));
        }
        msgpack_sbuffer_destroy(&part);
    }
}

static void ask_presence(struct peers *m, struct origin *o)
{
    struct peer *p = peer_of(m, o);
    uint64_t now = now_ms(m);
    bool again = now - o->presence_asked_ms > HOLE_WAIT_MS;
    if (!p || o->presence == PRESENCE_KNOWN || (o->presence == PRESENCE_ASKED && !again))
        return;
    if (o->presence == PRESENCE_UNKNOWN)
        o->presence_since = o->received;
    o->presence = PRESENCE_ASKED;
    o->presence_begun = false;
    o->presence_asked_ms = now;
    send_to(m, p, &(struct mesh_record){.kind = MESH_ASK_PRESENCE});
}

/* False: not a part of the snapshot that is wanted. */
static bool take_part(struct peers *m, struct origin *o, const struct mesh_presence_part *part)
{
    if (o->presence != PRESENCE_ASKED || part->as_of < o->presence_since)
        return false;
    if (!part->first && (!o->presence_begun || part->as_of != o->presence_as_of))
        return false;
    if (part->number != (part->first ? 0 : o->presence_parts)) { /* one is lost: all of it again */
        o->presence_begun = false;
        return false;
    }
    o->presence_parts = part->number + 1;
    if (part->first)
        m->user.on_presence_void(m->user.user, o->id);
    o->presence_begun = true;
    o->presence_asked_ms = now_ms(m);
    o->presence_as_of = part->as_of;
    return true;
}

/* The snapshot is complete: what it does not include yet follows. */
static void finish_presence(struct peers *m, struct origin *o)
{
    o->presence = PRESENCE_KNOWN;
    while (o->late.first) {
        struct held *h = take_first(&o->late);
        if (h->seq > o->presence_as_of && read_raw(m, h->raw, h->n))
            deliver(m, o, &m->record);
        free(h);
    }
}

/* ---- life ---- */

static void check_ready(struct peers *m)
{
    bool waited = now_ms(m) - m->started_ms >= m->options.start_wait_ms;
    if (m->is_ready)
        return;
    for (struct peer *p = m->peers; p && !waited; p = p->next) {
        const struct origin *o = p->origin;
        if (!o && p->was_named)
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
    o->hears_this_boot = false;
    forget_presence(o);
    m->user.on_presence_void(m->user.user, o->id);
    count_peers(m);
}

static void heard(struct peers *m, struct origin *o)
{
    o->heard_ms = now_ms(m);
    if (o->state == ORIGIN_LIVE)
        return;
    log_event(LOG_INFO, "peer_live", LOG_UINT("tag", o->id.tag), LOG_UINT("boot", o->id.boot));
    o->state = ORIGIN_LIVE;
    count_peers(m);
    ask_presence(m, o);
}

static void take_hello(struct peers *m, struct mesh_origin from, const struct mesh_hello *hello)
{
    struct peer *p = peer_at(m, hello->router);
    struct origin *o = find_origin(m, from);
    if (!p)
        p = new_peer(m, hello->pub, hello->router);
    if (!o)
        o = new_origin(m, from, hello->newest);
    if (!p || !o)
        return;
    if (p->origin && p->origin != o && p->origin->state != ORIGIN_DEAD) {
        die(m, p->origin); /* started again */
        p->origin->is_over = true;
    }
    p->origin = o;
    snprintf(p->name, sizeof(p->name), "%.*s", (int)hello->name.n, hello->name.p);
    if (!hello->answer)
        say_hello(m, p, true);
}

/* The vectors of all tell the newest number that anybody has of each origin, also of a dead one. */
static void take_heartbeat(struct peers *m, struct origin *o, const struct mesh_heartbeat *beat)
{
    struct mesh_heard *copy = malloc((beat->n_heard + 1) * sizeof(*copy));
    if (!copy)
        return;
    memcpy(copy, beat->heard, beat->n_heard * sizeof(*copy));
    free(o->heard);
    o->heard = copy;
    o->n_heard = beat->n_heard;
    if (o->newest < beat->newest)
        o->newest = beat->newest;
    for (unsigned i = 0; i < beat->n_heard; i++) {
        const struct mesh_heard *h = &beat->heard[i];
        if (same(h->origin, m->options.self)) {
            o->hears_us = h->seq;
            o->hears_this_boot = true;
            continue;
        }
        struct origin *other = find_origin(m, h->origin);
        if (other && other->newest < h->seq && other->state == ORIGIN_DEAD)
            other->newest = h->seq;
    }
}

/* The living first: they wait to be confirmed. */
static void list_heard(const struct peers *m, struct mesh_heartbeat *beat, bool living)
{
    for (struct origin *o = m->origins; o && beat->n_heard < LIMIT_OFFSET_ORIGINS; o = o->hh.next)
        if ((o->state != ORIGIN_DEAD) == living)
            beat->heard[beat->n_heard++] = (struct mesh_heard){o->id, o->received};
}

static void send_heartbeat(struct peers *m)
{
    struct mesh_record *record = &m->record;
    struct mesh_heartbeat *beat = &record->heartbeat;
    record->kind = MESH_HEARTBEAT;
    beat->newest = m->seq;
    beat->sent_us = now_ms(m) * 1000;
    beat->ready = m->is_ready;
    beat->draining = false;
    beat->n_heard = 0;
    list_heard(m, beat, true);
    list_heard(m, beat, false);
    send_batch(m); /* what it counts comes before it */
    if (begin(m, &m->scratch) == 0 && mesh_write(&m->scratch, record) == 0)
        m->link.publish(m->link.link, message(&m->scratch));
}

static void on_heartbeat(struct timer *t)
{
    struct peers *m = container_of(t, struct peers, heartbeat);
    struct origin *o, *tmp;
    uint64_t now = now_ms(m);
    /* Who was frozen itself has heard nobody, and that says nothing about them. */
    if (m->beat_ms && now - m->beat_ms > m->options.peer_timeout_ms / 2)
        for (o = m->origins; o; o = o->hh.next)
            o->heard_ms = now;
    m->beat_ms = now;
    reactor_timer_set(m->reactor, t, HEARTBEAT_MS);
    send_heartbeat(m);
    for (struct peer *p = m->peers; p; p = p->next)
        if ((!p->origin || p->origin->state != ORIGIN_LIVE) && now - p->hello_ms >= HELLO_MS)
            say_hello(m, p, false);
    HASH_ITER(hh, m->origins, o, tmp)
    {
        if (o->state != ORIGIN_DEAD && now - o->heard_ms + HEARTBEAT_MS > m->options.peer_timeout_ms)
            die(m, o);
        if (o->state == ORIGIN_LIVE)
            ask_presence(m, o);
        look_for_holes(m, o);
    }
    ring_expire(m->ring, now);
    check_ready(m);
}

/* ---- receiving ---- */

static void take_record(struct peers *m, struct mesh_origin from, struct origin *o,
                        struct mesh_record *record, struct origin **repaired, bool *is_repair, bool *snapshot)
{
    struct peer *p = o ? peer_of(m, o) : NULL;
    switch (record->kind) {
    case MESH_HELLO:
        take_hello(m, from, &record->hello);
        return;
    case MESH_HEARTBEAT:
        if (o)
            take_heartbeat(m, o, &record->heartbeat);
        return;
    case MESH_REPAIR:
        if (p)
            answer_repair(m, p, &record->repair);
        return;
    case MESH_ASK_PRESENCE:
        if (p)
            answer_presence(m, p);
        return;
    case MESH_REPAIRED:
        *repaired = find_origin(m, record->repair.origin);
        if (*repaired && record->repair.gone_to > (*repaired)->received && same(from, record->repair.origin))
            declare_lost(m, *repaired, record->repair.gone_to);
        if (*repaired)
            (*repaired)->asked_to = record->repair.to;
        *is_repair = true;
        return;
    case MESH_PRESENCE:
        if (!o)
            return;
        *snapshot = take_part(m, o, &record->part);
        return;
    default:
        if (record->seq == 0 && (!*snapshot || !is_presence(record->kind)))
            return;
        if (record->seq == 0)
            m->user.on_presence(m->user.user, from, record->kind, &record->presence);
        else if (*repaired)
            take_numbered(m, *repaired, record);
        else if (!*is_repair && o && o->state == ORIGIN_LIVE)
            take_numbered(m, o, record);
    }
}

void peers_receive(struct peers *m, struct span bytes)
{
    struct mesh_reader r;
    struct mesh_head head;
    struct origin *repaired = NULL;
    bool is_repair = false, snapshot = false, last_part = false;
    int got;
    if (mesh_read_head(&r, bytes, &head) || !span_eq(head.cluster, m->options.cluster)) {
        metrics_add(m->metrics, METRIC_MESH_REJECTED, 1);
        return;
    }
    if (same(head.origin, m->options.self))
        return;
    struct origin *o = find_origin(m, head.origin);
    if (o && o->is_over)
        return;
    if (o)
        heard(m, o);
    while ((got = mesh_read(&r, &m->record)) == 1) {
        bool is_part = m->record.kind == MESH_PRESENCE;
        bool is_last = is_part && m->record.part.last;
        take_record(m, head.origin, o, &m->record, &repaired, &is_repair, &snapshot);
        last_part = last_part || (is_last && snapshot);
    }
    if (got < 0)
        metrics_add(m->metrics, METRIC_MESH_REJECTED, 1);
    if (last_part)
        finish_presence(m, o);
    if (repaired) {
        accept_held(m, repaired);
        look_for_holes(m, repaired);
    }
    if (o) {
        accept_held(m, o);
        if (o->received < o->newest)
            look_for_holes(m, o);
    }
}

/* ---- start and end ---- */

struct peers *peers_new(struct reactor *r, struct metrics *metrics, const struct peers_options *o,
                        const struct peers_link *link, const struct peers_user *user)
{
    struct peers *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->reactor = r;
    m->metrics = metrics;
    m->options = *o;
    m->link = *link;
    m->user = *user;
    m->flush.run = on_flush;
    timer_init(&m->heartbeat, on_heartbeat);
    msgpack_sbuffer_init(&m->batch);
    msgpack_sbuffer_init(&m->scratch);
    msgpack_sbuffer_init(&m->parts);
    m->ring = ring_new(&o->ring);
    if (!m->ring || begin(m, &m->batch)) {
        peers_free(&m);
        return NULL;
    }
    m->head_n = m->batch.size;
    return m;
}

void peers_start(struct peers *m)
{
    m->started_ms = now_ms(m);
    reactor_timer_set(m->reactor, &m->heartbeat, 0);
}

static void free_origin(struct peers *m, struct origin *o)
{
    HASH_DEL(m->origins, o);
    drop_all(&o->held);
    drop_all(&o->late);
    free(o->heard);
    free(o);
}

void peers_free(struct peers **mp)
{
    struct peers *m = *mp;
    if (!m)
        return;
    reactor_undefer(m->reactor, &m->flush, REACTOR_FLUSH);
    reactor_timer_cancel(m->reactor, &m->heartbeat);
    while (m->peers) {
        struct peer *p = m->peers;
        m->peers = p->next;
        m->link.close(m->link.link, p->channel);
        free(p);
    }
    while (m->origins)
        free_origin(m, m->origins);
    ring_free(&m->ring);
    msgpack_sbuffer_destroy(&m->batch);
    msgpack_sbuffer_destroy(&m->scratch);
    msgpack_sbuffer_destroy(&m->parts);
    free(m);
    *mp = NULL;
}

const char *peers_local_router(const struct peers *m, uint32_t tag)
{
    for (const struct peer *p = m->peers; p; p = p->next)
        if (p->origin && p->origin->id.tag == tag && p->origin->state == ORIGIN_LIVE && is_local(p))
            return p->router;
    return NULL;
}

bool peers_is_ready(const struct peers *m)
{
    return m->is_ready;
}

unsigned peers_alive(const struct peers *m)
{
    unsigned n = 0;
    for (const struct origin *o = m->origins; o; o = o->hh.next)
        n += o->state == ORIGIN_LIVE;
    return n;
}

bool peers_is_confirmed(const struct peers *m, uint64_t seq)
{
    for (const struct origin *o = m->origins; o; o = o->hh.next)
        if (o->state == ORIGIN_LIVE && (!o->hears_this_boot || o->hears_us < seq))
            return false;
    return true;
}
