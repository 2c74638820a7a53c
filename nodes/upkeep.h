/* What a node owes to those who watch it, while its loop turns: its pulse for the supervisor, the watchdog of
 * systemd, and log files that do not grow for ever. Reactor's thread only. */
#ifndef STARLING_UPKEEP_H
#define STARLING_UPKEEP_H

#include "config.h"
#include "logfile.h"
#include "notify.h"
#include "pulse.h"
#include "reactor.h"

struct upkeep {
    struct reactor *reactor;
    struct pulse *pulse; /* NULL: nobody wants it */
    struct notify notify;
    struct logfile log;
    struct timer timer;
};

/* Before anything is logged. Borrows config. 0, or an exit code after a message. */
int upkeep_init(struct upkeep *upkeep, const struct config *config);
void upkeep_start(struct upkeep *upkeep, struct reactor *r);
void upkeep_deinit(struct upkeep *upkeep);

void upkeep_say_ready(struct upkeep *upkeep);
void upkeep_say_draining(struct upkeep *upkeep);
void upkeep_say_stopping(struct upkeep *upkeep);

#endif
