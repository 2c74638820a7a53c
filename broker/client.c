/* What a packet does, by the state of its namespace on this connection (spec 8.4):
 *
 *   packet             namespace joined          not joined
 *   CONNECT            protocol error            joining.c: accept, or CONNECT_ERROR
 *   DISCONNECT         leave, no answer          protocol error
 *   EVENT, ACK         event, acknowledgement    protocol error
 *   CONNECT_ERROR      protocol error            protocol error
 *
 * While a CONNECT is on its way every packet for that namespace is a protocol error.
 *
 * A protocol error ends the whole connection. */
#include "client.h"
#include "ack.h"
#include "bus.h"
#include "container.h"
#include "directory.h"
#include "err.h"
#include "fanout.h"
#include "frames.h"
#include "joining.h"
#include "json.h"
#include "limit.h"
#include "log.h"
#include "recovery.h"
#include <stdio.h>
#include <stdlib.h>

/* A binary packet whose attachments have not all come. */
struct partial {
    struct sio_packet packet; /* points into text */
    unsigned got;
    struct span attachment[LIMIT_ATTACHMENTS];
    char text[];
};

struct client {
    struct session *session;
    struct hub *hub;
    struct socket *sockets;
    unsigned n_sockets;
    struct joining *joinings;
    struct timer connect_timeout;
    void (*moved)(void *user, int err); /* of client_go_on(), while it is under way */
    void *moved_user;
    struct partial *partial;
};

static struct client *client_of(const struct session *s)
{
    return s->app;
}

/* ---- sending ---- */

static void send_packet(struct session *session, enum sio_type type, struct span nsp, struct span body)
{
    char head[SIO_HEAD_MAX(LIMIT_NAMESPACE_BYTES)];
    size_t n = sio_encode_head(head, type, 0, nsp, false, 0);
    session_send(session, (struct span){head, n}, body);
}

void socket_ack(struct socket *s, uint64_t id, struct span args, const struct span *attachments,
                unsigned n_attachments)
{
    struct slice frames;
    s->owed -= s->owed > 0;
    int err = frames_encode(&s->session->engine->bytes,
                            &(struct frames_packet){
                                .type = SIO_ACK,
                                .nsp = nsp_name(s->nsp),
                                .has_id = true,
                                .id = id,
                                .args = args,
                                .attachments = attachments,
                                .n_attachments = n_attachments,
                            },
                            &frames);
    if (err) { /* an acknowledgement that is lost must not be lost silently */
        session_close_soon(s->session, CLOSE_FORCED);
        return;
    }
    session_push(s->session, &frames, 1 + n_attachments, false);
    slice_unref(&frames);
}

/* ---- sockets ---- */

static struct socket *find_socket(const struct client *c, struct span nsp)
{
    struct socket *s = c->sockets;
    while (s && !span_eq(nsp_name(s->nsp), nsp))
        s = s->client_next;
    return s;
}

static void drop_socket(struct socket *s, bool recoverable, const char *reason)
{
    struct client *c = s->client;
    struct socket **at = &c->sockets;
    const struct hub_handler *handler = hub_handler_of(c->hub, nsp_name(s->nsp));
    if (handler->on_disconnected)
        handler->on_disconnected(handler->user, s, reason);
    if (s->entry)
        directory_leave(s->entry, recoverable);
    s->entry = NULL; /* it may be gone */
    while (*at != s)
        at = &(*at)->client_next;
    *at = s->client_next;
    c->n_sockets--;
    ack_forget_socket(s);
    hub_remove(s);
}

void socket_disconnect(struct socket *s, bool close)
{
    struct client *c = s->client;
    struct session *session = c->session;
    if (!close) {
        send_packet(session, SIO_DISCONNECT, nsp_name(s->nsp), (struct span){"", 0});
        drop_socket(s, false, "server namespace disconnect");
        return;
    }
    while (c->sockets) {
        send_packet(session, SIO_DISCONNECT, nsp_name(c->sockets->nsp), (struct span){"", 0});
        drop_socket(c->sockets, false, "server namespace disconnect");
    }
    session_close_soon(session, CLOSE_FORCED);
}

void socket_taken(struct socket *s)
{
    struct session *session = s->session;
    drop_socket(s, true, "session taken over");
    session_close_soon(session, CLOSE_TAKEN);
}

static void refuse(struct client *c, struct span nsp, struct span error)
{
    send_packet(c->session, SIO_CONNECT_ERROR, nsp, error);
}

/* {"sid":"…"}, and "pid" when it can be recovered. */
static void send_connect(struct client *c, const struct socket *s)
{
    char body[2 * ID_CHARS + 32];
    int n = s->entry ? snprintf(body, sizeof(body), "{\"sid\":\"%.*s\",\"pid\":\"%.*s\"}", ID_CHARS, s->sid,
                                ID_CHARS, s->entry->pid)
                     : snprintf(body, sizeof(body), "{\"sid\":\"%.*s\"}", ID_CHARS, s->sid);
    send_packet(c->session, SIO_CONNECT, nsp_name(s->nsp), (struct span){body, (size_t)n});
}

static void on_socket(struct client *c, struct joining *j, struct socket *s)
{
    const struct hub_handler *handler = hub_handler_of(c->hub, nsp_name(s->nsp));
    s->client_next = c->sockets;
    c->sockets = s;
    c->n_sockets++;
    reactor_timer_cancel(c->session->engine->reactor, &c->connect_timeout);
    send_connect(c, s);
    s->is_there = true;
    joining_catch_up(j, s);
    if (handler->on_connected)
        handler->on_connected(handler->user, s, joining_auth(j));
}

static void on_refused(struct client *c, struct joining *j, struct span error)
{
    refuse(c, joining_nsp(j), error);
}

static void on_failed(struct client *c, struct joining *j)
{
    (void)j;
    session_close_soon(c->session, CLOSE_FORCED);
}

static int on_connect(struct client *c, const struct sio_packet *packet)
{
    struct joining_user user = {c, on_socket, on_refused, on_failed};
    if (!hub_allows(c->hub, packet->nsp)) {
        refuse(c, packet->nsp, SPAN("{\"message\":\"Invalid namespace\"}"));
        return 0;
    }
    if (c->n_sockets + joining_count(c->joinings) >= LIMIT_NAMESPACES_PER_CLIENT ||
        !hub_has_place(c->hub, packet->nsp)) {
        refuse(c, packet->nsp, SPAN("{\"message\":\"too many namespaces\"}"));
        return 0;
    }
    return joining_start(c->hub, c->session, &user, packet->nsp,
                         packet->payload.n ? packet->payload : SPAN("{}"), &c->joinings);
}

static void end_move(struct client *c, int err);

static void unhandled(struct socket *s, const struct sio_packet *packet)
{
    metrics_add(s->nsp->hub->metrics, METRIC_EVENTS_UNHANDLED, 1);
    if (packet->has_id)
        socket_ack(s, packet->id, SPAN("{\"ok\":false,\"error\":\"nobody handles this event\"}"), NULL, 0);
}

static void on_event(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    const struct hub_handler *handler = hub_handler_of(s->nsp->hub, nsp_name(s->nsp));
    if (packet->event.n == 0)
        return;
    s->owed += packet->has_id; /* socket_ack() takes it back; s may be gone then */
    if (handler != s->nsp->hub->watcher && bus_command(s, packet, attachments))
        return;
    if (!handler->on_event || !handler->on_event(handler->user, s, packet, attachments))
        unhandled(s, packet);
}

static int on_packet(struct client *c, const struct sio_packet *packet, const struct span *attachments)
{
    struct socket *s = find_socket(c, packet->nsp);
    metrics_add(c->hub->metrics, METRIC_PACKETS_IN, 1);
    if (packet->type == SIO_CONNECT)
        return s || joining_find(c->joinings, packet->nsp) ? ERR_STATE : on_connect(c, packet);
    if (!s)
        return ERR_STATE;
    switch (packet->type) {
    case SIO_DISCONNECT:
        drop_socket(s, false, "client namespace disconnect");
        return 0;
    case SIO_EVENT:
    case SIO_BINARY_EVENT:
        on_event(s, packet, attachments);
        return 0;
    case SIO_ACK:
    case SIO_BINARY_ACK:
        if (packet->has_id)
            ack_receive(s, packet->id, packet->args, attachments, packet->attachments);
        return 0;
    default:
        return ERR_STATE;
    }
}

/* ---- sessions that move ---- */

bool client_can_move(const struct session *session)
{
    const struct client *c = client_of(session);
    const struct hub *h = c->hub;
    bool can = h->recovery && !session->recovery_off && !c->partial && !c->joinings && c->sockets &&
               fanout_is_idle(h->fanout);
    for (const struct socket *s = c->sockets; s && can; s = s->client_next)
        can = s->entry && !s->entry->is_saving && !s->acks && s->owed == 0 && !s->ahead;
    return can;
}

unsigned client_places(const struct session *session, struct client_place *places, unsigned max)
{
    const struct client *c = client_of(session);
    unsigned n = 0;
    for (const struct socket *s = c->sockets; s && n < max; s = s->client_next)
        places[n++] = (struct client_place){nsp_name(s->nsp), {s->entry->pid, ID_CHARS}};
    return n;
}

static void end_move(struct client *c, int err)
{
    void (*done)(void *user, int err) = c->moved;
    c->moved = NULL;
    if (done)
        done(c->moved_user, err);
}

static void on_moved_socket(struct client *c, struct joining *j, struct socket *s)
{
    s->client_next = c->sockets;
    c->sockets = s;
    c->n_sockets++;
    s->is_there = true;
    joining_catch_up(j, s);
    if (!c->joinings)
        end_move(c, 0);
}

static void on_not_moved(struct client *c, struct joining *j)
{
    (void)j;
    end_move(c, ERR_NOT_FOUND);
}

void client_go_on(struct session *session, const struct client_place *places, unsigned n,
                  const struct offset *since, void (*done)(void *user, int err), void *user)
{
    struct client *c = client_of(session);
    struct joining_user ju = {c, on_moved_socket, on_refused, on_not_moved};
    int err = c->hub->recovery && n > 0 ? 0 : ERR_NOT_FOUND;
    reactor_timer_cancel(session->engine->reactor, &c->connect_timeout);
    c->moved = done;
    c->moved_user = user;
    for (unsigned i = 0; i < n && !err; i++)
        err = joining_go_on(c->hub, session, &ju, places[i].nsp, places[i].pid, since, &c->joinings);
    if (err)
        end_move(c, err);
}

/* ---- attachments ---- */

static void partial_free(struct partial **pp)
{
    struct partial *p = *pp;
    if (!p)
        return;
    for (unsigned i = 0; i < p->got; i++)
        free((void *)(uintptr_t)p->attachment[i].p);
    free(p);
    *pp = NULL;
}

static int partial_start(struct client *c, struct span text)
{
    struct partial *p = malloc(sizeof(*p) + text.n);
    if (!p)
        return ERR_MEMORY;
    memcpy(p->text, text.p, text.n);
    p->got = 0;
    c->partial = p;
    /* Decoded again, so that its spans point into the copy; only attachments pay for this. */
    return sio_decode((struct span){p->text, text.n}, &p->packet);
}

static int on_text(struct session *session, struct span text)
{
    struct client *c = client_of(session);
    struct sio_packet packet;
    if (c->partial)
        return ERR_SIO_ATTACHMENTS;
    int err = sio_decode(text, &packet);
    if (err)
        return err;
    if (packet.attachments > 0)
        return partial_start(c, text);
    return on_packet(c, &packet, NULL);
}

static int on_binary(struct session *session, struct span data)
{
    struct client *c = client_of(session);
    struct partial *p = c->partial;
    if (!p)
        return ERR_SIO_ATTACHMENTS;
    char *copy = malloc(data.n ? data.n : 1);
    if (!copy)
        return ERR_MEMORY;
    if (data.n)
        memcpy(copy, data.p, data.n);
    p->attachment[p->got++] = (struct span){copy, data.n};
    if (p->got < p->packet.attachments)
        return 0;
    c->partial = NULL;
    int err = on_packet(c, &p->packet, p->attachment);
    partial_free(&p);
    return err;
}

/* ---- life ---- */

static void on_connect_timeout(struct timer *t)
{
    struct client *c = container_of(t, struct client, connect_timeout);
    session_close(c->session, CLOSE_FORCED);
}

static int on_open(struct session *session)
{
    struct engine *e = session->engine;
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_MEMORY;
    c->session = session;
    c->hub = e->app_data;
    session->app = c;
    timer_init(&c->connect_timeout, on_connect_timeout);
    reactor_timer_set(e->reactor, &c->connect_timeout, c->hub->options.connect_timeout_ms);
    return 0;
}

static void on_close(struct session *session, enum close_reason reason)
{
    struct client *c = client_of(session);
    if (!c)
        return;
    joining_cancel_all(&c->joinings);
    end_move(c, ERR_CLOSED);
    reactor_timer_cancel(session->engine->reactor, &c->connect_timeout);
    while (c->sockets)
        drop_socket(c->sockets, true, close_reason_text(reason));
    if (c->hub->watcher && c->hub->watcher->on_end)
        c->hub->watcher->on_end(c->hub->watcher->user, session, reason);
    partial_free(&c->partial);
    free(c);
}

static void on_ping(struct session *session)
{
    const struct client *c = client_of(session);
    for (struct socket *s = c->sockets; s && c->hub->recovery; s = s->client_next)
        recovery_on_ping(c->hub->recovery, s);
}

const struct engine_app client_app = {
    .on_open = on_open,
    .on_text = on_text,
    .on_binary = on_binary,
    .on_close = on_close,
    .on_ping = on_ping,
};
