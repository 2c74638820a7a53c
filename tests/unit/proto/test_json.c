#include "err.h"
#include "json.h"
#include "limit.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        (literal), sizeof(literal) - 1                                                                       \
    }

static int check(const char *text)
{
    /* A copy of exactly its size, so that a sanitizer sees a read past the end. */
    size_t n = strlen(text);
    char *copy = malloc(n);
    assert_non_null(copy);
    memcpy(copy, text, n);
    int rc = json_check((struct span){copy, n}, LIMIT_JSON_DEPTH);
    free(copy);
    return rc;
}

/* Judged by JSON.parse. */
static void accepts_what_json_parse_accepts(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "10",
        "1.5",
        "0.0",
        "1e400",
        "1E+5",
        "1e-05",
        "-0.1e1",
        "123456789012345678901234567890",
        "\"\"",
        "\"plain\"",
        "\"a string of more than sixteen plain bytes\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\u0000\"",
        "\"\x7f\xc3\xa9\xf0\x9f\x9a\x80\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[[],{},[{}]]",
        " \t\r\n[ 1 , \"2\" , { \"3\" : [ true ] } ] \n",
        "{\"a\":1,\"a\":2,\"\":{}}",
        "[1,\"2\",{\"3\":[true]}]",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        if (check(cases[i]) != 0)
            fail_msg("refused: %s", cases[i]);
    }
}

static void refuses_what_json_parse_refuses(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        " ",
        "\xef\xbb\xbf[]",
        "\xc2\xa0[]",
        "nul",
        "nulll",
        "True",
        "undefined",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "00",
        ".5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "- 1",
        "1 2",
        "\"",
        "\"abc",
        "\"\\",
        "\"\\\"",
        "\"\\x\"",
        "\"\\a\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\U0041\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"a string of more than sixteen\x1f plain bytes\"",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[1}",
        "[]]",
        "[][]",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "{\"a\",1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1]",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,,\"b\":2}",
        "[\"a\":1]",
        "[{]}",
        "// comment\n1",
        "[1]\f",
        "[1]\v",
        "[\"\xc3\xa9\",\xc3\xa9]",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        if (check(cases[i]) != ERR_JSON)
            fail_msg("not refused: %s", cases[i]);
    }
    assert_int_equal(json_check((struct span){"[1\0]", 4}, 8), ERR_JSON);
    assert_int_equal(json_check((struct span){"\"\0\"", 3}, 8), ERR_JSON);
    assert_int_equal(json_check((struct span){0}, 8), ERR_JSON);
}

static void limits_depth(void **state)
{
    (void)state;
    enum { MOST = 10000 };
    assert_int_equal(json_check(SPAN("1"), 0), 0);
    assert_int_equal(json_check(SPAN("[]"), 0), ERR_JSON_DEPTH);
    assert_int_equal(json_check(SPAN("[{\"a\":[]},[]]"), 3), 0);
    assert_int_equal(json_check(SPAN("[{\"a\":[]},[]]"), 2), ERR_JSON_DEPTH);

    char *text = malloc(2 * MOST);
    assert_non_null(text);
    for (size_t depth = 1; depth <= LIMIT_JSON_DEPTH; ++depth) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(json_check((struct span){text, 2 * depth}, LIMIT_JSON_DEPTH), 0);
        text[2 * depth - 1] = '}';
        assert_int_equal(json_check((struct span){text, 2 * depth}, LIMIT_JSON_DEPTH), ERR_JSON);
    }
    memset(text, '[', MOST);
    memset(text + MOST, ']', MOST);
    assert_int_equal(json_check((struct span){text, 2 * MOST}, LIMIT_JSON_DEPTH), ERR_JSON_DEPTH);
    assert_int_equal(json_check((struct span){text, 2 * MOST}, MOST), ERR_JSON_DEPTH);
    free(text);
}

/* The kinds of bracket at each depth are told apart, past the first 64 levels too. */
static void matches_brackets_at_depth(void **state)
{
    (void)state;
    char text[6 * 200 + 1];
    size_t n = 0;
    for (size_t i = 0; i < 200; ++i) {
        bool object = i % 3 == 0;
        memcpy(text + n, object ? "{\"\":" : "[", object ? 4 : 1);
        n += object ? 4 : 1;
    }
    text[n++] = '1';
    size_t inner = n;
    for (size_t i = 200; i-- > 0;)
        text[n++] = i % 3 == 0 ? '}' : ']';
    assert_int_equal(json_check((struct span){text, n}, 200), 0);
    for (size_t i = inner; i < n; ++i) {
        char c = text[i];
        text[i] = c == '}' ? ']' : '}';
        assert_int_equal(json_check((struct span){text, n}, 200), ERR_JSON);
        text[i] = c;
    }
}

static void assert_span(struct span s, const char *expected)
{
    if (!span_eq(s, span_of(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", (int)s.n, s.p, expected);
}

static void tells_types(void **state)
{
    (void)state;
    assert_int_equal(json_type(SPAN("null")), JSON_NULL);
    assert_int_equal(json_type(SPAN("true")), JSON_BOOL);
    assert_int_equal(json_type(SPAN("false")), JSON_BOOL);
    assert_int_equal(json_type(SPAN("-1")), JSON_NUMBER);
    assert_int_equal(json_type(SPAN("7")), JSON_NUMBER);
    assert_int_equal(json_type(SPAN("\"a\"")), JSON_STRING);
    assert_int_equal(json_type(SPAN("[]")), JSON_ARRAY);
    assert_int_equal(json_type(SPAN(" {} ")), JSON_OBJECT);
    assert_int_equal(json_type((struct span){0}), JSON_NONE);
    assert_int_equal(json_type(SPAN("  ")), JSON_NONE);
}

static void walks_arrays(void **state)
{
    (void)state;
    static const char *const items[] = {"1", "\"a]\\\"\"", "[2,[3],{\"}\":\"]\"}]", "null", "{}", "-1.5e3"};
    static const char *const texts[] = {
        "[1,\"a]\\\"\",[2,[3],{\"}\":\"]\"}],null,{},-1.5e3]",
        " [ 1 , \"a]\\\"\"\t,\n[2,[3],{\"}\":\"]\"}] , null , {} , -1.5e3 ] ",
    };
    for (size_t t = 0; t < 2; ++t) {
        assert_int_equal(check(texts[t]), 0);
        struct json_cursor c = json_open(span_of(texts[t]));
        struct span value;
        for (size_t i = 0; i < sizeof items / sizeof *items; ++i) {
            assert_true(json_item(&c, &value));
            assert_span(value, items[i]);
        }
        assert_false(json_item(&c, &value));
        assert_false(json_item(&c, &value));
    }
}

static void walks_objects(void **state)
{
    (void)state;
    struct json_cursor c = json_open(SPAN(" { \"a\" : 1 ,\"b\\\"\":[ {} ],\"\":\"x\" } "));
    struct span name, value;
    assert_true(json_member(&c, &name, &value));
    assert_span(name, "\"a\"");
    assert_span(value, "1");
    assert_true(json_member(&c, &name, &value));
    assert_span(name, "\"b\\\"\"");
    assert_span(value, "[ {} ]");
    assert_true(json_member(&c, &name, &value));
    assert_span(name, "\"\"");
    assert_span(value, "\"x\"");
    assert_false(json_member(&c, &name, &value));
}

static void walks_nothing_else(void **state)
{
    (void)state;
    static const char *const cases[] = {"1", "\"[1]\"", "null", "[]", "{}", " [ ] ", ""};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        struct json_cursor c = json_open(span_of(cases[i]));
        struct span name, value;
        assert_false(json_item(&c, &value));
        c = json_open(span_of(cases[i]));
        assert_false(json_member(&c, &name, &value));
    }
    struct json_cursor c = json_open((struct span){0});
    struct span value;
    assert_false(json_item(&c, &value));
}

/* Whoever walks text that nobody checked gets nonsense, but stays within it and comes to an end. */
static void stays_within_unchecked_text(void **state)
{
    (void)state;
    static const char *const cases[] = {"[\"",          "[\"\\",   "{\"a]",    "[[[}", "[]]]",
                                        "{:::}",        "[,,,]",   "{\"a\":}", "\"",   "\"\\u12\"",
                                        "{\"\\u0\":1}", "{\"a\"}", "{1}"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        size_t n = strlen(cases[i]);
        char *copy = malloc(n), dst[8];
        assert_non_null(copy);
        memcpy(copy, cases[i], n);
        struct span text = {copy, n}, name, value;
        struct json_cursor c = json_open(text);
        for (size_t steps = 0; json_item(&c, &value); ++steps)
            assert_true(steps < n);
        c = json_open(text);
        for (size_t steps = 0; json_member(&c, &name, &value); ++steps)
            assert_true(steps < n);
        json_get(text, "a");
        json_string(text, dst, sizeof dst);
        free(copy);
    }
}

static void finds_members(void **state)
{
    (void)state;
    struct span object =
        SPAN("{\"to\":1,\"\\u0074o\":2,\"t\\u006f\\u0000\":3,\"too\":4,\"a\\\"\\/\":5,\"\\ud800\":6}");
    assert_int_equal(json_check(object, 8), 0);
    assert_span(json_get(object, "to"), "2");
    assert_span(json_get(object, "too"), "4");
    assert_span(json_get(object, "a\"/"), "5");
    assert_int_equal(json_get(object, "t").n, 0);
    assert_int_equal(json_get(object, "").n, 0);
    assert_span(json_get(SPAN("{\"\":7}"), ""), "7");
    assert_int_equal(json_get(SPAN("[\"to\",1]"), "to").n, 0);
    assert_int_equal(json_get((struct span){0}, "to").n, 0);
    assert_true(json_is_true(json_get(SPAN("{\"volatile\": true }"), "volatile")));
    assert_false(json_is_true(SPAN("\"true\"")));
    assert_false(json_is_true(SPAN("false")));
    assert_false(json_is_true((struct span){0}));
}

static void decodes_strings(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\"", ""},
        {" \"plain\" ", "plain"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00E9\\u6771\\ud83d\\ude80\"", "A\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x9a\x80"},
        {"\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"},
        {"\"\\uD800\\uDC00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
        {"\"before\\nafter \xc3\xa9 and some more text behind it\"",
         "before\nafter \xc3\xa9 and some more text behind it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        size_t n = strlen(cases[i].text);
        char *dst = malloc(n);
        assert_non_null(dst);
        assert_int_equal(json_string(span_of(cases[i].json), dst, n), n);
        assert_memory_equal(dst, cases[i].text, n);
        for (size_t cap = 0; cap < n; ++cap)
            assert_int_equal(json_string(span_of(cases[i].json), dst, cap), ERR_LIMIT);
        free(dst);
    }
}

static void refuses_strings_without_utf8(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "\"\\u0000\"",
        "\"a\\ud800\"",
        "\"\\ud800x\"",
        "\"\\udc00\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\\ud800\"",
        "1",
        "[\"a\"]",
        "null",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char dst[32];
        assert_int_equal(check(cases[i]), 0);
        assert_int_equal(json_string(span_of(cases[i]), dst, sizeof dst), ERR_JSON);
    }
    char dst[1];
    assert_int_equal(json_string((struct span){0}, dst, sizeof dst), ERR_JSON);
}

static void reads_integers(void **state)
{
    (void)state;
    uint64_t n = 1;
    assert_true(json_uint(SPAN("0"), 0, &n));
    assert_int_equal(n, 0);
    assert_true(json_uint(SPAN(" 10 "), 10, &n));
    assert_int_equal(n, 10);
    assert_false(json_uint(SPAN("11"), 10, &n));
    assert_false(json_uint(SPAN("9"), 8, &n));
    assert_true(json_uint(SPAN("18446744073709551615"), UINT64_MAX, &n));
    assert_true(n == UINT64_MAX);
    assert_false(json_uint(SPAN("18446744073709551616"), UINT64_MAX, &n));
    assert_false(json_uint(SPAN("99999999999999999999999"), UINT64_MAX, &n));
    static const char *const others[] = {"-1", "-0", "1.0", "1e2", "\"1\"", "null", "[1]", ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; ++i)
        assert_false(json_uint(span_of(others[i]), UINT64_MAX, &n));
}

/* The expected texts are those of JSON.stringify. */
static void quotes(void **state)
{
    (void)state;
    static const struct {
        struct span text;
        const char *json;
    } cases[] = {
        {TEXT(""), "\"\""},
        {{NULL, 0}, "\"\""},
        {TEXT("plain"), "\"plain\""},
        {TEXT("\b\t\n\f\r\"\\/"), "\"\\b\\t\\n\\f\\r\\\"\\\\/\""},
        {TEXT("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\x7f\""},
        {TEXT("\xc3\xa9 and a longer run \xe2\x80\xa8 \"quoted\""),
         "\"\xc3\xa9 and a longer run \xe2\x80\xa8 \\\"quoted\\\"\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char *dst = malloc(JSON_QUOTED_MAX(cases[i].text.n));
        assert_non_null(dst);
        size_t n = json_quote(dst, cases[i].text);
        assert_span((struct span){dst, n}, cases[i].json);
        free(dst);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_json_parse_accepts),
        cmocka_unit_test(refuses_what_json_parse_refuses),
        cmocka_unit_test(limits_depth),
        cmocka_unit_test(matches_brackets_at_depth),
        cmocka_unit_test(tells_types),
        cmocka_unit_test(walks_arrays),
        cmocka_unit_test(walks_objects),
        cmocka_unit_test(walks_nothing_else),
        cmocka_unit_test(stays_within_unchecked_text),
        cmocka_unit_test(finds_members),
        cmocka_unit_test(decodes_strings),
        cmocka_unit_test(refuses_strings_without_utf8),
        cmocka_unit_test(reads_integers),
        cmocka_unit_test(quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
