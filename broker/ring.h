/* The recent records of every origin, as they travelled: for repairs between peers, and for clients that come back,
 * who ask by room.
 * Bounded in time and bytes; the oldest goes first. Reactor's thread only. */
#ifndef STARLING_RING_H
#define STARLING_RING_H

#include "mesh.h"
#include "offset.h"
#include "span.h"
#include <stdbool.h>
#include <stdint.h>

struct ring;

struct ring_options {
    uint64_t max_ms;
    uint64_t max_bytes;
    bool no_rooms; /* nobody will search by room: less to keep */
};

struct ring *ring_new(const struct ring_options *o);
void ring_free(struct ring **r);

/* The next number of this origin (any first one; after that without a hole: ERR_STATE). Copies raw.
 * emit: what raw says when it is one, so that it is found by its rooms; volatile ones are not.
 * 0, ERR_STATE, ERR_MEMORY (the record is then not in the ring, nor is any later one until ring_restart()). */
int ring_add(struct ring *r, uint64_t now_ms, struct mesh_origin origin, uint64_t seq, struct span raw,
             const struct mesh_emit *emit);

/* A declared hole: what is held of this origin goes, its next record may have any number. */
void ring_restart(struct ring *r, struct mesh_origin origin);

/* The numbers held of an origin; false: none. */
bool ring_range(const struct ring *r, struct mesh_origin origin, uint64_t *first, uint64_t *last);

/* n == 0: not held. Lives until the ring is changed. */
struct span ring_get(const struct ring *r, struct mesh_origin origin, uint64_t seq);

/* What somebody in these rooms may have missed. */
struct ring_search {
    struct span nsp;
    const struct span *rooms; /* and sid */
    unsigned n_rooms;
    const struct offset *since; /* of each origin: numbers above this one; origins that are not in it: all */
};

struct ring_found {
    struct mesh_origin origin;
    uint64_t seq, at_ms;
    struct span raw;
};

/* Every emit to one of the rooms or to the whole namespace, once, in the order in which they came here. Only rooms
 * are looked at, not exceptions and senders. Calls f until it returns false; f must not change the ring. 0 or
 * ERR_MEMORY. */
int ring_search(const struct ring *r, const struct ring_search *s,
                bool (*f)(void *user, const struct ring_found *), void *user);

/* Every record behind `since` (as in a search), emit or not, in the order in which they came here. Calls f as a search
 * does. 0 or ERR_MEMORY. */
int ring_walk(const struct ring *r, const struct offset *since,
              bool (*f)(void *user, const struct ring_found *), void *user);

/* While it is held nothing is dropped for its bytes: what was found stays until it is let go, in the same turn. */
void ring_hold(struct ring *r);
void ring_let_go(struct ring *r);

/* Lets go of what is older than max_ms. */
void ring_expire(struct ring *r, uint64_t now_ms);

uint64_t ring_bytes(const struct ring *r);
/* Age of the oldest record: the window really held. */
uint64_t ring_window_ms(const struct ring *r, uint64_t now_ms);

#endif
