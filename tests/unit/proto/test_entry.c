#include <stdlib.h>

/* The library's buffer grows by realloc, within its header: here it can be made to fail. */
static int reallocs_left = -1;

static void *counted_realloc(void *p, size_t n)
{
    if (reallocs_left == 0)
        return NULL;
    reallocs_left -= reallocs_left > 0;
    return realloc(p, n);
}

#define realloc counted_realloc
#include "entry.c"
#include "mp.c"
#undef realloc

#include "id.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SID          "CgsMo1JXq0bUu8wRk2_V"
#define PID          "CgsM-x7PzE4nd0aGt5hY"
#define FULLEST      290107

_Static_assert(ENTRY_ID_CHARS == ID_CHARS, "ids of the bus");

/* Too large for a stack frame each. */
static struct entry entry, back;

/* The example of entry.md; it holds the format fast. */
static const char example[] =
    "\x97\1\xa5/chat\xb4" SID "\xb4" PID "\xae{\"name\":\"ann\"}\xaa~1orJrCgsM\x92\xa1r\xa3two";
#define EXAMPLE_BYTES (sizeof(example) - 1)

static void set_example(void)
{
    entry = (struct entry){.nsp = SPAN("/chat"),
                           .sid = SPAN(SID),
                           .pid = SPAN(PID),
                           .user = SPAN("{\"name\":\"ann\"}"),
                           .data = SPAN(""),
                           .since = SPAN("~1orJrCgsM"),
                           .n_rooms = 2};
    entry.rooms[0] = SPAN("r");
    entry.rooms[1] = SPAN("two");
}

static void assert_span(struct span a, struct span b)
{
    if (!span_eq(a, b))
        fail_msg("'%.*s' and not '%.*s'", (int)a.n, a.p, (int)b.n, b.p);
}

static void assert_same(const struct entry *a, const struct entry *b)
{
    assert_span(a->nsp, b->nsp);
    assert_span(a->sid, b->sid);
    assert_span(a->pid, b->pid);
    assert_span(a->user, b->user);
    assert_span(a->data, b->data);
    assert_span(a->since, b->since);
    assert_int_equal(a->n_rooms, b->n_rooms);
    for (unsigned i = 0; i < a->n_rooms; i++)
        assert_span(a->rooms[i], b->rooms[i]);
}

/* Reads from memory of exactly its size, so that sanitizers see a byte too many; into `back`, which keeps no spans
 * afterwards. */
static int verdict(struct span bytes)
{
    char *copy = malloc(bytes.n + 1);
    assert_non_null(copy);
    memcpy(copy + 1, bytes.p, bytes.n);
    int err = entry_read((struct span){copy + 1, bytes.n}, &back);
    free(copy);
    return err;
}

static void assert_round_trip(size_t expected_bytes)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(entry_write(&b, &entry), 0);
    assert_int_equal(b.size, expected_bytes);
    assert_int_equal(entry_read((struct span){b.data, b.size}, &back), 0);
    assert_same(&back, &entry);
    msgpack_sbuffer_destroy(&b);
}

static void test_example(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    set_example();
    assert_int_equal(EXAMPLE_BYTES, 83);
    assert_int_equal(entry_write(&b, &entry), 0);
    assert_span((struct span){b.data, b.size}, SPAN(example));
    assert_int_equal(entry_read(SPAN(example), &back), 0);
    assert_same(&back, &entry);
    assert_ptr_equal(back.nsp.p, example + 3);
    msgpack_sbuffer_destroy(&b);
}

static void test_empty(void **state)
{
    (void)state;
    entry = (struct entry){.nsp = SPAN("/"), .sid = SPAN(SID), .pid = SPAN(PID)};
    assert_round_trip(2 + 2 + 21 + 21 + 1 + 1 + 1);
}

/* The session that entry.md names for its size. */
static void test_usual(void **state)
{
    (void)state;
    char since[76];
    memset(since, 'A', sizeof(since));
    entry = (struct entry){.nsp = SPAN("/chat"), .sid = SPAN(SID), .pid = SPAN(PID), .n_rooms = 3};
    entry.since = (struct span){since, sizeof(since)};
    for (unsigned i = 0; i < 3; i++)
        entry.rooms[i] = SPAN("room:1234567");
    assert_round_trip(169);
}

static char as[LIMIT_USER_BYTES + LIMIT_OFFSET_BYTES], digits[LIMIT_AGENT_DATA_BYTES],
    nsp[LIMIT_NAMESPACE_BYTES];

static void set_fullest(void)
{
    memset(as, 'a', sizeof(as));
    memset(digits, '1', sizeof(digits));
    memset(nsp, '/', sizeof(nsp));
    entry = (struct entry){.nsp = {nsp, sizeof(nsp)},
                           .sid = SPAN(SID),
                           .pid = SPAN(PID),
                           .user = {digits, LIMIT_USER_BYTES},
                           .data = {digits, LIMIT_AGENT_DATA_BYTES},
                           .since = {as, LIMIT_OFFSET_BYTES},
                           .n_rooms = LIMIT_ROOMS_PER_SOCKET};
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_SOCKET; i++)
        entry.rooms[i] = (struct span){as + i, LIMIT_ROOM_BYTES};
}

static void test_fullest(void **state)
{
    (void)state;
    set_fullest();
    assert_round_trip(FULLEST);
}

/* Room by room, so that lengths and counts of all widths come. */
static void test_lengths(void **state)
{
    (void)state;
    set_fullest();
    for (unsigned i = 0; i <= LIMIT_ROOM_BYTES; i++)
        entry.rooms[i].n = i;
    static const unsigned counts[] = {0, 1, 15, 16, 255, 256, 257, LIMIT_ROOMS_PER_SOCKET};
    for (size_t i = 0; i < COUNT(counts); i++) {
        entry.n_rooms = counts[i];
        msgpack_sbuffer b;
        msgpack_sbuffer_init(&b);
        assert_int_equal(entry_write(&b, &entry), 0);
        assert_int_equal(entry_read((struct span){b.data, b.size}, &back), 0);
        assert_same(&back, &entry);
        msgpack_sbuffer_destroy(&b);
    }
}

static void test_appends(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(msgpack_sbuffer_write(&b, "before", 6), 0);
    set_example();
    assert_int_equal(entry_write(&b, &entry), 0);
    assert_span((struct span){b.data, 6}, SPAN("before"));
    assert_span((struct span){b.data + 6, b.size - 6}, SPAN(example));
    msgpack_sbuffer_destroy(&b);
}

static void test_no_memory(void **state)
{
    (void)state;
    unsigned failures = 0;
    int err = ERR_MEMORY;
    set_fullest();
    for (int left = 1; err != 0; left++) {
        msgpack_sbuffer b;
        msgpack_sbuffer_init(&b);
        reallocs_left = left;
        assert_int_equal(msgpack_sbuffer_write(&b, "before", 6), 0);
        err = entry_write(&b, &entry);
        reallocs_left = -1;
        assert_true(err == 0 ? b.size == 6 + FULLEST : err == ERR_MEMORY && b.size == 6);
        failures += err != 0;
        msgpack_sbuffer_destroy(&b);
    }
    assert_true(failures > 2);
}

/* ---- what is refused ---- */

static void test_cut_or_longer(void **state)
{
    (void)state;
    assert_int_equal(entry_read((struct span){NULL, 0}, &back), ERR_ENTRY);
    for (size_t n = 0; n < EXAMPLE_BYTES; n++)
        assert_int_equal(verdict((struct span){example, n}), ERR_ENTRY);
    assert_int_equal(verdict((struct span){example, EXAMPLE_BYTES}), 0);
    assert_int_equal(verdict((struct span){example, EXAMPLE_BYTES + 1}), ERR_ENTRY);
}

enum { VERSION_AT, NSP, SID_AT, PID_AT, USER, SINCE, ROOMS, DATA, BEHIND };

/* The elements of an entry, one of them replaced. */
static int verdict_with(unsigned at, struct span element)
{
    struct span elements[] = {SPAN("\1"),        SPAN("\xa5/chat"), SPAN("\xb4" SID),
                              SPAN("\xb4" PID),  SPAN("\xa2[]"),    SPAN("\xa3~1x"),
                              SPAN("\x91\xa1r"), SPAN(""),          SPAN("")};
    static const char *const heads[] = {"\x97", "\x98", "\x99"};
    elements[at] = element;
    if (at == BEHIND)
        elements[DATA] = SPAN("\xa0");
    size_t more = (size_t)(elements[DATA].n > 0) + (elements[BEHIND].n > 0);
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(msgpack_sbuffer_write(&b, heads[more], 1), 0);
    for (size_t i = 0; i < COUNT(elements); i++)
        if (elements[i].n > 0)
            assert_int_equal(msgpack_sbuffer_write(&b, elements[i].p, elements[i].n), 0);
    int err = verdict((struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
    return err;
}

static const struct {
    unsigned at;
    struct span element;
    int err;
} rows[] = {
    {VERSION_AT, SPAN("\xcc\1"), 0},
    {VERSION_AT, SPAN("\xd3\0\0\0\0\0\0\0\1"), 0},
    {VERSION_AT, SPAN("\0"), ERR_ENTRY},
    {VERSION_AT, SPAN("\2"), ERR_ENTRY},
    {VERSION_AT, SPAN("\xcd\1\1"), ERR_ENTRY},
    {VERSION_AT, SPAN("\xcf\0\0\0\1\0\0\0\1"), ERR_ENTRY},
    {VERSION_AT, SPAN("\xff"), ERR_ENTRY},
    {VERSION_AT, SPAN("\xa1\1"), ERR_ENTRY},
    {VERSION_AT, SPAN("\xc0"), ERR_ENTRY},
    {NSP, SPAN("\xa1/"), 0},
    {NSP, SPAN("\xdb\0\0\0\1/"), 0},
    {NSP, SPAN("\xa3/\xc3\xa4"), 0},
    {NSP, SPAN("\xa0"), ERR_ENTRY},
    {NSP, SPAN("\xa1x"), ERR_ENTRY},
    {NSP, SPAN("\xa3/,x"), ERR_ENTRY},
    {NSP, SPAN("\xa2/\xc3"), ERR_ENTRY},
    {NSP, SPAN("\xa3/\xc0\x80"), ERR_ENTRY},
    {NSP, SPAN("\xc4\1/"), ERR_ENTRY},
    {NSP, SPAN("\xdb\xff\xff\xff\xff/"), ERR_ENTRY},
    {SID_AT, SPAN("\xd9\x14-_AZaz09ABCDEFGHIJKL"), 0},
    {SID_AT, SPAN("\xa0"), ERR_ENTRY},
    {SID_AT,
     SPAN("\xb3"
          "CgsMo1JXq0bUu8wRk2_"),
     ERR_ENTRY},
    {SID_AT, SPAN("\xb5" SID "V"), ERR_ENTRY},
    {SID_AT,
     SPAN("\xb4"
          "CgsMo1JXq0bUu8wRk2/V"),
     ERR_ENTRY},
    {SID_AT,
     SPAN("\xb4"
          "CgsMo1JXq0bUu8wRk2_\0"),
     ERR_ENTRY},
    {SID_AT, SPAN("\xb4\xc3\xa4sMo1JXq0bUu8wRk2_V"), ERR_ENTRY},
    {SID_AT, SPAN("\xc4\x14" SID), ERR_ENTRY},
    {SID_AT, SPAN("\xc0"), ERR_ENTRY},
    {PID_AT, SPAN("\xa0"), ERR_ENTRY},
    {PID_AT, SPAN("\xb5" PID "V"), ERR_ENTRY},
    {PID_AT,
     SPAN("\xb4"
          "CgsM x7PzE4nd0aGt5hY"),
     ERR_ENTRY},
    {USER, SPAN("\xa0"), 0},
    {USER, SPAN("\xa4null"), 0},
    {USER, SPAN("\xa4\"\xc3\xa4\""), 0},
    {USER, SPAN("\xa1{"), ERR_ENTRY},
    {USER, SPAN("\xa1 "), ERR_ENTRY},
    {USER,
     SPAN("\xa3"
          "1,2"),
     ERR_ENTRY},
    {USER, SPAN("\xa3\"\xff\""), ERR_ENTRY},
    {USER, SPAN("\xa3\"\x1e\""), ERR_ENTRY},
    {USER, SPAN("\xc4\2[]"), ERR_ENTRY},
    {USER, SPAN("\x90"), ERR_ENTRY},
    {USER, SPAN("\xc0"), ERR_ENTRY},
    {DATA, SPAN("\xa0"), 0},
    {DATA, SPAN("\xa7{\"a\":1}"), 0},
    {DATA, SPAN("\xa1{"), ERR_ENTRY},
    {DATA, SPAN("\xa3\"\xff\""), ERR_ENTRY},
    {DATA, SPAN("\xc4\2[]"), ERR_ENTRY},
    {DATA, SPAN("\xda\x40\x01"), ERR_ENTRY},
    {DATA, SPAN("\xc0"), ERR_ENTRY},
    {SINCE, SPAN("\xa0"), 0},
    {SINCE, SPAN("\xa5hello"), 0},
    {SINCE, SPAN("\xc4\1x"), ERR_ENTRY},
    {SINCE, SPAN("\1"), ERR_ENTRY},
    {ROOMS, SPAN("\x90"), 0},
    {ROOMS, SPAN("\xdd\0\0\0\1\xa1r"), 0},
    {ROOMS, SPAN("\x92\xa1r\xa1r"), 0},
    {ROOMS, SPAN("\x91\xa0"), 0},
    {ROOMS, SPAN("\xa1r"), ERR_ENTRY},
    {ROOMS, SPAN("\x92\xa1r"), ERR_ENTRY},
    {ROOMS, SPAN("\x90\xa1r"), ERR_ENTRY},
    {ROOMS, SPAN("\x91\xc4\1r"), ERR_ENTRY},
    {ROOMS, SPAN("\x91\1"), ERR_ENTRY},
    {ROOMS, SPAN("\x91\xa1\xff"), ERR_ENTRY},
    {ROOMS, SPAN("\xdd\xff\xff\xff\xff\xa1r"), ERR_ENTRY},
    {ROOMS, SPAN("\xc0"), ERR_ENTRY},
    {BEHIND, SPAN("\xc0"), 0},
    {BEHIND, SPAN("\x82\1\x92\2\3\4\xc7\3\1abc"), 0},
    {BEHIND, SPAN("\x91\x91\x91\x91\x91\x90"), 0},
    {BEHIND, SPAN("\xc0\xc0"), ERR_ENTRY},
    {BEHIND, SPAN("\xc1"), ERR_ENTRY},
    {BEHIND, SPAN("\xdd\xff\xff\xff\xff"), ERR_ENTRY},
    {BEHIND, SPAN("\xc6\xff\xff\xff\xff"), ERR_ENTRY},
};

static void test_elements(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (verdict_with(rows[i].at, rows[i].element) != rows[i].err)
            fail_msg("row %zu", i);
}

static void test_not_seven(void **state)
{
    (void)state;
    assert_int_equal(verdict(SPAN("\x90")), ERR_ENTRY);
    assert_int_equal(verdict(SPAN("\x91\1")), ERR_ENTRY);
    assert_int_equal(verdict(SPAN("\x96\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0")), ERR_ENTRY);
    assert_int_equal(verdict(SPAN("\x97\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0\x90")), 0);
    assert_int_equal(verdict(SPAN("\x96\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0\x90")), ERR_ENTRY);
    assert_int_equal(verdict(SPAN("\x98\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0\x90")), ERR_ENTRY);
    assert_int_equal(verdict(SPAN("\xdc\0\7\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0\x90")), 0);
    assert_int_equal(verdict(SPAN("\x83\1\xa1/\xb4" SID "\xb4" PID "\xa0\xa0")), ERR_ENTRY);
}

/* Each limit, and one more. */
static void test_limits(void **state)
{
    (void)state;
    static const struct {
        unsigned at;
        size_t limit;
        char first, c, last;
    } limits[] = {
        {NSP, LIMIT_NAMESPACE_BYTES, '/', 'a', 'a'}, {SID_AT, ENTRY_ID_CHARS, 'A', 'a', '_'},
        {PID_AT, ENTRY_ID_CHARS, 'A', 'a', '-'},     {USER, LIMIT_USER_BYTES, '"', 'a', '"'},
        {SINCE, LIMIT_OFFSET_BYTES, '~', 'a', 'a'},
    };
    static char text[3 + 4097];
    for (size_t i = 0; i < COUNT(limits); i++)
        for (size_t over = 0; over < 2; over++) {
            size_t n = limits[i].limit + over;
            assert_true(n + 3 <= sizeof(text));
            memcpy(text, (char[]){'\xda', (char)(n >> 8), (char)n}, 3);
            memset(text + 3, limits[i].c, n);
            text[3] = limits[i].first;
            text[2 + n] = limits[i].last;
            assert_int_equal(verdict_with(limits[i].at, (struct span){text, 3 + n}), over ? ERR_ENTRY : 0);
        }
}

static void test_limits_of_rooms(void **state)
{
    (void)state;
    static char rooms[3 + 2 * (LIMIT_ROOMS_PER_SOCKET + 1)], room[4 + LIMIT_ROOM_BYTES + 1];
    for (size_t over = 0; over < 2; over++) {
        size_t n = LIMIT_ROOMS_PER_SOCKET + over;
        memcpy(rooms, (char[]){'\xdc', (char)(n >> 8), (char)n}, 3);
        for (size_t i = 0; i < n; i++)
            memcpy(rooms + 3 + 2 * i, "\xa1r", 2);
        assert_int_equal(verdict_with(ROOMS, (struct span){rooms, 3 + 2 * n}), over ? ERR_ENTRY : 0);

        n = LIMIT_ROOM_BYTES + over;
        memset(room, 'r', sizeof(room));
        memcpy(room, (char[]){'\x91', '\xda', (char)(n >> 8), (char)n}, 4);
        assert_int_equal(verdict_with(ROOMS, (struct span){room, 4 + n}), over ? ERR_ENTRY : 0);
    }
}

static void test_depth_of_user(void **state)
{
    (void)state;
    static char text[3 + 2 * (LIMIT_JSON_DEPTH + 1)];
    for (size_t over = 0; over < 2; over++) {
        size_t depth = LIMIT_JSON_DEPTH + over, n = 2 * depth;
        memcpy(text, (char[]){'\xda', (char)(n >> 8), (char)n}, 3);
        memset(text + 3, '[', depth);
        memset(text + 3 + depth, ']', depth);
        assert_int_equal(verdict_with(USER, (struct span){text, 3 + n}), over ? ERR_ENTRY : 0);
    }
}

/* Whatever byte is changed to whatever: it is refused, or is another entry that is written as it is read. */
static void test_damaged(void **state)
{
    (void)state;
    char bytes[EXAMPLE_BYTES];
    unsigned taken = 0, refused = 0;
    for (size_t at = 0; at < EXAMPLE_BYTES; at++)
        for (int c = 0; c < 256; c++) {
            memcpy(bytes, example, EXAMPLE_BYTES);
            bytes[at] = (char)c;
            int err = verdict((struct span){bytes, EXAMPLE_BYTES});
            assert_true(err == 0 || err == ERR_ENTRY);
            refused += err != 0;
            if (err != 0)
                continue;
            taken++;
            assert_int_equal(entry_read((struct span){bytes, EXAMPLE_BYTES}, &entry), 0);
            assert_round_trip(EXAMPLE_BYTES);
        }
    assert_true(taken > EXAMPLE_BYTES && refused > EXAMPLE_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),       cmocka_unit_test(test_empty),
        cmocka_unit_test(test_usual),         cmocka_unit_test(test_fullest),
        cmocka_unit_test(test_lengths),       cmocka_unit_test(test_appends),
        cmocka_unit_test(test_no_memory),     cmocka_unit_test(test_cut_or_longer),
        cmocka_unit_test(test_elements),      cmocka_unit_test(test_not_seven),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_limits_of_rooms),
        cmocka_unit_test(test_depth_of_user), cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests_name("entry", tests, NULL, NULL);
}
