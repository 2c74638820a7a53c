#include "claim.h"
#include "err.h"
#include "limit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PID "CgsM-x7PzE4nd0aGt5hY"

/* Reads from memory of exactly its size, so that sanitizers see a byte too many. */
static int verdict(struct span bytes)
{
    struct claim c;
    char *copy = malloc(bytes.n + 1);
    assert_non_null(copy);
    memcpy(copy + 1, bytes.p, bytes.n);
    int err = claim_read((struct span){copy + 1, bytes.n}, &c);
    free(copy);
    return err;
}

static void assert_written(const struct claim *c, struct span expected)
{
    msgpack_sbuffer b;
    struct claim back;
    msgpack_sbuffer_init(&b);
    assert_int_equal(claim_write(&b, c), 0);
    assert_int_equal(b.size, expected.n);
    assert_memory_equal(b.data, expected.p, expected.n);
    assert_int_equal(claim_read(expected, &back), 0);
    assert_int_equal(back.what, c->what);
    assert_int_equal(back.id, c->id);
    assert_true(span_eq(back.pid, c->pid));
    assert_int_equal(back.result, c->result);
    assert_int_equal(back.epoch, c->epoch);
    assert_true(span_eq(back.entry, c->entry));
    assert_int_equal(back.moved_to, c->moved_to);
    for (size_t n = 0; n < expected.n; n++)
        assert_int_equal(verdict((struct span){expected.p, n}), ERR_CLAIM);
    msgpack_sbuffer_destroy(&b);
}

static void test_messages(void **state)
{
    (void)state;
    assert_written(&(struct claim){.what = CLAIM_ASK, .id = 7, .pid = SPAN(PID)}, SPAN("\x93\1\7\xb4" PID));
    assert_written(
        &(struct claim){
            .what = CLAIM_ANSWER, .id = 7, .result = CLAIM_YOURS, .epoch = 3, .entry = SPAN("entry")},
        SPAN("\x97\2\7\0\3\xc4\5entry\0\0"));
    assert_written(&(struct claim){.what = CLAIM_ANSWER, .id = 300, .result = CLAIM_UNKNOWN},
                   SPAN("\x97\2\xcd\1\x2c\1\0\xc4\0\0\0"));
    assert_written(
        &(struct claim){.what = CLAIM_ANSWER, .id = 7, .result = CLAIM_MOVED, .moved_to = 0xffffff},
        SPAN("\x97\2\7\2\0\xc4\0\xce\0\xff\xff\xff\0"));
    assert_written(
        &(struct claim){.what = CLAIM_ANSWER, .id = 7, .result = CLAIM_MOVED, .epoch = 4, .moved_to = 9},
        SPAN("\x97\2\7\2\0\xc4\0\x09\4"));
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct span wrong[] = {
        SPAN(""),
        SPAN("\x80"),
        SPAN("\x90"),
        SPAN("\x92\1\7"),
        SPAN("\x93\1\7\xb3"
             "CgsM-x7PzE4nd0aGt5h"),
        SPAN("\x93\1\7\xb4"
             "CgsM.x7PzE4nd0aGt5hY"),
        SPAN("\x93\1\xc0\xb4" PID),
        SPAN("\x93\1\7\xb4" PID "\xc0"),        /* behind its end */
        SPAN("\x96\2\7\3\0\xc4\0\0"),           /* no such result */
        SPAN("\x96\2\7\0\0\xc4\1e\0"),          /* yours, without an epoch */
        SPAN("\x96\2\7\0\1\xc4\0\0"),           /* yours, without an entry */
        SPAN("\x96\2\7\1\1\xc4\0\0"),           /* an epoch of nothing */
        SPAN("\x96\2\7\1\0\xc4\1e\0"),          /* an entry of somebody else's */
        SPAN("\x96\2\7\1\0\xc4\0\1"),           /* moved, and not */
        SPAN("\x96\2\7\2\0\xc4\0\xce\1\0\0\0"), /* no tag */
        SPAN("\x96\2\7\2\4\xc4\0\x09"),         /* its epoch has another place */
        SPAN("\x97\2\7\1\0\xc4\0\0\4"),         /* not moved, under an epoch */
        SPAN("\x97\2\7\2\0\xc4\0\x09\xc0"),
        SPAN("\x96\2\7\0\1\xa1"
             "e\0"),
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(verdict(wrong[i]), ERR_CLAIM);
    assert_int_equal(verdict(SPAN("\x92\3\7")), ERR_KIND);
    assert_int_equal(verdict(SPAN("\x96\2\7\2\0\xc4\0\x09")), 0); /* of a node before there was more */
    assert_int_equal(verdict(SPAN("\x98\2\7\2\0\xc4\0\x09\4\xc0")), 0);
    assert_int_equal(verdict(SPAN("\x95\1\7\xb4" PID "\x91\xc0\xc3")), 0); /* additions are skipped */
}

static void test_largest(void **state)
{
    (void)state;
    static char bytes[LIMIT_ENTRY_BYTES + 64];
    size_t head = sizeof("\x96\2\7\0\1\xc6\0\x08\0\0") - 1;
    memcpy(bytes, "\x96\2\7\0\1\xc6\0\x08\0\0", head);
    assert_int_equal(verdict((struct span){bytes, head + LIMIT_ENTRY_BYTES + 1}), 0);
    bytes[head - 1] = 1;
    assert_int_equal(verdict((struct span){bytes, head + LIMIT_ENTRY_BYTES + 2}), ERR_CLAIM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
