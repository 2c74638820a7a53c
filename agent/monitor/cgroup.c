#include "cgroup.h"
#include "rate.h"
#include "source.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_BYTES = 16384, US_PER_S = 1000000 };

/* Of the group that sets the limit. */
struct usage {
    uint64_t user_us, system_us, periods, throttled;
};

struct cgroup {
    int root;
    bool is_v2;
    uint64_t cpu_milli, memory_bytes; /* 0: none */
    char cpu_dir[PATH_MAX], memory_dir[PATH_MAX];
    struct usage before;
    bool sampled;
    char text[TEXT_BYTES];
};

struct cgroup *cgroup_new(int root)
{
    struct cgroup *g = calloc(1, sizeof(*g));
    if (g)
        g->root = root;
    return g;
}

void cgroup_free(struct cgroup **g)
{
    free(*g);
    *g = NULL;
}

/* The path of this process in the hierarchy of a controller; NULL for that of version 2. "" when there is none, or it
 * lies outside of what can be seen. */
static void own_path(struct cgroup *g, const char *controller, char path[PATH_MAX])
{
    struct span line;
    const char *p = g->text;
    path[0] = '\0';
    source_read_once(g->root, g->text, sizeof(g->text), "proc/self/cgroup");
    while (source_line(&p, &line)) {
        const char *first = memchr(line.p, ':', line.n), *end = line.p + line.n;
        const char *second = first ? memchr(first + 1, ':', (size_t)(end - first - 1)) : NULL;
        char names[128];
        if (!second || second - first > (ptrdiff_t)sizeof(names) || end - second > PATH_MAX)
            continue;
        snprintf(names, sizeof(names), "%.*s", (int)(second - first - 1), first + 1);
        bool mine = controller ? span_in_list(names, span_of(controller)) : names[0] == '\0';
        if (mine)
            snprintf(path, PATH_MAX, "%.*s", (int)(end - second - 1), second + 1);
    }
    if (strstr(path, "/.."))
        path[0] = '\0';
}

/* One level up: false at the top. */
static bool cut_last(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return true;
}

static bool is_service(const char *path)
{
    static const char end[] = ".service";
    size_t n = strlen(path);
    return n >= sizeof(end) - 1 && strcmp(path + n - (sizeof(end) - 1), end) == 0;
}

/* A number in a file of one line; UINT64_MAX for "max", "-1" or no such file. */
static uint64_t read_number(struct cgroup *g, const char *dir, const char *file)
{
    if (source_read_once(g->root, g->text, sizeof(g->text), "%s/%s", dir, file) <= 0 || g->text[0] < '0' ||
        g->text[0] > '9')
        return UINT64_MAX;
    struct span line = span_of(g->text);
    return source_number(&line);
}

static uint64_t cpu_limit(struct cgroup *g, const char *dir)
{
    uint64_t quota, period;
    if (g->is_v2) {
        quota = read_number(g, dir, "cpu.max"); /* and the period behind it */
        struct span line = span_of(g->text);
        source_word(&line);
        period = quota == UINT64_MAX ? 0 : source_number(&line);
    } else {
        quota = read_number(g, dir, "cpu.cfs_quota_us");
        period = quota == UINT64_MAX ? 0 : read_number(g, dir, "cpu.cfs_period_us");
    }
    if (period == 0 || period == UINT64_MAX)
        return UINT64_MAX;
    uint64_t milli = rate_scale(quota, 1000, period);
    return milli == 0 ? 1 : milli;
}

static uint64_t memory_limit(struct cgroup *g, const char *dir)
{
    return read_number(g, dir, g->is_v2 ? "memory.max" : "memory.limit_in_bytes");
}

/* The lowest limit below `host` of this process's group and those above it, and whose it is. 0: none. */
static uint64_t find_limit(struct cgroup *g, const char *controller, uint64_t host, char *dir,
                           uint64_t (*read)(struct cgroup *, const char *))
{
    static const char base[] = "sys/fs/cgroup";
    char path[PATH_MAX], here[PATH_MAX + sizeof(base) + 32];
    uint64_t lowest = host;
    own_path(g, g->is_v2 ? NULL : controller, path);
    do {
        int n = g->is_v2 ? snprintf(here, sizeof(here), "%s%s", base, path)
                         : snprintf(here, sizeof(here), "%s/%s%s", base, controller, path);
        uint64_t limit = n < PATH_MAX && !is_service(path) ? read(g, here) : UINT64_MAX;
        if (limit < lowest) {
            lowest = limit;
            memcpy(dir, here, (size_t)n + 1);
        }
    } while (cut_last(path));
    return lowest < host ? lowest : 0;
}

void cgroup_refresh(struct cgroup *g, uint64_t host_cpus_milli, uint64_t host_memory_bytes)
{
    char before[PATH_MAX];
    memcpy(before, g->cpu_dir, sizeof(before));
    g->is_v2 = source_exists(g->root, "sys/fs/cgroup/cgroup.controllers");
    g->cpu_dir[0] = g->memory_dir[0] = '\0';
    g->cpu_milli = find_limit(g, "cpu", host_cpus_milli, g->cpu_dir, cpu_limit);
    g->memory_bytes = find_limit(g, "memory", host_memory_bytes, g->memory_dir, memory_limit);
    if (strcmp(before, g->cpu_dir) != 0)
        g->sampled = false;
}

uint64_t cgroup_cpu_milli(const struct cgroup *g)
{
    return g->cpu_milli;
}

uint64_t cgroup_memory_bytes(const struct cgroup *g)
{
    return g->memory_bytes;
}

/* A line "key number" of the text that was read last. */
static uint64_t value_of(const struct cgroup *g, const char *key)
{
    struct span line;
    const char *p = g->text;
    while (source_line(&p, &line))
        if (span_eq(source_word(&line), span_of(key)))
            return source_number(&line);
    return 0;
}

static struct usage read_usage(struct cgroup *g)
{
    struct usage u = {0};
    source_read_once(g->root, g->text, sizeof(g->text), "%s/cpu.stat", g->cpu_dir);
    u.periods = value_of(g, "nr_periods");
    u.throttled = value_of(g, "nr_throttled");
    if (g->is_v2) {
        u.user_us = value_of(g, "user_usec");
        u.system_us = value_of(g, "system_usec");
        return u;
    }
    /* In version 1 another controller counts, whose folder is the same one or beside it. */
    static const char base[] = "sys/fs/cgroup/cpu";
    char dir[PATH_MAX + 8];
    snprintf(dir, sizeof(dir), "sys/fs/cgroup/cpuacct%s", g->cpu_dir + sizeof(base) - 1);
    uint64_t user_ns = read_number(g, dir, "cpuacct.usage_user");
    uint64_t system_ns = read_number(g, dir, "cpuacct.usage_sys");
    u.user_us = user_ns == UINT64_MAX ? 0 : user_ns / 1000;
    u.system_us = system_ns == UINT64_MAX ? 0 : system_ns / 1000;
    return u;
}

void cgroup_sample_cpu(struct cgroup *g, uint64_t elapsed_us, struct machine_cpu *cpu)
{
    if (g->cpu_milli == 0)
        return;
    struct usage now = read_usage(g), before = g->before;
    uint64_t whole = rate_scale(elapsed_us, g->cpu_milli, 1000);
    *cpu = (struct machine_cpu){0};
    if (g->sampled && elapsed_us > 0) {
        cpu->user = rate_share(rate_delta(before.user_us, now.user_us), whole);
        cpu->system = rate_share(rate_delta(before.system_us, now.system_us), whole);
        if (cpu->user + cpu->system > MACHINE_WHOLE) /* bursts are allowed */
            cpu->system = MACHINE_WHOLE - cpu->user;
        cpu->throttled =
            rate_share(rate_delta(before.throttled, now.throttled), rate_delta(before.periods, now.periods));
    }
    g->before = now;
    g->sampled = true;
}

/* Pages of files that nobody has used for a while are there to be taken away: they count as available. */
void cgroup_sample_memory(struct cgroup *g, struct machine_memory *memory)
{
    if (g->memory_bytes == 0)
        return;
    uint64_t used = read_number(g, g->memory_dir, g->is_v2 ? "memory.current" : "memory.usage_in_bytes");
    if (used == UINT64_MAX)
        return;
    source_read_once(g->root, g->text, sizeof(g->text), "%s/memory.stat", g->memory_dir);
    uint64_t inactive = value_of(g, g->is_v2 ? "inactive_file" : "total_inactive_file");
    memory->cached = value_of(g, g->is_v2 ? "file" : "total_cache");
    used -= inactive < used ? inactive : used;
    memory->total = g->memory_bytes;
    memory->available = used < memory->total ? memory->total - used : 0;
}
