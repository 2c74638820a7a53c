/* What an agent has to send, and what it has sent and waits for. Belongs to the agent's thread. Bounded: what is not
 * sent or not answered counts against a limit. */
#ifndef STARLING_REQUEST_H
#define STARLING_REQUEST_H

#include "link.h"
#include "starling.h"
#include <uthash.h>

typedef void starling_on_member(void *user, const struct starling_member *m);

struct request {
    struct request *next; /* in the queue */
    UT_hash_handle hh;    /* by id, if it wants an answer; in the order in which they were made */
    uint64_t id;
    bool wanted;    /* it is in the table, until it is answered */
    bool queued;    /* not sent yet */
    bool picked;    /* goes with the next message */
    bool is_answer; /* to the node: needs no credit */
    bool is_bound;  /* means nothing to another connection */
    bool has_key;   /* may be sent twice */
    uint64_t expires_ms;
    struct starling_then then;
    starling_ack *on_ack;
    starling_on_member *on_member;
    void *stream_user; /* of on_ack, on_member */
    size_t n;
    char bytes[];
};

struct requests {
    struct request *first, **end; /* not sent */
    struct request *table;
    unsigned n_answers; /* in the queue */
    size_t bytes, limit;
    size_t queued; /* bytes that are to be sent */
    char *batch;   /* AGENT_BATCH_BYTES */
};

/* ERR_MEMORY. */
int requests_init(struct requests *q, size_t limit);
void requests_deinit(struct requests *q);

/* One that holds these bytes, with everything else 0; in no queue yet. NULL: no memory. */
struct request *request_new(const void *bytes, size_t n);
bool requests_full(const struct requests *q, size_t n);
/* Takes r: to be sent; into the table if it is wanted. */
void requests_add(struct requests *q, struct request *r);
struct request *requests_find(struct requests *q, uint64_t id);
/* Out of the table and the queue, and freed. */
void requests_drop(struct requests *q, struct request *r);
static inline bool requests_idle(const struct requests *q)
{
    return !q->first && !q->table;
}

/* Sends what may be sent. */
void requests_flush(struct requests *q, struct link *l, uint64_t now_ms);
/* Drops what is bound to the connection that is over and puts before all else what was sent and may be sent again.
 * Everything else that was sent gets fail(user, r), which takes it. */
void requests_reset(struct requests *q, void (*fail)(void *user, struct request *r), void *user);
/* fail() takes those whose time is over. */
void requests_expire(struct requests *q, uint64_t now_ms, void (*fail)(void *user, struct request *r),
                     void *user);

/* Takes the queue out, so that others come before it; and puts it behind them. */
struct request *requests_set_aside(struct requests *q);
void requests_put_back(struct requests *q, struct request *aside);

#endif
