/* What clients that come back have missed and the ring does not hold any more, read from the store in bounded steps. All
 * who want an origin's records share its sweep, which goes up through them, takes along who begins further up, and
 * starts again below for who came too late. What is for nobody who waits is dropped as it is read. Reactor's thread only. */
#ifndef STARLING_ARCHIVE_H
#define STARLING_ARCHIVE_H

#include "metrics.h"
#include "peers.h"
#include "reactor.h"
#include "store.h"

struct archive;

struct archive_options {
    uint64_t patience_ms; /* with a store that does not answer, or not yet have what it should */
};

/* Borrows store and peers. */
struct archive *archive_new(struct reactor *r, struct metrics *metrics, const struct archive_options *o,
                            const struct store *store, struct peers *peers);
/* After all fetches, and after the store: it has answered everything, or never will. */
void archive_free(struct archive **a);

#endif
