#include "err.h"
#include "library.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    QUEUE_BYTES = 16 << 20,
    WINDOW_BYTES = 1 << 20,
    REQUEST_MS = 30000,
    EXPIRE_EACH_MS = 50, /* how often time-outs of requests are looked at */
    LEAVE_MS = 1000,     /* what is left to a node that drains */
    POSTS = 65536,
};

const struct starling_then starling_waited = {on_waited, NULL};

uint64_t starling_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

const char *starling_strerror(int error)
{
    static const char *const texts[] = {
        [-STARLING_OK] = "success",
        [-STARLING_ARGUMENT] = "invalid argument",
        [-STARLING_MEMORY] = "out of memory",
        [-STARLING_FULL] = "too much waits to be sent or answered",
        [-STARLING_TIMEOUT] = "timed out",
        [-STARLING_INSIDE] = "not within a callback",
        [-STARLING_STALE] = "the connection that this belongs to is no more",
        [-STARLING_REFUSED] = "the answer is an error",
        [-STARLING_SYSTEM] = "a system call failed",
        [-STARLING_STOPPED] = "stopped",
    };
    return error <= 0 && error >= STARLING_STOPPED ? texts[-error] : "unknown error";
}

/* Nothing is lost if the write fails: a full eventfd is readable already. */
static void ring(int fd)
{
    uint64_t one = 1;
    int kept = errno;
    ssize_t n = write(fd, &one, sizeof(one));
    (void)n;
    errno = kept;
}

void starling_wake(struct starling *s)
{
    if (!s->asked_to_wake)
        ring(s->wake);
    s->asked_to_wake = true;
}

/* ---- what the connection tells ---- */

static void say_state(struct starling *s, enum starling_state state, const char *code, const char *text)
{
    if (s->o.on_state)
        s->o.on_state(s->o.user, state, link_node(s->link), code, text);
}

/* First registrations, so that nothing that comes of a request meets an agent without them. */
static void on_open(void *user, const struct agent_record *welcome)
{
    struct starling *s = user;
    struct registration *g, *next;
    (void)welcome;
    s->unanswered = 0;
    s->leave_by_ms = 0;
    struct request *aside = requests_set_aside(&s->requests);
    HASH_ITER(hh, s->registrations, g, next)
    registration_send(s, g);
    requests_put_back(&s->requests, aside);
    say_state(s, STARLING_CONNECTED, "", "");
}

static void fail_lost(void *user, struct request *r)
{
    request_fail(user, r, "lost", "the connection was lost before the answer came");
}

static void on_down(void *user, bool was_open, const char *code, const char *text)
{
    struct starling *s = user;
    if (was_open)
        requests_reset(&s->requests, fail_lost, s);
    say_state(s, STARLING_LOST, code, text);
}

static void on_draining(void *user)
{
    struct starling *s = user;
    if (s->leave_by_ms != 0)
        return;
    s->leave_by_ms = s->now_ms + LEAVE_MS;
    say_state(s, STARLING_DRAINING, "", "");
}

/* ---- turns ---- */

static void run_posts(struct starling *s)
{
    pthread_mutex_lock(&s->lock);
    struct post *next, *p = s->posts;
    s->posts = NULL;
    s->posts_end = &s->posts;
    s->n_posts = 0;
    pthread_mutex_unlock(&s->lock);
    for (; p; p = next) {
        next = p->next;
        p->run(p->user);
        free(p);
    }
}

static void fail_late(void *user, struct request *r)
{
    request_fail(user, r, "deadline", "no answer in time");
}

static void free_ended(struct starling *s)
{
    while (s->ended) {
        struct registration *g = s->ended;
        s->ended = g->next_ended;
        free(g->offset);
        free(g);
    }
}

/* A node that drains is left when nobody waits for us there, nor we for it. */
static void leave(struct starling *s)
{
    if (s->leave_by_ms == 0 || ((s->unanswered > 0 || s->requests.table) && s->now_ms < s->leave_by_ms))
        return;
    s->leave_by_ms = 0;
    link_leave(s->link, agent_code(AGENT_E_ENDED), "the node drains", s->now_ms);
}

static void turn(struct starling *s)
{
    uint64_t rung;
    ssize_t n = read(s->wake, &rung, sizeof(rung));
    (void)n;
    s->asked_to_wake = false;
    s->inside = true;
    s->now_ms = starling_now_ms();
    run_posts(s);
    bool more = link_work(s->link, s->now_ms);
    if (s->now_ms >= s->expire_ms) {
        requests_expire(&s->requests, s->now_ms, fail_late, s);
        s->expire_ms = s->now_ms + EXPIRE_EACH_MS;
    }
    requests_flush(&s->requests, s->link, s->now_ms);
    leave(s);
    free_ended(s);
    s->inside = false;
    if (more || link_has_input(s->link))
        starling_wake(s);
}

int starling_dispatch(struct starling *s)
{
    if (s->inside)
        return STARLING_INSIDE;
    if (atomic_load(&s->stopped))
        return STARLING_STOPPED;
    turn(s);
    return STARLING_OK;
}

int starling_fd(const struct starling *s)
{
    return s->epoll;
}

int starling_timeout_ms(const struct starling *s)
{
    uint64_t due = link_due_ms(s->link), now = starling_now_ms();
    if (s->requests.table && s->expire_ms < due)
        due = s->expire_ms;
    return due <= now ? 0 : due - now > 1000 ? 1000 : (int)(due - now);
}

/* Waits for something to do, at most until end_ms, and does it. */
static int step(struct starling *s, uint64_t end_ms)
{
    uint64_t now = starling_now_ms();
    int wait = starling_timeout_ms(s);
    if (now >= end_ms)
        wait = 0;
    else if (end_ms - now < (uint64_t)wait)
        wait = (int)(end_ms - now);
    struct pollfd p = {.fd = s->epoll, .events = POLLIN};
    if (poll(&p, 1, wait) < 0 && errno != EINTR)
        return STARLING_SYSTEM;
    return starling_dispatch(s);
}

static uint64_t end_of(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : starling_now_ms() + (uint64_t)timeout_ms;
}

int starling_run(struct starling *s)
{
    int err = STARLING_OK;
    while (err == STARLING_OK)
        err = step(s, UINT64_MAX);
    return err == STARLING_STOPPED ? STARLING_OK : err;
}

void starling_stop(struct starling *s)
{
    atomic_store(&s->stopped, true);
    ring(s->wake);
}

int starling_post(struct starling *s, void (*run)(void *user), void *user)
{
    struct post *p = malloc(sizeof(*p));
    if (!p)
        return STARLING_MEMORY;
    *p = (struct post){NULL, run, user};
    pthread_mutex_lock(&s->lock);
    bool full = s->n_posts == POSTS;
    if (!full) {
        *s->posts_end = p;
        s->posts_end = &p->next;
        s->n_posts++;
    }
    pthread_mutex_unlock(&s->lock);
    if (full)
        free(p);
    else
        ring(s->wake);
    return full ? STARLING_FULL : STARLING_OK;
}

/* ---- calls that wait ---- */

int starling_connect(struct starling *s, int timeout_ms)
{
    uint64_t end_ms = end_of(timeout_ms);
    int err = s->inside ? STARLING_INSIDE : STARLING_OK;
    while (err == STARLING_OK && link_state(s->link) != LINK_OPEN) {
        if (starling_now_ms() >= end_ms)
            return STARLING_TIMEOUT;
        err = step(s, end_ms);
    }
    return err;
}

int starling_flush(struct starling *s, int timeout_ms)
{
    uint64_t end_ms = end_of(timeout_ms);
    int err = s->inside ? STARLING_INSIDE : STARLING_OK;
    while (err == STARLING_OK && !requests_idle(&s->requests)) {
        if (starling_now_ms() >= end_ms)
            return STARLING_TIMEOUT;
        err = step(s, end_ms);
    }
    return err;
}

int starling_wait(struct starling *s, int timeout_ms, const struct starling_answer **answer)
{
    uint64_t end_ms = end_of(timeout_ms);
    if (answer)
        *answer = NULL;
    if (s->inside)
        return STARLING_INSIDE;
    int err = s->wait.result;
    if (err == STARLING_OK && s->wait.id == 0)
        err = STARLING_ARGUMENT;
    while (err == STARLING_OK && !s->wait.done) {
        if (starling_now_ms() >= end_ms)
            err = STARLING_TIMEOUT;
        else
            err = step(s, end_ms);
        if (err == STARLING_OK)
            err = s->wait.result;
    }
    s->wait.id = 0; /* an answer that comes later is dropped */
    s->wait.result = STARLING_OK;
    if (err != STARLING_OK)
        return err;
    if (answer)
        *answer = &s->wait.answer;
    return s->wait.answer.code ? STARLING_REFUSED : STARLING_OK;
}

/* ---- life ---- */

static bool is_fit(const struct starling_options *o)
{
    return o->name && *o->name && strlen(o->name) <= AGENT_NAME_BYTES && o->endpoints && *o->endpoints &&
           (!o->about || strlen(o->about) <= AGENT_ABOUT_BYTES);
}

static bool start(struct starling *s)
{
    struct epoll_event event = {.events = EPOLLIN};
    unsigned char bytes[8];
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll < 0 || s->wake < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &event) != 0 ||
        getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return false;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        sprintf(s->key_prefix + (size_t)2 * i, "%02x", bytes[i]);
    if (requests_init(&s->requests, s->o.queue_bytes) != 0) {
        errno = ENOMEM;
        return false;
    }
    struct link_options link = {.name = s->o.name,
                                .about = s->o.about,
                                .endpoints = s->o.endpoints,
                                .window = s->o.window_bytes,
                                .user = s,
                                .on_open = on_open,
                                .on_down = on_down,
                                .on_draining = on_draining,
                                .on_record = on_record};
    s->link = link_new(&link, s->epoll);
    return s->link != NULL;
}

struct starling *starling_new(const struct starling_options *options)
{
    if (!is_fit(options)) {
        errno = EINVAL;
        return NULL;
    }
    struct starling *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->o = *options;
    s->o.queue_bytes = s->o.queue_bytes > 0 ? s->o.queue_bytes : QUEUE_BYTES;
    s->o.window_bytes = s->o.window_bytes > 0 ? s->o.window_bytes : WINDOW_BYTES;
    s->o.timeout_ms = s->o.timeout_ms > 0 ? s->o.timeout_ms : REQUEST_MS;
    s->epoll = s->wake = -1;
    s->next_id = 1;
    s->posts_end = &s->posts;
    pthread_mutex_init(&s->lock, NULL);
    msgpack_sbuffer_init(&s->packed);
    if (!start(s)) {
        int err = errno;
        starling_free(&s);
        errno = err;
        return NULL;
    }
    starling_wake(s);
    return s;
}

void starling_free(struct starling **agent)
{
    struct starling *s = *agent;
    struct registration *g, *next_registration;
    struct post *p, *next_post;
    if (!s)
        return;
    if (s->link)
        requests_flush(&s->requests, s->link, starling_now_ms());
    link_free(&s->link);
    requests_deinit(&s->requests);
    HASH_ITER(hh, s->registrations, g, next_registration)
    registration_end(s, g);
    free_ended(s);
    for (p = s->posts; p; p = next_post) {
        next_post = p->next;
        free(p);
    }
    free(s->wait.texts);
    msgpack_sbuffer_destroy(&s->packed);
    pthread_mutex_destroy(&s->lock);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->wake >= 0)
        close(s->wake);
    free(s);
    *agent = NULL;
}
