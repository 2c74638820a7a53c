/* Troubles: each begins at some time and ends at another. How the links are follows from those that are on. */
#ifndef STARLING_SIM_FAULTS_H
#define STARLING_SIM_FAULTS_H

#include "fakenet.h"

enum { FAULTS = 16 };

enum trouble {
    TROUBLE_KILL,
    TROUBLE_STOP,
    TROUBLE_FREEZE,
    TROUBLE_PARTITION,
    TROUBLE_CUT,   /* one way */
    TROUBLE_LOSS,  /* of one way, with doubles and delays */
    TROUBLE_NOISE, /* of all ways */
    TROUBLE_AWAY,  /* the store */
    TROUBLE_STORE_CUT,
    TROUBLE_SLOW, /* the store */
    TROUBLE_FULL,
    TROUBLE_FORGETS, /* the store, all of it */
    TROUBLE_DROP,
    TROUBLE_STALL,
    TROUBLES
};

struct fault {
    enum trouble trouble;
    uint64_t until_ms;
    unsigned a, b;   /* stations */
    unsigned groups; /* of a partition: a bit for each station */
    struct net_way way;
};

struct sim;

/* One more trouble begins. */
void faults_begin(struct sim *sim);
/* What is over ends. */
void faults_run(struct sim *sim);
uint64_t faults_next_ms(const struct sim *sim);
/* All end. */
void faults_heal(struct sim *sim);

#endif
