/* What the other verbs ask the supervisor for. Each order gives NULL, or why it is not done (in problem, or lasting). */
#include "supervisor_parts.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *orders_stop(struct supervisor *s)
{
    s->stopping = true;
    notify_say(&s->notify, "STOPPING=1\nSTATUS=stopping");
    reload_abort(s, "the bus is stopped");
    for (unsigned i = 0; i < s->nodes_n; i++)
        process_handle(&s->nodes[i], PROCESS_STOP);
    process_handle(&s->reload.next, PROCESS_STOP);
    process_handle(&s->reload.old, PROCESS_STOP);
    process_handle(&s->monitor.process, PROCESS_STOP);
    return NULL;
}

static const char *restart(struct supervisor *s, unsigned index, char *problem, size_t size)
{
    if (index >= s->nodes_n) {
        snprintf(problem, size, "there is no node %u: the last one is %u", index, s->nodes_n - 1);
        return problem;
    }
    if (process_is_leaving(&s->nodes[index]))
        return "the node is being stopped";
    if (s->reload.active)
        return "a reload is under way";
    process_handle(&s->nodes[index], PROCESS_RESTART);
    return NULL;
}

static const char *restart_other(struct process *p, const char *without)
{
    if (p->state == PROCESS_STOPPED)
        return without;
    if (process_is_leaving(p))
        return "it is being stopped";
    process_handle(p, PROCESS_RESTART);
    return NULL;
}

/* Nodes that are there already hear of a new one from itself. */
static const char *scale(struct supervisor *s, unsigned wanted, char *problem, size_t size)
{
    if (wanted < 1 || wanted > NODES_MAX)
        return "the number of nodes is from 1 to 99";
    if (!s->nodes_begun)
        return "the bus is still being started";
    if (s->reload.active)
        return "a reload is under way";
    for (unsigned i = 0; i < s->nodes_n; i++) {
        if (process_is_leaving(&s->nodes[i]))
            return "a node is still being stopped";
    }
    if (ports_highest(s, wanted) > UINT16_MAX)
        return "there are not enough ports above that of the bus";
    for (unsigned i = s->nodes_n; i < wanted; i++) {
        if (ports_find_bad(s, i, problem, size))
            return problem;
    }
    for (unsigned i = s->nodes_n; i > wanted; i--)
        process_handle(&s->nodes[i - 1], PROCESS_DRAIN);
    while (s->nodes_n < wanted)
        supervisor_add_node(s);
    return NULL;
}

/* The file may say something else by now. How many nodes there are is for `scale` to say. */
static const char *read_config_again(struct supervisor *s, char *problem, size_t size)
{
    struct config fresh;
    const char *key = NULL;
    char **shared = NULL;
    bool good = supervisor_read_config(s, &fresh) == 0;

    if (good) {
        fresh.nodes = s->config.nodes;
        key = config_find_fixed(&s->config, &fresh, CONFIG_UP);
        shared = key ? NULL : config_node_arguments(&fresh);
    }
    if (!shared) {
        config_free(&fresh);
        if (key)
            snprintf(problem, size, "%s of the configuration has changed, which takes a stop and a start",
                     key);
        else
            snprintf(problem, size, "the configuration is not taken; see the messages of `starling up`");
        return problem;
    }
    config_free(&s->config);
    s->config = fresh;
    supervisor_use_config(s, shared);
    return NULL;
}

static const char *reload(struct supervisor *s, char *problem, size_t size)
{
    const char *error = reload_obstacle(s);

    if (!s->nodes_begun || s->stopping)
        return s->stopping ? "the bus is being stopped" : "the bus is still being started";
    if (!error)
        error = read_config_again(s, problem, size);
    if (!error)
        reload_begin(s);
    return error;
}

/* Sentences of ours: nothing in them needs an escape. */
static void answer(struct supervisor *s, const char *error)
{
    char line[512];
    int n = error ? snprintf(line, sizeof line, "{\"ok\":false,\"error\":\"%s\"}\n", error)
                  : snprintf(line, sizeof line, "{\"ok\":true}\n");

    control_answer(&s->control, line, (size_t)n);
}

void orders_take(struct supervisor *s, const char *request)
{
    char text[RUNDIR_TEXT_BYTES], problem[256], rest;
    unsigned number;

    if (strcmp(request, "ps") == 0)
        control_answer(&s->control, text, supervisor_format(s, text));
    else if (strcmp(request, "stop") == 0)
        answer(s, orders_stop(s));
    else if (strcmp(request, "reload") == 0)
        answer(s, reload(s, problem, sizeof problem));
    else if (strcmp(request, "restart agent") == 0)
        answer(s, restart_other(&s->monitor.process, "this bus runs without --agent"));
    else if (strcmp(request, "restart redis") == 0)
        answer(s, restart_other(&s->redis.process, "this bus has no redis-server of its own"));
    else if (sscanf(request, "restart %3u%c", &number, &rest) == 1)
        answer(s, restart(s, number, problem, sizeof problem));
    else if (sscanf(request, "scale %3u%c", &number, &rest) == 1)
        answer(s, scale(s, number, problem, sizeof problem));
    else
        answer(s, "this is no command of this version");
}
