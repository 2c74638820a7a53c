/* One thread around poll(): signals, the pipe on which a node says that it is ready, and one deadline. What
 * happens to a process is the table below: state and event give an action and the next state. */
#include "supervisor.h"
#include "config.h"
#include "rundir.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
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
    NODE_ARGUMENTS_MAX = 64,
};

enum state { STARTING, READY, WAITING, STOPPING, STOPPED, STATE_COUNT };
enum event { SAID_READY, DIED, DEADLINE, STOP, EVENT_COUNT };

static const char *const state_names[] = {"starting", "ready", "waiting", "stopping", "stopped"};

struct supervisor {
    struct config config;
    struct rundir dir;
    char program[PATH_MAX]; /* starling-node */
    char **shared;          /* arguments that the node takes over from us */
    sigset_t old_mask;
    int signal_fd, exit_code;
    bool announced; /* the line that all nodes are ready has been printed */

    /* The one node of this version. */
    enum state state;
    pid_t pid; /* 0: no process */
    int core;  /* -1: any */
    int ready_fd, wait_status;
    uint64_t started_ms, deadline_ms; /* deadline 0: none */
    unsigned restarts, early_deaths, backoff_ms;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void save(const struct supervisor *s)
{
    struct rundir_state state = {.port = s->config.port,
                                 .node = {.pid = s->pid,
                                          .core = s->core,
                                          .port = s->config.port + 1,
                                          .restarts = s->restarts,
                                          .started_ms = s->started_ms}};

    snprintf(state.bind, sizeof state.bind, "%s", s->config.bind);
    snprintf(state.node.state, sizeof state.node.state, "%s", state_names[s->state]);
    if (rundir_save(&s->dir, &state) != 0)
        fprintf(stderr, "starling up: cannot write the state to %s: %s\n", s->dir.path, strerror(errno));
}

static int find_program(struct supervisor *s)
{
    ssize_t n = readlink("/proc/self/exe", s->program, sizeof s->program - sizeof "/starling-node");
    char *slash;

    s->program[n > 0 ? n : 0] = '\0';
    slash = strrchr(s->program, '/');
    if (slash)
        strcpy(slash, "/starling-node");
    if (!slash || access(s->program, X_OK) != 0) {
        fprintf(stderr, "starling up: cannot run %s: %s\n", s->program, strerror(errno));
        return 1;
    }
    return 0;
}

/* Nodes share their port by SO_REUSEPORT, so a second bus would not fail by itself but take half of the
 * clients: a socket without it finds out. */
static int check_port(const struct supervisor *s, uint32_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, rc = 0;

    inet_pton(AF_INET, s->config.bind, &address.sin_addr);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        bool taken = errno == EADDRINUSE;
        fprintf(stderr, "starling up: port %" PRIu32 " %s on %s%s%s\n", port,
                taken ? "is taken by another program" : "cannot be used", s->config.bind, taken ? "" : ": ",
                taken ? "; --port takes another one" : strerror(errno));
        rc = 1;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static int first_core(void)
{
    cpu_set_t allowed;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return -1;
    for (size_t core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &allowed))
            return (int)core;
    }
    return -1;
}

/* In the child, and nothing may be left behind: when the supervisor is gone the node ends too. */
__attribute__((noreturn)) static void run_node(const struct supervisor *s, char **argv, int ready_fd,
                                               pid_t parent)
{
    /* Of the terminal's Ctrl-C it hears from us alone: a second signal would cut its farewell to the clients.
     */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    if (ready_fd == READY_FD)
        fcntl(READY_FD, F_SETFD, 0);
    else
        dup2(ready_fd, READY_FD);
    /* Our standard output is for the lines that we promise. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
    execv(s->program, argv);
    dprintf(STDERR_FILENO, "starling up: cannot run %s: %s\n", s->program, strerror(errno));
    _exit(1);
}

static int spawn(struct supervisor *s)
{
    char port[24], node_port[24], core[24], *argv[NODE_ARGUMENTS_MAX];
    int n = 0, ready[2];
    pid_t parent = getpid();

    argv[n++] = s->program;
    for (char **shared = s->shared; *shared && n < NODE_ARGUMENTS_MAX - 6; shared++)
        argv[n++] = *shared;
    snprintf(port, sizeof port, "--port=%" PRIu32, s->config.port);
    snprintf(node_port, sizeof node_port, "--node-port=%" PRIu32, s->config.port + 1);
    snprintf(core, sizeof core, "--core=%d", s->core);
    argv[n++] = port;
    argv[n++] = node_port;
    argv[n++] = core;
    argv[n++] = (char[]){"--ready-fd=3"};
    argv[n] = NULL;
    if (pipe2(ready, O_CLOEXEC) != 0)
        return -1;
    s->pid = fork();
    if (s->pid == 0)
        run_node(s, argv, ready[1], parent);
    close(ready[1]);
    if (s->pid < 0) {
        s->pid = 0;
        close(ready[0]);
        return -1;
    }
    s->ready_fd = ready[0];
    return 0;
}

/* Actions: what an event does, and the state afterwards. */

static enum state wait_to_start(struct supervisor *s)
{
    s->deadline_ms = now_ms() + s->backoff_ms;
    s->backoff_ms = s->backoff_ms * 2 < BACKOFF_LAST_MS ? s->backoff_ms * 2 : BACKOFF_LAST_MS;
    return WAITING;
}

static enum state start(struct supervisor *s)
{
    s->started_ms = now_ms();
    s->deadline_ms = 0;
    if (spawn(s) == 0)
        return STARTING;
    fprintf(stderr, "node 0: cannot be started: %s\n", strerror(errno));
    return wait_to_start(s);
}

static enum state start_again(struct supervisor *s)
{
    s->restarts++;
    return start(s);
}

static enum state announce(struct supervisor *s)
{
    char core[16] = "any";

    if (s->core >= 0)
        snprintf(core, sizeof core, "%d", s->core);
    printf("node 0: ready http://%s:%" PRIu32 " pid %d core %s\n", s->config.bind, s->config.port + 1,
           (int)s->pid, core);
    if (!s->announced)
        printf("ready: http://%s:%" PRIu32 "\n", s->config.bind, s->config.port);
    s->announced = true;
    fflush(stdout);
    return READY;
}

static enum state give_up(struct supervisor *s, int exit_code, const char *why)
{
    fprintf(stderr, "starling up: node 0 %s; giving up\n", why);
    s->exit_code = exit_code;
    return STOPPED;
}

static enum state died(struct supervisor *s)
{
    uint64_t lived_ms = now_ms() - s->started_ms;
    bool by_signal = WIFSIGNALED(s->wait_status);
    int code = by_signal ? WTERMSIG(s->wait_status) : WEXITSTATUS(s->wait_status);

    fprintf(stderr, "node 0: pid %d ended with %s %d\n", (int)s->pid, by_signal ? "signal" : "exit code",
            code);
    s->pid = 0;
    if (!by_signal && code == EXIT_USAGE)
        return give_up(s, EXIT_USAGE, "does not take its options");
    s->early_deaths = lived_ms < EARLY_MS ? s->early_deaths + 1 : 0;
    if (s->early_deaths >= EARLY_DEATHS_MAX)
        return give_up(s, 1, "died five times in a row within its first second");
    if (lived_ms >= STEADY_MS)
        s->backoff_ms = BACKOFF_FIRST_MS;
    return wait_to_start(s);
}

static enum state stop(struct supervisor *s)
{
    kill(s->pid, SIGTERM);
    s->deadline_ms = now_ms() + KILL_AFTER_MS;
    return STOPPING;
}

static enum state stop_now(struct supervisor *s)
{
    kill(s->pid, SIGKILL);
    s->deadline_ms = 0;
    return STOPPING;
}

static enum state stopped(struct supervisor *s)
{
    s->pid = 0;
    s->deadline_ms = 0;
    return STOPPED;
}

static enum state (*const table[STATE_COUNT][EVENT_COUNT])(struct supervisor *) = {
    [STARTING] = {[SAID_READY] = announce, [DIED] = died, [STOP] = stop},
    [READY] = {[DIED] = died, [STOP] = stop},
    [WAITING] = {[DEADLINE] = start_again, [STOP] = stopped},
    /* A second signal is impatience. */
    [STOPPING] = {[DIED] = stopped, [DEADLINE] = stop_now, [STOP] = stop_now},
};

static void handle(struct supervisor *s, enum event event)
{
    if (!table[s->state][event])
        return;
    s->state = table[s->state][event](s);
    save(s);
}

static void close_ready_fd(struct supervisor *s)
{
    if (s->ready_fd >= 0)
        close(s->ready_fd);
    s->ready_fd = -1;
}

static void on_ready_fd(struct supervisor *s)
{
    char byte = 0;
    ssize_t n = read(s->ready_fd, &byte, 1);

    close_ready_fd(s);
    if (n == 1 && byte == '\n')
        handle(s, SAID_READY);
}

static void on_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;
    int status = 0;

    if (read(s->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo != SIGCHLD) {
        handle(s, STOP);
        return;
    }
    while (s->pid > 0 && waitpid(s->pid, &status, WNOHANG) == s->pid) {
        /* What it said last comes before its end. */
        if (s->ready_fd >= 0)
            on_ready_fd(s);
        s->wait_status = status;
        handle(s, DIED);
    }
}

static int loop(struct supervisor *s)
{
    s->state = start(s);
    save(s);
    while (s->state != STOPPED) {
        struct pollfd wait[2] = {{.fd = s->signal_fd, .events = POLLIN},
                                 {.fd = s->ready_fd, .events = POLLIN}};
        uint64_t now = now_ms();
        int timeout = s->deadline_ms == 0 ? -1 : s->deadline_ms > now ? (int)(s->deadline_ms - now) : 0;
        int n = poll(wait, 2, timeout);

        if (n < 0 && errno != EINTR) {
            fprintf(stderr, "starling up: poll: %s\n", strerror(errno));
            kill(s->pid, SIGKILL);
            return 1;
        }
        if (n > 0 && wait[1].revents)
            on_ready_fd(s);
        if (n > 0 && wait[0].revents)
            on_signal(s);
        if (s->deadline_ms != 0 && now_ms() >= s->deadline_ms)
            handle(s, DEADLINE);
    }
    return s->exit_code;
}

static int block_signals(struct supervisor *s)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &s->old_mask);
    s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
    return s->signal_fd < 0;
}

static void deinit(struct supervisor *s)
{
    for (char **shared = s->shared; shared && *shared; shared++)
        free(*shared);
    free(s->shared);
    close_ready_fd(s);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    rundir_release(&s->dir);
    config_free(&s->config);
}

int supervisor_run(int argc, char **argv)
{
    struct supervisor s = {
        .dir.lock_fd = -1, .signal_fd = -1, .ready_fd = -1, .core = -1, .backoff_ms = BACKOFF_FIRST_MS};
    int rc = config_parse(argc, argv, CONFIG_UP, &s.config);

    if (rc != 0)
        goto out;
    rundir_init(&s.dir, s.config.run_dir);
    rc = find_program(&s);
    if (rc == 0)
        rc = rundir_acquire(&s.dir);
    if (rc == 0)
        rc = check_port(&s, s.config.port);
    if (rc == 0)
        rc = check_port(&s, s.config.port + 1);
    if (rc != 0)
        goto out;
    if (!s.config.no_pin)
        s.core = first_core();
    s.shared = config_node_arguments(&s.config);
    if (!s.shared || block_signals(&s) != 0) {
        fprintf(stderr, "starling up: %s\n", strerror(errno));
        rc = 1;
        goto out;
    }
    rc = loop(&s);
out:
    deinit(&s);
    return rc == CONFIG_SHOWN ? 0 : rc;
}
