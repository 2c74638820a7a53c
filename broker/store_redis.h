/* A store in Redis: proto/redis.md over redis.h. Reactor's thread only. */
#ifndef STARLING_STORE_REDIS_H
#define STARLING_STORE_REDIS_H

#include "redis.h"
#include "store.h"

struct store_redis;

struct store_redis_options {
    struct redis_options redis;
    const char *cluster; /* the name in the keys: letters, digits, ".", "-", "_". Copied, at most 64 bytes */
};

/* NULL: no memory. The user is told as redis.h says. */
struct store_redis *store_redis_new(struct reactor *r, struct metrics *metrics,
                                    const struct store_redis_options *o, const struct store_user *user);
/* Answers what is open with ERR_STORE before it returns; these answers must not ask again. */
void store_redis_free(struct store_redis **s);

struct store store_redis_store(struct store_redis *s);
/* For other questions than a store's. */
struct redis *store_redis_connection(struct store_redis *s);
bool store_redis_is_up(const struct store_redis *s);

#endif
