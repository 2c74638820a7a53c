/* For each node in turn:
 *
 *   next starts   under the node's index, with sockets of the mesh of its own
 *   next is ready it has taken the node's listening sockets (handover.c) and becomes the node; the old process drains
 *   old has ended on to the next node
 *
 * When next does not come up, nothing has changed, and the reload ends there. A node that is not ready by itself is
 * left out: whatever starts it again starts the new program. */
#include "supervisor_parts.h"
#include <stdio.h>

void reload_init(struct supervisor *s)
{
    process_init(&s->reload.next, &s->owner, "node");
    process_init(&s->reload.old, &s->owner, "node");
}

static void finish(struct supervisor *s)
{
    s->reload.active = false;
    supervisor_save(s);
}

void reload_abort(struct supervisor *s, const char *why)
{
    struct reload *r = &s->reload;

    if (!r->active)
        return;
    snprintf(r->error, sizeof r->error, "%s", why);
    process_handle(&r->next, PROCESS_STOP);
    finish(s);
}

static void start_next(struct supervisor *s)
{
    struct reload *r = &s->reload;
    const struct process *node = &s->nodes[r->index];

    r->phase = RELOAD_STARTING;
    supervisor_init_node(s, &r->next, r->index);
    r->next.is_trial = true;
    r->next.core = node->core;
    r->next.generation = !node->generation;
    r->next.restarts = node->restarts;
    process_start(&r->next);
    if (r->next.state == PROCESS_STOPPED)
        reload_abort(s, "the new process cannot be started");
}

static void replace(struct supervisor *s)
{
    struct reload *r = &s->reload;
    struct process *node = &s->nodes[r->index];

    r->phase = RELOAD_DRAINING;
    r->old = *node;
    *node = r->next;
    node->is_trial = false;
    process_init(&r->next, &s->owner, "node");
    process_handle(&r->old, PROCESS_DRAIN);
    supervisor_save(s);
}

static void check_next(struct supervisor *s)
{
    struct reload *r = &s->reload;
    char why[sizeof r->error];

    if (r->next.state == PROCESS_READY && s->nodes[r->index].state == PROCESS_READY)
        replace(s);
    else if (s->nodes[r->index].state != PROCESS_READY)
        reload_abort(s, "a node died meanwhile");
    else if (r->next.state == PROCESS_STOPPED) {
        snprintf(why, sizeof why, "the new process of node %u did not come up; the old one goes on",
                 r->index);
        reload_abort(s, why);
    }
}

/* The next node from index on that can be replaced. */
static void go_on(struct supervisor *s)
{
    struct reload *r = &s->reload;

    while (r->index < s->nodes_n && s->nodes[r->index].state != PROCESS_READY)
        r->index++;
    if (r->index < s->nodes_n)
        start_next(s);
    else
        finish(s);
}

void reload_step(struct supervisor *s)
{
    struct reload *r = &s->reload;

    if (!r->active)
        return;
    if (r->phase == RELOAD_STARTING) {
        check_next(s);
    } else if (!process_is_in_use(&r->old)) {
        r->index++;
        go_on(s);
    }
}

const char *reload_obstacle(const struct supervisor *s)
{
    const struct reload *r = &s->reload;

    if (r->active || process_is_in_use(&r->next) || process_is_in_use(&r->old))
        return "a reload is under way";
    return supervisor_count(s, PROCESS_READY) == 0 ? "no node is ready" : NULL;
}

void reload_begin(struct supervisor *s)
{
    struct reload *r = &s->reload;

    r->active = true;
    r->count++;
    r->index = 0;
    r->error[0] = '\0';
    go_on(s);
    supervisor_save(s);
}
