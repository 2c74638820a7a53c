#include "tail.h"
#include "container.h"
#include "print.h"
#include "status.h"
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

enum { FLUSH_MS = 200, ARGS_SHOWN = 400, ROOMS_SHOWN = 8, BURST = TAIL_PER_SECOND / (1000 / FLUSH_MS) };

struct tail {
    struct tails *all;
    struct tail *next;
    char text[3][TAIL_FILTER_BYTES];
    struct tail_filter filter;
    msgpack_sbuffer items;
    unsigned n;
    uint64_t skipped;
    void (*on_events)(void *user, struct span items, unsigned n, uint64_t skipped);
    void *user;
};

struct tails {
    struct reactor *reactor;
    struct hub *hub;
    struct tail *first;
    unsigned n;
    struct timer timer;
};

static void on_flush(struct timer *timer)
{
    struct tails *t = container_of(timer, struct tails, timer);
    struct tail *tail, *next;
    if (t->first)
        reactor_timer_set(t->reactor, timer, FLUSH_MS);
    for (tail = t->first; tail; tail = next) {
        struct span items = {tail->items.data, tail->items.size};
        unsigned n = tail->n;
        uint64_t skipped = tail->skipped;
        next = tail->next;
        if (n == 0 && skipped == 0)
            continue;
        tail->n = 0;
        tail->skipped = 0;
        tail->items.size = 0; /* the bytes stay until the next event */
        tail->on_events(tail->user, items, n, skipped);
    }
}

struct tails *tails_new(struct reactor *r, struct hub *h)
{
    struct tails *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->reactor = r;
    t->hub = h;
    timer_init(&t->timer, on_flush);
    return t;
}

void tails_free(struct tails **t)
{
    if (!*t)
        return;
    while ((*t)->first)
        tail_stop(&(struct tail *){(*t)->first});
    reactor_timer_cancel((*t)->reactor, &(*t)->timer);
    free(*t);
    *t = NULL;
}

static struct span keep(char *text, struct span value)
{
    size_t n = value.n < TAIL_FILTER_BYTES ? value.n : TAIL_FILTER_BYTES;
    if (n)
        memcpy(text, value.p, n);
    return (struct span){text, n};
}

struct tail *tail_start(struct tails *t, const struct tail_filter *filter,
                        void (*on_events)(void *user, struct span items, unsigned n, uint64_t skipped),
                        void *user)
{
    struct tail *tail = t->n < TAILS_MAX ? calloc(1, sizeof(*tail)) : NULL;
    if (!tail)
        return NULL;
    tail->all = t;
    tail->filter = (struct tail_filter){.ns = keep(tail->text[0], filter->ns),
                                        .room = keep(tail->text[1], filter->room),
                                        .event = keep(tail->text[2], filter->event)};
    tail->on_events = on_events;
    tail->user = user;
    msgpack_sbuffer_init(&tail->items);
    if (!t->first)
        reactor_timer_set(t->reactor, &t->timer, FLUSH_MS);
    tail->next = t->first;
    t->first = tail;
    t->n++;
    return tail;
}

void tail_stop(struct tail **tp)
{
    struct tail *tail = *tp, **at;
    if (!tail)
        return;
    for (at = &tail->all->first; *at != tail; at = &(*at)->next)
        ;
    *at = tail->next;
    tail->all->n--;
    msgpack_sbuffer_destroy(&tail->items);
    free(tail);
    *tp = NULL;
}

/* ---- events ---- */

static bool wants(const struct tail *tail, const struct emit *e)
{
    const struct tail_filter *f = &tail->filter;
    bool has_room = f->room.n == 0;
    if (f->ns.n && !span_eq(f->ns, e->nsp))
        return false;
    for (unsigned i = 0; i < e->n_to && !has_room; i++)
        has_room = span_eq(e->to[i], f->room);
    return has_room && (f->event.n == 0 || memmem(e->event.p, e->event.n, f->event.p, f->event.n) != NULL);
}

/* Not within a character. */
static struct span cut(struct span text)
{
    size_t n = text.n < ARGS_SHOWN ? text.n : ARGS_SHOWN;
    while (n < text.n && n > 0 && ((uint8_t)text.p[n] & 0xc0) == 0x80)
        n--;
    return (struct span){text.p, n};
}

static void print_event(struct printer *p, const char *id, const struct emit *e)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    print_format(p, "{\"time_ms\":%lld,\"id\":", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    print_quoted(p, span_of(id));
    print_span(p, SPAN(",\"ns\":"));
    print_quoted(p, e->nsp);
    print_span(p, SPAN(",\"to\":["));
    for (unsigned i = 0; i < e->n_to && i < ROOMS_SHOWN; i++) {
        print_span(p, i > 0 ? SPAN(",") : SPAN(""));
        print_quoted(p, e->to[i]);
    }
    print_format(p, "],\"to_n\":%u,\"event\":", e->n_to);
    print_span(p, e->event);
    print_span(p, SPAN(",\"args\":"));
    print_quoted(p, cut(e->args));
    print_format(p, ",\"bytes\":%zu,\"attachments\":%u,\"volatile\":%s}", e->args.n, e->n_attachments,
                 e->is_volatile ? "true" : "false");
}

static void add(struct tail *tail, const char *id, const struct emit *e)
{
    if (tail->n >= BURST) {
        tail->skipped++;
        return;
    }
    struct printer p = print_begin(&tail->items);
    print_span(&p, tail->n > 0 ? SPAN(",") : SPAN(""));
    print_event(&p, id, e);
    if (print_end(&p))
        tail->skipped++;
    else
        tail->n++;
}

void tails_on_emit(struct tails *t, const struct mesh_origin *origin, uint64_t seq, const struct emit *e)
{
    char id[160], from[STATUS_ID_BYTES];
    id[0] = '\0';
    for (struct tail *tail = t->first; tail; tail = tail->next) {
        if (!wants(tail, e))
            continue;
        if (!id[0] && tail->n < BURST) {
            if (origin)
                status_id(from, *origin);
            snprintf(id, sizeof(id), "%s:%" PRIu64, origin ? from : t->hub->options.origin, seq);
        }
        add(tail, id, e);
    }
}
