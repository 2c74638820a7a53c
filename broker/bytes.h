/* Immutable, shared bytes. What is encoded goes into chunks that are filled from the front, so that messages
 * encoded one after the other lie side by side and a client's queue of many of them is one run of memory.
 * A slice keeps its chunk alive. Owned by the reactor's thread. */
#ifndef STARLING_BYTES_H
#define STARLING_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct chunk {
    uint32_t refs;
    uint32_t used, cap;
    uint32_t spare; /* keeps data aligned */
    uint8_t data[];
};

/* chunk == NULL: the bytes are static. */
struct slice {
    struct chunk *chunk;
    uint8_t *p;
    size_t n;
};

struct bytes {
    struct chunk *current; /* being filled; the arena holds one reference */
};

void bytes_init(struct bytes *b);
void bytes_deinit(struct bytes *b);

/* n bytes to be filled by the caller, who holds the reference. 0 or ERR_MEMORY. */
int bytes_alloc(struct bytes *b, size_t n, struct slice *out);

static inline void slice_ref(const struct slice *s)
{
    if (s->chunk)
        s->chunk->refs++;
}

void chunk_unref(struct chunk *chunk);

static inline void slice_unref(struct slice *s)
{
    if (s->chunk)
        chunk_unref(s->chunk);
    s->chunk = NULL;
}

#endif
