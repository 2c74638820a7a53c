/* A quick measure of a running bus, with the eyes of ordinary clients over WebSocket: one loop plays all of them. Blocks
 * until it is done. */
#ifndef STARLING_BENCH_H
#define STARLING_BENCH_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum bench_measure {
    BENCH_ROUND_TRIP, /* one client to another one and back, one message on its way, all pairs of neighbours in turn */
    BENCH_FAN_OUT, /* one client to all others */
    BENCH_EMITS,   /* each client to its neighbour */
    BENCH_MEASURES
};

struct bench_options {
    struct sockaddr_in address;
    const char *path, *ns;
    unsigned clients, seconds, payload_bytes;
    unsigned rate;      /* emits a second of fan-out and emits; 0: as fast as they go */
    unsigned in_flight; /* then: emits on their way at a time; fewer when they are large */
};

struct bench_result {
    double emits_per_s, deliveries_per_s;
    uint64_t p50_us, p99_us; /* from an emit to a delivery, or there and back */
    uint64_t lost;           /* deliveries that did not come */
};

struct bench_report {
    struct bench_result results[BENCH_MEASURES];
    double load_pct; /* of a core, taken by the clients themselves */
    char failure[320];
};

/* 0, or 1 when failure says why not. */
int bench_run(const struct bench_options *options, struct bench_report *report);

#endif
