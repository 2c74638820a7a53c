/* The parameters of a request's query string. Pure functions. */
#ifndef STARLING_QUERY_H
#define STARLING_QUERY_H

#include "span.h"
#include <stdbool.h>
#include <stdint.h>

/* The decoded value of the first parameter with this name, at most cap bytes of valid UTF-8: its length; 0 when it is not
 * there; ERR_LIMIT, ERR_UTF8. */
int query_text(struct span query, const char *name, char *dst, size_t cap);
/* False: it is there and is no number up to max; *value stays as it is when it is not there. */
bool query_uint(struct span query, const char *name, uint64_t max, uint64_t *value);

#endif
