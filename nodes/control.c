#include "control.h"
#include "err.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENT_MS = 1000, ASK_SECONDS = 5 };

static const char name[] = "control";

static bool set_address(const struct rundir *dir, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    errno = ENAMETOOLONG;
    return rundir_file(dir, name, address->sun_path, sizeof address->sun_path);
}

int control_listen(struct control *control, const struct rundir *dir)
{
    struct sockaddr_un address;
    mode_t mask;
    int rc;

    *control = (struct control){.listen_fd = -1, .client_fd = -1};
    if (!set_address(dir, &address))
        return ERR_SYSTEM;
    control->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (control->listen_fd < 0)
        return ERR_SYSTEM;
    unlink(address.sun_path); /* of a supervisor that was killed */
    mask = umask(0077);
    rc = bind(control->listen_fd, (struct sockaddr *)&address, sizeof address);
    umask(mask);
    return rc == 0 && listen(control->listen_fd, 16) == 0 ? 0 : ERR_SYSTEM;
}

static void drop_client(struct control *control)
{
    if (control->client_fd >= 0)
        close(control->client_fd);
    control->client_fd = -1;
    control->deadline_ms = 0;
    control->n = 0;
}

void control_close(struct control *control, const struct rundir *dir)
{
    struct sockaddr_un address;

    drop_client(control);
    if (control->listen_fd < 0)
        return;
    close(control->listen_fd);
    control->listen_fd = -1;
    if (set_address(dir, &address))
        unlink(address.sun_path);
}

int control_fd(const struct control *control)
{
    return control->client_fd >= 0 ? control->client_fd : control->listen_fd;
}

static void take_client(struct control *control, uint64_t now_ms)
{
    struct ucred who;
    socklen_t n = sizeof who;

    control->client_fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (control->client_fd < 0)
        return;
    control->deadline_ms = now_ms + CLIENT_MS;
    if (getsockopt(control->client_fd, SOL_SOCKET, SO_PEERCRED, &who, &n) != 0 ||
        (who.uid != geteuid() && who.uid != 0))
        drop_client(control);
}

const char *control_read(struct control *control, uint64_t now_ms)
{
    size_t space = sizeof control->request - 1 - control->n;
    char *end;
    ssize_t n;

    if (control->client_fd < 0) {
        take_client(control, now_ms);
        return NULL;
    }
    n = read(control->client_fd, control->request + control->n, space);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return NULL;
    if (n <= 0) { /* also when the line is too long */
        drop_client(control);
        return NULL;
    }
    control->n += (size_t)n;
    control->request[control->n] = '\0';
    end = strchr(control->request, '\n');
    if (!end)
        return NULL;
    *end = '\0';
    return control->request;
}

void control_answer(struct control *control, const char *line, size_t n)
{
    /* The socket is fresh and its buffer holds more than any answer. */
    if (send(control->client_fd, line, n, MSG_NOSIGNAL) != (ssize_t)n)
        fprintf(stderr, "starling up: cannot answer a command: %s\n", strerror(errno));
    drop_client(control);
}

void control_expire(struct control *control, uint64_t now_ms)
{
    if (control->deadline_ms != 0 && now_ms >= control->deadline_ms)
        drop_client(control);
}

static int exchange(int fd, const struct sockaddr_un *address, const char *request, char *text)
{
    struct timeval timeout = {.tv_sec = ASK_SECONDS};
    char line[CONTROL_REQUEST_BYTES];
    int n = snprintf(line, sizeof line, "%s\n", request);
    size_t got = 0;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
        connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 ||
        send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
        return ERR_SYSTEM;
    for (;;) {
        ssize_t more = recv(fd, text + got, RUNDIR_TEXT_BYTES - 1 - got, 0);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return ERR_SYSTEM;
        got += (size_t)more;
        text[got] = '\0';
        if (strchr(text, '\n'))
            return 0;
        if (more == 0) {
            errno = ECONNRESET;
            return ERR_SYSTEM;
        }
    }
}

int control_ask(const struct rundir *dir, const char *request, char text[RUNDIR_TEXT_BYTES])
{
    struct sockaddr_un address;
    int fd, rc, saved;

    if (!set_address(dir, &address))
        return ERR_SYSTEM;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    rc = exchange(fd, &address, request, text);
    saved = errno == EAGAIN ? ETIMEDOUT : errno;
    close(fd);
    errno = saved;
    return rc;
}
