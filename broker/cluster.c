/* Sockets of other nodes are kept in a second hub, whose sockets have no session: the same tables, rooms and limits.
 * All sockets of one origin are in a room of it that no client can name (it begins with a byte that UTF-8 has not), so
 * that they can be found when the origin dies. */
#include "cluster.h"
#include "collect.h"
#include "directory.h"
#include "err.h"
#include "fanout.h"
#include "json.h"
#include "log.h"
#include "mirror.h"
#include "recovery.h"
#include <stdio.h>
#include <stdlib.h>

/* A key that a part of this node has told, for those who come later. */
struct told {
    UT_hash_handle hh;
    unsigned topic;
    uint32_t key_n, bytes_n;
    char key[]; /* its first byte is the topic; then the value */
};

struct cluster {
    struct hub *hub, *far;
    struct metrics *far_metrics;
    struct peers *peers;
    struct mirror *mirror;
    struct told *told;
    struct cluster_part parts[MESH_TOPICS];
    void (*on_ready)(void *user);
    void *ready_user;
    struct mesh_record record; /* large: one is enough */
};

#define ORIGIN_ROOM_MARK '\xff'
enum { ORIGIN_ROOM_BYTES = 13 };

static struct span origin_room(char text[ORIGIN_ROOM_BYTES], struct mesh_origin o)
{
    text[0] = ORIGIN_ROOM_MARK;
    memset(text + 1, 0, ORIGIN_ROOM_BYTES - 1);
    memcpy(text + 1, &o.tag, sizeof(o.tag));
    memcpy(text + 5, &o.boot, sizeof(o.boot));
    return (struct span){text, ORIGIN_ROOM_BYTES};
}

/* Every node hears every emit, so each knows of all rooms how much goes there. */
static void count_far(struct cluster *c, struct span nsp_name, const struct span *to, unsigned n)
{
    struct nsp *nsp = n > 0 ? hub_find(c->far, nsp_name) : NULL;
    for (unsigned i = 0; nsp && i < n; i++) {
        struct room *room = room_find(nsp, to[i]);
        if (room)
            room->emits++;
    }
}

/* ---- what happens here ---- */

uint64_t cluster_emit(struct cluster *c, const struct emit *e)
{
    struct mesh_emit *out = &c->record.emit;
    c->record.kind = MESH_EMIT;
    memset(out, 0, offsetof(struct mesh_emit, to));
    out->nsp = e->nsp;
    out->event = e->event;
    out->args = e->args;
    out->is_volatile = e->is_volatile || e->wait; /* who is asked must answer now: it is not recovered */
    out->n_to = e->n_to;
    out->n_except = e->n_except;
    out->n_attachments = e->n_attachments;
    for (unsigned i = 0; i < e->n_to; i++)
        out->to[i] = e->to[i];
    for (unsigned i = 0; i < e->n_except; i++)
        out->except[i] = e->except[i];
    for (unsigned i = 0; i < e->n_attachments; i++)
        out->attachments[i] = e->attachments[i];
    out->key = e->key;
    out->ack_ms = e->ack_ms;
    if (e->skip)
        out->skip = (struct span){e->skip->sid, ID_CHARS};
    if (e->from && e->from->entry && e->from->entry->after.tag) { /* this sender was elsewhere before */
        out->after_origin = e->from->entry->after;
        out->after_seq = e->from->entry->after_seq;
        e->from->entry->after.tag = 0;
    }
    count_far(c, e->nsp, e->to, e->n_to);
    return peers_publish(c->peers, &c->record);
}

static struct mesh_presence presence_of(const struct socket *s)
{
    return (struct mesh_presence){
        .nsp = nsp_name(s->nsp), .sid = {s->sid, ID_CHARS}, .epoch = s->entry ? s->entry->epoch : 0};
}

static struct span user_of(const struct socket *s)
{
    struct span user = span_of(s->user ? s->user : "");
    return user.n <= LIMIT_USER_BYTES ? user : (struct span){"", 0};
}

static void tell(struct cluster *c, enum mesh_kind kind, const struct socket *s, struct span room)
{
    c->record.kind = kind;
    c->record.presence = presence_of(s);
    if (kind == MESH_ENTER)
        c->record.presence.user = user_of(s);
    if (room.n)
        c->record.presence.rooms[c->record.presence.n_rooms++] = room;
    peers_publish(c->peers, &c->record);
}

void cluster_enter(struct cluster *c, const struct socket *s)
{
    tell(c, MESH_ENTER, s, (struct span){NULL, 0});
}

void cluster_exit(struct cluster *c, const struct socket *s)
{
    tell(c, MESH_EXIT, s, (struct span){NULL, 0});
}

void cluster_join(struct cluster *c, const struct socket *s, struct span room)
{
    tell(c, MESH_JOIN, s, room);
}

void cluster_part(struct cluster *c, const struct socket *s, struct span room)
{
    tell(c, MESH_PART, s, room);
}

/* ---- a peer asks who is here ---- */

static void put_rooms(struct peers *peers, const struct socket *s)
{
    struct mesh_presence p = presence_of(s);
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        if (room == s->nsp->all)
            continue;
        p.rooms[p.n_rooms++] = (struct span){room->name, room->name_n};
        if (p.n_rooms == LIMIT_ROOMS_PER_CALL) {
            peers_put_presence(peers, MESH_JOIN, &p);
            p.n_rooms = 0;
        }
    }
    if (p.n_rooms)
        peers_put_presence(peers, MESH_JOIN, &p);
}

static void put_presence(void *user, struct peers *peers)
{
    const struct cluster *c = user;
    for (struct nsp *nsp = c->hub->nsps; nsp; nsp = nsp->hh.next) {
        for (struct socket *s = nsp->sockets; s; s = s->hh.next) {
            struct mesh_presence p = presence_of(s);
            p.user = user_of(s);
            peers_put_presence(peers, MESH_ENTER, &p);
            put_rooms(peers, s);
        }
    }
    for (const struct told *t = c->told; t; t = t->hh.next)
        peers_put_set(peers, &(struct mesh_message){.topic = t->topic,
                                                    .key = {t->key + 1, t->key_n - 1},
                                                    .bytes = {t->key + t->key_n, t->bytes_n}});
}

/* ---- what parts of nodes tell each other ---- */

void cluster_listen(struct cluster *c, enum mesh_topic topic, const struct cluster_part *part)
{
    c->parts[topic] = *part;
}

static void forget_told(struct cluster *c, struct told *t)
{
    HASH_DEL(c->told, t);
    free(t);
}

int cluster_set(struct cluster *c, enum mesh_topic topic, struct span key, struct span value)
{
    struct told *t = malloc(sizeof(*t) + 1 + key.n + value.n), *old;
    if (!t)
        return ERR_MEMORY;
    *t = (struct told){.topic = topic, .key_n = (uint32_t)key.n + 1, .bytes_n = (uint32_t)value.n};
    t->key[0] = (char)topic;
    memcpy(t->key + 1, key.p, key.n);
    if (value.n)
        memcpy(t->key + t->key_n, value.p, value.n);
    c->record.kind = MESH_SET;
    c->record.message = (struct mesh_message){.topic = topic, .key = key, .bytes = value};
    bool is_said = peers_publish(c->peers, &c->record) != 0;
    HASH_FIND(hh, c->told, t->key, t->key_n, old);
    if (old && is_said)
        forget_told(c, old);
    if (value.n && is_said)
        HASH_ADD(hh, c->told, key, t->key_n, t);
    else
        free(t);
    return is_said ? 0 : ERR_MEMORY;
}

void cluster_note(struct cluster *c, enum mesh_topic topic, struct span bytes)
{
    peers_note(c->peers, topic, bytes);
}

int cluster_tell(struct cluster *c, struct mesh_origin to, enum mesh_topic topic, struct span bytes)
{
    return peers_tell(c->peers, to, topic, bytes);
}

static void on_set(void *user, struct mesh_origin from, const struct mesh_message *set)
{
    const struct cluster *c = user;
    const struct cluster_part *part = &c->parts[set->topic];
    if (part->on_set)
        part->on_set(part->user, from, set->key, set->bytes);
}

static void on_message(void *user, struct mesh_origin from, const struct mesh_message *message)
{
    const struct cluster *c = user;
    const struct cluster_part *part = &c->parts[message->topic];
    if (part->on_message)
        part->on_message(part->user, from, message->bytes);
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    const struct cluster *c = user;
    if (c->mirror)
        mirror_settle(c->mirror, from, received);
    for (unsigned i = 0; i < MESH_TOPICS; i++)
        if (c->parts[i].on_dead)
            c->parts[i].on_dead(c->parts[i].user, from, received);
}

static void on_published(void *user)
{
    const struct cluster *c = user;
    if (c->mirror)
        mirror_wake(c->mirror);
}

void cluster_use_mirror(struct cluster *c, struct mirror *mirror)
{
    c->mirror = mirror;
}

struct mirror *cluster_mirror(const struct cluster *c)
{
    return c->mirror;
}

static bool is_busy(void *user)
{
    const struct cluster *c = user;
    return c->hub->engine->congested;
}

/* ---- what peers tell ---- */

static void on_emit(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit)
{
    struct cluster *c = user;
    const struct hub_handler *handler = &c->hub->handler;
    struct nsp *nsp = emit->skip.n ? hub_find(c->hub, emit->nsp) : NULL;
    struct emit e = {
        .nsp = emit->nsp,
        .to = emit->to,
        .n_to = emit->n_to,
        .except = emit->except,
        .n_except = emit->n_except,
        .event = emit->event,
        .args = emit->args,
        .attachments = emit->attachments,
        .n_attachments = emit->n_attachments,
        .is_volatile = emit->is_volatile && !emit->ack_ms,
        .origin = from.tag,
        .number = seq,
        .key = emit->key,
        .skip = nsp ? nsp_find(nsp, emit->skip) : NULL, /* it may have come here since */
    };
    if (handler->on_emit)
        handler->on_emit(handler->user, &from, seq, &e);
    handler = c->hub->watcher;
    if (handler && handler->on_emit)
        handler->on_emit(handler->user, &from, seq, &e);
    count_far(c, e.nsp, e.to, e.n_to);
    int err = emit->ack_ms && c->hub->collects ? collects_serve(c->hub->collects, from, seq, emit->ack_ms, &e)
                                               : hub_deliver(c->hub, &e);
    if (err) { /* never a silent hole */
        metrics_add(c->hub->metrics, METRIC_MESH_LOST, 1);
        log_event(LOG_WARN, "emit_lost", LOG_UINT("tag", from.tag), LOG_UINT("boot", from.boot),
                  LOG_UINT("number", seq), LOG_TEXT("reason", err_text(err)));
    }
}

static void on_past(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit)
{
    const struct hub_handler *handler = &((struct cluster *)user)->hub->handler;
    if (emit->key.n && handler->on_past)
        handler->on_past(handler->user, &from, seq, emit->key);
}

static bool is_of(struct socket *s, struct mesh_origin origin)
{
    char text[ORIGIN_ROOM_BYTES];
    const struct room *room = room_find(s->nsp, origin_room(text, origin));
    return room && room_has(room, s);
}

/* Two nodes that could not hear each other may have taken a session at once. */
static bool is_above(const struct socket *s, uint64_t epoch, uint32_t tag)
{
    struct mesh_origin origin;
    return s->offset_ms > epoch ||
           (epoch > 0 && s->offset_ms == epoch && cluster_origin_of(s, &origin) && origin.tag > tag);
}

/* A session may have moved: then the one with the higher epoch counts, whichever is heard of first. */
static struct socket *far_enter(struct cluster *c, struct mesh_origin from, const struct mesh_presence *p)
{
    char text[ORIGIN_ROOM_BYTES];
    struct nsp *nsp = p->sid.n == ID_CHARS ? hub_obtain(c->far, p->nsp) : NULL;
    struct socket *s = nsp ? nsp_find(nsp, p->sid) : NULL;
    if (!nsp)
        return NULL;
    if (s && (is_of(s, from) || is_above(s, p->epoch, from.tag)))
        return is_of(s, from) ? s : NULL;
    if (c->hub->recovery && p->epoch > 0)
        directory_on_enter(recovery_directory(c->hub->recovery), p->sid, p->epoch, from);
    if (s)
        hub_remove(s);
    nsp = hub_obtain(c->far, p->nsp); /* it may have gone with its last socket */
    s = nsp ? hub_add_far(c->far, nsp, p->sid.p) : NULL;
    if (s)
        s->offset_ms = p->epoch;
    if (s && room_join(s, origin_room(text, from))) {
        hub_remove(s);
        s = NULL;
    }
    return s;
}

static void on_presence(void *user, struct mesh_origin from, enum mesh_kind kind,
                        const struct mesh_presence *p)
{
    struct cluster *c = user;
    struct nsp *nsp = hub_find(c->far, p->nsp);
    struct socket *s = nsp ? nsp_find(nsp, p->sid) : NULL;
    if (s && !is_of(s, from))
        s = NULL; /* of a session that has moved since */
    if (kind == MESH_ENTER || (kind == MESH_JOIN && !s))
        s = far_enter(c, from, p);
    if (!s)
        return;
    if (kind == MESH_ENTER)
        socket_set_user(s, p->user);
    if (kind == MESH_EXIT) {
        hub_remove(s);
        return;
    }
    for (unsigned i = 0; i < p->n_rooms; i++) {
        if (kind == MESH_PART)
            room_leave(s, p->rooms[i]);
        else
            room_join(s, p->rooms[i]);
    }
}

static void on_presence_void(void *user, struct mesh_origin from)
{
    struct cluster *c = user;
    char text[ORIGIN_ROOM_BYTES];
    struct span name = origin_room(text, from);
    struct nsp *nsp, *next;
    for (nsp = c->far->nsps; nsp; nsp = next) {
        struct room *room = room_find(nsp, name);
        next = nsp->hh.next; /* the namespace goes with its last socket */
        while (room) {
            bool is_last = room_count(room) == 1;
            hub_remove(room->members[room->n - 1].socket);
            if (is_last)
                break;
        }
    }
    for (unsigned i = 0; i < MESH_TOPICS; i++)
        if (c->parts[i].on_void)
            c->parts[i].on_void(c->parts[i].user, from);
}

/* Every client and every agent of this node learns that something may be missing. */
static void on_gap(void *user, struct mesh_origin from, uint64_t first, uint64_t last)
{
    struct cluster *c = user;
    const struct hub_handler *handler = &c->hub->handler;
    char args[128];
    int n = snprintf(args, sizeof(args), "{\"origin\":\"%06x-%llx\",\"from\":%llu,\"to\":%llu}", from.tag,
                     (unsigned long long)from.boot, (unsigned long long)first, (unsigned long long)last);
    for (struct nsp *nsp = c->hub->nsps; nsp; nsp = nsp->hh.next)
        hub_deliver(
            c->hub,
            &(struct emit){.nsp = nsp_name(nsp), .event = SPAN("\"bus:gap\""), .args = {args, (size_t)n}});
    if (handler->on_gap)
        handler->on_gap(handler->user);
}

static void on_ready(void *user)
{
    const struct cluster *c = user;
    c->on_ready(c->ready_user);
}

/* ---- life ---- */

struct cluster *cluster_new(struct reactor *r, struct hub *h)
{
    struct cluster *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->hub = h;
    c->far_metrics = metrics_new();
    if (c->far_metrics)
        c->far = hub_new(r, c->far_metrics, &(struct hub_options){.origin = "", .namespaces = "*"});
    if (!c->far)
        cluster_free(&c);
    return c;
}

void cluster_use(struct cluster *c, struct peers *peers)
{
    c->peers = peers;
    c->hub->cluster = c;
}

static void drop_far(struct hub *far)
{
    while (far->nsps) {
        bool is_last = HASH_COUNT(far->nsps->sockets) == 1 && far->nsps->hh.next == NULL;
        hub_remove(far->nsps->sockets);
        if (is_last)
            break;
    }
}

void cluster_free(struct cluster **cp)
{
    struct cluster *c = *cp;
    if (!c)
        return;
    c->hub->cluster = NULL;
    while (c->told)
        forget_told(c, c->told);
    if (c->far && c->far->nsps)
        drop_far(c->far);
    hub_free(&c->far);
    metrics_free(&c->far_metrics);
    free(c);
    *cp = NULL;
}

struct peers_user cluster_user(struct cluster *c, void (*ready)(void *user), void *ready_user)
{
    c->on_ready = ready;
    c->ready_user = ready_user;
    return (struct peers_user){
        .user = c,
        .on_emit = on_emit,
        .on_past = on_past,
        .on_presence = on_presence,
        .on_presence_void = on_presence_void,
        .on_set = on_set,
        .on_message = on_message,
        .on_dead = on_dead,
        .is_busy = is_busy,
        .on_published = on_published,
        .on_gap = on_gap,
        .put_presence = put_presence,
        .on_ready = on_ready,
    };
}

bool cluster_is_confirmed(const struct cluster *c, uint64_t seq)
{
    return peers_is_confirmed(c->peers, seq);
}

uint32_t cluster_tag(const struct cluster *c)
{
    struct peers_position self;
    peers_positions(c->peers, &self, 1);
    return self.origin.tag;
}

uint64_t cluster_newest(const struct cluster *c)
{
    return peers_newest(c->peers);
}

struct peers *cluster_peers(const struct cluster *c)
{
    return c->peers;
}

struct nsp *cluster_far(struct cluster *c, struct span nsp)
{
    return hub_find(c->far, nsp);
}

bool cluster_origin_of(const struct socket *s, struct mesh_origin *origin)
{
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        if (room->name_n != ORIGIN_ROOM_BYTES || room->name[0] != ORIGIN_ROOM_MARK)
            continue;
        memcpy(&origin->tag, room->name + 1, sizeof(origin->tag));
        memcpy(&origin->boot, room->name + 5, sizeof(origin->boot));
        return true;
    }
    return false;
}

void cluster_each_of(struct cluster *c, struct mesh_origin origin, void (*f)(void *user, struct socket *s),
                     void *user)
{
    char text[ORIGIN_ROOM_BYTES];
    struct span name = origin_room(text, origin);
    for (struct nsp *nsp = c->far->nsps; nsp; nsp = nsp->hh.next) {
        const struct room *room = room_find(nsp, name);
        for (uint32_t i = 0; room && i < room->n; i++)
            if (room->members[i].socket)
                f(user, room->members[i].socket);
    }
}

struct nsp *cluster_far_first(const struct cluster *c)
{
    return c->far->nsps;
}
