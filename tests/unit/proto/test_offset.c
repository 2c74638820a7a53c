#include "base64.h"
#include "err.h"
#include "offset.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* The examples of offset.md; they hold the format fast. */
static const struct {
    struct offset offset;
    const char *text;
} rows[] = {
    {{0, 0, {{0, 0}}}, "~1sPf9AAAA"},
    {{0x0a0b0c, 0, {{0, 0}}}, "~1orJrCgsM"},
    {{0, 1, {{0, 0}}}, "~1KnxhAAAAAAAAAA"},
    {{0x0a0b0c, 1, {{0x010203, 1}}}, "~1-dRCCgsMAQIDAQ"},
    {{0xffffff, 1, {{0xffffff, 127}}}, "~1zDEp________fw"},
    {{0x0a0b0c, 1, {{0x010203, 128}}}, "~1hOwOCgsMAQIDgAE"},
    {{0x0a0b0c, 2, {{0x010203, 300}, {0x0a0b0c, 70000}}}, "~15E74CgsMAQIDrAIKCwzwogQ"},
    {{0x010203, 1, {{0x010203, UINT64_MAX}}}, "~1hpsBAQIDAQID____________AQ"},
};

static void assert_same(const struct offset *a, const struct offset *b)
{
    assert_int_equal(a->issuer, b->issuer);
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++) {
        assert_int_equal(a->entry[i].origin, b->entry[i].origin);
        assert_true(a->entry[i].seq == b->entry[i].seq);
    }
}

static void test_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[LIMIT_OFFSET_BYTES];
        ssize_t n = offset_encode(&rows[i].offset, text, sizeof(text));
        assert_true(n > 0);
        if (!span_eq((struct span){text, (size_t)n}, span_of(rows[i].text)))
            fail_msg("row %zu: '%.*s'", i, (int)n, text);
        struct offset back;
        assert_int_equal(offset_decode((struct span){text, (size_t)n}, &back), 0);
        assert_same(&back, &rows[i].offset);
    }
}

static void test_every_bit_length(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 64; bits++) {
        for (uint64_t i = 0; i < 3; i++) {
            struct offset o = {bits * 262143, 1, {{bits * 262144, (UINT64_C(1) << bits) - 1 + i}}}, back;
            char text[64];
            ssize_t n = offset_encode(&o, text, sizeof(text));
            assert_true(n > 0);
            assert_int_equal(offset_decode((struct span){text, (size_t)n}, &back), 0);
            assert_same(&back, &o);
        }
    }
}

static void fill(struct offset *o, unsigned n, uint64_t seq)
{
    o->issuer = 0x0a0b0c;
    o->n = n;
    for (unsigned i = 0; i < n; i++)
        o->entry[i] = (struct offset_entry){i * 65535, seq + i};
}

static void test_full(void **state)
{
    (void)state;
    char text[LIMIT_OFFSET_BYTES + 1024];
    struct offset o, back;
    fill(&o, LIMIT_OFFSET_ORIGINS, (UINT64_C(1) << 56) - 1000);
    ssize_t n = offset_encode(&o, text, sizeof(text));
    assert_true(n > 0 && n <= LIMIT_OFFSET_BYTES);
    assert_int_equal(offset_decode((struct span){text, (size_t)n}, &back), 0);
    assert_same(&back, &o);
    /* Numbers that need all 64 bits exceed the longest text; what is not decoded is not written either. */
    fill(&o, LIMIT_OFFSET_ORIGINS, UINT64_MAX - 1000);
    assert_int_equal(offset_encode(&o, text, sizeof(text)), ERR_LIMIT);
}

static void test_capacity(void **state)
{
    (void)state;
    struct offset o;
    fill(&o, 5, 1000000);
    char text[64];
    ssize_t n = offset_encode(&o, text, sizeof(text));
    assert_true(n > 0 && (size_t)n < sizeof(text));
    for (size_t cap = 0; cap < (size_t)n; cap++) {
        memset(text, 'x', sizeof(text));
        assert_int_equal(offset_encode(&o, text, cap), ERR_LIMIT);
        assert_int_equal(text[cap], 'x');
    }
    assert_int_equal(offset_encode(&o, text, (size_t)n), n);
    assert_int_equal(text[n], 'x');
}

static const char *const refused[] = {
    "",
    "~",
    "~1",
    "~1o",
    "~1orJr",     /* no issuer */
    "~1HJ1E",     /* no issuer, and the checksum of nothing */
    "~1orJrCg",   /* half an issuer */
    "~1orJrCgsN", /* another issuer */
    "~1orJsCgsM", /* another checksum */
    "~1orJrCgs",
    "~1orJrCgsM=",
    "~1orJrCgsMA",
    "~2orJrCgsM",
    "1orJrCgsM",
    " ~1orJrCgsM",
    "~1orJrCgsM ",
    "~1zDEp////////fw",   /* the other alphabet */
    "~1zDEp________fw==", /* padded */
    "~1zDEp________fx",   /* loose bits */
    "hello",
    "~1hello world",
    "1700000000000-0",
    "~1????",
    "MTIz.4",
};

static void test_refused(void **state)
{
    (void)state;
    struct offset o;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (offset_decode(span_of(refused[i]), &o) != ERR_OFFSET)
            fail_msg("'%s' was taken", refused[i]);
    assert_int_equal(offset_decode((struct span){NULL, 0}, &o), ERR_OFFSET);
    assert_int_equal(offset_decode(SPAN("~1orJrCgsM\0"), &o), ERR_OFFSET);
    char text[LIMIT_OFFSET_BYTES + 1];
    memset(text, 'A', sizeof(text));
    memcpy(text, "~1", 2);
    assert_int_equal(offset_decode((struct span){text, sizeof(text)}, &o), ERR_OFFSET);
    assert_int_equal(offset_decode((struct span){text, sizeof(text) - 1}, &o), ERR_OFFSET);
}

#define A        "\1\2\3"
#define NINE_FFS "\xff\xff\xff\xff\xff\xff\xff\xff\xff"

/* Entries behind an issuer and under a right checksum: only what the encoder writes is taken. */
static const struct {
    struct span entries;
    int err;
} entry_rows[] = {
    {SPAN(""), 0},
    {SPAN(A "\x7f"), 0},
    {SPAN(A "\x80\1"), 0},
    {SPAN(A NINE_FFS "\1"), 0},
    {SPAN(A "\1\1\2\4\1"), 0},
    {SPAN("\1"), ERR_OFFSET},
    {SPAN("\1\2"), ERR_OFFSET},
    {SPAN(A), ERR_OFFSET},                   /* no number */
    {SPAN(A "\x80"), ERR_OFFSET},            /* a number cut off */
    {SPAN(A "\x80\0"), ERR_OFFSET},          /* 0 in two bytes */
    {SPAN(A "\x81\0"), ERR_OFFSET},          /* 1 in two bytes */
    {SPAN(A "\xff\x80\0"), ERR_OFFSET},      /* 127 in three bytes */
    {SPAN(A NINE_FFS "\2"), ERR_OFFSET},     /* 65 bits */
    {SPAN(A NINE_FFS "\x81\0"), ERR_OFFSET}, /* 11 bytes */
    {SPAN(A NINE_FFS "\xff"), ERR_OFFSET},   /* cut off after 10 */
    {SPAN(A "\1\1"), ERR_OFFSET},            /* half an entry behind */
    {SPAN(A "\1" A "\1"), ERR_OFFSET},       /* an origin twice */
    {SPAN(A "\1\1\2\2\1"), ERR_OFFSET},      /* descending */
};

/* The text around an issuer and entries as offset.md describes it, written a second time here. */
static struct span seal(struct span issuer, struct span entries, char *text)
{
    uint8_t bytes[6 + 4 * (LIMIT_OFFSET_ORIGINS + 1)];
    size_t n = 3 + issuer.n + entries.n;
    memcpy(bytes + 3, issuer.p, issuer.n);
    memcpy(bytes + 3 + issuer.n, entries.p, entries.n);
    uint32_t h = 2166136261u;
    for (size_t i = 3; i < n; i++)
        h = (h ^ bytes[i]) * 16777619u;
    h = (h >> 24) ^ (h & 0xffffff);
    for (unsigned i = 0; i < 3; i++)
        bytes[i] = (uint8_t)(h >> (16 - 8 * i));
    memcpy(text, "~1", 2);
    return (struct span){text, 2 + base64_encode_url(text + 2, bytes, n)};
}

static void test_issuer(void **state)
{
    (void)state;
    static const struct span issuers[] = {SPAN("\0\0\0"), SPAN("\0\1\2"), SPAN("\1\2\3"),
                                          SPAN("\xff\xff\xff")};
    static const uint32_t tags[] = {0, 0x000102, 0x010203, 0xffffff};
    char text[64];
    struct offset o;
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        assert_int_equal(offset_decode(seal(issuers[i], SPAN(A "\5"), text), &o), 0);
        assert_true(o.issuer == tags[i] && o.n == 1 && o.entry[0].origin == 0x010203 && o.entry[0].seq == 5);
    }
    for (size_t n = 0; n < 3; n++)
        assert_int_equal(offset_decode(seal((struct span){A, n}, SPAN(""), text), &o), ERR_OFFSET);
}

static void test_entries(void **state)
{
    (void)state;
    char text[2048];
    struct offset o;
    for (size_t i = 0; i < sizeof(entry_rows) / sizeof(entry_rows[0]); i++)
        if (offset_decode(seal(SPAN(A), entry_rows[i].entries, text), &o) != entry_rows[i].err)
            fail_msg("row %zu", i);
}

static void test_too_many_origins(void **state)
{
    (void)state;
    char entries[4 * (LIMIT_OFFSET_ORIGINS + 1)], text[2048];
    for (size_t i = 0; i <= LIMIT_OFFSET_ORIGINS; i++)
        memcpy(entries + 4 * i, (char[]){0, (char)(i >> 8), (char)i, 1}, 4);
    struct offset o;
    assert_int_equal(offset_decode(seal(SPAN(A), (struct span){entries, sizeof(entries) - 4}, text), &o), 0);
    assert_int_equal(o.n, LIMIT_OFFSET_ORIGINS);
    assert_int_equal(offset_decode(seal(SPAN(A), (struct span){entries, sizeof(entries)}, text), &o),
                     ERR_OFFSET);
}

/* Any one character changed, dropped or added makes it another text than an offset. */
static void test_damaged(void **state)
{
    (void)state;
    struct offset o, back;
    fill(&o, 4, 123456);
    char text[64], bad[65];
    ssize_t n = offset_encode(&o, text, sizeof(text) - 1);
    assert_true(n > 0);
    for (ssize_t i = 0; i < n; i++) {
        for (int c = 0; c < 256; c++) {
            memcpy(bad, text, (size_t)n);
            bad[i] = (char)c;
            if (c != (unsigned char)text[i])
                assert_int_equal(offset_decode((struct span){bad, (size_t)n}, &back), ERR_OFFSET);
        }
        memmove(bad, text, (size_t)i);
        memmove(bad + i, text + i + 1, (size_t)(n - i - 1));
        assert_int_equal(offset_decode((struct span){bad, (size_t)n - 1}, &back), ERR_OFFSET);
        assert_int_equal(offset_decode((struct span){text, (size_t)i}, &back), ERR_OFFSET);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples), cmocka_unit_test(test_every_bit_length),
        cmocka_unit_test(test_full),     cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_issuer),
        cmocka_unit_test(test_entries),  cmocka_unit_test(test_too_many_origins),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests_name("offset", tests, NULL, NULL);
}
