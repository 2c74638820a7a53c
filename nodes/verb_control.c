#include "control.h"
#include "verb.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    STOP_TIMEOUT_MS = 30000,
    CHANGE_TIMEOUT_MS = 30000,
    KILL_AFTER_MS = 1600,
    REDIS_KILL_AFTER_MS = 10000,
    AGENT = RUNDIR_NODES_MAX, /* in the place of an index */
    REDIS,
};

static bool in_state(const struct rundir_node *node, const char *name)
{
    return strcmp(node->process.state, name) == 0;
}

static bool is_draining(const struct rundir_state *state)
{
    for (uint32_t i = 0; i < state->nodes_n; i++) {
        if (in_state(&state->nodes[i], "draining"))
            return true;
    }
    return state->old.process.pid > 0;
}

/* Whether what was asked for is done: 1, 0 or, for never, -1. */
typedef int is_done(const struct rundir_state *now, const struct rundir_state *before, unsigned number);

static int wait_until(const char *verb, const struct rundir *dir, is_done *done,
                      const struct rundir_state *before, unsigned number)
{
    uint64_t deadline_ms = verb_now_ms() + CHANGE_TIMEOUT_MS;
    struct rundir_state state;

    for (;;) {
        int rc;
        if (verb_ask_state(verb, dir, &state) != 0)
            return 1;
        rc = done(&state, before, number);
        if (rc == 1)
            return 0;
        if (is_draining(&state)) /* as long as it has clients */
            deadline_ms = verb_now_ms() + CHANGE_TIMEOUT_MS;
        if (rc < 0 || verb_now_ms() > deadline_ms) {
            fprintf(stderr, "starling %s: %s; see starling ps and the messages of `starling up`\n", verb,
                    rc < 0 ? "a node does not come up" : "it is not done yet");
            return 1;
        }
        verb_sleep_ms(50);
    }
}

/* The supervisor does what it is asked for in its own time. */
static int change(const char *verb, const struct rundir *dir, const char *request, is_done *done,
                  unsigned number)
{
    struct rundir_state before;

    if (verb_ask_state(verb, dir, &before) != 0 || verb_order(verb, dir, request) != 0)
        return 1;
    return wait_until(verb, dir, done, &before, number);
}

static const struct process_record *process_at(const struct rundir_state *state, unsigned index)
{
    if (index == AGENT)
        return &state->agent;
    if (index == REDIS)
        return &state->redis;
    return index < state->nodes_n ? &state->nodes[index].process : NULL;
}

static int restarted(const struct rundir_state *now, const struct rundir_state *before, unsigned index)
{
    const struct process_record *process = process_at(now, index), *old = process_at(before, index);

    if (!process || !old || strcmp(process->state, "errored") == 0)
        return -1;
    return process->restarts != old->restarts && strcmp(process->state, "ready") == 0;
}

static bool parse_process(const char *text, unsigned *index)
{
    *index = strcmp(text, "agent") == 0 ? AGENT : strcmp(text, "redis") == 0 ? REDIS : 0;
    return *index > 0 || verb_parse_number(text, RUNDIR_NODES_MAX - 1, index);
}

int verb_restart(int argc, char **argv)
{
    struct verb_options o;
    struct rundir dir;
    pid_t supervisor;
    unsigned index;
    char request[CONTROL_REQUEST_BYTES];
    int rc = verb_find(argc, argv, " --run-dir ", 1, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (o.arguments_n != 1 || !parse_process(o.arguments[0], &index))
        return verb_usage("restart", "takes the index of a node, from 0 to 98, or agent or redis", "");
    if (index < AGENT)
        snprintf(request, sizeof request, "restart %u", index);
    else
        snprintf(request, sizeof request, "restart %s", o.arguments[0]);
    return change("restart", &dir, request, restarted, index);
}

static int scaled(const struct rundir_state *now, const struct rundir_state *before, unsigned wanted)
{
    bool all_ready = now->nodes_n == wanted;

    for (uint32_t i = before->nodes_n; i < now->nodes_n; i++) {
        if (in_state(&now->nodes[i], "errored"))
            return -1;
        all_ready = all_ready && in_state(&now->nodes[i], "ready");
    }
    return all_ready;
}

int verb_scale(int argc, char **argv)
{
    struct verb_options o;
    struct rundir dir;
    pid_t supervisor;
    unsigned wanted;
    char request[CONTROL_REQUEST_BYTES];
    int rc = verb_find(argc, argv, " --run-dir ", 1, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (o.arguments_n != 1 || !verb_parse_number(o.arguments[0], RUNDIR_NODES_MAX, &wanted) || wanted == 0)
        return verb_usage("scale", "takes the number of nodes, from 1 to 99", "");
    snprintf(request, sizeof request, "scale %u", wanted);
    return change("scale", &dir, request, scaled, wanted);
}

static int reloaded(const struct rundir_state *now, const struct rundir_state *before, unsigned unused)
{
    (void)before;
    (void)unused;
    return !now->reloading;
}

/* Node by node: how long that takes depends on how many clients each has, so there is no time for the whole. */
int verb_reload(int argc, char **argv)
{
    struct verb_options o;
    struct rundir dir;
    struct rundir_state state;
    pid_t supervisor;
    int rc = verb_find(argc, argv, " --run-dir ", 0, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (change("reload", &dir, "reload", reloaded, 0) != 0 || verb_ask_state("reload", &dir, &state) != 0)
        return 1;
    if (!state.reload_error[0])
        return 0;
    fprintf(stderr, "starling reload: %s; see starling logs\n", state.reload_error);
    return 1;
}

/* What a supervisor that was killed has left. */
typedef unsigned find_orphans(const struct rundir *dir, pid_t *pids);

static void signal_all(const struct rundir *dir, find_orphans *find, int number)
{
    pid_t pids[RUNDIR_PIDS_MAX];

    for (unsigned n = find(dir, pids); n > 0; n--)
        kill(pids[n - 1], number);
}

static int end_all(const struct rundir *dir, find_orphans *find, unsigned patience_ms)
{
    static const int signals[] = {SIGTERM, SIGKILL};
    pid_t pids[RUNDIR_PIDS_MAX];

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        uint64_t deadline_ms = verb_now_ms() + patience_ms;
        signal_all(dir, find, signals[i]);
        while (verb_now_ms() < deadline_ms) {
            if (find(dir, pids) == 0)
                return 0;
            verb_sleep_ms(20);
        }
    }
    fprintf(stderr, "starling stop: pid %d is still there\n", (int)pids[0]);
    return 1;
}

/* The nodes first: what they have to write goes to the redis-server. */
static int stop_orphans(struct rundir *dir)
{
    pid_t pids[RUNDIR_PIDS_MAX];

    if (rundir_orphans(dir, pids) + rundir_orphan_agent(dir, pids) + rundir_orphan_redis(dir, pids) == 0)
        return verb_not_running("stop", dir);
    if (end_all(dir, rundir_orphans, KILL_AFTER_MS) != 0 ||
        end_all(dir, rundir_orphan_agent, KILL_AFTER_MS) != 0 ||
        end_all(dir, rundir_orphan_redis, REDIS_KILL_AFTER_MS) != 0)
        return 1;
    rundir_clean(dir);
    return 0;
}

int verb_stop(int argc, char **argv)
{
    char text[RUNDIR_TEXT_BYTES];
    struct verb_options o;
    struct rundir dir;
    uint64_t deadline_ms = verb_now_ms() + STOP_TIMEOUT_MS;
    pid_t pid;
    int rc = verb_find(argc, argv, " --run-dir ", 0, &o, &dir, &pid);

    if (rc != 0)
        return rc;
    if (pid <= 0)
        return stop_orphans(&dir);
    if (control_ask(&dir, "stop", text) != 0 && kill(pid, SIGTERM) != 0) {
        fprintf(stderr, "starling stop: cannot end pid %d: %s\n", (int)pid, strerror(errno));
        return 1;
    }
    while (rundir_holder(&dir) == pid) {
        if (verb_now_ms() > deadline_ms) {
            fprintf(stderr,
                    "starling stop: pid %d is still there after %d s; after a kill -9 of it another starling "
                    "stop "
                    "ends what it has left\n",
                    (int)pid, STOP_TIMEOUT_MS / 1000);
            return 1;
        }
        verb_sleep_ms(20);
    }
    return 0;
}
