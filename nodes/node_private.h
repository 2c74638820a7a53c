/* A node's parts, for the files that run them: node.c from the start until it is ready, node_mesh.c for what hangs on the
 * mesh, node_stop.c for its end. The reactor's thread. */
#ifndef STARLING_NODE_PRIVATE_H
#define STARLING_NODE_PRIVATE_H

#include "cluster.h"
#include "drain.h"
#include "front.h"
#include "mesh.h"
#include "node.h"
#include "upkeep.h"
#include "web.h"

struct node {
    const struct config *config;
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct engine *engine;
    struct front *front;
    struct cluster *cluster;
    struct collects *collects;
    struct gateway_node *gateway;
    struct machine_share *machines;
    struct peers *peers;
    struct peers_zmq *zmq;
    struct persist *persist;
    struct relay *relay;
    struct pass *pass;
    struct handover *handover;
    struct drain drain;
    struct upkeep upkeep;
    struct mesh_origin self;
    struct web web;
    struct reactor_io signals;
    struct timer quiet, stop;
    int exit_code;
    char origin[96];
    char mesh_pub[MESH_ENDPOINT_BYTES * 2], mesh_router[MESH_ENDPOINT_BYTES * 2];
    char local_pub[MESH_ENDPOINT_BYTES * 2], local_router[MESH_ENDPOINT_BYTES * 2], host[MESH_NAME_BYTES];
};

/* node.c: the doors may open. user: the node. */
void node_on_mesh_ready(void *user);

/* node_mesh.c */
bool node_has_mesh(const struct config *config);
/* 0 or an error; needs hub, engine and front. */
int node_build_mesh(struct node *n);

/* node_stop.c: from then on signals are read in the loop, and stop or drain the node. 0 or ERR_SYSTEM. */
int node_watch_signals(struct node *n);

#endif
