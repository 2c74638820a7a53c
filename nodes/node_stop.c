#include "api.h"
#include "container.h"
#include "dashboard.h"
#include "err.h"
#include "gateway_node.h"
#include "handover.h"
#include "log.h"
#include "node_private.h"
#include "persist.h"
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { STOP_WAIT_MS = 1000 }; /* for clients to be told that the node goes */

static bool is_quiet(struct node *n)
{
    if (engine_count(n->engine) == 0 && n->persist)
        persist_stop(n->persist);
    return engine_count(n->engine) == 0 && (!n->persist || persist_is_stopped(n->persist)) &&
           seam_is_idle(n->front->seam) && n->front->n_conns == 0;
}

static void on_stop(struct timer *t)
{
    struct node *n = container_of(t, struct node, stop);
    (void)t;
    reactor_stop(n->reactor);
}

static void on_stopping(struct timer *t)
{
    struct node *n = container_of(t, struct node, quiet);
    if (is_quiet(n))
        reactor_stop(n->reactor);
    else
        reactor_timer_set(n->reactor, t, 10);
}

/* No new clients; those that are here are told and may go elsewhere; then the end. */
static void stop(struct node *n)
{
    upkeep_say_stopping(&n->upkeep);
    gateway_node_drain(n->gateway);
    atomic_store(&n->web.draining, false);
    atomic_store(&n->web.ready, false);
    drain_stop(&n->drain);
    api_stop(&n->web);
    dashboard_stop(n->web.dashboard);
    engine_shutdown(n->engine);
    front_drain(n->front);
    timer_init(&n->stop, on_stop);
    reactor_timer_set(n->reactor, &n->stop, STOP_WAIT_MS);
    timer_init(&n->quiet, on_stopping);
    reactor_timer_set(n->reactor, &n->quiet, 10);
}

static void on_drained(void *user)
{
    struct node *n = user;
    log_event(LOG_INFO, "drained", LOG_TEXT("origin", n->origin));
    stop(n);
}

/* Another process takes this one's place, or none: clients go there at a bearable rate, and then this one ends. */
static void drain(struct node *n)
{
    if (n->drain.started_ms)
        return;
    log_event(LOG_INFO, "draining", LOG_UINT("sessions", engine_count(n->engine)),
              LOG_UINT("per_second", n->config->drain_rate));
    atomic_store(&n->web.draining, true);
    atomic_store(&n->web.ready, false);
    if (n->peers)
        peers_drain(n->peers);
    upkeep_say_draining(&n->upkeep);
    gateway_node_drain(n->gateway);
    handover_free(&n->handover);
    n->drain = (struct drain){.reactor = n->reactor,
                              .engine = n->engine,
                              .per_second = n->config->drain_rate,
                              .on_done = on_drained,
                              .user = n};
    drain_start(&n->drain, n->front);
}

static void on_signal(struct reactor_io *io, uint32_t events)
{
    struct node *n = container_of(io, struct node, signals);
    struct signalfd_siginfo info;
    (void)events;
    if (read(io->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (n->engine->shutting_down) { /* asked twice: at once */
        if (info.ssi_signo != SIGUSR1)
            reactor_stop(n->reactor);
        return;
    }
    if (info.ssi_signo == SIGUSR1) {
        drain(n);
        return;
    }
    log_event(LOG_INFO, "stopping", LOG_UINT("signal", info.ssi_signo),
              LOG_UINT("sessions", engine_count(n->engine)));
    stop(n);
}

int node_watch_signals(struct node *n)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1); /* drain */
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before civetweb's threads are made, which inherit it */
    n->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    n->signals.on_ready = on_signal;
    return n->signals.fd < 0 ? ERR_SYSTEM : 0;
}
