/* Both ends are alike: a connection of the front whose role sends what it reads. At the end that has the client this is
 * the client's own connection; at the owner's end it is one half of a socket pair, and the other half is a connection
 * that the HTTP role reads, like one that was accepted. */
#include "relay.h"
#include "client.h"
#include "container.h"
#include "err.h"
#include "gate.h"
#include "log.h"
#include "mp.h"
#include "recovery.h"
#include "ws_transport.h"
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    WINDOW_BYTES = 256 * 1024,
    PIECE_BYTES = 16 * 1024,
    SAY_OPEN = 1,
    SAY_DATA = 2,
    SAY_TAKEN = 3,
    SAY_CLOSE = 4,
    SAY_MOVE = 5,
    MOVE_LOOK_MS = 5, /* until a session can move */
    MOVE_TRIES = 400,
    MOVED_MAX = 65536,
};

struct tunnel_key {
    struct mesh_origin peer;
    uint64_t id;
    uint64_t is_mine; /* opened here */
};

struct tunnel {
    struct relay *relay;
    struct tunnel_key key;
    struct conn *conn;
    uint64_t sent, sent_taken; /* bytes to the peer; of these it has handed on */
    uint64_t got;              /* bytes from the peer */
    uint64_t handed_on;        /* of these, said to be TAKEN */
    struct buffer kept; /* opened here: what was sent and is not TAKEN, should it have to be read again */
    uint64_t number;    /* the owner's: of the inner half */
    char sid[ID_CHARS]; /* of the session that is to move */
    unsigned tries;
    struct timer move;
    UT_hash_handle hh;
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

struct relay {
    struct reactor *reactor;
    struct cluster *cluster;
    struct front *front;
    struct tunnel *tunnels;
    struct moved *moved, *oldest, *youngest;
    uint64_t next_id, next_number;
    msgpack_sbuffer scratch;
};

/* ---- saying ---- */

static void begin(struct tunnel *t, struct mp_writer *w, size_t elements, unsigned what)
{
    msgpack_sbuffer_clear(&t->relay->scratch);
    mp_begin(w, &t->relay->scratch);
    mp_put_array(w, elements);
    mp_put_uint(w, what);
    mp_put_uint(w, t->key.id);
}

static int say(struct tunnel *t, struct mp_writer *w)
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
        begin(t, &w, 5, SAY_DATA);
        mp_put_bool(&w, t->key.is_mine);
        mp_put_uint(&w, t->sent);
        mp_put_bin(&w, (struct span){(const char *)p, piece});
        err = say(t, &w);
        if (!err && t->key.is_mine)
            err = buffer_append(&t->kept, p, piece);
        t->sent += piece;
        p += piece;
        n -= piece;
    }
    return err;
}

static void say_close(struct tunnel *t)
{
    struct mp_writer w;
    begin(t, &w, 3, SAY_CLOSE);
    mp_put_bool(&w, t->key.is_mine);
    say(t, &w);
}

static void say_taken(struct tunnel *t)
{
    uint64_t n = t->got - t->handed_on;
    struct mp_writer w;
    if (n == 0)
        return;
    t->handed_on = t->got;
    begin(t, &w, 4, SAY_TAKEN);
    mp_put_bool(&w, t->key.is_mine);
    mp_put_uint(&w, n);
    say(t, &w);
}

/* ---- tunnels ---- */

static struct tunnel *find(struct relay *r, struct mesh_origin peer, uint64_t id, bool is_mine)
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

static void on_move_time(struct timer *timer);

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
    timer_init(&t->move, on_move_time);
    HASH_ADD(hh, r->tunnels, key, sizeof(t->key), t);
    metrics_set(r->front->metrics, METRIC_RELAYED, HASH_COUNT(r->tunnels));
    return t;
}

/* The connection may live on, to write what it has. */
static void free_tunnel(struct tunnel *t)
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
    free_tunnel(t);
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
    say_close(t);
    free_tunnel(t);
}

static void on_timeout(struct conn *c)
{
    (void)c; /* the owner of the session has its own time-outs */
}

/* Closed by somebody else. */
static void release(struct conn *c)
{
    if (c->tunnel)
        free_tunnel(c->tunnel);
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
    begin(t, &w, 5, SAY_OPEN);
    mp_put_uint(&w, c->ip);
    mp_put_uint(&w, c->port);
    mp_put_bin(&w, (struct span){"", 0});
    if (say(t, &w) || say_data(t, input, n)) {
        free_tunnel(t);
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
    if (m->bad || ip > UINT32_MAX || port > UINT16_MAX || find(r, from, id, false))
        return;
    struct tunnel *t = new_tunnel(r, from, id, false);
    if (!t)
        return;
    if (r->front->draining || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) {
        say_close(t);
        free_tunnel(t);
        return;
    }
    t->number = ++r->next_number;
    bool is_in = welcome(r, pair[1], (uint32_t)ip, (uint16_t)port, t->number);
    struct conn *outer = conn_new(r->front, pair[0], 0, 0, &relay_role);
    if (!outer || !is_in) {
        say_close(t);
        free_tunnel(t);
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
    struct tunnel *t = find(r, from, id, is_mine);
    if (m->bad)
        return;
    if (!t) {
        struct tunnel unknown = {.relay = r, .key = {.peer = from, .id = id, .is_mine = is_mine}};
        say_close(&unknown);
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
    struct tunnel *t = find(r, from, id, is_mine);
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
    struct tunnel *t = m->bad ? NULL : find(r, from, id, is_mine);
    if (t)
        end_conn(t);
}

/* ---- moving away ---- */

static void drop_oldest_moved(struct relay *r)
{
    struct moved *m = r->oldest;
    r->oldest = m->younger;
    if (!r->oldest)
        r->youngest = NULL;
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
    while (r->oldest && (r->oldest->expires_ms <= now || HASH_COUNT(r->moved) >= MOVED_MAX))
        drop_oldest_moved(r);
    memcpy(m->sid, sid, ID_CHARS);
    m->to = to;
    m->expires_ms = now + o->ping_interval_ms + o->ping_timeout_ms;
    if (r->youngest)
        r->youngest->younger = m;
    else
        r->oldest = m;
    r->youngest = m;
    HASH_ADD(hh, r->moved, sid, ID_CHARS, m);
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

/* Everything that has been read is done with, and what is not written lies in known places. */
static bool can_move(const struct tunnel *t, const struct session *s)
{
    const struct conn *inner = s->link;
    int unread = 1;
    return session_is_open(s) && ws_is_between_messages(inner) && !s->base64 && !s->is_paused &&
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
    return err ? err : ws_take_output(s->link, out);
}

static int say_move(struct tunnel *t, const struct session *s, struct span output)
{
    struct hub *h = s->engine->app_data;
    struct client_place places[LIMIT_NAMESPACES_PER_CLIENT];
    unsigned n = client_places(s, places, LIMIT_NAMESPACES_PER_CLIENT);
    struct mp_writer w;
    begin(t, &w, 7, SAY_MOVE);
    mp_put_text(&w, (struct span){s->sid, ID_CHARS}, ID_CHARS);
    mp_put_uint(&w, t->got);
    mp_put_text(&w, recovery_offset(h->recovery, cluster_newest(h->cluster)), LIMIT_OFFSET_BYTES);
    mp_put_array(&w, n);
    for (unsigned i = 0; i < n; i++) {
        mp_put_array(&w, 2);
        mp_put_text(&w, places[i].nsp, LIMIT_NAMESPACE_BYTES);
        mp_put_text(&w, places[i].pid, ID_CHARS);
    }
    mp_put_bin(&w, output);
    return say(t, &w);
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
        say_close(t); /* its output is gone: the client has to come again */
    else
        remember_moved(r, s->sid, t->key.peer);
    metrics_add(r->front->metrics, METRIC_SESSIONS_MOVED, !err);
    s->link = NULL;
    inner->session = NULL;
    session_close(s, err ? CLOSE_TRANSPORT_ERROR : CLOSE_MOVED);
    free_tunnel(t);
    conn_close(outer);
    conn_close(inner);
}

static void on_move_time(struct timer *timer)
{
    struct tunnel *t = container_of(timer, struct tunnel, move);
    struct session *s = engine_find(t->relay->front->engine, (struct span){t->sid, ID_CHARS});
    const struct conn *inner = s && s->transport == &ws_transport ? s->link : NULL;
    if (!inner || inner->relayed != t->number)
        return;
    if (can_move(t, s))
        move(t, s);
    else if (t->tries++ < MOVE_TRIES)
        reactor_timer_set(t->relay->reactor, timer, MOVE_LOOK_MS);
}

void relay_upgraded(struct relay *r, struct conn *c)
{
    struct tunnel *t = r->tunnels;
    while (t && (t->key.is_mine || t->number != c->relayed))
        t = t->hh.next;
    if (!t)
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

static bool read_places(struct mp_cursor *m, struct client_place *places, unsigned *n)
{
    *n = mp_get_count(m, LIMIT_NAMESPACES_PER_CLIENT);
    for (unsigned i = 0; i < *n; i++) {
        uint64_t elements = mp_get_array(m);
        places[i].nsp = mp_get_text(m, LIMIT_NAMESPACE_BYTES);
        places[i].pid = mp_get_text(m, ID_CHARS);
        mp_skip(m, elements >= 2 ? elements - 2 : mp_refuse(m));
    }
    return !m->bad;
}

/* The connection is the session's from now on; false: it is closed. */
static struct session *take_over(struct tunnel *t, struct span sid, struct span output)
{
    struct conn *c = t->conn;
    struct engine *e = t->relay->front->engine;
    int err = output.n ? conn_put(c, output.p, output.n) : 0;
    free_tunnel(t);
    struct session *s = err ? NULL : engine_adopt(e, &ws_transport, c, sid.p);
    if (!s) {
        conn_abort(c);
        return NULL;
    }
    s->is_arriving = true;
    ws_adopt(c, s);
    return conn_flush(c) ? s : NULL;
}

static void on_move(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m)
{
    struct client_place places[LIMIT_NAMESPACES_PER_CLIENT];
    struct offset since;
    unsigned n;
    struct span sid = mp_get_text(m, ID_CHARS);
    uint64_t got = mp_get_uint(m);
    struct span offset = mp_get_text(m, LIMIT_OFFSET_BYTES);
    bool good = read_places(m, places, &n);
    struct span output = mp_get_bin(m);
    struct tunnel *t = find(r, from, id, true);
    if (!t)
        return;
    struct arrival *a = calloc(1, sizeof(*a));
    good = good && !m->bad && sid.n == ID_CHARS && offset_decode(offset, &since) == 0 &&
           got >= t->sent_taken && got <= t->sent && a;
    uint64_t done_with = good ? got - t->sent_taken : 0;
    if (!good || buffer_append(&a->input, t->kept.p + done_with, t->kept.n - done_with)) {
        free(a);
        conn_gone(t->conn);
        return;
    }
    a->session = take_over(t, sid, output);
    if (a->session) {
        metrics_add(r->front->metrics, METRIC_SESSIONS_ARRIVED, 1);
        client_go_on(a->session, places, n, &since, on_arrived, a);
        return;
    }
    buffer_reset(&a->input);
    free(a);
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
        on_move(r, from, id, &m);
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
        free_tunnel(r->tunnels);
        conn_close(c);
    }
    while (r->oldest)
        drop_oldest_moved(r);
    msgpack_sbuffer_destroy(&r->scratch);
    free(r);
    *rp = NULL;
}
