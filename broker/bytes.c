#include "bytes.h"
#include "err.h"
#include <stdlib.h>

/* A slow client may hold a whole chunk for one small message until its queue is compacted (outq.c), so a chunk is
 * no larger than it must be for a turn's worth of small messages. */
enum { CHUNK_BYTES = 32 * 1024 - (int)sizeof(struct chunk), OWN_CHUNK_BYTES = CHUNK_BYTES / 4 };

static struct chunk *chunk_new(size_t cap)
{
    if (cap > UINT32_MAX)
        return NULL;
    struct chunk *chunk = malloc(sizeof(*chunk) + cap);
    if (!chunk)
        return NULL;
    chunk->refs = 1;
    chunk->used = 0;
    chunk->cap = (uint32_t)cap;
    chunk->spare = 0;
    return chunk;
}

void chunk_unref(struct chunk *chunk)
{
    if (--chunk->refs == 0)
        free(chunk);
}

void bytes_init(struct bytes *b)
{
    b->current = NULL;
}

void bytes_deinit(struct bytes *b)
{
    if (b->current)
        chunk_unref(b->current);
}

static int next_chunk(struct bytes *b)
{
    struct chunk *fresh = chunk_new(CHUNK_BYTES);
    if (!fresh)
        return ERR_MEMORY;
    if (b->current)
        chunk_unref(b->current);
    b->current = fresh;
    return 0;
}

int bytes_alloc(struct bytes *b, size_t n, struct slice *out)
{
    if (n > OWN_CHUNK_BYTES) {
        struct chunk *own = chunk_new(n);
        if (!own)
            return ERR_MEMORY;
        own->used = (uint32_t)n;
        *out = (struct slice){own, own->data, n};
        return 0;
    }
    /* Nobody else holds it: filling it again from its start keeps to memory that is in the cache. */
    if (b->current && b->current->refs == 1)
        b->current->used = 0;
    if (!b->current || b->current->cap - b->current->used < n) {
        int err = next_chunk(b);
        if (err)
            return err;
    }
    struct chunk *chunk = b->current;
    *out = (struct slice){chunk, chunk->data + chunk->used, n};
    chunk->used += (uint32_t)n;
    chunk->refs++;
    return 0;
}
