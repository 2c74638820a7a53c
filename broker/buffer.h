/* A run of bytes that grows. */
#ifndef STARLING_BUFFER_H
#define STARLING_BUFFER_H

#include <stddef.h>

struct buffer {
    char *p;
    size_t n, cap;
};

/* 0 or ERR_MEMORY (nothing has changed then). */
int buffer_append(struct buffer *b, const void *p, size_t n);
/* Frees its memory; it may be used again. */
void buffer_reset(struct buffer *b);

#endif
