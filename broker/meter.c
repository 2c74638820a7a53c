#include "meter.h"
#include <string.h>

enum { SECOND_MS = 1000, FIRST_BITS = 3 };

static void move_second(struct meter *m, uint64_t now_ms)
{
    uint64_t second = now_ms / SECOND_MS;
    if (second == m->second)
        return;
    m->begun_before = second == m->second + 1 ? m->begun : 0;
    m->begun = 0;
    m->second = second;
}

static void move_window(struct meter *m, uint64_t now_ms)
{
    uint64_t window = now_ms / METER_WINDOW_MS;
    if (window == m->window)
        return;
    if (window == m->window + 1)
        memcpy(m->took[1], m->took[0], sizeof(m->took[0]));
    else
        memset(m->took[1], 0, sizeof(m->took[1]));
    memset(m->took[0], 0, sizeof(m->took[0]));
    m->window = window;
}

void meter_begun(struct meter *m, uint64_t now_ms)
{
    move_second(m, now_ms);
    m->begun++;
}

/* The first eight hold one value each; from there on the three bits behind the highest one tell which. */
static unsigned bucket_of(uint64_t us)
{
    if (us < 1u << FIRST_BITS)
        return (unsigned)us;
    unsigned shift = 63 - (unsigned)__builtin_clzll(us) - FIRST_BITS;
    unsigned bucket = (shift << FIRST_BITS) + (unsigned)(us >> shift);
    return bucket < METER_BUCKETS ? bucket : METER_BUCKETS - 1;
}

static uint64_t middle_of(unsigned bucket)
{
    if (bucket < 2u << FIRST_BITS)
        return bucket;
    unsigned shift = (bucket >> FIRST_BITS) - 1;
    uint64_t from = (uint64_t)(bucket - (shift << FIRST_BITS)) << shift;
    return from + (UINT64_C(1) << shift) / 2;
}

void meter_took(struct meter *m, uint64_t now_ms, uint64_t us)
{
    move_window(m, now_ms);
    m->took[0][bucket_of(us)]++;
}

uint32_t meter_rate(struct meter *m, uint64_t now_ms)
{
    move_second(m, now_ms);
    return m->begun_before;
}

uint64_t meter_quantile_us(struct meter *m, uint64_t now_ms, unsigned percent)
{
    uint64_t all = 0, seen = 0;
    move_window(m, now_ms);
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        all += m->took[0][i] + m->took[1][i];
    uint64_t wanted = (all * percent + 99) / 100;
    for (unsigned i = 0; i < METER_BUCKETS && all > 0; i++) {
        seen += m->took[0][i] + m->took[1][i];
        if (seen >= wanted)
            return middle_of(i) > 0 ? middle_of(i) : 1;
    }
    return 0;
}
