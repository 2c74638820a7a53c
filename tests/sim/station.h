/* A node of the simulation: the production parts put together as nodes/node.c and nodes/persist.c do it, over a link, a
 * store and a clock that are not real. It is started, killed, stopped and frozen. */
#ifndef STARLING_SIM_STATION_H
#define STARLING_SIM_STATION_H

#include "cluster.h"
#include "directory.h"
#include "fakenet.h"
#include "hub.h"
#include "membership.h"
#include "mirror.h"
#include "peers.h"
#include "recovery.h"
#include "store_memory.h"
#include "truth.h"

struct sim;

/* What it had said at some time; a ring. */
enum { SAID = 6 };
struct said {
    uint64_t at_ms, newest;
};

struct station {
    struct sim *sim;
    unsigned index, origin; /* origin: in the truth */
    bool is_up, is_ready, is_stopping;
    bool store_is_up, is_resigning, has_resigned;
    struct mesh_origin self;
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct engine *engine;
    struct cluster *cluster;
    struct peers *peers;
    struct store_memory_client *client;
    struct store store;
    struct store_member member;
    struct mirror *mirror;
    struct membership *membership;
    struct directory *directory;
    struct recovery *recovery;
    struct peers_user peers_user; /* the cluster's; ours stands before it */
    uint64_t wakes_ms;
    bool is_touched;          /* something was given to it since its loop ran */
    uint64_t met_ms[ORIGINS]; /* when something of that origin was first taken here; 0: never */
    struct said said[SAID];
    unsigned n_said;
    uint64_t thawed_ms;
    uint64_t starts_ms; /* while it is down */
    uint64_t ends_ms;   /* at the latest, while it is stopping */
    char name[16], text[40];
};

void station_start(struct station *s);
/* As by SIGKILL. */
void station_kill(struct station *s);
/* Told to end: it tells its clients and the store. It is up until that is done. */
void station_stop(struct station *s);
void station_freeze(struct station *s, bool is_frozen);
bool station_is_frozen(const struct station *s);
/* Does it take clients? */
bool station_is_open(const struct station *s);

/* Its loop, when there is something to do. */
void station_run(struct station *s);
uint64_t station_next_ms(const struct station *s);

/* An emit of no client. */
void station_emit(struct station *s, struct truth_emit *e);

#endif
