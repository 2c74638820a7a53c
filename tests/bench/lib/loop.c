#include "loop.h"
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define EVENTS 512

void loop_init(struct loop *l, unsigned sources, uint64_t timeout_ns)
{
    l->sources = sources;
    l->timeout_ns = timeout_ns;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        die("epoll_create1: %s", strerror(errno));
    l->rx = must_alloc(1, LOOP_CARRY_MAX + LOOP_READ_MAX);
    l->now_ns = now_ns();
}

static void set_option(int fd, int level, int option, const void *value, size_t n)
{
    if (setsockopt(fd, level, option, value, (socklen_t)n) < 0)
        die("setsockopt: %s", strerror(errno));
}

/* The connection is made blocking, on loopback the kernel answers within the call; reads never block. */
static int connect_from(const struct loop *l, unsigned source, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    const int on = 1;
    const struct timeval limit = {.tv_sec = (time_t)(l->timeout_ns / NS_PER_S) + 1};
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    set_option(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source)};
    struct sockaddr_in there = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0)
        die("bind to a source address: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&there, sizeof(there)) < 0)
        die("connect to 127.0.0.1:%u: %s", port, strerror(errno));
    return fd;
}

void loop_connect(struct loop *l, struct io *io, uint16_t port)
{
    io->fd = connect_from(l, l->next_source, port);
    io->carry_n = 0;
    l->next_source = (l->next_source + 1) % l->sources;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = io};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, io->fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

void loop_close(struct io *io)
{
    const struct linger reset = {.l_onoff = 1};
    setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(io->fd);
    io->fd = -1;
}

static int wait_ms(const struct loop *l, uint64_t wake_ns)
{
    uint64_t ns = l->timeout_ns;
    if (wake_ns) {
        uint64_t now = now_ns();
        uint64_t left = wake_ns > now ? wake_ns - now : 0;
        ns = left < ns ? left : ns;
    }
    return (int)(ns / 1000000) + (ns % 1000000 != 0);
}

bool loop_turn(struct loop *l, uint64_t wake_ns)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->epoll_fd, events, EVENTS, wait_ms(l, wake_ns));
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        struct io *io = events[i].data.ptr;
        io->on_readable(io, l);
    }
    return n != 0;
}

void loop_settle(struct loop *l, uint64_t ns)
{
    uint64_t until = now_ns() + ns;
    while (now_ns() < until)
        loop_turn(l, until);
}

size_t io_read(struct io *io, struct loop *l, const uint8_t **bytes)
{
    size_t kept = io->carry_n;
    if (kept)
        memcpy(l->rx, io->carry, kept);
    ssize_t n = recv(io->fd, l->rx + kept, LOOP_READ_MAX, MSG_DONTWAIT);
    l->now_ns = now_ns();
    if (n < 0 && errno != ECONNRESET)
        die("recv: %s", strerror(errno));
    if (n <= 0)
        return 0;
    io->carry_n = 0;
    *bytes = l->rx;
    return kept + (size_t)n;
}

void io_keep(struct io *io, const uint8_t *p, size_t n)
{
    if (n == 0)
        return;
    if (io->carry_n + n > LOOP_CARRY_MAX)
        die("a frame or answer of more than %d bytes came", LOOP_CARRY_MAX);
    if (!io->carry)
        io->carry = must_alloc(1, LOOP_CARRY_MAX);
    memcpy(io->carry + io->carry_n, p, n);
    io->carry_n += (uint32_t)n;
}

static void check_sent(ssize_t sent, size_t n)
{
    if (sent < 0)
        die("send: %s", strerror(errno));
    if ((size_t)sent != n)
        die("the server does not read: %zd of %zu bytes were taken", sent, n);
}

void io_send(struct io *io, const void *p, size_t n)
{
    check_sent(send(io->fd, p, n, MSG_NOSIGNAL), n);
}

void io_send_with_head(struct io *io, const void *head, size_t head_n, const void *p, size_t n)
{
    struct iovec parts[] = {{(void *)(uintptr_t)head, head_n}, {(void *)(uintptr_t)p, n}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    check_sent(sendmsg(io->fd, &message, MSG_NOSIGNAL), head_n + n);
}
