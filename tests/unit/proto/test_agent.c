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
#include "agent_write.c"
#include "mp.c"
#undef realloc

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Too large for a stack frame each. */
static struct agent_record record, back;

static unsigned nibble(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Bytes from "95 a1 61"; "*3:c400" is three times the bytes c4 00. */
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

/* Reads the first record from memory of exactly its size, so that sanitizers see a byte too many. What it points to
 * stays until the next call. */
static int read_once(struct span bytes)
{
    static char *copy;
    free(copy);
    copy = NULL;
    if (bytes.n == 0)
        return 0;
    copy = malloc(bytes.n);
    assert_non_null(copy);
    memcpy(copy, bytes.p, bytes.n);
    struct agent_reader r = agent_open((struct span){copy, bytes.n});
    int result = agent_read(&r, &back);
    if (result == ERR_AGENT)
        assert_true(r.p == copy && agent_read(&r, &back) == ERR_AGENT);
    else
        assert_true(r.p > copy && back.raw.p == copy && back.raw.n == (size_t)(r.p - copy));
    return result;
}

static void assert_reads(const char *text, int expected)
{
    int result = read_once(hex(text));
    if (result != expected)
        fail_msg("%s: %d", text, result);
}

/* ---- layouts ---- */

/* msgpack-c's own view of what is written for `record`, as text; and that reading gives what was written. */
static void assert_written(const char *expected)
{
    msgpack_sbuffer b, again;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&again);
    assert_int_equal(agent_write(&b, &record), 0);
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

    assert_int_equal(read_once((struct span){b.data, b.size}), 1);
    assert_int_equal(back.kind, record.kind);
    assert_true(back.has == record.has && back.raw.n == b.size);
    assert_int_equal(agent_write(&again, &back), 0);
    assert_true(span_eq((struct span){again.data, again.size}, back.raw));
    msgpack_unpacked_destroy(&result);
    msgpack_sbuffer_destroy(&again);
    msgpack_sbuffer_destroy(&b);
}

static struct agent_record *start(enum agent_kind kind)
{
    agent_init(&record, kind);
    record.id = 7;
    record.reg = 8;
    record.nsp = SPAN("/");
    record.sid = SPAN("s");
    record.event = SPAN("hi");
    record.args = SPAN("1");
    record.address = SPAN("a");
    record.body = SPAN("{}");
    return &record;
}

static struct agent_record *with(enum agent_field option)
{
    return agent_with(&record, option);
}

static void test_example(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    agent_init(&record, AGENT_HELLO);
    record.version = 1;
    record.name = SPAN("a");
    record.instance = SPAN("i");
    record.credit = 1024;
    assert_int_equal(agent_write(&b, &record), 0);
    start(AGENT_EMIT)->n_to = 1;
    record.to[0] = SPAN("r");
    with(AGENT_F_KEY)->key = SPAN("k");
    assert_int_equal(agent_write(&b, &record), 0);
    struct span expected = hex("95 01 01 a1 61 a1 69 cd 04 00"
                               " 97 10 07 a1 2f 91 a1 72 a2 68 69 a3 5b 31 5d 81 a3 6b 65 79 a1 6b");
    assert_true(span_eq((struct span){b.data, b.size}, expected));

    struct agent_reader r = agent_open((struct span){b.data, b.size});
    assert_int_equal(agent_read(&r, &back), 1);
    assert_true(back.kind == AGENT_HELLO && back.version == 1 && back.credit == 1024);
    assert_true(span_eq(back.name, SPAN("a")) && span_eq(back.instance, SPAN("i")));
    assert_int_equal(agent_read(&r, &back), 1);
    assert_true(back.kind == AGENT_EMIT && back.id == 7 && back.n_to == 1);
    assert_true(span_eq(back.event, SPAN("hi")) && span_eq(back.args, SPAN("1")));
    assert_true(span_eq(back.args_array, SPAN("[1]")) && span_eq(back.to[0], SPAN("r")));
    assert_true(agent_has(&back, AGENT_F_KEY) && span_eq(back.key, SPAN("k")));
    assert_true(!agent_has(&back, AGENT_F_VOLATILE) && !back.is_volatile && back.n_except == 0);
    assert_int_equal(agent_read(&r, &back), 0);
    msgpack_sbuffer_destroy(&b);
}

static void test_layout_of_the_connection(void **state)
{
    (void)state;
    start(AGENT_HELLO)->version = 1;
    record.name = SPAN("chat");
    record.instance = SPAN("i");
    record.credit = 70000;
    assert_written("[1, 1, \"chat\", \"i\", 70000]");
    with(AGENT_F_ABOUT)->about = SPAN("C");
    assert_written("[1, 1, \"chat\", \"i\", 70000, {\"about\"=>\"C\"}]");
    start(AGENT_WELCOME)->version = 1;
    record.node = SPAN("n0");
    record.credit = 9;
    with(AGENT_F_CLUSTER)->cluster = SPAN("c");
    with(AGENT_F_ORIGIN)->origin = SPAN("n0-1");
    with(AGENT_F_HEARTBEAT_MS)->heartbeat_ms = 300;
    with(AGENT_F_TIMEOUT_MS)->timeout_ms = 1000;
    with(AGENT_F_WINDOW_MS)->window_ms = 1;
    with(AGENT_F_TIME_MS)->time_ms = 2;
    with(AGENT_F_MESSAGE_BYTES)->message_bytes = 3;
    with(AGENT_F_MAX_CALLS)->max_calls = 4;
    with(AGENT_F_MAX_REGISTRATIONS)->max_registrations = 5;
    with(AGENT_F_MAX_DEADLINE_MS)->max_deadline_ms = 6;
    with(AGENT_F_PEERS)->n_peers = 2;
    record.peers[0] = (struct agent_peer){SPAN("n1"), 2, {SPAN("ipc://x"), SPAN("tcp://y")}};
    record.peers[1] = (struct agent_peer){SPAN("n2"), 1, {SPAN("tcp://z")}};
    assert_written("[2, 1, \"n0\", 9, {\"cluster\"=>\"c\", \"origin\"=>\"n0-1\", \"heartbeat_ms\"=>300, "
                   "\"timeout_ms\"=>1000, \"window_ms\"=>1, \"time_ms\"=>2, \"message_bytes\"=>3, "
                   "\"max_calls\"=>4, \"max_registrations\"=>5, \"max_deadline_ms\"=>6, "
                   "\"peers\"=>[[\"n1\", \"ipc://x\", \"tcp://y\"], [\"n2\", \"tcp://z\"]]}]");
    assert_true(back.n_peers == 2 && span_eq(back.peers[0].endpoints[1], SPAN("tcp://y")));
    start(AGENT_CREDIT)->credit = UINT64_MAX;
    assert_written("[3, 18446744073709551615]");
    start(AGENT_NODE);
    with(AGENT_F_PEERS)->n_peers = 0;
    with(AGENT_F_DRAINING)->draining = true;
    assert_written("[4, {\"peers\"=>[], \"draining\"=>true}]");
    start(AGENT_BYE)->code = span_of(agent_code(AGENT_E_ENDED));
    assert_written("[5, \"ended\", \"\"]");
    start(AGENT_ERROR)->code = SPAN("own");
    record.text = SPAN("why");
    assert_written("[6, 7, \"own\", \"why\"]");
    with(AGENT_F_DATA)->data = SPAN("1");
    with(AGENT_F_EMIT_ID)->emit = SPAN("o:1");
    with(AGENT_F_RETRY_MS)->retry_ms = 5;
    with(AGENT_F_HIGHEST)->version = 2;
    assert_written(
        "[6, 7, \"own\", \"why\", {\"data\"=>\"1\", \"emit\"=>\"o:1\", \"retry_ms\"=>5, \"version\"=>2}]");
}

static void test_layout_of_answers(void **state)
{
    (void)state;
    start(AGENT_OK);
    assert_written("[7, 7]");
    record.n_attachments = 1;
    record.attachments[0] = SPAN("abc");
    agent_with(with(AGENT_F_ANSWER_ARGS), AGENT_F_ATTACHMENTS);
    assert_written("[7, 7, {\"args\"=>\"[1]\", \"attachments\"=>[\"abc\"]}]");
    start(AGENT_OK)->user = SPAN("1");
    with(AGENT_F_USER);
    with(AGENT_F_DATA)->data = SPAN("null");
    with(AGENT_F_ROOMS)->n_rooms = 1;
    record.rooms[0] = SPAN("r");
    assert_written("[7, 7, {\"user\"=>\"1\", \"data\"=>\"null\", \"rooms\"=>[\"r\"]}]");
    start(AGENT_OK)->body_is_bin = true;
    with(AGENT_F_ANSWER_BODY);
    assert_written("[7, 7, {\"body\"=>\"{}\"}]");
    assert_true(back.body_is_bin);
    start(AGENT_OK)->emit = SPAN("o:1");
    with(AGENT_F_EMIT_ID);
    with(AGENT_F_REPEATED)->repeated = true;
    with(AGENT_F_EXPECTED)->expected = 3;
    with(AGENT_F_ANSWERED)->answered = 2;
    with(AGENT_F_DROPPED)->dropped = 1;
    assert_written(
        "[7, 7, {\"emit\"=>\"o:1\", \"repeated\"=>true, \"expected\"=>3, \"answered\"=>2, \"dropped\"=>1}]");
    start(AGENT_OK);
    with(AGENT_F_COUNT)->count = 4;
    with(AGENT_F_OFFSET)->offset = SPAN("~1");
    with(AGENT_F_RECOVERED)->recovered = false;
    with(AGENT_F_ALIVE)->alive = true;
    assert_written("[7, 7, {\"count\"=>4, \"offset\"=>\"~1\", \"recovered\"=>false, \"alive\"=>true}]");
}

static void test_layout_of_registrations(void **state)
{
    (void)state;
    start(AGENT_SUBSCRIBE);
    assert_written("[17, 7]");
    with(AGENT_F_NAMESPACES)->n_namespaces = 1;
    record.namespaces[0] = SPAN("*");
    with(AGENT_F_ROOMS)->n_rooms = 1;
    record.rooms[0] = SPAN("r");
    with(AGENT_F_EVENTS)->n_events = 1;
    record.events[0] = SPAN("o.>");
    with(AGENT_F_FROM)->from = SPAN("");
    assert_written(
        "[17, 7, {\"namespaces\"=>[\"*\"], \"rooms\"=>[\"r\"], \"events\"=>[\"o.>\"], \"from\"=>\"\"}]");
    start(AGENT_HANDLE);
    with(AGENT_F_LIFE)->life =
        AGENT_LIFE_CONNECT | AGENT_LIFE_DISCONNECT | AGENT_LIFE_JOIN | AGENT_LIFE_LEAVE;
    with(AGENT_F_GROUP)->group = SPAN("g");
    with(AGENT_F_STICKY)->sticky = true;
    with(AGENT_F_DEADLINE_MS)->deadline_ms = 1;
    with(AGENT_F_LIMIT)->limit = 2;
    with(AGENT_F_OBSERVE)->observe = true;
    assert_written("[18, 7, {\"life\"=>[\"connect\", \"disconnect\", \"join\", \"leave\"], \"group\"=>\"g\", "
                   "\"key\"=>\"session\", \"deadline_ms\"=>1, \"limit\"=>2, \"observe\"=>true}]");
    assert_true(back.sticky && back.life == 15);
    start(AGENT_REGISTER);
    with(AGENT_F_SHARED)->shared = true;
    assert_written("[19, 7, \"a\", {\"shared\"=>true}]");
    start(AGENT_WATCH);
    assert_written("[20, 7, \"a\"]");
    start(AGENT_UNDO);
    assert_written("[21, 7, 8]");
}

static void test_layout_of_requests(void **state)
{
    (void)state;
    start(AGENT_EMIT)->args.n = 0;
    assert_written("[16, 7, \"/\", nil, \"hi\", \"[]\"]");
    with(AGENT_F_EXCEPT)->n_except = 1;
    record.except[0] = SPAN("x");
    with(AGENT_F_VOLATILE)->is_volatile = true;
    with(AGENT_F_CONFIRM)->confirm = AGENT_CONFIRM_MIRROR;
    with(AGENT_F_ACK_MS)->ack_ms = 3;
    assert_written("[16, 7, \"/\", nil, \"hi\", \"[]\", {\"except\"=>[\"x\"], \"volatile\"=>true, "
                   "\"confirm\"=>\"mirror\", \"ack_ms\"=>3}]");
    with(AGENT_F_AGAIN)->again = true;
    assert_written("[16, 7, \"/\", nil, \"hi\", \"[]\", {\"except\"=>[\"x\"], \"volatile\"=>true, "
                   "\"confirm\"=>\"mirror\", \"ack_ms\"=>3, \"again\"=>true}]");
    assert_true(back.n_to == 0 && back.args.n == 0 && span_eq(back.args_array, SPAN("[]")));
    start(AGENT_JOIN)->n_to = 1;
    record.to[0] = SPAN("w");
    record.n_rooms = 1;
    record.rooms[0] = SPAN("r");
    assert_written("[24, 7, \"/\", [\"w\"], [\"r\"]]");
    record.kind = AGENT_LEAVE;
    record.n_to = 0;
    assert_written("[25, 7, \"/\", nil, [\"r\"]]");
    start(AGENT_DISCONNECT);
    with(AGENT_F_CLOSE)->close = true;
    assert_written("[26, 7, \"/\", nil, {\"close\"=>true}]");
    start(AGENT_MEMBERS);
    with(AGENT_F_LIMIT)->limit = 0;
    assert_written("[27, 7, \"/\", nil, {\"limit\"=>0}]");
    start(AGENT_SET);
    with(AGENT_F_USER)->user = SPAN("u");
    with(AGENT_F_DATA)->data = SPAN("{}");
    assert_written("[28, 7, \"/\", nil, {\"user\"=>\"u\", \"data\"=>\"{}\"}]");
    start(AGENT_TELL);
    assert_written("[32, 7, \"a\", \"{}\"]");
    start(AGENT_ASK);
    with(AGENT_F_DEADLINE_MS)->deadline_ms = 1;
    assert_written("[33, 7, \"a\", \"{}\", {\"deadline_ms\"=>1}]");
}

static void test_layout_of_what_nodes_send(void **state)
{
    (void)state;
    start(AGENT_EVENT)->n_to = 1;
    record.to[0] = SPAN("r");
    with(AGENT_F_EMIT_ID)->emit = SPAN("o:1");
    with(AGENT_F_OFFSET)->offset = SPAN("~1");
    with(AGENT_F_VOLATILE)->is_volatile = true;
    with(AGENT_F_REPLAYED)->replayed = true;
    assert_written("[64, 8, \"/\", [\"r\"], \"hi\", \"[1]\", {\"emit\"=>\"o:1\", \"offset\"=>\"~1\", "
                   "\"volatile\"=>true, \"replayed\"=>true}]");
    start(AGENT_LOST)->count = 3;
    assert_written("[65, 8, 3]");
    start(AGENT_CALL);
    with(AGENT_F_USER)->user = SPAN("u");
    with(AGENT_F_ACK)->ack = true;
    with(AGENT_F_DEADLINE_MS)->deadline_ms = 1;
    assert_written(
        "[66, 7, 8, \"/\", \"s\", \"hi\", \"[1]\", {\"user\"=>\"u\", \"ack\"=>true, \"deadline_ms\"=>1}]");
    start(AGENT_CONNECT)->auth = SPAN("{}");
    with(AGENT_F_REMOTE)->remote = SPAN("::1");
    assert_written("[67, 7, 8, \"/\", \"s\", \"{}\", {\"remote\"=>\"::1\"}]");
    start(AGENT_DISCONNECTED)->reason = SPAN("ping timeout");
    with(AGENT_F_USER)->user = SPAN("u");
    assert_written("[68, 8, \"/\", \"s\", \"ping timeout\", {\"user\"=>\"u\"}]");
    start(AGENT_JOINED)->n_rooms = 1;
    record.rooms[0] = SPAN("r");
    assert_written("[69, 8, \"/\", \"s\", [\"r\"]]");
    record.kind = AGENT_LEFT;
    assert_written("[70, 8, \"/\", \"s\", [\"r\"]]");
    start(AGENT_CANCEL);
    assert_written("[71, 7]");
    start(AGENT_TOLD);
    with(AGENT_F_FROM)->from = SPAN("b");
    assert_written("[72, 8, \"{}\", {\"from\"=>\"b\"}]");
    start(AGENT_ASKED);
    assert_written("[73, 7, 8, \"{}\"]");
    start(AGENT_GONE)->reason = SPAN("died");
    assert_written("[74, 8, \"died\"]");
    start(AGENT_BACK);
    assert_written("[75, 8]");
    start(AGENT_ANSWER);
    assert_written("[76, 7, \"s\", \"[1]\"]");
    start(AGENT_MEMBER)->node = SPAN("n0");
    with(AGENT_F_ROOMS)->n_rooms = 0;
    assert_written("[77, 7, \"s\", \"n0\", {\"rooms\"=>[]}]");
}

/* ---- records, byte by byte ---- */

/* CREDIT is 3, OK 7, EMIT 10, HANDLE 12, JOIN 18, TELL 20, CANCEL 47. */
static const struct {
    const char *bytes;
    int result;
} records[] = {
    /* Options: absent, nil for the map, nil for a value, unknown keys, keys of other types, repeated keys. */
    {"92 07 01", 1},
    {"93 07 01 c0", 1},
    {"93 07 01 80", 1},
    {"93 07 01 81 a5 63 6f 75 6e 74 c0", 1},
    {"93 07 01 82 a1 78 91 80 a5 63 6f 75 6e 74 05", 1},
    {"93 07 01 83 05 c0 c2 81 01 02 c0 c0", 1},
    {"93 07 01 82 a5 63 6f 75 6e 74 05 a5 63 6f 75 6e 74 06", 1},
    {"93 07 01 de 00 01 a5 63 6f 75 6e 74 05", 1},
    {"93 07 01 df 00 00 00 01 a5 63 6f 75 6e 74 05", 1},
    {"93 07 01 90", ERR_ARGUMENT},
    {"93 07 01 81 a5 63 6f 75 6e 74 c3", ERR_ARGUMENT},
    {"93 07 01 81 a5 63 6f 75 6e 74 ff", ERR_ARGUMENT},
    {"93 07 01 81 a5 63 6f 75 6e 74", ERR_AGENT},
    /* Elements behind those that are known. */
    {"93 03 01 02", 1},
    {"95 07 01 80 c0 91 91 c0", 1},
    {"94 47 01 80 81 c0 c0", 1},
    /* Elements missing. */
    {"91 03", ERR_ARGUMENT},
    {"91 07", ERR_ARGUMENT},
    {"93 20 01 a1 61", ERR_ARGUMENT},
    {"96 10 07 a1 2f c0 a2 68 69", ERR_AGENT},
    /* Other types, for every type. */
    {"92 03 a1 31", ERR_ARGUMENT},
    {"92 03 c0", ERR_ARGUMENT},
    {"92 03 ff", ERR_ARGUMENT},
    {"94 20 01 a1 61 01", ERR_ARGUMENT},
    {"94 20 01 a1 61 c4 01 00", 1},
    {"94 20 01 a1 61 c0", ERR_ARGUMENT},
    {"94 20 01 c4 01 61 a0", ERR_ARGUMENT},
    {"94 20 01 a0 a0", ERR_ARGUMENT},
    {"94 20 01 a1 00 a0", ERR_ARGUMENT},
    {"94 20 01 a1 80 a0", ERR_ARGUMENT},
    {"94 20 01 a1 61 a1 80", ERR_ARGUMENT},
    {"94 20 01 a1 61 c4 01 80", 1},
    {"96 10 07 a1 2f c0 a2 68 69 c0", 1},
    {"96 10 07 a1 2f c0 a2 68 69 a2 5b 5d", 1},
    {"96 10 07 a1 2f c0 a2 68 69 a4 5b 20 09 5d", 1},
    {"96 10 07 a1 2f c0 a2 68 69 a1 5b", ERR_ARGUMENT},
    {"96 10 07 a1 2f c0 a2 68 69 a2 7b 7d", ERR_ARGUMENT},
    {"96 10 07 a1 2f c0 a2 68 69 a3 20 5b 5d", ERR_ARGUMENT},
    {"96 10 07 a1 2f c0 a2 68 69 c4 02 5b 5d", ERR_ARGUMENT},
    {"96 10 07 a1 2f 90 a2 68 69 c0", ERR_ARGUMENT},
    {"96 10 07 a1 2f 91 01 a2 68 69 c0", ERR_ARGUMENT},
    {"96 10 07 a1 2f 91 a0 a2 68 69 c0", ERR_ARGUMENT},
    {"95 18 07 a1 2f c0 c0", ERR_ARGUMENT},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a7 63 6f 6e 66 69 72 6d a4 6d 65 73 68", 1},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a7 63 6f 6e 66 69 72 6d a3 6d 65 73", ERR_ARGUMENT},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a7 63 6f 6e 66 69 72 6d 00", ERR_ARGUMENT},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a8 76 6f 6c 61 74 69 6c 65 01", ERR_ARGUMENT},
    {"93 12 07 81 a4 6c 69 66 65 92 a4 6a 6f 69 6e a4 6a 6f 69 6e", 1},
    {"93 12 07 81 a4 6c 69 66 65 91 a4 6a 6f 69 6d", ERR_ARGUMENT},
    {"93 12 07 81 a3 6b 65 79 a4 75 73 65 72", ERR_ARGUMENT},
    {"92 04 81 a5 70 65 65 72 73 91 91 a1 6e", ERR_ARGUMENT},
    {"92 04 81 a5 70 65 65 72 73 91 96 a1 6e a1 6e a1 6e a1 6e a1 6e a1 6e", ERR_LIMIT},
    {"92 04 81 a5 70 65 65 72 73 91 92 a1 6e a1 65", 1},
    /* Limits, reached and passed. */
    {"94 20 01 da 01 00 *256:61 a0", 1},
    {"94 20 01 da 01 01 *257:61 a0", ERR_LIMIT},
    {"96 10 07 a1 2f dc 01 00 *256:a172 a2 68 69 c0", 1},
    {"96 10 07 a1 2f dc 01 01 *257:a172 a2 68 69 c0", ERR_LIMIT},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 ab 61 74 74 61 63 68 6d 65 6e 74 73 9a *10:c400", 1},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 ab 61 74 74 61 63 68 6d 65 6e 74 73 9b *11:c400", ERR_LIMIT},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a3 6b 65 79 d9 40 *64:61", 1},
    {"97 10 07 a1 2f c0 a2 68 69 c0 81 a3 6b 65 79 d9 41 *65:61", ERR_LIMIT},
    {"93 12 07 81 a6 65 76 65 6e 74 73 dc 00 21 *33:a161", ERR_LIMIT},
    {"92 04 81 a5 70 65 65 72 73 dc 00 41 *65:92a16ea165", ERR_LIMIT},
    /* Kinds that are not known. */
    {"91 00", ERR_KIND},
    {"91 08", ERR_KIND},
    {"93 7f 01 80", ERR_KIND},
    {"92 cf *8:ff 05", ERR_KIND},
    /* No records. */
    {"00", ERR_AGENT},
    {"c0", ERR_AGENT},
    {"80", ERR_AGENT},
    {"90", ERR_AGENT},
    {"91 a1 61", ERR_AGENT},
    {"91 ff", ERR_AGENT},
    {"91", ERR_AGENT},
    {"92 03", ERR_AGENT},
    {"92 7f", ERR_AGENT},
    {"dd ff ff ff ff 03", ERR_AGENT},
    {"92 03 c1", ERR_AGENT},
    {"94 20 01 db ff ff ff ff 61 a0", ERR_AGENT},
    {"93 07 01 df ff ff ff ff c0", ERR_AGENT},
    {"93 07 01 df 80 00 00 00 c0", ERR_AGENT},
};

static void test_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(records); i++)
        assert_reads(records[i].bytes, records[i].result);
    assert_int_equal(read_once((struct span){NULL, 0}), 0);
}

static void test_values_of_options(void **state)
{
    (void)state;
    assert_reads("93 07 01 82 a5 63 6f 75 6e 74 05 a5 63 6f 75 6e 74 06", 1);
    assert_true(agent_has(&back, AGENT_F_COUNT) && back.count == 6);
    assert_reads("93 07 01 81 a5 63 6f 75 6e 74 c0", 1);
    assert_true(!agent_has(&back, AGENT_F_COUNT) && back.count == 0);
    assert_reads("96 10 07 a1 2f c0 a2 68 69 a7 5b 20 31 2c 32 0a 5d", 1);
    assert_true(span_eq(back.args, SPAN("1,2")) && span_eq(back.args_array, SPAN("[ 1,2\n]")));
    assert_reads("96 10 07 a1 2f c0 a2 68 69 a4 5b 20 09 5d", 1);
    assert_int_equal(back.args.n, 0);
}

/* One bad record says which it is, and the next one is read. */
static void test_what_follows_a_bad_record(void **state)
{
    (void)state;
    struct span message = hex("93 7e 09 c0 94 20 05 a0 a0 94 20 a0 a0 a0 92 03 01 92 03");
    struct agent_reader r = agent_open(message);
    assert_int_equal(agent_read(&r, &back), ERR_KIND);
    assert_true(back.id == 9 && back.kind == 0x7e);
    assert_int_equal(agent_read(&r, &back), ERR_ARGUMENT);
    assert_true(back.id == 5 && back.kind == AGENT_TELL);
    assert_string_equal(back.wrong, "address");
    assert_int_equal(agent_read(&r, &back), ERR_ARGUMENT);
    assert_true(back.id == 0);
    assert_string_equal(back.wrong, "id");
    assert_int_equal(agent_read(&r, &back), 1);
    assert_int_equal(back.kind, AGENT_CREDIT);
    assert_int_equal(agent_read(&r, &back), ERR_AGENT);
    assert_reads("93 12 07 81 a4 6c 69 66 65 00", ERR_ARGUMENT);
    assert_string_equal(back.wrong, "life");
    assert_reads("94 20 01 a1 61", ERR_AGENT);
    assert_reads("93 20 01 a1 61", ERR_ARGUMENT);
    assert_string_equal(back.wrong, "body");
}

static void test_sides(void **state)
{
    (void)state;
    assert_true(agent_from_agent(AGENT_EMIT) && !agent_from_node(AGENT_EMIT));
    assert_true(!agent_from_agent(AGENT_CALL) && agent_from_node(AGENT_CALL));
    assert_true(agent_from_agent(AGENT_OK) && agent_from_node(AGENT_OK));
    assert_true(!agent_from_agent(8) && !agent_from_node(8) && !agent_from_agent(UINT64_MAX));
}

static void test_no_memory(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    start(AGENT_EMIT);
    reallocs_left = 0;
    assert_int_equal(agent_write(&b, &record), ERR_MEMORY);
    assert_int_equal(b.size, 0);
    reallocs_left = 1;
    static char large[20000];
    memset(large, '1', sizeof(large));
    record.args = (struct span){large, sizeof(large)};
    assert_int_equal(agent_write(&b, &record), ERR_MEMORY);
    assert_int_equal(b.size, 0);
    reallocs_left = -1;
    assert_int_equal(agent_write(&b, &record), 0);
    msgpack_sbuffer_destroy(&b);
}

/* ---- what makes sense ---- */

/* The code that `record` is refused with, AGENT_CODES when it is good; it goes through bytes, as from an agent. */
static enum agent_code refused(const char *wrong)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(agent_write(&b, &record), 0);
    assert_int_equal(read_once((struct span){b.data, b.size}), 1);
    msgpack_sbuffer_destroy(&b);
    enum agent_code code = AGENT_CODES;
    bool good = agent_check(&back, &code);
    assert_int_equal(good, code == AGENT_CODES);
    if (!good)
        assert_string_equal(back.wrong, wrong);
    return code;
}

static void test_check_of_emits(void **state)
{
    (void)state;
    start(AGENT_EMIT);
    assert_int_equal(refused(""), AGENT_CODES);
    record.nsp = SPAN("x");
    assert_int_equal(refused("nsp"), AGENT_E_ARGUMENT);
    start(AGENT_EMIT)->event = SPAN("bus:gap");
    assert_int_equal(refused("event"), AGENT_E_RESERVED);
    record.event = SPAN("connect_error");
    assert_int_equal(refused("event"), AGENT_E_RESERVED);
    record.event = SPAN("conn\"ect");
    assert_int_equal(refused(""), AGENT_CODES);
    record.args = SPAN("1,");
    assert_int_equal(refused("args"), AGENT_E_JSON);
    record.args = SPAN("],[");
    assert_int_equal(refused("args"), AGENT_E_JSON);
    record.args = SPAN("{\"_placeholder\":true,\"num\":1}");
    assert_int_equal(refused(""), AGENT_CODES);
    with(AGENT_F_ATTACHMENTS)->n_attachments = 1;
    record.attachments[0] = SPAN("");
    assert_int_equal(refused("attachments"), AGENT_E_ARGUMENT);
    record.args = SPAN("{\"_placeholder\":true,\"num\":0}");
    assert_int_equal(refused(""), AGENT_CODES);
    with(AGENT_F_ACK_MS)->ack_ms = LIMIT_AGENT_DEADLINE_MS + 1;
    assert_int_equal(refused("ack_ms"), AGENT_E_LIMIT);
}

static void test_check_of_registrations(void **state)
{
    (void)state;
    start(AGENT_SUBSCRIBE)->id = 0;
    assert_int_equal(refused("id"), AGENT_E_ID);
    start(AGENT_SUBSCRIBE);
    assert_int_equal(refused(""), AGENT_CODES);
    with(AGENT_F_ROOMS)->n_rooms = 0;
    assert_int_equal(refused("rooms"), AGENT_E_ARGUMENT);
    start(AGENT_SUBSCRIBE)->n_events = 1;
    with(AGENT_F_EVENTS)->events[0] = SPAN("a.>.b");
    assert_int_equal(refused("events"), AGENT_E_ARGUMENT);
    start(AGENT_SUBSCRIBE)->n_namespaces = 2;
    with(AGENT_F_NAMESPACES)->namespaces[0] = SPAN("*");
    record.namespaces[1] = SPAN("/a");
    assert_int_equal(refused(""), AGENT_CODES);
    record.namespaces[1] = SPAN("a");
    assert_int_equal(refused("namespaces"), AGENT_E_ARGUMENT);
    start(AGENT_HANDLE);
    assert_int_equal(refused("events"), AGENT_E_ARGUMENT);
    with(AGENT_F_LIFE)->life = AGENT_LIFE_JOIN;
    assert_int_equal(refused(""), AGENT_CODES);
    with(AGENT_F_DEADLINE_MS)->deadline_ms = LIMIT_AGENT_DEADLINE_MS + 1;
    assert_int_equal(refused("deadline_ms"), AGENT_E_LIMIT);
    start(AGENT_REGISTER);
    assert_int_equal(refused(""), AGENT_CODES);
    record.address = SPAN("bus:x");
    assert_int_equal(refused("address"), AGENT_E_ARGUMENT);
    start(AGENT_WATCH)->address = SPAN("a\n");
    assert_int_equal(refused("address"), AGENT_E_ARGUMENT);
}

static void test_check_of_others(void **state)
{
    (void)state;
    start(AGENT_SET)->nsp = SPAN("x");
    assert_int_equal(refused("nsp"), AGENT_E_ARGUMENT);
    start(AGENT_SET);
    with(AGENT_F_DATA)->data = SPAN("{");
    assert_int_equal(refused("data"), AGENT_E_JSON);
    start(AGENT_SET);
    with(AGENT_F_USER)->user = SPAN("ann");
    assert_int_equal(refused("user"), AGENT_E_JSON);
    record.user = SPAN("\"ann\"");
    assert_int_equal(refused(""), AGENT_CODES);
    start(AGENT_ASK)->id = 0;
    assert_int_equal(refused("id"), AGENT_E_ID);
    start(AGENT_ASK);
    with(AGENT_F_DEADLINE_MS)->deadline_ms = LIMIT_AGENT_DEADLINE_MS + 1;
    assert_int_equal(refused("deadline_ms"), AGENT_E_LIMIT);
    start(AGENT_OK);
    assert_int_equal(refused(""), AGENT_CODES);
    with(AGENT_F_ANSWER_ARGS)->args = SPAN("x");
    assert_int_equal(refused("args"), AGENT_E_JSON);
    start(AGENT_ERROR)->code = SPAN("c");
    with(AGENT_F_DATA)->data = SPAN("x");
    assert_int_equal(refused("data"), AGENT_E_JSON);
    start(AGENT_TELL);
    assert_int_equal(refused(""), AGENT_CODES);
}

static void assert_unfit(const char *wrong)
{
    assert_false(agent_fits(&record));
    assert_string_equal(record.wrong, wrong);
}

static void test_what_fits(void **state)
{
    (void)state;
    static const char long_text[300] = {[0 ... 298] = 'x'};
    struct span too_long = {long_text, 257};
    assert_true(agent_fits(start(AGENT_EMIT)));
    record.event = too_long;
    assert_unfit("event");
    record.event = SPAN("a\0b");
    assert_unfit("event");
    record.event = SPAN("\xff");
    assert_unfit("event");
    start(AGENT_EMIT)->n_to = LIMIT_ROOMS_PER_CALL + 1;
    assert_unfit("to");
    start(AGENT_EMIT)->n_to = 1;
    record.to[0] = too_long;
    assert_unfit("to");
    record.n_to = 0;
    with(AGENT_F_KEY)->key = (struct span){long_text, 65};
    assert_unfit("key");
    start(AGENT_TELL)->body = SPAN("\xff");
    assert_unfit("body");
    record.body_is_bin = true;
    assert_true(agent_fits(&record));
    start(AGENT_JOIN)->n_rooms = 0;
    assert_unfit("rooms");
    start(AGENT_NODE);
    with(AGENT_F_PEERS)->n_peers = 1;
    record.peers[0] = (struct agent_peer){SPAN("n"), 0, {{NULL, 0}}};
    assert_unfit("peers");
    record.peers[0] = (struct agent_peer){SPAN("n"), 1, {SPAN("e")}};
    assert_true(agent_fits(&record));
}

static void test_args(void **state)
{
    (void)state;
    agent_init(&record, AGENT_EMIT);
    assert_true(agent_set_args(&record, SPAN(" [ 1, 2 ]\n")));
    assert_true(span_eq(record.args, SPAN("1, 2")) && span_eq(record.args_array, SPAN("[ 1, 2 ]")));
    assert_true(agent_set_args(&record, SPAN("")));
    assert_true(record.args.n == 0 && span_eq(record.args_array, SPAN("[]")));
    assert_false(agent_set_args(&record, SPAN("[")));
    assert_false(agent_set_args(&record, SPAN("{}")));
}

static void test_codes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < AGENT_CODES; i++) {
        const char *code = agent_code((enum agent_code)i);
        assert_true(strlen(code) <= AGENT_CODE_BYTES && *agent_code_text((enum agent_code)i));
        assert_int_equal(agent_code_of(span_of(code)), i);
    }
    assert_int_equal(agent_code_of(SPAN("own")), AGENT_CODES);
}

static void test_patterns(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool fits;
    } cases[] = {
        {"a", "a", true},
        {"a", "b", false},
        {"a", "a.b", false},
        {"a.b", "a", false},
        {"*", "a", true},
        {"*", "a.b", false},
        {">", "a", true},
        {">", "a.b.c", true},
        {"a.*", "a.b", true},
        {"a.*", "a", false},
        {"a.*", "a.b.c", false},
        {"a.*.c", "a.b.c", true},
        {"a.>", "a", false},
        {"a.>", "a.b", true},
        {"a.>", "a.b.c", true},
        {"*.>", "a.b", true},
        {"a.*", "a.", true},
        {"a..b", "a..b", true},
        {"a.*.b", "a..b", true},
        {"a>", "a>", true},
        {"a*", "ab", false},
        {".", ".", true},
        {"*.*", ".", true},
        {"a", "", false},
        {"orders.>", "orders.new", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_true(agent_pattern_valid(span_of(cases[i].pattern)));
        if (agent_pattern_fits(span_of(cases[i].pattern), span_of(cases[i].name)) != cases[i].fits)
            fail_msg("%s, %s", cases[i].pattern, cases[i].name);
    }
    assert_false(agent_pattern_valid(SPAN("")));
    assert_false(agent_pattern_valid(SPAN(">.a")));
    assert_false(agent_pattern_valid(SPAN("a.>.>")));
    assert_true(agent_pattern_valid(SPAN("a.b.>")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_layout_of_the_connection),
        cmocka_unit_test(test_layout_of_answers),
        cmocka_unit_test(test_layout_of_registrations),
        cmocka_unit_test(test_layout_of_requests),
        cmocka_unit_test(test_layout_of_what_nodes_send),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_values_of_options),
        cmocka_unit_test(test_what_follows_a_bad_record),
        cmocka_unit_test(test_sides),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_check_of_emits),
        cmocka_unit_test(test_check_of_registrations),
        cmocka_unit_test(test_check_of_others),
        cmocka_unit_test(test_what_fits),
        cmocka_unit_test(test_args),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_patterns),
    };
    int failed = cmocka_run_group_tests_name("agent", tests, NULL, NULL);
    read_once((struct span){NULL, 0});
    return failed;
}
