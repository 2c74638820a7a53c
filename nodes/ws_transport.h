/* The WebSocket transport, and connections that probe for an upgrade to it. */
#ifndef STARLING_WS_TRANSPORT_H
#define STARLING_WS_TRANSPORT_H

#include "conn.h"

extern const struct transport ws_transport;
extern const struct conn_role ws_role;

/* A valid upgrade request: answers 101 and makes the connection a WebSocket. s == NULL: a new session; otherwise it
 * is a candidate for the upgrade of s, or closed at once when s cannot be upgraded (any more).
 * key: Sec-WebSocket-Key; protocol: to be echoed, n == 0 for none; headers: more lines for the 101. */
void ws_start(struct conn *c, struct session *s, struct span key, struct span protocol, bool base64,
              bool recovery_off, const char *headers);

/* The session ended while this connection was probing. */
void ws_drop_candidate(struct session *s);

#endif
