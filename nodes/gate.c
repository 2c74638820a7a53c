/* The way of a request, by the progress of its bytes:
 *
 *   head complete, transport   the connection's first: its head visits civetweb, then takes its turn in the line;
 *                              a later one: takes its turn at once. Its turn: engineio_head(), the body is read,
 *                              engineio_request().
 *   all complete, other        head and body visit civetweb, whose answer is written.
 *   malformed, too big         400, 413 or 431, and the connection ends.
 *
 * While a request is being answered (is_busy) nothing behind it is looked at. */
#include "gate.h"
#include "bundle.h"
#include "engineio.h"
#include "err.h"
#include "front.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum {
    KEPT_WHILE_BUSY_BYTES = 64 * 1024, /* of requests that a client sends before it has its answer */
    REQUESTS_PER_TURN = 16,
    PROGRESS_BYTES = 16 * 1024, /* of a body that buy it time */
    ANSWER_HEAD_BYTES = 1024 + CORS_HEADERS_MAX * 2,
};

/* ---- answers ---- */

void gate_answered(struct conn *c)
{
    const struct front_options *o = &c->front->options;
    int done = conn_write(c, NULL);
    if (done < 0) {
        conn_gone(c);
        return;
    }
    if (!c->keep_alive || c->front->draining) {
        conn_end(c);
        return;
    }
    if (!done) { /* an answer that is not read in time ends the connection */
        if (!c->is_transport && !c->address)
            front_count_waiting(c->front, c);
        if (!c->is_dead)
            conn_timer(c, o->request_timeout_ms);
        return;
    }
    c->is_busy = false;
    if (!c->is_transport && !c->address)
        front_count_waiting(c->front, c);
    if (c->is_dead)
        return;
    c->resumes = c->in.n > 0;
    conn_timer(c, c->resumes ? 0 : o->idle_timeout_ms);
    conn_watch(c, EPOLLIN);
}

void gate_answer(struct conn *c, int status, const char *content_type, const char *headers, struct span body)
{
    struct slice s;
    char head[ANSWER_HEAD_BYTES];
    int n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\n%s%s%sContent-Length: %zu\r\n%s%s\r\n", status,
                     http_status_text(status), content_type[0] ? "Content-Type: " : "", content_type,
                     content_type[0] ? "\r\n" : "", body.n, headers,
                     c->keep_alive ? "" : "Connection: close\r\n");
    if (n >= (int)sizeof(head) || bytes_alloc(&c->front->engine->bytes, (size_t)n + body.n, &s)) {
        conn_close(c);
        return;
    }
    memcpy(s.p, head, (size_t)n);
    if (body.n)
        memcpy(s.p + n, body.p, body.n);
    int err = outq_push(&c->out, &s, 1, false);
    slice_unref(&s);
    if (err)
        conn_close(c);
    else
        gate_answered(c);
}

void gate_answer_and_end(struct conn *c, int status, const char *content_type, const char *headers,
                         struct span body)
{
    c->keep_alive = false;
    gate_answer(c, status, content_type, headers, body);
}

/* 400 in the words of Engine.IO: a client that sent it wants to read those. */
static void answer_error(struct conn *c, int status)
{
    c->is_busy = true;
    if (status == 400)
        gate_answer_and_end(c, 400, "application/json", "", eio_reject_body(EIO_REJECT_REQUEST, &status));
    else
        gate_answer_and_end(c, status, "text/plain", "", span_of(http_status_text(status)));
}

/* ---- visits to civetweb ---- */

static void put_visit_answer(struct conn *c, struct visit *v)
{
    struct span body = visit_static_body(v);
    struct slice rest = {NULL, (uint8_t *)(uintptr_t)body.p, body.n};
    size_t n;
    char *head = visit_take_answer(v, &n);
    int err = !head || conn_put(c, head, n);
    if (!err && body.n)
        err = outq_push(&c->out, &rest, 1, false);
    free(head);
    c->keep_alive = c->keep_alive && visit_keep_alive(v) && visit_end(v) != VISIT_REFUSED;
    if (err)
        conn_close(c);
    else
        gate_answered(c);
}

bool gate_has(const struct conn *c)
{
    return !c->is_dead && c->role == &gate_role;
}

static void on_deferred_finish(struct visit *v)
{
    struct conn *c = visit_owner(v);
    c->visit = NULL;
    put_visit_answer(c, v);
    visit_free(v);
}

static void go_on_after_visit(struct conn *c, struct visit *v)
{
    switch (visit_end(v)) {
    case VISIT_DEFERRED:
        if (!visit_run_deferred(v, on_deferred_finish, &c->visit))
            answer_error(c, 503);
        return;
    case VISIT_TRANSPORT:
        if (c->in_line)
            front_line_ready(c->front, c, false);
        else
            answer_error(c, 404); /* a path that only becomes one by decoding */
        break;
    case VISIT_REFUSED:
    case VISIT_ANSWERED:
        /* A transport's request that civetweb answers: what is behind it has been read already. */
        if (c->in_line) {
            c->keep_alive = false;
            front_line_ready(c->front, c, true);
        }
        put_visit_answer(c, v);
        break;
    }
    visit_free(v);
}

static void on_visit_back(struct visit *v)
{
    struct conn *c = visit_owner(v);
    if (!gate_has(c)) {
        if (c->in_line)
            front_line_ready(c->front, c, true);
        visit_free(v);
    } else {
        go_on_after_visit(c, v);
    }
    conn_unhold(c);
}

/* civetweb takes a tab in a head for a broken request, where the standard allows it like a blank. */
static void replace_tabs(char *head, size_t n)
{
    for (char *tab = memchr(head, '\t', n); tab; tab = memchr(tab, '\t', (size_t)(head + n - tab)))
        *tab = ' ';
}

/* body: what lies behind the head, taken out of its chunks; a transport's is not read yet. */
static bool visit(struct conn *c, const uint8_t *head, size_t n, struct span body, bool keep_alive)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = c->port, .sin_addr.s_addr = c->ip};
    char *raw = malloc(n), *copy = malloc(body.n + 1);
    if (raw && copy) {
        memcpy(raw, head, n);
        replace_tabs(raw, n);
        memcpy(copy, body.p, body.n);
        c->is_busy = true;
        reactor_timer_cancel(c->front->reactor,
                             &c->timer); /* from here it is not the client who takes the time */
        front_uncount_waiting(c->front, c);
        if (seam_visit(c->front->seam, (struct span){raw, n}, (struct span){copy, body.n}, &peer, keep_alive,
                       on_visit_back, c)) {
            conn_hold(c);
            return true;
        }
    }
    free(raw);
    free(copy);
    return false;
}

/* ---- requests ---- */

/* Below the transports' path, but not one of the client's files. */
static bool is_transport_path(const struct front *f, struct span path)
{
    size_t n = strlen(f->options.path);
    if (path.n < n || memcmp(path.p, f->options.path, n) != 0)
        return false;
    return bundle_find((struct span){path.p + n, path.n - n}) == NULL;
}

/* No absolute form, no asterisk, no NUL in disguise. */
static bool is_plain_path(struct span path)
{
    return path.n > 0 && path.p[0] == '/' && !memmem(path.p, path.n, "%00", 3);
}

static bool keep_request(struct conn *c, const struct http_reader *r, const uint8_t *base, size_t n)
{
    if (!c->reader) {
        c->reader = malloc(sizeof(*c->reader));
        if (!c->reader)
            return false;
        *c->reader = *r;
        c->front->scratch_reader.chunked = (struct buffer){0}; /* it moved along */
    }
    return base == (uint8_t *)c->in.p || buffer_append(&c->in, base, n) == 0;
}

static void release(struct conn *c)
{
    if (!c->reader)
        return;
    http_reader_deinit(c->reader);
    free(c->reader);
    c->reader = NULL;
}

/* The connection has gone to the node that has the session. */
static bool is_elsewhere(struct conn *c, const struct http_reader *r, const uint8_t *base, size_t n)
{
    const struct front_options *o = &c->front->options;
    struct eio_query query;
    if (!o->elsewhere)
        return false;
    eio_query_parse(&query, http_query(r, (const char *)base));
    return query.sid_n == EIO_SID_CHARS &&
           o->elsewhere(o->elsewhere_user, c, (struct span){query.sid, query.sid_n}, base, n);
}

/* The transports' turn at a complete head. True: the body may be read on. */
static bool begin_transport(struct conn *c, struct http_reader *r, const uint8_t *base, size_t n)
{
    struct front *f = c->front;
    c->is_busy = true;
    if (c->is_transport && !f->line)
        return engineio_head(c, r, (const char *)base);
    if (!keep_request(c, r, base, n)) {
        conn_close(c);
    } else if (c->is_transport) {
        reactor_timer_cancel(f->reactor, &c->timer);
        front_line_join(f, c, true);
    } else {
        front_line_join(f, c, false);
        if (!visit(c, (uint8_t *)c->in.p, c->reader->head_n, SPAN(""), false)) {
            front_line_ready(f, c, true);
            answer_error(c, 503);
        }
    }
    return false;
}

static bool on_head(struct conn *c, struct http_reader *r, const uint8_t *base, size_t n)
{
    struct front *f = c->front;
    bool is_transport = is_transport_path(f, http_path(r, (const char *)base));
    r->max_body_bytes = is_transport ? f->engine->options.max_payload_bytes : LIMIT_API_BODY_BYTES;
    /* HTTP/1.0 has no agreement about this that is worth the trouble. */
    /* What else comes on a relayed connection need not be this node's to answer. */
    c->keep_alive = http_keep_alive(r) && r->parser.http_minor > 0 && !c->relayed;
    metrics_add(f->metrics, METRIC_HTTP_REQUESTS, 1);
    if (!is_plain_path(http_path(r, (const char *)base))) {
        answer_error(c, 400);
        return false;
    }
    if (is_transport && is_elsewhere(c, r, base, n))
        return false;
    if (is_transport)
        return begin_transport(c, r, base, n);
    if (http_body_too_big(r, r->max_body_bytes)) {
        answer_error(c, 413);
        return false;
    }
    if (http_has_body(r) && http_header_has(r, (const char *)base, "Expect", "100-continue"))
        conn_put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return conn_flush(c);
}

static void on_request(struct conn *c, struct http_reader *r, const uint8_t *base)
{
    if (is_transport_path(c->front, http_path(r, (const char *)base)))
        engineio_request(c, r, (const char *)base);
    else if (!visit(c, base, r->head_n, http_body(r, (const char *)base), c->keep_alive))
        answer_error(c, 503);
}

static void on_broken(struct conn *c, const struct http_reader *r, int err)
{
    bool was_transport = c->session != NULL;
    if (was_transport)
        engineio_body_broken(c, err);
    else
        answer_error(c, err != ERR_HTTP_TOO_BIG ? 400 : r->head_complete ? 413 : 431);
}

/* Raw bytes of one request, chunk sizes included. */
static size_t most_raw_bytes(const struct http_reader *r)
{
    return LIMIT_HTTP_HEAD_BYTES + (r->head_complete ? 2 * (size_t)r->max_body_bytes + 64 * 1024 : 0);
}

static void wait_for_more(struct conn *c, struct http_reader *r, const uint8_t *base, size_t n)
{
    const struct front_options *o = &c->front->options;
    if (n > most_raw_bytes(r)) {
        on_broken(c, r, ERR_HTTP_TOO_BIG);
        return;
    }
    if (!c->reader)
        conn_timer(c, o->request_timeout_ms);
    if (!keep_request(c, r, base, n))
        conn_close(c);
    else
        conn_watch(c, EPOLLIN | (outq_empty(&c->out) ? 0 : (uint32_t)EPOLLOUT));
}

/* What is left is looked at in the next turn. */
static void resume_soon(struct conn *c, const uint8_t *base, size_t n)
{
    if (base != (uint8_t *)c->in.p && buffer_append(&c->in, base, n)) {
        conn_close(c);
        return;
    }
    c->resumes = true;
    conn_timer(c, 0);
}

/* The request was answered, or its answer is under way: what lies behind it. True: go on with that. */
static bool next_request(struct conn *c, uint8_t **base, size_t *n, size_t used)
{
    bool kept = *base == (uint8_t *)c->in.p;
    if (!gate_has(c)) {
        if (!c->is_dead && *n > used)
            c->role->on_input(c, *base + used, *n - used);
        if (kept)
            conn_drop_input(c, c->in.n);
        return false;
    }
    release(c);
    *n -= used;
    if (kept) {
        conn_drop_input(c, used);
        *base = (uint8_t *)c->in.p;
    } else {
        *base += used;
    }
    if (c->is_busy && !kept && buffer_append(&c->in, *base, *n))
        conn_close(c);
    if (c->resumes) { /* here and now instead */
        c->resumes = false;
        conn_timer(c, c->front->options.idle_timeout_ms);
    }
    return !c->is_busy && *n > 0;
}

static void process(struct conn *c, uint8_t *base, size_t n)
{
    c->resumes = false;
    for (int requests = 0;; requests++) {
        if (requests == REQUESTS_PER_TURN) { /* others have their turn first */
            resume_soon(c, base, n);
            return;
        }
        struct http_reader *r = c->reader;
        if (!r) {
            r = &c->front->scratch_reader;
            http_reader_deinit(r);
            http_reader_init(r);
        }
        int got = http_reader_feed(r, (const char *)base, n);
        /* A head may be complete together with its body: both steps are due then. */
        while (got == HTTP_READ_HEAD) {
            if (!on_head(c, r, base, n))
                return;
            got = http_reader_feed(r, (const char *)base, n);
        }
        if (got < 0) {
            on_broken(c, r, got);
            return;
        }
        if (got == HTTP_READ_MORE) {
            wait_for_more(c, r, base, n);
            return;
        }
        size_t used = r->used;
        on_request(c, r, base);
        if (!next_request(c, &base, &n, used))
            return;
    }
}

void gate_take_turn(struct conn *c)
{
    conn_timer(c, c->front->options.request_timeout_ms); /* for its body */
    if (!engineio_head(c, c->reader, c->in.p))
        return;
    process(c, (uint8_t *)c->in.p, c->in.n);
}

/* ---- the role ---- */

static void on_input(struct conn *c, uint8_t *p, size_t n)
{
    size_t before = c->in.n;
    if (c->in_line || c->resumes || (c->is_busy && !c->reader)) {
        if (buffer_append(&c->in, p, n))
            conn_close(c);
        else if (c->in.n >= KEPT_WHILE_BUSY_BYTES)
            conn_watch(c, c->events & ~(uint32_t)EPOLLIN);
        return;
    }
    if (c->in.n == 0) {
        process(c, p, n);
        return;
    }
    if (buffer_append(&c->in, p, n)) {
        conn_close(c);
        return;
    }
    /* A long body has its time as long as it makes progress. */
    if ((before ^ c->in.n) / PROGRESS_BYTES)
        conn_timer(c, c->front->options.request_timeout_ms);
    process(c, (uint8_t *)c->in.p, c->in.n);
}

/* Half-closed behind a request whose answer is under way. A transport that does this is gone (spec 4.5). */
static bool on_eof(struct conn *c)
{
    if (!c->is_busy || c->session || c->is_transport)
        return false;
    c->keep_alive = false;
    conn_watch(c, outq_empty(&c->out) ? 0 : (uint32_t)EPOLLOUT);
    return true;
}

static void on_drained(struct conn *c)
{
    gate_answered(c);
}

static void on_gone(struct conn *c)
{
    if (c->session)
        engineio_gone(c);
    if (c->visit)
        visit_abandon(c->visit);
    c->visit = NULL;
}

static void on_timeout(struct conn *c)
{
    if (c->resumes) {
        conn_timer(c, c->front->options.idle_timeout_ms);
        process(c, (uint8_t *)c->in.p, c->in.n);
        return;
    }
    metrics_add(c->front->metrics, METRIC_CONNECTIONS_TIMED_OUT, 1);
    if (!outq_empty(&c->out)) {
        on_gone(c);
        conn_abort(c);
    } else if (c->in.n > 0 || c->reader) {
        on_gone(c);
        answer_error(c, 408);
    } else {
        conn_gone(c);
    }
}

const struct conn_role gate_role = {
    .name = "http",
    .on_input = on_input,
    .on_drained = on_drained,
    .on_eof = on_eof,
    .on_gone = on_gone,
    .on_timeout = on_timeout,
    .release = release,
};
