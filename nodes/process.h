/* One program under the supervisor, a node or the redis-server: its process, what state it is in, and what becomes of
 * it. A process may be a child, or one that outlived the supervisor before this one: both are watched by a pidfd.
 * Main thread only. */
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
    PROCESS_DRAINING,   /* for good: it ends when its clients are gone */
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
    PROCESS_HUNG, /* shows no sign of life */
    PROCESS_STOP,
    PROCESS_RESTART,
    PROCESS_DRAIN,
    PROCESS_EVENTS
};

struct process;

/* Who runs processes. */
struct process_owner {
    const char *program;
    sigset_t mask;              /* the signals that the program blocks at its start */
    uint32_t listen_timeout_ms; /* 0: it may take as long as it wants to become ready */
    uint32_t kill_timeout_ms;
    /* The arguments with which the process starts now: malloc()ed, each and all, with NULL at the end; or NULL.
     * Borrows what it is given. */
    char **(*arguments)(struct process_owner *owner, const struct process *process);
    /* In the child, before the program: where its output goes. */
    void (*in_child)(struct process_owner *owner, const struct process *process);
    void (*on_ready)(struct process_owner *owner, const struct process *process);
    /* State or pid are others. A new process does nothing before this has returned. */
    void (*on_change)(struct process_owner *owner);
};

/* What of a process outlives its supervisor: enough to find it again. */
struct process_record {
    pid_t pid; /* 0: none */
    uint64_t
        start_ticks; /* of the process, as the kernel counts them: a pid is used again, the pair is not */
    uint64_t started_ms;
    unsigned generation, restarts;
    char state[16];
};

struct process {
    struct process_owner *owner;
    char name[16]; /* for messages */
    unsigned index;
    unsigned generation; /* 0 or 1: an old and a new process of one index have different ones */
    enum process_state state;
    bool is_trial; /* not started again when it dies */
    bool is_late;  /* killed since it was not ready in time */
    pid_t pid;     /* 0: none */
    int pid_fd;    /* readable when it has ended */
    int core;      /* -1: any */
    int ready_fd, wait_status, exit_code;
    uint64_t start_ticks, started_ms, deadline_ms; /* deadline 0: none */
    uint64_t ticks, alive_ms;                      /* of its last sign of life */
    unsigned restarts, failed_starts, backoff_ms;
};

/* On the clock of the deadlines. */
uint64_t process_now_ms(void);

const char *process_state_name(enum process_state state);

/* No process, STOPPED. */
void process_init(struct process *process, struct process_owner *owner, const char *name);
void process_start(struct process *process);
/* Takes over the process of a supervisor that is gone, after process_init(). False when it does not live any more. */
bool process_adopt(struct process *process, const struct process_record *record);
void process_handle(struct process *process, enum process_event event);
void process_describe(const struct process *process, struct process_record *record);

/* True while there is a process, or there will be one again. */
bool process_is_in_use(const struct process *process);
/* True when no process will be there before somebody asks for it. */
bool process_is_leaving(const struct process *process);

/* When its ready_fd is readable. */
void process_on_ready_fd(struct process *process);
/* When its pid_fd is readable. */
void process_on_end(struct process *process);
/* When a deadline may have come. */
void process_on_time(struct process *process);

/* Ends it without a word, and for good. */
void process_kill(struct process *process);

/* When the process with this pid was started, in the kernel's ticks; 0: there is none. */
uint64_t process_start_ticks(pid_t pid);

#endif
