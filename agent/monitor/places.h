/* File systems and temperature sensors: what is looked at less often than each second. One thread. */
#ifndef STARLING_PLACES_H
#define STARLING_PLACES_H

#include "machine.h"

struct places;

/* prefix: of the root as a path, "" for /; statvfs() has no variant with a directory and a path. */
struct places *places_new(int root, const char *prefix);
void places_free(struct places **p);

/* Looks which ones there are. */
void places_refresh(struct places *p);
/* Measures them. */
void places_measure(struct places *p);
/* Fills filesystems and temperatures of a tick with what was measured last. Texts live until the next refresh. */
void places_sample(const struct places *p, struct machine_tick *t);

#endif
