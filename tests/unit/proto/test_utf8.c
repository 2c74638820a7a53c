#include "utf8.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FFFD          "\xef\xbf\xbd"
#define TEXT(literal) (literal), sizeof(literal) - 1

static const struct {
    const char *text;
    size_t n;
} good[] =
    {
        {TEXT("")},
        {TEXT("plain")},
        {TEXT("a text of more than sixteen plain bytes")},
        {TEXT("\0")},
        {TEXT("\x7f")},
        {TEXT("\xc2\x80")},
        {TEXT("\xdf\xbf")},
        {TEXT("\xe0\xa0\x80")},
        {TEXT("\xed\x9f\xbf")},
        {TEXT("\xee\x80\x80")},
        {TEXT("\xef\xbf\xbf")},
        {TEXT("\xf0\x90\x80\x80")},
        {TEXT("\xf4\x8f\xbf\xbf")},
        {TEXT(
            "gr\xc3\xbc\xc3\x9f aus \xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x9a\x80 und noch mehr Text dahinter")},
},
  bad[] = {
      {TEXT("\x80")},
      {TEXT("\xbf")},
      {TEXT("\xc0\x80")},
      {TEXT("\xc1\xbf")},
      {TEXT("\xc2")},
      {TEXT("\xc2\x41")},
      {TEXT("\xc2\xc2\x80")},
      {TEXT("\xe0\x80\x80")},
      {TEXT("\xe0\x9f\xbf")},
      {TEXT("\xe1\x80")},
      {TEXT("\xe1\x80\x41")},
      {TEXT("\xed\xa0\x80")},
      {TEXT("\xed\xbf\xbf")},
      {TEXT("\xf0\x80\x80\x80")},
      {TEXT("\xf0\x8f\xbf\xbf")},
      {TEXT("\xf1\x80\x80")},
      {TEXT("\xf1\x80\x80\x41")},
      {TEXT("\xf1\x80\x41\x80")},
      {TEXT("\xf4\x90\x80\x80")},
      {TEXT("\xf5\x80\x80\x80")},
      {TEXT("\xf8\x88\x80\x80\x80")},
      {TEXT("\xfe")},
      {TEXT("\xff")},
};

/* Surrounds a text, so that it meets each of the ways through the check: in the middle and near the end. */
static bool valid_within(size_t before, const char *text, size_t n, size_t after)
{
    uint8_t *all = malloc(before + n + after);
    assert_non_null(all);
    memset(all, 'x', before + n + after);
    memcpy(all + before, text, n);
    bool valid = utf8_valid(all, before + n + after);
    free(all);
    return valid;
}

static void accepts_and_refuses(void **state)
{
    (void)state;
    for (size_t around = 0; around < 20 * 20; ++around) {
        for (size_t i = 0; i < sizeof good / sizeof *good; ++i)
            assert_true(valid_within(around / 20, good[i].text, good[i].n, around % 20));
        for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i)
            assert_false(valid_within(around / 20, bad[i].text, bad[i].n, around % 20));
    }
}

static void accepts_every_code_point_but_surrogates(void **state)
{
    (void)state;
    for (uint32_t c = 0x80; c < 0x110800; ++c) {
        char text[4];
        size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        uint32_t rest = c;
        for (size_t i = n - 1; i > 0; --i, rest >>= 6)
            text[i] = (char)(0x80 | (rest & 0x3f));
        text[0] = (char)((n == 2 ? 0xc0u : n == 3 ? 0xe0u : 0xf0u) | rest);
        bool expected = (c < 0xd800 || c > 0xdfff) && c <= 0x10ffff;
        assert_true(utf8_valid(text, n) == expected);
        assert_true(valid_within(1, text, n, 4) == expected);
    }
}

static void goes_on_between_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; ++i) {
        for (size_t cut = 0; cut <= good[i].n; ++cut) {
            struct utf8 u = {0};
            assert_true(utf8_feed(&u, good[i].text, cut));
            assert_true(utf8_feed(&u, good[i].text + cut, good[i].n - cut));
            assert_true(utf8_complete(&u));
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        for (size_t cut = 0; cut <= bad[i].n; ++cut) {
            struct utf8 u = {0};
            bool ok = utf8_feed(&u, bad[i].text, cut) && utf8_feed(&u, bad[i].text + cut, bad[i].n - cut);
            assert_false(ok && utf8_complete(&u));
        }
    }
}

static void refuses_as_soon_as_possible(void **state)
{
    (void)state;
    struct utf8 u = {0};
    assert_true(utf8_feed(&u, "abc\xed", 4));
    assert_false(utf8_complete(&u));
    assert_false(utf8_feed(&u, "\xa0", 1));
}

static void takes_nothing(void **state)
{
    (void)state;
    struct utf8 u = {0};
    assert_true(utf8_feed(&u, NULL, 0));
    assert_true(utf8_valid(NULL, 0));
    assert_int_equal(utf8_sanitize(NULL, NULL, 0), 0);
}

/* The expected texts are what TextDecoder gives in a browser. */
static void replaces_as_browsers_do(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        size_t n;
        const char *to;
    } cases[] = {
        {TEXT("plain text"), "plain text"},
        {TEXT("\xc3\xa9t\xc3\xa9 \xf0\x9f\x9a\x80"), "\xc3\xa9t\xc3\xa9 \xf0\x9f\x9a\x80"},
        {TEXT("\x80"), FFFD},
        {TEXT("a\xff\xfe z"), "a" FFFD FFFD " z"},
        {TEXT("\xc0\x80"), FFFD FFFD},
        {TEXT("\xe2\x82"), FFFD},
        {TEXT("\xe2\x82x"), FFFD "x"},
        {TEXT("\xe2\xe2\x82\xac"), FFFD "\xe2\x82\xac"},
        {TEXT("\xed\xa0\x80"), FFFD FFFD FFFD},
        {TEXT("\xf0\x9f\x9a"), FFFD},
        {TEXT("\xf0\x9f\x9a and more"), FFFD " and more"},
        {TEXT("\xf0\x80\x80\x80"), FFFD FFFD FFFD FFFD},
        {TEXT("\xf4\x90\x80\x80"), FFFD FFFD FFFD FFFD},
        {TEXT("\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64"), FFFD FFFD FFFD "b" FFFD "c" FFFD FFFD "d"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char *dst = malloc(3 * cases[i].n);
        assert_non_null(dst);
        size_t n = utf8_sanitize(dst, cases[i].from, cases[i].n);
        assert_int_equal(n, strlen(cases[i].to));
        assert_memory_equal(dst, cases[i].to, n);
        free(dst);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_and_refuses),    cmocka_unit_test(accepts_every_code_point_but_surrogates),
        cmocka_unit_test(goes_on_between_pieces), cmocka_unit_test(refuses_as_soon_as_possible),
        cmocka_unit_test(takes_nothing),          cmocka_unit_test(replaces_as_browsers_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
