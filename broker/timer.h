/* Timer wheel with millisecond slots: set and cancel in O(1), an idle timer costs nothing.
 * Owned by one thread (the reactor's). A timer is embedded in what it belongs to and must be cancelled before that
 * is freed. */
#ifndef STARLING_TIMER_H
#define STARLING_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
    struct timer *next, **link; /* link == NULL: not pending */
    uint64_t at_ms;
    void (*on_expire)(struct timer *t);
};

struct timer_wheel;

struct timer_wheel *timer_wheel_new(uint64_t now_ms);
void timer_wheel_free(struct timer_wheel **w);

static inline void timer_init(struct timer *t, void (*on_expire)(struct timer *))
{
    t->next = 0;
    t->link = 0;
    t->at_ms = 0;
    t->on_expire = on_expire;
}

static inline bool timer_pending(const struct timer *t)
{
    return t->link != 0;
}

/* (Re)arms t for at_ms; a time already past expires at the next advance. */
void timer_set(struct timer_wheel *w, struct timer *t, uint64_t at_ms);
/* Harmless when not pending. */
void timer_cancel(struct timer_wheel *w, struct timer *t);

/* Runs what is due at now_ms, in the order of deadlines. A callback may set, cancel and free any timer. */
void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms);

/* Milliseconds from now_ms to the next moment at which advance has work, 0 when overdue, -1 when nothing is
 * pending. May be early (a cascade of the wheel), never late. */
int64_t timer_wheel_wait(const struct timer_wheel *w, uint64_t now_ms);

#endif
