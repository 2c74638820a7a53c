#include "client.h"
#include "../../bench/lib/util.h"
#include "../../bench/lib/wire.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 * 1024,
    KEPT_BYTES = 64 * 1024,
    UNSENT_BYTES = 1024 * 1024,
    PADDING_BYTES = 1024,
};

static const char *const STATE_NAMES[] = {
    [CLIENT_CLOSED] = "closed",
    [CLIENT_REACHING] = "connecting",
    [CLIENT_UPGRADING] = "waiting for 101",
    [CLIENT_OPENING] = "waiting for the open packet",
    [CLIENT_CONNECTING] = "waiting for the answer to CONNECT",
    [CLIENT_JOINING] = "waiting for the answer to bus:join",
    [CLIENT_UP] = "up",
};

void swarm_init(struct swarm *s, struct ledger *ledger)
{
    *s = (struct swarm){.ledger = ledger, .epoll = epoll_create1(EPOLL_CLOEXEC), .own_netns = -1};
    if (s->epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    s->input = must_alloc(1, KEPT_BYTES + READ_BYTES);
}

/* ---- the connection ---- */

static void watch(struct client *c, bool wants_write, int operation)
{
    struct epoll_event e = {.events = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    c->wants_write = wants_write;
    if (epoll_ctl(c->swarm->epoll, operation, c->fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void end(struct client *c, const char *why)
{
    struct swarm *s = c->swarm;
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->state == CLIENT_UP) {
        ledger_end(s->ledger, c->life);
        s->up--;
        c->target->up--;
    } else {
        s->failed++;
    }
    if (!s->reconnect_ns || c->state > CLIENT_UPGRADING)
        fprintf(stderr, "a client of %s, %s: %s\n", c->target->name, STATE_NAMES[c->state], why);
    close(c->fd);
    c->fd = -1;
    c->life = NULL;
    c->kept_n = c->unsent_n = 0;
    c->state = CLIENT_CLOSED;
    c->next_try_ns = s->reconnect_ns ? now_ns() + s->reconnect_ns : 0;
}

static int make_socket(const struct client *c)
{
    const int on = 1;
    int netns = c->target->netns;
    if (netns >= 0 && setns(netns, CLONE_NEWNET) < 0)
        die("setns to the namespace of %s: %s", c->target->name, strerror(errno));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (netns >= 0 && setns(c->swarm->own_netns, CLONE_NEWNET) < 0)
        die("setns back: %s", strerror(errno));
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        die("socket: %s", strerror(errno));
    return fd;
}

void client_open(struct client *c)
{
    c->swarm->opened++;
    c->fd = make_socket(c);
    c->state = CLIENT_REACHING;
    c->next_try_ns = 0;
    watch(c, true, EPOLL_CTL_ADD);
    const struct sockaddr *address = (const struct sockaddr *)&c->target->address;
    if (connect(c->fd, address, sizeof(c->target->address)) < 0 && errno != EINPROGRESS)
        end(c, strerror(errno));
}

/* ---- writing ---- */

static void keep_unsent(struct client *c, const uint8_t *p, size_t n)
{
    if (!c->unsent)
        c->unsent = must_alloc(1, UNSENT_BYTES);
    if (c->unsent_n + n > UNSENT_BYTES) {
        end(c, "its server does not read");
        return;
    }
    memcpy(c->unsent + c->unsent_n, p, n);
    c->unsent_n += n;
    if (!c->wants_write)
        watch(c, true, EPOLL_CTL_MOD);
}

static void send_bytes(struct client *c, const void *p, size_t n)
{
    ssize_t sent = 0;
    if (c->unsent_n == 0) {
        sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end(c, strerror(errno));
            return;
        }
        sent = sent < 0 ? 0 : sent;
    }
    if ((size_t)sent < n)
        keep_unsent(c, (const uint8_t *)p + sent, n - (size_t)sent);
}

static void flush_unsent(struct client *c)
{
    ssize_t sent = c->unsent_n ? send(c->fd, c->unsent, c->unsent_n, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN) {
        end(c, strerror(errno));
        return;
    }
    if (sent > 0) {
        c->unsent_n -= (size_t)sent;
        memmove(c->unsent, c->unsent + sent, c->unsent_n);
    }
    if (c->unsent_n == 0)
        watch(c, false, EPOLL_CTL_MOD);
}

static void send_text(struct client *c, const char *text, size_t n)
{
    uint8_t frame[WIRE_FRAME_MAX + PADDING_BYTES];
    send_bytes(c, frame, wire_client_frame(frame, text, n));
}

bool client_emit(struct client *c)
{
    static const char PADDING[PADDING_BYTES + 1] = {[0 ... PADDING_BYTES - 1] = 'x'};
    char text[WIRE_FRAME_MAX + PADDING_BYTES - 8];
    if (c->unsent_n + sizeof(text) > UNSENT_BYTES)
        return false;
    uint64_t number = ledger_send(c->swarm->ledger, c->life);
    /* The number also is the id of the acknowledgement. */
    int n = snprintf(text, sizeof(text),
                     "42%ju[\"bus:emit\",{\"to\":\"" ROOM_PREFIX "%u\",\"event\":\"n\",\"args\":[%u,%ju,%ju,"
                     "\"%.*s\"]}]",
                     (uintmax_t)number, c->room, life_id(c->life), (uintmax_t)number,
                     (uintmax_t)(now_ns() / 1000), (int)c->swarm->padding, PADDING);
    send_text(c, text, (size_t)n);
    return true;
}

/* ---- reading ---- */

static bool starts_with(const char *text, size_t n, const char *start)
{
    size_t start_n = strlen(start);
    return n >= start_n && !memcmp(text, start, start_n);
}

/* A decimal number and the character behind it. */
static bool take_number(const char **p, const char *end_of_text, char behind, uint64_t *out)
{
    const char *at = *p;
    uint64_t value = 0;
    for (; at < end_of_text && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    if (at == *p || at == end_of_text || *at != behind)
        return false;
    *p = at + 1;
    *out = value;
    return true;
}

static bool on_event(struct client *c, const char *text, size_t n)
{
    static const char HEAD[] = "42[\"n\",";
    const char *p = text + sizeof(HEAD) - 1, *text_end = text + n;
    uint64_t from, number, sent_us;
    if (!starts_with(text, n, HEAD) || !take_number(&p, text_end, ',', &from) ||
        !take_number(&p, text_end, ',', &number) || !take_number(&p, text_end, ',', &sent_us))
        return false;
    ledger_hear(c->swarm->ledger, c->life, from, number, now_ns() / 1000 - sent_us);
    return true;
}

static bool on_acknowledgement(struct client *c, const char *text, size_t n)
{
    static const char GOOD[] = "{\"ok\":true";
    const char *p = text + 2;
    uint64_t number;
    if (!starts_with(text, n, "43") || !take_number(&p, text + n, '[', &number))
        return false;
    bool ok = starts_with(p, (size_t)(text + n - p), GOOD);
    if (!ok)
        fprintf(stderr, "refused: %.*s\n", (int)n, text);
    ledger_acknowledge(c->swarm->ledger, c->life, number, ok);
    return true;
}

static void on_joined(struct client *c)
{
    c->state = CLIENT_UP;
    c->swarm->up++;
    c->target->up++;
    c->life = ledger_begin(c->swarm->ledger, c->room, c->target->index);
}

/* The steps until a client is up. */
static bool on_step(struct client *c, const char *text, size_t n)
{
    char join[64];
    if (c->state == CLIENT_OPENING && starts_with(text, n, "0{")) {
        c->state = CLIENT_CONNECTING;
        send_text(c, "40", 2);
    } else if (c->state == CLIENT_CONNECTING && starts_with(text, n, "40{")) {
        c->state = CLIENT_JOINING;
        send_text(c, join,
                  (size_t)snprintf(join, sizeof(join), "420[\"bus:join\",\"" ROOM_PREFIX "%u\"]", c->room));
    } else if (c->state == CLIENT_JOINING && starts_with(text, n, "430[{\"ok\":true")) {
        on_joined(c);
    } else {
        return false;
    }
    return true;
}

static void on_text(struct client *c, const char *text, size_t n)
{
    if (c->state == CLIENT_UP && (on_event(c, text, n) || on_acknowledgement(c, text, n)))
        return;
    if (starts_with(text, n, "42[\"bus:gap\"")) {
        fprintf(stderr, "%s: %.*s\n", c->target->name, (int)n, text);
        if (c->life)
            ledger_gap(c->swarm->ledger, c->life);
    } else if (n == 1 && *text == '2') {
        send_text(c, "3", 1);
    } else if (!starts_with(text, n, "42[\"bus:") && !on_step(c, text, n)) {
        fprintf(stderr, "%s: %.*s\n", c->target->name, (int)(n < 200 ? n : 200), text);
        end(c, "it was told something unexpected");
    }
}

static bool take_answer(struct client *c, struct wire_cursor *cursor)
{
    const char *head = (const char *)cursor->p;
    size_t have = (size_t)(cursor->end - cursor->p);
    const char *blank = memmem(head, have, "\r\n\r\n", 4);
    if (!blank)
        return false;
    if (!starts_with(head, have, "HTTP/1.1 101 ") ||
        !memmem(head, have, WIRE_WS_ACCEPT, strlen(WIRE_WS_ACCEPT))) {
        end(c, "the upgrade was refused");
        return false;
    }
    cursor->p = (const uint8_t *)blank + 4;
    c->state = CLIENT_OPENING;
    return true;
}

static void take_input(struct client *c, struct wire_cursor *cursor)
{
    const char *text;
    size_t n;
    int got = 0;
    if (c->state == CLIENT_UPGRADING && !take_answer(c, cursor))
        goto keep;
    while (c->state != CLIENT_CLOSED && (got = wire_next(cursor, &text, &n)) > 0)
        on_text(c, text, n);
    if (got < 0)
        end(c, "a frame came that is no plain text");
keep:
    if (c->state == CLIENT_CLOSED)
        return;
    c->kept_n = (size_t)(cursor->end - cursor->p);
    if (c->kept_n > KEPT_BYTES)
        die("%s: a frame or answer of more than %d bytes", c->target->name, KEPT_BYTES);
    if (c->kept_n && !c->kept)
        c->kept = must_alloc(1, KEPT_BYTES);
    if (c->kept_n)
        memcpy(c->kept, cursor->p, c->kept_n);
}

static void on_readable(struct client *c)
{
    uint8_t *input = c->swarm->input;
    if (c->kept_n)
        memcpy(input, c->kept, c->kept_n);
    ssize_t n = recv(c->fd, input + c->kept_n, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        end(c, n < 0 ? strerror(errno) : "its server closed the connection");
        return;
    }
    struct wire_cursor cursor = {.p = input, .end = input + c->kept_n + n};
    take_input(c, &cursor);
}

static void on_reached(struct client *c)
{
    int error = 0;
    socklen_t n = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        end(c, strerror(error));
        return;
    }
    char request[WIRE_FRAME_MAX];
    c->state = CLIENT_UPGRADING;
    watch(c, false, EPOLL_CTL_MOD);
    send_bytes(c, request, wire_upgrade_request(request, ntohs(c->target->address.sin_port)));
}

void client_on_event(struct client *c, uint32_t events)
{
    if (c->state == CLIENT_REACHING) {
        on_reached(c);
        return;
    }
    if ((events & EPOLLOUT) && c->state != CLIENT_CLOSED)
        flush_unsent(c);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && c->state != CLIENT_CLOSED)
        on_readable(c);
}
