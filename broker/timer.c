/* A hierarchical wheel: eleven levels of 64 slots cover every 64-bit time, so that nothing is ever out of
 * range.
 *
 * Written in base 64, a deadline is filed under the highest digit in which it differs from now: that digit's
 * place is the level, its value the slot. Since all higher digits agree, everything on a level is due before
 * anything on the levels above, and a slot of level 0 holds a single deadline. Moving now up to (not past)
 * the start of the first occupied slot changes no timer's place; at that start the slot is filed anew, always
 * on lower levels. */
#include "timer.h"
#include <assert.h>
#include <stdlib.h>

enum { LEVEL_BITS = 6, SLOTS = 1 << LEVEL_BITS, LEVELS = (64 + LEVEL_BITS - 1) / LEVEL_BITS };

struct timer_wheel {
    uint64_t now;
    struct timer *overdue; /* set for a time not after now, in no order; run by the next advance */
    struct timer *due;     /* being run by the current advance, in order */
    bool advancing;
    uint64_t occupied[LEVELS]; /* a bit for each slot that is not empty */
    uint32_t occupied_levels;
    struct timer *slots[LEVELS][SLOTS];
};

struct timer_wheel *timer_wheel_new(uint64_t now_ms)
{
    struct timer_wheel *w = calloc(1, sizeof *w);

    if (w)
        w->now = now_ms;
    return w;
}

void timer_wheel_free(struct timer_wheel **w)
{
    free(*w);
    *w = NULL;
}

static unsigned level_of(uint64_t at, uint64_t now)
{
    return (63u - (unsigned)__builtin_clzll(at ^ now)) / LEVEL_BITS;
}

static unsigned slot_of(uint64_t at, unsigned level)
{
    return (unsigned)(at >> (level * LEVEL_BITS)) % SLOTS;
}

static void list_insert(struct timer **link, struct timer *t)
{
    t->next = *link;
    t->link = link;
    if (t->next)
        t->next->link = &t->next;
    *link = t;
}

static void list_remove(struct timer *t)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    t->link = NULL;
}

static void wheel_insert(struct timer_wheel *w, struct timer *t)
{
    unsigned level = level_of(t->at_ms, w->now);
    unsigned slot = slot_of(t->at_ms, level);

    list_insert(&w->slots[level][slot], t);
    w->occupied[level] |= UINT64_C(1) << slot;
    w->occupied_levels |= 1u << level;
}

static void mark_empty(struct timer_wheel *w, unsigned level, unsigned slot)
{
    w->occupied[level] &= ~(UINT64_C(1) << slot);
    if (w->occupied[level] == 0)
        w->occupied_levels &= ~(1u << level);
}

void timer_cancel(struct timer_wheel *w, struct timer *t)
{
    if (!timer_pending(t))
        return;
    list_remove(t);
    if (t->at_ms > w->now) {
        unsigned level = level_of(t->at_ms, w->now);
        unsigned slot = slot_of(t->at_ms, level);
        if (!w->slots[level][slot])
            mark_empty(w, level, slot);
    }
}

void timer_set(struct timer_wheel *w, struct timer *t, uint64_t at_ms)
{
    timer_cancel(w, t);
    t->at_ms = at_ms;
    if (at_ms > w->now)
        wheel_insert(w, t);
    else
        list_insert(&w->overdue, t);
}

/* Merge sort by deadline, through the next pointers alone: the links are set by whoever lists the result. */
static struct timer *sorted(struct timer *list)
{
    if (!list || !list->next)
        return list;

    struct timer *middle = list;
    for (struct timer *end = list->next; end && end->next; end = end->next->next)
        middle = middle->next;
    struct timer *b = middle->next;
    middle->next = NULL;

    struct timer *a = sorted(list);
    struct timer *merged = NULL, **tail = &merged;
    b = sorted(b);
    while (a && b) {
        struct timer **first = a->at_ms <= b->at_ms ? &a : &b;
        *tail = *first;
        tail = &(*first)->next;
        *first = *tail;
    }
    *tail = a ? a : b;
    return merged;
}

/* Puts a whole list behind *tail; the new tail. */
static struct timer **append(struct timer **tail, struct timer *list)
{
    for (struct timer *t = list, *next; t; t = next) {
        next = t->next;
        t->next = NULL;
        list_insert(tail, t);
        tail = &t->next;
    }
    return tail;
}

/* The first occupied slot, and when it starts; false when no timer waits in the wheel. */
static bool first_slot(const struct timer_wheel *w, unsigned *level, unsigned *slot, uint64_t *start)
{
    if (w->occupied_levels == 0)
        return false;
    *level = (unsigned)__builtin_ctz(w->occupied_levels);
    *slot = (unsigned)__builtin_ctzll(w->occupied[*level]);

    unsigned shift = *level * LEVEL_BITS;
    uint64_t above = shift + LEVEL_BITS < 64 ? w->now >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS) : 0;
    *start = above | (uint64_t)*slot << shift;
    return true;
}

/* Empties a slot that starts now: what is due now goes behind *tail, the rest to lower levels. */
static struct timer **open_slot(struct timer_wheel *w, unsigned level, unsigned slot, struct timer **tail)
{
    struct timer *list = w->slots[level][slot];

    w->slots[level][slot] = NULL;
    mark_empty(w, level, slot);
    if (level == 0)
        return append(tail, list);
    for (struct timer *t = list, *next; t; t = next) {
        next = t->next;
        t->next = NULL;
        if (t->at_ms == w->now)
            tail = append(tail, t);
        else
            wheel_insert(w, t);
    }
    return tail;
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms)
{
    struct timer **tail = &w->due;
    unsigned level, slot;
    uint64_t start;

    assert(!w->advancing);
    w->advancing = true;
    if (w->overdue) {
        struct timer *overdue = sorted(w->overdue);
        w->overdue = NULL;
        tail = append(tail, overdue);
    }
    while (first_slot(w, &level, &slot, &start) && start <= now_ms) {
        w->now = start;
        tail = open_slot(w, level, slot, tail);
    }
    if (now_ms > w->now)
        w->now = now_ms;

    /* Only now the callbacks: whatever they arm for a time that has come waits for the next advance. */
    while (w->due) {
        struct timer *t = w->due;
        list_remove(t);
        t->on_expire(t);
    }
    w->advancing = false;
}

int64_t timer_wheel_wait(const struct timer_wheel *w, uint64_t now_ms)
{
    unsigned level, slot;
    uint64_t start;

    if (w->overdue)
        return 0;
    if (!first_slot(w, &level, &slot, &start))
        return -1;
    if (start <= now_ms)
        return 0;
    return start - now_ms < INT64_MAX ? (int64_t)(start - now_ms) : INT64_MAX;
}
