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
#include "mesh.c"
#include "mp.c"
#undef realloc

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Too large for a stack frame each. */
static struct mesh_record record, read;

static unsigned nibble(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Bytes from "94 01 a1"; "*3:c400" is three times the bytes c4 00. */
static struct span hex(const char *text)
{
    static char bytes[1 << 20];
    size_t n = 0;
    while (*text) {
        size_t times = 1, digits;
        if (*text == '*') {
            char *colon;
            times = strtoul(text + 1, &colon, 10);
            text = colon + 1;
        }
        for (digits = strcspn(text, " *"); times > 0; times--)
            for (size_t i = 0; i < digits; i += 2) {
                assert_true(n < sizeof(bytes));
                bytes[n++] = (char)(nibble(text[i]) << 4 | nibble(text[i + 1]));
            }
        text += digits;
        text += *text == ' ';
    }
    return (struct span){bytes, n};
}

/* Reads a record from memory of exactly its size, so that sanitizers see a byte too many; into `read`, which
 * keeps no spans afterwards. */
static int verdict(struct span bytes)
{
    char *copy = malloc(bytes.n + 1);
    assert_non_null(copy);
    memcpy(copy + 1, bytes.p, bytes.n);
    struct mesh_reader r = {copy + 1, copy + 1 + bytes.n};
    int result = mesh_read(&r, &read);
    if (result == ERR_MESH)
        assert_true(r.p <= r.end && mesh_read(&r, &read) == ERR_MESH);
    else
        assert_true(r.p == r.end || result == 1);
    free(copy);
    return result;
}

static void assert_verdict(const char *text, int expected)
{
    int result = verdict(hex(text));
    if (result != expected)
        fail_msg("%s: %d", text, result);
}

/* ---- layouts ---- */

static const struct mesh_head head = {2, {"c", 1}, {0x010203, 5}};

/* The example of mesh.md; it holds the format fast. */
static const char example[] = "94 02 a1 63 ce 00 01 02 03 05"
                              "95 10 cd 01 2b ce 00 0f 42 40 01 91 93 ce 00 0a 0b 0c 06 07"
                              "9d 01 cd 01 2c a1 2f 91 a1 72 01 a4 22 68 69 22 a1 31 90 90 00 00 00 a0"
                              "95 04 cd 01 2d a1 2f a1 73 91 a1 72";

static void set_emit(void)
{
    record = (struct mesh_record){.kind = MESH_EMIT, .seq = 300};
    record.emit.nsp = SPAN("/");
    record.emit.n_to = 1;
    record.emit.to[0] = SPAN("r");
    record.emit.is_volatile = true;
    record.emit.event = SPAN("\"hi\"");
    record.emit.args = SPAN("1");
}

static void set_presence(enum mesh_kind kind, unsigned n_rooms)
{
    static const struct span rooms[] = {{"r", 1}, {"two", 3}};
    record = (struct mesh_record){.kind = kind, .seq = 301};
    record.presence.nsp = SPAN("/");
    record.presence.sid = SPAN("s");
    record.presence.n_rooms = n_rooms;
    memcpy(record.presence.rooms, rooms, n_rooms * sizeof(rooms[0]));
}

static void set_heartbeat(void)
{
    record = (struct mesh_record){.kind = MESH_HEARTBEAT};
    record.heartbeat.newest = 299;
    record.heartbeat.sent_us = 1000000;
    record.heartbeat.ready = true;
    record.heartbeat.n_heard = 1;
    record.heartbeat.heard[0] = (struct mesh_heard){{0x0a0b0c, 6}, 7, 0};
}

static void set_message(enum mesh_kind kind, uint64_t seq)
{
    record = (struct mesh_record){.kind = kind, .seq = seq};
    record.message = (struct mesh_message){MESH_TOPIC_AGENTS, SPAN("k"), SPAN("v")};
}

static void test_example(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(mesh_write_head(&b, &head), 0);
    set_heartbeat();
    assert_int_equal(mesh_write(&b, &record), 0);
    set_emit();
    assert_int_equal(mesh_write(&b, &record), 0);
    set_presence(MESH_JOIN, 1);
    assert_int_equal(mesh_write(&b, &record), 0);
    assert_true(span_eq((struct span){b.data, b.size}, hex(example)));

    struct mesh_reader r;
    struct mesh_head h;
    assert_int_equal(mesh_read_head(&r, (struct span){b.data, b.size}, &h), 0);
    assert_true(h.version == 2 && span_eq(h.cluster, head.cluster));
    assert_true(h.origin.tag == 0x010203 && h.origin.boot == 5);
    const char *at = r.p;
    static const enum mesh_kind kinds[] = {MESH_HEARTBEAT, MESH_EMIT, MESH_JOIN};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        assert_int_equal(mesh_read(&r, &read), 1);
        assert_int_equal(read.kind, kinds[i]);
        assert_true(read.raw.p == at);
        at += read.raw.n;
    }
    assert_true(at == b.data + b.size);
    assert_int_equal(mesh_read(&r, &read), 0);
    assert_int_equal(mesh_read(&r, &read), 0);
    msgpack_sbuffer_destroy(&b);
}

/* msgpack-c's own view of what is written for `record`, as text; and that reading gives what was written. */
static void assert_written(const char *expected)
{
    msgpack_sbuffer b, again;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&again);
    assert_int_equal(mesh_write(&b, &record), 0);
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    size_t at = 0;
    assert_int_equal(msgpack_unpack_next(&result, b.data, b.size, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, b.size);
    char text[1024];
    FILE *file = fmemopen(text, sizeof(text), "w");
    assert_non_null(file);
    msgpack_object_print(file, result.data);
    fclose(file);
    assert_string_equal(text, expected);

    struct mesh_reader r = {b.data, b.data + b.size};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true(read.raw.p == b.data && read.raw.n == b.size);
    assert_int_equal(read.kind, record.kind);
    assert_int_equal(mesh_write(&again, &read), 0);
    assert_true(span_eq((struct span){again.data, again.size}, read.raw));
    msgpack_unpacked_destroy(&result);
    msgpack_sbuffer_destroy(&again);
    msgpack_sbuffer_destroy(&b);
}

static void test_layout_of_numbered(void **state)
{
    (void)state;
    set_emit();
    record.emit.n_except = 2;
    record.emit.except[0] = SPAN("x");
    record.emit.except[1] = SPAN("yy");
    record.emit.n_attachments = 2;
    record.emit.attachments[0] = SPAN("abc");
    record.emit.after_origin = (struct mesh_origin){0xffffff, UINT64_MAX};
    record.emit.after_seq = 9;
    assert_written("[1, 300, \"/\", [\"r\"], 1, \"\"hi\"\", \"1\", [\"x\", \"yy\"], "
                   "[\"abc\", \"\"], 16777215, 18446744073709551615, 9, \"\"]");
    set_emit();
    record.emit.n_to = 0;
    record.emit.is_volatile = false;
    record.emit.args = (struct span){NULL, 0};
    record.emit.skip = SPAN("s");
    assert_written("[1, 300, \"/\", [], 0, \"\"hi\"\", \"\", [], [], 0, 0, 0, \"s\"]");
    set_presence(MESH_ENTER, 0);
    record.presence.epoch = 3;
    assert_written("[2, 301, \"/\", \"s\", 3]");
    assert_int_equal(read.presence.n_rooms, 0);
    set_presence(MESH_EXIT, 0);
    assert_written("[3, 301, \"/\", \"s\"]");
    set_presence(MESH_JOIN, 2);
    record.seq = UINT64_MAX;
    memset(&read, 0x55, sizeof(read));
    assert_written("[4, 18446744073709551615, \"/\", \"s\", [\"r\", \"two\"]]");
    assert_int_equal(read.presence.epoch, 0); /* it has none: not what was in memory */
    assert_int_equal(read.presence.user.n, 0);
    set_presence(MESH_PART, 1);
    assert_written("[5, 301, \"/\", \"s\", [\"r\"]]");
    set_message(MESH_SET, 302);
    assert_written("[6, 302, 2, \"k\", \"v\"]");
    record.message.bytes = (struct span){NULL, 0};
    assert_written("[6, 302, 2, \"k\", \"\"]");
}

static void test_layout_of_the_others(void **state)
{
    (void)state;
    set_heartbeat();
    record.heartbeat.draining = true;
    assert_written("[16, 299, 1000000, 3, [[658188, 6, 7]]]");
    assert_int_equal(read.seq, 0);
    record.heartbeat.ready = false;
    assert_written("[16, 299, 1000000, 2, [[658188, 6, 7]]]");
    record = (struct mesh_record){.kind = MESH_HELLO};
    record.hello = (struct mesh_hello){SPAN("n"), SPAN("p"), SPAN("q"), SPAN("h"), 8, SPAN("a"), true};
    assert_written("[32, \"n\", \"p\", \"q\", \"h\", 8, 1, \"a\"]");
    record = (struct mesh_record){.kind = MESH_REPAIR};
    record.repair = (struct mesh_repair){{1, 2}, 3, 4, 0};
    assert_written("[33, 1, 2, 3, 4]");
    assert_true(read.repair.gone_to == 0);
    record.kind = MESH_REPAIRED;
    record.repair.gone_to = 5;
    assert_written("[34, 1, 2, 3, 4, 5]");
    record = (struct mesh_record){.kind = MESH_ASK_PRESENCE};
    assert_written("[35]");
    record = (struct mesh_record){.kind = MESH_PRESENCE};
    record.part = (struct mesh_presence_part){70000, true, false, 0};
    assert_written("[36, 70000, 1]");
    record.part = (struct mesh_presence_part){70000, false, true, 9};
    assert_written("[36, 70000, 38]");
    record = (struct mesh_record){.kind = MESH_PEERS};
    assert_written("[37, []]");
    record.peers.n = 2;
    record.peers.peer[0] = (struct mesh_endpoints){SPAN("p"), SPAN("q")};
    record.peers.peer[1] = (struct mesh_endpoints){SPAN("pp"), SPAN("")};
    assert_written("[37, [[\"p\", \"q\"], [\"pp\", \"\"]]]");
    set_message(MESH_NOTE, 0);
    assert_written("[17, 2, \"v\"]");
    assert_int_equal(read.message.key.n, 0);
    set_message(MESH_TELL, 0);
    assert_written("[40, 2, \"v\"]");
    assert_int_equal(read.seq, 0);
}

/* ---- the head ---- */

static const struct {
    const char *bytes;
    int err;
} heads[] = {
    {"94 02 a1 63 01 05", 0},
    {"94 01 a1 63 01 05", 0}, /* the version before */
    {"94 cc 01 a1 63 01 05", 0},
    {"94 01 a0 00 00", 0},
    {"94 01 d9 40 *64:61 01 05", 0},
    {"94 01 a1 63 ce 00 ff ff ff cf ff ff ff ff ff ff ff ff", 0},
    {"98 01 a1 63 01 05 c0 81 a1 61 91 c3 c7 01 09 00 cb 00 00 00 00 00 00 00 00", 0}, /* more elements */
    {"91 03", ERR_VERSION}, /* whatever follows a version that is not known */
    {"94 00 a1 63 01 05", ERR_VERSION},
    {"94 03 a1 63 01 05", ERR_VERSION},
    {"94 cf 00 00 00 01 00 00 00 01 a1 63 01 05", ERR_VERSION},
    {"", ERR_MESH},
    {"90", ERR_MESH},
    {"90 01", ERR_MESH},
    {"01", ERR_MESH},
    {"84 01 a1 63 01 05", ERR_MESH},
    {"94", ERR_MESH},
    {"94 ff a1 63 01 05", ERR_MESH},
    {"94 a1 31 a1 63 01 05", ERR_MESH},
    {"93 01 a1 63 01", ERR_MESH},
    {"93 01 a1 63 01 05", ERR_MESH},
    {"94 01 c4 01 63 01 05", ERR_MESH},
    {"94 01 a1 63 01", ERR_MESH},
    {"94 01 d9 41 *65:61 01 05", ERR_MESH},
    {"94 01 a1 63 ce 01 00 00 00 05", ERR_MESH},
    {"95 01 a1 63 01 05", ERR_MESH},
    {"dd ff ff ff ff 01 a1 63 01 05", ERR_MESH},
};

static void test_heads(void **state)
{
    (void)state;
    struct mesh_reader r;
    struct mesh_head h;
    for (size_t i = 0; i < COUNT(heads); i++) {
        struct span bytes = hex(heads[i].bytes);
        int err = mesh_read_head(&r, bytes, &h);
        if (err != heads[i].err)
            fail_msg("%s: %d", heads[i].bytes, err);
        if (err == 0)
            assert_true(r.p == bytes.p + bytes.n && r.end == r.p);
    }
    assert_int_equal(mesh_read_head(&r, (struct span){NULL, 0}, &h), ERR_MESH);
}

/* ---- records, byte by byte ---- */

static const char *const accepted[] = {
    /* Every format of an integer, and of the lengths of str, bin and array. */
    "93 24 00 01",
    "93 24 7f 01",
    "93 24 cc 00 01",
    "93 24 cd 00 00 01",
    "93 24 ce 00 00 00 00 01",
    "93 24 cf ff ff ff ff ff ff ff ff 01",
    "93 24 d0 7f 01",
    "93 24 d1 7f ff 01",
    "93 24 d2 7f ff ff ff 01",
    "93 24 d3 7f ff ff ff ff ff ff ff 01",
    "93 cc 24 00 01",
    "93 d3 00 00 00 00 00 00 00 24 00 01",
    "dc 00 03 24 00 01",
    "dd 00 00 00 03 24 00 01",
    "94 02 01 d9 01 2f da 00 01 73",
    "94 02 01 db 00 00 00 01 2f a0",
    "9c 01 01 a1 2f 90 00 a0 a0 90 93 c4 01 00 c5 00 01 00 c6 00 00 00 01 00 00 00 00",
    "95 04 01 a1 2f a1 73 dc 00 01 a1 72",
    "95 04 01 a1 2f a1 73 dd 00 00 00 00",
    /* Limits, reached. */
    "94 02 01 da 01 00 *256:2f da 01 00 *256:73",
    "95 04 01 a0 a0 dc 01 00 *256:a0",
    "95 04 01 a0 a0 91 da 01 00 *256:72",
    "9c 01 01 a0 dc 01 00 *256:a0 00 a0 a0 dc 01 00 *256:a0 90 00 00 00",
    "9c 01 01 a0 90 00 a0 db 00 01 00 00 *65536:31 90 9a *10:c400 00 00 00",
    "97 20 d9 40 *64:61 d9 80 *128:61 d9 80 *128:61 d9 40 *64:61 00 00",
    "95 21 ce 00 ff ff ff 00 00 00",
    "95 10 00 00 00 dc 01 00 *256:93000000",
    "95 10 00 00 00 91 93 ce 00 ff ff ff 00 00",
    "9d 01 01 a0 90 00 a0 a0 90 90 00 00 00 da 01 00 *256:73",
    "98 20 a0 a0 a0 a0 00 00 d9 80 *128:61",
    "92 25 91 92 d9 80 *128:61 d9 80 *128:61",
    "92 25 dc 01 00 *256:92a0a0",
    "95 06 01 02 c6 00 01 00 00 *65536:6b c6 00 01 00 00 *65536:76",
    /* Topics and numbered kinds that are not known. */
    "95 06 01 00 c4 00 c4 00",
    "95 06 01 cf *8:ff c4 00 c4 00",
    "93 11 cc ff c4 00",
    "93 28 04 c4 00",
    "92 00 01",
    "92 07 cf *8:ff",
    "94 0f 00 c0 81 a1 61 90",
    /* More elements than are known, of every type, and unknown flags. */
    "94 24 00 01 c0",
    "9f 24 00 01 c0 ff 7f c2 c3 ca *4:ff cb *8:ff d9 00 c4 00 91 90 81 a0 de 00 01 00 00 e0",
    "9a 24 00 01 d4 *2:00 d5 *3:00 d6 *5:00 d7 *9:00 d8 *17:00 c7 00 00 c8 00 01 00 00",
    "98 24 00 01 c9 00 00 00 01 00 00 dd 00 00 00 01 c0 df 00 00 00 01 c0 c0 dc 00 01 c0 d3 *8:ff",
    "92 23 92 91 90 90",
    "95 10 00 00 7c 91 95 01 02 03 04 91 c0",
    "9e 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c4 01 6b",
    "9f 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c4 01 6b 05",
    "dc 00 10 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c4 01 6b 05 c0",
    "97 02 01 a0 a0 07 a2 7b 7d 91 c0",
    "99 20 a0 a0 a0 a0 00 00 a0 ff",
    "96 06 01 02 c4 01 6b c4 01 76 c0",
    "94 11 02 c4 00 c2",
    "93 25 91 94 a0 a0 ff 91 c0 c0",
    "93 24 00 cf *8:ff",
};

static const char *const refused[] = {
    /* No record. */
    "00",
    "c0",
    "a1 61",
    "80",
    "c1",
    "81 24 00",
    "90",
    "91 c0",
    "91 a1 61",
    "91 ff",
    "91 d0 ff",
    "91",
    /* Elements missing, in the record or in the bytes. */
    "92 24 00",
    "91 24",
    "92 24 00 01",
    "8b 01 01",
    "94 04 01 a1 2f a1 73",
    "95 10 00 00 00 91 92 01 02",
    "95 10 00 00 00 91 92 01 02 03",
    "95 22 01 02 03 04",
    "96 20 a0 a0 a0 a0 00",
    "94 06 01 02 c4 01",
    "94 06 01 02 c4 00",
    "92 11 02",
    "92 28 02",
    "91 25",
    "92 25 91 91 a0",
    "92 25 91 90",
    "91 06",
    "91 06 01",
    "91 00",
    "91 0f 01",
    /* Negative numbers. */
    "93 24 e0 01",
    "93 24 ff 01",
    "93 24 d0 80 01",
    "93 24 d1 ff ff 01",
    "93 24 d2 80 00 00 00 01",
    "93 24 d3 80 00 00 00 00 00 00 00 01",
    "93 24 00 ff",
    /* Other types. */
    "93 24 c0 01",
    "93 24 c2 01",
    "93 24 ca 00 00 00 00 01",
    "93 24 a1 31 01",
    "93 24 90 01",
    "93 24 00 c3",
    "94 02 01 c4 01 2f a1 73",
    "94 02 01 01 a1 73",
    "94 02 01 a1 2f c0",
    "96 02 01 a0 a0 07 c0",
    "9e 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c0",
    "9e 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c4 82 *130:6b",
    "9f 01 01 a0 90 00 a0 a0 90 90 00 00 00 a1 73 c4 00 c0",
    "95 04 01 a1 2f a1 73 a1 72",
    "95 04 01 a1 2f a1 73 81 a1 72 00",
    "95 04 01 a1 2f a1 73 91 01",
    "95 04 01 a1 2f a1 73 91 c4 01 72",
    "9c 01 01 a1 2f 90 00 a0 a0 90 91 a1 61 00 00 00",
    "9c 01 01 a1 2f 90 00 c4 00 a0 90 90 00 00 00",
    "9c 01 01 a1 2f 90 00 a0 00 90 90 00 00 00",
    "9c 01 01 a1 2f 90 00 a0 a0 90 90 00 00 c0",
    "9c 01 01 a1 2f 90 00 a0 a0 c0 90 00 00 00",
    "9d 01 01 a1 2f 90 00 a0 a0 90 90 00 00 00 00",
    "9d 01 01 a1 2f 90 00 a0 a0 90 90 00 00 00 c0",
    "95 02 01 a0 a0 a0",
    "95 02 01 a0 a0 ff",
    "98 20 a0 a0 a0 a0 00 00 c4 00",
    "95 06 01 02 a1 6b c4 01 76",
    "95 06 01 02 c4 01 6b a1 76",
    "95 06 01 ff c4 01 6b c4 01 76",
    "95 06 c0 02 c4 01 6b c4 01 76",
    "93 11 02 a1 76",
    "93 28 a0 c4 00",
    "92 25 c0",
    "92 25 91 a0",
    "92 25 91 92 a0 00",
    "92 25 91 92 c4 00 a0",
    "92 07 c0",
    "92 00 ff",
    "95 10 00 00 00 91 01",
    "95 10 00 00 00 c0",
    /* Limits, passed. */
    "94 02 01 da 01 01 *257:2f a0",
    "94 02 01 a0 da 01 01 *257:73",
    "95 04 01 a0 a0 dc 01 01 *257:a0",
    "95 04 01 a0 a0 91 da 01 01 *257:72",
    "9c 01 01 a0 dc 01 01 *257:a0 00 a0 a0 90 90 00 00 00",
    "9c 01 01 a0 90 00 a0 a0 dc 01 01 *257:a0 90 00 00 00",
    "9c 01 01 a0 90 00 a0 a0 91 da 01 01 *257:78 90 00 00 00",
    "9c 01 01 a0 90 00 a0 a0 90 9b *11:c400 00 00 00",
    "9c 01 01 a0 90 00 a0 a0 90 90 ce 01 00 00 00 00 00",
    "95 21 ce 01 00 00 00 00 00 00",
    "97 20 d9 41 *65:61 a0 a0 a0 00 00",
    "97 20 a0 d9 81 *129:61 a0 a0 00 00",
    "97 20 a0 a0 d9 81 *129:61 a0 00 00",
    "97 20 a0 a0 a0 d9 41 *65:61 00 00",
    "95 10 00 00 00 91 93 ce 01 00 00 00 00 00",
    "95 10 00 00 00 dc 01 01 *257:93000000",
    "9d 01 01 a0 90 00 a0 a0 90 90 00 00 00 da 01 01 *257:73",
    "98 20 a0 a0 a0 a0 00 00 d9 81 *129:61",
    "92 25 91 92 d9 81 *129:61 a0",
    "92 25 91 92 a0 d9 81 *129:61",
    "92 25 dc 01 01 *257:92a0a0",
    /* Lengths that are announced and not there. */
    "dd ff ff ff ff 24 00 01",
    "dc ff ff 24 00 01",
    "94 02 01 db ff ff ff ff 2f",
    "94 02 01 db 7f ff ff ff 2f",
    "9c 01 01 a1 2f dd ff ff ff ff a1",
    "9c 01 01 a1 2f 90 00 db ff ff ff ff 00",
    "9c 01 01 a1 2f 90 00 a0 a0 90 91 c6 ff ff ff ff 00",
    "95 10 00 00 00 dd ff ff ff ff 93 01 02 03",
    "94 24 00 01 dd ff ff ff ff",
    "94 24 00 01 df ff ff ff ff",
    "94 24 00 01 c9 ff ff ff ff 00",
    "94 24 00 01 c6 ff ff ff ff",
    "94 24 00 01 db ff ff ff ff",
    "94 24 00 01 de ff ff 00",
    "95 06 01 02 c4 00 c6 ff ff ff ff 00",
    "92 25 dd ff ff ff ff 92 a0 a0",
    "92 25 91 dd ff ff ff ff a0 a0",
    "93 07 01 dd ff ff ff ff",
    /* No msgpack among the elements that are skipped. */
    "94 24 00 01 c1",
    "94 24 00 01 92 00",
    "94 24 00 01 81 00",
    "94 24 00 01 91 c1",
    "94 24 00 01 cb 00",
    "94 24 00 01 d8 00",
    "94 24 00 01 c7 00",
    "94 24 00 01 a2 00",
    "94 24 00 01 cd 00",
    "94 24 00 01 d9",
    "92 7f c1",
    "93 7f 00",
    "93 07 01 c1",
    "93 25 90 c1",
    "92 25 91 93 a0 a0 c1",
    "95 10 00 00 00 91 94 01 02 03",
};

static void test_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++)
        assert_verdict(accepted[i], 1);
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++)
        assert_verdict(refused[i], ERR_MESH);
}

/* Every accepted record, cut off anywhere, is refused. */
static void test_cut_off(void **state)
{
    (void)state;
    assert_verdict("", 0);
    for (size_t i = 0; i < COUNT(accepted); i++) {
        struct span whole = hex(accepted[i]);
        for (size_t n = 1; n < whole.n && n < 2000; n++)
            if (verdict((struct span){whole.p, n}) != ERR_MESH)
                fail_msg("%s: %zu bytes", accepted[i], n);
    }
}

static void test_widest_values(void **state)
{
    (void)state;
    struct span bytes = hex("93 24 cf 01 23 45 67 89 ab cd ef 02");
    struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true(read.part.as_of == UINT64_C(0x0123456789abcdef) && read.part.last && !read.part.first);
    bytes = hex("95 21 d2 00 ab cd ef d1 12 34 cc fe d0 7f");
    r = (struct mesh_reader){bytes.p, bytes.p + bytes.n};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true(read.repair.origin.tag == 0xabcdef && read.repair.origin.boot == 0x1234);
    assert_true(read.repair.from == 0xfe && read.repair.to == 0x7f);
}

/* For how long somebody was not heard comes last of an item, if it was ever heard. */
static void test_silence(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    for (uint64_t silent_ms = 0; silent_ms < 3; silent_ms++) {
        msgpack_sbuffer_init(&b);
        set_heartbeat();
        record.heartbeat.heard[0].silent_ms = silent_ms;
        assert_int_equal(mesh_write(&b, &record), 0);
        assert_int_equal(verdict((struct span){b.data, b.size}), 1);
        assert_int_equal(read.heartbeat.heard[0].silent_ms, silent_ms);
        msgpack_sbuffer_destroy(&b);
    }
    assert_verdict("95 10 00 00 00 91 94 01 02 03 a0", ERR_MESH);
}

/* What version 1 does not have is empty when it is not there. */
static void test_later_elements(void **state)
{
    (void)state;
    static const struct {
        const char *without, *with;
    } pairs[] = {
        {"9c 01 01 a0 90 00 a0 a0 90 90 00 00 00", "9d 01 01 a0 90 00 a0 a0 90 90 00 00 00 a0"},
        {"94 02 01 a1 2f a1 73", "95 02 01 a1 2f a1 73 00"},
        {"9e 01 01 a0 90 00 a0 a0 90 90 00 00 00 a0 c4 01 6b",
         "9f 01 01 a0 90 00 a0 a0 90 90 00 00 00 a0 c4 01 6b 00"},
        {"97 20 a1 6e a0 a0 a0 08 01", "98 20 a1 6e a0 a0 a0 08 01 a0"},
    };
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        struct span bytes = hex(pairs[i].without);
        struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
        memset(&read, 0xff, sizeof(read));
        assert_int_equal(mesh_read(&r, &read), 1);
        msgpack_sbuffer_clear(&b);
        assert_int_equal(mesh_write(&b, &read), 0);
        assert_true(span_eq((struct span){b.data, b.size}, hex(pairs[i].with)));
    }
    msgpack_sbuffer_destroy(&b);
}

static void test_unknown_topics(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        unsigned topic;
    } topics[] = {
        {"93 11 03 c4 00", MESH_TOPIC_STATUS},
        {"93 11 05 c4 00", MESH_TOPIC_ACKS},
        {"93 11 7f c4 00", 0},
        {"93 28 cf 00 00 00 01 00 00 00 01 c4 00", 0},
        {"95 06 01 01 c4 00 c4 00", MESH_TOPIC_SESSIONS},
        {"95 06 01 cc ff c4 00 c4 00", 0},
    };
    for (size_t i = 0; i < COUNT(topics); i++) {
        struct span bytes = hex(topics[i].bytes);
        struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
        assert_int_equal(mesh_read(&r, &read), 1);
        assert_int_equal(read.message.topic, topics[i].topic);
    }
}

/* ---- what is skipped ---- */

static void test_unknown_kinds(void **state)
{
    (void)state;
    assert_verdict("91 12", 0);
    assert_verdict("91 7f", 0);
    assert_verdict("94 cf *8:ff c0 92 01 02 81 a1 61 a1 62", 0);
    assert_verdict("91 26 92 1f c1", ERR_MESH);
    struct span bytes = hex("92 26 c0 91 23 91 7f 91 27 93 24 07 01 91 29");
    struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_int_equal(read.kind, MESH_ASK_PRESENCE);
    assert_true(read.raw.p == bytes.p + 3 && read.raw.n == 2);
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true(read.kind == MESH_PRESENCE && read.part.as_of == 7);
    assert_true(read.raw.p == bytes.p + 9 && read.raw.n == 4);
    assert_int_equal(mesh_read(&r, &read), 0);
}

/* They keep their place in the origin's sequence. */
static void test_unknown_numbered_kinds(void **state)
{
    (void)state;
    struct span bytes = hex("91 7f 93 07 cd 01 2c c0 91 23 92 00 05 91 23");
    struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true((unsigned)read.kind == 7 && read.seq == 300);
    assert_true(read.raw.p == bytes.p + 2 && read.raw.n == 6);
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true(read.kind == MESH_ASK_PRESENCE && read.seq == 0);
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_true((unsigned)read.kind == 0 && read.seq == 5);
    assert_true(read.raw.p == bytes.p + 10 && read.raw.n == 3);
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_int_equal(mesh_read(&r, &read), 0);
}

/* ---- between versions ---- */

static void test_written_for_versions(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *stand_in; /* of version 1 */
    } records[] = {
        {"9d 01 07 a0 90 00 a0 a0 90 90 00 00 00 a1 73", ""},
        {"95 02 07 a1 2f a1 73 03", ""},
        {"94 03 07 a1 2f a1 73", ""},
        {"95 04 07 a1 2f a1 73 90", ""},
        {"95 05 07 a1 2f a1 73 90", ""},
        {"95 06 07 02 c4 01 6b c4 01 76", "95 05 07 a0 a0 90"},
        {"95 06 cd 01 2c 02 c4 01 6b c4 00", "95 05 cd 01 2c a0 a0 90"},
        {"dc 00 02 cc 0f d3 00 *7:ff", "95 05 cf 00 *7:ff a0 a0 90"},
        {"92 00 01", "95 05 01 a0 a0 90"},
        /* A number is not kept where there is none. */
        {"95 06 00 02 c4 01 6b c4 01 76", ""},
        {"95 10 00 00 00 90", ""},
        {"93 11 02 c4 01 76", ""},
        {"91 23", ""},
        {"92 25 90", ""},
        {"93 28 02 c4 01 76", ""},
    };
    msgpack_sbuffer b, expected;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&expected);
    for (size_t i = 0; i < COUNT(records); i++) {
        for (unsigned version = 1; version <= MESH_VERSION; version++) {
            msgpack_sbuffer_clear(&b);
            msgpack_sbuffer_clear(&expected);
            struct span raw = hex(records[i].raw);
            msgpack_sbuffer_write(&expected, raw.p, raw.n);
            assert_int_equal(mesh_write_as(&b, version, raw), 0);
            struct span stand_in = hex(version == 1 ? records[i].stand_in : "");
            msgpack_sbuffer_write(&expected, stand_in.p, stand_in.n);
            if (!span_eq((struct span){b.data, b.size}, (struct span){expected.data, expected.size}))
                fail_msg("%s in version %u", records[i].raw, version);
        }
    }
    msgpack_sbuffer_destroy(&expected);
    msgpack_sbuffer_destroy(&b);
}

/* A message is good up to the record that breaks it, and never read beyond. */
static void test_broken_from_here_on(void **state)
{
    (void)state;
    struct span bytes = hex("91 23 91 7f 93 24 c0 01 91 23");
    struct mesh_reader r = {bytes.p, bytes.p + bytes.n};
    assert_int_equal(mesh_read(&r, &read), 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(mesh_read(&r, &read), ERR_MESH);
        assert_int_equal(mesh_read(&r, &read), ERR_MESH);
    }
}

static void test_nesting_costs_nothing(void **state)
{
    (void)state;
    assert_verdict("92 23 *1000000:91 c0", 1);
    assert_verdict("92 23 *1000000:91", ERR_MESH);
    assert_verdict("92 7f *1000000:91 90", 0);
    assert_verdict("92 23 *500000:81 *500001:c0", 1);
    assert_verdict("92 23 *500000:9f", ERR_MESH);
}

/* ---- memory ---- */

static void fill(struct mesh_record *full)
{
    static char room[LIMIT_ROOM_BYTES];
    memset(room, 'x', sizeof(room));
    *full = (struct mesh_record){.kind = MESH_EMIT, .seq = 1};
    full->emit.n_to = full->emit.n_except = LIMIT_ROOMS_PER_CALL;
    full->emit.n_attachments = LIMIT_ATTACHMENTS;
    full->emit.skip = (struct span){room, sizeof(room)};
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_CALL; i++)
        full->emit.to[i] = full->emit.except[i] = (struct span){room, sizeof(room)};
    for (unsigned i = 0; i < LIMIT_ATTACHMENTS; i++)
        full->emit.attachments[i] = (struct span){room, i};
}

/* A record for which there is no memory leaves the buffer as it was, wherever in it that happens. */
static void test_no_memory(void **state)
{
    (void)state;
    fill(&record);
    unsigned failures = 0;
    int err = ERR_MEMORY;
    for (int left_over = 0; err != 0; left_over++) {
        msgpack_sbuffer b;
        msgpack_sbuffer_init(&b);
        reallocs_left = left_over;
        err = mesh_write_head(&b, &head);
        size_t before = b.size;
        assert_true(err == 0 ? before > 0 : err == ERR_MEMORY && before == 0);
        if (err == 0)
            err = mesh_write(&b, &record);
        assert_true(err == 0 ? b.size > before : err == ERR_MEMORY && b.size == before);
        failures += err != 0;
        reallocs_left = -1;
        msgpack_sbuffer_destroy(&b);
    }
    assert_true(failures > 3);
}

/* The record alone, without what stands in for it, would be taken for a hole. */
static void test_no_memory_between_versions(void **state)
{
    (void)state;
    static const char set[] = "\x95\x06\x07\x02\xc4\x01k\xc4\x01v";
    unsigned failures = 0;
    int err = ERR_MEMORY;
    for (int left_over = 0; err != 0; left_over++) {
        msgpack_sbuffer b;
        msgpack_sbuffer_init(&b);
        /* Room for the record and nothing behind it. */
        while (b.size + sizeof(set) - 1 < MSGPACK_SBUFFER_INIT_SIZE)
            msgpack_sbuffer_write(&b, "", 1);
        size_t before = b.size;
        reallocs_left = left_over;
        err = mesh_write_as(&b, 1, SPAN(set));
        reallocs_left = -1;
        assert_true(err == 0 ? b.size > before : err == ERR_MEMORY && b.size == before);
        failures += err != 0;
        msgpack_sbuffer_destroy(&b);
    }
    assert_int_equal(failures, 1);
}

static void test_fullest_record(void **state)
{
    (void)state;
    fill(&record);
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(mesh_write(&b, &record), 0);
    assert_int_equal(verdict((struct span){b.data, b.size}), 1);
    struct mesh_reader r = {b.data, b.data + b.size};
    assert_int_equal(mesh_read(&r, &read), 1);
    assert_int_equal(read.emit.n_to, LIMIT_ROOMS_PER_CALL);
    assert_int_equal(read.emit.n_except, LIMIT_ROOMS_PER_CALL);
    assert_int_equal(read.emit.n_attachments, LIMIT_ATTACHMENTS);
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_CALL; i++)
        assert_true(span_eq(read.emit.to[i], record.emit.to[i]) &&
                    span_eq(read.emit.except[i], record.emit.except[i]));
    for (unsigned i = 0; i < LIMIT_ATTACHMENTS; i++)
        assert_int_equal(read.emit.attachments[i].n, i);
    assert_int_equal(read.emit.skip.n, LIMIT_ROOM_BYTES);
    msgpack_sbuffer_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_layout_of_numbered),
        cmocka_unit_test(test_layout_of_the_others),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_widest_values),
        cmocka_unit_test(test_later_elements),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_unknown_topics),
        cmocka_unit_test(test_unknown_kinds),
        cmocka_unit_test(test_unknown_numbered_kinds),
        cmocka_unit_test(test_written_for_versions),
        cmocka_unit_test(test_broken_from_here_on),
        cmocka_unit_test(test_nesting_costs_nothing),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_memory_between_versions),
        cmocka_unit_test(test_fullest_record),
    };
    return cmocka_run_group_tests_name("mesh", tests, NULL, NULL);
}
