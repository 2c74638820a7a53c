/* Entries and the store: what is written and when, who has an entry after claims from here and there, and what becomes
 * of it when the store is away, full or empty. */
#include "fakerecovery.h"

struct outcome {
    unsigned times;
    int err;
    struct directory_entry *entry;
};

static void on_done(void *user, int err, struct directory_entry *e)
{
    struct outcome *o = user;
    o->times++;
    o->err = err;
    o->entry = e;
}

static bool is_done(void *arg)
{
    return ((struct outcome *)arg)->times > 0;
}

static struct directory_claim *begin_claim(unsigned node, const char *pid, unsigned owner, struct outcome *o)
{
    *o = (struct outcome){0};
    return directory_claim(nodes[node].directory, (struct span){pid, ID_CHARS}, nodes[owner].self.tag,
                           on_done, o);
}

static struct outcome claim(unsigned node, const char *pid, unsigned owner)
{
    struct outcome o;
    assert_non_null(begin_claim(node, pid, owner, &o));
    assert_true(net_until(&net, is_done, &o));
    net_run(&net, 5);
    assert_int_equal(o.times, 1);
    return o;
}

static bool has_room(const struct directory_entry *e, const char *room)
{
    static struct entry known;
    assert_int_equal(entry_read((struct span){e->bytes, e->bytes_n}, &known), 0);
    for (unsigned i = 0; i < known.n_rooms; i++)
        if (span_eq(known.rooms[i], span_of(room)))
            return true;
    return false;
}

static bool enters(unsigned node, const char *sid, uint64_t epoch, uint32_t tag)
{
    return directory_on_enter(nodes[node].directory, (struct span){sid, ID_CHARS}, epoch,
                              (struct mesh_origin){tag, 1});
}

static unsigned owners(const struct person *p)
{
    return store_memory_owners(memory, (struct span){p->pid, ID_CHARS}, net_clock_ms);
}

static void test_written_before_it_is_told(void **state)
{
    (void)state;
    struct person *p = &people[0];
    store_memory_set_delay(nodes[0].client, 100);
    person_ask(p, 0);
    net_run(&net, 50);
    person_hear(p);
    assert_int_equal(p->connects, 0);
    assert_true(net_until(&net, has_connected, p));
    assert_int_equal(owners(p), 1);
    size_t before = p->k.n;
    sink_says(&p->k, "21[\"bus:join\",\"r\"]");
    net_run(&net, 50);
    assert_int_equal(p->k.n, before);
    net_run(&net, 100);
    assert_true(p->k.n > before);
    kill_node(0);
    person_loses_node(p);
    struct outcome o = claim(1, p->pid, 0);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.entry->epoch, 2);
    assert_true(has_room(o.entry, "r"));
}

static void test_gone_for_good(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    assert_int_equal(owners(p), 1);
    sink_says(&p->k, "1");
    settle();
    assert_int_equal(owners(p), 0);
    assert_int_equal(directory_absent(nodes[0].directory), 0);
    assert_int_equal(claim(0, p->pid, 0).err, ERR_NOT_FOUND);
    assert_int_equal(claim(1, p->pid, 0).err, ERR_NOT_FOUND);
    person_go(p);
}

static void test_window_is_over(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_go(p);
    settle();
    assert_int_equal(directory_absent(nodes[0].directory), 1);
    net_run(&net, WINDOW_MS + 2000);
    assert_int_equal(directory_absent(nodes[0].directory), 0);
    assert_int_equal(owners(p), 0);
    assert_int_equal(claim(0, p->pid, 0).err, ERR_NOT_FOUND);
}

/* Each time at its own node it had a higher epoch than the store knew. The claim of another node then seemed older, and
 * what was left behind was given to the client when it came again. */
static void test_here_several_times_then_there(void **state)
{
    (void)state;
    static const unsigned way[] = {0, 0, 0, 0, 1, 0, 1, 1, 2, 0, 2, 1};
    struct person *p = &people[0];
    for (unsigned i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
        bool is_recovered = person_come(p, way[i]);
        assert_int_equal(is_recovered, i > 0);
        char room[8];
        snprintf(room, sizeof(room), "r%u", i);
        person_joins(p, room);
        assert_int_equal(socket_of(p, way[i])->n_places, 2 + i); /* in all of them, and in the namespace */
        assert_int_equal(owners(p), 1);
        unsigned open = 0;
        for (unsigned n = 0; n < NODES; n++)
            open += socket_of(p, n) != NULL;
        assert_int_equal(open, 1);
        person_go(p);
        settle();
    }
}

/* Node 0 has not heard that node 1 has it. */
static void test_what_is_here_may_be_old(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_joins(p, "old");
    person_go(p);
    settle();
    net_cut(&net, 1, 0, true);
    assert_true(person_come(p, 1));
    person_joins(p, "new");
    person_go(p);
    settle();
    struct outcome o = claim(0, p->pid, 1);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.entry->epoch, 3);
    assert_true(has_room(o.entry, "new"));
}

/* The answer was lost on the way: the client still thinks that it is at node 1. */
static void test_it_is_here_after_all(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 1);
    person_go(p);
    settle();
    assert_int_equal(claim(0, p->pid, 1).err, 0);
    struct outcome o = claim(0, p->pid, 1);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.entry->epoch, 2);
}

static void forget_all_but(unsigned node)
{
    store_memory_lose(memory);
    for (unsigned i = 0; i < NODES; i++)
        if (i != node)
            kill_node(i);
    net_run(&net, 2 * PEER_TIMEOUT_MS);
}

/* It was here, then at node 1, whose words have all been lost: there it joined a room, which nobody knows. */
static void test_nobody_knows_where_it_was_last(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_go(p);
    settle();
    net_cut(&net, 1, 0, true);
    assert_true(person_come(p, 1));
    person_joins(p, "new");
    person_go(p);
    settle();
    forget_all_but(0);
    assert_false(person_come(p, 0));
}

/* It was at node 1, then here, but has heard nothing from here yet. */
static void test_it_has_heard_nothing_from_here(void **state)
{
    (void)state;
    struct person *p = &people[0];
    char offset[sizeof(p->offset)];
    person_come(p, 1);
    strcpy(offset, p->offset);
    person_go(p);
    settle();
    assert_true(person_come(p, 0));
    person_go(p);
    strcpy(p->offset, offset);
    forget_all_but(0);
    assert_true(person_come(p, 0));
}

/* Node 1 has taken it for a connection that its client had left, when the client was at node 0 still; the store has lost
 * that. */
static void test_it_was_taken_for_nobody(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    assert_int_equal(claim(1, p->pid, 0).err, 0);
    store_memory_lose(memory);
    net_run(&net, 1100);
    person_joins(p, "new");
    person_go(p);
    settle();
    assert_true(person_come(p, 1));
    assert_true(room_find(socket_of(p, 1)->nsp, SPAN("new")) != NULL);
    assert_int_equal(socket_of(p, 1)->entry->epoch, 3);
}

/* Two have taken it at once, without a word of the other. Its client is at the one with the lower tag. */
static void test_two_at_once(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    person_joins(p, "new");
    settle();
    assert_true(enters(0, p->sid, 1, nodes[0].self.tag + 1));
    settle();
    assert_int_equal(p->k.closes, 1);
    sink_free(&p->k);
    p->is_open = false;
    assert_true(person_come(p, 1));
    assert_true(room_find(socket_of(p, 1)->nsp, SPAN("new")) != NULL);
    assert_int_equal(socket_of(p, 1)->entry->epoch, 3);
}

/* Node 1 had it from the store for a connection that its client had left, and the store has lost that: what the client has
 * done at node 0 since is not known there. */
static void test_it_was_here_all_the_time(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    assert_int_equal(claim(1, p->pid, 0).err, 0);
    store_memory_lose(memory);
    net_run(&net, 1100);
    person_joins(p, "new");
    assert_true(enters(0, p->sid, 2, nodes[1].self.tag));
    settle();
    assert_int_equal(p->k.closes, 1);
    sink_free(&p->k);
    p->is_open = false;
    assert_int_equal(directory_absent(nodes[0].directory), 0);
    assert_true(person_come(p, 0));
    assert_true(room_find(socket_of(p, 0)->nsp, SPAN("new")) != NULL);
    assert_int_equal(socket_of(p, 0)->entry->epoch, 3);
}

/* ---- claims that nobody waits for ---- */

static void test_second_claim_has_it(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct directory_entry *first = NULL, *second = NULL;
    person_come(p, 0);
    person_go(p);
    settle();
    struct outcome o = claim(0, p->pid, 0);
    directory_hold(o.entry, &first);
    o = claim(0, p->pid, 0);
    assert_ptr_equal(first, o.entry);
    directory_hold(o.entry, &second);
    assert_null(first);
    assert_ptr_equal(second, o.entry);
    net_run(&net, WINDOW_MS + 2000);
    assert_null(second); /* its time was over */
}

static void test_taken_from_who_holds_it(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct directory_entry *held = NULL;
    person_come(p, 0);
    person_go(p);
    settle();
    directory_hold(claim(0, p->pid, 0).entry, &held);
    assert_true(person_come(p, 1));
    settle();
    assert_null(held);
}

/* What the store has given to this node must be here when its client comes again. */
static void test_cancelled_in_the_store(void **state)
{
    (void)state;
    struct person *p = &people[0];
    struct outcome o;
    person_come(p, 0);
    person_go(p);
    settle();
    store_memory_set_delay(nodes[1].client, 40);
    struct directory_claim *c = begin_claim(1, p->pid, 0, &o);
    net_run(&net, 30);
    directory_cancel(c);
    settle();
    settle();
    assert_int_equal(o.times, 0);
    store_memory_set_delay(nodes[1].client, 0);
    assert_true(person_come(p, 2)); /* by node 0, which says to whom it went */
    person_go(p);
    assert_true(person_come(p, 1));
}

/* ---- a store that is away ---- */

static void test_asked_by_the_mesh(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    store_memory_set_away(memory, true);
    settle();
    person_joins(p, "r");
    person_go(p);
    assert_true(person_come(p, 1));
    assert_int_equal(socket_of(p, 1)->n_places, 2); /* the namespace and the room */
    person_go(p);
    assert_true(person_come(p, 2));
    person_go(p);
    store_memory_set_away(memory, false);
    net_run(&net, 3000);
    assert_int_equal(owners(p), 1); /* where it was is not where it is */
    kill_node(2);
    assert_true(person_come(p, 0));
}

static void test_written_again(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    store_memory_lose(memory);
    store_memory_set_away(memory, true);
    settle();
    assert_int_equal(owners(p), 0);
    store_memory_set_away(memory, false);
    net_run(&net, 3000);
    assert_int_equal(owners(p), 1);
    store_memory_set_full(memory, true);
    person_joins(p, "r");
    store_memory_set_full(memory, false);
    net_run(&net, 3000);
    kill_node(0);
    person_loses_node(p);
    struct outcome o = claim(1, p->pid, 0);
    assert_int_equal(o.err, 0);
    assert_true(has_room(o.entry, "r"));
}

/* The store has the rooms of before: with them the client would miss what was said in the new one, and never know. */
static void test_old_words_in_the_store(void **state)
{
    (void)state;
    struct person *p = &people[0], *q = &people[1];
    person_come(p, 0);
    person_come(q, 0);
    store_memory_cut(nodes[0].client, true);
    settle();
    person_joins(p, "r");
    kill_node(0);
    person_loses_node(p);
    person_loses_node(q);
    net_run(&net, 2 * PEER_TIMEOUT_MS);
    assert_int_equal(owners(p), 1);
    assert_false(person_come(p, 1));
    assert_true(person_come(q, 1)); /* nothing has changed of this one */
}

static unsigned answers;

/* Node 0 does not learn who is at node 1, and gets its second answer only. */
static bool loses_first_answer(struct net *n, unsigned from, unsigned to, struct span message)
{
    enum mesh_kind kind = net_kind(message);
    (void)n;
    if (from != 1 || to != 0)
        return false;
    return kind == MESH_PRESENCE || (kind == MESH_TELL && answers++ == 0);
}

/* It was at node 0, then at node 1, where it joined a room; node 0 has not heard of that. Node 1 gave it back, and the
 * answer was lost. */
static void test_what_was_given_back_got_lost(void **state)
{
    (void)state;
    struct person *old = &people[0], *p = &people[1], *again = &people[2];
    person_come(old, 0);
    *p = *old;
    p->is_open = false;
    net_cut(&net, 1, 0, true);
    net_run(&net, 2 * PEER_TIMEOUT_MS);
    answers = 0;
    net.loses = loses_first_answer;
    net_cut(&net, 1, 0, false);
    net_run(&net, PEER_TIMEOUT_MS);
    assert_true(person_come(p, 1));
    store_memory_set_away(memory, true);
    settle();
    person_joins(old, "a"); /* nobody is at this connection any more */
    person_joins(old, "b");
    person_joins(p, "new");
    person_go(p);
    settle();
    *again = *p;
    assert_false(person_come(p, 0));
    assert_int_equal(answers, 2);
    net.loses = NULL;
    assert_false(person_come(again, 2)); /* nor by another one, that asks both */
}

static void test_old_words_while_the_owner_lives(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    store_memory_set_full(memory, true);
    person_joins(p, "r");
    person_go(p);
    assert_true(person_come(p, 1));
    say_to(2, "r", 1);
    all_hear();
    assert_string_equal(p->log, "\"news\",1;");
    store_memory_set_full(memory, false);
    net_run(&net, 3000); /* now it is written */
    person_go(p);
    kill_node(1);
    assert_true(person_come(p, 2));
    say_to(2, "r", 2);
    all_hear();
    assert_string_equal(p->log, "\"news\",1;\"news\",2;");
}

/* ---- who is right ---- */

static void test_higher_epoch_and_tag(void **state)
{
    (void)state;
    struct person *p = &people[0];
    uint32_t tag = nodes[0].self.tag;
    person_come(p, 0);
    char sid[ID_CHARS];
    memcpy(sid, p->sid, ID_CHARS);
    assert_true(enters(0, "AAAAAAAAAAAAAAAAAAAA", 1, tag - 1)); /* of no concern */
    assert_false(enters(0, sid, 0, tag + 1));
    assert_false(enters(0, sid, 1, tag - 1));
    settle();
    assert_int_equal(p->k.closes, 0);
    assert_true(enters(0, sid, 1, tag + 1));
    settle();
    assert_int_equal(p->k.closes, 1);
    assert_int_equal(p->k.reason, CLOSE_TAKEN);
    assert_null(socket_of(p, 0));
    assert_int_equal(directory_absent(nodes[0].directory),
                     1); /* both have it from before: if its client was here … */
    assert_false(enters(0, sid, 1, tag - 1));
    assert_true(enters(0, sid, 3, tag - 1));
    assert_int_equal(directory_absent(nodes[0].directory), 0);
}

/* The store says that it is another's: then so it is. */
static void test_refused_by_the_store(void **state)
{
    (void)state;
    struct person *p = &people[0];
    person_come(p, 0);
    net_cut(&net, 1, 0, true);
    assert_int_equal(claim(1, p->pid, 0).err, 0);
    sink_says(&p->k, "21[\"bus:join\",\"r\"]");
    settle();
    assert_int_equal(p->k.closes, 1);
    assert_int_equal(p->k.reason, CLOSE_TAKEN);
    assert_int_equal(owners(p), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_written_before_it_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gone_for_good, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_window_is_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_here_several_times_then_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_here_may_be_old, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_is_here_after_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_knows_where_it_was_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_has_heard_nothing_from_here, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_was_taken_for_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_was_here_all_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_second_claim_has_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_taken_from_who_holds_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancelled_in_the_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_asked_by_the_mesh, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_written_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_words_in_the_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_given_back_got_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_words_while_the_owner_lives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_higher_epoch_and_tag, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_by_the_store, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
