/* What an agent, or a client that agents know, may do for ever: the gateway neither keeps anything of it nor turns against
 * who does what it may. */
#include "agents_private.h"
#include "fakegateway.h"

enum { LARGE = 60000, MEBIBYTE = 1 << 20 };

static char large[MEBIBYTE + 1];

static char *large_text(size_t n)
{
    memset(large, 'x', n);
    large[n] = '\0';
    return large;
}

static void registers(unsigned a, const char *address)
{
    record_of(AGENT_REGISTER)->address = span_of(address);
    uint64_t id = asks(a);
    run(200);
    assert_true(hears(a, AGENT_OK, id));
}

static uint64_t asks_for(unsigned a, const char *address, const char *body, uint64_t deadline_ms)
{
    record_of(AGENT_ASK)->address = span_of(address);
    say.body = span_of(body);
    agent_with(&say, AGENT_F_DEADLINE_MS)->deadline_ms = deadline_ms;
    return asks(a);
}

static uint64_t tells(unsigned a, const char *address, const char *body)
{
    record_of(AGENT_TELL)->address = span_of(address);
    say.body = span_of(body);
    return asks(a);
}

static void handles_connect(unsigned a, const char *group, bool observe, bool by_session)
{
    agent_with(record_of(AGENT_HANDLE), AGENT_F_LIFE)->life = AGENT_LIFE_CONNECT;
    agent_with(&say, AGENT_F_NAMESPACES)->n_namespaces = 1;
    say.namespaces[0] = SPAN("*");
    agent_with(&say, AGENT_F_GROUP)->group = span_of(group);
    if (observe)
        agent_with(&say, AGENT_F_OBSERVE)->observe = true;
    if (by_session)
        agent_with(&say, AGENT_F_STICKY)->sticky = true;
    uint64_t id = asks(a);
    run(200);
    assert_true(hears(a, AGENT_OK, id));
}

static void empty(unsigned a)
{
    msgpack_sbuffer_clear(&fakes[a].got);
    fakes[a].read = 0;
}

/* ---- credit ---- */

static void answers_beyond_a_full_window_are_no_offence(void **state)
{
    (void)state;
    hello(0, 0, "busy");
    registers(0, "it");
    large_text(LARGE);
    for (unsigned i = 0; i < 18; i++)
        asks_for(0, "it", large, 3000);
    run(10);
    /* Its window is full; answers may be sent all the same, and do not add up. */
    for (unsigned i = 0; i < 60; i++) {
        agent_with(record_of(AGENT_OK), AGENT_F_ANSWER_BODY)->id = 1000 + i;
        say.body = span_of(large);
        says(0);
        run(10);
    }
    assert_false(hears(0, AGENT_BYE, 0));
    fakes[0].read = 0;
    assert_false(hears_error(0, 0, "credit"));
    run(4000);
    empty(0);
    uint64_t id = tells(0, "it", "still there");
    assert_true((run(10), hears(0, AGENT_OK, id)));
}

/* All that there is: more than agents may have under way together. */
static void grant_without_end(unsigned a)
{
    record_of(AGENT_CREDIT)->credit = UINT64_MAX;
    says(a);
}

static void who_grants_without_end_gets_all_of_it(void **state)
{
    (void)state;
    enum { BODIES = 300 };
    unsigned told = 0;
    greet(0, 0, "endless", "endless", UINT64_MAX);
    fakes[0].is_mute = true;
    hello(1, 0, "teller");
    record_of(AGENT_REGISTER)->address = SPAN("it");
    asks(0);
    run(100);
    large_text(MEBIBYTE);
    for (unsigned i = 0; i < BODIES; i++) {
        grant_without_end(0);
        tells(1, "it", large);
        run(10);
        told += hears(0, AGENT_TOLD, 0) && heard.body.n == MEBIBYTE;
        empty(0);
        empty(1);
    }
    assert_int_equal(told, BODIES);
    /* Nobody else has less of the memory for it. */
    assert_true(gateways[0]->sent_unread < (size_t)64 * MEBIBYTE);
    /* And it may go on asking. */
    large_text(LARGE);
    for (unsigned i = 0; i < 40; i++) {
        grant_without_end(0);
        uint64_t id = tells(0, "it", large);
        assert_true((run(10), hears(0, AGENT_OK, id)));
        empty(0);
    }
}

/* ---- clients that are refused ---- */

static unsigned stickies_of(unsigned node)
{
    unsigned n = 0;
    for (const struct group *group = gateways[node]->groups; group; group = group->hh.next)
        n += HASH_COUNT(group->stickies);
    return n;
}

static void who_is_refused_leaves_nothing_behind(void **state)
{
    (void)state;
    hello(0, 0, "guard");
    handles_connect(0, "guards", false, true);
    for (unsigned i = 0; i < 20; i++) {
        sink_says(&nodes[0].k[0], "0/x,{}");
        run(10);
        assert_true(hears(0, AGENT_CONNECT, 0));
        uint64_t id = heard.id;
        record_of(AGENT_ERROR)->id = id;
        say.code = SPAN("no");
        says(0);
        run(10);
    }
    assert_int_equal(stickies_of(0), 0);
    /* One that gives up while it is asked. */
    sink_says(&nodes[0].k[0], "0/x,{}");
    run(10);
    assert_int_equal(stickies_of(0), 1);
    sink_end(&nodes[0].k[0]);
    run(10);
    assert_int_equal(stickies_of(0), 0);
    /* One that is let in keeps its member until it goes. */
    sink_says(&nodes[0].k[1], "0/x,{}");
    run(10);
    assert_true(hears(0, AGENT_CONNECT, 0));
    while (hears(0, AGENT_CONNECT, 0))
        ;
    record_of(AGENT_OK)->id = heard.id;
    says(0);
    run(10);
    assert_int_equal(stickies_of(0), 1);
    sink_says(&nodes[0].k[1], "1/x,");
    run(10);
    assert_int_equal(stickies_of(0), 0);
}

static void who_looks_on_does_not_let_anybody_in(void **state)
{
    (void)state;
    hello(0, 0, "guard");
    handles_connect(0, "guards", false, false);
    hello(1, 0, "audience");
    handles_connect(1, "guards", true, false);
    hello(2, 1, "audience");
    handles_connect(2, "guards", true, true);
    for (unsigned i = 0; i < 6; i++) {
        char connect[16];
        snprintf(connect, sizeof(connect), "0/x%u,{}", i);
        sink_says(&nodes[0].k[0], connect);
        run(10);
        assert_true(hears(0, AGENT_CONNECT, 0));
    }
    assert_false(hears(1, AGENT_CONNECT, 0) || hears(2, AGENT_CONNECT, 0));
}

/* ---- work ---- */

static unsigned oks_in_order(unsigned a, uint64_t first)
{
    unsigned n = 0;
    while (hears(a, AGENT_OK, 0))
        assert_int_equal(heard.id, first + n++);
    return n;
}

static void a_long_message_is_carried_out_in_shares(void **state)
{
    (void)state;
    enum { RECORDS = 60000 };
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    hello(0, 0, "long-winded");
    hello(1, 0, "short");
    registers(1, "it");
    empty(0);
    for (uint64_t id = 1; id <= RECORDS; id++) {
        record_of(AGENT_LEAVE)->id = id;
        say.nsp = SPAN("/");
        say.to[0] = SPAN("nobody");
        say.rooms[0] = SPAN("nowhere");
        say.n_to = say.n_rooms = 1;
        assert_int_equal(agent_write(&b, &say), 0);
    }
    says_bytes(0, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
    /* Who comes later does not wait for all of it, and it is done in order. */
    uint64_t id = tells(1, "it", "now");
    net_run(&net, 2);
    assert_true(hears(1, AGENT_OK, id));
    unsigned done = oks_in_order(0, 1);
    assert_true(done > 0 && done < RECORDS / 2);
    run(1000);
    assert_int_equal(oks_in_order(0, 1 + done), RECORDS - done);
}

static void a_room_named_often_is_looked_at_once(void **state)
{
    (void)state;
    hello(0, 0, "again and again");
    for (unsigned c = 0; c < CLIENTS; c++)
        assert_int_equal(room_join(nodes[0].s[c], SPAN("room")), 0);
    uint64_t before = gateways[0]->looked_at;
    record_of(AGENT_MEMBERS)->nsp = SPAN("/");
    say.n_to = LIMIT_ROOMS_PER_CALL;
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_CALL; i++)
        say.to[i] = SPAN("room");
    uint64_t id = asks(0);
    run(100);
    assert_true(hears(0, AGENT_OK, id));
    assert_int_equal(heard.count, CLIENTS);
    assert_int_equal(gateways[0]->looked_at - before, CLIENTS);
}

/* Each by itself, whatever waits before it; the registration that ends takes its own along. */
static void what_is_late_among_many_is_found(void **state)
{
    (void)state;
    enum { PATIENT = 20000, LATE = 2000 };
    uint64_t first = 0, next = 0;
    hello(0, 0, "slow");
    registers(0, "it");
    registers(0, "other");
    hello(1, 1, "asker");
    for (unsigned i = 0; i < PATIENT; i++)
        asks_for(1, i % 2 ? "it" : "other", "?", 3600000);
    run(200);
    for (unsigned i = 0; i < LATE; i++) {
        uint64_t id = asks_for(1, "it", "?", 300);
        first = first ? first : id;
    }
    run(100);
    unsigned asked = 0, cancelled = 0, failed = 0;
    while (hears(0, AGENT_ASKED, 0))
        next = ++asked == PATIENT + 1 ? heard.id : next;
    assert_int_equal(asked, PATIENT + LATE);
    run(500);
    while (hears(0, AGENT_CANCEL, 0))
        assert_int_equal(heard.id, next + cancelled++);
    assert_int_equal(cancelled, LATE);
    while (hears_error(1, 0, "deadline"))
        assert_int_equal(heard.id, first + failed++);
    assert_int_equal(failed, LATE);
    record_of(AGENT_UNDO)->reg = 1;
    asks(0);
    run(100);
    empty(0);
    for (failed = 0; hears_error(1, 0, "died");)
        failed++;
    assert_int_equal(failed, PATIENT / 2);
}

/* ---- clients that several groups let in ---- */

static void client_connects(unsigned client, const char *nsp)
{
    char text[16];
    snprintf(text, sizeof(text), "0%s,{}", nsp);
    sink_says(&nodes[0].k[client], text);
    run(10);
}

static uint64_t emits_to(unsigned a, struct span nsp, struct span room)
{
    record_of(AGENT_EMIT)->nsp = nsp;
    say.event = SPAN("e");
    agent_set_args(&say, SPAN("[]"));
    say.n_to = room.n > 0;
    say.to[0] = room;
    return asks(a);
}

static void who_has_agreed_does_not_wait_for_those_who_do_not(void **state)
{
    (void)state;
    char sid[ID_CHARS];
    hello(0, 0, "quick");
    handles_connect(0, "quick", false, false);
    hello(1, 0, "hung");
    handles_connect(1, "hung", false, false);
    client_connects(0, "/x");
    assert_true(hears(0, AGENT_CONNECT, 0) && hears(1, AGENT_CONNECT, 0));
    fakes[0].read = 0;
    assert_true(hears(0, AGENT_CONNECT, 0));
    uint64_t task = heard.id;
    record_of(AGENT_OK)->id = task;
    says(0);
    /* What is for everybody in the namespace waits, but not as long as the other group takes. */
    uint64_t id = emits_to(0, SPAN("/x"), SPAN(""));
    assert_false((run(100), hears(0, AGENT_OK, id)));
    assert_true((run(600), hears(0, AGENT_OK, id)));
    /* From here on it does not wait at all; what is for the client itself does. */
    client_connects(1, "/x");
    assert_true(hears(0, AGENT_CONNECT, 0) && hears(1, AGENT_CONNECT, 0));
    task = heard.id;
    fakes[0].read = 0;
    while (hears(0, AGENT_CONNECT, 0))
        memcpy(sid, heard.sid.p, ID_CHARS);
    fakes[0].read = 0;
    while (hears(0, AGENT_CONNECT, 0))
        id = heard.id;
    record_of(AGENT_OK)->id = id;
    says(0);
    id = emits_to(0, SPAN("/x"), SPAN(""));
    assert_true((run(10), hears(0, AGENT_OK, id)));
    id = emits_to(0, SPAN("/x"), (struct span){sid, ID_CHARS});
    assert_false((run(1000), hears(0, AGENT_OK, id)));
    record_of(AGENT_OK)->id = task;
    says(1);
    assert_true((run(100), hears(0, AGENT_OK, id)));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_gateways, tear_down_gateways)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_beyond_a_full_window_are_no_offence),
        TEST(who_grants_without_end_gets_all_of_it),
        TEST(who_is_refused_leaves_nothing_behind),
        TEST(who_looks_on_does_not_let_anybody_in),
        TEST(a_long_message_is_carried_out_in_shares),
        TEST(a_room_named_often_is_looked_at_once),
        TEST(what_is_late_among_many_is_found),
        TEST(who_has_agreed_does_not_wait_for_those_who_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
