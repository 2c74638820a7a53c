/* What `starling ps` shows: what the supervisor has written down of each node, and what can be measured now. */
#ifndef STARLING_PS_H
#define STARLING_PS_H

#include "rundir.h"

/* Prints to standard output, as JSON or as a table. Takes a moment, since rates need two looks. */
void ps_print(const struct rundir_state *state, pid_t supervisor, bool json);

#endif
