#include "upkeep.h"
#include "container.h"
#include "log.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TICK_MS = 200 };

int upkeep_init(struct upkeep *u, const struct config *config)
{
    u->log = (struct logfile){config->log_file, config->log_bytes, config->log_files};
    notify_init(&u->notify);
    if (config->log_file[0] && logfile_open(&u->log)) {
        fprintf(stderr, "starling-node: --log-file %s: %s\n", config->log_file, strerror(errno));
        return 1;
    }
    if (config->pulse[0] && !(u->pulse = pulse_open(config->pulse))) {
        fprintf(stderr, "starling-node: --pulse %s: %s\n", config->pulse, strerror(errno));
        return 1;
    }
    return 0;
}

static uint32_t tick_ms(const struct upkeep *u)
{
    uint32_t watchdog_ms = u->notify.watchdog_ms / 4;
    return watchdog_ms > 0 && watchdog_ms < TICK_MS ? watchdog_ms : TICK_MS;
}

static void on_tick(struct timer *t)
{
    struct upkeep *u = container_of(t, struct upkeep, timer);
    if (u->pulse)
        pulse_tick(u->pulse);
    notify_tick(&u->notify, reactor_now_ms(u->reactor));
    if (u->log.path[0] && u->log.max_bytes > 0)
        logfile_check(&u->log);
    reactor_timer_set(u->reactor, t, tick_ms(u));
}

void upkeep_start(struct upkeep *u, struct reactor *r)
{
    u->reactor = r;
    timer_init(&u->timer, on_tick);
    reactor_timer_set(r, &u->timer, 0);
}

void upkeep_deinit(struct upkeep *u)
{
    if (u->reactor)
        reactor_timer_cancel(u->reactor, &u->timer);
    pulse_close(&u->pulse);
    notify_deinit(&u->notify);
}

void upkeep_say_ready(struct upkeep *u)
{
    if (u->pulse)
        pulse_set_phase(u->pulse, PULSE_READY);
    notify_say(&u->notify, "READY=1\nSTATUS=ready");
}

void upkeep_say_draining(struct upkeep *u)
{
    if (u->pulse)
        pulse_set_phase(u->pulse, PULSE_DRAINING);
    notify_say(&u->notify, "STATUS=draining");
}

void upkeep_say_stopping(struct upkeep *u)
{
    notify_say(&u->notify, "STOPPING=1\nSTATUS=stopping");
}
