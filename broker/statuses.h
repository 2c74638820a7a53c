/* What all nodes say of themselves each second, this one among them: the last status of each origin, how the totals grew
 * in the last 10 minutes, and a trail of its main figures for as long. Publishes this node's own, which costs the same
 * however many sessions there are. Reactor's thread only. */
#ifndef STARLING_STATUSES_H
#define STARLING_STATUSES_H

#include "cluster.h"
#include "metrics.h"
#include "reactor.h"
#include "status.h"

struct statuses;

/* GONE: it had said that it would go. */
enum statuses_life { STATUSES_LIVE, STATUSES_GONE, STATUSES_DEAD };

struct statuses_options {
    struct span name, host; /* borrowed */
    struct mesh_origin self;
    uint64_t restarts;
    uint32_t port, node_port;
    int core; /* -1: none */
    /* Fills in STATUS_STATE, STATUS_STORE and STATUS_DASHBOARDS. */
    void (*on_fill)(void *user, uint64_t value[STATUS_VALUES]);
    /* Once a second, and at once when a node has died or come. May be NULL. */
    void (*on_news)(void *user);
    void *user;
};

/* cluster: NULL when this node is alone. NULL without memory. */
struct statuses *statuses_new(struct reactor *r, struct metrics *m, struct cluster *cluster,
                              const struct statuses_options *o);
/* Before the cluster. */
void statuses_free(struct statuses **s);

/* One of the nodes; the first one is this. */
struct statuses_row {
    struct mesh_origin origin;
    enum statuses_life life;
    uint64_t silent_ms; /* since its last status */
    struct span name, host;
    bool is_self;
};
unsigned statuses_count(const struct statuses *s);
/* Lives until something changes. */
struct statuses_row statuses_at(const struct statuses *s, unsigned index);

/* As proto/http.md has it for GET /api/v1/nodes. 0 or ERR_MEMORY. */
int statuses_json(struct statuses *s, bool with_trails, msgpack_sbuffer *b);

#endif
