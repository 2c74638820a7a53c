/* The arena: what is allocated in a row lies side by side, chunks live as long as somebody refers to them,
 * and one that nobody refers to is filled again. */
#include "bytes.c"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct bytes arena;

static int set_up(void **state)
{
    (void)state;
    bytes_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bytes_deinit(&arena);
    return 0;
}

static struct slice alloc(size_t n)
{
    struct slice s = {0};
    assert_int_equal(bytes_alloc(&arena, n, &s), 0);
    assert_int_equal(s.n, n);
    return s;
}

static void what_is_allocated_in_a_row_lies_side_by_side(void **state)
{
    (void)state;
    struct slice a = alloc(3), b = alloc(5), c = alloc(1);
    assert_ptr_equal(a.chunk, b.chunk);
    assert_ptr_equal(b.chunk, c.chunk);
    assert_ptr_equal(a.p + 3, b.p);
    assert_ptr_equal(b.p + 5, c.p);
    assert_int_equal(a.chunk->refs, 4);
    slice_unref(&a);
    slice_unref(&b);
    slice_unref(&c);
    assert_null(a.chunk);
    assert_int_equal(arena.current->refs, 1);
}

static void a_chunk_that_nobody_holds_is_filled_again(void **state)
{
    (void)state;
    struct slice a = alloc(1000);
    uint8_t *first = a.p;
    slice_unref(&a);
    struct slice b = alloc(10);
    assert_ptr_equal(b.p, first);
    slice_unref(&b);
}

static void bytes_that_are_held_are_never_given_out_again(void **state)
{
    (void)state;
    struct slice held = alloc(8);
    memcpy(held.p, "precious", 8);
    for (int i = 0; i < 100000; i++) {
        struct slice s = alloc(100);
        memset(s.p, 'x', s.n);
        slice_unref(&s);
    }
    assert_memory_equal(held.p, "precious", 8);
    slice_unref(&held);
}

static void a_full_chunk_is_replaced_and_lives_while_it_is_held(void **state)
{
    (void)state;
    struct slice first = alloc(OWN_CHUNK_BYTES);
    struct chunk *old = first.chunk;
    memset(first.p, 'a', first.n);
    for (int i = 0; i < 3; i++) {
        struct slice s = alloc(OWN_CHUNK_BYTES);
        assert_ptr_equal(s.chunk, old);
        slice_unref(&s);
    }
    struct slice next = alloc(OWN_CHUNK_BYTES);
    assert_ptr_not_equal(next.chunk, old);
    assert_int_equal(old->refs, 1); /* ours: the arena has let go of it */
    assert_int_equal(first.p[0], 'a');
    assert_int_equal(first.p[first.n - 1], 'a');
    slice_unref(&first);
    slice_unref(&next);
}

static void a_chunk_is_used_to_its_last_byte(void **state)
{
    (void)state;
    struct slice s[4];
    for (int i = 0; i < 4; i++)
        s[i] = alloc(CHUNK_BYTES / 4);
    assert_ptr_equal(s[0].chunk, s[3].chunk);
    assert_int_equal(s[0].chunk->used, CHUNK_BYTES / 4 * 4);
    for (int i = 0; i < 4; i++)
        slice_unref(&s[i]);
}

static void large_bytes_have_a_chunk_of_their_own(void **state)
{
    (void)state;
    struct slice small = alloc(1), large = alloc(OWN_CHUNK_BYTES + 1), after = alloc(1);
    assert_ptr_not_equal(large.chunk, small.chunk);
    assert_int_equal(large.chunk->cap, OWN_CHUNK_BYTES + 1);
    assert_int_equal(large.chunk->refs, 1);
    assert_ptr_equal(after.p, small.p + 1); /* the shared chunk goes on */
    slice_unref(&large);
    slice_unref(&small);
    slice_unref(&after);
}

static void a_size_that_cannot_be_is_refused(void **state)
{
    struct slice s = {0};
    (void)state;
    assert_int_equal(bytes_alloc(&arena, (size_t)UINT32_MAX + 1, &s), ERR_MEMORY);
    assert_int_equal(bytes_alloc(&arena, SIZE_MAX, &s), ERR_MEMORY);
    assert_null(arena.current);
}

static void a_slice_outlives_the_arena(void **state)
{
    struct bytes own;
    struct slice s = {0};
    (void)state;
    bytes_init(&own);
    assert_int_equal(bytes_alloc(&own, 4, &s), 0);
    memcpy(s.p, "left", 4);
    bytes_deinit(&own);
    assert_memory_equal(s.p, "left", 4);
    slice_unref(&s);
}

static void static_bytes_are_not_counted(void **state)
{
    static uint8_t text[] = "static";
    struct slice s = {NULL, text, 6};
    (void)state;
    slice_ref(&s);
    slice_unref(&s);
    slice_unref(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_allocated_in_a_row_lies_side_by_side, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_chunk_that_nobody_holds_is_filled_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_that_are_held_are_never_given_out_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_chunk_is_replaced_and_lives_while_it_is_held, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_chunk_is_used_to_its_last_byte, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_bytes_have_a_chunk_of_their_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_size_that_cannot_be_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slice_outlives_the_arena, set_up, tear_down),
        cmocka_unit_test_setup_teardown(static_bytes_are_not_counted, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
