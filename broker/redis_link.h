/* One connection to a Redis or a sentinel, from connect to its end: hiredis's asynchronous API on the reactor, with the
 * time-outs that hiredis 0.14 does not have. Knows nothing of what is asked, nor of trying again (redis.h does).
 * Reactor's thread only. */
#ifndef STARLING_REDIS_LINK_H
#define STARLING_REDIS_LINK_H

#include "reactor.h"
#include "span.h"

struct redis_link;

/* ---- replies ---- */

struct redis_reply;

enum redis_reply_kind { REDIS_NIL, REDIS_ERROR, REDIS_STATUS, REDIS_INTEGER, REDIS_STRING, REDIS_ARRAY };

/* All of them may be given NULL, which counts as nil. */
enum redis_reply_kind redis_reply_kind(const struct redis_reply *reply);
/* Of an error, a status or a string; else empty. */
struct span redis_reply_text(const struct redis_reply *reply);
/* Of an integer; else 0. */
int64_t redis_reply_integer(const struct redis_reply *reply);
/* Of an array; else 0 and NULL. */
size_t redis_reply_count(const struct redis_reply *reply);
const struct redis_reply *redis_reply_at(const struct redis_reply *reply, size_t i);

/* ---- the connection ---- */

/* Embedded in what asks; must stay until its answer. */
struct redis_ask {
    struct redis_ask *next;
    /* Exactly once for each ask that was taken. NULL: there is no answer, the connection has ended. The reply is lent. */
    void (*on_answer)(struct redis_ask *ask, const struct redis_reply *reply);
    uint64_t asked_us;
    size_t bytes;
};

struct redis_link_options {
    const char *ip; /* a number, never a name: hiredis would resolve it while the loop waits. NULL: path */
    uint16_t port;
    const char *path;
    uint64_t timeout_ms; /* for each answer */
    /* The connection could not be made, or has ended; all has been answered, and nothing comes after it. Not from
     * inside of a call or an answer. The link is still the owner's to close. */
    void (*on_lost)(void *user, const char *why);
    void *user;
};

/* NULL without memory. */
struct redis_link *redis_link_open(struct reactor *r, const struct redis_link_options *o);
/* Answers what is open with NULL before it returns; on_lost is not called. Not from inside of an answer. */
void redis_link_close(struct redis_link **l);

enum { REDIS_LINK_ARGS = 40 }; /* of one question */

/* 0, or ERR_STORE: the connection is ending, or there is no memory, and ask is not taken. What is asked before it
 * is connected leaves then; what is asked in one turn of the loop leaves as one run of bytes at its end. Arguments are borrowed for the call. */
int redis_link_ask(struct redis_link *l, struct redis_ask *ask, const struct span *argv, unsigned argc);
/* Ends the connection soon, not from inside of this call. The first reason counts. */
void redis_link_fail(struct redis_link *l, const char *why);
/* It has ended, or will soon. */
bool redis_link_is_ending(const struct redis_link *l);
/* Bytes of questions without an answer. */
size_t redis_link_pending_bytes(const struct redis_link *l);

#endif
