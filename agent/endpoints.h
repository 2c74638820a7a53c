/* The nodes that an agent may speak with, and how long it waits between attempts: for the library and for the monitor.
 * No I/O. Of one thread. */
#ifndef STARLING_ENDPOINTS_H
#define STARLING_ENDPOINTS_H

#include "agent.h"
#include <stdbool.h>
#include <stdint.h>

enum { ENDPOINTS_MAX = 128 };

struct endpoints {
    unsigned n_own, n, current; /* those given first, then those that nodes have told of */
    char at[ENDPOINTS_MAX][AGENT_ENDPOINT_BYTES + 1];
};

/* A comma list of tcp:// and ipc:// that fits? */
bool endpoints_check(const char *list);
/* Those given: what is no endpoint is left out. */
void endpoints_init(struct endpoints *e, const char *list);
static inline const char *endpoints_current(const struct endpoints *e)
{
    return e->at[e->current];
}
static inline void endpoints_next(struct endpoints *e)
{
    e->current = (e->current + 1) % e->n;
}
/* From a WELCOME or a NODE: so many endpoints of each peer. The current one keeps its place, so that the search goes on
 * behind it; those given stay, as all that a node has told of may be gone when it is. */
void endpoints_learn(struct endpoints *e, const struct agent_record *r, unsigned each);

/* Longer with each attempt, and not all agents in step. */
struct backoff {
    uint64_t wait_ms;
    uint64_t random; /* not 0 */
};

void backoff_init(struct backoff *b, uint64_t seed);
/* An attempt has succeeded. */
void backoff_reset(struct backoff *b);
uint64_t backoff_next_ms(struct backoff *b);
/* Spreads agents; no secret. */
uint64_t backoff_draw(struct backoff *b);

#endif
