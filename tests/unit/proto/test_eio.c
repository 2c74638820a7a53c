#include "eio.h"
#include "err.h"
#include "limit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SID "AAAAabcdefgh01234-_Z"

static void assert_span(struct span got, struct span want)
{
    if (!span_eq(got, want))
        fail_msg("got '%.*s', want '%.*s'", (int)got.n, got.p, (int)want.n, want.p);
}

static void test_decode(void **state)
{
    (void)state;
    static const struct {
        struct span text;
        enum eio_type type;
        bool base64;
        struct span data;
    } rows[] = {
        {SPAN("0{}"), EIO_OPEN, false, SPAN("{}")},
        {SPAN("1"), EIO_CLOSE, false, SPAN("")},
        {SPAN("2"), EIO_PING, false, SPAN("")},
        {SPAN("2probe"), EIO_PING, false, SPAN("probe")},
        {SPAN("3"), EIO_PONG, false, SPAN("")},
        {SPAN("3probe"), EIO_PONG, false, SPAN("probe")},
        {SPAN("4"), EIO_MESSAGE, false, SPAN("")},
        {SPAN("4hello"), EIO_MESSAGE, false, SPAN("hello")},
        {SPAN("4\0\x7f"), EIO_MESSAGE, false, SPAN("\0\x7f")},
        {SPAN("4\xe2\x82\xac"), EIO_MESSAGE, false, SPAN("\xe2\x82\xac")},
        {SPAN("42[\"a\"]"), EIO_MESSAGE, false, SPAN("2[\"a\"]")},
        {SPAN("5"), EIO_UPGRADE, false, SPAN("")},
        {SPAN("6"), EIO_NOOP, false, SPAN("")},
        {SPAN("b"), EIO_MESSAGE, true, SPAN("")},
        {SPAN("bAQIDBA=="), EIO_MESSAGE, true, SPAN("AQIDBA==")},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct eio_packet packet;
        assert_int_equal(eio_decode(rows[i].text, &packet), 0);
        assert_int_equal(packet.type, rows[i].type);
        assert_int_equal(packet.base64, rows[i].base64);
        assert_span(packet.data, rows[i].data);
    }
}

static void test_decode_every_first_byte(void **state)
{
    (void)state;
    struct eio_packet packet;
    assert_int_equal(eio_decode((struct span){NULL, 0}, &packet), ERR_EIO_PACKET);
    assert_int_equal(eio_decode(SPAN(""), &packet), ERR_EIO_PACKET);
    for (int c = 0; c < 256; c++) {
        char text[2] = {(char)c, 'x'};
        bool valid = (c >= '0' && c <= '6') || c == 'b';
        for (size_t n = 1; n <= 2; n++)
            assert_int_equal(eio_decode((struct span){text, n}, &packet), valid ? 0 : ERR_EIO_PACKET);
    }
}

/* Walks a payload and writes what it finds: "<type>:<data>|", base64 as 'b', then the result. */
static int walk(struct span body, char *dst, size_t cap)
{
    struct eio_payload it;
    struct eio_packet packet;
    size_t n = 0;
    int result;
    eio_payload_init(&it, body);
    dst[0] = 0;
    while ((result = eio_payload_next(&it, &packet)) == 1)
        n += (size_t)snprintf(dst + n, cap - n, "%c:%.*s|", packet.base64 ? 'b' : '0' + (int)packet.type,
                              (int)packet.data.n, packet.data.p);
    assert_int_equal(eio_payload_next(&it, &packet), result);
    return result;
}

static void test_payload(void **state)
{
    (void)state;
    static const struct {
        struct span body;
        const char *packets;
        int result;
    } rows[] = {
        {SPAN("4hello"), "4:hello|", 0},
        {SPAN("2"), "2:|", 0},
        {SPAN("4a\x1e"
              "4b"),
         "4:a|4:b|", 0},
        {SPAN("451-[\"e\",{\"_placeholder\":true,\"num\":0}]\x1e"
              "bAQID"),
         "4:51-[\"e\",{\"_placeholder\":true,\"num\":0}]|b:AQID|", 0},
        {SPAN("3\x1e"
              "1"),
         "3:|1:|", 0},
        {SPAN("6\x1e"
              "6\x1e"
              "6"),
         "6:|6:|6:|", 0},
        {SPAN(""), "", ERR_EIO_PACKET},
        {SPAN("\x1e"), "", ERR_EIO_PACKET},
        {SPAN("\x1e"
              "4a"),
         "", ERR_EIO_PACKET},
        {SPAN("4a\x1e"), "4:a|", ERR_EIO_PACKET},
        {SPAN("4a\x1e\x1e"
              "4b"),
         "4:a|", ERR_EIO_PACKET},
        {SPAN("4a\x1exyz\x1e"
              "4b"),
         "4:a|", ERR_EIO_PACKET},
        {SPAN("abc"), "", ERR_EIO_PACKET},
        {SPAN("7"), "", ERR_EIO_PACKET},
        {SPAN(" 4a"), "", ERR_EIO_PACKET},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char got[256];
        assert_int_equal(walk(rows[i].body, got, sizeof(got)), rows[i].result);
        assert_string_equal(got, rows[i].packets);
    }
    struct eio_payload it;
    struct eio_packet packet;
    eio_payload_init(&it, (struct span){NULL, 0});
    assert_int_equal(eio_payload_next(&it, &packet), ERR_EIO_PACKET);
}

static void test_payload_limit(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        size_t packets = LIMIT_PACKETS_PER_PAYLOAD + extra, n = packets * 2 - 1;
        char *body = malloc(n);
        assert_non_null(body);
        for (size_t i = 0; i < n; i++)
            body[i] = i % 2 == 0 ? '6' : EIO_SEPARATOR;
        struct eio_payload it;
        struct eio_packet packet;
        int result;
        eio_payload_init(&it, (struct span){body, n});
        while ((result = eio_payload_next(&it, &packet)) == 1)
            ;
        assert_int_equal(result, extra == 0 ? 0 : ERR_LIMIT);
        assert_int_equal(it.count, LIMIT_PACKETS_PER_PAYLOAD);
        free(body);
    }
}

static void test_handshake(void **state)
{
    (void)state;
    char dst[EIO_HANDSHAKE_MAX];
    struct eio_handshake h = {SID, true, 25000, 20000, 1000000};
    size_t n = eio_encode_handshake(dst, &h);
    assert_span((struct span){dst, n},
                SPAN("0{\"sid\":\"" SID "\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000,"
                     "\"pingTimeout\":20000,\"maxPayload\":1000000}"));
    h = (struct eio_handshake){SID, false, UINT32_MAX, UINT32_MAX, UINT64_MAX};
    n = eio_encode_handshake(dst, &h);
    assert_span((struct span){dst, n},
                SPAN("0{\"sid\":\"" SID "\",\"upgrades\":[],\"pingInterval\":4294967295,"
                     "\"pingTimeout\":4294967295,\"maxPayload\":18446744073709551615}"));
    h.upgrade = true;
    assert_true(eio_encode_handshake(dst, &h) < EIO_HANDSHAKE_MAX);
}

#define NO_SID     0, ""
#define HAS_SID    20, SID
#define IMPOSSIBLE 21, ""
#define UNKNOWN    EIO_TRANSPORT_UNKNOWN
#define YES        true
#define NO         false

static void test_query(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        enum eio_transport transport;
        bool version_4, base64, recovery_off;
        uint8_t sid_n;
        const char *sid;
    } rows[] = {
        {"", UNKNOWN, NO, NO, NO, NO_SID},
        {"&&=&", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=4&transport=polling", EIO_POLLING, YES, NO, NO, NO_SID},
        {"EIO=4&transport=websocket", EIO_WEBSOCKET, YES, NO, NO, NO_SID},
        {"EIO=4&transport=polling&t=abc-._&sid=" SID, EIO_POLLING, YES, NO, NO, HAS_SID},
        {"transport=polling&", EIO_POLLING, NO, NO, NO, NO_SID},
        {"&transport=polling", EIO_POLLING, NO, NO, NO, NO_SID},
        /* transport */
        {"transport", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=abc", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=Polling", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=polling2", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=pollin", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=polling=", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=webtransport", UNKNOWN, NO, NO, NO, NO_SID},
        {"Transport=polling", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=__proto__", UNKNOWN, NO, NO, NO, NO_SID},
        {"xtransport=polling", UNKNOWN, NO, NO, NO, NO_SID},
        {"?transport=polling", UNKNOWN, NO, NO, NO, NO_SID},
        /* percent-decoding, in names too */
        {"%74r%61nsport=%70olling", EIO_POLLING, NO, NO, NO, NO_SID},
        {"transport=pollin%67", EIO_POLLING, NO, NO, NO, NO_SID},
        {"transport=pollin%6", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=pollin%", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=pollin%6x", UNKNOWN, NO, NO, NO, NO_SID},
        {"transport=polling%00", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO%3d4&EIO=%34", UNKNOWN, YES, NO, NO, NO_SID},
        {"transport=polling+", UNKNOWN, NO, NO, NO, NO_SID},
        {"+transport=polling", UNKNOWN, NO, NO, NO, NO_SID},
        /* the last of a name */
        {"transport=websocket&transport=polling", EIO_POLLING, NO, NO, NO, NO_SID},
        {"transport=polling&transport=x", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=3&EIO=4", UNKNOWN, YES, NO, NO, NO_SID},
        {"EIO=4&EIO=3", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=4&EIO", UNKNOWN, NO, NO, NO, NO_SID},
        {"b64=1&b64=", UNKNOWN, NO, NO, NO, NO_SID},
        {"sid=" SID "&sid=", UNKNOWN, NO, NO, NO, NO_SID},
        {"sid=&sid=" SID, UNKNOWN, NO, NO, NO, HAS_SID},
        {"sid=x&sid=" SID, UNKNOWN, NO, NO, NO, HAS_SID},
        {"sid=" SID "&sid=x", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"recovery=0&recovery=1", UNKNOWN, NO, NO, NO, NO_SID},
        /* EIO */
        {"EIO=3", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=5", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=04", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=4.0", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=44", UNKNOWN, NO, NO, NO, NO_SID},
        {"EIO=abc", UNKNOWN, NO, NO, NO, NO_SID},
        {"eio=4", UNKNOWN, NO, NO, NO, NO_SID},
        /* b64, recovery */
        {"b64=1", UNKNOWN, NO, YES, NO, NO_SID},
        {"b64=0", UNKNOWN, NO, YES, NO, NO_SID},
        {"b64=true", UNKNOWN, NO, YES, NO, NO_SID},
        {"b64", UNKNOWN, NO, NO, NO, NO_SID},
        {"b64=", UNKNOWN, NO, NO, NO, NO_SID},
        {"b64=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", UNKNOWN, NO, YES, NO, NO_SID},
        {"recovery=0", UNKNOWN, NO, NO, YES, NO_SID},
        {"recovery=00", UNKNOWN, NO, NO, NO, NO_SID},
        {"recovery=", UNKNOWN, NO, NO, NO, NO_SID},
        {"recovery=off", UNKNOWN, NO, NO, NO, NO_SID},
        /* sid */
        {"sid", UNKNOWN, NO, NO, NO, NO_SID},
        {"sid=x", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=AAAAabcdefgh01234-_", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=" SID "x", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=" SID SID SID SID SID, UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=AAAAabcdefgh01234%2D%5fZ", UNKNOWN, NO, NO, NO, HAS_SID},
        {"sid=AAAAabcdefgh01234+_Z", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=AAAAabcdefgh01234%00_Z", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        {"sid=AAAAabcdefgh01234.._", UNKNOWN, NO, NO, NO, IMPOSSIBLE},
        /* what follows is no query any more */
        {"transport=polling#x", EIO_POLLING, NO, NO, NO, NO_SID},
        {"transport=polling#&transport=websocket", EIO_POLLING, NO, NO, NO, NO_SID},
        {"#transport=polling", UNKNOWN, NO, NO, NO, NO_SID},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct eio_query q;
        eio_query_parse(&q, span_of(rows[i].query));
        if (q.transport != rows[i].transport || q.version_4 != rows[i].version_4 ||
            q.base64 != rows[i].base64 || q.recovery_off != rows[i].recovery_off || q.sid_n != rows[i].sid_n)
            fail_msg("'%s': %d %d %d %d %d", rows[i].query, q.transport, q.version_4, q.base64,
                     q.recovery_off, q.sid_n);
        if (q.sid_n == EIO_SID_CHARS)
            assert_memory_equal(q.sid, rows[i].sid, EIO_SID_CHARS);
    }
    struct eio_query q;
    eio_query_parse(&q, (struct span){NULL, 0});
    assert_int_equal(q.transport, EIO_TRANSPORT_UNKNOWN);
}

enum { GET = 1, WS = 2, KNOWN = 4, ON_WS = 8, ORIGIN = 16, NO_POLLING = 32, NO_WS = 64 };

static const struct check_row {
    const char *query;
    unsigned flags;
    enum eio_reject reject;
} check_rows[] = {
    /* handshakes */
    {"EIO=4&transport=polling", GET, EIO_ACCEPT},
    {"EIO=4&transport=websocket", GET | WS, EIO_ACCEPT},
    {"EIO=4&transport=polling&sid=", GET, EIO_ACCEPT},
    {"EIO=4&transport=polling", GET | NO_WS, EIO_ACCEPT},
    {"EIO=4&transport=websocket", GET | WS | NO_POLLING, EIO_ACCEPT},
    /* 1: the transport, before everything else */
    {"", GET, EIO_REJECT_TRANSPORT},
    {"EIO=4", GET, EIO_REJECT_TRANSPORT},
    {"EIO=4", GET | WS, EIO_REJECT_TRANSPORT},
    {"EIO=4&transport=abc", GET, EIO_REJECT_TRANSPORT},
    {"EIO=4&transport=polling", GET | NO_POLLING, EIO_REJECT_TRANSPORT},
    {"EIO=4&transport=websocket", GET | WS | NO_WS, EIO_REJECT_TRANSPORT},
    {"EIO=3&transport=abc&sid=x", ORIGIN, EIO_REJECT_TRANSPORT},
    {"transport=abc&sid=" SID, GET | KNOWN, EIO_REJECT_TRANSPORT},
    /* 2: the Origin header */
    {"EIO=4&transport=polling", GET | ORIGIN, EIO_REJECT_REQUEST},
    {"EIO=4&transport=polling&sid=x", ORIGIN, EIO_REJECT_REQUEST},
    {"EIO=4&transport=websocket", GET | WS | ORIGIN, EIO_REJECT_REQUEST},
    {"transport=polling&sid=" SID, GET | KNOWN | ORIGIN, EIO_REJECT_REQUEST},
    /* 3: a sid nobody knows, whatever version, method or transport */
    {"EIO=4&transport=polling&sid=" SID, GET, EIO_REJECT_SID},
    {"EIO=3&transport=polling&sid=" SID, 0, EIO_REJECT_SID},
    {"EIO=4&transport=polling&sid=x", GET, EIO_REJECT_SID},
    {"EIO=4&transport=polling&sid=x", GET | KNOWN, EIO_REJECT_SID},
    {"EIO=4&transport=websocket&sid=" SID, GET | WS, EIO_REJECT_SID},
    {"EIO=4&transport=websocket&sid=" SID, GET, EIO_REJECT_SID},
    {"EIO=4&transport=polling&sid=" SID, GET | WS, EIO_REJECT_SID},
    /* 4: a living session */
    {"EIO=4&transport=polling&sid=" SID, GET | KNOWN, EIO_ACCEPT},
    {"EIO=4&transport=polling&sid=" SID, KNOWN, EIO_ACCEPT},
    {"transport=polling&sid=" SID, KNOWN, EIO_ACCEPT},
    {"EIO=3&transport=polling&sid=" SID, GET | KNOWN, EIO_ACCEPT},
    {"EIO=4&transport=websocket&sid=" SID, GET | WS | KNOWN, EIO_ACCEPT},
    {"EIO=4&transport=websocket&sid=" SID, GET | WS | KNOWN | ON_WS, EIO_ACCEPT},
    {"EIO=4&transport=polling&sid=" SID, GET | KNOWN | ON_WS, EIO_REJECT_REQUEST},
    {"EIO=4&transport=polling&sid=" SID, KNOWN | ON_WS, EIO_REJECT_REQUEST},
    {"EIO=4&transport=websocket&sid=" SID, GET | KNOWN, EIO_REJECT_REQUEST},
    {"EIO=4&transport=websocket&sid=" SID, GET | KNOWN | ON_WS, EIO_REJECT_REQUEST},
    {"EIO=4&transport=polling&sid=" SID, GET | WS | KNOWN, EIO_REJECT_REQUEST},
    /* 5: the method of a handshake */
    {"EIO=4&transport=polling", 0, EIO_REJECT_METHOD},
    {"EIO=3&transport=polling", 0, EIO_REJECT_METHOD},
    {"EIO=4&transport=websocket", 0, EIO_REJECT_METHOD},
    {"EIO=4&transport=websocket", WS, EIO_REJECT_METHOD},
    {"EIO=4&transport=polling", WS, EIO_REJECT_METHOD},
    /* 6: transport and upgrade belong together */
    {"EIO=4&transport=websocket", GET, EIO_REJECT_REQUEST},
    {"EIO=3&transport=websocket", GET, EIO_REJECT_REQUEST},
    {"EIO=4&transport=polling", GET | WS, EIO_REJECT_REQUEST},
    {"EIO=3&transport=polling", GET | WS, EIO_REJECT_REQUEST},
    /* 8: the version */
    {"transport=polling", GET, EIO_REJECT_VERSION},
    {"EIO=3&transport=polling", GET, EIO_REJECT_VERSION},
    {"EIO=5&transport=polling", GET, EIO_REJECT_VERSION},
    {"EIO=abc&transport=polling", GET, EIO_REJECT_VERSION},
    {"transport=websocket", GET | WS, EIO_REJECT_VERSION},
    {"EIO=3&transport=websocket", GET | WS, EIO_REJECT_VERSION},
};

static void test_check_request(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(check_rows) / sizeof(check_rows[0]); i++) {
        const struct check_row *row = &check_rows[i];
        struct eio_query q;
        eio_query_parse(&q, span_of(row->query));
        struct eio_request r = {
            .get = (row->flags & GET) != 0,
            .upgrade = (row->flags & WS) != 0,
            .origin = (row->flags & ORIGIN) != 0 ? SPAN("http://a\x01") : SPAN("http://a"),
            .polling_enabled = (row->flags & NO_POLLING) == 0,
            .websocket_enabled = (row->flags & NO_WS) == 0,
            .sid_known = (row->flags & KNOWN) != 0,
            .session_transport = (row->flags & ON_WS) != 0 ? EIO_WEBSOCKET : EIO_POLLING,
        };
        enum eio_reject got = eio_check_request(&q, &r);
        if (got != row->reject)
            fail_msg("row %zu, '%s' %u: got %d, want %d", i, row->query, row->flags, got, row->reject);
    }
}

static void test_origin_bytes(void **state)
{
    (void)state;
    struct eio_query q;
    eio_query_parse(&q, SPAN("EIO=4&transport=polling"));
    struct eio_request r = {.get = true, .polling_enabled = true};
    assert_int_equal(eio_check_request(&q, &r), EIO_ACCEPT);
    for (int c = 0; c < 256; c++) {
        char origin[3] = {'a', (char)c, 'b'};
        r.origin = (struct span){origin, sizeof(origin)};
        bool valid = c == '\t' || (c >= 0x20 && c != 0x7f);
        assert_int_equal(eio_check_request(&q, &r), valid ? EIO_ACCEPT : EIO_REJECT_REQUEST);
    }
}

static void test_rejections(void **state)
{
    (void)state;
    static const struct {
        enum eio_reject reject;
        int status;
        const char *body, *text;
    } rows[] = {
        {EIO_REJECT_TRANSPORT, 400, "{\"code\":0,\"message\":\"Transport unknown\"}", "Transport unknown"},
        {EIO_REJECT_SID, 400, "{\"code\":1,\"message\":\"Session ID unknown\"}", "Session ID unknown"},
        {EIO_REJECT_METHOD, 400, "{\"code\":2,\"message\":\"Bad handshake method\"}", "Bad handshake method"},
        {EIO_REJECT_REQUEST, 400, "{\"code\":3,\"message\":\"Bad request\"}", "Bad request"},
        {EIO_REJECT_FORBIDDEN, 403, "{\"code\":4,\"message\":\"Forbidden\"}", "Forbidden"},
        {EIO_REJECT_VERSION, 400, "{\"code\":5,\"message\":\"Unsupported protocol version\"}",
         "Unsupported protocol version"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = 0;
        assert_span(eio_reject_body(rows[i].reject, &status), span_of(rows[i].body));
        assert_int_equal(status, rows[i].status);
        assert_span(eio_reject_text(rows[i].reject), span_of(rows[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),        cmocka_unit_test(test_decode_every_first_byte),
        cmocka_unit_test(test_payload),       cmocka_unit_test(test_payload_limit),
        cmocka_unit_test(test_handshake),     cmocka_unit_test(test_query),
        cmocka_unit_test(test_check_request), cmocka_unit_test(test_origin_bytes),
        cmocka_unit_test(test_rejections),
    };
    return cmocka_run_group_tests_name("eio", tests, NULL, NULL);
}
