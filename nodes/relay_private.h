/* What relay.c (connections) and relay_move.c (sessions that follow theirs) share. Nobody else includes this. */
#ifndef STARLING_RELAY_PRIVATE_H
#define STARLING_RELAY_PRIVATE_H

#include "relay.h"
#include "relay_message.h"

struct tunnel_key {
    struct mesh_origin peer;
    uint64_t id;
    uint64_t is_mine; /* opened here */
};

struct tunnel {
    struct relay *relay;
    struct tunnel_key key;
    struct conn *conn;
    uint64_t sent, sent_taken; /* bytes to the peer; of these it has handed on */
    uint64_t got;              /* bytes from the peer */
    uint64_t handed_on;        /* of these, said to be TAKEN */
    struct buffer kept; /* opened here: what was sent and is not TAKEN, should it have to be read again */
    uint64_t number;    /* the owner's: of the inner half */
    char sid[ID_CHARS]; /* of the session that is to move */
    unsigned tries;
    struct timer move;
    UT_hash_handle hh, hh_number;
};

struct relay {
    struct reactor *reactor;
    struct cluster *cluster;
    struct front *front;
    struct tunnel *tunnels, *numbered; /* numbered: those that others have opened, by number */
    struct moved *moved, *oldest_moved, *youngest_moved; /* relay_move.c's */
    uint64_t next_id, next_number;
    struct relay_message message; /* large: one is enough */
    msgpack_sbuffer scratch;
};

/* ---- relay.c ---- */

/* Says this about the tunnel; its id is put in. */
int tunnel_say(const struct tunnel *t, struct relay_message *m);
void tunnel_say_close(const struct tunnel *t);
struct tunnel *tunnel_find(struct relay *r, struct mesh_origin peer, uint64_t id, bool is_mine);
/* The connection may live on. */
void tunnel_free(struct tunnel *t);

/* ---- relay_move.c ---- */

void relay_on_move_time(struct timer *timer);
void relay_on_move(struct relay *r, struct mesh_origin from, const struct relay_message *m);
void relay_forget_moved(struct relay *r);

#endif
