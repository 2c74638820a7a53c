/* The reader of HTTP requests: whatever is read in one piece is read the same byte by byte, out of a buffer that moves;
 * bodies, limits, pipelining, upgrades, and what is refused. */
#include "err.h"
#include "http.h"
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { BODY_MAX = 1000 };

/* What a request was, in words. */
struct reading {
    int result; /* HTTP_READ_DONE, HTTP_READ_MORE or an error */
    bool had_head, too_big, has_body, keep_alive, websocket;
    size_t used, head_n;
    char text[8192];
};

static char *put(char *p, struct span s)
{
    *p++ = '<';
    if (s.n)
        p = mempcpy(p, s.p, s.n);
    *p++ = '>';
    return p;
}

static void note_head(struct reading *out, const struct http_reader *r, const char *base)
{
    static const char *const names[] = {"host",    "ORIGIN",  "Content-Type", "expect",
                                        "X-Other", "X-Empty", "absent"};
    char *p = out->text;
    out->had_head = true;
    out->head_n = r->head_n;
    out->too_big = http_body_too_big(r, BODY_MAX);
    out->has_body = http_has_body(r);
    out->keep_alive = http_keep_alive(r);
    out->websocket = http_is_websocket(r, base);
    p = put(p, http_method(r));
    p = put(p, http_path(r, base));
    p = put(p, http_query(r, base));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        p = put(p, http_header(r, base, names[i]));
    *p = '\0';
}

static void note_body(struct reading *out, const struct http_reader *r, const char *base)
{
    struct span body = http_body(r, base);
    char *p = out->text + strlen(out->text);
    p = put(p, body.n < 4096 ? body : SPAN("long"));
    *p = '\0';
}

/* Feeds n bytes, piece bytes more each time, from a fresh copy each time: the buffer moves, and a read past what has
 * come is seen by the sanitizer. */
static struct reading read_in_pieces(struct span request, size_t piece)
{
    struct reading out = {.result = HTTP_READ_MORE};
    struct http_reader r;
    http_reader_init(&r);
    for (size_t n = piece < request.n ? piece : request.n;;
         n = n + piece < request.n ? n + piece : request.n) {
        char *base = malloc(n ? n : 1);
        assert_non_null(base);
        if (n)
            memcpy(base, request.p, n);
        out.result = http_reader_feed(&r, base, n);
        if (out.result == HTTP_READ_HEAD) {
            assert_false(out.had_head);
            note_head(&out, &r, base);
            r.max_body_bytes = BODY_MAX;
            out.result = http_reader_feed(&r, base, n);
        }
        if (out.result == HTTP_READ_DONE)
            note_body(&out, &r, base);
        free(base);
        if (out.result != HTTP_READ_MORE || n == request.n)
            break;
    }
    out.used = r.used;
    http_reader_deinit(&r);
    return out;
}

static struct reading read_request(struct span request)
{
    static const size_t pieces[] = {1, 2, 3, 7, 64, 1000};
    struct reading whole = read_in_pieces(request, request.n);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct reading out = read_in_pieces(request, pieces[i]);
        assert_int_equal(out.result, whole.result);
        if (out.result < 0)
            continue;
        assert_int_equal(out.had_head, whole.had_head);
        assert_int_equal(out.head_n, whole.head_n);
        assert_int_equal(out.used, whole.used);
        assert_int_equal(out.too_big, whole.too_big);
        assert_int_equal(out.has_body, whole.has_body);
        assert_int_equal(out.keep_alive, whole.keep_alive);
        assert_int_equal(out.websocket, whole.websocket);
        assert_string_equal(out.text, whole.text);
    }
    return whole;
}

static struct reading is_read_as(const char *request, const char *expected)
{
    struct reading r = read_request(span_of(request));
    assert_int_equal(r.result, HTTP_READ_DONE);
    assert_string_equal(r.text, expected);
    assert_int_equal(r.used, strlen(request));
    return r;
}

static void is_refused(const char *request, int err)
{
    assert_int_equal(read_request(span_of(request)).result, err);
}

/* ---- heads ---- */

static void a_plain_request_is_read(void **state)
{
    (void)state;
    struct reading r =
        is_read_as("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a:7700\r\n"
                   "Origin: http://b\r\nX-Empty:\r\n\r\n",
                   "<GET></socket.io/><EIO=4&transport=polling><a:7700><http://b><><><><><><>");
    assert_int_equal(r.head_n, r.used);
    assert_true(r.keep_alive);
    assert_false(r.has_body || r.too_big || r.websocket);
    is_read_as("GET / HTTP/1.1\r\n\r\n", "<GET></><><><><><><><><><>");
    is_read_as("OPTIONS * HTTP/1.1\r\n\r\n", "<OPTIONS><*><><><><><><><><><>");
    is_read_as("GET /a?b?c HTTP/1.1\r\n\r\n", "<GET></a><b?c><><><><><><><><>");
    is_read_as("GET /a? HTTP/1.1\r\n\r\n", "<GET></a><><><><><><><><><>");
    is_read_as("GET http://h/a?b HTTP/1.1\r\n\r\n", "<GET><http://h/a><b><><><><><><><><>");
}

static void every_method_has_its_name(void **state)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    char request[64], expected[64];
    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        snprintf(request, sizeof(request), "%s /x HTTP/1.1\r\n\r\n", methods[i]);
        snprintf(expected, sizeof(expected), "<%s></x><><><><><><><><><>", methods[i]);
        is_read_as(request, expected);
    }
    is_refused("FETCH / HTTP/1.1\r\n\r\n", ERR_HTTP_SYNTAX);
    is_refused("get / HTTP/1.1\r\n\r\n", ERR_HTTP_SYNTAX);
}

static void names_ignore_case_and_values_lose_their_blanks(void **state)
{
    (void)state;
    is_read_as("GET / HTTP/1.1\r\nHOST:\t  a b\r\noRiGiN:http://b\r\n\r\n",
               "<GET></><><a b><http://b><><><><><><>");
}

static void the_last_of_several_headers_counts(void **state)
{
    (void)state;
    is_read_as("GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n", "<GET></><><two><><><><><><><>");
}

static void empty_lines_before_a_request_are_skipped(void **state)
{
    (void)state;
    is_read_as("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "<GET></><><a><><><><><><><>");
}

static void a_bare_line_feed_ends_a_line_as_well(void **state)
{
    (void)state;
    is_read_as("GET / HTTP/1.1\nHost: a\nOrigin: b\n\n", "<GET></><><a><b><><><><><><>");
    is_read_as("POST / HTTP/1.1\nContent-Length: 2\n\nok", "<POST></><><><><><><><><><ok>");
}

static void a_bare_carriage_return_is_refused(void **state)
{
    (void)state;
    is_refused("GET / HTTP/1.1\r\nHost: a\rOrigin: b\r\n\r\n", ERR_HTTP_SYNTAX);
    is_refused("GET / HTTP/1.1\rHost: a\r\n\r\n", ERR_HTTP_SYNTAX);
}

static void what_is_no_http_is_refused(void **state)
{
    static const char *const requests[] = {
        "\x16\x03\x01\x02\x01",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/x\r\n\r\n",
        "GET / FTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n",
        "GET  HTTP/1.1\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        is_refused(requests[i], ERR_HTTP_SYNTAX);
    assert_int_equal(read_request((struct span){"GET /\0 HTTP/1.1\r\n\r\n", 20}).result, ERR_HTTP_SYNTAX);
    assert_int_equal(read_request((struct span){"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 29}).result,
                     ERR_HTTP_SYNTAX);
}

static void an_incomplete_request_needs_more(void **state)
{
    static const char request[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    (void)state;
    for (size_t n = 0; n < sizeof(request) - 1; n++)
        assert_int_equal(read_request((struct span){request, n}).result, HTTP_READ_MORE);
    assert_int_equal(read_request((struct span){request, sizeof(request) - 1}).result, HTTP_READ_DONE);
}

static void nothing_new_changes_nothing(void **state)
{
    static const char request[] = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    struct http_reader r;
    (void)state;
    http_reader_init(&r);
    assert_int_equal(http_reader_feed(&r, request, 0), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 10), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 10), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 38), HTTP_READ_HEAD);
    assert_int_equal(r.head_n, 38);
    r.max_body_bytes = BODY_MAX;
    assert_int_equal(http_reader_feed(&r, request, 38), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 38), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 40), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 40), HTTP_READ_MORE);
    assert_int_equal(http_reader_feed(&r, request, 41), HTTP_READ_DONE);
    assert_true(span_eq(http_body(&r, request), SPAN("abc")));
    http_reader_deinit(&r);
}

/* ---- what the parser takes and must not ----
 * The library is built without its strict mode, and lets the following pass: http.c refuses it. */

static void blanks_behind_a_value_are_not_part_of_it(void **state)
{
    (void)state;
    is_read_as("GET / HTTP/1.1\r\nHost: a \t\r\nOrigin: \t \r\n\r\n", "<GET></><><a><><><><><><><>");
}

/* Echoed into an answer, the line break of a continued value would be one there. */
static void a_value_that_is_continued_on_the_next_line_is_refused(void **state)
{
    (void)state;
    is_refused("GET / HTTP/1.1\r\nX-Folded: one\r\n two\r\nHost: a\r\n\r\n", ERR_HTTP_SYNTAX);
    is_refused("GET / HTTP/1.1\r\nX-Folded: one\n\ttwo\r\nHost: a\r\n\r\n", ERR_HTTP_SYNTAX);
}

/* What a proxy in front takes for another header, and forwards. */
static void a_blank_in_the_name_of_a_header_is_refused(void **state)
{
    (void)state;
    is_refused("GET / HTTP/1.1\r\nbad name: x\r\n\r\n", ERR_HTTP_SYNTAX);
    is_refused("GET / HTTP/1.1\r\nHost : x\r\n\r\n", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", ERR_HTTP_SYNTAX);
}

static void a_head_ends_with_a_line_feed_and_nothing_else(void **state)
{
    (void)state;
    is_refused("GET / HTTP/1.1\r\nHost: a\r\n\rX", ERR_HTTP_SYNTAX);
}

/* ---- lists, persistence, upgrades ---- */

static void has(const char *headers, const char *name, const char *token, bool expected)
{
    char request[512];
    struct http_reader r;
    snprintf(request, sizeof(request), "GET / HTTP/1.1\r\n%s\r\n\r\n", headers);
    http_reader_init(&r);
    assert_int_equal(http_reader_feed(&r, request, strlen(request)), HTTP_READ_HEAD);
    assert_int_equal(http_header_has(&r, request, name, token), expected);
    http_reader_deinit(&r);
}

static void a_list_is_searched_by_items(void **state)
{
    (void)state;
    has("A: one, Two ,,three", "a", "one", true);
    has("A: one, Two ,,three", "A", "two", true);
    has("A: one, Two ,,three", "A", "THREE", true);
    has("A: one, Two ,,three", "A", "thre", false);
    has("A: one, Two ,,three", "A", "one, Two", false);
    has("A: one, Two ,,three", "B", "one", false);
    has("A: one\r\nB: x\r\nA: two", "A", "one", true);
    has("A: one\r\nB: x\r\nA: two", "A", "two", true);
    has("A:", "A", "one", false);
    has("A: ,", "A", "one", false);
    has("A: ones", "A", "one", false);
    has("A: one two", "A", "two", false);
}

static bool keeps_alive(const char *request)
{
    return read_request(span_of(request)).keep_alive;
}

static void connections_stay_as_their_version_says(void **state)
{
    (void)state;
    assert_true(keeps_alive("GET / HTTP/1.1\r\n\r\n"));
    assert_false(keeps_alive("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
    assert_false(keeps_alive("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
    assert_false(keeps_alive("GET / HTTP/1.0\r\n\r\n"));
    assert_true(keeps_alive("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

static bool upgrades(const char *headers)
{
    char request[512];
    snprintf(request, sizeof(request), "GET /socket.io/ HTTP/1.1\r\n%s\r\n", headers);
    struct reading r = read_request(span_of(request));
    assert_int_equal(r.result, HTTP_READ_DONE);
    assert_int_equal(r.used, strlen(request));
    return r.websocket;
}

static void an_upgrade_to_websocket_is_seen(void **state)
{
    (void)state;
    assert_true(upgrades("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert_true(upgrades("Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n"));
    assert_true(upgrades("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"));
    assert_false(upgrades("Upgrade: websocket\r\n"));
    assert_false(upgrades("Connection: Upgrade\r\n"));
    assert_false(upgrades("Connection: Upgrade\r\nUpgrade: h2c\r\n"));
    assert_false(upgrades("Connection: Upgrade\r\nUpgrade: websockets\r\n"));
}

/* Frames may follow the head at once: they are not the request's. */
static void bytes_behind_an_upgrade_stay(void **state)
{
    static const char head[] = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    char request[128];
    (void)state;
    snprintf(request, sizeof(request), "%s\x81\x85....", head);
    struct reading r = read_request(span_of(request));
    assert_int_equal(r.result, HTTP_READ_DONE);
    assert_int_equal(r.used, sizeof(head) - 1);
}

/* ---- bodies ---- */

static void a_body_has_its_length(void **state)
{
    (void)state;
    struct reading r =
        is_read_as("POST /x HTTP/1.1\r\nContent-Type: text/plain;charset=UTF-8\r\n"
                   "Content-Length: 7\r\nExpect: 100-continue\r\n\r\n4hello\x1e",
                   "<POST></x><><><><text/plain;charset=UTF-8><100-continue><><><><4hello\x1e>");
    assert_true(r.has_body);
    assert_int_equal(r.head_n, r.used - 7);
    r = is_read_as("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "<POST></><><><><><><><><><>");
    assert_false(r.has_body);
    r = is_read_as("POST / HTTP/1.1\r\n\r\n", "<POST></><><><><><><><><><>");
    assert_false(r.has_body);
    r = is_read_as("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "<GET></><><><><><><><><><abc>");
    assert_true(r.has_body);
}

static void a_chunked_body_is_put_together(void **state)
{
    (void)state;
    struct reading r = is_read_as("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "5\r\nhello\r\n1;ext=\"x\"\r\n,\r\n006\r\n world\r\n0\r\n\r\n",
                                  "<POST></><><><><><><><><><hello, world>");
    assert_true(r.has_body);
    assert_false(r.too_big);
    is_read_as("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
               "<POST></><><><><><><><><><>");
    is_read_as(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nHost: trailer\r\nX: y\r\n\r\n",
        "<POST></><><><><><><><><><ok>");
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
               ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", ERR_HTTP_SYNTAX);
}

static void a_large_chunked_body_is_put_together(void **state)
{
    enum { CHUNKS = 10, EACH = 100 };
    static char request[4096], expected[4096];
    char *p = request + sprintf(request, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    char *e = expected + sprintf(expected, "<POST></><><><><><><><><><");
    (void)state;
    for (int i = 0; i < CHUNKS; i++) {
        p += sprintf(p, "%x\r\n", EACH);
        memset(p, 'a' + i, EACH);
        memset(e, 'a' + i, EACH);
        p += EACH, e += EACH;
        p += sprintf(p, "\r\n");
    }
    strcpy(p, "0\r\n\r\n");
    strcpy(e, ">");
    is_read_as(request, expected); /* exactly as long as is allowed */
}

/* A proxy in front might believe the other one: request smuggling. */
static void two_ways_to_say_a_length_are_refused(void **state)
{
    (void)state;
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
               ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
               ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nhello", ERR_HTTP_SYNTAX);
    is_refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\nhello", ERR_HTTP_SYNTAX);
}

static void lengths_that_are_no_numbers_are_refused(void **state)
{
    static const char *const lengths[] = {"-1", "+1", "0x10", "5 5", "a", "1.0", "99999999999999999999"};
    char request[128];
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        snprintf(request, sizeof(request), "POST / HTTP/1.1\r\nContent-Length: %s\r\n\r\nhello", lengths[i]);
        is_refused(request, ERR_HTTP_SYNTAX);
    }
}

/* ---- pipelining ---- */

static void pipelined_requests_are_read_one_after_the_other(void **state)
{
    static const char requests[] = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                                   "POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
                                   "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                                   "\r\n"
                                   "GET /4 HTTP/1.1\r\nConnection: close\r\n\r\n"
                                   "rest";
    static const char *const expected[] = {"<GET></1><><a><><><><><><><>", "<POST></2><><><><><><><><><abc>",
                                           "<POST></3><><><><><><><><><x>", "<GET></4><><><><><><><><><>"};
    struct span left = {requests, sizeof(requests) - 1};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct reading r = read_request(left);
        assert_int_equal(r.result, HTTP_READ_DONE);
        assert_string_equal(r.text, expected[i]);
        left.p += r.used;
        left.n -= r.used;
    }
    assert_true(span_eq(left, SPAN("rest")));
}

static void a_reader_is_used_again(void **state)
{
    static const char first[] =
        "POST /first?q HTTP/1.1\r\nHost: first\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    static const char second[] = "GET /2 HTTP/1.1\r\n\r\n";
    struct http_reader r;
    (void)state;
    http_reader_init(&r);
    r.max_body_bytes = BODY_MAX;
    assert_int_equal(http_reader_feed(&r, first, sizeof(first) - 1), HTTP_READ_HEAD);
    assert_int_equal(http_reader_feed(&r, first, sizeof(first) - 1), HTTP_READ_DONE);
    http_reader_deinit(&r);
    http_reader_deinit(&r); /* once more does no harm */
    http_reader_init(&r);
    assert_int_equal(http_reader_feed(&r, second, sizeof(second) - 1), HTTP_READ_HEAD);
    assert_int_equal(http_reader_feed(&r, second, sizeof(second) - 1), HTTP_READ_DONE);
    assert_int_equal(http_header(&r, second, "Host").n, 0);
    assert_int_equal(http_query(&r, second).n, 0);
    assert_int_equal(http_body(&r, second).n, 0);
    http_reader_deinit(&r);
}

/* ---- limits ---- */

static char big[4 * LIMIT_HTTP_HEAD_BYTES];

/* A head of exactly n bytes, in few headers. */
static struct span head_of(size_t n)
{
    char *p = big + sprintf(big, "GET / HTTP/1.1\r\n");
    size_t left = n - (size_t)(p - big) - 2;
    while (left > 0) {
        size_t line = left > 4100 ? 4000 : left;
        memcpy(p, "A: ", 3);
        memset(p + 3, 'v', line - 5);
        memcpy(p + line - 2, "\r\n", 2);
        p += line;
        left -= line;
    }
    memcpy(p, "\r\n", 2);
    return (struct span){big, n};
}

static void the_size_of_a_head_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(read_request(head_of(LIMIT_HTTP_HEAD_BYTES)).result, HTTP_READ_DONE);
    for (size_t more = 1; more < 5; more++)
        assert_int_equal(read_request(head_of(LIMIT_HTTP_HEAD_BYTES + more)).result, ERR_HTTP_TOO_BIG);
    assert_int_equal(read_request(head_of(3 * LIMIT_HTTP_HEAD_BYTES)).result, ERR_HTTP_TOO_BIG);
}

static void a_head_without_an_end_is_bounded(void **state)
{
    (void)state;
    memset(big, 'x', sizeof(big));
    memcpy(big, "GET / HTTP/1.1\r\nA: ", 19);
    assert_int_equal(read_request((struct span){big, LIMIT_HTTP_HEAD_BYTES}).result, HTTP_READ_MORE);
    assert_int_equal(read_request((struct span){big, LIMIT_HTTP_HEAD_BYTES + 1}).result, ERR_HTTP_TOO_BIG);
    memset(big, '\n', sizeof(big));
    assert_int_equal(read_request((struct span){big, sizeof(big)}).result, ERR_HTTP_TOO_BIG);
}

static struct span url_of(size_t n)
{
    char *p = big + sprintf(big, "GET /");
    memset(p, 'u', n - 1);
    p += n - 1;
    p += sprintf(p, " HTTP/1.1\r\n\r\n");
    return (struct span){big, (size_t)(p - big)};
}

static void the_length_of_a_url_is_bounded(void **state)
{
    struct http_reader r;
    (void)state;
    struct span request = url_of(LIMIT_HTTP_URL_BYTES);
    http_reader_init(&r);
    assert_int_equal(http_reader_feed(&r, request.p, request.n), HTTP_READ_HEAD);
    assert_int_equal(http_path(&r, request.p).n, LIMIT_HTTP_URL_BYTES);
    http_reader_deinit(&r);
    request = url_of(LIMIT_HTTP_URL_BYTES + 1);
    for (size_t piece = 1; piece <= request.n; piece += 997)
        assert_int_equal(read_in_pieces(request, piece).result, ERR_HTTP_TOO_BIG);
}

static struct span headers_of(unsigned n)
{
    char *p = big + sprintf(big, "GET / HTTP/1.1\r\n");
    for (unsigned i = 0; i < n; i++)
        p += sprintf(p, "H%u: %u\r\n", i, i);
    p += sprintf(p, "\r\n");
    return (struct span){big, (size_t)(p - big)};
}

static void the_number_of_headers_is_bounded(void **state)
{
    struct http_reader r;
    char name[8];
    (void)state;
    struct span request = headers_of(LIMIT_HTTP_HEADERS);
    assert_int_equal(read_request(request).result, HTTP_READ_DONE);
    http_reader_init(&r);
    assert_int_equal(http_reader_feed(&r, request.p, request.n), HTTP_READ_HEAD);
    for (unsigned i = 0; i < LIMIT_HTTP_HEADERS; i++) {
        snprintf(name, sizeof(name), "h%u", i);
        assert_true(span_eq(http_header(&r, request.p, name), span_of(name + 1)));
    }
    http_reader_deinit(&r);
    assert_int_equal(read_request(headers_of(LIMIT_HTTP_HEADERS + 1)).result, ERR_HTTP_TOO_BIG);
}

static void the_size_of_a_body_is_bounded(void **state)
{
    char *p = big + sprintf(big, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", BODY_MAX);
    (void)state;
    memset(p, 'b', BODY_MAX + 1);
    struct reading r = read_request((struct span){big, (size_t)(p - big) + BODY_MAX});
    assert_int_equal(r.result, HTTP_READ_DONE);
    assert_false(r.too_big);

    p = big + sprintf(big, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", BODY_MAX + 1);
    memset(p, 'b', BODY_MAX + 1);
    r = read_in_pieces((struct span){big, (size_t)(p - big)}, SIZE_MAX / 2);
    assert_true(r.too_big); /* known before a byte of it has come */
    r = read_request((struct span){big, (size_t)(p - big) + BODY_MAX + 1});
    assert_int_equal(r.result, ERR_HTTP_TOO_BIG);

    p = big + sprintf(big, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", BODY_MAX + 1);
    memset(p, 'b', BODY_MAX + 1);
    strcpy(p + BODY_MAX + 1, "\r\n0\r\n\r\n");
    assert_int_equal(read_request(span_of(big)).result, ERR_HTTP_TOO_BIG);
}

static void statuses_have_their_texts(void **state)
{
    (void)state;
    assert_string_equal(http_status_text(200), "OK");
    assert_string_equal(http_status_text(404), "Not Found");
    assert_string_equal(http_status_text(413), "Payload Too Large");
    assert_string_equal(http_status_text(431), "Request Header Fields Too Large");
    assert_string_equal(http_status_text(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request_is_read),
        cmocka_unit_test(every_method_has_its_name),
        cmocka_unit_test(names_ignore_case_and_values_lose_their_blanks),
        cmocka_unit_test(the_last_of_several_headers_counts),
        cmocka_unit_test(empty_lines_before_a_request_are_skipped),
        cmocka_unit_test(a_bare_line_feed_ends_a_line_as_well),
        cmocka_unit_test(a_bare_carriage_return_is_refused),
        cmocka_unit_test(what_is_no_http_is_refused),
        cmocka_unit_test(an_incomplete_request_needs_more),
        cmocka_unit_test(nothing_new_changes_nothing),
        cmocka_unit_test(blanks_behind_a_value_are_not_part_of_it),
        cmocka_unit_test(a_value_that_is_continued_on_the_next_line_is_refused),
        cmocka_unit_test(a_blank_in_the_name_of_a_header_is_refused),
        cmocka_unit_test(a_head_ends_with_a_line_feed_and_nothing_else),
        cmocka_unit_test(a_list_is_searched_by_items),
        cmocka_unit_test(connections_stay_as_their_version_says),
        cmocka_unit_test(an_upgrade_to_websocket_is_seen),
        cmocka_unit_test(bytes_behind_an_upgrade_stay),
        cmocka_unit_test(a_body_has_its_length),
        cmocka_unit_test(a_chunked_body_is_put_together),
        cmocka_unit_test(a_large_chunked_body_is_put_together),
        cmocka_unit_test(two_ways_to_say_a_length_are_refused),
        cmocka_unit_test(lengths_that_are_no_numbers_are_refused),
        cmocka_unit_test(pipelined_requests_are_read_one_after_the_other),
        cmocka_unit_test(a_reader_is_used_again),
        cmocka_unit_test(the_size_of_a_head_is_bounded),
        cmocka_unit_test(a_head_without_an_end_is_bounded),
        cmocka_unit_test(the_length_of_a_url_is_bounded),
        cmocka_unit_test(the_number_of_headers_is_bounded),
        cmocka_unit_test(the_size_of_a_body_is_bounded),
        cmocka_unit_test(statuses_have_their_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
