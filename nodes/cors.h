/* Which pages may talk to a node: the headers of cross-origin requests. */
#ifndef STARLING_CORS_H
#define STARLING_CORS_H

#include "span.h"

struct cors {
    const char *origins; /* "": off, "*", or a comma list */
    bool credentials;
};

#define CORS_HEADERS_MAX 2048

static inline bool cors_on(const struct cors *c)
{
    return c->origins[0] != '\0';
}

/* True when pages of this origin may connect. */
bool cors_allows(const struct cors *c, struct span origin);

/* Header lines for any answer; writes at most CORS_HEADERS_MAX bytes and a terminator. origin: the request's. */
size_t cors_headers(const struct cors *c, struct span origin, char *dst);
/* Header lines that only the answer to a preflight has; requested: its Access-Control-Request-Headers. */
size_t cors_preflight_headers(struct span requested, char *dst);

#endif
