/* Gateways of several nodes over a network in memory, and agents at them whose link is in memory, too: an agent says
 * records, and what comes for it is kept until the test takes it. */
#ifndef STARLING_TESTS_FAKEGATEWAY_H
#define STARLING_TESTS_FAKEGATEWAY_H

#include "agent.h"
#include "agents.h"
#include "collect.h"
#include "err.h"
#include "fakecluster.h"

enum { AGENTS = 8, SLICE_MS = 100 };

static struct collects *collects[NODES];
static struct agents *gateways[NODES];

/* An agent. Its identity is its place in the array. */
static struct fake_agent {
    unsigned node;
    bool is_there; /* has said HELLO and goes on granting */
    bool is_mute;  /* says nothing by itself, neither life signs nor grants */
    int refuses;   /* what its link says to a message; 0: takes it */
    uint64_t next_id, received;
    msgpack_sbuffer got;
    size_t read;
} fakes[AGENTS];

static struct agent_record say, heard; /* large: one of each is enough */

/* ---- the link ---- */

static inline int fake_send(void *link, struct span identity, struct span message)
{
    (void)link;
    struct fake_agent *f = &fakes[(unsigned char)identity.p[0]];
    if (f->refuses)
        return f->refuses;
    f->received += message.n;
    assert_int_equal(msgpack_sbuffer_write(&f->got, message.p, message.n), 0);
    return 0;
}

static inline void says_bytes(unsigned a, struct span bytes)
{
    char identity = (char)a;
    agents_receive(gateways[fakes[a].node], (struct span){&identity, 1}, bytes);
}

static inline struct agent_record *record_of(enum agent_kind kind)
{
    agent_init(&say, kind);
    return &say;
}

/* What record_of() was filled in with. */
static inline void says(unsigned a)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(agent_write(&b, &say), 0);
    says_bytes(a, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
}

/* The same as a request, with an id of its own. */
static inline uint64_t asks(unsigned a)
{
    say.id = ++fakes[a].next_id;
    says(a);
    return say.id;
}

/* ---- what comes ---- */

/* The next record of this kind, with this id unless it is 0; others are passed over. False: there is none. */
static inline bool hears(unsigned a, enum agent_kind kind, uint64_t id)
{
    struct fake_agent *f = &fakes[a];
    struct agent_reader reader = agent_open((struct span){f->got.data + f->read, f->got.size - f->read});
    while (agent_read(&reader, &heard) == 1) {
        if (heard.kind != kind || (id && heard.id != id))
            continue;
        f->read = (size_t)(reader.p - f->got.data);
        return true;
    }
    return false;
}

static inline bool hears_error(unsigned a, uint64_t id, const char *code)
{
    return hears(a, AGENT_ERROR, id) && span_eq(heard.code, span_of(code));
}

/* ---- time ---- */

/* Agents that are not mute give signs of life. */
static inline void run(unsigned ms)
{
    for (unsigned done = 0; done < ms; done += SLICE_MS) {
        for (unsigned a = 0; a < AGENTS; a++) {
            if (!fakes[a].is_there || fakes[a].is_mute || !gateways[fakes[a].node])
                continue;
            record_of(AGENT_CREDIT)->credit = fakes[a].received + (1 << 20);
            says(a);
        }
        net_run(&net, ms - done < SLICE_MS ? ms - done : SLICE_MS);
    }
}

/* ---- life ---- */

static inline void start_gateway(unsigned i)
{
    struct node *n = &nodes[i];
    static char name[NODES][8];
    snprintf(name[i], sizeof(name[i]), "node-%u", i);
    collects[i] = collects_new(n->w.reactor, n->w.hub, n->cluster);
    struct agents_options o = {.self = options.self,
                               .name = span_of(name[i]),
                               .cluster = SPAN("c"),
                               .host = SPAN("host"),
                               .window_ms = 120000,
                               .peer_timeout_ms = options.peer_timeout_ms};
    o.self.tag = 0x10 + i;
    struct agents_link link = {.send = fake_send};
    gateways[i] = agents_new(n->w.reactor, n->w.hub, n->w.metrics, &o, &link);
    assert_true(collects[i] && gateways[i]);
    n->w.hub->handler = agents_handler(gateways[i]);
    agents_start(gateways[i]);
}

static inline void stop_gateway(unsigned i)
{
    if (!gateways[i])
        return;
    agents_free(&gateways[i]);
    collects_free(&collects[i]);
}

/* As by SIGKILL: nobody hears any more of it. */
static inline void kill_node(unsigned i)
{
    for (unsigned j = 0; j < NODES; j++)
        if (j != i)
            net_cut_both(&net, i, j, true);
    stop_gateway(i);
    stop_node(i);
}

/* With credit for `credit` bytes. */
static inline void greet(unsigned a, unsigned node, const char *name, const char *instance, uint64_t credit)
{
    struct fake_agent *f = &fakes[a];
    if (!f->is_there)
        msgpack_sbuffer_init(&f->got);
    f->is_there = true;
    f->node = node;
    f->received = 0;
    record_of(AGENT_HELLO)->version = 1;
    say.name = span_of(name);
    say.instance = span_of(instance);
    say.credit = credit;
    says(a);
    assert_true(hears(a, AGENT_WELCOME, 0));
    f->received = 0;
}

static inline void hello(unsigned a, unsigned node, const char *name)
{
    char instance[16];
    snprintf(instance, sizeof(instance), "instance-%u", a);
    greet(a, node, name, instance, 1 << 20);
}

static inline int set_up_gateways(void **state)
{
    set_up(state);
    memset(fakes, 0, sizeof(fakes));
    for (unsigned i = 0; i < NODES; i++)
        start_gateway(i);
    settle();
    return 0;
}

static inline int tear_down_gateways(void **state)
{
    for (unsigned i = 0; i < NODES; i++)
        stop_gateway(i);
    for (unsigned a = 0; a < AGENTS; a++)
        if (fakes[a].is_there)
            msgpack_sbuffer_destroy(&fakes[a].got);
    return tear_down(state);
}

#endif
