/* A bus in memory for tests and fuzzing: reactor, engine and hub, and sinks, which are clients whose
 * transport keeps what it is given. A sink takes everything at once, or only as much as it has room for, or
 * fails. */
#ifndef STARLING_TESTS_SINK_H
#define STARLING_TESTS_SINK_H

#include "client.h"
#include "engine.h"
#include "hub.h"
#include "must.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- the bus ---- */

struct world {
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct engine *engine;
};

static inline struct engine_options world_engine_options(void)
{
    return (struct engine_options){
        .ping_interval_ms = 25000,
        .ping_timeout_ms = 20000,
        .upgrade_timeout_ms = 10000,
        .poll_grace_ms = 30000,
        .max_payload_bytes = 1000000,
        .queue_bytes = 1 << 20,
        .queue_messages = 1000,
        .polling = true,
        .websocket = true,
    };
}

/* app NULL: Socket.IO. */
static inline void world_start(struct world *w, const struct engine_app *app, const char *namespaces)
{
    struct engine_options engine_options = world_engine_options();
    struct hub_options hub_options = {
        .origin = "test-1", .namespaces = namespaces, .connect_timeout_ms = 45000};
    w->reactor = reactor_new();
    w->metrics = metrics_new();
    MUST(w->reactor && w->metrics);
    w->hub = hub_new(w->reactor, w->metrics, &hub_options);
    MUST(w->hub);
    w->engine =
        engine_new(w->reactor, w->metrics, &engine_options, app ? app : &client_app, w->hub, 0x123456);
    MUST(w->engine);
    w->hub->engine = w->engine;
}

/* One turn of the loop, without waiting. */
static inline void world_turn(struct world *w)
{
    reactor_stop(w->reactor);
    MUST(reactor_run(w->reactor) == 0);
}

struct world_pause {
    struct timer timer;
    struct world *world;
};

static inline void world_on_pause(struct timer *t)
{
    reactor_stop(((struct world_pause *)(void *)t)->world->reactor);
}

/* Runs the loop until the condition holds; the limit is for failing runs only. */
static inline void world_until(struct world *w, bool (*holds)(void *arg), void *arg)
{
    uint64_t limit = reactor_now_ms(w->reactor) + 60000;
    while (!holds(arg)) {
        struct world_pause pause = {.world = w};
        timer_init(&pause.timer, world_on_pause);
        reactor_timer_set(w->reactor, &pause.timer, 1);
        MUST(reactor_run(w->reactor) == 0);
        reactor_timer_cancel(w->reactor, &pause.timer);
        MUST(reactor_now_ms(w->reactor) < limit);
    }
}

/* Everything has ended, so every gauge is back at 0 and the sanitizer finds no leak. */
static inline void world_stop(struct world *w)
{
    engine_shutdown(w->engine);
    world_turn(w);
    MUST(engine_count(w->engine) == 0);
    MUST(metrics_get(w->metrics, METRIC_SESSIONS_POLLING) == 0);
    MUST(metrics_get(w->metrics, METRIC_SESSIONS_WEBSOCKET) == 0);
    MUST(metrics_get(w->metrics, METRIC_SOCKETS) == 0);
    hub_free(&w->hub); /* drops the emits under way, and with them the last rooms */
    MUST(metrics_get(w->metrics, METRIC_ROOMS) == 0);
    MUST(metrics_get(w->metrics, METRIC_NAMESPACES) == 0);
    engine_free(&w->engine);
    reactor_free(&w->reactor);
    metrics_free(&w->metrics);
}

/* ---- sinks ---- */

struct sink {
    struct session *session; /* NULL once it is forgotten */
    uint8_t *data;           /* frames that were written */
    size_t n, cap;
    size_t read;  /* how far the test has read them */
    size_t room;  /* bytes that it still takes */
    bool fails;   /* its connection is broken */
    bool lingers; /* keeps a closed session, as polling does, until sink_forget() */
    unsigned flushes, closes, resumes;
    enum close_reason reason;
};

static inline void sink_take(struct sink *k, const void *p, size_t n)
{
    if (k->n + n > k->cap) {
        k->cap = k->cap ? k->cap : 64;
        while (k->cap < k->n + n)
            k->cap *= 2;
        k->data = realloc(k->data, k->cap);
        MUST(k->data);
    }
    memcpy(k->data + k->n, p, n);
    k->n += n;
}

static inline void sink_drain(struct sink *k, struct outq *q)
{
    while (!outq_empty(q) && k->room > 0) {
        struct iovec iov[4];
        int n = outq_iov(q, iov, 4);
        size_t taken = 0;
        for (int i = 0; i < n && k->room > 0; i++) {
            size_t take = iov[i].iov_len < k->room ? iov[i].iov_len : k->room;
            sink_take(k, iov[i].iov_base, take);
            k->room -= k->room == SIZE_MAX ? 0 : take;
            taken += take;
        }
        outq_advance(q, taken);
    }
}

static inline void sink_flush(struct session *s)
{
    struct sink *k = s->link;
    MUST(k->closes == 0);
    k->flushes++;
    if (k->fails) {
        session_close_soon(s, CLOSE_TRANSPORT_ERROR);
        return;
    }
    sink_drain(k, &s->out);
    s->is_blocked = !outq_empty(&s->out);
}

static inline bool sink_writable(const struct session *s)
{
    return !s->is_blocked;
}

static inline void sink_resume(struct session *s)
{
    ((struct sink *)s->link)->resumes++;
}

static inline void sink_forget(struct sink *k)
{
    engine_forget(k->session);
    k->session = NULL;
}

static inline void sink_close(struct session *s, enum close_reason reason)
{
    struct sink *k = s->link;
    k->closes++;
    k->reason = reason;
    MUST(k->closes == 1);
    if (!k->fails && reason != CLOSE_SLOW_CLIENT)
        sink_drain(k, &s->out);
    if (!k->lingers)
        sink_forget(k);
}

#define SINK_TRANSPORT(eio_kind)                                                                             \
    {                                                                                                        \
        .kind = (eio_kind), .flush = sink_flush, .writable = sink_writable, .resume = sink_resume,           \
        .close = sink_close                                                                                  \
    }

static const struct transport sink_ws = SINK_TRANSPORT(EIO_WEBSOCKET);
static const struct transport sink_polling = SINK_TRANSPORT(EIO_POLLING);

static inline void sink_open_on(struct world *w, struct sink *k, const struct transport *transport)
{
    *k = (struct sink){.room = SIZE_MAX};
    k->session = engine_open(w->engine, transport, k, false);
    MUST(k->session);
}

static inline void sink_open(struct world *w, struct sink *k)
{
    sink_open_on(w, k, &sink_ws);
}

static inline void sink_free(struct sink *k)
{
    free(k->data);
    k->data = NULL;
    k->n = k->cap = k->read = 0;
}

/* Its client goes, if it is still there. */
static inline void sink_end(struct sink *k)
{
    if (k->session)
        session_close(k->session, CLOSE_TRANSPORT_CLOSE);
    sink_free(k);
}

/* From now on takes that much more, and goes on by itself like a transport that can write again. */
static inline void sink_allow(struct sink *k, size_t bytes)
{
    k->room = bytes;
    if (!k->session || k->session->state != SESSION_OPEN)
        return;
    k->session->is_blocked = false;
    sink_flush(k->session);
}

static inline void sink_block(struct sink *k)
{
    k->room = 0;
}

static inline void sink_unblock(struct sink *k)
{
    sink_allow(k, SIZE_MAX);
}

struct sink_frame {
    enum ws_opcode opcode;
    struct span payload;
};

/* The next complete frame that was written; false when there is none. */
static inline bool sink_next(struct sink *k, struct sink_frame *frame)
{
    if (k->n - k->read < 2)
        return false;
    const uint8_t *p = k->data + k->read;
    size_t length_n = (p[1] & 127) < 126 ? 0 : (p[1] & 127) == 126 ? 2 : 8;
    if (k->n - k->read < 2 + length_n)
        return false;
    size_t n, head_n = ws_own_head(p, &frame->opcode, &n);
    if (k->n - k->read < head_n + n)
        return false;
    frame->payload = (struct span){(const char *)p + head_n, n};
    k->read += head_n + n;
    return true;
}

/* The payload of the next text frame; "" when there is none. */
static inline struct span sink_text(struct sink *k)
{
    struct sink_frame frame;
    if (!sink_next(k, &frame))
        return SPAN("");
    MUST(frame.opcode == WS_TEXT);
    return frame.payload;
}

/* Drops what has come so far. */
static inline void sink_skip(struct sink *k)
{
    k->read = k->n = 0;
}

/* ---- clients ---- */

/* An Engine.IO message of the client. */
static inline void sink_says_span(struct sink *k, struct span text)
{
    struct eio_packet packet = {.type = EIO_MESSAGE, .data = text};
    session_receive(k->session, &packet);
}

static inline void sink_says(struct sink *k, const char *text)
{
    sink_says_span(k, span_of(text));
}

/* Connects to a namespace ("/" or "/name") and returns the socket. Whatever has come before is dropped. */
static inline struct socket *sink_connect(struct world *w, struct sink *k, const char *nsp)
{
    char text[300];
    snprintf(text, sizeof(text), "0%s%s", nsp[1] ? nsp : "", nsp[1] ? "," : "");
    sink_flush(k->session);
    sink_skip(k);
    sink_says(k, text);
    sink_flush(k->session);
    struct span answer = sink_text(k);
    const char *sid = memmem(answer.p, answer.n, "{\"sid\":\"", 8);
    MUST(sid);
    struct socket *s = nsp_find(hub_find(w->hub, span_of(nsp)), (struct span){sid + 8, ID_CHARS});
    MUST(s);
    return s;
}

/* A new client that is connected to a namespace and has read everything. */
static inline struct socket *sink_enter(struct world *w, struct sink *k, const char *nsp)
{
    sink_open(w, k);
    return sink_connect(w, k, nsp);
}

#endif
