#include "link.h"
#include "err.h"
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
    FIRST_WAIT_MS = 100,
    LONGEST_WAIT_MS = 5000,
    LINGER_MS = 500,
    MESSAGES_A_TURN = 64,
    ENDPOINTS = 128,
    /* Until a WELCOME says otherwise. */
    HEARTBEAT_MS = 300,
    TIMEOUT_MS = 1000,
};

struct link {
    struct link_options o;
    char name[AGENT_NAME_BYTES + 1], about[AGENT_ABOUT_BYTES + 1], instance[33], node[AGENT_NAME_BYTES + 1];
    int epoll, fd; /* libzmq's */
    void *context, *socket;
    enum link_state state;
    uint64_t number;
    uint64_t sent, credit;    /* bytes; what we may send */
    uint64_t received, given; /* bytes; what the node may send */
    uint64_t heard_ms, said_ms, due_ms;
    uint64_t heartbeat_ms, timeout_ms;
    unsigned attempts;
    unsigned seed;
    unsigned n_configured, n_endpoints, at;
    char endpoints[ENDPOINTS][AGENT_ENDPOINT_BYTES + 1];
    char *buffer; /* one byte longer than the longest message so far */
    size_t buffer_n;
    struct agent_record in, out;
};

/* ---- nodes to try ---- */

static void add_endpoint(struct link *l, struct span endpoint)
{
    for (unsigned i = 0; i < l->n_endpoints; i++)
        if (span_eq(endpoint, span_of(l->endpoints[i])))
            return;
    if (l->n_endpoints == ENDPOINTS || endpoint.n == 0 || endpoint.n > AGENT_ENDPOINT_BYTES)
        return;
    char *to = l->endpoints[l->n_endpoints++];
    memcpy(to, endpoint.p, endpoint.n);
    to[endpoint.n] = 0;
}

static void add_list(struct link *l, const char *list)
{
    while (*list) {
        size_t n = strcspn(list, ",");
        add_endpoint(l, (struct span){list, n});
        list += n + (list[n] == ',');
    }
}

/* Those that were configured stay: peers that a node tells of may all be gone when it is. */
static void set_peers(struct link *l, const struct agent_record *r)
{
    char current[AGENT_ENDPOINT_BYTES + 1];
    strcpy(current, l->endpoints[l->at]);
    l->n_endpoints = l->n_configured;
    for (unsigned i = 0; i < r->n_peers; i++)
        for (unsigned j = 0; j < r->peers[i].n_endpoints; j++)
            add_endpoint(l, r->peers[i].endpoints[j]);
    add_endpoint(l, span_of(current));
    l->at = 0;
    while (l->at + 1 < l->n_endpoints && strcmp(l->endpoints[l->at], current) != 0)
        l->at++;
}

/* A Unix socket of another host is not worth a second of waiting. */
static bool is_hopeless(const char *endpoint)
{
    return strncmp(endpoint, "ipc:///", 7) == 0 && access(endpoint + 6, F_OK) != 0;
}

static void next_endpoint(struct link *l)
{
    for (unsigned i = 0; i < l->n_endpoints; i++) {
        l->at = (l->at + 1) % l->n_endpoints;
        if (!is_hopeless(l->endpoints[l->at]))
            return;
    }
}

/* At once after a connection was lost; then longer each time, and not all agents in step. */
static uint64_t wait_ms(struct link *l)
{
    unsigned doubled = l->attempts > 0 ? l->attempts - 1 : 0;
    uint64_t wait = doubled < 6 ? (uint64_t)FIRST_WAIT_MS << doubled : LONGEST_WAIT_MS;
    if (wait > LONGEST_WAIT_MS)
        wait = LONGEST_WAIT_MS;
    return l->attempts++ == 0 ? 0 : wait - (uint64_t)rand_r(&l->seed) % (wait / 2);
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
        zmq_connect(l->socket, l->endpoints[l->at]) == 0 &&
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
    if (said) {
        l->said_ms = now_ms;
        l->sent += b.size;
    }
    msgpack_sbuffer_destroy(&b);
    return said;
}

static void say_credit(struct link *l, uint64_t now_ms)
{
    agent_init(&l->out, AGENT_CREDIT);
    l->out.credit = l->received + l->o.window;
    if (say(l, now_ms))
        l->given = l->out.credit;
}

static void say_bye(struct link *l, const char *code, const char *text, uint64_t now_ms)
{
    agent_init(&l->out, AGENT_BYE);
    l->out.code = span_of(code);
    l->out.text = span_of(text);
    say(l, now_ms);
}

static void say_hello(struct link *l, uint64_t now_ms)
{
    agent_init(&l->out, AGENT_HELLO);
    l->out.version = AGENT_VERSION;
    l->out.name = span_of(l->name);
    l->out.instance = span_of(l->instance);
    l->out.credit = l->given = l->o.window;
    agent_with(&l->out, AGENT_F_ABOUT)->about = span_of(l->about);
    say(l, now_ms);
    l->sent = l->received = l->credit = 0;
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
        l->attempts = 0;
        /* Not all agents of a dead node go to the same peer. */
        l->at = (l->at + (unsigned)rand_r(&l->seed) % l->n_endpoints) % l->n_endpoints;
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
    l->attempts = 0;
    l->credit = r->credit;
    memcpy(l->node, r->node.p, r->node.n);
    l->node[r->node.n] = 0;
    l->heartbeat_ms = r->heartbeat_ms > 0 ? r->heartbeat_ms : HEARTBEAT_MS;
    l->timeout_ms = r->timeout_ms > 0 ? r->timeout_ms : TIMEOUT_MS;
    set_peers(l, r);
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
        if (r->credit > l->credit)
            l->credit = r->credit;
    } else if (good && r->kind == AGENT_NODE) {
        if (agent_has(r, AGENT_F_PEERS))
            set_peers(l, r);
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
    l->heard_ms = now_ms;
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
        l->received += (uint64_t)n;
    return 1;
}

static void keep_time(struct link *l, uint64_t now_ms)
{
    if (l->state == LINK_WAITING && now_ms >= l->due_ms)
        try_next(l, now_ms);
    else if (l->state == LINK_GREETING && now_ms >= l->due_ms)
        go_down(l, "silent", "no WELCOME in time", now_ms);
    else if (l->state == LINK_OPEN && now_ms >= l->heard_ms + l->timeout_ms)
        go_down(l, "silent", agent_code_text(AGENT_E_SILENT), now_ms);
    else if (l->state == LINK_OPEN && (now_ms >= l->said_ms + l->heartbeat_ms ||
                                       l->received + l->o.window >= l->given + l->o.window / 2))
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
    if (l->state != LINK_OPEN)
        return l->due_ms;
    uint64_t silent_ms = l->heard_ms + l->timeout_ms, beat_ms = l->said_ms + l->heartbeat_ms;
    return silent_ms < beat_ms ? silent_ms : beat_ms;
}

bool link_has_credit(const struct link *l)
{
    return l->state == LINK_OPEN && l->sent < l->credit;
}

bool link_send(struct link *l, const void *bytes, size_t n, uint64_t now_ms)
{
    assert(l->state == LINK_OPEN);
    if (zmq_send(l->socket, bytes, n, ZMQ_DONTWAIT) < 0)
        return false;
    l->sent += n;
    l->said_ms = now_ms;
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
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes) ||
        getrandom(&l->seed, sizeof(l->seed), 0) != (ssize_t)sizeof(l->seed))
        return false;
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
    l->heartbeat_ms = HEARTBEAT_MS;
    l->timeout_ms = TIMEOUT_MS;
    snprintf(l->name, sizeof(l->name), "%s", o->name);
    snprintf(l->about, sizeof(l->about), "%s", o->about ? o->about : "");
    add_list(l, o->endpoints);
    l->n_configured = l->n_endpoints;
    l->at = l->n_endpoints > 0 ? l->n_endpoints - 1 : 0; /* the next is the first */
    l->context = l->n_endpoints > 0 ? zmq_ctx_new() : NULL;
    if (l->context && draw(l) && grow(l, AGENT_BATCH_BYTES))
        return l;
    int err = l->n_endpoints > 0 ? errno : EINVAL;
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
        say_bye(l, agent_code(AGENT_E_ENDED), agent_code_text(AGENT_E_ENDED), l->said_ms);
    close_socket(l, l->state == LINK_OPEN ? LINGER_MS : 0);
    if (l->context)
        zmq_ctx_term(l->context);
    free(l->buffer);
    free(l);
    *link = NULL;
}
