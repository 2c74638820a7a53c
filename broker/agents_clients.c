/* What clients do, for agents: events and CONNECT are questions to one member of each group that is concerned; what else
 * happens to a socket they are told.
 *
 *   a question to   is answered by                 and fails when
 *   an event        the first OK, if there is one  every group that does not only look on has failed
 *   CONNECT         the OK of every group          one group fails */
#include "agents_private.h"
#include "buffer.h"
#include "client.h"
#include "err.h"
#include "json.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { SOCKET_MS = 3000 }; /* at most, for the socket of a client that was let in */

struct question {
    struct agents *agents;
    struct call *calls;
    unsigned open; /* groups that have not answered, without those that look on */
    bool is_connect, is_done, is_busy, waits_for_socket, wants_ack;
    struct joining *joining;
    uint64_t ack_id, until_ms;
    struct call_at *let_in; /* agents that wait for the socket */
    unsigned n_let_in;
    struct buffer error; /* JSON, of an acknowledgement or a CONNECT_ERROR */
    char *user, *data;
    struct span *rooms;
    unsigned n_rooms;
    UT_hash_handle hh; /* while it waits for the socket */
    uint32_t nsp_n;
    char sid[ID_CHARS];
    char nsp[];
};

struct call **question_calls(struct question *q)
{
    return &q->calls;
}

static struct question *question_new(struct agents *g, struct span nsp, struct span sid)
{
    struct question *q = calloc(1, sizeof(*q) + nsp.n);
    if (!q)
        return NULL;
    q->agents = g;
    q->nsp_n = (uint32_t)nsp.n;
    memcpy(q->nsp, nsp.p, nsp.n);
    memcpy(q->sid, sid.p, ID_CHARS);
    return q;
}

static struct socket *find_socket(const struct question *q)
{
    struct nsp *nsp = hub_find(q->agents->hub, (struct span){q->nsp, q->nsp_n});
    return nsp ? nsp_find(nsp, (struct span){q->sid, ID_CHARS}) : NULL;
}

/* Who was to be asked whether it may connect is of no use when it does not. */
static void forget_session(const struct question *q)
{
    if (q->is_connect && !find_socket(q))
        groups_forget_session(q->agents, (struct span){q->sid, ID_CHARS});
}

static void question_free(struct question *q)
{
    forget_session(q);
    if (q->waits_for_socket)
        HASH_DELETE(hh, q->agents->connects, q);
    buffer_reset(&q->error);
    free(q->let_in);
    free(q->user);
    free(q->data);
    free(q->rooms);
    free(q);
}

void question_ended(struct question *q)
{
    if (!q->waits_for_socket)
        question_free(q);
}

/* ---- errors as clients see them ---- */

static void put(struct buffer *b, struct span text)
{
    buffer_append(b, text.p, text.n);
}

static void put_quoted(struct buffer *b, struct span text)
{
    char *quoted = malloc(JSON_QUOTED_MAX(text.n));
    if (quoted)
        put(b, (struct span){quoted, json_quote(quoted, text)});
    else
        put(b, SPAN("\"\""));
    free(quoted);
}

/* {"ok":false,"error":…,"code":…,"data":…}, or {"message":…,"data":…} */
static void keep_error(struct question *q, const struct agent_record *r)
{
    struct buffer *b = &q->error;
    if (b->n > 0)
        return; /* the first one counts */
    put(b, q->is_connect ? SPAN("{\"message\":") : SPAN("{\"ok\":false,\"error\":"));
    put_quoted(b, r->text);
    if (!q->is_connect) {
        put(b, SPAN(",\"code\":"));
        put_quoted(b, r->code);
    }
    if (agent_has(r, AGENT_F_DATA)) {
        put(b, SPAN(",\"data\":"));
        put(b, r->data);
    }
    put(b, SPAN("}"));
}

/* ---- events ---- */

static void event_answered(struct question *q, const struct agent_record *r)
{
    struct socket *s = q->wants_ack && !q->is_done ? find_socket(q) : NULL;
    q->open--;
    if (r->kind == AGENT_OK && !q->is_done) {
        q->is_done = true;
        if (s)
            socket_ack(s, q->ack_id, r->args, r->attachments, r->n_attachments);
        return;
    }
    if (r->kind == AGENT_ERROR)
        keep_error(q, r);
    if (q->open > 0 || q->is_done)
        return;
    q->is_done = true;
    if (s)
        socket_ack(s, q->ack_id, (struct span){q->error.p, q->error.n}, NULL, 0);
}

static struct agent_record *call_record(struct agents *g, const struct socket *s, struct span name,
                                        const struct sio_packet *packet, const struct span *attachments)
{
    struct agent_record *r = agents_out(g, AGENT_CALL);
    r->nsp = nsp_name(s->nsp);
    r->sid = (struct span){s->sid, ID_CHARS};
    r->event = name;
    r->args = packet->args;
    if (packet->attachments) {
        agent_with(r, AGENT_F_ATTACHMENTS)->n_attachments = packet->attachments;
        memcpy(r->attachments, attachments, packet->attachments * sizeof(attachments[0]));
    }
    if (s->user)
        agent_with(r, AGENT_F_USER)->user = span_of(s->user);
    if (packet->has_id)
        agent_with(r, AGENT_F_ACK)->ack = true;
    return r;
}

/* Asks one member of a group. False: nobody there handles it. */
static bool ask_group(struct agents *g, struct group *group, struct question *q, const struct socket *s,
                      struct span name, const struct sio_packet *packet, const struct span *attachments)
{
    struct agents_member *m =
        group_choose(g, group, nsp_name(s->nsp), name, 0, (struct span){s->sid, ID_CHARS});
    if (!m)
        return false;
    struct agent_record *r = call_record(g, s, name, packet, attachments);
    agent_with(r, AGENT_F_DEADLINE_MS)->deadline_ms = m->deadline_ms;
    bool observes = m->observe;
    if (!call_begin(g, m, m->deadline_ms, r, q, NULL))
        return false;
    q->open += !observes;
    return true;
}

static bool on_event(void *user, struct socket *s, const struct sio_packet *packet,
                     const struct span *attachments)
{
    struct agents *g = user;
    char name[LIMIT_EVENT_NAME_BYTES];
    ssize_t n = g->groups ? json_string(packet->event, name, sizeof(name)) : 0;
    if (n <= 0)
        return false;
    struct question *q = question_new(g, nsp_name(s->nsp), (struct span){s->sid, ID_CHARS});
    if (!q)
        return false;
    q->wants_ack = packet->has_id;
    q->ack_id = packet->id;
    struct group *const *groups;
    unsigned n_groups = routes_find(g, nsp_name(s->nsp), (struct span){name, (size_t)n}, 0, &groups);
    for (unsigned i = 0; i < n_groups; i++)
        ask_group(g, groups[i], q, s, (struct span){name, (size_t)n}, packet, attachments);
    bool handled = q->open > 0;
    q->is_done = !handled;
    if (!q->calls)
        question_free(q);
    return handled;
}

/* ---- CONNECT ---- */

static void cancel_calls(struct question *q)
{
    while (q->calls)
        call_cancel(q->calls);
}

static struct span peer_address(const struct joining *j, char text[INET_ADDRSTRLEN])
{
    struct in_addr address = {.s_addr = joining_session(j)->peer_ip};
    if (address.s_addr == 0 || !inet_ntop(AF_INET, &address, text, INET_ADDRSTRLEN))
        text[0] = '\0';
    return span_of(text);
}

static bool ask_to_let_in(struct agents *g, struct agents_member *m, struct joining *j, struct question *q)
{
    char remote[INET_ADDRSTRLEN];
    struct agent_record *r = agents_out(g, AGENT_CONNECT);
    r->nsp = joining_nsp(j);
    r->sid = joining_sid(j);
    r->auth = joining_auth(j);
    agent_with(r, AGENT_F_REMOTE)->remote = peer_address(j, remote);
    agent_with(r, AGENT_F_DEADLINE_MS)->deadline_ms = m->deadline_ms;
    q->open++;
    return call_begin(g, m, m->deadline_ms, r, q, NULL) != NULL;
}

static enum hub_verdict refuse_without_memory(struct question *q, struct span *error)
{
    *error = SPAN("{\"message\":\"out of memory\"}");
    if (q) {
        cancel_calls(q);
        question_free(q);
    }
    return HUB_REFUSE;
}

static enum hub_verdict on_connect(void *user, struct joining *j, struct span *error)
{
    struct agents *g = user;
    struct question *q = NULL;
    struct group *const *groups;
    unsigned n = routes_find(g, joining_nsp(j), SPAN(""), AGENT_LIFE_CONNECT, &groups);
    for (unsigned i = 0; i < n; i++) {
        struct agents_member *m =
            group_choose(g, groups[i], joining_nsp(j), SPAN(""), AGENT_LIFE_CONNECT, joining_sid(j));
        if (!m || m->observe)
            continue;
        if (!q)
            q = question_new(g, joining_nsp(j), joining_sid(j));
        if (q)
            q->is_connect = true;
        if (!q || !ask_to_let_in(g, m, j, q))
            return refuse_without_memory(q, error);
    }
    if (!q)
        return HUB_ACCEPT;
    q->joining = j;
    joining_set_data(j, q);
    return HUB_LATER;
}

/* The agents that have let it in need not wait for it any longer. */
static void tell_admitted(struct question *q)
{
    struct agents *g = q->agents;
    for (unsigned i = 0; i < q->n_let_in; i++) {
        const struct call_at *at = &q->let_in[i];
        struct gateway_head head = {.op = GATEWAY_ADMITTED, .number = at->number, .target = at->target};
        if (is_own(g, at->origin))
            task_admitted(g, at->origin, at->number, at->target);
        else
            agents_tell_node(g, at->origin, &head, NULL);
    }
    q->n_let_in = 0;
}

static int replace(char **at, struct span text)
{
    char *copy = strndup(text.p, text.n);
    if (!copy)
        return ERR_MEMORY;
    free(*at);
    *at = copy;
    return 0;
}

static int add_rooms(struct question *q, const struct span *rooms, unsigned n)
{
    struct span *all = n ? spans_copy(q->rooms, q->n_rooms, rooms, n) : q->rooms;
    if (!all && n)
        return ERR_MEMORY;
    if (n)
        free(q->rooms);
    q->rooms = all;
    q->n_rooms += n;
    return 0;
}

static int add_let_in(struct question *q, const struct call_at *at)
{
    struct call_at *all = realloc(q->let_in, (q->n_let_in + 1) * sizeof(*all));
    if (!all)
        return ERR_MEMORY;
    q->let_in = all;
    all[q->n_let_in++] = *at;
    return 0;
}

/* What this agent has said of the client. */
static int take_terms(struct question *q, const struct agent_record *r, const struct call_at *at)
{
    int err = add_let_in(q, at);
    if (!err && agent_has(r, AGENT_F_USER))
        err = replace(&q->user, r->user);
    if (!err && agent_has(r, AGENT_F_DATA))
        err = replace(&q->data, r->data);
    return err ? err : add_rooms(q, r->rooms, r->n_rooms);
}

static void refuse(struct question *q)
{
    struct joining *j = q->joining;
    q->joining = NULL;
    q->is_done = true;
    cancel_calls(q);
    tell_admitted(q);
    joining_refuse(j, q->error.n ? (struct span){q->error.p, q->error.n}
                                 : SPAN("{\"message\":\"out of memory\"}"));
}

static void accept_client(struct question *q)
{
    struct joining *j = q->joining;
    struct agents *g = q->agents;
    q->joining = NULL;
    q->is_done = true;
    q->waits_for_socket = true;
    q->until_ms = agents_now(g) + SOCKET_MS;
    HASH_ADD(hh, g->connects, sid, ID_CHARS, q);
    joining_accept(j, span_of(q->user ? q->user : ""), span_of(q->data ? q->data : ""), q->rooms, q->n_rooms);
}

static void connect_answered(struct question *q, const struct agent_record *r, const struct call_at *at)
{
    if (q->is_done)
        return;
    q->open--;
    if (r->kind == AGENT_ERROR) {
        keep_error(q, r);
        refuse(q);
    } else if (take_terms(q, r, at)) {
        refuse(q);
    } else if (q->open == 0) {
        accept_client(q);
    }
}

void question_answered(struct question *q, struct agent_record *r, const struct call_at *at)
{
    if (at->observes)
        return;
    q->is_busy = true;
    if (q->is_connect)
        connect_answered(q, r, at);
    else
        event_answered(q, r);
    q->is_busy = false;
}

static void on_gave_up(void *user, struct joining *j)
{
    struct question *q = joining_data(j);
    (void)user;
    if (!q)
        return;
    q->joining = NULL;
    q->is_done = true;
    cancel_calls(q);
    tell_admitted(q);
    question_free(q);
}

/* The socket is there, or will not be. */
static void end_admission(struct question *q)
{
    tell_admitted(q);
    HASH_DELETE(hh, q->agents->connects, q);
    q->waits_for_socket = false;
    if (!q->is_busy && !q->calls)
        question_free(q);
}

/* ---- what else happens to sockets ---- */

static struct agent_record *life_record(struct agents *g, enum agent_kind kind, const struct socket *s)
{
    struct agent_record *r = agents_out(g, kind);
    r->nsp = nsp_name(s->nsp);
    r->sid = (struct span){s->sid, ID_CHARS};
    if (s->user)
        agent_with(r, AGENT_F_USER)->user = span_of(s->user);
    return r;
}

/* Up to max rooms from the socket's place number `from` on. */
static void put_rooms(struct agent_record *r, const struct socket *s, uint32_t from, unsigned max)
{
    for (uint32_t i = from; i < s->n_places && r->n_rooms < max; i++) {
        const struct room *room = s->places[i].room;
        if (room != s->nsp->all)
            r->rooms[r->n_rooms++] = (struct span){room->name, room->name_n};
    }
}

/* JOINED, LEFT: with this room, or without one with those from place `from` on. */
static void tell_groups(struct agents *g, unsigned life, enum agent_kind kind, const struct socket *s,
                        const struct span *room, uint32_t from, const char *reason)
{
    struct span sid = {s->sid, ID_CHARS};
    struct group *const *groups;
    unsigned n = routes_find(g, nsp_name(s->nsp), SPAN(""), life, &groups);
    for (unsigned i = 0; i < n; i++) {
        struct agents_member *m = group_choose(g, groups[i], nsp_name(s->nsp), SPAN(""), life, sid);
        if (!m)
            continue;
        struct agent_record *r = life_record(g, kind, s);
        r->reason = span_of(reason ? reason : "");
        if (room)
            r->rooms[r->n_rooms++] = *room;
        else if (kind == AGENT_JOINED)
            put_rooms(r, s, from, LIMIT_ROOMS_PER_CALL);
        else if (kind == AGENT_RECOVERED)
            put_rooms(agent_with(r, AGENT_F_ROOMS), s, 0, LIMIT_ROOMS_PER_SOCKET);
        member_tell(g, m, r);
    }
}

static void on_connected(void *user, struct socket *s, struct span auth)
{
    struct agents *g = user;
    struct question *q;
    (void)auth;
    HASH_FIND(hh, g->connects, s->sid, ID_CHARS, q);
    if (q)
        end_admission(q);
    if (s->is_recovered)
        tell_groups(g, AGENT_LIFE_DISCONNECT, AGENT_RECOVERED, s, NULL, 0, NULL);
    /* The first place is that of the whole namespace. */
    for (uint32_t from = 1; !s->is_recovered && from < s->n_places; from += LIMIT_ROOMS_PER_CALL)
        tell_groups(g, AGENT_LIFE_JOIN, AGENT_JOINED, s, NULL, from, NULL);
}

/* One that goes on elsewhere is not gone. */
static void on_disconnected(void *user, struct socket *s, const char *reason)
{
    struct agents *g = user;
    if (strcmp(reason, "session taken over") != 0)
        tell_groups(g, AGENT_LIFE_DISCONNECT, AGENT_DISCONNECTED, s, NULL, 0, reason);
    groups_forget_session(g, (struct span){s->sid, ID_CHARS});
}

static bool is_own_room(const struct socket *s, struct span room)
{
    return span_eq(room, (struct span){s->sid, ID_CHARS});
}

static void on_joined(void *user, struct socket *s, struct span room)
{
    if (s->is_there && !is_own_room(s, room))
        tell_groups(user, AGENT_LIFE_JOIN, AGENT_JOINED, s, &room, 0, NULL);
}

static void on_left(void *user, struct socket *s, struct span room)
{
    if (s->is_there && !is_own_room(s, room))
        tell_groups(user, AGENT_LIFE_LEAVE, AGENT_LEFT, s, &room, 0, NULL);
}

static void on_emit(void *user, const struct mesh_origin *origin, uint64_t seq, const struct emit *e)
{
    struct agents *g = user;
    if (e->key.n)
        keys_add(g, origin, seq, e->key);
    if (g->subscriptions)
        subscriptions_emit(g, origin, seq, e);
}

static void on_past(void *user, const struct mesh_origin *origin, uint64_t seq, struct span key)
{
    keys_add(user, origin, seq, key);
}

static void on_gap(void *user)
{
    subscriptions_gap(user);
}

/* ---- a node has died, with the clients that it had ---- */

struct obituary {
    struct agents *agents;
    struct mesh_origin gone;
};

/* Every node finds the same member, whose node tells it. */
static void tell_of_death(void *user, struct socket *s)
{
    struct obituary *o = user;
    struct agents *g = o->agents;
    struct group *const *groups;
    unsigned n = routes_find(g, nsp_name(s->nsp), SPAN(""), AGENT_LIFE_DISCONNECT, &groups);
    for (unsigned i = 0; i < n; i++) {
        struct agents_member *m = group_choose_alike(groups[i], nsp_name(s->nsp), AGENT_LIFE_DISCONNECT,
                                                     (struct span){s->sid, ID_CHARS}, o->gone);
        if (!m || !m->reg)
            continue;
        struct agent_record *r = life_record(g, AGENT_DISCONNECTED, s);
        r->reason = SPAN("node died");
        member_tell(g, m, r);
    }
}

void clients_node_died(struct agents *g, struct mesh_origin gone)
{
    struct obituary o = {g, gone};
    if (g->hub->cluster && g->groups)
        cluster_each_of(g->hub->cluster, gone, tell_of_death, &o);
}

/* ---- life ---- */

void clients_expire(struct agents *g)
{
    struct question *q, *next;
    HASH_ITER(hh, g->connects, q, next)
    {
        if (agents_now(g) >= q->until_ms)
            end_admission(q);
    }
}

void clients_free(struct agents *g)
{
    while (g->connects) {
        struct question *q = g->connects;
        question_free(q);
    }
}

struct hub_handler agents_handler(struct agents *a)
{
    return (struct hub_handler){
        .user = a,
        .on_connect = on_connect,
        .on_gave_up = on_gave_up,
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_event = on_event,
        .on_joined = on_joined,
        .on_left = on_left,
        .on_emit = on_emit,
        .on_past = on_past,
        .on_gap = on_gap,
    };
}
