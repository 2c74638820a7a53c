/* Base64 (RFC 4648). Pure functions. */
#ifndef STARLING_BASE64_H
#define STARLING_BASE64_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BASE64_LENGTH(n) (((n) + 2) / 3 * 4)

/* Standard alphabet, padded; writes BASE64_LENGTH(n) characters, no terminator. Returns how many. */
size_t base64_encode(char *dst, const void *src, size_t n);

/* URL-safe alphabet, not padded (identifiers, offsets). Returns the number of characters. */
size_t base64_encode_url(char *dst, const void *src, size_t n);

/* Accepts both alphabets, padding present or absent; anything else is ERR_BASE64,
 * bits left over behind the last byte included when one is set.
 * dst must hold n / 4 * 3 + 3 bytes and may be equal to src. Returns the number of bytes. */
ssize_t base64_decode(void *dst, const char *src, size_t n);

#endif
