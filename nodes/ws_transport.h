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

/* ---- sessions that move between nodes ---- */

/* Is the connection between two messages, and its session's own? */
bool ws_is_between_messages(const struct conn *c);
/* What waits to be written, behind what the connection itself has. 0 or ERR_MEMORY. */
int ws_take_output(struct conn *c, struct buffer *out);
/* A connection of another role carries this session from now on; it is not read until ws_go_on(). */
void ws_adopt(struct conn *c, struct session *s);
/* Bytes that were read before it came here, then what the client sends. */
void ws_go_on(struct conn *c, uint8_t *input, size_t n);

#endif
