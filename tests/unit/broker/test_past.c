/* What a node learns when it starts: the past of all origins, living or dead, for its ring; and, told of one node only,
 * of all the others. */
#include "err.h"
#include "fakenodes.h"

static void name_all(unsigned i, unsigned n)
{
    for (unsigned j = 0; j < n; j++)
        if (i != j && nodes[j].peers)
            net_name(&net, i, j);
    peers_start(nodes[i].peers);
}

static void say_many(unsigned i, unsigned n)
{
    while (n-- > 0)
        say(i);
}

/* The ring of node i has these numbers of an origin, and nothing else. */
static void ring_has(unsigned i, struct mesh_origin of, uint64_t first, uint64_t last)
{
    uint64_t got_first = 0, got_last = 0;
    assert_true(ring_range(peers_ring(nodes[i].peers), of, &got_first, &got_last));
    assert_int_equal(got_first, first);
    assert_int_equal(got_last, last);
}

static void ring_has_none(unsigned i, struct mesh_origin of)
{
    uint64_t first, last;
    assert_false(ring_range(peers_ring(nodes[i].peers), of, &first, &last));
}

/* How long it takes from here until the node is ready. */
static uint64_t ready_after(unsigned i)
{
    uint64_t start = net_clock_ms;
    while (!peers_is_ready(nodes[i].peers) && net_clock_ms - start < 20000)
        net_step(&net);
    return net_clock_ms - start;
}

/* ---- the past ---- */

static void a_start_ends_with_the_past_of_the_living_and_the_dead(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(3);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[2].self;
    say_many(0, 3000); /* more than one that is ready already would take */
    say_many(1, 5);
    say_many(2, 200);
    assert_true(knows(all_have_all));
    stop_node(2);
    assert_true(has_alive(0, 1));
    assert_true(has_alive(1, 1));
    start_node(3, 1);
    name_all(3, 3);
    assert_true(ready_after(3) < 1000);
    ring_has(3, nodes[0].self, 1, 3000);
    ring_has(3, nodes[1].self, 1, 5);
    ring_has(3, dead, 1, 200);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(nodes[3].view[i][1].emits, 0); /* nobody was here yet */
    say(0);
    assert_true(has_next(3, nodes[0].self, 3002));
    assert_int_equal(view_of(3, nodes[0].self)->emits, 1);
    assert_int_equal(lost_by_all(), 0);
}

/* The store had what the network had not brought yet: what was between was taken for gone, and who came and went with it. */
static void the_store_may_be_ahead_of_the_living(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    start_node(1, 1);
    name_all(1, 2);
    net_name(&net, 1, 3); /* never answers: node 1 is not ready for long */
    say_many(0, 5);
    net_run(&net, 500);
    assert_false(peers_is_ready(nodes[1].peers));
    ring_has(1, nodes[0].self, 1, 5);
    net_cut(&net, 0, 1, true);
    say_many(0, 5);
    net_run(&net, 2);
    struct span last = ring_get(peers_ring(nodes[0].peers), nodes[0].self, 10);
    assert_int_equal(peers_fill(nodes[1].peers, nodes[0].self, last), 0);
    net_cut(&net, 0, 1, false);
    net_run(&net, 500);
    ring_has(1, nodes[0].self, 1, 10);
}

/* The same before anything had come of it, and with that went who is there. */
static void the_store_may_be_ahead_of_who_had_said_nothing(void **state)
{
    (void)state;
    has_presence = true;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    start_node(1, 1);
    name_all(1, 2);
    net_name(&net, 1, 3); /* never answers */
    net_run(&net, 500);
    assert_int_equal(peers_alive(nodes[1].peers), 1);
    net_cut(&net, 0, 1, true);
    move(0, MESH_ENTER, 0, 0);
    say_many(0, 5);
    net_run(&net, 2);
    struct span last = ring_get(peers_ring(nodes[0].peers), nodes[0].self, 6);
    assert_int_equal(peers_fill(nodes[1].peers, nodes[0].self, last), 0);
    assert_false(peers_is_ready(nodes[1].peers));
    net_cut(&net, 0, 1, false);
    net_run(&net, 500);
    ring_has(1, nodes[0].self, 1, 6);
    assert_true(all_know_the_truth(NULL));
}

static void a_start_under_traffic_misses_nothing_on_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t seed_of = 1; seed_of <= 15; seed_of++) {
        start_over(seed_of);
        start_all(3);
        CHECK(knows(all_know_each_other));
        say_many(0, 2000);
        net_set_all(&net, (struct net_way){.loss = 50, .twice = 100, .delay_ms = 15});
        start_node(3, 1);
        name_all(3, 3);
        for (unsigned ms = 0; ms < 1500; ms++) {
            if (net_draw(&net, 3) == 0)
                say((unsigned)net_draw(&net, nodes[3].readies ? 4 : 3));
            net_step(&net);
        }
        net_set_all(&net, (struct net_way){0});
        say_each(4);
        CHECK(knows(all_have_all));
        CHECK(lost_by_all() == 0);
        for (unsigned i = 0; i < 3; i++)
            ring_has(3, nodes[i].self, 1, peers_newest(nodes[i].peers));
    }
}

static void nobody_who_answers_delays_a_start_only(void **state)
{
    (void)state;
    start_all(1);
    say_many(0, 10);
    net_run(&net, 5);
    start_node(1, 1);
    lose(0, 1, MESH_REPAIRED, 0, 100000);
    name_all(1, 1);
    uint64_t took = ready_after(1);
    assert_true(took >= 500 && took < 1000);
    ring_has_none(1, nodes[0].self);
    say(0);
    assert_true(has_next(1, nodes[0].self, 12));
    assert_int_equal(lost_by_all(), 0); /* nobody here waited for what is before */
    assert_int_equal(metric(1, METRIC_MESH_LOST), 0);
}

static void what_is_gone_everywhere_is_left_out(void **state)
{
    (void)state;
    uint64_t first, last;
    options.ring.max_bytes = 3000;
    start_all(2);
    assert_true(knows(all_know_each_other));
    for (unsigned k = 0; k < 100; k++) {
        say(0);
        net_run(&net, 1);
    }
    assert_true(knows(all_have_all));
    start_node(2, 1);
    name_all(2, 2);
    assert_true(ready_after(2) < 1000);
    assert_true(ring_range(peers_ring(nodes[0].peers), nodes[0].self, &first, &last));
    assert_true(first > 50);
    ring_has(2, nodes[0].self, first, 100);
    assert_int_equal(lost_by_all(), 0);
}

/* Node 2 met node 0 late and did not take its past; node 1 has it. Whichever is asked first. */
static void what_one_does_not_have_is_asked_of_the_next(unsigned last_named)
{
    options.peer_timeout_ms = 300;
    start_node(0, 1);
    start_node(1, 1);
    start_node(2, 1);
    net_name(&net, 0, 1);
    peers_start(nodes[0].peers);
    peers_start(nodes[1].peers);
    peers_start(nodes[2].peers); /* alone, and ready */
    assert_true(has_alive(0, 1));
    say_many(0, 2000);
    net_run(&net, 100);
    net_name(&net, 2, 0);
    net_name(&net, 2, 1);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[0].self;
    say_many(0, 10);
    assert_true(knows(all_have_all));
    ring_has(2, dead, 2001, 2010);
    assert_int_equal(view_of(2, dead)->lost, 2000); /* it was ready before the two met: that is told */
    assert_int_equal(view_of(2, dead)->gaps, 1);
    stop_node(0);
    assert_true(has_alive(1, 1));
    assert_true(has_alive(2, 1));
    start_node(3, 1);
    net_name(&net, 3, 3 - last_named);
    net_name(&net, 3, last_named);
    peers_start(nodes[3].peers);
    assert_true(ready_after(3) < 1000);
    ring_has(3, dead, 1, 2010);
    assert_int_equal(lost_by_all(), 2000);
}

static void the_past_of_the_dead_is_what_anybody_has(void **state)
{
    (void)state;
    what_one_does_not_have_is_asked_of_the_next(1);
    start_over(1);
    what_one_does_not_have_is_asked_of_the_next(2);
}

/* Its first hello waited for long in a queue: what has been said since is past as well. */
static void an_old_hello_does_not_make_the_past_new(void **state)
{
    (void)state;
    start_node(0, 1);
    net_name(&net, 0, 1);
    net_name(&net, 0, 2);
    peers_start(nodes[0].peers);
    net_run(&net, 10);
    forge("c", ghost);
    forge_hello(3, 0);
    receive(0);
    forge("c", ghost);
    forge_hello(3, 3);
    receive(0);
    forge("c", ghost);
    for (uint64_t seq = 1; seq <= 4; seq++)
        forge_emit(ghost, seq);
    receive(0);
    assert_int_equal(view_of(0, ghost)->emits, 1);
    ring_has(0, ghost, 1, 4);
}

/* ---- from the store ---- */

static void fill(unsigned i, struct mesh_origin of, uint64_t first, uint64_t last, int expected)
{
    msgpack_sbuffer_destroy(&forged);
    msgpack_sbuffer_init(&forged);
    for (uint64_t seq = first; seq <= last; seq++)
        forge_emit(of, seq);
    assert_int_equal(peers_fill(nodes[i].peers, of, (struct span){forged.data, forged.size}), expected);
}

static void the_store_gives_the_past_before_a_start(void **state)
{
    (void)state;
    const struct mesh_origin gone = {4, 1};
    start_node(0, 1);
    fill(0, gone, 5, 20, 0);
    fill(0, gone, 18, 30, 0);
    peers_start(nodes[0].peers);
    net_run(&net, 5);
    assert_true(peers_is_ready(nodes[0].peers));
    ring_has(0, gone, 5, 30);
    assert_int_equal(view_of(0, gone)->emits, 0);
}

/* Those who live have what came after it. */
static void the_store_and_the_peers_add_up(void **state)
{
    (void)state;
    start_all(1);
    say_many(0, 50);
    net_run(&net, 5);
    start_node(1, 1);
    fill(1, nodes[0].self, 1, 20, 0);
    name_all(1, 1);
    assert_true(ready_after(1) < 1000);
    ring_has(1, nodes[0].self, 1, 50);
    say(0);
    assert_true(has_next(1, nodes[0].self, 52));
    assert_int_equal(view_of(1, nodes[0].self)->emits, 1);
    assert_int_equal(lost_by_all(), 0);
}

static void the_store_gives_the_tail_of_the_dead(void **state)
{
    (void)state;
    start_with_ghost(0);
    forge("c", ghost);
    forge_emit(ghost, 1);
    receive(0);
    assert_true(has_alive(0, 0));
    fill(0, ghost, 1, 5, 0);
    assert_int_equal(view_of(0, ghost)->emits, 5);
    ring_has(0, ghost, 1, 5);
    assert_int_equal(lost_by_all(), 0);
}

static void what_is_no_record_of_a_past_is_refused(void **state)
{
    (void)state;
    start_node(0, 1);
    fill(0, ghost, 0, 0, ERR_MESH);
    assert_int_equal(peers_fill(nodes[0].peers, ghost, SPAN("garbage")), ERR_MESH);
    assert_int_equal(peers_fill(nodes[0].peers, ghost, (struct span){"", 0}), 0);
    ring_has_none(0, ghost);
    peers_start(nodes[0].peers);
    net_run(&net, 5);
    assert_true(peers_is_ready(nodes[0].peers));
}

/* ---- who knows whom ---- */

static void told_of_one_all_find_all(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NET_NODES; i++)
        start_node(i, 1);
    for (unsigned i = 0; i < NET_NODES; i++) {
        if (i > 0)
            net_name(&net, i, i - 1); /* a chain */
        peers_start(nodes[i].peers);
    }
    assert_true(knows(all_know_each_other));
    for (unsigned i = 0; i < NET_NODES; i++)
        assert_int_equal(net.node[i].channels, NET_NODES - 1);
    say_each(NET_NODES);
    assert_true(knows(all_have_all));
    assert_int_equal(lost_by_all(), 0);
}

static bool told_paths;

static bool watch_for_paths(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)n;
    /* Nodes 0 and 1 are one host, 2 and 3 another. */
    if (from / 2 != to / 2 && memmem(message.p, message.n, "ipc://", 6))
        told_paths = true;
    return false;
}

static void paths_of_a_host_are_told_on_it_only(void **state)
{
    (void)state;
    told_paths = false;
    net.loses = watch_for_paths;
    for (unsigned i = 0; i < 4; i++)
        start_node(i, 1);
    net_name_local(&net, 1, 0);
    net_name_local(&net, 3, 2);
    net_name(&net, 2, 0); /* the only one that leads to the other host */
    for (unsigned i = 0; i < 4; i++)
        peers_start(nodes[i].peers);
    assert_true(knows(all_know_each_other));
    net_run(&net, 1000);
    assert_false(told_paths);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(net.node[i].channels, 3);
        for (uint32_t tag = 1; tag <= 4; tag++)
            assert_true((peers_local_router(nodes[i].peers, tag) != NULL) ==
                        (tag - 1 != i && (tag - 1) / 2 == i / 2));
    }
    say_each(4);
    assert_true(knows(all_have_all));
}

static void one_who_does_not_answer_is_told_of_in_vain(void **state)
{
    (void)state;
    start_with_ghost(0);
    record.kind = MESH_PEERS;
    record.peers.n = 3;
    record.peers.peer[0] = (struct mesh_endpoints){SPAN("tcp://nobody-2"), SPAN("tcp://nobody-2")};
    record.peers.peer[1] =
        (struct mesh_endpoints){span_of(net.node[0].pub), span_of(net.node[0].router)}; /* itself */
    record.peers.peer[2] = (struct mesh_endpoints){span_of(net.node[3].pub), span_of(net.node[3].router)};
    forge("c", ghost);
    forge_record(&record);
    receive(0);
    assert_int_equal(net.node[0].channels, 2);
    receive(0);
    assert_int_equal(net.node[0].channels, 2);
    net_run(&net, 61000);
    assert_int_equal(net.node[0].channels, 1);
}

/* ---- one node, several addresses ---- */

static const struct span alias = {"tcp://localhost-1", 17};

/* They know each other already, and much is on its way, when the other address turns out to be the same node. */
static void nothing_is_lost_when_two_addresses_turn_out_to_be_one_peer(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 10; i++) {
        start_over(i);
        net_set_all(&net, (struct net_way){.delay_ms = 30});
        start_node(0, 1);
        start_node(1, 1);
        net_name(&net, 1, 0);
        peers_start(nodes[0].peers);
        peers_start(nodes[1].peers);
        CHECK(knows(all_know_each_other));
        say_each(2);
        for (unsigned ms = 0; ms < 600; ms++) {
            if (ms == 100)
                assert_int_equal(peers_add_peer(nodes[0].peers, alias, alias), 0);
            say_each(2);
            net_step(&net);
        }
        CHECK(knows(all_have_all));
        CHECK(lost_by_all() == 0);
        CHECK(view_of(0, nodes[1].self)->emits == 601);
        CHECK(net.node[0].channels == 1);
        CHECK(net.node[1].channels == 1);
    }
}

static void two_other_names_of_one_peer_are_one_peer(void **state)
{
    (void)state;
    start_node(0, 1);
    start_node(1, 1);
    assert_int_equal(peers_add_peer(nodes[0].peers, alias, alias), 0);
    assert_int_equal(peers_add_peer(nodes[0].peers, SPAN("tcp://other-1"), SPAN("tcp://other-1")), 0);
    net_name(&net, 0, 1);
    peers_start(nodes[0].peers);
    peers_start(nodes[1].peers);
    assert_true(knows(all_know_each_other));
    net_run(&net, 2000);
    assert_int_equal(net.node[0].channels, 1);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
    /* Also when it starts again. */
    stop_node(1);
    start_node(1, 2);
    peers_start(nodes[1].peers);
    assert_true(knows(all_know_each_other));
    net_run(&net, 2000);
    assert_int_equal(net.node[0].channels, 1);
    say_each(2);
    assert_true(knows(all_have_all));
}

/* As when all hosts are given the same list of addresses. */
static void a_sibling_that_is_named_by_its_address_too_is_one_peer(void **state)
{
    (void)state;
    for (unsigned boot = 1; boot <= 2; boot++) {
        if (boot == 2)
            stop_node(1);
        else
            start_node(0, 1);
        start_node(1, boot);
        for (unsigned i = boot - 1; i < 2; i++)
            for (unsigned j = 0; j < 2; j++)
                net_name(&net, i, j); /* itself as well */
        net_name_local(&net, 1, 0);
        for (unsigned i = boot - 1; i < 2; i++)
            peers_start(nodes[i].peers);
        assert_true(ready_after(1) < 1000); /* nobody waits for itself */
        assert_true(knows(all_know_each_other));
        net_run(&net, 1000);
        say_each(2);
        assert_true(knows(all_have_all));
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(net.node[i].channels, 1);
            assert_non_null(peers_local_router(nodes[i].peers, 2 - i));
            assert_int_equal(metric(i, METRIC_MESH_DUPLICATES), 0);
        }
    }
    assert_int_equal(lost_by_all(), 0);
}

static bool told_alias;

static bool watch_for_alias(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)n, (void)from, (void)to;
    if (net_kind(message) == MESH_PEERS && memmem(message.p, message.n, alias.p, alias.n))
        told_alias = true;
    return false;
}

/* It may mean something else elsewhere, such as localhost. */
static void another_name_is_not_told_to_others(void **state)
{
    (void)state;
    told_alias = false;
    net.loses = watch_for_alias;
    for (unsigned i = 0; i < 3; i++)
        start_node(i, 1);
    assert_int_equal(peers_add_peer(nodes[0].peers, alias, alias), 0);
    net_name(&net, 2, 0);
    for (unsigned i = 0; i < 3; i++)
        peers_start(nodes[i].peers);
    assert_true(knows(all_know_each_other));
    assert_int_equal(net.node[2].channels, 2);
    assert_false(told_alias);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_start_ends_with_the_past_of_the_living_and_the_dead),
        TEST(the_store_may_be_ahead_of_the_living),
        TEST(the_store_may_be_ahead_of_who_had_said_nothing),
        TEST(a_start_under_traffic_misses_nothing_on_a_bad_network),
        TEST(nobody_who_answers_delays_a_start_only),
        TEST(what_is_gone_everywhere_is_left_out),
        TEST(the_past_of_the_dead_is_what_anybody_has),
        TEST(an_old_hello_does_not_make_the_past_new),
        TEST(the_store_gives_the_past_before_a_start),
        TEST(the_store_and_the_peers_add_up),
        TEST(the_store_gives_the_tail_of_the_dead),
        TEST(what_is_no_record_of_a_past_is_refused),
        TEST(told_of_one_all_find_all),
        TEST(paths_of_a_host_are_told_on_it_only),
        TEST(one_who_does_not_answer_is_told_of_in_vain),
        TEST(nothing_is_lost_when_two_addresses_turn_out_to_be_one_peer),
        TEST(two_other_names_of_one_peer_are_one_peer),
        TEST(a_sibling_that_is_named_by_its_address_too_is_one_peer),
        TEST(another_name_is_not_told_to_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
