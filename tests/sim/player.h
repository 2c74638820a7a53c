/* A client: one connection at a time to some node, over a link that takes time in both directions and breaks in every
 * way, and a seat in each namespace. Behaves as the stock client: when its connection ends it comes back, to any node,
 * and says which session it had and how far it was. */
#ifndef STARLING_SIM_PLAYER_H
#define STARLING_SIM_PLAYER_H

#include "conn.h"
#include "seat.h"

enum { PLAYERS = 16 };

struct sim;

struct player {
    struct sim *sim;
    unsigned index;
    struct conn *conn; /* NULL: away */
    bool is_plain;
    uint64_t returns_ms; /* when it tries again */
    uint64_t heard_ms;
    struct seat seat[NAMESPACES];
};

/* CLOSE: the node is told; SILENT: late, or never. */
enum drop { DROP_CLOSE, DROP_SILENT, DROPS };

void player_init(struct player *p, struct sim *sim, unsigned index);

/* What is due at this time, in both directions. */
void player_run(struct player *p);
uint64_t player_next_ms(const struct player *p);

void player_drop(struct player *p, enum drop how);
/* Does not read for a while. */
void player_stall(struct player *p, uint64_t until_ms);
void player_change(struct player *p, unsigned nsp, unsigned room, bool joins);
void player_emit(struct player *p, unsigned nsp, struct truth_emit *e, bool echo, unsigned padding);
void player_enter(struct player *p, unsigned nsp);
void player_quit(struct player *p, unsigned nsp);
/* Everything that it wants is there, and nothing is under way. */
bool player_is_settled(const struct player *p);

#endif
