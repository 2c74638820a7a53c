/* What the machine can do at best: one thread, epoll, no protocol. It answers an upgrade request with fixed
 * bytes and then copies what it reads: from a publisher to every member with one send() each, between two
 * peers A and B. Bytes per message are those of a Starling node. Two of them with a TCP connection between them (--link)
 * are what a cluster of two nodes can do at best. Any surprise ends it: it measures, it does not serve. */
#include "lib/session.h"
#include "lib/util.h"
#include "lib/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS      512
#define CHUNK_BYTES ((size_t)1 << 18)
#define FD_MAX      65536

#define LINK_WAIT_NS  (10 * NS_PER_S)
#define LINK_AGAIN_US 10000

enum role { ROLE_CLOSED, ROLE_NEW, ROLE_OPEN, ROLE_MEMBER, ROLE_PUBLISHER, ROLE_A, ROLE_B, ROLE_LINK };

struct bare {
    int epoll_fd, listen_fd;
    uint8_t roles[FD_MAX]; /* by descriptor */
    int members[FD_MAX];
    unsigned member_count;
    int peers[2]; /* A, B; 0: not here */
    int link;     /* to the other server; 0: there is none */
    uint8_t welcome[WIRE_FRAME_MAX], joined[WIRE_FRAME_MAX];
    size_t welcome_n, joined_n;
    uint8_t chunk[CHUNK_BYTES];
};

static const char LINK[] = "LINK\r\n\r\n";

static struct bare bare;

static void send_all(int fd, const void *p, size_t n)
{
    ssize_t sent = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != (ssize_t)n)
        die("send took %zd of %zu bytes: %s", sent, n, strerror(errno));
}

static void watch(int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(bare.epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void on_accept(void)
{
    const int on = 1;
    for (int fd; (fd = accept4(bare.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= FD_MAX)
            die("more than %d connections", FD_MAX);
        if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
            die("setsockopt: %s", strerror(errno));
        bare.roles[fd] = ROLE_NEW;
        watch(fd);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept: %s", strerror(errno));
}

/* Members leave only when the measurement ends, so a linear search is good enough. */
static void on_close(int fd)
{
    for (unsigned i = 0; bare.roles[fd] == ROLE_MEMBER && i < bare.member_count; i++) {
        if (bare.members[i] == fd) {
            bare.members[i] = bare.members[--bare.member_count];
            break;
        }
    }
    bare.roles[fd] = ROLE_CLOSED;
    close(fd);
}

static void on_request(int fd, size_t n)
{
    static const char POLL_ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const char *text = (const char *)bare.chunk;
    if (n == sizeof(LINK) - 1 && !memcmp(text, LINK, n)) {
        bare.roles[fd] = ROLE_LINK;
        bare.link = fd;
        return;
    }
    if (n < 4 || memcmp(text + n - 4, "\r\n\r\n", 4))
        die("a request came in pieces");
    if (memmem(text, n, "transport=polling", 17)) {
        bare.roles[fd] = ROLE_MEMBER;
        bare.members[bare.member_count++] = fd;
        send_all(fd, POLL_ANSWER, sizeof(POLL_ANSWER) - 1);
        return;
    }
    bare.roles[fd] = ROLE_OPEN;
    send_all(fd, bare.welcome, bare.welcome_n);
}

static void on_role(int fd)
{
    switch ((enum bare_role)bare.chunk[0]) {
    case BARE_MEMBER:
        bare.roles[fd] = ROLE_MEMBER;
        bare.members[bare.member_count++] = fd;
        break;
    case BARE_PUBLISHER:
        bare.roles[fd] = ROLE_PUBLISHER;
        break;
    case BARE_A:
        bare.roles[fd] = ROLE_A;
        bare.peers[0] = fd;
        break;
    case BARE_B:
        bare.roles[fd] = ROLE_B;
        bare.peers[1] = fd;
        break;
    case BARE_NONE:
    default:
        die("no role has the byte 0x%02x", bare.chunk[0]);
    }
    send_all(fd, bare.joined, bare.joined_n);
}

static void send_to_members(size_t n)
{
    for (unsigned i = 0; i < bare.member_count; i++)
        send_all(bare.members[i], bare.chunk, n);
}

static void send_if_there(int fd, size_t n)
{
    if (fd)
        send_all(fd, bare.chunk, n);
}

static void on_readable(int fd)
{
    ssize_t got = recv(fd, bare.chunk, CHUNK_BYTES, 0);
    if (got <= 0) {
        on_close(fd);
        return;
    }
    size_t n = (size_t)got;
    switch ((enum role)bare.roles[fd]) {
    case ROLE_NEW:
        on_request(fd, n);
        break;
    case ROLE_OPEN:
        on_role(fd);
        break;
    case ROLE_PUBLISHER:
        send_to_members(n);
        send_if_there(bare.link, n);
        break;
    case ROLE_A:
        send_if_there(bare.peers[1] ? bare.peers[1] : bare.link, n);
        break;
    case ROLE_B:
        send_if_there(bare.peers[0] ? bare.peers[0] : bare.link, n);
        break;
    case ROLE_LINK:
        send_to_members(n);
        send_if_there(bare.peers[0], n);
        send_if_there(bare.peers[1], n);
        break;
    case ROLE_MEMBER: /* a poll: its bytes are read, the publisher's next chunk answers it */
    case ROLE_CLOSED:
        break;
    }
}

static void make_answers(void)
{
    static const char OPEN[] = "0{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"upgrades\":[],\"pingInterval\":25000,"
                               "\"pingTimeout\":20000,\"maxPayload\":1000000}";
    static const char CONNECTED[] = "40{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\"}";
    static const char JOINED[] = "430[{\"ok\":true}]";
    bare.welcome_n =
        (size_t)snprintf((char *)bare.welcome, sizeof(bare.welcome),
                         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Accept: " WIRE_WS_ACCEPT "\r\n\r\n");
    bare.welcome_n += wire_server_frame(bare.welcome + bare.welcome_n, OPEN, sizeof(OPEN) - 1);
    bare.welcome_n += wire_server_frame(bare.welcome + bare.welcome_n, CONNECTED, sizeof(CONNECTED) - 1);
    bare.joined_n = wire_server_frame(bare.joined, JOINED, sizeof(JOINED) - 1);
}

static void start_listening(uint16_t port)
{
    const int on = 1;
    struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bare.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bare.listen_fd < 0 || setsockopt(bare.listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(bare.listen_fd, (const struct sockaddr *)&here, sizeof(here)) < 0 ||
        listen(bare.listen_fd, 1024) < 0)
        die("port %u: %s", port, strerror(errno));
    bare.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (bare.epoll_fd < 0)
        die("epoll_create1: %s", strerror(errno));
    watch(bare.listen_fd);
}

/* The other server may still be starting. */
static void connect_link(uint16_t port)
{
    const int on = 1;
    struct sockaddr_in there = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = -1;
    for (uint64_t until = now_ns() + LINK_WAIT_NS; now_ns() < until;) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&there, sizeof(there)) == 0)
            break;
        close(fd);
        fd = -1;
        usleep(LINK_AGAIN_US);
    }
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        die("--link %u: %s", port, strerror(errno));
    send_all(fd, LINK, sizeof(LINK) - 1);
    bare.roles[fd] = ROLE_LINK;
    bare.link = fd;
    watch(fd);
}

int main(int argc, char **argv)
{
    bool has_link = argc == 5 && !strcmp(argv[3], "--link");
    if ((argc != 3 && !has_link) || strcmp(argv[1], "--port"))
        die_usage("usage: bare --port P [--link PORT]");
    raise_descriptor_limit(1024);
    make_answers();
    start_listening((uint16_t)parse_number("--port", argv[2], 1, 65535));
    if (has_link)
        connect_link((uint16_t)parse_number("--link", argv[4], 1, 65535));
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(bare.epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == bare.listen_fd)
                on_accept();
            else
                on_readable(events[i].data.fd);
        }
    }
}
