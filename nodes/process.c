/* What happens to a process is the table below: state and event give an action and the next state. */
#include "process.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_LAST_MS = 5000,
    STEADY_MS = 10000,    /* who lived that long starts again without the growing delay */
    EARLY_MS = 1000,      /* who died sooner may never come up */
    EARLY_DEATHS_MAX = 5, /* in a row */
    KILL_AFTER_MS = 1600,
    READY_FD = 3, /* in the node */
    EXIT_USAGE = 2,
};

static const char *const state_names[PROCESS_STATES] = {
    [PROCESS_STARTING] = "starting", [PROCESS_READY] = "ready",           [PROCESS_WAITING] = "waiting",
    [PROCESS_STOPPING] = "stopping", [PROCESS_RESTARTING] = "restarting", [PROCESS_STOPPED] = "stopped",
    [PROCESS_ERRORED] = "errored",
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

__attribute__((noreturn)) static void run_child(const struct process_owner *owner, char **argv,
                                                const struct child_pipes *pipes)
{
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
        run_child(p->owner, argv, &pipes);
    close(pipes.ready[1]);
    close(pipes.go[0]);
    if (pid < 0) {
        close(pipes.ready[0]);
        close(pipes.go[1]);
        return -1;
    }
    p->pid = pid;
    p->state = PROCESS_STARTING;
    p->ready_fd = pipes.ready[0];
    p->owner->on_change(p->owner);
    if (write(pipes.go[1], "\n", 1) != 1)
        fprintf(stderr, "node %u: %s\n", p->index, strerror(errno)); /* it ends by itself */
    close(pipes.go[1]);
    return 0;
}

/* Actions: what an event does, and the state afterwards. */

static enum process_state wait_to_start(struct process *p)
{
    p->deadline_ms = process_now_ms() + p->backoff_ms;
    p->backoff_ms = p->backoff_ms * 2 < BACKOFF_LAST_MS ? p->backoff_ms * 2 : BACKOFF_LAST_MS;
    return PROCESS_WAITING;
}

static enum process_state start(struct process *p)
{
    char **argv = p->owner->arguments(p->owner, p);
    int rc;

    p->started_ms = process_now_ms();
    p->deadline_ms = 0;
    rc = spawn(p, argv);
    if (rc != 0)
        fprintf(stderr, "node %u: cannot be started: %s\n", p->index, strerror(errno));
    free_arguments(argv);
    return rc == 0 ? PROCESS_STARTING : wait_to_start(p);
}

static enum process_state start_again(struct process *p)
{
    p->restarts++;
    return start(p);
}

/* Somebody asked for it, so whatever went wrong before may be mended. */
static enum process_state start_afresh(struct process *p)
{
    p->backoff_ms = BACKOFF_FIRST_MS;
    p->early_deaths = 0;
    p->exit_code = 0;
    return start_again(p);
}

static enum process_state announce(struct process *p)
{
    p->state = PROCESS_READY;
    p->owner->on_ready(p->owner, p);
    return PROCESS_READY;
}

static enum process_state give_up(struct process *p, int exit_code, const char *why)
{
    fprintf(stderr, "node %u: %s; giving up\n", p->index, why);
    p->exit_code = exit_code;
    return PROCESS_ERRORED;
}

static void tell_end(struct process *p)
{
    bool by_signal = WIFSIGNALED(p->wait_status);

    fprintf(stderr, "node %u: pid %d ended with %s %d\n", p->index, (int)p->pid,
            by_signal ? "signal" : "exit code",
            by_signal ? WTERMSIG(p->wait_status) : WEXITSTATUS(p->wait_status));
    p->pid = 0;
}

static enum process_state died(struct process *p)
{
    uint64_t lived_ms = process_now_ms() - p->started_ms;

    tell_end(p);
    if (WIFEXITED(p->wait_status) && WEXITSTATUS(p->wait_status) == EXIT_USAGE)
        return give_up(p, EXIT_USAGE, "does not take its options");
    p->early_deaths = lived_ms < EARLY_MS ? p->early_deaths + 1 : 0;
    if (p->early_deaths >= EARLY_DEATHS_MAX)
        return give_up(p, 1, "died five times in a row within its first second");
    if (lived_ms >= STEADY_MS)
        p->backoff_ms = BACKOFF_FIRST_MS;
    return wait_to_start(p);
}

static enum process_state terminate(struct process *p, enum process_state next)
{
    kill(p->pid, SIGTERM);
    p->deadline_ms = process_now_ms() + KILL_AFTER_MS;
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

static enum process_state kill_now(struct process *p)
{
    kill(p->pid, SIGKILL);
    p->deadline_ms = 0;
    return p->state;
}

/* It has been told to stop already. */
static enum process_state stop_for_good(struct process *p)
{
    (void)p;
    return PROCESS_STOPPING;
}

static enum process_state stopped(struct process *p)
{
    p->pid = 0;
    p->deadline_ms = 0;
    return PROCESS_STOPPED;
}

static enum process_state (*const table[PROCESS_STATES][PROCESS_EVENTS])(struct process *) = {
    [PROCESS_STARTING] = {[PROCESS_SAID_READY] = announce,
                          [PROCESS_DIED] = died,
                          [PROCESS_STOP] = stop,
                          [PROCESS_RESTART] = restart},
    [PROCESS_READY] = {[PROCESS_DIED] = died, [PROCESS_STOP] = stop, [PROCESS_RESTART] = restart},
    [PROCESS_WAITING] =
        {[PROCESS_DEADLINE] = start_again, [PROCESS_STOP] = stopped, [PROCESS_RESTART] = start_afresh},
    /* A second signal is impatience. */
    [PROCESS_STOPPING] = {[PROCESS_DIED] = stopped, [PROCESS_DEADLINE] = kill_now, [PROCESS_STOP] = kill_now},
    [PROCESS_RESTARTING] =
        {[PROCESS_DIED] = start_afresh, [PROCESS_DEADLINE] = kill_now, [PROCESS_STOP] = stop_for_good},
    [PROCESS_ERRORED] = {[PROCESS_STOP] = stopped, [PROCESS_RESTART] = start_afresh},
};

void process_handle(struct process *p, enum process_event event)
{
    if (!table[p->state][event])
        return;
    p->state = table[p->state][event](p);
    p->owner->on_change(p->owner);
}

void process_start(struct process *p, struct process_owner *owner, unsigned index, int core)
{
    *p = (struct process){
        .owner = owner, .index = index, .core = core, .ready_fd = -1, .backoff_ms = BACKOFF_FIRST_MS};
    p->state = start(p);
    owner->on_change(owner);
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

void process_on_child(struct process *p)
{
    int status = 0;

    if (p->pid <= 0 || waitpid(p->pid, &status, WNOHANG) != p->pid)
        return;
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
    if (p->pid > 0 && kill(p->pid, SIGKILL) == 0)
        waitpid(p->pid, NULL, 0);
    p->pid = 0;
    p->state = PROCESS_STOPPED;
    close_ready_fd(p);
}
