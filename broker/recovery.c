#include "recovery.h"
#include "client.h"
#include "container.h"
#include "err.h"
#include "fanout.h"
#include "frames.h"
#include "ring.h"
#include <stdlib.h>

enum {
    PACKET_BYTES = 64, /* around an event: its frame's head, type, counts, brackets, commas and quotes */
    FRAME_BYTES = 16,
    UNSAVED = 0,       /* stands among the origins of an offset: offset.md */
    LONGER_LATER = 32, /* by so much an offset may grow as its numbers do */
};

enum { FRESH_PARTS = 4 }; /* an offset is sent again when a quarter of the window has passed */

struct recovery {
    struct reactor *reactor;
    struct hub *hub;
    struct recovery_options options;
    struct peers *peers;
    struct directory *directory;
    struct archive *archive; /* NULL: there is no store */
    struct offset now;
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    struct mesh_record record; /* large: one is enough */
    struct timer sweep;
    char text[LIMIT_OFFSET_BYTES];
};

/* An offset that was sent longer ago than this is too old. */
static uint64_t fresh_ms(const struct recovery *r)
{
    return r->options.window_ms / FRESH_PARTS;
}

static void on_sweep(struct timer *t);

struct recovery *recovery_new(struct reactor *r, struct hub *h, const struct recovery_options *o,
                              struct peers *peers, struct directory *directory)
{
    struct recovery *v = calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    v->reactor = r;
    v->hub = h;
    v->options = *o;
    v->peers = peers;
    v->directory = directory;
    h->recovery = v;
    timer_init(&v->sweep, on_sweep);
    if (o->ping_interval_ms > fresh_ms(v))
        reactor_timer_set(r, &v->sweep, fresh_ms(v) / 2);
    return v;
}

void recovery_free(struct recovery **vp)
{
    if (!*vp)
        return;
    reactor_timer_cancel((*vp)->reactor, &(*vp)->sweep);
    archive_free(&(*vp)->archive);
    (*vp)->hub->recovery = NULL;
    free(*vp);
    *vp = NULL;
}

int recovery_use(struct recovery *r, const struct store *store)
{
    struct archive_options o = {.patience_ms = r->options.catch_up_ms};
    r->archive = archive_new(r->reactor, r->hub->metrics, &o, store, r->peers);
    return r->archive ? 0 : ERR_MEMORY;
}

struct directory *recovery_directory(const struct recovery *r)
{
    return r->directory;
}

/* ---- offsets ---- */

uint64_t recovery_catch_up_ms(const struct recovery *r)
{
    return r->options.catch_up_ms;
}

int recovery_later_of(const struct recovery *r, struct offset *o, const struct offset *first)
{
    int err = 0;
    for (unsigned i = 0; i < first->n && !err; i++) {
        uint32_t tag = first->entry[i].origin;
        if (offset_names(o, tag) || recovery_position(r, tag).origin.tag == tag)
            err = offset_raise(o, tag, first->entry[i].seq);
    }
    return err;
}

static struct span write_offset(struct recovery *r, const struct offset *o)
{
    ssize_t n = offset_encode(o, r->text, sizeof(r->text));
    return (struct span){r->text, n > 0 ? (size_t)n : 0};
}

struct span recovery_offset(struct recovery *r, uint64_t newest)
{
    unsigned n = peers_positions(r->peers, r->position, LIMIT_OFFSET_ORIGINS);
    r->now.issuer = r->options.self.tag;
    r->now.n = 0;
    r->position[0].received = newest;
    for (unsigned i = 0; i < n; i++)
        if (r->position[i].received > 0 && !r->position[i].is_old)
            offset_raise(&r->now, r->position[i].origin.tag, r->position[i].received);
    return write_offset(r, &r->now);
}

/* ---- what is held ---- */

static enum recovery_verdict check_origin(const struct recovery *r, const struct peers_position *p,
                                          uint64_t since)
{
    uint64_t first, last;
    if (p->is_filling)
        return RECOVERY_LATER; /* what comes of it behind the replay would be given to nobody */
    if (since == p->received)
        return RECOVERY_YES;
    if (since > p->received)
        return p->lives ? RECOVERY_LATER : RECOVERY_YES;
    bool is_held = ring_range(peers_ring(r->peers), p->origin, &first, &last) && first <= since + 1 &&
                   last == p->received;
    return is_held ? RECOVERY_YES : RECOVERY_NO;
}

/* Its records are here, but not for how long it has been dead: an offset that does not name it may be of a time before
 * it, or of a time when the others had forgotten it. */
static bool is_undated(const struct recovery *r, const struct peers_position *p)
{
    uint64_t first, last;
    return !p->lives && !p->is_dated && ring_range(peers_ring(r->peers), p->origin, &first, &last);
}

enum recovery_verdict recovery_check(const struct recovery *r, const struct offset *since)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(r->peers, position, LIMIT_OFFSET_ORIGINS), known = 0;
    enum recovery_verdict all = RECOVERY_YES;
    for (unsigned i = 0; i < n; i++) {
        bool has = offset_names(since, position[i].origin.tag);
        known += has;
        if (!has && position[i].is_old) /* left out of offsets, and nobody can have missed anything of it */
            continue;
        if (!has && is_undated(r, &position[i]))
            return RECOVERY_NO;
        enum recovery_verdict one = check_origin(r, &position[i], offset_seq(since, position[i].origin.tag));
        if (one == RECOVERY_NO)
            return RECOVERY_NO;
        if (one == RECOVERY_LATER)
            all = RECOVERY_LATER;
    }
    return known < since->n ? RECOVERY_LATER
                            : all; /* a new node, maybe, of which this one has not heard yet */
}

int recovery_ahead(const struct recovery *r, const struct offset *since, struct ahead **ahead)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(r->peers, position, LIMIT_OFFSET_ORIGINS);
    struct ahead *a = NULL;
    for (unsigned i = 1; i < n; i++) {
        uint64_t has = offset_seq(since, position[i].origin.tag);
        if (has <= position[i].received)
            continue;
        if (!a && !(a = calloc(1, sizeof(*a) + since->n * sizeof(a->have[0]))))
            return ERR_MEMORY;
        a->have[a->n].origin = position[i].origin.tag;
        a->have[a->n++].number = has;
    }
    *ahead = a;
    return 0;
}

static void drop_ahead_if_empty(struct socket *s)
{
    if (s->ahead->n > 0)
        return;
    free(s->ahead);
    s->ahead = NULL;
}

/* Offsets do not name what nobody knows any more. What is only silent for long may be heard again. */
static void forget_old(const struct recovery *r, struct socket *s)
{
    struct ahead *a = s->ahead;
    for (unsigned i = a->n; i-- > 0;)
        if (a->have[i].origin != UNSAVED &&
            recovery_position(r, a->have[i].origin).origin.tag != a->have[i].origin)
            a->have[i] = a->have[--a->n];
    drop_ahead_if_empty(s);
}

int recovery_say_unsaved(struct socket *s, uint64_t version)
{
    unsigned n = s->ahead ? s->ahead->n : 0, i = 0;
    while (i < n && s->ahead->have[i].origin != UNSAVED)
        i++;
    if (i < n && version > 0) {
        s->ahead->have[i].number = version;
    } else if (i < n) {
        s->ahead->have[i] = s->ahead->have[--s->ahead->n];
        drop_ahead_if_empty(s);
    }
    if (i < n || version == 0)
        return 0;
    struct ahead *a = realloc(s->ahead, sizeof(*a) + (n + 1) * sizeof(a->have[0]));
    if (!a)
        return ERR_MEMORY;
    if (n == 0)
        memset(a, 0, sizeof(*a));
    memset(&a->have[n], 0, sizeof(a->have[n])); /* they are compared as bytes */
    a->have[n].origin = UNSAVED;
    a->have[n].number = version;
    a->n = n + 1;
    s->ahead = a;
    return 0;
}

uint64_t recovery_take_version(struct offset *o)
{
    if (o->n == 0 || o->entry[0].origin != UNSAVED)
        return 0;
    uint64_t version = o->entry[0].seq;
    memmove(o->entry, o->entry + 1, --o->n * sizeof(o->entry[0]));
    return version;
}

int recovery_put_version(struct offset *o, uint64_t version)
{
    recovery_take_version(o);
    return version ? offset_raise(o, UNSAVED, version) : 0;
}

/* What this socket's offsets say of it. */
static uint64_t unsaved_version(const struct socket *s)
{
    for (unsigned i = 0; s->ahead && i < s->ahead->n; i++)
        if (s->ahead->have[i].origin == UNSAVED)
            return s->ahead->have[i].number;
    return 0;
}

struct span recovery_own_offset(struct recovery *r, struct socket *s, struct span offset)
{
    static struct offset own; /* large; the reactor's thread only */
    int err = 0;
    if (s->ahead)
        forget_old(r, s);
    if (!s->ahead || offset_decode(offset, &own))
        return offset;
    for (unsigned i = 0; i < s->ahead->n && !err; i++)
        err = offset_raise(&own, s->ahead->have[i].origin, s->ahead->have[i].number);
    return write_offset(r, &own);
}

struct peers_position recovery_position(const struct recovery *r, uint32_t tag)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(r->peers, position, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++)
        if (position[i].origin.tag == tag)
            return position[i];
    return (struct peers_position){.received = 0};
}

/* ---- what the ring does not hold any more ---- */

bool recovery_fetch_more(struct recovery *r, struct fetch *f, const struct offset *since)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(r->peers, position, LIMIT_OFFSET_ORIGINS), wanted = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct peers_position *p = &position[i];
        bool is_named = offset_names(since, p->origin.tag);
        uint64_t has = offset_seq(since, p->origin.tag);
        if ((!is_named && p->is_old) || check_origin(r, p, has) != RECOVERY_NO)
            continue;
        bool is_proven = is_named || p->lives || p->is_dated; /* see is_undated() */
        if (!is_proven || fetch_want(f, p->origin, has + 1))
            return false;
        wanted++;
    }
    if (wanted > 0)
        fetch_begin(f);
    return wanted > 0;
}

struct fetch *recovery_fetch(struct recovery *r, const struct session *session, const struct offset *since,
                             const struct entry *known, void (*done)(void *user, int err), void *user)
{
    const struct engine_options *o = &session->engine->options;
    struct fetch *f = r->archive
                          ? fetch_new(r->archive, &(struct fetch_options){.nsp = known->nsp,
                                                                          .sid = known->sid,
                                                                          .rooms = known->rooms,
                                                                          .n_rooms = known->n_rooms,
                                                                          .max_messages = o->queue_messages,
                                                                          .max_bytes = o->queue_bytes,
                                                                          .done = done,
                                                                          .user = user})
                          : NULL;
    if (f && !recovery_fetch_more(r, f, since))
        fetch_free(&f);
    return f;
}

void recovery_reached(const struct fetch *f, const struct offset *since, struct offset *reached)
{
    struct fetch_part part;
    *reached = *since;
    for (unsigned i = 0; fetch_part(f, i, &part); i++)
        if (part.last > 0) /* there is room: it is a position of this node */
            offset_raise(reached, part.origin.tag, part.last);
}

/* ---- replay ---- */

struct replay {
    struct recovery *recovery;
    struct socket *socket; /* NULL: only count */
    struct span nsp, sid;
    const struct span *rooms;
    unsigned n_rooms;
    struct offset offset; /* how far the client is when it has what was queued so far */
    size_t offset_n;      /* of its text */
    uint64_t messages, bytes;
    int err;
};

static bool is_in(const struct replay *p, struct span name)
{
    for (unsigned i = 0; i < p->n_rooms; i++)
        if (span_eq(name, p->rooms[i]))
            return true;
    return span_eq(name, p->sid);
}

static bool is_for(const struct replay *p, const struct mesh_emit *e)
{
    if (e->skip.n && span_eq(e->skip, p->sid))
        return false;
    for (unsigned i = 0; i < e->n_except; i++)
        if (is_in(p, e->except[i]))
            return false;
    return true;
}

static void queue_missed(struct replay *p, const struct mesh_emit *e)
{
    struct session *session = p->socket->session;
    struct slice frames;
    p->err = frames_encode(&session->engine->bytes,
                           &(struct frames_packet){
                               .type = SIO_EVENT,
                               .nsp = p->nsp,
                               .event = e->event,
                               .args = e->args,
                               .attachments = e->attachments,
                               .n_attachments = e->n_attachments,
                               .offset = write_offset(p->recovery, &p->offset),
                           },
                           &frames);
    if (p->err)
        return;
    session_push(session, &frames, 1 + e->n_attachments, false);
    slice_unref(&frames);
}

/* At most, as frames: with heads, quotes and the offset. */
static uint64_t queued_bytes(const struct replay *p, const struct mesh_emit *e)
{
    uint64_t n = p->nsp.n + e->event.n + e->args.n + p->offset_n + PACKET_BYTES;
    for (unsigned i = 0; i < e->n_attachments; i++)
        n += e->attachments[i].n + FRAME_BYTES;
    return n;
}

static bool give(struct replay *p, uint32_t tag, struct span raw)
{
    struct mesh_record *record = &p->recovery->record;
    struct mesh_reader reader = {raw.p, raw.p + raw.n};
    if (mesh_read(&reader, record) != 1 || record->kind != MESH_EMIT || !is_for(p, &record->emit))
        return true;
    p->messages += 1 + record->emit.n_attachments;
    p->bytes += queued_bytes(p, &record->emit);
    if (!p->socket)
        return true;
    p->err = offset_raise(&p->offset, tag, record->seq);
    if (!p->err)
        queue_missed(p, &record->emit);
    return !p->err;
}

static bool on_found(void *user, const struct ring_found *found)
{
    return give(user, found->origin.tag, found->raw);
}

/* What has been read of several origins: each in its own order, and a sender that has moved says nothing here before
 * what it had said there. */
struct merge {
    struct replay *replay;
    const struct fetch *fetch;
    unsigned at[LIMIT_OFFSET_ORIGINS]; /* of each part: how much of it has been given */
    bool is_open[LIMIT_OFFSET_ORIGINS];
};

static void give_part(struct merge *m, unsigned i, uint64_t to);

static void give_before(struct merge *m, struct mesh_origin after, uint64_t seq)
{
    struct fetch_part part;
    for (unsigned i = 0; i < LIMIT_OFFSET_ORIGINS && fetch_part(m->fetch, i, &part); i++)
        if (part.origin.tag == after.tag && part.origin.boot == after.boot && !m->is_open[i])
            give_part(m, i, seq);
}

/* Of part i what is left, up to this number. */
static void give_part(struct merge *m, unsigned i, uint64_t to)
{
    struct replay *p = m->replay;
    const struct mesh_emit *emit = &p->recovery->record.emit;
    struct fetch_part part;
    uint64_t seq;
    fetch_part(m->fetch, i, &part);
    m->is_open[i] = true;
    while (m->at[i] < part.n && !p->err) {
        struct span raw = fetch_record(m->fetch, i, m->at[i], &seq);
        struct mesh_reader reader = {raw.p, raw.p + raw.n};
        if (seq > to)
            break;
        m->at[i]++;
        if (mesh_read(&reader, &p->recovery->record) == 1 && emit->after_origin.tag)
            give_before(m, emit->after_origin, emit->after_seq);
        give(p, part.origin.tag, raw);
    }
    m->is_open[i] = false;
}

static void give_read(struct replay *p, const struct fetch *f)
{
    struct merge m = {.replay = p, .fetch = f};
    struct fetch_part part;
    for (unsigned i = 0; i < LIMIT_OFFSET_ORIGINS && fetch_part(f, i, &part); i++)
        give_part(&m, i, UINT64_MAX);
}

/* The rooms and, behind them, the sid, which is one too. */
static int search(struct replay *p, const struct recovery_missed *missed)
{
    struct span *rooms = malloc((p->n_rooms + 1) * sizeof(*rooms));
    if (!rooms)
        return ERR_MEMORY;
    if (p->n_rooms)
        memcpy(rooms, p->rooms, p->n_rooms * sizeof(*rooms));
    rooms[p->n_rooms] = p->sid;
    struct ring_search s = {
        .nsp = p->nsp, .rooms = rooms, .n_rooms = p->n_rooms + 1, .since = missed->reached};
    if (missed->fetch)
        give_read(p, missed->fetch);
    int err = p->err ? p->err : ring_search(peers_ring(p->recovery->peers), &s, on_found, p);
    free(rooms);
    return err ? err : p->err;
}

bool recovery_fits(struct recovery *r, const struct session *session, const struct recovery_missed *missed,
                   const struct entry *known)
{
    const struct engine_options *o = &session->engine->options;
    const struct outq *q = &session->out; /* another namespace of this client may have come back already */
    uint64_t own_bytes = 4 * PACKET_BYTES + 2 * (uint64_t)LIMIT_NAMESPACE_BYTES, own_messages = 2;
    struct replay p = {.recovery = r,
                       .offset_n = LONGER_LATER + write_offset(r, missed->reached).n,
                       .nsp = known->nsp,
                       .sid = known->sid,
                       .rooms = known->rooms,
                       .n_rooms = known->n_rooms};
    return search(&p, missed) == 0 && p.messages + q->messages + own_messages <= o->queue_messages &&
           p.bytes + p.offset_n + q->bytes + own_bytes <= o->queue_bytes;
}

void recovery_hold(struct recovery *r)
{
    ring_hold(peers_ring(r->peers));
}

void recovery_let_go(struct recovery *r)
{
    ring_let_go(peers_ring(r->peers));
}

int recovery_replay(struct recovery *r, struct socket *s, const struct recovery_missed *missed)
{
    struct replay p = {.recovery = r,
                       .socket = s,
                       .nsp = nsp_name(s->nsp),
                       .sid = {s->sid, ID_CHARS},
                       .offset = *missed->since};
    struct span *rooms = malloc((s->n_places + 1) * sizeof(*rooms));
    if (!rooms)
        return ERR_MEMORY;
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        if (room != s->nsp->all)
            rooms[p.n_rooms++] = (struct span){room->name, room->name_n};
    }
    p.rooms = rooms;
    p.offset.issuer = r->options.self.tag;
    recovery_put_version(&p.offset, unsaved_version(s));
    int err = search(&p, missed);
    free(rooms);
    metrics_add(r->hub->metrics, METRIC_RECOVERED_EVENTS, p.messages);
    return err;
}

/* ---- silent clients ---- */

void recovery_tell_offset(struct recovery *r, struct socket *s)
{
    struct slice frames;
    int err =
        frames_encode(&s->session->engine->bytes,
                      &(struct frames_packet){
                          .type = SIO_EVENT,
                          .nsp = nsp_name(s->nsp),
                          .event = SPAN("\"bus:offset\""),
                          .offset = recovery_own_offset(r, s, recovery_offset(r, peers_newest(r->peers))),
                      },
                      &frames);
    if (err)
        return;
    session_push(s->session, &frames, 1, false);
    slice_unref(&frames);
    s->offset_ms = reactor_now_ms(r->reactor);
}

void recovery_on_ping(struct recovery *r, struct socket *s)
{
    bool is_old = reactor_now_ms(r->reactor) - s->offset_ms > fresh_ms(r);
    /* What waits in line is counted in the offset, but has not been sent. */
    if (s->entry && is_old && fanout_is_idle(r->hub->fanout))
        recovery_tell_offset(r, s);
}

/* Pings are too rare for this window. */
static void on_sweep(struct timer *t)
{
    struct recovery *r = container_of(t, struct recovery, sweep);
    for (const struct nsp *nsp = r->hub->nsps; nsp; nsp = nsp->hh.next)
        for (struct socket *s = nsp->sockets; s; s = s->hh.next)
            recovery_on_ping(r, s);
    reactor_timer_set(r->reactor, t, fresh_ms(r) / 2);
}
