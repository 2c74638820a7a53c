/* What relay.c (connections) and relay_move.c (sessions that follow theirs) share. Nobody else includes this. */
#ifndef STARLING_RELAY_PRIVATE_H
#define STARLING_RELAY_PRIVATE_H

#include "mp.h"
#include "relay.h"

enum { SAY_OPEN = 1, SAY_DATA = 2, SAY_TAKEN = 3, SAY_CLOSE = 4, SAY_MOVE = 5 };

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
    UT_hash_handle hh;
};

struct relay {
    struct reactor *reactor;
    struct cluster *cluster;
    struct front *front;
    struct tunnel *tunnels;
    struct moved *moved, *oldest_moved, *youngest_moved; /* relay_move.c's */
    uint64_t next_id, next_number;
    msgpack_sbuffer scratch;
};

/* ---- relay.c ---- */

/* A message about this tunnel: begin, put the other elements, say. */
void tunnel_begin(struct tunnel *t, struct mp_writer *w, size_t elements, unsigned what);
int tunnel_say(struct tunnel *t, struct mp_writer *w);
void tunnel_say_close(struct tunnel *t);
struct tunnel *tunnel_find(struct relay *r, struct mesh_origin peer, uint64_t id, bool is_mine);
/* The connection may live on. */
void tunnel_free(struct tunnel *t);

/* ---- relay_move.c ---- */

void relay_on_move_time(struct timer *timer);
void relay_on_move(struct relay *r, struct mesh_origin from, uint64_t id, struct mp_cursor *m);
void relay_forget_moved(struct relay *r);

#endif
