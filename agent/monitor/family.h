/* The processes of Starling on this machine. One thread. */
#ifndef STARLING_FAMILY_H
#define STARLING_FAMILY_H

#include "machine.h"

struct family;

struct family *family_new(int root);
void family_free(struct family **f);

/* Looks through all processes. */
void family_refresh(struct family *f);

/* Fills processes of a tick; texts live until the next call. True when one of them has ended: look again soon. */
bool family_sample(struct family *f, uint64_t elapsed_us, uint64_t uptime_s, struct machine_tick *t);

#endif
