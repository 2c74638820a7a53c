/* Sessions over an in-memory transport: the open packet, the heartbeat, packets, slow clients, and every way
 * to end. */
#include "base64.h"
#include "err.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct world w;

/* What the application was told, and what it does. */
static struct {
    unsigned opened, texts, binaries, closed;
    enum close_reason reason;
    char last[128];
    int answer; /* of on_open, on_text and on_binary */
    void (*on_text)(struct session *s);
} app;

static int on_open(struct session *s)
{
    (void)s;
    app.opened++;
    return app.answer;
}

static int keep(struct span data)
{
    size_t n = data.n < sizeof(app.last) ? data.n : sizeof(app.last) - 1;
    memcpy(app.last, data.p, n);
    app.last[n] = '\0';
    return app.answer;
}

static int on_text(struct session *s, struct span text)
{
    app.texts++;
    if (app.on_text)
        app.on_text(s);
    return keep(text);
}

static int on_binary(struct session *s, struct span data)
{
    (void)s;
    app.binaries++;
    return keep(data);
}

static void on_close(struct session *s, enum close_reason reason)
{
    (void)s;
    app.closed++;
    app.reason = reason;
}

static const struct engine_app recorder = {on_open, on_text, on_binary, on_close, NULL};

static int set_up(void **state)
{
    (void)state;
    memset(&app, 0, sizeof(app));
    world_start(&w, &recorder, "*");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_stop(&w);
    return 0;
}

static uint64_t metric(enum metric which)
{
    return metrics_get(w.metrics, which);
}

static void says(const struct span got, const char *expected)
{
    char text[512];
    assert_true(got.n < sizeof(text));
    memcpy(text, got.p, got.n);
    text[got.n] = '\0';
    assert_string_equal(text, expected);
}

static void receive(struct sink *k, enum eio_type type, const char *data)
{
    struct eio_packet packet = {.type = type, .data = span_of(data)};
    session_receive(k->session, &packet);
}

/* A message of n bytes 'x' on the wire, head included. */
static void push(struct sink *k, size_t n, bool is_volatile)
{
    struct slice frame;
    uint8_t *payload;
    size_t head_n = n < 126 ? 2 : n < 65536 ? 4 : 10;
    assert_int_equal(engine_frame_alloc(w.engine, WS_TEXT, n - head_n, &frame, &payload), 0);
    memset(payload, 'x', n - head_n);
    assert_int_equal(frame.n, n);
    session_push(k->session, &frame, 1, is_volatile);
    slice_unref(&frame);
}

/* The handshake only: on a busy machine a ping may be there already. */
static void read_handshake(struct sink *k)
{
    struct sink_frame frame;
    world_turn(&w);
    assert_true(sink_next(k, &frame));
    assert_int_equal(frame.payload.p[0], '0');
    if (k->read == k->n)
        sink_skip(k);
}

static void open_and_read(struct sink *k)
{
    sink_open(&w, k);
    read_handshake(k);
}

/* ---- opening ---- */

static void opens_with(const struct transport *transport, const char *upgrades)
{
    struct sink k;
    char expected[256];
    sink_open_on(&w, &k, transport);
    assert_int_equal(k.n, 0); /* written once, at the end of the turn */
    world_turn(&w);
    snprintf(expected, sizeof(expected),
             "0{\"sid\":\"%.20s\",\"upgrades\":[%s],\"pingInterval\":25000,\"pingTimeout\":20000,"
             "\"maxPayload\":1000000}",
             k.session->sid, upgrades);
    says(sink_text(&k), expected);
    says(sink_text(&k), "");
    sink_end(&k);
}

static void the_open_packet_says_what_the_client_must_know(void **state)
{
    (void)state;
    opens_with(&sink_ws, "");
    opens_with(&sink_polling, "\"websocket\"");
    w.engine->options.websocket = false;
    opens_with(&sink_polling, "");
    assert_int_equal(app.opened, 3);
    assert_int_equal(metric(METRIC_SESSIONS_OPENED), 3);
}

static void sessions_are_counted_by_transport(void **state)
{
    struct sink a, b, c;
    (void)state;
    sink_open_on(&w, &a, &sink_polling);
    sink_open(&w, &b);
    sink_open(&w, &c);
    assert_int_equal(metric(METRIC_SESSIONS_POLLING), 1);
    assert_int_equal(metric(METRIC_SESSIONS_WEBSOCKET), 2);
    assert_int_equal(engine_count(w.engine), 3);
    sink_end(&b);
    sink_end(&a);
    assert_int_equal(metric(METRIC_SESSIONS_POLLING), 0);
    assert_int_equal(metric(METRIC_SESSIONS_WEBSOCKET), 1);
    assert_int_equal(engine_count(w.engine), 1);
    sink_end(&c);
}

static void a_session_is_found_by_its_sid(void **state)
{
    struct sink a, b;
    char sid[ID_CHARS];
    (void)state;
    sink_open(&w, &a);
    sink_open(&w, &b);
    memcpy(sid, a.session->sid, ID_CHARS);
    assert_memory_equal(sid, "EjRW", 4); /* the tag 0x123456 */
    assert_ptr_equal(engine_find(w.engine, (struct span){sid, ID_CHARS}), a.session);
    assert_null(engine_find(w.engine, (struct span){sid, ID_CHARS - 1}));
    assert_null(engine_find(w.engine, SPAN("")));
    assert_null(engine_find(w.engine, SPAN("EjRWAAAAAAAAAAAAAAAA")));
    sink_end(&a);
    assert_null(engine_find(w.engine, (struct span){sid, ID_CHARS}));
    sink_end(&b);
}

static void a_session_that_the_application_refuses_ends_with_the_turn(void **state)
{
    struct sink k;
    (void)state;
    app.answer = ERR_MEMORY;
    sink_open(&w, &k);
    assert_false(session_is_open(k.session));
    world_turn(&w);
    assert_null(k.session);
    assert_int_equal(k.reason, CLOSE_FORCED);
    assert_true(sink_text(&k).n > 0); /* the open packet still goes out */
    assert_int_equal(engine_count(w.engine), 0);
    sink_free(&k);
}

/* ---- heartbeat ---- */

static bool has_frame(void *sink)
{
    struct sink *k = sink;
    return k->n > k->read;
}

static bool is_closed(void *sink)
{
    return ((struct sink *)sink)->closes > 0;
}

struct moment {
    uint64_t at_ms;
};

static bool has_come(void *moment)
{
    return reactor_now_ms(w.reactor) >= ((struct moment *)moment)->at_ms;
}

static void pass(uint64_t ms)
{
    struct moment then = {reactor_now_ms(w.reactor) + ms};
    world_until(&w, has_come, &then);
}

static void the_next_ping_counts_from_the_pong(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 40;
    open_and_read(&k);
    uint64_t from = reactor_now_ms(w.reactor);
    for (int round = 0; round < 3; round++) {
        world_until(&w, has_frame, &k);
        says(sink_text(&k), "2");
        assert_true(reactor_now_ms(w.reactor) >= from + 38); /* a turn's clock may be a little behind */
        assert_true(k.session->awaits_pong);
        pass(15);
        assert_false(has_frame(&k)); /* no second ping while the pong is out */
        receive(&k, EIO_PONG, "");
        assert_false(k.session->awaits_pong);
        from = reactor_now_ms(w.reactor);
    }
    sink_end(&k);
}

static void a_missing_pong_ends_the_session_after_the_timeout(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 20;
    w.engine->options.ping_timeout_ms = 30;
    open_and_read(&k);
    uint64_t from = reactor_now_ms(w.reactor);
    world_until(&w, is_closed, &k);
    assert_true(reactor_now_ms(w.reactor) >= from + 48);
    assert_int_equal(k.reason, CLOSE_PING_TIMEOUT);
    assert_int_equal(app.closed, 1);
    assert_int_equal(app.reason, CLOSE_PING_TIMEOUT);
    assert_int_equal(metric(METRIC_CLOSED_PING_TIMEOUT), 1);
    says(sink_text(&k), "2");
    says(sink_text(&k), "");
    sink_end(&k);
}

static void a_pong_in_time_keeps_the_session(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 5;
    open_and_read(&k);
    for (int i = 0; i < 20; i++) {
        world_until(&w, has_frame, &k);
        says(sink_text(&k), "2");
        receive(&k, EIO_PONG, "");
    }
    assert_int_equal(k.closes, 0);
    sink_end(&k);
}

static void other_packets_are_no_pong(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 5;
    open_and_read(&k);
    world_until(&w, has_frame, &k);
    uint64_t deadline = k.session->heartbeat.at_ms;
    pass(3);
    receive(&k, EIO_MESSAGE, "hello");
    receive(&k, EIO_NOOP, "");
    session_receive_binary(k.session, SPAN("bytes"));
    assert_true(k.session->awaits_pong);
    assert_true(k.session->heartbeat.at_ms == deadline);
    sink_end(&k);
}

static void a_ping_that_cannot_be_written_starts_the_deadline_as_well(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 5;
    w.engine->options.ping_timeout_ms = 10;
    open_and_read(&k);
    sink_block(&k);
    world_until(&w, is_closed, &k);
    assert_int_equal(k.reason, CLOSE_PING_TIMEOUT);
    assert_int_equal(k.n, 0);
    sink_end(&k);
}

static void a_request_after_the_deadline_finds_no_session(void **state)
{
    struct sink k;
    char sid[ID_CHARS];
    (void)state;
    w.engine->options.ping_interval_ms = 1;
    open_and_read(&k);
    world_until(&w, has_frame, &k);
    memcpy(sid, k.session->sid, ID_CHARS);
    assert_ptr_equal(engine_find(w.engine, (struct span){sid, ID_CHARS}), k.session);
    /* The timer is due in this turn, but the request comes first. */
    reactor_timer_set(w.reactor, &k.session->heartbeat, 0);
    assert_null(engine_find(w.engine, (struct span){sid, ID_CHARS}));
    assert_int_equal(k.reason, CLOSE_PING_TIMEOUT);
    assert_int_equal(app.closed, 1);
    sink_end(&k);
}

/* ---- packets ---- */

static void messages_reach_the_application(void **state)
{
    struct sink k;
    (void)state;
    open_and_read(&k);
    receive(&k, EIO_MESSAGE, "hello");
    assert_string_equal(app.last, "hello");
    receive(&k, EIO_MESSAGE, "");
    assert_string_equal(app.last, "");
    assert_int_equal(app.texts, 2);
    session_receive_binary(k.session, SPAN("raw"));
    assert_string_equal(app.last, "raw");
    struct eio_packet packet = {.type = EIO_MESSAGE, .base64 = true, .data = SPAN("YmluYXJ5")};
    session_receive(k.session, &packet);
    assert_string_equal(app.last, "binary");
    packet.data = SPAN("");
    session_receive(k.session, &packet);
    assert_string_equal(app.last, "");
    assert_int_equal(app.binaries, 3);
    sink_end(&k);
}

static void packets_without_a_meaning_are_ignored(void **state)
{
    struct sink k;
    (void)state;
    open_and_read(&k);
    receive(&k, EIO_OPEN, "{}");
    receive(&k, EIO_UPGRADE, "");
    receive(&k, EIO_NOOP, "");
    receive(&k, EIO_PONG, "");
    world_turn(&w);
    assert_int_equal(k.closes, 0);
    assert_int_equal(app.texts, 0);
    assert_int_equal(k.n, 0);
    sink_end(&k);
}

static void ends_by(void (*what)(struct sink *k), enum close_reason reason, uint64_t decode_errors)
{
    struct sink k;
    uint64_t before = metric(METRIC_DECODE_ERRORS);
    open_and_read(&k);
    app.answer = 0;
    app.closed = 0;
    what(&k);
    assert_int_equal(k.closes, 1);
    assert_int_equal(k.reason, reason);
    assert_int_equal(app.closed, 1);
    assert_int_equal(metric(METRIC_DECODE_ERRORS) - before, decode_errors);
    app.answer = 0;
    sink_end(&k);
}

static void by_close(struct sink *k)
{
    receive(k, EIO_CLOSE, "");
}

static void by_ping(struct sink *k)
{
    receive(k, EIO_PING, "");
}

static void by_bad_text(struct sink *k)
{
    app.answer = ERR_SIO_PACKET;
    receive(k, EIO_MESSAGE, "nonsense");
}

static void by_bad_binary(struct sink *k)
{
    app.answer = ERR_SIO_ATTACHMENTS;
    session_receive_binary(k->session, SPAN("nonsense"));
}

static void by_bad_base64(struct sink *k)
{
    struct eio_packet packet = {.type = EIO_MESSAGE, .base64 = true, .data = SPAN("YmluY")};
    session_receive(k->session, &packet);
}

static void packets_that_end_the_session(void **state)
{
    (void)state;
    ends_by(by_close, CLOSE_TRANSPORT_CLOSE, 0);
    ends_by(by_ping, CLOSE_TRANSPORT_ERROR, 0);
    ends_by(by_bad_text, CLOSE_PARSE_ERROR, 1);
    ends_by(by_bad_binary, CLOSE_PARSE_ERROR, 1);
    ends_by(by_bad_base64, CLOSE_PARSE_ERROR, 1);
}

static void what_is_sent_in_one_turn_is_written_at_once(void **state)
{
    struct sink k;
    (void)state;
    open_and_read(&k);
    k.flushes = 0;
    for (int i = 0; i < 10; i++)
        session_send(k.session, SPAN("4head"), i % 2 ? SPAN("+body") : SPAN(""));
    assert_int_equal(k.n, 0);
    world_turn(&w);
    assert_int_equal(k.flushes, 1);
    for (int i = 0; i < 10; i++)
        says(sink_text(&k), i % 2 ? "4head+body" : "4head");
    world_turn(&w);
    assert_int_equal(k.flushes, 1);
    sink_end(&k);
}

/* ---- slow clients ---- */

static void a_client_is_slow_by_bytes(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    open_and_read(&k);
    sink_block(&k);
    for (int i = 0; i < 10; i++)
        push(&k, 100, false); /* exactly the limit */
    world_turn(&w);
    assert_int_equal(k.closes, 0);
    push(&k, 2, false);
    assert_false(session_is_open(k.session));
    assert_true(outq_empty(&k.session->out)); /* its memory is given back at once */
    world_turn(&w);
    assert_int_equal(k.reason, CLOSE_SLOW_CLIENT);
    assert_int_equal(metric(METRIC_CLOSED_SLOW_CLIENT), 1);
    assert_int_equal(k.n, 0);
    sink_end(&k);
}

static void a_client_is_slow_by_messages(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_messages = 5;
    open_and_read(&k);
    sink_block(&k);
    for (int i = 0; i < 5; i++)
        push(&k, 3, false);
    world_turn(&w);
    assert_int_equal(k.closes, 0);
    push(&k, 3, false);
    world_turn(&w);
    assert_int_equal(k.reason, CLOSE_SLOW_CLIENT);
    sink_end(&k);
}

static void a_slow_client_that_reads_on_in_time_stays(void **state)
{
    struct sink k;
    size_t expected = 0;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    open_and_read(&k);
    for (int i = 0; i < 200; i++) {
        push(&k, 90, false);
        expected += 90;
        sink_allow(&k, 90); /* it never quite catches up */
        world_turn(&w);
    }
    sink_unblock(&k);
    assert_int_equal(k.n, expected);
    assert_int_equal(k.closes, 0);
    sink_end(&k);
}

static void volatile_messages_make_room_first(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    open_and_read(&k);
    sink_block(&k);
    push(&k, 400, true); /* nobody knows yet that it cannot be written */
    push(&k, 500, false);
    push(&k, 400, false);
    assert_true(session_is_open(k.session));
    assert_int_equal(k.session->out.bytes, 900);
    assert_int_equal(metric(METRIC_VOLATILE_DROPPED), 1);
    push(&k, 400, false); /* nothing volatile is left */
    world_turn(&w);
    assert_int_equal(k.reason, CLOSE_SLOW_CLIENT);
    sink_end(&k);
}

static void volatile_messages_are_dropped_while_a_client_is_blocked(void **state)
{
    struct sink k;
    struct slice frames;
    uint8_t *payload;
    (void)state;
    open_and_read(&k);
    sink_block(&k);
    push(&k, 10, false);
    world_turn(&w);
    push(&k, 10, true);
    assert_int_equal(engine_frame_alloc(w.engine, WS_TEXT, 5, &frames, &payload), 0);
    memcpy(payload, "three", 5);
    session_push(k.session, &frames, 3, true);
    assert_int_equal(metric(METRIC_VOLATILE_DROPPED), 4);
    assert_int_equal(k.session->out.messages, 1);
    sink_unblock(&k);
    session_push(k.session, &frames, 3, true);
    slice_unref(&frames);
    world_turn(&w);
    assert_int_equal(k.n, 10 + 7);
    assert_int_equal(metric(METRIC_VOLATILE_DROPPED), 4);
    sink_end(&k);
}

static void a_message_larger_than_the_limit_passes_alone(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    w.engine->options.queue_messages = 2;
    open_and_read(&k);
    sink_block(&k);
    push(&k, 50000, false);
    world_turn(&w);
    assert_int_equal(k.closes, 0);
    assert_int_equal(k.session->out.bytes, 50000);
    sink_unblock(&k);
    assert_int_equal(k.n, 50000);
    sink_block(&k);
    push(&k, 50000, false);
    push(&k, 2, false);
    world_turn(&w);
    assert_int_equal(k.reason, CLOSE_SLOW_CLIENT);
    sink_end(&k);
}

static void a_burst_within_a_turn_does_not_count_against_a_client_that_reads(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    w.engine->options.queue_messages = 10;
    open_and_read(&k);
    for (int i = 0; i < 1000; i++)
        push(&k, 90, false);
    world_turn(&w);
    assert_int_equal(k.closes, 0);
    assert_int_equal(k.n, 90000);
    sink_end(&k);
}

static void a_blocked_client_does_not_hold_shared_chunks(void **state)
{
    struct sink k, reader;
    (void)state;
    open_and_read(&k);
    open_and_read(&reader);
    sink_block(&k);
    /* A few bytes in each turn of a busy bus: uncompacted they would hold a chunk each. */
    for (int i = 0; i < 100; i++) {
        push(&k, 20, false);
        for (int j = 0; j < 10; j++)
            push(&reader, 6000, false);
        world_turn(&w);
        sink_skip(&reader);
    }
    uint64_t held = 0;
    for (unsigned i = 0; i < k.session->out.count; i++)
        held += k.session->out.entry[(k.session->out.head + i) & (k.session->out.cap - 1u)].chunk->cap;
    assert_true(held <= 100 * 20 + 4 * 32 * 1024); /* a few that are not compacted yet */
    sink_unblock(&k);
    assert_int_equal(k.n, 100 * 20);
    sink_end(&k);
    sink_end(&reader);
}

/* ---- the end ---- */

static void every_reason_has_its_text_and_its_counter(void **state)
{
    static const struct {
        enum close_reason reason;
        const char *text;
        enum metric metric;
    } rows[] = {
#define X(name, text, metric) {CLOSE_##name, text, METRIC_##metric},
#include "close_reason.def"
#undef X
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sink k;
        sink_open(&w, &k);
        assert_string_equal(close_reason_text(rows[i].reason), rows[i].text);
        assert_int_equal(metric(rows[i].metric), 0);
        session_close(k.session, rows[i].reason);
        assert_int_equal(metric(rows[i].metric), 1);
        assert_int_equal(app.reason, rows[i].reason);
        assert_int_equal(app.closed, i + 1);
        sink_end(&k);
    }
}

static void end_it_all(struct session *s)
{
    session_send(s, SPAN("4"), SPAN("last words"));
    session_close_soon(s, CLOSE_FORCED);
    session_send(s, SPAN("4"), SPAN("too late"));
}

static void ending_from_inside_of_a_message_waits_for_the_turn(void **state)
{
    struct sink k;
    (void)state;
    app.on_text = end_it_all;
    open_and_read(&k);
    receive(&k, EIO_MESSAGE, "first");
    assert_int_equal(app.closed, 0);
    assert_non_null(k.session);
    receive(&k, EIO_MESSAGE, "second"); /* the rest of a payload */
    session_receive_binary(k.session, SPAN("third"));
    receive(&k, EIO_CLOSE, "");
    assert_int_equal(app.texts, 1);
    assert_int_equal(app.binaries, 0);
    session_close_soon(k.session, CLOSE_SHUTDOWN); /* the first reason counts */
    world_turn(&w);
    assert_int_equal(app.closed, 1);
    assert_int_equal(app.reason, CLOSE_FORCED);
    says(sink_text(&k), "4last words");
    says(sink_text(&k), "");
    sink_end(&k);
}

static void a_message_that_breaks_the_protocol_while_the_session_is_doomed(void **state)
{
    struct sink k;
    (void)state;
    app.on_text = end_it_all;
    app.answer = 0;
    open_and_read(&k);
    app.answer = ERR_SIO_PACKET;
    receive(&k, EIO_MESSAGE, "both at once");
    assert_int_equal(app.closed, 1);
    assert_int_equal(app.reason, CLOSE_PARSE_ERROR);
    world_turn(&w);
    assert_int_equal(app.closed, 1);
    app.answer = 0;
    sink_end(&k);
}

static void nothing_is_delivered_after_the_end(void **state)
{
    struct sink k;
    (void)state;
    open_and_read(&k);
    k.lingers = true;
    session_close(k.session, CLOSE_FORCED);
    push(&k, 10, false);
    push(&k, 10, true);
    session_mark_dirty(k.session);
    receive(&k, EIO_MESSAGE, "hello?");
    session_receive_binary(k.session, SPAN("hello?"));
    session_close(k.session, CLOSE_TRANSPORT_ERROR);
    session_close_soon(k.session, CLOSE_TRANSPORT_ERROR);
    world_turn(&w);
    world_turn(&w);
    assert_int_equal(k.n, 0);
    assert_true(outq_empty(&k.session->out));
    assert_int_equal(app.texts + app.binaries, 0);
    assert_int_equal(app.closed, 1);
    assert_int_equal(metric(METRIC_CLOSED_FORCED), 1);
    assert_int_equal(metric(METRIC_CLOSED_TRANSPORT_ERROR), 0);
    sink_forget(&k);
    sink_end(&k);
}

static void a_session_lingers_until_its_transport_forgets_it(void **state)
{
    struct sink k;
    struct span sid;
    (void)state;
    sink_open_on(&w, &k, &sink_polling);
    world_turn(&w);
    k.lingers = true;
    struct session *s = k.session;
    sid = (struct span){s->sid, ID_CHARS};
    session_close(s, CLOSE_FORCED);
    world_turn(&w);
    assert_ptr_equal(engine_find(w.engine, sid), s);
    assert_int_equal(s->state, SESSION_CLOSING);
    assert_int_equal(metric(METRIC_SESSIONS_POLLING), 0); /* open ones are counted */
    sink_forget(&k);
    engine_forget(s); /* once more does no harm */
    assert_null(engine_find(w.engine, sid));
    assert_int_equal(s->state, SESSION_DEAD); /* callers up the stack may still look */
    assert_ptr_equal(w.engine->dead, s);
    world_turn(&w);
    assert_null(w.engine->dead);
    sink_end(&k);
}

static void a_transport_that_fails_ends_the_session_with_the_turn(void **state)
{
    struct sink k;
    (void)state;
    open_and_read(&k);
    k.fails = true;
    push(&k, 10, false);
    world_turn(&w);
    assert_int_equal(k.reason, CLOSE_TRANSPORT_ERROR);
    assert_int_equal(k.n, 0);
    sink_end(&k);
}

static void a_transport_that_fails_in_the_middle_of_a_burst(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.queue_bytes = 1000;
    open_and_read(&k);
    k.fails = true;
    for (int i = 0; i < 100; i++)
        push(&k, 90, false);
    assert_true(k.session->out.bytes <= 1000);
    world_turn(&w);
    assert_int_equal(k.closes, 1);
    assert_int_equal(app.closed, 1);
    sink_end(&k);
}

static struct sink *neighbour;

static void close_neighbour(struct session *s, enum close_reason reason)
{
    on_close(s, reason);
    if (neighbour) {
        struct sink *k = neighbour;
        neighbour = NULL;
        session_send(k->session, SPAN("4"), SPAN("bye"));
        session_close_soon(k->session, CLOSE_FORCED);
    }
}

/* The end of one session dooms another while dirty sessions are being written. */
static void sessions_may_end_each_other_at_the_end_of_a_turn(void **state)
{
    static const struct engine_app chain = {on_open, on_text, on_binary, close_neighbour, NULL};
    struct sink a, b;
    (void)state;
    w.engine->app = &chain;
    open_and_read(&a);
    open_and_read(&b);
    neighbour = &b;
    session_close_soon(a.session, CLOSE_FORCED);
    world_turn(&w);
    assert_int_equal(a.closes, 1);
    assert_int_equal(b.closes, 1);
    says(sink_text(&b), "4bye");
    assert_null(w.engine->dead);
    w.engine->app = &recorder;
    sink_end(&a);
    sink_end(&b);
}

static void memory_of_the_dead_goes_with_the_turn(void **state)
{
    enum { MANY = 1000 };
    static struct sink many[MANY];
    (void)state;
    for (int i = 0; i < MANY; i++) {
        sink_open(&w, &many[i]);
        sink_block(&many[i]);
        push(&many[i], 20000, false);
    }
    world_turn(&w);
    for (int i = 0; i < MANY; i++) {
        if (i % 2)
            session_close(many[i].session, CLOSE_TRANSPORT_CLOSE);
        else
            session_close_soon(many[i].session, CLOSE_FORCED);
    }
    world_turn(&w);
    assert_null(w.engine->dead);
    assert_int_equal(engine_count(w.engine), 0);
    /* Nobody holds a chunk any more: the arena's own is free to be filled again. */
    assert_int_equal(w.engine->bytes.current->refs, 1);
    for (int i = 0; i < MANY; i++)
        sink_end(&many[i]);
}

static void shutting_down_ends_everybody(void **state)
{
    struct sink many[10];
    (void)state;
    for (int i = 0; i < 10; i++)
        sink_open_on(&w, &many[i], i % 2 ? &sink_polling : &sink_ws);
    engine_shutdown(w.engine);
    assert_true(w.engine->shutting_down);
    assert_int_equal(engine_count(w.engine), 0);
    assert_int_equal(metric(METRIC_CLOSED_SHUTDOWN), 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(many[i].reason, CLOSE_SHUTDOWN);
        sink_end(&many[i]);
    }
}

/* ---- upgrade ---- */

static void what_is_queued_goes_out_on_the_new_transport(void **state)
{
    struct sink old, new = {.room = SIZE_MAX};
    (void)state;
    sink_open_on(&w, &old, &sink_polling);
    sink_block(&old);
    world_turn(&w);
    session_send(old.session, SPAN("4"), SPAN("queued"));
    world_turn(&w);
    struct session *s = old.session;
    new.session = s;
    session_switch_transport(s, &sink_ws, &new);
    assert_int_equal(metric(METRIC_SESSIONS_POLLING), 0);
    assert_int_equal(metric(METRIC_SESSIONS_WEBSOCKET), 1);
    assert_int_equal(metric(METRIC_UPGRADES), 1);
    world_turn(&w);
    assert_int_equal(old.n, 0);
    assert_true(sink_text(&new).n > 20); /* the open packet */
    says(sink_text(&new), "4queued");
    old.session = NULL;
    sink_end(&old);
    sink_end(&new);
}

static void an_upgrade_forgives_a_pong_that_is_out(void **state)
{
    struct sink k;
    (void)state;
    w.engine->options.ping_interval_ms = 1;
    w.engine->options.ping_timeout_ms = 5000;
    sink_open_on(&w, &k, &sink_polling);
    read_handshake(&k);
    world_until(&w, has_frame, &k);
    assert_true(k.session->awaits_pong);
    sink_skip(&k);
    session_switch_transport(k.session, &sink_ws, &k);
    assert_false(k.session->awaits_pong);
    world_until(&w, has_frame, &k); /* the heartbeat goes on */
    says(sink_text(&k), "2");
    sink_end(&k);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_open_packet_says_what_the_client_must_know),
        TEST(sessions_are_counted_by_transport),
        TEST(a_session_is_found_by_its_sid),
        TEST(a_session_that_the_application_refuses_ends_with_the_turn),
        TEST(the_next_ping_counts_from_the_pong),
        TEST(a_missing_pong_ends_the_session_after_the_timeout),
        TEST(a_pong_in_time_keeps_the_session),
        TEST(other_packets_are_no_pong),
        TEST(a_ping_that_cannot_be_written_starts_the_deadline_as_well),
        TEST(a_request_after_the_deadline_finds_no_session),
        TEST(messages_reach_the_application),
        TEST(packets_without_a_meaning_are_ignored),
        TEST(packets_that_end_the_session),
        TEST(what_is_sent_in_one_turn_is_written_at_once),
        TEST(a_client_is_slow_by_bytes),
        TEST(a_client_is_slow_by_messages),
        TEST(a_slow_client_that_reads_on_in_time_stays),
        TEST(volatile_messages_make_room_first),
        TEST(volatile_messages_are_dropped_while_a_client_is_blocked),
        TEST(a_message_larger_than_the_limit_passes_alone),
        TEST(a_burst_within_a_turn_does_not_count_against_a_client_that_reads),
        TEST(a_blocked_client_does_not_hold_shared_chunks),
        TEST(every_reason_has_its_text_and_its_counter),
        TEST(ending_from_inside_of_a_message_waits_for_the_turn),
        TEST(a_message_that_breaks_the_protocol_while_the_session_is_doomed),
        TEST(nothing_is_delivered_after_the_end),
        TEST(a_session_lingers_until_its_transport_forgets_it),
        TEST(a_transport_that_fails_ends_the_session_with_the_turn),
        TEST(a_transport_that_fails_in_the_middle_of_a_burst),
        TEST(sessions_may_end_each_other_at_the_end_of_a_turn),
        TEST(memory_of_the_dead_goes_with_the_turn),
        TEST(shutting_down_ends_everybody),
        TEST(what_is_queued_goes_out_on_the_new_transport),
        TEST(an_upgrade_forgives_a_pong_that_is_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
