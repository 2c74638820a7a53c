/* A link between a client and a node: bytes are under way for a while in both directions, wait while the node is frozen,
 * and are lost with it. The client may have left it while the node still believes in it. */
#ifndef STARLING_SIM_CONN_H
#define STARLING_SIM_CONN_H

#include "sink.h"
#include "truth.h"

struct parcel;
struct player;
struct sim;
struct station;

struct conn {
    struct sink sink; /* first: it is the session's link */
    struct conn *next;
    struct sim *sim;
    struct player *player;   /* NULL: it has left */
    struct station *station; /* NULL: it was killed */
    bool is_plain;
    unsigned latency_ms;
    uint64_t read_ms;    /* when the client reads what has come; 0: nothing has */
    uint64_t stalled_ms; /* until then it does not read */
    uint64_t broken_ms;  /* when the client learns that the node is gone; 0: it is not */
    struct parcel *first, **end;
};

struct conn *conn_open(struct player *p, struct station *station);
/* The client goes; after_ms: when the node is told. UINT64_MAX: it is not. */
void conn_leave(struct conn *c, uint64_t after_ms);

/* To the node: a message (of this emit, or NULL), or the answer to a ping. */
void conn_say(struct conn *c, struct span text, struct truth_emit *e);
void conn_pong(struct conn *c);
/* The client reads nothing until then. */
void conn_stall(struct conn *c, uint64_t until_ms);

/* Does the client read now? Then sink_next() has what has come. */
bool conn_is_readable(struct conn *c);
/* All is read. True: the node has closed it, or is known to be gone. */
bool conn_is_over(struct conn *c);
uint64_t conn_client_next_ms(struct conn *c);
/* Has everything that was said arrived? */
bool conn_is_quiet(const struct conn *c);

/* ---- all of them ---- */

/* The node is killed: its clients learn of it a little later. */
void conn_break_all(struct sim *sim, const struct station *station);
/* What is due at the nodes. */
void conn_run_all(struct sim *sim);
uint64_t conn_next_ms(const struct sim *sim);
void conn_free_all(struct sim *sim);

#endif
