/* The run directory: where `starling up` says that it runs, and where the other verbs find it. starling.pid
 * is locked as long as the supervisor lives, so a stale file never passes for a running bus. Main thread
 * only. */
#ifndef STARLING_RUNDIR_H
#define STARLING_RUNDIR_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the supervisor tells the other verbs. */
struct rundir_state {
    char bind[16];
    uint32_t port;
    struct rundir_node {
        pid_t pid; /* 0: no process */
        int core;  /* -1: any */
        uint32_t port, restarts;
        uint64_t started_ms; /* on the clock that counts from the start of the machine */
        char state[16];
    } node; /* the one of this version */
};

struct rundir {
    char path[PATH_MAX];
    int lock_fd; /* of the supervisor; -1 otherwise */
};

/* The directory that is meant: the given one, or the default when it is "". */
void rundir_init(struct rundir *dir, const char *given);

/* For the supervisor: makes the directory, takes the lock and writes the pid. 0, or 1 after a message on
 * stderr. */
int rundir_acquire(struct rundir *dir);
/* Takes away what rundir_acquire() and rundir_save() wrote, and lets go of the lock. */
void rundir_release(struct rundir *dir);

/* The pid of the supervisor that runs with this directory; 0 when none does. */
pid_t rundir_holder(const struct rundir *dir);

/* Replaces what was there at once. 0 or ERR_SYSTEM. */
int rundir_save(const struct rundir *dir, const struct rundir_state *state);
/* 0, or ERR_SYSTEM or ERR_JSON. */
int rundir_load(const struct rundir *dir, struct rundir_state *state);

#endif
