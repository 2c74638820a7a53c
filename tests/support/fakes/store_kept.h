/* What a store in memory keeps, and what each question does to it: the rules of proto/redis.md without a Redis. Of
 * store_memory.c alone, which adds connections, delays and faults. */
#ifndef STARLING_TESTS_STORE_KEPT_H
#define STARLING_TESTS_STORE_KEPT_H

#include "must.h"
#include "store.h"
#include <stdio.h>
#include <stdlib.h>

struct kept;

enum call { RENEW, RESIGN, APPEND, READ, PUT, DROP, CLAIM };

/* What a question borrowed, and what its answer lends. */
struct copy {
    struct copy *next;
    char bytes[];
};

struct question {
    struct question *next;
    enum call call;
    union {
        store_done *done;
        store_members *members;
        store_batches *batches;
        store_claimed *claimed;
    } answer;
    void *user;
    uint64_t number, arrives_ms, due_ms, asked_ms;
    bool has_arrived;
    struct copy *copies;
    /* ---- arguments ---- */
    struct store_member self;
    struct mesh_origin origin;
    struct store_batch batch;
    uint64_t keep_ms, oldest, after, epoch;
    unsigned count;
    uint32_t owner;
    struct span pid, entry;
    /* ---- answers ---- */
    int err;
    unsigned n;
    struct store_member *members;
    struct store_batch *batches;
    struct store_claim claim;
};

struct kept *kept_new(void);
void kept_free(struct kept **k);
/* As by FLUSHALL. */
void kept_lose(struct kept *k);
/* append and put are refused. */
void kept_set_full(struct kept *k, bool is_full);
/* Does what is asked: fills in the question's answer. */
void kept_do(struct kept *k, struct question *q, uint64_t now_ms);
uint64_t kept_newest(struct kept *k, struct mesh_origin origin);
unsigned kept_owners(struct kept *k, struct span pid, uint64_t now_ms);

void *must_alloc(size_t n);
/* A copy that lasts as long as the question. */
struct span copy_span(struct question *q, struct span from);
void question_free(struct question *q);

#endif
