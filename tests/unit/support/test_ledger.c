/* The account of the fault tests must see what it is there to see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../bench/lib/util.c"
#include "../../support/traffic/ledger.c"

#include <cmocka.h>

static const char *const NAMES[] = {"a", "b"};

static int set_up(void **state)
{
    *state = ledger_new(2, 2, NAMES);
    return 0;
}

static int tear_down(void **state)
{
    ledger_free(*state);
    return 0;
}

static void send_and_acknowledge(struct ledger *l, struct life *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ledger_acknowledge(l, from, ledger_send(l, from), true);
}

static void hear(struct ledger *l, struct life *to, const struct life *from, uint64_t first, uint64_t end)
{
    for (; first < end; first++)
        ledger_hear(l, to, life_id(from), first, 1000);
}

static struct pair *only_pair(struct ledger *l)
{
    return &l->pairs[1]; /* from a to b */
}

static void finds_nothing_missing_when_nothing_is(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1);
    send_and_acknowledge(l, a, 3);
    assert_int_equal(ledger_missing(l), 3);
    hear(l, b, a, 0, 3);
    assert_int_equal(ledger_missing(l), 0);
    assert_int_equal(only_pair(l)->heard, 3);
    assert_int_equal(only_pair(l)->worst_us, 1000);
}

static void counts_holes_and_tails(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1);
    send_and_acknowledge(l, a, 10);
    hear(l, b, a, 2, 5);
    hear(l, b, a, 6, 9);
    assert_int_equal(ledger_missing(l), 2 + 1 + 1);
    hear(l, b, a, 5, 6);
    assert_int_equal(ledger_missing(l), 3);
    assert_int_equal(only_pair(l)->disordered, 1);
}

static void counts_what_came_twice(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1);
    send_and_acknowledge(l, a, 3);
    hear(l, b, a, 0, 3);
    hear(l, b, a, 1, 2);
    assert_int_equal(only_pair(l)->twice, 1);
    assert_int_equal(ledger_missing(l), 0);
}

static void counts_what_nobody_sent(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1), *other = ledger_begin(l, 1, 1);
    send_and_acknowledge(l, a, 1);
    hear(l, other, a, 0, 1);        /* of another room */
    hear(l, a, a, 0, 1);            /* its own */
    hear(l, b, a, 1, 2);            /* not sent yet */
    ledger_hear(l, b, 77, 0, 1000); /* of nobody */
    assert_int_equal(l->strays, 4);
    assert_int_equal(l->heard, 0);
}

/* What was sent before the join may come, from any number on, but then without a hole. */
static void expects_of_a_newcomer_what_was_sent_after_its_join(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0);
    send_and_acknowledge(l, a, 5);
    struct life *b = ledger_begin(l, 0, 1), *c = ledger_begin(l, 0, 1);
    assert_int_equal(ledger_missing(l), 0);
    send_and_acknowledge(l, a, 1);
    assert_int_equal(ledger_missing(l), 2);
    hear(l, b, a, 3, 4);
    assert_int_equal(ledger_missing(l), 2 + 1);
    hear(l, b, a, 4, 6);
    hear(l, c, a, 5, 6);
    assert_int_equal(ledger_missing(l), 0);
    hear(l, c, a, 4, 5);
    assert_int_equal(only_pair(l)->disordered, 1);
}

/* How much of a dead sender's last words was taken is not known, but all who are left have the same. */
static void wants_the_last_words_heard_by_all_or_none(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1), *c = ledger_begin(l, 0, 1);
    send_and_acknowledge(l, a, 9);
    ledger_send(l, a);
    hear(l, b, a, 0, 7);
    hear(l, c, a, 0, 5);
    ledger_end(l, a);
    struct life *d = ledger_begin(l, 0, 1);
    assert_int_equal(ledger_missing(l), 2);
    hear(l, c, a, 5, 7);
    assert_int_equal(ledger_missing(l), 0);
    hear(l, d, a, 6, 7); /* it was still on its way */
    assert_int_equal(ledger_missing(l), 0);
}

static void misses_nothing_at_who_is_gone(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0), *b = ledger_begin(l, 0, 1);
    send_and_acknowledge(l, a, 9);
    hear(l, b, a, 0, 4);
    ledger_end(l, b);
    assert_int_equal(ledger_missing(l), 0);
    assert_int_equal(l->ends[1], 1);
}

static void counts_acknowledgements(void **state)
{
    struct ledger *l = *state;
    struct life *a = ledger_begin(l, 0, 0);
    ledger_acknowledge(l, a, ledger_send(l, a), true);
    ledger_send(l, a);
    assert_int_equal(ledger_missing(l), 1);
    ledger_acknowledge(l, a, 0, true);
    assert_int_equal(l->acks_wrong, 1);
    ledger_acknowledge(l, a, ledger_send(l, a), false);
    assert_int_equal(l->refused, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_nothing_missing_when_nothing_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_holes_and_tails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_what_came_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_what_nobody_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(expects_of_a_newcomer_what_was_sent_after_its_join, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(wants_the_last_words_heard_by_all_or_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(misses_nothing_at_who_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_acknowledgements, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
