/* Metrics: the text that Prometheus reads, and the buckets of histograms. */
#include "metrics.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct metrics *m;

static int set_up(void **state)
{
    (void)state;
    m = metrics_new();
    return m ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    metrics_free(&m);
    metrics_free(&m);
    return 0;
}

static char *render(void)
{
    size_t n = 0;
    char *text = metrics_render(m, &n);

    assert_non_null(text);
    assert_int_equal(strlen(text), n);
    assert_int_equal(text[n - 1], '\n');
    return text;
}

/* The value of a series as it is written, labels included; fails when there is none or more than one. */
static double value_of(const char *text, const char *series)
{
    size_t n = strlen(series);
    const char *found = NULL;

    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, series, n) == 0 && line[n] == ' ') {
            assert_null(found);
            found = line + n + 1;
        }
    }
    if (!found)
        fail_msg("no series %s", series);
    return strtod(found, NULL);
}

static void renders_counters_and_gauges(void **state)
{
    char *text;

    (void)state;
    metrics_add(m, METRIC_SESSIONS_POLLING, 3);
    metrics_add(m, METRIC_SESSIONS_WEBSOCKET, 5);
    metrics_sub(m, METRIC_SESSIONS_WEBSOCKET, 1);
    metrics_set(m, METRIC_ROOMS, 77);
    metrics_sub(m, METRIC_SOCKETS, 2);
    metrics_add(m, METRIC_BYTES_OUT, UINT64_C(1) << 40);
    assert_int_equal(metrics_get(m, METRIC_SESSIONS_WEBSOCKET), 4);
    text = render();
    assert_true(value_of(text, "starling_sessions{transport=\"polling\"}") == 3);
    assert_true(value_of(text, "starling_sessions{transport=\"websocket\"}") == 4);
    assert_true(value_of(text, "starling_rooms") == 77);
    assert_true(value_of(text, "starling_sockets") == -2);
    assert_true(value_of(text, "starling_sent_bytes_total") == 1099511627776.0);
    assert_true(value_of(text, "starling_emits_total") == 0);
    free(text);
}

static bool is_name(const char *p, size_t n)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_";

    return n > 0 && strspn(p, allowed) >= n && (*p < '0' || *p > '9');
}

/* A sample belongs to the name declared last; a histogram's has one of three endings. */
static void check_sample(const char *line, const char *name, const char *type)
{
    size_t n = strcspn(line, "{ ");
    const char *value = strrchr(line, ' ');
    char *end;

    assert_true(is_name(line, n));
    assert_int_equal(strncmp(line, name, strlen(name)), 0);
    if (strcmp(type, "histogram") == 0) {
        const char *ending = line + strlen(name);
        assert_true(strncmp(ending, "_bucket{", 8) == 0 || strncmp(ending, "_sum ", 5) == 0 ||
                    strncmp(ending, "_count ", 7) == 0);
    } else {
        assert_int_equal(n, strlen(name));
    }
    if (line[n] == '{')
        assert_int_equal(value[-1], '}');
    assert_non_null(value);
    (void)strtod(value + 1, &end);
    assert_true(end > value + 1 && *end == '\0');
}

static void each_name_is_declared_once_before_its_samples(void **state)
{
    char *text = render(), *rest = text, *line;
    char name[64] = "", type[16] = "", seen[8192] = " ";

    (void)state;
    while ((line = strsep(&rest, "\n")) && rest) {
        char help_name[64], unique[80];
        if (sscanf(line, "# HELP %63s %*s", help_name) == 1) {
            snprintf(unique, sizeof unique, " %s ", help_name);
            assert_null(strstr(seen, unique));
            strcat(seen, unique + 1);
            line = strsep(&rest, "\n");
            assert_int_equal(sscanf(line, "# TYPE %63s %15s", name, type), 2);
            assert_string_equal(name, help_name);
            assert_true(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0 ||
                        strcmp(type, "histogram") == 0);
            size_t n = strlen(name);
            assert_int_equal(strcmp(type, "counter") == 0, n > 6 && strcmp(name + n - 6, "_total") == 0);
        } else {
            check_sample(line, name, type);
        }
    }
    assert_non_null(strstr(seen, " starling_loop_turn_seconds "));
    free(text);
}

static double bucket(const char *text, const char *le)
{
    char series[96];

    snprintf(series, sizeof series, "starling_loop_turn_seconds_bucket{le=\"%s\"}", le);
    return value_of(text, series);
}

static void buckets_are_powers_of_four_and_cumulative(void **state)
{
    char *text;

    (void)state;
    metrics_observe_us(m, METRIC_LOOP_TURN, 0);
    metrics_observe_us(m, METRIC_LOOP_TURN, 16);
    metrics_observe_us(m, METRIC_LOOP_TURN, 17);
    metrics_observe_us(m, METRIC_LOOP_TURN, 64);
    metrics_observe_us(m, METRIC_LOOP_TURN, 65);
    metrics_observe_us(m, METRIC_LOOP_TURN, 67108864);
    metrics_observe_us(m, METRIC_LOOP_TURN, 67108865);
    text = render();
    assert_true(bucket(text, "0.000016") == 2);
    assert_true(bucket(text, "0.000064") == 4);
    assert_true(bucket(text, "0.000256") == 5);
    assert_true(bucket(text, "16.777216") == 5);
    assert_true(bucket(text, "67.108864") == 6);
    assert_true(bucket(text, "+Inf") == 7);
    assert_true(value_of(text, "starling_loop_turn_seconds_count") == 7);
    assert_true(value_of(text, "starling_loop_turn_seconds_sum") == 134.217891);
    free(text);
}

static void every_value_falls_below_its_bound(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
        uint64_t bound = UINT64_C(16) << (2 * i);
        struct metric_histogram *h = m->histogram[METRIC_LOOP_TURN];
        uint64_t before = h->bucket[i];
        metrics_observe_us(m, METRIC_LOOP_TURN, i < METRIC_BUCKETS ? bound : UINT64_MAX);
        metrics_observe_us(m, METRIC_LOOP_TURN, i == 0 ? 0 : bound / 4 + 1);
        assert_int_equal(h->bucket[i], before + 2);
    }
}

static void the_process_is_described(void **state)
{
    char *text = render(), *again;
    int extra = dup(0);
    double now = (double)time(NULL), start;

    (void)state;
    start = value_of(text, "process_start_time_seconds");
    assert_true(start > now - 3600 && start < now + 5);
    assert_true(value_of(text, "process_cpu_seconds_total") >= 0);
    assert_true(value_of(text, "process_resident_memory_bytes") > 100000);
    assert_true(extra >= 0);
    again = render();
    assert_true(value_of(again, "process_open_fds") == value_of(text, "process_open_fds") + 1);
    assert_true(value_of(again, "process_start_time_seconds") == start);
    close(extra);
    free(text);
    free(again);
}

static void *render_often(void *arg)
{
    char **last = arg;

    for (int i = 0; i < 50; i++) {
        size_t n;
        free(*last);
        *last = metrics_render(m, &n);
    }
    return NULL;
}

static void another_thread_may_render(void **state)
{
    pthread_t thread;
    char *text = NULL;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, render_often, &text), 0);
    for (uint64_t i = 0; i < 200000; i++) {
        metrics_add(m, METRIC_EMITS, 1);
        metrics_observe_us(m, METRIC_LOOP_TURN, i);
    }
    pthread_join(thread, NULL);
    assert_int_equal(metrics_get(m, METRIC_EMITS), 200000);
    assert_non_null(text);
    assert_true(bucket(text, "+Inf") == value_of(text, "starling_loop_turn_seconds_count"));
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(renders_counters_and_gauges),
        TEST(each_name_is_declared_once_before_its_samples),
        TEST(buckets_are_powers_of_four_and_cumulative),
        TEST(every_value_falls_below_its_bound),
        TEST(the_process_is_described),
        TEST(another_thread_may_render),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
