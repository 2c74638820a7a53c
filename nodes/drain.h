/* Empties a node whose place another one takes: its doors close, and its clients are sent off at a paced rate, by a
 * closed transport and without a word of Socket.IO, so that the stock client reconnects by itself. Reactor's thread
 * only. */
#ifndef STARLING_DRAIN_H
#define STARLING_DRAIN_H

#include "engine.h"
#include "front.h"

struct drain {
    struct reactor *reactor;
    struct engine *engine;
    uint32_t per_second;
    void (*on_done)(void *user); /* nobody is left */
    void *user;
    struct timer timer;
    uint64_t started_ms, empty_ms; /* 0: not yet */
    uint32_t credit;               /* thousandths of a session */
};

/* The caller sets the fields from reactor to user. */
void drain_start(struct drain *drain, struct front *front);
void drain_stop(struct drain *drain);

#endif
