#include "node.h"
#include "client.h"
#include "container.h"
#include "err.h"
#include "front.h"
#include "log.h"
#include "web.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    STATS_EVERY_MS = 1000,
    STOP_WAIT_MS = 1000,  /* for clients to be told that the node goes */
    OWN_DESCRIPTORS = 64, /* that are no connections */
};

struct node {
    const struct config *config;
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct engine *engine;
    struct front *front;
    struct web web;
    struct reactor_io signals;
    struct timer stats, stop;
    char origin[96];
};

/* ---- parts ---- */

static void on_stats(struct timer *t)
{
    struct node *n = container_of(t, struct node, stats);
    struct reactor_stats stats;
    reactor_take_stats(n->reactor, &stats);
    metrics_observe_us(n->metrics, METRIC_LOOP_TURN, stats.max_turn_us);
    reactor_timer_set(n->reactor, t, STATS_EVERY_MS);
}

static int pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)core, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}

/* As many descriptors as allowed, and how many of them may be connections. */
static uint32_t connection_limit(uint32_t asked)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return asked;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t most = limit.rlim_cur > 2 * OWN_DESCRIPTORS ? limit.rlim_cur - OWN_DESCRIPTORS : OWN_DESCRIPTORS;
    if (asked == 0 || asked > most)
        return most > UINT32_MAX ? UINT32_MAX : (uint32_t)most;
    return asked;
}

/* Every start is a new origin: its tag and its epoch come from the kernel's randomness. */
static uint32_t name_origin(struct node *n)
{
    struct id_source ids;
    id_source_init(&ids, 0);
    uint64_t random = id_random_u64(&ids);
    snprintf(n->origin, sizeof(n->origin), "%s-%012llx", n->config->name, (unsigned long long)(random >> 16));
    return (uint32_t)(random & 0xffffff);
}

static struct engine_options engine_options(const struct config *c)
{
    return (struct engine_options){
        .ping_interval_ms = c->ping_interval_ms,
        .ping_timeout_ms = c->ping_timeout_ms,
        .upgrade_timeout_ms = c->upgrade_timeout_ms,
        .poll_grace_ms = c->poll_grace_ms,
        .max_payload_bytes = c->max_payload_bytes,
        .queue_bytes = c->queue_bytes,
        .queue_messages = c->queue_messages,
        .polling = config_list_has(c->transports, SPAN("polling")),
        .websocket = config_list_has(c->transports, SPAN("websocket")),
    };
}

static int build(struct node *n, const struct node_parts *parts)
{
    const struct config *c = n->config;
    uint32_t tag = name_origin(n);
    struct engine_options eo = engine_options(c);
    struct cors cors = {.origins = c->cors, .credentials = c->cors_credentials};
    struct hub_options ho = {
        .origin = n->origin,
        .namespaces = c->namespaces,
        .connect_timeout_ms = c->connect_timeout_ms,
    };
    n->reactor = reactor_new();
    n->metrics = metrics_new();
    if (!n->reactor || !n->metrics)
        return ERR_MEMORY;
    n->hub = hub_new(n->reactor, n->metrics, &ho);
    if (!n->hub)
        return ERR_MEMORY;
    if (parts)
        n->hub->handler = parts->handler;
    n->engine =
        engine_new(n->reactor, n->metrics, &eo, parts && parts->app ? parts->app : &client_app, n->hub, tag);
    if (!n->engine)
        return ERR_MEMORY;
    n->hub->engine = n->engine;
    n->web = (struct web){
        .hub = n->hub, .reactor = n->reactor, .metrics = n->metrics, .path = c->path, .cors = cors};
    n->front = front_new(n->reactor, n->metrics, n->engine,
                         &(struct front_options){
                             .path = c->path,
                             .cookie = c->cookie,
                             .cors = cors,
                             .request_timeout_ms = c->request_timeout_ms,
                             .idle_timeout_ms = c->idle_timeout_ms,
                             .max_waiting_per_address = c->max_waiting_per_address,
                             .max_connections = connection_limit(c->max_connections),
                             .threads = c->http_threads,
                             .web = web_answer,
                             .web_user = &n->web,
                         });
    return n->front ? 0 : ERR_SYSTEM;
}

static void take_apart(struct node *n)
{
    web_stop(&n->web);
    front_free(&n->front);
    engine_free(&n->engine);
    hub_free(&n->hub);
    if (n->signals.fd >= 0 && n->reactor) {
        reactor_remove(n->reactor, &n->signals);
        close(n->signals.fd);
    }
    reactor_free(&n->reactor);
    metrics_free(&n->metrics);
}

static int listen_on(struct node *n, uint32_t port)
{
    if (port == 0 || front_listen(n->front, n->config->bind, (uint16_t)port) == 0)
        return 0;
    fprintf(stderr, "starling-node: cannot listen on %s port %u: %s\n", n->config->bind, port,
            strerror(errno));
    return ERR_SYSTEM;
}

/* ---- stopping ---- */

static bool is_quiet(const struct node *n)
{
    return engine_count(n->engine) == 0 && seam_is_idle(n->front->seam) && n->front->n_conns == 0;
}

static void on_stop(struct timer *t)
{
    struct node *n = container_of(t, struct node, stop);
    (void)t;
    reactor_stop(n->reactor);
}

static void on_stopping(struct timer *t)
{
    struct node *n = container_of(t, struct node, stats);
    if (is_quiet(n))
        reactor_stop(n->reactor);
    else
        reactor_timer_set(n->reactor, t, 10);
}

/* No new clients; those that are here are told and may go elsewhere; then the end. */
static void on_signal(struct reactor_io *io, uint32_t events)
{
    struct node *n = container_of(io, struct node, signals);
    struct signalfd_siginfo info;
    (void)events;
    if (read(io->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (n->engine->shutting_down) { /* asked twice: at once */
        reactor_stop(n->reactor);
        return;
    }
    log_event(LOG_INFO, "stopping", LOG_UINT("signal", info.ssi_signo),
              LOG_UINT("sessions", engine_count(n->engine)));
    atomic_store(&n->web.ready, false);
    web_stop(&n->web);
    engine_shutdown(n->engine);
    front_drain(n->front);
    timer_init(&n->stop, on_stop);
    reactor_timer_set(n->reactor, &n->stop, STOP_WAIT_MS);
    reactor_timer_cancel(n->reactor, &n->stats);
    timer_init(&n->stats, on_stopping);
    reactor_timer_set(n->reactor, &n->stats, 10);
}

static int watch_signals(struct node *n)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before civetweb's threads are made, which inherit it */
    n->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    n->signals.on_ready = on_signal;
    return n->signals.fd < 0 ? ERR_SYSTEM : 0;
}

/* ---- run ---- */

static void say_ready(struct node *n)
{
    const struct config *c = n->config;
    char line[1] = {'\n'};
    atomic_store(&n->web.ready, true);
    printf("ready http://%s:%u\n", c->bind, c->port);
    fflush(stdout);
    log_event(LOG_INFO, "ready", LOG_TEXT("address", c->bind), LOG_UINT("port", c->port),
              LOG_TEXT("origin", n->origin), LOG_INT("pid", getpid()));
    if (c->ready_fd >= 0) {
        if (write(c->ready_fd, line, sizeof(line)) < 0)
            log_event(LOG_WARN, "ready_fd", LOG_TEXT("error", strerror(errno)));
        close(c->ready_fd);
    }
}

int node_run(const struct config *config, struct node_parts *parts)
{
    struct node n = {.config = config, .signals.fd = -1};
    int code = 1;
    log_setup(config->log_level, config->log_json);
    if (config->core >= 0 && !config->no_pin && pin(config->core)) {
        fprintf(stderr, "starling-node: --core %d: %s\n", config->core, strerror(errno));
        return 2;
    }
    int err = watch_signals(&n);
    if (!err)
        err = build(&n, parts);
    if (!err)
        err = reactor_add(n.reactor, &n.signals, EPOLLIN);
    if (err) {
        fprintf(stderr, "starling-node: cannot start: %s\n", err_text(err));
        goto out;
    }
    if (listen_on(&n, config->port) || listen_on(&n, config->node_port))
        goto out;
    timer_init(&n.stats, on_stats);
    reactor_timer_set(n.reactor, &n.stats, STATS_EVERY_MS);
    say_ready(&n);
    code = reactor_run(n.reactor) ? 1 : 0;
    log_event(LOG_INFO, "stopped", LOG_TEXT("origin", n.origin));
out:
    take_apart(&n);
    return code;
}
