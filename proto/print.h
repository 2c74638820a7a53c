/* Text that is put together in a buffer; a failure is kept until print_end(). Pure functions. */
#ifndef STARLING_PRINT_H
#define STARLING_PRINT_H

#include "span.h"
#include <msgpack.h>
#include <stdint.h>

struct printer {
    msgpack_sbuffer *buffer;
    size_t before;
    int err;
};

/* Borrows the buffer and appends to it. */
struct printer print_begin(msgpack_sbuffer *buffer);
/* 0, or ERR_MEMORY: everything since print_begin() is taken back. */
int print_end(struct printer *p);

void print_span(struct printer *p, struct span text);
/* At most 255 bytes. */
void print_format(struct printer *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string; text must be valid UTF-8. */
void print_quoted(struct printer *p, struct span text);
/* Hundredths as a number with two decimals. */
void print_hundredths(struct printer *p, uint64_t value);

#endif
