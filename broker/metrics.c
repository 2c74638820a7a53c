#include "metrics.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum kind { COUNTER, GAUGE, HISTOGRAM };

static const struct {
    enum kind kind;
    const char *name, *labels, *help;
} table[METRIC_COUNT] = {
#define X(kind, name, prom, labels, help) {kind, prom, labels, help},
#include "metrics.def"
#undef X
};

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        if (table[i].kind != HISTOGRAM)
            continue;
        m->histogram[i] = calloc(1, sizeof *m->histogram[i]);
        if (!m->histogram[i]) {
            metrics_free(&m);
            return NULL;
        }
    }
    return m;
}

void metrics_free(struct metrics **m)
{
    if (!*m)
        return;
    for (size_t i = 0; i < METRIC_COUNT; i++)
        free((*m)->histogram[i]);
    free(*m);
    *m = NULL;
}

static uint64_t bucket_bound_us(unsigned bucket)
{
    return UINT64_C(16) << (2 * bucket);
}

/* The first bucket whose bound is not below us; METRIC_BUCKETS beyond the last. */
static unsigned bucket_of(uint64_t us)
{
    unsigned bits, bucket;

    if (us <= bucket_bound_us(0))
        return 0;
    bits = 64 - (unsigned)__builtin_clzll(us - 1); /* the least with us <= 2^bits */
    bucket = (bits - 4 + 1) / 2;
    return bucket < METRIC_BUCKETS ? bucket : METRIC_BUCKETS;
}

/* The only writer, so reading and writing back loses nothing. */
static void increase(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n, memory_order_relaxed);
}

void metrics_observe_us(struct metrics *m, enum metric which, uint64_t us)
{
    increase(&m->histogram[which]->bucket[bucket_of(us)], 1);
    increase(&m->histogram[which]->sum_us, us);
}

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_labels(FILE *out, const char *labels)
{
    if (*labels)
        fprintf(out, "{%s}", labels);
}

static void print_seconds(FILE *out, uint64_t us)
{
    fprintf(out, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

/* The count is that of the buckets just printed: a scrape is consistent though the writer goes on meanwhile.
 */
static void print_histogram(FILE *out, const char *name, const char *labels, const struct metric_histogram *h)
{
    const char *comma = *labels ? "," : "";
    uint64_t count = 0;

    for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
        count += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        fprintf(out, "%s_bucket{%s%sle=\"", name, labels, comma);
        if (i < METRIC_BUCKETS)
            print_seconds(out, bucket_bound_us(i));
        else
            fputs("+Inf", out);
        fprintf(out, "\"} %" PRIu64 "\n", count);
    }
    fprintf(out, "%s_sum", name);
    print_labels(out, labels);
    fputc(' ', out);
    print_seconds(out, atomic_load_explicit(&h->sum_us, memory_order_relaxed));
    fprintf(out, "\n%s_count", name);
    print_labels(out, labels);
    fprintf(out, " %" PRIu64 "\n", count);
}

static void print_metric(FILE *out, const struct metrics *m, enum metric which)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const char *name = table[which].name;

    if (which == 0 || strcmp(name, table[which - 1].name) != 0)
        print_head(out, name, types[table[which].kind], table[which].help);
    if (table[which].kind == HISTOGRAM) {
        print_histogram(out, name, table[which].labels, m->histogram[which]);
        return;
    }
    fputs(name, out);
    print_labels(out, table[which].labels);
    if (table[which].kind == GAUGE)
        fprintf(out, " %" PRId64 "\n", (int64_t)metrics_get(m, which));
    else
        fprintf(out, " %" PRIu64 "\n", metrics_get(m, which));
}

static void print_cpu(FILE *out)
{
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    print_head(out, "process_cpu_seconds_total", "counter", "User and system time of the process.");
    fputs("process_cpu_seconds_total ", out);
    print_seconds(out, (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec));
    fputc('\n', out);
}

static void print_memory(FILE *out)
{
    FILE *statm = fopen("/proc/self/statm", "re");
    uint64_t pages;

    if (!statm)
        return;
    if (fscanf(statm, "%*u %" SCNu64, &pages) == 1) {
        print_head(out, "process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.");
        fprintf(out, "process_resident_memory_bytes %" PRIu64 "\n", pages * (uint64_t)sysconf(_SC_PAGESIZE));
    }
    fclose(statm);
}

static void print_open_fds(FILE *out)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        n += entry->d_name[0] != '.';
    closedir(dir);
    print_head(out, "process_open_fds", "gauge", "Open descriptors.");
    fprintf(out, "process_open_fds %u\n", n - 1); /* without the directory's own */
}

/* Seconds since 1970 at which the machine started. */
static bool read_boot_time(uint64_t *seconds)
{
    FILE *stat = fopen("/proc/stat", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (!stat)
        return false;
    while (!found && getline(&line, &size, stat) > 0)
        found = sscanf(line, "btime %" SCNu64, seconds) == 1;
    free(line);
    fclose(stat);
    return found;
}

/* Ticks from the machine's start to that of the process: the 22nd field, the 20th after the name, which is in
 * brackets and may hold any character. */
static bool read_start_ticks(uint64_t *ticks)
{
    FILE *stat = fopen("/proc/self/stat", "re");
    char text[1024];
    size_t n;

    if (!stat)
        return false;
    n = fread(text, 1, sizeof text - 1, stat);
    fclose(stat);
    text[n] = '\0';

    char *field = strrchr(text, ')');
    for (int i = 0; field && i < 20; i++)
        field = strchr(field + 1, ' ');
    return field && sscanf(field, "%" SCNu64, ticks) == 1;
}

static void print_start_time(FILE *out)
{
    uint64_t boot, ticks, hertz = (uint64_t)sysconf(_SC_CLK_TCK);

    if (!read_boot_time(&boot) || !read_start_ticks(&ticks))
        return;
    print_head(out, "process_start_time_seconds", "gauge",
               "When the process started, in seconds since 1970.");
    fprintf(out, "process_start_time_seconds %" PRIu64 ".%02" PRIu64 "\n", boot + ticks / hertz,
            ticks % hertz * 100 / hertz);
}

char *metrics_render(const struct metrics *m, size_t *n)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, n);
    bool failed;

    if (!out)
        return NULL;
    for (enum metric i = 0; i < METRIC_COUNT; i++)
        print_metric(out, m, i);
    print_cpu(out);
    print_memory(out);
    print_open_fds(out);
    print_start_time(out);
    failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
