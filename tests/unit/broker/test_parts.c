/* What the parts of nodes tell their counterparts on the other nodes: keys, notes and words to one. */
#include "err.h"
#include "fakecluster.h"

enum { TEXT = 200 };

/* What the agents' part of each node knows of the others, and the last it was told. */
static struct part {
    char key[NODES][3][TEXT]; /* of each origin: keys "0" to "2" */
    char message[TEXT];
    unsigned voids, messages, dead;
    uint64_t received;
} parts[NODES];

static void copy(char to[TEXT], struct span text)
{
    assert_true(text.n < TEXT);
    memcpy(to, text.p, text.n);
    to[text.n] = '\0';
}

static void part_on_set(void *user, struct mesh_origin from, struct span key, struct span value)
{
    struct part *part = user;
    assert_true(key.n == 1 && key.p[0] >= '0' && key.p[0] <= '2');
    copy(part->key[from.tag - 0x10][key.p[0] - '0'], value);
}

static void part_on_void(void *user, struct mesh_origin from)
{
    struct part *part = user;
    memset(part->key[from.tag - 0x10], 0, sizeof(part->key[0]));
    part->voids++;
}

static void part_on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct part *part = user;
    char text[TEXT];
    copy(text, bytes);
    snprintf(part->message, TEXT, "%x %.150s", from.tag, text);
    part->messages++;
}

static void part_on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    struct part *part = user;
    part->dead = from.tag;
    part->received = received;
}

static void listen_at(unsigned i)
{
    memset(&parts[i], 0, sizeof(parts[i]));
    cluster_listen(nodes[i].cluster, MESH_TOPIC_AGENTS,
                   &(struct cluster_part){.user = &parts[i],
                                          .on_set = part_on_set,
                                          .on_void = part_on_void,
                                          .on_message = part_on_message,
                                          .on_dead = part_on_dead});
}

static void listen_all(void)
{
    for (unsigned i = 0; i < NODES; i++)
        listen_at(i);
}

static void set(unsigned i, const char *key, const char *value)
{
    assert_int_equal(cluster_set(nodes[i].cluster, MESH_TOPIC_AGENTS, span_of(key), span_of(value)), 0);
}

static void a_key_is_known_on_all_other_nodes(void **state)
{
    (void)state;
    listen_all();
    set(0, "1", "a");
    set(0, "2", "b");
    set(0, "1", "c");
    set(1, "1", "d");
    settle();
    for (unsigned i = 1; i < NODES; i++) {
        assert_string_equal(parts[i].key[0][1], "c");
        assert_string_equal(parts[i].key[0][2], "b");
    }
    assert_string_equal(parts[2].key[1][1], "d");
    assert_string_equal(parts[0].key[0][1], ""); /* its own are not told to itself */
    set(0, "1", "");
    set(0, "0", ""); /* never set */
    settle();
    assert_string_equal(parts[2].key[0][1], "");
    assert_string_equal(parts[2].key[0][2], "b");
}

static void a_late_node_knows_the_keys(void **state)
{
    (void)state;
    listen_all();
    stop_node(2);
    set(0, "0", "a");
    set(0, "1", "b");
    set(0, "1", "c");
    set(0, "2", "d");
    set(0, "2", "");
    net_run(&net, 500);
    assert_int_equal(parts[0].dead, 0x12);
    assert_true(parts[0].received > 0);
    start_node(2, 2);
    listen_at(2);
    assert_true(net_until(&net, all_are_ready, NULL));
    assert_string_equal(parts[2].key[0][0], "a");
    assert_string_equal(parts[2].key[0][1], "c");
    assert_string_equal(parts[2].key[0][2], "");
}

static void the_keys_of_the_dead_are_void(void **state)
{
    (void)state;
    listen_all();
    set(1, "0", "a");
    settle();
    unsigned voids = parts[0].voids;
    net_cut(&net, 1, 0, true);
    net_cut(&net, 1, 2, true);
    net_run(&net, 500);
    assert_string_equal(parts[0].key[1][0], "");
    assert_int_equal(parts[0].voids, voids + 1);
    net_cut(&net, 1, 0, false);
    net_cut(&net, 1, 2, false);
    net_run(&net, 500);
    assert_string_equal(parts[0].key[1][0], "a");
    assert_string_equal(parts[2].key[1][0], "a");
}

static void a_note_comes_to_all_and_a_word_to_one(void **state)
{
    (void)state;
    listen_all();
    cluster_note(nodes[0].cluster, MESH_TOPIC_AGENTS, SPAN("to all"));
    settle();
    assert_string_equal(parts[1].message, "10 to all");
    assert_string_equal(parts[2].message, "10 to all");
    assert_int_equal(parts[0].messages, 0);
    for (unsigned k = 0; k < 3; k++)
        assert_int_equal(
            cluster_tell(nodes[2].cluster, (struct mesh_origin){0x10, 1}, MESH_TOPIC_AGENTS, SPAN("to one")),
            0);
    settle();
    assert_string_equal(parts[0].message, "12 to one");
    assert_int_equal(parts[0].messages, 3);
    assert_int_equal(parts[1].messages, 1);
    /* Of what is lost no second word comes. */
    net_cut(&net, 0, 1, true);
    cluster_note(nodes[0].cluster, MESH_TOPIC_AGENTS, SPAN("lost"));
    settle();
    net_cut(&net, 0, 1, false);
    net_run(&net, 1000);
    assert_int_equal(parts[1].messages, 1);
    assert_int_equal(parts[2].messages, 2);
}

static void nobody_can_be_told_who_does_not_live(void **state)
{
    (void)state;
    struct mesh_origin gone = {0x11, 1}, never = {0x11, 9}, self = {0x10, 1};
    stop_node(1);
    net_run(&net, 500);
    assert_int_equal(cluster_tell(nodes[0].cluster, gone, MESH_TOPIC_AGENTS, SPAN("x")), ERR_NOT_FOUND);
    assert_int_equal(cluster_tell(nodes[0].cluster, never, MESH_TOPIC_AGENTS, SPAN("x")), ERR_NOT_FOUND);
    assert_int_equal(cluster_tell(nodes[0].cluster, self, MESH_TOPIC_AGENTS, SPAN("x")), ERR_NOT_FOUND);
}

static void what_is_for_a_part_that_is_not_there_is_passed_over(void **state)
{
    (void)state;
    listen_all();
    memset(&record, 0, sizeof(record));
    record.message = (struct mesh_message){.topic = 999, .key = SPAN("1"), .bytes = SPAN("x")};
    record.kind = MESH_NOTE;
    forge(&record);
    record.kind = MESH_TELL;
    forge(&record);
    record.kind = MESH_SET;
    record.seq = peers_newest(nodes[0].peers) + 1;
    forge(&record);
    record.message.topic = MESH_TOPIC_STATUS;
    record.seq++;
    forge(&record);
    assert_int_equal(parts[1].messages, 0);
    assert_string_equal(parts[1].key[0][1], "");
    record.message.topic = MESH_TOPIC_AGENTS; /* the numbers count on */
    record.seq++;
    forge(&record);
    assert_string_equal(parts[1].key[0][1], "x");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_key_is_known_on_all_other_nodes),    TEST(a_late_node_knows_the_keys),
        TEST(the_keys_of_the_dead_are_void),        TEST(a_note_comes_to_all_and_a_word_to_one),
        TEST(nobody_can_be_told_who_does_not_live), TEST(what_is_for_a_part_that_is_not_there_is_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
