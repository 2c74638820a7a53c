/* The recent records of every origin: bounds, order of leaving, and a model to compare with. */
#include "err.h"
#include "ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ring *ring;
static const struct mesh_origin a = {0x010203, 1}, a_again = {0x010203, 2}, b = {0x0a0b0c, 1};

static void make(uint64_t max_ms, uint64_t max_bytes)
{
    ring_free(&ring);
    ring = ring_new(&(struct ring_options){.max_ms = max_ms, .max_bytes = max_bytes});
    assert_non_null(ring);
}

static int set_up(void **state)
{
    (void)state;
    make(1000, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ring_free(&ring);
    assert_null(ring);
    ring_free(&ring);
    return 0;
}

/* A record's bytes tell whose they are. */
static struct span raw_of(struct mesh_origin o, uint64_t seq)
{
    static char text[300];
    memset(text, 'x', sizeof(text));
    int n = snprintf(text, sizeof(text), "%x-%llu:%llu;", o.tag, (unsigned long long)o.boot,
                     (unsigned long long)seq);
    return (struct span){text, (size_t)n + seq * 7 % 200};
}

static int add(uint64_t now_ms, struct mesh_origin o, uint64_t seq)
{
    return ring_add(ring, now_ms, o, seq, raw_of(o, seq), NULL);
}

static bool has(struct mesh_origin o, uint64_t seq)
{
    struct span got = ring_get(ring, o, seq);
    if (got.n == 0)
        return false;
    assert_true(span_eq(got, raw_of(o, seq)));
    return true;
}

static void holds(struct mesh_origin o, uint64_t first, uint64_t last)
{
    uint64_t got_first, got_last;
    assert_true(ring_range(ring, o, &got_first, &got_last));
    assert_int_equal(got_first, first);
    assert_int_equal(got_last, last);
    assert_false(has(o, first - 1));
    assert_false(has(o, last + 1));
    for (uint64_t seq = first; seq <= last; seq++)
        assert_true(has(o, seq));
}

static void holds_none(struct mesh_origin o)
{
    uint64_t first, last;
    assert_false(ring_range(ring, o, &first, &last));
}

static void is_empty_at_first(void **state)
{
    (void)state;
    holds_none(a);
    assert_false(has(a, 0));
    assert_int_equal(ring_bytes(ring), 0);
    assert_int_equal(ring_window_ms(ring, 12345), 0);
    ring_expire(ring, 12345);
    ring_restart(ring, a);
}

static void starts_anywhere_and_goes_on_without_a_hole(void **state)
{
    (void)state;
    assert_int_equal(add(1, a, 17), 0);
    assert_int_equal(add(1, a, 19), ERR_STATE);
    assert_int_equal(add(1, a, 17), ERR_STATE);
    assert_int_equal(add(1, a, 16), ERR_STATE);
    uint64_t bytes = ring_bytes(ring);
    assert_true(bytes >= raw_of(a, 17).n);
    assert_int_equal(add(1, a, 18), 0);
    holds(a, 17, 18);
}

static void origins_are_apart(void **state)
{
    (void)state;
    assert_int_equal(add(1, a, 5), 0);
    assert_int_equal(add(1, a_again, 1), 0);
    assert_int_equal(add(1, b, 100), 0);
    assert_int_equal(add(1, a, 6), 0);
    holds(a, 5, 6);
    holds(a_again, 1, 1);
    holds(b, 100, 100);
}

static void keeps_bytes_of_its_own(void **state)
{
    (void)state;
    char text[] = "record";
    assert_int_equal(ring_add(ring, 1, a, 1, span_of(text), NULL), 0);
    memset(text, '?', sizeof(text));
    assert_true(span_eq(ring_get(ring, a, 1), SPAN("record")));
}

static void lets_go_of_what_is_too_old(void **state)
{
    (void)state;
    add(100, a, 1);
    add(200, b, 1);
    add(300, a, 2);
    assert_int_equal(ring_window_ms(ring, 1000), 900);
    ring_expire(ring, 1100);
    holds(a, 1, 2);
    ring_expire(ring, 1101);
    holds(a, 2, 2);
    holds(b, 1, 1);
    assert_int_equal(ring_window_ms(ring, 1101), 901);
    ring_expire(ring, 1300);
    holds_none(b);
    holds(a, 2, 2);
    ring_expire(ring, 5000);
    holds_none(a);
    assert_int_equal(ring_bytes(ring), 0);
    assert_int_equal(ring_window_ms(ring, 5000), 0);
}

static void a_new_beginning_may_have_any_number(void **state)
{
    (void)state;
    add(1, a, 1);
    ring_expire(ring, 5000);
    assert_int_equal(add(5000, a, 9), 0);
    holds(a, 9, 9);
}

static void the_oldest_of_all_goes_when_bytes_run_out(void **state)
{
    (void)state;
    make(1000, 4096);
    add(1, b, 1);
    for (uint64_t seq = 1; seq <= 200; seq++)
        assert_int_equal(add(1, a, seq), 0);
    holds_none(b);
    assert_true(ring_bytes(ring) <= 4096);
    assert_true(ring_bytes(ring) > 4096 - 400);
    uint64_t first, last;
    assert_true(ring_range(ring, a, &first, &last));
    assert_int_equal(last, 200);
    assert_true(first > 150);
    holds(a, first, last);
}

static void one_record_may_be_larger_than_the_bound(void **state)
{
    (void)state;
    make(1000, 100);
    char *large = calloc(1, 10000);
    add(1, b, 1);
    assert_int_equal(ring_add(ring, 1, a, 1, (struct span){large, 10000}, NULL), 0);
    holds_none(b);
    assert_int_equal(ring_get(ring, a, 1).n, 10000);
    assert_int_equal(ring_add(ring, 1, a, 2, (struct span){large, 10}, NULL), 0);
    assert_int_equal(ring_get(ring, a, 1).n, 0);
    assert_int_equal(ring_get(ring, a, 2).n, 10);
    free(large);
}

/* What a client was found to miss was pushed out by what its node said of its return. */
static void what_is_held_stays(void **state)
{
    (void)state;
    make(1000, 4096);
    add(1, b, 1);
    ring_hold(ring);
    for (uint64_t seq = 1; seq <= 200; seq++)
        assert_int_equal(add(1, a, seq), 0);
    holds(b, 1, 1);
    holds(a, 1, 200);
    ring_let_go(ring);
    holds_none(b);
    assert_true(ring_bytes(ring) <= 4096);
}

static void a_restart_forgets_one_origin(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 100; seq++) {
        add(seq, a, seq);
        add(seq, b, seq);
    }
    ring_restart(ring, a);
    holds_none(a);
    assert_false(has(a, 50));
    holds(b, 1, 100);
    assert_int_equal(add(101, a, 500), 0);
    holds(a, 500, 500);
    /* What was forgotten leaves with its turn and takes nothing else along. */
    ring_expire(ring, 1050);
    holds(b, 50, 100);
    holds(a, 500, 500);
    ring_restart(ring, b);
    ring_expire(ring, 5000);
    assert_int_equal(ring_bytes(ring), 0);
}

static void ends_with_forgotten_records_inside(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 10; seq++)
        add(seq, a, seq);
    ring_restart(ring, a);
    add(11, a, 30);
}

/* ---- a model ---- */

enum { ORIGINS = 4, MODEL = 20000 };

static struct {
    unsigned origin;
    uint64_t seq, at_ms;
    bool forgotten;
} model[MODEL];
static unsigned n_model;
static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static struct mesh_origin origin_of(unsigned i)
{
    return (struct mesh_origin){i / 2 + 1, i % 2 + 1};
}

static void forget(unsigned origin)
{
    ring_restart(ring, origin_of(origin));
    for (unsigned i = 0; i < n_model; i++)
        if (model[i].origin == origin)
            model[i].forgotten = true;
}

/* Held is what has come since some moment, without the forgotten; all of it as it was added. */
static void compare(uint64_t now_ms, uint64_t max_ms)
{
    uint64_t first[ORIGINS] = {0}, last[ORIGINS] = {0};
    bool held = false;
    for (unsigned i = 0; i < n_model; i++) {
        unsigned o = model[i].origin;
        if (model[i].forgotten)
            continue;
        bool here = has(origin_of(o), model[i].seq);
        assert_true(here || !held);
        held = here;
        if (!here)
            continue;
        assert_true(now_ms - model[i].at_ms <= max_ms);
        first[o] = first[o] ? first[o] : model[i].seq;
        last[o] = model[i].seq;
    }
    for (unsigned o = 0; o < ORIGINS; o++) {
        if (first[o])
            holds(origin_of(o), first[o], last[o]);
        else
            holds_none(origin_of(o));
    }
}

static void run_model(uint64_t which, uint64_t max_bytes)
{
    uint64_t now_ms = 1000, next[ORIGINS] = {1, 1, 1, 1};
    seed = which;
    n_model = 0;
    make(1000, max_bytes);
    while (n_model < 3000) {
        unsigned o = (unsigned)(draw(8) ? draw(2) : draw(ORIGINS));
        struct mesh_origin id = origin_of(o);
        uint64_t what = draw(1000), first, last;
        now_ms += draw(4) ? 0 : draw(5);
        if (what < 3) {
            forget(o);
            next[o] += draw(100);
            continue;
        }
        if (what < 20 && ring_range(ring, id, &first, &last)) {
            assert_int_equal(add(now_ms, id, last + 2 + draw(5)), ERR_STATE);
            continue;
        }
        if (what < 60)
            ring_expire(ring, now_ms);
        assert_int_equal(add(now_ms, id, next[o]), 0);
        model[n_model].origin = o;
        model[n_model].seq = next[o]++;
        model[n_model].at_ms = now_ms;
        model[n_model++].forgotten = false;
        assert_true(ring_bytes(ring) <= max_bytes);
        if (n_model % 500 == 0) {
            ring_expire(ring, now_ms);
            compare(now_ms, 1000);
        }
    }
}

static void does_what_the_model_does(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 10; i++) {
        run_model(i, 1 << 20);
        run_model(i, 20000);
        run_model(i, 600);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(is_empty_at_first),
        TEST(starts_anywhere_and_goes_on_without_a_hole),
        TEST(origins_are_apart),
        TEST(keeps_bytes_of_its_own),
        TEST(lets_go_of_what_is_too_old),
        TEST(a_new_beginning_may_have_any_number),
        TEST(the_oldest_of_all_goes_when_bytes_run_out),
        TEST(one_record_may_be_larger_than_the_bound),
        TEST(what_is_held_stays),
        TEST(a_restart_forgets_one_origin),
        TEST(ends_with_forgotten_records_inside),
        TEST(does_what_the_model_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
