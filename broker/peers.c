#include "container.h"
#include "err.h"
#include "log.h"
#include "peers_private.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- messages ---- */

int peers_begin(struct peers *m, msgpack_sbuffer *b, unsigned version)
{
    msgpack_sbuffer_clear(b);
    return mesh_write_head(
        b, &(struct mesh_head){.version = version, .cluster = m->options.cluster, .origin = m->options.self});
}

struct span peers_message(const msgpack_sbuffer *b)
{
    return (struct span){b->data, b->size};
}

unsigned peers_version_of(const struct peers *m, const struct peer *p)
{
    unsigned own = m->options.version;
    return p->origin && p->origin->version < own ? p->origin->version : own;
}

void peers_send_batch(struct peers *m)
{
    if (m->batch.size > 0)
        m->link.publish(m->link.link, peers_message(&m->batch));
    msgpack_sbuffer_clear(&m->batch);
}

static void send_own_batch(struct peers *m, struct peer *p)
{
    if (p->batch.size > 0)
        m->link.send(m->link.link, p->channel, peers_message(&p->batch));
    msgpack_sbuffer_clear(&p->batch);
}

static void on_flush(struct reactor_task *task)
{
    struct peers *m = container_of(task, struct peers, flush);
    peers_send_batch(m);
    m->has_sent_early = false;
    for (struct peer *p = m->peers; p; p = p->next)
        send_own_batch(m, p);
}

/* Puts a record that is written already behind those of this turn. When these are many the peers get the first of them
 * early and work on them while this node reads the rest: with 64 round trips in flight between two nodes that makes a
 * quarter more of them. Once a turn, since each message wakes threads at both ends. */
static void add_to_batch(struct peers *m, struct span raw)
{
    if (m->batch.size + raw.n > BATCH_BYTES)
        peers_send_batch(m);
    if (m->batch.size == 0)
        peers_begin(m, &m->batch, m->pub_version);
    mesh_write_as(&m->batch, m->pub_version, raw);
    if (!m->has_sent_early && m->batch.size >= EARLY_BYTES) {
        peers_send_batch(m);
        m->has_sent_early = true;
    }
    reactor_defer(m->reactor, &m->flush, REACTOR_FLUSH);
}

/* What is published is for all who live: in the version of the oldest of them. */
void peers_choose_version(struct peers *m)
{
    unsigned version = m->options.version;
    for (const struct peer *p = m->peers; p; p = p->next)
        if (p->origin && p->origin->state != ORIGIN_DEAD && p->origin->version < version)
            version = p->origin->version;
    if (version == m->pub_version)
        return;
    peers_send_batch(m);
    m->pub_version = version;
    log_event(LOG_INFO, "mesh_version", LOG_UINT("version", version));
}

void peers_heard_version(struct peers *m, struct origin *o, unsigned version)
{
    if (o->version >= version)
        return;
    o->version = version;
    peers_choose_version(m);
}

uint64_t peers_publish(struct peers *m, struct mesh_record *record)
{
    const struct mesh_emit *emit = record->kind == MESH_EMIT ? &record->emit : NULL;
    record->seq = m->seq + 1;
    msgpack_sbuffer_clear(&m->scratch);
    if (mesh_write(&m->scratch, record))
        return 0;
    struct span raw = peers_message(&m->scratch);
    m->seq++;
    if (ring_add(m->ring, peers_now_ms(m), m->options.self, m->seq, raw, emit))
        ring_restart(m->ring, m->options.self);
    add_to_batch(m, raw);
    if (m->user.on_published)
        m->user.on_published(m->user.user);
    return m->seq;
}

uint64_t peers_newest(const struct peers *m)
{
    return m->seq;
}

void peers_note(struct peers *m, enum mesh_topic topic, struct span bytes)
{
    struct mesh_record *record = &m->record;
    record->kind = MESH_NOTE;
    record->message = (struct mesh_message){.topic = topic, .bytes = bytes};
    msgpack_sbuffer_clear(&m->scratch);
    if (mesh_write(&m->scratch, record) == 0)
        add_to_batch(m, peers_message(&m->scratch));
}

int peers_tell(struct peers *m, struct mesh_origin to, enum mesh_topic topic, struct span bytes)
{
    const struct origin *o = peers_find_origin(m, to);
    struct peer *p = o && o->state == ORIGIN_LIVE ? peers_of_origin(m, o) : NULL;
    struct mesh_record *record = &m->record;
    if (!p)
        return ERR_NOT_FOUND;
    record->kind = MESH_TELL;
    record->message = (struct mesh_message){.topic = topic, .bytes = bytes};
    if (p->batch.size + bytes.n > BATCH_BYTES)
        send_own_batch(m, p);
    if (p->batch.size == 0 && peers_begin(m, &p->batch, peers_version_of(m, p)))
        return ERR_MEMORY;
    if (mesh_write(&p->batch, record))
        return ERR_MEMORY;
    reactor_defer(m->reactor, &m->flush, REACTOR_FLUSH);
    return 0;
}

void peers_send_as(struct peers *m, const struct peer *p, unsigned version, const struct mesh_record *record)
{
    if (peers_begin(m, &m->scratch, version) == 0 && mesh_write(&m->scratch, record) == 0)
        m->link.send(m->link.link, p->channel, peers_message(&m->scratch));
}

void peers_send_record(struct peers *m, const struct peer *p, const struct mesh_record *record)
{
    peers_send_as(m, p, peers_version_of(m, p), record);
}

/* ---- receiving ---- */

/* What a message has said so far about the records that follow in it. */
struct reading {
    struct mesh_head head;
    struct origin *from;     /* NULL: not known yet */
    struct origin *over;     /* it has started again since: its records still count */
    struct origin *repaired; /* of the records behind a REPAIRED, when it is known */
    bool is_repair;
    bool in_snapshot, is_last_part;
};

static void take_repaired(struct peers *m, struct reading *in, struct mesh_repair repair)
{
    in->repaired = peers_find_origin(m, repair.origin);
    in->is_repair = true;
    if (!in->repaired)
        return;
    records_gone(m, in->repaired, in->head.origin, repair.gone_to);
    /* An answer without records claims nothing, and one that comes late answers a question asked again since. */
    if (repair.to >= repair.from && repair.to > in->repaired->received)
        in->repaired->asked_to = repair.to;
}

static void take_numbered(struct peers *m, struct reading *in, const struct mesh_record *record)
{
    struct origin *o = in->from;
    if (record->seq == 0 && in->in_snapshot && is_presence(record->kind))
        presence_apply(m, o, record);
    else if (record->seq == 0)
        return;
    else if (in->repaired)
        records_take(m, in->repaired, record);
    else if (!in->is_repair && o && o->state == ORIGIN_LIVE)
        records_take(m, o, record);
    else if (!in->is_repair && in->over)
        records_take(m, in->over, record);
}

/* What a peer says that has been heard of before. */
static void take_direct(struct peers *m, struct reading *in, const struct mesh_record *record)
{
    struct peer *p = peers_of_origin(m, in->from);
    switch (record->kind) {
    case MESH_HEARTBEAT:
        life_heartbeat(m, in->from, &record->heartbeat);
        return;
    case MESH_REPAIR:
        if (p)
            records_answer(m, p, &record->repair);
        return;
    case MESH_ASK_PRESENCE:
        if (p)
            presence_answer(m, p);
        return;
    case MESH_PRESENCE:
        in->in_snapshot = presence_take_part(m, in->from, &record->part);
        in->is_last_part = in->in_snapshot && record->part.last;
        return;
    case MESH_PEERS:
        life_peers(m, &record->peers);
        return;
    case MESH_NOTE:
    case MESH_TELL:
        if (m->user.on_message)
            m->user.on_message(m->user.user, in->from->id, &record->message);
        return;
    default:
        return;
    }
}

static void take_record(struct peers *m, struct reading *in, const struct mesh_record *record)
{
    if (record->kind == MESH_HELLO)
        life_hello(m, &in->head, &record->hello);
    else if (record->kind == MESH_REPAIRED)
        take_repaired(m, in, record->repair); /* by value: what waited is read into the same record */
    else if (record->kind < MESH_HEARTBEAT)
        take_numbered(m, in, record);
    else if (in->from)
        take_direct(m, in, record);
}

/* Others may have waited for what has come. */
static void go_on_waiting(struct peers *m)
{
    for (struct origin *o = m->origins; o; o = o->hh.next)
        if (o->waits_since_ms)
            records_go_on(m, o);
}

/* What this node has sent has come to itself: whoever was named there is nobody else. */
static void take_own(struct peers *m, struct mesh_reader *r)
{
    while (mesh_read(r, &m->record) == 1)
        if (m->record.kind == MESH_HELLO)
            life_own_hello(m, &m->record.hello);
}

void peers_receive(struct peers *m, struct span bytes)
{
    struct mesh_reader r;
    struct reading in = {.from = NULL};
    int got;
    if (mesh_read_head(&r, bytes, &in.head) || !span_eq(in.head.cluster, m->options.cluster)) {
        metrics_add(m->metrics, METRIC_MESH_REJECTED, 1);
        return;
    }
    if (same_origin(in.head.origin, m->options.self)) {
        take_own(m, &r);
        return;
    }
    in.from = peers_find_origin(m, in.head.origin);
    if (in.head.version > m->options.version)
        return;
    if (in.from && in.from->is_over)
        in.over = in.from;
    /* Of a dead one only records may be known so far: it lives when it has said who it is. */
    if (in.from && (in.from->is_over || !peers_of_origin(m, in.from)))
        in.from = NULL;
    if (in.from) {
        peers_heard_version(m, in.from, in.head.version);
        life_heard(m, in.from);
    }
    m->is_busy = m->user.is_busy && m->user.is_busy(m->user.user);
    while ((got = mesh_read(&r, &m->record)) == 1)
        take_record(m, &in, &m->record);
    if (got < 0)
        metrics_add(m->metrics, METRIC_MESH_REJECTED, 1);
    if (in.in_snapshot && got < 0)
        in.from->presence_begun = false; /* asked for again */
    else if (in.is_last_part)
        presence_finish(m, in.from);
    if (in.repaired)
        records_look_for_holes(m, in.repaired);
    if (in.from)
        records_look_for_holes(m, in.from);
    if (in.over)
        records_look_for_holes(m, in.over);
    go_on_waiting(m);
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
    if (m->options.version == 0)
        m->options.version = MESH_VERSION;
    m->pub_version = m->options.version;
    m->flush.run = on_flush;
    life_init(m);
    msgpack_sbuffer_init(&m->batch);
    msgpack_sbuffer_init(&m->scratch);
    msgpack_sbuffer_init(&m->parts);
    m->ring = ring_new(&o->ring);
    if (!m->ring)
        peers_free(&m);
    return m;
}

void peers_start(struct peers *m)
{
    m->started_ms = peers_now_ms(m);
    reactor_timer_set(m->reactor, &m->heartbeat, 0);
}

void peers_free(struct peers **mp)
{
    struct peers *m = *mp;
    if (!m)
        return;
    reactor_undefer(m->reactor, &m->flush, REACTOR_FLUSH);
    life_free(m);
    ring_free(&m->ring);
    msgpack_sbuffer_destroy(&m->batch);
    msgpack_sbuffer_destroy(&m->scratch);
    msgpack_sbuffer_destroy(&m->parts);
    free(m);
    *mp = NULL;
}

/* ---- questions ---- */

const char *peers_local_router(const struct peers *m, uint32_t tag)
{
    for (const struct peer *p = m->peers; p; p = p->next)
        if (peer_lives(p) && p->origin->id.tag == tag && peer_is_local(p))
            return p->router;
    return NULL;
}

bool peers_find_live(const struct peers *m, uint32_t tag, struct mesh_origin *id)
{
    for (const struct peer *p = m->peers; p; p = p->next) {
        if (peer_lives(p) && p->origin->id.tag == tag) {
            *id = p->origin->id;
            return true;
        }
    }
    return false;
}

void peers_drain(struct peers *m)
{
    m->is_draining = true;
}

bool peers_is_ready(const struct peers *m)
{
    return m->is_ready;
}

struct ring *peers_ring(const struct peers *m)
{
    return m->ring;
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

bool peers_have(const struct peers *m, struct mesh_origin origin, uint64_t seq)
{
    for (const struct origin *o = m->origins; o; o = o->hh.next)
        if (o->state == ORIGIN_LIVE && !same_origin(o->id, origin) && !origin_has(o, origin, seq))
            return false;
    return true;
}

bool peers_is_settled(const struct peers *m)
{
    uint64_t now = peers_now_ms(m);
    for (const struct origin *o = m->origins; o; o = o->hh.next) {
        bool is_silent = o->state == ORIGIN_LIVE && now - o->heard_ms > 3 * HEARTBEAT_MS;
        /* The others say with their next heartbeat what they have of it. */
        bool is_fresh = o->state == ORIGIN_DEAD && o->died_ms && now - o->died_ms < 3 * HEARTBEAT_MS;
        if (is_silent || is_fresh || (o->state != ORIGIN_NEW && o->received < o->newest))
            return false;
    }
    return true;
}

static struct peers_position position_of(const struct peers *m, const struct origin *o)
{
    bool lives = o->state != ORIGIN_DEAD;
    return (struct peers_position){
        .origin = o->id,
        .received = o->received,
        .lives = lives,
        .is_filling = origin_is_filling(o),
        .is_dated = o->is_dated,
        .is_old = !lives && peers_now_ms(m) - o->last_ms > peers_named_ms(m),
    };
}

unsigned peers_positions(const struct peers *m, struct peers_position *out, unsigned max)
{
    unsigned n = 0;
    if (max > 0)
        out[n++] = (struct peers_position){.origin = m->options.self, .received = m->seq, .lives = true};
    for (const struct origin *o = m->origins; o && n < max; o = o->hh.next)
        if (o->state != ORIGIN_DEAD)
            out[n++] = position_of(m, o);
    for (const struct origin *o = m->origins; o && n < max; o = o->hh.next)
        if (o->state == ORIGIN_DEAD)
            out[n++] = position_of(m, o);
    return n;
}

unsigned peers_views(const struct peers *m, struct peers_view *out, unsigned max)
{
    unsigned n = 0;
    for (const struct origin *o = m->origins; o && n < max; o = o->hh.next) {
        if (o->state != ORIGIN_LIVE)
            continue;
        out[n++] = (struct peers_view){.origin = o->id,
                                       .silent_ms = peers_now_ms(m) - o->heard_ms,
                                       .behind = o->newest > o->received ? o->newest - o->received : 0,
                                       .in_hole = o->in_hole,
                                       .is_draining = o->is_draining};
    }
    return n;
}
