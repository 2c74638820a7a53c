/* A node from its options to its end: what starling-node and the test programs share. */
#ifndef STARLING_NODE_H
#define STARLING_NODE_H

#include "config.h"
#include "engine.h"
#include "hub.h"

/* What hangs on the engine instead of Socket.IO and the bus; or a handler of events beside them. */
struct node_parts {
    const struct engine_app *app; /* NULL: Socket.IO */
    struct hub_handler handler;
};

/* Runs until SIGTERM or SIGINT. SIGUSR1 drains it first: no new clients, those that are here are sent off at
 * --drain-rate, then the end. parts may be NULL. The exit code of the program. */
int node_run(const struct config *config, struct node_parts *parts);

#endif
