/* As many peers and origins as there may be, and more; what is old is forgotten. */
#include "fakenodes.h"
#include "limit.h"

enum { MANY = LIMIT_OFFSET_ORIGINS };

/* A hello from the nth of many nodes, all of which the network takes for node 3. */
static void hello_from(struct mesh_origin o, unsigned n)
{
    char endpoint[40];
    snprintf(endpoint, sizeof(endpoint), "tcp://many-%u-3", n);
    record.kind = MESH_HELLO;
    record.hello = (struct mesh_hello){
        .name = SPAN("forged"), .pub = span_of(endpoint), .router = span_of(endpoint), .answer = true};
    forge("c", o);
    forge_record(&record);
    receive(0);
}

static void beat_from(struct mesh_origin o)
{
    forge("c", o);
    forge_heartbeat(0);
    receive(0);
}

static struct mesh_origin many(unsigned n)
{
    return (struct mesh_origin){5, n + 1}; /* views do not tell them apart */
}

static void start_one(void)
{
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
}

static unsigned origins_known(void)
{
    static struct peers_position out[4 * MANY];
    return peers_positions(nodes[0].peers, out, 4 * MANY) - 1;
}

/* Among as many as an offset holds. */
static bool is_told(struct mesh_origin origin)
{
    static struct peers_position out[MANY];
    unsigned n = peers_positions(nodes[0].peers, out, MANY);
    for (unsigned i = 0; i < n; i++)
        if (out[i].origin.boot == origin.boot)
            return out[i].lives;
    return false;
}

static void more_peers_than_there_may_be_are_refused(void **state)
{
    (void)state;
    start_one();
    for (unsigned n = 0; n < MANY + 50; n++) {
        hello_from(many(n), n);
        beat_from(many(n));
    }
    assert_int_equal(net.node[0].channels, MANY);
    assert_int_equal(peers_alive(nodes[0].peers), MANY);
    assert_int_equal(origins_known(), MANY); /* nothing piles up for the others */
    /* A heartbeat that names all of them still fits. */
    net.largest = 0;
    start_node(1, 1);
    net_run(&net, 200);
    assert_true(peers_is_ready(nodes[0].peers));
}

static void those_who_are_gone_make_room(void **state)
{
    (void)state;
    options.ring.max_ms = 1000;
    options.peer_timeout_ms = 300;
    start_one();
    for (unsigned n = 0; n < MANY; n++)
        hello_from(many(n), n);
    net_run(&net, 4000);
    assert_int_equal(net.node[0].channels, 0);
    assert_int_equal(origins_known(), 0);
    hello_from(many(MANY), MANY);
    beat_from(many(MANY));
    assert_int_equal(peers_alive(nodes[0].peers), 1);
}

static void many_restarts_leave_nothing_behind(void **state)
{
    (void)state;
    options.ring.max_ms = 1000;
    options.peer_timeout_ms = 300;
    start_one();
    for (unsigned boot = 0; boot < 2000; boot++) {
        hello_from(many(boot), 0);
        beat_from(many(boot));
        net_run(&net, 10);
        assert_int_equal(peers_alive(nodes[0].peers), 1);
        assert_int_equal(net.node[0].channels, 1);
        assert_true(is_told(many(boot)));    /* whoever has died before it */
        assert_true(origins_known() <= 350); /* those of three seconds and a bit */
    }
    net_run(&net, 4000);
    assert_int_equal(origins_known(), 0);
}

static struct mesh_origin recent;
static bool is_recent_told;
static unsigned most_told;

static bool watch_heartbeats(struct net *n, unsigned from, unsigned to, struct span message)
{
    static struct mesh_record beat;
    struct mesh_reader r;
    struct mesh_head head;
    (void)n, (void)to;
    if (from != 0 || mesh_read_head(&r, message, &head) || mesh_read(&r, &beat) != 1 ||
        beat.kind != MESH_HEARTBEAT)
        return false;
    is_recent_told = false;
    most_told = beat.heartbeat.n_heard;
    for (unsigned i = 0; i < beat.heartbeat.n_heard; i++)
        if (beat.heartbeat.heard[i].origin.boot == recent.boot)
            is_recent_told = true;
    return false;
}

/* Its tail is what the others still need to know of; those who died long ago must not keep it out. */
static void who_has_just_died_is_told_before_those_who_died_long_ago(void **state)
{
    (void)state;
    start_one();
    start_node(1, 1);
    net_name(&net, 1, 0);
    peers_start(nodes[1].peers);
    assert_true(knows(all_know_each_other));
    for (unsigned boot = 0; boot < 2 * MANY; boot++) {
        hello_from(many(boot), 0);
        net_run(&net, 1);
    }
    recent = many(2 * MANY + 1);
    net_run(&net, 15000);
    hello_from(recent, 1);
    beat_from(recent);
    net_run(&net, 3000);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
    net.loses = watch_heartbeats;
    net_run(&net, 200);
    assert_int_equal(most_told, MANY);
    assert_true(is_recent_told);
    say(1);
    assert_true(knows(all_are_confirmed));
}

/* It spoke last although it was first: the one that is there must not be shut out. */
static void who_was_taken_for_an_old_start_comes_back(void **state)
{
    (void)state;
    const struct mesh_origin old = {4, 2};
    start_one();
    forge("c", ghost);
    forge_hello(3, 0);
    forge_heartbeat(0);
    receive(0);
    forge("c", old); /* its words were on the way for long */
    forge_hello(3, 0);
    receive(0);
    forge("c", ghost);
    forge_hello(3, 0);
    receive(0);
    for (unsigned ms = 0; ms < 3000; ms++) {
        if (ms % 100 == 0) {
            forge("c", ghost);
            forge_hello(3, 0);
            receive(0);
            forge("c", ghost);
            forge_heartbeat(0);
            receive(0);
        }
        net_step(&net);
    }
    struct mesh_origin id;
    assert_true(peers_find_live(nodes[0].peers, ghost.tag, &id));
    assert_int_equal(id.boot, ghost.boot);
    forge("c", ghost);
    forge_emit(ghost, 1);
    receive(0);
    assert_int_equal(view_of(0, ghost)->emits, 1);
}

static void a_late_hello_of_an_old_start_does_not_push_out_the_new_one(void **state)
{
    (void)state;
    const struct mesh_origin new = {4, 2};
    start_with_ghost(0);
    for (unsigned k = 0; k < 2; k++) {
        forge("c", new);
        forge_hello(3, 0);
        forge_heartbeat(0);
        receive(0);
        receive(0);
        forge("c", ghost);
        forge_hello(3, 0);
        receive(0);
        assert_int_equal(peers_alive(nodes[0].peers), 1);
        forge("c", new);
        forge_emit(new, k + 1);
        receive(0);
        assert_int_equal(view_of(0, new)->emits, k + 1);
    }
    assert_int_equal(view_of(0, new)->voids, 0);
}

static struct mesh_repair repaired;

static bool watch_repaired(struct net *n, unsigned from, unsigned to, struct span message)
{
    static struct mesh_record answer;
    struct mesh_reader r;
    struct mesh_head head;
    (void)n, (void)from, (void)to;
    if (mesh_read_head(&r, message, &head) == 0 && mesh_read(&r, &answer) == 1 &&
        answer.kind == MESH_REPAIRED)
        repaired = answer.repair;
    return false;
}

static void ask(struct mesh_origin of, uint64_t from, uint64_t to)
{
    record.kind = MESH_REPAIR;
    record.repair = (struct mesh_repair){.origin = of, .from = from, .to = to};
    forge("c", ghost);
    forge_record(&record);
    memset(net.sent, 0, sizeof(net.sent));
    memset(&repaired, 0, sizeof(repaired));
    receive(0);
    assert_int_equal(net.sent[MESH_REPAIRED], 1);
}

static void an_answer_claims_no_more_than_it_has(void **state)
{
    (void)state;
    start_with_ghost(0);
    start_node(3, 2); /* only so that what is sent there is seen */
    net.loses = watch_repaired;
    for (unsigned i = 0; i < 9; i++)
        say(0);
    ask(nodes[0].self, 2, 5);
    assert_true(repaired.from == 2 && repaired.to == 5 && repaired.gone_to == 0);
    ask(nodes[0].self, 5, 100);
    assert_true(repaired.to == 9 && repaired.gone_to == 0);
    ask((struct mesh_origin){9, 9}, 1, 7);
    assert_true(repaired.to == 7 && repaired.gone_to == 7);
    ask((struct mesh_origin){9, 9}, 1, UINT64_MAX);
    assert_true(repaired.to == UINT64_MAX && repaired.gone_to == UINT64_MAX);
    ask(nodes[0].self, UINT64_MAX, 0);
    assert_true(repaired.to == 0 && repaired.gone_to == 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(more_peers_than_there_may_be_are_refused),
        TEST(those_who_are_gone_make_room),
        TEST(many_restarts_leave_nothing_behind),
        TEST(who_has_just_died_is_told_before_those_who_died_long_ago),
        TEST(who_was_taken_for_an_old_start_comes_back),
        TEST(a_late_hello_of_an_old_start_does_not_push_out_the_new_one),
        TEST(an_answer_claims_no_more_than_it_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
