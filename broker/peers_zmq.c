/* ZMQ_FD is edge-triggered: after it was readable, messages are taken until zmq_msg_recv() says EAGAIN. It has then read
 * all signals, so the next message makes the descriptor readable again, and asking for ZMQ_EVENTS would only cost system
 * calls. A turn takes a bounded number of messages; the rest is a task of the next turn. */
#include "peers_zmq.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <zmq.h>

enum {
    MESSAGES_PER_TURN = 64,
    BATCH_BYTES = 64 * 1024, /* largest message: peers.c */
    RECONNECT_MS = 50,
    RECONNECT_MAX_MS = 200,
    CONNECT_MS = 400, /* a SYN that is lost is sent again after a second only */
    PING_MS = 500,
    SILENT_MS = 1500, /* a connection on which nothing comes for so long is made anew */
    DIRECT_QUEUE =
        4096, /* messages to one peer alone; a snapshot of presence has to fit, the rest is asked for again */
};

/* A socket that is read. */
struct inlet {
    struct peers_zmq *z;
    void *socket;
    struct reactor_io io;
    struct reactor_task more;
};

struct peers_zmq {
    struct reactor *reactor;
    struct peers *peers;
    void *context, *pub;
    struct inlet sub, router;
    int queue;
};

struct peers_channel {
    void *dealer;
    char pub[MESH_ENDPOINT_BYTES + 1]; /* subscribed to; "": not yet */
};

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value));
}

static void *open_socket(struct peers_zmq *z, int type, int queue)
{
    void *socket = zmq_socket(z->context, type);
    if (!socket)
        return NULL;
    set(socket, ZMQ_LINGER, 0);
    set(socket, ZMQ_SNDHWM, queue);
    set(socket, ZMQ_RCVHWM, queue);
    set(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    set(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    if (type == ZMQ_SUB || type == ZMQ_DEALER) {
        set(socket, ZMQ_HEARTBEAT_IVL, PING_MS);
        set(socket, ZMQ_HEARTBEAT_TIMEOUT, SILENT_MS);
    }
    return socket;
}

static int bind_all(void *socket, const char *endpoints)
{
    char one[MESH_ENDPOINT_BYTES + 1];
    while (*endpoints) {
        size_t n = strcspn(endpoints, ",");
        if (n >= sizeof(one))
            return ERR_LIMIT;
        memcpy(one, endpoints, n);
        one[n] = '\0';
        if (zmq_bind(socket, one)) {
            log_event(LOG_ERROR, "mesh_bind", LOG_TEXT("endpoint", one),
                      LOG_TEXT("error", zmq_strerror(zmq_errno())));
            return ERR_SYSTEM;
        }
        endpoints += n + (endpoints[n] == ',');
    }
    return 0;
}

/* ---- reading ---- */

/* The last part is the message; a ROUTER puts the sender's identity before it, which the message's head tells too.
 * False: there is nothing left. */
static bool take_one(struct inlet *in)
{
    zmq_msg_t part;
    bool more = true;
    while (more) {
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, in->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return zmq_errno() == EINTR; /* only EAGAIN says that nothing is left */
        }
        more = zmq_msg_more(&part);
        if (!more)
            peers_receive(in->z->peers, (struct span){zmq_msg_data(&part), zmq_msg_size(&part)});
        zmq_msg_close(&part);
    }
    return true;
}

static void take_some(struct inlet *in)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++)
        if (!take_one(in))
            return;
    reactor_defer(in->z->reactor, &in->more, REACTOR_WORK);
}

static void on_ready(struct reactor_io *io, uint32_t events)
{
    (void)events;
    take_some(container_of(io, struct inlet, io));
}

static void on_more(struct reactor_task *task)
{
    take_some(container_of(task, struct inlet, more));
}

static int watch(struct inlet *in)
{
    size_t n = sizeof(in->io.fd);
    in->more.run = on_more;
    in->io.on_ready = on_ready;
    if (zmq_getsockopt(in->socket, ZMQ_FD, &in->io.fd, &n) || reactor_add(in->z->reactor, &in->io, EPOLLIN))
        return ERR_SYSTEM;
    reactor_defer(in->z->reactor, &in->more, REACTOR_WORK); /* what came before does not wake us */
    return 0;
}

/* ---- the link ---- */

static void publish(void *link, struct span message)
{
    struct peers_zmq *z = link;
    zmq_send(z->pub, message.p, message.n, ZMQ_DONTWAIT);
}

static void send_direct(void *link, struct peers_channel *channel, struct span message)
{
    (void)link;
    zmq_send(channel->dealer, message.p, message.n, ZMQ_DONTWAIT);
}

/* To connect and to disconnect a socket may eat the sign that something has come. */
static void look_again(struct inlet *in)
{
    if (in->more.run)
        reactor_defer(in->z->reactor, &in->more, REACTOR_WORK);
}

static void close_channel(void *link, struct peers_channel *channel)
{
    struct peers_zmq *z = link;
    if (channel->pub[0]) {
        zmq_disconnect(z->sub.socket, channel->pub);
        look_again(&z->sub);
    }
    if (channel->dealer)
        zmq_close(channel->dealer);
    free(channel);
}

static struct peers_channel *open_channel(void *link, struct span pub, struct span router)
{
    struct peers_zmq *z = link;
    struct peers_channel *channel = calloc(1, sizeof(*channel));
    char endpoint[MESH_ENDPOINT_BYTES + 1];
    if (!channel)
        return NULL;
    channel->dealer = open_socket(z, ZMQ_DEALER, DIRECT_QUEUE);
    snprintf(endpoint, sizeof(endpoint), "%.*s", (int)router.n, router.p);
    if (!channel->dealer || zmq_connect(channel->dealer, endpoint))
        goto fail;
    snprintf(endpoint, sizeof(endpoint), "%.*s", (int)pub.n, pub.p);
    if (zmq_connect(z->sub.socket, endpoint))
        goto fail;
    look_again(&z->sub);
    memcpy(channel->pub, endpoint, sizeof(endpoint));
    return channel;
fail:
    log_event(LOG_WARN, "mesh_connect", LOG_TEXT("endpoint", endpoint),
              LOG_TEXT("error", zmq_strerror(zmq_errno())));
    close_channel(link, channel);
    return NULL;
}

struct peers_link peers_zmq_link(struct peers_zmq *z)
{
    return (struct peers_link){
        .publish = publish, .send = send_direct, .open = open_channel, .close = close_channel, .link = z};
}

/* ---- start and end ---- */

struct peers_zmq *peers_zmq_new(struct reactor *r, const struct peers_zmq_options *o)
{
    struct peers_zmq *z = calloc(1, sizeof(*z));
    if (!z)
        return NULL;
    z->reactor = r;
    z->queue = (int)(o->queue_bytes / BATCH_BYTES) + 1;
    z->sub.z = z->router.z = z;
    z->sub.io.fd = z->router.io.fd = -1;
    z->context = zmq_ctx_new();
    if (z->context) {
        z->pub = open_socket(z, ZMQ_PUB, z->queue);
        z->sub.socket = open_socket(z, ZMQ_SUB, z->queue);
        z->router.socket = open_socket(z, ZMQ_ROUTER, DIRECT_QUEUE);
    }
    if (!z->pub || !z->sub.socket || !z->router.socket ||
        zmq_setsockopt(z->sub.socket, ZMQ_SUBSCRIBE, "", 0) || bind_all(z->pub, o->pub) ||
        bind_all(z->router.socket, o->router))
        peers_zmq_free(&z);
    return z;
}

int peers_zmq_start(struct peers_zmq *z, struct peers *peers)
{
    z->peers = peers;
    return watch(&z->sub) || watch(&z->router) ? ERR_SYSTEM : 0;
}

static void close_inlet(struct inlet *in)
{
    if (in->io.fd >= 0)
        reactor_remove(in->z->reactor, &in->io);
    reactor_undefer(in->z->reactor, &in->more, REACTOR_WORK);
    if (in->socket)
        zmq_close(in->socket);
}

void peers_zmq_free(struct peers_zmq **zp)
{
    struct peers_zmq *z = *zp;
    if (!z)
        return;
    close_inlet(&z->sub);
    close_inlet(&z->router);
    if (z->pub)
        zmq_close(z->pub);
    if (z->context)
        zmq_ctx_term(z->context);
    free(z);
    *zp = NULL;
}
