#include "bench.h"
#include "bench_client.h"
#include "container.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

enum {
    CONNECTING_AT_ONCE = 64,
    CONNECT_MS = 10000,  /* without any client that gets on */
    WARM_UP_US = 300000, /* of each measure: is not counted */
    TICK_MS = 1,
    LATE_MS = 2000,           /* then what has not come is lost */
    QUEUED_MAX = 1024 * 1024, /* bytes of one client, above which it waits with its emits */
    WAITING_BYTES = 512 * 1024,
    EMIT_BYTES = 128, /* of an emit beside its payload */
    BURST_MAX = 1000, /* emits of one turn */
    SLOTS = 64,       /* of the histogram, for each power of two: off by less than 2 % */
    POWERS = 40,
};

struct histogram {
    uint64_t counts[POWERS * SLOTS], n;
};

struct bench {
    const struct bench_options *options;
    struct bench_report *report;
    struct bench_bus bus;
    struct bench_client *clients;
    unsigned opened, joined;
    char *padding; /* the end of each emit's arguments */
    enum bench_measure measure;
    struct timer timer;
    bool emits; /* the time of the measure is not over */
    bool failed;
    uint64_t start_us, count_us, end_us, heard_us; /* count: what is emitted from then on is counted */
    uint64_t sent, received;                       /* of the measure */
    uint64_t counted_sent, counted_received;
    unsigned pair; /* round trip: from this client to the next */
    struct histogram histogram;
};

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- histogram ---- */

static void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned power = 0;

    while (value >> power >= 2 * SLOTS && power < POWERS - 2)
        power++;
    if (value >> power >= 2 * SLOTS)
        value = ((uint64_t)2 * SLOTS << power) - 1;
    /* Below 2 * SLOTS each value has its own; above, the upper half of them serves each power. */
    h->counts[power * SLOTS + (value >> power)]++;
    h->n++;
}

static uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->n), seen = 0;

    for (unsigned i = 0; i < POWERS * SLOTS; i++) {
        unsigned power = i < 2 * SLOTS ? 0 : i / SLOTS - 1;
        seen += h->counts[i];
        if (seen > rank)
            return (uint64_t)(i - power * SLOTS) << power;
    }
    return 0;
}

/* ---- emits ---- */

static void emit(struct bench *b, struct bench_client *from, const char *room, uint64_t at_us)
{
    char *args = NULL;
    int n = asprintf(&args, "%d,%llu,\"%s\"", (int)b->measure, (unsigned long long)at_us, b->padding);

    if (n >= 0)
        bench_client_emit(from, room, (struct span){args, (size_t)n});
    free(n < 0 ? NULL : args);
}

static struct bench_client *next_to(struct bench *b, const struct bench_client *c)
{
    return &b->clients[(c->index + 1) % b->options->clients];
}

static void count_sent(struct bench *b, uint64_t at_us)
{
    b->sent++;
    b->counted_sent += at_us >= b->count_us;
}

static void emit_round(struct bench *b)
{
    struct bench_client *from = &b->clients[b->pair];
    uint64_t at_us = now_us();

    count_sent(b, at_us);
    emit(b, from, next_to(b, from)->room, at_us);
}

/* Of the fan-out or the emits: the next one in turn. False: not now. */
static bool emit_next(struct bench *b)
{
    bool is_fan_out = b->measure == BENCH_FAN_OUT;
    struct bench_client *from = &b->clients[is_fan_out ? 0 : b->sent % b->options->clients];
    uint64_t at_us = now_us();

    if (bench_client_queued(from) > QUEUED_MAX)
        return false;
    count_sent(b, at_us);
    emit(b, from, is_fan_out ? b->bus.all : next_to(b, from)->room, at_us);
    return true;
}

static unsigned receivers(const struct bench *b)
{
    return b->measure == BENCH_FAN_OUT ? b->options->clients - 1 : 1;
}

/* Not more than one client's queue at the bus holds, lest it is closed as slow. */
static bool may_send(const struct bench *b, unsigned in_flight)
{
    unsigned most = WAITING_BYTES / (b->options->payload_bytes + EMIT_BYTES);
    uint64_t on_their_way = b->sent - b->received / receivers(b);

    return on_their_way == 0 || on_their_way < (in_flight < most ? in_flight : most);
}

/* Without a rate: as many as may be on their way. */
static void fill(struct bench *b)
{
    while (b->emits && may_send(b, b->options->in_flight) && emit_next(b))
        ;
}

static void keep_rate(struct bench *b)
{
    uint64_t due = (now_us() - b->start_us) * b->options->rate / 1000000;

    for (unsigned i = 0; i < BURST_MAX && b->sent < due && may_send(b, UINT_MAX) && emit_next(b); i++)
        ;
}

/* ---- measures ---- */

static void start_measure(struct bench *b, enum bench_measure measure)
{
    b->measure = measure;
    b->emits = true;
    b->start_us = b->heard_us = now_us();
    b->count_us = b->start_us + WARM_UP_US;
    b->end_us = b->count_us + (uint64_t)b->options->seconds * 1000000;
    b->sent = b->received = b->counted_sent = b->counted_received = 0;
    b->pair = 0;
    b->histogram = (struct histogram){.n = 0};
    if (measure == BENCH_ROUND_TRIP)
        emit_round(b);
    else if (b->options->rate == 0)
        fill(b);
    reactor_timer_set(b->bus.reactor, &b->timer, TICK_MS);
}

static void end_measure(struct bench *b)
{
    double seconds = (double)b->options->seconds;

    b->report->results[b->measure] =
        (struct bench_result){.emits_per_s = (double)b->counted_sent / seconds,
                              .deliveries_per_s = (double)b->counted_received / seconds,
                              .p50_us = histogram_quantile(&b->histogram, 0.5),
                              .p99_us = histogram_quantile(&b->histogram, 0.99),
                              .lost = b->sent * receivers(b) - b->received};
    if (b->measure + 1 < BENCH_MEASURES)
        start_measure(b, b->measure + 1);
    else
        reactor_stop(b->bus.reactor);
}

static void stop_with(struct bench *b, const char *why)
{
    if (b->failed)
        return;
    b->failed = true;
    snprintf(b->report->failure, sizeof b->report->failure, "%s", why);
    reactor_stop(b->bus.reactor);
}

static void on_timer(struct timer *timer)
{
    struct bench *b = container_of(timer, struct bench, timer);
    uint64_t now = now_us();

    if (b->joined < b->options->clients) {
        if (now - b->heard_us > CONNECT_MS * 1000)
            stop_with(b, "the bus does not answer");
    } else if (now >= b->end_us) {
        b->emits = false;
        if (b->received == b->sent * receivers(b) || now - b->heard_us > LATE_MS * 1000) {
            end_measure(b);
            return;
        }
    } else if (b->measure != BENCH_ROUND_TRIP) {
        if (b->options->rate > 0)
            keep_rate(b);
        else
            fill(b); /* a client may have had too much in its queue */
    }
    reactor_timer_set(b->bus.reactor, timer, TICK_MS);
}

/* ---- what clients tell ---- */

static struct bench *bench_of(struct bench_client *c)
{
    return container_of(c->bus, struct bench, bus);
}

/* Half of it is the echo, whose sample is of both ways. */
static bool is_back(struct bench *b, struct bench_client *c, uint64_t at_us)
{
    struct bench_client *from = &b->clients[b->pair];

    if (c == from)
        return true;
    emit(b, c, from->room, at_us);
    return false;
}

static void on_event(struct bench_client *c, struct span args)
{
    struct bench *b = bench_of(c);
    uint64_t now = now_us(), at_us;
    char text[32], *end;

    snprintf(text, sizeof text, "%.*s", args.n < sizeof text ? (int)args.n : (int)sizeof text - 1, args.p);
    if (strtoul(text, &end, 10) != b->measure || *end != ',')
        return; /* of the measure before, and late */
    at_us = strtoull(end + 1, NULL, 10);
    if (at_us < b->start_us || at_us > now)
        return; /* somebody else's */
    b->heard_us = now;
    if (b->measure == BENCH_ROUND_TRIP && !is_back(b, c, at_us))
        return;
    b->received++;
    b->counted_received += now >= b->count_us && now < b->end_us;
    if (at_us >= b->count_us)
        histogram_add(&b->histogram, now - at_us);
    if (b->measure != BENCH_ROUND_TRIP && b->options->rate == 0) {
        fill(b);
    } else if (b->measure == BENCH_ROUND_TRIP && b->emits) {
        b->pair = (b->pair + 1) % b->options->clients;
        emit_round(b);
    }
}

static void open_next(struct bench *b)
{
    bench_client_open(&b->clients[b->opened], &b->bus, b->opened);
    b->opened++;
}

static void on_joined(struct bench_client *c)
{
    struct bench *b = bench_of(c);

    b->heard_us = now_us();
    b->joined++;
    if (b->opened < b->options->clients)
        open_next(b);
    else if (b->joined == b->options->clients)
        start_measure(b, BENCH_ROUND_TRIP);
}

static void on_failure(struct bench_client *c, const char *why)
{
    char text[300];

    snprintf(text, sizeof text, "client %u: %s", c->index, why);
    stop_with(bench_of(c), text);
}

/* ---- all of it ---- */

static double cpu_s(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* Each client is a descriptor, and a few are needed beside them. */
static bool allow_descriptors(unsigned clients)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= clients + 16;
}

static void run(struct bench *b)
{
    double cpu = cpu_s();
    uint64_t start_us = now_us();

    b->heard_us = start_us;
    reactor_timer_set(b->bus.reactor, &b->timer, TICK_MS);
    while (b->opened < b->options->clients && b->opened < CONNECTING_AT_ONCE && !b->failed)
        open_next(b);
    if (!b->failed && reactor_run(b->bus.reactor) != 0)
        stop_with(b, "the loop has failed");
    b->report->load_pct = 100 * (cpu_s() - cpu) / ((double)(now_us() - start_us) / 1e6);
}

static void name_room(struct bench *b)
{
    uint64_t random = now_us();

    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random ^= (uint64_t)(uintptr_t)b;
    snprintf(b->bus.all, sizeof b->bus.all, "bench-%016llx", (unsigned long long)random);
}

int bench_run(const struct bench_options *o, struct bench_report *report)
{
    struct bench b = {.options = o, .report = report};

    *report = (struct bench_report){.load_pct = 0};
    if (!allow_descriptors(o->clients)) {
        snprintf(report->failure, sizeof report->failure,
                 "so many clients need more descriptors than this process may have (ulimit -n)");
        return 1;
    }
    b.bus = (struct bench_bus){.reactor = reactor_new(),
                               .address = o->address,
                               .path = o->path,
                               .ns = o->ns,
                               .on_joined = on_joined,
                               .on_event = on_event,
                               .on_failure = on_failure};
    b.clients = calloc(o->clients, sizeof *b.clients);
    b.padding = malloc(o->payload_bytes + 1);
    timer_init(&b.timer, on_timer);
    name_room(&b);
    if (b.bus.reactor && b.clients && b.padding) {
        memset(b.padding, 'x', o->payload_bytes);
        b.padding[o->payload_bytes] = '\0';
        run(&b);
        reactor_timer_cancel(b.bus.reactor, &b.timer);
        for (unsigned i = 0; i < b.opened; i++)
            bench_client_close(&b.clients[i]);
    } else {
        stop_with(&b, "out of memory");
    }
    reactor_free(&b.bus.reactor);
    free(b.clients);
    free(b.padding);
    return b.failed;
}
