/* The Socket.IO side of a session: namespaces joined and left, packets with attachments put together, events handed
 * to the bus's own commands or to the handler. Reactor's thread only. */
#ifndef STARLING_CLIENT_H
#define STARLING_CLIENT_H

#include "hub.h"

/* Hangs Socket.IO on an engine: give this to engine_new() with the hub as app_data. */
extern const struct engine_app client_app;

/* ---- what handlers do with a socket ---- */

/* Answers the event with this id; args: raw JSON items. */
void socket_ack(struct socket *s, uint64_t id, struct span args, const struct span *attachments,
                unsigned n_attachments);

/* Ends it: the client is told by a DISCONNECT packet and does not come back by itself. close: the whole connection
 * ends. Safe inside of handlers; the socket is gone afterwards. */
void socket_disconnect(struct socket *s, bool close);

/* Somebody else has what this socket had: it is gone at once, and its connection ends. */
void socket_taken(struct socket *s);

#endif
