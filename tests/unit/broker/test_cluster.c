/* Hubs of several nodes that tell each other what happens: clients see one bus. */
#include "fakecluster.h"
#include "utf8.h"

/* ---- what clients say and hear ---- */

static void says(unsigned i, unsigned c, const char *text)
{
    sink_says(&nodes[i].k[c], text);
}

static void hears(unsigned i, unsigned c, const char *expected)
{
    struct span got = sink_text(&nodes[i].k[c]);
    if (!span_eq(got, span_of(expected)))
        print_error("client %u of node %u got: %.*s\n", c, i, (int)got.n, got.p);
    assert_true(span_eq(got, span_of(expected)));
}

/* "110 011 000": whether clients 0, 1, 2 of nodes 0, 1, 2 have got this; nobody has got anything else, or twice. */
static void heard(const char *who, const char *expected)
{
    settle();
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned c = 0; c < CLIENTS; c++) {
            if (who[i * 4 + c] == '1')
                hears(i, c, expected);
            hears(i, c, "");
        }
}

/* Asks and takes the answer out of what has come. */
static const char *answer(unsigned i, unsigned c, const char *event)
{
    static char text[4000];
    struct span got;
    sink_skip(&nodes[i].k[c]);
    snprintf(text, sizeof(text), "29%s", event);
    says(i, c, text);
    settle();
    do
        got = sink_text(&nodes[i].k[c]);
    while (got.n && memcmp(got.p, "439", 3) != 0);
    assert_true(got.n < sizeof(text));
    memcpy(text, got.p, got.n);
    text[got.n] = '\0';
    return text;
}

static unsigned count(unsigned i, const char *room)
{
    char text[300];
    snprintf(text, sizeof(text), "[\"bus:who\",\"%s\"]", room);
    const char *at = strstr(answer(i, 0, text), "\"count\":");
    assert_non_null(at);
    return (unsigned)atoi(at + 8);
}

static void counts(const char *room, unsigned expected)
{
    settle();
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].peers)
            assert_int_equal(count(i, room), expected);
}

static bool lists(const char *text, const struct socket *s)
{
    return memmem(text, strlen(text), s->sid, ID_CHARS) != NULL;
}

static void join(unsigned i, unsigned c, const char *room)
{
    assert_int_equal(room_join(nodes[i].s[c], span_of(room)), 0);
    settle();
}

/* ---- emits ---- */

static void an_emit_reaches_the_clients_of_all_nodes_once(void **state)
{
    (void)state;
    says(0, 0, "2[\"bus:emit\",{\"event\":\"hi\",\"args\":[1,\"x\",{\"a\":null}]}]");
    heard("011 111 111", "42[\"hi\",1,\"x\",{\"a\":null}]");
    says(2, 1, "2[\"bus:emit\",{\"event\":\"hi\",\"echo\":true}]");
    heard("111 111 111", "42[\"hi\"]");
    assert_int_equal(metrics_get(nodes[1].w.metrics, METRIC_EMITS), 0);
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_EMITS), 1);
}

static void rooms_reach_over_nodes(void **state)
{
    (void)state;
    join(0, 1, "red");
    join(1, 0, "red");
    join(1, 0, "blue");
    join(1, 1, "blue");
    join(2, 2, "blue");
    skip_all();
    says(0, 0, "2[\"bus:emit\",{\"to\":\"red\",\"event\":\"e\"}]");
    heard("010 100 000", "42[\"e\"]");
    says(2, 2, "2[\"bus:emit\",{\"to\":[\"red\",\"blue\"],\"event\":\"e\"}]");
    heard("010 110 000", "42[\"e\"]");
    says(0, 0, "2[\"bus:emit\",{\"to\":\"blue\",\"except\":\"red\",\"event\":\"e\"}]");
    heard("000 010 001", "42[\"e\"]");
    says(0, 0, "2[\"bus:emit\",{\"except\":[\"red\",\"blue\"],\"event\":\"e\"}]");
    heard("001 001 110", "42[\"e\"]");
    says(0, 0, "2[\"bus:emit\",{\"to\":\"nobody\",\"event\":\"e\"}]");
    heard("000 000 000", "");
}

static void a_socket_of_another_node_is_reached_by_its_sid(void **state)
{
    (void)state;
    char text[200];
    snprintf(text, sizeof(text), "2[\"bus:emit\",{\"to\":\"%.*s\",\"event\":\"e\"}]", ID_CHARS,
             nodes[1].s[2]->sid);
    says(0, 0, text);
    heard("000 001 000", "42[\"e\"]");
    snprintf(text, sizeof(text), "2[\"bus:emit\",{\"except\":\"%.*s\",\"event\":\"e\"}]", ID_CHARS,
             nodes[1].s[2]->sid);
    says(0, 0, text);
    heard("011 110 111", "42[\"e\"]");
}

static void namespaces_are_apart_on_all_nodes(void **state)
{
    (void)state;
    struct sink there, here;
    sink_enter(&nodes[1].w, &there, "/chat");
    sink_enter(&nodes[0].w, &here, "/chat");
    says(0, 0, "2[\"bus:emit\",{\"event\":\"e\"}]");
    heard("011 111 111", "42[\"e\"]");
    assert_int_equal(sink_text(&there).n, 0);
    sink_says(&here, "2/chat,[\"bus:emit\",{\"event\":\"e\"}]");
    heard("000 000 000", "");
    assert_true(span_eq(sink_text(&there), SPAN("42/chat,[\"e\"]")));
    sink_end(&there);
    sink_end(&here);
}

static void volatile_is_dropped_where_a_client_cannot_be_written(void **state)
{
    (void)state;
    sink_block(&nodes[1].k[0]);
    says(0, 0, "2[\"bus:emit\",{\"event\":\"fill\"}]");
    settle();
    uint64_t before = metrics_get(nodes[1].w.metrics, METRIC_VOLATILE_DROPPED);
    says(0, 0, "2[\"bus:emit\",{\"event\":\"v\",\"volatile\":true}]");
    settle();
    assert_int_equal(metrics_get(nodes[1].w.metrics, METRIC_VOLATILE_DROPPED), before + 1);
    sink_unblock(&nodes[1].k[0]);
    settle();
    hears(1, 0, "42[\"fill\"]");
    hears(1, 0, "");
    hears(1, 1, "42[\"fill\"]");
    hears(1, 1, "42[\"v\"]");
}

static void attachments_travel(void **state)
{
    (void)state;
    struct sink_frame frame;
    says(0, 0,
         "52-[\"bus:emit\",{\"event\":\"b\",\"args\":[{\"_placeholder\":true,\"num\":0},"
         "{\"_placeholder\":true,\"num\":1}]}]");
    session_receive_binary(nodes[0].k[0].session, (struct span){"\0\x01\xff", 3});
    session_receive_binary(nodes[0].k[0].session, (struct span){"", 0});
    settle();
    hears(2, 1, "452-[\"b\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]");
    assert_true(sink_next(&nodes[2].k[1], &frame));
    assert_int_equal(frame.opcode, WS_BINARY);
    assert_true(span_eq(frame.payload, (struct span){"\0\x01\xff", 3}));
    assert_true(sink_next(&nodes[2].k[1], &frame));
    assert_int_equal(frame.payload.n, 0);
    assert_false(sink_next(&nodes[2].k[1], &frame));
}

static void the_order_of_a_node_holds_on_a_bad_network(void **state)
{
    (void)state;
    char text[100];
    net_set_all(&net, (struct net_way){.loss = 50, .twice = 100, .delay_ms = 10});
    for (unsigned k = 0; k < 200; k++) {
        snprintf(text, sizeof(text), "2[\"bus:emit\",{\"event\":\"e\",\"args\":[%u]}]", k);
        says(0, k % 3, text);
        net_run(&net, 2);
    }
    net_set_all(&net, (struct net_way){0});
    net_run(&net, 1000);
    for (unsigned k = 0; k < 200; k++) {
        snprintf(text, sizeof(text), "42[\"e\",%u]", k);
        hears(1, 0, text);
        hears(2, 2, text);
    }
    hears(1, 0, "");
    hears(2, 2, "");
}

static void ids_are_the_numbers_of_the_mesh(void **state)
{
    (void)state;
    char expected[100];
    snprintf(expected, sizeof(expected), "439[{\"ok\":true,\"id\":\"test-1:%llu\"}]",
             (unsigned long long)peers_newest(nodes[0].peers) + 1);
    assert_string_equal(answer(0, 0, "[\"bus:emit\",{\"event\":\"e\"}]"), expected);
    uint64_t seq = peers_newest(nodes[0].peers);
    net_run(&net, 250);
    assert_true(cluster_is_confirmed(nodes[0].cluster, seq));
    assert_false(cluster_is_confirmed(nodes[0].cluster, seq + 1));
}

/* ---- who is where ---- */

static void who_counts_and_lists_all_nodes(void **state)
{
    (void)state;
    join(0, 1, "red");
    join(1, 0, "red");
    join(2, 2, "red");
    counts("red", 3);
    const char *text = answer(1, 1, "[\"bus:who\",\"red\"]");
    assert_true(lists(text, nodes[0].s[1]) && lists(text, nodes[1].s[0]) && lists(text, nodes[2].s[2]));
    assert_false(lists(text, nodes[0].s[0]));
    room_leave(nodes[1].s[0], SPAN("red"));
    counts("red", 2);
    sink_end(&nodes[2].k[2]);
    counts("red", 1);
    counts("blue", 0);
}

static void who_knows_a_sid_of_another_node(void **state)
{
    (void)state;
    char sid[ID_CHARS + 1] = {0};
    memcpy(sid, nodes[2].s[0]->sid, ID_CHARS);
    counts(sid, 1);
    /* A room of the same name: its members and the socket, which counts once. */
    join(1, 0, sid);
    counts(sid, 2);
    join(2, 0, sid);
    counts(sid, 2);
}

static void a_member_counts_once_however_often_it_joins(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++)
        answer(1, 1, "[\"bus:join\",[\"red\",\"red\"]]");
    counts("red", 1);
    answer(1, 1, "[\"bus:leave\",[\"red\",\"red\"]]");
    counts("red", 0);
}

static void a_late_node_knows_who_was_there(void **state)
{
    (void)state;
    stop_node(2);
    net_run(&net, 500);
    char room[40];
    for (unsigned k = 0; k < 300; k++) {
        snprintf(room, sizeof(room), "room-%u", k);
        join(0, 1, room);
    }
    join(1, 2, "room-7");
    start_node(2, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    nodes[2].s[0] = sink_enter(&nodes[2].w, &nodes[2].k[0], "/");
    assert_int_equal(count(2, "room-7"), 2);
    assert_int_equal(count(2, "room-0"), 1);
    assert_int_equal(count(2, "room-299"), 1);
    sink_end(&nodes[0].k[1]);
    settle();
    assert_int_equal(count(2, "room-7"), 1);
}

static void sockets_elsewhere_are_not_in_this_nodes_metrics(void **state)
{
    (void)state;
    join(1, 0, "red");
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_SOCKETS), CLIENTS);
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_ROOMS), 0);
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_NAMESPACES), 1);
}

static void the_dead_are_in_no_room(void **state)
{
    (void)state;
    struct sink there;
    join(0, 1, "red");
    join(1, 0, "red");
    join(1, 1, "red");
    join(2, 2, "red");
    sink_enter(&nodes[1].w, &there, "/chat");
    counts("red", 4);
    assert_non_null(cluster_far(nodes[0].cluster, SPAN("/chat")));
    net_cut(&net, 1, 0, true);
    net_cut(&net, 1, 2, true);
    net_run(&net, 500);
    assert_int_equal(count(0, "red"), 2);
    assert_int_equal(count(2, "red"), 2);
    assert_null(cluster_far(nodes[0].cluster, SPAN("/chat")));
    /* Only cut off: back, all are there again. */
    net_cut(&net, 1, 0, false);
    net_cut(&net, 1, 2, false);
    net_run(&net, 500);
    counts("red", 4);
    assert_non_null(cluster_far(nodes[0].cluster, SPAN("/chat")));
    sink_end(&there);
}

static void all_may_die(void **state)
{
    (void)state;
    join(0, 1, "red");
    join(1, 0, "red");
    stop_node(1);
    stop_node(2);
    net_run(&net, 500);
    counts("red", 1);
    assert_null(cluster_far(nodes[0].cluster, SPAN("/")));
    says(0, 0, "2[\"bus:emit\",{\"to\":\"red\",\"event\":\"e\"}]");
    settle();
    hears(0, 1, "42[\"e\"]");
}

static void every_room_of_a_full_socket_is_known(void **state)
{
    (void)state;
    char room[40];
    for (unsigned k = 0; k < LIMIT_ROOMS_PER_SOCKET; k++) {
        snprintf(room, sizeof(room), "room-%u", k);
        assert_int_equal(room_join(nodes[0].s[1], span_of(room)), 0);
    }
    settle();
    snprintf(room, sizeof(room), "room-%u", LIMIT_ROOMS_PER_SOCKET - 1);
    counts(room, 1);
}

/* ---- gaps ---- */

static void every_client_is_told_of_a_gap_once(void **state)
{
    (void)state;
    char expected[200];
    struct sink chat;
    sink_enter(&nodes[1].w, &chat, "/chat");
    skip_all();
    uint64_t seq = peers_newest(nodes[0].peers);
    record.kind = MESH_REPAIRED;
    record.repair = (struct mesh_repair){.origin = {0x10, 1}, .from = seq + 1, .gone_to = seq + 3};
    record.repair.to = seq + 3;
    forge(&record);
    snprintf(expected, sizeof(expected),
             "42[\"bus:gap\",{\"origin\":\"000010-1\",\"from\":%llu,\"to\":%llu}]",
             (unsigned long long)seq + 1, (unsigned long long)seq + 3);
    heard("000 111 000", expected);
    struct span got = sink_text(&chat);
    assert_true(got.n > 8 && memcmp(got.p, "42/chat,", 8) == 0);
    assert_memory_equal(got.p + 8, expected + 2, got.n - 8);
    assert_int_equal(metrics_get(nodes[1].w.metrics, METRIC_MESH_LOST), 3);
    sink_end(&chat);
}

static void a_sid_that_is_none_is_ignored(void **state)
{
    (void)state;
    record.kind = MESH_JOIN;
    record.seq = peers_newest(nodes[0].peers) + 1;
    record.presence = (struct mesh_presence){.nsp = SPAN("/new"), .sid = SPAN("short"), .n_rooms = 1};
    record.presence.rooms[0] = SPAN("red");
    forge(&record);
    assert_null(cluster_far(nodes[1].cluster, SPAN("/new")));
}

static void more_rooms_than_allowed_do_no_harm(void **state)
{
    (void)state;
    char room[40];
    record.kind = MESH_JOIN;
    record.presence = (struct mesh_presence){
        .nsp = SPAN("/"), .sid = {nodes[0].s[0]->sid, ID_CHARS}, .n_rooms = 1, .rooms = {{room, 0}}};
    for (unsigned k = 0; k < 2 * LIMIT_ROOMS_PER_SOCKET; k++) {
        record.seq = peers_newest(nodes[0].peers) + 1 + k;
        record.presence.rooms[0].n = (size_t)snprintf(room, sizeof(room), "room-%u", k);
        forge(&record);
    }
    assert_int_equal(count(1, "room-5"), 1);
    snprintf(room, sizeof(room), "room-%u", 2 * LIMIT_ROOMS_PER_SOCKET - 1);
    assert_int_equal(count(1, room), 0);
}

/* What names the sockets of one node among those of others: tag and boot are known to clients. */
static void no_client_joins_the_room_of_a_node(void **state)
{
    (void)state;
    static const char names[][14] = {"\0\x11\0\0\0\1\0\0\0\0\0\0\0", "\xff\x11\0\0\0\1\0\0\0\0\0\0\0"};
    assert_true(utf8_valid(names[0], 13));
    assert_false(utf8_valid(names[1], 13)); /* so it is in no packet */
    room_join(nodes[0].s[0], (struct span){names[0], 13});
    settle();
    stop_node(1);
    net_run(&net, 1000);
    assert_non_null(
        nsp_find(cluster_far(nodes[2].cluster, SPAN("/")), (struct span){nodes[0].s[0]->sid, ID_CHARS}));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_emit_reaches_the_clients_of_all_nodes_once),
        TEST(rooms_reach_over_nodes),
        TEST(a_socket_of_another_node_is_reached_by_its_sid),
        TEST(namespaces_are_apart_on_all_nodes),
        TEST(volatile_is_dropped_where_a_client_cannot_be_written),
        TEST(attachments_travel),
        TEST(the_order_of_a_node_holds_on_a_bad_network),
        TEST(ids_are_the_numbers_of_the_mesh),
        TEST(who_counts_and_lists_all_nodes),
        TEST(who_knows_a_sid_of_another_node),
        TEST(a_member_counts_once_however_often_it_joins),
        TEST(a_late_node_knows_who_was_there),
        TEST(sockets_elsewhere_are_not_in_this_nodes_metrics),
        TEST(the_dead_are_in_no_room),
        TEST(all_may_die),
        TEST(every_room_of_a_full_socket_is_known),
        TEST(every_client_is_told_of_a_gap_once),
        TEST(a_sid_that_is_none_is_ignored),
        TEST(more_rooms_than_allowed_do_no_harm),
        TEST(no_client_joins_the_room_of_a_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
