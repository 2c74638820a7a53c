/* The link of the peers over ZeroMQ: one PUB for all, one SUB for all that others publish, one ROUTER for what is meant
 * for this node alone, a DEALER for each peer. libzmq's I/O thread does the rest. Reactor's thread only. */
#ifndef STARLING_PEERS_ZMQ_H
#define STARLING_PEERS_ZMQ_H

#include "peers.h"

struct peers_zmq;

struct peers_zmq_options {
    /* Where to bind; several with commas between them. */
    const char *pub, *router;
    uint64_t queue_bytes; /* that may wait for one peer */
};

/* NULL when a socket cannot be had or bound (a log line says which). */
struct peers_zmq *peers_zmq_new(struct reactor *r, const struct peers_zmq_options *o);
void peers_zmq_free(struct peers_zmq **z);

struct peers_link peers_zmq_link(struct peers_zmq *z);
/* Begins to hand messages to the peers. */
int peers_zmq_start(struct peers_zmq *z, struct peers *peers);

#endif
