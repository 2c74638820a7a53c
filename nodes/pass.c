#include "pass.h"
#include "container.h"
#include "gate.h"
#include "local_socket.h"
#include "log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    INPUT_MAX = 96 * 1024, /* a head, and what one read brings behind it */
    BACKLOG = 128,
    PER_TURN = 64,
    BUFFER_BYTES = 4 * 1024 * 1024,
};

static const char suffix[] = ".pass";

/* What goes before the input. */
struct parcel {
    uint32_t ip;
    uint16_t port;
    uint16_t is_transport;
};

/* The way to one sibling, or from one. */
struct way {
    struct way *next;
    struct pass *pass;
    struct reactor_io io; /* only ways from others are watched */
    char base[96];
};

struct pass {
    struct reactor *reactor;
    struct front *front;
    struct reactor_io listener;
    struct sockaddr_un address;
    struct way *to, *from;
    char input[INPUT_MAX];
};

/* ---- sending ---- */

static void drop_way(struct way **list, struct way *w)
{
    while (*list != w)
        list = &(*list)->next;
    *list = w->next;
    if (w->io.on_ready)
        reactor_remove(w->pass->reactor, &w->io);
    close(w->io.fd);
    free(w);
}

static struct way *way_to(struct pass *p, const char *base)
{
    struct sockaddr_un address;
    int size = BUFFER_BYTES;
    for (struct way *w = p->to; w; w = w->next)
        if (strcmp(w->base, base) == 0)
            return w;
    struct way *w = calloc(1, sizeof(*w));
    if (!w || strlen(base) >= sizeof(w->base) || !local_socket_address(&address, base, suffix)) {
        free(w);
        return NULL;
    }
    w->pass = p;
    strcpy(w->base, base);
    w->io.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (w->io.fd < 0 || connect(w->io.fd, (struct sockaddr *)&address, sizeof(address))) {
        if (w->io.fd >= 0)
            close(w->io.fd);
        free(w);
        return NULL;
    }
    setsockopt(w->io.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    w->next = p->to;
    p->to = w;
    return w;
}

static int send_parcel(int way, struct conn *c, const void *input, size_t n)
{
    struct parcel head = {.ip = c->ip, .port = c->port, .is_transport = c->is_transport};
    struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)input, n}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&msg);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &c->io.fd, sizeof(int));
    return sendmsg(way, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

bool pass_conn(struct pass *p, const char *base, struct conn *c, const void *input, size_t n)
{
    if (n > INPUT_MAX)
        return false;
    /* The second try is for a sibling that has started again since. */
    for (int tries = 0; tries < 2; tries++) {
        struct way *w = way_to(p, base);
        if (!w)
            return false;
        if (send_parcel(w->io.fd, c, input, n) == 0) {
            metrics_add(c->front->metrics, METRIC_CONNECTIONS_PASSED, 1);
            conn_close(c);
            return true;
        }
        if (errno == EAGAIN)
            return false; /* it is far behind: this one has to come again */
        drop_way(&p->to, w);
    }
    return false;
}

/* ---- receiving ---- */

static void welcome(struct pass *p, int fd, const struct parcel *head, size_t n)
{
    struct conn *c = conn_new(p->front, fd, head->ip, head->port, &gate_role);
    if (!c)
        return;
    c->is_transport = head->is_transport != 0;
    conn_timer(c, p->front->options.request_timeout_ms);
    if (!c->is_transport)
        front_count_waiting(p->front, c);
    if (c->is_dead)
        return;
    conn_watch(c, EPOLLIN);
    c->role->on_input(c, (uint8_t *)p->input, n);
}

/* False when there is nothing more, or the way has ended. */
static bool take_parcel(struct way *w)
{
    struct pass *p = w->pass;
    struct parcel head;
    struct iovec iov[2] = {{&head, sizeof(head)}, {p->input, sizeof(p->input)}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(w->io.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop_way(&p->from, w);
        return false;
    }
    const struct cmsghdr *rights = CMSG_FIRSTHDR(&msg);
    if (!rights || rights->cmsg_type != SCM_RIGHTS || (size_t)n < sizeof(head))
        return true; /* no descriptor was left to receive it with */
    int fd;
    memcpy(&fd, CMSG_DATA(rights), sizeof(fd));
    welcome(p, fd, &head, (size_t)n - sizeof(head));
    return true;
}

static void on_parcels(struct reactor_io *io, uint32_t events)
{
    struct way *w = container_of(io, struct way, io);
    (void)events;
    for (int i = 0; i < PER_TURN; i++)
        if (!take_parcel(w))
            return;
}

static void on_way(struct reactor_io *io, uint32_t events)
{
    struct pass *p = container_of(io, struct pass, listener);
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct way *w = fd < 0 ? NULL : calloc(1, sizeof(*w));
    if (!w) {
        if (fd >= 0)
            close(fd);
        return;
    }
    w->pass = p;
    w->io.fd = fd;
    w->io.on_ready = on_parcels;
    w->next = p->from;
    p->from = w;
    if (reactor_add(p->reactor, &w->io, EPOLLIN)) {
        w->io.on_ready = NULL;
        drop_way(&p->from, w);
    }
}

/* ---- start and end ---- */

struct pass *pass_new(struct reactor *r, const char *base)
{
    struct pass *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->reactor = r;
    p->listener.on_ready = on_way;
    if (local_socket_address(&p->address, base, suffix) &&
        local_socket_listen(r, &p->listener, &p->address, BACKLOG))
        return p;
    free(p);
    return NULL;
}

void pass_use(struct pass *p, struct front *f)
{
    p->front = f;
}

void pass_free(struct pass **pp)
{
    struct pass *p = *pp;
    if (!p)
        return;
    while (p->to)
        drop_way(&p->to, p->to);
    while (p->from)
        drop_way(&p->from, p->from);
    reactor_remove(p->reactor, &p->listener);
    close(p->listener.fd);
    free(p);
    *pp = NULL;
}
