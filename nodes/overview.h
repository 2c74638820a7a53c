/* The cluster on a terminal: the nodes and the machines of the dashboard's first two views, from the same two answers of a
 * node's API. Pure functions but for what they print. */
#ifndef STARLING_OVERVIEW_H
#define STARLING_OVERVIEW_H

#include <stdio.h>

/* nodes, machines: bodies of GET /api/v1/nodes and GET /api/v1/machines, which end with NUL; what is no such body is left
 * out, and so is what is NULL. */
void overview_print(FILE *out, const char *nodes, const char *machines);

#endif
