#include "err.h"
#include "history.h"
#include "mp.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define START_MS UINT64_C(1700000040000) /* the beginning of a minute */

static struct history *h;

static int set_up(void **state)
{
    (void)state;
    h = history_new();
    return h ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    history_free(&h);
    return 0;
}

static void add(uint64_t now_ms, uint64_t busy)
{
    static struct machine_tick t;
    t = (struct machine_tick){.elapsed_ms = 1000, .cpu = {.user = busy}};
    history_add(h, now_ms, &t);
}

static double busy(enum history_level level, uint64_t at_ms)
{
    struct history_point p;
    history_get(h, level, at_ms, &p);
    return p.mean[HISTORY_CPU_BUSY];
}

static double most_busy(enum history_level level, uint64_t at_ms)
{
    struct history_point p;
    history_get(h, level, at_ms, &p);
    return p.max[HISTORY_CPU_BUSY];
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= expected * 0.0005))
        fail_msg("%g is not near %g", value, expected);
}

static void test_means_and_maxima(void **state)
{
    (void)state;
    for (unsigned s = 0; s < 120; s++)
        add(START_MS + s * 1000, s);
    for (unsigned s = 0; s < 120; s++)
        assert_true(busy(HISTORY_SECONDS, START_MS + s * 1000 + 999) == s);
    for (unsigned s = 0; s < 120; s += 10) {
        assert_true(busy(HISTORY_TENS, START_MS + s * 1000) == s + 4.5);
        assert_true(most_busy(HISTORY_TENS, START_MS + s * 1000) == s + 9);
    }
    assert_true(busy(HISTORY_MINUTES, START_MS) == 29.5 && most_busy(HISTORY_MINUTES, START_MS) == 59);
    assert_true(busy(HISTORY_MINUTES, START_MS + 60000) == 89.5);
    assert_true(isnan(busy(HISTORY_SECONDS, START_MS - 1)) &&
                isnan(busy(HISTORY_SECONDS, START_MS + 120000)));
}

static void test_all_values(void **state)
{
    (void)state;
    static struct machine_tick t;
    t = (struct machine_tick){
        .elapsed_ms = 1000,
        .cpu = {.user = 1, .nice = 2, .system = 4, .irq = 8, .iowait = 16, .steal = 32},
        .load = {.one = 64},
        .memory = {.total = 10240, .available = 2048, .swap_used = 4096},
        .has_pressure = true,
        .pressure = {.cpu_some = 5, .memory_some = 6, .io_some = 7},
        .n_disks = 2,
        .disks = {{.read_bytes = 100, .write_bytes = 10, .busy = 30},
                  {.read_bytes = 1, .write_bytes = 2, .busy = 20}},
        .n_filesystems = 2,
        .filesystems = {{.used = 25, .available = 75}, {.used = 50, .available = 50}},
        .n_interfaces = 2,
        .interfaces = {{.rx_bytes = 3, .errors = 1}, {.rx_bytes = 4, .tx_bytes = 9, .drops = 2}},
        .n_temperatures = 2,
        .temperatures = {{.decicelsius = 455}, {.decicelsius = -5}},
        .n_processes = 2,
        .processes = {{.cpu = 11, .rss_bytes = 1024}, {.cpu = 22, .rss_bytes = 3072}},
    };
    static const double expected[HISTORY_VALUES] = {
        [HISTORY_CPU_BUSY] = 47,     [HISTORY_CPU_USER] = 3,        [HISTORY_CPU_SYSTEM] = 12,
        [HISTORY_CPU_IOWAIT] = 16,   [HISTORY_CPU_STEAL] = 32,      [HISTORY_LOAD_ONE] = 64,
        [HISTORY_MEMORY_USED] = 8,   [HISTORY_SWAP_USED] = 4,       [HISTORY_DISK_READ] = 101,
        [HISTORY_DISK_WRITE] = 12,   [HISTORY_DISK_BUSY] = 30,      [HISTORY_DISK_FULL] = 5000,
        [HISTORY_NET_RX] = 7,        [HISTORY_NET_TX] = 9,          [HISTORY_NET_ERRORS] = 3,
        [HISTORY_PRESSURE_CPU] = 5,  [HISTORY_PRESSURE_MEMORY] = 6, [HISTORY_PRESSURE_IO] = 7,
        [HISTORY_TEMPERATURE] = 455, [HISTORY_NODES_CPU] = 33,      [HISTORY_NODES_RSS] = 4,
    };
    history_add(h, START_MS, &t);
    struct history_point p;
    history_get(h, HISTORY_MINUTES, START_MS, &p);
    for (int i = 0; i < HISTORY_VALUES; i++)
        if (fabs(p.mean[i] - expected[i]) > 0.0005 * expected[i] || p.mean[i] != p.max[i])
            fail_msg("value %d: %g, %g", i, p.mean[i], p.max[i]);
    /* A first tick has no rates; what the machine does not tell is not 0. */
    t.elapsed_ms = 0;
    t.has_pressure = false;
    t.n_temperatures = 0;
    history_add(h, START_MS + 1000, &t);
    history_get(h, HISTORY_SECONDS, START_MS + 1000, &p);
    assert_true(isnan(p.mean[HISTORY_CPU_BUSY]) && isnan(p.mean[HISTORY_NET_RX]));
    assert_true(isnan(p.mean[HISTORY_PRESSURE_IO]) && isnan(p.mean[HISTORY_TEMPERATURE]));
    assert_true(p.mean[HISTORY_LOAD_ONE] == 64 && p.mean[HISTORY_NODES_RSS] == 4);
    history_get(h, HISTORY_MINUTES, START_MS, &p);
    assert_true(p.mean[HISTORY_CPU_BUSY] == 47);
}

/* Small ones to the quarter, all others to one in two thousand, up to what no machine reaches. */
static void test_precision(void **state)
{
    (void)state;
    uint64_t now_ms = START_MS;
    static struct machine_tick t;
    for (double value = 0; value < 9e18; value = value < 600 ? value + 1 : value * 1.013) {
        t = (struct machine_tick){
            .elapsed_ms = 1, .n_interfaces = 1, .interfaces = {{.rx_bytes = (uint64_t)value}}};
        history_add(h, now_ms, &t);
        struct history_point p;
        history_get(h, HISTORY_SECONDS, now_ms, &p);
        if (value <= 512)
            assert_true(p.mean[HISTORY_NET_RX] == value);
        else
            assert_near(p.mean[HISTORY_NET_RX], (double)(uint64_t)value);
        now_ms += 1000;
    }
}

/* What is older than a level is long goes, and nothing of it shows up again behind a gap. */
static void test_bounded(void **state)
{
    (void)state;
    uint64_t oldest, newest;
    assert_false(history_range(h, HISTORY_SECONDS, &oldest, &newest));
    for (unsigned s = 0; s < 700; s++)
        add(START_MS + s * 1000, 1 + s);
    assert_true(history_range(h, HISTORY_SECONDS, &oldest, &newest));
    assert_true(oldest == START_MS + 100 * 1000 && newest == START_MS + 699 * 1000);
    assert_true(isnan(busy(HISTORY_SECONDS, START_MS + 99 * 1000)));
    assert_near(busy(HISTORY_SECONDS, START_MS + 100 * 1000), 101);
    assert_near(busy(HISTORY_TENS, START_MS), 5.5);
    uint64_t later = START_MS + 900 * 1000;
    add(later, 5);
    for (uint64_t at = START_MS + 700 * 1000; at < later; at += 1000)
        assert_true(isnan(busy(HISTORY_SECONDS, at)));
    assert_near(busy(HISTORY_SECONDS, START_MS + 699 * 1000), 700);
    add(START_MS + UINT64_C(1000) * 86400 * 1000, 6);
    assert_true(isnan(busy(HISTORY_MINUTES, later)));
}

static void test_clock_set_back(void **state)
{
    (void)state;
    for (unsigned s = 0; s < 30; s++)
        add(START_MS + s * 1000, 100);
    add(START_MS + 5000, 7);
    uint64_t oldest, newest;
    assert_true(history_range(h, HISTORY_SECONDS, &oldest, &newest) && newest == START_MS + 5000);
    assert_true(busy(HISTORY_SECONDS, START_MS + 5000) == 7 && busy(HISTORY_SECONDS, START_MS + 4000) == 100);
    for (unsigned s = 6; s < 30; s++)
        assert_true(isnan(busy(HISTORY_SECONDS, START_MS + s * 1000)));
    add(START_MS - UINT64_C(100000000), 8);
    assert_true(isnan(busy(HISTORY_SECONDS, START_MS + 4000)));
    add(START_MS + 6000, 9);
    assert_true(isnan(busy(HISTORY_SECONDS, START_MS + 4000)) && busy(HISTORY_SECONDS, START_MS + 6000) == 9);
}

static void write_all(msgpack_sbuffer *b)
{
    for (int level = 0; level < HISTORY_LEVELS; level++)
        assert_int_equal(history_write(h, (enum history_level)level, 0, UINT64_MAX, b), 0);
}

static void test_stored_and_read(void **state)
{
    (void)state;
    msgpack_sbuffer once, twice;
    msgpack_sbuffer_init(&once);
    msgpack_sbuffer_init(&twice);
    write_all(&once);
    assert_int_equal(once.size, 0);
    for (unsigned s = 0; s < 5000; s += 1 + s % 3)
        add(START_MS + s * 1000, s);
    write_all(&once);
    history_free(&h);
    h = history_new();
    assert_int_equal(history_read(h, START_MS + 5000 * 1000, (struct span){once.data, once.size}), 0);
    write_all(&twice);
    assert_true(span_eq((struct span){once.data, once.size}, (struct span){twice.data, twice.size}));
    msgpack_sbuffer_destroy(&once);
    msgpack_sbuffer_destroy(&twice);
}

/* Point by point, as a store gets it, with what happened meanwhile kept and nothing from the future. */
static void test_stored_by_points(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    for (unsigned s = 0; s < 100; s++) {
        add(START_MS + s * 1000, 200 + s);
        assert_int_equal(history_write(h, HISTORY_SECONDS, START_MS + s * 1000, UINT64_MAX, &b), 0);
    }
    history_free(&h);
    h = history_new();
    add(START_MS + 50 * 1000, 3);
    assert_int_equal(history_read(h, START_MS + 80 * 1000, (struct span){b.data, b.size}), 0);
    assert_true(busy(HISTORY_SECONDS, START_MS) == 200 && busy(HISTORY_SECONDS, START_MS + 50 * 1000) == 3);
    assert_true(busy(HISTORY_SECONDS, START_MS + 80 * 1000) == 280);
    assert_true(isnan(busy(HISTORY_SECONDS, START_MS + 81 * 1000)));
    msgpack_sbuffer_destroy(&b);
}

static void append_block(msgpack_sbuffer *b, uint64_t version, uint64_t step_ms, uint64_t values,
                         uint64_t first, size_t bytes)
{
    static char points[4096];
    struct mp_writer w;
    memset(points, 0, sizeof(points));
    for (size_t i = 1; i < bytes; i += 2)
        points[i] = 40; /* ten */
    mp_begin(&w, b);
    mp_put_array(&w, 5);
    mp_put_uint(&w, version);
    mp_put_uint(&w, step_ms);
    mp_put_uint(&w, values);
    mp_put_uint(&w, first);
    mp_put_bin(&w, (struct span){points, bytes});
    assert_int_equal(mp_end(&w), 0);
}

/* Blocks of versions with fewer and with more values, another step, and blocks that are none. */
static void test_foreign_blocks(void **state)
{
    (void)state;
    static const struct {
        uint64_t version, step_ms, values, first;
        size_t bytes;
        int result;
    } rows[] = {
        {1, 1000, 1, 1000, 2, 0},           {1, 1000, 64, 1001, 128, 0},
        {1, 5000, 1, 1000, 3, 0},           {2, 1000, 1, 1000, 2, ERR_VERSION},
        {1, 1000, 0, 1000, 0, ERR_MACHINE}, {1, 1000, 65, 1000, 130, ERR_MACHINE},
        {1, 1000, 2, 1000, 6, ERR_MACHINE}, {1, 10000, 1, 100, 2, ERR_MACHINE},
        {1, 1000, 1, 0, 2, ERR_MACHINE},    {1, 1000, 1, UINT64_MAX, 2, ERR_MACHINE},
        {1, 1000, 1, INT64_MAX, 2, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        msgpack_sbuffer b;
        msgpack_sbuffer_init(&b);
        append_block(&b, rows[i].version, rows[i].step_ms, rows[i].values, rows[i].first, rows[i].bytes);
        int result = history_read(h, 2000000, (struct span){b.data, b.size});
        if (result != rows[i].result)
            fail_msg("row %zu: %d", i, result);
        for (size_t n = 1; n < b.size; n++)
            assert_int_not_equal(history_read(h, 2000000, (struct span){b.data, n}), 0);
        msgpack_sbuffer_destroy(&b);
    }
    struct history_point p;
    history_get(h, HISTORY_SECONDS, 1000000, &p);
    assert_true(p.mean[0] == 10 && isnan(p.mean[1]));
    history_get(h, HISTORY_SECONDS, 1001000, &p);
    assert_true(p.mean[0] == 10 && p.mean[HISTORY_VALUES - 1] == 10);
}

static void test_as_json(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    add(START_MS, 100);
    add(START_MS + 2000, 200);
    assert_int_equal(history_json(h, HISTORY_SECONDS, START_MS, &b), 0);
    json_t *root = json_loadb(b.data, b.size, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "step_ms")), 1000);
    assert_true((uint64_t)json_integer_value(json_object_get(root, "from_ms")) == START_MS);
    json_t *series = json_object_get(root, "cpu_busy");
    assert_int_equal(json_array_size(series), 3);
    assert_true(json_number_value(json_array_get(series, 0)) == 100 &&
                json_is_null(json_array_get(series, 1)));
    assert_null(json_object_get(root, "cpu_busy_max"));
    json_decref(root);
    msgpack_sbuffer_clear(&b);
    assert_int_equal(history_json(h, HISTORY_MINUTES, START_MS, &b), 0);
    root = json_loadb(b.data, b.size, 0, NULL);
    assert_true(json_number_value(json_array_get(json_object_get(root, "cpu_busy"), 0)) == 150);
    assert_true(json_number_value(json_array_get(json_object_get(root, "cpu_busy_max"), 0)) == 200);
    json_decref(root);
    msgpack_sbuffer_clear(&b);
    assert_int_equal(history_json(h, HISTORY_SECONDS, START_MS + 10000, &b), 0);
    root = json_loadb(b.data, b.size, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "cpu_busy")), 0);
    json_decref(root);
    msgpack_sbuffer_destroy(&b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_means_and_maxima), TEST(test_all_values),     TEST(test_precision),
        TEST(test_bounded),          TEST(test_clock_set_back), TEST(test_stored_and_read),
        TEST(test_stored_by_points), TEST(test_foreign_blocks), TEST(test_as_json),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
