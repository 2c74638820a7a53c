/* Long-polling: `members` sessions in one room, each with a keep-alive connection and a GET that waits there.
 * An emit of a WebSocket client releases them all; each answer holds that one event and is followed by the
 * next GET. When the last has been answered the next emit is sent. One poll is one GET that was answered with
 * one event. */
#include "measure.h"
#include "util.h"
#include "wire.h"

#include <stdio.h>
#include <string.h>

enum poll_state {
    POLL_OPENING,         /* GET without a sid */
    POLL_POSTING_CONNECT, /* POST 40 */
    POLL_CONNECTING,      /* GET, 40{...} is due */
    POLL_POSTING_JOIN,
    POLL_JOINING, /* GET, 430[...] is due */
    POLL_READY,   /* GET, an event is due */
    POLL_PONGING, /* POST 3 */
};

struct poll;

struct poller {
    struct io io;
    struct poll *poll;
    enum poll_state state;
    uint32_t index;
    uint64_t received;
    char sid[WIRE_SID_MAX];
};

struct poll {
    struct measure *measure;
    struct run run;
    struct poller *pollers;
    struct session publisher;
    struct wire_emitter emitter;
    unsigned ready;
    uint64_t next_seq;
    unsigned missing;
    uint64_t published_ns;
    uint64_t done;
    struct hist times;
};

static _Noreturn void die_unexpected(const struct poller *p, const char *text, size_t n)
{
    die("poller %u in state %d: unexpected \"%.*s\"", p->index, (int)p->state, (int)(n < 300 ? n : 300),
        text);
}

static void send_get(struct poller *p, enum poll_state state)
{
    char request[WIRE_FRAME_MAX];
    p->state = state;
    io_send(&p->io, request, wire_poll_request(request, p->poll->measure->loop.ports[0], p->sid));
}

static void send_post(struct poller *p, const char *body, enum poll_state state)
{
    char request[WIRE_FRAME_MAX];
    p->state = state;
    io_send(&p->io, request, wire_post_request(request, p->poll->measure->loop.ports[0], p->sid, body));
}

static void become_ready(struct poller *p)
{
    p->poll->ready++;
    send_get(p, POLL_READY);
}

static void on_event(struct poller *p, const char *text, size_t n)
{
    struct poll *poll = p->poll;
    if (wire_event_seq(text) != p->received || p->received >= poll->next_seq)
        die_unexpected(p, text, n);
    p->received++;
    poll->missing--;
    if (poll->run.measuring)
        hist_add(&poll->times, poll->measure->loop.now_ns - poll->published_ns);
}

static void take_sid(struct poller *p, const char *body, size_t n)
{
    static const char START[] = "0{\"sid\":\"";
    const size_t start_n = sizeof(START) - 1;
    const char *end = n > start_n ? memchr(body + start_n, '"', n - start_n) : NULL;
    if (!end || memcmp(body, START, start_n) || (size_t)(end - body) - start_n >= WIRE_SID_MAX)
        die_unexpected(p, body, n);
    memcpy(p->sid, body + start_n, (size_t)(end - body) - start_n);
}

/* The packets of a GET's answer. Sends what follows: a POST for a ping, else the next GET. */
static void take_packets(struct poller *p, const char *body, size_t n)
{
    enum poll_state next = p->state;
    bool ping = false;
    for (const char *end = body + n; body < end;) {
        const char *separator = memchr(body, 0x1e, (size_t)(end - body));
        size_t packet_n = (size_t)((separator ? separator : end) - body);
        if (wire_is_event(body, packet_n))
            on_event(p, body, packet_n);
        else if (packet_n == 1 && *body == '2')
            ping = true;
        else if (p->state == POLL_CONNECTING && packet_n > 3 && !memcmp(body, "40{", 3))
            next = POLL_POSTING_JOIN;
        else if (p->state == POLL_JOINING && packet_n > 14 && !memcmp(body, "430[{\"ok\":true", 14))
            next = POLL_READY;
        else if (packet_n < 7 || memcmp(body, "42[\"bus", 7))
            die_unexpected(p, body, packet_n);
        body += packet_n + 1;
    }
    if (next == POLL_POSTING_JOIN)
        send_post(p, "420[\"bus:join\",\"bench\"]", POLL_POSTING_JOIN);
    else if (next == POLL_READY && p->state == POLL_JOINING)
        become_ready(p);
    else if (ping)
        send_post(p, "3", POLL_PONGING);
    else
        send_get(p, p->state);
}

static void on_answer(struct poller *p, const char *body, size_t n)
{
    switch (p->state) {
    case POLL_OPENING:
        if (p->poll->measure->dialect == WIRE_BARE) {
            become_ready(p);
            return;
        }
        take_sid(p, body, n);
        send_post(p, "40", POLL_POSTING_CONNECT);
        return;
    case POLL_POSTING_CONNECT:
        send_get(p, POLL_CONNECTING);
        return;
    case POLL_POSTING_JOIN:
        send_get(p, POLL_JOINING);
        return;
    case POLL_PONGING:
        send_get(p, POLL_READY);
        return;
    case POLL_CONNECTING:
    case POLL_JOINING:
    case POLL_READY:
        take_packets(p, body, n);
        return;
    }
}

static void on_readable(struct io *io, struct loop *loop)
{
    struct poller *p = (struct poller *)io;
    struct wire_cursor c;
    const char *body;
    size_t n = io_read(io, loop, &c.p);
    if (n == 0)
        die("poller %u in state %d: the server closed the connection", p->index, (int)p->state);
    c.end = c.p + n;
    int got = wire_next_answer(&c, &body, &n);
    if (got < 0)
        die_unexpected(p, (const char *)c.p, (size_t)(c.end - c.p));
    if (got == 0)
        io_keep(io, c.p, (size_t)(c.end - c.p));
    else if (c.p != c.end)
        die("poller %u: bytes behind the answer", p->index);
    else
        on_answer(p, body, n);
}

static void turn(struct poll *poll)
{
    if (!loop_turn(&poll->measure->loop, 0))
        die("%u of %u pollers are ready, %u answers did not come in time", poll->ready,
            poll->measure->members, poll->missing);
}

static void open_all(struct poll *poll)
{
    static const struct session_events EVENTS = {.on_ready = NULL};
    struct measure *m = poll->measure;
    poll->pollers = must_alloc(m->members, sizeof(*poll->pollers));
    for (unsigned i = 0; i < m->members; i++) {
        struct poller *p = &poll->pollers[i];
        *p = (struct poller){.io.on_readable = on_readable, .poll = poll, .index = i};
        loop_connect(&m->loop, &p->io, m->loop.ports[0]);
        send_get(p, POLL_OPENING);
        while (i - poll->ready >= 64)
            turn(poll);
    }
    while (poll->ready < m->members)
        turn(poll);
    poll->publisher =
        (struct session){.loop = &m->loop, .events = &EVENTS, .role = BARE_PUBLISHER, .dialect = m->dialect};
    session_open_all(&poll->publisher, 1);
}

static void play_round(struct poll *poll)
{
    uint8_t frame[WIRE_FRAME_MAX];
    size_t n = wire_emitter_write(&poll->emitter, frame, poll->next_seq++);
    poll->missing = poll->measure->members;
    poll->published_ns = now_ns();
    session_send(&poll->publisher, frame, n);
    while (poll->missing > 0)
        turn(poll);
    if (poll->run.measuring)
        poll->done += poll->measure->members;
}

void measure_poll(struct measure *m)
{
    struct poll *poll = must_alloc(1, sizeof(*poll));
    poll->measure = m;
    if (m->dialect == WIRE_BARE)
        wire_emitter_init_bare_poll(&poll->emitter);
    else
        wire_emitter_init(&poll->emitter, m->dialect, "bench");
    open_all(poll);
    run_begin(&poll->run, m);
    do
        play_round(poll);
    while (!run_over(&poll->run));

    report_begin(m);
    report_usage(&poll->run.used, poll->done, "poll");
    report("polls_per_cpu_s", (double)poll->done / ((double)poll->run.used.cpu_ns / (double)NS_PER_S));
    report_quantiles("latency", &poll->times);
    report_end();
}
