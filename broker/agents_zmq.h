/* The link of the agents over ZeroMQ: one ROUTER socket. libzmq's I/O thread does the rest. Reactor's thread only. */
#ifndef STARLING_AGENTS_ZMQ_H
#define STARLING_AGENTS_ZMQ_H

#include "agents.h"

struct agents_zmq;

struct agents_zmq *agents_zmq_new(struct reactor *r);
/* After the agents: what they have said last is sent, if it can be in a moment. */
void agents_zmq_free(struct agents_zmq **z);

struct agents_link agents_zmq_link(struct agents_zmq *z);
/* Begins to hand messages to the agents. */
int agents_zmq_start(struct agents_zmq *z, struct agents *agents);
/* Listens there, as soon as whoever does so now does not any more: the process that this one replaces. ERR_LIMIT. */
int agents_zmq_bind(struct agents_zmq *z, const char *endpoint);

#endif
