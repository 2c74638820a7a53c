/* A node counts up in a file while its loop turns (pulse.h). We read it now and then: neither side waits for the
 * other, and it goes on when a supervisor is gone and the next one comes. */
#include "pulse.h"
#include "supervisor_parts.h"
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 250 };

uint64_t watch_next_ms(const struct supervisor *s)
{
    return s->looked_ms + LOOK_MS;
}

static void look_at(struct supervisor *s, struct process *p, uint64_t now_ms, bool were_away)
{
    char path[PATH_MAX];
    struct pulse_reading reading;
    size_t n;

    if (p->pid <= 0 || !launch_base(s, p, path, sizeof path - sizeof ".pulse"))
        return;
    n = strlen(path);
    snprintf(path + n, sizeof path - n, ".pulse");
    if (pulse_read(path, p->pid, &reading) != 0) {
        /* It is not there yet, or somebody cleaned the directory: that says nothing about the node. */
        p->alive_ms = now_ms;
        return;
    }
    if (reading.ticks != p->ticks)
        p->alive_ms = now_ms;
    p->ticks = reading.ticks;
    /* One that was adopted has no descriptor on which it could say so. */
    if (p->state == PROCESS_STARTING && p->ready_fd < 0 && reading.phase == PULSE_READY)
        process_handle(p, PROCESS_SAID_READY);
    if (were_away)
        p->alive_ms = now_ms;
    if (s->config.watchdog_ms > 0 && now_ms >= p->alive_ms + s->config.watchdog_ms)
        process_handle(p, PROCESS_HUNG);
}

void watch_look(struct supervisor *s)
{
    uint64_t now_ms = process_now_ms();
    /* When we were frozen ourselves, or the whole machine was, they had no time either. */
    bool were_away = s->looked_ms > 0 && now_ms - s->looked_ms > 4 * LOOK_MS;

    if (now_ms < watch_next_ms(s))
        return;
    s->looked_ms = now_ms;
    for (unsigned i = 0; i < s->nodes_n; i++)
        look_at(s, &s->nodes[i], now_ms, were_away);
    look_at(s, &s->reload.next, now_ms, were_away);
    look_at(s, &s->reload.old, now_ms, were_away);
}
