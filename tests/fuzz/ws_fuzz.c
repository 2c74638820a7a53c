/* WebSocket frames: a stream gives the same events and the same end however it is cut into reads, keeps the
 * rules of websocket.md, and leaves no memory behind. The input's first byte is the seed of the cuts, the
 * second chooses the limit of a message, the rest is the stream. */
#include "err.h"
#include "ws.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(what) ((what) ? (void)0 : abort())

/* The events of one reading, as bytes: kind, status, length and data of each. */
struct record {
    uint8_t *p;
    size_t n, cap;
};

static void put(struct record *rec, const void *p, size_t n)
{
    if (n > rec->cap - rec->n) {
        rec->cap = 2 * rec->cap + n;
        rec->p = realloc(rec->p, rec->cap);
        REQUIRE(rec->p != NULL);
    }
    if (n > 0)
        memcpy(rec->p + rec->n, p, n);
    rec->n += n;
}

static void check_head(const struct ws_event *event)
{
    uint8_t head[WS_HEAD_MAX];
    enum ws_opcode opcode;
    size_t n, head_n = ws_encode_head(head, event->opcode, true, event->n);
    REQUIRE(head_n <= WS_HEAD_MAX && ws_own_head(head, &opcode, &n) == head_n);
    REQUIRE(opcode == event->opcode && n == event->n);
}

static void put_event(struct record *rec, const struct ws_event *event, size_t max)
{
    REQUIRE(event->data != NULL);
    switch (event->opcode) {
    case WS_TEXT:
        REQUIRE(event->n <= max && event->status == 0 && utf8_valid(event->data, event->n));
        break;
    case WS_BINARY:
        REQUIRE(event->n <= max && event->status == 0);
        break;
    case WS_CLOSE:
        REQUIRE(event->n <= 123 && utf8_valid(event->data, event->n));
        REQUIRE(event->status >= 1000 && event->status <= 4999 && event->status != 1004 &&
                event->status != 1006);
        REQUIRE(event->status != WS_STATUS_NONE || event->n == 0);
        break;
    case WS_PING:
    case WS_PONG:
        REQUIRE(event->n <= 125 && event->status == 0);
        break;
    default:
        abort();
    }
    check_head(event);
    put(rec, &event->opcode, sizeof event->opcode);
    put(rec, &event->status, sizeof event->status);
    put(rec, &event->n, sizeof event->n);
    put(rec, event->data, event->n);
}

/* One read: from memory of exactly its size, which is gone afterwards. */
static int read_piece(struct ws_reader *r, const uint8_t *data, size_t n, struct record *rec)
{
    uint8_t *copy = malloc(n), *p = copy;
    size_t left = n;
    REQUIRE(copy != NULL);
    memcpy(copy, data, n);
    struct ws_event event;
    int rc;
    while ((rc = ws_reader_next(r, &p, &left, &event)) == 1) {
        REQUIRE(p + left == copy + n);
        put_event(rec, &event, r->max_message_bytes);
    }
    REQUIRE(rc < 0 || (left == 0 && p == copy + n));
    REQUIRE(rc == 0 || (r->frame == NULL && r->held == NULL));
    REQUIRE(r->held_n <= r->held_cap && r->held_cap <= r->max_message_bytes);
    REQUIRE(r->held == NULL || r->frame != NULL);
    free(copy);
    return rc;
}

/* Pieces are of 1 to `most` bytes; 0: the whole stream at once. */
static int read_stream(const uint8_t *data, size_t size, size_t max, size_t seed, size_t most,
                       struct record *rec)
{
    struct ws_reader r;
    ws_reader_init(&r, max);
    int rc = 0;
    for (size_t at = 0, n; at < size && rc == 0; at += n) {
        seed = seed * 1103515245 + 12345;
        n = most == 0 ? size : 1 + (seed >> 16) % most;
        if (n > size - at)
            n = size - at;
        rc = read_piece(&r, data + at, n, rec);
        REQUIRE(r.held_n <= at + n && (r.held_cap <= 256 || r.held_cap <= 2 * (at + n)));
    }
    ws_reader_deinit(&r);
    REQUIRE(r.frame == NULL && r.held == NULL);
    unsigned status = ws_close_status(rc);
    REQUIRE(rc == 0 || (rc == ERR_WS_PROTOCOL && status == 1002) || (rc == ERR_WS_UTF8 && status == 1007) ||
            (rc == ERR_WS_TOO_BIG && status == 1009));
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t seed = data[0], max = data[1] < 128 ? data[1] : (size_t)1 << data[1] % 32;
    static const size_t most[] = {1, 3, 17, 300};
    struct record whole = {0};
    int rc = read_stream(data + 2, size - 2, max, 0, 0, &whole);
    for (size_t i = 0; i < sizeof most / sizeof *most; ++i) {
        struct record cut = {0};
        REQUIRE(read_stream(data + 2, size - 2, max, seed, most[i], &cut) == rc);
        REQUIRE(cut.n == whole.n && (cut.n == 0 || memcmp(cut.p, whole.p, cut.n) == 0));
        free(cut.p);
    }
    free(whole.p);
    return 0;
}
