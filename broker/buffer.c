#include "buffer.h"
#include "err.h"
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAP = 512 };

int buffer_append(struct buffer *b, const void *p, size_t n)
{
    if (n == 0)
        return 0;
    if (b->n + n > b->cap) {
        size_t cap = b->cap ? b->cap : FIRST_CAP;
        while (cap < b->n + n)
            cap *= 2;
        char *grown = realloc(b->p, cap);
        if (!grown)
            return ERR_MEMORY;
        b->p = grown;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

void buffer_reset(struct buffer *b)
{
    free(b->p);
    *b = (struct buffer){0};
}
