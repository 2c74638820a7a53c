/* Namespaces, rooms, who is in them, and the one way in for emits. Reactor's thread only.
 * Only the hub knows where an emit goes. */
#ifndef STARLING_HUB_H
#define STARLING_HUB_H

#include "bytes.h"
#include "engine.h"
#include "id.h"
#include "metrics.h"
#include "reactor.h"
#include "sio.h"
#include "span.h"
#include "table.h"

struct ack_wait;
struct cluster;
struct collects;
struct client;
struct fanout;
struct directory_entry;
struct emit;
struct hub;
struct joining;
struct mesh_origin;
struct recovery;
struct socket;

/* A member list that can be walked over many turns: while it is pinned, leaving makes a hole, and who joins is
 * appended behind the end that the walk knows. */
struct room {
    struct nsp *nsp;
    struct member {
        struct socket *socket; /* NULL: a hole */
        uint32_t place;        /* index in the socket's places */
    } * members;
    uint32_t n, cap, holes, pins;
    uint64_t emits; /* to it by name, since it exists */
    UT_hash_handle hh;
    uint32_t name_n;
    char name[]; /* not terminated */
};

struct nsp {
    struct hub *hub;
    struct socket *sockets; /* by sid */
    struct room *rooms;     /* by name */
    struct room *all;       /* everybody; not in rooms */
    uint64_t next_ack_id;
    UT_hash_handle hh;
    uint32_t name_n;
    char name[];
};

/* One client's presence in one namespace. */
struct socket {
    struct session *session;
    struct nsp *nsp;
    struct place {
        struct room *room;
        uint32_t index; /* in room->members */
    } * places;
    uint64_t mark;      /* last emit that has seen this socket; at first the last one before it */
    uint64_t offset_ms; /* when it was last sent an offset; of a socket of another node: its epoch */
    struct directory_entry *entry; /* NULL: it cannot be recovered */
    char *user;                    /* raw JSON, or NULL */
    uint32_t owed;                 /* acknowledgements that handlers still owe it */
    char *data;                    /* of agents: raw JSON, or NULL */
    struct ahead *ahead;           /* what it had of other nodes' emits before they came here; or NULL */
    bool is_recovered;
    bool is_there; /* its client knows of it */
    uint32_t n_places, cap_places;
    struct place first[2]; /* places until they outgrow it: everybody and one room */
    char sid[ID_CHARS];
    struct client *client;
    struct socket *client_next;
    struct ack_pending *acks;
    UT_hash_handle hh;
};

/* A client that came back may have more of a node's emits than this node: those are not for it when they come. */
struct ahead {
    unsigned n;
    struct {
        uint32_t origin;
        uint64_t number; /* it has all up to this one */
    } have[];
};

/* Decides who may connect and handles the events that the bus itself does not: agents, or a test program. */
enum hub_verdict { HUB_ACCEPT, HUB_REFUSE, HUB_LATER };

/* Any may be NULL. */
struct hub_handler {
    void *user;
    /* A client wants to join (not one that comes back with all it had). REFUSE: with *error a JSON object for
     * CONNECT_ERROR. LATER: joining_accept() or joining_refuse() follow, unless on_gave_up() comes before. */
    enum hub_verdict (*on_connect)(void *user, struct joining *j, struct span *error);
    void (*on_gave_up)(void *user, struct joining *j);
    /* auth: a JSON object. */
    void (*on_connected)(void *user, struct socket *s, struct span auth);
    void (*on_disconnected)(void *user, struct socket *s, const char *reason);
    /* False: nobody handles it. */
    bool (*on_event)(void *user, struct socket *s, const struct sio_packet *packet,
                     const struct span *attachments);
    /* A socket of this node is in one room more, or less. Not of its own room, nor when it leaves all at its end. */
    void (*on_joined)(void *user, struct socket *s, struct span room);
    void (*on_left)(void *user, struct socket *s, struct span room);
    /* Every emit, whatever node it is from; origin NULL: this one. */
    void (*on_emit)(void *user, const struct mesh_origin *origin, uint64_t seq, const struct emit *e);
    /* One that was made before this node's time, of which only the key may be of interest. */
    void (*on_past)(void *user, const struct mesh_origin *origin, uint64_t seq, struct span key);
    /* Emits of another node are lost for this one; its clients are told by bus:gap. */
    void (*on_gap)(void *user);
    /* A session is about to end. Its sockets have gone already. */
    void (*on_end)(void *user, const struct session *s, enum close_reason reason);
};

/* The namespace of the dashboard. */
#define HUB_ADMIN "/admin"

struct hub_options {
    const char *origin;     /* "<node>-<boot>", in the ids of emits */
    const char *namespaces; /* "*" or a comma list */
    uint32_t connect_timeout_ms;
};

struct hub {
    struct engine *engine;
    struct metrics *metrics;
    struct hub_options options;
    struct hub_handler handler;
    /* The dashboard: has its namespace for itself, and is told of every emit and of every end. NULL: nobody may join
     * that namespace. Borrowed. */
    const struct hub_handler *watcher;
    struct nsp *nsps;
    struct nsp *last;      /* that was found: mostly the next one too */
    unsigned pending_acks; /* ack.c's */
    uint64_t seq;          /* number of the newest emit */
    struct fanout *fanout;
    struct cluster *cluster;   /* NULL: this node is alone */
    struct collects *collects; /* NULL: no emit of another node asks for acknowledgements here */
    struct recovery *recovery; /* NULL: off */
    unsigned n_plain;          /* sockets whose clients take no offsets */
};

/* engine: may be set after, before the first session. Borrows options' texts. */
struct hub *hub_new(struct reactor *r, struct metrics *m, const struct hub_options *o);
void hub_free(struct hub **h);

/* Who decides about sockets in this namespace. */
static inline const struct hub_handler *hub_handler_of(const struct hub *h, struct span nsp)
{
    return h->watcher && span_eq(nsp, SPAN(HUB_ADMIN)) ? h->watcher : &h->handler;
}

/* ---- namespaces and members ---- */

bool hub_allows(const struct hub *h, struct span nsp);
/* The same for agents: the dashboard's namespace is not theirs. */
bool hub_allows_agents(const struct hub *h, struct span nsp);
/* NULL when nobody is connected to it. */
struct nsp *hub_find(struct hub *h, struct span name);
/* Finds or makes. NULL: too many namespaces, or no memory. */
struct nsp *hub_obtain(struct hub *h, struct span name);

/* Could this namespace be obtained? */
bool hub_has_place(struct hub *h, struct span nsp);

struct hub_newcomer {
    struct session *session;
    struct client *client;
    const char *sid;
    struct directory_entry *entry; /* borrowed; may be NULL */
    struct span user, data;        /* raw JSON, or empty */
};

/* Puts a socket into a namespace; NULL without memory, or when there is one with this sid. */
struct socket *hub_add(struct hub *h, struct nsp *nsp, const struct hub_newcomer *newcomer);
/* The same for a socket of another node. */
struct socket *hub_add_far(struct hub *h, struct nsp *nsp, const char sid[ID_CHARS]);
/* Leaves all rooms and frees it. */
void hub_remove(struct socket *s);
struct socket *nsp_find(struct nsp *nsp, struct span sid);
static inline struct span nsp_name(const struct nsp *nsp)
{
    return (struct span){nsp->name, nsp->name_n};
}

/* 0 (also when it is in the room already), ERR_LIMIT, ERR_MEMORY. */
int room_join(struct socket *s, struct span room);
void room_leave(struct socket *s, struct span room);
/* raw JSON, checked; empty: nobody has said. ERR_MEMORY. */
int socket_set_user(struct socket *s, struct span user);
int socket_set_data(struct socket *s, struct span data);
bool room_has(const struct room *room, const struct socket *s);
struct room *room_find(struct nsp *nsp, struct span name);
static inline uint32_t room_count(const struct room *room)
{
    return room->n - room->holes;
}

/* For walks: between pin and unpin indices stay what they are. */
void room_pin(struct room *room);
void room_unpin(struct room *room);

/* ---- emits ---- */

struct emit {
    struct span nsp;
    const struct span *to; /* rooms or sids; none: the whole namespace */
    unsigned n_to;
    const struct span *except;
    unsigned n_except;
    struct span event; /* raw JSON string */
    struct span args;  /* raw JSON items without brackets; n == 0: none */
    const struct span *attachments;
    unsigned n_attachments;
    bool is_volatile;
    const struct socket *skip; /* the sender, or NULL */
    struct socket *from;       /* the sender, also when it gets it too; NULL: none that is a socket */
    uint32_t origin;           /* of another node's emit: its tag */
    uint64_t number;           /* and number there */
    struct ack_wait *wait;     /* asks every receiver for an acknowledgement, or NULL */
    struct span key;           /* see mesh.md, or empty */
    uint64_t ack_ms; /* receivers on other nodes are asked for an acknowledgement; 0: they are not */
};

/* Encodes once and hands it to every member, in the order of calls. *seq receives the emit's number.
 * Borrows everything for the call only. 0, ERR_MEMORY. */
int hub_emit(struct hub *h, const struct emit *e, uint64_t *seq);

/* To the members on this node only, without a number: what came from another node. */
int hub_deliver(struct hub *h, const struct emit *e);

#endif
