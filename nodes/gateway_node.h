/* Agents of a node, put together: the gateway and its ROUTER socket. Reactor's thread only. Every function takes NULL,
 * too: a node that serves no agents. */
#ifndef STARLING_GATEWAY_NODE_H
#define STARLING_GATEWAY_NODE_H

#include "agents.h"
#include "config.h"

struct gateway_node;

struct gateway_node_parts {
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    const struct config *config; /* borrowed */
    struct mesh_origin self;
    struct span host; /* borrowed */
};

/* After the cluster and the recovery. The hub's handler is the gateway from then on. */
struct gateway_node *gateway_node_new(const struct gateway_node_parts *parts);
/* After the engine, before the cluster. */
void gateway_node_free(struct gateway_node **g);
void gateway_node_start(struct gateway_node *g);
void gateway_node_drain(struct gateway_node *g);
struct agents *gateway_node_agents(const struct gateway_node *g);

#endif
