/* Keeps this origin's records in the store as they are said, and reads those of others there: of all that were, when
 * this node starts, and the tail of one that has died. One append is under way at a time, so that the store holds
 * numbers without a hole; while the store is away the ring is what waits. Reactor's thread only. */
#ifndef STARLING_MIRROR_H
#define STARLING_MIRROR_H

#include "metrics.h"
#include "peers.h"
#include "reactor.h"
#include "store.h"

struct mirror;

struct mirror_options {
    uint64_t window_ms; /* how long records are kept there */
};

/* Borrows store and peers. */
struct mirror *mirror_new(struct reactor *r, struct metrics *metrics, const struct mirror_options *o,
                          const struct store *store, struct peers *peers);
/* After the store: it has answered everything. */
void mirror_free(struct mirror **m);

/* This node has said something. */
void mirror_wake(struct mirror *m);
/* The same, and somebody waits for it. */
void mirror_hurry(struct mirror *m);
/* Does the store have this number of ours? */
bool mirror_has(const struct mirror *m, uint64_t seq);
/* False: of somebody who has died the store has not said yet how far it has come. */
bool mirror_is_settled(const struct mirror *m);
/* Does the store have this number of another origin? done(user, false) also when it cannot say. */
void mirror_look_up(struct mirror *m, struct mesh_origin origin, uint64_t seq,
                    void (*done)(void *user, bool has), void *user);
/* The store can be reached again. */
void mirror_resume(struct mirror *m);

/* Reads what is there of these origins into the peers' ring, before they start; then calls done. */
void mirror_fill(struct mirror *m, const struct store_member *members, unsigned n, void (*done)(void *user),
                 void *user);
/* Reads what is there of a dead origin behind the number received, now, and then until its lease has ended. */
void mirror_settle(struct mirror *m, struct mesh_origin origin, uint64_t received);
/* The store has said who lives. */
void mirror_on_members(struct mirror *m, const struct store_member *members, unsigned n);

#endif
