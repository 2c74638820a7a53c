/* What can be said to who comes back: offsets and what is held of them, the events that were missed, and those that are
 * not for it when they come late. */
#include "fakerecovery.h"

static struct offset offset_of(const struct person *p)
{
    struct offset o;
    assert_int_equal(offset_decode(span_of(p->offset), &o), 0);
    return o;
}

static uint64_t seq_of(const struct offset *o, uint32_t tag)
{
    for (unsigned i = 0; i < o->n; i++)
        if (o->entry[i].origin == tag)
            return o->entry[i].seq;
    return 0;
}

static void set_seq(struct offset *o, uint32_t tag, uint64_t seq)
{
    unsigned i = 0;
    while (i < o->n && o->entry[i].origin < tag)
        i++;
    if (i == o->n || o->entry[i].origin != tag) {
        memmove(&o->entry[i + 1], &o->entry[i], (o->n - i) * sizeof(o->entry[0]));
        o->n++;
    }
    o->entry[i] = (struct offset_entry){tag, seq};
}

static enum recovery_verdict verdict(unsigned node, const struct offset *o)
{
    return recovery_check(nodes[node].recovery, o);
}

static void test_verdicts(void **state)
{
    (void)state;
    struct person *p = &people[0];
    assert_false(person_come(p, 0));
    struct offset o = offset_of(p), other;
    assert_int_equal(o.issuer, nodes[0].self.tag);
    assert_int_equal(verdict(0, &o), RECOVERY_YES);
    for (int i = 0; i < 5; i++)
        say_to(1, NULL, i);
    settle();
    assert_int_equal(verdict(0, &o), RECOVERY_YES); /* five are missed, and held */

    other = o;
    set_seq(&other, nodes[1].self.tag, peers_newest(nodes[1].peers) + 1);
    assert_int_equal(verdict(0, &other), RECOVERY_LATER); /* who lives will tell */
    other = o;
    set_seq(&other, 0x999, 1);
    assert_int_equal(verdict(0, &other), RECOVERY_LATER); /* a new node, maybe */

    ring_restart(peers_ring(nodes[0].peers), nodes[1].self);
    assert_int_equal(verdict(0, &o), RECOVERY_NO);
    other = o;
    set_seq(&other, nodes[1].self.tag, peers_newest(nodes[1].peers));
    assert_int_equal(verdict(0, &other), RECOVERY_YES); /* nothing of it is missed */
}

/* Of the dead nobody who lives can have more. */
static void test_more_than_the_living_have(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    struct offset o = offset_of(p);
    set_seq(&o, nodes[1].self.tag, peers_newest(nodes[1].peers) + 7);
    kill_node(1);
    assert_int_equal(verdict(0, &o), RECOVERY_LATER);
    net_run(&net, 2 * PEER_TIMEOUT_MS);
    assert_int_equal(verdict(0, &o), RECOVERY_YES);
}

/* They were named in offsets for as long as a node remembered them, so that their clients could not come back at others
 * that had forgotten; and for ever in the first offset of an entry. */
static void test_nodes_that_are_dead_for_long(void **state)
{
    (void)state;
    struct person *p = &people[0];
    uint32_t dead = nodes[1].self.tag;
    say_to(1, NULL, 0);
    settle();
    person_come(p, 0);
    struct offset o = offset_of(p);
    assert_true(seq_of(&o, dead) > 0);
    kill_node(1);
    net_run(&net, NAMED_MS + 2 * PEER_TIMEOUT_MS);
    say_to(0, NULL, 1);
    all_hear();
    o = offset_of(p);
    assert_int_equal(seq_of(&o, dead), 0);
    person_go(p);
    settle();
    say_to(2, NULL, 2);
    settle();
    assert_int_equal(verdict(2, &o), RECOVERY_YES); /* it still knows the dead one */
    assert_true(person_come(p, 2));
    net_run(&net, NAMED_MS + KEEP_MS); /* and now nobody does any more */
    say_to(0, NULL, 3);
    all_hear();
    person_go(p);
    assert_true(person_come(p, 0)); /* the entry's first offset names it */
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;");
}

/* A node that started after its death kept it for longer than the others, and gave its events once more to a client whose
 * offset did not name it any more. */
static void test_who_started_after_a_death(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    say_to(1, NULL, 1);
    all_hear();
    kill_node(1);
    kill_node(2);
    net_run(&net, KEEP_MS / 2);
    start_node(2, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    net_run(&net, NAMED_MS - KEEP_MS / 2); /* node 0 does not name it any more */
    say_to(0, NULL, 2);
    all_hear();
    struct offset o = offset_of(p);
    assert_int_equal(seq_of(&o, 0x111), 0);
    person_go(p);
    assert_true(person_come(p, 2));
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
}

/* The same, and only the store could tell when it had died. */
static void test_who_heard_of_a_death_from_the_store(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    say_to(1, NULL, 1);
    all_hear();
    for (unsigned i = 0; i < NODES; i++)
        kill_node(i);
    person_loses_node(p);
    net_run(&net, 1);
    net_clock_ms += WINDOW_MS / 2;
    for (unsigned i = 0; i < NODES; i++)
        start_node(i, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    assert_true(person_come(p, 0));
    struct offset o = offset_of(p);
    assert_true(seq_of(&o, 0x111) > 0);
    net_run(&net, NAMED_MS - WINDOW_MS / 2);
    say_to(0, NULL, 2);
    all_hear();
    o = offset_of(p);
    assert_int_equal(seq_of(&o, 0x111), 0);
    person_go(p);
    assert_true(person_come(p, 1));
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
}

/* Nobody can say for how long it has been dead: its events may have been missed, or had. */
static void test_nobody_knows_when_it_died(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct mesh_origin unknown = {0x999, 9};
    struct mesh_record record = {.kind = MESH_EXIT, .seq = 1};
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    record.presence = (struct mesh_presence){.nsp = SPAN("/"), .sid = SPAN("s")};
    assert_int_equal(mesh_write(&b, &record), 0);
    person_come(p, 0);
    struct offset o = offset_of(p);
    assert_int_equal(peers_fill(nodes[0].peers, unknown, (struct span){b.data, b.size}), 0);
    assert_int_equal(verdict(0, &o), RECOVERY_NO);
    peers_date(nodes[0].peers, unknown, 1000);
    assert_int_equal(verdict(0, &o), RECOVERY_YES);
    msgpack_sbuffer_destroy(&b);
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

static void test_what_was_missed(void **state)
{
    (void)state;
    struct person *p = &people[0], *other = &people[1];
    struct span in[] = {SPAN("in"), SPAN("too")}, out = SPAN("out"), sid = {p->sid, ID_CHARS};
    struct span attachments[] = {SPAN("\x01\x02"), SPAN("")};
    person_come(p, 0);
    person_joins(p, "in");
    person_joins(p, "too");
    person_come(other, 1);
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
    settle();
    assert_true(person_come(p, 2));
    assert_string_equal(p->log, "\"news\",1;\"news\",3;\"news\",8;\"news\",9;\"news\",10;");
    assert_int_equal(metrics_get(nodes[2].w.metrics, METRIC_RECOVERED_EVENTS), 7);
    assert_int_equal(metrics_get(nodes[2].w.metrics, METRIC_RECOVERIES), 1);
}

static void test_own_words(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    sink_says(&p->k, "2[\"bus:emit\",{\"event\":\"news\",\"args\":[1]}]");
    sink_says(&p->k, "2[\"bus:emit\",{\"event\":\"news\",\"args\":[2],\"echo\":true}]");
    person_go(p); /* before the echo is written */
    settle();
    assert_true(person_come(p, 1));
    assert_string_equal(p->log, "\"news\",2;");
}

/* Each event that is given again says how far its client is with it: who is cut off in the middle goes on there. */
static void test_offsets_of_what_was_missed(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_go(p);
    for (int i = 1; i <= 4; i++) {
        say_to(1, NULL, i);
        settle();
    }
    struct sink_frame frame;
    person_ask(p, 2);
    settle();
    for (unsigned i = 0; i < 4; i++) /* the handshake, CONNECT and two events */
        assert_true(sink_next(&p->k, &frame));
    hear_event(p, frame.payload);
    assert_string_equal(p->log, "\"news\",2;");
    person_go(p);
    p->log[0] = '\0';
    assert_true(person_come(p, 1));
    assert_string_equal(p->log, "\"news\",3;\"news\",4;");
}

static void test_too_much(void **state)
{
    (void)state;
    struct person *p = &people[0];
    for (unsigned count = 1; count <= 2; count++) {
        assert_false(person_come(p, 0));
        person_go(p);
        /* Beside the handshake, the answer to CONNECT and the offset. */
        unsigned n = engine_options.queue_messages - 3 + (count == 2);
        for (unsigned i = 0; i < n; i++)
            say_to(0, p->sid, 0);
        settle();
        p->log[0] = '\0';
        MUST(sizeof(p->log) < (size_t)n * 9); /* so they are only counted */
        struct person q = *p;
        q.connects = 0;
        person_ask(&q, 1);
        settle();
        struct sink_frame frame;
        unsigned events = 0;
        assert_true(sink_next(&q.k, &frame)); /* the handshake */
        assert_true(sink_next(&q.k, &frame));
        bool is_recovered = memmem(frame.payload.p, frame.payload.n, p->sid, ID_CHARS) != NULL;
        while (sink_next(&q.k, &frame))
            events++;
        assert_int_equal(q.k.closes, 0);
        assert_int_equal(is_recovered, count == 1);
        assert_int_equal(events, count == 1 ? n + 1 : 1); /* and the offset */
        person_go(&q);
        memset(p, 0, sizeof(*p));
    }
}

/* A namespace that came back before has its share of the queue. */
static void test_too_much_for_two_namespaces(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    struct sink_frame frame;
    char text[LIMIT_OFFSET_BYTES + 128], pid[2][ID_CHARS + 1] = {{0}}, sid[2][ID_CHARS + 1] = {{0}};
    unsigned n = engine_options.queue_messages * 2 / 3, closes = 0, connects = 0, recovered = 0;
    sink_open(&nodes[0].w, &p->k);
    p->is_open = true;
    sink_says(&p->k, "0/a");
    sink_says(&p->k, "0/b");
    settle();
    while (sink_next(&p->k, &frame)) {
        const char *at = memmem(frame.payload.p, frame.payload.n, "\"pid\":\"", 7);
        if (!at) {
            hear_event(p, frame.payload);
            continue;
        }
        memcpy(pid[frame.payload.p[3] - 'a'], at + 7, ID_CHARS);
        memcpy(sid[frame.payload.p[3] - 'a'],
               (const char *)memmem(frame.payload.p, frame.payload.n, "\"sid\":\"", 7) + 7, ID_CHARS);
    }
    person_go(p);
    for (unsigned i = 0; i < n; i++) {
        emit(1, (struct emit){.nsp = SPAN("/a")}, 1);
        emit(1, (struct emit){.nsp = SPAN("/b")}, 1);
    }
    settle();
    sink_open(&nodes[2].w, &q->k);
    q->is_open = true;
    sink_block(&q->k);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), "0/%c,{\"pid\":\"%s\",\"offset\":\"%s\"}", 'a' + (char)i, pid[i],
                 p->offset);
        sink_says(&q->k, text);
        settle();
    }
    closes = q->k.closes;
    sink_unblock(&q->k);
    settle();
    while (sink_next(&q->k, &frame))
        if (frame.payload.p[1] == '0') {
            connects++;
            recovered += memmem(frame.payload.p, frame.payload.n, sid[0], ID_CHARS) ||
                         memmem(frame.payload.p, frame.payload.n, sid[1], ID_CHARS);
        }
    assert_int_equal(closes, 0);
    assert_int_equal(connects, 2);
    assert_int_equal(recovered, 1);
}

/* ---- events that a client has, and its new node has not ---- */

static bool is_recovered(void *arg)
{
    return has_connected(arg);
}

/* The node freezes after it has told its clients, and before anybody else has heard. */
static void test_late_words_of_a_frozen_node(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    person_come(p, 0);
    person_come(q, 1);
    net_cut(&net, 0, 1, true);
    net_cut(&net, 0, 2, true);
    say_to(0, NULL, 1);
    net_step(&net); /* nor has the store heard */
    net.node[0].is_frozen = true;
    all_hear();
    assert_string_equal(p->log, "\"news\",1;");
    assert_string_equal(q->log, "");
    sink_end(&p->k); /* the client sees it so */
    p->is_open = false;
    p->connects = 0;
    person_ask(p, 1);
    assert_true(net_until(&net, is_recovered, p));
    assert_true(p->is_recovered);
    say_to(1, NULL, 2);
    all_hear();
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
    net_cut(&net, 0, 1, false);
    net_cut(&net, 0, 2, false);
    net.node[0].is_frozen = false;
    net_run(&net, 2000);
    say_to(0, NULL, 3);
    all_hear();
    assert_string_equal(q->log, "\"news\",2;\"news\",1;\"news\",3;"); /* it was late, and is not lost */
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;"); /* and not given twice */
    person_go(p);
    assert_true(person_come(p, 2)); /* nor here, whatever offset it has from node 1 */
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;");
}

/* The same, and it moves on with an offset that is behind what it has. */
static void test_late_words_and_another_move(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    net_cut(&net, 0, 1, true);
    net_cut(&net, 0, 2, true);
    say_to(0, NULL, 1);
    all_hear();
    kill_node(0);
    person_loses_node(p);
    p->connects = 0;
    person_ask(p, 1);
    assert_true(net_until(&net, is_recovered, p));
    assert_true(p->is_recovered);
    say_to(1, NULL, 2);
    all_hear();
    person_go(p);
    assert_true(person_come(p, 2));
    person_go(p);
    say_to(1, NULL, 3);
    settle();
    assert_true(person_come(p, 1));
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;");
}

/* What its client is told never falls behind what it has: the next node may know no more than this offset. */
static void test_offset_of_who_is_ahead(void **state)
{
    (void)state;
    struct span attachment = SPAN("\x01");
    struct person *p = &people[0], *q = &people[1];
    person_come(p, 0);
    person_come(q, 1);
    net_cut(&net, 0, 1, true);
    net_cut(&net, 0, 2, true);
    uint64_t had = say_to(0, NULL, 1);
    net_step(&net);
    uint32_t dead = nodes[0].self.tag;
    person_hear(p);
    net.node[0].is_frozen = true; /* nobody else has heard it, nor will */
    sink_end(&p->k);
    p->is_open = false;
    p->connects = 0;
    person_ask(p, 1);
    assert_true(net_until(&net, is_recovered, p));
    all_hear();
    struct offset o = offset_of(p);
    assert_int_equal(seq_of(&o, dead), had); /* of the offset after CONNECT */
    for (int i = 2; i < 5; i++) {
        emit(1, (struct emit){.attachments = &attachment, .n_attachments = i == 3}, i);
        all_hear();
        o = offset_of(p);
        assert_int_equal(seq_of(&o, dead), had);
        assert_int_equal(seq_of(&o, nodes[1].self.tag), peers_newest(nodes[1].peers));
        o = offset_of(q);
        assert_true(seq_of(&o, dead) < had);
    }
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;\"news\",4;");
    assert_string_equal(q->log, "\"news\",2;\"news\",3;\"news\",4;");
    net_run(&net, NAMED_MS + KEEP_MS); /* and then nobody knows it any more */
    say_to(1, NULL, 5);
    all_hear();
    o = offset_of(p);
    assert_int_equal(seq_of(&o, dead), 0);
    assert_null(socket_of(p, 1)->ahead);
    net.node[0].is_frozen = false;
}

/* It is silent for one node for so long that offsets do not name it, but it lives, and what a client has had there comes
 * to the client's new node in the end. */
static void test_late_words_after_a_long_silence(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    for (unsigned i = 1; i < NODES; i++)
        net_cut_both(&net, 0, i, true);
    net_run(&net, KEEP_MS + KEEP_MS / 2);
    store_memory_cut(nodes[0].client, true);
    say_to(0, NULL, 1);
    net_step(&net);
    person_hear(p);
    net.node[0].is_frozen = true;
    sink_end(&p->k);
    p->is_open = false;
    p->connects = 0;
    person_ask(p, 1);
    assert_true(net_until(&net, is_recovered, p));
    net_run(&net, KEEP_MS / 2);
    say_to(1, NULL, 2);
    all_hear();
    net.node[0].is_frozen = false;
    store_memory_cut(nodes[0].client, false);
    for (unsigned i = 1; i < NODES; i++)
        net_cut_both(&net, 0, i, false);
    net_run(&net, 3000);
    say_to(0, NULL, 3);
    all_hear();
    assert_string_equal(p->log, "\"news\",1;\"news\",2;\"news\",3;");
}

/* The dead node's last words were only in the mirror, or with a third node, when its client was back already. */
static void test_last_words_come_after_the_client(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1], *r = &people[2];
    person_come(p, 0);
    person_come(q, 1);
    person_come(r, 2);
    net_cut(&net, 0, 1, true); /* only node 2 hears it */
    net_cut_both(&net, 1, 2, true);
    say_to(0, NULL, 1);
    all_hear();
    assert_string_equal(r->log, "\"news\",1;");
    kill_node(0);
    person_loses_node(p);
    p->connects = 0;
    person_ask(p, 1);
    assert_true(net_until(&net, is_recovered, p));
    net_cut_both(&net, 1, 2, false);
    net_run(&net, 3000);
    all_hear();
    assert_string_equal(q->log, "\"news\",1;");
    assert_string_equal(p->log, "\"news\",1;");
}

static bool loses_repairs(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)n;
    (void)from;
    return to == 2 && net_kind(message) == MESH_REPAIRED;
}

static bool is_past_coming(void *arg)
{
    struct peers_position at = recovery_position(nodes[2].recovery, nodes[1].self.tag);
    (void)arg;
    return at.lives && at.is_filling;
}

/* Node 2 is ready when it meets node 1: what that had said goes into its ring, and who is there is told of a gap. Who
 * came in the middle of it was told of nothing, and not given the rest. */
static void test_who_comes_while_the_past_does(void **state)
{
    (void)state;
    struct person *p = &people[0];
    kill_node(2);
    net_cut_both(&net, 1, 2, true);
    start_node(2, 2);
    assert_true(net_until(&net, all_are_ready, NULL));
    person_come(p, 0);
    net_cut_both(&net, 0, 2, true);
    uint64_t first = say_to(1, NULL, 1);
    all_hear();
    person_go(p);
    say_to(1, NULL, 2);
    settle();
    net.loses = loses_repairs;
    net_cut_both(&net, 0, 2, false);
    net_cut_both(&net, 1, 2, false);
    assert_true(net_until(&net, is_past_coming, NULL));
    struct span raw = ring_get(peers_ring(nodes[0].peers), nodes[1].self, first);
    assert_int_equal(peers_fill(nodes[2].peers, nodes[1].self, raw), 0);
    assert_true(is_past_coming(NULL));
    p->connects = 0;
    person_ask(p, 2);
    all_hear();
    assert_int_equal(p->connects, 0);
    net.loses = NULL;
    assert_true(net_until(&net, is_recovered, p));
    all_hear();
    assert_true(p->is_recovered);
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
}

/* ---- silent clients ---- */

static void test_offsets_at_pings(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    struct socket *s = socket_of(p, 0);
    struct offset before = offset_of(p), after;
    say_to(1, "elsewhere", 1);
    all_hear();
    recovery_on_ping(nodes[0].recovery, s);
    all_hear();
    after = offset_of(p);
    assert_int_equal(seq_of(&after, nodes[1].self.tag), seq_of(&before, nodes[1].self.tag)); /* it is fresh */
    net_run(&net, WINDOW_MS / 4 + 1);
    recovery_on_ping(nodes[0].recovery, s);
    all_hear();
    after = offset_of(p);
    assert_int_equal(seq_of(&after, nodes[1].self.tag), peers_newest(nodes[1].peers));
    assert_string_equal(p->log, "");
}

static int set_up_rare_pings(void **state)
{
    set_up(state);
    struct node *n = &nodes[0];
    recovery_free(&n->recovery);
    n->recovery = recovery_new(
        n->w.reactor, n->w.hub,
        &(struct recovery_options){
            .window_ms = WINDOW_MS, .ping_interval_ms = 1000000, .catch_up_ms = 1000, .self = n->self},
        n->peers, n->directory);
    assert_non_null(n->recovery);
    return 0;
}

static void test_pings_are_too_rare(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    say_to(1, "elsewhere", 1);
    net_run(&net, WINDOW_MS / 2);
    all_hear();
    struct offset after = offset_of(p);
    assert_int_equal(seq_of(&after, nodes[1].self.tag), peers_newest(nodes[1].peers));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_verdicts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_than_the_living_have, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nodes_that_are_dead_for_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_started_after_a_death, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_heard_of_a_death_from_the_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_knows_when_it_died, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_missed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offsets_of_what_was_missed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_much, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_much_for_two_namespaces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_words_of_a_frozen_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_words_and_another_move, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offset_of_who_is_ahead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_words_after_a_long_silence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_last_words_come_after_the_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_comes_while_the_past_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offsets_at_pings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pings_are_too_rare, set_up_rare_pings, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
