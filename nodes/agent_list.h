/* What a node answers of its own agents when somebody asks: its part of a survey, as lists.h has it for sessions.
 * Reactor's thread only. */
#ifndef STARLING_AGENT_LIST_H
#define STARLING_AGENT_LIST_H

#include "agents_list.h"
#include "lists.h"

/* Empty: any. */
struct agent_question {
    struct span q, group, instance, after;
    bool by_calls; /* the busiest first; else by name */
    unsigned limit;
};

/* node: this one's name. Appends rows. 0 or ERR_MEMORY. */
int agent_list_ask(const struct agents *g, struct span node, const struct agent_question *q,
                   struct lists_answer *answer);

#endif
