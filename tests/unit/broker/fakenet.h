/* A network in memory, and a clock: several nodes in one thread, each with a reactor of its own, and a link for each
 * node's peers whose messages wait in one queue. A test delays, drops, doubles and cuts them for each direction, and
 * freezes nodes. Time stands still but for net_step(), so a run depends on its seed only. */
#ifndef STARLING_TESTS_FAKENET_H
#define STARLING_TESTS_FAKENET_H

#include "peers.h"
#include "sink.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- the clock ---- */

static uint64_t net_clock_ms = 1000000;

/* In place of the C library's, for whatever is linked into this program: reactors live in our time. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    if (id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, id, t);
    t->tv_sec = (time_t)(net_clock_ms / 1000);
    t->tv_nsec = (long)(net_clock_ms % 1000) * 1000000;
    return 0;
}

/* ---- nodes and ways ---- */

enum { NET_NODES = 5, NET_KINDS = 64 };

struct net_way {
    bool is_cut;
    unsigned loss, twice; /* of 1000 messages */
    unsigned delay_ms;    /* at most; more than 0 reorders, unless keeps_order */
};

struct net_node {
    struct net *net;
    unsigned index;
    char pub[16], router[16];
    char local_pub[16], local_router[16]; /* as nodes of the same host name it, if a test has them do so */
    struct reactor *reactor;
    struct peers *peers; /* NULL: down */
    bool is_frozen;
    bool hears[NET_NODES]; /* has subscribed */
    unsigned channels;     /* open */
};

struct net_message {
    struct net_message *next;
    unsigned from, to;
    uint64_t due_ms;
    size_t n;
    char bytes[];
};

struct net {
    struct net_node node[NET_NODES];
    struct net_way way[NET_NODES][NET_NODES]; /* from, to */
    bool keeps_order;                         /* of what is published, and of what is sent, as ZeroMQ does */
    uint64_t last_ms[NET_NODES][NET_NODES][2];
    struct net_message *first, *last;
    uint64_t seed;
    /* True: lost. Sees every message that is not cut. */
    bool (*loses)(struct net *net, unsigned from, unsigned to, struct span message);
    unsigned sent[NET_KINDS]; /* messages by the kind of their first record */
    size_t largest;
};

/* Of peers.h: the link's own. */
struct peers_channel {
    struct net_node *from;
    unsigned to;
};

static inline uint64_t net_draw(struct net *net, uint64_t below)
{
    net->seed = net->seed * 6364136223846793005u + 1442695040888963407u;
    return (net->seed >> 33) % below;
}

/* Kind of the first record; 0: none. */
static inline enum mesh_kind net_kind(struct span message)
{
    static struct mesh_record record;
    struct mesh_reader r;
    struct mesh_head head;
    if (mesh_read_head(&r, message, &head) || mesh_read(&r, &record) != 1)
        return 0;
    return record.kind;
}

/* ---- the queue ---- */

static inline void net_enqueue(struct net *net, struct net_message *m)
{
    struct net_message **at = &net->first;
    if (net->last && net->last->due_ms <= m->due_ms)
        at = &net->last->next;
    while (*at && (*at)->due_ms <= m->due_ms)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    if (!m->next)
        net->last = m;
}

static inline void net_put(struct net *net, unsigned from, unsigned to, struct span message, uint64_t due_ms)
{
    struct net_message *m = malloc(sizeof(*m) + message.n);
    MUST(m);
    *m = (struct net_message){.from = from, .to = to, .due_ms = due_ms, .n = message.n};
    memcpy(m->bytes, message.p, message.n);
    net_enqueue(net, m);
}

static inline void net_send(struct net *net, unsigned from, unsigned to, struct span message, bool is_direct)
{
    const struct net_way *way = &net->way[from][to];
    uint64_t *last_ms = &net->last_ms[from][to][is_direct];
    net->sent[net_kind(message)]++;
    if (net->largest < message.n)
        net->largest = message.n;
    if (!net->node[to].peers || way->is_cut || net_draw(net, 1000) < way->loss ||
        (net->loses && net->loses(net, from, to, message)))
        return;
    for (unsigned copies = net_draw(net, 1000) < way->twice ? 2 : 1; copies > 0; copies--) {
        uint64_t due_ms = net_clock_ms + 1 + net_draw(net, way->delay_ms + 1);
        if (net->keeps_order && due_ms < *last_ms)
            due_ms = *last_ms;
        *last_ms = due_ms;
        net_put(net, from, to, message, due_ms);
    }
}

/* Takes what is next for a node that can have it out of the queue; with down: what is for this node. */
static inline struct net_message *net_take(struct net *net, const struct net_node *down)
{
    struct net_message *before = NULL, *m = net->first;
    while (m && (down ? &net->node[m->to] != down : net->node[m->to].is_frozen)) {
        before = m;
        m = m->next;
    }
    if (!m || (!down && m->due_ms > net_clock_ms))
        return NULL;
    if (before)
        before->next = m->next;
    else
        net->first = m->next;
    if (net->last == m)
        net->last = before;
    return m;
}

static inline void net_deliver(struct net *net)
{
    struct net_message *m;
    while ((m = net_take(net, NULL))) {
        peers_receive(net->node[m->to].peers, (struct span){m->bytes, m->n});
        free(m);
    }
}

/* ---- the link ---- */

static inline void net_on_publish(void *link, struct span message)
{
    const struct net_node *node = link;
    for (unsigned i = 0; i < NET_NODES; i++)
        if (node->net->node[i].hears[node->index])
            net_send(node->net, node->index, i, message, false);
}

static inline void net_on_send(void *link, struct peers_channel *channel, struct span message)
{
    const struct net_node *node = link;
    MUST(channel->from == node);
    net_send(node->net, node->index, channel->to, message, true);
}

static inline struct peers_channel *net_on_open(void *link, struct span pub, struct span router)
{
    struct net_node *node = link;
    struct peers_channel *channel = malloc(sizeof(*channel));
    unsigned to = (unsigned)(router.p[router.n - 1] - '0');
    MUST(channel && to < NET_NODES && pub.p[pub.n - 1] == router.p[router.n - 1]);
    *channel = (struct peers_channel){node, to};
    node->hears[to] = true;
    node->channels++;
    return channel;
}

static inline void net_on_close(void *link, struct peers_channel *channel)
{
    struct net_node *node = link;
    node->channels--;
    free(channel);
}

/* ---- life ---- */

static inline void net_init(struct net *net, uint64_t seed)
{
    *net = (struct net){.seed = seed * 0x9e3779b97f4a7c15u + 1};
    for (unsigned i = 0; i < NET_NODES; i++) {
        struct net_node *node = &net->node[i];
        node->net = net;
        node->index = i;
        snprintf(node->pub, sizeof(node->pub), "tcp://pub-%u", i % 10);
        snprintf(node->router, sizeof(node->router), "tcp://router-%u", i % 10);
        snprintf(node->local_pub, sizeof(node->local_pub), "ipc://p-%u", i % 10);
        snprintf(node->local_router, sizeof(node->local_router), "ipc://r-%u", i % 10);
    }
}

/* The endpoints in *o are filled in; the reactor is borrowed. */
static inline struct peers *net_start(struct net *net, unsigned i, struct reactor *r, struct metrics *metrics,
                                      struct peers_options o, const struct peers_user *user)
{
    struct net_node *node = &net->node[i];
    struct peers_link link = {.publish = net_on_publish,
                              .send = net_on_send,
                              .open = net_on_open,
                              .close = net_on_close,
                              .link = node};
    MUST(!node->peers);
    o.pub = span_of(node->pub);
    o.router = span_of(node->router);
    o.local_pub = span_of(node->local_pub);
    o.local_router = span_of(node->local_router);
    node->reactor = r;
    node->is_frozen = false;
    node->peers = peers_new(r, metrics, &o, &link, user);
    MUST(node->peers);
    return node->peers;
}

static inline void net_name(struct net *net, unsigned i, unsigned other)
{
    MUST(peers_add_peer(net->node[i].peers, span_of(net->node[other].pub),
                        span_of(net->node[other].router)) == 0);
}

static inline void net_name_local(struct net *net, unsigned i, unsigned other)
{
    MUST(peers_add_peer(net->node[i].peers, span_of(net->node[other].local_pub),
                        span_of(net->node[other].local_router)) == 0);
}

/* At once, as by SIGKILL: what it has not sent is lost, and what is on the way to it. */
static inline void net_stop(struct net *net, unsigned i)
{
    struct net_node *node = &net->node[i];
    struct net_message *m;
    peers_free(&node->peers);
    MUST(node->channels == 0);
    memset(node->hears, 0, sizeof(node->hears));
    while ((m = net_take(net, node)))
        free(m);
}

static inline void net_end(struct net *net)
{
    for (unsigned i = 0; i < NET_NODES; i++)
        if (net->node[i].peers)
            net_stop(net, i);
    MUST(!net->first);
}

/* ---- time ---- */

static inline void net_turn(struct net_node *node)
{
    reactor_stop(node->reactor);
    MUST(reactor_run(node->reactor) == 0);
}

/* A millisecond. */
static inline void net_step(struct net *net)
{
    net_clock_ms++;
    net_deliver(net);
    for (unsigned i = 0; i < NET_NODES; i++)
        if (net->node[i].peers && !net->node[i].is_frozen)
            net_turn(&net->node[i]);
}

static inline void net_run(struct net *net, unsigned ms)
{
    while (ms-- > 0)
        net_step(net);
}

/* False: it did not come true in time. */
static inline bool net_until(struct net *net, bool (*holds)(void *arg), void *arg)
{
    for (unsigned ms = 0; ms < 30000; ms++) {
        if (holds(arg))
            return true;
        net_step(net);
    }
    return holds(arg);
}

static inline void net_cut(struct net *net, unsigned from, unsigned to, bool is_cut)
{
    net->way[from][to].is_cut = is_cut;
}

static inline void net_cut_both(struct net *net, unsigned a, unsigned b, bool is_cut)
{
    net_cut(net, a, b, is_cut);
    net_cut(net, b, a, is_cut);
}

static inline void net_set_all(struct net *net, struct net_way way)
{
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            net->way[i][j] = way;
}

#endif
