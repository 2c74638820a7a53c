#include "link.h"
#include "endpoints.h"
#include "err.h"
#include "exchange.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>
#include <zmq.h>

enum {
    GREETING_MS = 1000,
    LINGER_MS = 500,
    MESSAGES_A_TURN = 64,
};

struct link {
    struct link_options o;
    char name[AGENT_NAME_BYTES + 1], about[AGENT_ABOUT_BYTES + 1], instance[33], node[AGENT_NAME_BYTES + 1];
    int epoll, fd; /* libzmq's */
    void *context, *socket;
    enum link_state state;
    uint64_t number;
    struct exchange exchange;
    uint64_t due_ms;
    bool tries_at_once; /* a connection was lost just now */
    struct backoff backoff;
    struct endpoints endpoints;
    char *buffer; /* one byte longer than the longest message so far */
    size_t buffer_n;
    struct agent_record in, out;
};

/* ---- nodes to try ---- */

/* A Unix socket of another host is not worth a second of waiting. */
static bool is_hopeless(const char *endpoint)
{
    return strncmp(endpoint, "ipc:///", 7) == 0 && access(endpoint + 6, F_OK) != 0;
}

static void next_endpoint(struct link *l)
{
    for (unsigned i = 0; i < l->endpoints.n; i++) {
        endpoints_next(&l->endpoints);
        if (!is_hopeless(endpoints_current(&l->endpoints)))
            return;
    }
}

static uint64_t wait_ms(struct link *l)
{
    bool at_once = l->tries_at_once;
    l->tries_at_once = false;
    return at_once ? 0 : backoff_next_ms(&l->backoff);
}

/* ---- the socket ---- */

static void close_socket(struct link *l, int linger_ms)
{
    if (!l->socket)
        return;
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, l->fd, NULL);
    zmq_setsockopt(l->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    zmq_close(l->socket);
    l->socket = NULL;
}

static bool open_socket(struct link *l)
{
    int64_t longest = LIMIT_AGENT_MESSAGE_BYTES;
    size_t n = sizeof(l->fd);
    l->socket = zmq_socket(l->context, ZMQ_DEALER);
    if (!l->socket)
        return false;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = l};
    if (zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &longest, sizeof(longest)) == 0 &&
        zmq_connect(l->socket, endpoints_current(&l->endpoints)) == 0 &&
        zmq_getsockopt(l->socket, ZMQ_FD, &l->fd, &n) == 0 &&
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->fd, &event) == 0)
        return true;
    int linger_ms = 0;
    zmq_setsockopt(l->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    zmq_close(l->socket);
    l->socket = NULL;
    return false;
}

static bool is_set(const struct link *l, int event)
{
    int events = 0;
    size_t n = sizeof(events);
    return l->socket && zmq_getsockopt(l->socket, ZMQ_EVENTS, &events, &n) == 0 && (events & event) != 0;
}

bool link_has_input(const struct link *l)
{
    return is_set(l, ZMQ_POLLIN);
}

/* Writes l->out. */
static bool say(struct link *l, uint64_t now_ms)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    bool said = agent_write(&b, &l->out) == 0 && zmq_send(l->socket, b.data, b.size, ZMQ_DONTWAIT) >= 0;
    if (said)
        exchange_sent(&l->exchange, b.size, now_ms);
    msgpack_sbuffer_destroy(&b);
    return said;
}

static void say_credit(struct link *l, uint64_t now_ms)
{
    exchange_credit(&l->exchange, &l->out);
    say(l, now_ms);
}

static void say_bye(struct link *l, const char *code, const char *text, uint64_t now_ms)
{
    exchange_bye(&l->out, code, text);
    say(l, now_ms);
}

static void say_hello(struct link *l, uint64_t now_ms)
{
    exchange_hello(&l->exchange, &l->out, l->name, l->instance, l->about);
    say(l, now_ms);
    l->exchange.sent = 0;
}

/* ---- states ---- */

static void try_next(struct link *l, uint64_t now_ms)
{
    next_endpoint(l);
    if (!open_socket(l)) {
        l->due_ms = now_ms + wait_ms(l);
        l->o.on_down(l->o.user, false, "lost", zmq_strerror(errno));
        return;
    }
    l->state = LINK_GREETING;
    l->due_ms = now_ms + GREETING_MS;
    say_hello(l, now_ms);
}

/* code and text may be in the message that is being read. */
static void go_down(struct link *l, const char *code, const char *text, uint64_t now_ms)
{
    bool was_open = l->state == LINK_OPEN;
    close_socket(l, was_open ? LINGER_MS : 0);
    if (was_open) {
        if (exchange_was_steady(&l->exchange, now_ms)) {
            l->tries_at_once = true;
            backoff_reset(&l->backoff);
        }
        /* Not all agents of a dead node go to the same peer. */
        unsigned n = l->endpoints.n;
        l->endpoints.current = (l->endpoints.current + (unsigned)(backoff_draw(&l->backoff) % n)) % n;
    }
    l->state = LINK_WAITING;
    l->due_ms = now_ms + wait_ms(l);
    l->o.on_down(l->o.user, was_open, code, text);
}

void link_leave(struct link *l, const char *code, const char *text, uint64_t now_ms)
{
    if (l->state != LINK_OPEN)
        return;
    say_bye(l, code, text, now_ms);
    go_down(l, code, text, now_ms);
}

static void on_welcome(struct link *l, const struct agent_record *r)
{
    l->state = LINK_OPEN;
    l->number++;
    exchange_welcome(&l->exchange, r);
    memcpy(l->node, r->node.p, r->node.n);
    l->node[r->node.n] = 0;
    endpoints_learn(&l->endpoints, r, AGENT_ENDPOINTS);
    l->o.on_open(l->o.user, r);
}

static const char *ended(struct span text)
{
    if (!text.p)
        return "";
    ((char *)text.p)[text.n] = 0;
    return text.p;
}

static bool is_code(const struct agent_record *r, enum agent_code code)
{
    return agent_code_of(r->code) == code;
}

static void on_record(struct link *l, struct agent_record *r, int result, uint64_t now_ms)
{
    bool good = result == 1;
    if (good && r->kind == AGENT_WELCOME && l->state == LINK_GREETING && r->version == AGENT_VERSION) {
        on_welcome(l, r);
    } else if (good && r->kind == AGENT_BYE) {
        go_down(l, ended(r->code), ended(r->text), now_ms);
    } else if (good && r->kind == AGENT_ERROR && (l->state == LINK_GREETING || is_code(r, AGENT_E_HELLO))) {
        go_down(l, ended(r->code), ended(r->text), now_ms);
    } else if (l->state != LINK_OPEN) {
        return;
    } else if (good && r->kind == AGENT_CREDIT) {
        exchange_granted(&l->exchange, r);
    } else if (good && r->kind == AGENT_NODE) {
        if (agent_has(r, AGENT_F_PEERS))
            endpoints_learn(&l->endpoints, r, AGENT_ENDPOINTS);
        if (r->draining)
            l->o.on_draining(l->o.user);
    } else {
        l->o.on_record(l->o.user, r, result);
    }
}

/* A text of the last record may be ended by a NUL where the next one begins: its byte is kept meanwhile. */
static void read_records(struct link *l, struct span message, uint64_t now_ms)
{
    struct agent_reader reader = agent_open(message);
    uint64_t number = l->number;
    enum link_state state = l->state;
    int result;
    while ((result = agent_read(&reader, &l->in)) != 0) {
        char *next = (char *)reader.p, kept = *next;
        on_record(l, &l->in, result, now_ms);
        *next = kept;
        /* What follows belongs to a connection that is no more. */
        if (result == ERR_AGENT || (state == LINK_OPEN && l->number != number) || l->state == LINK_WAITING)
            return;
    }
}

static bool grow(struct link *l, size_t n)
{
    if (n < l->buffer_n)
        return true;
    char *buffer = realloc(l->buffer, n + 1);
    if (!buffer)
        return false;
    l->buffer = buffer;
    l->buffer_n = n + 1;
    return true;
}

/* 1: one was received; 0: there is none; an error ends the connection. */
static int receive(struct link *l, uint64_t now_ms)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    int n = zmq_msg_recv(&message, l->socket, ZMQ_DONTWAIT);
    if (n < 0) {
        zmq_msg_close(&message);
        return 0;
    }
    bool opening = l->state == LINK_GREETING;
    l->exchange.heard_ms = now_ms;
    if (!grow(l, (size_t)n)) {
        zmq_msg_close(&message);
        go_down(l, "memory", agent_code_text(AGENT_E_MEMORY), now_ms);
        return 1;
    }
    memcpy(l->buffer, zmq_msg_data(&message), (size_t)n);
    l->buffer[n] = 0;
    zmq_msg_close(&message);
    read_records(l, (struct span){l->buffer, (size_t)n}, now_ms);
    if (!opening && l->state == LINK_OPEN)
        exchange_received(&l->exchange, (size_t)n);
    return 1;
}

static void keep_time(struct link *l, uint64_t now_ms)
{
    if (l->state == LINK_WAITING && now_ms >= l->due_ms)
        try_next(l, now_ms);
    else if (l->state == LINK_GREETING && now_ms >= l->due_ms)
        go_down(l, "silent", "no WELCOME in time", now_ms);
    else if (l->state == LINK_OPEN && exchange_is_silent(&l->exchange, now_ms))
        go_down(l, "silent", agent_code_text(AGENT_E_SILENT), now_ms);
    else if (l->state == LINK_OPEN && exchange_owes_credit(&l->exchange, now_ms))
        say_credit(l, now_ms);
}

bool link_work(struct link *l, uint64_t now_ms)
{
    unsigned n = 0;
    while (l->socket && n < MESSAGES_A_TURN && receive(l, now_ms) == 1)
        n++;
    keep_time(l, now_ms);
    return n == MESSAGES_A_TURN;
}

uint64_t link_due_ms(const struct link *l)
{
    return l->state == LINK_OPEN ? exchange_due_ms(&l->exchange) : l->due_ms;
}

bool link_has_credit(const struct link *l)
{
    return l->state == LINK_OPEN && exchange_may_send(&l->exchange);
}

bool link_send(struct link *l, const void *bytes, size_t n, uint64_t now_ms)
{
    assert(l->state == LINK_OPEN);
    if (zmq_send(l->socket, bytes, n, ZMQ_DONTWAIT) < 0)
        return false;
    exchange_sent(&l->exchange, n, now_ms);
    return true;
}

enum link_state link_state(const struct link *l)
{
    return l->state;
}

uint64_t link_number(const struct link *l)
{
    return l->number;
}

const char *link_node(const struct link *l)
{
    return l->node;
}

/* ---- life ---- */

static bool draw(struct link *l)
{
    unsigned char bytes[16];
    uint64_t seed;
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes) ||
        getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        return false;
    backoff_init(&l->backoff, seed);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        sprintf(l->instance + (size_t)2 * i, "%02x", bytes[i]);
    return true;
}

struct link *link_new(const struct link_options *o, int epoll)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->o = *o;
    l->epoll = epoll;
    l->exchange.window = o->window;
    l->tries_at_once = true;
    snprintf(l->name, sizeof(l->name), "%s", o->name);
    snprintf(l->about, sizeof(l->about), "%s", o->about ? o->about : "");
    endpoints_init(&l->endpoints, o->endpoints);
    bool has_any = l->endpoints.n > 0;
    l->endpoints.current = has_any ? l->endpoints.n - 1 : 0; /* the next is the first */
    l->context = has_any ? zmq_ctx_new() : NULL;
    if (l->context && draw(l) && grow(l, AGENT_BATCH_BYTES))
        return l;
    int err = has_any ? errno : EINVAL;
    link_free(&l);
    errno = err;
    return NULL;
}

void link_free(struct link **link)
{
    struct link *l = *link;
    if (!l)
        return;
    if (l->state == LINK_OPEN)
        say_bye(l, agent_code(AGENT_E_ENDED), agent_code_text(AGENT_E_ENDED), l->exchange.said_ms);
    close_socket(l, l->state == LINK_OPEN ? LINGER_MS : 0);
    if (l->context)
        zmq_ctx_term(l->context);
    free(l->buffer);
    free(l);
    *link = NULL;
}
