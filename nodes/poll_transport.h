/* The long-polling transport: at most one GET that waits, at most one POST that is being read. */
#ifndef STARLING_POLL_TRANSPORT_H
#define STARLING_POLL_TRANSPORT_H

#include "engine.h"

struct conn;

extern const struct transport poll_transport;

/* A handshake by GET: a session whose open packet answers it. headers: lines for the answer (copied). */
void poll_handshake(struct engine *e, struct conn *c, bool base64, bool recovery_off, const char *headers);

/* A GET of a session on polling. */
void poll_get(struct session *s, struct conn *c, const char *headers);

/* A POST has its head. False: it has been answered (an overlap, a body that is too long). */
bool poll_post_begin(struct session *s, struct conn *c, bool too_big, const char *headers);
/* Its body is there. */
void poll_post(struct session *s, struct conn *c, struct span body, bool is_octets, const char *headers);
void poll_post_broken(struct session *s, struct conn *c, int err);

/* The connection of a pending GET or POST is lost. */
void poll_gone(struct session *s, struct conn *c);

/* The candidate has answered a probe: the client is waiting for its poll to end. */
void poll_release(struct session *s);
/* The candidate is gone: polls wait again. */
void poll_hold(struct session *s);
/* The upgrade is complete: the pending GET ends, what polling kept is freed. */
void poll_leave(struct session *s);

#endif
