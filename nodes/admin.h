/* The namespace /admin: pages of the dashboard. Each second they are given how all nodes are, encoded once for all of them;
 * they watch events, and ask and act on sessions of any node. See ../proto/dashboard.md.
 *
 * Who connects must know a key that any node of the cluster tells a page of its own origin (GET /api/v1/key) and no other:
 * a browser lets every page open a WebSocket to anywhere. Reactor's thread only. */
#ifndef STARLING_ADMIN_H
#define STARLING_ADMIN_H

#include "cluster.h"
#include "hub.h"
#include "lists.h"
#include "statuses.h"
#include "survey.h"
#include "tail.h"

struct admin;

struct admin_parts {
    struct reactor *reactor;
    struct hub *hub;
    struct cluster *cluster; /* NULL: this node is alone */
    struct lists *lists;
    struct tails *tails;
    struct surveys *surveys;
};

enum { ADMIN_KEY_CHARS = 20 };

/* Takes the hub's namespace. NULL without memory. */
struct admin *admin_new(const struct admin_parts *parts);
/* Before its parts. */
void admin_free(struct admin **a);

/* What this node tells its pages; lives as long as it. */
struct span admin_key(const struct admin *a);
/* Pages that are connected here. */
unsigned admin_pages(const struct admin *a);
/* What comes when a page connects, and each second. NULL: nothing. */
void admin_use(struct admin *a, struct statuses *statuses);
/* To all pages. */
void admin_tell_nodes(struct admin *a);

#endif
