/* `starling up --detach`: the program goes on in the background, and its caller waits until all nodes are ready. */
#ifndef STARLING_DETACH_H
#define STARLING_DETACH_H

#include "rundir.h"
#include <stdbool.h>

/* Forks. True in the caller's process, which ends with *exit_code once the other one has said how it went; false in
 * the one that goes on, which says it over *fd. */
bool detach_begin(int *fd, int *exit_code);
/* All is well: from now on output goes to supervisor.log in the run directory. No matter when *fd is -1. */
void detach_done(int *fd, const struct rundir *dir);
/* A node does not come up: the caller is told so, and the rest goes on. */
void detach_fail(int *fd);

#endif
