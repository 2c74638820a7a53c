/* The mesh's logic: who is where on other nodes, and messages that no node would have sent. */
#include "fakenodes.h"

/* ---- snapshots ---- */

static void start_crowded(unsigned n)
{
    has_presence = true;
    start_all(n);
    assert_true(knows(all_know_each_other));
    for (unsigned i = 0; i < n; i++)
        crowd(i);
}

/* Node 2 comes to 0 and 1. */
static void come_late(void)
{
    start_node(2, 1);
    net_name(&net, 2, 0);
    net_name(&net, 2, 1);
    peers_start(nodes[2].peers);
}

static void stays_true(void)
{
    CHECK(knows(all_know_the_truth));
    net_run(&net, 2000);
    CHECK(all_know_the_truth(NULL));
}

static void changes_are_told_as_they_come(void **state)
{
    (void)state;
    start_crowded(2);
    assert_true(knows(all_know_the_truth));
    unsigned voids = view_of(1, nodes[0].self)->voids;
    move(0, MESH_PART, 3, 0x5555);
    move(0, MESH_EXIT, 4, 0);
    move(0, MESH_ENTER, 4, 0);
    net_run(&net, 3);
    assert_true(all_know_the_truth(NULL));
    assert_int_equal(view_of(1, nodes[0].self)->voids, voids);
}

static void a_newcomer_is_given_all_in_parts(void **state)
{
    (void)state;
    start_crowded(2);
    net_run(&net, 10);
    memset(net.sent, 0, sizeof(net.sent));
    net.largest = 0;
    come_late();
    stays_true();
    assert_true(net.sent[MESH_PRESENCE] >= 2 * 2);
    assert_int_equal(net.sent[MESH_ASK_PRESENCE], 2 + 2);
    assert_true(net.largest <= 65536 + 5000);
}

static void nobody_is_a_snapshot_too(void **state)
{
    (void)state;
    has_presence = true;
    start_all(2);
    assert_true(knows(all_know_each_other));
    assert_true(all_know_the_truth(NULL));
    assert_int_equal(net.sent[MESH_PRESENCE], 2);
}

/* The snapshot is on its way while sockets come, move and go; before, within and behind what it includes. */
static void moves_during_a_snapshot_count(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 30; i++) {
        start_over(i);
        net.keeps_order = true;
        start_crowded(2);
        for (unsigned j = 0; j < 3; j++)
            for (unsigned k = 0; k < 3; k++)
                net.way[j][k].delay_ms = (unsigned)net_draw(&net, 60);
        for (unsigned ms = 0; ms < 400; ms++) {
            if (ms == 20)
                come_late();
            move_at_random((unsigned)net_draw(&net, 2));
            if (ms > 20)
                move_at_random(2);
            net_step(&net);
        }
        stays_true();
        CHECK(lost_by_all() == 0);
    }
}

static void a_lost_request_is_repeated(void **state)
{
    (void)state;
    start_crowded(2);
    lose(2, 0, MESH_ASK_PRESENCE, 0, 2);
    come_late();
    net_run(&net, 300);
    move_at_random(0);
    move_at_random(2);
    assert_false(peers_is_ready(nodes[2].peers));
    stays_true();
    assert_int_equal(to_lose, 0);
    assert_true(peers_is_ready(nodes[2].peers));
}

/* One of the three parts of node 0's answer to node 2. */
static void lose_part(unsigned which)
{
    start_crowded(2);
    net_run(&net, 10);
    lose(0, 2, MESH_PRESENCE, which, 1);
    come_late();
    for (unsigned ms = 0; ms < 300; ms++) {
        move_at_random(0);
        net_step(&net);
    }
    assert_int_equal(to_lose, 0);
    stays_true();
}

static void a_lost_last_part_is_noticed(void **state)
{
    (void)state;
    lose_part(2);
}

static void a_lost_first_part_is_noticed(void **state)
{
    (void)state;
    lose_part(0);
}

static void a_lost_part_in_between_is_noticed(void **state)
{
    (void)state;
    lose_part(1);
}

/* An answer so slow that it was asked for again: the second one comes when things have moved on. */
static void a_second_answer_changes_nothing(void **state)
{
    (void)state;
    start_with_ghost(0);
    const struct view *v = view_of(0, ghost);
    forge("c", ghost);
    forge_part(1, true, true);
    forge_presence(MESH_ENTER, 0, 5, 0);
    receive(0);
    assert_true(v->socket[5].is_in);
    forge("c", ghost);
    forge_presence(MESH_ENTER, 1, 5, 0);
    forge_presence(MESH_EXIT, 2, 5, 0);
    receive(0);
    assert_false(v->socket[5].is_in);
    forge("c", ghost);
    forge_part(1, true, true);
    forge_presence(MESH_ENTER, 0, 5, 0);
    receive(0);
    assert_false(v->socket[5].is_in);
}

/* 1: s1 enters; asked; 2: s1 exits, which is held back; the snapshot does not know of either yet. */
static void a_snapshot_older_than_the_question_does_not_count(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", ghost);
    forge_presence(MESH_ENTER, 1, 1, 0);
    forge_presence(MESH_EXIT, 2, 1, 0);
    forge_presence(MESH_ENTER, 3, 2, 0);
    receive(0);
    assert_true(has_alive(0, 0));
    forge("c", ghost);
    forge_heartbeat(3);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
    forge("c", ghost);
    forge_part(1, true, true);
    forge_presence(MESH_ENTER, 0, 1, 0);
    receive(0);
    assert_false(view_of(0, ghost)->socket[1].is_in && !view_of(0, ghost)->socket[2].is_in);
}

static void what_a_snapshot_includes_and_what_follows_fit_together(void **state)
{
    (void)state;
    start_with_ghost(10);
    const struct view *v = view_of(0, ghost);
    forge("c", ghost);
    forge_presence(MESH_EXIT, 11, 1, 0);
    forge_presence(MESH_ENTER, 12, 2, 0);
    forge_presence(MESH_ENTER, 13, 3, 0);
    forge_presence(MESH_EXIT, 14, 2, 0);
    receive(0);
    assert_false(v->socket[2].is_in || v->socket[3].is_in);
    forge("c", ghost);
    forge_part(12, true, false);
    forge_presence(MESH_ENTER, 0, 2, 0);
    receive(0);
    forge("c", ghost);
    forge_part(12, false, true);
    forge_presence(MESH_ENTER, 0, 4, 0);
    forge_presence(MESH_JOIN, 0, 4, 3);
    receive(0);
    assert_false(v->socket[1].is_in || v->socket[2].is_in);
    assert_true(v->socket[3].is_in && v->socket[4].is_in);
    assert_int_equal(v->socket[4].rooms, 3);
}

static void who_left_in_a_gap_is_not_kept(void **state)
{
    (void)state;
    start_crowded(2);
    assert_true(knows(all_know_the_truth));
    lose(0, 1, MESH_EXIT, 0, 1);
    move(0, MESH_EXIT, 7, 0);
    net_run(&net, 2);
    assert_int_equal(to_lose, 0);
    lose(1, 0, MESH_REPAIR, 0, 1000);
    net_run(&net, 1500);
    assert_int_equal(view_of(1, nodes[0].self)->gaps, 1);
    stays_true();
}

static void the_sockets_of_the_dead_are_void(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_crowded(3);
    assert_true(knows(all_know_the_truth));
    struct mesh_origin dead = nodes[1].self;
    const struct seat none[SOCKETS] = {{0}};
    /* The tail of the dead comes from another node, and says nothing of sockets any more. */
    net_cut(&net, 1, 0, true);
    move(1, MESH_EXIT, 3, 0);
    move(1, MESH_ENTER, 3, 0);
    net_run(&net, 2);
    stop_node(1);
    assert_true(has_alive(0, 1));
    assert_true(has_alive(2, 1));
    net_run(&net, 3000);
    for (unsigned i = 0; i < 3; i += 2) {
        assert_memory_equal(view_of(i, dead)->socket, none, sizeof(none));
        assert_int_equal(view_of(i, dead)->lost, 0);
    }
}

static void snapshots_on_a_slow_network_end_true(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 10; i++) {
        start_over(i);
        start_crowded(2);
        net.keeps_order = true;
        /* Slow, but each answer is back before it is asked for again. */
        net_set_all(&net, (struct net_way){.delay_ms = 150});
        come_late();
        for (unsigned ms = 0; ms < 1500; ms++) {
            if (net_draw(&net, 8) == 0)
                move_at_random((unsigned)net_draw(&net, 3));
            net_step(&net);
        }
        net_set_all(&net, (struct net_way){0});
        stays_true();
    }
}

static void snapshots_on_a_bad_network_end_true(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 30; i++) {
        start_over(i);
        start_crowded(2);
        net.keeps_order = i % 2;
        net_set_all(&net, (struct net_way){.loss = 150, .twice = 150, .delay_ms = 50});
        come_late();
        for (unsigned ms = 0; ms < 2000; ms++) {
            if (net_draw(&net, 8) == 0)
                move_at_random((unsigned)net_draw(&net, 3));
            net_step(&net);
        }
        net_set_all(&net, (struct net_way){0});
        stays_true();
    }
}

/* ---- messages that no node would have sent ---- */

static void another_clusters_messages_are_ignored(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
    forge("other", ghost);
    forge_hello(3, 0);
    forge_heartbeat(0);
    receive(0);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 0);
    assert_int_equal(net.node[0].channels, 0);
    assert_int_equal(metric(0, METRIC_MESH_REJECTED), 2);
}

static void whoever_has_not_said_hello_is_ignored(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
    forge("c", ghost);
    forge_heartbeat(5);
    forge_emit(ghost, 1);
    forge_part(0, true, true);
    forge_presence(MESH_ENTER, 0, 1, 0);
    record.kind = MESH_ASK_PRESENCE;
    forge_record(&record);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 0);
    assert_int_equal(view_of(0, ghost)->emits, 0);
    assert_false(view_of(0, ghost)->socket[1].is_in);
}

static void its_own_words_are_ignored(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
    forge("c", nodes[0].self);
    forge_hello(3, 0);
    forge_emit(nodes[0].self, 1);
    receive(0);
    assert_int_equal(net.node[0].channels, 0);
    assert_int_equal(peers_alive(nodes[0].peers), 0);
}

static void only_the_origin_says_what_is_gone(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(1);
    assert_true(has_next(0, nodes[1].self, 2));
    forge("c", ghost);
    forge_hello(3, 0);
    forge_repaired(nodes[1].self, 2, 9, 9);
    receive(0);
    say(1);
    assert_true(has_next(0, nodes[1].self, 3));
    assert_int_equal(lost_by_all(), 0);
}

static void repairs_of_an_unknown_origin_are_not_the_senders(void **state)
{
    (void)state;
    start_with_ghost(0);
    struct mesh_origin unknown = {5, 1};
    forge("c", ghost);
    forge_repaired(unknown, 1, 2, 0);
    forge_emit(unknown, 1);
    forge_emit(unknown, 2);
    receive(0);
    assert_int_equal(view_of(0, ghost)->emits, 0);
}

/* Its bytes would be read as if they were those of a socket. */
static void an_emit_without_a_number_in_a_snapshot_is_ignored(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", ghost);
    forge_part(0, true, true);
    forge_emit(ghost, 0);
    receive(0);
}

static void a_presence_record_without_a_number_counts_in_snapshots_only(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", ghost);
    forge_part(0, true, true);
    receive(0);
    forge("c", ghost);
    forge_presence(MESH_ENTER, 0, 1, 0);
    receive(0);
    assert_false(view_of(0, ghost)->socket[1].is_in);
}

static void one_that_was_restarted_often_is_still_understood(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    for (uint64_t boot = 1; boot <= 300; boot++) {
        forge("c", (struct mesh_origin){4, boot});
        forge_hello(3, 0);
        receive(0);
        net_run(&net, 1);
    }
    start_node(1, 1);
    net_name(&net, 1, 0);
    peers_start(nodes[1].peers);
    net_run(&net, 1000);
    say(1);
    assert_true(knows(all_are_confirmed));
}

/* What an old start still had on the way does not bring it back. */
static void the_late_words_of_a_start_that_is_over_change_nothing(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", (struct mesh_origin){4, 2});
    forge_hello(3, 0);
    forge_heartbeat(0);
    receive(0);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
    forge("c", ghost);
    forge_heartbeat(0);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
}

static void a_peer_named_by_another_address_is_one_peer(void **state)
{
    (void)state;
    start_node(0, 1);
    start_node(1, 1);
    assert_int_equal(peers_add_peer(nodes[0].peers, SPAN("tcp://localhost-1"), SPAN("tcp://localhost-1")), 0);
    peers_start(nodes[0].peers);
    peers_start(nodes[1].peers);
    net_run(&net, 1000);
    assert_true(peers_is_ready(nodes[0].peers));
    assert_int_equal(net.node[0].channels, 1);
}

/* ---- garbage ---- */

static struct {
    size_t n;
    char bytes[70000];
} caught[64];
static unsigned n_caught;

static bool catch_some(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)from, (void)to;
    enum mesh_kind kind = net_kind(message);
    unsigned slot = (unsigned)net_draw(n, 64);
    /* Mostly one of each kind. */
    if (message.n <= sizeof(caught[0].bytes) && (kind >= MESH_HELLO || net_draw(n, 4) == 0)) {
        caught[slot].n = message.n;
        memcpy(caught[slot].bytes, message.p, message.n);
        n_caught++;
    }
    return net_draw(n, 20) == 0;
}

/* Whatever a message ends with: what is before counts, and has been said already. */
static void messages_that_end_early_do_no_harm(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 5; i++) {
        start_over(i);
        memset(caught, 0, sizeof(caught));
        net.loses = catch_some;
        has_presence = true;
        start_all(3);
        CHECK(knows(all_know_each_other));
        for (unsigned ms = 0; ms < 1000; ms++) {
            say_long((unsigned)net_draw(&net, 3), 50);
            net_step(&net);
        }
        net.loses = NULL;
        CHECK(knows(all_have_all));
        for (unsigned k = 0; k < 3000; k++) {
            unsigned slot = (unsigned)net_draw(&net, 64);
            size_t n = caught[slot].n ? (size_t)net_draw(&net, caught[slot].n) : 0;
            char *copy = malloc(n + 1);
            assert_non_null(copy);
            memcpy(copy, caught[slot].bytes, n);
            peers_receive(nodes[net_draw(&net, 3)].peers, (struct span){copy, n});
            free(copy);
        }
        say_each(3);
        CHECK(knows(all_have_all));
        CHECK(lost_by_all() == 0);
    }
}

static void random_bytes_are_rejected(void **state)
{
    (void)state;
    start_with_ghost(0);
    uint64_t before = metric(0, METRIC_MESH_REJECTED);
    for (unsigned k = 0; k < 20000; k++) {
        char bytes[64];
        size_t n = (size_t)net_draw(&net, sizeof(bytes));
        for (size_t b = 0; b < n; b++)
            bytes[b] = (char)net_draw(&net, 256);
        peers_receive(nodes[0].peers, (struct span){bytes, n});
        /* The same behind a head that is right. */
        forge("c", ghost);
        msgpack_sbuffer_write(&forged, bytes, n);
        receive(0);
    }
    assert_true(metric(0, METRIC_MESH_REJECTED) - before > 30000);
    assert_int_equal(lost_by_all(), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(changes_are_told_as_they_come),
        TEST(a_newcomer_is_given_all_in_parts),
        TEST(nobody_is_a_snapshot_too),
        TEST(moves_during_a_snapshot_count),
        TEST(a_lost_request_is_repeated),
        TEST(a_lost_last_part_is_noticed),
        TEST(a_lost_first_part_is_noticed),
        TEST(a_lost_part_in_between_is_noticed),
        TEST(a_second_answer_changes_nothing),
        TEST(a_snapshot_older_than_the_question_does_not_count),
        TEST(what_a_snapshot_includes_and_what_follows_fit_together),
        TEST(who_left_in_a_gap_is_not_kept),
        TEST(the_sockets_of_the_dead_are_void),
        TEST(snapshots_on_a_slow_network_end_true),
        TEST(snapshots_on_a_bad_network_end_true),
        TEST(another_clusters_messages_are_ignored),
        TEST(whoever_has_not_said_hello_is_ignored),
        TEST(its_own_words_are_ignored),
        TEST(only_the_origin_says_what_is_gone),
        TEST(repairs_of_an_unknown_origin_are_not_the_senders),
        TEST(an_emit_without_a_number_in_a_snapshot_is_ignored),
        TEST(a_presence_record_without_a_number_counts_in_snapshots_only),
        TEST(one_that_was_restarted_often_is_still_understood),
        TEST(the_late_words_of_a_start_that_is_over_change_nothing),
        TEST(a_peer_named_by_another_address_is_one_peer),
        TEST(messages_that_end_early_do_no_harm),
        TEST(random_bytes_are_rejected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
