/* What waits for one client: a bounded queue of slices, in the form in which a WebSocket takes them (whole frames).
 * The polling transport reads the frames back as packets. Neighbouring slices of one chunk are merged. */
#ifndef STARLING_OUTQ_H
#define STARLING_OUTQ_H

#include "bytes.h"
#include "span.h"
#include <stdbool.h>
#include <sys/uio.h>

struct outq_entry {
    struct chunk *chunk; /* NULL: static bytes */
    const uint8_t *p;
    uint32_t n;
    uint32_t messages : 31;
    uint32_t is_volatile : 1;
};

struct outq {
    struct outq_entry *entry; /* ring; points to first[] until it outgrows that */
    uint16_t head, count, cap;
    bool started; /* a part of the first entry is already written */
    uint32_t messages;
    uint64_t bytes;
    struct outq_entry first[1];
};

void outq_init(struct outq *q);
void outq_deinit(struct outq *q);

static inline bool outq_empty(const struct outq *q)
{
    return q->count == 0;
}

/* Appends and takes a reference of its own. 0 or ERR_MEMORY. */
int outq_push(struct outq *q, const struct slice *s, uint32_t messages, bool is_volatile);

/* The front of the queue for writev(); returns how many of max were filled. */
int outq_iov(const struct outq *q, struct iovec *iov, int max);

/* The bytes of entry i < q->count: whole frames, unless the queue has been started. */
static inline struct span outq_at(const struct outq *q, unsigned i)
{
    const struct outq_entry *e = &q->entry[(q->head + i) & (q->cap - 1u)];
    return (struct span){(const char *)e->p, e->n};
}

/* n bytes of the front have been written. */
void outq_advance(struct outq *q, size_t n);

/* Drops what is volatile and not yet begun; returns the number of messages. */
uint32_t outq_drop_volatile(struct outq *q);

void outq_clear(struct outq *q);

/* For a queue that cannot be written now: copies small entries together, so that a few bytes do not keep whole
 * chunks. Leaves the queue as it is when memory is short. */
void outq_compact(struct outq *q);

/* Moves everything to the end of another queue. 0 or ERR_MEMORY (then nothing is lost: the rest stays). */
int outq_move(struct outq *from, struct outq *to);

#endif
