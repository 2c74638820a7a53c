/* state        what ends it                     then
 * CONNECTING   the socket can be written to     the request for a WebSocket, UPGRADING
 * UPGRADING    101                              OPENING
 * OPENING      0 (Engine.IO open)               40, for the namespace
 *              40                               bus:join, JOINING
 * JOINING      its acknowledgement              JOINED, on_joined()
 * any          an error, an end, a refusal      CLOSED, on_failure()
 *
 * The masks of its frames are zeros, which are as good as others for whoever takes them off, and cost us nothing: it is
 * not the client that is measured. */
#include "bench_client.h"
#include "container.h"
#include "ws.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    IN_MAX_BYTES = 4 * 1024 * 1024,
    MASK_BYTES = 4,
    HEAD_BYTES = WS_HEAD_MAX + MASK_BYTES
};

static const char closed_text[] = "the bus has closed the connection, as it does when a client is too slow";

static bool grow(struct bench_buffer *b, size_t more)
{
    size_t size = b->size ? b->size : 1024;
    uint8_t *bytes;

    while (size < b->n + more)
        size *= 2;
    if (size == b->size)
        return true;
    bytes = realloc(b->bytes, size);
    if (!bytes)
        return false;
    b->bytes = bytes;
    b->size = size;
    return true;
}

static void drop(struct bench_buffer *b, size_t n)
{
    b->n -= n;
    memmove(b->bytes, b->bytes + n, b->n);
}

void bench_client_close(struct bench_client *c)
{
    if (c->state == BENCH_CLOSED)
        return;
    c->state = BENCH_CLOSED;
    reactor_undefer(c->bus->reactor, &c->flush, REACTOR_FLUSH);
    reactor_remove(c->bus->reactor, &c->io);
    close(c->io.fd);
    free(c->in.bytes);
    free(c->out.bytes);
    c->in = c->out = (struct bench_buffer){0};
}

static void fail(struct bench_client *c, const char *why)
{
    struct bench_bus *bus = c->bus;

    bench_client_close(c);
    bus->on_failure(c, why);
}

/* ---- sending ---- */

static void write_out(struct bench_client *c)
{
    ssize_t n = c->out.n > 0 ? send(c->io.fd, c->out.bytes, c->out.n, MSG_NOSIGNAL) : 0;
    bool waits;

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        fail(c, errno == ECONNRESET || errno == EPIPE ? closed_text : strerror(errno));
        return;
    }
    if (n > 0)
        drop(&c->out, (size_t)n);
    waits = c->out.n > 0;
    if (waits != c->waits)
        reactor_modify(c->bus->reactor, &c->io, EPOLLIN | (waits ? EPOLLOUT : 0));
    c->waits = waits;
}

static void on_flush(struct reactor_task *task)
{
    write_out(container_of(task, struct bench_client, flush));
}

static void put(struct bench_client *c, const void *bytes, size_t n)
{
    if (!grow(&c->out, n)) {
        fail(c, strerror(ENOMEM));
        return;
    }
    memcpy(c->out.bytes + c->out.n, bytes, n);
    c->out.n += n;
    reactor_defer(c->bus->reactor, &c->flush, REACTOR_FLUSH);
}

static void put_text(struct bench_client *c, const char *text, size_t n)
{
    uint8_t head[HEAD_BYTES] = {0};
    size_t head_n = ws_encode_head(head, WS_TEXT, true, n);

    head[1] |= 0x80;
    memset(head + head_n, 0, MASK_BYTES);
    put(c, head, head_n + MASK_BYTES);
    if (c->state != BENCH_CLOSED)
        put(c, text, n);
}

/* The namespace as packets have it. */
static const char *ns_text(const struct bench_client *c)
{
    return strcmp(c->bus->ns, "/") == 0 ? "" : c->bus->ns;
}

__attribute__((format(printf, 2, 3))) static void put_packet(struct bench_client *c, const char *format, ...)
{
    char text[512];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < (int)sizeof text)
        put_text(c, text, (size_t)n);
    else
        fail(c, "the namespace's name is too long");
}

void bench_client_emit(struct bench_client *c, const char *room, struct span args)
{
    const char *ns = ns_text(c);
    char *text = NULL;
    int n;

    if (c->state != BENCH_JOINED)
        return;
    n = asprintf(&text, "42%s%s[\"bus:emit\",{\"to\":\"%s\",\"event\":\"bench\",\"args\":[%.*s]}]", ns,
                 *ns ? "," : "", room, (int)args.n, args.p);
    if (n < 0)
        fail(c, strerror(ENOMEM));
    else
        put_text(c, text, (size_t)n);
    free(n < 0 ? NULL : text);
}

size_t bench_client_queued(const struct bench_client *c)
{
    return c->out.n;
}

/* ---- receiving ---- */

static bool begins(struct span text, const char *with)
{
    size_t n = strlen(with);

    return text.n >= n && memcmp(text.p, with, n) == 0;
}

static void take_event(struct bench_client *c, struct span packet)
{
    static const char head[] = "[\"bench\",";
    const char *list = memchr(packet.p, '[', packet.n);
    struct span event = {list, list ? packet.n - (size_t)(list - packet.p) : 0};

    if (c->state == BENCH_JOINED && begins(event, head))
        c->bus->on_event(c, (struct span){event.p + sizeof head - 1, event.n - sizeof head});
}

static void refused(struct bench_client *c, const char *what, struct span answer)
{
    char why[256];

    snprintf(why, sizeof why, "%s: %.*s", what, answer.n < 160 ? (int)answer.n : 160, answer.p);
    fail(c, why);
}

static void take_packet(struct bench_client *c, struct span packet)
{
    const char *ns = ns_text(c), *comma = *ns ? "," : "";

    if (begins(packet, "42")) {
        take_event(c, packet);
    } else if (begins(packet, "2")) {
        put_text(c, "3", 1);
    } else if (begins(packet, "0")) {
        put_packet(c, "40%s%s", ns, comma);
    } else if (begins(packet, "40")) {
        c->state = BENCH_JOINING;
        put_packet(c, "42%s%s0[\"bus:join\",[\"%s\",\"%s\"]]", ns, comma, c->bus->all, c->room);
    } else if (begins(packet, "43") && c->state == BENCH_JOINING) {
        if (!memmem(packet.p, packet.n, "\"ok\":true", 9)) {
            refused(c, "bus:join was refused", packet);
            return;
        }
        c->state = BENCH_JOINED;
        c->bus->on_joined(c);
    } else if (begins(packet, "44")) {
        refused(c, "the namespace was refused", packet);
    } else if (begins(packet, "1") || begins(packet, "41")) {
        fail(c, closed_text);
    }
}

/* How many bytes of the frame's head there are, from its first two. */
static size_t head_bytes(const uint8_t *p)
{
    unsigned n = p[1] & 0x7f;

    return n == 126 ? 4 : n == 127 ? 10 : 2;
}

static void take_frames(struct bench_client *c)
{
    size_t at = 0;

    while (c->state != BENCH_CLOSED && c->in.n - at >= 2) {
        const uint8_t *p = c->in.bytes + at;
        size_t head = head_bytes(p), payload;
        enum ws_opcode opcode;
        if (c->in.n - at < head)
            break;
        ws_own_head(p, &opcode, &payload);
        if (c->in.n - at - head < payload)
            break;
        if (opcode == WS_CLOSE) {
            fail(c, closed_text);
            return;
        }
        if (opcode == WS_TEXT)
            take_packet(c, (struct span){(const char *)p + head, payload});
        at += head + payload;
    }
    if (c->state != BENCH_CLOSED)
        drop(&c->in, at);
}

static void take_upgrade(struct bench_client *c)
{
    uint8_t *end = memmem(c->in.bytes, c->in.n, "\r\n\r\n", 4);
    struct span line = {(const char *)c->in.bytes, c->in.n};

    if (!end)
        return;
    if (!begins(line, "HTTP/1.1 101")) {
        line.n = (size_t)((const char *)memchr(line.p, '\r', line.n) - line.p);
        refused(c, "the WebSocket was refused", line);
        return;
    }
    drop(&c->in, (size_t)(end + 4 - c->in.bytes));
    c->state = BENCH_OPENING;
}

static void read_in(struct bench_client *c)
{
    ssize_t n;

    if (c->in.n > IN_MAX_BYTES || !grow(&c->in, READ_BYTES)) {
        fail(c, "a message is too long");
        return;
    }
    n = recv(c->io.fd, c->in.bytes + c->in.n, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        fail(c, n < 0 && errno != ECONNRESET ? strerror(errno) : closed_text);
        return;
    }
    c->in.n += (size_t)n;
    if (c->state == BENCH_UPGRADING)
        take_upgrade(c);
    if (c->state >= BENCH_OPENING)
        take_frames(c);
}

/* ---- connecting ---- */

static void ask_for_websocket(struct bench_client *c)
{
    char text[512], host[INET_ADDRSTRLEN];
    int n;

    inet_ntop(AF_INET, &c->bus->address.sin_addr, host, sizeof host);
    n = snprintf(text, sizeof text,
                 "GET %.200s?EIO=4&transport=websocket HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\n"
                 "Connection: Upgrade\r\nSec-WebSocket-Key: c3RhcmxpbmcgYmVuY2gxMg==\r\n"
                 "Sec-WebSocket-Version: 13\r\n\r\n",
                 c->bus->path, host, ntohs(c->bus->address.sin_port));
    c->state = BENCH_UPGRADING;
    put(c, text, (size_t)n);
}

static void on_ready(struct reactor_io *io, uint32_t events)
{
    struct bench_client *c = container_of(io, struct bench_client, io);
    int error = 0;
    socklen_t n = sizeof error;

    if (c->state == BENCH_CONNECTING) {
        getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error) {
            fail(c, strerror(error));
            return;
        }
        reactor_modify(c->bus->reactor, io, EPOLLIN);
        ask_for_websocket(c);
        return;
    }
    if (events & EPOLLOUT)
        write_out(c);
    if (c->state != BENCH_CLOSED && (events & ~(uint32_t)EPOLLOUT))
        read_in(c);
}

void bench_client_open(struct bench_client *c, struct bench_bus *bus, unsigned index)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

    *c = (struct bench_client){.bus = bus, .index = index, .io = {on_ready, fd}, .flush.run = on_flush};
    snprintf(c->room, sizeof c->room, "%.32s-%u", bus->all, index);
    if (fd < 0 || reactor_add(bus->reactor, &c->io, EPOLLIN | EPOLLOUT) != 0) {
        if (fd >= 0)
            close(fd);
        bus->on_failure(c, strerror(errno));
        return;
    }
    c->state = BENCH_CONNECTING;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&bus->address, sizeof bus->address) != 0 && errno != EINPROGRESS)
        fail(c, strerror(errno));
}
