#include "front.h"
#include "container.h"
#include "err.h"
#include "gate.h"
#include "log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_TURN = 64,
    BACKLOG = 4096,
    CROWD_MS = 1000, /* after which a request that has not come is late */
    CROWD_FACTOR = 8,
};

static void bury(struct reactor_task *task)
{
    conn_bury(container_of(task, struct front, bury_task));
}

struct front *front_new(struct reactor *r, struct metrics *m, struct engine *e, const struct front_options *o)
{
    struct front *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->reactor = r;
    f->metrics = m;
    f->engine = e;
    f->options = *o;
    f->line_end = &f->line;
    f->bury_task.run = bury;
    f->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    f->seam = seam_start(r, &(struct seam_options){.threads = o->threads}, o->web, o->web_user);
    if (!f->seam) {
        close(f->reserve_fd);
        free(f);
        return NULL;
    }
    return f;
}

static void stop_listening(struct front *f)
{
    for (unsigned i = 0; i < f->n_listeners; i++) {
        reactor_remove(f->reactor, &f->listener[i].io);
        close(f->listener[i].io.fd);
    }
    f->n_listeners = 0;
}

void front_drain(struct front *f)
{
    struct conn *next;
    stop_listening(f);
    f->draining = true;
    for (struct conn *c = f->conns; c; c = next) {
        next = c->next;
        if (c->role == &gate_role && !c->is_busy)
            conn_close(c);
    }
}

void front_free(struct front **fp)
{
    struct front *f = *fp;
    if (!f)
        return;
    stop_listening(f);
    seam_stop(&f->seam);
    while (f->conns)
        conn_close(f->conns);
    reactor_undefer(f->reactor, &f->bury_task, REACTOR_FLUSH);
    conn_bury(f);
    close(f->reserve_fd);
    free(f);
    *fp = NULL;
}

/* ---- who waits ---- */

static struct address *address_of(struct front *f, uint32_t ip)
{
    struct address *a;
    HASH_FIND(hh, f->addresses, &ip, sizeof(ip), a);
    if (a)
        return a;
    a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->ip = ip;
    HASH_ADD(hh, f->addresses, ip, sizeof(a->ip), a);
    return a;
}

/* Above the cap it is the oldest that goes: who sends half a request and waits cannot keep others of the same
 * address (a company's, a load balancer's) out. A crowd that connects all at once is let in: its requests are on
 * their way. */
static bool is_too_many(const struct front *f, const struct address *a)
{
    uint64_t age_ms = reactor_now_ms(f->reactor) - a->oldest->since_ms;
    uint64_t cap = f->options.max_waiting_per_address;
    return a->count > cap && (age_ms >= CROWD_MS || a->count > CROWD_FACTOR * cap);
}

void front_count_waiting(struct front *f, struct conn *c)
{
    struct address *a = address_of(f, c->ip);
    if (!a)
        return;
    c->address = a;
    c->address_prev = a->newest;
    c->address_next = NULL;
    if (a->newest)
        a->newest->address_next = c;
    else
        a->oldest = c;
    a->newest = c;
    a->count++;
    if (is_too_many(f, a)) {
        struct conn *oldest = a->oldest;
        metrics_add(f->metrics, METRIC_CONNECTIONS_REFUSED, 1);
        oldest->role->on_gone(oldest);
        conn_abort(oldest);
    }
}

void front_uncount_waiting(struct front *f, struct conn *c)
{
    struct address *a = c->address;
    if (!a)
        return;
    c->address = NULL;
    if (c->address_prev)
        c->address_prev->address_next = c->address_next;
    else
        a->oldest = c->address_next;
    if (c->address_next)
        c->address_next->address_prev = c->address_prev;
    else
        a->newest = c->address_prev;
    if (--a->count == 0) {
        HASH_DEL(f->addresses, a);
        free(a);
    }
}

/* ---- the line ---- */

static void run_line(struct front *f)
{
    if (f->line_runs) /* a turn may let others join: they have theirs here, not inside of it */
        return;
    f->line_runs = true;
    while (f->line && f->line->line_ready) {
        struct conn *c = f->line;
        f->line = c->line_next;
        if (!f->line)
            f->line_end = &f->line;
        c->in_line = false;
        if (gate_has(c) && !c->line_skip)
            gate_take_turn(c);
        conn_unhold(c);
    }
    f->line_runs = false;
}

void front_line_join(struct front *f, struct conn *c, bool ready)
{
    conn_hold(c);
    c->in_line = true;
    c->line_ready = ready;
    c->line_skip = false;
    c->line_next = NULL;
    *f->line_end = c;
    f->line_end = &c->line_next;
    if (ready)
        run_line(f);
}

void front_line_ready(struct front *f, struct conn *c, bool skip)
{
    c->line_ready = true;
    c->line_skip = skip;
    run_line(f);
}

/* ---- listening ---- */

/* Without a descriptor left a connection would stay in the backlog and wake the loop for ever. */
static void refuse_one(struct front *f, int listener)
{
    metrics_add(f->metrics, METRIC_CONNECTIONS_NO_FD, 1);
    close(f->reserve_fd);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    f->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void welcome(struct front *f, int fd, const struct sockaddr_in *peer)
{
    struct conn *c = conn_new(f, fd, peer->sin_addr.s_addr, peer->sin_port, &gate_role);
    if (!c)
        return;
    conn_timer(c, f->options.request_timeout_ms);
    front_count_waiting(f, c);
    /* Often the request is there already, but it is read in its turn: epoll tells the order of arrival. */
    if (!c->is_dead)
        conn_watch(c, EPOLLIN);
}

static void on_accept(struct reactor_io *io, uint32_t events)
{
    struct front *f = container_of(io, struct listener, io)->front;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_in peer = {0};
        socklen_t n = sizeof(peer);
        int fd = accept4(io->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
            refuse_one(f, io->fd);
            return;
        }
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0)
            continue; /* that one is gone again */
        if (f->n_conns >= f->options.max_connections) {
            metrics_add(f->metrics, METRIC_CONNECTIONS_NO_FD, 1);
            close(fd);
            continue;
        }
        welcome(f, fd, &peer);
    }
}

int front_adopt(struct front *f, int fd)
{
    struct listener *l = &f->listener[f->n_listeners];
    if (f->n_listeners == FRONT_LISTENERS)
        return ERR_SYSTEM;
    l->io.fd = fd;
    l->io.on_ready = on_accept;
    l->front = f;
    if (reactor_add(f->reactor, &l->io, EPOLLIN))
        return ERR_SYSTEM;
    f->n_listeners++;
    return 0;
}

bool front_has_port(const struct front *f, uint16_t port)
{
    for (unsigned i = 0; i < f->n_listeners; i++) {
        struct sockaddr_in addr;
        socklen_t n = sizeof(addr);
        if (getsockname(f->listener[i].io.fd, (struct sockaddr *)&addr, &n) == 0 &&
            addr.sin_port == htons(port))
            return true;
    }
    return false;
}

void front_close_doors(struct front *f)
{
    for (unsigned i = 0; i < f->n_listeners; i++)
        for (unsigned turns = 0; turns * ACCEPTS_PER_TURN < BACKLOG; turns++)
            on_accept(&f->listener[i].io, EPOLLIN);
    stop_listening(f);
    f->draining = true;
}

int front_listen(struct front *f, const char *ip, uint16_t port, bool is_shared)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, ip, &addr.sin_addr) != 1)
        goto fail;
    /* Accepted sockets inherit TCP_NODELAY. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        (is_shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on))) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
        bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, BACKLOG))
        goto fail;
    if (front_adopt(f, fd))
        goto fail;
    return 0;
fail:
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return ERR_SYSTEM;
}
