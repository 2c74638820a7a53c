/* A store in memory, with the semantics of store_redis.c and faults that a test chooses: it can be away, for all or for
 * one, slow, full, and it can lose everything. One store, and a connection for each node, on the node's own reactor;
 * time is the reactors', so with a fake clock a run depends on its seed only.
 *
 * A question takes effect half of its delay after it was asked and is answered after the other half. When a connection is cut in between, it has
 * taken effect though its answer is ERR_STORE. All in one thread. */
#ifndef STARLING_TESTS_STORE_MEMORY_H
#define STARLING_TESTS_STORE_MEMORY_H

#include "reactor.h"
#include "store.h"

struct store_memory;
struct store_memory_client;

struct store_memory *store_memory_new(void);
/* After its clients. */
void store_memory_free(struct store_memory **m);

/* on_up comes in the next turn of the reactor when the store is there. */
struct store_memory_client *store_memory_open(struct store_memory *m, struct reactor *r,
                                              const struct store_user *user);
/* Answers what is open with ERR_STORE before it returns. */
void store_memory_close(struct store_memory_client **c);
/* As by SIGKILL of the node: what has not taken effect never will, and nothing is answered. */
void store_memory_kill(struct store_memory_client **c);

struct store store_memory_store(struct store_memory_client *c);

/* ---- faults; they take effect in the next turn of the clients' reactors ---- */

void store_memory_set_away(struct store_memory *m, bool is_away);
void store_memory_cut(struct store_memory_client *c, bool is_cut);
/* Of each question from now on, by this client. From timeout_ms on (2 s) the connection is given up and made again. */
void store_memory_set_delay(struct store_memory_client *c, unsigned delay_ms);
/* append and put are refused. */
void store_memory_set_full(struct store_memory *m, bool is_full);
/* As by FLUSHALL, or by a restart without its file. */
void store_memory_lose(struct store_memory *m);

/* ---- for invariants ---- */

/* Owners of a session (not moved, not expired) at this time: 0 or 1, when all is well. */
unsigned store_memory_owners(const struct store_memory *m, struct span pid, uint64_t now_ms);
/* The newest number of an origin that it has; 0: none. */
uint64_t store_memory_newest(const struct store_memory *m, struct mesh_origin origin);

#endif
