#include "session.h"
#include "util.h"
#include "wire.h"

#include <stdio.h>

#define OPENING_AT_A_TIME 64

static const char *const STATE_NAMES[] = {
    [SESSION_CLOSED] = "closed",
    [SESSION_UPGRADING] = "waiting for 101",
    [SESSION_OPENING] = "waiting for the open packet (NATS: INFO)",
    [SESSION_CONNECTING] = "waiting for the answer to CONNECT",
    [SESSION_JOINING] = "waiting for the answer to bus:join (NATS: SUB)",
    [SESSION_READY] = "ready",
};

static _Noreturn void die_unexpected(const struct session *s, const char *text, size_t n)
{
    die("session %u, %s: unexpected \"%.*s\"", s->index, STATE_NAMES[s->state], (int)(n < 200 ? n : 200),
        text);
}

void session_send(struct session *s, const void *p, size_t n)
{
    uint8_t head[WIRE_BINARY_HEAD_MAX];
    if (s->dialect == WIRE_NATS)
        io_send_with_head(&s->io, head, wire_binary_head(head, n), p, n);
    else
        io_send(&s->io, p, n);
}

static void send_text(struct session *s, const char *text)
{
    uint8_t frame[WIRE_FRAME_MAX];
    if (s->dialect == WIRE_NATS) {
        session_send(s, text, strlen(text));
        return;
    }
    io_send(&s->io, frame, wire_client_frame(frame, text, strlen(text)));
}

static void become_ready(struct session *s)
{
    s->state = SESSION_READY;
    if (s->events->on_ready)
        s->events->on_ready(s);
}

static void on_connected(struct session *s)
{
    const char role = (char)s->role;
    char text[WIRE_FRAME_MAX / 2];
    if (s->dialect == WIRE_BARE ? s->role == BARE_NONE : s->room == NULL) {
        become_ready(s);
        return;
    }
    s->state = SESSION_JOINING;
    switch (s->dialect) {
    case WIRE_BARE:
        io_send(&s->io, &role, 1);
        return;
    case WIRE_NATS:
        snprintf(text, sizeof(text), "SUB %s 1\r\nPING\r\n", s->room);
        break;
    case WIRE_SOCKETIO:
        snprintf(text, sizeof(text), "420[\"bus:join\",\"%s\"]", s->room);
        break;
    }
    send_text(s, text);
}

static bool starts_with(const char *text, size_t n, const char *start)
{
    size_t start_n = strlen(start);
    return n >= start_n && !memcmp(text, start, start_n);
}

/* Everything that is not an event of ours. The bus's own events (bus:offset) may come at any time. */
static void on_text(struct session *s, const char *text, size_t n)
{
    if (starts_with(text, n, "2"))
        send_text(s, "3");
    else if (starts_with(text, n, "42[\"bus:gap\""))
        die("the server lost events: %.*s", (int)n, text);
    else if (s->state == SESSION_OPENING && starts_with(text, n, "0{")) {
        s->state = SESSION_CONNECTING;
        if (s->dialect != WIRE_BARE)
            send_text(s, "40");
    } else if (s->state == SESSION_CONNECTING && starts_with(text, n, "40{\"sid\":\"")) {
        if (n > sizeof("40{\"sid\":\"") + SESSION_TAG)
            memcpy(s->tag, text + sizeof("40{\"sid\":\"") - 1, SESSION_TAG);
        on_connected(s);
    } else if (s->state == SESSION_JOINING && starts_with(text, n, "430[{\"ok\":true"))
        become_ready(s);
    else if (s->state < SESSION_CONNECTING || !starts_with(text, n, "42"))
        die_unexpected(s, text, n);
}

/* True when the answer's head is complete; the cursor is then behind it. */
static bool take_head(struct session *s, struct wire_cursor *c)
{
    const char *head = (const char *)c->p;
    size_t have = (size_t)(c->end - c->p);
    const char *blank = memmem(head, have, "\r\n\r\n", 4);
    if (!blank)
        return false;
    size_t n = (size_t)(blank - head) + 4;
    if (!starts_with(head, n, "HTTP/1.1 101 ") ||
        !memmem(head, n, WIRE_WS_ACCEPT, sizeof(WIRE_WS_ACCEPT) - 1))
        die_unexpected(s, head, n);
    c->p += n;
    s->state = SESSION_OPENING;
    return true;
}

/* The lines of NATS that are no MSG. */
static void on_nats_line(struct session *s, const char *line, size_t n)
{
    static const char HELLO[] =
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\","
        "\"protocol\":1,\"echo\":false}\r\nPING\r\n";
    if (starts_with(line, n, "PING")) {
        send_text(s, "PONG\r\n");
    } else if (s->state == SESSION_OPENING && starts_with(line, n, "INFO ")) {
        s->state = SESSION_CONNECTING;
        send_text(s, HELLO);
    } else if (s->state == SESSION_CONNECTING && starts_with(line, n, "PONG")) {
        on_connected(s);
    } else if (s->state == SESSION_JOINING && starts_with(line, n, "PONG")) {
        become_ready(s);
    } else if (!starts_with(line, n, "INFO ")) { /* a node that comes to the cluster is told by INFO */
        die_unexpected(s, line, n);
    }
}

static void take_nats(struct session *s, struct wire_cursor *c)
{
    struct wire_nats m;
    int got;
    while ((got = wire_next_nats(c, &m)) > 0) {
        if (!m.payload)
            on_nats_line(s, m.line, m.line_n);
        else if (m.payload_n == WIRE_PAYLOAD_BYTES && s->events->on_event)
            s->events->on_event(s, wire_payload_seq(m.payload), m.payload, m.payload_n);
        else
            die_unexpected(s, m.line, m.line_n);
        if (s->state == SESSION_CLOSED)
            return;
    }
    if (got < 0)
        die_unexpected(s, m.line, m.line_n);
}

/* NATS sends a stream in frames that may end anywhere: their contents are moved together in place. What is left of the
 * stream is kept as a frame of its own before what is left of the frames. */
static void take_stream(struct session *s, struct wire_cursor *c)
{
    uint8_t *start = (uint8_t *)(uintptr_t)c->p, *end = start, head[WIRE_BINARY_HEAD_MAX];
    const char *part;
    size_t n;
    int got;
    while ((got = wire_next(c, &part, &n)) > 0) {
        memmove(end, part, n);
        end += n;
    }
    if (got < 0)
        die("session %u, %s: a frame came that is not binary data (first byte 0x%02x)", s->index,
            STATE_NAMES[s->state], c->p[0]);
    struct wire_cursor stream = {start, end};
    take_nats(s, &stream);
    if (s->state == SESSION_CLOSED)
        return;
    n = (size_t)(stream.end - stream.p);
    if (n > 0) {
        io_keep(&s->io, head, wire_server_head(head, n));
        io_keep(&s->io, stream.p, n);
    }
    io_keep(&s->io, c->p, (size_t)(c->end - c->p));
}

static void take_frames(struct session *s, struct wire_cursor *c)
{
    const char *text;
    size_t n;
    int got;
    while ((got = wire_next(c, &text, &n)) > 0) {
        if (wire_is_event(text, n) && s->events->on_event)
            s->events->on_event(s, wire_event_seq(text), text, n);
        else if (s->state == SESSION_READY && s->events->on_acknowledged && starts_with(text, n, "43"))
            s->events->on_acknowledged(s, text, n);
        else
            on_text(s, text, n);
        if (s->state == SESSION_CLOSED)
            return;
    }
    if (got < 0)
        die("session %u, %s: a frame that is no plain text came (first byte 0x%02x)", s->index,
            STATE_NAMES[s->state], c->p[0]);
    io_keep(&s->io, c->p, (size_t)(c->end - c->p));
}

static void on_readable(struct io *io, struct loop *loop)
{
    struct session *s = (struct session *)io;
    struct wire_cursor c;
    size_t n = io_read(io, loop, &c.p);
    if (n == 0)
        die("session %u, %s: the server closed the connection", s->index, STATE_NAMES[s->state]);
    c.end = c.p + n;
    if (s->state == SESSION_UPGRADING && !take_head(s, &c))
        io_keep(io, c.p, n);
    else if (s->dialect == WIRE_NATS)
        take_stream(s, &c);
    else
        take_frames(s, &c);
    if (s->events->after_read)
        s->events->after_read(s);
}

void session_open(struct session *s)
{
    char request[WIRE_FRAME_MAX];
    s->io.on_readable = on_readable;
    s->state = SESSION_UPGRADING;
    s->received = 0;
    s->opened_ns = now_ns();
    uint16_t port = s->loop->ports[s->node];
    loop_connect(s->loop, &s->io, port);
    io_send(&s->io, request,
            s->dialect == WIRE_NATS ? wire_nats_request(request, port) : wire_upgrade_request(request, port));
}

void session_close(struct session *s)
{
    loop_close(&s->io);
    s->state = SESSION_CLOSED;
}

void session_open_all(struct session *sessions, unsigned count)
{
    /* All before first are ready, all from next on are not begun. */
    unsigned first = 0, next = 0;
    while (first < count) {
        while (next < count && next - first < OPENING_AT_A_TIME)
            session_open(&sessions[next++]);
        if (!loop_turn(sessions->loop, 0))
            die("session %u of %u: nothing came in time while %s", first, count,
                STATE_NAMES[sessions[first].state]);
        while (first < next && sessions[first].state == SESSION_READY)
            first++;
    }
}
