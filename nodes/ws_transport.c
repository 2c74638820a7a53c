/* Events of a WebSocket connection, by what it is:
 *
 *   event            of a session                         candidate for an upgrade
 *   text, binary     packet of the session                "2probe": "3probe"; "5": becomes the session's; else closed
 *   ping             pong                                 pong
 *   close            echoed, session ends                 echoed, polling goes on
 *   bad frame        close 1002/1007/1009, session ends   the same, polling goes on
 *   gone, timeout    session ends                         polling goes on
 */
#include "ws_transport.h"
#include "base64.h"
#include "err.h"
#include "front.h"
#include "poll_transport.h"
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* That wait for a connection which carries no session, so has no other bound. */
enum { UNREAD_BYTES = 4096 };

static bool is_candidate(const struct conn *c)
{
    return c->session && c->session->candidate == c;
}

/* ---- writing ---- */

/* Some clients cannot take binary frames: theirs become text, "b" and base64. Moves the session's frames to the
 * connection's queue; only called when that is empty. */
static int move_as_base64(struct session *s, struct conn *c)
{
    struct bytes *bytes = &s->engine->bytes;
    int err = 0;
    for (unsigned i = 0; !err && i < s->out.count; i++) {
        struct span run = outq_at(&s->out, i);
        while (!err && run.n) {
            enum ws_opcode opcode;
            size_t n, head_n = ws_own_head((const uint8_t *)run.p, &opcode, &n);
            const char *payload = run.p + head_n;
            struct slice frame;
            uint8_t *p;
            bool as_text = opcode == WS_BINARY;
            if (as_text)
                err = engine_frame_alloc(s->engine, WS_TEXT, 1 + BASE64_LENGTH(n), &frame, &p);
            else
                err = bytes_alloc(bytes, head_n + n, &frame);
            if (err)
                break;
            if (as_text) {
                *p = 'b';
                base64_encode((char *)p + 1, payload, n);
            } else {
                memcpy(frame.p, run.p, head_n + n);
            }
            err = outq_push(&c->out, &frame, 1, false);
            slice_unref(&frame);
            run.p += head_n + n;
            run.n -= head_n + n;
        }
    }
    outq_clear(&s->out);
    return err;
}

static void flush(struct session *s)
{
    struct conn *c = s->link;
    if (!c)
        return;
    int done = conn_write(c, s->base64 ? NULL : &s->out);
    if (done > 0 && !outq_empty(&s->out))
        done = move_as_base64(s, c) ? ERR_MEMORY : conn_write(c, NULL);
    if (done < 0)
        session_close_soon(s, CLOSE_TRANSPORT_ERROR);
    s->is_blocked = done == 0;
}

static bool writable(const struct session *s)
{
    return !s->is_blocked && s->link;
}

/* A frame that the connection itself has to say. */
static void put_frame(struct conn *c, enum ws_opcode opcode, const void *payload, size_t n)
{
    uint8_t frame[WS_HEAD_MAX + 125];
    size_t head_n = ws_encode_head(frame, opcode, true, n);
    if (n)
        memcpy(frame + head_n, payload, n);
    if (c->session && !is_candidate(c)) {
        struct slice s;
        if (bytes_alloc(&c->front->engine->bytes, head_n + n, &s))
            return;
        memcpy(s.p, frame, head_n + n);
        session_push(c->session, &s, 1, false);
        slice_unref(&s);
    } else if (is_candidate(c) && c->out.bytes > UNREAD_BYTES) {
        conn_gone(c);
    } else if (conn_put(c, frame, head_n + n)) {
        conn_gone(c);
    } else {
        conn_flush(c);
    }
}

/* status WS_STATUS_NONE: a close frame without a code. */
static void put_close(struct conn *c, unsigned status)
{
    uint8_t code[2] = {(uint8_t)(status >> 8), (uint8_t)status};
    if (c->close_sent)
        return;
    put_frame(c, WS_CLOSE, code, status == WS_STATUS_NONE ? 0 : sizeof(code));
    c->close_sent = true;
}

/* ---- the session's end ---- */

static void close_transport(struct session *s, enum close_reason reason)
{
    struct conn *c = s->link;
    engine_forget(s);
    if (!c)
        return;
    c->session = NULL;
    if (reason == CLOSE_SLOW_CLIENT) {
        conn_abort(c);
        return;
    }
    /* What was queued before the end still goes out, then the close frame. */
    if (s->base64 ? move_as_base64(s, c) : outq_move(&s->out, &c->out)) {
        conn_abort(c);
        return;
    }
    put_close(c, WS_STATUS_NONE);
    if (!c->is_dead)
        conn_end(c);
}

static void resume(struct session *s);

const struct transport ws_transport = {
    .kind = EIO_WEBSOCKET,
    .flush = flush,
    .writable = writable,
    .resume = resume,
    .close = close_transport,
};

/* ---- candidates ---- */

static void drop_candidate(struct conn *c, unsigned status)
{
    struct session *s = c->session;
    put_close(c, status);
    s->candidate = NULL;
    poll_hold(s);
    c->session = NULL;
    if (!c->is_dead)
        conn_end(c);
}

void ws_drop_candidate(struct session *s)
{
    if (s->candidate)
        drop_candidate(s->candidate, WS_STATUS_NONE);
}

static void become_transport(struct conn *c)
{
    struct session *s = c->session;
    s->candidate = NULL;
    s->base64 = c->base64;
    reactor_timer_cancel(c->front->reactor, &c->timer);
    poll_leave(s);
    session_switch_transport(s, &ws_transport, c);
    if (c->relayed && c->front->options.upgraded)
        c->front->options.upgraded(c->front->options.elsewhere_user, c);
}

static void on_probe(struct conn *c, struct span text)
{
    if (span_eq(text, SPAN("2probe"))) {
        put_frame(c, WS_TEXT, "3probe", 6);
        if (!c->is_dead)
            poll_release(c->session);
    } else if (span_eq(text, SPAN("5"))) {
        become_transport(c);
    } else {
        drop_candidate(c, WS_STATUS_NONE);
    }
}

/* ---- reading ---- */

static void on_text(struct conn *c, struct span text)
{
    struct session *s = c->session;
    struct eio_packet packet;
    if (is_candidate(c)) {
        on_probe(c, text);
    } else if (eio_decode(text, &packet)) {
        metrics_add(c->front->metrics, METRIC_DECODE_ERRORS, 1);
        session_close(s, CLOSE_PARSE_ERROR);
    } else {
        session_receive(s, &packet);
    }
}

static void end(struct conn *c, unsigned status, enum close_reason reason)
{
    if (is_candidate(c)) {
        drop_candidate(c, status);
        return;
    }
    put_close(c, status);
    session_close(c->session, reason);
}

static void on_event(struct conn *c, const struct ws_event *event)
{
    struct span data = {(const char *)event->data, event->n};
    switch (event->opcode) {
    case WS_TEXT:
        on_text(c, data);
        break;
    case WS_BINARY:
        if (is_candidate(c))
            drop_candidate(c, WS_STATUS_NONE);
        else
            session_receive_binary(c->session, data);
        break;
    case WS_PING:
        put_frame(c, WS_PONG, event->data, event->n);
        break;
    case WS_CLOSE:
        end(c, event->status, CLOSE_TRANSPORT_CLOSE);
        break;
    default: /* a pong nobody asked for */
        break;
    }
}

/* Who emits faster than emits can be delivered waits for it in its own socket. */
static void pause_if_congested(struct conn *c)
{
    struct session *s = c->session;
    if (!s->engine->congested || !s->emits || is_candidate(c))
        return;
    s->is_paused = true;
    conn_watch(c, c->events & ~(uint32_t)EPOLLIN);
}

static void resume(struct session *s)
{
    struct conn *c = s->link;
    if (c)
        conn_watch(c, c->events | EPOLLIN);
}

static void on_input(struct conn *c, uint8_t *p, size_t n)
{
    struct ws_event event;
    for (;;) {
        int got = ws_reader_next(&c->ws, &p, &n, &event);
        if (got == 0) {
            pause_if_congested(c);
            return;
        }
        if (got < 0) {
            metrics_add(c->front->metrics, METRIC_DECODE_ERRORS, 1);
            end(c, ws_close_status(got), CLOSE_TRANSPORT_ERROR);
            return;
        }
        on_event(c, &event);
        if (c->is_dead || c->role != &ws_role || !c->session)
            return;
    }
}

static void on_drained(struct conn *c)
{
    if (is_candidate(c)) {
        int done = conn_write(c, NULL);
        if (done < 0)
            conn_gone(c);
        else if (done > 0)
            conn_watch(c, EPOLLIN);
        return;
    }
    struct session *s = c->session;
    conn_watch(c, s->is_paused || s->is_arriving ? 0 : (uint32_t)EPOLLIN);
    s->is_blocked = false;
    flush(s);
}

static void on_gone(struct conn *c)
{
    struct session *s = c->session;
    if (!s)
        return;
    c->session = NULL;
    if (s->candidate == c) {
        s->candidate = NULL;
        poll_hold(s);
        return;
    }
    s->link = NULL;
    session_close(s, CLOSE_TRANSPORT_CLOSE);
}

/* Only a candidate has a time to be ready in; sessions have their heartbeat. */
static void on_timeout(struct conn *c)
{
    if (is_candidate(c))
        drop_candidate(c, WS_STATUS_NONE);
}

static void release(struct conn *c)
{
    ws_reader_deinit(&c->ws);
}

const struct conn_role ws_role = {
    .name = "websocket",
    .on_input = on_input,
    .on_drained = on_drained,
    .on_gone = on_gone,
    .on_timeout = on_timeout,
    .release = release,
};

/* ---- the beginning ---- */

static void put_101(struct conn *c, struct span key, struct span protocol, const char *headers)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char joined[24 + sizeof(guid)], head[512 + CORS_HEADERS_MAX], accept[32], line[160] = "";
    unsigned char digest[SHA_DIGEST_LENGTH];
    memcpy(joined, key.p, 24);
    memcpy(joined + 24, guid, sizeof(guid));
    SHA1((unsigned char *)joined, 24 + sizeof(guid) - 1, digest);
    accept[base64_encode(accept, digest, sizeof(digest))] = '\0';
    if (protocol.n && protocol.n < 100)
        snprintf(line, sizeof(line), "Sec-WebSocket-Protocol: %.*s\r\n", (int)protocol.n, protocol.p);
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n%s%s\r\n",
                     accept, line, headers);
    if (conn_put(c, head, (size_t)n))
        conn_abort(c);
}

static void start_candidate(struct conn *c, struct session *s)
{
    bool possible = s->state == SESSION_OPEN && s->transport->kind == EIO_POLLING && !s->candidate;
    if (!possible) {
        put_close(c, WS_STATUS_NONE);
        if (!c->is_dead)
            conn_end(c);
        return;
    }
    c->session = s;
    s->candidate = c;
    conn_timer(c, s->engine->options.upgrade_timeout_ms);
    if (conn_flush(c))
        conn_watch(c, EPOLLIN | (outq_empty(&c->out) ? 0 : (uint32_t)EPOLLOUT));
}

/* ---- sessions that move ---- */

bool ws_is_between_messages(const struct conn *c)
{
    return c->role == &ws_role && !c->is_dead && c->session && !is_candidate(c) && !c->ws.frame &&
           c->ws.held_n == 0;
}

static int append_queue(struct outq *q, struct buffer *out)
{
    int err = 0;
    for (unsigned i = 0; i < q->count && !err; i++) {
        struct span run = outq_at(q, i);
        err = buffer_append(out, run.p, run.n);
    }
    return err;
}

int ws_take_output(struct conn *c, struct buffer *out)
{
    int err = append_queue(&c->out, out);
    return err ? err : append_queue(&c->session->out, out);
}

void ws_adopt(struct conn *c, struct session *s)
{
    conn_set_role(c, &ws_role);
    ws_reader_init(&c->ws, c->front->engine->options.max_payload_bytes);
    c->is_transport = true;
    c->session = s;
    s->peer_ip = c->ip;
    conn_watch(c, outq_empty(&c->out) ? 0 : (uint32_t)EPOLLOUT);
}

void ws_go_on(struct conn *c, uint8_t *input, size_t n)
{
    conn_watch(c, c->events | EPOLLIN);
    if (n > 0)
        on_input(c, input, n);
}

void ws_start(struct conn *c, struct session *s, struct span key, struct span protocol, bool base64,
              bool recovery_off, const char *headers)
{
    struct engine *e = c->front->engine;
    put_101(c, key, protocol, headers);
    if (c->is_dead)
        return;
    conn_set_role(c, &ws_role);
    ws_reader_init(&c->ws, e->options.max_payload_bytes);
    reactor_timer_cancel(c->front->reactor, &c->timer);
    c->base64 = base64;
    if (s) {
        start_candidate(c, s);
        return;
    }
    conn_watch(c, EPOLLIN);
    s = engine_open(e, &ws_transport, c, base64);
    if (!s) {
        conn_abort(c);
        return;
    }
    s->recovery_off = recovery_off;
    s->peer_ip = c->ip;
    c->session = s;
}
