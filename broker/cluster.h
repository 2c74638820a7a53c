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

/* Told of everything that this node publishes, and of peers that die. May be NULL. */
struct mirror;
void cluster_use_mirror(struct cluster *c, struct mirror *mirror);
struct mirror *cluster_mirror(const struct cluster *c);

/* ---- for other parts of the node, which have counterparts on the other nodes ---- */

/* What a part hears of its counterparts. Any may be NULL. */
struct cluster_part {
    void *user;
    /* The key of that origin has this value from now on; value.n == 0: none. All nodes know the same keys of an
     * origin, in the order in which it set them. */
    void (*on_set)(void *user, struct mesh_origin from, struct span key, struct span value);
    /* Whatever keys were known of this origin are void: it is dead, or they all follow anew. */
    void (*on_void)(void *user, struct mesh_origin from);
    /* What it has noted or told. */
    void (*on_message)(void *user, struct mesh_origin from, struct span bytes);
    /* Not heard any more; received: the number up to which everything of it has come. */
    void (*on_dead)(void *user, struct mesh_origin from, uint64_t received);
};

void cluster_listen(struct cluster *c, enum mesh_topic topic, const struct cluster_part *part);
/* Sets a key of this node, for all nodes that are there or come; an empty value removes it. 0 or ERR_MEMORY. */
int cluster_set(struct cluster *c, enum mesh_topic topic, struct span key, struct span value);
/* To all nodes; what does not arrive is not sent again. */
void cluster_note(struct cluster *c, enum mesh_topic topic, struct span bytes);
/* To one node; no word comes when it does not arrive. 0, ERR_NOT_FOUND when it does not live, ERR_MEMORY. */
int cluster_tell(struct cluster *c, struct mesh_origin to, enum mesh_topic topic, struct span bytes);

/* ---- for questions ---- */

/* The tag of this node's ids. */
uint32_t cluster_tag(const struct cluster *c);
/* The number of this node's newest record. */
uint64_t cluster_newest(const struct cluster *c);
struct peers *cluster_peers(const struct cluster *c);

/* Do all living peers have this emit of ours? */
bool cluster_is_confirmed(const struct cluster *c, uint64_t seq);

/* The sockets of other nodes, as a hub of their own: they have no session. NULL: there is nobody. */
struct nsp *cluster_far(struct cluster *c, struct span nsp);
/* The first of all of them; hh.next leads on. Rooms whose names begin with the byte 0xff are nobody's. */
struct nsp *cluster_far_first(const struct cluster *c);
/* Where such a socket is. */
bool cluster_origin_of(const struct socket *s, struct mesh_origin *origin);
/* All that are there; f must not change who is. Of a part's on_dead(): they are known still. */
void cluster_each_of(struct cluster *c, struct mesh_origin origin, void (*f)(void *user, struct socket *s),
                     void *user);

#endif
