/* Emits that wait: for what another origin has said before, and until a node that is congested can take more. */
#include "fakenodes.h"

/* ---- after another origin's number ---- */

/* A second one written by hand. */
static const struct mesh_origin other = {3, 1}, stranger = {5, 1};

static void keep_alive(void)
{
    forge("c", ghost);
    forge_heartbeat(0);
    receive(0);
}

static void start_with_two(void)
{
    start_with_ghost(0);
    forge("c", other);
    forge_hello(2, 0);
    receive(0);
    forge("c", other);
    forge_heartbeat(0);
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 2);
}

/* of says its number seq, which comes after a number of another one. */
static void emit_after(struct mesh_origin of, uint64_t seq, struct mesh_origin after, uint64_t after_seq)
{
    static char text[64];
    snprintf(text, sizeof(text), "%u-%llu:%llu ", of.tag, (unsigned long long)of.boot,
             (unsigned long long)seq);
    memset(&record.emit, 0, offsetof(struct mesh_emit, to));
    record.kind = MESH_EMIT;
    record.seq = seq;
    record.emit.nsp = SPAN("/");
    record.emit.event = SPAN("\"e\"");
    record.emit.args = span_of(text);
    record.emit.after_origin = after;
    record.emit.after_seq = after_seq;
    forge("c", of);
    forge_record(&record);
    receive(0);
}

static void emit(struct mesh_origin of, uint64_t seq)
{
    emit_after(of, seq, (struct mesh_origin){0, 0}, 0);
}

static uint64_t emits_of(struct mesh_origin of)
{
    return view_of(0, of)->emits;
}

/* How long until so many have come; both peers are heard meanwhile. */
static uint64_t wait_for(struct mesh_origin of, uint64_t emits)
{
    uint64_t start = net_clock_ms;
    while (emits_of(of) < emits && net_clock_ms - start < 20000) {
        if (net_clock_ms % 100 == 0)
            keep_alive();
        net_step(&net);
    }
    return net_clock_ms - start;
}

static void an_emit_waits_for_what_comes_before_it(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 2);
    emit(ghost, 2); /* the order of its origin holds */
    net_run(&net, 50);
    assert_int_equal(emits_of(ghost), 0);
    emit(other, 1);
    assert_int_equal(emits_of(ghost), 0);
    emit(other, 2);
    assert_int_equal(emits_of(ghost), 2);
    assert_true(view_of(0, other)->last_turn < view_of(0, ghost)->last_turn - 1);
    assert_int_equal(metric(0, METRIC_MESH_REPAIRS_ASKED), 0); /* nothing is missing */
    emit_after(ghost, 3, other, 1);
    assert_int_equal(emits_of(ghost), 3);
}

static void others_do_not_wait_along(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 5);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        emit(other, seq);
        assert_int_equal(emits_of(other), seq);
    }
    assert_int_equal(emits_of(ghost), 0);
}

static void it_waits_for_half_a_second_at_most(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 1);
    uint64_t took = wait_for(ghost, 1);
    assert_true(took >= 499 && took <= 610);
    emit(other, 1); /* comes all the same */
    assert_int_equal(emits_of(other), 1);
    assert_int_equal(lost_by_all(), 0);
}

/* As when many clients of a dead node go on at another one, each behind a last word that nobody has heard. */
static void all_who_wait_for_the_dead_wait_once(void **state)
{
    (void)state;
    start_with_two();
    for (unsigned ms = 0; ms < 2000; ms++) {
        if (ms % 100 == 0)
            keep_alive();
        net_step(&net);
    }
    assert_int_equal(peers_alive(nodes[0].peers), 1);
    for (uint64_t seq = 1; seq <= 50; seq++)
        emit_after(ghost, seq, other, 10 + seq);
    uint64_t took = wait_for(ghost, 50);
    assert_true(took >= 499 && took <= 700);
    assert_int_equal(lost_by_all(), 0);
}

/* Those who still say something are worth waiting for. */
static void a_vain_wait_does_not_end_the_next_one(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 1);
    wait_for(ghost, 1);
    emit(other, 1);
    emit_after(ghost, 2, other, 2);
    net_run(&net, 200);
    assert_int_equal(emits_of(ghost), 1);
    emit(other, 2);
    assert_int_equal(emits_of(ghost), 2);
}

static void nobody_waits_for_strangers_and_for_itself(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, stranger, 7);
    emit_after(ghost, 2, nodes[0].self, 7);
    emit_after(ghost, 3, ghost, 9);
    assert_int_equal(emits_of(ghost), 3);
}

static void two_that_wait_for_each_other_go_on(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 1);
    emit_after(other, 1, ghost, 1);
    net_run(&net, 100);
    assert_int_equal(emits_of(ghost) + emits_of(other), 0);
    uint64_t took = wait_for(ghost, 1) + wait_for(other, 1);
    assert_true(took <= 510);
    assert_int_equal(lost_by_all(), 0);
}

static void a_chain_of_waits_ends_when_its_first_comes(void **state)
{
    (void)state;
    start_with_two();
    emit_after(ghost, 1, other, 1);
    emit_after(other, 1, ghost, 0);
    assert_int_equal(emits_of(ghost), 1);
    emit_after(ghost, 2, other, 3);
    emit_after(other, 3, ghost, 1);
    assert_int_equal(emits_of(ghost), 1);
    emit(other, 2);
    assert_int_equal(emits_of(other), 3);
    assert_int_equal(emits_of(ghost), 2);
}

/* Larger than all that may wait. */
static void one_record_may_wait_however_large_it_is(void **state)
{
    (void)state;
    enum { BYTES = 9 << 20 };
    char *text = malloc(BYTES);
    assert_non_null(text);
    memset(text, 'x', BYTES);
    memcpy(text, "4-1:1 ", 6);
    start_with_two();
    memset(&record.emit, 0, offsetof(struct mesh_emit, to));
    record.kind = MESH_EMIT;
    record.seq = 1;
    record.emit.nsp = SPAN("/");
    record.emit.event = SPAN("\"e\"");
    record.emit.args = (struct span){text, BYTES};
    record.emit.after_origin = other;
    record.emit.after_seq = 1;
    forge("c", ghost);
    forge_record(&record);
    receive(0);
    free(text);
    net_run(&net, 50);
    emit(other, 1);
    assert_int_equal(emits_of(ghost), 1);
    assert_int_equal(metric(0, METRIC_MESH_REPAIRS_ASKED), 0);
}

/* ---- congestion ---- */

static void emits_are_held_while_a_node_is_busy(void **state)
{
    (void)state;
    has_presence = true;
    start_all(2);
    assert_true(knows(all_know_each_other));
    nodes[1].is_busy = true;
    crowd(0); /* before the first emit: it is told at once */
    set_key(0, 1, 1);
    net_run(&net, 20);
    assert_true(all_know_the_truth(NULL));
    assert_true(all_know_the_keys(NULL));
    for (unsigned i = 0; i < 100; i++)
        say(0);
    move(0, MESH_EXIT, 1, 0);
    net_run(&net, 3000);
    assert_int_equal(view_of(1, nodes[0].self)->emits, 0);
    assert_int_equal(peers_alive(nodes[1].peers), 1);
    assert_false(peers_is_confirmed(nodes[0].peers, peers_newest(nodes[0].peers)));
    nodes[1].is_busy = false;
    net_run(&net, 110);
    assert_int_equal(view_of(1, nodes[0].self)->emits, 100);
    assert_true(all_know_the_truth(NULL));
    assert_int_equal(lost_by_all(), 0);
    assert_int_equal(metric(1, METRIC_MESH_HOLES), 0);
}

static void what_is_more_than_may_wait_is_repaired_later(void **state)
{
    (void)state;
    start_all(2);
    assert_true(knows(all_know_each_other));
    nodes[1].is_busy = true;
    for (unsigned i = 0; i < 300; i++) { /* 18 MB, of which 8 may wait */
        say_long(0, 60000);
        net_run(&net, 2);
    }
    net_run(&net, 1000);
    assert_int_equal(metric(1, METRIC_MESH_REPAIRS_ASKED), 0);
    nodes[1].is_busy = false;
    assert_true(knows(all_have_all));
    assert_int_equal(view_of(1, nodes[0].self)->emits, 300);
    assert_int_equal(lost_by_all(), 0);
}

static void busy_and_not_nothing_is_lost_on_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        start_over(i);
        has_presence = true;
        start_all(3);
        CHECK(knows(all_know_each_other));
        net_set_all(&net, (struct net_way){.loss = 100, .twice = 100, .delay_ms = 20});
        for (unsigned ms = 0; ms < 3000; ms++) {
            if (net_draw(&net, 300) == 0)
                nodes[net_draw(&net, 3)].is_busy ^= true;
            if (net_draw(&net, 4) == 0)
                say_long((unsigned)net_draw(&net, 3), net_draw(&net, 20) ? 100 : 60000);
            if (net_draw(&net, 20) == 0)
                move_at_random((unsigned)net_draw(&net, 3));
            net_step(&net);
        }
        net_set_all(&net, (struct net_way){0});
        for (unsigned k = 0; k < 3; k++)
            nodes[k].is_busy = false;
        say_each(3);
        CHECK(knows(all_have_all));
        CHECK(knows(all_know_the_truth));
        CHECK(lost_by_all() == 0);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_emit_waits_for_what_comes_before_it),
        TEST(others_do_not_wait_along),
        TEST(it_waits_for_half_a_second_at_most),
        TEST(all_who_wait_for_the_dead_wait_once),
        TEST(a_vain_wait_does_not_end_the_next_one),
        TEST(nobody_waits_for_strangers_and_for_itself),
        TEST(two_that_wait_for_each_other_go_on),
        TEST(a_chain_of_waits_ends_when_its_first_comes),
        TEST(one_record_may_wait_however_large_it_is),
        TEST(emits_are_held_while_a_node_is_busy),
        TEST(what_is_more_than_may_wait_is_repaired_later),
        TEST(busy_and_not_nothing_is_lost_on_a_bad_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
