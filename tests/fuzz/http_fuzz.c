/* HTTP requests, pipelined: whatever is read in one piece is read the same in pieces of any size, every span lies
 * within what has come, and no limit is passed. */
#include "err.h"
#include "http.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

enum { BODY_MAX = 200 };

static void check_inside(struct span part, const char *base, size_t n)
{
    CHECK(part.n == 0 || (part.p >= base && part.n <= n && (size_t)(part.p - base) <= n - part.n));
}

/* What a reader says about a head: within the bytes that have come, and not beyond the limits. */
static void check_head(const struct http_reader *r, const char *base, size_t n)
{
    CHECK(r->head_n <= n && r->head_n <= LIMIT_HTTP_HEAD_BYTES);
    CHECK(r->n_headers <= LIMIT_HTTP_HEADERS);
    CHECK(http_path(r, base).n <= LIMIT_HTTP_URL_BYTES);
    CHECK(http_method(r).n > 0);
    check_inside(http_path(r, base), base, r->head_n);
    check_inside(http_query(r, base), base, r->head_n);
    for (unsigned i = 0; i < r->n_headers; i++) {
        check_inside((struct span){base + r->header[i].name.at, r->header[i].name.n}, base, r->head_n);
        check_inside((struct span){base + r->header[i].value.at, r->header[i].value.n}, base, r->head_n);
    }
    check_inside(http_header(r, base, "Origin"), base, r->head_n);
    http_header_has(r, base, "Connection", "upgrade");
    http_is_websocket(r, base);
}

/* Feeds piece bytes more each time, from a copy of exactly that size, so that a read beyond it is seen. */
static int feed(struct http_reader *r, struct span request, size_t piece)
{
    size_t n = piece < request.n ? piece : request.n;
    http_reader_init(r);
    for (;;) {
        bool had_head = r->head_complete;
        char *base = malloc(n);
        CHECK(base != NULL || n == 0);
        if (n)
            memcpy(base, request.p, n);
        int got = http_reader_feed(r, base, n);
        if (got == HTTP_READ_HEAD) {
            CHECK(!had_head);
            check_head(r, base, n);
            r->max_body_bytes = BODY_MAX;
            got = http_reader_feed(r, base, n);
            CHECK(got != HTTP_READ_HEAD);
        }
        if (got == HTTP_READ_DONE) {
            struct span body = http_body(r, base);
            CHECK(r->used >= r->head_n && r->used <= n && body.n <= BODY_MAX);
            if (!r->chunked.p)
                check_inside(body, base, n);
        }
        CHECK(r->used <= n);
        free(base);
        if (got != HTTP_READ_MORE || n == request.n)
            return got;
        n = n + piece < request.n ? n + piece : request.n;
    }
}

static bool same_run(struct http_run a, struct http_run b)
{
    return a.n == b.n && (a.n == 0 || a.at == b.at);
}

static void check_same(const struct http_reader *a, const struct http_reader *b, struct span request)
{
    CHECK(a->used == b->used && a->head_n == b->head_n && a->n_headers == b->n_headers);
    CHECK(same_run(a->url, b->url) && span_eq(http_method(a), http_method(b)));
    for (unsigned i = 0; i < a->n_headers; i++) {
        CHECK(same_run(a->header[i].name, b->header[i].name));
        CHECK(same_run(a->header[i].value, b->header[i].value));
    }
    CHECK(http_keep_alive(a) == http_keep_alive(b));
    CHECK(http_is_websocket(a, request.p) == http_is_websocket(b, request.p));
    CHECK(span_eq(http_body(a, request.p), http_body(b, request.p)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = data[0] % 64 + 1u;
    struct span left = {(const char *)data + 1, size - 1};
    for (int got = HTTP_READ_DONE; got == HTTP_READ_DONE && left.n > 0;) {
        struct http_reader whole, pieces;
        got = feed(&whole, left, left.n);
        int in_pieces = feed(&pieces, left, piece);
        CHECK(in_pieces == got ||
              (in_pieces < 0 && got < 0)); /* which of two errors comes first may differ */
        if (got == HTTP_READ_DONE) {
            check_same(&whole, &pieces, left);
            CHECK(whole.used > 0);
            left.p += whole.used;
            left.n -= whole.used;
        }
        http_reader_deinit(&whole);
        http_reader_deinit(&pieces);
    }
    return 0;
}
