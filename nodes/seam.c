/* civetweb 1.15 as Debian builds it looks its socket calls up dynamically, so the definitions at the end of this file
 * take their place. They act on visits' numbers, which no descriptor of the kernel ever reaches, and on the one
 * listening descriptor, which is an eventfd that counts the visits to be accepted; everything else goes to libc.
 * Compared with handing it real sockets this saves eleven system calls a request, and a request cannot be read too far. */
#include "seam.h"
#include "buffer.h"
#include "container.h"
#include "err.h"
#include "http.h"
#include "log.h"
#include <civetweb.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST_NUMBER = 1 << 28, /* far above any descriptor */
    VISITS = 1024,          /* that civetweb may have at a time */
    ANSWER_HEAD_BYTES = 4096,
    NO_INDEX = VISITS,                /* of a visit that goes on without civetweb */
    OUTSIDE_BYTES = 64 * 1024 * 1024, /* of requests that wait for a number */
};

/* A request that waits for a number: its threads may get no CPU while the reactor does. */
struct outside {
    struct outside *next;
    struct span head, body;
    struct sockaddr_in peer;
    bool keep_alive;
    void (*on_back)(struct visit *v);
    void *owner;
};

struct visit {
    struct mail mail;
    struct seam *seam;
    void *owner;
    void (*on_back)(struct visit *v);
    void (*on_finish)(struct visit *v);
    void (*run)(struct visit *v);
    unsigned index;
    struct sockaddr_in peer;
    struct span head; /* what civetweb reads */
    size_t head_at;
    struct buffer out; /* what it wrote */
    struct span static_body;
    struct span body;
    enum visit_end end;
    bool keep_alive, is_head, abandoned;
    struct mg_connection *conn; /* while a handler runs */
};

struct seam {
    struct reactor *reactor;
    struct mg_context *civetweb;
    visit_handler *handler;
    void *user;
    int listener;   /* civetweb's number of it */
    unsigned count; /* visits in use, and those outside */
    struct outside *first, **end;
    size_t outside_bytes;
    pthread_mutex_t lock;
    unsigned waiting[VISITS]; /* ring of visits to be accepted */
    atomic_bool stopping;
    _Atomic unsigned waiting_n;
    unsigned waiting_at;
    unsigned free_n, free_list[VISITS];
    struct visit visit[VISITS];
};

static struct seam *the_seam; /* the functions that civetweb calls have no other way to find it */
static _Thread_local bool starting;

/* ---- civetweb's thread: a handler's view ---- */

static struct span text_or_none(const char *text)
{
    return text ? span_of(text) : (struct span){"", 0};
}

struct span visit_method(const struct visit *v)
{
    return text_or_none(mg_get_request_info(v->conn)->request_method);
}

struct span visit_path(const struct visit *v)
{
    return text_or_none(mg_get_request_info(v->conn)->local_uri);
}

struct span visit_query(const struct visit *v)
{
    return text_or_none(mg_get_request_info(v->conn)->query_string);
}

struct span visit_header(const struct visit *v, const char *name)
{
    return text_or_none(mg_get_header(v->conn, name));
}

struct span visit_body(const struct visit *v)
{
    return v->body;
}

struct span visit_target(const struct visit *v)
{
    const char *end = v->head.p + v->head.n, *from = memchr(v->head.p, ' ', v->head.n);
    const char *to = from ? memchr(from + 1, ' ', (size_t)(end - from - 1)) : NULL;
    return to ? (struct span){from + 1, (size_t)(to - from - 1)} : (struct span){"", 0};
}

void *visit_user(const struct visit *v)
{
    return v->seam->user;
}

static int answer_head(const struct visit *v, char *head, int status, const char *content_type,
                       const char *headers, size_t body_n)
{
    int n = snprintf(head, ANSWER_HEAD_BYTES,
                     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: %s\r\n\r\n",
                     status, http_status_text(status), content_type, body_n, headers,
                     v->keep_alive ? "keep-alive" : "close");
    return n < ANSWER_HEAD_BYTES ? n : 0;
}

void visit_answer(struct visit *v, int status, const char *content_type, const char *headers,
                  struct span body)
{
    char head[ANSWER_HEAD_BYTES];
    int n = answer_head(v, head, status, content_type, headers, body.n);
    v->end = VISIT_ANSWERED;
    mg_write(v->conn, head, (size_t)n);
    if (!v->is_head && body.n)
        mg_write(v->conn, body.p, body.n);
}

void visit_answer_static(struct visit *v, int status, const char *content_type, const char *headers,
                         struct span body)
{
    char head[ANSWER_HEAD_BYTES];
    int n = answer_head(v, head, status, content_type, headers, body.n);
    v->end = VISIT_ANSWERED;
    mg_write(v->conn, head, (size_t)n);
    if (!v->is_head)
        v->static_body = body;
}

void visit_answer_unmodified(struct visit *v, const char *headers)
{
    char head[ANSWER_HEAD_BYTES];
    int n = snprintf(head, sizeof(head), "HTTP/1.1 304 Not Modified\r\n%sConnection: %s\r\n\r\n", headers,
                     v->keep_alive ? "keep-alive" : "close");
    v->end = VISIT_ANSWERED;
    mg_write(v->conn, head, (size_t)n);
}

void visit_defer(struct visit *v, void (*run)(struct visit *v))
{
    v->end = VISIT_DEFERRED;
    v->run = run;
}

void visit_transport(struct visit *v)
{
    v->end = VISIT_TRANSPORT;
}

/* The visit that this thread of civetweb is reading. */
static _Thread_local struct visit *current;

/* civetweb has parsed a request. A positive result tells it that the request is handled. */
static int on_request(struct mg_connection *conn)
{
    struct visit *v = current;
    v->conn = conn;
    v->is_head = span_eq(visit_method(v), SPAN("HEAD"));
    v->seam->handler(v, v->seam->user);
    v->conn = NULL;
    return 200;
}

/* ---- the reactor's side ---- */

static void on_back(struct mail *mail)
{
    struct visit *v = container_of(mail, struct visit, mail);
    v->on_back(v);
}

/* The visit gets the next free number. */
static void let_in(struct seam *s, const struct outside *o)
{
    unsigned index = s->free_list[--s->free_n];
    s->visit[index] = (struct visit){
        .mail = {.on_delivery = on_back},
        .seam = s,
        .owner = o->owner,
        .on_back = o->on_back,
        .index = index,
        .peer = o->peer,
        .head = o->head,
        .body = o->body,
        .keep_alive = o->keep_alive,
    };
    pthread_mutex_lock(&s->lock);
    unsigned waiting = atomic_load(&s->waiting_n);
    s->waiting[(s->waiting_at + waiting) % VISITS] = index;
    atomic_store(&s->waiting_n, waiting + 1);
    pthread_mutex_unlock(&s->lock);
    if (waiting == 0)
        eventfd_write(s->listener, 1);
}

static size_t outside_bytes(const struct outside *o)
{
    return sizeof(*o) + o->head.n + o->body.n;
}

static bool wait_outside(struct seam *s, const struct outside *o)
{
    struct outside *copy =
        s->outside_bytes + outside_bytes(o) <= OUTSIDE_BYTES ? malloc(sizeof(*copy)) : NULL;
    if (!copy)
        return false;
    *copy = *o;
    copy->next = NULL;
    *s->end = copy;
    s->end = &copy->next;
    s->outside_bytes += outside_bytes(o);
    return true;
}

static struct outside *take_outside(struct seam *s)
{
    struct outside *o = s->first;
    s->first = o->next;
    if (!s->first)
        s->end = &s->first;
    s->outside_bytes -= outside_bytes(o);
    return o;
}

bool seam_visit(struct seam *s, struct span head, struct span body, const struct sockaddr_in *peer,
                bool keep_alive, void (*on_back_fn)(struct visit *v), void *owner)
{
    struct outside o = {.head = head,
                        .body = body,
                        .peer = *peer,
                        .keep_alive = keep_alive,
                        .on_back = on_back_fn,
                        .owner = owner};
    if (s->free_n > 0)
        let_in(s, &o);
    else if (!wait_outside(s, &o))
        return false;
    s->count++;
    return true;
}

bool seam_is_idle(const struct seam *s)
{
    return s->count == 0;
}

void *visit_owner(const struct visit *v)
{
    return v->owner;
}

enum visit_end visit_end(const struct visit *v)
{
    return v->end;
}

char *visit_take_answer(struct visit *v, size_t *n)
{
    char *out = v->out.p;
    *n = v->out.n;
    v->out = (struct buffer){0};
    return out;
}

struct span visit_static_body(const struct visit *v)
{
    return v->static_body;
}

bool visit_keep_alive(const struct visit *v)
{
    return v->keep_alive;
}

bool visit_run_deferred(struct visit *v, void (*on_finish)(struct visit *v), struct visit **goes_on)
{
    struct visit *own = malloc(sizeof(*own));
    if (!own) {
        visit_free(v);
        return false;
    }
    *own = *v;
    own->index = NO_INDEX;
    own->on_finish = on_finish;
    v->head = v->body = (struct span){NULL, 0};
    v->out = (struct buffer){0};
    visit_free(v);
    *goes_on = own;
    own->run(own);
    return true;
}

void visit_abandon(struct visit *v)
{
    v->abandoned = true;
}

void visit_finish(struct visit *v, int status, const char *content_type, struct span body)
{
    char head[ANSWER_HEAD_BYTES];
    if (v->abandoned) {
        visit_free(v);
        return;
    }
    int n = answer_head(v, head, status, content_type, "", body.n);
    if (buffer_append(&v->out, head, (size_t)n) || buffer_append(&v->out, body.p, body.n))
        v->keep_alive = false;
    v->on_finish(v);
}

void visit_free(struct visit *v)
{
    struct seam *s = v->seam;
    free((void *)(uintptr_t)v->head.p);
    free((void *)(uintptr_t)v->body.p);
    buffer_reset(&v->out);
    if (v->index == NO_INDEX) {
        free(v);
        return;
    }
    s->free_list[s->free_n++] = v->index;
    s->count--;
    if (s->first) {
        struct outside *o = take_outside(s);
        let_in(s, o);
        free(o);
    }
}

/* ---- start and stop ---- */

static int on_log(const struct mg_connection *conn, const char *message)
{
    (void)conn;
    log_event(LOG_DEBUG, "civetweb", LOG_TEXT("message", message));
    return 1;
}

struct seam *seam_start(struct reactor *r, const struct seam_options *o, visit_handler *handler, void *user)
{
    char threads[16];
    snprintf(threads, sizeof(threads), "%u", o->threads);
    const char *options[] = {
        "listening_ports",
        "127.0.0.1:0", /* never listened on */
        "num_threads",
        threads,
        "enable_keep_alive",
        "no", /* one visit, one request */
        "request_timeout_ms",
        "10000",
        NULL,
    };
    struct mg_callbacks callbacks = {.begin_request = on_request, .log_message = on_log};
    if (the_seam)
        return NULL;
    struct seam *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->reactor = r;
    s->handler = handler;
    s->user = user;
    s->listener = -1;
    s->end = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    while (s->free_n < VISITS) {
        s->free_list[s->free_n] = VISITS - 1 - s->free_n;
        s->free_n++;
    }
    the_seam = s;
    starting = true;
    s->civetweb = mg_start(&callbacks, NULL, options);
    starting = false;
    if (!s->civetweb || s->listener < 0) {
        log_event(LOG_ERROR, "civetweb_failed", LOG_TEXT("reason", "it did not start"));
        seam_stop(&s);
    }
    return s;
}

void seam_stop(struct seam **sp)
{
    struct seam *s = *sp;
    if (!s)
        return;
    if (s->civetweb) {
        atomic_store(&s->stopping, true);
        eventfd_write(s->listener, 1);
        mg_stop(s->civetweb);
    }
    reactor_deliver(s->reactor); /* visits on their way back */
    while (s->first) {
        struct outside *o = take_outside(s);
        free((void *)(uintptr_t)o->head.p);
        free((void *)(uintptr_t)o->body.p);
        free(o);
    }
    pthread_mutex_destroy(&s->lock);
    the_seam = NULL;
    free(s);
    *sp = NULL;
}

/* ---- what civetweb takes for the kernel ---- */

#define EXPORT __attribute__((visibility("default")))

static bool is_visit(int fd)
{
    return fd >= FIRST_NUMBER && fd < FIRST_NUMBER + VISITS;
}

static struct visit *visit_of(int fd)
{
    return &the_seam->visit[fd - FIRST_NUMBER];
}

static bool is_listener(int fd)
{
    return the_seam && fd == the_seam->listener && fd >= 0;
}

#define NEXT(type, name, ...)                                                                                \
    static type (*next)(__VA_ARGS__);                                                                        \
    if (!next)                                                                                               \
    *(void **)&next = dlsym(RTLD_NEXT, #name)

/* civetweb opens its listening socket: an eventfd takes the number. */
EXPORT int listen(int fd, int backlog)
{
    NEXT(int, listen, int, int);
    if (!starting)
        return next(fd, backlog);
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event_fd < 0)
        return -1;
    if (dup2(event_fd, fd) < 0) {
        close(event_fd);
        return -1;
    }
    close(event_fd);
    the_seam->listener = fd;
    return 0;
}

EXPORT int accept(int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
    NEXT(int, accept, int, struct sockaddr *restrict, socklen_t *restrict);
    if (!is_listener(fd))
        return next(fd, addr, len);
    struct seam *s = the_seam;
    eventfd_t count;
    pthread_mutex_lock(&s->lock);
    unsigned n = atomic_load(&s->waiting_n);
    unsigned index = s->waiting[s->waiting_at];
    if (n > 0) {
        s->waiting_at = (s->waiting_at + 1) % VISITS;
        atomic_store(&s->waiting_n, n - 1);
    }
    if (n <= 1)
        eventfd_read(fd, &count);
    pthread_mutex_unlock(&s->lock);
    if (n == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(addr, &s->visit[index].peer, sizeof(s->visit[index].peer));
    *len = sizeof(s->visit[index].peer);
    return FIRST_NUMBER + (int)index;
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    NEXT(int, poll, struct pollfd *, nfds_t, int);
    if (n == 1 && is_visit(fds[0].fd)) {
        fds[0].revents = fds[0].events & (POLLIN | POLLOUT);
        return 1;
    }
    if (n == 1 && is_listener(fds[0].fd) && atomic_load(&the_seam->stopping))
        timeout_ms = 1; /* until mg_stop() has told the thread so */
    if (n == 1 && is_listener(fds[0].fd) && atomic_load(&the_seam->waiting_n) > 0) {
        fds[0].revents = POLLIN;
        return 1;
    }
    return next(fds, n, timeout_ms);
}

EXPORT ssize_t recv(int fd, void *dst, size_t n, int flags)
{
    NEXT(ssize_t, recv, int, void *, size_t, int);
    if (!is_visit(fd))
        return next(fd, dst, n, flags);
    struct visit *v = visit_of(fd);
    size_t left = v->head.n - v->head_at;
    current = v;
    if (n > left)
        n = left;
    memcpy(dst, v->head.p + v->head_at, n);
    v->head_at += n;
    return (ssize_t)n;
}

EXPORT ssize_t send(int fd, const void *src, size_t n, int flags)
{
    NEXT(ssize_t, send, int, const void *, size_t, int);
    if (!is_visit(fd))
        return next(fd, src, n, flags);
    if (buffer_append(&visit_of(fd)->out, src, n) == 0)
        return (ssize_t)n;
    errno = ENOMEM;
    return -1;
}

/* civetweb is done with a visit: it goes back to the reactor. */
EXPORT int close(int fd)
{
    NEXT(int, close, int);
    if (!is_visit(fd))
        return next(fd);
    struct visit *v = visit_of(fd);
    current = NULL;
    reactor_post(v->seam->reactor, &v->mail);
    return 0;
}

EXPORT int shutdown(int fd, int how)
{
    NEXT(int, shutdown, int, int);
    return is_visit(fd) ? 0 : next(fd, how);
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
    NEXT(int, setsockopt, int, int, int, const void *, socklen_t);
    return is_visit(fd) ? 0 : next(fd, level, name, value, n);
}

EXPORT int getsockname(int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
    NEXT(int, getsockname, int, struct sockaddr *restrict, socklen_t *restrict);
    struct sockaddr_in any = {.sin_family = AF_INET};
    if (!is_visit(fd) && !is_listener(fd))
        return next(fd, addr, len);
    memcpy(addr, &any, sizeof(any));
    *len = sizeof(any);
    return 0;
}

EXPORT int fcntl64(int fd, int command, ...)
{
    NEXT(int, fcntl64, int, int, ...);
    va_list args;
    va_start(args, command);
    void *arg = va_arg(args, void *); /* every command's argument fits into one register */
    va_end(args);
    return is_visit(fd) ? 0 : next(fd, command, arg);
}
