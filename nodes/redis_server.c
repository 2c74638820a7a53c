#include "redis_server.h"
#include "logfile.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    PING_EVERY_MS = 50,
    PONG_WITHIN_MS = 1000,
    KILL_AFTER_MS = 10000, /* it has a file to write to the end */
};

static const char socket_name[] = "redis.sock", log_name[] = "redis.log";

static struct redis_server *server_of(struct process_owner *owner)
{
    return (struct redis_server *)(void *)owner;
}

bool redis_server_find(char program[PATH_MAX])
{
    const char *path = getenv("PATH");

    for (const char *p = path ? path : ""; *p; p += strcspn(p, ":"), p += *p == ':') {
        int n = snprintf(program, PATH_MAX, "%.*s/redis-server", (int)strcspn(p, ":"), p);
        if (n < PATH_MAX && program[0] == '/' && access(program, X_OK) == 0)
            return true;
    }
    errno = ENOENT;
    return false;
}

/* No port, no snapshots beside the file, no command that could hurt other users of the machine; and it never throws
 * away what it was given. */
static char **arguments(struct process_owner *owner, const struct process *p)
{
    const struct redis_server *r = server_of(owner);
    char log_path[PATH_MAX];
    const char *const list[] = {r->program,
                                "--port",
                                "0",
                                "--unixsocket",
                                r->url + strlen("unix://"),
                                "--unixsocketperm",
                                "700",
                                "--dir",
                                r->dir->path,
                                "--logfile",
                                log_path,
                                "--appendonly",
                                "yes",
                                "--appendfsync",
                                "everysec",
                                "--save",
                                "",
                                "--maxmemory-policy",
                                "noeviction",
                                "--enable-debug-command",
                                "no",
                                "--daemonize",
                                "no"};
    enum { COUNT = sizeof list / sizeof list[0] };
    char **argv = calloc(COUNT + 1, sizeof *argv);

    (void)p;
    if (!rundir_file(r->dir, log_name, log_path, sizeof log_path))
        log_path[0] = '\0';
    for (size_t i = 0; argv && i < COUNT; i++) {
        argv[i] = strdup(list[i]);
        if (argv[i])
            continue;
        while (i > 0)
            free(argv[--i]);
        free(argv);
        return NULL;
    }
    return argv;
}

static void in_child(struct process_owner *owner, const struct process *p)
{
    const struct redis_server *r = server_of(owner);
    char path[PATH_MAX];

    (void)p;
    if (rundir_file(r->dir, log_name, path, sizeof path))
        logfile_open(&(struct logfile){.path = path});
}

static void on_ready(struct process_owner *owner, const struct process *p)
{
    (void)owner;
    (void)p;
}

static void on_change(struct process_owner *owner)
{
    struct redis_server *r = server_of(owner);

    r->on_change(r->user);
}

void redis_server_init(struct redis_server *r, const struct rundir *dir, const sigset_t *mask)
{
    r->owner = (struct process_owner){.program = r->program,
                                      .mask = *mask,
                                      .kill_timeout_ms = KILL_AFTER_MS,
                                      .arguments = arguments,
                                      .in_child = in_child,
                                      .on_ready = on_ready,
                                      .on_change = on_change};
    r->dir = dir;
    r->is_wanted = false;
    r->ping_fd = -1;
    r->ping_at_ms = 0;
    snprintf(r->url, sizeof r->url, "unix://%.100s/%s", dir->path, socket_name);
    process_init(&r->process, &r->owner, "redis");
}

bool redis_server_start(struct redis_server *r)
{
    if (!redis_server_find(r->program))
        return false;
    r->is_wanted = true;
    process_start(&r->process);
    return true;
}

bool redis_server_adopt(struct redis_server *r, const struct process_record *record)
{
    r->is_wanted = process_adopt(&r->process, record);
    if (r->is_wanted)
        redis_server_find(r->program); /* for its next start */
    return r->is_wanted;
}

const char *redis_server_url(const struct redis_server *r)
{
    return r->is_wanted ? r->url : "";
}

bool redis_server_is_settled(const struct redis_server *r)
{
    return !r->is_wanted || r->process.state == PROCESS_READY || !process_is_in_use(&r->process);
}

/* Is it there? */

static void end_ping(struct redis_server *r)
{
    if (r->ping_fd >= 0)
        close(r->ping_fd);
    r->ping_fd = -1;
    r->ping_at_ms = process_now_ms() + PING_EVERY_MS;
}

void redis_server_deinit(struct redis_server *r)
{
    if (r->ping_fd >= 0)
        close(r->ping_fd);
    r->ping_fd = -1;
}

static void ping(struct redis_server *r)
{
    static const char question[] = "PING\r\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", r->url + strlen("unix://"));
    r->ping_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r->ping_fd < 0 || connect(r->ping_fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        send(r->ping_fd, question, sizeof question - 1, MSG_NOSIGNAL) != (ssize_t)sizeof question - 1)
        end_ping(r);
    else
        r->ping_at_ms = process_now_ms() + PONG_WITHIN_MS;
}

/* "-LOADING …" means later. */
void redis_server_on_pong(struct redis_server *r)
{
    char answer[64];
    ssize_t n = recv(r->ping_fd, answer, sizeof answer, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    end_ping(r);
    if (n >= 5 && memcmp(answer, "+PONG", 5) == 0)
        process_handle(&r->process, PROCESS_SAID_READY);
}

void redis_server_on_time(struct redis_server *r)
{
    process_on_time(&r->process);
    if (r->process.state != PROCESS_STARTING) {
        if (r->ping_fd >= 0)
            end_ping(r);
        return;
    }
    if (process_now_ms() < r->ping_at_ms)
        return;
    if (r->ping_fd >= 0)
        end_ping(r);
    else
        ping(r);
}

uint64_t redis_server_next_ms(const struct redis_server *r)
{
    if (r->process.state == PROCESS_STARTING)
        return r->ping_at_ms > 0 ? r->ping_at_ms : 1;
    return r->process.deadline_ms;
}
