/* Bounds of everything that a node keeps, and that the others go on whoever fails. */
#ifndef STARLING_SIM_BOUNDS_H
#define STARLING_SIM_BOUNDS_H

struct sim;

/* Between two turns, at any time. */
void bounds_check(struct sim *sim);
/* All is healed and quiet: nothing waits any more. */
void bounds_check_end(struct sim *sim);

#endif
