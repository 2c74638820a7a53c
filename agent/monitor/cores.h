/* CPU time, of all cores and of each, from /proc/stat. One thread. */
#ifndef STARLING_CORES_H
#define STARLING_CORES_H

#include "machine.h"
#include "source.h"

struct cores;

struct cores *cores_new(int root);
void cores_free(struct cores **c);

/* Fills cpu, cores and load.running of a tick with the shares since the last call. */
void cores_sample(struct cores *c, struct machine_tick *t);

/* Of the last sample. */
unsigned cores_online(const struct cores *c);
uint64_t cores_boot_time_s(const struct cores *c);

#endif
