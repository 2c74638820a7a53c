#include "measure.h"
#include "util.h"

#include <stdio.h>

void report_begin(const struct measure *m)
{
    printf("{\"measure\":\"%s\",\"target\":\"%s\",\"members\":%u,\"inflight\":%u", m->name, m->target,
           m->members, m->inflight);
}

void report(const char *name, double value)
{
    printf(",\"%s\":%.10g", name, value);
}

void report_usage(const struct server_usage *u, uint64_t count, const char *per)
{
    char name[64];
    double cpu_ns = (double)u->cpu_ns;
    report("count", (double)count);
    report("wall_s", (double)u->at_ns / (double)NS_PER_S);
    report("cpu_s", cpu_ns / (double)NS_PER_S);
    report("user_s", (double)u->user_ns / (double)NS_PER_S);
    report("system_s", (double)u->system_ns / (double)NS_PER_S);
    report("busy", cpu_ns / (double)u->at_ns);
    snprintf(name, sizeof(name), "cpu_us_per_%s", per);
    report(name, cpu_ns / NS_PER_US / (double)count);
    snprintf(name, sizeof(name), "%s_per_s", per);
    report(name, (double)count / ((double)u->at_ns / (double)NS_PER_S));
}

void report_quantiles(const char *name, const struct hist *h)
{
    static const struct {
        const char *name;
        double part;
    } QUANTILES[] = {{"p50", 0.50}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    for (size_t i = 0; i < sizeof(QUANTILES) / sizeof(QUANTILES[0]); i++) {
        char field[64];
        snprintf(field, sizeof(field), "%s_%s_us", name, QUANTILES[i].name);
        report(field, hist_quantile(h, QUANTILES[i].part) / NS_PER_US);
    }
}

void report_end(void)
{
    puts("}");
}

/* Long enough for any of the servers, on a busy machine too: the subscription of a member is told to other nodes in
 * a few milliseconds. */
#define SETTLE_NS (NS_PER_S / 2)

void measure_settle(struct measure *m)
{
    if (m->loop.port_count > 1)
        loop_settle(&m->loop, SETTLE_NS);
}

void run_begin(struct run *r, const struct measure *m)
{
    *r = (struct run){.measure = m, .ends_ns = now_ns() + m->warmup_ns};
}

bool run_over(struct run *r)
{
    if (r->measure->loop.now_ns < r->ends_ns)
        return false;
    if (r->measuring) {
        r->used = server_usage_since(&r->measure->server, &r->start);
        return true;
    }
    r->measuring = true;
    r->start = server_usage(&r->measure->server);
    r->ends_ns = r->start.at_ns + r->measure->run_ns;
    return false;
}
