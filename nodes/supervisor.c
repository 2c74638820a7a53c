/* One thread around poll(): signals, the socket of the other verbs, the pipes on which nodes say that they are
 * ready, the descriptors that tell of a process's end, and the next deadline. What happens to a process is process.c's
 * table; what else there is to do has a file of its own (supervisor_parts.h). */
#include "supervisor.h"
#include "container.h"
#include "detach.h"
#include "logfile.h"
#include "supervisor_parts.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    PROCESSES_MAX = NODES_MAX + 4,
    OTHER_FDS = 3,
    TURN_EVERY_MS = 1000,
};

/* ---- what there is ---- */

static struct supervisor *supervisor_of(struct process_owner *owner)
{
    return (struct supervisor *)(void *)owner;
}

static unsigned list_processes(struct supervisor *s, struct process *list[PROCESSES_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->nodes_n; i++)
        list[n++] = &s->nodes[i];
    list[n++] = &s->reload.next;
    list[n++] = &s->reload.old;
    list[n++] = &s->redis.process;
    list[n++] = &s->monitor.process;
    return n;
}

unsigned supervisor_count(const struct supervisor *s, enum process_state state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->nodes_n; i++)
        n += s->nodes[i].state == state;
    return n;
}

void supervisor_init_node(struct supervisor *s, struct process *node, unsigned index)
{
    char name[16];

    snprintf(name, sizeof name, "node %u", index);
    process_init(node, &s->owner, name);
    node->index = index;
    node->core = s->cores_n > 0 ? s->cores[index % s->cores_n] : -1;
}

/* ---- what others are told ---- */

static void describe_node(const struct supervisor *s, const struct process *p, struct rundir_node *node)
{
    *node = (struct rundir_node){.core = p->core, .port = s->config.port + 1 + p->index};
    process_describe(p, &node->process);
}

static void describe(const struct supervisor *s, struct rundir_state *state)
{
    const char *url = redis_server_url(&s->redis);
    bool is_given =
        !url[0] && strcmp(s->config.redis, "none") != 0 && strcmp(s->config.redis, "private") != 0;

    *state = (struct rundir_state){.port = s->config.port,
                                   .nodes_n = s->nodes_n,
                                   .old_index = s->reload.old.index,
                                   .next_index = s->reload.next.index,
                                   .reloads = s->reload.count,
                                   .reloading = s->reload.active};
    snprintf(state->bind, sizeof state->bind, "%s", s->config.bind);
    snprintf(state->reload_error, sizeof state->reload_error, "%s", s->reload.error);
    snprintf(state->redis_url, sizeof state->redis_url, "%s", is_given ? s->config.redis : url);
    for (unsigned i = 0; i < s->nodes_n; i++)
        describe_node(s, &s->nodes[i], &state->nodes[i]);
    describe_node(s, &s->reload.old, &state->old);
    describe_node(s, &s->reload.next, &state->next);
    process_describe(&s->redis.process, &state->redis);
    process_describe(&s->monitor.process, &state->agent);
}

size_t supervisor_format(const struct supervisor *s, char text[RUNDIR_TEXT_BYTES])
{
    struct rundir_state state;

    describe(s, &state);
    return rundir_format(&state, text);
}

void supervisor_save(struct supervisor *s)
{
    struct rundir_state state;

    if (s->keeps_state)
        return;
    describe(s, &state);
    if (rundir_save(&s->dir, &state) != 0)
        fprintf(stderr, "starling up: cannot write the state to %s: %s\n", s->dir.path, strerror(errno));
}

static void on_node_change(struct process_owner *owner)
{
    supervisor_save(supervisor_of(owner));
}

static void on_redis_change(void *user)
{
    supervisor_save(user);
}

static void announce(struct process_owner *owner, const struct process *p)
{
    struct supervisor *s = supervisor_of(owner);
    char core[16] = "any";

    if (p->core >= 0)
        snprintf(core, sizeof core, "%d", p->core);
    printf("node %u: ready http://%s:%" PRIu32 " pid %d core %s\n", p->index, s->config.bind,
           s->config.port + 1 + p->index, (int)p->pid, core);
    fflush(stdout);
}

static void announce_all(struct supervisor *s)
{
    if (supervisor_count(s, PROCESS_ERRORED) > 0 && !s->announced)
        detach_fail(&s->detach_fd);
    if (s->announced || s->stopping || !s->nodes_begun || supervisor_count(s, PROCESS_READY) != s->nodes_n)
        return;
    s->announced = true;
    printf("ready: http://%s:%" PRIu32 "\n", s->config.bind, s->config.port);
    fflush(stdout);
    notify_say(&s->notify, "READY=1\nSTATUS=all nodes are ready");
    detach_done(&s->detach_fd, &s->dir);
}

/* ---- what processes start with ---- */

int supervisor_read_config(const struct supervisor *s, struct config *config)
{
    int rc = config_parse(s->argc, s->argv, CONFIG_UP, config);

    if (rc != 0 || config->redis[0])
        return rc;
    free(config->redis);
    config->redis = strdup("private");
    return config->redis ? 0 : 1;
}

void supervisor_use_config(struct supervisor *s, char **shared)
{
    for (char **argument = s->shared; argument && *argument; argument++)
        free(*argument);
    free(s->shared);
    s->shared = shared;
    s->owner.listen_timeout_ms = s->config.listen_timeout_ms;
    s->owner.kill_timeout_ms = s->config.kill_timeout_ms;
}

void supervisor_add_node(struct supervisor *s)
{
    unsigned index = s->nodes_n++;

    supervisor_init_node(s, &s->nodes[index], index);
    process_start(&s->nodes[index]);
}

/* ---- the loop ---- */

static void on_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        orders_stop(s);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static int time_to_wait(struct supervisor *s)
{
    struct process *list[PROCESSES_MAX];
    unsigned n = list_processes(s, list);
    uint64_t next =
        earlier(earlier(s->control.deadline_ms, watch_next_ms(s)), redis_server_next_ms(&s->redis));
    uint64_t now = process_now_ms();

    for (unsigned i = 0; i < n; i++)
        next = earlier(next, list[i]->deadline_ms);
    return next > now ? (int)(next - now) : 0;
}

/* Nodes are told of a Redis that is there. One that takes its time (it reads its file) does not keep them waiting for
 * ever: they find it later. */
static void begin_nodes(struct supervisor *s)
{
    bool is_late = process_now_ms() - s->begun_ms > s->config.listen_timeout_ms;

    if (s->nodes_begun || s->stopping || (!redis_server_is_settled(&s->redis) && !is_late))
        return;
    if (!redis_server_is_settled(&s->redis))
        fprintf(stderr, "starling up: redis-server does not answer yet; the nodes start without it\n");
    s->nodes_begun = true;
    for (unsigned i = 0; i < s->nodes_n; i++) {
        if (i >= s->config.nodes)
            process_handle(&s->nodes[i], PROCESS_DRAIN);
        else if (!process_is_in_use(&s->nodes[i]))
            process_start(&s->nodes[i]);
        else if (s->nodes[i].state == PROCESS_READY)
            announce(&s->owner, &s->nodes[i]);
    }
    while (s->nodes_n < s->config.nodes)
        supervisor_add_node(s);
}

/* Those of processes that do not turn their files over by themselves; our own is there after a --detach. */
static void turn_logs_over(struct supervisor *s)
{
    static const char *const names[] = {"agent.log", "redis.log"};
    char path[PATH_MAX];
    struct logfile log = {path, s->config.log_bytes, s->config.log_files};

    if (s->config.log_bytes == 0 || process_now_ms() < s->turned_ms + TURN_EVERY_MS)
        return;
    s->turned_ms = process_now_ms();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (rundir_file(&s->dir, names[i], path, sizeof path))
            logfile_limit(&log);
    }
    if (s->config.detach && s->announced && rundir_file(&s->dir, "supervisor.log", path, sizeof path))
        logfile_check(&log);
}

static void on_time(struct supervisor *s)
{
    struct process *list[PROCESSES_MAX];
    unsigned n = list_processes(s, list);

    notify_tick(&s->notify, process_now_ms());
    control_expire(&s->control, process_now_ms());
    redis_server_on_time(&s->redis);
    for (unsigned i = 0; i < n; i++)
        process_on_time(list[i]);
    watch_look(s);
    begin_nodes(s);
    reload_step(s);
    monitor_step(&s->monitor);
    turn_logs_over(s);
    /* Indices have no gaps: a node that has stopped stays listed until those after it have. */
    for (; s->nodes_begun && s->nodes_n > 0 && s->nodes[s->nodes_n - 1].state == PROCESS_STOPPED;
         supervisor_save(s))
        s->nodes_n--;
    announce_all(s);
}

static int turn(struct supervisor *s)
{
    struct pollfd wait[OTHER_FDS + 2 * PROCESSES_MAX] = {{.fd = s->signal_fd, .events = POLLIN},
                                                         {.fd = control_fd(&s->control), .events = POLLIN},
                                                         {.fd = s->redis.ping_fd, .events = POLLIN}};
    struct process *list[PROCESSES_MAX];
    unsigned count = list_processes(s, list);
    struct pollfd *ready = wait + OTHER_FDS, *ended = ready + count;
    const char *request;
    int n;

    for (unsigned i = 0; i < count; i++) {
        ready[i] = (struct pollfd){.fd = list[i]->ready_fd, .events = POLLIN};
        ended[i] = (struct pollfd){.fd = list[i]->pid_fd, .events = POLLIN};
    }
    n = poll(wait, OTHER_FDS + 2 * count, time_to_wait(s));
    if (n < 0 && errno != EINTR) {
        fprintf(stderr, "starling up: poll: %s\n", strerror(errno));
        return -1;
    }
    for (unsigned i = 0; n > 0 && i < count; i++) {
        if (ready[i].revents)
            process_on_ready_fd(list[i]);
        if (ended[i].revents)
            process_on_end(list[i]);
    }
    if (n > 0 && wait[2].revents)
        redis_server_on_pong(&s->redis);
    if (n > 0 && wait[0].revents)
        on_signal(s);
    if (n > 0 && wait[1].revents && (request = control_read(&s->control, process_now_ms())))
        orders_take(s, request);
    on_time(s);
    return 0;
}

static bool has_nodes(const struct supervisor *s)
{
    if (process_is_in_use(&s->reload.next) || process_is_in_use(&s->reload.old))
        return true;
    if (!s->nodes_begun)
        return !s->stopping || s->nodes_n > supervisor_count(s, PROCESS_STOPPED);
    return supervisor_count(s, PROCESS_ERRORED) < s->nodes_n;
}

static int give_up(struct supervisor *s)
{
    struct process *list[PROCESSES_MAX];
    unsigned n = list_processes(s, list);

    for (unsigned i = 0; i < n; i++)
        process_kill(list[i]);
    return 1;
}

static int loop(struct supervisor *s)
{
    int exit_code = 0;

    while (has_nodes(s)) {
        if (turn(s) != 0)
            return give_up(s);
    }
    for (unsigned i = 0; i < s->nodes_n; i++)
        exit_code = s->nodes[i].exit_code > exit_code ? s->nodes[i].exit_code : exit_code;
    s->stopping = true;
    process_handle(&s->redis.process, PROCESS_STOP);
    while (process_is_in_use(&s->redis.process) || process_is_in_use(&s->monitor.process)) {
        if (turn(s) != 0)
            return give_up(s);
    }
    return exit_code;
}

/* ---- start and end ---- */

static int check_config(struct supervisor *s)
{
    if (s->config.nodes == 0)
        s->config.nodes = s->cores_n == 0 ? 1 : s->cores_n < NODES_MAX ? s->cores_n : NODES_MAX;
    if (ports_highest(s, s->config.nodes) > UINT16_MAX) {
        fprintf(stderr,
                "starling up: --port takes a lower number with %" PRIu32
                " nodes, since they need ports up to %" PRIu32 "\n",
                s->config.nodes, ports_highest(s, s->config.nodes));
        return EXIT_USAGE;
    }
    if (!rundir_is_usable(&s->dir)) {
        fprintf(stderr,
                "starling up: --run-dir takes up to %d characters without a comma and a percent sign, not "
                "\"%s\"\n",
                RUNDIR_PATH_CHARS, s->dir.path);
        return EXIT_USAGE;
    }
    if (s->config.detach && s->config.log_bytes == 0) {
        fprintf(stderr, "starling up: --detach needs files to log to: --log-bytes takes more than 0\n");
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

static int block_signals(struct supervisor *s)
{
    sigset_t mask;

    signal(SIGPIPE, SIG_IGN); /* whoever read our lines may leave */
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    sigprocmask(SIG_BLOCK, &mask, &s->owner.mask);
    s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
    return s->signal_fd < 0;
}

static int begin_redis(struct supervisor *s)
{
    if (strcmp(s->config.redis, "private") != 0 || s->redis.is_wanted)
        return 0;
    if (s->config.peers[0] || s->config.advertise[0])
        fprintf(
            stderr,
            "starling up: each host has a Redis of its own, so clients of a node that dies recover on the "
            "same host only; give all hosts the same --redis URL\n");
    if (!redis_server_start(&s->redis))
        fprintf(
            stderr,
            "starling up: there is no redis-server in PATH, so clients of a node that dies cannot recover "
            "what they miss (no recovery across a node's death); install it, give a --redis URL, or say "
            "--redis none\n");
    return 0;
}

static int find_program(const char *name, bool is_wanted, char path[PATH_MAX])
{
    if (rundir_program(name, path) || !is_wanted)
        return 0;
    fprintf(stderr, "starling up: cannot run %s: %s\n", path, strerror(errno));
    return 1;
}

static int prepare(struct supervisor *s)
{
    int rc;

    umask(0077); /* all that lies in the run directory is its owner's alone */
    rundir_init(&s->dir, s->config.run_dir);
    find_cores(s);
    rc = check_config(s);
    if (s->config.no_pin)
        s->cores_n = 0;
    if (rc == 0)
        rc = find_program("starling-node", true, s->program);
    if (rc == 0)
        rc = find_program("starling-agent", s->config.agent, s->monitor.program);
    if (rc == 0)
        rc = rundir_acquire(&s->dir);
    if (rc != 0)
        return rc;
    supervisor_use_config(s, config_node_arguments(&s->config));
    if (!s->shared || block_signals(s) != 0) {
        fprintf(stderr, "starling up: %s\n", strerror(errno));
        return 1;
    }
    monitor_init(&s->monitor, s);
    redis_server_init(&s->redis, &s->dir, &s->owner.mask);
    reload_init(s);
    s->keeps_state = true;
    rc = takeover_run(s);
    s->keeps_state = false;
    if (rc == 0 && control_listen(&s->control, &s->dir) != 0) {
        fprintf(stderr, "starling up: cannot listen on %s/control: %s\n", s->dir.path, strerror(errno));
        rc = 1;
    }
    if (rc != 0)
        return rc;
    supervisor_save(s);
    s->begun_ms = process_now_ms();
    return begin_redis(s);
}

static void deinit(struct supervisor *s)
{
    supervisor_use_config(s, NULL);
    control_close(&s->control, &s->dir);
    redis_server_deinit(&s->redis);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    rundir_release(&s->dir);
    notify_deinit(&s->notify);
    config_free(&s->config);
}

int supervisor_run(int argc, char **argv)
{
    struct supervisor s = {.argc = argc,
                           .argv = argv,
                           .owner = {.arguments = launch_arguments,
                                     .in_child = launch_in_child,
                                     .on_ready = announce,
                                     .on_change = on_node_change},
                           .dir.lock_fd = -1,
                           .control = {.listen_fd = -1, .client_fd = -1},
                           .notify.fd = -1,
                           .redis = {.ping_fd = -1, .on_change = on_redis_change, .user = &s},
                           .detach_fd = -1,
                           .signal_fd = -1};
    int rc = supervisor_read_config(&s, &s.config);

    s.owner.program = s.program;
    if (rc == 0 && s.config.detach && detach_begin(&s.detach_fd, &rc)) {
        config_free(&s.config);
        return rc;
    }
    notify_init(&s.notify);
    if (rc == 0)
        rc = prepare(&s);
    if (rc == 0)
        rc = loop(&s);
    deinit(&s);
    return rc == CONFIG_SHOWN ? 0 : rc;
}
