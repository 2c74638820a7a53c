/* Counters of the kernel as rates between two samples. */
#ifndef STARLING_RATE_H
#define STARLING_RATE_H

#include "machine.h"
#include <stdint.h>

/* A counter of 32 bits may have wrapped when it was in its upper half and is now in its lower one. Any other that goes
 * back has begun anew: what it counted meanwhile is not known. */
static inline uint64_t rate_delta(uint64_t before, uint64_t now)
{
    if (now >= before)
        return now - before;
    if (before <= UINT32_MAX && before > UINT32_MAX / 2 && now <= UINT32_MAX / 2)
        return now + (UINT64_C(1) << 32) - before;
    return 0;
}

/* a * b / c without overflow for what occurs here, and 0 when there is no c. */
static inline uint64_t rate_scale(uint64_t a, uint64_t b, uint64_t c)
{
    return c == 0 ? 0 : (uint64_t)((double)a * (double)b / (double)c);
}

static inline uint64_t rate_per_s(uint64_t before, uint64_t now, uint64_t elapsed_us)
{
    return rate_scale(rate_delta(before, now), 1000000, elapsed_us);
}

/* Part of a whole, in hundredths of a percent. */
static inline uint64_t rate_share(uint64_t part, uint64_t whole)
{
    return part >= whole ? (whole == 0 ? 0 : MACHINE_WHOLE) : rate_scale(part, MACHINE_WHOLE, whole);
}

#endif
