/* One question to the sessions of all nodes: each answers with its first rows in the order of their keys, and whoever asked
 * puts the first of all together. A node that does not answer in time is named. Reactor's thread only. */
#ifndef STARLING_SURVEY_H
#define STARLING_SURVEY_H

#include "cluster.h"
#include "lists.h"

struct survey;
struct surveys;

/* cluster: NULL when this node is alone. NULL without memory. */
struct surveys *surveys_new(struct reactor *r, struct cluster *cluster, struct lists *lists);
/* All that are under way end with what they have. */
void surveys_stop(struct surveys *s);
/* The same. Before the cluster and the lists. */
void surveys_free(struct surveys **s);

/* A message of a node's counterpart. */
void surveys_take(struct surveys *s, struct mesh_origin from, struct span bytes);
void surveys_on_dead(struct surveys *s, struct mesh_origin from);

struct survey_result {
    uint64_t total;
    unsigned n, unanswered; /* nodes that did not answer */
    bool has_more;
    const struct lists_row *row;
};

/* question: a JSON object as lists.h has it. done is called once, now or later.
 * 0, ERR_LIMIT when too many are under way, ERR_MEMORY. */
int surveys_ask(struct surveys *s, struct span question, unsigned limit,
                void (*done)(void *user, const struct survey_result *result), void *user);

#endif
