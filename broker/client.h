/* The Socket.IO side of a session: namespaces joined and left, packets with attachments put together, events handed
 * to the bus's own commands or to the handler. Reactor's thread only. */
#ifndef STARLING_CLIENT_H
#define STARLING_CLIENT_H

#include "hub.h"
#include "offset.h"

/* Hangs Socket.IO on an engine: give this to engine_new() with the hub as app_data. */
extern const struct engine_app client_app;

/* ---- what handlers do with a socket ---- */

/* Answers the event with this id; args: raw JSON items. */
void socket_ack(struct socket *s, uint64_t id, struct span args, const struct span *attachments,
                unsigned n_attachments);

/* Ends it: the client is told by a DISCONNECT packet and does not come back by itself. close: the whole connection
 * ends. Safe inside of handlers; the socket is gone afterwards. */
void socket_disconnect(struct socket *s, bool close);

/* ---- sessions that move between nodes ---- */

/* Where one of its sockets is to be found. */
struct client_place {
    struct span nsp, pid;
};

/* Can everything that there is of this session go on elsewhere just now? Nothing half received, nothing owed. */
bool client_can_move(const struct session *s);
/* Its sockets, up to max, and how many there are. They live until the session ends. */
unsigned client_places(const struct session *s, struct client_place *places, unsigned max);
/* The new node's side: finds these again, each with what came since, and calls done once, now or later: 0; an error when
 * not all is as it was, then the session is to be closed; ERR_CLOSED when it has ended meanwhile. */
void client_go_on(struct session *s, const struct client_place *places, unsigned n,
                  const struct offset *since, void (*done)(void *user, int err), void *user);

/* Somebody else has what this socket had: it is gone at once, and its connection ends. */
void socket_taken(struct socket *s);

#endif
