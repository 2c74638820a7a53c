#include "err.h"
#include "machines.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define TIME_MS UINT64_C(1700000000000)

static struct machines *m;
static unsigned changes[MACHINES_FORGOTTEN + 1];
static uint64_t last_changed;

static void on_change(void *context, uint64_t machine, enum machines_change change)
{
    assert_ptr_equal(context, changes);
    changes[change]++;
    last_changed = machine;
}

static int set_up(void **state)
{
    (void)state;
    memset(changes, 0, sizeof(changes));
    m = machines_new(&(struct machines_options){.max = 3, .on_change = on_change, .context = changes});
    return m ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    machines_free(&m);
    return 0;
}

static int describe(uint64_t now_ms, uint64_t machine, uint64_t interval_ms, const char *name)
{
    static struct machine_description d;
    msgpack_sbuffer b;
    d = (struct machine_description){.machine = machine,
                                     .about = {.name = span_of(name), .interval_ms = interval_ms}};
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_description(&b, &d), 0);
    int err = machines_take(m, now_ms, TIME_MS + now_ms, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
    return err;
}

static int tick(uint64_t now_ms, uint64_t machine, uint64_t busy)
{
    static struct machine_tick t;
    msgpack_sbuffer b;
    t = (struct machine_tick){.machine = machine, .elapsed_ms = 1000, .cpu = {.user = busy}};
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_tick(&b, &t), 0);
    int err = machines_take(m, now_ms, TIME_MS + now_ms, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
    return err;
}

static void test_keeps_what_was_said_last(void **state)
{
    (void)state;
    struct machines_row row;
    assert_int_equal(describe(0, 7, 1000, "a"), 0);
    assert_int_equal(tick(1, 7, 100), 0);
    assert_int_equal(tick(1001, 7, 300), 0);
    assert_int_equal(describe(1002, 7, 1000, "a"), 0); /* the same again, after a reconnect */
    assert_true(changes[MACHINES_DESCRIBED] == 1 && changes[MACHINES_TICKED] == 2 && last_changed == 7);
    assert_int_equal(describe(1003, 7, 1000, "b"), 0);
    assert_int_equal(changes[MACHINES_DESCRIBED], 2);
    assert_true(machines_count(m) == 1 && machines_find(m, 7, 1503, &row));
    assert_true(!row.lost && row.silent_ms == 500 && row.machine == 7);
    static struct machine_tick t;
    static struct machine_description d;
    assert_int_equal(machine_read_tick(row.tick, &t), 0);
    assert_int_equal(t.cpu.user, 300);
    assert_int_equal(machine_read_description(row.description, &d), 0);
    assert_true(span_eq(d.about.name, SPAN("b")));
    struct history_point p;
    history_get(row.history, HISTORY_TENS, TIME_MS, &p);
    assert_true(p.mean[HISTORY_CPU_BUSY] == 200 && p.max[HISTORY_CPU_BUSY] == 300);
    assert_false(machines_find(m, 8, 0, &row));
}

/* Three seconds, or three intervals of a machine that says less often. */
static void test_lost_and_back(void **state)
{
    (void)state;
    describe(0, 1, 1000, "often");
    describe(0, 2, 5000, "seldom");
    tick(0, 3, 0);
    machines_expire(m, 2999);
    assert_int_equal(changes[MACHINES_LOST], 0);
    machines_expire(m, 3000);
    machines_expire(m, 3001);
    assert_int_equal(changes[MACHINES_LOST], 2);
    struct machines_row row;
    assert_true(machines_find(m, 1, 3001, &row) && row.lost);
    assert_true(machines_find(m, 2, 3001, &row) && !row.lost);
    machines_expire(m, 15000);
    assert_int_equal(changes[MACHINES_LOST], 3);
    tick(15001, 2, 0);
    assert_int_equal(changes[MACHINES_BACK], 1);
    assert_true(machines_find(m, 2, 15001, &row) && !row.lost);
    machines_expire(m, 24 * 3600 * 1000);
    assert_int_equal(changes[MACHINES_FORGOTTEN], 2);
    assert_int_equal(machines_count(m), 1);
}

/* An interval that nobody would choose does not keep a machine alive for ever. */
static void test_claimed_interval(void **state)
{
    (void)state;
    describe(0, 1, INT64_MAX, "x");
    machines_expire(m, 180000);
    assert_int_equal(changes[MACHINES_LOST], 1);
}

static void test_bounded(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(tick(i, i, 0), 0);
    assert_int_equal(tick(4, 4, 0), ERR_LIMIT);
    assert_int_equal(describe(4, 4, 1000, "d"), ERR_LIMIT);
    tick(3000, 1, 0);
    machines_expire(m, 3500);
    assert_int_equal(changes[MACHINES_LOST], 2);
    assert_int_equal(tick(3501, 4, 0), 0); /* in the place of the one that is lost for the longest */
    struct machines_row row;
    assert_true(!machines_find(m, 2, 3501, &row) && machines_find(m, 3, 3501, &row) &&
                machines_find(m, 4, 3501, &row));
    assert_int_equal(machines_count(m), 3);
    machines_at(m, 2, 3501, &row);
    assert_int_equal(row.machine, 4);
}

static void test_refuses(void **state)
{
    (void)state;
    assert_int_equal(machines_take(m, 0, 0, SPAN("\xc1")), ERR_MACHINE);
    assert_int_equal(machines_take(m, 0, 0, SPAN("\x95\x29\x00\x01\x07\x05")), ERR_MACHINE);
    assert_int_equal(machines_take(m, 0, 0, SPAN("\x95\x29\x00\x02\x07\x05")), ERR_VERSION);
    assert_int_equal(machines_take(m, 0, 0, SPAN("\x95\x2a\x00\x01\x07\x05")), ERR_KIND);
    assert_int_equal(machines_count(m), 0);
}

static void test_as_json(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    tick(0, 1, 0);
    describe(2000, 2, 1000, "two");
    tick(2000, 2, 5000);
    machines_expire(m, 3000);
    assert_int_equal(machines_json(m, 3000, &b), 0);
    json_t *root = json_loadb(b.data, b.size, 0, NULL);
    assert_non_null(root);
    json_t *list = json_object_get(root, "machines"), *one = json_array_get(list, 0),
           *two = json_array_get(list, 1);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(one, "state")), "lost");
    assert_true(json_is_null(json_object_get(one, "description")));
    assert_string_equal(json_string_value(json_object_get(two, "id")), "0000000000000002");
    assert_string_equal(json_string_value(json_object_get(two, "state")), "live");
    assert_int_equal(json_integer_value(json_object_get(two, "silent_ms")), 1000);
    json_t *cpu = json_object_get(json_object_get(two, "tick"), "cpu");
    assert_true(json_number_value(json_object_get(cpu, "busy_pct")) == 50);
    assert_string_equal(json_string_value(json_object_get(json_object_get(two, "description"), "name")),
                        "two");
    json_decref(root);
    msgpack_sbuffer_destroy(&b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_keeps_what_was_said_last),
        TEST(test_lost_and_back),
        TEST(test_claimed_interval),
        TEST(test_bounded),
        TEST(test_refuses),
        TEST(test_as_json),
    };
    return cmocka_run_group_tests_name("machines", tests, NULL, NULL);
}
