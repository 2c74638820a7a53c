/* Who of a group gets what clients send: the least busy of a thousand, or always the same for a session. */
#include "agents_private.h"
#include "fakegateway.h"

enum { MEMBERS = 1000, EACH = MEMBERS / AGENTS, LONG_MS = 20000 };

/* What an agent has been asked and has not answered, by registration. */
static struct asked {
    uint64_t id[EACH + 1][8];
    unsigned n[EACH + 1];
} asked[AGENTS];

static void handles(unsigned a, uint64_t reg, bool by_session)
{
    record_of(AGENT_HANDLE)->id = reg;
    say.events[0] = SPAN("work");
    agent_with(&say, AGENT_F_EVENTS)->n_events = 1;
    agent_with(&say, AGENT_F_GROUP)->group = SPAN("all");
    agent_with(&say, AGENT_F_DEADLINE_MS)->deadline_ms = LONG_MS;
    if (by_session)
        agent_with(&say, AGENT_F_STICKY)->sticky = true;
    says(a);
}

/* 125 registrations of each of eight agents at three nodes. */
static void fill_group(bool by_session)
{
    memset(asked, 0, sizeof(asked));
    for (unsigned a = 0; a < AGENTS; a++) {
        hello(a, a % NODES, "worker");
        for (uint64_t reg = 1; reg <= EACH; reg++)
            handles(a, reg, by_session);
    }
    run(500);
    for (unsigned a = 0; a < AGENTS; a++)
        for (uint64_t reg = 1; reg <= EACH; reg++)
            assert_true(hears(a, AGENT_OK, reg));
}

static void client_calls(unsigned node, unsigned client)
{
    sink_says(&nodes[node].k[client], "21[\"work\",1]");
}

static unsigned take_calls(void)
{
    unsigned total = 0;
    for (unsigned a = 0; a < AGENTS; a++) {
        while (hears(a, AGENT_CALL, 0)) {
            struct asked *k = &asked[a];
            assert_true(heard.reg >= 1 && heard.reg <= EACH && k->n[heard.reg] < 8);
            k->id[heard.reg][k->n[heard.reg]++] = heard.id;
            total++;
        }
    }
    return total;
}

static void answers(unsigned a, uint64_t reg)
{
    record_of(AGENT_OK)->id = asked[a].id[reg][--asked[a].n[reg]];
    says(a);
}

static void each_gets_one_before_anybody_gets_two(void **state)
{
    (void)state;
    fill_group(false);
    for (unsigned i = 0; i < MEMBERS; i++)
        client_calls(0, i % CLIENTS);
    run(200);
    assert_int_equal(take_calls(), MEMBERS);
    for (unsigned a = 0; a < AGENTS; a++)
        for (unsigned reg = 1; reg <= EACH; reg++)
            assert_int_equal(asked[a].n[reg], 1);
    /* Who has answered is the next, at whichever node; every one before any again. */
    for (unsigned a = 0; a < AGENTS; a++)
        for (unsigned reg = 1; reg <= 10; reg++)
            answers(a, reg);
    run(200);
    for (unsigned i = 0; i < 10 * AGENTS; i++)
        client_calls(0, i % CLIENTS);
    run(200);
    assert_int_equal(take_calls(), 10 * AGENTS);
    for (unsigned a = 0; a < AGENTS; a++)
        for (unsigned reg = 1; reg <= EACH; reg++)
            assert_int_equal(asked[a].n[reg], 1);
}

static void what_other_nodes_ask_counts_too(void **state)
{
    (void)state;
    fill_group(false);
    for (unsigned i = 0; i < MEMBERS / 2; i++)
        client_calls(0, i % CLIENTS);
    run(300); /* the loads are told */
    for (unsigned i = 0; i < MEMBERS / 2; i++)
        client_calls(1, i % CLIENTS);
    run(300);
    assert_int_equal(take_calls(), MEMBERS);
    unsigned twice = 0;
    for (unsigned a = 0; a < AGENTS; a++)
        for (unsigned reg = 1; reg <= EACH; reg++)
            twice += asked[a].n[reg] > 1;
    assert_int_equal(twice, 0);
}

/* Which registration got the newest call; each is taken once. */
static unsigned taken_by(void)
{
    unsigned by = 0;
    run(5);
    for (unsigned a = 0; a < AGENTS; a++) {
        while (hears(a, AGENT_CALL, 0)) {
            assert_int_equal(by, 0);
            by = a * 1000 + (unsigned)heard.reg;
            record_of(AGENT_OK)->id = heard.id;
            says(a);
        }
    }
    assert_true(by > 0);
    return by;
}

static void a_session_keeps_its_member(void **state)
{
    (void)state;
    unsigned first[NODES][CLIENTS], same = 0;
    fill_group(true);
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned c = 0; c < CLIENTS; c++) {
            client_calls(i, c);
            first[i][c] = taken_by();
            for (unsigned again = 0; again < 5; again++) {
                client_calls(i, c);
                assert_int_equal(taken_by(), first[i][c]);
            }
            same += first[i][c] == first[0][0];
        }
    }
    assert_true(same < NODES * CLIENTS / 2);
    /* An agent that goes takes its own sessions along, and no others. */
    unsigned gone = first[0][0] / 1000;
    fakes[gone].is_mute = true;
    run(2500);
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned c = 0; c < CLIENTS; c++) {
            client_calls(i, c);
            unsigned by = taken_by();
            assert_true(by / 1000 != gone);
            if (first[i][c] / 1000 != gone)
                assert_int_equal(by, first[i][c]);
            client_calls(i, c);
            assert_int_equal(taken_by(), by);
        }
    }
}

/* Of a thousand groups an event looks for those that handle it, once. */
static void each_group_that_handles_it_gets_one(void **state)
{
    (void)state;
    char name[32];
    for (unsigned a = 0; a < AGENTS; a++) {
        hello(a, a % NODES, "many");
        for (uint64_t reg = 1; reg <= EACH; reg++) {
            snprintf(name, sizeof(name), "group-%u-%u", a, (unsigned)reg);
            record_of(AGENT_HANDLE)->id = reg;
            say.events[0] = reg % 25 ? SPAN("other") : SPAN("work");
            agent_with(&say, AGENT_F_EVENTS)->n_events = 1;
            agent_with(&say, AGENT_F_GROUP)->group = span_of(name);
            says(a);
        }
    }
    run(500);
    for (unsigned round = 1; round <= 3; round++) {
        client_calls(1, 0);
        run(50);
        unsigned calls = 0;
        for (unsigned a = 0; a < AGENTS; a++)
            while (hears(a, AGENT_CALL, 0))
                calls++;
        assert_int_equal(calls, AGENTS * EACH / 25 + (round == 3) - (round == 2));
        if (round == 1) { /* one goes, */
            record_of(AGENT_UNDO)->reg = 25;
            say.id = 5000;
            says(0);
        } else if (round == 2) { /* and two come */
            handles(0, 25, false);
            record_of(AGENT_HANDLE)->id = 5001;
            say.events[0] = SPAN(">");
            agent_with(&say, AGENT_F_EVENTS)->n_events = 1;
            agent_with(&say, AGENT_F_GROUP)->group = SPAN("late");
            says(1);
        }
        run(200);
    }
    /* More names than are remembered. */
    for (unsigned i = 0; i < 5000; i++) {
        char text[64];
        snprintf(text, sizeof(text), "2[\"event %u\"]", i);
        sink_says(&nodes[1].k[0], text);
    }
    run(100);
    client_calls(1, 0);
    run(50);
    unsigned late = 0;
    while (hears(1, AGENT_CALL, 0))
        late += heard.reg == 5001 && !span_eq(heard.event, SPAN("work"));
    assert_int_equal(late, 5000);
}

/* ---- the pool itself, against looking at everybody ---- */

static uint64_t least_of(const struct agents_member *m, unsigned n)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < n; i++)
        if (m[i].pool && member_load(&m[i]) < least)
            least = member_load(&m[i]);
    return least;
}

static void a_pool_gives_the_least_busy(void **state)
{
    (void)state;
    static struct agents g;
    static struct agents_member m[MEMBERS];
    struct pool pool = {.n = 0};
    uint64_t seed = 7;
    memset(m, 0, sizeof(m));
    for (unsigned i = 0; i < MEMBERS; i++)
        assert_int_equal(pool_add(&pool, &m[i]), 0);
    for (unsigned step = 0; step < 20000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct agents_member *any = &m[(seed >> 33) % MEMBERS];
        switch ((seed >> 20) % 8) {
        case 0:
            any->others = (seed >> 40) % 5;
            member_lighter(any);
            break;
        case 1:
            if (any->own > 0)
                any->own--;
            member_lighter(any);
            break;
        case 2:
            if (any->pool)
                pool_remove(any);
            else
                assert_int_equal(pool_add(&pool, any), 0);
            break;
        default:
            any = pool_least(&pool);
            assert_int_equal(member_load(any), least_of(m, MEMBERS));
            member_used(&g, any);
            any->own++;
        }
    }
    while (pool.n > 0)
        pool_remove(pool_least(&pool));
    assert_null(pool_least(&pool));
    pool_free(&pool);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_gateways, tear_down_gateways)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_gets_one_before_anybody_gets_two),
        TEST(what_other_nodes_ask_counts_too),
        TEST(a_session_keeps_its_member),
        TEST(each_group_that_handles_it_gets_one),
        cmocka_unit_test(a_pool_gives_the_least_busy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
