#include "fakenet.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct net_message {
    struct net_message *next;
    unsigned from, to;
    uint64_t due_ms;
    size_t n;
    char bytes[];
};

/* ---- the clock ---- */

uint64_t net_clock_ms = 1000000;

/* In place of the C library's, for whatever is linked into this program: reactors live in our time. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    if (id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, id, t);
    t->tv_sec = (time_t)(net_clock_ms / 1000);
    t->tv_nsec = (long)(net_clock_ms % 1000) * 1000000;
    return 0;
}

/* Of peers.h: the link's own. */
struct peers_channel {
    struct net_node *from;
    unsigned to;
};

uint64_t net_draw(struct net *net, uint64_t below)
{
    net->seed = net->seed * 6364136223846793005u + 1442695040888963407u;
    return (net->seed >> 33) % below;
}

enum mesh_kind net_kind(struct span message)
{
    static struct mesh_record record;
    struct mesh_reader r;
    struct mesh_head head;
    if (mesh_read_head(&r, message, &head) || mesh_read(&r, &record) != 1)
        return 0;
    return record.kind;
}

/* ---- the queue ---- */

static void enqueue(struct net *net, struct net_message *m)
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

static void put(struct net *net, unsigned from, unsigned to, struct span message, uint64_t due_ms)
{
    struct net_message *m = malloc(sizeof(*m) + message.n);
    MUST(m);
    *m = (struct net_message){.from = from, .to = to, .due_ms = due_ms, .n = message.n};
    memcpy(m->bytes, message.p, message.n);
    enqueue(net, m);
}

static void send_one(struct net *net, unsigned from, unsigned to, struct span message, bool is_direct)
{
    const struct net_way *way = &net->way[from][to];
    uint64_t *last_ms = &net->last_ms[from][to][is_direct];
    net->sent[net_kind(message)]++;
    if (net->largest < message.n)
        net->largest = message.n;
    if (!net->node[to].peers || net->node[from].is_silent || way->is_cut || net_draw(net, 1000) < way->loss ||
        (net->loses && net->loses(net, from, to, message)))
        return;
    for (unsigned copies = net_draw(net, 1000) < way->twice ? 2 : 1; copies > 0; copies--) {
        uint64_t due_ms = net_clock_ms + 1 + net_draw(net, way->delay_ms + 1);
        if (net->keeps_order && due_ms < *last_ms)
            due_ms = *last_ms;
        *last_ms = due_ms;
        put(net, from, to, message, due_ms);
    }
}

/* Takes what is next for a node that can have it out of the queue; with down: what is for this node. */
static struct net_message *take(struct net *net, const struct net_node *down)
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

void net_deliver(struct net *net)
{
    struct net_message *m;
    while ((m = take(net, NULL))) {
        if (net->on_delivery)
            net->on_delivery(net, m->from, m->to, (struct span){m->bytes, m->n});
        peers_receive(net->node[m->to].peers, (struct span){m->bytes, m->n});
        free(m);
    }
}

uint64_t net_next_ms(const struct net *net)
{
    const struct net_message *m = net->first;
    while (m && net->node[m->to].is_frozen)
        m = m->next;
    return m ? m->due_ms : UINT64_MAX;
}

/* ---- the link ---- */

static void on_publish(void *link, struct span message)
{
    const struct net_node *node = link;
    for (unsigned i = 0; i < NET_NODES; i++)
        if (node->net->node[i].hears[node->index])
            send_one(node->net, node->index, i, message, false);
}

static void on_send(void *link, struct peers_channel *channel, struct span message)
{
    const struct net_node *node = link;
    MUST(channel->from == node);
    send_one(node->net, node->index, channel->to, message, true);
}

static struct peers_channel *on_open(void *link, struct span pub, struct span router)
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

static void on_close(void *link, struct peers_channel *channel)
{
    struct net_node *node = link;
    node->channels--;
    free(channel);
}

/* ---- life ---- */

void net_init(struct net *net, uint64_t seed)
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

struct peers *net_start(struct net *net, unsigned i, struct reactor *r, struct metrics *metrics,
                        struct peers_options o, const struct peers_user *user)
{
    struct net_node *node = &net->node[i];
    struct peers_link link = {
        .publish = on_publish, .send = on_send, .open = on_open, .close = on_close, .link = node};
    MUST(!node->peers);
    o.pub = span_of(node->pub);
    o.router = span_of(node->router);
    o.local_pub = span_of(node->local_pub);
    o.local_router = span_of(node->local_router);
    node->reactor = r;
    node->is_frozen = node->is_silent = false;
    node->peers = peers_new(r, metrics, &o, &link, user);
    MUST(node->peers);
    return node->peers;
}

void net_name(struct net *net, unsigned i, unsigned other)
{
    MUST(peers_add_peer(net->node[i].peers, span_of(net->node[other].pub),
                        span_of(net->node[other].router)) == 0);
}

void net_name_local(struct net *net, unsigned i, unsigned other)
{
    MUST(peers_add_peer(net->node[i].peers, span_of(net->node[other].local_pub),
                        span_of(net->node[other].local_router)) == 0);
}

void net_stop(struct net *net, unsigned i)
{
    struct net_node *node = &net->node[i];
    struct net_message *m;
    peers_free(&node->peers);
    MUST(node->channels == 0);
    memset(node->hears, 0, sizeof(node->hears));
    while ((m = take(net, node)))
        free(m);
}

void net_end(struct net *net)
{
    for (unsigned i = 0; i < NET_NODES; i++)
        if (net->node[i].peers)
            net_stop(net, i);
    MUST(!net->first);
}

/* ---- time ---- */

void net_turn(struct net_node *node)
{
    reactor_stop(node->reactor);
    MUST(reactor_run(node->reactor) == 0);
}

void net_step(struct net *net)
{
    net_clock_ms++;
    net_deliver(net);
    for (unsigned i = 0; i < NET_NODES; i++)
        if (net->node[i].peers && !net->node[i].is_frozen)
            net_turn(&net->node[i]);
}

void net_run(struct net *net, unsigned ms)
{
    while (ms-- > 0)
        net_step(net);
}

bool net_until(struct net *net, bool (*holds)(void *arg), void *arg)
{
    for (unsigned ms = 0; ms < 30000; ms++) {
        if (holds(arg))
            return true;
        net_step(net);
    }
    return holds(arg);
}

void net_cut(struct net *net, unsigned from, unsigned to, bool is_cut)
{
    net->way[from][to].is_cut = is_cut;
}

void net_cut_both(struct net *net, unsigned a, unsigned b, bool is_cut)
{
    net_cut(net, a, b, is_cut);
    net_cut(net, b, a, is_cut);
}

void net_set_all(struct net *net, struct net_way way)
{
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            net->way[i][j] = way;
}
