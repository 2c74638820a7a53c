/* Three nodes that tell each other each second how they are; the network and the clock are fakes. */
#include "fakecluster.h"
#include "json.h"
#include "statuses.h"

static struct statuses *statuses[NODES];
static unsigned news[NODES];
static enum status_state states[NODES];

static void on_fill(void *user, uint64_t value[STATUS_VALUES])
{
    value[STATUS_STATE] = *(enum status_state *)user;
    value[STATUS_STORE] = STATUS_STORE_UP;
}

static void on_news(void *user)
{
    news[(enum status_state *)user - states]++;
}

static void begin(unsigned i, const char *name)
{
    states[i] = STATUS_READY;
    statuses[i] = statuses_new(nodes[i].w.reactor, nodes[i].w.metrics, nodes[i].cluster,
                               &(struct statuses_options){.name = span_of(name),
                                                          .host = SPAN("h\"st"),
                                                          .self = options.self,
                                                          .restarts = i,
                                                          .core = (int)i - 1,
                                                          .on_fill = on_fill,
                                                          .on_news = on_news,
                                                          .user = &states[i]});
    assert_non_null(statuses[i]);
}

static int set_up_statuses(void **state)
{
    static const char *const names[] = {"a", "b", "c"};
    assert_int_equal(set_up(state), 0);
    memset(news, 0, sizeof(news));
    for (unsigned i = 0; i < NODES; i++) {
        options.self = (struct mesh_origin){0x10 + i, 1};
        begin(i, names[i]);
    }
    return 0;
}

static int tear_down_statuses(void **state)
{
    for (unsigned i = 0; i < NODES; i++)
        statuses_free(&statuses[i]);
    return tear_down(state);
}

static struct statuses_row row_of(unsigned node, const char *name)
{
    for (unsigned i = 0; i < statuses_count(statuses[node]); i++)
        if (span_eq(statuses_at(statuses[node], i).name, span_of(name)))
            return statuses_at(statuses[node], i);
    fail_msg("%s is not known to node %u", name, node);
    return (struct statuses_row){.name = {NULL, 0}};
}

/* The JSON of a node in what another one answers. */
static struct span json_of(unsigned node, const char *name, bool with_trails, msgpack_sbuffer *b)
{
    struct span item, quoted;
    msgpack_sbuffer_clear(b);
    assert_int_equal(statuses_json(statuses[node], with_trails, b), 0);
    struct span all = {b->data, b->size};
    assert_int_equal(json_check(all, LIMIT_JSON_DEPTH), 0);
    struct json_cursor c = json_open(json_get(all, "nodes"));
    while (json_item(&c, &item)) {
        quoted = json_get(item, "name");
        if (quoted.n == strlen(name) + 2 && memcmp(quoted.p + 1, name, quoted.n - 2) == 0)
            return item;
    }
    fail_msg("%s is not in the answer of node %u", name, node);
    return all;
}

static uint64_t number(struct span object, const char *key)
{
    uint64_t value;
    assert_true(json_uint(json_get(object, key), UINT64_MAX, &value));
    return value;
}

static unsigned length(struct span array)
{
    struct json_cursor c = json_open(array);
    struct span item;
    unsigned n = 0;
    while (json_item(&c, &item))
        n++;
    return n;
}

static void every_node_knows_all(void **state)
{
    msgpack_sbuffer b;
    (void)state;
    msgpack_sbuffer_init(&b);
    net_run(&net, 3100);
    for (unsigned i = 0; i < NODES; i++) {
        assert_int_equal(statuses_count(statuses[i]), NODES);
        assert_true(statuses_at(statuses[i], 0).is_self);
        assert_in_range(news[i], 3, 10);
        struct span c = json_of(i, "c", false, &b);
        assert_true(span_eq(json_get(c, "state"), SPAN("\"ready\"")));
        assert_true(span_eq(json_get(c, "host"), SPAN("\"h\\\"st\"")));
        assert_true(span_eq(json_get(c, "here"), i == 2 ? SPAN("true") : SPAN("false")));
        assert_int_equal(number(c, "restarts"), 2);
        assert_int_equal(number(c, "core"), 1);
        assert_int_equal(number(c, "sockets"), CLIENTS);
        assert_int_equal(length(json_get(c, "links")), NODES - 1);
        assert_true(span_eq(json_get(json_of(i, "a", false, &b), "core"), SPAN("null")));
    }
    msgpack_sbuffer_destroy(&b);
}

static void delays_are_measured_by_one_clock(void **state)
{
    msgpack_sbuffer b;
    struct span item;
    (void)state;
    msgpack_sbuffer_init(&b);
    net_set_all(&net, (struct net_way){.delay_ms = 20});
    net_run(&net, 5000);
    struct json_cursor c = json_open(json_get(json_of(1, "a", false, &b), "links"));
    while (json_item(&c, &item))
        assert_in_range(number(item, "delay_us"), 1, 25000);
    msgpack_sbuffer_destroy(&b);
}

static void rates_are_of_the_last_second(void **state)
{
    msgpack_sbuffer b;
    uint64_t seq;
    (void)state;
    msgpack_sbuffer_init(&b);
    net_run(&net, 1500);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(
            hub_emit(nodes[1].w.hub, &(struct emit){.nsp = SPAN("/"), .event = SPAN("\"x\"")}, &seq), 0);
    net_run(&net, 1000);
    struct span node = json_of(0, "b", true, &b);
    assert_int_equal(number(node, "emits_total"), 50);
    assert_int_equal(number(json_get(node, "grown"), "emits_total"), 50);
    assert_true(json_get(node, "emits_per_s").p[0] == '5' || json_get(node, "emits_per_s").p[0] == '4');
    net_run(&net, 1000);
    node = json_of(0, "b", true, &b);
    assert_true(span_eq(json_get(node, "emits_per_s"), SPAN("0.00")));
    assert_int_equal(number(json_get(node, "grown"), "emits_total"), 50);
    assert_in_range(length(json_get(json_get(node, "trail"), "emits_per_s")), 1, 600);
    msgpack_sbuffer_destroy(&b);
}

static void a_node_that_dies_is_told_at_once(void **state)
{
    (void)state;
    net_run(&net, 2000);
    unsigned before = news[0];
    statuses_free(&statuses[2]);
    stop_node(2);
    net_run(&net, 700); /* the peers' time-out here is 300 ms */
    assert_int_equal(row_of(0, "c").life, STATUSES_DEAD);
    assert_int_equal(row_of(1, "c").life, STATUSES_DEAD);
    assert_true(news[0] > before);
}

static void one_that_said_so_is_gone_and_not_dead(void **state)
{
    (void)state;
    states[2] = STATUS_DRAINING;
    net_run(&net, 2000);
    statuses_free(&statuses[2]);
    stop_node(2);
    net_run(&net, 700);
    assert_int_equal(row_of(0, "c").life, STATUSES_GONE);
}

static void a_node_that_starts_again_takes_its_row_over(void **state)
{
    msgpack_sbuffer b;
    (void)state;
    msgpack_sbuffer_init(&b);
    net_run(&net, 3000);
    unsigned points = length(json_get(json_get(json_of(0, "c", true, &b), "trail"), "cpu_pct"));
    statuses_free(&statuses[2]);
    stop_node(2);
    start_node(2, 2);
    options.self = (struct mesh_origin){0x12, 2};
    begin(2, "c");
    net_run(&net, 3000);
    assert_int_equal(statuses_count(statuses[0]), NODES);
    assert_int_equal(row_of(0, "c").life, STATUSES_LIVE);
    assert_int_equal(row_of(0, "c").origin.boot, 2);
    assert_true(length(json_get(json_get(json_of(0, "c", true, &b), "trail"), "cpu_pct")) >= points);
    msgpack_sbuffer_destroy(&b);
}

static void what_is_no_status_is_passed_over(void **state)
{
    (void)state;
    net_run(&net, 1500);
    cluster_note(nodes[1].cluster, MESH_TOPIC_STATUS, SPAN("nonsense"));
    net_run(&net, 1500);
    assert_int_equal(statuses_count(statuses[0]), NODES);
    assert_int_equal(row_of(0, "b").life, STATUSES_LIVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_node_knows_all, set_up_statuses, tear_down_statuses),
        cmocka_unit_test_setup_teardown(delays_are_measured_by_one_clock, set_up_statuses,
                                        tear_down_statuses),
        cmocka_unit_test_setup_teardown(rates_are_of_the_last_second, set_up_statuses, tear_down_statuses),
        cmocka_unit_test_setup_teardown(a_node_that_dies_is_told_at_once, set_up_statuses,
                                        tear_down_statuses),
        cmocka_unit_test_setup_teardown(one_that_said_so_is_gone_and_not_dead, set_up_statuses,
                                        tear_down_statuses),
        cmocka_unit_test_setup_teardown(a_node_that_starts_again_takes_its_row_over, set_up_statuses,
                                        tear_down_statuses),
        cmocka_unit_test_setup_teardown(what_is_no_status_is_passed_over, set_up_statuses,
                                        tear_down_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
