/* The rate and the quantiles of calls. */
#include "meter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_rate_is_of_the_last_whole_second(void **state)
{
    struct meter m = {.second = 0};
    (void)state;
    for (unsigned i = 0; i < 7; i++)
        meter_begun(&m, 5000 + i * 100);
    assert_int_equal(meter_rate(&m, 5900), 0);
    assert_int_equal(meter_rate(&m, 6000), 7);
    meter_begun(&m, 6500);
    assert_int_equal(meter_rate(&m, 6999), 7);
    assert_int_equal(meter_rate(&m, 7000), 1);
    assert_int_equal(meter_rate(&m, 8000), 0);
    meter_begun(&m, 20000);
    assert_int_equal(meter_rate(&m, 22000), 0); /* a second in which nothing began */
}

static void assert_close(uint64_t found, uint64_t wanted)
{
    uint64_t off = found > wanted ? found - wanted : wanted - found;
    assert_true(off * 100 <= wanted * 7);
}

static void test_quantiles_of_any_size(void **state)
{
    (void)state;
    for (uint64_t us = 1; us < UINT64_C(1) << 35; us = us * 3 + 1) {
        struct meter m = {.second = 0};
        meter_took(&m, 1000, us);
        assert_close(meter_quantile_us(&m, 1000, 50), us);
        assert_close(meter_quantile_us(&m, 1000, 99), us);
    }
    struct meter m = {.second = 0};
    meter_took(&m, 1000, UINT64_MAX);
    assert_true(meter_quantile_us(&m, 1000, 50) > UINT64_C(1) << 35);
    meter_took(&m, 1000, 0);
    assert_int_equal(meter_quantile_us(&m, 1000, 50), 1); /* 0 says that there is none */
}

static void test_quantiles_tell_the_many_from_the_few(void **state)
{
    struct meter m = {.second = 0};
    (void)state;
    assert_int_equal(meter_quantile_us(&m, 0, 50), 0);
    for (unsigned i = 0; i < 980; i++)
        meter_took(&m, 1000, 200);
    for (unsigned i = 0; i < 20; i++)
        meter_took(&m, 1000, 900000);
    assert_close(meter_quantile_us(&m, 1000, 50), 200);
    assert_close(meter_quantile_us(&m, 1000, 98), 200);
    assert_close(meter_quantile_us(&m, 1000, 99), 900000);
}

static void test_old_answers_are_forgotten(void **state)
{
    struct meter m = {.second = 0};
    (void)state;
    meter_took(&m, METER_WINDOW_MS, 100);
    meter_took(&m, 2 * METER_WINDOW_MS, 5000);
    assert_close(meter_quantile_us(&m, 2 * METER_WINDOW_MS, 50), 100);
    assert_close(meter_quantile_us(&m, 3 * METER_WINDOW_MS, 50), 5000);
    assert_int_equal(meter_quantile_us(&m, 4 * METER_WINDOW_MS, 50), 0);
    meter_took(&m, 5 * METER_WINDOW_MS, 100);
    assert_int_equal(meter_quantile_us(&m, 9 * METER_WINDOW_MS, 50), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_is_of_the_last_whole_second),
        cmocka_unit_test(test_quantiles_of_any_size),
        cmocka_unit_test(test_quantiles_tell_the_many_from_the_few),
        cmocka_unit_test(test_old_answers_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
