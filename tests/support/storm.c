/* Many raw WebSocket clients that lose their node all at once and come back to another one, all at once.
 *
 *   storm COUNT ADDRESSES ROOMS
 *
 * They come from ADDRESSES addresses, 127.0.0.2 and up, and each joins one of ROOMS rooms, "room-0" and up. Lines on
 * standard input tell what to do, each is answered by one line of JSON on standard output when all clients have done it:
 *
 *   come PORT    connect, join                  {"up":3000,"ms":412}
 *   lose         wait until all have lost their connections
 *   back PORT    connect again, recover, and wait for the offset that ends what was missed
 *                                               {"up":3000,"recovered":3000,"events":30000,"failed":0,"ms":912}
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTING_MAX = 256, /* at once: a listening socket's queue has an end */
    GIVE_UP_MS = 60000,
    ID_BYTES = 24,
    OFFSET_BYTES = 512,
};

enum state { AWAY, REACHING, UPGRADING, OPENING, JOINING, UP };

struct client {
    unsigned index;
    enum state state;
    int fd;
    char *kept;
    size_t n, cap;
    char sid[ID_BYTES], pid[ID_BYTES], offset[OFFSET_BYTES];
};

static struct {
    int epoll;
    unsigned count, addresses, rooms, port;
    bool comes_back;
    unsigned reaching, up, recovered, failed, next;
    uint64_t events;
    struct client *clients;
} storm;

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- writing ---- */

/* Small, and the socket is fresh: it takes all of it. */
static void put(const struct client *c, const char *bytes, size_t n)
{
    must(send(c->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n || errno == EPIPE || errno == ECONNRESET, "send");
}

/* One masked text frame; a mask of zeros leaves the text as it is. */
static void say(const struct client *c, const char *text)
{
    char frame[OFFSET_BYTES + 256] = {(char)0x81};
    size_t n = strlen(text), at = 2;
    if (n < 126) {
        frame[1] = (char)(0x80 | n);
    } else {
        frame[1] = (char)(0x80 | 126);
        frame[at++] = (char)(n >> 8);
        frame[at++] = (char)(n & 255);
    }
    at += 4;
    memcpy(frame + at, text, n);
    put(c, frame, at + n);
}

/* ---- life ---- */

static void end(struct client *c)
{
    if (c->state == REACHING)
        storm.reaching--;
    if (c->state == UP)
        storm.up--;
    close(c->fd);
    c->fd = -1;
    c->n = 0;
    c->state = AWAY;
}

static void fail(struct client *c, const char *why)
{
    if (storm.failed++ == 0)
        fprintf(stderr, "storm: client %u: %s: %.*s\n", c->index, why, (int)(c->n < 200 ? c->n : 200),
                c->kept);
    end(c);
}

static void reach(struct client *c)
{
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + c->index % storm.addresses)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)storm.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(c->fd >= 0, "socket");
    setsockopt(c->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    must(bind(c->fd, (struct sockaddr *)&from, sizeof(from)) == 0, "bind");
    must(connect(c->fd, (struct sockaddr *)&to, sizeof(to)) == 0 || errno == EINPROGRESS, "connect");
    must(epoll_ctl(storm.epoll, EPOLL_CTL_ADD, c->fd, &event) == 0, "epoll_ctl");
    c->state = REACHING;
    storm.reaching++;
}

static void reach_more(void)
{
    while (storm.reaching < CONNECTING_MAX && storm.next < storm.count)
        reach(&storm.clients[storm.next++]);
}

static void upgrade(struct client *c)
{
    static const char request[] = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n"
                                  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: c3Rvcm1zdG9ybXN0b3JtIQ==\r\n\r\n";
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int err = 0;
    socklen_t n = sizeof(err);
    storm.reaching--;
    c->state = UPGRADING;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err) {
        fail(c, strerror(err));
        return;
    }
    epoll_ctl(storm.epoll, EPOLL_CTL_MOD, c->fd, &event);
    put(c, request, sizeof(request) - 1);
}

/* ---- reading ---- */

/* The text behind a key, up to the next quote. */
static bool find_text(const char *text, const char *key, char *out, size_t size)
{
    const char *at = strstr(text, key);
    size_t n = at ? strcspn(at + strlen(key), "\"") : size;
    if (n >= size)
        return false;
    memcpy(out, at + strlen(key), n);
    out[n] = '\0';
    return true;
}

static void on_connected(struct client *c, const char *text)
{
    char sid[ID_BYTES], room[64];
    if (!find_text(text, "{\"sid\":\"", sid, sizeof(sid)) ||
        !find_text(text, "\"pid\":\"", c->pid, sizeof(c->pid))) {
        fail(c, "the answer to CONNECT has no pid");
        return;
    }
    storm.recovered += strcmp(sid, c->sid) == 0;
    memcpy(c->sid, sid, sizeof(sid));
    c->state = JOINING;
    if (storm.comes_back)
        return; /* what was missed follows, then the offset */
    snprintf(room, sizeof(room), "421[\"bus:join\",\"room-%u\"]", c->index % storm.rooms);
    say(c, room);
}

static void is_up(struct client *c)
{
    if (c->state != UP)
        storm.up++;
    c->state = UP;
}

static void on_text(struct client *c, const char *text)
{
    char back[OFFSET_BYTES + 128];
    if (text[0] == '0') {
        c->state = OPENING;
        snprintf(back, sizeof(back), "40{\"pid\":\"%s\",\"offset\":\"%s\"}", c->pid, c->offset);
        say(c, storm.comes_back ? back : "40");
    } else if (text[0] == '2') {
        say(c, "3");
    } else if (strncmp(text, "40", 2) == 0) {
        on_connected(c, text);
    } else if (strncmp(text, "431", 3) == 0) {
        is_up(c);
    } else if (strncmp(text, "42", 2) == 0) {
        bool is_offset = strncmp(text, "42[\"bus:offset\",", 16) == 0;
        storm.events += !is_offset;
        const char *last = strrchr(text, ',');
        if (last && strncmp(last, ",\"~1", 4) == 0)
            find_text(last, ",\"", c->offset, sizeof(c->offset));
        if (is_offset && storm.comes_back)
            is_up(c);
    } else {
        fail(c, "a packet that is not expected");
    }
}

/* The first whole frame of what is kept: its size, 0 when there is none. Its text lies at *text. */
static size_t next_frame(const struct client *c, size_t at, const char **text, size_t *n)
{
    const uint8_t *p = (const uint8_t *)c->kept + at;
    size_t left = c->n - at, head = 2;
    if (left < 2)
        return 0;
    *n = p[1] & 127;
    if (*n == 126) {
        head = 4;
        if (left < head)
            return 0;
        *n = (size_t)p[2] << 8 | p[3];
    }
    must(*n < 126 || head == 4, "a frame is too long");
    *text = c->kept + at + head;
    return left >= head + *n ? head + *n : 0;
}

static void take_frames(struct client *c)
{
    char line[4096];
    const char *text;
    size_t at = 0, n, size;
    while (c->fd >= 0 && (size = next_frame(c, at, &text, &n)) > 0) {
        bool is_close = ((uint8_t)c->kept[at] & 15) == 8;
        must(n < sizeof(line), "a frame is too long");
        memcpy(line, text, n);
        line[n] = '\0';
        at += size;
        if (is_close)
            end(c);
        else
            on_text(c, line);
    }
    if (c->fd < 0)
        return;
    memmove(c->kept, c->kept + at, c->n - at);
    c->n -= at;
}

static void take_head(struct client *c)
{
    const char *body = memmem(c->kept, c->n, "\r\n\r\n", 4);
    if (!body)
        return;
    if (c->n < 12 || memcmp(c->kept + 9, "101", 3) != 0) {
        fail(c, "no upgrade");
        return;
    }
    size_t head = (size_t)(body + 4 - c->kept);
    memmove(c->kept, c->kept + head, c->n - head);
    c->n -= head;
    c->state = OPENING;
}

static void on_input(struct client *c)
{
    if (c->cap - c->n < 4096) {
        c->cap = c->cap * 2 + 8192;
        c->kept = realloc(c->kept, c->cap);
        must(c->kept, "memory");
    }
    ssize_t n = recv(c->fd, c->kept + c->n, c->cap - c->n, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN)
            return;
        if (c->state == UP)
            end(c);
        else
            fail(c, n < 0 ? strerror(errno) : "the connection ended");
        return;
    }
    c->n += (size_t)n;
    if (c->state == UPGRADING)
        take_head(c);
    if (c->fd >= 0 && c->state > UPGRADING)
        take_frames(c);
}

/* ---- what to do ---- */

static void turn(void)
{
    struct epoll_event events[512];
    int n = epoll_wait(storm.epoll, events, 512, 10);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (c->fd >= 0 && c->state == REACHING && (events[i].events & (EPOLLOUT | EPOLLERR)))
            upgrade(c);
        else if (c->fd >= 0)
            on_input(c);
    }
}

static void connect_all(unsigned port, bool comes_back)
{
    uint64_t began = now_ms();
    storm.port = port;
    storm.comes_back = comes_back;
    storm.next = storm.recovered = storm.failed = 0;
    storm.events = 0;
    while (storm.up + storm.failed < storm.count && now_ms() - began < GIVE_UP_MS) {
        reach_more();
        turn();
    }
    printf("{\"up\":%u,\"recovered\":%u,\"events\":%llu,\"failed\":%u,\"ms\":%llu}\n", storm.up,
           storm.recovered, (unsigned long long)storm.events, storm.failed,
           (unsigned long long)(now_ms() - began));
}

static void lose_all(void)
{
    uint64_t began = now_ms();
    while (storm.up > 0 && now_ms() - began < GIVE_UP_MS)
        turn();
    printf("{\"up\":%u,\"ms\":%llu}\n", storm.up, (unsigned long long)(now_ms() - began));
}

static void obey(const char *line)
{
    unsigned port;
    if (sscanf(line, "come %u", &port) == 1)
        connect_all(port, false);
    else if (sscanf(line, "back %u", &port) == 1)
        connect_all(port, true);
    else if (strncmp(line, "lose", 4) == 0)
        lose_all();
    else
        must(false, "what is to be done is not known");
    fflush(stdout);
}

static void serve(void)
{
    char line[128];
    size_t n = 0;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, line + n, 1);
        if (got == 0)
            return;
        if (got < 0) {
            turn();
            continue;
        }
        if (line[n] != '\n' && n < sizeof(line) - 2) {
            n++;
            continue;
        }
        line[n] = '\0';
        n = 0;
        obey(line);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    must(argc == 4, "usage: storm COUNT ADDRESSES ROOMS");
    storm.count = (unsigned)atoi(argv[1]);
    storm.addresses = (unsigned)atoi(argv[2]);
    storm.rooms = (unsigned)atoi(argv[3]);
    must(storm.count > 0 && storm.addresses > 0 && storm.addresses < 250 && storm.rooms > 0, "arguments");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    storm.epoll = epoll_create1(EPOLL_CLOEXEC);
    storm.clients = calloc(storm.count, sizeof(*storm.clients));
    must(storm.epoll >= 0 && storm.clients, "memory");
    for (unsigned i = 0; i < storm.count; i++)
        storm.clients[i] = (struct client){.index = i, .fd = -1};
    serve();
    for (unsigned i = 0; i < storm.count; i++)
        free(storm.clients[i].kept);
    free(storm.clients);
    return 0;
}
