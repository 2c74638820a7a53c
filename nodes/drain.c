#include "drain.h"
#include "container.h"

enum {
    TICK_MS = 10,
    LEAST_MS = 1000, /* for connections that were accepted at the last moment */
    LINGER_MS =
        2000, /* for polling clients that do not ask at the moment, to be told by their next request */
};

static bool is_done(struct drain *d)
{
    uint64_t now = reactor_now_ms(d->reactor);
    if (engine_end_some(d->engine, 0)) {
        d->empty_ms = 0;
        return false;
    }
    if (d->empty_ms == 0)
        d->empty_ms = now;
    bool all_told = engine_count(d->engine) == 0 || now - d->empty_ms >= LINGER_MS;
    return all_told && now - d->started_ms >= LEAST_MS;
}

/* A tick that comes late is not made up for: the rate is a promise to those who take the clients in. */
static void on_tick(struct timer *t)
{
    struct drain *d = container_of(t, struct drain, timer);
    d->credit += d->per_second * TICK_MS;
    engine_end_some(d->engine, d->credit / 1000);
    d->credit %= 1000;
    if (is_done(d))
        d->on_done(d->user);
    else
        reactor_timer_set(d->reactor, t, TICK_MS);
}

void drain_start(struct drain *d, struct front *front)
{
    front_close_doors(front);
    d->started_ms = reactor_now_ms(d->reactor);
    d->empty_ms = d->credit = 0;
    timer_init(&d->timer, on_tick);
    reactor_timer_set(d->reactor, &d->timer, TICK_MS);
}

void drain_stop(struct drain *d)
{
    if (d->started_ms)
        reactor_timer_cancel(d->reactor, &d->timer);
}
