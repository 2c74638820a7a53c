/* A network in memory, and a clock: several nodes in one thread, each with a reactor of its own, and a link for each
 * node's peers whose messages wait in one queue. A test delays, drops, doubles and cuts them for each direction, and
 * freezes nodes. Time stands still but for net_step(), or who sets the clock, so a run depends on its seed only. */
#ifndef STARLING_TESTS_FAKENET_H
#define STARLING_TESTS_FAKENET_H

#include "must.h"
#include "peers.h"

/* What CLOCK_MONOTONIC says in this program. */
extern uint64_t net_clock_ms;

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
    bool is_silent;        /* what it sends goes nowhere: it is being taken apart */
    bool hears[NET_NODES]; /* has subscribed */
    unsigned channels;     /* open */
};

struct net_message;
struct net {
    struct net_node node[NET_NODES];
    struct net_way way[NET_NODES][NET_NODES]; /* from, to */
    bool keeps_order;                         /* of what is published, and of what is sent, as ZeroMQ does */
    uint64_t last_ms[NET_NODES][NET_NODES][2];
    struct net_message *first, *last;
    uint64_t seed;
    /* True: lost. Sees every message that is not cut. */
    bool (*loses)(struct net *net, unsigned from, unsigned to, struct span message);
    /* May be NULL. The node is about to receive this. */
    void (*on_delivery)(struct net *net, unsigned from, unsigned to, struct span message);
    void *user;
    unsigned sent[NET_KINDS]; /* messages by the kind of their first record */
    size_t largest;
};

uint64_t net_draw(struct net *net, uint64_t below);
/* Kind of the first record; 0: none. */
enum mesh_kind net_kind(struct span message);

/* ---- life ---- */

void net_init(struct net *net, uint64_t seed);
void net_end(struct net *net);
/* The endpoints in *o are filled in; the reactor is borrowed. */
struct peers *net_start(struct net *net, unsigned i, struct reactor *r, struct metrics *metrics,
                        struct peers_options o, const struct peers_user *user);
/* At once, as by SIGKILL: what it has not sent is lost, and what is on the way to it. */
void net_stop(struct net *net, unsigned i);
/* One names another, by its address or by the host's own path. */
void net_name(struct net *net, unsigned i, unsigned other);
void net_name_local(struct net *net, unsigned i, unsigned other);

/* ---- ways ---- */

void net_cut(struct net *net, unsigned from, unsigned to, bool is_cut);
void net_cut_both(struct net *net, unsigned a, unsigned b, bool is_cut);
void net_set_all(struct net *net, struct net_way way);

/* ---- time ---- */

/* A millisecond. */
void net_step(struct net *net);
void net_run(struct net *net, unsigned ms);
/* False: it did not come true in time. */
bool net_until(struct net *net, bool (*holds)(void *arg), void *arg);
/* One turn of a node's loop, without waiting. */
void net_turn(struct net_node *node);
/* For who sets the clock: what is due is delivered; when the next message is. UINT64_MAX: there is none. */
void net_deliver(struct net *net);
uint64_t net_next_ms(const struct net *net);

#endif
