#include "err.h"
#include "ws.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIN       0x80
#define MAX_BYTES 100000

/* A stream that a test builds frame by frame. */
struct stream {
    size_t n;
    uint8_t p[3 * MAX_BYTES];
};

static struct stream stream;

static void add_bytes(const void *p, size_t n)
{
    assert_true(n <= sizeof stream.p - stream.n);
    if (n > 0)
        memcpy(stream.p + stream.n, p, n);
    stream.n += n;
}

/* As a client writes it; length_bytes 0, 2 or 8 chooses the form of the length. */
static void add_head(unsigned first, uint64_t n, size_t length_bytes, const uint8_t mask[4])
{
    uint8_t head[10] = {(uint8_t)first, (uint8_t)(0x80 | (length_bytes == 0   ? n
                                                          : length_bytes == 2 ? 126
                                                                              : 127))};
    for (size_t i = 0; i < length_bytes; ++i)
        head[2 + i] = (uint8_t)(n >> 8 * (length_bytes - 1 - i));
    add_bytes(head, 2 + length_bytes);
    add_bytes(mask, 4);
}

static void add_frame(unsigned first, const void *payload, size_t n)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    add_head(first, n, n < 126 ? 0 : n < 65536 ? 2 : 8, mask);
    size_t start = stream.n;
    add_bytes(payload, n);
    for (size_t i = 0; i < n; ++i)
        stream.p[start + i] ^= mask[i & 3];
}

static void add_text(unsigned first, const char *text)
{
    add_frame(first, text, strlen(text));
}

static int start(void **state)
{
    (void)state;
    stream.n = 0;
    return 0;
}

static bool empty(const struct ws_reader *r)
{
    return r->frame == NULL && r->held == NULL && r->held_n == 0 && r->held_cap == 0;
}

struct expected {
    enum ws_opcode opcode;
    const void *data;
    size_t n;
    unsigned status;
};

#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        WS_TEXT, (literal), sizeof(literal) - 1, 0                                                           \
    }
#define END                                                                                                  \
    {                                                                                                        \
        .status = UINT32_MAX                                                                                 \
    }

static void assert_event(const struct ws_event *event, const struct expected *expected)
{
    assert_int_equal(event->opcode, expected->opcode);
    assert_int_equal(event->status, expected->status);
    assert_int_equal(event->n, expected->n);
    assert_non_null(event->data);
    if (event->n > 0)
        assert_memory_equal(event->data, expected->data, event->n);
}

/* Reads the stream in pieces of a size, each from memory of exactly that size that is gone afterwards, and
 * compares the events. Returns how the reading ended. */
static int read_in_pieces(size_t piece, size_t max, const struct expected *expected)
{
    struct ws_reader r;
    ws_reader_init(&r, max);
    int rc = 0;
    for (size_t at = 0; at < stream.n && rc == 0; at += piece) {
        size_t n = stream.n - at < piece ? stream.n - at : piece;
        uint8_t *copy = malloc(n), *p = copy;
        assert_non_null(copy);
        memcpy(copy, stream.p + at, n);
        struct ws_event event;
        while ((rc = ws_reader_next(&r, &p, &n, &event)) == 1)
            assert_event(&event, expected++);
        assert_true(rc < 0 || n == 0);
        assert_true(r.held_n <= r.held_cap && r.held_cap <= max);
        free(copy);
    }
    assert_int_equal(expected->status, UINT32_MAX);
    assert_true(rc == 0 || empty(&r));
    ws_reader_deinit(&r);
    assert_true(empty(&r));
    return rc;
}

static void expect(int rc, const struct expected *expected)
{
    for (size_t piece = 1; piece < stream.n && piece < 40; ++piece)
        assert_int_equal(read_in_pieces(piece, MAX_BYTES, expected), rc);
    assert_int_equal(read_in_pieces(stream.n, MAX_BYTES, expected), rc);
}

static void writes_heads(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        const char *head;
        size_t head_n;
    } cases[] = {
        {0, "\x82\0", 2},
        {125, "\x82\x7d", 2},
        {126, "\x82\x7e\0\x7e", 4},
        {65535, "\x82\x7e\xff\xff", 4},
        {65536, "\x82\x7f\0\0\0\0\0\x01\0\0", 10},
        {UINT64_C(0x123456789abcdef), "\x82\x7f\x01\x23\x45\x67\x89\xab\xcd\xef", 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        uint8_t head[WS_HEAD_MAX];
        assert_int_equal(ws_encode_head(head, WS_BINARY, true, cases[i].n), cases[i].head_n);
        assert_memory_equal(head, cases[i].head, cases[i].head_n);
        enum ws_opcode opcode;
        size_t n;
        assert_int_equal(ws_own_head(head, &opcode, &n), cases[i].head_n);
        assert_int_equal(opcode, WS_BINARY);
        assert_int_equal(n, cases[i].n);
    }
    uint8_t head[WS_HEAD_MAX];
    assert_int_equal(ws_encode_head(head, WS_TEXT, false, 3), 2);
    assert_memory_equal(head, "\x01\x03", 2);
}

static void reads_messages_of_every_length(void **state)
{
    (void)state;
    static uint8_t payload[66000];
    for (size_t i = 0; i < sizeof payload; ++i)
        payload[i] = (uint8_t)(i * 31 + (i >> 8));
    static const size_t lengths[] = {0,   1,   2,   3,   7,   8,   9,     124,   125,  126,
                                     127, 128, 255, 256, 257, 300, 65535, 65536, 66000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; ++i) {
        start(NULL);
        add_frame(FIN | WS_BINARY, payload, lengths[i]);
        add_text(FIN | WS_TEXT, "behind");
        expect(0, (struct expected[]){{WS_BINARY, payload, lengths[i], 0}, TEXT("behind"), END});
    }
}

static void reads_fragments_with_control_frames_between(void **state)
{
    (void)state;
    add_text(WS_TEXT, "a \xe2");
    add_text(FIN | WS_PING, "ping");
    add_text(WS_CONTINUATION, "\x82");
    add_text(WS_CONTINUATION, "");
    add_text(FIN | WS_PONG, "");
    add_text(FIN | WS_CONTINUATION, "\xac sign");
    add_text(FIN | WS_TEXT, "whole");
    add_text(WS_BINARY, "");
    add_text(FIN | WS_CONTINUATION, "");
    add_text(WS_BINARY, "\xff");
    add_text(FIN | WS_CONTINUATION, "\xfe");
    expect(0, (struct expected[]){{WS_PING, "ping", 4, 0},
                                  {WS_PONG, "", 0, 0},
                                  TEXT("a \xe2\x82\xac sign"),
                                  TEXT("whole"),
                                  {WS_BINARY, "", 0, 0},
                                  {WS_BINARY, "\xff\xfe", 2, 0},
                                  END});
}

static void reads_close_frames(void **state)
{
    (void)state;
    add_text(FIN | WS_CLOSE, "");
    add_frame(FIN | WS_CLOSE, "\x03\xe8", 2);
    add_frame(FIN | WS_CLOSE, "\x13\x87gr\xc3\xbc\xc3\x9f", 8);
    expect(0, (struct expected[]){{WS_CLOSE, "", 0, WS_STATUS_NONE},
                                  {WS_CLOSE, "", 0, 1000},
                                  {WS_CLOSE, "gr\xc3\xbc\xc3\x9f", 6, 4999},
                                  END});
}

static void judges_close_codes(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 5100; ++code) {
        bool legal = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                     (code >= 3000 && code <= 4999);
        start(NULL);
        add_frame(FIN | WS_CLOSE, (uint8_t[]){(uint8_t)(code >> 8), (uint8_t)code}, 2);
        if (legal)
            expect(0, (struct expected[]){{WS_CLOSE, "", 0, code}, END});
        else
            expect(ERR_WS_PROTOCOL, (struct expected[]){END});
    }
}

/* A stream that begins well ends with an error, however it is cut. */
static void expect_error(int rc)
{
    expect(rc, (struct expected[]){TEXT("good"), END});
}

static void start_well(void)
{
    start(NULL);
    add_text(FIN | WS_TEXT, "good");
}

static void refuses_illegal_frames(void **state)
{
    (void)state;
    static const unsigned firsts[] = {
        FIN | 0x3,       FIN | 0x4,
        FIN | 0x5,       FIN | 0x6,
        FIN | 0x7, /* reserved */
        FIN | 0xb,       FIN | 0xc,
        FIN | 0xd,       FIN | 0xe,
        FIN | 0xf, /* reserved */
        FIN | 0x41,      FIN | 0x21,
        FIN | 0x11,      FIN | 0x49, /* RSV bits */
        WS_PING,         WS_PONG,
        WS_CLOSE,                               /* fragmented control frames */
        WS_CONTINUATION, FIN | WS_CONTINUATION, /* nothing to continue */
    };
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; ++i) {
        start_well();
        add_text(firsts[i], "");
        expect_error(ERR_WS_PROTOCOL);
    }
    static const unsigned inside[] = {FIN | WS_TEXT, WS_TEXT, FIN | WS_BINARY, WS_BINARY};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; ++i) {
        start_well();
        add_text(WS_TEXT, "first");
        add_text(inside[i], "second");
        expect_error(ERR_WS_PROTOCOL);
    }
    start_well();
    add_bytes("\x81\x04good", 6); /* no mask */
    expect_error(ERR_WS_PROTOCOL);
    start_well();
    add_frame(FIN | WS_CLOSE, "\x03", 1);
    expect_error(ERR_WS_PROTOCOL);
}

static void refuses_long_control_frames(void **state)
{
    (void)state;
    static const unsigned opcodes[] = {WS_PING, WS_PONG, WS_CLOSE};
    uint8_t payload[126];
    memset(payload, 'x', sizeof payload);
    memcpy(payload, "\x03\xe8", 2);
    for (size_t i = 0; i < 3; ++i) {
        start(NULL);
        add_frame(FIN | opcodes[i], payload, 125);
        if (opcodes[i] == WS_CLOSE)
            expect(0, (struct expected[]){{WS_CLOSE, payload + 2, 123, 1000}, END});
        else
            expect(0, (struct expected[]){{opcodes[i], payload, 125, 0}, END});
        start_well();
        add_frame(FIN | opcodes[i], payload, 126);
        expect_error(ERR_WS_PROTOCOL);
    }
}

static void refuses_odd_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        size_t bytes;
    } cases[] = {{0, 2}, {125, 2}, {0, 8}, {126, 8}, {65535, 8}, {UINT64_C(1) << 63, 8}, {UINT64_MAX, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        start_well();
        add_head(FIN | WS_BINARY, cases[i].n, cases[i].bytes, (const uint8_t[4]){0});
        expect_error(ERR_WS_PROTOCOL);
    }
}

static void refuses_bad_text(void **state)
{
    (void)state;
    static const char *const texts[] = {"\x80", "caf\xe9", "a longer text with a \xed\xa0\x80 surrogate",
                                        "cut \xf0\x9f\x9a"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
        start_well();
        add_text(FIN | WS_TEXT, texts[i]);
        expect_error(ERR_WS_UTF8);
        start_well();
        add_text(WS_TEXT, texts[i]);
        add_text(FIN | WS_CONTINUATION, "");
        expect_error(ERR_WS_UTF8);
    }
    start_well();
    add_frame(FIN | WS_CLOSE, "\x03\xe8\xc3", 3);
    expect_error(ERR_WS_UTF8);
}

/* A bad byte ends the connection while the frame, and its message, are still coming. */
static void refuses_bad_text_early(void **state)
{
    (void)state;
    start_well();
    add_text(WS_TEXT, "bad \xff");
    expect_error(ERR_WS_UTF8);
    start_well();
    add_head(FIN | WS_TEXT, 50000, 2, (const uint8_t[4]){0});
    add_bytes("bad \xff", 5);
    expect_error(ERR_WS_UTF8);
}

static int read_all(size_t max)
{
    struct ws_reader r;
    struct ws_event event;
    uint8_t *p = stream.p;
    size_t n = stream.n;
    ws_reader_init(&r, max);
    int rc;
    do
        rc = ws_reader_next(&r, &p, &n, &event);
    while (rc == 1);
    assert_true(rc == 0 || empty(&r));
    ws_reader_deinit(&r);
    return rc;
}

static void limits_messages_at_their_head(void **state)
{
    (void)state;
    static const uint8_t payload[1000];
    static const uint8_t mask[4];
    add_frame(FIN | WS_BINARY, payload, 1000);
    assert_int_equal(read_all(1000), 0);
    start(NULL);
    add_frame(FIN | WS_BINARY, payload, 1000);
    assert_int_equal(read_all(999), ERR_WS_TOO_BIG);

    /* The length is enough, before the mask and any payload. */
    for (size_t missing = 0; missing <= 4; ++missing) {
        start(NULL);
        add_head(FIN | WS_BINARY, 1001, 2, mask);
        stream.n -= missing;
        assert_int_equal(read_all(1000), ERR_WS_TOO_BIG);
        start(NULL);
        add_head(WS_TEXT, INT64_MAX, 8, mask);
        stream.n -= missing;
        assert_int_equal(read_all(1000), ERR_WS_TOO_BIG);
    }

    start(NULL);
    add_frame(WS_BINARY, payload, 600);
    add_frame(FIN | WS_PING, payload, 125); /* does not count */
    add_head(FIN | WS_CONTINUATION, 400, 2, mask);
    assert_int_equal(read_all(1000), 0);
    start(NULL);
    add_frame(WS_BINARY, payload, 600);
    add_head(FIN | WS_CONTINUATION, 401, 2, mask);
    assert_int_equal(read_all(1000), ERR_WS_TOO_BIG);
    start(NULL);
    add_frame(WS_BINARY, payload, 600);
    add_head(FIN | WS_CONTINUATION, INT64_MAX, 8, mask);
    assert_int_equal(read_all(1000), ERR_WS_TOO_BIG);

    start(NULL);
    add_frame(FIN | WS_BINARY, payload, 0);
    assert_int_equal(read_all(0), 0);
    add_frame(FIN | WS_BINARY, payload, 1);
    assert_int_equal(read_all(0), ERR_WS_TOO_BIG);
}

static int feed(struct ws_reader *r, size_t at, size_t n, struct ws_event *event)
{
    uint8_t *p = stream.p + at;
    int rc = ws_reader_next(r, &p, &n, event);
    assert_true(rc < 0 || n == 0);
    return rc;
}

static void does_not_copy_what_is_complete(void **state)
{
    (void)state;
    struct ws_reader r;
    struct ws_event event;
    ws_reader_init(&r, MAX_BYTES);
    for (int i = 0; i < 3; ++i)
        add_text(i == 1 ? FIN | WS_PING : FIN | WS_TEXT, "message");
    uint8_t *p = stream.p;
    size_t n = stream.n;
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(ws_reader_next(&r, &p, &n, &event), 1);
        assert_ptr_equal(event.data, p - 7);
        assert_true(empty(&r));
    }
    assert_int_equal(n, 0);

    /* Nor when only the head was cut. */
    start(NULL);
    add_text(FIN | WS_TEXT, "message");
    assert_int_equal(feed(&r, 0, 4, &event), 0);
    assert_null(r.held);
    assert_int_equal(feed(&r, 4, stream.n - 4, &event), 1);
    assert_ptr_equal(event.data, stream.p + 6);
    assert_true(empty(&r));
    ws_reader_deinit(&r);
}

static void holds_what_has_arrived_only(void **state)
{
    (void)state;
    static const uint8_t payload[90000];
    struct ws_reader r;
    struct ws_event event;
    ws_reader_init(&r, MAX_BYTES);
    add_frame(FIN | WS_BINARY, payload, sizeof payload);
    size_t at = 14;
    assert_int_equal(feed(&r, 0, at, &event), 0);
    assert_null(r.held);
    for (; at + 1000 < stream.n; at += 1000) {
        assert_int_equal(feed(&r, at, 1000, &event), 0);
        assert_int_equal(r.held_n, at + 1000 - 14);
        assert_true(r.held_cap <= 2 * r.held_n && r.held_cap <= sizeof payload);
    }
    assert_int_equal(feed(&r, at, stream.n - at, &event), 1);
    assert_int_equal(event.n, sizeof payload);
    assert_int_equal(r.held_cap, sizeof payload);
    assert_null(r.frame);
    assert_int_equal(feed(&r, 0, 0, &event), 0);
    assert_true(empty(&r));
    ws_reader_deinit(&r);
}

/* A message of many tiny fragments once grew by one fragment at a time. */
static void grows_by_doubling_for_fragments(void **state)
{
    (void)state;
    struct ws_reader r;
    struct ws_event event;
    ws_reader_init(&r, MAX_BYTES);
    size_t grown = 0, cap = 0;
    for (size_t i = 0; i < 20000; ++i) {
        start(NULL);
        add_text(i == 0 ? WS_BINARY : WS_CONTINUATION, "x");
        assert_int_equal(feed(&r, 0, stream.n, &event), 0);
        grown += r.held_cap != cap;
        cap = r.held_cap;
    }
    assert_int_equal(r.held_n, 20000);
    assert_true(grown < 20);
    ws_reader_deinit(&r);
    assert_true(empty(&r));
}

static void keeps_control_frames_until_the_next_call(void **state)
{
    (void)state;
    struct ws_reader r;
    struct ws_event event;
    ws_reader_init(&r, MAX_BYTES);
    add_text(FIN | WS_PING, "ping");
    assert_int_equal(feed(&r, 0, 8, &event), 0);
    assert_int_equal(feed(&r, 8, 2, &event), 1);
    assert_event(&event, &(struct expected){WS_PING, "ping", 4, 0});
    assert_int_equal(feed(&r, 0, 0, &event), 0);
    assert_true(empty(&r));
    ws_reader_deinit(&r);
}

static void answers_errors_with_codes(void **state)
{
    (void)state;
    assert_int_equal(ws_close_status(ERR_WS_PROTOCOL), 1002);
    assert_int_equal(ws_close_status(ERR_WS_UTF8), 1007);
    assert_int_equal(ws_close_status(ERR_WS_TOO_BIG), 1009);
    assert_int_equal(ws_close_status(ERR_MEMORY), 1011);
    assert_true(sizeof(struct ws_reader) <= 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(writes_heads, start),
        cmocka_unit_test_setup(reads_messages_of_every_length, start),
        cmocka_unit_test_setup(reads_fragments_with_control_frames_between, start),
        cmocka_unit_test_setup(reads_close_frames, start),
        cmocka_unit_test_setup(judges_close_codes, start),
        cmocka_unit_test_setup(refuses_illegal_frames, start),
        cmocka_unit_test_setup(refuses_long_control_frames, start),
        cmocka_unit_test_setup(refuses_odd_lengths, start),
        cmocka_unit_test_setup(refuses_bad_text, start),
        cmocka_unit_test_setup(refuses_bad_text_early, start),
        cmocka_unit_test_setup(limits_messages_at_their_head, start),
        cmocka_unit_test_setup(does_not_copy_what_is_complete, start),
        cmocka_unit_test_setup(holds_what_has_arrived_only, start),
        cmocka_unit_test_setup(grows_by_doubling_for_fragments, start),
        cmocka_unit_test_setup(keeps_control_frames_until_the_next_call, start),
        cmocka_unit_test_setup(answers_errors_with_codes, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
