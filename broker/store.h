/* What a bus keeps outside its nodes, so that it survives them: who lives, the mirror of each origin's records, and the
 * directory of sessions. Redis (store_redis.c), or memory in tests and in the simulation. Reactor's thread only.
 *
 * A store is asked and answers later, never from inside of the call; each question is answered exactly once, in the
 * order of the questions, with ERR_STORE when the store cannot be reached, is full or refuses to write. Nobody waits
 * longer than the store's own time-out. Questions borrow their arguments for the call; answers lend theirs. Without
 * memory a question is answered with ERR_MEMORY at once. */
#ifndef STARLING_STORE_H
#define STARLING_STORE_H

#include "mesh.h"
#include "span.h"
#include <stdbool.h>
#include <stdint.h>

enum { STORE_LEASE_MS = 3000 };

/* A name is kept for so long after a renewal: offsets have it for twice as long as what it wrote is kept, and come back for
 * as long again; and its tag stays taken for a little longer than that. */
static inline uint64_t store_name_ms(uint64_t keep_ms)
{
    return 3 * keep_ms + 1000;
}

/* One origin that the store knows. */
struct store_member {
    struct mesh_origin origin;
    bool lives;              /* its lease holds; else what it left may still be read */
    uint64_t silent_ms;      /* since it has renewed it last */
    struct span name, host;  /* as in HELLO, of those that live */
    struct span pub, router; /* endpoints for other hosts; n == 0: none */
};

/* Records of one origin: the numbers up to last, one after the other, as they travel on the mesh. */
struct store_batch {
    uint64_t last;
    struct span records;
};

typedef void store_done(void *user, int err);
typedef void store_members(void *user, int err, const struct store_member *member, unsigned n);
typedef void store_batches(void *user, int err, const struct store_batch *batch, unsigned n);

/* An answer to a claim. err 0: the entry is the claimer's now, under this epoch. ERR_MOVED: it was claimed by the
 * origin with the tag moved_to before, ask there. ERR_NOT_FOUND. ERR_STORE. */
struct store_claim {
    struct span entry;
    uint64_t epoch;
    uint32_t moved_to;
};
typedef void store_claimed(void *user, int err, const struct store_claim *claim);

struct store_calls {
    /* ---- membership ---- */

    /* Says that self lives for another STORE_LEASE_MS, keeps what self wrote for keep_ms from now and its name
     * for store_name_ms(), and answers with all origins of the cluster that have a name, self among them. ERR_STATE: one of
     * them has self's tag; draw another. Until a renewal has succeeded everything but read is answered with ERR_STORE. */
    void (*renew)(void *store, const struct store_member *self, uint64_t keep_ms, store_members *done,
                  void *user);
    /* This node ends as it should: its lease goes at once, what it wrote stays for keep_ms. */
    void (*resign)(void *store, uint64_t keep_ms, store_done *done, void *user);

    /* ---- the mirror ---- */

    /* Appends to the records of self, from the number 1; everything before the number oldest may go. What is there already (the batch's
     * last is not above the newest) is refused without harm: err is 0. */
    void (*append)(void *store, const struct store_batch *batch, uint64_t oldest, store_done *done,
                   void *user);
    /* Batches of an origin whose last is above after, ascending; up to count. n == 0: there are no more. */
    void (*read)(void *store, struct mesh_origin origin, uint64_t after, unsigned count, store_batches *done,
                 void *user);

    /* ---- the directory ---- */

    /* Writes the entry of a session that self owns under this epoch, which is below 2^53. ERR_MOVED: somebody has claimed it under
     * a higher one; nothing is written. */
    void (*put)(void *store, struct span pid, uint64_t epoch, struct span entry, store_done *done,
                void *user);
    /* The session has ended for good. Only while self owns it, else ERR_MOVED; err is 0 when it is gone already. */
    void (*drop)(void *store, struct span pid, uint64_t epoch, store_done *done, void *user);
    /* Takes over the session that the origin with this tag (may be self) owns; its entry's epoch rises by one. */
    void (*claim)(void *store, uint32_t owner, struct span pid, store_claimed *done, void *user);
};

struct store {
    const struct store_calls *calls;
    void *store;
};

/* Tells when the store comes and goes. */
struct store_user {
    void *user;
    void (*on_up)(void *user);
    void (*on_down)(void *user);
    /* It can be reached, and refuses to write; or takes what is written again. May be NULL. */
    void (*on_refuses)(void *user, bool refuses);
};

#endif
