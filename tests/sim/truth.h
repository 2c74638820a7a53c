/* What has really happened in a run: every emit that a node has accepted, with its number, and which nodes were given
 * it. Clients are held to it. Knows nothing of how the product works but the wire. */
#ifndef STARLING_SIM_TRUTH_H
#define STARLING_SIM_TRUTH_H

#include "fakenet.h"
#include "id.h"
#include "mesh.h"

enum { ORIGINS = 64, EMITS = 4096, ROOMS = 4, NAMESPACES = 3 };

struct truth_emit {
    unsigned number; /* what it says */
    unsigned nsp;
    uint8_t to, except; /* rooms, a bit each; to: 0 and no to_sid is everybody */
    char to_sid[ID_CHARS], except_sid[ID_CHARS], skip_sid[ID_CHARS]; /* "": none */
    bool is_volatile, is_accepted;
    unsigned origin; /* once it is accepted */
    uint64_t seq, at_ms;
};

/* One start of one node. */
struct truth_origin {
    struct mesh_origin id;
    unsigned station;
    bool is_dead;
    unsigned n_emits;
    unsigned *emits;   /* accepted, ascending by seq */
    uint64_t had_n;    /* numbers that had knows */
    uint8_t *had;      /* a bit for each node that was given this number, while it lives */
    uint64_t mirrored; /* dead ones: the newest number that the store has, at the end */
};

struct truth {
    unsigned n_origins, n_emits;
    struct truth_origin origin[ORIGINS];
    struct truth_emit emit[EMITS];
};

void truth_deinit(struct truth *t);

/* Its index. */
unsigned truth_begin_origin(struct truth *t, struct mesh_origin id, unsigned station);
void truth_end_origin(struct truth *t, unsigned origin);
/* ORIGINS: there is none. */
unsigned truth_find_origin(const struct truth *t, uint32_t tag);

/* NULL: too many. */
struct truth_emit *truth_new_emit(struct truth *t);
void truth_accept(struct truth *t, struct truth_emit *e, unsigned origin, uint64_t seq);

/* A message reaches a node. */
void truth_on_delivery(struct truth *t, unsigned station, struct span message);
/* Can somebody who lives still give this number to all? */
bool truth_is_held(const struct truth_origin *o, uint64_t seq);

#endif
