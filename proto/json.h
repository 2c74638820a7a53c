/* JSON that is checked once and then passed on byte for byte. Nothing is parsed into a tree: a check that
 * runs in one pass without recursion, and cursors that walk text which the check accepted. Pure functions.
 * Strings may hold lone surrogate escapes and numbers any magnitude, as JSON.parse allows. */
#ifndef STARLING_JSON_H
#define STARLING_JSON_H

#include "span.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum json_type { JSON_NONE, JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* The whole text is exactly one value (blanks around it allowed): 0, ERR_JSON or ERR_JSON_DEPTH.
 * max_depth counts open brackets (0: no array or object) and is at most LIMIT_JSON_DEPTH.
 * The text must be valid UTF-8 already; bytes above 0x7f pass inside strings only. */
int json_check(struct span text, unsigned max_depth);

/* Everything below expects text that json_check() accepted, or a part of it that a cursor gave. */

enum json_type json_type(struct span value);

/* A walk over the items of an array or the members of an object. One may also be set by hand over the text
 * between the brackets. */
struct json_cursor {
    const char *p, *end;
};

/* Any other value than an array or object gives a cursor without items. */
struct json_cursor json_open(struct span value);

/* The next item of an array, without blanks around it; false at the end. */
bool json_item(struct json_cursor *c, struct span *value);

/* The next member of an object; the key is raw, with its quotes. */
bool json_member(struct json_cursor *c, struct span *key, struct span *value);

/* The value of the last member with this (plain ASCII) key; a span with n == 0 when there is none. Compares
 * decoded keys, so "\u0074o" is found as "to". */
struct span json_get(struct span object, const char *key);

bool json_is_true(struct span value);

/* The text of a string value as UTF-8 into dst: its length, or ERR_LIMIT when it needs more than cap bytes, or
 * ERR_JSON for another type, a lone surrogate, or U+0000. No terminator is written. */
ssize_t json_string(struct span value, char *dst, size_t cap);

/* An unsigned integer without fraction or exponent, at most max: true and its value. */
bool json_uint(struct span value, uint64_t max, uint64_t *out);

/* src as a JSON string with quotes; dst must hold JSON_QUOTED_MAX(n). src must be valid UTF-8. */
#define JSON_QUOTED_MAX(n) (6 * (n) + 2)
size_t json_quote(char *dst, struct span src);

#endif
