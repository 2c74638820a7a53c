/* What nodes say to each other when a session is claimed by the mesh. Pure functions. See claim.md. */
#ifndef STARLING_CLAIM_H
#define STARLING_CLAIM_H

#include "span.h"
#include <msgpack.h>

enum claim_what { CLAIM_ASK = 1, CLAIM_ANSWER = 2 };
enum claim_result { CLAIM_YOURS, CLAIM_UNKNOWN, CLAIM_MOVED };

struct claim {
    enum claim_what what;
    uint64_t id;
    struct span pid; /* ASK */
    /* ANSWER: */
    enum claim_result result;
    uint64_t epoch;    /* YOURS; MOVED: under which, or less */
    struct span entry; /* YOURS: as entry_read() takes it */
    uint32_t moved_to; /* MOVED: a tag, or 0 */
};

/* Appends to the buffer: 0 or ERR_MEMORY, and the buffer is as it was. What is of another kind is not written. */
int claim_write(msgpack_sbuffer *b, const struct claim *c);

/* 0; spans point into bytes, what is of another kind is empty. ERR_KIND: of a newer node. ERR_CLAIM. Trusts nothing, but
 * does not look into the entry. */
int claim_read(struct span bytes, struct claim *c);

#endif
