/* What every store must do (broker/store.h): each test runs on the one in memory, which the simulation uses, and on a
 * real redis-server. */
#include "storeworld.h"

static struct redis_server server;
static struct reply r, s, t;

/* ---- members ---- */

/* Since when who does not renew has been silent. */
static void test_silence(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    uint64_t first_ms = reactor_now_ms(w.reactor);
    do {
        world_turn();
        assert_int_equal(renew(1, 60000, &r), 0);
    } while (reactor_now_ms(w.reactor) < first_ms + 500);
    uint64_t silent_ms = find_member(&r, 0)->silent_ms, most_ms = reactor_now_ms(w.reactor) - first_ms;
    assert_true(silent_ms >= 450 && silent_ms <= most_ms + 100);
    assert_int_equal(find_member(&r, 1)->silent_ms, 0);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(find_member(&r, 0)->silent_ms, 0);
}

static void test_members(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(r.n, 2);
    const struct store_member *m = find_member(&r, 0);
    assert_non_null(m);
    assert_true(m->lives);
    assert_non_null(find_member(&r, 1));
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(r.name[i], "node");
        assert_string_equal(r.host[i], "host:1");
        assert_string_equal(r.pub[i], "tcp://1.2.3.4:7900");
        assert_string_equal(r.router[i], "");
    }
    w.node[0].self.name = SPAN("renamed");
    assert_int_equal(renew(0, 60000, &r), 0);
    m = find_member(&r, 0);
    assert_string_equal(r.name[m - r.member], "renamed");
}

static void test_a_lease_ends(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 3500, &r), 0);
    uint64_t renewed_ms = reactor_now_ms(w.reactor);
    const struct store_member *m;
    do { /* node 1 goes on, node 0 does not */
        assert_int_equal(renew(1, 60000, &r), 0);
        m = find_member(&r, 0);
        world_turn();
    } while (m && m->lives && reactor_now_ms(w.reactor) < renewed_ms + patience_ms());
    assert_non_null(m); /* it may still be read */
    assert_false(m->lives);
    assert_true(m->silent_ms >= STORE_LEASE_MS);
    assert_true(reactor_now_ms(w.reactor) >= renewed_ms + STORE_LEASE_MS - 100);
    do {
        assert_int_equal(renew(1, 60000, &r), 0);
        world_turn();
    } while (find_member(&r, 0) && reactor_now_ms(w.reactor) < renewed_ms + patience_ms());
    assert_null(find_member(&r, 0));
    assert_true(find_member(&r, 1)->lives);
}

static void test_a_tag_is_taken(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 200, &r), 0);
    uint64_t renewed_ms = reactor_now_ms(w.reactor);
    w.node[1].self.origin.tag = w.node[0].self.origin.tag;
    assert_int_equal(renew(1, 200, &r), ERR_STATE);
    assert_int_equal(put(1, "pid", 1, SPAN("entry"), &r), ERR_STORE);
    w.node[1].self.origin.tag++;
    assert_int_equal(renew(1, 200, &r), 0);
    assert_int_equal(put(1, "pid", 1, SPAN("entry"), &r), 0);
    /* when what the first wrote has gone, its tag is free */
    w.node[1].self.origin.tag--;
    while (renew(1, 200, &r) && reactor_now_ms(w.reactor) < renewed_ms + patience_ms())
        world_turn();
    assert_int_equal(r.err, 0);
    assert_null(find_member(&r, 0));
    assert_int_equal(renew(0, 200, &r), ERR_STATE);
    assert_int_equal(put(0, "pid", 1, SPAN("entry"), &r), ERR_STORE);
}

static void test_nothing_before_the_first_renewal(void **state)
{
    (void)state;
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(drop(0, "pid", 1, &r), ERR_STORE);
    assert_int_equal(claim(0, 0, "pid", &r), ERR_STORE);
    assert_int_equal(resign(0, 1000, &r), ERR_STORE);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 0);
}

static void test_resigning(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(append(0, 5, 1, SPAN("five"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("entry"), &r), 0);
    assert_int_equal(resign(0, 500, &r), 0);
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_non_null(find_member(&r, 0));
    assert_false(find_member(&r, 0)->lives);
    assert_int_equal(read_mirror(1, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    WAIT_FOR(read_mirror(1, 0, 0, 8, &r) == 0 && r.n == 0);
    WAIT_FOR(renew(1, 60000, &r) == 0 && !find_member(&r, 0));
}

/* ---- the mirror ---- */

static void test_the_mirror(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 3, 1, SPAN("one\0two\r\nthree"), &r), 0);
    assert_int_equal(append(0, 4, 1, SPAN(""), &r), 0);
    assert_int_equal(append(0, 10, 1, SPAN("ten"), &r), 0);
    assert_int_equal(read_mirror(1, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.last[0], 3);
    assert_int_equal(r.last[1], 4);
    assert_int_equal(r.last[2], 10);
    ASSERT_TEXT(&r, SPAN("one\0two\r\nthree"));
    assert_int_equal(r.size[1], 0);
    assert_int_equal(read_mirror(1, 0, 3, 8, &r), 0);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.last[0], 4);
    assert_int_equal(read_mirror(1, 0, 0, 2, &r), 0);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.last[1], 4);
    assert_int_equal(read_mirror(1, 0, 9, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(read_mirror(1, 0, 10, 8, &r), 0);
    assert_int_equal(r.n, 0);
    assert_int_equal(read_mirror(1, 1, 0, 8, &r), 0);
    assert_int_equal(r.n, 0);
}

static void test_sending_again_is_harmless(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 3, 1, SPAN("a"), &r), 0);
    assert_int_equal(append(0, 6, 1, SPAN("b"), &r), 0);
    assert_int_equal(append(0, 3, 1, SPAN("again"), &r), 0);
    assert_int_equal(append(0, 6, 1, SPAN("again"), &r), 0);
    assert_int_equal(append(0, 7, 1, SPAN("c"), &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.last[2], 7);
    ASSERT_TEXT(&r, SPAN("a"));
}

static void test_what_is_too_old_goes(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    for (uint64_t last = 10; last <= 50; last += 10)
        assert_int_equal(append(0, last, 1, SPAN("x"), &r), 0);
    assert_int_equal(append(0, 60, 30, SPAN("x"), &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.last[0], 30);
    assert_int_equal(append(0, 70, 31, SPAN("x"), &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.last[0], 40);
}

static void test_numbers_to_the_last(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, UINT64_MAX - 1, 1, SPAN("x"), &r), 0);
    assert_int_equal(append(0, UINT64_MAX, UINT64_MAX - 1, SPAN("y"), &r), 0);
    assert_int_equal(read_mirror(0, 0, UINT64_MAX - 1, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_true(r.last[0] == UINT64_MAX);
    assert_int_equal(read_mirror(0, 0, UINT64_MAX, 8, &r), 0);
    assert_int_equal(r.n, 0);
}

static void test_a_boot_has_a_mirror_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 100, 1, SPAN("x"), &r), 0);
    w.node[1].self.origin = w.node[0].self.origin;
    w.node[1].self.origin.boot++;
    assert_int_equal(read_mirror(2, 1, 0, 8, &r), 0);
    assert_int_equal(r.n, 0);
}

static void test_large_batches(void **state)
{
    static char bytes[100000];
    (void)state;
    memset(bytes, 'x', sizeof(bytes));
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 1, 1, (struct span){bytes, sizeof(bytes)}, &r), 0);
    assert_int_equal(put(0, "pid", 0, (struct span){bytes, sizeof(bytes)}, &r), 0);
    assert_int_equal(read_mirror(1, 0, 0, 1, &r), 0);
    ASSERT_TEXT(&r, ((struct span){bytes, sizeof(bytes)}));
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    ASSERT_TEXT(&r, ((struct span){bytes, sizeof(bytes)}));
}

/* ---- the directory ---- */

static void test_a_claim(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(renew(i, 60000, &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("first"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("=7:se\0c\r\nond"), &r), 0);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    assert_int_equal(r.epoch, 2);
    ASSERT_TEXT(&r, SPAN("=7:se\0c\r\nond"));
    assert_int_equal(claim(2, 0, "pid", &r), ERR_MOVED);
    assert_int_equal(r.moved_to, w.node[1].self.origin.tag);
    assert_int_equal(put(0, "pid", 1, SPAN("late"), &r), ERR_MOVED);
    assert_int_equal(put(0, "pid", 2, SPAN("late"), &r), ERR_MOVED);
    assert_int_equal(drop(0, "pid", 1, &r), ERR_MOVED);
    assert_int_equal(put(1, "pid", 2, SPAN("third"), &r), 0);
    assert_int_equal(claim(2, 1, "pid", &r), 0);
    assert_int_equal(r.epoch, 3);
    ASSERT_TEXT(&r, SPAN("third"));
    assert_int_equal(claim(0, 1, "pid", &r), ERR_MOVED);
    assert_int_equal(r.moved_to, w.node[2].self.origin.tag);
    /* and back to where it came from */
    assert_int_equal(claim(0, 2, "pid", &r), 0);
    assert_int_equal(r.epoch, 4);
    assert_int_equal(put(0, "pid", 4, SPAN("fourth"), &r), 0);
    assert_int_equal(put(2, "pid", 3, SPAN("late"), &r), ERR_MOVED);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    ASSERT_TEXT(&r, SPAN("fourth"));
}

static void test_a_claim_from_self(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(put(0, "pid", 0, SPAN(""), &r), 0);
    assert_int_equal(claim(0, 0, "pid", &r), 0);
    assert_int_equal(r.epoch, 1);
    assert_int_equal(r.text_n, 0);
    assert_int_equal(put(0, "pid", 0, SPAN("late"), &r), ERR_MOVED);
    assert_int_equal(drop(0, "pid", 0, &r), ERR_MOVED);
    assert_int_equal(put(0, "pid", 1, SPAN("new"), &r), 0);
    assert_int_equal(claim(0, 0, "pid", &r), 0);
    assert_int_equal(r.epoch, 2);
    ASSERT_TEXT(&r, SPAN("new"));
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(claim(0, 1, "pid", &r), ERR_NOT_FOUND);
    assert_int_equal(claim(0, 0, "pid", &r), ERR_NOT_FOUND);
    assert_int_equal(drop(0, "pid", 1, &r), 0);
    assert_int_equal(put(0, "pid", 3, SPAN("x"), &r), 0);
    assert_int_equal(claim(0, 0, "other", &r), ERR_NOT_FOUND);
    assert_int_equal(drop(0, "pid", 3, &r), 0);
    assert_int_equal(claim(0, 0, "pid", &r), ERR_NOT_FOUND);
}

static void test_epochs_beyond_32_bits(void **state)
{
    uint64_t top = (UINT64_C(1) << 53) - 2;
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(put(0, "pid", top - 1, SPAN("x"), &r), 0);
    assert_int_equal(put(0, "pid", top, SPAN("x"), &r), 0);
    assert_int_equal(put(0, "pid", top - 1, SPAN("y"), &r), ERR_MOVED);
    assert_int_equal(claim(0, 0, "pid", &r), 0);
    assert_true(r.epoch == top + 1);
}

/* Of two who claim at the same time one gets it, and the other is told which. */
static void test_two_claim(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(renew(i, 60000, &r), 0);
    for (unsigned i = 0; i < 20; i++) {
        char pid[16];
        snprintf(pid, sizeof(pid), "pid-%u", i);
        assert_int_equal(put(0, pid, 1, SPAN("x"), &r), 0);
        ASK(1, claim, &s, w.node[0].self.origin.tag, span_of(pid), on_claim, &s);
        ASK(2, claim, &t, w.node[0].self.origin.tag, span_of(pid), on_claim, &t);
        WAIT_FOR(s.times == 1 && t.times == 1);
        assert_true((s.err == 0) != (t.err == 0));
        assert_int_equal(s.err ? s.err : t.err, ERR_MOVED);
        assert_int_equal(s.err ? s.moved_to : t.moved_to, w.node[s.err ? 2 : 1].self.origin.tag);
    }
}

/* ---- time ---- */

static void test_what_nobody_renews_goes(void **state)
{
    (void)state;
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(renew(0, 300, &r), 0);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    assert_int_equal(append(1, 1, 1, SPAN("x"), &r), 0);
    assert_int_equal(put(1, "pid", 1, SPAN("x"), &r), 0);
    WAIT_FOR(read_mirror(1, 0, 0, 8, &r) == 0 && r.n == 0);
    WAIT_FOR(claim(1, 0, "pid", &r) == ERR_NOT_FOUND);
    assert_int_equal(read_mirror(0, 1, 0, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(claim(0, 1, "pid", &r), 0);
}

static void test_what_is_renewed_stays(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 500, &r), 0);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    uint64_t until_ms = reactor_now_ms(w.reactor) + 1200;
    while (reactor_now_ms(w.reactor) < until_ms) {
        assert_int_equal(renew(0, 30000, &r), 0);
        world_turn();
    }
    assert_int_equal(read_mirror(1, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(claim(0, 0, "pid", &r), 0);
}

/* ---- answers ---- */

static void test_answers_come_in_order(void **state)
{
    static struct reply replies[60];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    w.answers = 0;
    for (unsigned i = 0; i < 60; i += 6) {
        struct store_batch b = {i + 1, SPAN("x")};
        ASK(0, put, &replies[i], SPAN("pid"), i + 1, SPAN("x"), on_done, &replies[i]);
        ASK(0, append, &replies[i + 1], &b, 1, on_done, &replies[i + 1]);
        ASK(0, read, &replies[i + 2], w.node[0].self.origin, i, 8, on_batches, &replies[i + 2]);
        ASK(0, claim, &replies[i + 3], w.node[0].self.origin.tag, SPAN("pid"), on_claim, &replies[i + 3]);
        ASK(0, drop, &replies[i + 4], SPAN("pid"), i + 2, on_done, &replies[i + 4]);
        ASK(0, renew, &replies[i + 5], &w.node[0].self, 60000, on_members, &replies[i + 5]);
    }
    WAIT_FOR(w.answers == 60);
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(replies[i].order, i + 1);
        assert_int_equal(replies[i].err, 0);
    }
    for (unsigned i = 0; i < 60; i += 6) {
        assert_int_equal(replies[i + 2].n, 1);
        assert_int_equal(replies[i + 3].epoch, i + 2);
    }
}

static void test_an_end_answers_all(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    struct store_batch b = {1, SPAN("x")};
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    ASK(0, append, &s, &b, 1, on_done, &s);
    ASK(0, renew, &t, &w.node[0].self, 60000, on_members, &t);
    node_close(0);
    assert_int_equal(r.err, ERR_STORE);
    assert_int_equal(s.err, ERR_STORE);
    assert_int_equal(t.err, ERR_STORE);
    assert_true(r.order < s.order && s.order < t.order);
    assert_int_equal(w.node[0].downs, 0);
}

/* ---- both ---- */

static int start(void **state, struct redis_server *with)
{
    (void)state;
    world_init(with);
    for (unsigned i = 0; i < NODES; i++)
        node_open(i);
    WAIT_FOR(w.node[0].ups && w.node[1].ups && w.node[2].ups);
    return 0;
}

static int start_memory(void **state)
{
    return start(state, NULL);
}

static int start_redis(void **state)
{
    return start(state, &server);
}

/* No key without an expiry is left, whatever was done. */
static int end(void **state)
{
    (void)state;
    if (w.server) {
        char command[128], keys[4096];
        snprintf(command, sizeof(command), "keys 'starling:{%s}:*'", w.cluster);
        assert_true(redis_server_say(w.server, command, keys, sizeof(keys)));
        for (char *key = strtok(keys, "\n"); key; key = strtok(NULL, "\n")) {
            char say[256], ttl[64];
            if (!*key)
                continue;
            snprintf(say, sizeof(say), "pttl '%s'", key);
            assert_true(redis_server_say(w.server, say, ttl, sizeof(ttl)));
            if (strcmp(ttl, "-1\n") == 0)
                fail_msg("%s has no expiry", key);
        }
    }
    world_free();
    return 0;
}

static int start_server(void **state)
{
    (void)state;
    redis_server_new(&server, 0);
    redis_server_start(&server);
    return 0;
}

static int end_server(void **state)
{
    (void)state;
    redis_server_free(&server);
    return 0;
}

#define BOTH(test)                                                                                           \
    {"memory: " #test, test, start_memory, end, NULL},                                                       \
    {                                                                                                        \
        "redis: " #test, test, start_redis, end, NULL                                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_members),
        BOTH(test_silence),
        BOTH(test_a_lease_ends),
        BOTH(test_a_tag_is_taken),
        BOTH(test_nothing_before_the_first_renewal),
        BOTH(test_resigning),
        BOTH(test_the_mirror),
        BOTH(test_sending_again_is_harmless),
        BOTH(test_what_is_too_old_goes),
        BOTH(test_numbers_to_the_last),
        BOTH(test_a_boot_has_a_mirror_of_its_own),
        BOTH(test_large_batches),
        BOTH(test_a_claim),
        BOTH(test_a_claim_from_self),
        BOTH(test_what_is_not_there),
        BOTH(test_epochs_beyond_32_bits),
        BOTH(test_two_claim),
        BOTH(test_what_nobody_renews_goes),
        BOTH(test_what_is_renewed_stays),
        BOTH(test_answers_come_in_order),
        BOTH(test_an_end_answers_all),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
