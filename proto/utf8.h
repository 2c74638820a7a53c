/* UTF-8 checks (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF). Pure functions. */
#ifndef STARLING_UTF8_H
#define STARLING_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* State between the pieces of one text; zero-initialise. */
struct utf8 {
    uint8_t need;   /* continuation bytes still to come */
    uint8_t lo, hi; /* range allowed for the next one */
};

/* False as soon as the text cannot be valid any more. */
bool utf8_feed(struct utf8 *u, const void *p, size_t n);

/* True when the text may end here. */
static inline bool utf8_complete(const struct utf8 *u)
{
    return u->need == 0;
}

bool utf8_valid(const void *p, size_t n);

/* Copies n bytes, each maximal invalid part replaced by U+FFFD as browsers do. dst must hold 3 * n bytes. */
size_t utf8_sanitize(char *dst, const char *src, size_t n);

#endif
