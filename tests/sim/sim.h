/* One run: nodes, clients, a store, links and a clock, all from one seed. */
#ifndef STARLING_SIM_H
#define STARLING_SIM_H

#include "faults.h"
#include "player.h"
#include "station.h"
#include "store_memory.h"
#include "truth.h"

enum { STATIONS = NET_NODES };

/* What a seed decides about a run. */
struct plan {
    unsigned n_stations, n_players;
    unsigned chaos_ms;
    unsigned pace_ms;  /* between two things that happen, at most */
    unsigned troubles; /* kinds of faults that occur, a bit each */
    unsigned trouble_every_ms;
    uint64_t window_ms;
    uint32_t ping_interval_ms, ping_timeout_ms, peer_timeout_ms;
    uint64_t ring_bytes;
    uint32_t queue_bytes, queue_messages;
    unsigned link_delay_ms;
    bool keeps_order;
    enum { NAMES_ALL, NAMES_ONE, NAMES_NONE } names; /* whom a node is told of */
};

struct sim {
    uint64_t seed;
    bool is_verbose, has_failed;
    char why[512];
    struct plan plan;
    struct net net;
    struct store_memory *memory;
    struct station station[STATIONS];
    struct player player[PLAYERS];
    struct conn *conns;
    struct fault faults[FAULTS];
    unsigned n_faults;
    uint64_t clean_ms[STATIONS][STATIONS]; /* since when a way has no fault; UINT64_MAX: it has one */
    struct truth truth;
    /* ---- counted, for who wants to know what a run was like ---- */
    unsigned recoveries, reads, fresh, gaps, misjudged, kills, steps, packets;
};

/* True: all that must hold held. */
bool sim_run(struct sim *sim, uint64_t seed);

__attribute__((format(printf, 2, 3))) void sim_fail(struct sim *sim, const char *format, ...);
/* Of interest when a seed is looked at. */
__attribute__((format(printf, 2, 3))) void sim_say(struct sim *sim, const char *format, ...);

static inline unsigned sim_draw(struct sim *sim, unsigned below)
{
    return (unsigned)net_draw(&sim->net, below);
}
static inline bool sim_chance(struct sim *sim, unsigned of_1000)
{
    return sim_draw(sim, 1000) < of_1000;
}

/* ---- verdict.c ---- */

/* At any time. */
void verdict_check(struct sim *sim);
/* Does everybody know everybody, and is every client where it wants to be? */
bool verdict_is_settled(struct sim *sim);
/* Who does not. */
void verdict_tell(struct sim *sim);
/* Has everything come that anybody has said? */
bool verdict_all_have_all(struct sim *sim);
/* Everything is healed and quiet. */
void verdict_check_end(struct sim *sim);

#endif
