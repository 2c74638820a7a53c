/* Looks a name up without making the loop wait: getaddrinfo() in a thread of its own. Reactor's thread only. */
#ifndef STARLING_RESOLVE_H
#define STARLING_RESOLVE_H

#include "reactor.h"

enum { RESOLVE_ADDRESSES = 8, RESOLVE_TEXT_BYTES = 64 };

struct resolve;

/* Addresses as numbers. n == 0: why says so, else it is NULL. Lent. Not from inside of resolve_start(). */
typedef void resolve_done(void *user, const char (*address)[RESOLVE_TEXT_BYTES], unsigned n, const char *why);

/* The name is copied; one that is an address already needs no thread. NULL: no memory, or no thread to be had. */
struct resolve *resolve_start(struct reactor *r, const char *name, resolve_done *done, void *user);
/* After this done is not called. Does not wait for the thread. Also needed after done was called, and allowed in it. */
void resolve_end(struct resolve **resolve);

#endif
