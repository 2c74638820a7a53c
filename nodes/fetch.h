/* One HTTP request to a node, as the command line makes it. Blocks. */
#ifndef STARLING_FETCH_H
#define STARLING_FETCH_H

#include <stddef.h>
#include <stdint.h>

struct fetch {
    int status;
    char *body; /* ended by '\0'; free() it */
    size_t n;
};

/* GET, or POST of a JSON text when body is not NULL. address: IPv4. 0, or ERR_SYSTEM (errno says why),
 * ERR_HTTP_SYNTAX, ERR_HTTP_TOO_BIG or ERR_MEMORY; then there is no body. */
int fetch(const char *address, uint16_t port, const char *path, const char *body, unsigned timeout_ms,
          struct fetch *answer);

#endif
