/* What the container that this process runs in may use, and uses: control groups of version 2 and 1. A service's own
 * limits bound the monitor and not the machine: they are passed over. One thread. */
#ifndef STARLING_CGROUP_H
#define STARLING_CGROUP_H

#include "machine.h"
#include <stdbool.h>

struct cgroup;

struct cgroup *cgroup_new(int root);
void cgroup_free(struct cgroup **g);

/* Looks for limits anew; they may change at any time. Limits of the host's size or above count as none. 0: no limit. */
void cgroup_refresh(struct cgroup *g, uint64_t host_cpus_milli, uint64_t host_memory_bytes);
uint64_t cgroup_cpu_milli(const struct cgroup *g);
uint64_t cgroup_memory_bytes(const struct cgroup *g);

/* Where there is a limit, put the container's own figures in the place of the host's. */
void cgroup_sample_cpu(struct cgroup *g, uint64_t elapsed_us, struct machine_cpu *cpu);
void cgroup_sample_memory(struct cgroup *g, struct machine_memory *memory);

#endif
