/* A CONNECT on its way: each state, what ends it, and clients that go or lie in the middle of it. */
#include "fakerecovery.h"

/* A handler that does what the test wants. */
static struct {
    enum hub_verdict verdict;
    unsigned asked, gave_up, connected, recovered;
    struct joining *joining;
} handler;

static enum hub_verdict on_connect(void *user, struct joining *j, struct span *error)
{
    (void)user, (void)error;
    handler.asked++;
    handler.joining = j;
    return handler.verdict;
}

static void on_gave_up(void *user, struct joining *j)
{
    (void)user;
    assert_ptr_equal(j, handler.joining);
    handler.gave_up++;
    handler.joining = NULL;
}

static void on_connected(void *user, struct socket *s, struct span auth)
{
    (void)user, (void)auth;
    handler.connected++;
    handler.recovered += s->is_recovered;
}

static void handle(unsigned node)
{
    nodes[node].w.hub->handler = (struct hub_handler){
        .on_connect = on_connect, .on_gave_up = on_gave_up, .on_connected = on_connected};
}

static int set_up_handled(void **state)
{
    set_up(state);
    memset(&handler, 0, sizeof(handler));
    for (unsigned i = 0; i < NODES; i++)
        handle(i);
    return 0;
}

static unsigned entries(const struct person *p)
{
    return store_memory_owners(memory, (struct span){p->pid, ID_CHARS}, net_clock_ms);
}

static void test_accepted_at_once(void **state)
{
    (void)state;
    assert_false(person_come(&people[0], 0));
    assert_int_equal(handler.asked, 1);
    assert_int_equal(handler.connected, 1);
    assert_int_equal(entries(&people[0]), 1);
}

/* The first entry has the rooms already: the node may die before there is a second one. */
static void test_accepted_later_with_rooms(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct span rooms[] = {SPAN("one"), SPAN("two")};
    handler.verdict = HUB_LATER;
    person_ask(p, 0);
    net_run(&net, 1000);
    person_hear(p);
    assert_int_equal(p->connects, 0);
    store_memory_set_delay(nodes[0].client, 50);
    joining_accept(handler.joining, SPAN("{\"name\":\"ann\"}"), SPAN("{\"n\":1}"), rooms, 2);
    assert_true(net_until(&net, has_connected, p));
    kill_node(0);
    person_loses_node(p);
    say_to(1, "two", 1);
    assert_false(p->is_recovered);
    assert_true(person_come(p, 1));
    assert_int_equal(handler.asked, 1); /* not for one that comes back */
    assert_int_equal(handler.recovered, 1);
    assert_string_equal(p->log, "\"news\",1;");
    assert_string_equal(socket_of(p, 1)->user, "{\"name\":\"ann\"}");
    assert_string_equal(socket_of(p, 1)->data, "{\"n\":1}");
    assert_int_equal(socket_of(p, 1)->n_places, 3);
    /* What is set later, too, as often as it comes back. */
    assert_int_equal(socket_set_data(socket_of(p, 1), SPAN("[2]")), 0);
    directory_save(socket_of(p, 1)->entry, NULL, NULL);
    net_run(&net, 200);
    kill_node(1);
    person_loses_node(p);
    assert_true(person_come(p, 2));
    assert_string_equal(socket_of(p, 2)->data, "[2]");
}

static void test_refused(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct sink_frame frame;
    handler.verdict = HUB_LATER;
    person_ask(p, 0);
    settle();
    joining_refuse(handler.joining, SPAN("{\"message\":\"no\"}"));
    settle();
    assert_true(sink_next(&p->k, &frame)); /* the handshake */
    assert_true(sink_next(&p->k, &frame));
    assert_int_equal(frame.payload.n, 18);
    assert_memory_equal(frame.payload.p, "44{\"message\":\"no\"}", 18);
    assert_int_equal(p->k.closes, 0);
    handler.verdict = HUB_ACCEPT;
    sink_says(&p->k, "0"); /* it may try again */
    assert_true(net_until(&net, has_connected, p));
}

/* The store does not answer for its whole time-out, and is then gone: nobody waits longer. */
static void test_without_the_store(void **state)
{
    (void)state;
    struct person *p = &people[0];
    store_memory_set_away(memory, true);
    settle();
    uint64_t before = net_clock_ms;
    assert_false(person_come(p, 0));
    assert_true(net_clock_ms - before < 100);
    assert_true(p->pid[0] != '\0');
    person_go(p);
    assert_true(person_come(p, 0)); /* it is here */
}

/* ---- clients that go ---- */

static void test_goes_while_the_handler_thinks(void **state)
{
    (void)state;
    struct person *p = &people[0];
    handler.verdict = HUB_LATER;
    person_ask(p, 0);
    settle();
    person_go(p);
    settle();
    assert_int_equal(handler.gave_up, 1);
    assert_int_equal(directory_absent(nodes[0].directory), 0);
}

static void test_goes_while_it_is_written(void **state)
{
    (void)state;
    struct person *p = &people[0];
    for (unsigned ms = 0; ms < 60; ms += 3) {
        store_memory_set_delay(nodes[0].client, 40);
        person_ask(p, 0);
        net_run(&net, ms);
        person_go(p);
        net_run(&net, 100);
        memset(p, 0, sizeof(*p));
    }
    /* Those that were answered in time may come back. */
    assert_int_equal(directory_absent(nodes[0].directory), handler.connected);
    assert_true(handler.connected > 0 && handler.connected < 20);
}

/* In each millisecond of a claim: nothing is lost by that. */
static void test_goes_while_it_is_claimed(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_go(p);
    settle();
    for (unsigned i = 0; i < NODES; i++)
        store_memory_set_delay(nodes[i].client, 20);
    for (unsigned ms = 0; ms < 40; ms++) {
        person_ask(p, 1 + ms % 2);
        net_run(&net, ms);
        person_hear(p);
        person_go(p);
        net_run(&net, ms % 7 * 10);
    }
    assert_true(person_come(p, 0));
    assert_int_equal(entries(p), 1);
}

/* A claim waits for this node to learn what the client knows; meanwhile its entry is taken, or its time is over. */
static void test_gone_while_it_catches_up(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    person_come(p, 0);
    say_to(1, NULL, 1);
    all_hear();
    person_go(p);
    settle();
    struct offset o;
    assert_int_equal(offset_decode(span_of(p->offset), &o), 0);
    for (unsigned i = 0; i < o.n; i++)
        o.entry[i].seq += o.entry[i].origin == nodes[1].self.tag ? 1000000 : 0;
    char ahead[LIMIT_OFFSET_BYTES] = {0}, good[LIMIT_OFFSET_BYTES];
    memcpy(good, p->offset, sizeof(good));
    assert_true(offset_encode(&o, ahead, sizeof(ahead)) > 0);

    memcpy(p->offset, ahead, sizeof(ahead)); /* a lie */
    person_ask(p, 0);
    net_run(&net, 100);
    *q = *p;
    memset(&q->k, 0, sizeof(q->k));
    q->is_open = false;
    person_ask(q, 0); /* a second one, with the same lie */
    net_run(&net, 100);
    assert_int_equal(directory_absent(nodes[0].directory), 1);
    p->connects = q->connects = 0;
    assert_true(net_until(&net, has_connected, p));
    assert_true(net_until(&net, has_connected, q));
    assert_false(p->is_recovered);
    assert_false(q->is_recovered);
    assert_int_equal(p->k.closes + q->k.closes, 0);
    assert_memory_not_equal(p->sid, q->sid, ID_CHARS);
}

static void test_taken_while_it_catches_up(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    char good[LIMIT_OFFSET_BYTES], ahead[LIMIT_OFFSET_BYTES] = {0};
    struct offset o;
    person_come(p, 0);
    say_to(1, NULL, 1);
    all_hear();
    person_go(p);
    settle();
    memcpy(good, p->offset, sizeof(good));
    assert_int_equal(offset_decode(span_of(good), &o), 0);
    o.entry[o.n - 1].seq += 1000000;
    assert_true(offset_encode(&o, ahead, sizeof(ahead)) > 0);
    *q = *p;
    memcpy(q->offset, ahead, sizeof(ahead));
    person_ask(q, 2);
    net_run(&net, 60);
    assert_true(person_come(p, 1)); /* the true one, elsewhere: by now node 2 has the entry */
    q->connects = 0;
    assert_true(net_until(&net, has_connected, q));
    assert_false(q->is_recovered);
    say_to(2, NULL, 2);
    all_hear();
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
}

static void test_second_connect(void **state)
{
    (void)state;
    struct person *p = &people[0];
    handler.verdict = HUB_LATER;
    person_ask(p, 0);
    settle();
    sink_says(&p->k, "0");
    settle();
    assert_int_equal(p->k.closes, 1);
    assert_int_equal(p->k.reason, CLOSE_PARSE_ERROR);
    assert_int_equal(handler.gave_up, 1);
}

/* ---- clients that lie ---- */

static void test_lies(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    char pid[ID_CHARS + 1], offset[LIMIT_OFFSET_BYTES], text[LIMIT_OFFSET_BYTES + 128];
    memcpy(pid, p->pid, sizeof(pid));
    memcpy(offset, p->offset, sizeof(offset));
    struct {
        const char *pid, *offset;
    } lies[] = {
        {"\"\"", offset},
        {"7", offset},
        {"null", offset},
        {"{}", offset},
        {"\"AAAAAAAAAAAAAAAAAAAA\"", offset},
        {"\"AAAAAAAAAAAAAAAAAAA\"", offset},
        {"\"AAAAAAAAAAAAAAAAAAAAA\"", offset},
        {"\"\\u0000AAAAAAAAAAAAAAAAAAA\"", offset},
        {NULL, ""},
        {NULL, "~"},
        {NULL, "~1"},
        {NULL, "~2orJrCgsM"},
        {NULL, "~1sPf9AAAA"},
        {NULL, "~1-dRCCgsMAQIDAQ"},
        {NULL, "~1hpsBAQIDAQID____________AQ"},
        {NULL, "hello"},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct person *liar = &people[1];
        memset(liar, 0, sizeof(*liar));
        sink_open(&nodes[1].w, &liar->k);
        liar->is_open = true;
        if (lies[i].pid)
            snprintf(text, sizeof(text), "0{\"pid\":%s,\"offset\":\"%s\"}", lies[i].pid, lies[i].offset);
        else
            snprintf(text, sizeof(text), "0{\"pid\":\"%s\",\"offset\":\"%s\"}", pid, lies[i].offset);
        sink_says(&liar->k, text);
        assert_true(net_until(&net, has_connected, liar));
        assert_memory_not_equal(liar->sid, p->sid, ID_CHARS);
        assert_int_equal(liar->k.closes, 0);
        person_go(liar);
        settle();
        /* Whoever knows the pid may claim the session; of a lie about the offset it is over. Others do not touch it. */
        if (lies[i].pid)
            assert_non_null(socket_of(p, 0));
    }
}

static void test_other_namespace(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    char text[LIMIT_OFFSET_BYTES + 128];
    person_come(p, 0);
    person_go(p);
    settle();
    sink_open(&nodes[1].w, &q->k);
    q->is_open = true;
    snprintf(text, sizeof(text), "0/other,{\"pid\":\"%s\",\"offset\":\"%s\"}", p->pid, p->offset);
    sink_says(&q->k, text);
    settle();
    struct sink_frame frame;
    assert_true(sink_next(&q->k, &frame));
    assert_true(sink_next(&q->k, &frame));
    assert_memory_equal(frame.payload.p, "40/other,{\"sid\":\"", 17);
    assert_memory_not_equal(frame.payload.p + 17, p->sid, ID_CHARS);
    assert_int_equal(handler.asked, 2); /* asked anew: it is another place */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_accepted_at_once, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_accepted_later_with_rooms, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_without_the_store, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_while_the_handler_thinks, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_while_it_is_written, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_while_it_is_claimed, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_gone_while_it_catches_up, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_taken_while_it_catches_up, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_second_connect, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_lies, set_up_handled, tear_down),
        cmocka_unit_test_setup_teardown(test_other_namespace, set_up_handled, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
