#include "engineio.h"
#include "base64.h"
#include "err.h"
#include "front.h"
#include "gate.h"
#include "poll_transport.h"
#include "ws_transport.h"
#include <stdio.h>

/* What is known of a request before its rules are looked at. */
struct facts {
    struct eio_query query;
    struct session *session;
    enum eio_reject reject;
    bool is_get, is_post, is_options, is_head, is_websocket;
    char headers[CORS_HEADERS_MAX];
};

static void collect(struct facts *f, struct conn *c, const struct http_reader *r, const char *base)
{
    struct engine *e = c->front->engine;
    struct span origin = http_header(r, base, "Origin"), method = http_method(r);
    eio_query_parse(&f->query, http_query(r, base));
    f->session = f->query.sid_n ? engine_find(e, (struct span){f->query.sid, f->query.sid_n}) : NULL;
    f->is_get = span_eq(method, SPAN("GET"));
    f->is_post = span_eq(method, SPAN("POST"));
    f->is_options = span_eq(method, SPAN("OPTIONS"));
    f->is_head = span_eq(method, SPAN("HEAD"));
    f->is_websocket = f->is_get && http_is_websocket(r, base);
    cors_headers(&c->front->options.cors, origin, f->headers);
    f->reject = eio_check_request(
        &f->query, &(struct eio_request){
                       .get = f->is_get,
                       .upgrade = f->is_websocket,
                       .origin = origin,
                       .polling_enabled = e->options.polling,
                       .websocket_enabled = e->options.websocket,
                       .sid_known = f->session != NULL,
                       .session_transport = f->session ? f->session->transport->kind : EIO_TRANSPORT_UNKNOWN,
                   });
    if (f->reject == EIO_ACCEPT && !f->session && e->shutting_down)
        f->reject = EIO_REJECT_FORBIDDEN;
}

static void reject(struct conn *c, const struct facts *f)
{
    int status;
    struct span body = eio_reject_body(f->reject, &status);
    if (f->is_websocket)
        gate_answer_and_end(c, 400, "text/html", f->headers, eio_reject_text(f->reject));
    else
        gate_answer(c, status, "application/json", f->headers, f->is_head ? SPAN("") : body);
}

/* From here on the connection is the transports': it does not visit civetweb for them again. */
static void bind_to_transport(struct conn *c)
{
    c->is_transport = true;
    front_uncount_waiting(c->front, c);
}

bool engineio_head(struct conn *c, struct http_reader *r, const char *base)
{
    struct facts f;
    if (!span_eq(http_method(r), SPAN("POST"))) {
        if (!http_body_too_big(r, r->max_body_bytes))
            return true;
        gate_answer_and_end(c, 413, "", "", SPAN(""));
        return false;
    }
    collect(&f, c, r, base);
    if (f.reject != EIO_ACCEPT && !http_has_body(r))
        return true; /* engineio_request() says so */
    if (f.reject != EIO_ACCEPT) {
        c->keep_alive = false; /* its body is not waited for */
        reject(c, &f);
        return false;
    }
    bind_to_transport(c);
    if (!poll_post_begin(f.session, c, http_body_too_big(r, r->max_body_bytes), f.headers))
        return false;
    if (http_has_body(r) && http_header_has(r, base, "Expect", "100-continue")) {
        conn_put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        return conn_flush(c);
    }
    return true;
}

static bool is_valid_key(struct span key)
{
    char raw[24 / 4 * 3 + 3];
    return key.n == 24 && base64_decode(raw, key.p, key.n) == 16;
}

static void start_websocket(struct conn *c, const struct facts *f, const struct http_reader *r,
                            const char *base)
{
    struct span key = http_header(r, base, "Sec-WebSocket-Key");
    struct span protocols = http_header(r, base, "Sec-WebSocket-Protocol");
    const char *comma = memchr(protocols.p, ',', protocols.n);
    struct span first = {protocols.p, comma ? (size_t)(comma - protocols.p) : protocols.n};
    if (!span_eq(http_header(r, base, "Sec-WebSocket-Version"), SPAN("13"))) {
        gate_answer_and_end(c, 400, "text/html", "Sec-WebSocket-Version: 13\r\n",
                            SPAN("Missing or invalid Sec-WebSocket-Version header"));
        return;
    }
    if (!is_valid_key(key)) {
        gate_answer_and_end(c, 400, "text/html", f->headers,
                            SPAN("Missing or invalid Sec-WebSocket-Key header"));
        return;
    }
    bind_to_transport(c);
    ws_start(c, f->session, key, first, f->query.base64, f->query.recovery_off, f->headers);
}

static void answer_preflight(struct conn *c, struct facts *f, const struct http_reader *r, const char *base)
{
    char headers[2 * CORS_HEADERS_MAX];
    char *p = stpcpy(headers, f->headers);
    cors_preflight_headers(http_header(r, base, "Access-Control-Request-Headers"), p);
    gate_answer(c, 204, "", headers, SPAN(""));
}

void engineio_request(struct conn *c, struct http_reader *r, const char *base)
{
    struct facts f;
    if (c->session) { /* a POST that was let in by engineio_head() */
        char headers[CORS_HEADERS_MAX];
        struct span type = http_header(r, base, "Content-Type");
        bool is_octets = type.n >= 24 && memcmp(type.p, "application/octet-stream", 24) == 0;
        cors_headers(&c->front->options.cors, http_header(r, base, "Origin"), headers);
        poll_post(c->session, c, http_body(r, base), is_octets, headers);
        return;
    }
    collect(&f, c, r, base);
    if (f.is_post && f.reject == EIO_ACCEPT)
        f.reject = EIO_REJECT_SID; /* its session ended while the body was read */
    if (f.is_options && cors_on(&c->front->options.cors)) {
        answer_preflight(c, &f, r, base);
        return;
    }
    if (f.reject != EIO_ACCEPT) {
        reject(c, &f);
        return;
    }
    if (f.is_websocket) {
        start_websocket(c, &f, r, base);
        return;
    }
    bind_to_transport(c);
    if (!f.session)
        poll_handshake(c->front->engine, c, f.query.base64, f.query.recovery_off, f.headers);
    else if (f.is_get)
        poll_get(f.session, c, f.headers);
    else
        gate_answer(c, 400, "", f.headers, SPAN(""));
}

void engineio_body_broken(struct conn *c, int err)
{
    poll_post_broken(c->session, c, err);
}

void engineio_gone(struct conn *c)
{
    poll_gone(c->session, c);
}
