#include "notify.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* WATCHDOG_PID names the process that is meant: after a fork it may be another one. */
static uint32_t watchdog_ms(void)
{
    const char *time = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    unsigned long long us = time ? strtoull(time, NULL, 10) : 0;
    if (us == 0 || us / 1000 > UINT32_MAX || (pid && strtoull(pid, NULL, 10) != (unsigned long long)getpid()))
        return 0;
    return us < 1000 ? 1 : (uint32_t)(us / 1000);
}

static int open_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return -1;
    memcpy(address.sun_path, path, n);
    if (path[0] == '@') /* a name that is no file */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void notify_init(struct notify *notify)
{
    *notify = (struct notify){.fd = open_socket(getenv("NOTIFY_SOCKET")), .watchdog_ms = watchdog_ms()};
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_deinit(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}

void notify_say(struct notify *notify, const char *lines)
{
    /* A manager that does not read must not hold anybody up. */
    if (notify->fd >= 0)
        send(notify->fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void notify_tick(struct notify *notify, uint64_t now_ms)
{
    if (notify->watchdog_ms == 0 || now_ms - notify->fed_ms < notify->watchdog_ms / 3)
        return;
    notify->fed_ms = now_ms;
    notify_say(notify, "WATCHDOG=1");
}
