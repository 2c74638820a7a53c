/* HTTP on a connection: requests one after the other, each given to the transports or to civetweb, answers written
 * in full before the next one is looked at. Reactor's thread only. */
#ifndef STARLING_GATE_H
#define STARLING_GATE_H

#include "conn.h"

extern const struct conn_role gate_role;

/* Answers the request under way: headers are lines with CRLF; Content-Length and Connection are added. The next
 * request is looked at when this has been written. */
void gate_answer(struct conn *c, int status, const char *content_type, const char *headers, struct span body);
/* The same; the connection ends afterwards. */
void gate_answer_and_end(struct conn *c, int status, const char *content_type, const char *headers,
                         struct span body);
/* What is queued in c->out is the whole answer. */
void gate_answered(struct conn *c);

/* Is it still a living connection that speaks HTTP? */
bool gate_has(const struct conn *c);

/* front.c: the request at the head of the line may be handled now. */
void gate_take_turn(struct conn *c);

#endif
