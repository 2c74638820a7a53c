#include "handover.h"
#include "container.h"
#include "local_socket.h"
#include "log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BACKLOG = 4, WAIT_SECONDS = 2 };

static const char suffix[] = ".doors";

struct handover {
    struct reactor *reactor;
    struct front *front;
    struct reactor_io listener;
    struct sockaddr_un address;
};

union rights {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * FRONT_LISTENERS)];
};

/* ---- giving ---- */

static void give(const struct front *f, int to)
{
    int fds[FRONT_LISTENERS];
    char byte = 1;
    struct iovec iov = {&byte, 1};
    union rights control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (f->n_listeners > 0) {
        size_t n = f->n_listeners * sizeof(int);
        for (unsigned i = 0; i < f->n_listeners; i++)
            fds[i] = f->listener[i].io.fd;
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&msg);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n);
        memcpy(CMSG_DATA(rights), fds, n);
    }
    if (sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_event(LOG_WARN, "handover", LOG_TEXT("error", strerror(errno)));
    else
        log_event(LOG_INFO, "handover", LOG_UINT("listeners", f->n_listeners));
}

static void on_asked(struct reactor_io *io, uint32_t events)
{
    struct handover *h = container_of(io, struct handover, listener);
    struct ucred who;
    socklen_t n = sizeof(who);
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == geteuid())
        give(h->front, fd);
    close(fd);
}

struct handover *handover_new(struct reactor *r, struct front *f, const char *base)
{
    struct handover *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->reactor = r;
    h->front = f;
    h->listener.on_ready = on_asked;
    if (local_socket_address(&h->address, base, suffix) &&
        local_socket_listen(r, &h->listener, &h->address, BACKLOG))
        return h;
    free(h);
    return NULL;
}

void handover_free(struct handover **hp)
{
    struct handover *h = *hp;
    if (!h)
        return;
    reactor_remove(h->reactor, &h->listener);
    close(h->listener.fd);
    unlink(h->address.sun_path);
    free(h);
    *hp = NULL;
}

/* ---- taking ---- */

static int ask(const char *base)
{
    struct sockaddr_un address;
    struct timeval wait = {.tv_sec = WAIT_SECONDS};
    int fd =
        local_socket_address(&address, base, suffix) ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) : -1;
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) ||
                    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) ||
                    connect(fd, (struct sockaddr *)&address, sizeof(address)))) {
        close(fd);
        return -1;
    }
    return fd;
}

unsigned handover_take(struct front *f, const char *base)
{
    int fds[FRONT_LISTENERS], way = ask(base);
    char byte;
    struct iovec iov = {&byte, 1};
    union rights control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t got = way < 0 ? -1 : recvmsg(way, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *rights = got == 1 ? CMSG_FIRSTHDR(&msg) : NULL;
    unsigned n = 0, taken = 0;
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        n = (unsigned)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(rights), n * sizeof(int));
    }
    for (unsigned i = 0; i < n; i++) {
        if (front_adopt(f, fds[i]) == 0)
            taken++;
        else
            close(fds[i]);
    }
    if (way >= 0)
        close(way);
    return taken;
}
