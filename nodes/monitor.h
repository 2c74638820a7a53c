/* The starling-agent of `starling up --agent`: it watches the machine, and speaks with one of the nodes. A child of the
 * supervisor, started when a node is ready to hear it, again when it dies, and stopped with the nodes; like them it
 * outlives a supervisor that is killed. It starts with the nodes that there are, and hears of later ones from them.
 * Main thread only. */
#ifndef STARLING_MONITOR_H
#define STARLING_MONITOR_H

#include "process.h"
#include "rundir.h"
#include <limits.h>

struct supervisor;

struct monitor {
    struct process_owner owner; /* first: callbacks get back to us from it */
    struct process process;
    struct supervisor *supervisor;
    char program[PATH_MAX]; /* starling-agent */
};

void monitor_init(struct monitor *m, struct supervisor *s);
bool monitor_adopt(struct monitor *m, const struct process_record *record);
/* After anything has happened. */
void monitor_step(struct monitor *m);

#endif
