/* The gateway: agents of this node, as proto/agent.md has it, and what nodes tell each other of theirs
 * (proto/gateway.md). It handles what clients send and decides who may connect, where agents have said so. What carries
 * the messages (agents_zmq.c) hangs below as a link. Reactor's thread only.
 *
 * An agent's messages come in at agents_receive(); each record is a request that is answered at once or becomes a
 * struct request (agents_requests.c). What the node asks of an agent is a call: at its home, where the client or the
 * asking agent is, a struct call (agents_calls.c); at the agent's node a struct task (agents_tasks.c); the two are often
 * the same node. Who may be asked is a struct member, of whichever node (agents_members.c). */
#ifndef STARLING_AGENTS_H
#define STARLING_AGENTS_H

#include "collect.h"
#include "hub.h"
#include "machines.h"
#include "mesh.h"

struct agents;

/* What carries messages. identity: what the link gave with the first message of a connection. */
struct agents_link {
    /* 0; ERR_BUSY: not now; ERR_NOT_FOUND: the connection is gone. */
    int (*send)(void *link, struct span identity, struct span message);
    void *link;
};

enum { AGENTS_ENDPOINTS = 4 };

struct agents_options {
    struct mesh_origin self;
    struct span name, cluster, host; /* borrowed */
    unsigned n_endpoints;            /* where agents find this node */
    struct span endpoint[AGENTS_ENDPOINTS];
    uint64_t window_ms; /* for which keys are remembered, and emits kept */
    uint64_t peer_timeout_ms;
};

/* NULL without memory. hub->cluster and hub->collects are set before, or stay NULL. */
struct agents *agents_new(struct reactor *r, struct hub *h, struct metrics *m, const struct agents_options *o,
                          const struct agents_link *link);
/* Before the hub and the cluster. */
void agents_free(struct agents **a);

/* For hub->handler. */
struct hub_handler agents_handler(struct agents *a);

/* The node is ready: agents are welcome. */
void agents_start(struct agents *a);
/* The node is about to end: agents are told to go elsewhere, and new ones are sent away. */
void agents_drain(struct agents *a);

/* From the link: one frame. identity: up to 255 bytes. */
void agents_receive(struct agents *a, struct span identity, struct span message);

struct machines *agents_machines(const struct agents *a);
/* on_machine is told of everything that an agent here says of a machine, once it is taken; NULL: nobody is. */
void agents_watch_machines(struct agents *a, void (*on_machine)(void *user, struct span message), void *user);

#endif
