/* Emits with a key: once, whoever repeats them where, also while the node that had them first dies. */
#include "fakegateway.h"

static uint64_t emits(unsigned a, const char *key, bool again, enum agent_confirm confirm)
{
    record_of(AGENT_EMIT)->nsp = SPAN("/");
    say.event = SPAN("once");
    agent_set_args(&say, SPAN("[]"));
    agent_with(&say, AGENT_F_KEY)->key = span_of(key);
    agent_with(&say, AGENT_F_CONFIRM)->confirm = confirm;
    if (again)
        agent_with(&say, AGENT_F_AGAIN)->again = true;
    return asks(a);
}

/* How many of its clients' clients 0 of this node has heard, since this was asked for last. */
static unsigned events_at(unsigned node)
{
    struct sink_frame frame;
    unsigned n = 0;
    sink_flush(nodes[node].k[0].session);
    while (sink_next(&nodes[node].k[0], &frame))
        n += memmem(frame.payload.p, frame.payload.n, "\"once\"", 6) != NULL;
    return n;
}

static void a_repeat_is_answered_as_the_first_was(void **state)
{
    (void)state;
    char first[AGENT_EMIT_ID_BYTES + 1];
    hello(0, 0, "same");
    hello(1, 1, "same");
    hello(2, 1, "other");
    uint64_t id = emits(0, "k", false, AGENT_CONFIRM_MESH);
    run(300);
    assert_true(hears(0, AGENT_OK, id) && !heard.repeated);
    snprintf(first, sizeof(first), "%.*s", (int)heard.emit.n, heard.emit.p);
    assert_int_equal(events_at(1), 1);
    for (unsigned a = 0; a < 2; a++) {
        for (unsigned confirm = AGENT_CONFIRM_NONE; confirm <= AGENT_CONFIRM_MESH; confirm++) {
            id = emits(a, "k", a, (enum agent_confirm)confirm);
            run(300);
            assert_true(hears(a, AGENT_OK, id) && heard.repeated);
            /* Here origins have one name, and elsewhere that of their node. */
            if (a == 0)
                assert_true(span_eq(heard.emit, span_of(first)));
            else
                assert_memory_equal(heard.emit.p, "node-0-000000000001:", 20);
        }
    }
    assert_int_equal(events_at(1), 0);
    id = emits(2, "k", true, AGENT_CONFIRM_NONE);
    run(300);
    assert_true(hears(2, AGENT_OK, id) && !heard.repeated);
    assert_int_equal(events_at(1), 1);
}

/* The agent's emit has come to one node only when its own dies; it goes on at node 2. */
static void dies_when_one_has_it(unsigned who, enum agent_confirm confirm)
{
    hello(0, 0, "same");
    hello(1, 2, "same");
    net_cut(&net, 0, 3 - who, true);
    emits(0, "k", false, confirm);
    net_run(&net, 3);
    assert_int_equal(events_at(who), 1);
    kill_node(0);
    fakes[0].is_mute = true;
}

/* Its emit has come to one node only when its own dies, and the agent is quicker than the news. */
static void a_repeat_waits_for_the_last_words_of_the_dead(void **state)
{
    (void)state;
    dies_when_one_has_it(1, AGENT_CONFIRM_MESH);
    uint64_t id = emits(1, "k", true, AGENT_CONFIRM_MESH), other = emits(1, "new", true, AGENT_CONFIRM_NONE);
    net_run(&net, 20);
    assert_false(hears(1, AGENT_OK, id));
    run(2000);
    assert_true(hears(1, AGENT_OK, id) && heard.repeated);
    assert_true(hears(1, AGENT_OK, other) && !heard.repeated);
    assert_int_equal(events_at(1), 1); /* the new one */
    assert_int_equal(events_at(2), 2);
}

/* Its emit has come to its next node only when its own dies: what it says there does not overtake it elsewhere. */
static void what_follows_a_repeat_comes_behind_it(void **state)
{
    (void)state;
    dies_when_one_has_it(2, AGENT_CONFIRM_NONE);
    uint64_t id = emits(1, "k", true, AGENT_CONFIRM_NONE), other = emits(1, "new", false, AGENT_CONFIRM_NONE);
    run(300);
    assert_int_equal(events_at(1), 0);
    assert_false(hears(1, AGENT_OK, id));
    run(2000);
    assert_true(hears(1, AGENT_OK, id) && heard.repeated);
    assert_true(hears(1, AGENT_OK, other) && !heard.repeated);
    assert_int_equal(events_at(1), 2);
    assert_int_equal(events_at(2), 1); /* the new one */
}

/* A node that hears the others, and never gets what one of them said before, holds nobody up for good. */
static void a_repeat_waits_for_others_for_a_while(void **state)
{
    (void)state;
    hello(0, 0, "same");
    hello(1, 2, "same");
    net_cut(&net, 0, 1, true);
    net_cut(&net, 1, 0, true);
    run(2000);
    emits(0, "k", false, AGENT_CONFIRM_NONE);
    net_run(&net, 3);
    net_cut(&net, 2, 1, true); /* it says that it is there, and hears nothing */
    uint64_t id = emits(1, "k", true, AGENT_CONFIRM_NONE);
    run(1000);
    assert_false(hears(1, AGENT_OK, id));
    run(2500);
    assert_true(hears(1, AGENT_OK, id) && heard.repeated);
}

/* The agent has taken its node for dead, and that goes on in the end: it must not say then what it was told before. */
static void a_repeat_overtakes_a_node_that_was_slow(void **state)
{
    (void)state;
    greet(0, 0, "same", "one", 1 << 20);
    fakes[0].is_mute = true;
    net.node[0].is_frozen = true;
    greet(1, 2, "same", "one", 1 << 20);
    uint64_t id = emits(1, "k", true, AGENT_CONFIRM_NONE);
    run(150);
    assert_false(hears(1, AGENT_OK, id));
    net.node[0].is_frozen = false;
    run(300);
    assert_true(hears(1, AGENT_OK, id) && !heard.repeated);
    /* Agent 0's connection at node 0 has ended before that. */
    assert_true(hears(0, AGENT_BYE, 0) && span_eq(heard.code, SPAN("replaced")));
    emits(0, "k", false, AGENT_CONFIRM_NONE);
    run(300);
    assert_int_equal(events_at(1), 1);
}

static void a_first_emit_does_not_wait(void **state)
{
    (void)state;
    hello(0, 0, "same");
    uint64_t id = emits(0, "k", false, AGENT_CONFIRM_NONE);
    net_run(&net, 1);
    assert_true(hears(0, AGENT_OK, id));
    /* Nor is anybody asked when the key is known. */
    uint64_t newest = peers_newest(nodes[0].peers);
    id = emits(0, "k", true, AGENT_CONFIRM_NONE);
    net_run(&net, 1);
    assert_true(hears(0, AGENT_OK, id) && heard.repeated);
    assert_int_equal(peers_newest(nodes[0].peers), newest);
}

/* Of all that wait together the others are asked once. */
static void many_repeats_wait_once(void **state)
{
    (void)state;
    hello(0, 0, "same");
    net_run(&net, 10);
    uint64_t newest = peers_newest(nodes[0].peers), last = 0;
    char key[16];
    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        last = emits(0, key, true, AGENT_CONFIRM_NONE);
    }
    run(300);
    assert_true(hears(0, AGENT_OK, last));
    assert_int_equal(peers_newest(nodes[0].peers), newest + 200 + 1);
    assert_int_equal(events_at(1), 200);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_gateways, tear_down_gateways)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_repeat_is_answered_as_the_first_was),
        TEST(a_repeat_waits_for_the_last_words_of_the_dead),
        TEST(what_follows_a_repeat_comes_behind_it),
        TEST(a_repeat_waits_for_others_for_a_while),
        TEST(a_repeat_overtakes_a_node_that_was_slow),
        TEST(a_first_emit_does_not_wait),
        TEST(many_repeats_wait_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
