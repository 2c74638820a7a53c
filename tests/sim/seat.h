/* One client's presence in one namespace, as the client knows it: what the stock client remembers (pid and offset), and
 * what it has been given since its session began, held against the truth.
 *
 * Each offset that comes says that everything up to it is there: what lies between two offsets and was for this client
 * must have come by then, unless a gap was told. Whether an emit was for it depends on its rooms, which are certain
 * from the acknowledgement of a join or leave until the next one is asked for. */
#ifndef STARLING_SIM_SEAT_H
#define STARLING_SIM_SEAT_H

#include "id.h"
#include "limit.h"
#include "truth.h"

enum { GAPS = 256, ASKED = 32 };

enum seat_state { SEAT_OUT, SEAT_ASKED, SEAT_IN };
enum room_state { ROOM_OUT, ROOM_IN, ROOM_MAYBE };

struct sim;

struct seat {
    struct sim *sim;
    unsigned player, nsp;
    enum seat_state state;
    bool is_wanted;
    bool is_plain; /* takes no offsets: cannot be recovered */
    /* ---- the stock client ---- */
    char sid[ID_CHARS + 1], pid[ID_CHARS + 1];
    char offset[LIMIT_OFFSET_BYTES + 1]; /* last argument of the last event, when it was a string */
    bool is_poisoned;                    /* that string is no offset */
    /* ---- this session, also while it is recovered ---- */
    bool has_base;
    uint64_t begun_ms;
    uint64_t packets, offset_packet; /* how many have come; which one had the last offset */
    uint64_t have[ORIGINS];          /* by offsets */
    unsigned checked[ORIGINS];       /* emits of that origin */
    uint64_t last[ORIGINS];          /* number of the last emit that came */
    uint64_t misjudged[ORIGINS];     /* up to here it may come again: take_misjudged() */
    uint8_t came[EMITS / 8];
    struct seat_room {
        enum room_state state;
        uint64_t since_packet;
        unsigned asked; /* answers that are owed */
    } room[ROOMS];
    unsigned n_gaps;
    struct seat_gap {
        unsigned origin;
        uint64_t first, last;
    } gap[GAPS];
    /* ---- of this connection ---- */
    uint64_t next_id;
    struct seat_asked {
        uint64_t id;
        unsigned room;
        bool joins;
    } asked[ASKED];
    unsigned n_asked;
    unsigned recoveries; /* in the whole run */
};

/* Text of a CONNECT. */
size_t seat_write_connect(struct seat *s, char *dst, size_t cap);
/* Of a join or leave; 0: too many are unanswered. */
size_t seat_write_change(struct seat *s, unsigned room, bool joins, char *dst, size_t cap);
/* The connection has ended. */
void seat_leave(struct seat *s);

/* ---- packets ---- */

void seat_on_connect(struct seat *s, struct span payload);
void seat_on_event(struct seat *s, struct span payload);
void seat_on_ack(struct seat *s, uint64_t id, struct span payload);

/* Everything is quiet: what could come has come. */
void seat_check_end(struct seat *s);

const char *seat_nsp_name(unsigned nsp);

#endif
