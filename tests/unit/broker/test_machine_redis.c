/* Machines in a real redis-server: what one node has written another one knows, within bounds. */
#include "err.h"
#include "machine_redis.h"
#include "must.h"
#include "redis_server.h"
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

enum { MACHINE = 0xabc };

static struct redis_server server;
static struct reactor *reactor;
static struct metrics *metrics;
static struct timer tick_timer;
static struct {
    struct redis *redis;
    struct machines *machines;
    struct machine_redis *kept;
} nodes[2];
static unsigned run; /* each has a cluster of its own */
static char cluster[32];
static uint64_t start_ms; /* of what is told, since 1970 */

static void on_tick(struct timer *t)
{
    (void)t;
    reactor_stop(reactor);
}

static void turn(void)
{
    reactor_timer_set(reactor, &tick_timer, 2);
    assert_int_equal(reactor_run(reactor), 0);
    reactor_timer_cancel(reactor, &tick_timer);
}

#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        uint64_t until_ms_ = reactor_now_ms(reactor) + 60000;                                                \
        while (!(condition) && reactor_now_ms(reactor) < until_ms_)                                          \
            turn();                                                                                          \
        if (!(condition))                                                                                    \
            fail_msg("never came true: %s", #condition);                                                     \
    } while (0)

static void on_up(void *user)
{
    unsigned i = *(unsigned *)user;
    if (nodes[i].kept)
        machine_redis_resume(nodes[i].kept);
}

static void on_down(void *user)
{
    (void)user;
}

static void start(unsigned i)
{
    static unsigned numbers[2] = {0, 1};
    struct redis_options o = {REDIS_OPTIONS_DEFAULT, .name = "test"};
    const char *why;
    char url[128];
    snprintf(url, sizeof(url), "unix://%s", server.socket);
    assert_int_equal(redis_url_parse(url, &o.url, &why), 0);
    nodes[i].machines = machines_new(&(struct machines_options){.max = 0});
    nodes[i].redis = redis_new(reactor, metrics, &o,
                               &(struct redis_user){.user = &numbers[i], .on_up = on_up, .on_down = on_down});
    nodes[i].kept = machine_redis_new(reactor, nodes[i].redis, cluster, nodes[i].machines);
    assert_true(nodes[i].machines && nodes[i].redis && nodes[i].kept);
    WAIT_FOR(redis_is_up(nodes[i].redis));
}

static void stop(unsigned i)
{
    if (!nodes[i].kept)
        return;
    machine_redis_stop(nodes[i].kept);
    machines_free(&nodes[i].machines);
    redis_free(&nodes[i].redis);
    machine_redis_free(&nodes[i].kept);
}

static void tells(uint64_t machine, uint64_t time_ms, msgpack_sbuffer *b)
{
    assert_int_equal(
        machines_take(nodes[0].machines, reactor_now_ms(reactor), time_ms, (struct span){b->data, b->size}),
        0);
    msgpack_sbuffer_destroy(b);
    machine_redis_heard(nodes[0].kept, machine);
}

static void describe(uint64_t machine, const char *name)
{
    static struct machine_description d;
    msgpack_sbuffer b;
    d = (struct machine_description){.machine = machine,
                                     .about = {.name = span_of(name), .interval_ms = 1000}};
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_description(&b, &d), 0);
    tells(machine, start_ms, &b);
}

static void tick(uint64_t machine, uint64_t time_ms, uint64_t busy)
{
    static struct machine_tick t;
    msgpack_sbuffer b;
    t = (struct machine_tick){.machine = machine, .elapsed_ms = 1000, .cpu = {.user = busy}};
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_tick(&b, &t), 0);
    tells(machine, time_ms, &b);
}

/* All that node 0 has heard is there. */
static void flush(void)
{
    for (unsigned i = 0; i < 50; i++) {
        turn();
        machine_redis_hurry(nodes[0].kept);
        WAIT_FOR(!machine_redis_is_writing(nodes[0].kept));
    }
}

/* CLUSTER in it is the cluster's name. */
static long ask(const char *text)
{
    char command[512], out[256] = "";
    const char *at = strstr(text, "CLUSTER");
    snprintf(command, sizeof(command), "%.*s%s%s", (int)(at - text), text, cluster, at + 7);
    assert_true(redis_server_say(&server, command, out, sizeof(out)));
    return strtol(out, NULL, 10);
}

#define HASH "'starling:{CLUSTER}:machine:0000000000000abc'"

static double busy_at(unsigned i, enum history_level level, uint64_t time_ms)
{
    struct machines_row row;
    struct history_point point;
    assert_true(machines_find(nodes[i].machines, MACHINE, reactor_now_ms(reactor), &row));
    history_get(row.history, level, time_ms, &point);
    return point.mean[HISTORY_CPU_BUSY];
}

static bool knows(unsigned i)
{
    struct machines_row row;
    return machines_find(nodes[i].machines, MACHINE, 0, &row);
}

static int set_up(void **state)
{
    (void)state;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    start_ms = ((uint64_t)t.tv_sec - 27 * 3600) / 3600 * 3600000;
    snprintf(cluster, sizeof(cluster), "c%u", ++run);
    start(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stop(0);
    stop(1);
    return 0;
}

static void another_node_knows_the_past(void **state)
{
    (void)state;
    struct machines_row row;
    describe(MACHINE, "a machine");
    for (unsigned i = 0; i < 300; i++)
        tick(MACHINE, start_ms + i * 1000, 100 + i);
    flush();
    start(1);
    WAIT_FOR(knows(1));
    for (unsigned level = 0; level < HISTORY_LEVELS; level++)
        for (unsigned i = 240; i < 300; i += 60)
            assert_true(busy_at(1, (enum history_level)level, start_ms + i * 1000) ==
                        busy_at(0, (enum history_level)level, start_ms + i * 1000));
    assert_true(machines_find(nodes[1].machines, MACHINE, reactor_now_ms(reactor), &row));
    assert_true(row.lost && row.tick.n == 0 && row.description.n > 0);
    /* It was silent for longer than this computer may be up; nobody forgets it for that. */
    assert_int_equal(machines_count(nodes[1].machines), 1);
}

static void what_is_kept_is_bounded(void **state)
{
    (void)state;
    describe(MACHINE, "a machine");
    for (unsigned minute = 0; minute < 26 * 60; minute++) {
        tick(MACHINE, start_ms + minute * UINT64_C(60000), minute % 100);
        if (minute % 15 == 0) {
            machine_redis_hurry(nodes[0].kept);
            WAIT_FOR(!machine_redis_is_writing(nodes[0].kept));
        }
    }
    flush();
    long fields = ask("hlen " HASH);
    assert_true(fields > 100 && fields <= 1 + 21 + 37 + 73);
    assert_true(ask("memory usage " HASH) < 400000);
    assert_true(ask("pttl " HASH) > 23 * 3600 * 1000L);
    assert_true(ask("pttl 'starling:{CLUSTER}:machines'") > 23 * 3600 * 1000L);
    start(1);
    WAIT_FOR(knows(1));
    for (unsigned minute = 3 * 60; minute < 26 * 60; minute += 7)
        assert_true(busy_at(1, HISTORY_MINUTES, start_ms + minute * UINT64_C(60000)) == minute % 100);
}

static void what_redis_has_lost_is_written_again(void **state)
{
    (void)state;
    describe(MACHINE, "a machine");
    for (unsigned i = 0; i < 500; i++)
        tick(MACHINE, start_ms + i * 1000, 100 + i);
    flush();
    long before = ask("hlen " HASH);
    assert_int_equal(ask("del " HASH), 1);
    tick(MACHINE, start_ms + 500 * 1000, 7);
    flush();
    assert_true(ask("hlen " HASH) >= before);
    start(1);
    WAIT_FOR(knows(1));
    assert_true(busy_at(1, HISTORY_SECONDS, start_ms + 3000) == 103);
}

static void redis_may_be_away(void **state)
{
    (void)state;
    describe(MACHINE, "a machine");
    tick(MACHINE, start_ms, 1);
    flush();
    redis_server_kill(&server);
    WAIT_FOR(!redis_is_up(nodes[0].redis));
    for (unsigned i = 1; i < 200; i++)
        tick(MACHINE, start_ms + i * 1000, 100 + i);
    flush();
    redis_server_start(&server);
    WAIT_FOR(redis_is_up(nodes[0].redis));
    flush();
    start(1);
    WAIT_FOR(knows(1));
    assert_true(busy_at(1, HISTORY_SECONDS, start_ms + 199 * 1000) == 299);
    assert_true(busy_at(1, HISTORY_SECONDS, start_ms + 1000) == 101);
}

static void the_machine_that_was_silent_longest_goes(void **state)
{
    (void)state;
    assert_int_equal(ask("eval \"local t = redis.call('TIME')[1] * 1000 for i = 1, 300 do redis.call('ZADD', "
                         "KEYS[1], t + 1000000 + i, string.format('%016x', i)) end return 300\" 1 "
                         "'starling:{CLUSTER}:machines'"),
                     300);
    describe(MACHINE, "a machine");
    tick(MACHINE, start_ms, 1);
    flush();
    assert_int_equal(ask("zcard 'starling:{CLUSTER}:machines'"), 256);
    assert_int_equal(ask("zrank 'starling:{CLUSTER}:machines' 0000000000000abc"), 255);
}

static void what_is_none_of_ours_is_passed_over(void **state)
{
    (void)state;
    describe(MACHINE, "a machine");
    tick(MACHINE, start_ms, 1);
    flush();
    ask("hset " HASH " 1:99 rubbish about rubbish other x");
    ask("zadd 'starling:{CLUSTER}:machines' 9999999999999 short 9999999999999 00000000000000ff");
    start(1);
    WAIT_FOR(knows(1));
    assert_true(busy_at(1, HISTORY_SECONDS, start_ms) == 1);
    assert_int_equal(machines_count(nodes[1].machines), 1);
}

static int start_server(void **state)
{
    (void)state;
    redis_server_new(&server, 0);
    redis_server_start(&server);
    reactor = reactor_new();
    metrics = metrics_new();
    timer_init(&tick_timer, on_tick);
    return reactor && metrics ? 0 : -1;
}

static int stop_server(void **state)
{
    (void)state;
    redis_server_free(&server);
    reactor_free(&reactor);
    metrics_free(&metrics);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(another_node_knows_the_past),
        TEST(what_is_kept_is_bounded),
        TEST(what_redis_has_lost_is_written_again),
        TEST(redis_may_be_away),
        TEST(the_machine_that_was_silent_longest_goes),
        TEST(what_is_none_of_ours_is_passed_over),
    };

    return cmocka_run_group_tests(tests, start_server, stop_server);
}
