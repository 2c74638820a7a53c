/* The mesh of peers: numbers what this node publishes, and gives what others publish to the hub in each origin's
 * order, each record once; finds holes and has them repaired, or declares them. Knows who lives and who is heard.
 * What carries the bytes (mesh_zmq.c) hangs below as a link. Reactor's thread only. */
#ifndef STARLING_PEERS_H
#define STARLING_PEERS_H

#include "mesh.h"
#include "metrics.h"
#include "reactor.h"
#include "ring.h"

struct peers;
struct peers_channel; /* of the link: the way to one peer's sockets */

struct peers_options {
    struct span cluster, name, host; /* borrowed */
    struct span pub, router; /* own endpoints, as peers on other hosts reach them; n == 0: they do not */
    struct span local_pub, local_router; /* as nodes of this host do */
    struct mesh_origin self;
    unsigned version; /* the newest one to speak; 0: MESH_VERSION */
    uint32_t peer_timeout_ms;
    uint32_t start_wait_ms; /* at most, for peers that were named and do not answer */
    struct ring_options ring;
};

/* What carries messages. publish and send take a whole message; what cannot be sent now is dropped: numbers tell. */
struct peers_link {
    void (*publish)(void *link, struct span message);
    void (*send)(void *link, struct peers_channel *channel, struct span message);
    /* Subscribes to pub and connects to router. NULL without memory. */
    struct peers_channel *(*open)(void *link, struct span pub, struct span router);
    void (*close)(void *link, struct peers_channel *channel);
    void *link;
};

/* What the records mean. */
struct peers_user {
    void *user;
    void (*on_emit)(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit);
    /* One that was said before this node's time and is kept here. May be NULL. */
    void (*on_past)(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit);
    void (*on_presence)(void *user, struct mesh_origin from, enum mesh_kind kind,
                        const struct mesh_presence *presence);
    /* Whatever was known of sockets there is void: the peer is dead, or a snapshot follows. */
    void (*on_presence_void)(void *user, struct mesh_origin from);
    /* A key of that origin has another value, or none (bytes.n == 0). on_presence_void() is for keys, too. */
    void (*on_set)(void *user, struct mesh_origin from, const struct mesh_message *set);
    /* A NOTE or a TELL. May be NULL. */
    void (*on_message)(void *user, struct mesh_origin from, const struct mesh_message *message);
    /* Numbers from..to of this origin are lost for good. */
    void (*on_gap)(void *user, struct mesh_origin from, uint64_t first, uint64_t last);
    /* Not heard any more; received: the number up to which everything has come. Comes before on_presence_void(). May be
     * NULL. */
    void (*on_dead)(void *user, struct mesh_origin from, uint64_t received);
    /* True: emits have to wait. They are held, or asked for again later. May be NULL. */
    bool (*is_busy)(void *user);
    /* This node has published something. May be NULL. */
    void (*on_published)(void *user);
    /* Calls peers_put_presence() and peers_put_set() for everything that lives here. */
    void (*put_presence)(void *user, struct peers *m);
    void (*on_ready)(void *user);
};

struct peers *peers_new(struct reactor *r, struct metrics *metrics, const struct peers_options *o,
                        const struct peers_link *link, const struct peers_user *user);
void peers_free(struct peers **m);

/* A peer to look for. */
int peers_add_peer(struct peers *m, struct span pub, struct span router);
/* One that others have told of: a start waits for it too, but it is forgotten when it is dead for long. */
void peers_found(struct peers *m, struct span pub, struct span router);
/* All peers have been named: begin. */
void peers_start(struct peers *m);

/* From the link. */
void peers_receive(struct peers *m, struct span message);

/* Gives a record its number, keeps it in the ring, and sends it with what else this turn brings.
 * raw and seq of the record are ignored. The number; 0 without memory. */
uint64_t peers_publish(struct peers *m, struct mesh_record *record);
/* The number of the newest record of this node. */
uint64_t peers_newest(const struct peers *m);

/* Of put_presence(): one ENTER or JOIN; the value of one key. */
void peers_put_presence(struct peers *m, enum mesh_kind kind, const struct mesh_presence *presence);
void peers_put_set(struct peers *m, const struct mesh_message *set);

/* To all that hear, with what else this turn brings; what does not arrive is not sent again. */
void peers_note(struct peers *m, enum mesh_topic topic, struct span bytes);
/* To one living peer, in the order of calls but in no order with what is published. 0, ERR_NOT_FOUND, ERR_MEMORY. No
 * word comes when it does not arrive. */
int peers_tell(struct peers *m, struct mesh_origin to, enum mesh_topic topic, struct span bytes);

/* Records of an origin, or none, ascending and without a hole, from the store: its past, before peers_start(), or the
 * tail of one that is dead. It is known from then on. 0, ERR_MESH, ERR_MEMORY. */
int peers_fill(struct peers *m, struct mesh_origin origin, struct span records);

/* The store has not heard a dead origin for so long. */
void peers_date(struct peers *m, struct mesh_origin origin, uint64_t silent_ms);

/* The router endpoint, on this host, of the living peer whose ids begin with this tag; NULL: there is none. */
const char *peers_local_router(const struct peers *m, uint32_t tag);

/* The living peer with this tag. */
bool peers_find_live(const struct peers *m, uint32_t tag, struct mesh_origin *id);

/* From now on heartbeats say that this node is about to go. */
void peers_drain(struct peers *m);

bool peers_is_ready(const struct peers *m);
struct ring *peers_ring(const struct peers *m);
unsigned peers_alive(const struct peers *m);
/* True when every live peer has said that it has this number of ours. */
bool peers_is_confirmed(const struct peers *m, uint64_t seq);
/* True when every live peer has said that it has this number of that origin, itself left out. */
bool peers_have(const struct peers *m, struct mesh_origin origin, uint64_t seq);
/* False: somebody has fallen silent, or has died just now, and others may know more of what it has said; or something
 * that is known to be there has not come. */
bool peers_is_settled(const struct peers *m);

/* How far this node has come in each origin's numbers; itself first, then those that live. */
struct peers_position {
    struct mesh_origin origin;
    uint64_t received;
    bool lives;
    bool is_filling; /* what it said before the two met is still coming, into the ring and to nobody else */
    bool is_dated;   /* dead, and it is known for how long */
    bool is_old;     /* dead for so long that nothing of it is kept, and that offsets do not name it either */
};
unsigned peers_positions(const struct peers *m, struct peers_position *out, unsigned max);

/* How this node hears another one. */
struct peers_view {
    struct mesh_origin origin;
    uint64_t silent_ms, behind; /* behind: records that are known to be there and have not come */
    bool in_hole, is_draining;
};
/* Those that live. */
unsigned peers_views(const struct peers *m, struct peers_view *out, unsigned max);

#endif
