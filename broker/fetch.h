/* What one client that comes back waits for, and what has been read for it so far (archive.h). Reactor's thread only. */
#ifndef STARLING_FETCH_H
#define STARLING_FETCH_H

#include "archive.h"

struct fetch;

struct fetch_options {
    struct span nsp, sid; /* copied, like the rooms */
    const struct span *rooms;
    unsigned n_rooms;
    uint64_t max_messages, max_bytes; /* that may wait for this client at all */
    /* Called later, once for each fetch_begin(). 0: all is there up to where the ring began just now. ERR_NOT_FOUND: the
     * store does not have it any more. ERR_STORE. ERR_LIMIT: it is more than may be held. ERR_MEMORY. */
    void (*done)(void *user, int err);
    void *user;
};

/* NULL without memory. */
struct fetch *fetch_new(struct archive *a, const struct fetch_options *o);
/* At any time; done is not called any more. */
void fetch_free(struct fetch **f);
/* An origin's numbers from first on are wanted, as long as the ring does not hold them. ERR_MEMORY, also when it wants
 * more than LIMIT_OFFSET_ORIGINS of them. */
int fetch_want(struct fetch *f, struct mesh_origin origin, uint64_t first);
/* All that is wanted has been named. It has its turn when not too many others read. Once done was called with 0 more may be
 * wanted. */
void fetch_begin(struct fetch *f);

/* What has been read of one origin. */
struct fetch_part {
    struct mesh_origin origin;
    uint64_t last; /* what is for this client up to this number is among them, from where it was wanted */
    unsigned n;
};
/* False: there are no more parts than i. */
bool fetch_part(const struct fetch *f, unsigned i, struct fetch_part *out);
/* Record k of part i, ascending: emits, as they travelled. Lives as long as the fetch. */
struct span fetch_record(const struct fetch *f, unsigned i, unsigned k, uint64_t *seq);

#endif
