/* `starling bench`: a quick measure of a running bus by ordinary clients. It shares the machine with what it measures,
 * and says how much of it it takes. */
#include "bench.h"
#include "json.h"
#include "verb.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { BUSY_PCT = 80 };

static const struct {
    const char *key, *title;
} measures[BENCH_MEASURES] = {[BENCH_ROUND_TRIP] = {"round_trip", "round trip"},
                              [BENCH_FAN_OUT] = {"fan_out", "fan-out"},
                              [BENCH_EMITS] = {"emits", "emits"}};

static void print_table(const struct rundir_state *bus, const struct verb_options *o,
                        const struct bench_report *report)
{
    printf("http://%s:%u, %u clients, %u bytes, %u s each\n\n%-12s%12s%14s%10s%10s%8s\n", bus->bind,
           (unsigned)bus->port, o->clients, o->payload, o->seconds, "", "EMITS/S", "DELIVERIES/S", "P50_US",
           "P99_US", "LOST");
    for (size_t i = 0; i < BENCH_MEASURES; i++) {
        const struct bench_result *r = &report->results[i];
        printf("%-12s%12.0f%14.0f%10llu%10llu%8llu\n", measures[i].title, r->emits_per_s, r->deliveries_per_s,
               (unsigned long long)r->p50_us, (unsigned long long)r->p99_us, (unsigned long long)r->lost);
    }
    printf("\nThe clients took %.0f %% of a core%s.\n", report->load_pct,
           report->load_pct > BUSY_PCT ? ", and may be what has set the limit" : "");
}

static void print_json(const struct rundir_state *bus, const struct verb_options *o,
                       const struct bench_report *report)
{
    printf("{\"url\":\"http://"
           "%s:%u\",\"clients\":%u,\"payload_bytes\":%u,\"seconds\":%u,\"rate\":%u,\"in_flight\":%u,"
           "\"load_pct\":%.1f",
           bus->bind, (unsigned)bus->port, o->clients, o->payload, o->seconds, o->rate, o->in_flight,
           report->load_pct);
    for (size_t i = 0; i < BENCH_MEASURES; i++) {
        const struct bench_result *r = &report->results[i];
        printf(",\"%s\":{\"emits_per_s\":%.1f,\"deliveries_per_s\":%.1f,\"p50_us\":%llu,\"p99_us\":%llu,"
               "\"lost\":%llu}",
               measures[i].key, r->emits_per_s, r->deliveries_per_s, (unsigned long long)r->p50_us,
               (unsigned long long)r->p99_us, (unsigned long long)r->lost);
    }
    printf("}\n");
}

static bool is_loopback(const struct sockaddr_in *address)
{
    uint32_t host = ntohl(address->sin_addr.s_addr);

    return host >> 24 == 127 || host == INADDR_ANY; /* what the kernel takes for this host */
}

int verb_bench(int argc, char **argv)
{
    struct verb_options o;
    struct rundir_state bus;
    struct bench_report report;
    struct bench_options options;
    bool lost = false;
    int rc =
        verb_parse(argc, argv,
                   " --run-dir --bind --port --ns --path --clients --seconds --payload --rate --in-flight "
                   "--remote --json ",
                   &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n > 0)
        return verb_usage("bench", "unexpected argument ", o.arguments[0]);
    verb_find_bus(&o, &bus);
    options =
        (struct bench_options){.address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)bus.port)},
                               .path = o.path,
                               .ns = o.ns ? o.ns : "/",
                               .clients = o.clients,
                               .seconds = o.seconds,
                               .payload_bytes = o.payload,
                               .rate = o.rate,
                               .in_flight = o.in_flight};
    if (inet_pton(AF_INET, bus.bind, &options.address.sin_addr) != 1)
        return verb_usage("bench", "--bind takes an IPv4 address, not ", bus.bind);
    if (!is_loopback(&options.address) && !o.remote)
        return verb_usage("bench", "--remote allows to load a bus that is not at a loopback address, like ",
                          bus.bind);
    if (bench_run(&options, &report) != 0) {
        fprintf(stderr, "starling bench: http://%s:%u: %s\n", bus.bind, (unsigned)bus.port, report.failure);
        return 1;
    }
    (o.json ? print_json : print_table)(&bus, &o, &report);
    for (size_t i = 0; i < BENCH_MEASURES; i++)
        lost = lost || report.results[i].lost > 0;
    return lost;
}
