#include "base64.h"
#include "err.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void encodes_the_vectors_of_the_rfc(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "+/+/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char text[16];
        size_t n = strlen(cases[i][0]);
        assert_int_equal(base64_encode(text, cases[i][0], n), strlen(cases[i][1]));
        assert_int_equal(strlen(cases[i][1]), BASE64_LENGTH(n));
        assert_memory_equal(text, cases[i][1], strlen(cases[i][1]));
    }
}

static void encodes_for_urls(void **state)
{
    (void)state;
    char text[16];
    assert_int_equal(base64_encode_url(text, "\xfb\xff\xbf\xff", 4), 6);
    assert_memory_equal(text, "-_-__w", 6);
    assert_int_equal(base64_encode_url(text, "", 0), 0);
}

static void decodes_both_alphabets(void **state)
{
    (void)state;
    static const struct {
        const char *text, *bytes;
    } cases[] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zg", "f"},
        {"Zm8=", "fo"},
        {"Zm8", "fo"},
        {"Zm9v", "foo"},
        {"Zm9vYg==", "foob"},
        {"Zm9vYmE", "fooba"},
        {"Zm9vYmFy", "foobar"},
        {"+/-_", "\xfb\xff\xbf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        size_t n = strlen(cases[i].text);
        char *dst = malloc(n / 4 * 3 + 3);
        assert_non_null(dst);
        assert_int_equal(base64_decode(dst, cases[i].text, n), strlen(cases[i].bytes));
        assert_memory_equal(dst, cases[i].bytes, strlen(cases[i].bytes));
        free(dst);
    }
}

static void refuses_anything_else(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "Z",        "=",        "==",       "====",       "Z===",     "Zg=",   "Zm9v=",
        "Zm9v==",   "Zm9v====", "Zg==Zg==", "Z=g=",       "Zm8=Zm8=", " Zm9v", "Zm9v\n",
        "Zm9v\r\n", "Zm!v",     "Zm9\x80",  "\xc3\xa9Zm", "Zh==", /* a set bit behind the byte */
        "Zh",       "Zm9",      "Zm9=",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char dst[32];
        if (base64_decode(dst, cases[i], strlen(cases[i])) != ERR_BASE64)
            fail_msg("\"%s\" was decoded", cases[i]);
    }
    char dst[32];
    assert_int_equal(base64_decode(dst, "Zm\0v", 4), ERR_BASE64);
}

static void restores_every_length_in_place(void **state)
{
    (void)state;
    uint8_t bytes[256];
    char text[BASE64_LENGTH(sizeof bytes) + 3];
    for (size_t i = 0; i < sizeof bytes; ++i)
        bytes[i] = (uint8_t)(i * 167 + 13);
    for (size_t n = 0; n <= sizeof bytes; ++n) {
        size_t text_n = base64_encode(text, bytes, n);
        assert_int_equal(base64_decode(text, text, text_n), n);
        assert_memory_equal(text, bytes, n);
        text_n = base64_encode_url(text, bytes, n);
        assert_int_equal(base64_decode(text, text, text_n), n);
        assert_memory_equal(text, bytes, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_the_vectors_of_the_rfc), cmocka_unit_test(encodes_for_urls),
        cmocka_unit_test(decodes_both_alphabets),         cmocka_unit_test(refuses_anything_else),
        cmocka_unit_test(restores_every_length_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
