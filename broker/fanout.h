/* Hands one encoded emit to every member that it is for, in the order in which emits were started. An emit to very
 * many members takes several turns of the loop, so that other clients are served in between. */
#ifndef STARLING_FANOUT_H
#define STARLING_FANOUT_H

#include "hub.h"

struct fanout *fanout_new(struct reactor *r, struct metrics *m);
/* Emits under way are dropped; their rooms must still exist. */
void fanout_free(struct fanout **f);

/* Takes a reference of both. plain: for clients that take no offsets; the same as frames when there are none. Uses e's targets, flags and wait. 0, ERR_MEMORY, or ERR_BUSY when too
 * many wait already. */
int fanout_start(struct fanout *f, struct nsp *nsp, const struct emit *e, uint64_t ack_id,
                 const struct slice *frames, const struct slice *plain);

/* Does no emit wait in line? */
bool fanout_is_idle(const struct fanout *f);
/* Who joins now is met by emits above this number only. */
uint64_t fanout_number(const struct fanout *f);

/* Nobody waits for acknowledgements any more: emits in line ask for none. */
void fanout_forget_wait(struct fanout *f, const struct ack_wait *wait);

#endif
