/* A sign of life that outlives whoever watches it: one small file that a node maps and counts up in while its loop
 * turns, and that anybody may read at any time. It costs the node a store, and blocks neither side. The writer's
 * functions belong to the reactor's thread. */
#ifndef STARLING_PULSE_H
#define STARLING_PULSE_H

#include <stdint.h>
#include <sys/types.h>

enum pulse_phase { PULSE_STARTING, PULSE_READY, PULSE_DRAINING };

struct pulse;

/* Makes the file anew: a process that had the path before keeps its own. NULL, with errno. */
struct pulse *pulse_open(const char *path);
/* The file stays. */
void pulse_close(struct pulse **pulse);
void pulse_tick(struct pulse *pulse);
void pulse_set_phase(struct pulse *pulse, enum pulse_phase phase);

struct pulse_reading {
    uint64_t ticks;
    enum pulse_phase phase;
};

/* What the process says there; -1 when it has said nothing. */
int pulse_read(const char *path, pid_t pid, struct pulse_reading *reading);

#endif
