#include "local_socket.h"
#include "log.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

bool local_socket_address(struct sockaddr_un *address, const char *base, const char *suffix)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path, sizeof(address->sun_path), "%s%s", base, suffix);
    return n < (int)sizeof(address->sun_path);
}

bool local_socket_listen(struct reactor *r, struct reactor_io *io, const struct sockaddr_un *address,
                         int backlog)
{
    io->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (io->fd >= 0) {
        unlink(address->sun_path);
        if (bind(io->fd, (const struct sockaddr *)address, sizeof(*address)) == 0 &&
            listen(io->fd, backlog) == 0 && reactor_add(r, io, EPOLLIN) == 0)
            return true;
    }
    log_event(LOG_ERROR, "local_socket", LOG_TEXT("path", address->sun_path),
              LOG_TEXT("error", strerror(errno)));
    if (io->fd >= 0)
        close(io->fd);
    return false;
}
