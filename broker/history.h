/* How one machine was over the last day: each second of 10 minutes, each 10 s of 2 hours, each minute of 24 hours, with
 * means, and behind the seconds maxima. A fixed size, some 200 KiB. No I/O and no clock of its own; times are those of
 * the node, in milliseconds since 1970. Reactor's thread only. */
#ifndef STARLING_HISTORY_H
#define STARLING_HISTORY_H

#include "machine.h"
#include <msgpack.h>
#include <stdbool.h>

enum history_value {
#define X(NAME, name, kind) HISTORY_##NAME,
#include "history.def"
#undef X
    HISTORY_VALUES
};

enum history_level { HISTORY_SECONDS, HISTORY_TENS, HISTORY_MINUTES, HISTORY_LEVELS };

struct history;

/* NULL: no memory. */
struct history *history_new(void);
void history_free(struct history **h);

/* A clock that was set back takes what it had said of the time from then on with it. */
void history_add(struct history *h, uint64_t now_ms, const struct machine_tick *t);

uint64_t history_step_ms(enum history_level level);
unsigned history_points(enum history_level level);
/* The beginnings of the oldest and the newest point that may be there; false: there is none. */
bool history_range(const struct history *h, enum history_level level, uint64_t *oldest_ms,
                   uint64_t *newest_ms);

/* The point that at_ms is in. A value that is not known is NAN. At HISTORY_SECONDS max is the mean. */
struct history_point {
    double mean[HISTORY_VALUES], max[HISTORY_VALUES];
};
void history_get(const struct history *h, enum history_level level, uint64_t at_ms,
                 struct history_point *point);

/* As proto/machine.md has it: appends one block with the points that begin from from_ms on and before to_ms, or nothing
 * when there is none. 0 or ERR_MEMORY. */
int history_write(const struct history *h, enum history_level level, uint64_t from_ms, uint64_t to_ms,
                  msgpack_sbuffer *b);

/* Blocks from anywhere. Fills what is not known yet and not too old; what is of the time after now_ms is left out.
 * 0, or ERR_MACHINE or ERR_VERSION: the blocks before the bad one count. */
int history_read(struct history *h, uint64_t now_ms, struct span blocks);

/* {"step_ms":…,"from_ms":…,"cpu_busy":[…],"cpu_busy_max":[…],…}: an item for each point, null for what is not known; the
 * units are those of machine.md. 0 or ERR_MEMORY. */
int history_json(const struct history *h, enum history_level level, uint64_t from_ms, msgpack_sbuffer *b);

#endif
