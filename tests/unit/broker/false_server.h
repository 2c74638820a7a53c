/* What listens on a port but is no Redis, or one in trouble that a real one cannot be brought into. A process of its own. */
#ifndef STARLING_TESTS_FALSE_SERVER_H
#define STARLING_TESTS_FALSE_SERVER_H

#include "redis_server.h"

struct false_server {
    int port;
    pid_t pid;
};

/* What it does with each connection. */
struct false_manners {
    const char *hello;  /* said unasked; NULL: nothing */
    const char *role;   /* the answer to ROLE; NULL: no command is answered */
    const char *answer; /* to any command but those of the greeting */
    const char *ping;
    const char *after; /* said unasked, behind the answer to PING; NULL: nothing */
};

static inline void false_server_tell(int fd, const char *text)
{
    if (text)
        SERVER_MUST(write(fd, text, strlen(text)) >= 0);
}

/* One command of RESP at p; its length, or 0: not whole. The first word comes back in name. */
static inline size_t false_server_parse(const char *p, size_t n, char name[16])
{
    const char *at = p, *end = p + n;
    int count = n > 3 && memmem(p, n, "\r\n", 2) ? atoi(p + 1) : -1;
    if (count < 0)
        return 0;
    at = (const char *)memmem(p, n, "\r\n", 2) + 2;
    for (int i = 0; i < count; i++) {
        const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!line)
            return 0;
        int length = atoi(at + 1);
        if (line + 2 + length + 2 > end)
            return 0;
        if (i == 0)
            snprintf(name, 16, "%.*s", length < 15 ? length : 15, line + 2);
        at = line + 2 + length + 2;
    }
    return (size_t)(at - p);
}

static inline void false_server_answer(int fd, const struct false_manners *m, const char *name)
{
    if (strcmp(name, "CLIENT") == 0 || strcmp(name, "AUTH") == 0 || strcmp(name, "SELECT") == 0)
        false_server_tell(fd, "+OK\r\n");
    else if (strcmp(name, "ROLE") == 0)
        false_server_tell(fd, m->role);
    else if (strcmp(name, "PING") == 0)
        false_server_tell(fd, m->ping);
    else
        false_server_tell(fd, m->answer);
    if (strcmp(name, "PING") == 0)
        false_server_tell(fd, m->after);
}

static inline void false_server_serve(int fd, const struct false_manners *m)
{
    static char buffer[1 << 16];
    size_t n = 0;
    ssize_t got;
    false_server_tell(fd, m->hello);
    while ((got = read(fd, buffer + n, sizeof(buffer) - n)) > 0) {
        char name[16];
        n += (size_t)got;
        for (size_t used; m->role && (used = false_server_parse(buffer, n, name)) > 0;) {
            false_server_answer(fd, m, name);
            n -= used;
            memmove(buffer, buffer + used, n);
        }
        if (!m->role)
            n = 0;
    }
}

static inline void false_server_start(struct false_server *s, const struct false_manners *m)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t parent = getpid();
    s->port = redis_server_free_port();
    a.sin_port = htons((uint16_t)s->port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    SERVER_MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 16) == 0);
    s->pid = fork();
    SERVER_MUST(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        for (;;) {
            int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
            false_server_serve(client, m);
            close(client);
        }
    }
    close(fd);
}

static inline void false_server_end(struct false_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

#endif
