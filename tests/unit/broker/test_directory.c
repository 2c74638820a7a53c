/* The directories of several nodes without a store. */
#include "directory.h"
#include "err.h"
#include "fakecluster.h"

static struct directory *directories[NODES];

static void on_taken(struct socket *s)
{
    (void)s;
    fail_msg("nobody has a socket here");
}

static int set_up_directories(void **state)
{
    set_up(state);
    for (unsigned i = 0; i < NODES; i++) {
        directories[i] = directory_new(nodes[i].w.reactor, nodes[i].w.hub,
                                       &(struct directory_options){
                                           .window_ms = 60000,
                                           .self = {0x10 + i, 1},
                                           .on_taken = on_taken,
                                       });
        assert_non_null(directories[i]);
        directory_use(directories[i], NULL, nodes[i].cluster);
    }
    return 0;
}

static int tear_down_directories(void **state)
{
    for (unsigned i = 0; i < NODES; i++)
        directory_free(&directories[i]);
    return tear_down(state);
}

/* What came of a claim. */
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

/* An entry of node 0 whose client has gone. */
static void put(struct span nsp, char pid[ID_CHARS])
{
    struct directory_entry *e = directory_open(directories[0], nsp, SPAN("{\"a\":1}"), SPAN("~1orJrCgsM"));
    assert_non_null(e);
    memcpy(pid, e->pid, ID_CHARS);
    directory_leave(e, true);
}

static struct outcome claim(unsigned node, const char pid[ID_CHARS])
{
    struct outcome o = {0};
    assert_non_null(directory_claim(directories[node], (struct span){pid, ID_CHARS}, 0x10, on_done, &o));
    for (unsigned i = 0; i < 20 && o.times == 0; i++)
        settle();
    assert_int_equal(o.times, 1);
    return o;
}

static void assert_has(const struct outcome *o, struct span nsp, uint64_t epoch)
{
    static struct entry known;
    assert_int_equal(o->err, 0);
    assert_int_equal(o->entry->state, ENTRY_ABSENT);
    assert_int_equal(o->entry->epoch, epoch);
    assert_int_equal(entry_read((struct span){o->entry->bytes, o->entry->bytes_n}, &known), 0);
    assert_int_equal(known.nsp.n, nsp.n);
    assert_memory_equal(known.nsp.p, nsp.p, nsp.n);
}

static void test_claims(void **state)
{
    (void)state;
    char pid[ID_CHARS];
    put(SPAN("/chat"), pid);
    struct outcome o = claim(1, pid);
    assert_has(&o, SPAN("/chat"), 2);
    o = claim(2, pid); /* asks node 0, which says where it is */
    assert_has(&o, SPAN("/chat"), 3);
    assert_int_equal(directory_absent(directories[0]) + directory_absent(directories[1]), 0);
    assert_int_equal(directory_absent(directories[2]), 1);
}

static void test_unknown(void **state)
{
    (void)state;
    struct outcome o = claim(1, "CgsMo1JXq0bUu8wRk2_V");
    assert_int_equal(o.err, ERR_NOT_FOUND);
}

/* Else it would be recovered as one of "/x". */
static void test_namespace_with_nul(void **state)
{
    (void)state;
    char pid[ID_CHARS];
    put(SPAN("/x\0y"), pid);
    struct outcome o = claim(1, pid);
    assert_has(&o, SPAN("/x\0y"), 2);
}

/* The one who has it lets go of it when it answers: it must not be lost when nobody waits for that any more. */
static void test_answer_that_nobody_waits_for(void **state)
{
    (void)state;
    char pid[ID_CHARS];
    struct outcome o = {0};
    put(SPAN("/chat"), pid);
    struct directory_claim *c =
        directory_claim(directories[1], (struct span){pid, ID_CHARS}, 0x10, on_done, &o);
    assert_non_null(c);
    world_turn(&nodes[1].w); /* it asks */
    directory_cancel(c);
    settle();
    assert_int_equal(o.times, 0);
    assert_int_equal(directory_absent(directories[0]), 0);
    assert_int_equal(directory_absent(directories[1]), 1);
    o = claim(2, pid);
    assert_has(&o, SPAN("/chat"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_claims, set_up_directories, tear_down_directories),
        cmocka_unit_test_setup_teardown(test_unknown, set_up_directories, tear_down_directories),
        cmocka_unit_test_setup_teardown(test_namespace_with_nul, set_up_directories, tear_down_directories),
        cmocka_unit_test_setup_teardown(test_answer_that_nobody_waits_for, set_up_directories,
                                        tear_down_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
