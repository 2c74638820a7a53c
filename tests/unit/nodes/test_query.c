#include "err.h"
#include "first.h"
#include "query.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void text_is(const char *query, const char *name, const char *expected)
{
    char text[16];
    int n = query_text(span_of(query), name, text, sizeof(text));
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, strlen(expected));
}

static void texts_are_decoded(void **state)
{
    char text[4];
    (void)state;
    text_is("a=1&q=x%2fy+z&q=2", "q", "x/y z");
    text_is("aq=1&q=2", "q", "2");
    text_is("q", "q", "");
    text_is("", "q", "");
    text_is("q=&a=1", "q", "");
    text_is("q=%", "q", "%");
    text_is("q=%4", "q", "%4");
    text_is("q=%zz%41", "q", "%zzA");
    text_is("q=a%26b%3d", "q", "a&b=");
    text_is("q=%c3%a9", "q", "\xc3\xa9");
    assert_int_equal(query_text(SPAN("q=%ff"), "q", text, sizeof(text)), ERR_UTF8);
    assert_int_equal(query_text(SPAN("q=12345"), "q", text, sizeof(text)), ERR_LIMIT);
    assert_int_equal(query_text(SPAN("q=%31234"), "q", text, sizeof(text)), 4);
}

static void numbers_are_numbers(void **state)
{
    uint64_t n = 7;
    (void)state;
    assert_true(query_uint(SPAN("a=1"), "n", 9, &n) && n == 7);
    assert_true(query_uint(SPAN("n=9"), "n", 9, &n) && n == 9);
    static const char *const wrong[] = {"n=", "n=10", "n=-1", "n=1x", "n=%31", "n=99999999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(query_uint(span_of(wrong[i]), "n", 9, &n));
}

/* 1000 keys in a disorder that is the same each time. */
static void offer_all(struct first *f)
{
    char key[8];
    for (unsigned i = 0; i < 1000; i++) {
        int n = snprintf(key, sizeof(key), "%03u", i * 387 % 1000);
        first_offer(f, key, (size_t)n, NULL);
    }
}

static void pages_follow_each_other_without_a_gap(void **state)
{
    static struct first f;
    char after[FIRST_KEY_BYTES], expected[8];
    size_t after_n = 0;
    unsigned seen = 0;
    (void)state;
    do {
        first_begin(&f, 7, (struct span){after, after_n});
        offer_all(&f);
        assert_int_equal(f.total, 1000);
        for (unsigned i = 0; i < f.n; i++) {
            snprintf(expected, sizeof(expected), "%03u", seen++);
            assert_memory_equal(f.at[i].key, expected, 3);
        }
        after_n = f.at[f.n - 1].key_n;
        memcpy(after, f.at[f.n - 1].key, after_n);
        assert_int_equal(f.has_more, seen < 1000);
    } while (f.has_more);
    assert_int_equal(seen, 1000);
}

static void of_none_none_are_kept(void **state)
{
    static struct first f;
    (void)state;
    first_begin(&f, 0, (struct span){NULL, 0});
    offer_all(&f);
    assert_int_equal(f.n, 0);
    assert_int_equal(f.total, 1000);
    first_begin(&f, 100000, (struct span){NULL, 0});
    assert_int_equal(f.max, FIRST_MAX);
    first_offer(&f, "b", 1, NULL);
    first_offer(&f, "ba", 2, NULL);
    first_offer(&f, "a", 1, NULL);
    assert_int_equal(f.n, 3);
    assert_false(f.has_more);
    assert_int_equal(f.at[0].key[0], 'a');
    assert_int_equal(f.at[2].key_n, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_decoded),
        cmocka_unit_test(numbers_are_numbers),
        cmocka_unit_test(pages_follow_each_other_without_a_gap),
        cmocka_unit_test(of_none_none_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
