/* Headers of cross-origin requests: off, any origin, one, a list; with and without credentials; preflights. */
#include "cors.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char got[CORS_HEADERS_MAX + 1];

static const char *headers(const char *origins, bool credentials, const char *origin)
{
    struct cors c = {origins, credentials};
    memset(got, '#', sizeof(got));
    size_t n = cors_headers(&c, span_of(origin), got);
    assert_int_equal(n, strlen(got));
    return got;
}

static void without_origins_there_are_no_headers(void **state)
{
    (void)state;
    assert_false(cors_on(&(struct cors){"", true}));
    assert_true(cors_on(&(struct cors){"*", false}));
    assert_string_equal(headers("", false, "http://a"), "");
    assert_string_equal(headers("", true, "http://a"), "");
}

static void a_star_allows_every_origin(void **state)
{
    (void)state;
    assert_string_equal(headers("*", false, "http://a"), "Access-Control-Allow-Origin: *\r\n");
    assert_string_equal(headers("*", false, ""), "Access-Control-Allow-Origin: *\r\n");
}

/* A browser takes no star together with credentials. */
static void a_star_with_credentials_echoes_the_origin(void **state)
{
    (void)state;
    assert_string_equal(headers("*", true, "http://a"),
                        "Access-Control-Allow-Origin: http://a\r\nVary: Origin\r\n"
                        "Access-Control-Allow-Credentials: true\r\n");
    assert_string_equal(headers("*", true, ""), "Vary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n");
}

static void one_origin_is_named_whoever_asks(void **state)
{
    static const char expected[] = "Access-Control-Allow-Origin: http://a\r\nVary: Origin\r\n";
    (void)state;
    assert_string_equal(headers("http://a", false, "http://a"), expected);
    assert_string_equal(headers("http://a", false, "http://b"), expected);
    assert_string_equal(headers("http://a", false, ""), expected);
    assert_string_equal(headers("http://a", true, "http://b"),
                        "Access-Control-Allow-Origin: http://a\r\nVary: Origin\r\n"
                        "Access-Control-Allow-Credentials: true\r\n");
}

static void of_a_list_the_asking_one_is_echoed(void **state)
{
    static const char list[] = "http://a,https://b:8443,http://c";
    (void)state;
    assert_string_equal(headers(list, false, "https://b:8443"),
                        "Access-Control-Allow-Origin: https://b:8443\r\nVary: Origin\r\n");
    assert_string_equal(headers(list, false, "http://c"),
                        "Access-Control-Allow-Origin: http://c\r\nVary: Origin\r\n");
    assert_string_equal(headers(list, true, "http://a"),
                        "Access-Control-Allow-Origin: http://a\r\nVary: Origin\r\n"
                        "Access-Control-Allow-Credentials: true\r\n");
}

static void of_a_list_others_are_not_allowed(void **state)
{
    static const char list[] = "http://a,http://bb";
    static const char *const others[] = {"",         "http://b", "http://bbb", "http://a,http://bb",
                                         "HTTP://A", ",",        "null",       "*"};
    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_string_equal(headers(list, false, others[i]), "Vary: Origin\r\n");
        assert_false(cors_allows(&(struct cors){list, false}, span_of(others[i])));
    }
    assert_string_equal(headers(list, true, "http://b"),
                        "Vary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n");
}

static void allows_what_is_listed(void **state)
{
    (void)state;
    assert_true(cors_allows(&(struct cors){"*", false}, SPAN("http://anything")));
    assert_true(cors_allows(&(struct cors){"*", false}, SPAN("")));
    assert_true(cors_allows(&(struct cors){"http://a", false}, SPAN("http://a")));
    assert_false(cors_allows(&(struct cors){"http://a", false}, SPAN("http://b")));
    assert_true(cors_allows(&(struct cors){"http://a,http://b", false}, SPAN("http://b")));
    assert_false(cors_allows(&(struct cors){"", false}, SPAN("http://a")));
    assert_false(cors_allows(&(struct cors){"", false}, SPAN("")));
}

static void an_origin_that_is_too_long_is_not_echoed(void **state)
{
    char origin[ECHO_MAX + 2], list[2 * sizeof(origin)];
    (void)state;
    memset(origin, 'o', sizeof(origin));
    origin[ECHO_MAX] = '\0';
    assert_non_null(strstr(headers("*", true, origin), "Allow-Origin: ooo"));
    origin[ECHO_MAX] = 'o';
    origin[ECHO_MAX + 1] = '\0';
    assert_string_equal(headers("*", true, origin),
                        "Vary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n");
    snprintf(list, sizeof(list), "http://a,%s", origin);
    assert_string_equal(headers(list, false, origin), "Vary: Origin\r\n");
}

static const char *preflight(const char *requested)
{
    memset(got, '#', sizeof(got));
    size_t n = cors_preflight_headers(span_of(requested), got);
    assert_int_equal(n, strlen(got));
    return got;
}

static void a_preflight_names_the_methods_and_echoes_the_headers(void **state)
{
    static const char methods[] = "Access-Control-Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE\r\n";
    char requested[ECHO_MAX + 2], expected[CORS_HEADERS_MAX];
    (void)state;
    assert_string_equal(preflight(""), methods);
    snprintf(
        expected, sizeof(expected),
        "%sAccess-Control-Allow-Headers: X-One, content-type\r\nVary: Access-Control-Request-Headers\r\n",
        methods);
    assert_string_equal(preflight("X-One, content-type"), expected);
    memset(requested, 'r', sizeof(requested));
    requested[ECHO_MAX] = '\0';
    assert_non_null(strstr(preflight(requested), "Allow-Headers: rrr"));
    requested[ECHO_MAX] = 'r';
    requested[ECHO_MAX + 1] = '\0';
    assert_string_equal(preflight(requested), methods);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_origins_there_are_no_headers),
        cmocka_unit_test(a_star_allows_every_origin),
        cmocka_unit_test(a_star_with_credentials_echoes_the_origin),
        cmocka_unit_test(one_origin_is_named_whoever_asks),
        cmocka_unit_test(of_a_list_the_asking_one_is_echoed),
        cmocka_unit_test(of_a_list_others_are_not_allowed),
        cmocka_unit_test(allows_what_is_listed),
        cmocka_unit_test(an_origin_that_is_too_long_is_not_echoed),
        cmocka_unit_test(a_preflight_names_the_methods_and_echoes_the_headers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
