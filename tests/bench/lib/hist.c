#include "hist.h"

#include <stddef.h>

#define BUCKETS (sizeof(((struct hist *)0)->buckets) / sizeof(uint64_t))

/* Values below two octaves have a bucket each; above, the top seven bits choose. */
static size_t bucket_of(uint64_t ns)
{
    unsigned shift = ns < 2 * HIST_OCTAVE ? 0 : 57 - (unsigned)__builtin_clzll(ns);
    size_t i = (size_t)shift * HIST_OCTAVE + (size_t)(ns >> shift);
    return i < BUCKETS ? i : BUCKETS - 1;
}

static double middle_of(size_t i)
{
    if (i < 2 * HIST_OCTAVE)
        return (double)i;
    size_t shift = i / HIST_OCTAVE - 1;
    uint64_t low = (uint64_t)(i - shift * HIST_OCTAVE) << shift;
    return (double)low + (double)(UINT64_C(1) << shift) / 2;
}

void hist_add(struct hist *h, uint64_t ns)
{
    h->count++;
    h->buckets[bucket_of(ns)]++;
}

double hist_quantile(const struct hist *h, double part)
{
    double due = part * (double)h->count;
    double seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += (double)h->buckets[i];
        if (h->buckets[i] && seen >= due)
            return middle_of(i);
    }
    return 0;
}
