/* All that is known of the machine: its description, and a tick whenever it is asked for one. Nothing but reading files
 * under a root directory; no clock, no network. One thread. */
#ifndef STARLING_COLLECTOR_H
#define STARLING_COLLECTOR_H

#include "machine.h"

struct collector;

struct collector_options {
    const char *root; /* "/", or a directory that looks like it; borrowed for the collector's life */
    const char *name; /* NULL: the host's */
    uint64_t interval_ms;
};

/* NULL: the root cannot be opened, or no memory. */
struct collector *collector_new(const struct collector_options *o);
void collector_free(struct collector **c);

/* Fills a tick. now_us: of any clock that does not jump; rates are those since the last call, the first one has none.
 * Texts of the tick live until the next call. */
void collector_sample(struct collector *c, uint64_t now_us, uint64_t time_ms, struct machine_tick *t);

/* The description that belongs to the last sample. Its revision is another one when anything in it has changed. Lives
 * until the next sample. */
const struct machine_description *collector_description(const struct collector *c);

#endif
