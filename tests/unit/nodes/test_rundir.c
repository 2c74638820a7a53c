#include "rundir.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct process_record largest = {.pid = INT32_MAX,
                                              .start_ticks = UINT64_MAX,
                                              .started_ms = UINT64_MAX,
                                              .generation = 1,
                                              .restarts = UINT32_MAX,
                                              .state = "restarting"};

/* As much as there can be. */
static void fill(struct rundir_state *state)
{
    memset(state, 0, sizeof *state);
    strcpy(state->bind, "255.255.255.255");
    state->port = state->nodes_n = RUNDIR_NODES_MAX;
    for (uint32_t i = 0; i < RUNDIR_NODES_MAX; i++)
        state->nodes[i] =
            (struct rundir_node){.process = largest, .core = i % 2 ? -1 : 1023, .port = UINT16_MAX};
    state->old = state->next = state->nodes[0];
    state->old_index = 98;
    state->next_index = 97;
    state->agent = state->redis = largest;
    memset(state->redis_url, '"', sizeof state->redis_url - 1);
    state->reloads = UINT32_MAX;
    state->reloading = true;
    memset(state->reload_error, '\\', sizeof state->reload_error - 1);
}

static void assert_same_process(const struct process_record *a, const struct process_record *b)
{
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->start_ticks, b->start_ticks);
    assert_int_equal(a->started_ms, b->started_ms);
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->restarts, b->restarts);
    assert_string_equal(a->state, b->state);
}

static void assert_same_node(const struct rundir_node *a, const struct rundir_node *b)
{
    assert_same_process(&a->process, &b->process);
    assert_int_equal(a->core, b->core);
    assert_int_equal(a->port, b->port);
}

static void the_largest_state_is_read_as_it_was_written(void **unused)
{
    static struct rundir_state state, again;
    static char text[RUNDIR_TEXT_BYTES];
    (void)unused;
    fill(&state);
    assert_in_range(rundir_format(&state, text), 1, RUNDIR_TEXT_BYTES - 1);
    assert_int_equal(rundir_parse(span_of(text), &again), 0);
    assert_string_equal(again.bind, state.bind);
    assert_int_equal(again.port, state.port);
    assert_int_equal(again.nodes_n, RUNDIR_NODES_MAX);
    for (uint32_t i = 0; i < RUNDIR_NODES_MAX; i++)
        assert_same_node(&again.nodes[i], &state.nodes[i]);
    assert_same_node(&again.old, &state.old);
    assert_same_node(&again.next, &state.next);
    assert_int_equal(again.old_index, 98);
    assert_int_equal(again.next_index, 97);
    assert_same_process(&again.agent, &state.agent);
    assert_same_process(&again.redis, &state.redis);
    assert_string_equal(again.redis_url, state.redis_url);
    assert_int_equal(again.reloads, UINT32_MAX);
    assert_true(again.reloading);
    assert_string_equal(again.reload_error, state.reload_error);
}

static void what_is_not_there_is_stopped(void **unused)
{
    static struct rundir_state state, again;
    static char text[RUNDIR_TEXT_BYTES];
    (void)unused;
    strcpy(state.agent.state, "stopped");
    strcpy(state.redis.state, "stopped");
    rundir_format(&state, text);
    assert_int_equal(rundir_parse(span_of(text), &again), 0);
    assert_string_equal(again.agent.state, "stopped");
    assert_string_equal(again.redis.state, "stopped");
    assert_int_equal(again.old.process.pid + again.next.process.pid + again.agent.pid + again.redis.pid, 0);
    assert_string_equal(again.redis_url, "");
}

/* A file that was cut off, or written by somebody else, names nobody. */
static void no_part_of_a_state_is_a_state(void **unused)
{
    static struct rundir_state state, again;
    static char text[RUNDIR_TEXT_BYTES];
    (void)unused;
    fill(&state);
    state.nodes_n = 2;
    size_t n = rundir_format(&state, text);
    for (size_t i = 0; i < n - 2; i++)
        assert_int_not_equal(rundir_parse((struct span){text, i}, &again), 0);
}

static void more_nodes_than_there_can_be_are_refused(void **unused)
{
    static struct rundir_state state, again;
    static char text[RUNDIR_TEXT_BYTES], more[2 * RUNDIR_TEXT_BYTES];
    (void)unused;
    fill(&state);
    rundir_format(&state, text);
    char *nodes = strstr(text, "\"nodes\":[") + strlen("\"nodes\":[");
    char *end = strchr(nodes, '}') + 1;
    snprintf(more, sizeof more, "%.*s%.*s,%s", (int)(nodes - text), text, (int)(end - nodes), nodes, nodes);
    assert_int_not_equal(rundir_parse(span_of(more), &again), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_state_is_read_as_it_was_written),
        cmocka_unit_test(what_is_not_there_is_stopped),
        cmocka_unit_test(no_part_of_a_state_is_a_state),
        cmocka_unit_test(more_nodes_than_there_can_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
