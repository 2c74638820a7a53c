/* What a supervisor that was killed left running: nodes that go on serving, and their redis-server. The next one with
 * the same run directory finds them by pid and start time, and looks after them as if they were its own. */
#include "supervisor_parts.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int refuse(const struct supervisor *s, const struct rundir_state *state)
{
    fprintf(stderr,
            "starling up: nodes of a supervisor that is gone still run with the run directory %s on %s port "
            "%" PRIu32 "; the same --bind and --port take them over, `starling stop` ends them\n",
            s->dir.path, state->bind, state->port);
    return 1;
}

static void adopt_nodes(struct supervisor *s, const struct rundir_state *state)
{
    /* Those that have died meanwhile are started when the others are. */
    s->nodes_n = state->nodes_n;
    for (unsigned i = 0; i < state->nodes_n; i++) {
        supervisor_init_node(s, &s->nodes[i], i);
        s->nodes[i].generation = state->nodes[i].process.generation;
        if (process_adopt(&s->nodes[i], &state->nodes[i].process))
            s->nodes[i].core = state->nodes[i].core;
    }
    supervisor_init_node(s, &s->reload.old, state->old_index);
    if (process_adopt(&s->reload.old, &state->old.process))
        process_handle(&s->reload.old, PROCESS_DRAIN);
    /* The reload has ended with its supervisor; the node that was to be replaced goes on. */
    supervisor_init_node(s, &s->reload.next, state->next_index);
    if (process_adopt(&s->reload.next, &state->next.process))
        process_handle(&s->reload.next, PROCESS_DRAIN);
    /* A configuration that does not say how many leaves them as many as they are. */
    if (!s->config.source[CONFIG_OPTION_nodes])
        s->config.nodes = state->nodes_n;
}

static int check_ports(const struct supervisor *s)
{
    char problem[256];
    bool bad = s->nodes_n == 0 && ports_find_bad_public(s, problem, sizeof problem);

    for (unsigned i = 0; i < s->config.nodes && !bad; i++) {
        if (i >= s->nodes_n || s->nodes[i].pid <= 0)
            bad = ports_find_bad(s, i, problem, sizeof problem);
    }
    if (bad)
        fprintf(stderr, "starling up: %s; --port takes another one\n", problem);
    return bad;
}

int takeover_run(struct supervisor *s)
{
    struct rundir_state state;
    pid_t pids[RUNDIR_PIDS_MAX], pid;
    unsigned nodes = rundir_orphans(&s->dir, pids);
    unsigned others = rundir_orphan_redis(&s->dir, &pid) + rundir_orphan_agent(&s->dir, &pid);

    if (nodes + others == 0 || rundir_load(&s->dir, &state) != 0)
        return check_ports(s);
    if (nodes > 0 && (strcmp(state.bind, s->config.bind) != 0 || state.port != s->config.port))
        return refuse(s, &state);
    if (redis_server_adopt(&s->redis, &state.redis))
        fprintf(stderr, "redis: pid %d is taken over\n", (int)s->redis.process.pid);
    if (monitor_adopt(&s->monitor, &state.agent))
        fprintf(stderr, "agent: pid %d is taken over\n", (int)s->monitor.process.pid);
    if (nodes > 0)
        adopt_nodes(s, &state);
    s->reload.count = state.reloads;
    for (unsigned i = 0; i < s->nodes_n; i++) {
        if (s->nodes[i].pid > 0)
            fprintf(stderr, "node %u: pid %d is taken over\n", i, (int)s->nodes[i].pid);
    }
    return check_ports(s);
}
