/* A lasting connection to the Redis of a URL: finds the master, connects, and connects again for as long as it exists,
 * ever more slowly while it fails. Reactor's thread only.
 *
 * Each question is answered exactly once, never from inside of redis_ask(), in the order of asking: with a reply, or with
 * ERR_STORE when there is no connection, when it ends before the reply, when the reply does not come in time, when too
 * many bytes wait, or when the reply is an error. No question is sent twice. */
#ifndef STARLING_REDIS_H
#define STARLING_REDIS_H

#include "metrics.h"
#include "redis_link.h"
#include "redis_url.h"

struct redis;

struct redis_options {
    struct redis_url url;
    const char *name;                /* as CLIENT LIST shows it: no blanks. Copied */
    uint64_t connect_ms;             /* for the whole of an attempt: name, connection, greeting */
    uint64_t command_ms;             /* for a reply */
    uint64_t retry_ms, retry_max_ms; /* between attempts, at first and at most; half of it is drawn */
    size_t pending_bytes;            /* of questions that wait; more are refused */
};

#define REDIS_OPTIONS_DEFAULT                                                                                \
    .connect_ms = 3000, .command_ms = 2000, .retry_ms = 50, .retry_max_ms = 2000, .pending_bytes = 4 << 20

struct redis_user {
    void *user;
    /* Not from inside of redis_new(); in turns, on_up first. When on_down comes, all that was asked is answered, and
     * nobody is told at the end by redis_free(). */
    void (*on_up)(void *user);
    void (*on_down)(void *user);
};

/* Embedded in what asks; must stay until its answer. */
struct redis_question {
    struct redis_ask ask;
    struct redis_question *next;
    /* err 0: the reply is no error. ERR_STORE: reply is the error, or NULL: none came. Lent. */
    void (*on_answer)(struct redis_question *q, int err, const struct redis_reply *reply);
    struct redis *redis;
    uint64_t number;
    bool is_sent;
};

/* Begins to connect at once. NULL: no memory. */
struct redis *redis_new(struct reactor *r, struct metrics *metrics, const struct redis_options *o,
                        const struct redis_user *user);
/* Answers what is open with ERR_STORE before it returns. Not from inside of an answer. */
void redis_free(struct redis **redis);

bool redis_is_up(const struct redis *redis);

/* Arguments are borrowed for the call. */
void redis_ask(struct redis *redis, struct redis_question *q, const struct span *argv, unsigned argc);
/* Asks nothing; q is answered with ERR_STORE when its turn has come. */
void redis_refuse(struct redis *redis, struct redis_question *q);

#endif
