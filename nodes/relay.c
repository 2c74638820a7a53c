/* Both ends are alike: a connection of the front whose role sends what it reads. At the end that has the client this is
 * the client's own connection; at the owner's end it is one half of a socket pair, and the other half is a connection
 * that the HTTP role reads, like one that was accepted. */
#include "container.h"
#include "err.h"
#include "gate.h"
#include "log.h"
#include "relay_private.h"
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- saying ---- */

int tunnel_say(const struct tunnel *t, struct relay_message *m)
{
    msgpack_sbuffer *b = &t->relay->scratch;
    m->id = t->key.id;
    m->mine = t->key.is_mine;
    msgpack_sbuffer_clear(b);
    int err = relay_message_write(b, m);
    return err ? err
               : cluster_tell(t->relay->cluster, t->key.peer, MESH_TOPIC_RELAY,
                              (struct span){b->data, b->size});
}

static int say_piece(struct tunnel *t, struct relay_message *m, const uint8_t *p, size_t n)
{
    m->offset = t->sent;
    m->bytes = (struct span){(const char *)p, n};
    int err = tunnel_say(t, m);
    if (!err && t->key.is_mine)
        err = buffer_append(&t->kept, p, n);
    t->sent += n;
    return err;
}

static size_t piece_of(size_t n)
{
    return n < LIMIT_RELAY_PIECE_BYTES ? n : LIMIT_RELAY_PIECE_BYTES;
}

static int say_data(struct tunnel *t, const uint8_t *p, size_t n)
{
    struct relay_message *m = &t->relay->message;
    int err = 0;
    m->what = RELAY_DATA;
    for (size_t piece = piece_of(n); n > 0 && !err; piece = piece_of(n)) {
        err = say_piece(t, m, p, piece);
        p += piece;
        n -= piece;
    }
    return err;
}

static int say_open(struct tunnel *t, const struct conn *c, const uint8_t *p, size_t n)
{
    struct relay_message *m = &t->relay->message;
    size_t first = piece_of(n);
    m->what = RELAY_OPEN;
    m->ip = c->ip;
    m->port = c->port;
    int err = say_piece(t, m, p, first);
    return err ? err : say_data(t, p + first, n - first);
}

void tunnel_say_close(const struct tunnel *t)
{
    t->relay->message.what = RELAY_CLOSE;
    tunnel_say(t, &t->relay->message);
}

static void say_taken(struct tunnel *t)
{
    struct relay_message *m = &t->relay->message;
    m->what = RELAY_TAKEN;
    m->n = t->got - t->handed_on;
    t->handed_on = t->got;
    if (m->n > 0)
        tunnel_say(t, m);
}

/* ---- tunnels ---- */

struct tunnel *tunnel_find(struct relay *r, struct mesh_origin peer, uint64_t id, bool is_mine)
{
    struct tunnel_key key;
    struct tunnel *t;
    memset(&key, 0, sizeof(key));
    key.peer.tag = peer.tag;
    key.peer.boot = peer.boot;
    key.id = id;
    key.is_mine = is_mine;
    HASH_FIND(hh, r->tunnels, &key, sizeof(key), t);
    return t;
}

static struct tunnel *new_tunnel(struct relay *r, struct mesh_origin peer, uint64_t id, bool is_mine)
{
    struct tunnel *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->relay = r;
    t->key.peer.tag = peer.tag;
    t->key.peer.boot = peer.boot;
    t->key.id = id;
    t->key.is_mine = is_mine;
    timer_init(&t->move, relay_on_move_time);
    HASH_ADD(hh, r->tunnels, key, sizeof(t->key), t);
    metrics_set(r->front->metrics, METRIC_RELAYED, HASH_COUNT(r->tunnels));
    return t;
}

/* The connection may live on, to write what it has. */
void tunnel_free(struct tunnel *t)
{
    struct relay *r = t->relay;
    HASH_DEL(r->tunnels, t);
    if (t->number)
        HASH_DELETE(hh_number, r->numbered, t);
    metrics_set(r->front->metrics, METRIC_RELAYED, HASH_COUNT(r->tunnels));
    if (t->conn)
        t->conn->tunnel = NULL;
    reactor_timer_cancel(r->reactor, &t->move);
    buffer_reset(&t->kept);
    free(t);
}

/* The peer has nothing more to say. */
static void end_conn(struct tunnel *t)
{
    struct conn *c = t->conn;
    tunnel_free(t);
    conn_end(c);
}

static void watch(struct tunnel *t)
{
    struct conn *c = t->conn;
    uint32_t events = t->sent - t->sent_taken < LIMIT_RELAY_WINDOW_BYTES ? (uint32_t)EPOLLIN : 0;
    conn_watch(c, events | (outq_empty(&c->out) ? 0 : (uint32_t)EPOLLOUT));
}

/* ---- the role ---- */

static void on_input(struct conn *c, uint8_t *p, size_t n)
{
    struct tunnel *t = c->tunnel;
    if (!t)
        return;
    if (say_data(t, p, n))
        conn_gone(c);
    else
        watch(t);
}

static void on_drained(struct conn *c)
{
    struct tunnel *t = c->tunnel;
    if (!conn_flush(c) || !t || !outq_empty(&c->out))
        return;
    say_taken(t);
    watch(t);
}

static void on_gone(struct conn *c)
{
    struct tunnel *t = c->tunnel;
    if (!t)
        return;
    tunnel_say_close(t);
    tunnel_free(t);
}

/* The owner has time-outs of its own for everything that a client may do, and pings: when it has said nothing for longer
 * than all of these its last words are lost, and nobody else would end this. */
static void wait_for_owner(struct conn *c)
{
    const struct engine_options *o = &c->front->engine->options;
    conn_timer(c, o->ping_interval_ms + o->ping_timeout_ms + c->front->options.request_timeout_ms);
}

static void on_timeout(struct conn *c)
{
    metrics_add(c->front->metrics, METRIC_CONNECTIONS_TIMED_OUT, 1);
    conn_gone(c);
}

/* Closed by somebody else. */
static void release(struct conn *c)
{
    if (c->tunnel)
        tunnel_free(c->tunnel);
}

static const struct conn_role relay_role = {
    .name = "relay",
    .on_input = on_input,
    .on_drained = on_drained,
    .on_gone = on_gone,
    .on_timeout = on_timeout,
    .release = release,
};

static void adopt(struct tunnel *t, struct conn *c)
{
    t->conn = c;
    conn_set_role(c, &relay_role);
    c->tunnel = t;
    c->session = NULL;
    front_uncount_waiting(c->front, c);
    wait_for_owner(c);
}

bool relay_conn(struct relay *r, struct mesh_origin owner, struct conn *c, const void *input, size_t n)
{
    struct tunnel *t = n <= LIMIT_RELAY_WINDOW_BYTES ? new_tunnel(r, owner, ++r->next_id, true) : NULL;
    if (!t)
        return false;
    if (say_open(t, c, input, n)) {
        tunnel_free(t);
        return false;
    }
    conn_drop_input(c, c->in.n);
    adopt(t, c);
    watch(t);
    metrics_add(r->front->metrics, METRIC_CONNECTIONS_RELAYED, 1);
    return true;
}

/* ---- hearing ---- */

static void take_data(struct tunnel *t, struct span bytes)
{
    struct conn *c = t->conn;
    t->got += bytes.n;
    if (bytes.n && conn_put(c, bytes.p, bytes.n)) {
        conn_gone(c);
        return;
    }
    on_drained(c);
    if (!c->is_dead && c->tunnel && !outq_empty(&c->out) && c->out.bytes > 2 * LIMIT_RELAY_WINDOW_BYTES)
        conn_gone(c); /* it does not keep to the window */
}

/* The inner half reads as if it had been accepted here. */
static bool welcome(struct relay *r, int fd, uint32_t ip, uint16_t port, uint64_t number)
{
    struct front *f = r->front;
    struct conn *c = conn_new(f, fd, ip, port, &gate_role);
    if (!c)
        return false;
    c->relayed = number;
    conn_timer(c, f->options.request_timeout_ms);
    front_count_waiting(f, c);
    conn_watch(c, EPOLLIN);
    return !c->is_dead;
}

/* Both halves count as connections here, as they take descriptors. */
static bool has_place(const struct front *f)
{
    return !f->engine->shutting_down && f->n_conns + 2 <= f->options.max_connections;
}

static void on_open(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    int pair[2];
    struct tunnel *t = tunnel_find(r, from, m->id, false) ? NULL : new_tunnel(r, from, m->id, false);
    if (!t)
        return;
    if (!has_place(r->front) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) {
        metrics_add(r->front->metrics, METRIC_CONNECTIONS_NO_FD, !r->front->engine->shutting_down);
        tunnel_say_close(t);
        tunnel_free(t);
        return;
    }
    t->number = ++r->next_number;
    HASH_ADD(hh_number, r->numbered, number, sizeof(t->number), t);
    bool is_in = welcome(r, pair[1], m->ip, m->port, t->number);
    struct conn *outer = conn_new(r->front, pair[0], 0, 0, &relay_role);
    if (!outer || !is_in) {
        tunnel_say_close(t);
        tunnel_free(t);
        if (outer)
            conn_close(outer);
        return;
    }
    t->conn = outer;
    outer->tunnel = t;
    watch(t);
    take_data(t, m->bytes);
}

static void on_data(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    struct tunnel *t = tunnel_find(r, from, m->id, !m->mine);
    if (!t) {
        struct tunnel unknown = {.relay = r, .key = {.peer = from, .id = m->id, .is_mine = !m->mine}};
        tunnel_say_close(&unknown);
    } else if (m->offset != t->got) {
        log_event(LOG_WARN, "relay_broken", LOG_UINT("tag", from.tag), LOG_UINT("id", m->id));
        conn_gone(t->conn);
    } else {
        take_data(t, m->bytes);
    }
}

static void on_taken(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    struct tunnel *t = tunnel_find(r, from, m->id, !m->mine);
    if (!t || m->n > t->sent - t->sent_taken)
        return;
    t->sent_taken += m->n;
    if (t->key.is_mine) {
        t->kept.n -= m->n;
        memmove(t->kept.p, t->kept.p + m->n, t->kept.n);
    }
    watch(t);
}

static void on_close(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    struct tunnel *t = tunnel_find(r, from, m->id, !m->mine);
    if (t)
        end_conn(t);
}

/* What the owner says of a connection that was opened here. */
static void hear_owner(struct relay *r, struct mesh_origin from, const struct relay_message *m)
{
    struct tunnel *t = m->what == RELAY_OPEN || m->mine ? NULL : tunnel_find(r, from, m->id, true);
    if (t)
        wait_for_owner(t->conn);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    static void (*const hear[])(struct relay * r, struct mesh_origin from, const struct relay_message *m) = {
        [RELAY_OPEN] = on_open,   [RELAY_DATA] = on_data,       [RELAY_TAKEN] = on_taken,
        [RELAY_CLOSE] = on_close, [RELAY_MOVE] = relay_on_move,
    };
    static struct relay_message m; /* not the relay's: that is written while this is read */
    struct relay *r = user;
    int err = relay_message_read(bytes, &m);
    if (err) {
        metrics_add(r->front->metrics, METRIC_MESH_REJECTED, err != ERR_KIND);
        return;
    }
    hear_owner(r, from, &m);
    hear[m.what](r, from, &m);
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    struct relay *r = user;
    struct tunnel *t, *tmp;
    (void)received;
    HASH_ITER(hh, r->tunnels, t, tmp)
    {
        if (t->key.peer.tag == from.tag && t->key.peer.boot == from.boot)
            end_conn(t);
    }
}

/* ---- start and end ---- */

struct relay *relay_new(struct reactor *reactor, struct cluster *cluster, struct front *front)
{
    struct relay *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->reactor = reactor;
    r->cluster = cluster;
    r->front = front;
    msgpack_sbuffer_init(&r->scratch);
    cluster_listen(cluster, MESH_TOPIC_RELAY,
                   &(struct cluster_part){.user = r, .on_message = on_message, .on_dead = on_dead});
    return r;
}

void relay_free(struct relay **rp)
{
    struct relay *r = *rp;
    if (!r)
        return;
    cluster_listen(r->cluster, MESH_TOPIC_RELAY, &(struct cluster_part){.user = NULL});
    while (r->tunnels) {
        struct conn *c = r->tunnels->conn;
        tunnel_free(r->tunnels);
        conn_close(c);
    }
    relay_forget_moved(r);
    msgpack_sbuffer_destroy(&r->scratch);
    free(r);
    *rp = NULL;
}
