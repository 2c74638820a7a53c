/* A session is one of these, and only session_close() and engine_forget() move it on:
 *
 *   OPEN     heartbeat runs, packets go both ways
 *   CLOSING  the application was told; heartbeat off, nothing is accepted; a polling client without a pending GET
 *            is told by its next one, a WebSocket client when its queue is written
 *   DEAD     out of the table; memory goes at the end of the turn
 */
#include "engine.h"
#include "base64.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include <stdlib.h>

static const char *const reason_texts[] = {
#define X(name, text, metric) text,
#include "close_reason.def"
#undef X
};

static const enum metric reason_metrics[] = {
#define X(name, text, metric) METRIC_##metric,
#include "close_reason.def"
#undef X
};

const char *close_reason_text(enum close_reason reason)
{
    return reason_texts[reason];
}

static enum metric transport_gauge(const struct session *s)
{
    return s->transport->kind == EIO_POLLING ? METRIC_SESSIONS_POLLING : METRIC_SESSIONS_WEBSOCKET;
}

static void flush_dirty(struct reactor_task *task);

struct engine *engine_new(struct reactor *r, struct metrics *m, const struct engine_options *o,
                          const struct engine_app *app, void *app_data, uint32_t tag)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->reactor = r;
    e->metrics = m;
    e->options = *o;
    e->app = app;
    e->app_data = app_data;
    e->dirty_end = &e->dirty;
    e->flush_task.run = flush_dirty;
    id_source_init(&e->ids, tag);
    bytes_init(&e->bytes);
    return e;
}

static void bury_dead(struct engine *e)
{
    while (e->dead) {
        struct session *s = e->dead;
        e->dead = s->dead_next;
        outq_deinit(&s->out);
        free(s);
    }
}

void engine_free(struct engine **ep)
{
    struct engine *e = *ep;
    if (!e)
        return;
    reactor_undefer(e->reactor, &e->flush_task, REACTOR_FLUSH);
    bury_dead(e);
    bytes_deinit(&e->bytes);
    free(e);
    *ep = NULL;
}

unsigned engine_count(const struct engine *e)
{
    return HASH_COUNT(e->sessions);
}

void engine_shutdown(struct engine *e)
{
    struct session *s, *tmp;
    e->shutting_down = true;
    HASH_ITER(hh, e->sessions, s, tmp)
    {
        if (s->state == SESSION_OPEN)
            session_close(s, CLOSE_SHUTDOWN);
        else
            s->transport->close(s, CLOSE_SHUTDOWN); /* ended before, waits to tell its client */
    }
}

bool engine_end_some(struct engine *e, unsigned n)
{
    struct session *s, *tmp;
    HASH_ITER(hh, e->sessions, s, tmp)
    {
        if (s->state != SESSION_OPEN)
            continue;
        if (n-- == 0)
            return true;
        session_close(s, CLOSE_SHUTDOWN);
    }
    return false;
}

/* ---- the queue ---- */

int engine_frame_alloc(struct engine *e, enum ws_opcode opcode, size_t payload_n, struct slice *out,
                       uint8_t **payload)
{
    uint8_t head[WS_HEAD_MAX];
    size_t head_n = ws_encode_head(head, opcode, true, payload_n);
    int err = bytes_alloc(&e->bytes, head_n + payload_n, out);
    if (err)
        return err;
    memcpy(out->p, head, head_n);
    *payload = out->p + head_n;
    return 0;
}

void session_mark_dirty(struct session *s)
{
    struct engine *e = s->engine;
    if (s->is_dirty)
        return;
    s->is_dirty = true;
    s->dirty_next = NULL;
    *e->dirty_end = s;
    e->dirty_end = &s->dirty_next;
    reactor_defer(e->reactor, &e->flush_task, REACTOR_FLUSH);
}

static bool fits(const struct session *s, size_t bytes, uint32_t messages)
{
    const struct engine_options *o = &s->engine->options;
    return outq_empty(&s->out) ||
           (s->out.bytes + bytes <= o->queue_bytes && s->out.messages + messages <= o->queue_messages);
}

/* Is there room for one more? A client that can be written is written first, so that a burst within one turn does
 * not count against it; then volatile messages make room. */
static bool make_room(struct session *s, size_t bytes, uint32_t messages)
{
    if (!s->is_blocked) {
        s->transport->flush(s);
        if (fits(s, bytes, messages))
            return true;
    }
    metrics_add(s->engine->metrics, METRIC_VOLATILE_DROPPED, outq_drop_volatile(&s->out));
    return fits(s, bytes, messages);
}

void session_close_soon(struct session *s, enum close_reason reason)
{
    if (!session_is_open(s))
        return;
    s->is_doomed = true;
    s->end_reason = (uint8_t)reason;
    session_mark_dirty(s);
}

static void overflow(struct session *s)
{
    outq_clear(&s->out);
    session_close_soon(s, CLOSE_SLOW_CLIENT);
}

bool session_push(struct session *s, const struct slice *frames, uint32_t messages, bool is_volatile)
{
    struct metrics *m = s->engine->metrics;
    if (!session_is_open(s))
        return false;
    if (is_volatile && !s->transport->writable(s)) {
        metrics_add(m, METRIC_VOLATILE_DROPPED, messages);
        return false;
    }
    if ((!fits(s, frames->n, messages) && !make_room(s, frames->n, messages)) ||
        outq_push(&s->out, frames, messages, is_volatile)) {
        overflow(s);
        return false;
    }
    s->sent += messages;
    if (!s->is_dirty)
        session_mark_dirty(s);
    return true;
}

/* The ping packet as a whole frame. */
static const uint8_t ping_frame[] = {0x81, 1, '2'};

static void push_static(struct session *s, const uint8_t *frame, size_t n)
{
    struct slice slice = {NULL, (uint8_t *)(uintptr_t)frame, n};
    session_push(s, &slice, 1, false);
}

void session_send(struct session *s, struct span head, struct span body)
{
    struct slice frame;
    uint8_t *p;
    if (engine_frame_alloc(s->engine, WS_TEXT, head.n + body.n, &frame, &p)) {
        overflow(s);
        return;
    }
    memcpy(p, head.p, head.n);
    if (body.n)
        memcpy(p + head.n, body.p, body.n);
    session_push(s, &frame, 1, false);
    slice_unref(&frame);
}

/* The end of a turn: each client that has something new is written once. */
static void flush_dirty(struct reactor_task *task)
{
    struct engine *e = container_of(task, struct engine, flush_task);
    while (e->dirty) {
        struct session *s = e->dirty;
        e->dirty = s->dirty_next;
        if (!e->dirty)
            e->dirty_end = &e->dirty;
        s->is_dirty = false;
        if (s->state != SESSION_OPEN)
            continue;
        if (!s->is_doomed && !s->is_blocked && !outq_empty(&s->out))
            s->transport->flush(s);
        if (s->is_doomed)
            session_close(s, (enum close_reason)s->end_reason);
        else if (s->is_blocked)
            outq_compact(&s->out);
    }
    bury_dead(e);
}

/* ---- heartbeat ---- */

static void schedule_ping(struct session *s)
{
    s->awaits_pong = false;
    reactor_timer_set(s->engine->reactor, &s->heartbeat, s->engine->options.ping_interval_ms);
}

static void on_heartbeat(struct timer *t)
{
    struct session *s = container_of(t, struct session, heartbeat);
    /* The pong of a client that is not read may well be there. */
    if (s->awaits_pong && s->is_paused) {
        reactor_timer_set(s->engine->reactor, t, s->engine->options.ping_timeout_ms);
        return;
    }
    if (s->awaits_pong) {
        session_close(s, CLOSE_PING_TIMEOUT);
        return;
    }
    s->awaits_pong = true;
    reactor_timer_set(s->engine->reactor, t, s->engine->options.ping_timeout_ms);
    if (s->engine->app->on_ping)
        s->engine->app->on_ping(s);
    push_static(s, ping_frame, sizeof(ping_frame));
}

/* ---- life ---- */

static void queue_open_packet(struct session *s)
{
    const struct engine_options *o = &s->engine->options;
    char text[EIO_HANDSHAKE_MAX];
    size_t n = eio_encode_handshake(text, &(struct eio_handshake){
                                              .sid = s->sid,
                                              .upgrade = s->transport->kind == EIO_POLLING && o->websocket,
                                              .ping_interval_ms = o->ping_interval_ms,
                                              .ping_timeout_ms = o->ping_timeout_ms,
                                              .max_payload_bytes = o->max_payload_bytes,
                                          });
    session_send(s, (struct span){text, n}, (struct span){"", 0});
}

static struct session *new_session(struct engine *e, const struct transport *transport, void *link)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->engine = e;
    s->transport = transport;
    s->link = link;
    outq_init(&s->out);
    timer_init(&s->heartbeat, on_heartbeat);
    s->opened_ms = reactor_now_ms(e->reactor);
    return s;
}

static void begin_session(struct session *s)
{
    struct engine *e = s->engine;
    HASH_ADD(hh, e->sessions, sid, ID_CHARS, s);
    metrics_add(e->metrics, transport_gauge(s), 1);
    schedule_ping(s);
}

static void tell_app(struct session *s)
{
    if (s->engine->app->on_open(s) < 0)
        session_close_soon(s, CLOSE_FORCED);
}

struct session *engine_open(struct engine *e, const struct transport *transport, void *link, bool base64)
{
    struct session *s = new_session(e, transport, link);
    if (!s)
        return NULL;
    s->base64 = base64;
    id_new(&e->ids, s->sid);
    metrics_add(e->metrics, METRIC_SESSIONS_OPENED, 1);
    begin_session(s);
    queue_open_packet(s);
    tell_app(s);
    return s;
}

struct session *engine_adopt(struct engine *e, const struct transport *transport, void *link,
                             const char sid[ID_CHARS])
{
    struct session *s = engine_find(e, (struct span){sid, ID_CHARS}) ? NULL : new_session(e, transport, link);
    if (!s)
        return NULL;
    memcpy(s->sid, sid, ID_CHARS);
    begin_session(s);
    tell_app(s);
    return s;
}

struct session *engine_find(struct engine *e, struct span sid)
{
    struct session *s = NULL;
    if (sid.n != ID_CHARS)
        return NULL;
    HASH_FIND(hh, e->sessions, sid.p, ID_CHARS, s);
    if (!s)
        return NULL;
    /* The timer may be due in this very turn: a request that comes too late must not be answered as if in time. */
    bool overdue =
        s->state == SESSION_OPEN && s->awaits_pong && s->heartbeat.at_ms <= reactor_now_ms(e->reactor);
    if (overdue) {
        session_close(s, CLOSE_PING_TIMEOUT);
        return NULL;
    }
    return s;
}

void session_close(struct session *s, enum close_reason reason)
{
    struct engine *e = s->engine;
    if (s->state != SESSION_OPEN)
        return;
    s->state = SESSION_CLOSING;
    s->end_reason = (uint8_t)reason;
    reactor_timer_cancel(e->reactor, &s->heartbeat);
    metrics_add(e->metrics, reason_metrics[reason], 1);
    metrics_sub(e->metrics, transport_gauge(s), 1);
    log_event(LOG_DEBUG, "session_closed", LOG_SPAN("sid", ((struct span){s->sid, 7})),
              LOG_TEXT("reason", reason_texts[reason]));
    e->app->on_close(s, reason);
    s->app = NULL;
    s->transport->close(s, reason);
}

void engine_forget(struct session *s)
{
    struct engine *e = s->engine;
    if (s->state == SESSION_DEAD)
        return;
    s->state = SESSION_DEAD;
    HASH_DEL(e->sessions, s);
    s->link = NULL;
    s->dead_next = e->dead;
    e->dead = s;
    reactor_defer(e->reactor, &e->flush_task, REACTOR_FLUSH);
}

/* Rare, so a walk over all sessions is cheap enough. */
void engine_set_congested(struct engine *e, bool congested)
{
    struct session *s, *tmp;
    e->congested = congested;
    if (congested) {
        metrics_add(e->metrics, METRIC_CONGESTIONS, 1);
        return;
    }
    HASH_ITER(hh, e->sessions, s, tmp)
    {
        s->emits = false;
        if (!s->is_paused)
            continue;
        s->is_paused = false;
        if (s->state != SESSION_OPEN)
            continue;
        s->transport->resume(s);
        if (s->awaits_pong) /* its time begins now that it is read again */
            reactor_timer_set(e->reactor, &s->heartbeat, e->options.ping_timeout_ms);
    }
}

/* ---- packets ---- */

static void receive_message(struct session *s, const struct eio_packet *packet)
{
    int err = 0;
    s->received++;
    if (packet->base64) {
        char *raw = malloc(packet->data.n / 4 * 3 + 3);
        ssize_t n = raw ? base64_decode(raw, packet->data.p, packet->data.n) : ERR_MEMORY;
        err = n < 0 ? (int)n : s->engine->app->on_binary(s, (struct span){raw, (size_t)n});
        free(raw);
    } else {
        err = s->engine->app->on_text(s, packet->data);
    }
    if (err < 0) {
        metrics_add(s->engine->metrics, METRIC_DECODE_ERRORS, 1);
        session_close(s, CLOSE_PARSE_ERROR);
    }
}

void session_receive(struct session *s, const struct eio_packet *packet)
{
    if (!session_is_open(s))
        return;
    switch (packet->type) {
    case EIO_MESSAGE:
        receive_message(s, packet);
        break;
    case EIO_PONG:
        schedule_ping(s);
        break;
    case EIO_CLOSE:
        session_close(s, CLOSE_TRANSPORT_CLOSE);
        break;
    case EIO_PING: /* wrong direction in v4 */
        session_close(s, CLOSE_TRANSPORT_ERROR);
        break;
    case EIO_OPEN:
    case EIO_UPGRADE:
    case EIO_NOOP:
        break;
    }
}

void session_receive_binary(struct session *s, struct span data)
{
    if (!session_is_open(s))
        return;
    s->received++;
    if (s->engine->app->on_binary(s, data) < 0) {
        metrics_add(s->engine->metrics, METRIC_DECODE_ERRORS, 1);
        session_close(s, CLOSE_PARSE_ERROR);
    }
}

void session_switch_transport(struct session *s, const struct transport *transport, void *link)
{
    struct metrics *m = s->engine->metrics;
    metrics_sub(m, transport_gauge(s), 1);
    s->transport = transport;
    s->link = link;
    s->is_blocked = false;
    metrics_add(m, transport_gauge(s), 1);
    metrics_add(m, METRIC_UPGRADES, 1);
    /* A pong that was lost with the old transport must not end the session; the next ping comes in its time. */
    schedule_ping(s);
    if (!outq_empty(&s->out))
        session_mark_dirty(s);
}
