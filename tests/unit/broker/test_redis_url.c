/* URLs of Redis. */
#include "err.h"
#include "redis_url.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct redis_url url;

static void take(const char *text)
{
    const char *why;
    if (redis_url_parse(text, &url, &why))
        fail_msg("%s: %s", text, why);
    assert_null(why);
}

static void refuse(const char *text, const char *hint)
{
    const char *why;
    assert_int_equal(redis_url_parse(text, &url, &why), ERR_ARGUMENT);
    if (!why || !strstr(why, hint))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, why ? why : "", hint);
}

static void test_tcp(void **state)
{
    (void)state;
    take("redis://localhost");
    assert_int_equal(url.kind, REDIS_TCP);
    assert_int_equal(url.n, 1);
    assert_string_equal(url.address[0].host, "localhost");
    assert_int_equal(url.address[0].port, 6379);
    assert_int_equal(url.db, 0);
    assert_string_equal(url.user, "");
    assert_string_equal(url.password, "");
    take("redis://10.1.2.3:7001/15");
    assert_string_equal(url.address[0].host, "10.1.2.3");
    assert_int_equal(url.address[0].port, 7001);
    assert_int_equal(url.db, 15);
    take("redis://[2001:db8::1]:7002/");
    assert_string_equal(url.address[0].host, "2001:db8::1");
    assert_int_equal(url.address[0].port, 7002);
}

static void test_credentials(void **state)
{
    (void)state;
    take("redis://:secret@h");
    assert_string_equal(url.user, "");
    assert_string_equal(url.password, "secret");
    take("redis://bus:p%40s%3As%2Fw%25d@h:1/2");
    assert_string_equal(url.user, "bus");
    assert_string_equal(url.password, "p@s:s/w%d");
    assert_string_equal(url.address[0].host, "h");
    take("unix://bus:secret@/run/r.sock");
    assert_string_equal(url.user, "bus");
    assert_string_equal(url.password, "secret");
    assert_string_equal(url.path, "/run/r.sock");
    refuse("redis://secret@h", "before the @");
    refuse("redis://bus:@h", "before the @");
    refuse("redis://:a@b@h", "a host is");
    refuse("redis://:%0@h", "hexadecimal");
    refuse("redis://:%00@h", "hexadecimal");
}

static void test_unix(void **state)
{
    (void)state;
    take("unix:///run/a%20b@c.sock?db=3");
    assert_int_equal(url.kind, REDIS_UNIX);
    assert_int_equal(url.n, 0);
    assert_string_equal(url.path, "/run/a b@c.sock");
    assert_int_equal(url.db, 3);
    take("redis+unix:///r");
    assert_int_equal(url.kind, REDIS_UNIX);
    refuse("unix://relative.sock", "absolute path");
    refuse("unix:///", "absolute path");
    refuse("unix:///r?timeout=3", "?db=N");
    refuse("unix:///r?db=", "?db=N");
    refuse("unix:///r?db=65536", "database");
}

static void test_length_of_a_path(void **state)
{
    char text[200];
    (void)state;
    snprintf(text, sizeof(text), "unix:///%0106d", 1);
    take(text);
    assert_int_equal(strlen(url.path), 107);
    snprintf(text, sizeof(text), "unix:///%0107d", 1);
    refuse(text, "107 bytes");
}

static void test_sentinel(void **state)
{
    (void)state;
    take("redis+sentinel://bus:secret@a,b:26380,[::1]:26381/my%20master/4");
    assert_int_equal(url.kind, REDIS_SENTINEL);
    assert_int_equal(url.n, 3);
    assert_string_equal(url.address[0].host, "a");
    assert_int_equal(url.address[0].port, 26379);
    assert_string_equal(url.address[1].host, "b");
    assert_int_equal(url.address[1].port, 26380);
    assert_string_equal(url.address[2].host, "::1");
    assert_int_equal(url.address[2].port, 26381);
    assert_string_equal(url.master, "my master");
    assert_string_equal(url.password, "secret");
    assert_int_equal(url.db, 4);
    take("redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16/m");
    assert_int_equal(url.n, 16);
    refuse("redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/m", "16 sentinels");
    refuse("redis+sentinel://a", "master's name");
    refuse("redis+sentinel://a/", "master's name");
    refuse("redis+sentinel:///m", "host");
    refuse("redis+sentinel://a,,b/m", "host");
    refuse("redis+sentinel://a,/m", "comma");
    refuse("redis+sentinel://a/m/x", "database");
}

static void test_refusals(void **state)
{
    (void)state;
    refuse("rediss://h", "stunnel");
    refuse("http://h", "redis://");
    refuse("", "redis://");
    refuse("redis://", "host");
    refuse("redis://h_ost!", "host");
    refuse("redis://[::1", "brackets");
    refuse("redis://[]", "host");
    refuse("redis://[::1]x", "colon");
    refuse("redis://h:", "port");
    refuse("redis://h:0", "port");
    refuse("redis://h:65536", "port");
    refuse("redis://h:+1", "port");
    refuse("redis://h/x", "database");
    refuse("redis://h/-1", "database");
    refuse("redis://h/99999", "database");
}

static void test_no_password_is_printed(void **state)
{
    static const char *const urls[][2] = {
        {"redis://bus:hunter2@h/3", "redis://h:6379/3"},
        {"redis://:hunter2@[::1]", "redis://[::1]:6379"},
        {"unix://:hunter2@/run/a%20b.sock?db=1", "unix:///run/a%20b.sock?db=1"},
        {"redis+sentinel://:hunter2@a,b:1/m%2f/2", "redis+sentinel://a:26379,b:1/m%2f/2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        char text[REDIS_URL_BYTES];
        take(urls[i][0]);
        redis_url_print(&url, text);
        assert_string_equal(text, urls[i][1]);
    }
}

static void test_no_password_in_a_refusal(void **state)
{
    static const char *const urls[] = {"redis://bus:hunter2@h:x",    "redis://hunter2@h",
                                       "redis://:hunter2@h/hunter2", "hunter2",
                                       "redis://bus:hun/ter2@h",     "rediss://:hunter2@h"};
    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        const char *why;
        assert_int_equal(redis_url_parse(urls[i], &url, &why), ERR_ARGUMENT);
        assert_null(strstr(why, "hun"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_length_of_a_path),
        cmocka_unit_test(test_sentinel),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_password_is_printed),
        cmocka_unit_test(test_no_password_in_a_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
