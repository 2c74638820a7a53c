/* One node under the supervisor: its process, what state it is in, and what becomes of it. Main thread only. */
#ifndef STARLING_PROCESS_H
#define STARLING_PROCESS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum process_state {
    PROCESS_STARTING,
    PROCESS_READY,
    PROCESS_WAITING,    /* to start again */
    PROCESS_STOPPING,   /* for good */
    PROCESS_RESTARTING, /* to start again at once */
    PROCESS_STOPPED,
    PROCESS_ERRORED, /* given up */
    PROCESS_STATES
};

enum process_event {
    PROCESS_SAID_READY,
    PROCESS_DIED,
    PROCESS_DEADLINE,
    PROCESS_STOP,
    PROCESS_RESTART,
    PROCESS_EVENTS
};

struct process;

/* Who runs processes. */
struct process_owner {
    const char *program;
    sigset_t mask; /* the signals that a node blocks at its start */
    /* The arguments with which the process starts now, beside --ready-fd: malloc()ed, each and all, with NULL
     * at the end; or NULL. Borrows what it is given. */
    char **(*arguments)(struct process_owner *owner, const struct process *process);
    void (*on_ready)(struct process_owner *owner, const struct process *process);
    /* State or pid are others. A new process does nothing before this has returned. */
    void (*on_change)(struct process_owner *owner);
};

struct process {
    struct process_owner *owner;
    unsigned index;
    enum process_state state;
    pid_t pid; /* 0: none */
    int core;  /* -1: any */
    int ready_fd, wait_status, exit_code;
    uint64_t started_ms, deadline_ms; /* deadline 0: none */
    unsigned restarts, early_deaths, backoff_ms;
};

/* On the clock of the deadlines. */
uint64_t process_now_ms(void);

const char *process_state_name(enum process_state state);

void process_start(struct process *process, struct process_owner *owner, unsigned index, int core);
void process_handle(struct process *process, enum process_event event);

/* When its ready_fd is readable. */
void process_on_ready_fd(struct process *process);
/* When a child may have ended. */
void process_on_child(struct process *process);
/* When a deadline may have come. */
void process_on_time(struct process *process);

/* Ends it without a word, and for good. */
void process_kill(struct process *process);

#endif
