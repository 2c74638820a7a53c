/* The event loop of a node: epoll, timers, mailbox, work between turns.
 * One thread owns it and everything that hangs on it; other threads may only call reactor_post() and
 * reactor_stop(). A turn is: wait; ready descriptors; due timers; mail; work tasks; flush tasks. */
#ifndef STARLING_REACTOR_H
#define STARLING_REACTOR_H

#include "timer.h"
#include <stdbool.h>
#include <stdint.h>

struct reactor;

/* The creating thread is the owner until reactor_run() is called, then the one that runs it. */
struct reactor *reactor_new(void);
/* Undelivered mail is delivered first. */
void reactor_free(struct reactor **r);

/* Until reactor_stop(); 0 or ERR_SYSTEM. */
int reactor_run(struct reactor *r);
/* Any thread, and safe in a signal handler. The loop ends after the current turn. */
void reactor_stop(struct reactor *r);

/* Aborts when the calling thread is not the owner. */
void reactor_check_owner(const struct reactor *r);

/* Monotonic milliseconds, read once a turn. */
uint64_t reactor_now_ms(const struct reactor *r);

/* Timers of this loop. */
void reactor_timer_set(struct reactor *r, struct timer *t, uint64_t after_ms);
void reactor_timer_cancel(struct reactor *r, struct timer *t);

/* A watched descriptor, embedded in what it belongs to. */
struct reactor_io {
    void (*on_ready)(struct reactor_io *io, uint32_t epoll_events);
    int fd;
};

int reactor_add(struct reactor *r, struct reactor_io *io, uint32_t epoll_events);
int reactor_modify(struct reactor *r, struct reactor_io *io, uint32_t epoll_events);
/* After this on_ready is not called again, not even for events of the current turn; io may be freed. */
void reactor_remove(struct reactor *r, struct reactor_io *io);

/* Runs once before the loop sleeps. WORK: those that are queued when the phase starts; one queued meanwhile waits
 * for the next turn, which then does not sleep. FLUSH: after all work, including those queued by it. */
enum reactor_phase { REACTOR_WORK, REACTOR_FLUSH, REACTOR_PHASES };

struct reactor_task {
    struct reactor_task *next;
    void (*run)(struct reactor_task *task);
    bool queued;
    struct reactor_task **link; /* what points to it in its queue */
};

/* Harmless when the task is queued already. */
void reactor_defer(struct reactor *r, struct reactor_task *task, enum reactor_phase phase);
/* Takes a queued task back; needed before it is freed. */
void reactor_undefer(struct reactor *r, struct reactor_task *task, enum reactor_phase phase);

/* A letter from any thread; on_delivery runs on the reactor's thread, in the order of posting, and may free it. */
struct mail {
    struct mail *next;
    void (*on_delivery)(struct mail *mail);
};

void reactor_post(struct reactor *r, struct mail *mail);
/* The owner, outside of the loop: delivers what has been posted so far. */
void reactor_deliver(struct reactor *r);

/* How long the last turns took without their waiting: for metrics. */
struct reactor_stats {
    uint64_t turns;
    uint64_t busy_us;     /* sum over all turns */
    uint64_t max_turn_us; /* since the last call */
    uint64_t p99_turn_us; /* since the last call: 99 % of the turns took no longer, to a fifth of it */
};
void reactor_take_stats(struct reactor *r, struct reactor_stats *stats);

#endif
