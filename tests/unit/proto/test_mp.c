#include "err.h"
#include "mp.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Every signed number that msgpack-c writes comes back, and its bytes are read to their end. */
static void test_signed_numbers(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 64; bits++) {
        for (int64_t near = -2; near <= 2; near++) {
            for (int64_t sign = -1; sign <= 1; sign += 2) {
                int64_t value = (int64_t)((UINT64_C(1) << bits) * (uint64_t)sign + (uint64_t)near);
                struct mp_writer w;
                msgpack_sbuffer b;
                msgpack_sbuffer_init(&b);
                mp_begin(&w, &b);
                mp_put_int(&w, value);
                assert_int_equal(mp_end(&w), 0);
                struct mp_cursor c = mp_open((struct span){b.data, b.size});
                assert_true(mp_get_int(&c) == value);
                assert_false(c.bad);
                assert_int_equal(mp_left(&c), 0);
                msgpack_sbuffer_destroy(&b);
            }
        }
    }
}

static void test_widths(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        int64_t value;
        bool fits_uint;
    } rows[] = {
        {SPAN("\x7f"), 127, true},
        {SPAN("\xe0"), -32, false},
        {SPAN("\xff"), -1, false},
        {SPAN("\xcc\xff"), 255, true},
        {SPAN("\xd0\x80"), -128, false},
        {SPAN("\xd0\x05"), 5, true},
        {SPAN("\xd1\xff\xfe"), -2, false},
        {SPAN("\xd2\x80\0\0\0"), INT32_MIN, false},
        {SPAN("\xd3\x80\0\0\0\0\0\0\0"), INT64_MIN, false},
        {SPAN("\xd3\x7f\xff\xff\xff\xff\xff\xff\xff"), INT64_MAX, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct mp_cursor c = mp_open(rows[i].bytes), u = c;
        assert_true(mp_get_int(&c) == rows[i].value && !c.bad);
        uint64_t value = mp_get_uint(&u);
        assert_true(u.bad != rows[i].fits_uint);
        assert_true(value == (rows[i].fits_uint ? (uint64_t)rows[i].value : 0));
    }
}

/* What is refused leaves the cursor at its end, and everything read after that is empty. */
static void test_refused(void **state)
{
    (void)state;
    static const struct span rows[] = {
        {NULL, 0},
        SPAN("\xc0"),
        SPAN("\xd1\x80"),
        SPAN("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), /* above the greatest signed number */
        SPAN("\xa1"
             "1"),
        SPAN("\x91\x01"),
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct mp_cursor c = mp_open(rows[i]);
        assert_true(mp_get_int(&c) == 0 && c.bad && mp_left(&c) == 0);
        assert_int_equal(mp_get_text(&c, 10).n, 0);
        assert_int_equal(mp_get_array(&c), 0);
        mp_skip(&c, 1);
        assert_int_equal(mp_get_uint(&c), 0);
    }
    struct mp_cursor c = mp_open(SPAN("\x93\x01\x02\x03"));
    assert_int_equal(mp_get_count(&c, 2), 0);
    assert_true(c.bad);
    c = mp_open(SPAN("\xdd\xff\xff\xff\xff\x01"));
    assert_int_equal(mp_get_array(&c), 0);
    assert_true(c.bad);
}

static void test_skip(void **state)
{
    (void)state;
    struct mp_cursor c = mp_open(SPAN("\x92\xa1x\x81\xa1k\x92\xc0\xc3\xd4\x01\x02\x07"));
    mp_skip(&c, 2);
    assert_int_equal(mp_get_uint(&c), 7);
    assert_false(c.bad);
    mp_skip(&c, 1);
    assert_true(c.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed_numbers),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_skip),
    };
    return cmocka_run_group_tests_name("mp", tests, NULL, NULL);
}
