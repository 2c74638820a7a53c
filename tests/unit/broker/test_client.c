/* The Socket.IO side of a session, row by row of the table in client.c: namespaces joined and left, refusals,
 * time-out, attachments, and what handlers may do. */
#include "client.h"
#include "joining.h"
#include "limit.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct world w;
static struct sink k;

/* A handler that notes what it is told and does what the test wants. */
static struct {
    unsigned connects, connected, events;
    char auth[128], event[64], args[128];
    struct span refusal;
    bool refuses, handles;
    unsigned n_attachments;
    char attachments[64];
    void (*on_connected)(struct socket *s);
    void (*on_event)(struct socket *s, const struct sio_packet *packet);
} handler;

static void copy(char *dst, size_t cap, struct span src)
{
    assert_true(src.n < cap);
    if (src.n)
        memcpy(dst, src.p, src.n);
    dst[src.n] = '\0';
}

static enum hub_verdict on_connect(void *user, struct joining *j, struct span *error)
{
    assert_ptr_equal(user, &handler);
    assert_int_equal(joining_sid(j).n, ID_CHARS);
    handler.connects++;
    copy(handler.auth, sizeof(handler.auth), joining_auth(j));
    if (handler.refuses && handler.refusal.n)
        *error = handler.refusal;
    return handler.refuses ? HUB_REFUSE : HUB_ACCEPT;
}

static void on_connected(void *user, struct socket *s, struct span auth)
{
    (void)user, (void)auth;
    handler.connected++;
    if (handler.on_connected)
        handler.on_connected(s);
}

static bool on_event(void *user, struct socket *s, const struct sio_packet *packet,
                     const struct span *attachments)
{
    (void)user;
    handler.events++;
    copy(handler.event, sizeof(handler.event), packet->event);
    copy(handler.args, sizeof(handler.args), packet->args);
    handler.n_attachments = packet->attachments;
    handler.attachments[0] = '\0';
    for (unsigned i = 0; i < packet->attachments; i++) {
        size_t n = strlen(handler.attachments);
        snprintf(handler.attachments + n, sizeof(handler.attachments) - n, "<%.*s>", (int)attachments[i].n,
                 attachments[i].p);
    }
    if (handler.on_event)
        handler.on_event(s, packet);
    return handler.handles;
}

static int set_up(void **state)
{
    (void)state;
    memset(&handler, 0, sizeof(handler));
    handler.handles = true;
    world_start(&w, NULL, "*");
    w.hub->handler = (struct hub_handler){
        .user = &handler, .on_connect = on_connect, .on_connected = on_connected, .on_event = on_event};
    sink_open(&w, &k);
    world_turn(&w);
    sink_skip(&k);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_stop(&w);
    sink_free(&k);
    return 0;
}

static uint64_t metric(enum metric which)
{
    return metrics_get(w.metrics, which);
}

static void hears(const char *expected)
{
    char text[512];
    world_turn(&w);
    copy(text, sizeof(text), sink_text(&k));
    assert_string_equal(text, expected);
}

static void binary(const char *data)
{
    session_receive_binary(k.session, span_of(data));
}

static struct socket *socket_in(const char *nsp)
{
    struct nsp *found = hub_find(w.hub, span_of(nsp));
    return found ? found->sockets : NULL;
}

/* The answer to a CONNECT: its sid and nothing else. */
static void hears_connect(const char *nsp)
{
    char text[128], expected[128];
    struct socket *s = socket_in(nsp);
    assert_non_null(s);
    world_turn(&w);
    copy(text, sizeof(text), sink_text(&k));
    snprintf(expected, sizeof(expected), "40%s%s{\"sid\":\"%.20s\"}", nsp[1] ? nsp : "", nsp[1] ? "," : "",
             s->sid);
    assert_string_equal(text, expected);
}

static void is_open(void)
{
    world_turn(&w);
    assert_int_equal(k.closes, 0);
}

static void is_protocol_error(void)
{
    assert_int_equal(k.closes, 1);
    assert_int_equal(k.reason, CLOSE_PARSE_ERROR);
    assert_int_equal(metric(METRIC_DECODE_ERRORS), 1);
    assert_int_equal(metric(METRIC_CLOSED_PARSE_ERROR), 1);
    assert_int_equal(metric(METRIC_SOCKETS), 0);
}

/* ---- CONNECT ---- */

static void connects_without_a_payload(void **state)
{
    (void)state;
    sink_says(&k, "0");
    hears_connect("/");
    assert_string_equal(handler.auth, "{}");
    assert_int_equal(handler.connected, 1);
    assert_int_equal(metric(METRIC_SOCKETS), 1);
    assert_memory_not_equal(socket_in("/")->sid, k.session->sid, ID_CHARS);
}

static void connects_with_a_payload(void **state)
{
    (void)state;
    sink_says(&k, "0/chat,{\"token\":\"t\"}");
    hears_connect("/chat");
    assert_string_equal(handler.auth, "{\"token\":\"t\"}");
}

static void connects_without_a_handler(void **state)
{
    (void)state;
    memset(&w.hub->handler, 0, sizeof(w.hub->handler));
    sink_says(&k, "0");
    hears_connect("/");
    sink_says(&k, "21[\"hello\"]");
    hears("431[{\"ok\":false,\"error\":\"nobody handles this event\"}]");
}

static void an_id_on_connect_is_ignored(void **state)
{
    (void)state;
    sink_says(&k, "0/chat,12{}");
    hears_connect("/chat");
}

static void connecting_twice_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "0");
    is_protocol_error();
}

static void a_payload_that_is_no_object_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0[]");
    is_protocol_error();
    assert_int_equal(handler.connects, 0);
}

static void the_dashboard_is_not_reached_through_the_star(void **state)
{
    (void)state;
    sink_says(&k, "0/admin,");
    hears("44/admin,{\"message\":\"Invalid namespace\"}");
    assert_int_equal(handler.connects, 0);
    assert_null(hub_find(w.hub, SPAN("/admin")));
    sink_says(&k, "0");
    hears_connect("/"); /* the connection goes on */
}

static void an_unknown_namespace_is_refused(void **state)
{
    (void)state;
    w.hub->options.namespaces = "/,/chat";
    sink_says(&k, "0/nowhere,{\"a\":1}");
    hears("44/nowhere,{\"message\":\"Invalid namespace\"}");
    sink_says(&k, "0/chat");
    hears_connect("/chat");
    sink_says(&k, "0/nowhere");
    hears("44/nowhere,{\"message\":\"Invalid namespace\"}");
    is_open();
}

static void a_namespace_too_long_is_a_protocol_error(void **state)
{
    char text[LIMIT_NAMESPACE_BYTES + 3];
    (void)state;
    memset(text, 'n', sizeof(text));
    memcpy(text, "0/", 2);
    sink_says_span(&k, (struct span){text, sizeof(text)});
    is_protocol_error();
}

static void the_longest_namespace_is_served(void **state)
{
    char text[LIMIT_NAMESPACE_BYTES + 1], nsp[LIMIT_NAMESPACE_BYTES + 1];
    (void)state;
    memset(text, 'n', sizeof(text));
    memcpy(text, "0/", 2);
    sink_says_span(&k, (struct span){text, sizeof(text)});
    memcpy(nsp, text + 1, LIMIT_NAMESPACE_BYTES);
    struct nsp *found = hub_find(w.hub, (struct span){nsp, LIMIT_NAMESPACE_BYTES});
    assert_non_null(found);
    world_turn(&w);
    struct span answer = sink_text(&k);
    assert_int_equal(answer.n, 2 + LIMIT_NAMESPACE_BYTES + 1 + sizeof("{\"sid\":\"\"}") - 1 + ID_CHARS);
    struct emit e = {
        .nsp = nsp_name(found), .event = SPAN("\"e\""), .attachments = &answer, .n_attachments = 1};
    uint64_t seq;
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    socket_ack(found->sockets, UINT64_MAX, SPAN("1"), NULL, 0);
    is_open();
}

static void a_handler_may_refuse(void **state)
{
    (void)state;
    handler.refuses = true;
    sink_says(&k, "0/chat,{}");
    hears("44/chat,{\"message\":\"refused\"}");
    handler.refusal = SPAN("{\"message\":\"no\",\"data\":{\"why\":1}}");
    sink_says(&k, "0");
    hears("44{\"message\":\"no\",\"data\":{\"why\":1}}");
    assert_int_equal(handler.connected, 0);
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    assert_int_equal(metric(METRIC_NAMESPACES), 0);
    handler.refuses = false;
    sink_says(&k, "0/chat,{}"); /* tries again */
    hears_connect("/chat");
}

static void the_namespaces_of_a_client_are_bounded(void **state)
{
    char text[32];
    (void)state;
    for (unsigned i = 0; i < LIMIT_NAMESPACES_PER_CLIENT; i++) {
        snprintf(text, sizeof(text), "0/n%u,", i);
        sink_says(&k, text);
        snprintf(text, sizeof(text), "/n%u", i);
        hears_connect(text);
    }
    sink_says(&k, "0/more");
    hears("44/more,{\"message\":\"too many namespaces\"}");
    assert_null(hub_find(w.hub, SPAN("/more")));
    sink_says(&k, "1/n3,");
    sink_says(&k, "0/more");
    hears_connect("/more");
}

/* ---- the time to connect in ---- */

static bool is_closed(void *sink)
{
    return ((struct sink *)sink)->closes > 0;
}

static void open_with_timeout(struct sink *s, uint32_t ms)
{
    w.hub->options.connect_timeout_ms = ms;
    sink_open(&w, s);
    world_turn(&w);
    sink_skip(s);
}

static void who_does_not_connect_in_time_is_closed(void **state)
{
    struct sink late;
    (void)state;
    uint64_t from = reactor_now_ms(w.reactor);
    open_with_timeout(&late, 30);
    world_until(&w, is_closed, &late);
    assert_true(reactor_now_ms(w.reactor) >= from + 30);
    assert_int_equal(late.reason, CLOSE_FORCED);
    assert_int_equal(k.closes, 0);
    sink_end(&late);
}

static void a_refusal_does_not_stop_the_timeout(void **state)
{
    struct sink late;
    (void)state;
    open_with_timeout(&late, 20);
    sink_says(&late, "0/admin");
    handler.refuses = true;
    sink_says(&late, "0");
    world_until(&w, is_closed, &late);
    assert_int_equal(late.reason, CLOSE_FORCED);
    sink_end(&late);
}

static void connecting_stops_the_timeout_for_good(void **state)
{
    struct sink early, late;
    (void)state;
    open_with_timeout(&early, 20);
    open_with_timeout(&late, 40);
    sink_says(&early, "0/chat");
    sink_says(&early, "1/chat"); /* leaves again: the connection stays */
    world_until(&w, is_closed, &late);
    assert_int_equal(early.closes, 0);
    sink_end(&early);
    sink_end(&late);
}

static void whoever_goes_takes_the_timeout_along(void **state)
{
    struct sink gone, late;
    (void)state;
    open_with_timeout(&gone, 5);
    sink_end(&gone);
    open_with_timeout(&late, 15);
    world_until(&w, is_closed, &late); /* the sanitizer watches */
    sink_end(&late);
}

/* ---- DISCONNECT ---- */

static void leaving_a_namespace_is_silent(void **state)
{
    (void)state;
    sink_says(&k, "0");
    hears_connect("/");
    sink_says(&k, "1");
    hears("");
    is_open();
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    assert_int_equal(metric(METRIC_NAMESPACES), 0);
    sink_says(&k, "0");
    hears_connect("/");
}

static void leaving_one_of_several_namespaces_keeps_the_others(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "0/a,");
    sink_says(&k, "0/b,");
    sink_says(&k, "0/c,");
    world_turn(&w);
    sink_skip(&k);
    sink_says(&k, "1/b,");
    sink_says(&k, "1/c,");
    sink_says(&k, "1");
    sink_says(&k, "2/a,1[\"bus:who\",\"x\"]");
    hears("43/a,1[{\"ok\":true,\"count\":0,\"members\":[]}]");
    assert_int_equal(metric(METRIC_SOCKETS), 1);
    sink_says(&k, "2/b,[\"gone\"]");
    is_protocol_error();
}

static void packets_for_a_namespace_that_is_not_joined(void **state)
{
    static const char *const packets[] = {"1",       "2[\"e\"]", "30[]",   "2/chat,[\"e\"]",
                                          "1/chat,", "4{}",      "4\"x\"", "3[]"};
    (void)state;
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        struct sink s;
        uint64_t before = metric(METRIC_DECODE_ERRORS);
        sink_open(&w, &s);
        if (i % 2)
            sink_says(&s, "0/other,");
        sink_says(&s, packets[i]);
        assert_int_equal(s.closes, 1);
        assert_int_equal(s.reason, CLOSE_PARSE_ERROR);
        assert_int_equal(metric(METRIC_DECODE_ERRORS), before + 1);
        sink_end(&s);
    }
    assert_int_equal(handler.events, 0);
}

static void a_connect_error_from_a_client_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "4{\"message\":\"?\"}");
    is_protocol_error();
}

static void a_text_that_is_no_packet_is_a_protocol_error(void **state)
{
    static const char *const texts[] = {
        "",      "7",   "9[]",     "2{}",       "2[]",        "2[\"connect\"]",
        "2[{}]", "1{}", "2[\"e\"", "51[\"e\"]", "511-[\"e\"]"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct sink s;
        sink_open(&w, &s);
        sink_says(&s, "0");
        sink_says(&s, texts[i]);
        assert_int_equal(s.closes, 1);
        assert_int_equal(s.reason, CLOSE_PARSE_ERROR);
        sink_end(&s);
    }
}

static void the_server_disconnects_a_namespace(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "0/chat,");
    world_turn(&w);
    sink_skip(&k);
    socket_disconnect(socket_in("/chat"), false);
    hears("41/chat,");
    assert_null(socket_in("/chat"));
    socket_disconnect(socket_in("/"), false);
    hears("41");
    is_open();
    sink_says(&k, "0/chat,");
    hears_connect("/chat");
}

static void the_server_disconnects_the_connection(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "0/chat,");
    world_turn(&w);
    sink_skip(&k);
    socket_disconnect(socket_in("/"), true);
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    assert_int_equal(k.closes, 0);
    sink_says(&k, "0"); /* nothing is accepted any more */
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    world_turn(&w);
    assert_int_equal(k.closes, 1);
    assert_int_equal(k.reason, CLOSE_FORCED);
    struct span first = sink_text(&k), second = sink_text(&k);
    assert_true(span_eq(first, SPAN("41/chat,")));
    assert_true(span_eq(second, SPAN("41")));
    assert_int_equal(sink_text(&k).n, 0);
}

static void a_lost_connection_leaves_all_namespaces(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "0/chat,");
    session_close(k.session, CLOSE_TRANSPORT_CLOSE);
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    assert_int_equal(metric(METRIC_NAMESPACES), 0);
}

/* ---- events ---- */

static void events_reach_the_handler(void **state)
{
    (void)state;
    sink_says(&k, "0/chat,");
    hears_connect("/chat");
    sink_says(&k, "2/chat,[\"say\",\"hello\",{\"n\":1}]");
    assert_string_equal(handler.event, "\"say\"");
    assert_string_equal(handler.args, "\"hello\",{\"n\":1}");
    sink_says(&k, "2/chat,[17]"); /* numbers are names */
    assert_string_equal(handler.event, "17");
    assert_string_equal(handler.args, "");
    sink_says(&k, "2/chat,"); /* no payload: nothing happens */
    assert_int_equal(handler.events, 2);
    hears("");
    is_open();
    assert_int_equal(metric(METRIC_PACKETS_IN), 4);
}

static void an_event_that_nobody_handles_is_counted_and_answered(void **state)
{
    (void)state;
    handler.handles = false;
    sink_says(&k, "0/chat,");
    hears_connect("/chat");
    sink_says(&k, "2/chat,[\"say\"]");
    hears("");
    sink_says(&k, "2/chat,18446744073709551615[\"say\"]");
    hears("43/chat,18446744073709551615[{\"ok\":false,\"error\":\"nobody handles this event\"}]");
    assert_int_equal(metric(METRIC_EVENTS_UNHANDLED), 2);
}

static void answer_with_attachments(struct socket *s, const struct sio_packet *packet)
{
    const struct span attachments[] = {SPAN("one"), SPAN("")};
    socket_ack(s, packet->id, SPAN("{\"_placeholder\":true,\"num\":0}"), attachments, 2);
    socket_ack(s, packet->id + 1, SPAN(""), NULL, 0);
}

static void a_handler_answers(void **state)
{
    struct sink_frame frame;
    (void)state;
    handler.on_event = answer_with_attachments;
    sink_says(&k, "0");
    hears_connect("/");
    sink_says(&k, "27[\"say\"]");
    hears("462-7[{\"_placeholder\":true,\"num\":0}]");
    assert_true(sink_next(&k, &frame));
    assert_int_equal(frame.opcode, WS_BINARY);
    assert_true(span_eq(frame.payload, SPAN("one")));
    assert_true(sink_next(&k, &frame));
    assert_int_equal(frame.payload.n, 0);
    hears("438[]");
}

static void throw_out(struct socket *s, const struct sio_packet *packet)
{
    socket_disconnect(s, packet->args.n > 0);
}

static void a_handler_may_end_the_socket_of_the_event(void **state)
{
    (void)state;
    handler.on_event = throw_out;
    sink_says(&k, "0/chat,");
    hears_connect("/chat");
    sink_says(&k, "2/chat,[\"leave\"]");
    hears("41/chat,");
    sink_says(&k, "0/chat,");
    hears_connect("/chat");
    sink_says(&k, "51-/chat,[\"leave\",{\"_placeholder\":true,\"num\":0}]");
    binary("x");
    hears("41/chat,");
    assert_int_equal(k.reason, CLOSE_FORCED);
}

static void turn_away(struct socket *s)
{
    socket_disconnect(s, false);
}

static void a_handler_may_turn_a_new_socket_away(void **state)
{
    (void)state;
    handler.on_connected = turn_away;
    sink_says(&k, "0/chat,");
    world_turn(&w);
    assert_true(sink_text(&k).n > 20);
    hears("41/chat,");
    assert_int_equal(metric(METRIC_SOCKETS), 0);
    is_open();
}

static void greet(struct socket *s)
{
    uint64_t seq;
    struct emit e = {.nsp = nsp_name(s->nsp), .event = SPAN("\"welcome\"")};
    hub_emit(w.hub, &e, &seq);
}

static void what_a_handler_sends_first_comes_after_the_answer_to_connect(void **state)
{
    (void)state;
    handler.on_connected = greet;
    sink_says(&k, "0");
    hears_connect("/");
    hears("42[\"welcome\"]");
}

/* ---- attachments ---- */

static void attachments_are_put_together(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "53-[\"file\",{\"_placeholder\":true,\"num\":2}]");
    binary("one");
    binary("");
    assert_int_equal(handler.events, 0);
    binary("three");
    assert_int_equal(handler.events, 1);
    assert_string_equal(handler.event, "\"file\"");
    assert_string_equal(handler.args, "{\"_placeholder\":true,\"num\":2}");
    assert_int_equal(handler.n_attachments, 3);
    assert_string_equal(handler.attachments, "<one><><three>");
    sink_says(&k, "2[\"plain\"]"); /* and on it goes */
    assert_int_equal(handler.events, 2);
    is_open();
}

static void attachments_come_as_base64_as_well(void **state)
{
    struct eio_packet packet = {.type = EIO_MESSAGE, .base64 = true, .data = SPAN("b25l")};
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "51-[\"file\"]");
    session_receive(k.session, &packet);
    assert_string_equal(handler.attachments, "<one>");
}

static void heartbeats_may_come_between_attachments(void **state)
{
    struct eio_packet pong = {.type = EIO_PONG}, noop = {.type = EIO_NOOP};
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "52-[\"file\"]");
    session_receive(k.session, &pong);
    binary("one");
    session_receive(k.session, &noop);
    binary("two");
    assert_string_equal(handler.attachments, "<one><two>");
    is_open();
}

static void a_text_between_attachments_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "52-[\"file\"]");
    binary("one");
    sink_says(&k, "2[\"plain\"]");
    is_protocol_error();
    assert_int_equal(handler.events, 0);
}

static void another_packet_with_attachments_between_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "51-[\"file\"]");
    sink_says(&k, "51-[\"file\"]");
    is_protocol_error();
}

static void an_attachment_of_nothing_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    binary("stray");
    is_protocol_error();
}

static void one_attachment_too_many_is_a_protocol_error(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "51-[\"file\"]");
    binary("one");
    assert_int_equal(handler.events, 1);
    binary("two");
    is_protocol_error();
}

static void attachments_for_a_namespace_that_is_not_joined(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "51-/chat,[\"file\"]");
    assert_int_equal(k.closes, 0); /* judged when it is complete, as the reference does */
    binary("one");
    is_protocol_error();
}

static void an_unfinished_packet_goes_with_its_connection(void **state)
{
    (void)state;
    sink_says(&k, "0");
    sink_says(&k, "510-[\"file\"]");
    for (int i = 0; i < 9; i++)
        binary("part");
    session_close(k.session, CLOSE_TRANSPORT_CLOSE);
    assert_int_equal(handler.events, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(connects_without_a_payload),
        TEST(connects_with_a_payload),
        TEST(connects_without_a_handler),
        TEST(an_id_on_connect_is_ignored),
        TEST(connecting_twice_is_a_protocol_error),
        TEST(a_payload_that_is_no_object_is_a_protocol_error),
        TEST(the_dashboard_is_not_reached_through_the_star),
        TEST(an_unknown_namespace_is_refused),
        TEST(a_namespace_too_long_is_a_protocol_error),
        TEST(the_longest_namespace_is_served),
        TEST(a_handler_may_refuse),
        TEST(the_namespaces_of_a_client_are_bounded),
        TEST(who_does_not_connect_in_time_is_closed),
        TEST(a_refusal_does_not_stop_the_timeout),
        TEST(connecting_stops_the_timeout_for_good),
        TEST(whoever_goes_takes_the_timeout_along),
        TEST(leaving_a_namespace_is_silent),
        TEST(leaving_one_of_several_namespaces_keeps_the_others),
        TEST(packets_for_a_namespace_that_is_not_joined),
        TEST(a_connect_error_from_a_client_is_a_protocol_error),
        TEST(a_text_that_is_no_packet_is_a_protocol_error),
        TEST(the_server_disconnects_a_namespace),
        TEST(the_server_disconnects_the_connection),
        TEST(a_lost_connection_leaves_all_namespaces),
        TEST(events_reach_the_handler),
        TEST(an_event_that_nobody_handles_is_counted_and_answered),
        TEST(a_handler_answers),
        TEST(a_handler_may_end_the_socket_of_the_event),
        TEST(a_handler_may_turn_a_new_socket_away),
        TEST(what_a_handler_sends_first_comes_after_the_answer_to_connect),
        TEST(attachments_are_put_together),
        TEST(attachments_come_as_base64_as_well),
        TEST(heartbeats_may_come_between_attachments),
        TEST(a_text_between_attachments_is_a_protocol_error),
        TEST(another_packet_with_attachments_between_is_a_protocol_error),
        TEST(an_attachment_of_nothing_is_a_protocol_error),
        TEST(one_attachment_too_many_is_a_protocol_error),
        TEST(attachments_for_a_namespace_that_is_not_joined),
        TEST(an_unfinished_packet_goes_with_its_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
