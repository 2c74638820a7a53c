/* Where Redis is, from its URL. Pure functions; any thread.
 *
 *   redis://[[user]:password@]host[:port][/db]
 *   unix://[[user]:password@]/path[?db=N]                       (redis+unix:// too)
 *   redis+sentinel://[[user]:password@]host[:port],…/master[/db]
 *
 * An IPv6 address stands in brackets. User, password, path and master may hold %XX. User and password are offered to
 * sentinels as well. */
#ifndef STARLING_REDIS_URL_H
#define STARLING_REDIS_URL_H

#include <stddef.h>
#include <stdint.h>

enum {
    REDIS_ADDRESSES = 16,
    REDIS_HOST_BYTES = 254, /* these with the zero at their end */
    REDIS_PATH_BYTES = 108, /* as sockaddr_un has it */
    REDIS_NAME_BYTES = 128,
    REDIS_PASSWORD_BYTES = 512,
    REDIS_URL_BYTES = 8192, /* as redis_url_print() writes it */
    REDIS_MAX_DB = 65535,
};

enum redis_kind { REDIS_TCP, REDIS_UNIX, REDIS_SENTINEL };

struct redis_address {
    char host[REDIS_HOST_BYTES];
    uint16_t port;
};

struct redis_url {
    enum redis_kind kind;
    unsigned n; /* addresses: 1 of TCP, the sentinels of SENTINEL */
    struct redis_address address[REDIS_ADDRESSES];
    char path[REDIS_PATH_BYTES];         /* of UNIX */
    char master[REDIS_NAME_BYTES];       /* of SENTINEL */
    char user[REDIS_NAME_BYTES];         /* "": none */
    char password[REDIS_PASSWORD_BYTES]; /* "": none */
    unsigned db;
};

/* 0, or ERR_ARGUMENT: *why says what is wrong with it, and never repeats any of it. */
int redis_url_parse(const char *text, struct redis_url *url, const char **why);

/* The URL without user and password, for logs. */
void redis_url_print(const struct redis_url *url, char out[REDIS_URL_BYTES]);

#endif
