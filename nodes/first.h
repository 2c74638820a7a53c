/* The first so many of many things, in the order of a key that each has: one walk, and memory for what is kept only. */
#ifndef STARLING_FIRST_H
#define STARLING_FIRST_H

#include "span.h"
#include <stdint.h>

enum { FIRST_MAX = 200, FIRST_KEY_BYTES = 48 };

/* What a key stands for is the caller's. */
struct first_candidate {
    char key[FIRST_KEY_BYTES];
    uint8_t key_n;
    const void *what;
};

struct first {
    struct first_candidate at[FIRST_MAX];
    unsigned n, max;
    uint64_t total; /* that were offered */
    bool has_more;  /* some behind those that are kept were left out */
    struct span after;
};

/* Those whose key is behind this one; empty: from the beginning. Borrows it. */
void first_begin(struct first *f, unsigned max, struct span after);
void first_offer(struct first *f, const char *key, size_t key_n, const void *what);

#endif
