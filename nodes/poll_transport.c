/* Long-polling. What waits for a client is kept as WebSocket frames (outq.h); a GET takes them all as one payload.
 *
 *   what happens                   pending GET             the session
 *   something is queued            200, all of it          goes on
 *   a second GET                   200 "1"; that one 400   ends
 *   a second POST                  200 "1"; both 400/cut   ends
 *   GET or POST connection lost    -                       ends
 *   closed by the client ("1")     200 "6"                 ends
 *   bad packet, no pong            200, queue or "1"       ends
 *   closed by us                   200, queue or "1"       ends; without a GET it lingers for one that is told "6" "1"
 *   candidate answered the probe   200 "6"                 goes on, later GETs likewise
 *   upgrade complete               200 "1"                 goes on, on the new transport
 */
#include "poll_transport.h"
#include "base64.h"
#include "conn.h"
#include "container.h"
#include "err.h"
#include "front.h"
#include "gate.h"
#include "utf8.h"
#include "ws_transport.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define CLOSE_PACKET "1"
#define NOOP_PACKET  "6"
#define NOOP_AND_CLOSE                                                                                       \
    "6\x1e"                                                                                                  \
    "1"
#define POLL_CONTENT_TYPE "text/plain; charset=UTF-8"
#define NO_STORE          "Cache-Control: no-store\r\n"

struct poll {
    struct session *session;
    struct conn *get, *post;
    char *get_headers; /* for the answer to the pending GET; NULL: none */
    struct timer linger;
    bool greets;   /* the pending GET is the handshake */
    bool released; /* an upgrade is under way: GETs do not wait */
};

static struct poll *poll_of(const struct session *s)
{
    return s->link;
}

/* ---- answers ---- */

static size_t packet_length(enum ws_opcode opcode, size_t n)
{
    return opcode == WS_BINARY ? 1 + BASE64_LENGTH(n) : n;
}

/* Walks the frames of a queue. dst == NULL: only the length of the payload. */
static size_t write_payload(const struct outq *q, char *dst)
{
    size_t total = 0;
    for (unsigned i = 0; i < q->count; i++) {
        struct span run = outq_at(q, i);
        while (run.n) {
            enum ws_opcode opcode;
            size_t n, head_n = ws_own_head((const uint8_t *)run.p, &opcode, &n);
            if (total > 0 && dst)
                dst[total] = EIO_SEPARATOR;
            total += total > 0;
            if (dst && opcode == WS_BINARY) {
                dst[total] = 'b';
                base64_encode(dst + total + 1, run.p + head_n, n);
            } else if (dst) {
                memcpy(dst + total, run.p + head_n, n);
            }
            total += packet_length(opcode, n);
            run.p += head_n + n;
            run.n -= head_n + n;
        }
    }
    return total;
}

/* Takes the pending GET out of the session, with the headers for its answer. */
static struct conn *take_get(struct poll *p, char *headers, size_t cap)
{
    struct conn *c = p->get;
    const struct session *s = p->session;
    const char *cookie = c->front->options.cookie;
    int n = snprintf(headers, cap, "%s%s", NO_STORE, p->get_headers ? p->get_headers : "");
    if (p->greets && cookie[0])
        snprintf(headers + n, cap - (size_t)n, "Set-Cookie: %s=%.*s; Path=/; HttpOnly; SameSite=Lax\r\n",
                 cookie, ID_CHARS, s->sid);
    free(p->get_headers);
    p->get_headers = NULL;
    p->get = NULL;
    p->greets = false;
    c->session = NULL;
    return c;
}

enum { GET_HEADERS_MAX = CORS_HEADERS_MAX + 256 };

static void answer_get(struct poll *p, const char *payload)
{
    char headers[GET_HEADERS_MAX];
    struct conn *c = take_get(p, headers, sizeof(headers));
    gate_answer(c, 200, POLL_CONTENT_TYPE, headers, span_of(payload));
}

static void answer_get_with_queue(struct session *s)
{
    char headers[GET_HEADERS_MAX];
    struct poll *p = poll_of(s);
    char small[4096], *payload = small;
    size_t n = write_payload(&s->out, NULL);
    if (n > sizeof(small))
        payload = malloc(n);
    if (!payload) {
        session_close_soon(s, CLOSE_TRANSPORT_ERROR);
        return;
    }
    write_payload(&s->out, payload);
    outq_clear(&s->out);
    struct conn *c = take_get(p, headers, sizeof(headers));
    gate_answer(c, 200, POLL_CONTENT_TYPE, headers, (struct span){payload, n});
    if (payload != small)
        free(payload);
}

/* ---- the transport ---- */

static void flush(struct session *s)
{
    struct poll *p = poll_of(s);
    if (p && p->get && !outq_empty(&s->out))
        answer_get_with_queue(s);
}

static bool writable(const struct session *s)
{
    return poll_of(s) && poll_of(s)->get;
}

static void forget(struct session *s)
{
    struct poll *p = poll_of(s);
    reactor_timer_cancel(s->engine->reactor, &p->linger);
    if (p->post)
        p->post->session = NULL;
    free(p->get_headers);
    free(p);
    s->link = NULL;
    engine_forget(s);
}

static void on_linger(struct timer *t)
{
    forget(container_of(t, struct poll, linger)->session);
}

static bool by_server(enum close_reason reason)
{
    return reason == CLOSE_FORCED || reason == CLOSE_SLOW_CLIENT || reason == CLOSE_SHUTDOWN;
}

static void close_transport(struct session *s, enum close_reason reason)
{
    struct poll *p = poll_of(s);
    ws_drop_candidate(s);
    if (p->get && reason != CLOSE_TRANSPORT_CLOSE && !outq_empty(&s->out)) {
        answer_get_with_queue(s);
    } else if (p->get) {
        answer_get(p, reason == CLOSE_TRANSPORT_CLOSE ? NOOP_PACKET : CLOSE_PACKET);
        forget(s);
        return;
    }
    if (!by_server(reason) || s->engine->shutting_down) {
        forget(s);
        return;
    }
    reactor_timer_set(s->engine->reactor, &p->linger, s->engine->options.poll_grace_ms);
}

const struct transport poll_transport = {
    .kind = EIO_POLLING,
    .flush = flush,
    .writable = writable,
    .close = close_transport,
};

/* ---- GET ---- */

static void park(struct session *s, struct conn *c, const char *headers)
{
    struct poll *p = poll_of(s);
    p->get = c;
    p->get_headers = headers[0] ? strdup(headers) : NULL;
    c->session = s;
    reactor_timer_cancel(c->front->reactor, &c->timer);
    conn_watch(c, EPOLLIN);
}

void poll_handshake(struct engine *e, struct conn *c, bool base64, bool recovery_off, const char *headers)
{
    struct poll *p = calloc(1, sizeof(*p));
    struct session *s = p ? engine_open(e, &poll_transport, p, base64) : NULL;
    if (!s) {
        free(p);
        gate_answer_and_end(c, 503, "", headers, SPAN(""));
        return;
    }
    p->session = s;
    p->greets = true;
    timer_init(&p->linger, on_linger);
    s->recovery_off = recovery_off;
    s->peer_ip = c->ip;
    park(s, c, headers);
    flush(s);
}

void poll_get(struct session *s, struct conn *c, const char *headers)
{
    struct poll *p = poll_of(s);
    if (s->state == SESSION_CLOSING) {
        char all[GET_HEADERS_MAX];
        bool has_data = !outq_empty(&s->out);
        park(s, c, headers);
        if (has_data) {
            answer_get_with_queue(s);
            return;
        }
        c = take_get(p, all, sizeof(all));
        forget(s);
        gate_answer(c, 200, POLL_CONTENT_TYPE, all, SPAN(NOOP_AND_CLOSE));
        return;
    }
    if (p->get) {
        session_close(s, CLOSE_TRANSPORT_ERROR);
        gate_answer(c, 400, "", headers, SPAN(""));
        return;
    }
    park(s, c, headers);
    if (!outq_empty(&s->out))
        session_mark_dirty(s);
    else if (p->released)
        answer_get(p, NOOP_PACKET);
}

void poll_release(struct session *s)
{
    struct poll *p = poll_of(s);
    p->released = true;
    if (p->get && outq_empty(&s->out))
        answer_get(p, NOOP_PACKET);
}

void poll_hold(struct session *s)
{
    struct poll *p = poll_of(s);
    if (p)
        p->released = false;
}

void poll_leave(struct session *s)
{
    struct poll *p = poll_of(s);
    if (p->get)
        answer_get(p, CLOSE_PACKET);
    if (p->post)
        p->post->session = NULL;
    free(p);
    s->link = NULL;
}

/* ---- POST ---- */

bool poll_post_begin(struct session *s, struct conn *c, bool too_big, const char *headers)
{
    struct poll *p = poll_of(s);
    if (too_big) {
        gate_answer_and_end(c, 413, "", headers, SPAN(""));
        return false;
    }
    if (s->state == SESSION_CLOSING) {
        gate_answer_and_end(c, 200, "text/html", headers, SPAN("ok"));
        return false;
    }
    if (p->post) {
        struct conn *first = p->post;
        first->session = NULL;
        p->post = NULL;
        session_close(s, CLOSE_TRANSPORT_ERROR);
        conn_abort(first);
        gate_answer_and_end(c, 400, "", headers, SPAN(""));
        return false;
    }
    p->post = c;
    c->session = s;
    return true;
}

static void receive_payload(struct session *s, struct span body)
{
    struct eio_payload it;
    struct eio_packet packet;
    int got = 0;
    eio_payload_init(&it, body);
    while (session_is_open(s) && (got = eio_payload_next(&it, &packet)) > 0)
        session_receive(s, &packet);
    if (got < 0) {
        metrics_add(s->engine->metrics, METRIC_DECODE_ERRORS, 1);
        session_close(s, CLOSE_PARSE_ERROR);
    }
}

/* Bytes that are no UTF-8 become U+FFFD, as the reference has it. */
static bool receive_body(struct session *s, struct span body)
{
    char *clean = NULL;
    if (!utf8_valid(body.p, body.n)) {
        clean = malloc(3 * body.n);
        if (!clean)
            return false;
        body = (struct span){clean, utf8_sanitize(clean, body.p, body.n)};
    }
    receive_payload(s, body);
    free(clean);
    return true;
}

void poll_post(struct session *s, struct conn *c, struct span body, bool is_octets, const char *headers)
{
    struct poll *p = poll_of(s);
    char all[GET_HEADERS_MAX];
    snprintf(all, sizeof(all), "%s%s", NO_STORE, headers);
    p->post = NULL;
    c->session = NULL;
    if (is_octets) {
        session_close(s, CLOSE_TRANSPORT_ERROR);
        gate_answer(c, 400, "", all, SPAN(""));
        return;
    }
    bool is_read = receive_body(s, body);
    if (is_read && (s->state == SESSION_OPEN || s->end_reason != CLOSE_PARSE_ERROR))
        gate_answer(c, 200, "text/html", all, SPAN("ok"));
    else
        gate_answer(c, 400, "", all, SPAN(""));
}

void poll_post_broken(struct session *s, struct conn *c, int err)
{
    struct poll *p = poll_of(s);
    p->post = NULL;
    c->session = NULL;
    if (err == ERR_HTTP_TOO_BIG) { /* the session goes on without it */
        gate_answer_and_end(c, 413, "", "", SPAN(""));
        return;
    }
    session_close(s, CLOSE_TRANSPORT_ERROR);
    gate_answer_and_end(c, 400, "", "", SPAN(""));
}

void poll_gone(struct session *s, struct conn *c)
{
    struct poll *p = poll_of(s);
    if (p->get == c) {
        p->get = NULL;
        free(p->get_headers);
        p->get_headers = NULL;
    } else if (p->post == c) {
        p->post = NULL;
    }
    c->session = NULL;
    session_close(s, CLOSE_TRANSPORT_ERROR);
}
