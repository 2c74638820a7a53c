#include "outq.h"
#include "err.h"
#include <stdlib.h>
#include <string.h>

/* Entries of at least this size may keep their shared chunk: a chunk is then used to a quarter at the least. */
/* Few entries keep few chunks; waiting for some more makes the copying rare. */
enum { COMPACT_FROM = 4 };

enum { COMPACT_BELOW_BYTES = 8 * 1024, COMPACT_MAX_BYTES = 64 * 1024, ENTRIES_MAX = 0x8000 };

void outq_init(struct outq *q)
{
    memset(q, 0, sizeof(*q));
    q->entry = q->first;
    q->cap = 1;
}

void outq_deinit(struct outq *q)
{
    outq_clear(q);
}

static struct outq_entry *at(const struct outq *q, unsigned i)
{
    return &q->entry[(q->head + i) & (q->cap - 1u)];
}

static int grow(struct outq *q)
{
    if (q->cap >= ENTRIES_MAX)
        return ERR_LIMIT;
    struct outq_entry *entry = malloc(sizeof(*entry) * q->cap * 2);
    if (!entry)
        return ERR_MEMORY;
    for (unsigned i = 0; i < q->count; i++)
        entry[i] = *at(q, i);
    if (q->entry != q->first)
        free(q->entry);
    q->entry = entry;
    q->head = 0;
    q->cap = (uint16_t)(q->cap * 2);
    return 0;
}

static bool extends(const struct outq_entry *last, const struct slice *s, bool is_volatile)
{
    return last->chunk && last->chunk == s->chunk && last->p + last->n == s->p &&
           last->is_volatile == is_volatile;
}

int outq_push(struct outq *q, const struct slice *s, uint32_t messages, bool is_volatile)
{
    if (q->count) {
        struct outq_entry *last = at(q, q->count - 1u);
        if (extends(last, s, is_volatile)) {
            last->n += (uint32_t)s->n;
            last->messages += messages & 0x7fffffffu;
            q->messages += messages;
            q->bytes += s->n;
            return 0;
        }
    }
    if (q->count == q->cap) {
        int err = grow(q);
        if (err)
            return err;
    }
    slice_ref(s);
    *at(q, q->count) = (struct outq_entry){
        .chunk = s->chunk,
        .p = s->p,
        .n = (uint32_t)s->n,
        .messages = messages & 0x7fffffffu,
        .is_volatile = is_volatile,
    };
    q->count++;
    q->messages += messages;
    q->bytes += s->n;
    return 0;
}

int outq_iov(const struct outq *q, struct iovec *iov, int max)
{
    int n = q->count < max ? q->count : max;
    for (int i = 0; i < n; i++) {
        const struct outq_entry *e = at(q, (unsigned)i);
        iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)e->p, .iov_len = e->n};
    }
    return n;
}

static void release(struct outq *q, struct outq_entry *e)
{
    q->messages -= e->messages;
    q->bytes -= e->n;
    if (e->chunk)
        chunk_unref(e->chunk);
}

/* An empty queue gives its memory back: idle clients are many. */
static void reset(struct outq *q)
{
    if (q->entry != q->first)
        free(q->entry);
    q->entry = q->first;
    q->cap = 1;
    q->head = 0;
    q->started = false;
}

void outq_advance(struct outq *q, size_t n)
{
    while (n > 0 && q->count) {
        struct outq_entry *e = at(q, 0);
        if (n < e->n) {
            e->p += n;
            e->n -= (uint32_t)n;
            q->bytes -= n;
            q->started = true;
            return;
        }
        n -= e->n;
        release(q, e);
        q->head = (uint16_t)((q->head + 1u) & (q->cap - 1u));
        q->count--;
        q->started = false;
    }
    if (q->count == 0)
        reset(q);
}

uint32_t outq_drop_volatile(struct outq *q)
{
    uint32_t before = q->messages;
    uint16_t kept = 0;
    for (unsigned i = 0; i < q->count; i++) {
        struct outq_entry e = *at(q, i);
        if (e.is_volatile && !(i == 0 && q->started))
            release(q, &e);
        else
            *at(q, kept++) = e;
    }
    q->count = kept;
    if (q->count == 0)
        reset(q);
    return before - q->messages;
}

void outq_clear(struct outq *q)
{
    for (unsigned i = 0; i < q->count; i++)
        release(q, at(q, i));
    q->count = 0;
    reset(q);
}

/* The run of entries from i on that belongs into one private chunk: its length in entries, and its bytes. */
static unsigned compactable(const struct outq *q, unsigned i, size_t *bytes)
{
    unsigned n = 0;
    *bytes = 0;
    for (; i + n < q->count; n++) {
        const struct outq_entry *e = at(q, i + n);
        if (!e->chunk || e->n >= COMPACT_BELOW_BYTES || e->is_volatile != at(q, i)->is_volatile ||
            *bytes + e->n > COMPACT_MAX_BYTES)
            break;
        *bytes += e->n;
    }
    return n;
}

/* Replaces n entries from i on by one private copy. */
static bool copy_run(struct outq *q, unsigned i, unsigned n, size_t bytes, struct outq_entry *out)
{
    struct chunk *own = malloc(sizeof(*own) + bytes);
    if (!own)
        return false;
    *own = (struct chunk){.refs = 1, .used = (uint32_t)bytes, .cap = (uint32_t)bytes};
    *out = (struct outq_entry){.chunk = own, .p = own->data, .is_volatile = at(q, i)->is_volatile};
    for (unsigned k = 0; k < n; k++) {
        struct outq_entry *e = at(q, i + k);
        memcpy(own->data + out->n, e->p, e->n);
        out->n += e->n;
        out->messages += e->messages;
        chunk_unref(e->chunk);
    }
    return true;
}

void outq_compact(struct outq *q)
{
    unsigned kept = 0, i = 0;
    if (q->count < COMPACT_FROM)
        return;
    while (i < q->count) {
        size_t bytes;
        unsigned n = compactable(q, i, &bytes);
        struct outq_entry merged;
        if (n > 1 && copy_run(q, i, n, bytes, &merged)) {
            *at(q, kept++) = merged;
            i += n;
        } else {
            *at(q, kept++) = *at(q, i++);
        }
    }
    q->count = (uint16_t)kept;
}

int outq_move(struct outq *from, struct outq *to)
{
    while (from->count) {
        struct outq_entry *e = at(from, 0);
        struct slice s = {e->chunk, (uint8_t *)(uintptr_t)e->p, e->n};
        int err = outq_push(to, &s, e->messages, e->is_volatile);
        if (err)
            return err;
        outq_advance(from, e->n);
    }
    return 0;
}
