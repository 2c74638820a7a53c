/* What of a node outlives it, put together: the store, the mirror and the lease there, the directory of sessions and
 * their recovery. Reactor's thread only. */
#ifndef STARLING_PERSIST_H
#define STARLING_PERSIST_H

#include "cluster.h"
#include "config.h"
#include "hub.h"
#include "machine_redis.h"
#include "peers.h"
#include "store.h"
#include <stdatomic.h>

struct persist;

struct persist_parts {
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct cluster *cluster;
    struct peers *peers;
    const struct config *config; /* borrowed */
    struct store_member self;    /* borrowed */
    /* All that the store had is read, or there is no store: the mesh may start. From persist_start() or later. */
    void (*on_start)(void *user);
    /* This node must not go on; it has been logged why. */
    void (*on_failed)(void *user);
    void *user;
};

/* How the store is, for other threads. */
enum persist_state { PERSIST_NONE, PERSIST_DOWN, PERSIST_REFUSES, PERSIST_UP };

/* Does a node with these options have anything to keep? */
/* How long a client may be away; 0: recovery is off. */
uint64_t persist_window_ms(const struct config *c);
bool persist_is_wanted(const struct config *c);
bool persist_recovers(const struct config *c);
/* How long what is said has to be kept for those who come back. */
uint64_t persist_keep_ms(const struct config *c);

/* Keeps what is known of machines in the store from now on, until this is called with NULL. What it is to be told of
 * them; NULL: there is no store, or no memory. */
struct machine_redis *persist_keep_machines(struct persist *p, struct machines *machines);

struct persist *persist_new(const struct persist_parts *parts);
void persist_start(struct persist *p);
/* The node goes, and everything has been said: the store is told. */
void persist_stop(struct persist *p);
/* To be asked again and again after that: everything is in the store, or it cannot be reached. */
bool persist_is_stopped(struct persist *p);
/* Before hub, cluster and peers are freed. */
void persist_free(struct persist **p);

const atomic_int *persist_state(const struct persist *p);

#endif
