/* The node's side of the dashboard: what nodes say of themselves, for GET /api/v1/nodes and the pages of the dashboard.
 * See ../proto/http.md. Reactor's thread only. */
#ifndef STARLING_DASHBOARD_H
#define STARLING_DASHBOARD_H

#include "agents.h"
#include "cluster.h"
#include "config.h"
#include "hub.h"
#include "seam.h"
#include "web.h"

struct dashboard;

struct dashboard_parts {
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct cluster *cluster; /* NULL: this node is alone */
    const struct config *config;
    const struct web *web; /* how the node is */
    struct agents *agents; /* NULL: this node listens to none */
    struct mesh_origin self;
    const char *host; /* these are borrowed */
};

/* NULL without memory. */
struct dashboard *dashboard_new(const struct dashboard_parts *parts);
/* The node stops: what waits for answers gets them. */
void dashboard_stop(struct dashboard *d);
/* Before the cluster. */
void dashboard_free(struct dashboard **d);

/* GET /api/v1/nodes and its kin: answers now or later. */
void dashboard_run_get(struct visit *v);
/* Is this a path that dashboard_run_get() knows? Any thread. */
bool dashboard_has_path(struct span path);

#endif
