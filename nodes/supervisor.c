/* One thread around poll(): signals, the socket of the other verbs, the pipes on which nodes say that they are
 * ready, and the next deadline. What happens to a node is process.c's table. */
#include "supervisor.h"
#include "config.h"
#include "control.h"
#include "process.h"
#include "rundir.h"
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    NODES_MAX = RUNDIR_NODES_MAX,
    MESH_PORTS = 200,        /* from the public port to those of the mesh */
    MESH_ROUTER_PORTS = 100, /* from there to a node's second one */
    OWN_ARGUMENTS = 16,      /* at most, beside the shared ones */
    RUN_DIR_MAX_CHARS = 82,  /* --mesh takes 90, and it is a Unix socket's name */
};

struct supervisor {
    struct process_owner owner; /* first: callbacks get back to us from it */
    struct config config;
    struct rundir dir;
    struct control control;
    char program[PATH_MAX]; /* starling-node */
    char **shared;          /* arguments that nodes take over from us */
    int signal_fd;
    bool announced; /* the line that all nodes are ready has been printed */
    bool has_mesh;
    int cores[CPU_SETSIZE];
    unsigned cores_n;
    unsigned nodes_n;
    struct process nodes[NODES_MAX];
};

/* What the nodes are told */

static bool is_leaving(const struct process *p)
{
    return p->state == PROCESS_STOPPING || p->state == PROCESS_STOPPED;
}

__attribute__((format(printf, 3, 4))) static bool add(char **argv, size_t *n, const char *format, ...)
{
    va_list args;
    int rc;

    va_start(args, format);
    rc = vasprintf(&argv[*n], format, args);
    va_end(args);
    if (rc < 0)
        argv[*n] = NULL;
    *n += rc >= 0;
    return rc >= 0;
}

static bool add_siblings(const struct supervisor *s, char **argv, size_t *n, unsigned index)
{
    char *list = NULL;
    size_t size;
    FILE *to = open_memstream(&list, &size);
    unsigned count = 0;
    bool good;

    if (!to)
        return false;
    for (unsigned i = 0; i < s->nodes_n; i++) {
        if (i != index && !is_leaving(&s->nodes[i]))
            fprintf(to, "%s%s/mesh-%u", count++ > 0 ? "," : "", s->dir.path, i);
    }
    good = fclose(to) == 0 && (count == 0 || add(argv, n, "--siblings=%s", list));
    free(list);
    return good;
}

static char **arguments(struct process_owner *owner, const struct process *p)
{
    struct supervisor *s = (struct supervisor *)(void *)owner;
    char **argv = calloc(CONFIG_OPTION_COUNT + OWN_ARGUMENTS, sizeof *argv);
    size_t n = 0;
    bool good = argv && add(argv, &n, "%s", s->program) && add(argv, &n, "--port=%" PRIu32, s->config.port) &&
                add(argv, &n, "--node-port=%" PRIu32, s->config.port + 1 + p->index) &&
                add(argv, &n, "--core=%d", p->core) && add(argv, &n, "--ready-fd=3") &&
                add(argv, &n, "--name=%.60s-%u", s->config.name, p->index);

    for (char **shared = s->shared; good && *shared; shared++)
        good = add(argv, &n, "%s", *shared);
    if (good && s->has_mesh)
        good =
            add(argv, &n, "--mesh=%s/mesh-%u", s->dir.path, p->index) && add_siblings(s, argv, &n, p->index);
    if (good && s->config.peers[0])
        good = add(argv, &n, "--mesh-port=%" PRIu32, s->config.port + MESH_PORTS + p->index);
    if (good)
        return argv;
    while (argv && n > 0)
        free(argv[--n]);
    free(argv);
    return NULL;
}

/* What they tell us */

static void describe(const struct supervisor *s, struct rundir_state *state)
{
    *state = (struct rundir_state){.port = s->config.port, .nodes_n = s->nodes_n};
    snprintf(state->bind, sizeof state->bind, "%s", s->config.bind);
    for (unsigned i = 0; i < s->nodes_n; i++) {
        const struct process *p = &s->nodes[i];
        struct rundir_node *node = &state->nodes[i];
        *node = (struct rundir_node){.pid = p->pid,
                                     .core = p->core,
                                     .port = s->config.port + 1 + i,
                                     .restarts = p->restarts,
                                     .started_ms = p->started_ms};
        snprintf(node->state, sizeof node->state, "%s", process_state_name(p->state));
    }
}

static void save(struct process_owner *owner)
{
    struct supervisor *s = (struct supervisor *)(void *)owner;
    struct rundir_state state;

    describe(s, &state);
    if (rundir_save(&s->dir, &state) != 0)
        fprintf(stderr, "starling up: cannot write the state to %s: %s\n", s->dir.path, strerror(errno));
}

static unsigned count(const struct supervisor *s, enum process_state state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->nodes_n; i++)
        n += s->nodes[i].state == state;
    return n;
}

static void announce(struct process_owner *owner, const struct process *p)
{
    struct supervisor *s = (struct supervisor *)(void *)owner;
    char core[16] = "any";

    if (p->core >= 0)
        snprintf(core, sizeof core, "%d", p->core);
    printf("node %u: ready http://%s:%" PRIu32 " pid %d core %s\n", p->index, s->config.bind,
           s->config.port + 1 + p->index, (int)p->pid, core);
    if (!s->announced && count(s, PROCESS_READY) == s->nodes_n) {
        printf("ready: http://%s:%" PRIu32 "\n", s->config.bind, s->config.port);
        s->announced = true;
    }
    fflush(stdout);
}

/* Ports */

static uint32_t highest_port(const struct supervisor *s, unsigned nodes_n)
{
    uint32_t first = s->config.peers[0] ? MESH_PORTS + MESH_ROUTER_PORTS : 1;
    return s->config.port + first + nodes_n - 1;
}

/* Nodes share their port by SO_REUSEPORT, so a second bus would not fail by itself but take half of the
 * clients: a socket without it finds out. 0 or errno. */
static int try_port(const struct supervisor *s, uint32_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, rc = 0;

    inet_pton(AF_INET, s->config.bind, &address.sin_addr);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        rc = errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The first of these ports that cannot be had: true, and a sentence about it. */
static bool find_bad_port(const struct supervisor *s, const uint32_t *ports, size_t n, char *out, size_t size)
{
    for (size_t i = 0; i < n; i++) {
        int rc = try_port(s, ports[i]);
        if (rc == EADDRINUSE)
            snprintf(out, size, "port %" PRIu32 " is taken by another program on %s", ports[i],
                     s->config.bind);
        else if (rc != 0)
            snprintf(out, size, "port %" PRIu32 " cannot be used on %s: %s", ports[i], s->config.bind,
                     strerror(rc));
        if (rc != 0)
            return true;
    }
    return false;
}

static bool find_bad_node_port(const struct supervisor *s, unsigned index, char *out, size_t size)
{
    uint32_t port = s->config.port + index;
    uint32_t ports[] = {port + 1, port + MESH_PORTS, port + MESH_PORTS + MESH_ROUTER_PORTS};

    return find_bad_port(s, ports, s->config.peers[0] ? 3 : 1, out, size);
}

static int check_ports(const struct supervisor *s)
{
    char problem[256];
    bool bad = find_bad_port(s, &s->config.port, 1, problem, sizeof problem);

    for (unsigned i = 0; i < s->config.nodes && !bad; i++)
        bad = find_bad_node_port(s, i, problem, sizeof problem);
    if (bad)
        fprintf(stderr, "starling up: %s; --port takes another one\n", problem);
    return bad;
}

/* What the other verbs ask for: NULL, or why it is not done (in problem, or lasting). */

static const char *stop_all(struct supervisor *s)
{
    for (unsigned i = 0; i < s->nodes_n; i++)
        process_handle(&s->nodes[i], PROCESS_STOP);
    return NULL;
}

static const char *restart(struct supervisor *s, unsigned index, char *problem, size_t size)
{
    if (index >= s->nodes_n) {
        snprintf(problem, size, "there is no node %u: the last one is %u", index, s->nodes_n - 1);
        return problem;
    }
    if (is_leaving(&s->nodes[index]))
        return "the node is being stopped";
    process_handle(&s->nodes[index], PROCESS_RESTART);
    return NULL;
}

static void add_node(struct supervisor *s)
{
    unsigned index = s->nodes_n++;
    int core = s->cores_n > 0 ? s->cores[index % s->cores_n] : -1;

    process_start(&s->nodes[index], &s->owner, index, core);
}

/* Nodes that are there already hear of a new one from itself. */
static const char *scale(struct supervisor *s, unsigned wanted, char *problem, size_t size)
{
    if (wanted < 1 || wanted > NODES_MAX)
        return "the number of nodes is from 1 to 99";
    if (count(s, PROCESS_STOPPING) + count(s, PROCESS_STOPPED) > 0)
        return "a node is still being stopped";
    if (wanted > s->nodes_n && !s->has_mesh)
        return "the bus was started with one node, which works alone; `up -n 2` or more can grow";
    if (highest_port(s, wanted) > UINT16_MAX)
        return "there are not enough ports above that of the bus";
    for (unsigned i = s->nodes_n; i < wanted; i++) {
        if (find_bad_node_port(s, i, problem, size))
            return problem;
    }
    for (unsigned i = s->nodes_n; i > wanted; i--)
        process_handle(&s->nodes[i - 1], PROCESS_STOP);
    while (s->nodes_n < wanted)
        add_node(s);
    return NULL;
}

static void answer_state(struct supervisor *s)
{
    struct rundir_state state;
    char text[RUNDIR_TEXT_BYTES];

    describe(s, &state);
    control_answer(&s->control, text, rundir_format(&state, text));
}

/* Sentences of ours: nothing in them needs an escape. */
static void answer(struct supervisor *s, const char *error)
{
    char line[512];
    int n = error ? snprintf(line, sizeof line, "{\"ok\":false,\"error\":\"%s\"}\n", error)
                  : snprintf(line, sizeof line, "{\"ok\":true}\n");

    control_answer(&s->control, line, (size_t)n);
}

static void on_request(struct supervisor *s, const char *request)
{
    char problem[256], rest;
    unsigned number;

    if (strcmp(request, "ps") == 0)
        answer_state(s);
    else if (strcmp(request, "stop") == 0)
        answer(s, stop_all(s));
    else if (sscanf(request, "restart %3u%c", &number, &rest) == 1)
        answer(s, restart(s, number, problem, sizeof problem));
    else if (sscanf(request, "scale %3u%c", &number, &rest) == 1)
        answer(s, scale(s, number, problem, sizeof problem));
    else
        answer(s, "this is no command of this version");
}

/* The loop */

static void on_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo != SIGCHLD) {
        stop_all(s);
        return;
    }
    for (unsigned i = 0; i < s->nodes_n; i++)
        process_on_child(&s->nodes[i]);
}

static int time_to_wait(const struct supervisor *s)
{
    uint64_t next = s->control.deadline_ms, now = process_now_ms();

    for (unsigned i = 0; i < s->nodes_n; i++) {
        uint64_t deadline = s->nodes[i].deadline_ms;
        if (deadline != 0 && (next == 0 || deadline < next))
            next = deadline;
    }
    return next == 0 ? -1 : next > now ? (int)(next - now) : 0;
}

static void on_time(struct supervisor *s)
{
    control_expire(&s->control, process_now_ms());
    for (unsigned i = 0; i < s->nodes_n; i++)
        process_on_time(&s->nodes[i]);
    /* Indices have no gaps: a node that has stopped stays listed until those after it have. */
    for (; s->nodes_n > 0 && s->nodes[s->nodes_n - 1].state == PROCESS_STOPPED; save(&s->owner))
        s->nodes_n--;
}

static int turn(struct supervisor *s)
{
    struct pollfd wait[2 + NODES_MAX] = {{.fd = s->signal_fd, .events = POLLIN},
                                         {.fd = control_fd(&s->control), .events = POLLIN}};
    unsigned nodes_n = s->nodes_n;
    const char *request;
    int n;

    for (unsigned i = 0; i < nodes_n; i++)
        wait[2 + i] = (struct pollfd){.fd = s->nodes[i].ready_fd, .events = POLLIN};
    n = poll(wait, 2 + nodes_n, time_to_wait(s));
    if (n < 0 && errno != EINTR) {
        fprintf(stderr, "starling up: poll: %s\n", strerror(errno));
        return -1;
    }
    for (unsigned i = 0; n > 0 && i < nodes_n; i++) {
        if (wait[2 + i].revents)
            process_on_ready_fd(&s->nodes[i]);
    }
    if (n > 0 && wait[0].revents)
        on_signal(s);
    if (n > 0 && wait[1].revents && (request = control_read(&s->control, process_now_ms())))
        on_request(s, request);
    on_time(s);
    return 0;
}

static int loop(struct supervisor *s)
{
    int exit_code = 0;

    while (s->nodes_n < s->config.nodes)
        add_node(s);
    while (s->nodes_n > 0 && count(s, PROCESS_ERRORED) < s->nodes_n) {
        if (turn(s) != 0) {
            for (unsigned i = 0; i < s->nodes_n; i++)
                process_kill(&s->nodes[i]);
            return 1;
        }
    }
    for (unsigned i = 0; i < s->nodes_n; i++)
        exit_code = s->nodes[i].exit_code > exit_code ? s->nodes[i].exit_code : exit_code;
    return exit_code;
}

/* Start and end */

static int check_config(struct supervisor *s)
{
    if (s->config.nodes == 0)
        s->config.nodes = s->cores_n == 0 ? 1 : s->cores_n < NODES_MAX ? s->cores_n : NODES_MAX;
    s->has_mesh = s->config.nodes > 1;
    if (highest_port(s, s->config.nodes) > UINT16_MAX) {
        fprintf(stderr,
                "starling up: --port takes a lower number with %" PRIu32
                " nodes, since they need ports up to %" PRIu32 "\n",
                s->config.nodes, highest_port(s, s->config.nodes));
        return EXIT_USAGE;
    }
    if (strlen(s->dir.path) > RUN_DIR_MAX_CHARS || strchr(s->dir.path, ',')) {
        fprintf(stderr, "starling up: --run-dir takes up to %d characters without a comma, not \"%s\"\n",
                RUN_DIR_MAX_CHARS, s->dir.path);
        return EXIT_USAGE;
    }
    return 0;
}

static void find_cores(struct supervisor *s)
{
    cpu_set_t allowed;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (size_t core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &allowed))
            s->cores[s->cores_n++] = (int)core;
    }
}

/* They have the ports, and nobody would look after them: a second set beside them must not be. */
static int check_orphans(const struct supervisor *s)
{
    pid_t pids[NODES_MAX];
    unsigned n = rundir_orphans(&s->dir, pids);

    if (n == 0)
        return 0;
    fprintf(stderr,
            "starling up: nodes of a supervisor that is gone still run with the run directory %s (pid",
            s->dir.path);
    for (unsigned i = 0; i < n; i++)
        fprintf(stderr, "%s %d", i > 0 ? "," : n > 1 ? "s" : "", (int)pids[i]);
    fprintf(stderr, "); `starling stop` ends them\n");
    return 1;
}

static int block_signals(struct supervisor *s)
{
    sigset_t mask;

    signal(SIGPIPE, SIG_IGN); /* whoever read our lines may leave */
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &s->owner.mask);
    s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
    return s->signal_fd < 0;
}

static int prepare(struct supervisor *s)
{
    int rc;

    rundir_init(&s->dir, s->config.run_dir);
    find_cores(s);
    rc = check_config(s);
    if (s->config.no_pin)
        s->cores_n = 0;
    if (rc == 0 && !rundir_node_program(s->program)) {
        fprintf(stderr, "starling up: cannot run %s: %s\n", s->program, strerror(errno));
        rc = 1;
    }
    if (rc == 0)
        rc = rundir_acquire(&s->dir);
    if (rc == 0)
        rc = check_orphans(s);
    if (rc == 0)
        rc = check_ports(s);
    if (rc != 0)
        return rc;
    s->shared = config_node_arguments(&s->config);
    if (!s->shared || block_signals(s) != 0 || control_listen(&s->control, &s->dir) != 0) {
        fprintf(stderr, "starling up: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}

static void deinit(struct supervisor *s)
{
    for (char **shared = s->shared; shared && *shared; shared++)
        free(*shared);
    free(s->shared);
    control_close(&s->control, &s->dir);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    rundir_release(&s->dir);
    config_free(&s->config);
}

int supervisor_run(int argc, char **argv)
{
    struct supervisor s = {.owner = {.arguments = arguments, .on_ready = announce, .on_change = save},
                           .dir.lock_fd = -1,
                           .control = {.listen_fd = -1, .client_fd = -1},
                           .signal_fd = -1};
    int rc = config_parse(argc, argv, CONFIG_UP, &s.config);

    s.owner.program = s.program;
    if (rc == 0)
        rc = prepare(&s);
    if (rc == 0)
        rc = loop(&s);
    deinit(&s);
    return rc == CONFIG_SHOWN ? 0 : rc;
}
