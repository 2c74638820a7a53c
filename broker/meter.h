/* How calls go: how many a second, and how long their answers take. Constant memory, no timer: it moves on when it is
 * told or asked something. Pure functions; now_ms never goes back. */
#ifndef STARLING_METER_H
#define STARLING_METER_H

#include <stdint.h>

enum {
    METER_WINDOW_MS = 30000, /* quantiles are of this window and the one before */
    METER_BUCKETS = 8 * 36,  /* eight for each power of two of microseconds: up to 19 hours */
};

struct meter {
    uint64_t second, window;         /* that are counted now */
    uint32_t begun, begun_before;    /* in this second, and in the one before */
    uint32_t took[2][METER_BUCKETS]; /* in this window, and in the one before */
};

/* A call begins. */
void meter_begun(struct meter *m, uint64_t now_ms);
/* One has been answered. */
void meter_took(struct meter *m, uint64_t now_ms, uint64_t us);

/* That began within the last whole second. */
uint32_t meter_rate(struct meter *m, uint64_t now_ms);
/* percent of the answers took no longer, give or take 7 %; 0: there were none. */
uint64_t meter_quantile_us(struct meter *m, uint64_t now_ms, unsigned percent);

#endif
