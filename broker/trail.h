/* The main figures of one node over the last 10 minutes, each second, and its totals each 10 seconds. A fixed size, some
 * 50 KiB. Times are those of the node that keeps it, in milliseconds since 1970. Reactor's thread only. */
#ifndef STARLING_TRAIL_H
#define STARLING_TRAIL_H

#include "status.h"

enum { TRAIL_MS = 600 * 1000 };

struct trail;

/* NULL: no memory. */
struct trail *trail_new(void);
void trail_free(struct trail **t);

void trail_add(struct trail *t, uint64_t now_ms, const uint64_t value[STATUS_VALUES]);
/* The node has started again: what it was like before. Its totals begin anew. */
void trail_adopt(struct trail *t, const struct trail *before);

/* Members of a JSON object, each with a comma before it: "grown": how much each total has grown since "since_ms", at most
 * 10 minutes ago; whole: also "trail", with one item for each second from "from_ms" on, null for what is not known.
 * 0 or ERR_MEMORY. */
int trail_json(const struct trail *t, bool whole, msgpack_sbuffer *b);

#endif
