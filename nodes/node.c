#include "node.h"
#include "api.h"
#include "base64.h"
#include "client.h"
#include "cluster.h"
#include "collect.h"
#include "container.h"
#include "dashboard.h"
#include "drain.h"
#include "err.h"
#include "front.h"
#include "gateway_node.h"
#include "handover.h"
#include "log.h"
#include "machine_share.h"
#include "pass.h"
#include "peers_zmq.h"
#include "persist.h"
#include "relay.h"
#include "upkeep.h"
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
    STOP_WAIT_MS = 1000,  /* for clients to be told that the node goes */
    START_WAIT_MS = 5000, /* for peers that do not answer, or are heard one way only */
    OWN_DESCRIPTORS = 64, /* that are no connections */
};

struct node {
    const struct config *config;
    struct reactor *reactor;
    struct metrics *metrics;
    struct hub *hub;
    struct engine *engine;
    struct front *front;
    struct cluster *cluster;
    struct collects *collects;
    struct gateway_node *gateway;
    struct machine_share *machines;
    struct peers *peers;
    struct peers_zmq *zmq;
    struct persist *persist;
    struct relay *relay;
    struct pass *pass;
    struct handover *handover;
    struct drain drain;
    struct upkeep upkeep;
    struct mesh_origin self;
    struct web web;
    struct reactor_io signals;
    struct timer quiet, stop;
    int exit_code;
    char origin[96];
    char mesh_pub[MESH_ENDPOINT_BYTES * 2], mesh_router[MESH_ENDPOINT_BYTES * 2];
    char local_pub[MESH_ENDPOINT_BYTES * 2], local_router[MESH_ENDPOINT_BYTES * 2], host[MESH_NAME_BYTES];
};

/* ---- parts ---- */

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
    n->self = (struct mesh_origin){.tag = (uint32_t)(random & 0xffffff), .boot = random >> 16};
    snprintf(n->origin, sizeof(n->origin), "%s-%012llx", n->config->name, (unsigned long long)n->self.boot);
    return n->self.tag;
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

/* ---- the mesh ---- */

static bool has_mesh(const struct config *c)
{
    return c->mesh[0] || c->mesh_port;
}

/* Where this node's PUB and ROUTER are bound, or found by others (the host's own path first). */
static void endpoints(const struct config *c, const char *host, char pub[MESH_ENDPOINT_BYTES * 2],
                      char router[MESH_ENDPOINT_BYTES * 2])
{
    size_t n = MESH_ENDPOINT_BYTES * 2;
    pub[0] = router[0] = '\0';
    if (c->mesh[0]) {
        snprintf(pub, n, "ipc://%s.pub%s", c->mesh, c->mesh_port ? "," : "");
        snprintf(router, n, "ipc://%s.router%s", c->mesh, c->mesh_port ? "," : "");
    }
    if (c->mesh_port) {
        snprintf(pub + strlen(pub), n - strlen(pub), "tcp://%s:%u", host, c->mesh_port);
        snprintf(router + strlen(router), n - strlen(router), "tcp://%s:%u", host, c->mesh_port + 100);
    }
}

/* Nodes of this host are given by path, those of others by address. */
static int add_peers(struct node *n)
{
    char pub[MESH_ENDPOINT_BYTES * 2], router[MESH_ENDPOINT_BYTES * 2], item[MESH_ENDPOINT_BYTES];
    struct config peer = {.mesh = item};
    int err = 0;
    for (const char *p = n->config->siblings; *p && !err; p += strcspn(p, ","), p += *p == ',') {
        snprintf(item, sizeof(item), "%.*s", (int)strcspn(p, ","), p);
        endpoints(&peer, "", pub, router);
        err = peers_add_peer(n->peers, span_of(pub), span_of(router));
    }
    peer.mesh = (char[]){""};
    for (const char *p = n->config->peers; *p && !err; p += strcspn(p, ","), p += *p == ',') {
        snprintf(item, sizeof(item), "%.*s", (int)strcspn(p, ","), p);
        char *colon = strrchr(item, ':');
        *colon = '\0';
        peer.mesh_port = (uint32_t)atoi(colon + 1);
        endpoints(&peer, item, pub, router);
        err = peers_add_peer(n->peers, span_of(pub), span_of(router));
    }
    return err;
}

static void on_mesh_ready(void *user);

/* A request for a session that another node has goes there: on this host as it is, to another one by the mesh. */
static bool send_to_owner(void *user, struct conn *c, struct span sid, const void *input, size_t n)
{
    struct node *node = user;
    char raw[ID_CHARS];
    if (base64_decode(raw, sid.p, 4) != 3)
        return false;
    uint32_t tag = (uint32_t)(uint8_t)raw[0] << 16 | (uint32_t)(uint8_t)raw[1] << 8 | (uint8_t)raw[2];
    const char *router = tag == node->self.tag ? NULL : peers_local_router(node->peers, tag);
    char base[MESH_ENDPOINT_BYTES];
    struct mesh_origin owner;
    if (engine_find(node->engine, sid))
        return false;
    if (relay_moved_to(node->relay, sid, &owner))
        return relay_conn(node->relay, owner, c, input, n);
    if (tag == node->self.tag)
        return false;
    if (!router)
        return peers_find_live(node->peers, tag, &owner) && relay_conn(node->relay, owner, c, input, n);
    /* "ipc://<base>.router" */
    snprintf(base, sizeof(base), "%.*s", (int)(strlen(router) - 6 - 7), router + 6);
    return pass_conn(node->pass, base, c, input, n);
}

static void on_upgraded(void *user, struct conn *c)
{
    const struct node *node = user;
    relay_upgraded(node->relay, c);
}

static int build_mesh(struct node *n)
{
    const struct config *c = n->config;
    endpoints(c, c->bind, n->mesh_pub, n->mesh_router);
    n->zmq = peers_zmq_new(n->reactor, &(struct peers_zmq_options){.pub = n->mesh_pub,
                                                                   .router = n->mesh_router,
                                                                   .queue_bytes = c->ring_bytes});
    n->cluster = n->zmq ? cluster_new(n->reactor, n->hub) : NULL;
    if (!n->cluster)
        return ERR_SYSTEM;
    const char *advertised = c->advertise[0] ? c->advertise : c->bind;
    endpoints(&(struct config){.mesh = (char[]){""}, .mesh_port = c->mesh_port}, advertised, n->mesh_pub,
              n->mesh_router);
    endpoints(&(struct config){.mesh = c->mesh}, "", n->local_pub, n->local_router);
    struct peers_link link = peers_zmq_link(n->zmq);
    struct peers_user user = cluster_user(n->cluster, on_mesh_ready, n);
    n->peers = peers_new(n->reactor, n->metrics,
                         &(struct peers_options){
                             .cluster = span_of(c->cluster),
                             .name = span_of(c->name),
                             .host = span_of(n->host),
                             .pub = span_of(n->mesh_pub),
                             .router = span_of(n->mesh_router),
                             .local_pub = span_of(n->local_pub),
                             .local_router = span_of(n->local_router),
                             .self = n->self,
                             .version = c->mesh_version,
                             .peer_timeout_ms = c->peer_timeout_ms,
                             .start_wait_ms = START_WAIT_MS,
                             .ring = {.max_ms = persist_keep_ms(c),
                                      .max_bytes = c->ring_bytes,
                                      .no_rooms = !persist_recovers(c)},
                         },
                         &link, &user);
    if (!n->peers)
        return ERR_MEMORY;
    cluster_use(n->cluster, n->peers);
    if (c->mesh[0]) {
        n->pass = pass_new(n->reactor, c->mesh);
        n->handover = n->pass ? handover_new(n->reactor, n->front, c->mesh) : NULL;
        if (!n->handover)
            return ERR_SYSTEM;
        pass_use(n->pass, n->front);
    }
    n->relay = relay_new(n->reactor, n->cluster, n->front);
    if (!n->relay)
        return ERR_MEMORY;
    n->front->options.elsewhere = send_to_owner;
    n->front->options.upgraded = on_upgraded;
    n->front->options.elsewhere_user = n;
    int err = peers_zmq_start(n->zmq, n->peers);
    return err ? err : add_peers(n);
}

static void on_persist_start(void *user)
{
    struct node *n = user;
    peers_start(n->peers);
}

static void on_persist_failed(void *user)
{
    struct node *n = user;
    n->exit_code = 1;
    reactor_stop(n->reactor);
}

static int build_persist(struct node *n)
{
    const struct config *c = n->config;
    n->persist = persist_new(&(struct persist_parts){
        .reactor = n->reactor,
        .metrics = n->metrics,
        .hub = n->hub,
        .cluster = n->cluster,
        .peers = n->peers,
        .config = c,
        .self = {.origin = n->self,
                 .lives = true,
                 .name = span_of(c->name),
                 .host = span_of(n->host),
                 .pub = span_of(n->mesh_pub),
                 .router = span_of(n->mesh_router)},
        .on_start = on_persist_start,
        .on_failed = on_persist_failed,
        .user = n,
    });
    if (!n->persist)
        return ERR_SYSTEM;
    n->web.store = persist_state(n->persist);
    return 0;
}

static int build_dashboard(struct node *n)
{
    n->web.dashboard = dashboard_new(&(struct dashboard_parts){
        .reactor = n->reactor,
        .metrics = n->metrics,
        .hub = n->hub,
        .cluster = n->cluster,
        .config = n->config,
        .agents = n->web.agents,
        .web = &n->web,
        .self = n->self,
        .host = n->host,
    });
    return n->web.dashboard ? 0 : ERR_MEMORY;
}

static int build_gateway(struct node *n)
{
    n->gateway = gateway_node_new(&(struct gateway_node_parts){.reactor = n->reactor,
                                                               .metrics = n->metrics,
                                                               .hub = n->hub,
                                                               .config = n->config,
                                                               .self = n->self,
                                                               .host = span_of(n->host)});
    if (!n->gateway)
        return ERR_SYSTEM;
    n->web.agents = gateway_node_agents(n->gateway);
    if (n->cluster)
        n->machines = machine_share_new(n->reactor, n->cluster, n->web.agents);
    return n->cluster && !n->machines ? ERR_MEMORY : 0;
}

static int build(struct node *n, const struct node_parts *parts)
{
    const struct config *c = n->config;
    uint32_t tag = name_origin(n);
    gethostname(n->host, sizeof(n->host) - 1);
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
    n->web = (struct web){.hub = n->hub,
                          .reactor = n->reactor,
                          .metrics = n->metrics,
                          .path = c->path,
                          .base_path = c->base_path,
                          .cors = cors};
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
    if (!n->front)
        return ERR_SYSTEM;
    /* Without a mesh it is still the peers who number and keep what is said. */
    bool is_alone = !has_mesh(c) && !persist_is_wanted(c);
    int err = is_alone ? 0 : build_mesh(n);
    if (err)
        return err;
    n->collects = collects_new(n->reactor, n->hub, n->cluster);
    if (!n->collects)
        return ERR_MEMORY;
    if (!is_alone)
        err = build_persist(n);
    if (!err && !parts)
        err = build_gateway(n);
    return err ? err : build_dashboard(n);
}

static void take_apart(struct node *n)
{
    api_stop(&n->web);
    drain_stop(&n->drain);
    handover_free(&n->handover);
    pass_free(&n->pass);
    relay_free(&n->relay);
    dashboard_free(&n->web.dashboard);
    front_free(&n->front);
    engine_free(&n->engine);
    machine_share_free(&n->machines);
    gateway_node_free(&n->gateway);
    persist_free(&n->persist);
    collects_free(&n->collects);
    if (n->cluster)
        cluster_free(&n->cluster);
    peers_free(&n->peers);
    peers_zmq_free(&n->zmq);
    hub_free(&n->hub);
    if (n->signals.fd >= 0 && n->reactor) {
        reactor_remove(n->reactor, &n->signals);
        close(n->signals.fd);
    }
    upkeep_deinit(&n->upkeep);
    reactor_free(&n->reactor);
    metrics_free(&n->metrics);
}

/* Unless it has been inherited. */
static int listen_on(struct node *n, uint32_t port, bool is_shared)
{
    if (port == 0 || front_has_port(n->front, (uint16_t)port) ||
        front_listen(n->front, n->config->bind, (uint16_t)port, is_shared) == 0)
        return 0;
    fprintf(stderr, "starling-node: cannot listen on %s port %u: %s\n", n->config->bind, port,
            strerror(errno));
    return ERR_SYSTEM;
}

/* ---- stopping ---- */

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

static int watch_signals(struct node *n)
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

/* ---- run ---- */

/* 0, or ERR_SYSTEM after a message. */
static int open_doors(struct node *n)
{
    const struct config *c = n->config;
    if (c->inherit[0])
        log_event(LOG_INFO, "inherited", LOG_TEXT("from", c->inherit),
                  LOG_UINT("listeners", handover_take(n->front, c->inherit)));
    return listen_on(n, c->port, has_mesh(c)) || listen_on(n, c->node_port, false) ? ERR_SYSTEM : 0;
}

static void say_ready(struct node *n)
{
    const struct config *c = n->config;
    char line[1] = {'\n'};
    atomic_store(&n->web.ready, true);
    gateway_node_start(n->gateway);
    upkeep_say_ready(&n->upkeep);
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

/* Who is not ready does not attract clients: with a mesh the doors open only now. */
static void on_mesh_ready(void *user)
{
    struct node *n = user;
    if (open_doors(n)) {
        n->exit_code = 1;
        reactor_stop(n->reactor);
        return;
    }
    log_event(LOG_INFO, "mesh_ready", LOG_UINT("peers", peers_alive(n->peers)));
    say_ready(n);
}

int node_run(const struct config *config, struct node_parts *parts)
{
    struct node n = {.config = config, .signals.fd = -1};
    int err = 0;
    int code = upkeep_init(&n.upkeep, config);
    if (code)
        goto out;
    code = 1;
    log_setup(config->log_level, config->log_json);
    if (config->core >= 0 && !config->no_pin && pin(config->core)) {
        fprintf(stderr, "starling-node: --core %d: %s\n", config->core, strerror(errno));
        code = 2;
        goto out;
    }
    err = watch_signals(&n);
    if (!err)
        err = build(&n, parts);
    if (!err)
        err = reactor_add(n.reactor, &n.signals, EPOLLIN);
    if (err) {
        fprintf(stderr, "starling-node: cannot start: %s\n", err_text(err));
        goto out;
    }
    if (!n.peers && open_doors(&n))
        goto out;
    upkeep_start(&n.upkeep, n.reactor);
    if (n.persist)
        persist_start(n.persist);
    else if (n.peers)
        peers_start(n.peers);
    else
        say_ready(&n);
    code = reactor_run(n.reactor) ? 1 : n.exit_code;
    log_event(LOG_INFO, "stopped", LOG_TEXT("origin", n.origin));
out:
    take_apart(&n);
    return code;
}
