/* Identifiers: their form, their tag, that no two are the same; the keyed hash. */
#include "id.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { MANY = 1000000 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void begins_with_the_tag_of_the_origin(void **state)
{
    struct id_source ids;
    char id[ID_CHARS];
    (void)state;
    id_source_init(&ids, 0);
    id_new(&ids, id);
    assert_memory_equal(id, "AAAA", 4);
    id_source_init(&ids, 0xffffff);
    id_new(&ids, id);
    assert_memory_equal(id, "____", 4);
    id_source_init(&ids, 0x040fbe);
    id_new(&ids, id);
    assert_memory_equal(id, "BA--", 4);
}

static void is_twenty_characters_of_base64url(void **state)
{
    struct id_source ids;
    char id[ID_CHARS + 1] = {[ID_CHARS] = '#'};
    (void)state;
    id_source_init(&ids, 1);
    for (int i = 0; i < 10000; i++) {
        id_new(&ids, id);
        assert_int_equal(id[ID_CHARS], '#');
        for (int k = 0; k < ID_CHARS; k++)
            assert_non_null(memchr(alphabet, id[k], sizeof(alphabet) - 1));
    }
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, ID_CHARS);
}

static void a_million_are_all_different(void **state)
{
    struct id_source ids, twin;
    char(*all)[ID_CHARS] = malloc((size_t)MANY * ID_CHARS);
    (void)state;
    assert_non_null(all);
    /* Two sources of one tag, as after a restart, must not meet either. */
    id_source_init(&ids, 7);
    id_source_init(&twin, 7);
    for (int i = 0; i < MANY; i++)
        id_new(i % 2 ? &ids : &twin, all[i]);
    qsort(all, MANY, ID_CHARS, compare);
    for (int i = 1; i < MANY; i++)
        assert_int_not_equal(compare(all[i - 1], all[i]), 0);
    free(all);
}

static void every_place_behind_the_tag_is_random(void **state)
{
    struct id_source ids;
    char id[ID_CHARS];
    unsigned seen[ID_CHARS][256] = {{0}};
    (void)state;
    id_source_init(&ids, 7);
    for (int i = 0; i < 6400; i++) {
        id_new(&ids, id);
        for (int k = 0; k < ID_CHARS; k++)
            seen[k][(unsigned char)id[k]]++;
    }
    /* 100 of each character are expected: 10 standard deviations either way never happen. */
    for (int k = 4; k < ID_CHARS; k++) {
        for (const char *c = alphabet; *c; c++) {
            assert_true(seen[k][(unsigned char)*c] > 0);
            assert_true(seen[k][(unsigned char)*c] < 200);
        }
    }
}

static void what_was_given_out_is_wiped(void **state)
{
    struct id_source ids;
    (void)state;
    id_source_init(&ids, 7);
    (void)id_random_u64(&ids);
    for (size_t i = ids.left; i < sizeof(ids.pool); i++)
        assert_int_equal(ids.pool[i], 0);
}

static void random_numbers_are_drawn_beside_ids(void **state)
{
    struct id_source ids;
    char id[ID_CHARS];
    uint64_t all_or = 0, all_and = UINT64_MAX, last = 0;
    (void)state;
    id_source_init(&ids, 7);
    for (int i = 0; i < 1000; i++) {
        uint64_t v = id_random_u64(&ids);
        assert_true(v != last);
        last = v;
        all_or |= v;
        all_and &= v;
        id_new(&ids, id);
        assert_memory_equal(id, "AAAH", 4);
    }
    assert_true(all_or == UINT64_MAX);
    assert_true(all_and == 0);
}

static void equal_keys_have_equal_hashes(void **state)
{
    char a[64], b[80];
    (void)state;
    for (size_t n = 0; n <= 64; n++) {
        for (size_t i = 0; i < n; i++)
            a[i] = (char)(i * 37 + n);
        /* Wherever the key lies. */
        for (size_t shift = 0; shift < 9; shift++) {
            memset(b, (int)shift, sizeof(b));
            memcpy(b + shift, a, n);
            assert_true(id_hash(a, n) == id_hash(b + shift, n));
        }
    }
}

static void keys_that_differ_in_one_bit_or_in_length_have_other_hashes(void **state)
{
    uint8_t key[40] = {0};
    (void)state;
    for (size_t n = 1; n <= sizeof(key); n++) {
        uint64_t plain = id_hash(key, n);
        assert_true(plain != id_hash(key, n - 1));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            key[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_true(plain != id_hash(key, n));
            key[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

static void hashes_fill_a_table_evenly(void **state)
{
    unsigned slot[256] = {0};
    char key[16];
    (void)state;
    for (int i = 0; i < 256 * 256; i++) {
        int n = snprintf(key, sizeof(key), "room-%d", i);
        slot[id_hash(key, (size_t)n) % 256]++;
    }
    /* 256 expected, standard deviation 16. */
    for (int i = 0; i < 256; i++) {
        assert_true(slot[i] > 96);
        assert_true(slot[i] < 416);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_with_the_tag_of_the_origin),
        cmocka_unit_test(is_twenty_characters_of_base64url),
        cmocka_unit_test(a_million_are_all_different),
        cmocka_unit_test(every_place_behind_the_tag_is_random),
        cmocka_unit_test(what_was_given_out_is_wiped),
        cmocka_unit_test(random_numbers_are_drawn_beside_ids),
        cmocka_unit_test(equal_keys_have_equal_hashes),
        cmocka_unit_test(keys_that_differ_in_one_bit_or_in_length_have_other_hashes),
        cmocka_unit_test(hashes_fill_a_table_evenly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
