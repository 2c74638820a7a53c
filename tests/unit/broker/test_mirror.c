/* What of a node's words is in the store, and when; and what others read there. */
#include "fakerecovery.h"

/* All batches of an origin, in order. */
struct read {
    bool is_done;
    int err;
    unsigned batches;
    uint64_t first, last, records;
};

static void on_batches(void *user, int err, const struct store_batch *batch, unsigned n)
{
    struct read *r = user;
    static struct mesh_record record;
    r->is_done = true;
    r->err = err;
    for (unsigned i = 0; i < n; i++) {
        struct mesh_reader reader = {batch[i].records.p, batch[i].records.p + batch[i].records.n};
        while (mesh_read(&reader, &record) == 1) {
            if (r->records++ == 0)
                r->first = record.seq;
            else
                assert_int_equal(record.seq, r->last + 1);
            r->last = record.seq;
        }
        assert_int_equal(r->last, batch[i].last);
    }
    r->batches += n;
}

static bool is_read(void *arg)
{
    return ((struct read *)arg)->is_done;
}

static struct read read_all(unsigned by, struct mesh_origin origin)
{
    struct read r = {.is_done = false};
    nodes[by].store.calls->read(nodes[by].store.store, origin, 0, 100000, on_batches, &r);
    assert_true(net_until(&net, is_read, &r));
    return r;
}

static void test_batches(void **state)
{
    (void)state;
    struct read before = read_all(1, nodes[0].self);
    for (int i = 0; i < 100; i++)
        say_to(0, NULL, i);
    assert_false(mirror_has(nodes[0].mirror, peers_newest(nodes[0].peers)));
    net_run(&net, 3);
    assert_false(mirror_has(nodes[0].mirror, peers_newest(nodes[0].peers)));
    net_run(&net, 10);
    assert_true(mirror_has(nodes[0].mirror, peers_newest(nodes[0].peers)));
    struct read after = read_all(1, nodes[0].self);
    assert_int_equal(after.batches, before.batches + 1);
    assert_int_equal(after.last, peers_newest(nodes[0].peers));
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_MIRROR_BEHIND), 0);
}

static void test_hurry(void **state)
{
    (void)state;
    uint64_t seq = say_to(0, NULL, 1);
    mirror_hurry(nodes[0].mirror);
    net_run(&net, 2);
    assert_true(mirror_has(nodes[0].mirror, seq));
}

/* While one is under way the rest waits; nothing overtakes. */
static void test_slow(void **state)
{
    (void)state;
    store_memory_set_delay(nodes[0].client, 200);
    uint64_t last = 0;
    for (int i = 0; i < 50; i++) {
        last = say_to(0, NULL, i);
        net_run(&net, 10);
    }
    assert_true(metrics_get(nodes[0].w.metrics, METRIC_MIRROR_BEHIND) > 0);
    net_run(&net, 1000);
    assert_true(mirror_has(nodes[0].mirror, last));
    assert_int_equal(read_all(1, nodes[0].self).last, last);
}

/* The ring is what waits; what it has lost by then is counted, and the store has what comes after. */
static void test_away(void **state)
{
    (void)state;
    uint64_t last = say_to(0, NULL, 1);
    settle();
    store_memory_set_away(memory, true);
    settle();
    for (int i = 0; i < 3000; i++)
        last = say_to(0, NULL, i);
    net_run(&net, 5000);
    assert_false(mirror_has(nodes[0].mirror, last));
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_MIRROR_BEHIND), 3000);
    store_memory_set_away(memory, false);
    net_run(&net, 2000);
    assert_true(mirror_has(nodes[0].mirror, last));
    assert_int_equal(read_all(1, nodes[0].self).last, last);
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_MIRROR_LOST), 0);
}

static void test_away_for_too_long(void **state)
{
    (void)state;
    say_to(0, NULL, 1);
    settle();
    store_memory_set_away(memory, true);
    settle();
    for (int i = 0; i < 10; i++)
        say_to(0, NULL, i);
    net_run(&net, KEEP_MS + 1000);
    uint64_t last = say_to(0, NULL, 11);
    store_memory_set_away(memory, false);
    net_run(&net, 5000);
    assert_true(mirror_has(nodes[0].mirror, last));
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_MIRROR_LOST), 10);
}

/* Its answer was lost, so it is sent again. */
static void test_twice(void **state)
{
    (void)state;
    store_memory_set_delay(nodes[0].client, 20);
    uint64_t last = say_to(0, NULL, 1);
    net_run(&net, 5 + 12); /* it has taken effect */
    store_memory_cut(nodes[0].client, true);
    settle();
    store_memory_cut(nodes[0].client, false);
    net_run(&net, 3000);
    assert_true(mirror_has(nodes[0].mirror, last));
    struct read r = read_all(1, nodes[0].self);
    assert_int_equal(r.last, last);
    assert_int_equal(r.records, last - r.first + 1);
}

static void test_full(void **state)
{
    (void)state;
    store_memory_set_full(memory, true);
    uint64_t last = say_to(0, NULL, 1);
    net_run(&net, 1000);
    assert_false(mirror_has(nodes[0].mirror, last));
    store_memory_set_full(memory, false);
    net_run(&net, 1000);
    assert_true(mirror_has(nodes[0].mirror, last));
}

/* It holds the window and not much more. */
static void test_trimmed(void **state)
{
    (void)state;
    for (unsigned s = 0; s < 3 * KEEP_MS / 1000; s++) {
        say_to(0, NULL, 1);
        net_run(&net, 1000);
    }
    struct read r = read_all(1, nodes[0].self);
    uint64_t held = r.last - r.first + 1;
    assert_true(held >= KEEP_MS / 1000 && held < KEEP_MS / 1000 + 5);
}

/* ---- what others read ---- */

static bool has_tail(void *arg)
{
    uint64_t first, last;
    return ring_range(peers_ring(nodes[1].peers), nodes[0].self, &first, &last) && last >= *(uint64_t *)arg;
}

/* Nobody but the store heard the last words of the dead. */
static void test_last_words(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 1);
    net_cut(&net, 0, 1, true);
    net_cut(&net, 0, 2, true);
    uint64_t last = say_to(0, NULL, 1);
    net_run(&net, 20);
    kill_node(0);
    net_cut(&net, 0, 1, false);
    net_cut(&net, 0, 2, false);
    assert_true(net_until(&net, has_tail, &last));
    all_hear();
    assert_string_equal(p->log, "\"news\",1;");
}

static void test_new_nodes_read_the_past(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_go(p);
    for (int i = 1; i <= 3; i++)
        for (unsigned n = 0; n < NODES; n++)
            say_to(n, NULL, 10 * (int)n + i);
    settle();
    for (unsigned n = 0; n < NODES; n++)
        kill_node(n);
    net_run(&net, 1);
    net_clock_ms += 4000; /* their leases are over, what they wrote is not */
    for (unsigned n = 0; n < NODES; n++)
        start_node(n, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    assert_true(person_come(p, 1));
    assert_int_equal(strlen(p->log), 3 * strlen("\"news\",1;") + 6 * strlen("\"news\",11;"));
}

/* A node that it has never heard itself went on after the past was read, and then died. */
static void test_last_words_of_a_node_that_was_never_heard(void **state)
{
    (void)state;
    kill_node(1);
    net_cut_both(&net, 0, 1, true);
    net_cut_both(&net, 0, 2, true);
    start_node(1, 2);
    net_run(&net, 100);
    uint64_t last = say_to(0, NULL, 1);
    net_run(&net, 100);
    kill_node(0);
    assert_true(net_until(&net, has_tail, &last));
}

static void test_nothing_to_read(void **state)
{
    (void)state;
    for (unsigned n = 0; n < NODES; n++)
        kill_node(n);
    store_memory_lose(memory);
    for (unsigned n = 0; n < NODES; n++)
        start_node(n, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hurry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_away_for_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trimmed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_last_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_new_nodes_read_the_past, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_last_words_of_a_node_that_was_never_heard, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_to_read, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
