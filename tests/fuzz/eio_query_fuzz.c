/* A request: the first byte is what the server knows, then the Origin header up to a line feed, then the
 * query. The verdict is compared with the rules written down a second time, as a list without an order of
 * evaluation. */
#include "eio.h"
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static bool same(const struct eio_query *a, const struct eio_query *b)
{
    return a->transport == b->transport && a->version_4 == b->version_4 && a->base64 == b->base64 &&
           a->recovery_off == b->recovery_off && a->sid_n == b->sid_n &&
           (a->sid_n != EIO_SID_CHARS || memcmp(a->sid, b->sid, EIO_SID_CHARS) == 0);
}

/* A query that says the same, written with every value's characters as they are or all escaped. */
static void check_rewritten(const struct eio_query *q, bool escaped)
{
    static const char *const transports[] = {"none", "polling", "websocket"};
    char sid[3 * EIO_SID_CHARS + 1] = "", text[256];
    for (size_t i = 0; i < q->sid_n && i < EIO_SID_CHARS; i++) {
        char c = q->sid_n == EIO_SID_CHARS ? q->sid[i] : '!';
        sprintf(sid + strlen(sid), escaped ? "%%%02x" : "%c", c);
    }
    int n =
        snprintf(text, sizeof(text), "EIO=3&EIO=%s&transport=x&transport=%s&sid=y&sid=%s&b64%s&recovery=%s",
                 q->version_4 ? (escaped ? "%34" : "4") : "5", transports[q->transport], sid,
                 q->base64 ? "=1" : "", q->recovery_off ? "0" : "1");
    CHECK(n > 0 && (size_t)n < sizeof(text));
    struct eio_query again;
    eio_query_parse(&again, (struct span){text, (size_t)n});
    CHECK(same(q, &again));
}

static void check_verdict(const struct eio_query *q, const struct eio_request *r, bool origin_ok)
{
    enum eio_reject got = eio_check_request(q, r);
    bool ws = q->transport == EIO_WEBSOCKET, polling = q->transport == EIO_POLLING;
    bool enabled = (ws && r->websocket_enabled) || (polling && r->polling_enabled);
    bool has_sid = q->sid_n != 0, known = r->sid_known && q->sid_n == EIO_SID_CHARS;
    CHECK((got == EIO_REJECT_TRANSPORT) == !enabled);
    if (!enabled)
        return;
    CHECK(origin_ok || got == EIO_REJECT_REQUEST);
    if (!origin_ok)
        return;
    CHECK((got == EIO_REJECT_SID) == (has_sid && !known));
    CHECK((got == EIO_REJECT_METHOD) == (!has_sid && !r->get));
    if (got == EIO_REJECT_VERSION)
        CHECK(!has_sid && !q->version_4 && r->get && r->upgrade == ws);
    if (got != EIO_ACCEPT)
        return;
    CHECK(has_sid || (r->get && q->version_4));
    CHECK(r->upgrade ? ws : polling);
    CHECK(!has_sid || r->upgrade || r->session_transport == EIO_POLLING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    unsigned flags = data[0];
    const char *p = (const char *)data + 1, *end = (const char *)data + n;
    const char *line = memchr(p, '\n', n - 1);
    struct span origin = {p, line == NULL ? 0 : (size_t)(line - p)};
    struct span query =
        line == NULL ? (struct span){p, n - 1} : (struct span){line + 1, (size_t)(end - line - 1)};

    struct eio_query q;
    eio_query_parse(&q, query);
    CHECK(q.transport <= EIO_WEBSOCKET);
    CHECK(q.sid_n == 0 || q.sid_n == EIO_SID_CHARS || q.sid_n == EIO_SID_CHARS + 1);
    check_rewritten(&q, false);
    check_rewritten(&q, true);

    struct eio_request r = {
        .get = (flags & 1) != 0,
        .upgrade = (flags & 2) != 0,
        .origin = origin,
        .polling_enabled = (flags & 4) == 0,
        .websocket_enabled = (flags & 8) == 0,
        .sid_known = (flags & 16) != 0,
        .session_transport = (flags & 32) != 0 ? EIO_WEBSOCKET : EIO_POLLING,
    };
    bool origin_ok = true;
    for (size_t i = 0; i < origin.n; i++) {
        unsigned char c = (unsigned char)origin.p[i];
        origin_ok = origin_ok && (c == '\t' || (c >= ' ' && c != 0x7f));
    }
    check_verdict(&q, &r, origin_ok);
    return 0;
}
