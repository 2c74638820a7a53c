/* Every node knows every machine, whichever node its agent talks to: what a machine says of itself goes on to the other
 * nodes, its description as a key that newcomers get, too, its ticks as notes; and into the store. Reactor's thread
 * only. */
#ifndef STARLING_MACHINE_SHARE_H
#define STARLING_MACHINE_SHARE_H

#include "agents.h"
#include "cluster.h"
#include "machines.h"
#include "persist.h"

struct machine_share;

/* Borrows all; persist may be NULL. NULL without memory. */
struct machine_share *machine_share_new(struct reactor *r, struct cluster *cluster, struct agents *agents,
                                        struct persist *persist);
/* Before the agents, the cluster and persist. */
void machine_share_free(struct machine_share **s);

#endif
