/* What happens to a process is the table below: state and event give an action and the next state. */
#include "process.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_LAST_MS = 5000,
    STEADY_MS = 10000,     /* who lived that long starts again without the growing delay */
    EARLY_MS = 1000,       /* who died sooner may never come up */
    FAILED_STARTS_MAX = 5, /* in a row */
    READY_FD = 3,          /* in the program */
    EXIT_USAGE = 2,
    STATUS_UNKNOWN = -1, /* only a parent is told it */
};

static const char *const state_names[PROCESS_STATES] = {
    [PROCESS_STARTING] = "starting",     [PROCESS_READY] = "ready",       [PROCESS_WAITING] = "waiting",
    [PROCESS_DRAINING] = "draining",     [PROCESS_STOPPING] = "stopping", [PROCESS_STOPPED] = "stopped",
    [PROCESS_RESTARTING] = "restarting", [PROCESS_ERRORED] = "errored",
};

const char *process_state_name(enum process_state state)
{
    return state_names[state];
}

uint64_t process_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool process_is_in_use(const struct process *p)
{
    return p->state != PROCESS_STOPPED && p->state != PROCESS_ERRORED;
}

bool process_is_leaving(const struct process *p)
{
    return p->state == PROCESS_STOPPING || p->state == PROCESS_STOPPED || p->state == PROCESS_DRAINING;
}

/* Processes by descriptor: the pid of one that has ended may be another's. */

uint64_t process_start_ticks(pid_t pid)
{
    char path[64], text[1024];
    uint64_t ticks = 0;
    char state;
    const char *rest;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = pid > 0 ? fopen(path, "re") : NULL;
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    rest = strrchr(text, ')'); /* the name before it may hold anything */
    if (!rest ||
        sscanf(rest, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
               &state, &ticks) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : ticks; /* one that has ended but was not waited for */
}

static int open_pid(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void send_signal(const struct process *p, int number)
{
    if (p->pid_fd >= 0)
        syscall(SYS_pidfd_send_signal, p->pid_fd, number, NULL, 0);
    else if (p->pid > 0)
        kill(p->pid, number);
}

static void forget_pid(struct process *p)
{
    if (p->pid_fd >= 0)
        close(p->pid_fd);
    p->pid_fd = -1;
    p->pid = 0;
    p->start_ticks = 0;
}

/* Everything that the child inherits, opened before it is there. */
struct child_pipes {
    int ready[2], go[2];
};

static int open_pipes(struct child_pipes *pipes)
{
    if (pipe2(pipes->ready, O_CLOEXEC) != 0)
        return -1;
    if (pipe2(pipes->go, O_CLOEXEC) == 0)
        return 0;
    close(pipes->ready[0]);
    close(pipes->ready[1]);
    return -1;
}

__attribute__((noreturn)) static void run_child(const struct process *p, char **argv,
                                                const struct child_pipes *pipes)
{
    struct process_owner *owner = p->owner;
    char go;

    /* Of the terminal's Ctrl-C it hears from us alone: a second signal would cut its farewell to the clients.
     */
    setpgid(0, 0);
    /* A node outlives a supervisor that is killed, so it must be written down before it runs: a supervisor
     * that was killed before that closes the pipe. */
    close(pipes->go[1]);
    if (read(pipes->go[0], &go, 1) != 1)
        _exit(1);
    if (pipes->ready[1] == READY_FD)
        fcntl(READY_FD, F_SETFD, 0);
    else
        dup2(pipes->ready[1], READY_FD);
    /* Our standard output is for the lines that we promise. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    owner->in_child(owner, p);
    sigprocmask(SIG_SETMASK, &owner->mask, NULL);
    execv(owner->program, argv);
    dprintf(STDERR_FILENO, "starling up: cannot run %s: %s\n", owner->program, strerror(errno));
    _exit(1);
}

static void free_arguments(char **argv)
{
    for (char **p = argv; p && *p; p++)
        free(*p);
    free(argv);
}

static int spawn(struct process *p, char **argv)
{
    struct child_pipes pipes;
    pid_t pid;

    if (!argv || open_pipes(&pipes) != 0)
        return -1;
    pid = fork();
    if (pid == 0)
        run_child(p, argv, &pipes);
    close(pipes.ready[1]);
    close(pipes.go[0]);
    if (pid < 0) {
        close(pipes.ready[0]);
        close(pipes.go[1]);
        return -1;
    }
    p->pid = pid;
    p->pid_fd = open_pid(pid);
    p->start_ticks = process_start_ticks(pid);
    p->state = PROCESS_STARTING;
    p->ready_fd = pipes.ready[0];
    p->owner->on_change(p->owner);
    if (p->pid_fd < 0 || write(pipes.go[1], "\n", 1) != 1) {
        fprintf(stderr, "%s: cannot be watched: %s\n", p->name, strerror(errno));
        kill(pid, SIGKILL);
    }
    close(pipes.go[1]);
    if (p->pid_fd >= 0)
        return 0;
    waitpid(pid, NULL, 0);
    close(p->ready_fd);
    p->ready_fd = -1;
    p->pid = 0;
    return -1;
}

/* Actions: what an event does, and the state afterwards. */

static void set_deadline(struct process *p, uint32_t after_ms)
{
    p->deadline_ms = after_ms > 0 ? process_now_ms() + after_ms : 0;
}

static enum process_state wait_to_start(struct process *p)
{
    set_deadline(p, p->backoff_ms);
    p->backoff_ms = p->backoff_ms * 2 < BACKOFF_LAST_MS ? p->backoff_ms * 2 : BACKOFF_LAST_MS;
    return PROCESS_WAITING;
}

static enum process_state stopped(struct process *p)
{
    forget_pid(p);
    p->deadline_ms = 0;
    return PROCESS_STOPPED;
}

static enum process_state start(struct process *p)
{
    char **argv = p->owner->arguments(p->owner, p);
    int rc;

    p->started_ms = p->alive_ms = process_now_ms();
    p->ticks = 0;
    p->is_late = false;
    set_deadline(p, p->owner->listen_timeout_ms);
    rc = spawn(p, argv);
    if (rc != 0)
        fprintf(stderr, "%s: cannot be started: %s\n", p->name, strerror(errno));
    free_arguments(argv);
    if (rc == 0)
        return PROCESS_STARTING;
    return p->is_trial ? stopped(p) : wait_to_start(p);
}

static enum process_state start_again(struct process *p)
{
    p->restarts++;
    return start(p);
}

/* Somebody asked for it, so whatever went wrong before may be mended. */
static enum process_state start_afresh(struct process *p)
{
    forget_pid(p);
    p->backoff_ms = BACKOFF_FIRST_MS;
    p->failed_starts = 0;
    p->exit_code = 0;
    return start_again(p);
}

static enum process_state announce(struct process *p)
{
    p->state = PROCESS_READY;
    p->deadline_ms = 0;
    p->alive_ms = process_now_ms();
    p->owner->on_ready(p->owner, p);
    return PROCESS_READY;
}

static enum process_state give_up(struct process *p, int exit_code, const char *why)
{
    fprintf(stderr, "%s: %s; giving up\n", p->name, why);
    p->exit_code = exit_code;
    p->deadline_ms = 0;
    return PROCESS_ERRORED;
}

static void tell_end(const struct process *p)
{
    bool by_signal = WIFSIGNALED(p->wait_status);

    if (p->wait_status == STATUS_UNKNOWN)
        fprintf(stderr, "%s: pid %d ended\n", p->name, (int)p->pid);
    else
        fprintf(stderr, "%s: pid %d ended with %s %d\n", p->name, (int)p->pid,
                by_signal ? "signal" : "exit code",
                by_signal ? WTERMSIG(p->wait_status) : WEXITSTATUS(p->wait_status));
}

static enum process_state died(struct process *p)
{
    uint64_t lived_ms = process_now_ms() - p->started_ms;
    bool knows_how = p->wait_status != STATUS_UNKNOWN;

    tell_end(p);
    forget_pid(p);
    if (p->is_trial)
        return stopped(p);
    if (knows_how && WIFEXITED(p->wait_status) && WEXITSTATUS(p->wait_status) == EXIT_USAGE)
        return give_up(p, EXIT_USAGE, "does not take its options");
    p->failed_starts = lived_ms < EARLY_MS || p->is_late ? p->failed_starts + 1 : 0;
    if (p->failed_starts >= FAILED_STARTS_MAX)
        return give_up(p, 1,
                       p->is_late
                           ? "failed to start five times in a row, and was not ready in time the last time"
                           : "died five times in a row within its first second");
    if (lived_ms >= STEADY_MS && !p->is_late)
        p->backoff_ms = BACKOFF_FIRST_MS;
    return wait_to_start(p);
}

/* It is told of its end as of any other: only its process is gone at once. */
static enum process_state kill_late(struct process *p)
{
    fprintf(stderr, "%s: pid %d was not ready after %" PRIu32 " ms and is killed\n", p->name, (int)p->pid,
            p->owner->listen_timeout_ms);
    p->is_late = true;
    p->deadline_ms = 0;
    send_signal(p, SIGKILL);
    return p->state;
}

static enum process_state kill_hung(struct process *p)
{
    fprintf(stderr, "%s: pid %d shows no sign of life and is killed\n", p->name, (int)p->pid);
    send_signal(p, SIGKILL);
    p->alive_ms = process_now_ms(); /* once is enough */
    return p->state;
}

static enum process_state terminate(struct process *p, enum process_state next)
{
    send_signal(p, SIGTERM);
    set_deadline(p, p->owner->kill_timeout_ms);
    return next;
}

static enum process_state stop(struct process *p)
{
    return terminate(p, PROCESS_STOPPING);
}

static enum process_state restart(struct process *p)
{
    return terminate(p, PROCESS_RESTARTING);
}

static enum process_state drain(struct process *p)
{
    send_signal(p, SIGUSR1);
    p->deadline_ms = 0;
    return PROCESS_DRAINING;
}

static enum process_state kill_now(struct process *p)
{
    send_signal(p, SIGKILL);
    p->deadline_ms = 0;
    return p->state;
}

/* It has been told to stop already. */
static enum process_state stop_for_good(struct process *p)
{
    (void)p;
    return PROCESS_STOPPING;
}

static enum process_state (*const table[PROCESS_STATES][PROCESS_EVENTS])(struct process *) = {
    [PROCESS_STARTING] = {[PROCESS_SAID_READY] = announce,
                          [PROCESS_DIED] = died,
                          [PROCESS_DEADLINE] = kill_late,
                          [PROCESS_STOP] = stop,
                          [PROCESS_RESTART] = restart,
                          [PROCESS_DRAIN] = stop},
    [PROCESS_READY] = {[PROCESS_DIED] = died,
                       [PROCESS_HUNG] = kill_hung,
                       [PROCESS_STOP] = stop,
                       [PROCESS_RESTART] = restart,
                       [PROCESS_DRAIN] = drain},
    [PROCESS_WAITING] = {[PROCESS_DEADLINE] = start_again,
                         [PROCESS_STOP] = stopped,
                         [PROCESS_RESTART] = start_afresh,
                         [PROCESS_DRAIN] = stopped},
    [PROCESS_DRAINING] = {[PROCESS_DIED] = stopped, [PROCESS_HUNG] = kill_hung, [PROCESS_STOP] = stop},
    /* A second signal is impatience. */
    [PROCESS_STOPPING] = {[PROCESS_DIED] = stopped, [PROCESS_DEADLINE] = kill_now, [PROCESS_STOP] = kill_now},
    [PROCESS_RESTARTING] = {[PROCESS_DIED] = start_afresh,
                            [PROCESS_DEADLINE] = kill_now,
                            [PROCESS_STOP] = stop_for_good,
                            [PROCESS_DRAIN] = stop_for_good},
    [PROCESS_ERRORED] =
        {[PROCESS_STOP] = stopped, [PROCESS_RESTART] = start_afresh, [PROCESS_DRAIN] = stopped},
};

void process_handle(struct process *p, enum process_event event)
{
    if (!table[p->state][event])
        return;
    p->state = table[p->state][event](p);
    p->owner->on_change(p->owner);
}

void process_init(struct process *p, struct process_owner *owner, const char *name)
{
    *p = (struct process){.owner = owner,
                          .state = PROCESS_STOPPED,
                          .core = -1,
                          .pid_fd = -1,
                          .ready_fd = -1,
                          .backoff_ms = BACKOFF_FIRST_MS};
    snprintf(p->name, sizeof p->name, "%s", name);
}

void process_start(struct process *p)
{
    p->state = start(p);
    p->owner->on_change(p->owner);
}

/* What it was in the middle of is begun again; it never hurts. */
static void resume(struct process *p, const char *state)
{
    p->state = PROCESS_READY;
    p->alive_ms = process_now_ms();
    if (strcmp(state, state_names[PROCESS_STARTING]) == 0) {
        p->state = PROCESS_STARTING;
        set_deadline(p, p->owner->listen_timeout_ms);
    } else if (strcmp(state, state_names[PROCESS_DRAINING]) == 0) {
        process_handle(p, PROCESS_DRAIN);
    } else if (strcmp(state, state_names[PROCESS_STOPPING]) == 0) {
        process_handle(p, PROCESS_STOP);
    } else if (strcmp(state, state_names[PROCESS_RESTARTING]) == 0) {
        process_handle(p, PROCESS_RESTART);
    }
}

bool process_adopt(struct process *p, const struct process_record *record)
{
    int fd = record->pid > 0 ? open_pid(record->pid) : -1;

    /* The descriptor first: from then on the pid is nobody else's. */
    if (fd < 0 || record->start_ticks == 0 || process_start_ticks(record->pid) != record->start_ticks) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    p->pid = record->pid;
    p->pid_fd = fd;
    p->start_ticks = record->start_ticks;
    p->started_ms = record->started_ms;
    p->generation = record->generation;
    p->restarts = record->restarts;
    resume(p, record->state);
    return true;
}

void process_describe(const struct process *p, struct process_record *record)
{
    *record = (struct process_record){.pid = p->pid,
                                      .start_ticks = p->start_ticks,
                                      .started_ms = p->started_ms,
                                      .generation = p->generation,
                                      .restarts = p->restarts};
    snprintf(record->state, sizeof record->state, "%s", state_names[p->state]);
}

static void close_ready_fd(struct process *p)
{
    if (p->ready_fd >= 0)
        close(p->ready_fd);
    p->ready_fd = -1;
}

void process_on_ready_fd(struct process *p)
{
    char byte = 0;
    ssize_t n = read(p->ready_fd, &byte, 1);

    close_ready_fd(p);
    if (n == 1 && byte == '\n')
        process_handle(p, PROCESS_SAID_READY);
}

void process_on_end(struct process *p)
{
    struct pollfd wait = {.fd = p->pid_fd, .events = POLLIN};
    int status = STATUS_UNKNOWN;

    if (p->pid <= 0 || poll(&wait, 1, 0) != 1)
        return;
    if (waitpid(p->pid, &status, WNOHANG) != p->pid)
        status = STATUS_UNKNOWN; /* no child of ours */
    /* What it said last comes before its end. */
    if (p->ready_fd >= 0)
        process_on_ready_fd(p);
    p->wait_status = status;
    process_handle(p, PROCESS_DIED);
}

void process_on_time(struct process *p)
{
    if (p->deadline_ms != 0 && process_now_ms() >= p->deadline_ms)
        process_handle(p, PROCESS_DEADLINE);
}

void process_kill(struct process *p)
{
    struct pollfd wait = {.fd = p->pid_fd, .events = POLLIN};

    if (p->pid > 0) {
        send_signal(p, SIGKILL);
        poll(&wait, 1, -1);
        waitpid(p->pid, NULL, WNOHANG);
    }
    close_ready_fd(p);
    p->state = stopped(p);
}
