/* The hub among other hubs: tells the peers what happens here, and does here what they tell. Keeps who is where on
 * the other nodes, so that questions are answered without asking around. Reactor's thread only. */
#ifndef STARLING_CLUSTER_H
#define STARLING_CLUSTER_H

#include "hub.h"
#include "peers.h"

struct cluster;

/* The hub gets it as hub->cluster. What peers_new() needs of it is cluster_user(). */
struct cluster *cluster_new(struct reactor *r, struct hub *h);
void cluster_free(struct cluster **c);
struct peers_user cluster_user(struct cluster *c, void (*on_ready)(void *user), void *ready_user);
/* Before the first socket. */
void cluster_use(struct cluster *c, struct peers *peers);

/* ---- for the hub ---- */

/* Publishes an emit of this node; its number, 0 without memory. */
uint64_t cluster_emit(struct cluster *c, const struct emit *e);
void cluster_enter(struct cluster *c, const struct socket *s);
void cluster_exit(struct cluster *c, const struct socket *s);
void cluster_join(struct cluster *c, const struct socket *s, struct span room);
void cluster_part(struct cluster *c, const struct socket *s, struct span room);

/* ---- for questions ---- */

/* Do all living peers have this emit of ours? */
bool cluster_is_confirmed(const struct cluster *c, uint64_t seq);

/* The sockets of other nodes, as a hub of their own: they have no session. NULL: there is nobody. */
struct nsp *cluster_far(struct cluster *c, struct span nsp);

#endif
