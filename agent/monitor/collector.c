#include "collector.h"
#include "about.h"
#include "cgroup.h"
#include "cores.h"
#include "devices.h"
#include "family.h"
#include "places.h"
#include "rate.h"
#include "source.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TEXT_BYTES = 8192,
    PLACES_US = 5 * 1000000,   /* file systems fill and chips warm slowly */
    REFRESH_US = 10 * 1000000, /* processes, limits, file systems, sensors */
};

enum pressure { CPU, MEMORY, IO, PRESSURES };

/* Microseconds in which some and all tasks waited, since the start of the machine. */
struct waits {
    bool known;
    uint64_t some, full;
};

struct collector {
    int root;
    char prefix[256];
    const char *name;
    uint64_t interval_ms;
    struct source loadavg, meminfo, uptime, pressure[PRESSURES];
    struct waits waits[PRESSURES];
    struct cores *cores;
    struct devices *devices;
    struct cgroup *cgroup;
    struct places *places;
    struct family *family;
    struct about *about;
    bool sampled, stale; /* stale: the description may have changed */
    uint64_t last_us, refreshed_us, measured_us;
    struct machine_description description;
    msgpack_sbuffer written; /* of the description, to see whether it is another one */
    char text[TEXT_BYTES];
};

static const char *const pressure_files[PRESSURES] = {"proc/pressure/cpu", "proc/pressure/memory",
                                                      "proc/pressure/io"};

static bool open_parts(struct collector *c)
{
    source_init(&c->loadavg, c->root, "proc/loadavg");
    source_init(&c->meminfo, c->root, "proc/meminfo");
    source_init(&c->uptime, c->root, "proc/uptime");
    for (int i = 0; i < PRESSURES; i++)
        source_init(&c->pressure[i], c->root, "%s", pressure_files[i]);
    c->cores = cores_new(c->root);
    c->devices = devices_new(c->root);
    c->cgroup = cgroup_new(c->root);
    c->places = places_new(c->root, c->prefix);
    c->family = family_new(c->root);
    c->about = about_new(c->root);
    return c->cores && c->devices && c->cgroup && c->places && c->family && c->about;
}

struct collector *collector_new(const struct collector_options *o)
{
    struct collector *c = calloc(1, sizeof(*c));
    size_t n = strlen(o->root);
    if (!c)
        return NULL;
    while (n > 0 && o->root[n - 1] == '/')
        n--;
    msgpack_sbuffer_init(&c->written);
    c->name = o->name;
    c->interval_ms = o->interval_ms;
    c->root = open(o->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (c->root >= 0 && n < sizeof(c->prefix)) {
        memcpy(c->prefix, o->root, n);
        if (open_parts(c))
            return c;
    }
    collector_free(&c);
    return NULL;
}

void collector_free(struct collector **c)
{
    struct collector *old = *c;
    if (!old)
        return;
    source_deinit(&old->loadavg);
    source_deinit(&old->meminfo);
    source_deinit(&old->uptime);
    for (int i = 0; i < PRESSURES; i++)
        source_deinit(&old->pressure[i]);
    cores_free(&old->cores);
    devices_free(&old->devices);
    cgroup_free(&old->cgroup);
    places_free(&old->places);
    family_free(&old->family);
    about_free(&old->about);
    msgpack_sbuffer_destroy(&old->written);
    if (old->root >= 0)
        close(old->root);
    free(old);
    *c = NULL;
}

/* ---- the tick ---- */

/* "0.52 0.58 0.59 2/345 6789". */
static uint64_t hundredths(struct span *line)
{
    uint64_t whole = source_number(line);
    struct span word = source_word(line);
    if (word.n < 3 || *word.p != '.')
        return whole * 100;
    return whole * 100 + (uint64_t)(word.p[1] - '0') * 10 + (uint64_t)(word.p[2] - '0');
}

static void sample_load(struct collector *c, struct machine_load *load)
{
    source_read(&c->loadavg, c->text, sizeof(c->text));
    struct span line = span_of(c->text);
    load->one = hundredths(&line);
    load->five = hundredths(&line);
    load->fifteen = hundredths(&line);
    source_number(&line);
    if (line.n > 0)
        line = (struct span){line.p + 1, line.n - 1};
    load->tasks = source_number(&line);
}

static void sample_memory(struct collector *c, struct machine_memory *memory)
{
    uint64_t free_bytes = 0, buffers = 0, cached = 0, reclaimable = 0, swap_free = 0;
    const struct {
        struct span key;
        uint64_t *value;
    } rows[] = {
        {SPAN("MemTotal:"), &memory->total},
        {SPAN("MemFree:"), &free_bytes},
        {SPAN("MemAvailable:"), &memory->available},
        {SPAN("Buffers:"), &buffers},
        {SPAN("Cached:"), &cached},
        {SPAN("SReclaimable:"), &reclaimable},
        {SPAN("SwapTotal:"), &memory->swap_total},
        {SPAN("SwapFree:"), &swap_free},
    };
    const char *p = c->text;
    struct span line;
    *memory = (struct machine_memory){0};
    source_read(&c->meminfo, c->text, sizeof(c->text));
    while (source_line(&p, &line)) {
        struct span key = source_word(&line);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            if (span_eq(key, rows[i].key))
                *rows[i].value = source_number(&line) * 1024;
    }
    memory->cached = buffers + cached + reclaimable;
    memory->swap_used = memory->swap_total > swap_free ? memory->swap_total - swap_free : 0;
    if (memory->available == 0) /* kernels before 3.14 */
        memory->available = free_bytes + memory->cached;
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=123" and the same with "full". */
static struct waits read_waits(struct collector *c, struct source *s)
{
    struct waits w = {.known = source_read(s, c->text, sizeof(c->text)) > 0};
    const char *p = c->text;
    struct span line;
    while (source_line(&p, &line)) {
        struct span kind = source_word(&line);
        const char *total = memmem(line.p, line.n, "total=", 6);
        if (!total)
            continue;
        struct span number = {total + 6, (size_t)(line.p + line.n - total - 6)};
        *(span_eq(kind, SPAN("some")) ? &w.some : &w.full) = source_number(&number);
    }
    return w;
}

static void sample_pressure(struct collector *c, uint64_t elapsed_us, struct machine_tick *t)
{
    struct waits now[PRESSURES], passed[PRESSURES];
    t->has_pressure = false;
    for (int i = 0; i < PRESSURES; i++) {
        now[i] = read_waits(c, &c->pressure[i]);
        t->has_pressure |= now[i].known;
        bool both = now[i].known && c->waits[i].known;
        passed[i].some = both ? rate_share(rate_delta(c->waits[i].some, now[i].some), elapsed_us) : 0;
        passed[i].full = both ? rate_share(rate_delta(c->waits[i].full, now[i].full), elapsed_us) : 0;
        c->waits[i] = now[i];
    }
    t->pressure = (struct machine_pressure){passed[CPU].some, passed[MEMORY].some, passed[MEMORY].full,
                                            passed[IO].some, passed[IO].full};
}

static uint64_t read_uptime(struct collector *c)
{
    source_read(&c->uptime, c->text, sizeof(c->text));
    struct span line = span_of(c->text);
    return source_number(&line);
}

/* ---- the description ---- */

/* FNV-1a with 64 bits: tells machines, and descriptions of one machine, apart; it is no protection. */
static uint64_t mix(uint64_t h, struct span bytes)
{
    for (size_t i = 0; i < bytes.n; i++)
        h = (h ^ (uint8_t)bytes.p[i]) * UINT64_C(1099511628211);
    return (h ^ 0xff) * UINT64_C(1099511628211);
}

static void describe(struct collector *c)
{
    static const uint64_t start = UINT64_C(14695981039346656037);
    struct machine_description *d = &c->description;
    struct machine_about *a = &d->about;
    about_describe(c->about, c->name, a);
    a->cores = cores_online(c->cores);
    a->boot_time_s = cores_boot_time_s(c->cores);
    a->interval_ms = c->interval_ms;
    cgroup_refresh(c->cgroup, a->cores * 1000, a->memory_bytes);
    a->cpu_limit_milli = cgroup_cpu_milli(c->cgroup);
    a->memory_limit_bytes = cgroup_memory_bytes(c->cgroup);
    devices_describe(c->devices, d);
    d->machine = mix(mix(mix(start, a->machine_id), a->hostname), a->name);
    d->revision = 0;
    msgpack_sbuffer_clear(&c->written);
    if (machine_write_description(&c->written, d) == 0)
        d->revision = mix(start, (struct span){c->written.data, c->written.size}) >> 33;
    c->stale = false;
}

static bool is_due(uint64_t *last_us, uint64_t now_us, uint64_t period_us)
{
    if (*last_us != 0 && now_us - *last_us < period_us)
        return false;
    *last_us = now_us;
    return true;
}

/* Before anything is sampled, as limits and processes must be known by then. */
static void look_around(struct collector *c, uint64_t now_us)
{
    if (is_due(&c->refreshed_us, now_us, REFRESH_US)) {
        family_refresh(c->family);
        places_refresh(c->places);
        c->measured_us = now_us;
        c->stale = true;
    } else if (is_due(&c->measured_us, now_us, PLACES_US)) {
        places_measure(c->places);
    }
}

void collector_sample(struct collector *c, uint64_t now_us, uint64_t time_ms, struct machine_tick *t)
{
    uint64_t elapsed_us = c->sampled ? now_us - c->last_us : 0;
    look_around(c, now_us);
    cores_sample(c->cores, t);
    c->stale |= devices_sample(c->devices, elapsed_us, t);
    c->stale |= cores_online(c->cores) != c->description.about.cores;
    if (c->stale)
        describe(c);
    sample_load(c, &t->load);
    sample_memory(c, &t->memory);
    sample_pressure(c, elapsed_us, t);
    cgroup_sample_cpu(c->cgroup, elapsed_us, &t->cpu);
    cgroup_sample_memory(c->cgroup, &t->memory);
    places_sample(c->places, t);
    t->machine = c->description.machine;
    t->revision = c->description.revision;
    t->time_ms = time_ms;
    t->elapsed_ms = elapsed_us / 1000;
    t->uptime_s = read_uptime(c);
    if (family_sample(c->family, elapsed_us, t->uptime_s, t))
        c->refreshed_us = 0; /* one that was started in its place is looked for with the next tick */
    c->last_us = now_us;
    c->sampled = true;
}

const struct machine_description *collector_description(const struct collector *c)
{
    return &c->description;
}
