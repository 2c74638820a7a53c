#include "supervisor_parts.h"
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

uint32_t ports_highest(const struct supervisor *s, unsigned nodes_n)
{
    uint32_t first = s->config.peers[0] ? MESH_PORTS + MESH_ROUTER_PORTS + MESH_GENERATION : AGENT_PORTS;
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

static bool find_bad(const struct supervisor *s, const uint32_t *ports, size_t n, char *out, size_t size)
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

bool ports_find_bad_public(const struct supervisor *s, char *out, size_t size)
{
    return find_bad(s, &s->config.port, 1, out, size);
}

/* The second generation's as well: a reload needs both at a time. */
bool ports_find_bad(const struct supervisor *s, unsigned index, char *out, size_t size)
{
    uint32_t port = s->config.port + index, mesh = port + MESH_PORTS;
    uint32_t ports[] = {port + 1,
                        port + AGENT_PORTS,
                        mesh,
                        mesh + MESH_ROUTER_PORTS,
                        mesh + MESH_GENERATION,
                        mesh + MESH_GENERATION + MESH_ROUTER_PORTS};

    return find_bad(s, ports, s->config.peers[0] ? sizeof ports / sizeof ports[0] : 2, out, size);
}
