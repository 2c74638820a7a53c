/* The lease of a node: when it may start, whom it finds, and when it must not go on. */
#include "fakerecovery.h"

static bool knows_all(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].peers && peers_alive(nodes[i].peers) + 1 < NODES)
            return false;
    return true;
}

static void test_started(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        assert_true(nodes[i].is_started);
        assert_int_equal(nodes[i].clashes, 0);
    }
    assert_true(net_until(&net, knows_all, NULL));
}

/* A store that does not answer delays a start for a second, and no longer. */
static void test_no_store_at_the_start(void **state)
{
    (void)state;
    kill_node(0);
    store_memory_set_away(memory, true);
    start_node(0, 2);
    net_run(&net, 900);
    assert_false(nodes[0].is_started);
    net_run(&net, 200);
    assert_true(nodes[0].is_started);
    store_memory_set_away(memory, false);
    net_run(&net, 3000);
    assert_true(nodes[0].is_ready);
}

struct listed {
    bool is_done;
    unsigned n, living;
    struct mesh_origin origin[8];
    bool lives[8];
};

static void on_listed(void *user, int err, const struct store_member *member, unsigned n)
{
    struct listed *l = user;
    assert_int_equal(err, 0);
    l->is_done = true;
    for (unsigned i = 0; i < n && i < 8; i++) {
        l->origin[l->n] = member[i].origin;
        l->lives[l->n++] = member[i].lives;
        l->living += member[i].lives;
    }
}

static bool is_listed(void *arg)
{
    return ((struct listed *)arg)->is_done;
}

/* As the store lists them for a node that renews its own. */
static struct listed list(unsigned by)
{
    struct listed l = {.is_done = false};
    struct store_member self = {.origin = nodes[by].self,
                                .lives = true,
                                .name = SPAN("node"),
                                .host = SPAN("host"),
                                .pub = span_of(net.node[by].pub),
                                .router = span_of(net.node[by].router)};
    nodes[by].store.calls->renew(nodes[by].store.store, &self, KEEP_MS, on_listed, &l);
    assert_true(net_until(&net, is_listed, &l));
    return l;
}

static void test_leases(void **state)
{
    (void)state;
    assert_int_equal(list(0).living, NODES);
    kill_node(2);
    net_run(&net, STORE_LEASE_MS + 100);
    struct listed l = list(0);
    assert_int_equal(l.n, NODES); /* what it left may still be read */
    assert_int_equal(l.living, NODES - 1);
    net_run(&net, (unsigned)store_name_ms(KEEP_MS) + 2000);
    assert_int_equal(list(0).n, NODES - 1);
}

static bool is_resigned;

static void on_resigned(void *user)
{
    (void)user;
    is_resigned = true;
}

static void test_resigned(void **state)
{
    (void)state;
    is_resigned = false;
    membership_resign(nodes[1].membership, on_resigned, NULL);
    settle();
    assert_true(is_resigned);
    net_run(&net, 2500); /* it does not come back by renewing */
    struct listed l = list(0);
    assert_int_equal(l.n, NODES);
    assert_int_equal(l.living, NODES - 1);
}

static void test_resigned_without_a_store(void **state)
{
    (void)state;
    is_resigned = false;
    store_memory_set_away(memory, true);
    settle();
    membership_resign(nodes[1].membership, on_resigned, NULL);
    settle();
    assert_true(is_resigned);
}

/* The same tag, another boot: the second one must not write to the first one's keys. */
static void test_clash(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    kill_node(1);
    struct node *n = &nodes[1];
    start_node(1, 2);
    /* As if it had drawn node 0's tag. */
    membership_free(&n->membership);
    struct membership_options o = {.self = {.origin = {nodes[0].self.tag, 77},
                                            .lives = true,
                                            .name = SPAN("node"),
                                            .host = SPAN("host"),
                                            .pub = span_of(net.node[1].pub),
                                            .router = span_of(net.node[1].router)},
                                   .keep_ms = KEEP_MS,
                                   .start_wait_ms = 100000};
    n->membership =
        membership_new(n->w.reactor, &o, &n->store, n->peers, n->mirror,
                       &(struct membership_user){.user = n, .on_start = on_start, .on_clash = on_clash});
    assert_non_null(n->membership);
    net_run(&net, 500);
    assert_true(n->clashes > 0);
    assert_false(n->is_started);
    person_go(p);
    assert_true(person_come(p, 2)); /* nothing of node 0's was harmed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_started, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_store_at_the_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leases, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_resigned, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_resigned_without_a_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clash, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
