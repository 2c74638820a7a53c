#include "../../../nodes/bench.c"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct histogram h;

static int empty(void **state)
{
    (void)state;
    memset(&h, 0, sizeof h);
    return 0;
}

static void small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t value = 0; value < 2 * SLOTS; value++) {
        empty(NULL);
        histogram_add(&h, value);
        assert_int_equal(histogram_quantile(&h, 0.5), value);
    }
}

static void large_values_are_off_by_less_than_2_percent(void **state)
{
    (void)state;
    for (uint64_t value = 2 * SLOTS; value < UINT64_C(1) << 44; value += value / 7 + 1) {
        empty(NULL);
        histogram_add(&h, value);
        uint64_t found = histogram_quantile(&h, 0.99);
        assert_true(found <= value && value - found < value / 50);
    }
}

static void the_largest_value_has_a_place(void **state)
{
    (void)state;
    histogram_add(&h, UINT64_MAX);
    assert_true(histogram_quantile(&h, 0.5) > UINT64_C(1) << (POWERS + 3));
}

static void quantiles_are_of_all_values(void **state)
{
    (void)state;
    assert_int_equal(histogram_quantile(&h, 0.5), 0);
    for (uint64_t value = 1; value <= 100; value++)
        histogram_add(&h, value);
    assert_int_equal(histogram_quantile(&h, 0.5), 51);
    assert_int_equal(histogram_quantile(&h, 0.99), 100);
    histogram_add(&h, 1000000);
    assert_int_equal(histogram_quantile(&h, 0.99), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(small_values_are_exact, empty),
        cmocka_unit_test_setup(large_values_are_off_by_less_than_2_percent, empty),
        cmocka_unit_test_setup(the_largest_value_has_a_place, empty),
        cmocka_unit_test_setup(quantiles_are_of_all_values, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
