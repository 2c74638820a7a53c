/* A client's queue: merging, the ring, partial writes, volatile messages, compaction, moving; and all of it
 * at random against a plain model. */
#include "bytes.c"
#include "outq.c"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct bytes arena;
static struct outq q;

static int set_up(void **state)
{
    (void)state;
    bytes_init(&arena);
    outq_init(&q);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    outq_deinit(&q);
    bytes_deinit(&arena);
    return 0;
}

static struct slice slice_of(const char *text)
{
    struct slice s = {0};
    assert_int_equal(bytes_alloc(&arena, strlen(text), &s), 0);
    memcpy(s.p, text, s.n);
    return s;
}

static void push_to(struct outq *to, const char *text, bool is_volatile)
{
    struct slice s = slice_of(text);
    assert_int_equal(outq_push(to, &s, 1, is_volatile), 0);
    slice_unref(&s);
}

static void push(const char *text)
{
    push_to(&q, text, false);
}

/* The next pushed slice is no neighbour of the last one. */
static struct slice gap(void)
{
    struct slice s = slice_of("|");
    return s;
}

static void push_apart(const char *text, bool is_volatile)
{
    struct slice between = gap();
    push_to(&q, text, is_volatile);
    slice_unref(&between);
}

static void holds(const struct outq *queue, const char *expected)
{
    char all[4096];
    size_t n = 0;
    for (unsigned i = 0; i < queue->count; i++) {
        struct span s = outq_at(queue, i);
        assert_true(n + s.n < sizeof(all));
        memcpy(all + n, s.p, s.n);
        n += s.n;
    }
    all[n] = '\0';
    assert_string_equal(all, expected);
    assert_int_equal(queue->bytes, n);
}

static void an_empty_queue_has_nothing_to_write(void **state)
{
    struct iovec iov[2];
    (void)state;
    assert_true(outq_empty(&q));
    assert_int_equal(outq_iov(&q, iov, 2), 0);
    assert_int_equal(outq_drop_volatile(&q), 0);
    outq_compact(&q);
    outq_clear(&q);
    holds(&q, "");
}

static void neighbours_are_merged(void **state)
{
    struct slice a = slice_of("one"), b = slice_of("two"), c = slice_of("three");
    (void)state;
    assert_int_equal(outq_push(&q, &a, 1, false), 0);
    assert_int_equal(outq_push(&q, &b, 2, false), 0);
    assert_int_equal(outq_push(&q, &c, 1, false), 0);
    assert_int_equal(q.count, 1);
    assert_int_equal(q.messages, 4);
    assert_int_equal(q.entry[0].messages, 4);
    assert_int_equal(a.chunk->refs, 1 + 3 + 1); /* the arena, the slices, one for the queue */
    holds(&q, "onetwothree");
    slice_unref(&a);
    slice_unref(&b);
    slice_unref(&c);
    outq_clear(&q);
    assert_int_equal(arena.current->refs, 1);
}

static void only_neighbours_are_merged(void **state)
{
    static uint8_t text[] = "aabb";
    struct slice fixed = {NULL, text, 2}, behind = {NULL, text + 2, 2};
    (void)state;
    push("a");
    push_apart("b", false); /* a gap */
    push_to(&q, "c", true); /* volatile */
    push_to(&q, "d", true);
    push("e");
    assert_int_equal(outq_push(&q, &fixed, 1, false), 0);
    assert_int_equal(outq_push(&q, &behind, 1, false), 0); /* static bytes have no owner to tell them by */
    assert_int_equal(q.count, 6);
    holds(&q, "abcdeaabb");
    assert_int_equal(q.messages, 7);
}

static void a_slice_pushed_again_is_not_its_own_neighbour(void **state)
{
    struct slice a = slice_of("again");
    (void)state;
    assert_int_equal(outq_push(&q, &a, 1, false), 0);
    assert_int_equal(outq_push(&q, &a, 1, false), 0);
    assert_int_equal(q.count, 2);
    holds(&q, "againagain");
    slice_unref(&a);
}

static void merged_messages_count_until_all_of_them_are_written(void **state)
{
    (void)state;
    push("one");
    push("two");
    outq_advance(&q, 4);
    assert_int_equal(q.messages, 2);
    outq_advance(&q, 2);
    assert_int_equal(q.messages, 0);
}

static void a_partly_written_entry_still_grows(void **state)
{
    (void)state;
    push("hello ");
    outq_advance(&q, 2);
    push("world");
    assert_int_equal(q.count, 1);
    assert_int_equal(q.messages, 2);
    holds(&q, "llo world");
}

static void the_ring_grows_and_wraps(void **state)
{
    char text[16];
    unsigned next_in = 0, next_out = 0;
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < round % 13 + 1; i++) {
            snprintf(text, sizeof(text), "%04u", next_in++);
            push_apart(text, false);
        }
        for (unsigned i = 0; i < round % 11 + 1 && !outq_empty(&q); i++) {
            struct span first = outq_at(&q, 0);
            snprintf(text, sizeof(text), "%04u", next_out++);
            assert_true(span_eq(first, span_of(text)));
            outq_advance(&q, 4);
        }
        assert_int_equal(q.count, next_in - next_out);
        assert_int_equal(q.messages, next_in - next_out);
        assert_int_equal(q.bytes, 4 * (next_in - next_out));
    }
    assert_true(q.cap > 64);
}

static void iov_gives_the_front_and_no_more_than_asked(void **state)
{
    struct iovec iov[3];
    (void)state;
    for (int i = 0; i < 5; i++)
        push_apart("xy", false);
    assert_int_equal(outq_iov(&q, iov, 3), 3);
    assert_int_equal(outq_iov(&q, iov, 0), 0);
    outq_advance(&q, 7);
    assert_int_equal(outq_iov(&q, iov, 3), 2);
    assert_int_equal(iov[0].iov_len, 1);
    assert_memory_equal(iov[0].iov_base, "y", 1);
    assert_int_equal(iov[1].iov_len, 2);
}

static void an_advance_may_end_anywhere(void **state)
{
    (void)state;
    push_apart("abc", false);
    push_apart("def", false);
    push_apart("ghi", false);
    outq_advance(&q, 0);
    assert_false(q.started);
    outq_advance(&q, 1);
    assert_true(q.started);
    holds(&q, "bcdefghi");
    outq_advance(&q, 2);
    assert_false(q.started); /* exactly at the end of an entry */
    holds(&q, "defghi");
    outq_advance(&q, 5);
    assert_true(q.started);
    assert_int_equal(q.messages, 1);
    holds(&q, "i");
    outq_advance(&q, 1);
    assert_true(outq_empty(&q));
    assert_false(q.started);
}

static void an_emptied_queue_gives_its_memory_back(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        push_apart("x", false);
    assert_ptr_not_equal(q.entry, q.first);
    outq_advance(&q, 100);
    assert_ptr_equal(q.entry, q.first);
    assert_int_equal(q.cap, 1);
    for (int i = 0; i < 100; i++)
        push_apart("x", true);
    assert_int_equal(outq_drop_volatile(&q), 100);
    assert_ptr_equal(q.entry, q.first);
    for (int i = 0; i < 100; i++)
        push_apart("x", false);
    outq_clear(&q);
    assert_ptr_equal(q.entry, q.first);
    assert_int_equal(q.messages, 0);
    assert_int_equal(arena.current->refs, 1);
}

static void volatile_messages_are_dropped_and_the_rest_keeps_its_order(void **state)
{
    (void)state;
    push("a");
    push_to(&q, "b", true);
    push_to(&q, "c", true);
    push("d");
    push_to(&q, "e", true);
    push("f");
    assert_int_equal(outq_drop_volatile(&q), 3);
    holds(&q, "adf");
    assert_int_equal(q.messages, 3);
    assert_int_equal(outq_drop_volatile(&q), 0);
}

static void a_volatile_message_that_is_partly_written_stays(void **state)
{
    (void)state;
    push_apart("begun", true);
    push_apart("waiting", true);
    outq_advance(&q, 2);
    assert_int_equal(outq_drop_volatile(&q), 1);
    holds(&q, "gun");
    assert_true(q.started);
    assert_int_equal(outq_drop_volatile(&q), 0);
}

static void a_volatile_message_at_the_front_goes_when_it_is_not_begun(void **state)
{
    (void)state;
    push("x");
    push_to(&q, "volatile", true);
    outq_advance(&q, 1);
    assert_int_equal(outq_drop_volatile(&q), 1);
    assert_true(outq_empty(&q));
}

static void volatile_messages_are_dropped_from_a_ring_that_wraps(void **state)
{
    char text[] = "xx";
    (void)state;
    for (int i = 0; i < 8; i++)
        push_apart("..", false);
    outq_advance(&q, 12);
    for (int i = 0; i < 6; i++) {
        text[0] = text[1] = (char)('0' + i);
        push_apart(text, i % 2 == 1);
    }
    assert_int_equal(q.cap, 8);
    assert_int_equal(outq_drop_volatile(&q), 3);
    holds(&q, "....002244");
}

static void frames_of_one_message_group_are_counted_together(void **state)
{
    struct slice s = slice_of("textbinarybinary");
    (void)state;
    assert_int_equal(outq_push(&q, &s, 3, true), 0);
    slice_unref(&s);
    assert_int_equal(q.messages, 3);
    assert_int_equal(outq_drop_volatile(&q), 3);
    assert_int_equal(q.messages, 0);
}

static void the_number_of_entries_is_bounded(void **state)
{
    static uint8_t text[] = "x";
    struct slice fixed = {NULL, text, 1};
    (void)state;
    for (int i = 0; i < ENTRIES_MAX; i++)
        assert_int_equal(outq_push(&q, &fixed, 1, false), 0);
    assert_int_equal(outq_push(&q, &fixed, 1, false), ERR_LIMIT);
    assert_int_equal(q.count, ENTRIES_MAX);
    assert_int_equal(q.messages, ENTRIES_MAX);
    outq_advance(&q, 1);
    assert_int_equal(outq_push(&q, &fixed, 1, false), 0);
    outq_advance(&q, ENTRIES_MAX);
    assert_true(outq_empty(&q));
}

/* ---- compaction ---- */

static void compaction_keeps_bytes_and_order_and_frees_chunks(void **state)
{
    struct chunk *chunks[20];
    char expected[256] = "", text[16];
    (void)state;
    /* A few bytes in each of many chunks: what a slow client of a busy room holds. */
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof(text), "m%02d,", i);
        strcat(expected, text);
        push(text);
        chunks[i] = arena.current;
        chunks[i]->refs++;
        assert_int_equal(next_chunk(&arena), 0);
    }
    assert_int_equal(q.count, 20);
    outq_compact(&q);
    assert_int_equal(q.count, 1);
    assert_int_equal(q.messages, 20);
    assert_int_equal(q.entry[q.head].messages, 20);
    assert_int_equal(q.entry[q.head].chunk->cap, strlen(expected));
    holds(&q, expected);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(chunks[i]->refs, 1); /* ours */
        chunk_unref(chunks[i]);
    }
}

static void compaction_of_what_is_compact_copies_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++)
        push_apart("a", false);
    outq_compact(&q);
    struct outq_entry before = q.entry[q.head];
    outq_compact(&q);
    assert_int_equal(q.count, 1);
    assert_ptr_equal(q.entry[q.head].p, before.p);
    assert_ptr_equal(q.entry[q.head].chunk, before.chunk);
}

/* A client that stays blocked gets a little more in every turn: what was compacted is compacted again. */
static void compaction_over_and_over_keeps_few_chunks(void **state)
{
    uint64_t held = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        push("0123456789");
        assert_int_equal(next_chunk(&arena), 0);
        outq_compact(&q);
        assert_true(q.count < 8);
    }
    for (unsigned i = 0; i < q.count; i++)
        held += q.entry[(q.head + i) & (q.cap - 1u)].chunk->cap;
    assert_int_equal(q.bytes, 10000);
    assert_true(held <= 10000 + (COMPACT_FROM - 1) * CHUNK_BYTES);
}

static void compaction_leaves_large_and_static_entries_alone(void **state)
{
    static uint8_t text[] = "static";
    struct slice fixed = {NULL, text, 6}, large;
    (void)state;
    assert_int_equal(bytes_alloc(&arena, OWN_CHUNK_BYTES + 5000, &large), 0);
    memset(large.p, 'L', large.n);
    push_apart("a", false);
    push_apart("b", false);
    assert_int_equal(outq_push(&q, &fixed, 1, false), 0);
    push_apart("c", false);
    push_apart("d", false);
    assert_int_equal(outq_push(&q, &large, 1, false), 0);
    push_apart("e", false);
    push_apart("f", false);
    assert_int_equal(large.chunk->refs, 2);
    outq_compact(&q);
    assert_int_equal(q.count, 5);
    assert_true(span_eq(outq_at(&q, 0), SPAN("ab")));
    assert_ptr_equal(outq_at(&q, 1).p, text);
    assert_true(span_eq(outq_at(&q, 2), SPAN("cd")));
    assert_ptr_equal(outq_at(&q, 3).p, large.p);
    assert_true(span_eq(outq_at(&q, 4), SPAN("ef")));
    assert_int_equal(large.chunk->refs, 2);
    assert_int_equal(arena.current->refs, 1);
    slice_unref(&large);
}

static void compaction_keeps_volatile_messages_apart(void **state)
{
    (void)state;
    push("a");
    push_apart("b", false);
    push_apart("C", true);
    push_apart("D", true);
    push_apart("e", false);
    outq_compact(&q);
    assert_int_equal(q.count, 3);
    holds(&q, "abCDe");
    assert_int_equal(outq_drop_volatile(&q), 2);
    holds(&q, "abe");
    assert_int_equal(q.messages, 3);
}

static void compaction_of_a_started_queue_goes_on_where_it_was(void **state)
{
    (void)state;
    push_apart("abcdef", false);
    push_apart("ghi", false);
    push_apart("jkl", false);
    push_apart("mno", false);
    outq_advance(&q, 4);
    outq_compact(&q);
    assert_int_equal(q.count, 1);
    assert_true(q.started);
    assert_int_equal(q.messages, 4);
    holds(&q, "efghijklmno");
    outq_advance(&q, 11);
    assert_true(outq_empty(&q));
}

static void compaction_makes_no_chunk_larger_than_its_limit(void **state)
{
    struct slice s, between;
    uint64_t total = 0;
    (void)state;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(bytes_alloc(&arena, 5000, &s), 0);
        memset(s.p, 'a' + i % 26, s.n);
        assert_int_equal(outq_push(&q, &s, 1, false), 0);
        total += s.n;
        slice_unref(&s);
        between = gap();
        slice_unref(&between);
    }
    outq_compact(&q);
    assert_int_equal(q.bytes, total);
    assert_true(q.count >= total / COMPACT_MAX_BYTES && q.count < 40);
    uint64_t at_byte = 0;
    for (unsigned i = 0; i < q.count; i++) {
        struct span run = outq_at(&q, i);
        assert_true(run.n <= COMPACT_MAX_BYTES);
        for (size_t k = 0; k < run.n; k++, at_byte++)
            assert_int_equal(run.p[k], 'a' + at_byte / 5000 % 26);
    }
    assert_int_equal(at_byte, total);
}

/* ---- moving ---- */

static void a_queue_moves_behind_another(void **state)
{
    struct outq to;
    (void)state;
    outq_init(&to);
    push_to(&to, "first ", false);
    push("second ");
    push_apart("volatile ", true);
    push_apart("third", false);
    outq_advance(&q, 2);
    assert_int_equal(outq_move(&q, &to), 0);
    assert_true(outq_empty(&q));
    assert_int_equal(q.messages, 0);
    assert_int_equal(q.bytes, 0);
    assert_ptr_equal(q.entry, q.first);
    holds(&to, "first cond volatile third");
    assert_int_equal(to.messages, 4);
    assert_int_equal(outq_drop_volatile(&to), 1);
    holds(&to, "first cond third");
    outq_deinit(&to);
    assert_int_equal(arena.current->refs, 1);
}

static void a_move_to_a_full_queue_loses_nothing(void **state)
{
    static uint8_t text[] = "x";
    struct slice fixed = {NULL, text, 1};
    struct outq to;
    (void)state;
    outq_init(&to);
    for (int i = 0; i < ENTRIES_MAX - 1; i++)
        assert_int_equal(outq_push(&to, &fixed, 1, false), 0);
    push("fits");
    push_apart("stays", false);
    assert_int_equal(outq_move(&q, &to), ERR_LIMIT);
    holds(&q, "stays");
    assert_int_equal(to.messages, ENTRIES_MAX);
    outq_deinit(&to);
}

/* ---- at random, against a model ---- */

enum { MODEL_MAX = 4096 };

/* The same queue, message by message. */
static struct {
    struct {
        char c;
        unsigned n, left; /* bytes, and how many are not written */
        bool is_volatile;
    } message[MODEL_MAX];
    unsigned count;
} model;

static void model_advance(size_t n)
{
    while (n > 0) {
        unsigned take = model.message[0].left < n ? model.message[0].left : (unsigned)n;
        model.message[0].left -= take;
        n -= take;
        if (model.message[0].left == 0)
            memmove(model.message, model.message + 1, --model.count * sizeof(model.message[0]));
    }
}

/* The bytes are what counts. When a volatile message is begun those merged with it are kept as well, so the
 * model follows the queue there: it checks that what is kept is a run behind the first message. */
static void model_drop_volatile(uint32_t dropped)
{
    unsigned i_kept = 0, gone = 0, volatile_count = 0;
    for (unsigned i = 0; i < model.count; i++)
        volatile_count += model.message[i].is_volatile;
    unsigned spare = volatile_count - dropped; /* volatile ones that stay */
    bool begun = model.count && model.message[0].is_volatile && model.message[0].left < model.message[0].n;
    assert_true(spare == 0 || begun);
    for (unsigned i = 0; i < model.count; i++) {
        if (model.message[i].is_volatile && spare > 0)
            spare--;
        else if (model.message[i].is_volatile) {
            gone++;
            continue;
        }
        model.message[i_kept++] = model.message[i];
    }
    model.count = i_kept;
    assert_int_equal(gone, dropped);
}

static void equals_the_model(void)
{
    unsigned m = 0, in_message = 0;
    uint64_t bytes = 0, messages = 0;
    for (unsigned i = 0; i < q.count; i++) {
        struct span run = outq_at(&q, i);
        assert_true(run.n > 0);
        messages += q.entry[(q.head + i) & (q.cap - 1u)].messages;
        for (size_t k = 0; k < run.n; k++) {
            assert_true(m < model.count);
            assert_int_equal(run.p[k], model.message[m].c);
            if (++in_message == model.message[m].left) {
                m++;
                in_message = 0;
            }
        }
        bytes += run.n;
    }
    assert_int_equal(m, model.count);
    assert_int_equal(in_message, 0);
    assert_int_equal(bytes, q.bytes);
    assert_int_equal(messages, q.messages);
    /* Messages that were merged into one entry are counted until all of it is written. */
    assert_true(messages >= model.count);
    assert_true(q.started || messages == model.count);
}

static void random_push(void)
{
    bool large = rand() % 40 == 0, is_volatile = rand() % 3 == 0;
    unsigned n = large ? 9000 + (unsigned)rand() % 9000 : 1 + (unsigned)rand() % 300;
    char c = (char)('a' + rand() % 26);
    struct slice s, between = {NULL, NULL, 0};
    if (model.count == MODEL_MAX)
        return;
    if (rand() % 2)
        between = gap();
    assert_int_equal(bytes_alloc(&arena, n, &s), 0);
    memset(s.p, c, n);
    assert_int_equal(outq_push(&q, &s, 1, is_volatile), 0);
    slice_unref(&s);
    slice_unref(&between);
    model.message[model.count].c = c;
    model.message[model.count].n = model.message[model.count].left = n;
    model.message[model.count++].is_volatile = is_volatile;
}

static void random_operations_equal_the_model(void **state)
{
    (void)state;
    srand(20261121);
    model.count = 0;
    for (int step = 0; step < 20000; step++) {
        switch (rand() % 10) {
        default:
            random_push();
            break;
        case 6:
        case 7: {
            size_t n = q.bytes ? (size_t)rand() % (q.bytes + 1) : 0;
            n = rand() % 8 ? n % 2000 : n;
            model_advance(n);
            outq_advance(&q, n);
            break;
        }
        case 8:
            outq_compact(&q);
            break;
        case 9:
            if (rand() % 4 == 0)
                model_drop_volatile(outq_drop_volatile(&q));
            break;
        }
        equals_the_model();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_queue_has_nothing_to_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(neighbours_are_merged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_neighbours_are_merged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slice_pushed_again_is_not_its_own_neighbour, set_up, tear_down),
        cmocka_unit_test_setup_teardown(merged_messages_count_until_all_of_them_are_written, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_partly_written_entry_still_grows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_ring_grows_and_wraps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(iov_gives_the_front_and_no_more_than_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_advance_may_end_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_emptied_queue_gives_its_memory_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(volatile_messages_are_dropped_and_the_rest_keeps_its_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_volatile_message_that_is_partly_written_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_volatile_message_at_the_front_goes_when_it_is_not_begun, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(volatile_messages_are_dropped_from_a_ring_that_wraps, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(frames_of_one_message_group_are_counted_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_number_of_entries_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_keeps_bytes_and_order_and_frees_chunks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_of_what_is_compact_copies_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_over_and_over_keeps_few_chunks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_leaves_large_and_static_entries_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_keeps_volatile_messages_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compaction_of_a_started_queue_goes_on_where_it_was, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(compaction_makes_no_chunk_larger_than_its_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_queue_moves_behind_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_move_to_a_full_queue_loses_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(random_operations_equal_the_model, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
