/* The processes under test, as the kernel accounts for them. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include <stdint.h>
#include <sys/types.h>

#define SERVER_PIDS 16

struct server {
    unsigned count;
    pid_t pids[SERVER_PIDS];
};

struct server_usage {
    uint64_t at_ns;
    uint64_t cpu_ns;  /* run time of all threads that live, from the scheduler */
    uint64_t user_ns; /* of the processes, in clock ticks only, exited threads included */
    uint64_t system_ns;
};

/* Dies when a process is gone. With no process all figures but at_ns are 0. */
struct server_usage server_usage(const struct server *s);
struct server_usage server_usage_since(const struct server *s, const struct server_usage *start);

/* Resident bytes of all processes, counted exactly (smaps_rollup, not the batched counter of statm). */
uint64_t server_rss_bytes(const struct server *s);

#endif
