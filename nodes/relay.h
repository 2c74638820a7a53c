/* Connections whose session is on another host: their bytes travel to its owner and back over the mesh, from the first
 * byte of the request on, as if the client had reached that node. There the other end is a connection like any other.
 * Nodes of one host pass descriptors instead (pass.h). See ../proto/relay.md. Reactor's thread only. */
#ifndef STARLING_RELAY_H
#define STARLING_RELAY_H

#include "cluster.h"
#include "front.h"

struct relay;

/* Borrows both. */
struct relay *relay_new(struct reactor *r, struct cluster *cluster, struct front *front);
/* Before the front; closes what is under way. */
void relay_free(struct relay **r);

/* Takes the connection, whose input so far are n bytes from the start of a request. False: it cannot. */
bool relay_conn(struct relay *r, struct mesh_origin owner, struct conn *c, const void *input, size_t n);

/* A session has come to a WebSocket that is relayed to this node: it moves to the node that has its client, when it
 * can; else it stays, relayed. */
void relay_upgraded(struct relay *r, struct conn *c);
/* Where a session has moved to not long ago. */
bool relay_moved_to(const struct relay *r, struct span sid, struct mesh_origin *to);

#endif
