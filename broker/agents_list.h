/* Agents of this node, to be shown: what they have registered, and how their calls go. Reactor's thread only; rows borrow
 * from the agent, and live until something changes. */
#ifndef STARLING_AGENTS_LIST_H
#define STARLING_AGENTS_LIST_H

#include "agents.h"
#include "span.h"
#include <stdbool.h>

struct agent;
struct reg;

/* after NULL: the first one. NULL: there is none behind it. */
struct agent *agents_next(const struct agents *g, const struct agent *after);

struct agent_row {
    struct span name, instance, about;
    uint64_t connected_ms, silent_ms; /* since then */
    unsigned handlers, actors, subscriptions, watches;
    uint64_t calls, answered, failed, timed_out; /* since it is connected */
    uint32_t calls_per_s;
    uint64_t p50_us, p99_us;      /* of the last minute's answers; 0: none */
    unsigned unanswered, waiting; /* calls it has or that wait for it; of them those that wait */
    uint64_t credit_bytes;        /* that it would still take */
    unsigned behind;              /* subscriptions that do not keep up */
};
void agent_describe(struct agent *a, struct agent_row *row);

const struct reg *agent_next_reg(const struct agent *a, const struct reg *after);

struct reg_row {
    const char *kind; /* handle, register, subscribe, watch */
    struct span name; /* a handler's group, an actor's or watched address; empty for a subscription */
    unsigned n_namespaces, n_events, n_rooms;
    const struct span *namespaces, *events, *rooms;
    unsigned life;              /* enum agent_life */
    uint64_t limit, unanswered; /* limit 0: none */
};
void reg_describe(const struct reg *reg, struct reg_row *row);

#endif
