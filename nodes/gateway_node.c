#include "gateway_node.h"
#include "agents_zmq.h"
#include "persist.h"
#include <stdio.h>
#include <stdlib.h>

enum { ENDPOINT_BYTES = MESH_ENDPOINT_BYTES + 1 };

struct gateway_node {
    struct hub *hub;
    struct agents *agents;
    struct agents_zmq *zmq;
    char bound[2][ENDPOINT_BYTES], found[2][ENDPOINT_BYTES]; /* the same but for the address */
};

/* tcp first, which is for everybody. */
static unsigned endpoints(const struct config *c, const char *address, char text[2][ENDPOINT_BYTES])
{
    unsigned n = 0;
    if (c->agent_port)
        snprintf(text[n++], ENDPOINT_BYTES, "tcp://%s:%u", address, c->agent_port);
    if (c->agents[0])
        snprintf(text[n++], ENDPOINT_BYTES, "ipc://%s", c->agents);
    return n;
}

struct gateway_node *gateway_node_new(const struct gateway_node_parts *parts)
{
    const struct config *c = parts->config;
    struct gateway_node *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->hub = parts->hub;
    unsigned n = endpoints(c, c->bind, g->bound);
    endpoints(c, c->advertise[0] ? c->advertise : c->bind, g->found);
    g->zmq = agents_zmq_new(parts->reactor);
    if (!g->zmq) {
        gateway_node_free(&g);
        return NULL;
    }
    struct agents_options o = {.self = parts->self,
                               .name = span_of(c->name),
                               .cluster = span_of(c->cluster),
                               .host = parts->host,
                               .n_endpoints = n,
                               .window_ms = persist_window_ms(c),
                               .peer_timeout_ms = c->peer_timeout_ms};
    for (unsigned i = 0; i < n; i++)
        o.endpoint[i] = span_of(g->found[i]);
    struct agents_link link = agents_zmq_link(g->zmq);
    g->agents = agents_new(parts->reactor, parts->hub, parts->metrics, &o, &link);
    bool good = g->agents != NULL && agents_zmq_start(g->zmq, g->agents) == 0;
    for (unsigned i = 0; i < n && good; i++)
        good = agents_zmq_bind(g->zmq, g->bound[i]) == 0;
    if (!good) {
        gateway_node_free(&g);
        return NULL;
    }
    parts->hub->handler = agents_handler(g->agents);
    return g;
}

void gateway_node_free(struct gateway_node **gp)
{
    struct gateway_node *g = *gp;
    if (!g)
        return;
    agents_free(&g->agents);
    agents_zmq_free(&g->zmq);
    free(g);
    *gp = NULL;
}

void gateway_node_start(struct gateway_node *g)
{
    if (g)
        agents_start(g->agents);
}

void gateway_node_drain(struct gateway_node *g)
{
    if (g)
        agents_drain(g->agents);
}

struct agents *gateway_node_agents(const struct gateway_node *g)
{
    return g ? g->agents : NULL;
}
