/* A session moves when its WebSocket is relayed and nothing of it is half done: it ends at the node that had it, and
 * goes on where its connection is, as one that comes back does. */
#include "client.h"
#include "container.h"
#include "err.h"
#include "recovery.h"
#include "relay_private.h"
#include "ws_transport.h"
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    MOVE_LOOK_MS = 5, /* until a session can move: most can at once */
    MOVE_TRIES = 400, /* then it is looked at only now and then */
    MOVE_LATER_MS = 1000,
    MOVED_MAX = 65536,
    OUTPUT_BYTES = 256 * 1024, /* of a session that moves; as much again may be in the socket pair */
};

/* A session that has gone to another node. */
struct moved {
    char sid[ID_CHARS];
    struct mesh_origin to;
    uint64_t expires_ms;
    struct moved *younger;
    UT_hash_handle hh;
};

/* A session that has come, and is not complete yet. */
struct arrival {
    struct session *session;
    struct buffer input;
};

/* ---- moving away ---- */

static void drop_oldest_moved(struct relay *r)
{
    struct moved *m = r->oldest_moved;
    r->oldest_moved = m->younger;
    if (!r->oldest_moved)
        r->youngest_moved = NULL;
    HASH_DEL(r->moved, m);
    free(m);
}

static void remember_moved(struct relay *r, const char sid[ID_CHARS], struct mesh_origin to)
{
    const struct engine_options *o = &r->front->engine->options;
    uint64_t now = reactor_now_ms(r->reactor);
    struct moved *m = calloc(1, sizeof(*m));
    if (!m)
        return;
    while (r->oldest_moved && (r->oldest_moved->expires_ms <= now || HASH_COUNT(r->moved) >= MOVED_MAX))
        drop_oldest_moved(r);
    memcpy(m->sid, sid, ID_CHARS);
    m->to = to;
    m->expires_ms = now + o->ping_interval_ms + o->ping_timeout_ms;
    if (r->youngest_moved)
        r->youngest_moved->younger = m;
    else
        r->oldest_moved = m;
    r->youngest_moved = m;
    HASH_ADD(hh, r->moved, sid, ID_CHARS, m);
}

void relay_forget_moved(struct relay *r)
{
    while (r->oldest_moved)
        drop_oldest_moved(r);
}

bool relay_moved_to(const struct relay *r, struct span sid, struct mesh_origin *to)
{
    struct moved *m = NULL;
    if (sid.n == ID_CHARS)
        HASH_FIND(hh, r->moved, sid.p, ID_CHARS, m);
    if (!m || m->expires_ms <= reactor_now_ms(r->reactor))
        return false;
    *to = m->to;
    return true;
}

/* Everything that has been read is done with, what is not written lies in known places, and it is not much: who is slow
 * moves when it has caught up. */
static bool can_move(const struct tunnel *t, const struct session *s)
{
    const struct conn *inner = s->link;
    int unread = 1;
    return session_is_open(s) && ws_is_between_messages(inner) && !s->base64 && !s->is_paused &&
           !s->is_blocked && outq_empty(&inner->out) && s->out.bytes <= OUTPUT_BYTES &&
           outq_empty(&t->conn->out) && ioctl(inner->io.fd, FIONREAD, &unread) == 0 && unread == 0 &&
           client_can_move(s);
}

/* What the client has not got yet: what is in the socket pair, then what waits to be written to it. */
static int collect_output(const struct tunnel *t, const struct session *s, struct buffer *out)
{
    uint8_t *p = t->relay->front->scratch;
    int err = 0;
    ssize_t n;
    while (!err && (n = recv(t->conn->io.fd, p, sizeof(t->relay->front->scratch), MSG_DONTWAIT)) > 0)
        err = buffer_append(out, p, (size_t)n);
    if (!err)
        err = ws_take_output(s->link, out);
    return err ? err : out->n <= LIMIT_RELAY_OUTPUT_BYTES ? 0 : ERR_LIMIT;
}

static int say_move(struct tunnel *t, const struct session *s, struct span output)
{
    struct hub *h = s->engine->app_data;
    struct relay_message *m = &t->relay->message;
    struct client_place places[LIMIT_NAMESPACES_PER_CLIENT];
    m->what = RELAY_MOVE;
    m->sid = (struct span){s->sid, ID_CHARS};
    m->got = t->got;
    m->since = recovery_offset(h->recovery, cluster_newest(h->cluster));
    m->n_places = client_places(s, places, LIMIT_NAMESPACES_PER_CLIENT);
    for (unsigned i = 0; i < m->n_places; i++)
        m->places[i] = (struct relay_place){places[i].nsp, places[i].pid};
    m->bytes = output;
    return tunnel_say(t, m);
}

static void move(struct tunnel *t, struct session *s)
{
    struct relay *r = t->relay;
    struct conn *inner = s->link, *outer = t->conn;
    struct buffer output = {NULL, 0, 0};
    int err = collect_output(t, s, &output);
    if (!err)
        err = say_move(t, s, (struct span){output.p, output.n});
    buffer_reset(&output);
    if (err)
        tunnel_say_close(t); /* its output is gone: the client has to come again */
    else
        remember_moved(r, s->sid, t->key.peer);
    metrics_add(r->front->metrics, METRIC_SESSIONS_MOVED, !err);
    s->link = NULL;
    inner->session = NULL;
    session_close(s, err ? CLOSE_TRANSPORT_ERROR : CLOSE_MOVED);
    tunnel_free(t);
    conn_close(outer);
    conn_close(inner);
}

void relay_on_move_time(struct timer *timer)
{
    struct tunnel *t = container_of(timer, struct tunnel, move);
    struct session *s = engine_find(t->relay->front->engine, (struct span){t->sid, ID_CHARS});
    const struct conn *inner = s && s->transport == &ws_transport ? s->link : NULL;
    if (!inner || inner->relayed != t->number)
        return;
    if (can_move(t, s))
        move(t, s);
    else
        reactor_timer_set(t->relay->reactor, timer, t->tries++ < MOVE_TRIES ? MOVE_LOOK_MS : MOVE_LATER_MS);
}

/* False: it never can. */
static bool may_move(const struct session *s)
{
    const struct hub *h = s->engine->app_data;
    return h->recovery && !s->recovery_off && !s->base64;
}

void relay_upgraded(struct relay *r, struct conn *c)
{
    struct tunnel *t;
    HASH_FIND(hh_number, r->numbered, &c->relayed, sizeof(c->relayed), t);
    if (!t || !may_move(c->session))
        return;
    memcpy(t->sid, c->session->sid, ID_CHARS);
    t->tries = 0;
    reactor_timer_set(r->reactor, &t->move, MOVE_LOOK_MS);
}

/* ---- coming here ---- */

static void on_arrived(void *user, int err)
{
    struct arrival *a = user;
    struct session *s = a->session;
    s->is_arriving = false;
    if (err == 0 && s->link)
        ws_go_on(s->link, (uint8_t *)a->input.p, a->input.n);
    else if (err != ERR_CLOSED)
        session_close_soon(s, CLOSE_TRANSPORT_CLOSE);
    buffer_reset(&a->input);
    free(a);
}

/* The connection is the session's from now on; false: it is closed. */
static struct session *take_over(struct tunnel *t, struct span sid, struct span output)
{
    struct conn *c = t->conn;
    struct engine *e = t->relay->front->engine;
    int err = output.n ? conn_put(c, output.p, output.n) : 0;
    tunnel_free(t);
    reactor_timer_cancel(c->front->reactor, &c->timer);
    struct session *s = err ? NULL : engine_adopt(e, &ws_transport, c, sid.p);
    if (!s) {
        conn_abort(c);
        return NULL;
    }
    s->is_arriving = true;
    ws_adopt(c, s);
    return conn_flush(c) ? s : NULL;
}

/* What the client has sent and its session has not seen. */
static struct arrival *new_arrival(const struct tunnel *t, uint64_t got)
{
    uint64_t done_with = got - t->sent_taken;
    struct arrival *a = got >= t->sent_taken && got <= t->sent ? calloc(1, sizeof(*a)) : NULL;
    if (a && buffer_append(&a->input, t->kept.p + done_with, t->kept.n - done_with)) {
        free(a);
        a = NULL;
    }
    return a;
}

void relay_on_move(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    static struct offset since; /* large; the reactor's thread only */
    struct client_place places[LIMIT_NAMESPACES_PER_CLIENT];
    struct tunnel *t = tunnel_find(r, from, m->id, true);
    if (!t)
        return;
    struct arrival *a = offset_decode(m->since, &since) == 0 ? new_arrival(t, m->got) : NULL;
    if (!a) {
        conn_gone(t->conn);
        return;
    }
    for (unsigned i = 0; i < m->n_places; i++)
        places[i] = (struct client_place){m->places[i].nsp, m->places[i].pid};
    a->session = take_over(t, m->sid, m->bytes);
    if (a->session) {
        metrics_add(r->front->metrics, METRIC_SESSIONS_ARRIVED, 1);
        client_go_on(a->session, places, m->n_places, &since, on_arrived, a);
        return;
    }
    buffer_reset(&a->input);
    free(a);
}
