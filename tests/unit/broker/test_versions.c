/* Nodes of two versions of the mesh's format in one cluster, and the keys that nodes set for all to know. */
#include "fakenodes.h"

static void start_as(unsigned i, uint64_t boot, unsigned version)
{
    options.version = version;
    start_node(i, boot);
    options.version = 0;
}

static void name_all(unsigned i, unsigned n)
{
    for (unsigned j = 0; j < n; j++)
        if (i != j)
            net_name(&net, i, j);
    peers_start(nodes[i].peers);
}

/* The first n_old of n nodes speak version 1 only. */
static void start_mixed(unsigned n, unsigned n_old)
{
    for (unsigned i = 0; i < n; i++)
        start_as(i, 1, i < n_old ? 1 : 2);
    for (unsigned i = 0; i < n; i++)
        name_all(i, n);
}

static unsigned version_of(struct span message)
{
    struct mesh_reader r;
    struct mesh_head head;
    assert_int_equal(mesh_read_head(&r, message, &head), 0);
    return head.version;
}

static unsigned pub_version[NET_NODES];

static bool note_versions(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)n, (void)to;
    if (net_kind(message) == MESH_HEARTBEAT)
        pub_version[from] = version_of(message);
    return false;
}

static bool all_publish(unsigned version, unsigned first, unsigned n)
{
    net.loses = note_versions;
    net_run(&net, 120);
    for (unsigned i = first; i < first + n; i++)
        if (pub_version[i] != version)
            return false;
    return true;
}

/* ---- both versions ---- */

static void the_old_and_the_new_understand_each_other(void **state)
{
    (void)state;
    has_presence = true;
    start_mixed(4, 2);
    assert_true(knows(all_know_each_other));
    assert_true(all_publish(1, 0, 4));
    for (unsigned i = 0; i < 4; i++) {
        crowd(i);
        say(i);
        set_key(i, 3, 100 + i);
        say(i);
    }
    assert_true(knows(all_have_all));
    assert_true(knows(all_know_the_truth));
    assert_true(knows(all_know_the_keys));
    assert_int_equal(lost_by_all(), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(metric(i, METRIC_MESH_DUPLICATES), 0); /* a stand-in is none */
        assert_int_equal(metric(i, METRIC_MESH_HOLES), 0);
    }
}

static void anything_at_random(unsigned i)
{
    uint64_t what = net_draw(&net, 4);
    if (what == 0)
        set_key(i, (uint8_t)net_draw(&net, KEYS), net_draw(&net, 4));
    else if (what == 1)
        move_at_random(i);
    else
        say(i);
}

static void the_old_and_the_new_lose_nothing_on_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        start_over(i);
        has_presence = true;
        start_mixed(4, 1 + (unsigned)(i % 3));
        CHECK(knows(all_know_each_other));
        net_set_all(&net, (struct net_way){.loss = 100, .twice = 100, .delay_ms = 20});
        for (unsigned ms = 0; ms < 1500; ms++) {
            if (net_draw(&net, 3) == 0)
                anything_at_random((unsigned)net_draw(&net, 4));
            net_step(&net);
        }
        net_set_all(&net, (struct net_way){0});
        say_each(4);
        CHECK(knows(all_have_all));
        CHECK(knows(all_know_the_truth));
        CHECK(knows(all_know_the_keys));
        CHECK(lost_by_all() == 0);
    }
}

static void the_version_goes_up_when_the_last_old_one_has_left(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_mixed(3, 1);
    assert_true(knows(all_know_each_other));
    assert_true(all_publish(1, 0, 3));
    stop_node(0);
    assert_true(has_alive(1, 1));
    assert_true(has_alive(2, 1));
    assert_true(all_publish(2, 1, 2));
    say(1);
    say(2);
    start_as(0, 2, 1);
    name_all(0, 3);
    assert_true(knows(all_know_each_other));
    assert_true(all_publish(1, 0, 3));
    assert_int_equal(lost_by_all(), 0);
}

/* Under traffic, in either direction. */
static void change_node_by_node(unsigned from, unsigned to)
{
    options.peer_timeout_ms = 300;
    has_presence = true;
    for (unsigned i = 0; i < 3; i++)
        start_as(i, 1, from);
    for (unsigned i = 0; i < 3; i++)
        name_all(i, 3);
    assert_true(knows(all_know_each_other));
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned ms = 0; ms < 400; ms++) {
            anything_at_random((unsigned)net_draw(&net, 3));
            net_step(&net);
        }
        say_each(3);
        assert_true(knows(all_have_all));
        stop_node(k);
        start_as(k, 2, to);
        name_all(k, 3);
        for (unsigned ms = 0; ms < 400; ms++) {
            anything_at_random((k + 1 + (unsigned)net_draw(&net, 2)) % 3);
            net_step(&net);
        }
        assert_true(knows(all_know_each_other));
        say_each(3);
        assert_true(knows(all_have_all));
    }
    assert_true(knows(all_know_the_truth));
    assert_true(knows(all_know_the_keys));
    assert_true(all_publish(to, 0, 3));
    assert_int_equal(lost_by_all(), 0);
}

static void a_cluster_is_upgraded_node_by_node_and_back(void **state)
{
    (void)state;
    change_node_by_node(1, 2);
    start_over(2);
    change_node_by_node(2, 1);
}

static bool loses_new_hellos(struct net *n, unsigned from, unsigned to, struct span message)
{
    note_versions(n, from, to, message);
    return net_kind(message) == MESH_HELLO && version_of(message) == 2;
}

/* Both have heard of each other in the old version: neither would ever say more in the new one. */
static void a_lost_hello_does_not_keep_two_in_the_old_version(void **state)
{
    (void)state;
    net.loses = loses_new_hellos;
    start_all(2);
    assert_true(knows(all_know_each_other));
    net_run(&net, 2000);
    assert_int_equal(pub_version[0], 1);
    assert_int_equal(pub_version[1], 1);
    net.loses = NULL;
    net_run(&net, 11000);
    assert_true(all_publish(2, 0, 2));
    /* Then it is quiet. */
    memset(net.sent, 0, sizeof(net.sent));
    net_run(&net, 30000);
    assert_int_equal(net.sent[MESH_HELLO], 0);
}

/* A real one of version 1 has kept only the stand-in, and repairs with it: the value is in the origin's snapshot. */
static void a_stand_in_where_a_key_was_missed_brings_a_snapshot(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", ghost);
    forge_part(0, true, true);
    receive(0);
    net_run(&net, 300);
    memset(net.sent, 0, sizeof(net.sent));
    forge("c", ghost);
    forge_emit(ghost, 2);
    receive(0);
    forge("c", ghost);
    forge_repaired(ghost, 1, 1, 0);
    record.kind = MESH_PART;
    record.seq = 1;
    record.presence = (struct mesh_presence){.n_rooms = 0};
    forge_record(&record);
    receive(0);
    assert_int_equal(view_of(0, ghost)->next, 3);
    net_run(&net, 120);
    assert_int_equal(net.sent[MESH_ASK_PRESENCE], 1);
    unsigned before = view_of(0, ghost)->voids;
    uint8_t key = 5;
    uint64_t value = 77;
    forge("c", ghost);
    forge_part(2, true, true);
    record.kind = MESH_SET;
    record.seq = 0;
    record.message = set_of(&key, &value, 0);
    forge_record(&record);
    receive(0);
    assert_int_equal(view_of(0, ghost)->voids, before + 1);
    assert_int_equal(view_of(0, ghost)->key[5], 77);
}

/* ---- keys ---- */

static void keys_come_to_all_in_order(void **state)
{
    (void)state;
    start_all(3);
    assert_true(knows(all_know_each_other));
    for (uint64_t value = 1; value <= 50; value++)
        set_key(0, 1, value);
    set_key(0, 2, 9);
    set_key(1, 1, 8);
    net_run(&net, 5);
    assert_true(all_know_the_keys(NULL));
    assert_int_equal(view_of(2, nodes[0].self)->key[1], 50);
    set_key(0, 1, 0);
    net_run(&net, 5);
    assert_int_equal(view_of(2, nodes[0].self)->key[1], 0);
    assert_true(all_know_the_keys(NULL));
}

static void a_late_node_is_told_of_all_keys(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    for (uint8_t k = 0; k < KEYS; k++)
        set_key_long(k % 2, k, k + 1u, 60000); /* more than one part */
    set_key(0, 0, 0);
    start_node(2, 1);
    name_all(2, 3);
    while (nodes[2].readies == 0)
        net_step(&net);
    assert_true(all_know_the_keys(NULL));
}

static void the_keys_of_the_dead_are_void_and_come_back_with_them(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(2);
    assert_true(knows(all_know_each_other));
    set_key(1, 4, 44);
    net_run(&net, 5);
    net_cut_both(&net, 0, 1, true);
    assert_true(has_alive(0, 0));
    assert_int_equal(view_of(0, nodes[1].self)->key[4], 0);
    set_key(1, 5, 55);
    net_cut_both(&net, 0, 1, false);
    assert_true(knows(all_know_each_other));
    assert_true(knows(all_know_the_keys));
    assert_int_equal(lost_by_all(), 0);
}

static void keys_set_in_a_gap_are_known_after_it(void **state)
{
    (void)state;
    options.ring.max_bytes = 2000;
    has_presence = true;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    set_key(0, 7, 1);
    assert_true(knows(all_know_the_keys));
    net_cut(&net, 0, 1, true);
    set_key(0, 7, 2);
    set_key(0, 8, 3);
    for (unsigned i = 0; i < 99; i++) {
        say(0);
        net_run(&net, 1);
    }
    net_cut(&net, 0, 1, false);
    assert_true(knows(all_have_all));
    assert_true(view_of(1, nodes[0].self)->gaps > 0);
    assert_true(knows(all_know_the_keys));
}

static void a_snapshot_that_breaks_off_is_asked_for_again(void **state)
{
    (void)state;
    start_with_ghost(0);
    net_run(&net, 2);
    forge("c", ghost);
    forge_part(0, true, true);
    forge_presence(MESH_ENTER, 0, 1, 0);
    forge_presence(MESH_ENTER, 0, 2, 0);
    forged.size -= 3;
    receive(0);
    assert_true(view_of(0, ghost)->socket[1].is_in);
    assert_false(view_of(0, ghost)->socket[2].is_in);
    /* Not taken for whole: another one counts. */
    forge("c", ghost);
    forge_part(0, true, true);
    forge_presence(MESH_ENTER, 0, 2, 0);
    receive(0);
    assert_false(view_of(0, ghost)->socket[1].is_in);
    assert_true(view_of(0, ghost)->socket[2].is_in);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_old_and_the_new_understand_each_other),
        TEST(the_old_and_the_new_lose_nothing_on_a_bad_network),
        TEST(the_version_goes_up_when_the_last_old_one_has_left),
        TEST(a_cluster_is_upgraded_node_by_node_and_back),
        TEST(a_lost_hello_does_not_keep_two_in_the_old_version),
        TEST(a_stand_in_where_a_key_was_missed_brings_a_snapshot),
        TEST(keys_come_to_all_in_order),
        TEST(a_late_node_is_told_of_all_keys),
        TEST(the_keys_of_the_dead_are_void_and_come_back_with_them),
        TEST(keys_set_in_a_gap_are_known_after_it),
        TEST(a_snapshot_that_breaks_off_is_asked_for_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
