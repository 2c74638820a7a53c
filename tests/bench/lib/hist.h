/* A histogram of times with a relative error below 1 %, fixed size, no allocation per value. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

#define HIST_OCTAVE 64 /* buckets for each doubling */
#define HIST_SHIFTS 36 /* the longest time is 2^42 ns, over an hour */

struct hist {
    uint64_t count;
    uint64_t buckets[(HIST_SHIFTS + 1) * HIST_OCTAVE];
};

void hist_add(struct hist *h, uint64_t ns);
/* The time in nanoseconds that the given part (0..1) of the values stays at or below; 0 when empty. */
double hist_quantile(const struct hist *h, double part);

#endif
