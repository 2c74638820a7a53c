#include "err.h"
#include "relay_message.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SID "CgsMo1JXq0bUu8wRk2_V"
#define PID "CgsM-x7PzE4nd0aGt5hY"

static struct relay_message message, back;

/* Reads from memory of exactly its size, so that sanitizers see a byte too many. */
static int verdict(struct span bytes)
{
    char *copy = malloc(bytes.n + 1);
    assert_non_null(copy);
    memcpy(copy + 1, bytes.p, bytes.n);
    int err = relay_message_read((struct span){copy + 1, bytes.n}, &back);
    free(copy);
    return err;
}

static void assert_back(struct span bytes)
{
    assert_int_equal(relay_message_read(bytes, &back), 0);
    assert_int_equal(back.what, message.what);
    assert_int_equal(back.id, message.id);
    assert_int_equal(back.mine, message.mine);
    assert_int_equal(back.ip, message.ip);
    assert_int_equal(back.port, message.port);
    assert_int_equal(back.offset, message.offset);
    assert_int_equal(back.n, message.n);
    assert_true(span_eq(back.bytes, message.bytes));
    assert_true(span_eq(back.sid, message.sid));
    assert_int_equal(back.got, message.got);
    assert_true(span_eq(back.since, message.since));
    assert_int_equal(back.n_places, message.n_places);
    for (unsigned i = 0; i < back.n_places; i++) {
        assert_true(span_eq(back.places[i].nsp, message.places[i].nsp));
        assert_true(span_eq(back.places[i].pid, message.places[i].pid));
    }
}

static void assert_written(const struct relay_message *m, struct span expected)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    message = *m;
    assert_int_equal(relay_message_write(&b, m), 0);
    assert_int_equal(b.size, expected.n);
    assert_memory_equal(b.data, expected.p, expected.n);
    assert_back(expected);
    for (size_t n = 0; n < expected.n; n++)
        assert_int_equal(verdict((struct span){expected.p, n}), ERR_RELAY);
    msgpack_sbuffer_destroy(&b);
}

static void test_messages(void **state)
{
    (void)state;
    assert_written(
        &(struct relay_message){
            .what = RELAY_OPEN, .id = 7, .ip = 0x0100007f, .port = 80, .bytes = SPAN("GET")},
        SPAN("\x95\1\7\xce\1\0\0\x7f\x50\xc4\3GET"));
    assert_written(
        &(struct relay_message){
            .what = RELAY_DATA, .id = 7, .mine = true, .offset = 300, .bytes = SPAN("more")},
        SPAN("\x95\2\7\xc3\xcd\1\x2c\xc4\4more"));
    assert_written(&(struct relay_message){.what = RELAY_TAKEN, .id = 7, .n = 16384},
                   SPAN("\x94\3\7\xc2\xcd\x40\0"));
    assert_written(&(struct relay_message){.what = RELAY_CLOSE, .id = 300, .mine = true},
                   SPAN("\x93\4\xcd\1\x2c\xc3"));
    assert_written(&(struct relay_message){.what = RELAY_MOVE,
                                           .id = 7,
                                           .sid = SPAN(SID),
                                           .got = 9,
                                           .since = SPAN("~1orJrCgsM"),
                                           .n_places = 2,
                                           .places = {{SPAN("/"), SPAN(PID)}, {SPAN("/x\0y"), SPAN(PID)}},
                                           .bytes = SPAN("\x81\x01"
                                                         "2")},
                   SPAN("\x97\5\7\xb4" SID "\x09\xaa~1orJrCgsM\x92\x92\xa1/\xb4" PID "\x92\xa4/x\0y\xb4" PID
                        "\xc4\3\x81\x01"
                        "2"));
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct span wrong[] = {
        SPAN(""),
        SPAN("\x80"),
        SPAN("\x90"),
        SPAN("\x94\1\7\1\1"),
        SPAN("\x95\1\7\xcf\0\0\0\1\0\0\0\0\1\xc4\0"), /* ip */
        SPAN("\x95\1\7\1\xce\0\1\0\0\xc4\0"),         /* port */
        SPAN("\x95\2\7\1\0\xc4\0"),                   /* mine is no number */
        SPAN("\x95\2\7\xc3\0\xa0"),
        SPAN("\x93\4\7\xc3\xc0"), /* behind its end */
        SPAN("\x97\5\7\xb4" SID "\0\xa0\x90\xc4\0"),
        SPAN("\x97\5\7\xb4" SID "\0\xa0\x91\x91\xa1/\xc4\0"),
        SPAN("\x97\5\7\xb4" SID "\0\xa0\x91\x92\xa1x\xb4" PID "\xc4\0"),
        SPAN("\x97\5\7\xb4" SID "\0\xa0\x91\x92\xa3/,x\xb4" PID "\xc4\0"),
        SPAN("\x97\5\7\xb4" SID "\0\xa0\x92\x92\xa1/\xb4" PID "\x92\xa1/\xb4" PID "\xc4\0"), /* twice */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(verdict(wrong[i]), ERR_RELAY);
    assert_int_equal(verdict(SPAN("\x92\6\7")), ERR_KIND);
    assert_int_equal(verdict(SPAN("\x92\0\7")), ERR_KIND);
    assert_int_equal(verdict(SPAN("\x95\4\7\xc3\x91\xc0\xc3")), 0); /* additions are skipped */
}

static void assert_piece(size_t n, int expected)
{
    static char bytes[LIMIT_RELAY_PIECE_BYTES + 16];
    memcpy(bytes, "\x95\2\7\xc3\0\xc5", 6);
    bytes[6] = (char)(n >> 8);
    bytes[7] = (char)n;
    assert_int_equal(verdict((struct span){bytes, 8 + n}), expected);
}

static void test_pieces(void **state)
{
    (void)state;
    assert_piece(LIMIT_RELAY_PIECE_BYTES, 0);
    assert_piece(LIMIT_RELAY_PIECE_BYTES + 1, ERR_RELAY);
}

static int verdict_of_move(unsigned places, size_t output_n)
{
    static char output[LIMIT_RELAY_OUTPUT_BYTES + 1];
    msgpack_sbuffer b;
    msgpack_packer p;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
    msgpack_sbuffer_write(&b, "\x97\5\7\xb4" SID "\0\xa0", 26);
    msgpack_pack_array(&p, places);
    for (unsigned i = 0; i < places; i++) {
        char name[16];
        int n = snprintf(name, sizeof(name), "/%u", i);
        msgpack_pack_array(&p, 2);
        msgpack_pack_str(&p, (size_t)n);
        msgpack_pack_str_body(&p, name, (size_t)n);
        msgpack_pack_str(&p, 20);
        msgpack_pack_str_body(&p, PID, 20);
    }
    msgpack_pack_bin(&p, output_n);
    msgpack_pack_bin_body(&p, output, output_n);
    int err = verdict((struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
    return err;
}

static void test_moves(void **state)
{
    (void)state;
    assert_int_equal(verdict_of_move(LIMIT_NAMESPACES_PER_CLIENT, LIMIT_RELAY_OUTPUT_BYTES), 0);
    assert_int_equal(verdict_of_move(LIMIT_NAMESPACES_PER_CLIENT + 1, 0), ERR_RELAY);
    assert_int_equal(verdict_of_move(1, LIMIT_RELAY_OUTPUT_BYTES + 1), ERR_RELAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
