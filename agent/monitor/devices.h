/* Disks and network interfaces that come and go, with the counters that the kernel keeps for each. One thread. */
#ifndef STARLING_DEVICES_H
#define STARLING_DEVICES_H

#include "machine.h"
#include "source.h"

struct devices;

struct devices *devices_new(int root);
void devices_free(struct devices **d);

/* Fills disks and interfaces of a tick. Names live until the next call. True when a device has come or gone. */
bool devices_sample(struct devices *d, uint64_t elapsed_us, struct machine_tick *t);

/* Fills interfaces and disks of a description with those of the last sample. Texts live until the next call. */
void devices_describe(struct devices *d, struct machine_description *description);

#endif
