#include "conn.h"
#include "container.h"
#include "err.h"
#include "front.h"
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IOV_MAX_ONCE = 64,
};

static void on_ready(struct reactor_io *io, uint32_t events);

static void on_timer(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, timer);
    c->role->on_timeout(c);
}

struct conn *conn_new(struct front *front, int fd, uint32_t ip, uint16_t port, const struct conn_role *role)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c) {
        close(fd);
        return NULL;
    }
    c->io.fd = fd;
    c->io.on_ready = on_ready;
    c->front = front;
    c->role = role;
    c->release = role->release;
    c->ip = ip;
    c->port = port;
    c->since_ms = reactor_now_ms(front->reactor);
    outq_init(&c->out);
    timer_init(&c->timer, on_timer);
    c->next = front->conns;
    if (c->next)
        c->next->prev = c;
    front->conns = c;
    front->n_conns++;
    metrics_add(front->metrics, METRIC_CONNECTIONS, 1);
    metrics_set(front->metrics, METRIC_CONNECTIONS_OPEN, front->n_conns);
    return c;
}

void conn_watch(struct conn *c, uint32_t events)
{
    if (c->is_dead || (c->is_watched && c->events == events))
        return;
    if (!c->is_watched)
        c->is_watched = reactor_add(c->front->reactor, &c->io, events) == 0;
    else
        reactor_modify(c->front->reactor, &c->io, events);
    c->events = events;
}

void conn_timer(struct conn *c, uint32_t after_ms)
{
    reactor_timer_set(c->front->reactor, &c->timer, after_ms);
}

/* ---- reading ---- */

void conn_drop_input(struct conn *c, size_t n)
{
    c->in.n -= n;
    if (c->in.n)
        memmove(c->in.p, c->in.p + n, c->in.n);
    else
        buffer_reset(&c->in);
}

void conn_read(struct conn *c)
{
    struct front *f = c->front;
    ssize_t n = recv(c->io.fd, f->scratch, sizeof(f->scratch), MSG_DONTWAIT);
    if (n > 0) {
        metrics_add(f->metrics, METRIC_BYTES_IN, (uint64_t)n);
        c->role->on_input(c, f->scratch, (size_t)n);
    } else if (n == 0) {
        if (!c->role->on_eof || !c->role->on_eof(c))
            conn_gone(c);
    } else if (errno != EAGAIN && errno != EINTR) {
        conn_gone(c);
    }
}

static void on_ready(struct reactor_io *io, uint32_t events)
{
    struct conn *c = container_of(io, struct conn, io);
    if (events & EPOLLOUT) {
        c->role->on_drained(c);
        if (c->is_dead)
            return;
    }
    if (events & EPOLLIN)
        conn_read(c);
    else if (events & (EPOLLHUP | EPOLLERR))
        conn_gone(c); /* nothing more to read, and these cannot be left unwatched */
}

/* ---- writing ---- */

int conn_put(struct conn *c, const void *p, size_t n)
{
    struct slice s;
    int err = bytes_alloc(&c->front->engine->bytes, n, &s);
    if (err)
        return err;
    memcpy(s.p, p, n);
    err = outq_push(&c->out, &s, 1, false);
    slice_unref(&s);
    return err;
}

int conn_write(struct conn *c, struct outq *more)
{
    for (;;) {
        struct iovec iov[IOV_MAX_ONCE];
        size_t wanted = 0;
        int n = outq_empty(&c->out) ? 0 : outq_iov(&c->out, iov, IOV_MAX_ONCE);
        if (more)
            n += outq_iov(more, iov + n, IOV_MAX_ONCE - n);
        if (n == 0)
            return 1;
        for (int i = 0; i < n; i++)
            wanted += iov[i].iov_len;
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
        ssize_t written = n == 1
                              ? send(c->io.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                              : sendmsg(c->io.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno != EAGAIN)
            return ERR_SYSTEM;
        size_t left = written > 0 ? (size_t)written : 0;
        metrics_add(c->front->metrics, METRIC_BYTES_OUT, left);
        size_t own = left < c->out.bytes ? left : (size_t)c->out.bytes;
        if (own)
            outq_advance(&c->out, own);
        if (left > own)
            outq_advance(more, left - own);
        if ((written > 0 ? (size_t)written : 0) < wanted) {
            conn_watch(c, (c->is_watched ? c->events : (uint32_t)EPOLLIN) | EPOLLOUT);
            return 0;
        }
    }
}

bool conn_flush(struct conn *c)
{
    if (conn_write(c, NULL) < 0) {
        conn_gone(c);
        return false;
    }
    return true;
}

/* ---- the end ---- */

static void ending_input(struct conn *c, uint8_t *p, size_t n)
{
    (void)c, (void)p, (void)n; /* read only so that the answer is not lost in a reset */
}

static void ending_drained(struct conn *c)
{
    int done = conn_write(c, NULL);
    if (done < 0) {
        conn_close(c);
        return;
    }
    conn_timer(c, c->front->options.request_timeout_ms);
    if (done > 0) {
        shutdown(c->io.fd, SHUT_WR);
        conn_watch(c, EPOLLIN);
    }
}

/* The answer may still be in the kernel: as long as the peer takes some of it there is more time. */
static void ending_timeout(struct conn *c)
{
    int unsent = 0;
    if (outq_empty(&c->out) && ioctl(c->io.fd, SIOCOUTQ, &unsent) == 0 && unsent > 0 &&
        (c->unsent == 0 || unsent < c->unsent)) {
        c->unsent = unsent;
        conn_timer(c, c->front->options.request_timeout_ms);
    } else {
        conn_abort(c);
    }
}

/* It wants nothing more from us to read; what it still gets, it gets. */
static bool ending_eof(struct conn *c)
{
    if (outq_empty(&c->out))
        return false;
    conn_watch(c, EPOLLOUT);
    return true;
}

static void ending_gone(struct conn *c)
{
    (void)c;
}

static const struct conn_role ending = {
    .name = "ending",
    .on_input = ending_input,
    .on_drained = ending_drained,
    .on_eof = ending_eof,
    .on_gone = ending_gone,
    .on_timeout = ending_timeout,
};

void conn_set_role(struct conn *c, const struct conn_role *role)
{
    c->release(c);
    c->role = role;
    c->release = role->release;
}

void conn_end(struct conn *c)
{
    if (c->is_dead || c->role == &ending)
        return;
    front_uncount_waiting(c->front, c);
    /* Callers up the stack may still look at what the last role kept: it is released with the connection. */
    c->role = &ending;
    c->session = NULL;
    conn_watch(c, EPOLLIN);
    ending_drained(c);
}

static void to_grave(struct conn *c)
{
    struct front *f = c->front;
    c->dead_next = f->dead;
    f->dead = c;
    reactor_defer(f->reactor, &f->bury_task, REACTOR_FLUSH);
}

void conn_hold(struct conn *c)
{
    c->holds++;
}

void conn_unhold(struct conn *c)
{
    if (--c->holds == 0 && c->is_dead)
        to_grave(c);
}

void conn_close(struct conn *c)
{
    struct front *f = c->front;
    if (c->is_dead)
        return;
    c->is_dead = true;
    if (c->is_watched)
        reactor_remove(f->reactor, &c->io);
    close(c->io.fd);
    reactor_timer_cancel(f->reactor, &c->timer);
    front_uncount_waiting(f, c);
    if (c->prev)
        c->prev->next = c->next;
    else
        f->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    f->n_conns--;
    metrics_set(f->metrics, METRIC_CONNECTIONS_OPEN, f->n_conns);
    c->session = NULL;
    if (c->holds == 0)
        to_grave(c);
}

void conn_abort(struct conn *c)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (!c->is_dead)
        setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    conn_close(c);
}

void conn_gone(struct conn *c)
{
    if (c->is_dead)
        return;
    c->role->on_gone(c);
    conn_close(c);
}

void conn_bury(struct front *f)
{
    while (f->dead) {
        struct conn *c = f->dead;
        f->dead = c->dead_next;
        c->release(c);
        outq_deinit(&c->out);
        buffer_reset(&c->in);
        free(c);
    }
}
