/* See peers_zmq.c for how ZMQ_FD is read. */
#include "agents_zmq.h"
#include "container.h"
#include "err.h"
#include "limit.h"
#include "log.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    MESSAGES_PER_TURN = 64,
    BYTES_PER_TURN = 64 * 1024, /* of small records, some milliseconds */
    QUEUE = 256,                /* messages under way to one agent, or from it; bytes are bounded by credit */
    ENDPOINTS = 4,
    BIND_AGAIN_MS = 100,
    LINGER_MS = 100,
    BACKLOG = 1024,
};

struct listener {
    bool is_bound, was_told;
    char endpoint[MESH_ENDPOINT_BYTES + 1];
};

struct agents_zmq {
    struct reactor *reactor;
    struct agents *agents;
    void *context, *router;
    struct reactor_io io;
    struct reactor_task more;
    struct timer again;
    unsigned n_places;
    struct listener place[ENDPOINTS];
};

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value));
}

/* ---- reading ---- */

/* A message is the sender's identity and one frame; of others the sender hears that they cannot be read. False: there is
 * nothing left. */
static bool take_one(struct agents_zmq *z, size_t *bytes)
{
    zmq_msg_t parts[2];
    unsigned n = 0;
    bool more = true, good = true;
    while (more && good) {
        zmq_msg_t extra, *part = n < 2 ? &parts[n] : &extra;
        zmq_msg_init(part);
        good = zmq_msg_recv(part, z->router, ZMQ_DONTWAIT) >= 0;
        more = good && zmq_msg_more(part);
        *bytes += good ? zmq_msg_size(part) : 0;
        if (!good || n >= 2)
            zmq_msg_close(part);
        n += good;
    }
    if (good && n >= 2)
        agents_receive(z->agents, (struct span){zmq_msg_data(&parts[0]), zmq_msg_size(&parts[0])},
                       n == 2 ? (struct span){zmq_msg_data(&parts[1]), zmq_msg_size(&parts[1])}
                              : SPAN("\xc1")); /* what msgpack never begins with */
    for (unsigned i = 0; i < n && i < 2; i++)
        zmq_msg_close(&parts[i]);
    return good || zmq_errno() == EINTR;
}

static void take_some(struct agents_zmq *z)
{
    size_t bytes = 0;
    for (int i = 0; i < MESSAGES_PER_TURN && bytes < BYTES_PER_TURN; i++)
        if (!take_one(z, &bytes))
            return;
    reactor_defer(z->reactor, &z->more, REACTOR_WORK);
}

static void on_ready(struct reactor_io *io, uint32_t events)
{
    (void)events;
    take_some(container_of(io, struct agents_zmq, io));
}

static void on_more(struct reactor_task *task)
{
    take_some(container_of(task, struct agents_zmq, more));
}

/* ---- the link ---- */

static int send_message(void *link, struct span identity, struct span message)
{
    struct agents_zmq *z = link;
    bool sent = zmq_send(z->router, identity.p, identity.n, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0 &&
                zmq_send(z->router, message.p, message.n, ZMQ_DONTWAIT) >= 0;
    int err = sent ? 0 : zmq_errno() == EHOSTUNREACH ? ERR_NOT_FOUND : ERR_BUSY;
    /* A send, also one in vain, may have eaten the sign that something has come. */
    reactor_defer(z->reactor, &z->more, REACTOR_WORK);
    return err;
}

struct agents_link agents_zmq_link(struct agents_zmq *z)
{
    return (struct agents_link){.send = send_message, .link = z};
}

/* ---- where it listens ---- */

/* libzmq would take a Unix socket away from whoever has it. */
static bool somebody_listens(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, endpoint + 6, strlen(endpoint + 6));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool found =
        fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return found;
}

static bool bind_place(struct agents_zmq *z, struct listener *place)
{
    if (!somebody_listens(place->endpoint) && zmq_bind(z->router, place->endpoint) == 0) {
        place->is_bound = true;
        log_event(LOG_INFO, "agents_listen", LOG_TEXT("endpoint", place->endpoint));
    } else if (!place->was_told) {
        place->was_told = true;
        log_event(LOG_WARN, "agents_bind", LOG_TEXT("endpoint", place->endpoint),
                  LOG_TEXT("error", zmq_strerror(zmq_errno())), LOG_TEXT("help", "it is tried again"));
    }
    return place->is_bound;
}

static void on_again(struct timer *t)
{
    struct agents_zmq *z = container_of(t, struct agents_zmq, again);
    bool all = true;
    for (unsigned i = 0; i < z->n_places; i++)
        all = (z->place[i].is_bound || bind_place(z, &z->place[i])) && all;
    reactor_defer(z->reactor, &z->more, REACTOR_WORK); /* as behind a send */
    if (!all)
        reactor_timer_set(z->reactor, t, BIND_AGAIN_MS);
}

int agents_zmq_bind(struct agents_zmq *z, const char *endpoint)
{
    if (z->n_places == ENDPOINTS || strlen(endpoint) > MESH_ENDPOINT_BYTES)
        return ERR_LIMIT;
    struct listener *place = &z->place[z->n_places++];
    memcpy(place->endpoint, endpoint, strlen(endpoint) + 1);
    on_again(&z->again);
    return 0;
}

/* ---- start and end ---- */

struct agents_zmq *agents_zmq_new(struct reactor *r)
{
    struct agents_zmq *z = calloc(1, sizeof(*z));
    if (!z)
        return NULL;
    z->reactor = r;
    z->io.fd = -1;
    z->io.on_ready = on_ready;
    z->more.run = on_more;
    timer_init(&z->again, on_again);
    z->context = zmq_ctx_new();
    z->router = z->context ? zmq_socket(z->context, ZMQ_ROUTER) : NULL;
    if (!z->router) {
        agents_zmq_free(&z);
        return NULL;
    }
    int64_t longest = LIMIT_AGENT_MESSAGE_BYTES;
    set(z->router, ZMQ_LINGER, LINGER_MS);
    set(z->router, ZMQ_SNDHWM, QUEUE);
    set(z->router, ZMQ_RCVHWM, QUEUE);
    set(z->router, ZMQ_BACKLOG, BACKLOG);
    set(z->router, ZMQ_ROUTER_MANDATORY, 1);
    zmq_setsockopt(z->router, ZMQ_MAXMSGSIZE, &longest, sizeof(longest));
    return z;
}

int agents_zmq_start(struct agents_zmq *z, struct agents *agents)
{
    size_t n = sizeof(z->io.fd);
    z->agents = agents;
    if (zmq_getsockopt(z->router, ZMQ_FD, &z->io.fd, &n) || reactor_add(z->reactor, &z->io, EPOLLIN))
        return ERR_SYSTEM;
    return 0;
}

void agents_zmq_free(struct agents_zmq **zp)
{
    struct agents_zmq *z = *zp;
    if (!z)
        return;
    if (z->io.fd >= 0)
        reactor_remove(z->reactor, &z->io);
    reactor_undefer(z->reactor, &z->more, REACTOR_WORK);
    reactor_timer_cancel(z->reactor, &z->again);
    if (z->router)
        zmq_close(z->router);
    if (z->context)
        zmq_ctx_term(z->context);
    free(z);
    *zp = NULL;
}
