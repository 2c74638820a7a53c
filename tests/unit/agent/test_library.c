/* libstarling against gateways that the test plays itself: two ROUTER sockets in this thread. */
#include "agent.h"
#include "starling.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

/* libzmq is not built for TSan, which then does not see how its threads wait for each other. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:libzmq.so\ncalled_from_lib:libzmq.so\n";
}

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A node: what has come to it, record by record, and who sent it last. */
struct node {
    void *socket;
    char endpoint[80], identity[256];
    int identity_n;
    struct got {
        struct got *next;
        char *bytes;
        size_t n;
        size_t message; /* bytes of the message that it came in */
    } * got, **end;
};

static void *context;
static char folder[] = "/tmp/test-library-XXXXXX";
static struct node a, b;
static struct starling *agent;
static struct agent_record in, out;
static char *in_bytes; /* that `in` points into */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* How long a test waits for what must happen. */
static uint64_t patience(void)
{
    const char *text = getenv("STARLING_PATIENCE_MS");
    return now_ms() + (text ? strtoull(text, NULL, 10) : 20000);
}

/* ---- nodes ---- */

static void node_open(struct node *n, const char *name)
{
    memset(n, 0, sizeof(*n));
    n->end = &n->got;
    snprintf(n->endpoint, sizeof(n->endpoint), "ipc://%s/%s", folder, name);
    n->socket = zmq_socket(context, ZMQ_ROUTER);
    int linger = 0;
    zmq_setsockopt(n->socket, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_bind(n->socket, n->endpoint), 0);
}

static void node_forget(struct node *n)
{
    while (n->got) {
        struct got *g = n->got;
        n->got = g->next;
        free(g->bytes);
        free(g);
    }
    n->end = &n->got;
}

static void node_close(struct node *n)
{
    if (n->socket) {
        zmq_close(n->socket);
        unlink(n->endpoint + strlen("ipc://"));
    }
    n->socket = NULL;
    node_forget(n);
}

static void keep_records(struct node *n, const char *bytes, size_t size)
{
    static struct agent_record record;
    struct agent_reader reader = agent_open((struct span){bytes, size});
    int result;
    while ((result = agent_read(&reader, &record)) != 0) {
        assert_int_equal(result, 1);
        assert_true(agent_from_agent(record.kind));
        if (record.kind == AGENT_CREDIT)
            continue;
        struct got *g = calloc(1, sizeof(*g));
        g->bytes = malloc(record.raw.n);
        memcpy(g->bytes, record.raw.p, record.raw.n);
        g->n = record.raw.n;
        g->message = size;
        *n->end = g;
        n->end = &g->next;
    }
}

static void node_receive(struct node *n)
{
    while (n->socket) {
        int size = zmq_recv(n->socket, n->identity, sizeof(n->identity), ZMQ_DONTWAIT);
        if (size < 0)
            return;
        n->identity_n = size;
        zmq_msg_t message;
        zmq_msg_init(&message);
        assert_true(zmq_msg_recv(&message, n->socket, 0) >= 0);
        assert_false(zmq_msg_more(&message));
        keep_records(n, zmq_msg_data(&message), zmq_msg_size(&message));
        zmq_msg_close(&message);
    }
}

static void node_send_bytes(struct node *n, const void *bytes, size_t size)
{
    assert_int_equal(zmq_send(n->socket, n->identity, (size_t)n->identity_n, ZMQ_SNDMORE), n->identity_n);
    assert_int_equal(zmq_send(n->socket, bytes, size, 0), size);
}

/* Sends `out`. */
static void node_send(struct node *n)
{
    msgpack_sbuffer buffer;
    msgpack_sbuffer_init(&buffer);
    assert_int_equal(agent_write(&buffer, &out), 0);
    node_send_bytes(n, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
}

/* ---- waiting ---- */

static void turn(void)
{
    struct pollfd p = {.fd = starling_fd(agent), .events = POLLIN};
    int wait = starling_timeout_ms(agent);
    poll(&p, 1, wait < 2 ? wait : 2);
    starling_dispatch(agent);
    node_receive(&a);
    node_receive(&b);
}

#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        for (uint64_t end = patience(); !(condition);) {                                                     \
            turn();                                                                                          \
            if (now_ms() > end)                                                                              \
                fail_msg("still waiting for %s", #condition);                                                \
        }                                                                                                    \
    } while (0)

/* The next record that came to the node, into `in`. Returns the size of its message. */
static size_t take(struct node *n)
{
    WAIT_FOR(n->got);
    struct got *g = n->got;
    n->got = g->next;
    if (!n->got)
        n->end = &n->got;
    free(in_bytes);
    in_bytes = g->bytes;
    struct agent_reader reader = agent_open((struct span){g->bytes, g->n});
    assert_int_equal(agent_read(&reader, &in), 1);
    size_t message = g->message;
    free(g);
    return message;
}

static size_t expect(struct node *n, enum agent_kind kind)
{
    size_t message = take(n);
    assert_int_equal(in.kind, kind);
    return message;
}

static bool is(struct span text, const char *expected)
{
    return span_eq(text, span_of(expected));
}

/* ---- what callbacks were told ---- */

static char told[8192];
static struct starling_ref last_ref;

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *format, ...)
{
    va_list list;
    size_t n = strlen(told);
    va_start(list, format);
    vsnprintf(told + n, sizeof(told) - n, format, list);
    va_end(list);
    strncat(told, "\n", sizeof(told) - strlen(told) - 1);
}

#define EXPECT_TOLD(expected)                                                                                \
    do {                                                                                                     \
        WAIT_FOR(strlen(told) >= strlen(expected));                                                          \
        assert_string_equal(told, expected);                                                                 \
        told[0] = 0;                                                                                         \
    } while (0)

static void on_state(void *user, enum starling_state state, const char *node, const char *code,
                     const char *text)
{
    static const char *const names[] = {"connected", "lost", "draining"};
    (void)user;
    (void)text;
    tell("%s %s %s", names[state], state == STARLING_CONNECTED ? node : "-", code);
}

static void on_error(void *user, const char *code, const char *text)
{
    (void)user;
    (void)text;
    tell("error %s", code);
}

static void on_done(void *user, const struct starling_answer *answer)
{
    tell("%s: %s %s %s", (const char *)user, answer->code ? answer->code : "ok", answer->emit, answer->body);
}

static const struct starling_then then_done = {on_done, "done"};

/* ---- set-up ---- */

static void start_with(uint64_t queue_bytes)
{
    char endpoints[200];
    snprintf(endpoints, sizeof(endpoints), "%s,ipc://%s/nobody", a.endpoint, folder);
    struct starling_options o = {.name = "test",
                                 .endpoints = endpoints,
                                 .about = "a test",
                                 .queue_bytes = queue_bytes,
                                 .on_state = on_state,
                                 .on_error = on_error};
    agent = starling_new(&o);
    assert_non_null(agent);
}

static void send_welcome(struct node *n, const char *name, uint64_t credit, uint64_t timeout_ms)
{
    agent_init(&out, AGENT_WELCOME);
    out.version = 1;
    out.node = span_of(name);
    out.credit = credit;
    agent_with(&out, AGENT_F_HEARTBEAT_MS)->heartbeat_ms = 20;
    agent_with(&out, AGENT_F_TIMEOUT_MS)->timeout_ms = timeout_ms;
    agent_with(&out, AGENT_F_PEERS)->n_peers = 1;
    out.peers[0] = (struct agent_peer){SPAN("n1"), 2, {SPAN("ipc:///nowhere/at/all"), span_of(b.endpoint)}};
    node_send(n);
}

enum { LONG_MS = 60000 };

static void welcome(struct node *n, const char *name, uint64_t credit, uint64_t timeout_ms)
{
    char expected[80];
    expect(n, AGENT_HELLO);
    send_welcome(n, name, credit, timeout_ms);
    snprintf(expected, sizeof(expected), "connected %s \n", name);
    EXPECT_TOLD(expected);
}

static void start(void)
{
    start_with(0);
    welcome(&a, "n0", 1 << 20, LONG_MS);
}

static int set_up(void **state)
{
    (void)state;
    node_open(&a, "a");
    node_open(&b, "b");
    told[0] = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    starling_free(&agent);
    node_close(&a);
    node_close(&b);
    return 0;
}

/* ---- answers that the node gives ---- */

static struct agent_record *begin(enum agent_kind kind, uint64_t id)
{
    agent_init(&out, kind);
    out.id = out.reg = id;
    out.nsp = SPAN("/");
    out.sid = SPAN("sid");
    out.event = SPAN("hi");
    out.args = SPAN("1,2");
    out.body = SPAN("\"b\"");
    return &out;
}

static void send_ok(struct node *n, uint64_t id)
{
    begin(AGENT_OK, id);
    node_send(n);
}

static void send_error(struct node *n, uint64_t id, const char *code)
{
    begin(AGENT_ERROR, id)->code = span_of(code);
    node_send(n);
}

static int emit(const char *event, const struct starling_then *then)
{
    struct starling_emit e = {.event = event, .args = "[1]"};
    return starling_emit(agent, &e, then);
}

/* ---- tests ---- */

static void test_hello(void **state)
{
    (void)state;
    start_with(0);
    size_t n = expect(&a, AGENT_HELLO);
    assert_true(in.version == 1 && is(in.name, "test") && is(in.about, "a test") && in.instance.n == 32);
    assert_true(in.credit == 1 << 20 && n == in.raw.n);
    assert_int_equal(starling_connect(agent, 0), STARLING_TIMEOUT);
    send_welcome(&a, "n0", 1000, LONG_MS);
    assert_int_equal(starling_connect(agent, 20000), STARLING_OK);
    EXPECT_TOLD("connected n0 \n");
    starling_free(&agent);
    assert_null(agent);
    for (uint64_t end = patience(); !a.got && now_ms() < end;)
        node_receive(&a);
    struct agent_reader reader = agent_open((struct span){a.got->bytes, a.got->n});
    assert_int_equal(agent_read(&reader, &in), 1);
    assert_true(in.kind == AGENT_BYE && is(in.code, "ended"));
}

static void test_options(void **state)
{
    (void)state;
    struct starling_options o = {.name = "x"};
    assert_null(starling_new(&o));
    o.endpoints = "tcp://127.0.0.1:9";
    o.name = "";
    assert_null(starling_new(&o));
    o.name = "a name that is much longer than the sixty-four bytes which names may have";
    assert_null(starling_new(&o));
    starling_free(&agent);
    assert_string_equal(starling_strerror(STARLING_FULL), "too much waits to be sent or answered");
    assert_string_equal(starling_strerror(-99), "unknown error");
}

static void test_refused_hello(void **state)
{
    (void)state;
    start_with(0);
    expect(&a, AGENT_HELLO);
    begin(AGENT_ERROR, 0)->code = SPAN("unavailable");
    node_send(&a);
    EXPECT_TOLD("lost - unavailable\n");
    welcome(&a, "n0", 1000, LONG_MS);
}

static void test_emit_forgotten(void **state)
{
    (void)state;
    start();
    static const char *const to[] = {"r", "s", NULL}, *const except[] = {"x", NULL};
    const struct starling_bytes attachment = {"abc", 3};
    struct starling_emit e = {.nsp = "/chat",
                              .rooms = to,
                              .except = except,
                              .event = "hi",
                              .args = " [{\"_placeholder\":true,\"num\":0}] ",
                              .attachments = &attachment,
                              .n_attachments = 1,
                              .is_volatile = true};
    assert_int_equal(starling_emit(agent, &e, NULL), STARLING_OK);
    assert_int_equal(emit("two", NULL), STARLING_OK);
    size_t first = expect(&a, AGENT_EMIT);
    assert_true(in.id == 0 && is(in.nsp, "/chat") && in.n_to == 2 && is(in.to[1], "s") && is(in.event, "hi"));
    assert_true(in.n_except == 1 && is(in.except[0], "x") && in.is_volatile && !agent_has(&in, AGENT_F_KEY));
    assert_true(in.n_attachments == 1 && is(in.attachments[0], "abc"));
    assert_true(is(in.args_array, "[{\"_placeholder\":true,\"num\":0}]"));
    size_t second = expect(&a, AGENT_EMIT);
    assert_true(is(in.event, "two") && in.n_to == 0 && is(in.nsp, "/") && is(in.args, "1"));
    assert_int_equal(first, second); /* one message */
}

static void test_emit_answered(void **state)
{
    (void)state;
    start();
    assert_int_equal(emit("hi", &then_done), STARLING_OK);
    expect(&a, AGENT_EMIT);
    assert_true(in.id != 0 && agent_has(&in, AGENT_F_KEY));
    begin(AGENT_OK, in.id)->emit = SPAN("n0-1:5");
    agent_with(&out, AGENT_F_EMIT_ID);
    node_send(&a);
    EXPECT_TOLD("done: ok n0-1:5 \n");
    struct starling_emit e = {.event = "hi", .key = "mine", .confirm = STARLING_CONFIRM_MESH};
    assert_int_equal(starling_emit(agent, &e, &then_done), STARLING_OK);
    expect(&a, AGENT_EMIT);
    assert_true(is(in.key, "mine") && in.confirm == AGENT_CONFIRM_MESH);
    begin(AGENT_ERROR, in.id)->code = SPAN("unconfirmed");
    agent_with(&out, AGENT_F_EMIT_ID)->emit = SPAN("n0-1:6");
    node_send(&a);
    EXPECT_TOLD("done: unconfirmed n0-1:6 \n");
    assert_int_equal(starling_flush(agent, 0), STARLING_OK);
}

static void on_ack(void *user, const char *sid, const char *args, const struct starling_bytes *attachments,
                   size_t n)
{
    tell("%s %s %s %zu %.*s", (const char *)user, sid, args, n, n ? (int)attachments[0].n : 0,
         n ? (const char *)attachments[0].data : "");
}

static void test_acknowledgements(void **state)
{
    (void)state;
    start();
    struct starling_emit e = {.event = "hi", .ack_ms = 500, .on_ack = on_ack, .ack_user = "ack"};
    assert_int_equal(starling_emit(agent, &e, &then_done), STARLING_OK);
    expect(&a, AGENT_EMIT);
    assert_int_equal(in.ack_ms, 500);
    begin(AGENT_ANSWER, in.id)->n_attachments = 1;
    agent_with(&out, AGENT_F_ATTACHMENTS)->attachments[0] = SPAN("xy");
    node_send(&a);
    send_ok(&a, in.id);
    EXPECT_TOLD("ack sid [1,2] 1 xy\ndone: ok  \n");
    /* It is over: what comes now is nobody's. */
    begin(AGENT_ANSWER, in.id);
    node_send(&a);
    assert_int_equal(emit("end", &then_done), STARLING_OK);
    expect(&a, AGENT_EMIT);
    send_ok(&a, in.id);
    EXPECT_TOLD("done: ok  \n");
}

static void test_wrong_arguments(void **state)
{
    (void)state;
    start();
    static const char *const nobody[] = {NULL}, *const empty[] = {"", NULL};
    static const struct starling_emit wrong[] = {
        {.event = NULL},
        {.event = "hi", .args = "{}"},
        {.event = "hi", .args = "[1,]"},
        {.event = "hi", .rooms = nobody},
        {.event = "hi", .rooms = empty},
        {.event = "bus:x"},
        {.event = "connect"},
        {.event = "\xff"},
        {.event = "hi", .nsp = "chat"},
        {.event = "hi", .key = "0123456789012345678901234567890123456789012345678901234567890123456789"},
        {.event = "hi", .confirm = (enum starling_confirm)3},
    };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(starling_emit(agent, &wrong[i], NULL), STARLING_ARGUMENT);
        assert_int_equal(starling_emit(agent, &wrong[i], STARLING_WAITED), STARLING_ARGUMENT);
        assert_int_equal(starling_wait(agent, 0, NULL), STARLING_ARGUMENT);
    }
    assert_int_equal(starling_join(agent, "/", NULL, nobody, NULL), STARLING_ARGUMENT);
    assert_int_equal(starling_ask(agent, "bus:x", (struct starling_bytes){"", 0}, true, 0, NULL),
                     STARLING_OK);
    struct starling_subscribe s = {0};
    assert_true(starling_subscribe(agent, &s) == STARLING_ARGUMENT);
    struct starling_handle h = {0};
    assert_true(starling_handle(agent, &h) == STARLING_ARGUMENT);
    struct starling_actor actor = {0};
    assert_true(starling_register(agent, &actor) == STARLING_ARGUMENT);
    assert_int_equal(starling_undo(agent, 99), STARLING_ARGUMENT);
    assert_int_equal(starling_wait(agent, 0, NULL), STARLING_ARGUMENT); /* for what? */
}

static void test_credit(void **state)
{
    (void)state;
    start_with(4000);
    welcome(&a, "n0", 5, LONG_MS);
    assert_int_equal(emit("one", NULL), STARLING_OK);
    expect(&a, AGENT_EMIT); /* may go beyond the credit */
    starling_dispatch(agent);
    assert_int_equal(emit("two", NULL), STARLING_OK);
    for (unsigned i = 0; i < 20; i++)
        turn();
    assert_null(a.got);
    int err = STARLING_OK;
    for (unsigned i = 0; i < 1000 && err == STARLING_OK; i++)
        err = emit("more", NULL);
    assert_int_equal(err, STARLING_FULL);
    assert_int_equal(starling_flush(agent, 10), STARLING_TIMEOUT);
    begin(AGENT_CREDIT, 0)->credit = 1 << 20;
    node_send(&a);
    expect(&a, AGENT_EMIT);
    assert_true(is(in.event, "two"));
    assert_int_equal(starling_flush(agent, 20000), STARLING_OK);
    assert_int_equal(emit("more", NULL), STARLING_OK);
}

static void on_call(void *user, const struct starling_call *c)
{
    last_ref = c->ref;
    tell("%s %s %s %s %s %s %d %u", (const char *)user, c->nsp, c->sid, c->user, c->event, c->args, c->ack,
         c->deadline_ms);
    if (strcmp(c->event, "echo") == 0)
        assert_int_equal(starling_reply(agent, c->ref, c->args, c->attachments, c->n_attachments),
                         STARLING_OK);
    if (strcmp(c->event, "wait") == 0)
        assert_int_equal(starling_connect(agent, 10), STARLING_INSIDE);
}

static uint64_t handle(struct node *n)
{
    static const char *const events[] = {"hi", "chat.>", NULL}, *const namespaces[] = {"*", NULL};
    struct starling_handle o = {.namespaces = namespaces,
                                .events = events,
                                .group = "g",
                                .by_session = true,
                                .deadline_ms = 100,
                                .limit = 2,
                                .user = "call",
                                .on_call = on_call,
                                .on_made = on_done};
    int64_t id = starling_handle(agent, &o);
    assert_true(id > 0);
    expect(n, AGENT_HANDLE);
    assert_true((int64_t)in.id == id && is(in.group, "g") && in.sticky && in.deadline_ms == 100 &&
                in.limit == 2);
    assert_true(in.n_events == 2 && is(in.events[1], "chat.>") && is(in.namespaces[0], "*") && in.life == 0);
    send_ok(n, in.id);
    EXPECT_TOLD("call: ok  \n");
    return (uint64_t)id;
}

static struct agent_record *begin_call(uint64_t id, uint64_t reg, const char *event)
{
    begin(AGENT_CALL, id)->reg = reg;
    out.event = span_of(event);
    agent_with(&out, AGENT_F_ACK)->ack = true;
    agent_with(&out, AGENT_F_DEADLINE_MS)->deadline_ms = 100;
    return &out;
}

static void test_calls(void **state)
{
    (void)state;
    start();
    uint64_t reg = handle(&a);
    msgpack_sbuffer two;
    msgpack_sbuffer_init(&two);
    begin_call(50, reg, "echo")->n_attachments = 1;
    agent_with(&out, AGENT_F_ATTACHMENTS)->attachments[0] = SPAN("xyz");
    assert_int_equal(agent_write(&two, &out), 0);
    begin_call(51, reg, "other")->args.n = 0;
    agent_with(&out, AGENT_F_USER)->user = SPAN("u");
    assert_int_equal(agent_write(&two, &out), 0);
    node_send_bytes(&a, two.data, two.size);
    msgpack_sbuffer_destroy(&two);
    EXPECT_TOLD("call / sid  echo [1,2] 1 100\ncall / sid u other [] 1 100\n");
    expect(&a, AGENT_OK);
    assert_true(in.id == 50 && is(in.args, "1,2") && in.n_attachments == 1 && is(in.attachments[0], "xyz"));
    assert_int_equal(starling_fail(agent, last_ref, "no", "not today", "{\"a\":1}"), STARLING_OK);
    expect(&a, AGENT_ERROR);
    assert_true(in.id == 51 && is(in.code, "no") && is(in.text, "not today") && is(in.data, "{\"a\":1}"));
    assert_int_equal(starling_reply(agent, last_ref, "{}", NULL, 0), STARLING_ARGUMENT);
    begin_call(52, reg, "wait");
    node_send(&a);
    EXPECT_TOLD("call / sid  wait [1,2] 1 100\n");
    /* Undone: calls on their way are refused. */
    assert_int_equal(starling_undo(agent, (int64_t)reg), STARLING_OK);
    expect(&a, AGENT_UNDO);
    assert_int_equal(in.reg, reg);
    begin_call(53, reg, "echo");
    node_send(&a);
    expect(&a, AGENT_ERROR);
    assert_true(in.id == 53 && is(in.code, "not_found"));
}

/* Answers need no credit. */
static void test_answers_without_credit(void **state)
{
    (void)state;
    start_with(0);
    welcome(&a, "n0", 150, LONG_MS);
    uint64_t reg = handle(&a);
    static char large[300];
    memset(large, ' ', sizeof(large) - 1);
    struct starling_emit e = {
        .event = "fill",
        .args = "[\"0123456789012345678901234567890123456789012345678901234567890123456789\"]"};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(starling_emit(agent, &e, NULL), STARLING_OK);
    expect(&a, AGENT_EMIT);
    for (unsigned i = 0; i < 3; i++)
        expect(&a, AGENT_EMIT);
    assert_int_equal(emit("held", NULL), STARLING_OK);
    begin_call(50, reg, "echo");
    node_send(&a);
    expect(&a, AGENT_OK);
    assert_int_equal(in.id, 50);
    assert_null(a.got);
    begin(AGENT_CREDIT, 0)->credit = 1 << 20;
    node_send(&a);
    expect(&a, AGENT_EMIT);
    assert_true(is(in.event, "held"));
}

static void on_client(void *user, const struct starling_client *c)
{
    last_ref = c->ref;
    tell("%s %s %s %s %s %s %s %s", (const char *)user, c->nsp, c->sid, c->user, c->auth, c->remote,
         c->reason, c->n_rooms > 0 ? c->rooms[0] : "-");
}

static void on_cancel(void *user, struct starling_ref ref)
{
    tell("%s cancelled %llu", (const char *)user, (unsigned long long)ref.id);
    if (strcmp(user, "first") == 0)
        assert_int_equal(starling_undo(agent, (int64_t)(ref.id - 100)), STARLING_OK);
}

static void test_cancel(void **state)
{
    (void)state;
    start();
    static const char *const events[] = {">", NULL};
    struct starling_handle o = {
        .events = events, .user = "first", .on_call = on_call, .on_cancel = on_cancel};
    assert_true(starling_handle(agent, &o) > 0);
    o.user = "second";
    int64_t second = starling_handle(agent, &o);
    struct starling_actor actor = {.address = "x", .user = "third", .on_cancel = on_cancel};
    assert_true(starling_register(agent, &actor) > 0);
    WAIT_FOR(a.got && a.got->next && a.got->next->next);
    begin(AGENT_CANCEL, (uint64_t)second + 100); /* the first ends the second */
    node_send(&a);
    EXPECT_TOLD("first cancelled 102\nthird cancelled 102\n");
    assert_int_equal(starling_undo(agent, second), STARLING_ARGUMENT);
}

static void test_life(void **state)
{
    (void)state;
    start();
    struct starling_handle o = {.user = "client",
                                .on_connect = on_client,
                                .on_disconnect = on_client,
                                .on_join = on_client,
                                .on_leave = on_client};
    int64_t id = starling_handle(agent, &o);
    expect(&a, AGENT_HANDLE);
    assert_true(in.life == 15 && in.n_events == 0);
    begin(AGENT_CONNECT, 60)->reg = (uint64_t)id;
    out.auth = SPAN("{\"t\":1}");
    agent_with(&out, AGENT_F_REMOTE)->remote = SPAN("::1");
    node_send(&a);
    EXPECT_TOLD("client / sid  {\"t\":1} ::1  -\n");
    static const char *const lobby[] = {"lobby", NULL};
    assert_int_equal(starling_accept(agent, last_ref, "\"ann\"", "{}", lobby), STARLING_OK);
    expect(&a, AGENT_OK);
    assert_true(in.id == 60 && is(in.user, "\"ann\"") && is(in.data, "{}") && in.n_rooms == 1 &&
                is(in.rooms[0], "lobby"));
    begin(AGENT_JOINED, (uint64_t)id)->n_rooms = 1;
    out.rooms[0] = SPAN("r");
    agent_with(&out, AGENT_F_USER)->user = SPAN("ann");
    node_send(&a);
    EXPECT_TOLD("client / sid ann    r\n");
    begin(AGENT_DISCONNECTED, (uint64_t)id)->reason = SPAN("ping timeout");
    node_send(&a);
    EXPECT_TOLD("client / sid    ping timeout -\n");
}

static void on_event(void *user, const struct starling_event *e)
{
    tell("%s %s %s %s %s %s %s %d %d", (const char *)user, e->nsp, e->n_rooms > 0 ? e->rooms[0] : "-",
         e->event, e->args, e->emit, e->offset, e->is_volatile, e->replayed);
}

static void on_lost(void *user, uint64_t count)
{
    tell("%s lost %llu", (const char *)user, (unsigned long long)count);
}

static void test_subscription_goes_on_elsewhere(void **state)
{
    (void)state;
    start_with(0);
    static const char *const events[] = {"orders.>", NULL};
    struct starling_subscribe o = {.events = events, .user = "sub", .on_event = on_event, .on_lost = on_lost};
    int64_t id = starling_subscribe(agent, &o); /* before there is a connection */
    assert_true(id > 0);
    welcome(&a, "n0", 1 << 20, 150);
    expect(&a, AGENT_SUBSCRIBE);
    assert_true((int64_t)in.id == id && !agent_has(&in, AGENT_F_FROM) && is(in.events[0], "orders.>"));
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_OFFSET)->offset = SPAN("~1A");
    node_send(&a);
    begin(AGENT_EVENT, (uint64_t)id)->n_to = 1;
    out.to[0] = SPAN("room");
    agent_with(&out, AGENT_F_EMIT_ID)->emit = SPAN("n0-1:7");
    agent_with(&out, AGENT_F_OFFSET)->offset = SPAN("~1LONGER");
    node_send(&a);
    begin(AGENT_LOST, (uint64_t)id)->count = 3;
    node_send(&a);
    EXPECT_TOLD("sub / room hi [1,2] n0-1:7 ~1LONGER 0 0\nsub lost 3\n");
    node_close(&a);
    EXPECT_TOLD("lost - silent\n");
    welcome(&b, "n1", 1 << 20, LONG_MS);
    expect(&b, AGENT_SUBSCRIBE);
    assert_true((int64_t)in.id == id && is(in.from, "~1LONGER") && is(in.events[0], "orders.>"));
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_RECOVERED)->recovered = true;
    agent_with(&out, AGENT_F_OFFSET)->offset = SPAN("~1LONGER");
    node_send(&b);
    begin(AGENT_EVENT, (uint64_t)id)->n_to = 0;
    agent_with(&out, AGENT_F_REPLAYED)->replayed = true;
    node_send(&b);
    EXPECT_TOLD("sub / - hi [1,2]   0 1\n");
    /* Ended by the node; and this time nothing can be caught up. */
    begin(AGENT_BYE, 0)->code = SPAN("slow");
    node_send(&b);
    EXPECT_TOLD("lost - slow\n");
    welcome(&b, "n1", 1 << 20, LONG_MS);
    expect(&b, AGENT_SUBSCRIBE);
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_RECOVERED)->recovered = false;
    agent_with(&out, AGENT_F_OFFSET)->offset = SPAN("~1NEW");
    node_send(&b);
    EXPECT_TOLD("sub lost 0\n");
}

static void test_requests_survive_their_node(void **state)
{
    (void)state;
    start_with(0);
    expect(&a, AGENT_HELLO);
    char instance[33];
    snprintf(instance, sizeof(instance), "%.*s", (int)in.instance.n, in.instance.p);
    send_welcome(&a, "n0", 1 << 20, 150);
    EXPECT_TOLD("connected n0 \n");
    uint64_t reg = handle(&a);
    begin_call(50, reg, "late");
    node_send(&a);
    EXPECT_TOLD("call / sid  late [1,2] 1 100\n");
    struct starling_ref old = last_ref;
    struct starling_emit keyed = {.event = "keyed", .key = "k"};
    assert_int_equal(starling_emit(agent, &keyed, &then_done), STARLING_OK);
    assert_int_equal(emit("second", &then_done), STARLING_OK);
    struct starling_bytes body = {"1", 1};
    static const struct starling_then ask = {on_done, "ask"};
    assert_int_equal(starling_ask(agent, "x", body, false, LONG_MS, &ask), STARLING_OK);
    expect(&a, AGENT_EMIT);
    expect(&a, AGENT_EMIT);
    expect(&a, AGENT_ASK);
    node_close(&a);
    EXPECT_TOLD("ask: lost  \nlost - silent\n");
    assert_int_equal(emit("third", &then_done), STARLING_OK);
    expect(&b, AGENT_HELLO);
    assert_true(is(in.instance, instance));
    send_welcome(&b, "n1", 1 << 20, LONG_MS);
    expect(&b, AGENT_HANDLE);
    assert_int_equal(in.id, reg);
    expect(&b, AGENT_EMIT);
    assert_true(is(in.key, "k") && is(in.event, "keyed") && in.again);
    send_ok(&b, in.id);
    expect(&b, AGENT_EMIT);
    assert_true(is(in.event, "second") && in.again);
    expect(&b, AGENT_EMIT);
    assert_true(is(in.event, "third") && !in.again);
    EXPECT_TOLD("connected n1 \ndone: ok  \n");
    assert_int_equal(starling_reply(agent, old, "[]", NULL, 0), STARLING_STALE);
}

static void test_unknown_connection(void **state)
{
    (void)state;
    start();
    send_error(&a, 0, "hello");
    WAIT_FOR(a.got || b.got);
    struct node *next = a.got ? &a : &b;
    expect(next, AGENT_HELLO);
    assert_memory_equal(told, "lost - hello", 12);
}

static void test_wait(void **state)
{
    (void)state;
    start();
    const struct starling_answer *answer;
    struct starling_bytes body = {"null", 4};
    assert_int_equal(starling_ask(agent, "clock", body, false, 500, STARLING_WAITED), STARLING_OK);
    expect(&a, AGENT_ASK);
    assert_true(is(in.address, "clock") && is(in.body, "null") && !in.body_is_bin && in.deadline_ms == 500);
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_ANSWER_BODY);
    node_send(&a);
    assert_int_equal(starling_wait(agent, 20000, &answer), STARLING_OK);
    assert_true(answer->body_n == 3 && !answer->code);
    assert_string_equal(answer->body, "\"b\"");
    assert_int_equal(starling_tell(agent, "clock", body, true, STARLING_WAITED), STARLING_OK);
    expect(&a, AGENT_TELL);
    assert_true(in.body_is_bin);
    send_error(&a, in.id, "nobody");
    assert_int_equal(starling_wait(agent, 20000, &answer), STARLING_REFUSED);
    assert_string_equal(answer->code, "nobody");
    assert_int_equal(starling_tell(agent, "clock", body, true, STARLING_WAITED), STARLING_OK);
    assert_int_equal(starling_wait(agent, 5, &answer), STARLING_TIMEOUT);
    assert_null(answer);
    expect(&a, AGENT_TELL);
    send_ok(&a, in.id); /* too late, and not the answer to what comes next */
    assert_int_equal(starling_set(agent, NULL, NULL, "5", "1", STARLING_WAITED), STARLING_OK);
    expect(&a, AGENT_SET);
    assert_true(is(in.user, "5") && is(in.data, "1") && in.n_to == 0);
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_COUNT)->count = 4;
    node_send(&a);
    assert_int_equal(starling_wait(agent, 20000, &answer), STARLING_OK);
    assert_int_equal(answer->count, 4);
}

static void on_member(void *user, const struct starling_member *m)
{
    tell("%s %s %s %s %s %zu", (const char *)user, m->sid, m->node, m->user, m->data, m->n_rooms);
}

static void test_sessions(void **state)
{
    (void)state;
    start();
    static const char *const who[] = {"w", NULL}, *const rooms[] = {"r", "s", NULL};
    assert_int_equal(starling_join(agent, "/n", who, rooms, &then_done), STARLING_OK);
    expect(&a, AGENT_JOIN);
    assert_true(is(in.nsp, "/n") && in.n_to == 1 && is(in.to[0], "w") && in.n_rooms == 2 &&
                is(in.rooms[1], "s"));
    assert_int_equal(starling_leave(agent, NULL, NULL, rooms, NULL), STARLING_OK);
    expect(&a, AGENT_LEAVE);
    assert_true(in.n_to == 0 && is(in.nsp, "/"));
    assert_int_equal(starling_disconnect(agent, NULL, who, true, NULL), STARLING_OK);
    expect(&a, AGENT_DISCONNECT);
    assert_true(in.close);
    assert_int_equal(starling_members(agent, NULL, who, 10, on_member, "member", &then_done), STARLING_OK);
    expect(&a, AGENT_MEMBERS);
    assert_int_equal(in.limit, 10);
    begin(AGENT_MEMBER, in.id)->node = SPAN("n1");
    agent_with(&out, AGENT_F_USER)->user = SPAN("u");
    agent_with(&out, AGENT_F_DATA)->data = SPAN("{}");
    agent_with(&out, AGENT_F_ROOMS)->n_rooms = 2;
    out.rooms[0] = out.rooms[1] = SPAN("r");
    node_send(&a);
    send_ok(&a, in.id);
    EXPECT_TOLD("member sid n1 u {} 2\ndone: ok  \n");
}

static void on_message(void *user, const struct starling_message *m)
{
    last_ref = m->ref;
    tell("%s %s %s %zu %d %u", (const char *)user, m->from, m->body, m->n, m->is_bin, m->deadline_ms);
}

static void test_actor(void **state)
{
    (void)state;
    start();
    struct starling_actor o = {.address = "jobs",
                               .shared = true,
                               .user = "actor",
                               .on_tell = on_message,
                               .on_ask = on_message,
                               .on_made = on_done};
    int64_t id = starling_register(agent, &o);
    expect(&a, AGENT_REGISTER);
    assert_true((int64_t)in.id == id && is(in.address, "jobs") && in.shared);
    begin(AGENT_TOLD, (uint64_t)id);
    agent_with(&out, AGENT_F_FROM)->from = SPAN("other");
    node_send(&a);
    begin(AGENT_ASKED, 70)->reg = (uint64_t)id;
    out.body_is_bin = true;
    agent_with(&out, AGENT_F_DEADLINE_MS)->deadline_ms = 9;
    node_send(&a);
    EXPECT_TOLD("actor other \"b\" 3 0 0\nactor  \"b\" 3 1 9\n");
    assert_int_equal(starling_reply_body(agent, last_ref, (struct starling_bytes){"\0x", 2}, true),
                     STARLING_OK);
    expect(&a, AGENT_OK);
    assert_true(in.id == 70 && in.body_is_bin && in.body.n == 2);
    /* Another agent had the address first. */
    send_error(&a, (uint64_t)id, "taken");
    EXPECT_TOLD("actor: taken  \n");
    assert_int_equal(starling_undo(agent, id), STARLING_ARGUMENT);
}

static void on_change(void *user, bool alive, const char *reason)
{
    tell("%s %s %s", (const char *)user, alive ? "alive" : "gone", reason);
}

static void test_watch(void **state)
{
    (void)state;
    start();
    int64_t id = starling_watch(agent, "jobs", on_change, "watch");
    expect(&a, AGENT_WATCH);
    begin(AGENT_OK, in.id);
    agent_with(&out, AGENT_F_ALIVE)->alive = true;
    node_send(&a);
    begin(AGENT_GONE, (uint64_t)id)->reason = SPAN("died");
    node_send(&a);
    begin(AGENT_BACK, (uint64_t)id);
    node_send(&a);
    node_send(&a); /* no change */
    begin(AGENT_GONE, (uint64_t)id)->reason = SPAN("node");
    node_send(&a);
    EXPECT_TOLD("watch alive \nwatch gone died\nwatch alive \nwatch gone node\n");
}

static void run_posted(void *user)
{
    tell("posted %s", (const char *)user);
}

static void *other_thread(void *user)
{
    (void)user;
    assert_int_equal(starling_post(agent, run_posted, "one"), STARLING_OK);
    assert_int_equal(starling_post(agent, run_posted, "two"), STARLING_OK);
    starling_stop(agent);
    return NULL;
}

static void test_other_threads(void **state)
{
    (void)state;
    start();
    pthread_t thread;
    assert_int_equal(starling_post(agent, run_posted, "zero"), STARLING_OK);
    EXPECT_TOLD("posted zero\n");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    assert_int_equal(starling_run(agent), STARLING_OK);
    pthread_join(thread, NULL);
    assert_int_equal(starling_dispatch(agent), STARLING_STOPPED);
    assert_int_equal(starling_post(agent, run_posted, "never"), STARLING_OK);
}

static void test_heartbeats(void **state)
{
    (void)state;
    start_with(0);
    expect(&a, AGENT_HELLO);
    send_welcome(&a, "n0", 1 << 20, LONG_MS);
    EXPECT_TOLD("connected n0 \n");
    /* keep_records() drops them: look at the bytes. */
    char frame[64];
    unsigned beats = 0;
    for (uint64_t end = patience(), at = now_ms(); beats < 3 && at < end; at = now_ms()) {
        struct pollfd p = {.fd = starling_fd(agent), .events = POLLIN};
        poll(&p, 1, starling_timeout_ms(agent));
        starling_dispatch(agent);
        int n = zmq_recv(a.socket, frame, sizeof(frame), ZMQ_DONTWAIT);
        if (n < 0)
            continue;
        n = zmq_recv(a.socket, frame, sizeof(frame), 0);
        struct agent_reader reader = agent_open((struct span){frame, (size_t)n});
        assert_int_equal(agent_read(&reader, &in), 1);
        assert_true(in.kind == AGENT_CREDIT && in.credit == 1 << 20);
        beats++;
    }
    assert_int_equal(beats, 3);
}

static void test_nonsense_from_the_node(void **state)
{
    (void)state;
    start();
    node_send_bytes(&a, "\x93\x7f\x09\xc0\xc1", 5); /* an unknown kind with an id, then no msgpack */
    EXPECT_TOLD("error malformed\nerror malformed\n");
    expect(&a, AGENT_ERROR);
    assert_true(in.id == 9 && is(in.code, "unknown_kind"));
    node_send_bytes(&a, "", 0);
    begin(AGENT_EVENT, 999);
    node_send(&a);
    begin(AGENT_OK, 999);
    node_send(&a);
    begin_call(80, 999, "x");
    node_send(&a);
    expect(&a, AGENT_ERROR);
    assert_true(in.id == 80 && is(in.code, "not_found"));
}

/* A node that welcomes and ends it at once is not asked as often as it answers. */
static void test_node_that_does_not_keep_it(void **state)
{
    (void)state;
    enum { ATTEMPTS = 5 };
    node_close(&b); /* whose place in the list is passed over */
    start_with(0);
    uint64_t began = now_ms();
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        welcome(&a, "n0", 1 << 20, LONG_MS);
        begin(AGENT_BYE, 0)->code = SPAN("replaced");
        node_send(&a);
        EXPECT_TOLD("lost - replaced\n");
    }
    /* At once, then 50 + 100 + 200 at least. */
    assert_true(now_ms() - began >= 350);
    /* Times that nobody can mean are none. */
    expect(&a, AGENT_HELLO);
    send_welcome(&a, "n0", 1 << 20, UINT64_MAX);
    EXPECT_TOLD("connected n0 \n");
    for (unsigned i = 0; i < 20; i++)
        turn();
    assert_string_equal(told, "");
}

static void test_draining(void **state)
{
    (void)state;
    start();
    uint64_t reg = handle(&a);
    begin_call(50, reg, "slow");
    node_send(&a);
    EXPECT_TOLD("call / sid  slow [1,2] 1 100\n");
    agent_init(&out, AGENT_NODE);
    agent_with(&out, AGENT_F_DRAINING)->draining = true;
    node_send(&a);
    EXPECT_TOLD("draining - \n");
    assert_int_equal(starling_reply(agent, last_ref, NULL, NULL, 0), STARLING_OK);
    expect(&a, AGENT_OK);
    /* The next connection, to either, may be heard before the last word of this one. */
    unsigned byes = 0, hellos = 0;
    while (byes + hellos < 2) {
        WAIT_FOR(a.got || b.got);
        take(a.got ? &a : &b);
        byes += in.kind == AGENT_BYE;
        hellos += in.kind == AGENT_HELLO;
        assert_true(in.kind == AGENT_BYE || in.kind == AGENT_HELLO);
    }
    assert_true(byes == 1 && hellos == 1);
}

static int make_folder(void **state)
{
    (void)state;
    context = zmq_ctx_new();
    return context && mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    free(in_bytes);
    zmq_ctx_term(context);
    return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hello),
        TEST(test_options),
        TEST(test_refused_hello),
        TEST(test_emit_forgotten),
        TEST(test_emit_answered),
        TEST(test_acknowledgements),
        TEST(test_wrong_arguments),
        TEST(test_credit),
        TEST(test_calls),
        TEST(test_answers_without_credit),
        TEST(test_cancel),
        TEST(test_life),
        TEST(test_subscription_goes_on_elsewhere),
        TEST(test_requests_survive_their_node),
        TEST(test_unknown_connection),
        TEST(test_wait),
        TEST(test_sessions),
        TEST(test_actor),
        TEST(test_watch),
        TEST(test_other_threads),
        TEST(test_heartbeats),
        TEST(test_nonsense_from_the_node),
        TEST(test_node_that_does_not_keep_it),
        TEST(test_draining),
    };
    return cmocka_run_group_tests_name("library", tests, make_folder, remove_folder);
}
