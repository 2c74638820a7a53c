/* msgpack for the wire formats. Written with msgpack-c into its buffer. Read with a cursor of our own over the received
 * bytes: msgpack-c's unpacker builds a tree of objects in memory of its own for each message, and a node reads 50,000
 * records of the mesh a second for clients it has not. Pure functions. */
#ifndef STARLING_MP_H
#define STARLING_MP_H

#include "span.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- writing: appends to a buffer; a failure is kept until mp_end() ---- */

struct mp_writer {
    msgpack_packer packer;
    msgpack_sbuffer *buffer;
    size_t before;
    int err;
};

/* Borrows the buffer. */
void mp_begin(struct mp_writer *w, msgpack_sbuffer *buffer);
/* 0, or ERR_MEMORY: everything since mp_begin() is taken back, a buffer never ends within a message. */
int mp_end(struct mp_writer *w);

void mp_put_uint(struct mp_writer *w, uint64_t value);
void mp_put_int(struct mp_writer *w, int64_t value);
/* n elements follow. */
void mp_put_array(struct mp_writer *w, size_t n);
/* The caller keeps the limit. */
void mp_put_text(struct mp_writer *w, struct span text, size_t limit);
void mp_put_bin(struct mp_writer *w, struct span bytes);
void mp_put_nil(struct mp_writer *w);
void mp_put_bool(struct mp_writer *w, bool value);
/* n pairs of key and value follow. */
void mp_put_map(struct mp_writer *w, size_t n);
/* The beginning of a text of n bytes; they follow with mp_put_bytes(), in one or several parts. */
void mp_put_text_head(struct mp_writer *w, size_t n);
/* Bytes as they are, also elements that are msgpack already. */
void mp_put_bytes(struct mp_writer *w, struct span bytes);

/* ---- reading ---- */

/* After an error the cursor is at its end, so that everything read from it is empty: whoever reads checks `bad` once,
 * at the end. */
struct mp_cursor {
    const uint8_t *p, *end;
    bool bad;
};

struct mp_cursor mp_open(struct span bytes);

/* Puts the cursor into the state of an error; 0, so that it can stand for a value. */
uint64_t mp_refuse(struct mp_cursor *c);

static inline size_t mp_left(const struct mp_cursor *c)
{
    return (size_t)(c->end - c->p);
}

/* Integers of any width and sign, if the value is one of the type. */
uint64_t mp_get_uint(struct mp_cursor *c);
int64_t mp_get_int(struct mp_cursor *c);
/* How many elements follow: never more than there are bytes left. */
uint64_t mp_get_array(struct mp_cursor *c);
/* The same, at most limit. */
unsigned mp_get_count(struct mp_cursor *c, unsigned limit);
/* Spans point into the bytes that the cursor walks; they are not checked for UTF-8. */
struct span mp_get_text(struct mp_cursor *c, uint64_t limit);
struct span mp_get_bin(struct mp_cursor *c);
/* One of the two. */
struct span mp_get_text_or_bin(struct mp_cursor *c, bool *is_bin);
bool mp_get_bool(struct mp_cursor *c);
/* How many pairs of key and value follow. */
uint64_t mp_get_map(struct mp_cursor *c);
/* Is the next element nil? Then it is taken, else nothing is. */
bool mp_take_nil(struct mp_cursor *c);
/* Past n elements with all that is in them. */
void mp_skip(struct mp_cursor *c, uint64_t n);

#endif
