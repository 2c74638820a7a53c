/* Relays among nodes in one process: what crosses, within which bounds, and what becomes of messages that are lost. Node 0
 * relays, or is relayed to; node 1 is this test, which hears and says what it likes. */
#include "../broker/fakecluster.h"
#include "err.h"
#include "fakenet.h"
#include "gate.h"
#include "relay.h"
#include "relay_message.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct mesh_origin node_0 = {0x10, 1}, node_1 = {0x11, 1};

static struct front front;
static struct relay *relay;
static struct conn *conn;
static int client; /* the other end of a connection of node 0 */

/* What node 1 has heard. */
static struct {
    unsigned n[RELAY_MOVE + 1];
    size_t bytes;
    uint64_t id, taken;
} heard;

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    static struct relay_message m;
    (void)user;
    assert_int_equal(from.tag, node_0.tag);
    assert_int_equal(relay_message_read(bytes, &m), 0);
    heard.n[m.what]++;
    heard.id = m.id;
    if (m.what == RELAY_DATA && heard.n[RELAY_OPEN]) /* else answers of several relays */
        assert_int_equal(m.offset, heard.bytes);
    heard.bytes += m.bytes.n;
    heard.taken += m.n;
}

static void bury(struct reactor_task *task)
{
    (void)task;
    conn_bury(&front);
}

static int set_up_relay(void **state)
{
    set_up(state);
    memset(&heard, 0, sizeof(heard));
    front = (struct front){
        .reactor = nodes[0].w.reactor,
        .metrics = nodes[0].w.metrics,
        .engine = nodes[0].w.engine,
        .options = {.path = "/socket.io/",
                    .request_timeout_ms = 300,
                    .max_connections = 8,
                    .max_waiting_per_address = 100},
        .bury_task = {.run = bury},
    };
    front.engine->options.ping_interval_ms = 400;
    front.engine->options.ping_timeout_ms = 300;
    relay = relay_new(nodes[0].w.reactor, nodes[0].cluster, &front);
    assert_non_null(relay);
    cluster_listen(nodes[1].cluster, MESH_TOPIC_RELAY, &(struct cluster_part){.on_message = on_message});
    client = -1;
    return 0;
}

static int tear_down_relay(void **state)
{
    relay_free(&relay);
    while (front.conns)
        conn_close(front.conns);
    reactor_undefer(front.reactor, &front.bury_task, REACTOR_FLUSH);
    conn_bury(&front);
    if (client >= 0)
        close(client);
    return tear_down(state);
}

static void say(struct relay_message m)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(relay_message_write(&b, &m), 0);
    assert_int_equal(cluster_tell(nodes[1].cluster, node_0, MESH_TOPIC_RELAY, (struct span){b.data, b.size}),
                     0);
    msgpack_sbuffer_destroy(&b);
    settle();
}

/* A client's connection of node 0, whose first bytes were for a session of node 1. */
static void relay_request(struct span request)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    client = pair[1];
    conn = conn_new(&front, pair[0], 0, 0, &gate_role);
    assert_non_null(conn);
    conn_watch(conn, EPOLLIN);
    assert_true(relay_conn(relay, node_1, conn, request.p, request.n));
    settle();
}

static size_t write_all_that_fits(size_t n)
{
    static char bytes[64 * 1024];
    size_t written = 0;
    ssize_t got = 1;
    while (written < n && got > 0) {
        got = send(client, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        written += got > 0 ? (size_t)got : 0;
        settle();
    }
    return written;
}

static bool client_is_cut(void)
{
    char byte;
    for (;;) {
        ssize_t n = recv(client, &byte, 1, MSG_DONTWAIT);
        if (n <= 0)
            return n == 0 || errno != EAGAIN;
    }
}

static void bytes_cross_and_are_confirmed(void **state)
{
    (void)state;
    char text[16];
    relay_request(SPAN("GET /"));
    assert_int_equal(heard.n[RELAY_OPEN], 1);
    assert_int_equal(heard.bytes, 5);
    assert_int_equal(send(client, "more", 4, 0), 4);
    settle();
    assert_int_equal(heard.n[RELAY_DATA], 1);
    assert_int_equal(heard.bytes, 9);
    say((struct relay_message){.what = RELAY_TAKEN, .id = heard.id, .n = 9});
    say((struct relay_message){.what = RELAY_DATA, .id = heard.id, .bytes = SPAN("answer")});
    assert_int_equal(recv(client, text, sizeof(text), MSG_DONTWAIT), 6);
    assert_memory_equal(text, "answer", 6);
    assert_int_equal(heard.taken, 6);
    say((struct relay_message){.what = RELAY_CLOSE, .id = heard.id});
    assert_true(client_is_cut());
    assert_int_equal(heard.n[RELAY_CLOSE], 0);
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 0);
}

static void a_long_request_opens_with_its_first_piece(void **state)
{
    (void)state;
    static char request[3 * LIMIT_RELAY_PIECE_BYTES + 1];
    relay_request((struct span){request, sizeof(request)});
    assert_int_equal(heard.n[RELAY_OPEN], 1);
    assert_int_equal(heard.n[RELAY_DATA], 3);
    assert_int_equal(heard.bytes, sizeof(request));
}

static void a_client_that_is_faster_than_the_owner_waits(void **state)
{
    (void)state;
    relay_request(SPAN("POST /"));
    write_all_that_fits(4u << 20);
    size_t before = heard.bytes;
    assert_in_range(before, LIMIT_RELAY_WINDOW_BYTES, LIMIT_RELAY_WINDOW_BYTES + sizeof(front.scratch));
    say((struct relay_message){.what = RELAY_TAKEN, .id = heard.id, .n = before});
    assert_true(heard.bytes > before);
    /* More than was sent cannot have been taken. */
    say((struct relay_message){.what = RELAY_TAKEN, .id = heard.id, .n = UINT64_MAX});
    assert_false(conn->is_dead);
}

static void an_owner_that_does_not_keep_to_the_window_is_cut(void **state)
{
    (void)state;
    static char bytes[LIMIT_RELAY_PIECE_BYTES];
    relay_request(SPAN("GET /"));
    for (uint64_t i = 0; i < 256 && heard.n[RELAY_CLOSE] == 0; i++)
        say((struct relay_message){.what = RELAY_DATA,
                                   .id = heard.id,
                                   .offset = i * sizeof(bytes),
                                   .bytes = {bytes, sizeof(bytes)}});
    assert_int_equal(heard.n[RELAY_CLOSE], 1);
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 0);
}

static void what_is_lost_ends_the_relay(void **state)
{
    (void)state;
    relay_request(SPAN("GET /"));
    say((struct relay_message){.what = RELAY_DATA, .id = heard.id, .offset = 1, .bytes = SPAN("x")});
    assert_true(client_is_cut());
    assert_int_equal(heard.n[RELAY_CLOSE], 1);
}

/* Its CLOSE may be lost, too. */
static void an_owner_that_says_nothing_any_more_is_not_waited_for(void **state)
{
    (void)state;
    relay_request(SPAN("GET /"));
    net_run(&net, 900);
    assert_false(client_is_cut());
    say((struct relay_message){.what = RELAY_DATA, .id = heard.id, .bytes = SPAN("x")});
    net_run(&net, 900);
    assert_false(client_is_cut());
    net_run(&net, 300);
    assert_true(client_is_cut());
    assert_int_equal(heard.n[RELAY_CLOSE], 1);
}

static void data_of_nobody_is_answered_and_all_else_is_not(void **state)
{
    (void)state;
    say((struct relay_message){.what = RELAY_TAKEN, .id = 9, .n = 1});
    say((struct relay_message){.what = RELAY_CLOSE, .id = 9});
    assert_int_equal(heard.n[RELAY_CLOSE], 0);
    say((struct relay_message){.what = RELAY_DATA, .id = 9, .bytes = SPAN("x")});
    say((struct relay_message){.what = RELAY_DATA, .id = 9, .mine = true, .bytes = SPAN("x")});
    assert_int_equal(heard.n[RELAY_CLOSE], 2);
}

static void a_move_that_cannot_be_ends_the_relay(void **state)
{
    (void)state;
    struct relay_message move = {.what = RELAY_MOVE,
                                 .sid = SPAN("CgsMo1JXq0bUu8wRk2_V"),
                                 .got = 6,
                                 .since = SPAN("no offset"),
                                 .n_places = 1,
                                 .places = {{SPAN("/"), SPAN("CgsM-x7PzE4nd0aGt5hY")}}};
    say(move); /* of nobody */
    for (unsigned i = 0; i < 2; i++) {
        relay_request(SPAN("GET /"));
        move.id = heard.id;
        say(move);
        assert_true(client_is_cut());
        close(client);
        move.since = SPAN("~1orJrCgsM"); /* and more than was sent is done with */
    }
    client = -1;
    assert_int_equal(engine_count(front.engine), CLIENTS);
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 0);
}

static void a_relay_has_two_connections_at_the_owner_and_they_count(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 5; id++)
        say((struct relay_message){.what = RELAY_OPEN, .id = id, .bytes = SPAN("GET /")});
    assert_int_equal(front.n_conns, 8);
    assert_int_equal(heard.n[RELAY_CLOSE], 1);
    say((struct relay_message){.what = RELAY_OPEN, .id = 1, .bytes = SPAN("GET /")}); /* again: ignored */
    assert_int_equal(front.n_conns, 8);
    say((struct relay_message){.what = RELAY_DATA, .id = 1, .mine = true, .offset = 3, .bytes = SPAN("x")});
    assert_int_equal(heard.n[RELAY_CLOSE], 2);
    net_run(&net, 1000); /* half requests end */
    assert_int_equal(heard.n[RELAY_CLOSE], 5);
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 0);
}

static void a_node_that_dies_takes_its_relays_along(void **state)
{
    (void)state;
    relay_request(SPAN("GET /"));
    say((struct relay_message){.what = RELAY_OPEN, .id = 1, .bytes = SPAN("GET /")});
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 2);
    stop_node(1);
    net_run(&net, 500);
    assert_int_equal(metrics_get(front.metrics, METRIC_RELAYED), 0);
    assert_true(client_is_cut());
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_relay, tear_down_relay)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_cross_and_are_confirmed),
        TEST(a_long_request_opens_with_its_first_piece),
        TEST(a_client_that_is_faster_than_the_owner_waits),
        TEST(an_owner_that_does_not_keep_to_the_window_is_cut),
        TEST(what_is_lost_ends_the_relay),
        TEST(an_owner_that_says_nothing_any_more_is_not_waited_for),
        TEST(data_of_nobody_is_answered_and_all_else_is_not),
        TEST(a_move_that_cannot_be_ends_the_relay),
        TEST(a_relay_has_two_connections_at_the_owner_and_they_count),
        TEST(a_node_that_dies_takes_its_relays_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
