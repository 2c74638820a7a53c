/* Acknowledgements of one emit from the clients of all nodes: each node asks its own (ack.h) and tells the one that has
 * emitted (mesh.md, topic 5; the layout is in collect.c). Reactor's thread only. */
#ifndef STARLING_COLLECT_H
#define STARLING_COLLECT_H

#include "ack.h"
#include "cluster.h"

struct collects;

/* The hub gets it as hub->collects. cluster may be NULL: then there are no others. */
struct collects *collects_new(struct reactor *r, struct hub *h, struct cluster *cluster);
void collects_free(struct collects **c);

/* What is waited for; embedded in what it belongs to. */
struct collect {
    struct collects *collects;
    uint64_t seq; /* of the emit */
    struct ack_wait near;
    struct timer late;
    struct collect_node {
        struct mesh_origin origin;
    } * open; /* nodes that have not said that they are done */
    unsigned n_open;
    bool near_done, done;
    uint64_t expected, answered; /* sockets */
    UT_hash_handle hh;
    /* args: raw JSON items. */
    void (*on_ack)(struct collect *c, struct span sid, struct span args, const struct span *attachments,
                   unsigned n_attachments);
    /* Once, and not from collect_emit(); may free c. */
    void (*on_done)(struct collect *c);
};

/* Emits, and asks everybody for an acknowledgement. The callbacks are set before. As hub_emit(). */
int collect_emit(struct collects *cs, struct collect *c, struct emit *e, uint32_t timeout_ms);
/* on_done will not come. */
void collect_cancel(struct collect *c);

/* Of the cluster: an emit of another node asks for acknowledgements here. As hub_deliver(). */
int collects_serve(struct collects *cs, struct mesh_origin from, uint64_t seq, uint64_t timeout_ms,
                   struct emit *e);

#endif
