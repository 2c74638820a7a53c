/* The measurements of the load client. Each prints one line of JSON or dies with the reason. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "hist.h"
#include "server.h"
#include "session.h"

#define MEASURE_INFLIGHT_MAX 1024

struct measure {
    const char *name;
    const char *target;
    enum wire_dialect dialect;
    unsigned members;
    unsigned inflight;
    bool write_each; /* rtt: one write for each message, not for all that one read brought */
    unsigned rate;   /* mesh: emits a second */
    uint64_t warmup_ns, run_ns;
    struct server server; /* no process: CPU and memory are reported as 0 */
    struct loop loop;
};

/* With several ports the sessions are spread over them in turn; who publishes is at the first one, or is client A. */
void measure_fanout(struct measure *m);
void measure_rtt(struct measure *m);
void measure_handshake(struct measure *m);
void measure_idle(struct measure *m);
void measure_poll(struct measure *m);
void measure_mesh(struct measure *m);
void measure_spread(struct measure *m);

/* After the sessions are open: what servers tell each other of them may still be on its way. */
void measure_settle(struct measure *m);

/* The line of JSON, field by field. */
void report_begin(const struct measure *m);
void report(const char *name, double value);
void report_usage(const struct server_usage *u, uint64_t count, const char *per);
void report_quantiles(const char *name, const struct hist *h); /* <name>_p50_us and so on */
void report_end(void);

/* A run of warm-up and measured part. Ask it after each unit of work; it answers true when the run is over.
 * The work counts from the moment that measuring becomes true. */
struct run {
    const struct measure *measure;
    uint64_t ends_ns;
    bool measuring;
    struct server_usage start, used;
};

void run_begin(struct run *r, const struct measure *m);
bool run_over(struct run *r);

#endif
