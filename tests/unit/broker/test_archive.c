/* What the ring does not hold any more is read from the store: who gets what of it, who shares it, what happens meanwhile,
 * and when it cannot be had. */
#include "fakerecovery.h"

enum { SMALL_RING = 6000, MANY = 200 };

static int set_up_small(void **state)
{
    ring_max_bytes = SMALL_RING;
    return set_up(state);
}

static uint64_t count(unsigned node, enum metric which)
{
    return metrics_get(nodes[node].w.metrics, which);
}

/* "news",from;…"news",to; */
static char *news(int from, int to)
{
    static char text[1 << 16];
    size_t at = 0;
    text[0] = '\0';
    for (int i = from; i <= to; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "\"news\",%d;", i);
    return text;
}

/* Some at a time, so that the mirror has many batches. */
static void say_many(unsigned node, const char *room, int from, int to)
{
    for (int i = from; i <= to; i++) {
        say_to(node, room, i);
        if (i % 5 == 0)
            settle();
    }
    settle();
}

static bool ring_has_lost(unsigned node, unsigned of)
{
    uint64_t first, last;
    return !ring_range(peers_ring(nodes[node].peers), nodes[of].self, &first, &last) || first > 1;
}

static void come_and_go(struct person *p, unsigned node, const char *room)
{
    assert_false(person_come(p, node));
    if (room)
        person_joins(p, room);
    person_go(p);
    settle();
}

static void test_more_than_the_ring_holds(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, "in");
    for (int i = 1; i <= MANY; i++) {
        say_to(1, "in", i);
        say_to(1, "out", 1000 + i);
        if (i % 5 == 0)
            settle();
    }
    settle();
    assert_true(ring_has_lost(2, 1));
    assert_true(person_come(p, 2));
    assert_string_equal(p->log, news(1, MANY));
    assert_int_equal(count(2, METRIC_RECOVERIES_READ), 1);
    assert_int_equal(count(2, METRIC_RECOVERED_EVENTS), MANY);
    assert_true(count(2, METRIC_RECOVERY_READ_BYTES) > SMALL_RING);
    assert_int_equal(count(2, METRIC_RECOVERY_HELD_BYTES), 0);
    assert_int_equal(count(2, METRIC_RECOVERY_WAITING), 0);
    say_to(0, "in", MANY + 1);
    all_hear();
    assert_string_equal(p->log, news(1, MANY + 1));
    person_go(p); /* and again, from where it is now */
    settle();
    assert_true(person_come(p, 1));
    assert_string_equal(p->log, news(1, MANY + 1));
    assert_int_equal(count(1, METRIC_RECOVERY_READS), 0);
}

static void emit(unsigned node, struct emit e, int value)
{
    char args[16];
    uint64_t seq;
    snprintf(args, sizeof(args), "%d", value);
    e.nsp = e.nsp.n ? e.nsp : SPAN("/");
    e.event = SPAN("\"news\"");
    e.args = span_of(args);
    assert_int_equal(hub_emit(nodes[node].w.hub, &e, &seq), 0);
}

/* The same as out of the ring. */
static void test_for_whom_it_is(void **state)
{
    (void)state;
    struct person *p = &people[0], *other = &people[1];
    struct span in[] = {SPAN("in"), SPAN("too")}, out = SPAN("out"), sid = {p->sid, ID_CHARS};
    struct span attachments[] = {SPAN("\x01\x02"), SPAN("")};
    person_come(p, 1);
    person_joins(p, "in");
    person_joins(p, "too");
    person_come(other, 1);
    emit(1, (struct emit){.skip = socket_of(p, 1)}, 0);
    person_go(p);
    emit(1, (struct emit){.to = in, .n_to = 2}, 1); /* once */
    emit(1, (struct emit){.to = &out, .n_to = 1}, 2);
    emit(1, (struct emit){.to = &sid, .n_to = 1}, 3);
    emit(1, (struct emit){.except = in, .n_except = 1}, 4);
    emit(1, (struct emit){.except = &sid, .n_except = 1}, 5);
    emit(1, (struct emit){.nsp = SPAN("/other"), .to = in, .n_to = 1}, 6);
    emit(1, (struct emit){.to = in, .n_to = 1, .is_volatile = true}, 7);
    emit(1, (struct emit){.skip = socket_of(other, 1)}, 8); /* of another one */
    emit(1, (struct emit){.except = &out, .n_except = 1}, 9);
    emit(1, (struct emit){.to = in, .n_to = 1, .attachments = attachments, .n_attachments = 2}, 10);
    say_many(1, "others", 1, MANY);
    assert_true(person_come(p, 2));
    assert_int_equal(count(2, METRIC_RECOVERIES_READ), 1);
    assert_string_equal(p->log, "\"news\",1;\"news\",3;\"news\",8;\"news\",9;\"news\",10;");
}

/* The ring has everything: nothing is asked. */
static void test_ring_is_enough(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, 5);
    assert_true(person_come(p, 2));
    assert_string_equal(p->log, news(1, 5));
    assert_int_equal(count(2, METRIC_RECOVERY_READS), 0);
    assert_int_equal(count(2, METRIC_RECOVERIES_READ), 0);
}

/* Its own numbers are in the store as well. */
static void test_of_this_node_itself(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(0, NULL, 1, MANY);
    assert_true(person_come(p, 0));
    assert_string_equal(p->log, news(1, MANY));
}

static void assert_orders(const char *log, int from, int middle, int to)
{
    int low = from, high = middle;
    for (const char *c = log; (c = strstr(c, "\"news\",")); c += 7) {
        int value = atoi(c + 7);
        if (value < middle)
            assert_int_equal(value, low++);
        else
            assert_int_equal(value, high++);
    }
    assert_int_equal(low, middle);
    assert_int_equal(high, to + 1);
}

static void test_two_origins(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, "in");
    for (int i = 0; i < MANY; i++) {
        say_to(0, "in", i);
        say_to(1, "in", MANY + i);
        if (i % 7 == 0)
            settle();
    }
    settle();
    assert_true(ring_has_lost(2, 0) && ring_has_lost(2, 1));
    assert_true(person_come(p, 2));
    assert_orders(p->log, 0, MANY, 2 * MANY - 1);
}

/* What each one has heard last says exactly how far it is, also in what came from the store. */
static void test_offsets_of_what_was_read(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct sink_frame frame;
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY);
    p->connects = 0;
    person_ask(p, 2);
    net_run(&net, 100);
    for (unsigned i = 0; i < 2 + 20; i++) /* the handshake, CONNECT, and twenty of them */
        assert_true(sink_next(&p->k, &frame));
    hear_event(p, frame.payload);
    assert_string_equal(p->log, news(20, 20));
    person_go(p);
    settle();
    p->log[0] = '\0';
    assert_true(person_come(p, 0));
    assert_string_equal(p->log, news(21, MANY));
}

/* All of them together cost hardly more than one. */
static void test_shared(void **state)
{
    (void)state;
    uint64_t one, all;
    for (unsigned i = 0; i < PEOPLE; i++)
        come_and_go(&people[i], 0, i % 2 ? "odd" : "even");
    for (int i = 0; i < MANY; i++) {
        say_to(1, i % 2 ? "odd" : "even", i);
        if (i % 5 == 0)
            settle();
    }
    settle();
    struct person alone = people[0];
    assert_true(person_come(&people[0], 1));
    one = count(1, METRIC_RECOVERY_READS);
    assert_true(one > 1);
    person_go(&people[0]);
    settle();
    memcpy(people[0].offset, alone.offset, sizeof(alone.offset));
    people[0].log[0] = '\0';
    for (unsigned i = 0; i < PEOPLE; i++) {
        people[i].connects = 0;
        person_ask(&people[i], 2);
    }
    for (unsigned i = 0; i < PEOPLE; i++)
        assert_true(net_until(&net, has_connected, &people[i]));
    all_hear();
    all = count(2, METRIC_RECOVERY_READS);
    assert_true(all <= one + 2);
    for (unsigned i = 0; i < PEOPLE; i++) {
        assert_true(people[i].is_recovered);
        assert_string_equal(people[i].log, people[i % 2].log);
    }
    assert_int_equal(strlen(people[0].log) + strlen(people[1].log), strlen(news(0, MANY - 1)));
}

/* Who comes while others are further up already is served when they are done, or before. */
static void test_one_comes_late(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY / 2);
    come_and_go(q, 0, NULL);
    say_many(1, NULL, MANY / 2 + 1, MANY);
    store_memory_set_delay(nodes[2].client, 20);
    p->connects = q->connects = 0;
    person_ask(q, 2);
    net_run(&net, 50);
    person_ask(p, 2);
    assert_true(net_until(&net, has_connected, q));
    assert_true(net_until(&net, has_connected, p));
    all_hear();
    assert_true(p->is_recovered && q->is_recovered);
    assert_string_equal(q->log, news(MANY / 2 + 1, MANY));
    assert_string_equal(p->log, news(1, MANY));
}

/* Events go on while it is read, so many that the ring loses more of what it missed. */
static void test_goes_on_meanwhile(void **state)
{
    (void)state;
    struct person *p = &people[0];
    int said = MANY;
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, said);
    store_memory_set_delay(nodes[2].client, 60);
    p->connects = 0;
    person_ask(p, 2);
    for (int round = 0; round < 60; round++) {
        say_to(1, NULL, ++said);
        net_run(&net, 10);
    }
    store_memory_set_delay(nodes[2].client, 1);
    assert_true(net_until(&net, has_connected, p));
    say_to(0, NULL, ++said);
    all_hear();
    assert_true(p->is_recovered);
    assert_string_equal(p->log, news(1, said));
}

static void test_goes_while_it_is_read(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    come_and_go(p, 0, NULL);
    come_and_go(q, 0, NULL);
    say_many(1, NULL, 1, MANY);
    store_memory_set_delay(nodes[2].client, 40);
    for (unsigned ms = 50; ms <= 250; ms += 50) {
        p->connects = 0;
        person_ask(p, 2);
        net_run(&net, ms);
        if (ms == 150)
            person_ask(q, 2);
        person_go(p);
    }
    q->connects = 0;
    assert_true(net_until(&net, has_connected, q));
    assert_true(person_come(p, 0));
    assert_string_equal(p->log, news(1, MANY));
    all_hear();
    assert_string_equal(q->log, news(1, MANY));
    assert_int_equal(count(2, METRIC_RECOVERY_HELD_BYTES), 0);
}

/* ---- when it cannot be had ---- */

static void assert_begins_anew(struct person *p, unsigned node)
{
    p->log[0] = '\0';
    assert_false(person_come(p, node));
    assert_string_equal(p->log, "");
    say_to(0, NULL, 7);
    all_hear();
    assert_string_equal(p->log, news(7, 7));
}

/* An offset from before the mirror was trimmed: of who was away for too long, or tells lies. */
static void test_trimmed(void **state)
{
    (void)state;
    struct person *p = &people[0];
    char old[LIMIT_OFFSET_BYTES];
    assert_false(person_come(p, 0));
    say_many(1, NULL, 1, 5);
    all_hear();
    memcpy(old, p->offset, sizeof(old));
    p->log[0] = '\0';
    for (int i = 0; i < 60; i++) {
        say_to(1, NULL, i);
        net_run(&net, KEEP_MS / 20);
        all_hear();
        p->log[0] = '\0';
    }
    for (int i = 0; i < MANY / 4; i++)
        say_to(1, NULL, i);
    all_hear();
    person_go(p);
    settle();
    memcpy(p->offset, old, sizeof(old));
    assert_begins_anew(p, 2);
    assert_int_equal(count(2, METRIC_RECOVERY_READS_GONE), 1);
    assert_true(count(2, METRIC_RECOVERY_READS) <= 2);
}

static void test_lost(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY);
    store_memory_lose(memory);
    assert_begins_anew(p, 0);
    assert_int_equal(count(0, METRIC_RECOVERY_READS_GONE), 1);
}

static void test_of_a_dead_node(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY);
    kill_node(1);
    net_run(&net, 2 * PEER_TIMEOUT_MS);
    assert_true(person_come(p, 2));
    assert_string_equal(p->log, news(1, MANY));
}

/* One that started when all had been said, and keeps little of it. */
static void test_at_a_new_node(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(0, NULL, 0, MANY - 1);
    say_many(1, NULL, MANY, 2 * MANY - 1);
    for (unsigned i = 0; i < NODES; i++)
        kill_node(i);
    start_node(2, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    assert_true(ring_has_lost(2, 0) || ring_has_lost(2, 1));
    assert_true(person_come(p, 2));
    assert_orders(p->log, 0, MANY, 2 * MANY - 1);
    assert_int_equal(count(2, METRIC_RECOVERIES_READ), 1);
}

static void test_store_is_away(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY);
    store_memory_set_away(memory, true);
    settle();
    assert_begins_anew(p, 0);
    assert_int_equal(count(0, METRIC_RECOVERY_READS_STORE), 1);
}

static void test_store_comes_back(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    say_many(1, NULL, 1, MANY);
    store_memory_set_away(memory, true);
    settle();
    p->connects = 0;
    person_ask(p, 0);
    net_run(&net, PEER_TIMEOUT_MS);
    store_memory_set_away(memory, false);
    assert_true(net_until(&net, has_connected, p));
    all_hear();
    assert_true(p->is_recovered);
    assert_string_equal(p->log, news(1, MANY));
}

/* Each question takes less than the store's time-out, and all of them too long together. */
static void test_takes_too_long(void **state)
{
    (void)state;
    static char args[50000];
    struct person *p = &people[0];
    struct span to = SPAN("others");
    uint64_t seq;
    come_and_go(p, 0, NULL);
    memset(args, '1', sizeof(args));
    for (int i = 1; i <= 100; i++) {
        MUST(hub_emit(nodes[1].w.hub,
                      &(struct emit){.nsp = SPAN("/"),
                                     .to = &to,
                                     .n_to = 1,
                                     .event = SPAN("\"news\""),
                                     .args = {args, sizeof(args)}},
                      &seq) == 0);
        net_run(&net, 20);
    }
    store_memory_set_delay(nodes[2].client, 1900);
    uint64_t began = net_clock_ms;
    p->connects = 0;
    person_ask(p, 2);
    while (!has_connected(p))
        net_run(&net, 100);
    assert_false(p->is_recovered);
    assert_true(net_clock_ms - began > LIMIT_RECOVERY_WAIT_MS);
    assert_true(net_clock_ms - began < LIMIT_RECOVERY_WAIT_MS + 5000);
    assert_int_equal(count(2, METRIC_RECOVERY_READS_TIME), 1);
    assert_int_equal(count(2, METRIC_RECOVERY_WAITING), 0);
    store_memory_set_delay(nodes[2].client, 1);
}

static void test_more_than_may_wait(void **state)
{
    (void)state;
    struct person *p = &people[0];
    come_and_go(p, 0, NULL);
    for (unsigned i = 0; i < engine_options.queue_messages + MANY; i++) {
        say_to(1, NULL, 1);
        if (i % 50 == 0)
            settle();
    }
    settle();
    assert_begins_anew(p, 2);
    assert_int_equal(count(2, METRIC_RECOVERY_READS_BOUND), 1);
    assert_int_equal(count(2, METRIC_RECOVERY_HELD_BYTES), 0);
}

/* A sender that has moved: what it said at its new node comes behind what it had said at the old one. */
static void test_of_who_has_moved(void **state)
{
    (void)state;
    struct person *p = &people[0], *sender = &people[1];
    come_and_go(p, 2, NULL);
    for (unsigned from = 0; from < 2; from++) { /* whichever of both is read first */
        p->log[0] = '\0';
        sender->pid[0] = '\0';
        person_come(sender, from);
        sink_says(&sender->k, "2[\"bus:emit\",{\"event\":\"news\",\"args\":[1]}]");
        all_hear();
        person_go(sender);
        settle();
        assert_true(person_come(sender, 1 - from));
        sink_says(&sender->k, "2[\"bus:emit\",{\"event\":\"news\",\"args\":[2]}]");
        all_hear();
        person_go(sender);
        say_many(0, "others", 1, MANY);
        say_many(1, "others", 1, MANY);
        assert_true(person_come(p, 2));
        assert_string_equal(p->log, news(1, 2));
        person_go(p);
        settle();
    }
}

/* ---- what a mirror should not hold ---- */

/* A store that gives these batches, whatever it is asked. */
static struct {
    struct store_batch batch[8];
    msgpack_sbuffer bytes[8];
    unsigned n, asked, told;
    int err;
    store_batches *done;
    void *user;
    struct reactor_task answer;
} odd;

static void on_odd_read(void *store, struct mesh_origin origin, uint64_t after, unsigned most,
                        store_batches *done, void *user)
{
    (void)store, (void)origin, (void)most;
    odd.asked++;
    odd.done = done;
    odd.user = user;
    (void)after;
    reactor_defer(nodes[0].w.reactor, &odd.answer, REACTOR_WORK);
}

static void on_odd_answer(struct reactor_task *task)
{
    (void)task;
    odd.done(odd.user, 0, odd.batch, odd.n);
}

/* "news",seq; to all, with the numbers first..last, and what is named as its last. */
static void add_batch(uint64_t first, uint64_t last, uint64_t named)
{
    msgpack_sbuffer *b = &odd.bytes[odd.n];
    char args[16];
    msgpack_sbuffer_init(b);
    for (uint64_t seq = first; seq <= last; seq++) {
        snprintf(args, sizeof(args), "%u", (unsigned)seq);
        MUST(mesh_write(
                 b, &(struct mesh_record){
                        .kind = MESH_EMIT,
                        .seq = seq,
                        .emit = {.nsp = SPAN("/"), .event = SPAN("\"news\""), .args = span_of(args)}}) == 0);
    }
    odd.batch[odd.n++] = (struct store_batch){.last = named, .records = {b->data, b->size}};
}

static void on_odd_done(void *user, int err)
{
    (void)user;
    odd.told++;
    odd.err = err;
}

/* What is read of node 1 from number 1 on, until the ring of node 0 begins; n records. */
static int read_odd(unsigned *n)
{
    static const struct store_calls calls = {.read = on_odd_read};
    struct store store = {.calls = &calls};
    struct archive_options ao = {.patience_ms = 100};
    struct fetch_options fo = {.nsp = SPAN("/"),
                               .sid = SPAN("somebody"),
                               .max_messages = 1000,
                               .max_bytes = 1000000,
                               .done = on_odd_done};
    struct archive *a = archive_new(nodes[0].w.reactor, nodes[0].w.metrics, &ao, &store, nodes[0].peers);
    struct fetch *f = fetch_new(a, &fo);
    struct fetch_part part = {.n = 0};
    uint64_t seq, before = 0;
    odd.answer.run = on_odd_answer;
    odd.told = 0;
    MUST(f && fetch_want(f, nodes[1].self, 1) == 0);
    fetch_begin(f);
    while (odd.told == 0)
        net_run(&net, 10);
    fetch_part(f, 0, &part);
    for (unsigned i = 0; i < part.n; i++, before = seq) {
        fetch_record(f, 0, i, &seq);
        assert_int_equal(seq, before + 1);
    }
    if (odd.err == 0)
        assert_int_equal(part.last, part.n);
    *n = part.n;
    fetch_free(&f);
    archive_free(&a);
    for (unsigned i = 0; i < odd.n; i++)
        msgpack_sbuffer_destroy(&odd.bytes[i]);
    odd.n = 0;
    return odd.err;
}

static void test_odd_mirrors(void **state)
{
    (void)state;
    unsigned n;
    uint64_t first, last;
    say_many(1, NULL, 1, MANY);
    assert_true(ring_range(peers_ring(nodes[0].peers), nodes[1].self, &first, &last) && first > 40);

    /* A batch that was sent twice, with more in it the second time; and the end that nobody has received yet. */
    add_batch(1, 10, 10);
    add_batch(5, 20, 20);
    add_batch(21, last + 5, last + 5);
    assert_int_equal(read_odd(&n), 0);
    assert_int_equal(n, last);

    add_batch(2, first, first); /* trimmed */
    assert_int_equal(read_odd(&n), ERR_NOT_FOUND);
    add_batch(1, 10, 10); /* a hole */
    add_batch(12, first, first);
    assert_int_equal(read_odd(&n), ERR_NOT_FOUND);
    add_batch(1, 10, 11); /* not what its id says */
    add_batch(12, first, first);
    assert_int_equal(read_odd(&n), ERR_NOT_FOUND);
    add_batch(1, first, first); /* cut off */
    odd.batch[0].records.n--;
    assert_int_equal(read_odd(&n), ERR_NOT_FOUND);
    add_batch(1, 0, first); /* empty */
    assert_int_equal(read_odd(&n), ERR_NOT_FOUND);
    assert_int_equal(count(0, METRIC_RECOVERY_READS_GONE), 5);
}

/* As many at a time as the limit says; who is done lets the next one in, and who goes while it waits is in nobody's way. */
static void test_turns(void **state)
{
    enum { ALL = LIMIT_RECOVERY_READING + 4 };
    static struct fetch *fetch[ALL];
    static const struct store_calls calls = {.read = on_odd_read};
    struct store store = {.calls = &calls};
    struct archive_options ao = {.patience_ms = 100};
    struct fetch_options fo = {
        .nsp = SPAN("/"), .sid = SPAN("x"), .max_messages = 1000, .max_bytes = 1000000, .done = on_odd_done};
    uint64_t first, last;
    (void)state;
    say_many(1, NULL, 1, MANY);
    assert_true(ring_range(peers_ring(nodes[0].peers), nodes[1].self, &first, &last));
    add_batch(1, last, last);
    odd.answer.run = on_odd_answer;
    odd.told = 0;
    struct archive *a = archive_new(nodes[0].w.reactor, nodes[0].w.metrics, &ao, &store, nodes[0].peers);
    for (unsigned i = 0; i < ALL; i++) {
        fetch[i] = fetch_new(a, &fo);
        MUST(fetch[i] && fetch_want(fetch[i], nodes[1].self, 1) == 0);
        fetch_begin(fetch[i]);
    }
    net_run(&net, 20);
    assert_int_equal(odd.told, LIMIT_RECOVERY_READING);
    assert_int_equal(odd.err, 0);
    assert_int_equal(count(0, METRIC_RECOVERY_WAITING), ALL);
    fetch_free(&fetch[ALL - 3]);
    fetch_free(&fetch[0]);
    fetch_free(&fetch[1]);
    net_run(&net, 20);
    assert_int_equal(odd.told, LIMIT_RECOVERY_READING + 2);
    for (unsigned i = 0; i < ALL; i++)
        fetch_free(&fetch[i]);
    assert_int_equal(count(0, METRIC_RECOVERY_WAITING), 0);
    assert_int_equal(count(0, METRIC_RECOVERY_HELD_BYTES), 0);
    archive_free(&a);
    msgpack_sbuffer_destroy(&odd.bytes[0]);
    odd.n = 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_small, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_more_than_the_ring_holds),
        TEST(test_for_whom_it_is),
        TEST(test_ring_is_enough),
        TEST(test_of_this_node_itself),
        TEST(test_two_origins),
        TEST(test_offsets_of_what_was_read),
        TEST(test_shared),
        TEST(test_one_comes_late),
        TEST(test_goes_on_meanwhile),
        TEST(test_goes_while_it_is_read),
        TEST(test_trimmed),
        TEST(test_lost),
        TEST(test_of_a_dead_node),
        TEST(test_at_a_new_node),
        TEST(test_store_is_away),
        TEST(test_store_comes_back),
        TEST(test_takes_too_long),
        TEST(test_of_who_has_moved),
        TEST(test_odd_mirrors),
        TEST(test_turns),
        TEST(test_more_than_may_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
