/* The machines that are watched: of each what it said last, whether it is lost, and its history. Bounded in number and
 * in bytes. No I/O and no clock of its own. Reactor's thread only. */
#ifndef STARLING_MACHINES_H
#define STARLING_MACHINES_H

#include "history.h"
#include "machine.h"

struct machines;

enum machines_change {
    MACHINES_DESCRIBED, /* its description is new or another one */
    MACHINES_TICKED,
    MACHINES_LOST,
    MACHINES_BACK,      /* heard again; what was said follows */
    MACHINES_FORGOTTEN, /* it was lost for long, or its place was needed */
};

struct machines_options {
    unsigned max; /* 0: LIMIT_MACHINES */
    /* May be NULL. Called within the functions that change something; must not call them. */
    void (*on_change)(void *context, uint64_t machine, enum machines_change change);
    void *context;
};

/* NULL: no memory. */
struct machines *machines_new(const struct machines_options *o);
void machines_free(struct machines **m);

/* A DESCRIPTION or a TICK, as it came. now_ms: a clock that does not jump; time_ms: since 1970, for the history.
 * 0, ERR_MACHINE, ERR_VERSION, ERR_KIND, ERR_MEMORY, or ERR_LIMIT when there are too many machines that live. */
int machines_take(struct machines *m, uint64_t now_ms, uint64_t time_ms, struct span message);

/* What was kept of one that may not have been heard yet: its description, and blocks of its history. What is known here
 * already stays. One that was not heard is lost; since when its history says. As machines_take(); ERR_LIMIT also when the
 * only place left is that of another. */
int machines_restore(struct machines *m, uint64_t machine, uint64_t now_ms, struct span description);
int machines_restore_history(struct machines *m, uint64_t machine, uint64_t now_ms, uint64_t time_ms,
                             struct span blocks);

/* Says which ones are lost; to be called some times a second. */
void machines_expire(struct machines *m, uint64_t now_ms);

struct machines_row {
    uint64_t machine;
    bool lost;
    uint64_t silent_ms;
    struct span description, tick; /* messages as they came; empty when there was none */
    struct history *history;
};

unsigned machines_count(const struct machines *m);
/* All of them in the order in which they came: index below machines_count(). Lives until something changes. */
void machines_at(const struct machines *m, unsigned index, uint64_t now_ms, struct machines_row *row);
bool machines_find(const struct machines *m, uint64_t machine, uint64_t now_ms, struct machines_row *row);

/* {"machines":[{"id":…,"state":"live"|"lost","silent_ms":…,"description":{…}|null,"tick":{…}|null},…]}.
 * 0 or ERR_MEMORY. */
int machines_json(struct machines *m, uint64_t now_ms, msgpack_sbuffer *b);

#endif
