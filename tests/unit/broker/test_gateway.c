/* The gateway over links in memory: time-outs, bounds, agents that do not read, and records that come when, or as, they
 * should not. */
#include "fakegateway.h"

enum { BATCH = 65536, SMALL = 1000 };

static uint64_t asks_for(unsigned a, const char *address, const char *body, uint64_t deadline_ms)
{
    record_of(AGENT_ASK)->address = span_of(address);
    say.body = span_of(body);
    if (deadline_ms)
        agent_with(&say, AGENT_F_DEADLINE_MS)->deadline_ms = deadline_ms;
    return asks(a);
}

static uint64_t tells(unsigned a, const char *address, struct span body)
{
    record_of(AGENT_TELL)->address = span_of(address);
    say.body = body;
    say.body_is_bin = true;
    return asks(a);
}

static uint64_t registers(unsigned a, const char *address)
{
    record_of(AGENT_REGISTER)->address = span_of(address);
    uint64_t id = asks(a);
    run(200);
    assert_true(hears(a, AGENT_OK, id));
    return id;
}

static uint64_t handles(unsigned a, const char *event, uint64_t deadline_ms, uint64_t limit)
{
    record_of(AGENT_HANDLE)->events[0] = span_of(event);
    agent_with(&say, AGENT_F_EVENTS)->n_events = 1;
    agent_with(&say, AGENT_F_DEADLINE_MS)->deadline_ms = deadline_ms;
    if (limit)
        agent_with(&say, AGENT_F_LIMIT)->limit = limit;
    uint64_t id = asks(a);
    run(200);
    assert_true(hears(a, AGENT_OK, id));
    return id;
}

static uint64_t emits(unsigned a, const char *event, const char *args)
{
    record_of(AGENT_EMIT)->nsp = SPAN("/");
    say.event = span_of(event);
    agent_set_args(&say, span_of(args));
    return asks(a);
}

/* Client 0 of a node emits and wants an acknowledgement. */
static void client_emits(unsigned node, const char *event)
{
    char text[128];
    snprintf(text, sizeof(text), "21[\"%s\",1]", event);
    sink_says(&nodes[node].k[0], text);
}

/* What it has got since, frame by frame, holds this. */
static unsigned client_has(unsigned node, const char *text)
{
    struct sink_frame frame;
    unsigned n = 0;
    if (nodes[node].k[0].session)
        sink_flush(nodes[node].k[0].session);
    while (sink_next(&nodes[node].k[0], &frame))
        n += memmem(frame.payload.p, frame.payload.n, text, strlen(text)) != NULL;
    return n;
}

static void answers(unsigned a, uint64_t id, const char *args)
{
    agent_with(record_of(AGENT_OK), AGENT_F_ANSWER_ARGS)->id = id;
    agent_set_args(&say, span_of(args));
    says(a);
}

static unsigned count(unsigned a, enum agent_kind kind)
{
    unsigned n = 0;
    while (hears(a, kind, 0))
        n++;
    return n;
}

/* What an agent that does not grant by itself grants. */
static void grants(unsigned a, uint64_t credit)
{
    record_of(AGENT_CREDIT)->credit = credit;
    says(a);
}

/* Gives signs of life, and no credit. */
static void run_without_grants(unsigned a, uint64_t credit, unsigned ms)
{
    fakes[a].is_mute = true;
    for (unsigned done = 0; done < ms; done += SLICE_MS) {
        grants(a, credit);
        run(SLICE_MS);
    }
}

/* ---- deadlines ---- */

static void a_call_without_an_answer_ends_at_its_deadline(void **state)
{
    (void)state;
    for (unsigned node = 0; node < 2; node++) { /* the agent's, and another */
        hello(node, 0, "deaf");
        handles(node, node ? "far" : "near", 300, 0);
        client_emits(node, node ? "far" : "near");
        run(250);
        assert_true(hears(node, AGENT_CALL, 0));
        uint64_t call = heard.id;
        assert_int_equal(client_has(node, "431["), 0);
        run(100);
        assert_int_equal(client_has(node, "\"code\":\"deadline\""), 1);
        assert_true(hears(node, AGENT_CANCEL, call));
        answers(node, call, "[1]"); /* too late: nobody is told */
        run(100);
        assert_int_equal(client_has(node, "431["), 0);
        assert_false(hears(node, AGENT_ERROR, 0));
    }
}

static void an_ask_ends_at_its_deadline_at_any_node(void **state)
{
    (void)state;
    hello(0, 0, "actor");
    hello(1, 0, "near");
    hello(2, 1, "far");
    registers(0, "it");
    for (unsigned a = 1; a < 3; a++) {
        uint64_t id = asks_for(a, "it", "?", 200);
        run(150);
        assert_true(hears(0, AGENT_ASKED, 0) && heard.deadline_ms == 200);
        uint64_t asked = heard.id;
        assert_false(hears(a, AGENT_ERROR, id));
        run(100);
        assert_true(hears_error(a, id, "deadline"));
        assert_true(hears(0, AGENT_CANCEL, asked));
    }
    uint64_t id = asks_for(2, "nobody", "?", 0);
    assert_true((run(10), hears_error(2, id, "nobody")));
}

static void who_dies_with_a_question_fails_it(void **state)
{
    (void)state;
    hello(0, 0, "actor");
    hello(1, 1, "asker");
    registers(0, "it");
    handles(0, "work", 20000, 0);
    uint64_t id = asks_for(1, "it", "?", 20000);
    client_emits(2, "work");
    run(50);
    assert_true(hears(0, AGENT_ASKED, 0) && hears(0, AGENT_CALL, 0));
    fakes[0].is_mute = true;
    run(1300);
    assert_true(hears_error(1, id, "died"));
    assert_int_equal(client_has(2, "\"code\":\"died\""), 1);
    assert_true(hears(0, AGENT_BYE, 0) && span_eq(heard.code, SPAN("silent")));
    /* With its node. */
    hello(2, 0, "actor");
    registers(2, "it");
    id = asks_for(1, "it", "?", 20000);
    run(50);
    kill_node(0);
    fakes[2].is_mute = true;
    run(600);
    assert_true(hears_error(1, id, "died"));
}

/* ---- bounds ---- */

static void calls_that_wait_are_bounded(void **state)
{
    (void)state;
    hello(0, 0, "slow");
    handles(0, "work", 20000, 1);
    for (unsigned i = 0; i < SMALL + 1; i++)
        client_emits(0, "work");
    run(100);
    assert_int_equal(count(0, AGENT_CALL), 1);
    assert_int_equal(client_has(0, "\"code\":\"busy\""), 0);
    client_emits(0, "work");
    run(10);
    assert_int_equal(client_has(0, "\"code\":\"busy\""), 1);
    /* One answer, one more call. */
    answers(0, heard.id, "[1]");
    run(10);
    assert_int_equal(count(0, AGENT_CALL), 1);
    assert_int_equal(client_has(0, "431[1]"), 1);
}

static void what_is_told_and_not_taken_is_bounded(void **state)
{
    (void)state;
    static char large[BATCH];
    hello(0, 0, "teller");
    greet(1, 0, "full", "full", 100);
    fakes[1].is_mute = true;
    record_of(AGENT_REGISTER)->address = SPAN("it");
    uint64_t reg = asks(1);
    run_without_grants(1, 100, 200);
    assert_true(hears(1, AGENT_OK, reg));
    uint64_t id = 0;
    unsigned told = 0, busy = 0;
    for (unsigned i = 0; i < SMALL + 200; i++)
        id = tells(0, "it", SPAN("x"));
    run_without_grants(1, 100, 100);
    while (hears(0, AGENT_OK, 0))
        told++;
    fakes[0].read = 0;
    while (hears_error(0, 0, "busy"))
        busy++;
    assert_true(told >= SMALL && told < SMALL + 30 && told + busy == SMALL + 200 && id > 0);
    /* Also in bytes; and all of it comes, in order, when there is credit. */
    grants(1, 1 << 20);
    run_without_grants(1, 1 << 20, 100);
    assert_int_equal(count(1, AGENT_TOLD), told);
    fakes[1].read = fakes[1].got.size;
    grants(1, fakes[1].received);
    fakes[0].read = fakes[0].got.size;
    told = busy = 0;
    for (unsigned i = 0; i < 40; i++) {
        id = tells(0, "it", (struct span){large, sizeof(large)});
        net_run(&net, 2);
        fakes[0].read = 0;
        told += hears(0, AGENT_OK, id);
        fakes[0].read = 0;
        busy += hears_error(0, id, "busy");
    }
    /* What it may have under way, and a megabyte that waits. */
    assert_true(told + busy == 40 && told >= (1 << 20) / BATCH && told <= 2 * (1 << 20) / BATCH + 1);
}

static void who_is_told_of_too_many_lives_is_ended(void **state)
{
    (void)state;
    enum { JOINS = 100000 / 2 + 10 };
    greet(0, 0, "looks on", "looks on", 100);
    record_of(AGENT_HANDLE)->life = AGENT_LIFE_JOIN | AGENT_LIFE_LEAVE;
    agent_with(&say, AGENT_F_LIFE);
    uint64_t id = asks(0);
    run_without_grants(0, 100, 200);
    assert_true(hears(0, AGENT_OK, id));
    struct socket *s = nodes[0].s[0];
    for (unsigned i = 0; i < JOINS; i++) {
        assert_int_equal(room_join(s, SPAN("room")), 0);
        room_leave(s, SPAN("room"));
        if (i % 1000 == 0)
            run_without_grants(0, 100, SLICE_MS);
    }
    run_without_grants(0, 100, SLICE_MS);
    assert_true(hears(0, AGENT_BYE, 0) && span_eq(heard.code, SPAN("slow")));
}

static void unanswered_requests_are_bounded_by_the_window(void **state)
{
    (void)state;
    static char body[60001];
    memset(body, 'x', 60000);
    hello(0, 0, "itself");
    registers(0, "it");
    for (unsigned i = 0; i < 17; i++)
        asks_for(0, "it", body, 20000);
    assert_false((run(10), hears(0, AGENT_ERROR, 0)));
    /* The 18th was begun within the grant; those behind it were not. */
    uint64_t last = 0;
    for (unsigned i = 0; i < 3; i++)
        last = asks_for(0, "it", body, 20000);
    run(10);
    assert_true(hears_error(0, last, "credit"));
    for (unsigned i = 0; i < 40; i++)
        asks_for(0, "it", body, 20000);
    run(10);
    assert_true(hears(0, AGENT_BYE, 0) && span_eq(heard.code, SPAN("credit")));
}

/* ---- agents that do not read ---- */

/* To events `n`, with so much credit and no more. */
static uint64_t subscribes(unsigned a, uint64_t window)
{
    record_of(AGENT_SUBSCRIBE)->events[0] = SPAN("n");
    agent_with(&say, AGENT_F_EVENTS)->n_events = 1;
    uint64_t id = asks(a);
    run_without_grants(a, window, 100);
    assert_true(hears(a, AGENT_OK, id));
    return id;
}

static void who_does_not_read_events_is_told_how_many_are_lost(void **state)
{
    (void)state;
    char args[32];
    hello(0, 1, "source");
    greet(1, 0, "behind", "behind", 2000);
    subscribes(1, 2000);
    for (unsigned i = 0; i < 500; i++) {
        snprintf(args, sizeof(args), "[%u]", i);
        emits(0, i % 2 ? "n" : "other", args);
    }
    run_without_grants(1, 2000, 300);
    unsigned n = 0;
    while (hears(1, AGENT_EVENT, 0)) {
        snprintf(args, sizeof(args), "%u", 2 * n++ + 1);
        assert_true(span_eq(heard.args, span_of(args)));
    }
    assert_true(n > 0 && n < 100);
    fakes[1].read = fakes[1].got.size;
    grants(1, 1 << 20);
    run_without_grants(1, 1 << 20, 300);
    /* These nodes keep nothing for replays: it is told how many there were, and goes on. */
    assert_true(hears(1, AGENT_LOST, 0) && heard.count == 250 - n);
    emits(0, "n", "[501]");
    run_without_grants(1, 1 << 20, 100);
    assert_true(hears(1, AGENT_EVENT, 0) && span_eq(heard.args, SPAN("501")));
}

/* Node 0 says to node 1 that nobody has this one of its records any more, nor those before. */
static void is_gone(uint64_t seq)
{
    record.kind = MESH_REPAIRED;
    record.repair = (struct mesh_repair){.origin = {0x10, 1}, .from = 1, .to = seq, .gone_to = seq};
    forge(&record);
}

static void who_subscribes_is_told_what_the_mesh_has_lost(void **state)
{
    (void)state;
    hello(0, 1, "source");
    hello(1, 1, "reads");
    greet(2, 1, "behind", "behind", 2000);
    uint64_t behind = subscribes(2, 2000), reg = subscribes(1, 1 << 20);
    fakes[1].is_mute = false;
    emits(0, "n", "[1]");
    run_without_grants(2, 2000, 100);
    is_gone(1000);
    emits(0, "n", "[2]");
    run_without_grants(2, 2000, 100);
    for (unsigned a = 1; a <= 2; a++) {
        assert_true(hears(a, AGENT_EVENT, 0) && span_eq(heard.args, SPAN("1")));
        assert_true(hears(a, AGENT_LOST, 0) && heard.reg == (a == 1 ? reg : behind) && heard.count == 0);
        assert_true(hears(a, AGENT_EVENT, 0) && span_eq(heard.args, SPAN("2")));
    }
    /* One that does not read hears it with what it misses itself. */
    for (unsigned i = 0; i < 200; i++)
        emits(0, "n", "[3]");
    run_without_grants(2, 2000, 100);
    is_gone(2000);
    emits(0, "n", "[4]");
    run_without_grants(2, 2000, 100);
    fakes[2].read = fakes[2].got.size;
    grants(2, 1 << 20);
    run_without_grants(2, 1 << 20, 100);
    assert_true(hears(2, AGENT_LOST, 0) && heard.count == 0);
    emits(0, "n", "[5]");
    run_without_grants(2, 1 << 20, 100);
    assert_true(hears(2, AGENT_EVENT, 0) && span_eq(heard.args, SPAN("5")));
}

static void a_link_that_takes_nothing_ends_in_the_end(void **state)
{
    (void)state;
    static char large[8192];
    memset(large, 'x', sizeof(large) - 1);
    hello(0, 0, "teller");
    greet(1, 0, "stuck", "stuck", 1 << 30);
    registers(1, "it");
    fakes[1].refuses = ERR_BUSY;
    fakes[1].is_mute = true;
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned k = 0; k < 20; k++)
            tells(0, "it", span_of(large));
        grants(1, 1 << 30);
        run(SLICE_MS);
    }
    /* What the link takes again has lost nothing. */
    fakes[1].refuses = 0;
    run_without_grants(1, 1 << 30, 100);
    assert_int_equal(count(1, AGENT_TOLD), 100);
    /* Nor is anything kept without end. */
    fakes[1].refuses = ERR_BUSY;
    uint64_t id = 0;
    for (unsigned i = 0; i < 60 && !id; i++) {
        for (unsigned k = 0; k < 30; k++)
            tells(0, "it", span_of(large));
        grants(1, 1 << 30);
        run(SLICE_MS);
        id = tells(0, "it", SPAN("?"));
        run(1);
        id = hears_error(0, id, "nobody");
    }
    assert_true(id);
    assert_int_equal(metrics_get(nodes[0].w.metrics, METRIC_AGENTS), 1);
}

static void a_connection_that_is_gone_ends_its_agent(void **state)
{
    (void)state;
    hello(0, 0, "watcher");
    hello(1, 1, "gone");
    registers(1, "it");
    record_of(AGENT_WATCH)->address = SPAN("it");
    uint64_t id = asks(0);
    run(50);
    assert_true(hears(0, AGENT_OK, id) && heard.alive);
    fakes[1].refuses = ERR_NOT_FOUND;
    run(500);
    assert_true(hears(0, AGENT_GONE, 0) && span_eq(heard.reason, SPAN("died")));
}

/* ---- records that should not come ---- */

static void says_raw(unsigned a, struct span bytes)
{
    says_bytes(a, bytes);
    run(10);
}

static void a_stranger_is_told_to_say_hello(void **state)
{
    (void)state;
    fakes[0].is_mute = fakes[0].is_there = true;
    msgpack_sbuffer_init(&fakes[0].got);
    emits(0, "x", "[]");
    assert_true(hears_error(0, 0, "hello"));
    says_raw(0, SPAN("\xc1"));
    assert_true(hears_error(0, 0, "hello"));
    says_raw(0, SPAN("\x95\x01\x00\xa1n\xa1i\x01")); /* version 0 */
    assert_true(hears_error(0, 0, "version") && heard.version == AGENT_VERSION);
    says_raw(0, SPAN("\x95\x01\x01\xa0\xa1i\x01"));
    assert_true(hears_error(0, 0, "argument"));
    says_raw(0, SPAN("\x93\x01\x63\xa1n")); /* another version may lay it out otherwise */
    assert_true(hears(0, AGENT_ERROR, 0));
}

static void replayed_and_misplaced_records_cost_an_answer(void **state)
{
    (void)state;
    hello(0, 0, "odd");
    record_of(AGENT_HELLO)->version = 1;
    say.name = say.instance = SPAN("again");
    say.credit = 1;
    says(0);
    assert_true((run(10), hears_error(0, 0, "hello")));
    /* Answers that nobody waits for, and one that came before. */
    answers(0, 77, "[]");
    uint64_t reg = handles(0, "work", 5000, 0);
    client_emits(0, "work");
    run(10);
    assert_true(hears(0, AGENT_CALL, 0));
    uint64_t call = heard.id;
    answers(0, call, "[1]");
    answers(0, call, "[2]");
    run(10);
    assert_int_equal(client_has(0, "431["), 1);
    /* The same id, while it is a registration's and after that. */
    record_of(AGENT_WATCH)->address = SPAN("it");
    say.id = reg;
    says(0);
    assert_true((run(10), hears_error(0, reg, "id")));
    for (unsigned i = 0; i < 2; i++) {
        record_of(AGENT_UNDO)->reg = reg;
        uint64_t id = asks(0);
        run(10);
        assert_true(i ? hears_error(0, id, "not_found") : hears(0, AGENT_OK, id));
    }
    /* A grant that becomes less is none. */
    grants(0, 10);
    uint64_t id = emits(0, "fine", "[]");
    assert_true((run(10), hears(0, AGENT_OK, id)));
}

static void what_is_not_known_is_skipped_and_answered(void **state)
{
    (void)state;
    hello(0, 0, "later");
    says_raw(0, SPAN("\x93\xcd\x01\x00\x07\xa1x"
                     "\x97\x10\x08\xa1/\xc0\xa1"
                     "e\xa2[]\x80"));
    assert_true(hears_error(0, 7, "unknown_kind"));
    assert_true(hears(0, AGENT_OK, 8)); /* what stands behind it is carried out */
    /* Kinds that only nodes send. */
    for (unsigned kind = AGENT_EVENT; kind <= AGENT_RECOVERED; kind++) {
        char bytes[] = {(char)0x92, (char)kind, 9};
        says_raw(0, (struct span){bytes, sizeof(bytes)});
        assert_true(hears(0, AGENT_ERROR, 9));
        assert_true(span_eq(heard.code, SPAN("unknown_kind")) || span_eq(heard.code, SPAN("argument")));
    }
    /* Unknown keys and elements, also nested ones. */
    says_raw(0, SPAN("\x98\x10\x0a\xa1/\xc0\xa1"
                     "e\xa2[]\x82\xa1z\x91\x91\x01\xa8volatile\xc3\x81\x01\x02"));
    assert_true(hears(0, AGENT_OK, 10));
}

static void a_hundred_messages_that_cannot_be_read_end_it(void **state)
{
    (void)state;
    hello(0, 0, "broken");
    hello(1, 0, "good");
    for (unsigned i = 0; i < 99; i++)
        says_bytes(0, SPAN("\xc1"));
    run(1200); /* not within one second */
    for (unsigned i = 0; i < 99; i++)
        says_bytes(0, SPAN("\xc1"));
    run(10);
    assert_false(hears(0, AGENT_BYE, 0));
    says_bytes(0, SPAN("\xc1"));
    run(10);
    assert_true(hears(0, AGENT_BYE, 0) && span_eq(heard.code, SPAN("malformed")));
    emits(0, "x", "[]");
    assert_true(hears_error(0, 0, "hello"));
    uint64_t id = emits(1, "x", "[]");
    assert_true((run(10), hears(1, AGENT_OK, id)));
}

/* An answer that cannot be read must not leave a client waiting. */
static void an_answer_that_is_none_fails_its_call(void **state)
{
    (void)state;
    hello(0, 0, "odd");
    handles(0, "work", 20000, 0);
    for (unsigned i = 0; i < 2; i++) {
        client_emits(0, "work");
        run(10);
        assert_true(hears(0, AGENT_CALL, 0));
        char id = (char)heard.id;
        char wrong_type[] = {(char)0x93, 7, id, (char)0x81, (char)0xa4, 'a', 'r', 'g', 's', 5};
        char wrong_json[] = {(char)0x93, 7,   id,  (char)0x81, (char)0xa4, 'a',
                             'r',        'g', 's', (char)0xa2, '[',        ','};
        says_raw(0, i ? (struct span){wrong_json, sizeof(wrong_json)}
                      : (struct span){wrong_type, sizeof(wrong_type)});
        assert_int_equal(client_has(0, "\"code\":\"failed\""), 1);
        assert_true(hears(0, AGENT_ERROR, (uint64_t)id));
    }
}

/* ---- coming and going ---- */

static void a_node_that_drains_sends_agents_away(void **state)
{
    (void)state;
    hello(0, 0, "here");
    agents_drain(gateways[0]);
    run(10);
    assert_true(hears(0, AGENT_NODE, 0) && heard.draining);
    fakes[1].node = 0;
    msgpack_sbuffer_init(&fakes[1].got);
    fakes[1].is_there = fakes[1].is_mute = true;
    record_of(AGENT_HELLO)->version = 1;
    say.name = say.instance = SPAN("late");
    say.credit = 1000;
    says(1);
    assert_true(hears_error(1, 0, "unavailable") && heard.retry_ms > 0);
    uint64_t id = emits(0, "still", "[]"); /* it is served until it goes */
    assert_true((run(10), hears(0, AGENT_OK, id)));
}

static void of_two_actors_of_one_address_one_stays(void **state)
{
    (void)state;
    uint64_t reg[2];
    for (unsigned a = 0; a < 2; a++)
        hello(a, a, "actor");
    for (unsigned a = 0; a < 2; a++) {
        record_of(AGENT_REGISTER)->address = SPAN("it");
        reg[a] = asks(a);
    }
    run(500);
    assert_true(hears(0, AGENT_OK, reg[0]));
    assert_true(hears_error(1, reg[1], "taken"));
    hello(2, 2, "asker");
    uint64_t id = asks_for(2, "it", "?", 1000);
    run(10);
    assert_true(hears(0, AGENT_ASKED, 0));
    agent_with(record_of(AGENT_OK), AGENT_F_ANSWER_BODY)->id = heard.id;
    say.body = SPAN("!");
    says(0);
    run(10);
    assert_true(hears(2, AGENT_OK, id) && span_eq(heard.body, SPAN("!")));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_gateways, tear_down_gateways)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_without_an_answer_ends_at_its_deadline),
        TEST(an_ask_ends_at_its_deadline_at_any_node),
        TEST(who_dies_with_a_question_fails_it),
        TEST(calls_that_wait_are_bounded),
        TEST(what_is_told_and_not_taken_is_bounded),
        TEST(who_is_told_of_too_many_lives_is_ended),
        TEST(unanswered_requests_are_bounded_by_the_window),
        TEST(who_does_not_read_events_is_told_how_many_are_lost),
        TEST(who_subscribes_is_told_what_the_mesh_has_lost),
        TEST(a_link_that_takes_nothing_ends_in_the_end),
        TEST(a_connection_that_is_gone_ends_its_agent),
        TEST(a_stranger_is_told_to_say_hello),
        TEST(replayed_and_misplaced_records_cost_an_answer),
        TEST(what_is_not_known_is_skipped_and_answered),
        TEST(a_hundred_messages_that_cannot_be_read_end_it),
        TEST(an_answer_that_is_none_fails_its_call),
        TEST(a_node_that_drains_sends_agents_away),
        TEST(of_two_actors_of_one_address_one_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
