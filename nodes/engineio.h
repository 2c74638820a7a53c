/* Engine.IO over HTTP requests: which rule a request breaks, handshakes, polls, upgrades. Reactor's thread only. */
#ifndef STARLING_ENGINEIO_H
#define STARLING_ENGINEIO_H

#include "conn.h"

/* A transport's request has its head. True: read on; false: it has been answered. */
bool engineio_head(struct conn *c, struct http_reader *r, const char *base);
/* It is complete: answers it, parks it, or makes a WebSocket of the connection. */
void engineio_request(struct conn *c, struct http_reader *r, const char *base);
/* A POST's body turned out too long or malformed. */
void engineio_body_broken(struct conn *c, int err);
/* The connection of a pending GET or POST is lost. */
void engineio_gone(struct conn *c);

#endif
