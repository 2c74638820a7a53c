#include "cors.h"
#include <stdio.h>
#include <stdlib.h>

/* A longer value than this is not echoed: the browser then refuses, which is right for such a thing. */
enum { ECHO_MAX = 1024 };

bool cors_allows(const struct cors *c, struct span origin)
{
    return strcmp(c->origins, "*") == 0 || span_in_list(c->origins, origin);
}

size_t cors_headers(const struct cors *c, struct span origin, char *dst)
{
    const char *credentials = c->credentials ? "Access-Control-Allow-Credentials: true\r\n" : "";
    int n = 0;
    dst[0] = '\0';
    if (!cors_on(c))
        return 0;
    if (strcmp(c->origins, "*") == 0 && !c->credentials)
        n = snprintf(dst, CORS_HEADERS_MAX, "Access-Control-Allow-Origin: *\r\n");
    else if (strcmp(c->origins, "*") != 0 && !strchr(c->origins, ','))
        n = snprintf(dst, CORS_HEADERS_MAX, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n%s",
                     c->origins, credentials);
    else if (origin.n && origin.n <= ECHO_MAX && (c->origins[0] == '*' || span_in_list(c->origins, origin)))
        n = snprintf(dst, CORS_HEADERS_MAX, "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n%s",
                     (int)origin.n, origin.p, credentials);
    else
        n = snprintf(dst, CORS_HEADERS_MAX, "Vary: Origin\r\n%s", credentials);
    return (size_t)n;
}

size_t cors_preflight_headers(struct span requested, char *dst)
{
    int n =
        snprintf(dst, CORS_HEADERS_MAX, "Access-Control-Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE\r\n");
    if (requested.n && requested.n <= ECHO_MAX)
        n += snprintf(dst + n, CORS_HEADERS_MAX - (size_t)n,
                      "Access-Control-Allow-Headers: %.*s\r\nVary: Access-Control-Request-Headers\r\n",
                      (int)requested.n, requested.p);
    return (size_t)n;
}
