#include "cores.h"
#include "rate.h"
#include <stdlib.h>

enum {
    TEXT_BYTES = 256 * 1024, /* 1,024 cores and the interrupts behind them */
    CORE_WHOLE = 200,
};

/* Of one core or all, in the clock's ticks. */
struct times {
    uint64_t user, nice, system, idle, iowait, irq, steal;
};

struct cores {
    struct source stat;
    struct times total, core[LIMIT_MACHINE_CORES];
    bool known[LIMIT_MACHINE_CORES], seen[LIMIT_MACHINE_CORES];
    bool sampled;
    unsigned online;
    uint64_t boot_time_s;
    char text[TEXT_BYTES];
};

struct cores *cores_new(int root)
{
    struct cores *c = calloc(1, sizeof(*c));
    if (c)
        source_init(&c->stat, root, "proc/stat");
    return c;
}

void cores_free(struct cores **c)
{
    if (!*c)
        return;
    source_deinit(&(*c)->stat);
    free(*c);
    *c = NULL;
}

/* user contains the time of guests. */
static struct times read_times(struct span line)
{
    struct times t;
    t.user = source_number(&line);
    t.nice = source_number(&line);
    t.system = source_number(&line);
    t.idle = source_number(&line);
    t.iowait = source_number(&line);
    t.irq = source_number(&line);
    t.irq += source_number(&line);
    t.steal = source_number(&line);
    return t;
}

/* The kernel's idle and iowait may go back a little. */
static struct times passed(const struct times *before, const struct times *now)
{
    return (struct times){
        rate_delta(before->user, now->user),     rate_delta(before->nice, now->nice),
        rate_delta(before->system, now->system), rate_delta(before->idle, now->idle),
        rate_delta(before->iowait, now->iowait), rate_delta(before->irq, now->irq),
        rate_delta(before->steal, now->steal),
    };
}

static uint64_t sum(const struct times *t)
{
    return t->user + t->nice + t->system + t->idle + t->iowait + t->irq + t->steal;
}

static void sample_total(struct cores *c, struct span line, struct machine_cpu *cpu)
{
    struct times now = read_times(line), d = passed(&c->total, &now);
    uint64_t whole = sum(&d);
    if (c->sampled)
        *cpu = (struct machine_cpu){
            .user = rate_share(d.user, whole),
            .nice = rate_share(d.nice, whole),
            .system = rate_share(d.system, whole),
            .irq = rate_share(d.irq, whole),
            .iowait = rate_share(d.iowait, whole),
            .steal = rate_share(d.steal, whole),
        };
    c->total = now;
}

static uint8_t half_percents(uint64_t part, uint64_t whole)
{
    return (uint8_t)rate_scale(part, CORE_WHOLE, whole);
}

static void sample_core(struct cores *c, struct span line, struct machine_tick *t)
{
    uint64_t index = source_number(&line);
    if (index >= LIMIT_MACHINE_CORES)
        return;
    struct times now = read_times(line), d = passed(&c->core[index], &now);
    uint64_t whole = sum(&d);
    while (t->n_cores <= index)
        t->cores[t->n_cores++] = (struct machine_core){.user = MACHINE_CORE_OFFLINE};
    t->cores[index] = (struct machine_core){0};
    if (c->known[index])
        t->cores[index] = (struct machine_core){
            half_percents(d.user + d.nice, whole), half_percents(d.system + d.irq, whole),
            half_percents(d.iowait, whole), half_percents(d.steal, whole)};
    c->core[index] = now;
    c->seen[index] = true;
    c->online++;
}

static bool take_key(struct span *line, const char *key)
{
    size_t n = strlen(key);
    if (line->n < n || memcmp(line->p, key, n) != 0)
        return false;
    line->p += n;
    line->n -= n;
    return true;
}

void cores_sample(struct cores *c, struct machine_tick *t)
{
    const char *p = c->text;
    struct span line;
    t->cpu = (struct machine_cpu){0};
    t->n_cores = 0;
    t->load.running = 0;
    if (source_read(&c->stat, c->text, sizeof(c->text)) < 0)
        return;
    c->online = 0;
    memset(c->seen, 0, sizeof(c->seen));
    while (source_line(&p, &line)) {
        if (take_key(&line, "cpu "))
            sample_total(c, line, &t->cpu);
        else if (take_key(&line, "cpu"))
            sample_core(c, line, t);
        else if (take_key(&line, "btime "))
            c->boot_time_s = source_number(&line);
        else if (take_key(&line, "procs_running "))
            t->load.running = source_number(&line);
    }
    memcpy(c->known, c->seen, sizeof(c->known));
    c->sampled = true;
}

unsigned cores_online(const struct cores *c)
{
    return c->online;
}

uint64_t cores_boot_time_s(const struct cores *c)
{
    return c->boot_time_s;
}
