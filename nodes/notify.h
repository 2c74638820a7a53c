/* What systemd wants to hear of a service of Type=notify: lines sent to the socket that NOTIFY_SOCKET names. Without
 * that variable nothing happens. One thread. */
#ifndef STARLING_NOTIFY_H
#define STARLING_NOTIFY_H

#include <stdint.h>

struct notify {
    int fd;               /* -1: nobody listens */
    uint32_t watchdog_ms; /* within which WATCHDOG=1 must come; 0: it need not */
    uint64_t fed_ms;
};

/* Takes the variables out of the environment: children do not speak for this service. */
void notify_init(struct notify *notify);
void notify_deinit(struct notify *notify);

/* "READY=1", "STOPPING=1", "STATUS=…"; several with newlines between them. */
void notify_say(struct notify *notify, const char *lines);
/* Feeds the watchdog when a third of its time is over. */
void notify_tick(struct notify *notify, uint64_t now_ms);

#endif
