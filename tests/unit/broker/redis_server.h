/* A real redis-server (or sentinel) of a test's own: in a directory of its own, on a Unix socket, on a TCP port only when asked to.
 * Ends with the test, whatever becomes of it. */
#ifndef STARLING_TESTS_REDIS_SERVER_H
#define STARLING_TESTS_REDIS_SERVER_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct redis_server {
    char dir[64];
    char socket[96];
    int port; /* 0: none */
    pid_t pid;
    const char *options[24]; /* of the command line; kept for a restart */
};

#define SERVER_MUST(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                   \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* A free one below the range that connections are given their own ports from. */
static inline int redis_server_free_port(void)
{
    for (int i = 0; i < 1000; i++) {
        int port = 20000 + (int)((unsigned)getpid() * 131 + (unsigned)rand()) % 12000;
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        bool free_port = bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
        close(fd);
        if (free_port)
            return port;
    }
    abort();
}

/* Runs redis-cli against it; what it says comes back in out (may be NULL). False: it failed, or said an error. */
static inline bool redis_server_say(const struct redis_server *s, const char *command, char *out, size_t size)
{
    char line[1024], answer[4096] = "";
    if (s->port && !s->socket[0])
        snprintf(line, sizeof(line), "redis-cli -e -p %d %s 2>&1", s->port, command);
    else
        snprintf(line, sizeof(line), "redis-cli -e -s %s %s 2>&1", s->socket, command);
    FILE *f = popen(line, "re");
    SERVER_MUST(f);
    size_t n = fread(answer, 1, sizeof(answer) - 1, f);
    answer[n] = '\0';
    if (out) {
        n = n < size ? n : size - 1;
        memcpy(out, answer, n);
        out[n] = '\0';
    }
    return pclose(f) == 0;
}

static inline void redis_server_spawn(struct redis_server *s, const char **argv)
{
    char log[96];
    pid_t parent = getpid();
    snprintf(log, sizeof(log), "%s/log", s->dir);
    s->pid = fork();
    SERVER_MUST(s->pid >= 0);
    if (s->pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
}

/* Until it serves. */
static inline void redis_server_await(struct redis_server *s)
{
    for (int i = 0; i < 3000; i++) {
        char said[64];
        redis_server_say(s, "ping", said, sizeof(said));
        if (strstr(said, "PONG") || strstr(said, "NOAUTH"))
            return;
        SERVER_MUST(waitpid(s->pid, NULL, WNOHANG) == 0); /* is there a redis-server? */
        usleep(10000);
    }
    SERVER_MUST(!"redis-server does not answer");
}

static inline void redis_server_start(struct redis_server *s)
{
    char port[12];
    const char *argv[48] = {"redis-server", "--dir",      s->dir,    "--port", port, "--unixsocket",
                            s->socket,      "--loglevel", "warning", "--save", ""};
    snprintf(port, sizeof(port), "%d", s->port);
    for (int n = 11, i = 0; s->options[i]; i++)
        argv[n++] = s->options[i];
    redis_server_spawn(s, argv);
    redis_server_await(s);
}

/* A sentinel that watches the server at this port under the name "bus". */
static inline void redis_server_start_sentinel(struct redis_server *s, int master)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/sentinel.conf", s->dir);
    FILE *f = fopen(path, "we");
    SERVER_MUST(f);
    s->socket[0] = '\0';
    fprintf(f,
            "port %d\ndir %s\nsentinel monitor bus 127.0.0.1 %d 1\n"
            "sentinel down-after-milliseconds bus 500\nsentinel failover-timeout bus 3000\n",
            s->port, s->dir, master);
    fclose(f);
    const char *argv[] = {"redis-server", path, "--sentinel", NULL};
    redis_server_spawn(s, argv);
    redis_server_await(s);
}

/* port 0: none; -1: a free one. */
static inline void redis_server_new(struct redis_server *s, int port)
{
    memset(s, 0, sizeof(*s));
    strcpy(s->dir, "/tmp/starling-redis-XXXXXX");
    SERVER_MUST(mkdtemp(s->dir));
    snprintf(s->socket, sizeof(s->socket), "%s/redis.sock", s->dir);
    s->port = port < 0 ? redis_server_free_port() : port;
}

static inline void redis_server_signal(struct redis_server *s, int signal)
{
    SERVER_MUST(s->pid > 0);
    kill(s->pid, signal);
}

static inline void redis_server_kill(struct redis_server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void redis_server_free(struct redis_server *s)
{
    char line[128];
    redis_server_kill(s);
    if (!s->dir[0])
        return;
    snprintf(line, sizeof(line), "rm -rf %s", s->dir);
    SERVER_MUST(system(line) == 0);
    s->dir[0] = '\0';
}

#endif
