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

enum { WINDOW_BYTES = 256 * 1024, PIECE_BYTES = 16 * 1024 };

/* ---- saying ---- */

void tunnel_begin(struct tunnel *t, struct mp_writer *w, size_t elements, unsigned what)
{
    msgpack_sbuffer_clear(&t->relay->scratch);
    mp_begin(w, &t->relay->scratch);
    mp_put_array(w, elements);
    mp_put_uint(w, what);
    mp_put_uint(w, t->key.id);
}

int tunnel_say(struct tunnel *t, struct mp_writer *w)
{
    msgpack_sbuffer *b = &t->relay->scratch;
    int err = mp_end(w);
    return err ? err
               : cluster_tell(t->relay->cluster, t->key.peer, MESH_TOPIC_RELAY,
                              (struct span){b->data, b->size});
}

static int say_data(struct tunnel *t, const uint8_t *p, size_t n)
{
    int err = 0;
    while (n > 0 && !err) {
        size_t piece = n < PIECE_BYTES ? n : PIECE_BYTES;
        struct mp_writer w;
        tunnel_begin(t, &w, 5, SAY_DATA);
        mp_put_bool(&w, t->key.is_mine);
        mp_put_uint(&w, t->sent);
        mp_put_bin(&w, (struct span){(const char *)p, piece});
        err = tunnel_say(t, &w);
        if (!err && t->key.is_mine)
            err = buffer_append(&t->kept, p, piece);
        t->sent += piece;
        p += piece;
        n -= piece;
    }
    return err;
}

void tunnel_say_close(struct tunnel *t)
{
    struct mp_writer w;
    tunnel_begin(t, &w, 3, SAY_CLOSE);
    mp_put_bool(&w, t->key.is_mine);
    tunnel_say(t, &w);
}

static void say_taken(struct tunnel *t)
{
    uint64_t n = t->got - t->handed_on;
    struct mp_writer w;
    if (n == 0)
        return;
    t->handed_on = t->got;
    tunnel_begin(t, &w, 4, SAY_TAKEN);
    mp_put_bool(&w, t->key.is_mine);
    mp_put_uint(&w, n);
    tunnel_say(t, &w);
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
    uint32_t events = t->sent - t->sent_taken < WINDOW_BYTES ? (uint32_t)EPOLLIN : 0;
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

static void on_timeout(struct conn *c)
{
    (void)c; /* the owner of the session has its own time-outs */
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
    reactor_timer_cancel(c->front->reactor, &c->timer);
    front_uncount_waiting(c->front, c);
}

bool relay_conn(struct relay *r, struct mesh_origin owner, struct conn *c, const void *input, size_t n)
{
    struct mp_writer w;
    struct tunnel *t = n <= WINDOW_BYTES ? new_tunnel(r, owner, ++r->next_id, true) : NULL;
    if (!t)
        return false;
    tunnel_begin(t, &w, 5, SAY_OPEN);
    mp_put_uint(&w, c->ip);
    mp_put_uint(&w, c->port);
    mp_put_bin(&w, (struct span){"", 0});
    if (tunnel_say(t, &w) || say_data(t, input, n)) {
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
    if (!c->is_dead && c->tunnel && !outq_empty(&c->out) && c->out.bytes > 2 * WINDOW_BYTES)
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

static void on_open(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m)
{
    uint64_t ip = mp_get_uint(m), port = mp_get_uint(m);
    struct span bytes = mp_get_bin(m);
    int pair[2];
    if (m->bad || ip > UINT32_MAX || port > UINT16_MAX || tunnel_find(r, from, id, false))
        return;
    struct tunnel *t = new_tunnel(r, from, id, false);
    if (!t)
        return;
    if (r->front->draining || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) {
        tunnel_say_close(t);
        tunnel_free(t);
        return;
    }
    t->number = ++r->next_number;
    bool is_in = welcome(r, pair[1], (uint32_t)ip, (uint16_t)port, t->number);
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
    take_data(t, bytes);
}

static void on_data(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m)
{
    bool is_mine = !mp_get_bool(m);
    uint64_t offset = mp_get_uint(m);
    struct span bytes = mp_get_bin(m);
    struct tunnel *t = tunnel_find(r, from, id, is_mine);
    if (m->bad)
        return;
    if (!t) {
        struct tunnel unknown = {.relay = r, .key = {.peer = from, .id = id, .is_mine = is_mine}};
        tunnel_say_close(&unknown);
    } else if (offset != t->got) {
        log_event(LOG_WARN, "relay_broken", LOG_UINT("tag", from.tag), LOG_UINT("id", id));
        conn_gone(t->conn);
    } else {
        take_data(t, bytes);
    }
}

static void on_taken(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m)
{
    bool is_mine = !mp_get_bool(m);
    uint64_t n = mp_get_uint(m);
    struct tunnel *t = tunnel_find(r, from, id, is_mine);
    if (m->bad || !t || n > t->sent - t->sent_taken)
        return;
    t->sent_taken += n;
    if (is_mine) {
        t->kept.n -= n;
        memmove(t->kept.p, t->kept.p + n, t->kept.n);
    }
    watch(t);
}

static void on_close(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m)
{
    bool is_mine = !mp_get_bool(m);
    struct tunnel *t = m->bad ? NULL : tunnel_find(r, from, id, is_mine);
    if (t)
        end_conn(t);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct relay *r = user;
    struct mp_cursor m = mp_open(bytes);
    uint64_t n = mp_get_array(&m), what = mp_get_uint(&m), id = mp_get_uint(&m);
    if (m.bad)
        return;
    if (what == SAY_OPEN && n >= 5)
        on_open(r, from, id, &m);
    else if (what == SAY_DATA && n >= 5)
        on_data(r, from, id, &m);
    else if (what == SAY_TAKEN && n >= 4)
        on_taken(r, from, id, &m);
    else if (what == SAY_CLOSE && n >= 3)
        on_close(r, from, id, &m);
    else if (what == SAY_MOVE && n >= 7)
        relay_on_move(r, from, id, &m);
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
