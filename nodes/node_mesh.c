#include "base64.h"
#include "err.h"
#include "handover.h"
#include "node_private.h"
#include "pass.h"
#include "peers_zmq.h"
#include "persist.h"
#include "relay.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { START_WAIT_MS = 5000 }; /* for peers that do not answer, or are heard one way only */

bool node_has_mesh(const struct config *c)
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

int node_build_mesh(struct node *n)
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
    struct peers_user user = cluster_user(n->cluster, node_on_mesh_ready, n);
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
