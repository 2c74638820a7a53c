/* Watching events as they pass, of all nodes, from this one. What is watched is cut short, and a watcher is told no more
 * than a bounded number each second and how many it was not told of: watching never hurts who emits. Costs a comparison of
 * each event's filters while somebody watches, and nothing else. Reactor's thread only. */
#ifndef STARLING_TAIL_H
#define STARLING_TAIL_H

#include "hub.h"
#include "mesh.h"

enum { TAIL_FILTER_BYTES = 256, TAILS_MAX = 32, TAIL_PER_SECOND = 100 };

struct tail;
struct tails;

/* Empty: any. */
struct tail_filter {
    struct span ns, room, event; /* event: a part of its name */
};

/* NULL without memory. */
struct tails *tails_new(struct reactor *r, struct hub *h);
/* Its tails are gone. */
void tails_free(struct tails **t);

/* on_events is called some times a second while there is something to tell, with JSON objects and commas between them, and
 * may free the tail. NULL: too many, or no memory. */
struct tail *tail_start(struct tails *t, const struct tail_filter *filter,
                        void (*on_events)(void *user, struct span items, unsigned n, uint64_t skipped),
                        void *user);
void tail_stop(struct tail **tail);

/* An event has passed; origin NULL: of this node. */
void tails_on_emit(struct tails *t, const struct mesh_origin *origin, uint64_t seq, const struct emit *e);

#endif
