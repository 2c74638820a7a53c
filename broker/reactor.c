#include "reactor.h"
#include "container.h"
#include "err.h"
#include "mailbox.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256 };

struct task_list {
    struct reactor_task *first, **tail;
};

/* Four to each doubling of nanoseconds, up to some hours. */
enum { TURN_BUCKETS = 176 };

static unsigned turn_bucket(uint64_t ns)
{
    unsigned bits = 63 - (unsigned)__builtin_clzll(ns | 4);
    unsigned bucket = (bits - 2) * 4 + (unsigned)((ns | 4) >> (bits - 2) & 3);
    return bucket < TURN_BUCKETS ? bucket : TURN_BUCKETS - 1;
}

struct reactor {
    int epoll_fd;
    bool running;
    bool mail_arrived;
    atomic_bool stopping;
    _Atomic uintptr_t owner;
    uint64_t now_ms; /* of the current turn */
    struct timer_wheel *wheel;
    struct mailbox mailbox;
    struct reactor_io mailbox_io;
    struct task_list queued[REACTOR_PHASES];
    struct task_list working; /* the work tasks of this turn that have not run yet */
    uint64_t turns, busy_ns, max_turn_ns;
    uint32_t took[TURN_BUCKETS]; /* how many turns, since reactor_take_stats() */
    int event_next, event_count; /* of the batch being handed out */
    struct epoll_event events[BATCH];
};

/* The address of a thread's own variable names the thread, at the price of one instruction. */
static uintptr_t self(void)
{
    static _Thread_local char mark;

    return (uintptr_t)&mark;
}

static uint64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_mailbox_ready(struct reactor_io *io, uint32_t epoll_events)
{
    struct reactor *r = container_of(io, struct reactor, mailbox_io);

    (void)epoll_events;
    r->mail_arrived = true;
}

static void task_list_init(struct task_list *list)
{
    list->first = NULL;
    list->tail = &list->first;
}

static void task_append(struct task_list *list, struct reactor_task *task)
{
    task->next = NULL;
    task->link = list->tail;
    *list->tail = task;
    list->tail = &task->next;
}

static void task_remove(struct task_list *list, struct reactor_task *task)
{
    *task->link = task->next;
    if (task->next) {
        task->next->link = task->link;
    } else {
        assert(list->tail == &task->next); /* else it was deferred to another phase */
        list->tail = task->link;
    }
    task->queued = false;
}

struct reactor *reactor_new(void)
{
    struct reactor *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->mailbox.event_fd = -1;
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->now_ms = clock_ns() / 1000000;
    r->wheel = timer_wheel_new(r->now_ms);
    atomic_init(&r->stopping, false);
    atomic_init(&r->owner, self());
    for (int phase = 0; phase < REACTOR_PHASES; phase++)
        task_list_init(&r->queued[phase]);
    task_list_init(&r->working);
    if (r->epoll_fd < 0 || !r->wheel || mailbox_init(&r->mailbox) != 0)
        goto fail;
    r->mailbox_io = (struct reactor_io){.on_ready = on_mailbox_ready, .fd = r->mailbox.event_fd};
    if (reactor_add(r, &r->mailbox_io, EPOLLIN) != 0)
        goto fail;
    return r;
fail:
    reactor_free(&r);
    return NULL;
}

void reactor_deliver(struct reactor *r)
{
    struct mail *mail = mailbox_take(&r->mailbox);

    while (mail) {
        struct mail *next = mail->next;
        mail->on_delivery(mail);
        mail = next;
    }
}

void reactor_free(struct reactor **rp)
{
    struct reactor *r = *rp;

    if (!r)
        return;
    assert(!r->running);
    /* The thread that ran the loop may be gone; what is left belongs to the caller. */
    atomic_store_explicit(&r->owner, self(), memory_order_relaxed);
    while (atomic_load_explicit(&r->mailbox.newest, memory_order_relaxed))
        reactor_deliver(r);
    mailbox_deinit(&r->mailbox);
    if (r->epoll_fd >= 0)
        close(r->epoll_fd);
    timer_wheel_free(&r->wheel);
    free(r);
    *rp = NULL;
}

static int poll_timeout(const struct reactor *r, uint64_t now_ms)
{
    int64_t wait;

    if (r->queued[REACTOR_WORK].first || r->queued[REACTOR_FLUSH].first)
        return 0;
    wait = timer_wheel_wait(r->wheel, now_ms);
    return wait > INT32_MAX ? INT32_MAX : (int)wait;
}

static void hand_out_events(struct reactor *r)
{
    while (r->event_next < r->event_count) {
        struct epoll_event *event = &r->events[r->event_next++];
        struct reactor_io *io = event->data.ptr;
        if (io)
            io->on_ready(io, event->events);
    }
}

static void run_tasks(struct task_list *list)
{
    while (list->first) {
        struct reactor_task *task = list->first;
        task_remove(list, task);
        task->run(task);
    }
}

/* Whatever the work tasks queue for the same phase is left for the next turn. */
static void run_work(struct reactor *r)
{
    struct task_list *queued = &r->queued[REACTOR_WORK];

    if (!queued->first)
        return;
    r->working = *queued;
    r->working.first->link = &r->working.first;
    task_list_init(queued);
    run_tasks(&r->working);
}

static void turn(struct reactor *r)
{
    hand_out_events(r);
    timer_wheel_advance(r->wheel, r->now_ms);
    if (r->mail_arrived || atomic_load_explicit(&r->mailbox.newest, memory_order_relaxed)) {
        r->mail_arrived = false;
        reactor_deliver(r);
    }
    run_work(r);
    run_tasks(&r->queued[REACTOR_FLUSH]);
}

int reactor_run(struct reactor *r)
{
    uint64_t before = clock_ns();
    int rc = 0;

    assert(!r->running);
    atomic_store_explicit(&r->owner, self(), memory_order_relaxed);
    r->running = true;
    do {
        int n = epoll_wait(r->epoll_fd, r->events, BATCH, poll_timeout(r, before / 1000000));
        if (n < 0 && errno != EINTR) {
            rc = ERR_SYSTEM;
            break;
        }
        uint64_t start = clock_ns();
        r->now_ms = start / 1000000;
        r->event_next = 0;
        r->event_count = n > 0 ? n : 0;
        turn(r);
        before = clock_ns();
        r->turns++;
        r->busy_ns += before - start;
        r->took[turn_bucket(before - start)]++;
        if (before - start > r->max_turn_ns)
            r->max_turn_ns = before - start;
    } while (!atomic_load(&r->stopping));
    atomic_store(&r->stopping, false);
    r->running = false;
    return rc;
}

void reactor_stop(struct reactor *r)
{
    int saved_errno = errno;
    uint64_t one = 1;

    atomic_store(&r->stopping, true);
    (void)!write(r->mailbox.event_fd, &one, sizeof one);
    errno = saved_errno;
}

void reactor_check_owner(const struct reactor *r)
{
    if (atomic_load_explicit(&r->owner, memory_order_relaxed) == self())
        return;
    fputs("reactor: called from a thread that does not own it\n", stderr);
    abort();
}

/* Outside of a turn there is no reading to share, and the last one may be long ago. */
uint64_t reactor_now_ms(const struct reactor *r)
{
    return r->running ? r->now_ms : clock_ns() / 1000000;
}

void reactor_timer_set(struct reactor *r, struct timer *t, uint64_t after_ms)
{
    uint64_t now_ms = reactor_now_ms(r);

    reactor_check_owner(r);
    timer_set(r->wheel, t, after_ms < UINT64_MAX - now_ms ? now_ms + after_ms : UINT64_MAX);
}

void reactor_timer_cancel(struct reactor *r, struct timer *t)
{
    reactor_check_owner(r);
    timer_cancel(r->wheel, t);
}

static int control(struct reactor *r, int operation, struct reactor_io *io, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = io};

    reactor_check_owner(r);
    return epoll_ctl(r->epoll_fd, operation, io->fd, &event) == 0 ? 0 : ERR_SYSTEM;
}

int reactor_add(struct reactor *r, struct reactor_io *io, uint32_t epoll_events)
{
    return control(r, EPOLL_CTL_ADD, io, epoll_events);
}

int reactor_modify(struct reactor *r, struct reactor_io *io, uint32_t epoll_events)
{
    return control(r, EPOLL_CTL_MOD, io, epoll_events);
}

void reactor_remove(struct reactor *r, struct reactor_io *io)
{
    /* A descriptor closed too early may be somebody else's by now. */
    if (control(r, EPOLL_CTL_DEL, io, 0) != 0)
        assert(errno != EBADF);
    for (int i = r->event_next; i < r->event_count; i++)
        if (r->events[i].data.ptr == io)
            r->events[i].data.ptr = NULL;
}

void reactor_defer(struct reactor *r, struct reactor_task *task, enum reactor_phase phase)
{
    reactor_check_owner(r);
    if (task->queued)
        return;
    task->queued = true;
    task_append(&r->queued[phase], task);
}

void reactor_undefer(struct reactor *r, struct reactor_task *task, enum reactor_phase phase)
{
    reactor_check_owner(r);
    if (!task->queued)
        return;
    /* A last task sits at the tail of the list that it is in. */
    if (phase == REACTOR_WORK && r->working.tail == &task->next)
        task_remove(&r->working, task);
    else
        task_remove(&r->queued[phase], task);
}

void reactor_post(struct reactor *r, struct mail *mail)
{
    mailbox_post(&r->mailbox, mail);
}

/* The upper end of the bucket that 99 of 100 turns did not exceed; takes the counts with it. */
static uint64_t take_p99_ns(struct reactor *r)
{
    uint64_t all = 0, seen = 0, p99_ns = 0;
    for (unsigned i = 0; i < TURN_BUCKETS; i++)
        all += r->took[i];
    for (unsigned i = 0; i < TURN_BUCKETS && all > 0 && p99_ns == 0; i++) {
        seen += r->took[i];
        if (seen * 100 >= all * 99)
            p99_ns = (uint64_t)(i % 4 + 5) << i / 4;
    }
    memset(r->took, 0, sizeof(r->took));
    return p99_ns;
}

void reactor_take_stats(struct reactor *r, struct reactor_stats *stats)
{
    reactor_check_owner(r);
    stats->turns = r->turns;
    stats->busy_us = r->busy_ns / 1000;
    stats->max_turn_us = r->max_turn_ns / 1000;
    stats->p99_turn_us = take_p99_ns(r) / 1000;
    if (stats->p99_turn_us > stats->max_turn_us)
        stats->p99_turn_us = stats->max_turn_us;
    r->max_turn_ns = 0;
}
