/* What the bus answers itself: bus:join, bus:leave, bus:emit, bus:who; and the reading of emits in general. */
#include "bus.h"
#include "json.h"
#include "limit.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct world w;
static struct sink a, b, c;
static struct socket *sa, *sb, *sc;
static char text[64 * 1024];

static int set_up(void **state)
{
    (void)state;
    world_start(&w, NULL, "*");
    sa = sink_enter(&w, &a, "/");
    sb = sink_enter(&w, &b, "/");
    sc = sink_enter(&w, &c, "/");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_stop(&w);
    sink_free(&a);
    sink_free(&b);
    sink_free(&c);
    return 0;
}

/* A says this; the JSON of its acknowledgement, without the brackets. */
static const char *answer(const char *event)
{
    static char got[128 * 1024];
    world_turn(&w);
    sink_skip(&a);
    snprintf(text, sizeof(text), "29%s", event);
    sink_says(&a, text);
    world_turn(&w);
    assert_non_null(a.session);
    struct sink_frame frame;
    while (sink_next(&a, &frame)) {
        if (frame.payload.n < 4 || memcmp(frame.payload.p, "439[", 4) != 0)
            continue;
        assert_true(frame.payload.n < sizeof(got));
        memcpy(got, frame.payload.p + 4, frame.payload.n - 5);
        got[frame.payload.n - 5] = '\0';
        return got;
    }
    return "";
}

static void answers(const char *event, const char *expected)
{
    assert_string_equal(answer(event), expected);
}

static void refuses(const char *event, const char *error)
{
    snprintf(text, sizeof(text), "{\"ok\":false,\"error\":\"%s\"}", error);
    char *expected = strdup(text);
    answers(event, expected);
    free(expected);
}

static void hears(struct sink *k, const char *expected)
{
    struct span got = sink_text(k);
    if (!span_eq(got, span_of(expected)))
        print_error("got: %.*s\n", (int)got.n, got.p);
    assert_true(span_eq(got, span_of(expected)));
}

static bool is_in(struct socket *s, const char *room)
{
    struct room *r = room_find(s->nsp, span_of(room));
    return r && room_has(r, s);
}

static void ready(void)
{
    world_turn(&w);
    sink_skip(&a);
    sink_skip(&b);
    sink_skip(&c);
}

/* ---- bus:join and bus:leave ---- */

static void joins_one_room_or_several(void **state)
{
    (void)state;
    answers("[\"bus:join\",\"red\"]", "{\"ok\":true,\"rooms\":[\"red\"]}");
    answers("[\"bus:join\",[\"blue\",\"green\"]]", "{\"ok\":true,\"rooms\":[\"blue\",\"green\"]}");
    answers("[\"bus:join\",\"red\"]", "{\"ok\":true,\"rooms\":[\"red\"]}");
    assert_true(is_in(sa, "red") && is_in(sa, "blue") && is_in(sa, "green"));
    assert_false(is_in(sb, "red"));
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 3);
}

static void joins_without_asking_for_an_answer(void **state)
{
    (void)state;
    ready();
    sink_says(&a, "2[\"bus:join\",\"red\"]");
    sink_says(&a, "2[\"bus:join\",17]");
    sink_says(&a, "2[\"bus:leave\",\"blue\"]");
    sink_says(&a, "2[\"bus:who\",\"red\"]");
    sink_says(&a, "2[\"bus:nonsense\"]");
    sink_says(&a, "2[\"bus:emit\",{}]");
    world_turn(&w);
    assert_int_equal(a.n, 0);
    assert_true(is_in(sa, "red"));
}

static void names_are_quoted_in_answers(void **state)
{
    (void)state;
    answers("[\"bus:join\",\"a\\\"b\\\\c\\n\\u0001\\u00e4\\ud83d\\ude00\"]",
            "{\"ok\":true,\"rooms\":[\"a\\\"b\\\\c\\n\\u0001\xc3\xa4\xf0\x9f\x98\x80\"]}");
    assert_true(is_in(sa, "a\"b\\c\n\x01\xc3\xa4\xf0\x9f\x98\x80"));
}

static void escapes_and_plain_text_name_the_same_room(void **state)
{
    (void)state;
    answers("[\"bus:join\",[\"red\",\"\\u0072ed\"]]", "{\"ok\":true,\"rooms\":[\"red\",\"red\"]}");
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 1);
}

static void leaves_one_room_or_several(void **state)
{
    (void)state;
    assert_non_null(strstr(answer("[\"bus:join\",[\"r1\",\"r2\",\"r3\",\"r4\"]]"), "\"ok\":true"));
    answers("[\"bus:leave\",\"r4\"]", "{\"ok\":true,\"rooms\":[\"r4\"]}");
    answers("[\"bus:leave\",[\"r3\",\"nowhere\",\"r2\",\"r2\"]]",
            "{\"ok\":true,\"rooms\":[\"r3\",\"nowhere\",\"r2\",\"r2\"]}");
    assert_true(is_in(sa, "r1"));
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 1);
    answers("[\"bus:leave\",\"r1\"]", "{\"ok\":true,\"rooms\":[\"r1\"]}");
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 0);
}

static void joins_and_leaves_of_wrong_types_are_refused(void **state)
{
    static const char *const commands[] = {"bus:join", "bus:leave"};
    static const char *const wrong[] = {
        "17",   "true",           "null",        "{}",     "{\"room\":\"red\"}", "\"\"",
        "[17]", "[\"red\",null]", "[[\"red\"]]", "[\"\"]", "\"a\\u0000b\"",      "\"\\ud800\""};
    char event[128];
    (void)state;
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]); k++) {
            snprintf(event, sizeof(event), "[\"%s\",%s]", commands[i], wrong[k]);
            refuses(event, "a room is a string that is not empty");
        }
        snprintf(event, sizeof(event), "[\"%s\"]", commands[i]);
        snprintf(text, sizeof(text), "%s takes a room or an array of rooms", commands[i]);
        char *error = strdup(text);
        refuses(event, error);
        snprintf(event, sizeof(event), "[\"%s\",[]]", commands[i]);
        refuses(event, error);
        free(error);
    }
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 0);
    assert_int_equal(a.closes, 0);
}

/* "name…" of n bytes as a JSON string. */
static size_t put_long(char *p, size_t n)
{
    *p = '"';
    memset(p + 1, 'n', n);
    p[n + 1] = '"';
    return n + 2;
}

static void the_length_of_a_name_is_bounded(void **state)
{
    char event[LIMIT_ROOM_BYTES + 64] = "[\"bus:join\",", *p = event + strlen(event);
    (void)state;
    strcpy(p + put_long(p, LIMIT_ROOM_BYTES), "]");
    assert_non_null(strstr(answer(event), "\"ok\":true"));
    strcpy(p + put_long(p, LIMIT_ROOM_BYTES + 1), "]");
    refuses(event, "a room's name is too long");
}

static char *many_rooms(const char *command, unsigned from, unsigned n)
{
    static char event[16 * 1024];
    char *p = event + sprintf(event, "[\"%s\",[", command);
    for (unsigned i = 0; i < n; i++)
        p += sprintf(p, "%s\"room %u\"", i ? "," : "", from + i);
    strcpy(p, "]]");
    return event;
}

static void the_rooms_of_one_call_are_bounded(void **state)
{
    (void)state;
    refuses(many_rooms("bus:join", 0, LIMIT_ROOMS_PER_CALL + 1), "too many rooms in one call");
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), 0); /* none of them */
    assert_non_null(strstr(answer(many_rooms("bus:join", 0, LIMIT_ROOMS_PER_CALL)), "\"ok\":true"));
    refuses(many_rooms("bus:leave", 0, LIMIT_ROOMS_PER_CALL + 1), "too many rooms in one call");
}

static void the_rooms_of_a_client_are_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_SOCKET; i += LIMIT_ROOMS_PER_CALL)
        assert_non_null(strstr(answer(many_rooms("bus:join", i, LIMIT_ROOMS_PER_CALL)), "\"ok\":true"));
    refuses("[\"bus:join\",\"one more\"]", "too many rooms");
    assert_int_equal(metrics_get(w.metrics, METRIC_ROOMS), LIMIT_ROOMS_PER_SOCKET);
    assert_non_null(strstr(answer("[\"bus:join\",\"room 5\"]"), "\"ok\":true"));
}

/* ---- bus:emit ---- */

static void emits_to_everybody_else(void **state)
{
    (void)state;
    ready();
    answers("[\"bus:emit\",{\"event\":\"hi\",\"args\":[1,\"two\",{\"three\":3}]}]",
            "{\"ok\":true,\"id\":\"test-1:1\"}");
    hears(&b, "42[\"hi\",1,\"two\",{\"three\":3}]");
    hears(&c, "42[\"hi\",1,\"two\",{\"three\":3}]");
    answers("[\"bus:emit\",{\"event\":\"hi\"}]", "{\"ok\":true,\"id\":\"test-1:2\"}");
    hears(&b, "42[\"hi\"]");
    sink_skip(&a);
    world_turn(&w);
    assert_int_equal(a.n, 0);
}

static void echo_reaches_the_sender_as_well(void **state)
{
    (void)state;
    ready();
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"hi\",\"echo\":true}]");
    world_turn(&w);
    hears(&a, "42[\"hi\"]");
    hears(&a, "");
    hears(&b, "42[\"hi\"]");
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"hi\",\"echo\":false}]");
    world_turn(&w);
    hears(&a, "");
}

static void emits_to_rooms_and_sids_once_each(void **state)
{
    (void)state;
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    assert_int_equal(room_join(sb, SPAN("blue")), 0);
    ready();
    answers("[\"bus:emit\",{\"to\":\"red\",\"event\":\"one\"}]", "{\"ok\":true,\"id\":\"test-1:1\"}");
    answers("[\"bus:emit\",{\"to\":[\"red\",\"blue\",\"nowhere\"],\"event\":\"two\"}]",
            "{\"ok\":true,\"id\":\"test-1:2\"}");
    snprintf(text, sizeof(text), "2[\"bus:emit\",{\"to\":\"%.20s\",\"event\":\"three\"}]", sc->sid);
    sink_says(&a, text);
    snprintf(text, sizeof(text), "2[\"bus:emit\",{\"to\":[\"%.20s\",\"red\"],\"event\":\"four\"}]", sc->sid);
    sink_says(&a, text);
    world_turn(&w);
    hears(&b, "42[\"one\"]");
    hears(&b, "42[\"two\"]");
    hears(&b, "42[\"four\"]");
    hears(&b, "");
    hears(&c, "42[\"three\"]");
    hears(&c, "42[\"four\"]");
    hears(&c, "");
}

static void except_leaves_rooms_and_sids_out(void **state)
{
    (void)state;
    assert_int_equal(room_join(sb, SPAN("muted")), 0);
    ready();
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"one\",\"except\":\"muted\"}]");
    snprintf(text, sizeof(text), "2[\"bus:emit\",{\"event\":\"two\",\"except\":[\"nowhere\",\"%.20s\"]}]",
             sc->sid);
    sink_says(&a, text);
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"three\",\"except\":[]}]");
    world_turn(&w);
    hears(&b, "42[\"two\"]");
    hears(&b, "42[\"three\"]");
    hears(&c, "42[\"one\"]");
    hears(&c, "42[\"three\"]");
}

static void volatile_emits_do_not_wait(void **state)
{
    (void)state;
    ready();
    sink_block(&b);
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"one\"}]");
    world_turn(&w);
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"two\",\"volatile\":true}]");
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"three\",\"volatile\":false}]");
    world_turn(&w);
    sink_unblock(&b);
    hears(&b, "42[\"one\"]");
    hears(&b, "42[\"three\"]");
    hears(&c, "42[\"one\"]");
    hears(&c, "42[\"two\"]");
    hears(&c, "42[\"three\"]");
}

static void arguments_may_be_binary(void **state)
{
    struct sink_frame frame;
    (void)state;
    ready();
    sink_says(&a,
              "52-4[\"bus:emit\",{\"event\":\"file\",\"args\":[\"name\",{\"_placeholder\":true,\"num\":0},"
              "{\"_placeholder\":true,\"num\":1}]}]");
    session_receive_binary(a.session, SPAN("one"));
    assert_int_equal(b.n, 0);
    session_receive_binary(a.session, SPAN("\0two"));
    world_turn(&w);
    hears(&a, "434[{\"ok\":true,\"id\":\"test-1:1\"}]");
    hears(&b, "452-[\"file\",\"name\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]");
    assert_true(sink_next(&b, &frame));
    assert_int_equal(frame.opcode, WS_BINARY);
    assert_true(span_eq(frame.payload, SPAN("one")));
    assert_true(sink_next(&b, &frame));
    assert_true(span_eq(frame.payload, SPAN("\0two")));
}

static void arguments_are_passed_on_byte_for_byte(void **state)
{
    (void)state;
    ready();
    sink_says(&a, "2[\"bus:emit\",{\"args\": [ 1.50 , \"\\u0041\", [ ] ] , \"event\": \"\\u0068i\" , "
                  "\"unknown\":[{}]}]");
    sink_says(&a, "2[\"bus:emit\",{\"args\":[ ],\"event\":\"none\"}]");
    world_turn(&w);
    hears(&b, "42[\"\\u0068i\",1.50 , \"\\u0041\", [ ]]");
    hears(&b, "42[\"none\"]");
}

static void emits_stay_in_their_namespace(void **state)
{
    struct sink d, e;
    (void)state;
    sink_enter(&w, &d, "/chat");
    sink_enter(&w, &e, "/chat");
    sink_skip(&e);
    ready();
    sink_says(&d, "2/chat,3[\"bus:emit\",{\"event\":\"hi\"}]");
    world_turn(&w);
    hears(&d, "43/chat,3[{\"ok\":true,\"id\":\"test-1:1\"}]");
    hears(&e, "42/chat,[\"hi\"]");
    assert_int_equal(b.n, 0);
    sink_end(&d);
    sink_end(&e);
}

static void emits_that_are_wrong_are_refused(void **state)
{
    static const struct {
        const char *object, *error;
    } rows[] = {
        {"", "an emit is an object"},
        {",\"text\"", "an emit is an object"},
        {",[\"event\"]", "an emit is an object"},
        {",null", "an emit is an object"},
        {",{}", "event is missing or not a string"},
        {",{\"event\":7}", "event is missing or not a string"},
        {",{\"event\":null}", "event is missing or not a string"},
        {",{\"Event\":\"e\"}", "event is missing or not a string"},
        {",{\"event\":\"disconnect\"}", "event is a reserved name"},
        {",{\"event\":\"connect_error\"}", "event is a reserved name"},
        {",{\"event\":\"e\",\"args\":{}}", "args is not an array"},
        {",{\"event\":\"e\",\"args\":\"x\"}", "args is not an array"},
        {",{\"event\":\"e\",\"args\":null}", "args is not an array"},
        {",{\"event\":\"e\",\"to\":7}", "a room is a string that is not empty"},
        {",{\"event\":\"e\",\"to\":\"\"}", "a room is a string that is not empty"},
        {",{\"event\":\"e\",\"to\":[\"a\",{}]}", "a room is a string that is not empty"},
        {",{\"event\":\"e\",\"to\":[]}", "to names no room"},
        {",{\"event\":\"e\",\"except\":{}}", "a room is a string that is not empty"},
        {",{\"event\":\"e\",\"except\":[1]}", "a room is a string that is not empty"},
    };
    char event[256];
    (void)state;
    ready();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(event, sizeof(event), "[\"bus:emit\"%s]", rows[i].object);
        refuses(event, rows[i].error);
    }
    assert_int_equal(b.n, 0);
    assert_int_equal(metrics_get(w.metrics, METRIC_EMITS), 0);
    assert_int_equal(a.closes, 0);
}

static void the_last_of_several_members_counts(void **state)
{
    (void)state;
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    ready();
    sink_says(&a, "2[\"bus:emit\",{\"event\":\"one\",\"to\":\"nowhere\",\"event\":\"two\",\"to\":\"red\"}]");
    world_turn(&w);
    hears(&b, "42[\"two\"]");
    assert_int_equal(c.n, 0);
}

static void the_sizes_of_an_emit_are_bounded(void **state)
{
    char event[LIMIT_ROOM_BYTES + LIMIT_EVENT_NAME_BYTES + 128], *p;
    (void)state;
    p = event + sprintf(event, "[\"bus:emit\",{\"event\":");
    strcpy(p + put_long(p, LIMIT_EVENT_NAME_BYTES), "}]");
    assert_non_null(strstr(answer(event), "\"ok\":true"));
    strcpy(p + put_long(p, LIMIT_EVENT_NAME_BYTES + 1), "}]");
    refuses(event, "event is too long");
    p = event + sprintf(event, "[\"bus:emit\",{\"event\":\"e\",\"to\":");
    strcpy(p + put_long(p, LIMIT_ROOM_BYTES + 1), "}]");
    refuses(event, "a room's name is too long");

    static char many[16 * 1024];
    p = many + sprintf(many, "[\"bus:emit\",{\"event\":\"e\",\"except\":[");
    for (unsigned i = 0; i <= LIMIT_ROOMS_PER_CALL; i++)
        p += sprintf(p, "%s\"%u\"", i ? "," : "", i);
    strcpy(p, "]}]");
    refuses(many, "too many rooms in one call");
}

/* ---- bus:who ---- */

static void who_lists_the_members_of_a_room(void **state)
{
    char expected[256];
    (void)state;
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    assert_int_equal(room_join(sc, SPAN("red")), 0);
    snprintf(expected, sizeof(expected),
             "{\"ok\":true,\"count\":2,\"members\":[{\"sid\":\"%.20s\",\"user\":null},{\"sid\":\"%.20s\","
             "\"user\":null}]}",
             sb->sid, sc->sid);
    answers("[\"bus:who\",\"red\"]", expected);
    answers("[\"bus:who\",[\"red\"]]", expected);
    answers("[\"bus:who\",\"nowhere\"]", "{\"ok\":true,\"count\":0,\"members\":[]}");
}

static void who_knows_that_a_sid_is_a_room(void **state)
{
    char event[64], expected[256];
    (void)state;
    snprintf(event, sizeof(event), "[\"bus:who\",\"%.20s\"]", sb->sid);
    snprintf(expected, sizeof(expected),
             "{\"ok\":true,\"count\":1,\"members\":[{\"sid\":\"%.20s\",\"user\":null}]}", sb->sid);
    answers(event, expected);
    assert_int_equal(room_join(sb, (struct span){sb->sid, ID_CHARS}), 0); /* still once */
    answers(event, expected);
    room_leave(sb, (struct span){sb->sid, ID_CHARS});
    assert_int_equal(room_join(sc, (struct span){sb->sid, ID_CHARS}), 0); /* a guest in it */
    snprintf(expected, sizeof(expected),
             "{\"ok\":true,\"count\":2,\"members\":[{\"sid\":\"%.20s\",\"user\":null},{\"sid\":\"%.20s\","
             "\"user\":null}]}",
             sb->sid, sc->sid);
    answers(event, expected);
}

static void who_skips_the_holes_of_a_room_that_is_walked_over(void **state)
{
    char expected[256];
    (void)state;
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    assert_int_equal(room_join(sc, SPAN("red")), 0);
    struct room *red = room_find(sa->nsp, SPAN("red"));
    room_pin(red);
    room_leave(sa, SPAN("red"));
    room_leave(sb, SPAN("red"));
    snprintf(expected, sizeof(expected),
             "{\"ok\":true,\"count\":1,\"members\":[{\"sid\":\"%.20s\",\"user\":null}]}", sc->sid);
    answers("[\"bus:who\",\"red\"]", expected);
    room_leave(sc, SPAN("red"));
    answers("[\"bus:who\",\"red\"]", "{\"ok\":true,\"count\":0,\"members\":[]}");
    room_unpin(red);
}

static unsigned listed_members(const char *json)
{
    struct json_cursor members = json_open(json_get(span_of(json), "members"));
    struct span item;
    unsigned n = 0;
    assert_int_equal(json_check(span_of(json), LIMIT_JSON_DEPTH), 0);
    while (json_item(&members, &item))
        n++;
    return n;
}

static void who_counts_exactly_and_lists_up_to_its_limit(void **state)
{
    enum { MANY = LIMIT_WHO_MEMBERS + 2 };
    static struct sink crowd[MANY];
    char head[64];
    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        struct socket *s = sink_enter(&w, &crowd[i], "/");
        assert_int_equal(room_join(s, SPAN("full")), 0);
        if (i != LIMIT_WHO_MEMBERS - 2 && i < LIMIT_WHO_MEMBERS - 1)
            continue;
        const char *json = answer("[\"bus:who\",\"full\"]");
        snprintf(head, sizeof(head), "{\"ok\":true,\"count\":%u,\"members\":[", i + 1);
        assert_memory_equal(json, head, strlen(head));
        assert_int_equal(listed_members(json), i < LIMIT_WHO_MEMBERS ? i + 1 : LIMIT_WHO_MEMBERS);
    }
    for (unsigned i = 0; i < MANY; i++)
        sink_end(&crowd[i]);
}

static void who_takes_one_room(void **state)
{
    (void)state;
    refuses("[\"bus:who\"]", "bus:who takes a room");
    refuses("[\"bus:who\",[]]", "bus:who takes a room");
    refuses("[\"bus:who\",[\"a\",\"b\"]]", "bus:who takes a room");
    refuses("[\"bus:who\",7]", "a room is a string that is not empty");
    refuses("[\"bus:who\",null]", "a room is a string that is not empty");
}

/* ---- other events ---- */

static void an_unknown_event_of_the_bus_is_refused(void **state)
{
    (void)state;
    refuses("[\"bus:nonsense\"]", "the bus knows no such event");
    refuses("[\"bus:\"]", "the bus knows no such event");
    refuses("[\"bus:join \",\"red\"]", "the bus knows no such event");
    refuses("[\"bus:offset\",\"x\"]", "the bus knows no such event");
    assert_int_equal(metrics_get(w.metrics, METRIC_EVENTS_UNHANDLED), 0);
}

static void other_events_are_not_the_buses(void **state)
{
    (void)state;
    refuses("[\"business\"]", "nobody handles this event");
    refuses("[\"bus\"]", "nobody handles this event");
    refuses("[\"\"]", "nobody handles this event");
    refuses("[\"BUS:join\",\"red\"]", "nobody handles this event");
    refuses("[7]", "nobody handles this event");
    assert_int_equal(metrics_get(w.metrics, METRIC_EVENTS_UNHANDLED), 5);
}

/* ---- reading ---- */

static void an_emit_is_read_into_a_request(void **state)
{
    static struct emit_request r;
    (void)state;
    assert_null(emit_request_read(
        &r, SPAN("{\"event\":\"e\",\"to\":[\"a\",\"b\"],\"except\":\"c\",\"args\":[1,[2],3],"
                 "\"volatile\":true,\"echo\":true}")));
    assert_true(span_eq(r.emit.event, SPAN("\"e\"")));
    assert_true(span_eq(r.emit.args, SPAN("1,[2],3")));
    assert_int_equal(r.emit.n_to, 2);
    assert_true(span_eq(r.emit.to[0], SPAN("a")) && span_eq(r.emit.to[1], SPAN("b")));
    assert_int_equal(r.emit.n_except, 1);
    assert_true(span_eq(r.emit.except[0], SPAN("c")));
    assert_true(r.emit.is_volatile && r.echo);
    /* Nothing is left of the last one. */
    assert_null(emit_request_read(&r, SPAN("{\"event\":\"f\"}")));
    assert_int_equal(r.emit.n_to + r.emit.n_except, 0);
    assert_int_equal(r.emit.args.n, 0);
    assert_false(r.emit.is_volatile || r.echo);
    assert_null(r.emit.skip);
    assert_null(r.emit.wait);
}

/* The object is read where it lies, before its end is known. */
static void what_follows_an_emit_is_not_of_it(void **state)
{
    static const char *const rests[] = {"",        " ",   ",5", " , {\"to\":\"x\",\"args\":[9]}",
                                        ",\"to\"", ",[]", ",{}"};
    static const char *const objects[] = {"{\"event\":\"e\",\"args\":[1]}",
                                          "{\"args\":[ 1 ],\"event\":\"e\"} ",
                                          "{\"\\u0061rgs\":[1],\"event\":\"e\",\"echo\":false }"};
    static struct emit_request r;
    char object[256];
    (void)state;
    for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
        for (size_t k = 0; k < sizeof(rests) / sizeof(rests[0]); k++) {
            snprintf(object, sizeof(object), "%s%s", objects[i], rests[k]);
            assert_null(emit_request_read(&r, span_of(object)));
            assert_true(span_eq(r.emit.event, SPAN("\"e\"")));
            assert_true(span_eq(r.emit.args, SPAN("1")));
            assert_int_equal(r.emit.n_to, 0);
        }
    }
    assert_string_equal(emit_request_read(&r, SPAN("{},{\"event\":\"e\"}")),
                        "event is missing or not a string");
    assert_string_equal(emit_request_read(&r, SPAN("1,{\"event\":\"e\"}")), "an emit is an object");
    assert_string_equal(emit_request_read(&r, SPAN("")), "an emit is an object");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(joins_one_room_or_several),
        TEST(joins_without_asking_for_an_answer),
        TEST(names_are_quoted_in_answers),
        TEST(escapes_and_plain_text_name_the_same_room),
        TEST(leaves_one_room_or_several),
        TEST(joins_and_leaves_of_wrong_types_are_refused),
        TEST(the_length_of_a_name_is_bounded),
        TEST(the_rooms_of_one_call_are_bounded),
        TEST(the_rooms_of_a_client_are_bounded),
        TEST(emits_to_everybody_else),
        TEST(echo_reaches_the_sender_as_well),
        TEST(emits_to_rooms_and_sids_once_each),
        TEST(except_leaves_rooms_and_sids_out),
        TEST(volatile_emits_do_not_wait),
        TEST(arguments_may_be_binary),
        TEST(arguments_are_passed_on_byte_for_byte),
        TEST(emits_stay_in_their_namespace),
        TEST(emits_that_are_wrong_are_refused),
        TEST(the_last_of_several_members_counts),
        TEST(the_sizes_of_an_emit_are_bounded),
        TEST(who_lists_the_members_of_a_room),
        TEST(who_knows_that_a_sid_is_a_room),
        TEST(who_skips_the_holes_of_a_room_that_is_walked_over),
        TEST(who_counts_exactly_and_lists_up_to_its_limit),
        TEST(who_takes_one_room),
        TEST(an_unknown_event_of_the_bus_is_refused),
        TEST(other_events_are_not_the_buses),
        TEST(an_emit_is_read_into_a_request),
        TEST(what_follows_an_emit_is_not_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
