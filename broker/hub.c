#include "hub.h"
#include "ack.h"
#include "cluster.h"
#include "directory.h"
#include "err.h"
#include "fanout.h"
#include "frames.h"
#include "limit.h"
#include "peers.h"
#include "recovery.h"
#include <stdlib.h>

struct hub *hub_new(struct reactor *r, struct metrics *m, const struct hub_options *o)
{
    struct hub *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->metrics = m;
    h->options = *o;
    h->fanout = fanout_new(r, m);
    if (!h->fanout) {
        free(h);
        return NULL;
    }
    return h;
}

void hub_free(struct hub **hp)
{
    if (!*hp)
        return;
    fanout_free(&(*hp)->fanout);
    free(*hp);
    *hp = NULL;
}

/* ---- namespaces ---- */

/* The dashboard's namespace is never reached through '*'. */
bool hub_allows(const struct hub *h, struct span nsp)
{
    const char *list = h->options.namespaces;
    if (h->watcher && span_eq(nsp, SPAN(HUB_ADMIN)))
        return true;
    if (strcmp(list, "*") == 0)
        return nsp.n <= LIMIT_NAMESPACE_BYTES && !span_eq(nsp, SPAN(HUB_ADMIN));
    return span_in_list(list, nsp);
}

bool hub_allows_agents(const struct hub *h, struct span nsp)
{
    return !span_eq(nsp, SPAN(HUB_ADMIN)) && hub_allows(h, nsp);
}

struct nsp *hub_find(struct hub *h, struct span name)
{
    if (h->last && span_eq(name, nsp_name(h->last)))
        return h->last;
    struct nsp *nsp;
    HASH_FIND(hh, h->nsps, name.p, name.n, nsp);
    if (nsp)
        h->last = nsp;
    return nsp;
}

static struct room *room_new(struct nsp *nsp, struct span name)
{
    struct room *room = calloc(1, sizeof(*room) + name.n);
    if (!room)
        return NULL;
    room->nsp = nsp;
    room->name_n = (uint32_t)name.n;
    memcpy(room->name, name.p, name.n);
    return room;
}

bool hub_has_place(struct hub *h, struct span nsp)
{
    return hub_find(h, nsp) || HASH_COUNT(h->nsps) < LIMIT_NAMESPACES;
}

struct nsp *hub_obtain(struct hub *h, struct span name)
{
    struct nsp *nsp = hub_find(h, name);
    if (nsp || HASH_COUNT(h->nsps) >= LIMIT_NAMESPACES)
        return nsp;
    nsp = calloc(1, sizeof(*nsp) + name.n);
    if (!nsp)
        return NULL;
    nsp->hub = h;
    nsp->name_n = (uint32_t)name.n;
    memcpy(nsp->name, name.p, name.n);
    nsp->all = room_new(nsp, SPAN(""));
    if (!nsp->all) {
        free(nsp);
        return NULL;
    }
    HASH_ADD(hh, h->nsps, name, nsp->name_n, nsp);
    metrics_set(h->metrics, METRIC_NAMESPACES, HASH_COUNT(h->nsps));
    return nsp;
}

/* A namespace lives while it has sockets, or rooms that a fan-out still walks over. */
static void nsp_drop_if_empty(struct nsp *nsp)
{
    struct hub *h = nsp->hub;
    if (nsp->sockets || nsp->rooms || nsp->all->pins)
        return;
    HASH_DEL(h->nsps, nsp);
    if (h->last == nsp)
        h->last = NULL;
    metrics_set(h->metrics, METRIC_NAMESPACES, HASH_COUNT(h->nsps));
    free(nsp->all->members);
    free(nsp->all);
    free(nsp);
}

struct socket *nsp_find(struct nsp *nsp, struct span sid)
{
    struct socket *s = NULL;
    if (sid.n == ID_CHARS)
        HASH_FIND(hh, nsp->sockets, sid.p, ID_CHARS, s);
    return s;
}

/* ---- rooms ---- */

struct room *room_find(struct nsp *nsp, struct span name)
{
    struct room *room;
    HASH_FIND(hh, nsp->rooms, name.p, name.n, room);
    return room;
}

static struct room *room_obtain(struct nsp *nsp, struct span name)
{
    struct room *room = room_find(nsp, name);
    if (room)
        return room;
    room = room_new(nsp, name);
    if (!room)
        return NULL;
    HASH_ADD(hh, nsp->rooms, name, room->name_n, room);
    metrics_add(nsp->hub->metrics, METRIC_ROOMS, 1);
    return room;
}

static void room_drop_if_empty(struct room *room)
{
    struct nsp *nsp = room->nsp;
    if (room == nsp->all || room_count(room) > 0 || room->pins > 0)
        return;
    HASH_DEL(nsp->rooms, room);
    metrics_sub(nsp->hub->metrics, METRIC_ROOMS, 1);
    free(room->members);
    free(room);
}

bool room_has(const struct room *room, const struct socket *s)
{
    for (uint32_t i = 0; i < s->n_places; i++)
        if (s->places[i].room == room)
            return true;
    return false;
}

static int more_members(struct room *room)
{
    uint32_t cap = room->cap ? room->cap * 2 : 2;
    struct member *members = realloc(room->members, cap * sizeof(*members));
    if (!members)
        return ERR_MEMORY;
    room->members = members;
    room->cap = cap;
    return 0;
}

static int more_places(struct socket *s)
{
    uint32_t cap = s->cap_places * 2;
    struct place *old = s->places == s->first ? NULL : s->places;
    struct place *places = realloc(old, cap * sizeof(*places));
    if (!places)
        return ERR_MEMORY;
    if (!old)
        memcpy(places, s->first, sizeof(s->first));
    s->places = places;
    s->cap_places = cap;
    return 0;
}

static int enter(struct socket *s, struct room *room)
{
    if (room->n == room->cap && more_members(room))
        return ERR_MEMORY;
    if (s->n_places == s->cap_places && more_places(s))
        return ERR_MEMORY;
    room->members[room->n] = (struct member){s, s->n_places};
    s->places[s->n_places++] = (struct place){room, room->n};
    room->n++;
    return 0;
}

static void take_member_out(struct room *room, uint32_t index)
{
    if (room->pins) {
        room->members[index].socket = NULL;
        room->holes++;
        return;
    }
    struct member last = room->members[--room->n];
    if (index != room->n) {
        room->members[index] = last;
        last.socket->places[last.place].index = index;
    }
}

/* Takes a socket out of the room at one of its places; another place moves into the gap. */
static void leave(struct socket *s, uint32_t place)
{
    struct room *room = s->places[place].room;
    take_member_out(room, s->places[place].index);
    struct place last = s->places[--s->n_places];
    if (place != s->n_places) {
        s->places[place] = last;
        last.room->members[last.index].place = place;
    }
    room_drop_if_empty(room);
}

int room_join(struct socket *s, struct span name)
{
    struct room *room = room_find(s->nsp, name);
    if (room && room_has(room, s))
        return 0;
    /* A socket of another node has a room more: that of its origin. */
    if (s->n_places > LIMIT_ROOMS_PER_SOCKET + (s->session == NULL))
        return ERR_LIMIT;
    room = room_obtain(s->nsp, name);
    if (!room)
        return ERR_MEMORY;
    int err = enter(s, room);
    const struct hub_handler *handler = hub_handler_of(s->nsp->hub, nsp_name(s->nsp));
    if (err) {
        room_drop_if_empty(room);
        return err;
    }
    if (s->nsp->hub->cluster)
        cluster_join(s->nsp->hub->cluster, s, name);
    if (handler->on_joined)
        handler->on_joined(handler->user, s, name);
    return 0;
}

void room_leave(struct socket *s, struct span name)
{
    const struct hub_handler *handler = hub_handler_of(s->nsp->hub, nsp_name(s->nsp));
    struct room *room = room_find(s->nsp, name);
    for (uint32_t i = 0; room && i < s->n_places; i++) {
        if (s->places[i].room == room) {
            if (s->nsp->hub->cluster)
                cluster_part(s->nsp->hub->cluster, s, name);
            leave(s, i);
            if (handler->on_left)
                handler->on_left(handler->user, s, name);
            return;
        }
    }
}

void room_pin(struct room *room)
{
    room->pins++;
}

static void close_holes(struct room *room)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < room->n; i++) {
        struct member m = room->members[i];
        if (!m.socket)
            continue;
        m.socket->places[m.place].index = kept;
        room->members[kept++] = m;
    }
    room->n = kept;
    room->holes = 0;
}

void room_unpin(struct room *room)
{
    struct nsp *nsp = room->nsp;
    if (--room->pins > 0)
        return;
    if (room->holes)
        close_holes(room);
    room_drop_if_empty(room);
    nsp_drop_if_empty(nsp);
}

/* ---- sockets ---- */

static struct socket *add(struct hub *h, struct nsp *nsp, const char sid[ID_CHARS])
{
    struct socket *s = calloc(1, sizeof(*s));
    if (!s) {
        nsp_drop_if_empty(nsp);
        return NULL;
    }
    s->nsp = nsp;
    s->places = s->first;
    s->cap_places = sizeof(s->first) / sizeof(s->first[0]);
    memcpy(s->sid, sid, ID_CHARS);
    if (enter(s, nsp->all)) {
        free(s);
        nsp_drop_if_empty(nsp);
        return NULL;
    }
    HASH_ADD(hh, nsp->sockets, sid, ID_CHARS, s);
    metrics_add(h->metrics, METRIC_SOCKETS, 1);
    return s;
}

static int replace_text(char **at, struct span text)
{
    char *copy = text.n ? strndup(text.p, text.n) : NULL;
    if (text.n && !copy)
        return ERR_MEMORY;
    free(*at);
    *at = copy;
    return 0;
}

struct socket *hub_add(struct hub *h, struct nsp *nsp, const struct hub_newcomer *newcomer)
{
    char *user = NULL, *data = NULL;
    bool failed = nsp_find(nsp, (struct span){newcomer->sid, ID_CHARS}) ||
                  replace_text(&user, newcomer->user) || replace_text(&data, newcomer->data);
    struct socket *s = failed ? NULL : add(h, nsp, newcomer->sid);
    if (!s) {
        free(user);
        free(data);
        return NULL;
    }
    s->session = newcomer->session;
    s->client = newcomer->client;
    s->entry = newcomer->entry;
    s->user = user;
    s->data = data;
    s->mark = fanout_number(h->fanout);
    h->n_plain += s->session->recovery_off;
    if (h->cluster)
        cluster_enter(h->cluster, s);
    return s;
}

struct socket *hub_add_far(struct hub *h, struct nsp *nsp, const char sid[ID_CHARS])
{
    return add(h, nsp, sid);
}

int socket_set_user(struct socket *s, struct span user)
{
    int err = replace_text(&s->user, user);
    if (!err && s->entry)
        err = directory_set_user(s->entry, user);
    if (!err && s->nsp->hub->cluster)
        cluster_enter(s->nsp->hub->cluster, s);
    return err;
}

int socket_set_data(struct socket *s, struct span data)
{
    int err = replace_text(&s->data, data);
    return err || !s->entry ? err : directory_set_data(s->entry, data);
}

void hub_remove(struct socket *s)
{
    struct nsp *nsp = s->nsp;
    if (nsp->hub->cluster)
        cluster_exit(nsp->hub->cluster, s);
    nsp->hub->n_plain -= s->session && s->session->recovery_off;
    while (s->n_places > 0)
        leave(s, s->n_places - 1);
    if (s->places != s->first)
        free(s->places);
    HASH_DEL(nsp->sockets, s);
    metrics_sub(nsp->hub->metrics, METRIC_SOCKETS, 1);
    free(s->user);
    free(s->data);
    free(s->ahead);
    free(s);
    nsp_drop_if_empty(nsp);
}

/* ---- emits ---- */

/* newest: the number up to which this node's own emits have come, with this one. */
static int deliver(struct hub *h, struct nsp *nsp, const struct emit *e, uint64_t newest)
{
    if (!nsp) {
        if (e->wait)
            ack_all_sent(e->wait);
        return 0;
    }
    struct slice frames, plain;
    struct frames_packet packet = {
        .type = SIO_EVENT,
        .nsp = e->nsp,
        .has_id = e->wait != NULL,
        .id = e->wait ? nsp->next_ack_id++ : 0,
        .event = e->event,
        .args = e->args,
        .attachments = e->attachments,
        .n_attachments = e->n_attachments,
    };
    if (h->recovery && !e->wait)
        packet.offset = recovery_offset(h->recovery, newest);
    int err = frames_encode(&h->engine->bytes, &packet, &frames);
    if (err)
        return err;
    plain = frames;
    if (packet.offset.n && h->n_plain) {
        packet.offset.n = 0;
        err = frames_encode(&h->engine->bytes, &packet, &plain);
    } else {
        slice_ref(&plain);
    }
    if (!err) {
        err = fanout_start(h->fanout, nsp, e, packet.id, &frames, &plain);
        slice_unref(&plain);
    }
    slice_unref(&frames);
    return err;
}

int hub_emit(struct hub *h, const struct emit *e, uint64_t *seq)
{
    /* First whether it can be delivered here: what is refused must not be published. */
    int err = deliver(h, hub_find(h, e->nsp), e, h->cluster ? cluster_newest(h->cluster) + 1 : 0);
    if (err)
        return err;
    *seq = h->cluster ? cluster_emit(h->cluster, e) : ++h->seq;
    metrics_add(h->metrics, METRIC_EMITS, 1);
    if (*seq && h->handler.on_emit)
        h->handler.on_emit(h->handler.user, NULL, *seq, e);
    if (*seq && h->watcher && h->watcher->on_emit)
        h->watcher->on_emit(h->watcher->user, NULL, *seq, e);
    return *seq ? 0 : ERR_MEMORY;
}

/* Most emits of other nodes are for nobody here: those are not even encoded. */
static bool has_receiver(struct nsp *nsp, const struct emit *e)
{
    bool found = e->n_to == 0;
    for (unsigned i = 0; i < e->n_to && !found; i++)
        found = room_find(nsp, e->to[i]) || nsp_find(nsp, e->to[i]);
    return found;
}

int hub_deliver(struct hub *h, const struct emit *e)
{
    struct nsp *nsp = hub_find(h, e->nsp);
    if (nsp && has_receiver(nsp, e))
        return deliver(h, nsp, e, h->cluster ? cluster_newest(h->cluster) : 0);
    if (e->wait)
        ack_all_sent(e->wait);
    return 0;
}
