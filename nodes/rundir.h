/* The run directory: where `starling up` says that it runs, and where the other verbs find it. starling.pid
 * is locked as long as the supervisor lives, so a stale file never passes for a running bus. state.json outlives
 * a supervisor that is killed, and so do the nodes that it names. Main thread only. */
#ifndef STARLING_RUNDIR_H
#define STARLING_RUNDIR_H

#include "process.h"
#include "span.h"
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    RUNDIR_NODES_MAX = 99,
    RUNDIR_PIDS_MAX = RUNDIR_NODES_MAX + 2,
    RUNDIR_PATH_CHARS = 80,        /* --mesh takes 90, and it is a Unix socket's name */
    RUNDIR_TEXT_BYTES = 32 * 1024, /* holds the text of any state */
};

/* What the supervisor tells the other verbs, and the supervisor after it. */
struct rundir_state {
    char bind[16];
    uint32_t port, nodes_n;
    struct rundir_node {
        struct process_record process;
        int core; /* -1: any */
        uint32_t port;
    } nodes[RUNDIR_NODES_MAX]; /* by their index */
    /* Of a reload, no pid: none. old drains, next is not yet the node. */
    struct rundir_node old, next;
    uint32_t old_index, next_index;
    struct process_record agent; /* that watches the machine; "stopped": none */
    struct process_record redis; /* of this bus alone; "stopped": none */
    char redis_url[256];         /* "": none */
    uint32_t reloads;            /* that have begun */
    bool reloading;
    char reload_error[192]; /* of the last one; "": none */
};

struct rundir {
    char path[PATH_MAX];
    int lock_fd; /* of the supervisor; -1 otherwise */
    bool saved;
};

/* The directory that is meant: the given one, or the default when it is "". */
void rundir_init(struct rundir *dir, const char *given);

/* Short enough for the sockets in it, and without what has a meaning in lists and URLs. */
bool rundir_is_usable(const struct rundir *dir);

/* The path of a file in it; false when that is too long. */
bool rundir_file(const struct rundir *dir, const char *name, char *out, size_t size);

/* For the supervisor: makes the directory, takes the lock and writes the pid. 0, or 1 after a message on
 * stderr. */
int rundir_acquire(struct rundir *dir);
/* Takes away what rundir_acquire() and rundir_save() wrote and what nodes left there, and lets go of the lock.
 * Without a rundir_save() before, what others saved stays. */
void rundir_release(struct rundir *dir);

/* The pid of the supervisor that runs with this directory; 0 when none does. */
pid_t rundir_holder(const struct rundir *dir);

/* The state as one line of JSON: its length. */
size_t rundir_format(const struct rundir_state *state, char text[RUNDIR_TEXT_BYTES]);
/* 0 or ERR_JSON. */
int rundir_parse(struct span text, struct rundir_state *state);

/* Replaces what was there at once. 0 or ERR_SYSTEM. */
int rundir_save(struct rundir *dir, const struct rundir_state *state);
/* 0, or ERR_SYSTEM or ERR_JSON. */
int rundir_load(const struct rundir *dir, struct rundir_state *state);

/* The path of another program of ours, beside this one; false when there is none (errno says why). */
bool rundir_program(const char *name, char out[PATH_MAX]);

/* The pids of the saved nodes that still run although no supervisor does: how many. A pid that now belongs to
 * another process does not count. */
unsigned rundir_orphans(const struct rundir *dir, pid_t pids[RUNDIR_PIDS_MAX]);
/* The same for the redis-server and for the agent: 0 or 1. */
unsigned rundir_orphan_redis(const struct rundir *dir, pid_t *pid);
unsigned rundir_orphan_agent(const struct rundir *dir, pid_t *pid);
/* Takes away what a supervisor that was killed left behind, unless another one runs by now. */
void rundir_clean(struct rundir *dir);

#endif
