/* The mesh's logic between nodes whose network loses, delays, doubles and reorders what they say: finding each other,
 * numbers and their holes, death and return. */
#include "fakenodes.h"

/* ---- finding each other ---- */

static void two_say_hello_at_once(void **state)
{
    (void)state;
    start_all(2);
    assert_false(peers_is_ready(nodes[0].peers));
    assert_true(knows(all_know_each_other));
    net_run(&net, 1000);
    assert_int_equal(net.node[0].channels, 1);
    assert_int_equal(net.node[1].channels, 1);
    assert_int_equal(nodes[0].readies, 1);
    assert_int_equal(nodes[1].readies, 1);
    assert_int_equal(metric(0, METRIC_MESH_PEERS), 1);
    /* One hello in each version and the answers from each side, then silence. */
    assert_true(net.sent[MESH_HELLO] <= 8);
    say_each(2);
    assert_true(knows(all_have_all));
    assert_int_equal(lost_by_all(), 0);
}

static void a_third_is_found_by_its_hello(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    start_node(2, 1);
    net_name(&net, 2, 0);
    net_name(&net, 2, 1);
    peers_start(nodes[2].peers);
    assert_true(knows(all_know_each_other));
    say_each(3);
    assert_true(knows(all_have_all));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(net.node[i].channels, 2);
}

static void a_hello_is_repeated_until_it_is_answered(void **state)
{
    (void)state;
    start_node(0, 1);
    net_name(&net, 0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2000);
    assert_true(net.sent[MESH_HELLO] >= 10 && net.sent[MESH_HELLO] <= 20);
    start_node(1, 1);
    peers_start(nodes[1].peers);
    assert_true(knows(all_know_each_other));
}

static void finds_everybody_on_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        start_over(i);
        net_set_all(&net, (struct net_way){.loss = 300, .twice = 300, .delay_ms = 40});
        start_all(4);
        CHECK(knows(all_know_each_other));
    }
}

static void a_single_node_is_ready_at_once(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
    assert_true(peers_is_ready(nodes[0].peers));
    assert_int_equal(nodes[0].readies, 1);
    assert_int_equal(peers_alive(nodes[0].peers), 0);
    assert_true(peers_is_confirmed(nodes[0].peers, say(0)));
}

/* How long it takes from here until the node is ready. */
static uint64_t ready_after(unsigned i)
{
    uint64_t start = net_clock_ms;
    while (!peers_is_ready(nodes[i].peers) && net_clock_ms - start < 20000)
        net_step(&net);
    return net_clock_ms - start;
}

static void a_named_peer_that_never_answers_delays_the_start_only(void **state)
{
    (void)state;
    start_node(0, 1);
    net_name(&net, 0, 1);
    peers_start(nodes[0].peers);
    uint64_t took = ready_after(0);
    assert_true(took >= 5000 && took <= 5200);
    net_run(&net, 3000);
    assert_int_equal(nodes[0].readies, 1);
}

static void who_is_heard_in_one_direction_only_delays_the_start_only(void **state)
{
    (void)state;
    for (unsigned to = 0; to < 2; to++) {
        start_over(1);
        net_cut(&net, 1 - to, to, true);
        start_all(2);
        uint64_t took = ready_after(0);
        assert_true(took >= 5000 && took <= 5200);
        assert_true(ready_after(1) <= 200);
    }
}

static void readiness_stays(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    stop_node(1);
    assert_true(has_alive(0, 0));
    net_run(&net, 3000);
    assert_true(peers_is_ready(nodes[0].peers));
    assert_int_equal(nodes[0].readies, 1);
}

static void a_late_node_is_ready_when_it_knows_who_is_there(void **state)
{
    (void)state;
    has_presence = true;
    start_all(2);
    assert_true(knows(all_know_each_other));
    crowd(0);
    crowd(1);
    start_node(2, 1);
    net_name(&net, 2, 0);
    net_name(&net, 2, 1);
    net.way[0][2].delay_ms = 200;
    net.keeps_order = true;
    peers_start(nodes[2].peers);
    while (nodes[2].readies == 0)
        net_step(&net);
    assert_true(all_know_the_truth(NULL));
}

/* ---- numbered records ---- */

static void a_turn_is_one_message_of_a_bounded_size(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    for (unsigned i = 0; i < 100; i++)
        say(0);
    net_run(&net, 5);
    assert_int_equal(net.sent[MESH_EMIT], 1);
    assert_true(knows(all_have_all));
    for (unsigned i = 0; i < 7; i++)
        say_long(0, 1000);
    assert_int_equal(net.sent[MESH_EMIT], 2); /* while the turn goes on, once */
    for (unsigned i = 0; i < 20; i++)
        say_long(0, 1000);
    assert_int_equal(net.sent[MESH_EMIT], 2);
    net_run(&net, 5);
    assert_int_equal(net.sent[MESH_EMIT], 3);
    assert_true(knows(all_have_all));
    net.largest = 0;
    for (unsigned i = 0; i < 1000; i++)
        say_long(0, 1000);
    net_run(&net, 10);
    assert_true(net.largest > 60000 && net.largest <= 65536);
    say_long(0, 70000);
    say_long(0, 10);
    net_run(&net, 10);
    assert_true(all_have_all(NULL));
    assert_true(net.sent[MESH_EMIT] < 25);
    assert_true(net.largest > 70000 && net.largest < 70200);
    assert_int_equal(metric(1, METRIC_MESH_HOLES), 0);
    assert_int_equal(metric(1, METRIC_MESH_DUPLICATES), 0);
}

static void what_was_said_before_a_node_came_is_not_told(void **state)
{
    (void)state;
    start_node(0, 1);
    peers_start(nodes[0].peers);
    for (unsigned i = 0; i < 50; i++)
        say(0);
    net_run(&net, 10);
    start_node(1, 1);
    net_name(&net, 1, 0);
    peers_start(nodes[1].peers);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 52));
    assert_int_equal(view_of(1, nodes[0].self)->emits, 1);
    assert_int_equal(metric(1, METRIC_MESH_HOLES), 0);
}

static void run_with_faults(unsigned n, struct net_way way, unsigned ms)
{
    start_all(n);
    CHECK(knows(all_know_each_other));
    net_set_all(&net, way);
    while (ms-- > 0) {
        if (net_draw(&net, 4) == 0)
            say_long((unsigned)net_draw(&net, n), net_draw(&net, 200));
        net_step(&net);
    }
    net_set_all(&net, (struct net_way){0});
    CHECK(knows(all_have_all));
}

static void all_comes_once_and_in_order_on_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 30; i++) {
        start_over(i);
        run_with_faults(2 + (unsigned)(i % 3), (struct net_way){.loss = 100, .twice = 100, .delay_ms = 20},
                        1500);
        CHECK(lost_by_all() == 0);
    }
}

/* Nearly nothing arrives: what is lost is told, and nothing comes twice. */
static void nothing_is_lost_silently_on_a_hopeless_network(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        start_over(i);
        run_with_faults(3, (struct net_way){.loss = 700, .twice = 300, .delay_ms = 200}, 4000);
        CHECK(knows(all_know_each_other));
    }
}

static void each_may_be_cut_off_for_a_while(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        start_over(i);
        start_all(4);
        CHECK(knows(all_know_each_other));
        for (unsigned round = 0; round < 8; round++) {
            unsigned a = (unsigned)net_draw(&net, 4), b = (unsigned)net_draw(&net, 4);
            net_cut(&net, a, b, true);
            if (net_draw(&net, 2))
                net_cut(&net, b, a, true);
            for (uint64_t ms = net_draw(&net, 4000); ms > 0; ms--) {
                if (ms % 8 == 0)
                    say((unsigned)net_draw(&net, 4));
                net_step(&net);
            }
            net_cut_both(&net, a, b, false);
        }
        say_each(4);
        CHECK(knows(all_have_all));
        CHECK(knows(all_know_each_other));
        CHECK(lost_by_all() == 0);
    }
}

static void the_loss_of_the_last_message_is_noticed(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 2));
    lose(0, 1, MESH_EMIT, 0, 1);
    say(0);
    uint64_t start = net_clock_ms;
    assert_true(has_next(1, nodes[0].self, 3));
    assert_int_equal(to_lose, 0);
    assert_true(net_clock_ms - start <= 110);
    assert_int_equal(metric(1, METRIC_MESH_HOLES), 1);
    assert_int_equal(metric(1, METRIC_MESH_REPAIRS_ASKED), 1);
    assert_int_equal(metric(1, METRIC_MESH_LOST), 0);
}

static void a_hole_is_asked_for_at_once_and_again(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    net_run(&net, 5);
    lose(0, 1, MESH_EMIT, 0, 1);
    say(0);
    net_run(&net, 2);
    assert_int_equal(to_lose, 0);
    lose(1, 0, MESH_REPAIR, 0, 2);
    say(0);
    uint64_t start = net_clock_ms;
    assert_true(has_next(1, nodes[0].self, 4));
    assert_int_equal(to_lose, 0);
    assert_true(net_clock_ms - start <= 320);
    assert_int_equal(metric(1, METRIC_MESH_REPAIRS_ASKED), 3);
}

static void other_origins_do_not_wait_for_a_hole(void **state)
{
    (void)state;
    start_all(3);
    assert_true(knows(all_know_each_other));
    say_each(3);
    assert_true(knows(all_have_all));
    lose(0, 2, MESH_EMIT, 0, 1);
    say(0);
    net_run(&net, 2);
    lose(2, 0, MESH_REPAIR, 0, 1);
    say(0);
    net_run(&net, 5);
    say(1);
    net_run(&net, 3);
    assert_int_equal(view_of(2, nodes[0].self)->next, 2);
    assert_int_equal(view_of(2, nodes[1].self)->next, 3);
    assert_true(knows(all_have_all));
}

static void what_nobody_has_any_more_is_told_as_a_gap_once(void **state)
{
    (void)state;
    options.ring.max_bytes = 2000;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 2));
    lose(0, 1, MESH_EMIT, 0, 99);
    for (unsigned i = 0; i < 99; i++) {
        say(0);
        net_run(&net, 1);
    }
    net_run(&net, 1);
    assert_int_equal(to_lose, 0);
    assert_true(knows(all_have_all));
    const struct view *v = view_of(1, nodes[0].self);
    assert_int_equal(v->gaps, 1);
    assert_true(v->lost > 50 && v->lost < 99);
    assert_int_equal(v->lost + v->emits, 100);
    assert_int_equal(metric(1, METRIC_MESH_LOST), v->lost);
    for (unsigned i = 0; i < 20; i++) {
        say(0);
        net_run(&net, 20);
    }
    assert_true(knows(all_have_all));
    assert_int_equal(v->gaps, 1);
}

/* Nobody answers: the hole is given up after half a second, once, and what waits behind it comes. */
static void a_hole_that_stays_is_told_as_a_gap_once(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 2));
    lose(0, 1, MESH_EMIT, 0, 1);
    say(0);
    net_run(&net, 2);
    lose(1, 0, MESH_REPAIR, 0, 1000);
    uint64_t start = net_clock_ms;
    say(0);
    assert_true(has_next(1, nodes[0].self, 4));
    assert_true(net_clock_ms - start >= 500 && net_clock_ms - start <= 700);
    assert_int_equal(view_of(1, nodes[0].self)->gaps, 1);
    assert_int_equal(view_of(1, nodes[0].self)->lost, 1);
    net_run(&net, 1000);
    say(0);
    assert_true(has_next(1, nodes[0].self, 5));
    assert_int_equal(view_of(1, nodes[0].self)->gaps, 1);
    assert_int_equal(metric(1, METRIC_MESH_LOST), 1);
}

static void what_waits_behind_a_hole_is_bounded_and_comes_in_the_end(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 2));
    lose(0, 1, MESH_EMIT, 0, 1);
    say(0);
    net_run(&net, 2);
    lose(1, 0, MESH_REPAIR, 0, 1);
    /* 12 MB, of which 8 may wait. */
    for (unsigned i = 0; i < 200; i++)
        say_long(0, 60000);
    net_run(&net, 4);
    assert_int_equal(view_of(1, nodes[0].self)->next, 2);
    assert_true(knows(all_have_all));
    assert_int_equal(lost_by_all(), 0);
}

/* Each answer brings up to a megabyte: no number needs to travel more often than a few times. */
static void a_large_hole_is_repaired_without_a_flood(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    say(0);
    assert_true(has_next(1, nodes[0].self, 2));
    lose(0, 1, MESH_EMIT, 0, 100000);
    for (unsigned i = 0; i < 60; i++)
        say_long(0, 60000);
    net_run(&net, 2);
    net.loses = NULL;
    memset(net.sent, 0, sizeof(net.sent));
    assert_true(knows(all_have_all));
    assert_int_equal(lost_by_all(), 0);
    assert_true(net.sent[MESH_REPAIRED] < 180);
}

/* ---- death ---- */

static void silence_is_death(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(3);
    assert_true(knows(all_know_each_other));
    stop_node(1);
    uint64_t start = net_clock_ms;
    assert_true(has_alive(0, 1));
    assert_true(has_alive(2, 1));
    assert_true(net_clock_ms - start <= 400);
    assert_int_equal(metric(0, METRIC_MESH_PEERS), 1);
    assert_true(peers_is_confirmed(nodes[0].peers, say(0)) == false);
    say(0);
    assert_true(knows(all_are_confirmed));
}

static void the_tail_of_a_dead_origin_is_settled_among_those_left(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(4);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[0].self;
    say(0);
    assert_true(knows(all_have_all));
    /* Only one has heard the last ones. */
    net_cut(&net, 0, 1, true);
    net_cut(&net, 0, 2, true);
    for (unsigned i = 0; i < 10; i++)
        say(0);
    net_run(&net, 2);
    stop_node(0);
    assert_true(has_next(1, dead, 12));
    assert_true(has_next(2, dead, 12));
    assert_true(has_next(3, dead, 12));
    net_run(&net, 2000);
    assert_int_equal(lost_by_all(), 0);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(view_of(i, dead)->emits, 11);
}

/* Number 3 died with its origin; one has 4 and 5 behind the hole, another has nothing behind 1, the last has 2. */
static void a_hole_that_died_with_its_origin_ends_the_same_everywhere(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(4);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[0].self;
    bool hears[4][6] = {{0}, {0, 1, 1, 0, 1, 1}, {0, 1, 0, 0, 0, 0}, {0, 1, 1, 0, 0, 0}};
    for (unsigned i = 1; i < 4; i++)
        net_cut(&net, i, 0, true); /* no repair */
    for (unsigned seq = 1; seq <= 5; seq++) {
        for (unsigned i = 1; i < 4; i++)
            net_cut(&net, 0, i, !hears[i][seq]);
        say(0);
        net_run(&net, 3);
    }
    stop_node(0);
    for (unsigned i = 1; i < 4; i++)
        assert_true(has_next(i, dead, 6));
    net_run(&net, 2000);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(view_of(i, dead)->emits, 4);
        assert_int_equal(view_of(i, dead)->lost, 1);
        assert_int_equal(view_of(i, dead)->gaps, 1);
    }
}

/* Each hole of a dead node's tail was waited for on its own. */
static void all_holes_of_the_dead_are_waited_for_once(void **state)
{
    (void)state;
    enum { SAID = 60 };
    options.peer_timeout_ms = 300;
    start_all(3);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[0].self;
    for (unsigned i = 1; i < 3; i++)
        net_cut(&net, i, 0, true); /* no repair */
    for (unsigned seq = 1; seq <= SAID; seq++) {
        for (unsigned i = 1; i < 3; i++)
            net_cut(&net, 0, i, seq % 2 == 0);
        say(0);
        net_run(&net, 3);
    }
    stop_node(0);
    net_run(&net, 300 + 2000);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(view_of(i, dead)->emits, SAID / 2);
        assert_int_equal(view_of(i, dead)->lost, SAID / 2 - 1);
    }
}

/* Others have given them up before, and say so. */
static void holes_that_others_have_given_up_are_not_waited_for(void **state)
{
    (void)state;
    enum { SAID = 60 };
    options.peer_timeout_ms = 300;
    start_all(4);
    assert_true(knows(all_know_each_other));
    struct mesh_origin dead = nodes[0].self;
    for (unsigned i = 1; i < 4; i++)
        net_cut(&net, i, 0, true); /* no repair */
    for (unsigned i = 1; i < 3; i++)
        net_cut_both(&net, i, 3, true);
    for (unsigned seq = 1; seq <= SAID; seq++) {
        for (unsigned i = 1; i < 4; i++)
            net_cut(&net, 0, i, seq % 2 == 0);
        say(0);
        net_run(&net, 3);
    }
    net.node[3].is_frozen = true;
    stop_node(0);
    net_run(&net, 3000);
    assert_int_equal(view_of(1, dead)->emits, SAID / 2);
    net.node[3].is_frozen = false;
    for (unsigned i = 1; i < 3; i++)
        net_cut_both(&net, i, 3, false);
    net_run(&net, 3000);
    assert_int_equal(view_of(3, dead)->emits, SAID / 2);
    assert_int_equal(view_of(3, dead)->lost, SAID / 2 - 1);
}

/* Until nodes 1 to 3 have gone on with a dead origin for the last time. */
static void settle(struct mesh_origin dead)
{
    uint64_t before = 0, now = 1;
    for (unsigned i = 0; i < 60 && before != now; i++) {
        before = now;
        net_run(&net, 1000);
        now = view_of(1, dead)->next + view_of(2, dead)->next + view_of(3, dead)->next;
    }
}

static void survivors_agree_whatever_they_had_heard(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    for (uint64_t i = 1; i <= 30; i++) {
        start_over(i);
        start_all(4);
        CHECK(knows(all_know_each_other));
        struct mesh_origin dead = nodes[0].self;
        for (unsigned j = 1; j < 4; j++)
            net.way[0][j].loss = (unsigned)net_draw(&net, 900);
        for (unsigned ms = 0; ms < 300; ms++) {
            if (net_draw(&net, 3) == 0)
                say(0);
            net_step(&net);
        }
        stop_node(0);
        settle(dead);
        CHECK(view_of(1, dead)->next == view_of(2, dead)->next);
        CHECK(view_of(1, dead)->next == view_of(3, dead)->next);
    }
}

/* wakes_first: its timers run before it reads what has come meanwhile. */
static void freeze(bool wakes_first)
{
    options.peer_timeout_ms = 300;
    has_presence = true;
    start_over(1);
    start_all(3);
    assert_true(knows(all_know_each_other));
    crowd(0);
    crowd(1);
    say_each(3);
    assert_true(knows(all_have_all));
    nodes[1].at->is_frozen = true;
    assert_true(has_alive(0, 1));
    const struct seat none[SOCKETS] = {{0}};
    assert_memory_equal(view_of(0, nodes[1].self)->socket, none, sizeof(none));
    for (unsigned i = 0; i < 500; i++) {
        say(0);
        move_at_random(0);
        net_step(&net);
    }
    if (wakes_first)
        net_turn(nodes[1].at);
    nodes[1].at->is_frozen = false;
    net_run(&net, 2);
    say_each(3);
    assert_true(knows(all_know_each_other));
    assert_true(knows(all_have_all));
    assert_true(knows(all_know_the_truth));
    net_run(&net, 2000);
    assert_true(all_know_the_truth(NULL));
    assert_int_equal(lost_by_all(), 0);
}

/* It has heard nobody meanwhile, and that says nothing about them. */
static void who_was_frozen_does_not_believe_the_others_dead(void **state)
{
    (void)state;
    for (unsigned wakes_first = 0; wakes_first < 2; wakes_first++) {
        options.peer_timeout_ms = 300;
        start_over(1);
        start_all(3);
        assert_true(knows(all_know_each_other));
        unsigned voids = view_of(1, nodes[0].self)->voids;
        nodes[1].at->is_frozen = true;
        net_run(&net, 5000);
        if (wakes_first)
            net_turn(nodes[1].at);
        nodes[1].at->is_frozen = false;
        net_run(&net, 2000);
        assert_int_equal(view_of(1, nodes[0].self)->voids, voids);
        assert_int_equal(peers_alive(nodes[1].peers), 2);
    }
}

static void who_was_frozen_goes_on_without_loss(void **state)
{
    (void)state;
    freeze(false);
    freeze(true);
}

static void who_starts_again_is_another_and_the_old_one_is_dead_at_once(void **state)
{
    (void)state;
    has_presence = true;
    start_all(3);
    assert_true(knows(all_know_each_other));
    crowd(1);
    say_each(3);
    assert_true(knows(all_have_all));
    struct mesh_origin old = nodes[1].self;
    unsigned voids = view_of(0, old)->voids;
    stop_node(1);
    start_node(1, 2);
    net_name(&net, 1, 0);
    net_name(&net, 1, 2);
    peers_start(nodes[1].peers);
    uint64_t start = net_clock_ms;
    while (view_of(0, old)->voids == voids && net_clock_ms - start < 5000)
        net_step(&net);
    assert_true(net_clock_ms - start <= 10);
    const struct seat none[SOCKETS] = {{0}};
    assert_memory_equal(view_of(0, old)->socket, none, sizeof(none));
    assert_true(knows(all_know_each_other));
    assert_true(net_clock_ms - start < 1000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(net.node[i].channels, 2);
    say_each(3);
    assert_true(knows(all_have_all));
    assert_int_equal(lost_by_all(), 0);
}

/* What it had said last was still under way when it started again, and was passed over. */
/* It names nobody, and nobody tells it of others: these find it, and before they take the old one for dead. */
static void who_starts_again_is_greeted_by_those_who_miss_it(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    struct mesh_origin old = nodes[1].self;
    stop_node(1);
    start_node(1, 2);
    peers_start(nodes[1].peers);
    uint64_t start = net_clock_ms;
    assert_true(knows(all_know_each_other));
    assert_true(net_clock_ms - start <= 700);
    assert_int_equal(net.node[0].channels, 1);
    assert_true(view_of(0, old)->voids > 0);
}

static void late_words_of_who_started_again_count(void **state)
{
    (void)state;
    start_all(3);
    assert_true(knows(all_know_each_other));
    struct mesh_origin old = nodes[1].self;
    net_cut(&net, 1, 2, true);
    net.way[1][0].delay_ms = 100;
    for (unsigned i = 0; i < 20; i++)
        say(1);
    net_run(&net, 2);
    stop_node(1);
    net.way[1][0].delay_ms = 0;
    net_cut(&net, 1, 2, false);
    start_node(1, 2);
    net_name(&net, 1, 0);
    net_name(&net, 1, 2);
    peers_start(nodes[1].peers);
    net_run(&net, 2000);
    assert_int_equal(view_of(0, old)->emits, 20);
    assert_int_equal(view_of(2, old)->emits, 20);
    assert_int_equal(peers_alive(nodes[0].peers), 2);
}

static void confirmed_is_what_every_living_peer_has(void **state)
{
    (void)state;
    options.peer_timeout_ms = 300;
    start_all(3);
    assert_true(knows(all_know_each_other));
    uint64_t first = say(0);
    assert_false(peers_is_confirmed(nodes[0].peers, first));
    assert_true(knows(all_are_confirmed));
    assert_false(peers_is_confirmed(nodes[0].peers, first + 1));
    /* One does not get it: not before it is repaired, or that peer is dead. */
    lose(0, 2, MESH_EMIT, 0, 1);
    uint64_t second = say(0);
    net_run(&net, 2);
    lose(2, 0, MESH_REPAIR, 0, 2);
    uint64_t start = net_clock_ms;
    assert_true(knows(all_are_confirmed));
    assert_true(net_clock_ms - start >= 100);
    assert_int_equal(view_of(2, nodes[0].self)->next, second + 1);
    net_cut_both(&net, 0, 2, true);
    uint64_t third = say(0);
    net_run(&net, 150);
    assert_false(peers_is_confirmed(nodes[0].peers, third));
    net_run(&net, 500);
    assert_true(peers_is_confirmed(nodes[0].peers, third));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_say_hello_at_once),
        TEST(a_third_is_found_by_its_hello),
        TEST(a_hello_is_repeated_until_it_is_answered),
        TEST(finds_everybody_on_a_bad_network),
        TEST(a_single_node_is_ready_at_once),
        TEST(a_named_peer_that_never_answers_delays_the_start_only),
        TEST(who_is_heard_in_one_direction_only_delays_the_start_only),
        TEST(readiness_stays),
        TEST(a_late_node_is_ready_when_it_knows_who_is_there),
        TEST(a_turn_is_one_message_of_a_bounded_size),
        TEST(what_was_said_before_a_node_came_is_not_told),
        TEST(all_comes_once_and_in_order_on_a_bad_network),
        TEST(nothing_is_lost_silently_on_a_hopeless_network),
        TEST(each_may_be_cut_off_for_a_while),
        TEST(the_loss_of_the_last_message_is_noticed),
        TEST(a_hole_is_asked_for_at_once_and_again),
        TEST(other_origins_do_not_wait_for_a_hole),
        TEST(what_nobody_has_any_more_is_told_as_a_gap_once),
        TEST(a_hole_that_stays_is_told_as_a_gap_once),
        TEST(all_holes_of_the_dead_are_waited_for_once),
        TEST(holes_that_others_have_given_up_are_not_waited_for),
        TEST(what_waits_behind_a_hole_is_bounded_and_comes_in_the_end),
        TEST(a_large_hole_is_repaired_without_a_flood),
        TEST(silence_is_death),
        TEST(the_tail_of_a_dead_origin_is_settled_among_those_left),
        TEST(a_hole_that_died_with_its_origin_ends_the_same_everywhere),
        TEST(survivors_agree_whatever_they_had_heard),
        TEST(who_was_frozen_does_not_believe_the_others_dead),
        TEST(who_was_frozen_goes_on_without_loss),
        TEST(who_starts_again_is_another_and_the_old_one_is_dead_at_once),
        TEST(who_starts_again_is_greeted_by_those_who_miss_it),
        TEST(late_words_of_who_started_again_count),
        TEST(confirmed_is_what_every_living_peer_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
