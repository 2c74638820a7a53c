/* The faults of the store in memory, which the simulation relies on. That it keeps the rules shows in test_store.c. */
#include "storeworld.h"

static struct reply r, s;

static bool is_up(unsigned i)
{
    return w.node[i].ups > w.node[i].downs;
}

static unsigned owners(const char *pid)
{
    return store_memory_owners(w.memory, span_of(pid), reactor_now_ms(w.reactor));
}

static void test_away(void **state)
{
    (void)state;
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    store_memory_set_away(w.memory, true);
    WAIT_FOR(!is_up(0) && !is_up(1));
    assert_int_equal(put(0, "pid", 1, SPAN("y"), &r), ERR_STORE);
    assert_int_equal(read_mirror(1, 0, 0, 8, &r), ERR_STORE);
    store_memory_set_away(w.memory, false);
    WAIT_FOR(is_up(0) && is_up(1));
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    ASSERT_TEXT(&r, SPAN("x"));
}

static void test_cut_for_one(void **state)
{
    (void)state;
    store_memory_cut(w.node[0].memory, true);
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    WAIT_FOR(!is_up(0) && r.times);
    assert_int_equal(r.err, ERR_STORE);
    assert_int_equal(owners("pid"), 0);
    assert_int_equal(put(1, "pid", 1, SPAN("x"), &r), 0);
    assert_true(is_up(1));
    store_memory_cut(w.node[0].memory, false);
    WAIT_FOR(is_up(0));
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
}

/* It has taken effect, but who asked cannot know. */
static void test_cut_before_the_answer(void **state)
{
    (void)state;
    store_memory_set_delay(w.node[0].memory, 1000);
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    WAIT_FOR(owners("pid") == 1);
    assert_int_equal(r.times, 0);
    store_memory_cut(w.node[0].memory, true);
    WAIT_FOR(r.times);
    assert_int_equal(r.err, ERR_STORE);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
}

static void test_slow(void **state)
{
    (void)state;
    store_memory_set_delay(w.node[0].memory, 300);
    uint64_t asked_ms = reactor_now_ms(w.reactor);
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    store_memory_set_delay(w.node[0].memory, 0);
    ASK(0, claim, &s, w.node[0].self.origin.tag, SPAN("pid"), on_claim, &s);
    WAIT_FOR(s.times);
    assert_int_equal(r.times, 1);
    assert_true(r.order < s.order);
    assert_int_equal(s.err, 0);
    assert_true(reactor_now_ms(w.reactor) - asked_ms >= 300);
}

static void test_too_slow(void **state)
{
    (void)state;
    store_memory_set_delay(w.node[0].memory, 60000);
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    ASK(0, renew, &s, &w.node[0].self, 1000, on_members, &s);
    WAIT_FOR(r.times && s.times);
    assert_int_equal(r.err, ERR_STORE);
    assert_int_equal(s.err, ERR_STORE);
    assert_int_equal(owners("pid"), 0);
    WAIT_FOR(w.node[0].downs == 1 && is_up(0));
    store_memory_set_delay(w.node[0].memory, 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
}

static void test_full(void **state)
{
    (void)state;
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    store_memory_set_full(w.memory, true);
    assert_int_equal(put(0, "other", 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    assert_int_equal(drop(1, "pid", 2, &r), 0);
    assert_true(is_up(0));
    store_memory_set_full(w.memory, false);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), 0);
}

static void test_lost(void **state)
{
    (void)state;
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    assert_int_equal(append(0, 9, 1, SPAN("x"), &r), 0);
    store_memory_lose(w.memory);
    assert_int_equal(claim(1, 0, "pid", &r), ERR_NOT_FOUND);
    assert_int_equal(read_mirror(1, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 0);
    assert_int_equal(append(0, 10, 1, SPAN("x"), &r), 0);
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(r.n, 1);
}

static void test_killed(void **state)
{
    (void)state;
    store_memory_set_delay(w.node[0].memory, 100);
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    store_memory_kill(&w.node[0].memory);
    for (unsigned i = 0; i < 100; i++)
        world_turn();
    assert_int_equal(r.times, 0);
    assert_int_equal(owners("pid"), 0);
    assert_int_equal(w.node[0].downs, 0);
}

static int start(void **state)
{
    (void)state;
    world_init(NULL);
    for (unsigned i = 0; i < NODES; i++)
        node_open(i);
    WAIT_FOR(is_up(0) && is_up(1) && is_up(2));
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(renew(i, 60000, &r), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_free();
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_away), TEST(test_cut_for_one), TEST(test_cut_before_the_answer),
        TEST(test_slow), TEST(test_too_slow),    TEST(test_full),
        TEST(test_lost), TEST(test_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
