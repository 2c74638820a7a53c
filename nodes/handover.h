/* How a node's listening sockets go to the process that takes its place: that one asks at "<base>.doors", and gets the
 * descriptors themselves (SCM_RIGHTS). Closing a listener resets the connections in its queue; one that somebody else
 * has as well goes on. Reactor's thread only. */
#ifndef STARLING_HANDOVER_H
#define STARLING_HANDOVER_H

#include "front.h"

struct handover;

/* Gives the front's listeners to whoever asks. NULL when it cannot listen (a log line says why). */
struct handover *handover_new(struct reactor *r, struct front *f, const char *base);
void handover_free(struct handover **h);

/* Takes the listeners of the node at this base: how many, 0 when it is not there. Waits for a short time. */
unsigned handover_take(struct front *f, const char *base);

#endif
