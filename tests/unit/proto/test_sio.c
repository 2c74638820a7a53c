#include "err.h"
#include "limit.h"
#include "sio.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANY_ZEROS "0000000000000000000000000000000000000000"
#define NO_ID      false, 0
#define ID(n)      true, (n)

static const struct packet_row {
    const char *text;
    enum sio_type type;
    unsigned attachments;
    const char *nsp;
    bool has_id;
    uint64_t id;
    const char *payload, *event, *args;
} packet_rows[] = {
    /* CONNECT */
    {"0", SIO_CONNECT, 0, "/", NO_ID, "", "", ""},
    {"0{}", SIO_CONNECT, 0, "/", NO_ID, "{}", "", ""},
    {"0{\"token\":\"x\"}", SIO_CONNECT, 0, "/", NO_ID, "{\"token\":\"x\"}", "", ""},
    {"0/custom,", SIO_CONNECT, 0, "/custom", NO_ID, "", "", ""},
    {"0/custom", SIO_CONNECT, 0, "/custom", NO_ID, "", "", ""},
    {"0/custom,{\"a\":1}", SIO_CONNECT, 0, "/custom", NO_ID, "{\"a\":1}", "", ""},
    {"0/", SIO_CONNECT, 0, "/", NO_ID, "", "", ""},
    {"0/,", SIO_CONNECT, 0, "/", NO_ID, "", "", ""},
    {"0/,{}", SIO_CONNECT, 0, "/", NO_ID, "{}", "", ""},
    {"0/custom?a=b,{}", SIO_CONNECT, 0, "/custom?a=b", NO_ID, "{}", "", ""},
    {"0//,", SIO_CONNECT, 0, "//", NO_ID, "", "", ""},
    {"0/\xe2\x82\xac \"[,", SIO_CONNECT, 0, "/\xe2\x82\xac \"[", NO_ID, "", "", ""},
    {"07", SIO_CONNECT, 0, "/", ID(7), "", "", ""},
    {"0/a,7{}", SIO_CONNECT, 0, "/a", ID(7), "{}", "", ""},
    /* DISCONNECT */
    {"1", SIO_DISCONNECT, 0, "/", NO_ID, "", "", ""},
    {"1/custom,", SIO_DISCONNECT, 0, "/custom", NO_ID, "", "", ""},
    {"1/custom", SIO_DISCONNECT, 0, "/custom", NO_ID, "", "", ""},
    {"13", SIO_DISCONNECT, 0, "/", ID(3), "", "", ""},
    /* EVENT */
    {"2", SIO_EVENT, 0, "/", NO_ID, "", "", ""},
    {"25", SIO_EVENT, 0, "/", ID(5), "", "", ""},
    {"2/a,", SIO_EVENT, 0, "/a", NO_ID, "", "", ""},
    {"2[\"a\"]", SIO_EVENT, 0, "/", NO_ID, "[\"a\"]", "\"a\"", ""},
    {"2[\"\"]", SIO_EVENT, 0, "/", NO_ID, "[\"\"]", "\"\"", ""},
    {"2[\"a\",1,\"2\",{\"3\":[true]}]", SIO_EVENT, 0, "/", NO_ID, "[\"a\",1,\"2\",{\"3\":[true]}]", "\"a\"",
     "1,\"2\",{\"3\":[true]}"},
    {"2[\"a]\",\"]\"]", SIO_EVENT, 0, "/", NO_ID, "[\"a]\",\"]\"]", "\"a]\"", "\"]\""},
    {"2[\"a\\\",\",0]", SIO_EVENT, 0, "/", NO_ID, "[\"a\\\",\",0]", "\"a\\\",\"", "0"},
    {"2[1]", SIO_EVENT, 0, "/", NO_ID, "[1]", "1", ""},
    {"2[-1.5e3,null]", SIO_EVENT, 0, "/", NO_ID, "[-1.5e3,null]", "-1.5e3", "null"},
    {"2[1e400]", SIO_EVENT, 0, "/", NO_ID, "[1e400]", "1e400", ""},
    {"212[\"a\",{}]", SIO_EVENT, 0, "/", ID(12), "[\"a\",{}]", "\"a\"", "{}"},
    {"2/custom,12[\"a\",{}]", SIO_EVENT, 0, "/custom", ID(12), "[\"a\",{}]", "\"a\"", "{}"},
    {"2/custom,[\"a\",{}]", SIO_EVENT, 0, "/custom", NO_ID, "[\"a\",{}]", "\"a\"", "{}"},
    {"2/,[\"a\"]", SIO_EVENT, 0, "/", NO_ID, "[\"a\"]", "\"a\"", ""},
    {"2/1[\"a\"]", SIO_EVENT, 0, "/1[\"a\"]", NO_ID, "", "", ""},
    {"20[\"a\"]", SIO_EVENT, 0, "/", ID(0), "[\"a\"]", "\"a\"", ""},
    {"2007[\"a\"]", SIO_EVENT, 0, "/", ID(7), "[\"a\"]", "\"a\"", ""},
    {"2" MANY_ZEROS "9[\"a\"]", SIO_EVENT, 0, "/", ID(9), "[\"a\"]", "\"a\"", ""},
    {"29007199254740993[\"a\"]", SIO_EVENT, 0, "/", ID(9007199254740993), "[\"a\"]", "\"a\"", ""},
    {"218446744073709551615[\"a\"]", SIO_EVENT, 0, "/", ID(UINT64_MAX), "[\"a\"]", "\"a\"", ""},
    {"2[\"a\"] \n", SIO_EVENT, 0, "/", NO_ID, "[\"a\"]", "\"a\"", ""},
    {"2[ \"a\" , 1 , 2 ]", SIO_EVENT, 0, "/", NO_ID, "[ \"a\" , 1 , 2 ]", "\"a\"", "1 , 2"},
    {"2[ \"a\" ]", SIO_EVENT, 0, "/", NO_ID, "[ \"a\" ]", "\"a\"", ""},
    {"2[\"a\",{\"_placeholder\":true,\"num\":9}]", SIO_EVENT, 0, "/", NO_ID,
     "[\"a\",{\"_placeholder\":true,\"num\":9}]", "\"a\"", "{\"_placeholder\":true,\"num\":9}"},
    /* ACK */
    {"3", SIO_ACK, 0, "/", NO_ID, "", "", ""},
    {"312[]", SIO_ACK, 0, "/", ID(12), "[]", "", ""},
    {"312[ ]", SIO_ACK, 0, "/", ID(12), "[ ]", "", ""},
    {"312[null,\"connect\",{}]", SIO_ACK, 0, "/", ID(12), "[null,\"connect\",{}]", "", "null,\"connect\",{}"},
    {"3/a,0[[]]", SIO_ACK, 0, "/a", ID(0), "[[]]", "", "[]"},
    {"3[1]", SIO_ACK, 0, "/", NO_ID, "[1]", "", "1"},
    {"312[{\"_placeholder\":true}]", SIO_ACK, 0, "/", ID(12), "[{\"_placeholder\":true}]", "",
     "{\"_placeholder\":true}"},
    /* CONNECT_ERROR */
    {"4", SIO_CONNECT_ERROR, 0, "/", NO_ID, "", "", ""},
    {"4{\"message\":\"x\"}", SIO_CONNECT_ERROR, 0, "/", NO_ID, "{\"message\":\"x\"}", "", ""},
    {"4/a,\"x\"", SIO_CONNECT_ERROR, 0, "/a", NO_ID, "\"x\"", "", ""},
    {"4\"\"", SIO_CONNECT_ERROR, 0, "/", NO_ID, "\"\"", "", ""},
    /* BINARY_EVENT and BINARY_ACK */
    {"51-", SIO_BINARY_EVENT, 1, "/", NO_ID, "", "", ""},
    {"51-/a", SIO_BINARY_EVENT, 1, "/a", NO_ID, "", "", ""},
    {"51-[\"e\"]", SIO_BINARY_EVENT, 1, "/", NO_ID, "[\"e\"]", "\"e\"", ""},
    {"510-[\"e\"]", SIO_BINARY_EVENT, 10, "/", NO_ID, "[\"e\"]", "\"e\"", ""},
    {"501-[\"e\"]", SIO_BINARY_EVENT, 1, "/", NO_ID, "[\"e\"]", "\"e\"", ""},
    {"5" MANY_ZEROS "2-[1]", SIO_BINARY_EVENT, 2, "/", NO_ID, "[1]", "1", ""},
    {"51-[\"e\",{\"_placeholder\":true,\"num\":0}]", SIO_BINARY_EVENT, 1, "/", NO_ID,
     "[\"e\",{\"_placeholder\":true,\"num\":0}]", "\"e\"", "{\"_placeholder\":true,\"num\":0}"},
    {"52-/a,8[\"e\",{\"num\":1,\"_placeholder\":true,\"x\":\"}\"},[{\"_placeholder\":true,\"num\":1}]]",
     SIO_BINARY_EVENT, 2, "/a", ID(8),
     "[\"e\",{\"num\":1,\"_placeholder\":true,\"x\":\"}\"},[{\"_placeholder\":true,\"num\":1}]]", "\"e\"",
     "{\"num\":1,\"_placeholder\":true,\"x\":\"}\"},[{\"_placeholder\":true,\"num\":1}]"},
    {"61-3[{\"_placeholder\":true,\"num\":0}]", SIO_BINARY_ACK, 1, "/", ID(3),
     "[{\"_placeholder\":true,\"num\":0}]", "", "{\"_placeholder\":true,\"num\":0}"},
    {"62-/a,3[]", SIO_BINARY_ACK, 2, "/a", ID(3), "[]", "", ""},
};

static void assert_span(const char *where, const char *what, struct span got, const char *want)
{
    if (!span_eq(got, span_of(want)))
        fail_msg("%s: %s is '%.*s', not '%s'", where, what, (int)got.n, got.p, want);
}

static void test_packets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(packet_rows) / sizeof(packet_rows[0]); i++) {
        const struct packet_row *row = &packet_rows[i];
        struct sio_packet packet;
        int err = sio_decode(span_of(row->text), &packet);
        if (err != 0)
            fail_msg("%s: %s", row->text, err_text(err));
        if (packet.type != row->type || packet.attachments != row->attachments ||
            packet.has_id != row->has_id || packet.id != row->id)
            fail_msg("%s: type %d, %u attachments, id %d %llu", row->text, (int)packet.type,
                     packet.attachments, packet.has_id, (unsigned long long)packet.id);
        assert_span(row->text, "nsp", packet.nsp, row->nsp);
        assert_span(row->text, "payload", packet.payload, row->payload);
        assert_span(row->text, "event", packet.event, row->event);
        assert_span(row->text, "args", packet.args, row->args);
    }
}

#define PLACEHOLDER(members) "51-[\"e\",{\"_placeholder\":true" members "}]"

static const struct error_row {
    const char *text;
    int err;
} error_rows[] = {
    /* the type */
    {"", ERR_SIO_PACKET},
    {"7", ERR_SIO_PACKET},
    {"9", ERR_SIO_PACKET},
    {"/", ERR_SIO_PACKET},
    {":", ERR_SIO_PACKET},
    {" ", ERR_SIO_PACKET},
    {" 2[\"a\"]", ERR_SIO_PACKET},
    {"a", ERR_SIO_PACKET},
    {"[\"a\"]", ERR_SIO_PACKET},
    {"-1", ERR_SIO_PACKET},
    {"\xd9\xa2[\"a\"]", ERR_SIO_PACKET},
    /* CONNECT */
    {"0[]", ERR_SIO_PAYLOAD},
    {"0null", ERR_SIO_PAYLOAD},
    {"0\"x\"", ERR_SIO_PAYLOAD},
    {"0true", ERR_SIO_PAYLOAD},
    {"0-1", ERR_SIO_PAYLOAD},
    {"0{", ERR_JSON},
    {"0{}x", ERR_JSON},
    {"0{}{}", ERR_JSON},
    {"0{'a':1}", ERR_JSON},
    {"0abc", ERR_JSON},
    {"0,", ERR_JSON},
    {"0/a,,", ERR_JSON},
    {"0{a", ERR_JSON},
    /* DISCONNECT */
    {"1{}", ERR_SIO_PAYLOAD},
    {"1[]", ERR_SIO_PAYLOAD},
    {"1null", ERR_SIO_PAYLOAD},
    {"1/a,{}", ERR_SIO_PAYLOAD},
    /* EVENT */
    {"2[]", ERR_SIO_PAYLOAD},
    {"2[ ]", ERR_SIO_PAYLOAD},
    {"2{}", ERR_SIO_PAYLOAD},
    {"2{\"0\":\"a\"}", ERR_SIO_PAYLOAD},
    {"2null", ERR_SIO_PAYLOAD},
    {"2true", ERR_SIO_PAYLOAD},
    {"2\"a\"", ERR_SIO_PAYLOAD},
    {"2-1", ERR_SIO_PAYLOAD},
    {"2[null]", ERR_SIO_PAYLOAD},
    {"2[true,\"a\"]", ERR_SIO_PAYLOAD},
    {"2[[\"a\"]]", ERR_SIO_PAYLOAD},
    {"2[{},\"a\"]", ERR_SIO_PAYLOAD},
    {"2[\"a\"", ERR_JSON},
    {"2[\"a\"]]", ERR_JSON},
    {"2[\"a\"]1", ERR_JSON},
    {"2[\"a\",]", ERR_JSON},
    {"2[,\"a\"]", ERR_JSON},
    {"2[\"a\" 1]", ERR_JSON},
    {"2[\"a\n\"]", ERR_JSON},
    {"2[\"\\x\"]", ERR_JSON},
    {"2[01]", ERR_JSON},
    {"2[NaN]", ERR_JSON},
    {"2[undefined]", ERR_JSON},
    {"2.5[\"a\"]", ERR_JSON},
    {"2-5[\"a\"]", ERR_JSON},
    {"21e1[\"a\"]", ERR_JSON},
    {"25-[\"a\"]", ERR_JSON},
    {"21-[\"a\",{\"_placeholder\":true,\"num\":0}]", ERR_JSON},
    {"2,[\"a\"]", ERR_JSON},
    {"2custom,[\"a\"]", ERR_JSON},
    {"25/a,[\"a\"]", ERR_JSON},
    /* blanks that the reference takes for digits of the id, and ids beyond 64 bits */
    {"2 [\"a\"]", ERR_SIO_PACKET},
    {"21 [\"a\"]", ERR_SIO_PACKET},
    {"2 1[\"a\"]", ERR_SIO_PACKET},
    {"2\n[\"a\"]", ERR_SIO_PACKET},
    {"2/a, [\"a\"]", ERR_SIO_PACKET},
    {"2 ", ERR_SIO_PACKET},
    {"0 {}", ERR_SIO_PACKET},
    {"2\xc2\xa0[\"a\"]", ERR_JSON},
    {"218446744073709551616[\"a\"]", ERR_SIO_PACKET},
    {"299999999999999999999[\"a\"]", ERR_SIO_PACKET},
    {"2184467440737095516150", ERR_SIO_PACKET},
    /* reserved names, escaped or not */
    {"2[\"connect\"]", ERR_SIO_RESERVED},
    {"2[\"connect_error\",1]", ERR_SIO_RESERVED},
    {"2[\"disconnect\"]", ERR_SIO_RESERVED},
    {"2[\"disconnecting\"]", ERR_SIO_RESERVED},
    {"2[\"newListener\"]", ERR_SIO_RESERVED},
    {"2[\"removeListener\"]", ERR_SIO_RESERVED},
    {"2/a,5[ \"connect\" ]", ERR_SIO_RESERVED},
    {"2[\"\\u0063onnect\"]", ERR_SIO_RESERVED},
    {"2[\"removeListene\\u0072\"]", ERR_SIO_RESERVED},
    {"2[\"\\u0064\\u0069\\u0073\\u0063\\u006f\\u006e\\u006E\\u0065\\u0063\\u0074\"]", ERR_SIO_RESERVED},
    {"51-[\"connect\"]", ERR_SIO_RESERVED},
    {"51-[\"disconnec\\u0074\",{\"_placeholder\":true,\"num\":0}]", ERR_SIO_RESERVED},
    /* near misses of them */
    {"2[\"Connect\"]", 0},
    {"2[\"connection\"]", 0},
    {"2[\"connec\"]", 0},
    {"2[\"error\"]", 0},
    {"2[\"reconnect\"]", 0},
    {"2[\"connect \"]", 0},
    {"2[\"connect\\u0000\"]", 0},
    {"2[\"connect\\ud800\"]", 0},
    {"2[\"\\\\u0063onnect\"]", 0},
    {"2[\"newListener\\n\"]", 0},
    {"2[\"x\\u0065moveListener and more\"]", 0},
    {"2[\"a\",\"connect\"]", 0},
    /* ACK */
    {"3{}", ERR_SIO_PAYLOAD},
    {"30{}", ERR_SIO_PAYLOAD},
    {"30null", ERR_SIO_PAYLOAD},
    {"30\"a\"", ERR_SIO_PAYLOAD},
    {"30[", ERR_JSON},
    {"30[]x", ERR_JSON},
    /* CONNECT_ERROR */
    {"4[]", ERR_SIO_PAYLOAD},
    {"4null", ERR_SIO_PAYLOAD},
    {"4true", ERR_SIO_PAYLOAD},
    {"4-1", ERR_SIO_PAYLOAD},
    {"4x", ERR_JSON},
    /* the number of attachments */
    {"5", ERR_SIO_ATTACHMENTS},
    {"6", ERR_SIO_ATTACHMENTS},
    {"5-", ERR_SIO_ATTACHMENTS},
    {"5-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"51", ERR_SIO_ATTACHMENTS},
    {"51[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"50-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"500-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"511-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"518446744073709551617-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5-1-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5+1-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"51.0-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"51.5-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"51e0-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"50x1-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5 1-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"51 -[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5a-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"5/a,1-[\"e\"]", ERR_SIO_ATTACHMENTS},
    {"60-[]", ERR_SIO_ATTACHMENTS},
    {"611-[]", ERR_SIO_ATTACHMENTS},
    {"6-[]", ERR_SIO_ATTACHMENTS},
    {"51-[]", ERR_SIO_PAYLOAD},
    {"51-{}", ERR_SIO_PAYLOAD},
    {"51-null", ERR_SIO_PAYLOAD},
    {"51-[{\"_placeholder\":true,\"num\":0}]", ERR_SIO_PAYLOAD},
    {"61-{}", ERR_SIO_PAYLOAD},
    {"51-[\"e\"", ERR_JSON},
    {"51--[\"e\"]", ERR_JSON},
    /* placeholders */
    {PLACEHOLDER(""), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":1"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":-1"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":-0"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0.5"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0e0"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":\"0\""), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":null"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":[0]"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":{\"num\":0}"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":99999999999999999999"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0,\"num\":1"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"x\":{\"num\":0}"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0,\"x\":{\"_placeholder\":true}"), ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0,\"x\":[[{\"y\":{\"num\":1,\"_placeholder\":true}}]]"), ERR_SIO_PLACEHOLDER},
    {"510-[\"e\",{\"_placeholder\":true,\"num\":10}]", ERR_SIO_PLACEHOLDER},
    {"51-[\"e\",{\"\\u005fplaceholder\":true}]", ERR_SIO_PLACEHOLDER},
    {"51-[\"e\",{\"_placeholder\" : true , \"num\" : 1 }]", ERR_SIO_PLACEHOLDER},
    {"51-[\"e\",{\"a\":\"\\\"\",\"_placeholder\":true}]", ERR_SIO_PLACEHOLDER},
    {"51-[\"e\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]", ERR_SIO_PLACEHOLDER},
    {"51-[\"e\",[],{},{\"a\":[]},{\"_placeholder\":true}]", ERR_SIO_PLACEHOLDER},
    {"61-[{\"_placeholder\":true,\"num\":1}]", ERR_SIO_PLACEHOLDER},
    {"61-[[{\"a\":1,\"_placeholder\":true}]]", ERR_SIO_PLACEHOLDER},
    {PLACEHOLDER(",\"num\":0"), 0},
    {PLACEHOLDER(",\"num\":1,\"num\":0"), 0},
    {PLACEHOLDER(",\"_placeholder\":false"), 0},
    {PLACEHOLDER(",\"n\\u0075m\":0"), 0},
    {"51-[\"e\",{\"\\u005fplaceholder\":true,\"num\" :\n0 }]", 0},
    {"510-[\"e\",{\"_placeholder\":true,\"num\":9}]", 0},
    {"51-[\"e\",{\"_placeholder\":false,\"num\":5}]", 0},
    {"51-[\"e\",{\"_placeholder\":1}]", 0},
    {"51-[\"e\",{\"_placeholder\":\"true\"}]", 0},
    {"51-[\"e\",{\"_placeholder\":[true]}]", 0},
    {"51-[\"e\",{\"_placeholder\":{\"a\":true}}]", 0},
    {"51-[\"e\",{\"Placeholder\":true}]", 0},
    {"51-[\"e\",{\"a\":\"_placeholder\",\"b\":true}]", 0},
    {"51-[\"e\",\"_placeholder\",true]", 0},
    {"51-[\"_placeholder\",\"\\u0041\"]", 0},
    {"51-[\"e\",\"{\\\"_placeholder\\\":true}\"]", 0},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++) {
        struct sio_packet packet;
        int err = sio_decode(span_of(error_rows[i].text), &packet);
        if (err != error_rows[i].err)
            fail_msg("'%s': %s, not %s", error_rows[i].text, err_text(err), err_text(error_rows[i].err));
    }
}

static void test_namespace_length(void **state)
{
    (void)state;
    static const char *const tails[] = {"", ",", ",[\"a\"]", ",7[\"a\"]"};
    char text[LIMIT_NAMESPACE_BYTES + 64];
    for (size_t n = LIMIT_NAMESPACE_BYTES - 1; n <= LIMIT_NAMESPACE_BYTES + 2; n++) {
        for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
            size_t tail_n = strlen(tails[i]);
            memset(text, 'n', 1 + n);
            memcpy(text, "2/", 2);
            memcpy(text + 1 + n, tails[i], tail_n);
            struct sio_packet packet;
            int err = sio_decode((struct span){text, 1 + n + tail_n}, &packet);
            assert_int_equal(err, n <= LIMIT_NAMESPACE_BYTES ? 0 : ERR_LIMIT);
            if (err == 0)
                assert_int_equal(packet.nsp.n, n);
        }
    }
}

/* ["e",[[…{"_placeholder":true,"num":N}…]]], depth containers in all. */
static size_t nest(char *dst, unsigned depth, char num)
{
    size_t n = (size_t)sprintf(dst, "51-[\"e\",");
    memset(dst + n, '[', depth - 2);
    n += depth - 2;
    n += (size_t)sprintf(dst + n, "{\"_placeholder\":true,\"num\":%c}", num);
    memset(dst + n, ']', depth - 1);
    return n + depth - 1;
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * LIMIT_JSON_DEPTH + 64];
    struct sio_packet packet;
    for (unsigned depth = LIMIT_JSON_DEPTH - 1; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
        bool fits = depth <= LIMIT_JSON_DEPTH;
        size_t n = nest(text, depth, '0');
        assert_int_equal(sio_decode((struct span){text, n}, &packet), fits ? 0 : ERR_JSON_DEPTH);
        n = nest(text, depth, '1');
        assert_int_equal(sio_decode((struct span){text, n}, &packet),
                         fits ? ERR_SIO_PLACEHOLDER : ERR_JSON_DEPTH);
    }
}

/* Every prefix of every packet, and every packet with one byte changed, in memory that ends where it ends. */
static void test_damaged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(packet_rows) / sizeof(packet_rows[0]); i++) {
        struct span text = span_of(packet_rows[i].text);
        for (size_t n = 0; n <= text.n; n++) {
            char *copy = malloc(n + 1);
            assert_non_null(copy);
            memcpy(copy + 1, text.p, n);
            struct sio_packet packet;
            (void)sio_decode((struct span){copy + 1, n}, &packet);
            if (n > 0) {
                copy[n] = '"';
                (void)sio_decode((struct span){copy + 1, n}, &packet);
            }
            free(copy);
        }
    }
}

static void test_encode_head(void **state)
{
    (void)state;
    static const struct {
        enum sio_type type;
        unsigned attachments;
        const char *nsp;
        bool has_id;
        uint64_t id;
        const char *head;
    } rows[] = {
        {SIO_CONNECT, 0, "/", NO_ID, "40"},
        {SIO_CONNECT, 0, "/custom", NO_ID, "40/custom,"},
        {SIO_DISCONNECT, 0, "/", NO_ID, "41"},
        {SIO_DISCONNECT, 0, "/custom", NO_ID, "41/custom,"},
        {SIO_EVENT, 0, "/", NO_ID, "42"},
        {SIO_EVENT, 0, "/", ID(0), "420"},
        {SIO_EVENT, 0, "/a", ID(10), "42/a,10"},
        {SIO_ACK, 0, "/", ID(UINT64_MAX), "4318446744073709551615"},
        {SIO_CONNECT_ERROR, 0, "/x", NO_ID, "44/x,"},
        {SIO_BINARY_EVENT, 1, "/", NO_ID, "451-"},
        {SIO_BINARY_EVENT, 10, "/a", ID(7), "4510-/a,7"},
        {SIO_BINARY_ACK, UINT32_MAX, "/a", ID(UINT64_MAX), "464294967295-/a,18446744073709551615"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char dst[SIO_HEAD_MAX(16)];
        size_t n = sio_encode_head(dst, rows[i].type, rows[i].attachments, span_of(rows[i].nsp),
                                   rows[i].has_id, rows[i].id);
        assert_span("encode", rows[i].head, (struct span){dst, n}, rows[i].head);
        assert_true(n <= SIO_HEAD_MAX(strlen(rows[i].nsp)));
    }
}

/* What the head's encoder writes in front of a payload, the decoder reads back. */
static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(packet_rows) / sizeof(packet_rows[0]); i++) {
        const struct packet_row *row = &packet_rows[i];
        char text[512];
        size_t n =
            sio_encode_head(text, row->type, row->attachments, span_of(row->nsp), row->has_id, row->id);
        memcpy(text + n, row->payload, strlen(row->payload));
        n += strlen(row->payload);
        struct sio_packet packet;
        assert_int_equal(sio_decode((struct span){text + 1, n - 1}, &packet), 0);
        assert_int_equal(packet.type, row->type);
        assert_int_equal(packet.attachments, row->attachments);
        assert_int_equal(packet.has_id, row->has_id);
        assert_int_equal(packet.id, row->id);
        assert_span(row->text, "nsp", packet.nsp, row->nsp);
        assert_span(row->text, "payload", packet.payload, row->payload);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packets),          cmocka_unit_test(test_errors),
        cmocka_unit_test(test_namespace_length), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_damaged),          cmocka_unit_test(test_encode_head),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests_name("sio", tests, NULL, NULL);
}
