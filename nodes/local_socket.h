/* Unix sockets of packets, by which the nodes of a host give each other descriptors. The reactor's thread. */
#ifndef STARLING_LOCAL_SOCKET_H
#define STARLING_LOCAL_SOCKET_H

#include "reactor.h"
#include <stdbool.h>
#include <sys/un.h>

/* base and suffix together are the path; false when that is too long. */
bool local_socket_address(struct sockaddr_un *address, const char *base, const char *suffix);

/* In the place of the node that had this path before. io->on_ready is called for those who connect. False after a line
 * in the log. */
bool local_socket_listen(struct reactor *r, struct reactor_io *io, const struct sockaddr_un *address,
                         int backlog);

#endif
