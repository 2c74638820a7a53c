#include "agent.h"
#include "err.h"
#include "uplink.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* The other side: which endpoint is open, and the records that were said to it. */
static struct {
    bool is_open, refuses;
    char endpoint[UPLINK_ENDPOINT_BYTES + 1];
    unsigned opened, closed, n;
    enum agent_kind kind[256];
    uint64_t credit; /* of the last HELLO or CREDIT */
    size_t bytes;
} net;

static struct agent_record record;
static struct uplink *uplink;

static bool on_open(void *link, const char *endpoint)
{
    assert_ptr_equal(link, &net);
    assert_false(net.is_open);
    snprintf(net.endpoint, sizeof(net.endpoint), "%s", endpoint);
    net.opened++;
    net.is_open = !net.refuses;
    return net.is_open;
}

static void on_send(void *link, struct span message)
{
    assert_ptr_equal(link, &net);
    assert_true(net.is_open && net.n < 256);
    struct agent_reader reader = agent_open(message);
    int rc = agent_read(&reader, &record);
    assert_true(rc == 1 || rc == ERR_KIND);
    net.kind[net.n++] = record.kind;
    if (record.kind == AGENT_HELLO || record.kind == AGENT_CREDIT)
        net.credit = record.credit;
    net.bytes += message.n;
}

static void on_close(void *link)
{
    assert_ptr_equal(link, &net);
    assert_true(net.is_open);
    net.is_open = false;
    net.closed++;
}

static void start(const char *endpoints)
{
    memset(&net, 0, sizeof(net));
    uplink = uplink_new(&(struct uplink_options){.endpoints = endpoints,
                                                 .name = "m",
                                                 .instance = "i",
                                                 .about = "a",
                                                 .link = {on_open, on_send, on_close, &net},
                                                 .seed = 7});
    assert_non_null(uplink);
}

static void stop(void)
{
    uplink_free(&uplink);
    assert_false(net.is_open);
    assert_int_equal(net.opened, net.closed);
}

/* The record that was filled, from the node. */
static void hear(uint64_t now_ms)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(agent_write(&b, &record), 0);
    uplink_receive(uplink, now_ms, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
}

static struct agent_record *prepare(enum agent_kind kind)
{
    agent_init(&record, kind);
    return &record;
}

static void welcome(uint64_t now_ms, uint64_t credit, const char *peer)
{
    prepare(AGENT_WELCOME)->version = 1;
    record.node = SPAN("n");
    record.credit = credit;
    agent_with(&record, AGENT_F_HEARTBEAT_MS)->heartbeat_ms = 300;
    agent_with(&record, AGENT_F_TIMEOUT_MS)->timeout_ms = 1000;
    if (peer) {
        agent_with(&record, AGENT_F_PEERS)->n_peers = 1;
        record.peers[0] = (struct agent_peer){SPAN("p"), 1, {span_of(peer)}};
    }
    hear(now_ms);
}

static void bad_news(uint64_t now_ms, enum agent_kind kind, const char *code)
{
    prepare(kind)->code = span_of(code);
    record.text = SPAN("because");
    hear(now_ms);
}

static const struct span tick = {"\x95\x29\x00\x01\x07\x05", 6};

static void test_lists(void **state)
{
    (void)state;
    assert_true(uplink_check("tcp://127.0.0.1:7800"));
    assert_true(uplink_check("tcp://a:1,ipc:///run/x"));
    assert_false(uplink_check(""));
    assert_false(uplink_check("tcp://"));
    assert_false(uplink_check("tcp://a:1,"));
    assert_false(uplink_check("127.0.0.1:7800"));
}

/* HELLO at once, nothing before the WELCOME, then heartbeats with a growing grant. */
static void test_connects(void **state)
{
    (void)state;
    start("tcp://a:1");
    uplink_run(uplink, 10);
    assert_string_equal(net.endpoint, "tcp://a:1");
    assert_true(net.n == 1 && net.kind[0] == AGENT_HELLO);
    uint64_t first = net.credit;
    assert_int_equal(uplink_welcome(uplink), 0);
    assert_false(uplink_send(uplink, 11, tick));
    welcome(20, 1000, NULL);
    assert_int_equal(uplink_welcome(uplink), 1);
    assert_true(uplink_send(uplink, 21, tick));
    assert_int_equal(uplink_due_ms(uplink), 321);
    prepare(AGENT_CREDIT)->credit = 1000;
    hear(200);
    uplink_run(uplink, 321);
    assert_int_equal(net.kind[net.n - 1], AGENT_CREDIT);
    assert_true(net.credit > first);
    stop();
    assert_int_equal(net.kind[net.n - 1], AGENT_BYE);
}

/* A message may begin below the grant and end above it; then nothing goes until there is more. */
static void test_keeps_to_the_grant(void **state)
{
    (void)state;
    start("tcp://a:1");
    uplink_run(uplink, 0);
    welcome(1, 8, NULL);
    assert_true(uplink_send(uplink, 2, tick));
    assert_true(uplink_send(uplink, 2, tick));
    assert_false(uplink_send(uplink, 2, tick));
    prepare(AGENT_CREDIT)->credit = 5; /* a grant never becomes less */
    hear(3);
    assert_false(uplink_send(uplink, 3, tick));
    prepare(AGENT_CREDIT)->credit = 13;
    hear(4);
    assert_true(uplink_send(uplink, 4, tick));
    stop();
}

static void test_silent_node(void **state)
{
    (void)state;
    start("tcp://a:1,tcp://b:2");
    uplink_run(uplink, 0);
    welcome(5, 1000, NULL);
    uplink_run(uplink, 1004);
    assert_int_equal(uplink_welcome(uplink), 1);
    uplink_run(uplink, 1005);
    assert_string_equal(net.endpoint, "tcp://b:2");
    assert_int_equal(uplink_welcome(uplink), 0);
    assert_int_equal(net.kind[net.n - 1], AGENT_HELLO);
    welcome(1010, 1000, NULL);
    assert_int_equal(uplink_welcome(uplink), 2);
    stop();
}

/* A node that answers nothing, one that says no, then a wait that doubles, shortened by at most a half. */
static void test_waits_longer_each_time(void **state)
{
    (void)state;
    start("tcp://a:1,tcp://b:2");
    uint64_t now = 0, wait = 100;
    for (int round = 0; round < 10; round++) {
        unsigned opened = net.opened;
        uplink_run(uplink, now);
        now += 1000;
        uplink_run(uplink, now); /* no answer */
        assert_int_equal(net.opened, opened + 2);
        bad_news(now, AGENT_ERROR, "unavailable");
        assert_false(net.is_open);
        uint64_t pause = uplink_due_ms(uplink) - now;
        assert_true(pause <= wait && pause >= wait / 2);
        uplink_run(uplink, now + pause - 1);
        assert_int_equal(net.opened, opened + 2);
        now += pause;
        wait = wait < 2500 ? wait * 2 : 5000;
    }
    stop();
}

static void test_goes_to_peers(void **state)
{
    (void)state;
    start("tcp://a:1");
    uplink_run(uplink, 0);
    welcome(1, 1000, "tcp://peer:9");
    bad_news(2, AGENT_BYE, "ended");
    assert_string_equal(net.endpoint, "tcp://peer:9");
    welcome(3, 1000, NULL); /* which knows nobody: the way back stays known */
    uplink_run(uplink, 1003);
    assert_string_equal(net.endpoint, "tcp://a:1");
    stop();
}

static void test_node_that_ends(void **state)
{
    (void)state;
    start("tcp://a:1,tcp://b:2");
    uplink_run(uplink, 0);
    welcome(1, 1000, NULL);
    prepare(AGENT_NODE);
    agent_with(&record, AGENT_F_DRAINING)->draining = true;
    hear(2);
    assert_string_equal(net.endpoint, "tcp://b:2");
    assert_true(net.n >= 2 && net.kind[net.n - 2] == AGENT_BYE && net.kind[net.n - 1] == AGENT_HELLO);
    stop();
}

/* A node that was started again does not know us. Another error changes nothing. */
static void test_errors(void **state)
{
    (void)state;
    start("tcp://a:1");
    uplink_run(uplink, 0);
    welcome(1, 1000, NULL);
    bad_news(2, AGENT_ERROR, "unknown_kind");
    assert_int_equal(uplink_welcome(uplink), 1);
    bad_news(1500, AGENT_ERROR, "hello"); /* after a while, which is tried again at once */
    assert_int_equal(uplink_welcome(uplink), 0);
    assert_true(net.is_open && net.kind[net.n - 1] == AGENT_HELLO);
    welcome(1501, 1000, NULL);
    assert_int_equal(uplink_welcome(uplink), 2);
    uplink_receive(uplink, 1502, SPAN("\xc1garbage"));
    assert_int_equal(uplink_welcome(uplink), 2);
    /* What ends at once may do so again: it waits. */
    unsigned opened = net.opened;
    bad_news(1503, AGENT_ERROR, "hello");
    assert_true(!net.is_open && net.opened == opened && uplink_due_ms(uplink) >= 1503 + 50);
    stop();
}

/* A socket that cannot be had is like a node that does not answer. */
static void test_cannot_open(void **state)
{
    (void)state;
    start("tcp://a:1,tcp://b:2");
    net.refuses = true;
    uplink_run(uplink, 0);
    assert_int_equal(net.opened, 2);
    assert_true(uplink_due_ms(uplink) >= 50);
    net.opened = 0;
    net.refuses = false;
    uplink_run(uplink, 100);
    assert_true(net.is_open);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_connects),
        cmocka_unit_test(test_keeps_to_the_grant),
        cmocka_unit_test(test_silent_node),
        cmocka_unit_test(test_waits_longer_each_time),
        cmocka_unit_test(test_goes_to_peers),
        cmocka_unit_test(test_node_that_ends),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_cannot_open),
    };
    return cmocka_run_group_tests_name("uplink", tests, NULL, NULL);
}
