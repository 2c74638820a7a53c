/* A node's counters, gauges and histograms (metrics.def), and their Prometheus text.
 * One writer: the reactor's thread. Any thread may render them. */
#ifndef STARLING_METRICS_H
#define STARLING_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum metric {
#define X(kind, name, prom, labels, help) METRIC_##name,
#include "metrics.def"
#undef X
    METRIC_COUNT
};

#define METRIC_BUCKETS 12 /* powers of four microseconds: 16 us … 67 s, and the rest */

struct metric_histogram {
    _Atomic uint64_t bucket[METRIC_BUCKETS + 1];
    _Atomic uint64_t sum_us;
};

struct metrics {
    _Atomic uint64_t value[METRIC_COUNT];
    struct metric_histogram *histogram[METRIC_COUNT]; /* NULL for the other kinds */
};

struct metrics *metrics_new(void);
void metrics_free(struct metrics **m);

static inline void metrics_add(struct metrics *m, enum metric which, uint64_t n)
{
    atomic_store_explicit(&m->value[which], atomic_load_explicit(&m->value[which], memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void metrics_sub(struct metrics *m, enum metric which, uint64_t n)
{
    metrics_add(m, which, (uint64_t)0 - n);
}

static inline void metrics_set(struct metrics *m, enum metric which, uint64_t v)
{
    atomic_store_explicit(&m->value[which], v, memory_order_relaxed);
}

static inline uint64_t metrics_get(const struct metrics *m, enum metric which)
{
    return atomic_load_explicit(&m->value[which], memory_order_relaxed);
}

void metrics_observe_us(struct metrics *m, enum metric which, uint64_t us);

/* Prometheus text, HELP and TYPE once for each name, process metrics (process_cpu_seconds_total from getrusage,
 * process_resident_memory_bytes, process_open_fds, process_start_time_seconds) at the end. malloc()ed, NULL without memory. */
char *metrics_render(const struct metrics *m, size_t *n);

#endif
