/* The loops of all nodes, in our time: reactors never sleep here. What epoll would wait for tells when a loop has to run
 * again. Random bytes come from the seed, too. Stands in for
 * epoll_wait(), getrandom() and write() of the C library. */
#ifndef STARLING_SIM_LOOP_H
#define STARLING_SIM_LOOP_H

#include "reactor.h"

/* From now on random bytes depend on this only. */
void loop_seed(uint64_t seed);

/* Runs turns until the loop would sleep: when it would wake by itself, UINT64_MAX: never. */
uint64_t loop_run(struct reactor *r);

#endif
