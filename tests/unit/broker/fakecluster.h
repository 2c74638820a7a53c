/* Hubs of several nodes that tell each other what happens, over a network in memory, with some clients at each. */
#ifndef STARLING_TESTS_FAKECLUSTER_H
#define STARLING_TESTS_FAKECLUSTER_H

#include "cluster.h"
#include "fakenet.h"
#include "limit.h"
#include "log.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { NODES = 3, CLIENTS = 3 };

static struct node {
    struct world w;
    struct cluster *cluster;
    struct peers *peers;
    bool is_ready;
    struct sink k[CLIENTS];
    struct socket *s[CLIENTS];
} nodes[NODES];

static struct net net;
static struct peers_options options;

static inline void on_ready(void *user)
{
    struct node *n = user;
    assert_false(n->is_ready);
    n->is_ready = true;
}

static inline void start_node(unsigned i, uint64_t boot)
{
    struct node *n = &nodes[i];
    *n = (struct node){.is_ready = false};
    world_start(&n->w, NULL, "*");
    n->cluster = cluster_new(n->w.reactor, n->w.hub);
    assert_non_null(n->cluster);
    struct peers_user user = cluster_user(n->cluster, on_ready, n);
    options.self = (struct mesh_origin){0x10 + i, boot};
    n->peers = net_start(&net, i, n->w.reactor, n->w.metrics, options, &user);
    cluster_use(n->cluster, n->peers);
    for (unsigned j = 0; j < NODES; j++)
        if (i != j)
            net_name(&net, i, j);
    peers_start(n->peers);
}

static inline void stop_node(unsigned i)
{
    struct node *n = &nodes[i];
    if (!n->peers)
        return;
    engine_shutdown(n->w.engine);
    world_turn(&n->w);
    net_stop(&net, i);
    n->peers = NULL;
    cluster_free(&n->cluster);
    assert_null(n->w.hub->cluster);
    world_stop(&n->w);
    for (unsigned c = 0; c < CLIENTS; c++)
        sink_free(&n->k[c]);
}

static inline bool all_are_ready(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].peers && !nodes[i].is_ready)
            return false;
    return true;
}

static inline void settle(void)
{
    net_run(&net, 5);
}

/* Clients 0 to 2 of every node, in the main namespace. */
static inline void enter_all(void)
{
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned c = 0; c < CLIENTS; c++)
            nodes[i].s[c] = sink_enter(&nodes[i].w, &nodes[i].k[c], "/");
    settle();
}

static inline void skip_all(void)
{
    settle();
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned c = 0; c < CLIENTS; c++)
            sink_skip(&nodes[i].k[c]);
}

static inline int set_up(void **state)
{
    (void)state;
    log_setup(LOG_ERROR, false);
    net_init(&net, 1);
    options = (struct peers_options){
        .cluster = SPAN("c"),
        .name = SPAN("node"),
        .host = SPAN("host"),
        .peer_timeout_ms = 300,
        .start_wait_ms = 5000,
        .ring = {.max_ms = 120000, .max_bytes = 64 << 20},
    };
    for (unsigned i = 0; i < NODES; i++)
        start_node(i, 1);
    assert_true(net_until(&net, all_are_ready, NULL));
    enter_all();
    skip_all();
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        stop_node(i);
    net_end(&net);
    return 0;
}

/* ---- messages by hand ---- */

static struct mesh_record record __attribute__((unused)); /* large: one is enough */

/* Of node 0 to node 1, out of the order of its peers. */
static inline void forge(const struct mesh_record *r)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    struct mesh_head head = {.version = MESH_VERSION, .cluster = SPAN("c"), .origin = {0x10, 1}};
    assert_int_equal(mesh_write_head(&b, &head), 0);
    assert_int_equal(mesh_write(&b, r), 0);
    peers_receive(nodes[1].peers, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
}

#endif
