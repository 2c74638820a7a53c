#include "node.h"
#include "api.h"
#include "client.h"
#include "collect.h"
#include "dashboard.h"
#include "err.h"
#include "gateway_node.h"
#include "handover.h"
#include "log.h"
#include "machine_share.h"
#include "node_private.h"
#include "pass.h"
#include "peers_zmq.h"
#include "persist.h"
#include "relay.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { OWN_DESCRIPTORS = 64 }; /* that are no connections */

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
        n->machines = machine_share_new(n->reactor, n->cluster, n->web.agents, n->persist);
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
    bool is_alone = !node_has_mesh(c) && !persist_is_wanted(c);
    int err = is_alone ? 0 : node_build_mesh(n);
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

/* ---- run ---- */

/* 0, or ERR_SYSTEM after a message. */
static int open_doors(struct node *n)
{
    const struct config *c = n->config;
    if (c->inherit[0])
        log_event(LOG_INFO, "inherited", LOG_TEXT("from", c->inherit),
                  LOG_UINT("listeners", handover_take(n->front, c->inherit)));
    return listen_on(n, c->port, node_has_mesh(c)) || listen_on(n, c->node_port, false) ? ERR_SYSTEM : 0;
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
void node_on_mesh_ready(void *user)
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
    err = node_watch_signals(&n);
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
