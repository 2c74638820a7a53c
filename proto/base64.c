#include "base64.h"
#include "err.h"
#include <stdbool.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* The value of each character of both alphabets; VALID is missing from every other byte. */
#define VALID       0x40
#define V(c, value) [c] = VALID | (value)
#define V5(c, value)                                                                                         \
    V(c, value), V((c) + 1, (value) + 1), V((c) + 2, (value) + 2), V((c) + 3, (value) + 3),                  \
        V((c) + 4, (value) + 4)
#define V26(c, value)                                                                                        \
    V5(c, value), V5((c) + 5, (value) + 5), V5((c) + 10, (value) + 10), V5((c) + 15, (value) + 15),          \
        V5((c) + 20, (value) + 20), V((c) + 25, (value) + 25)
static const uint8_t values[256] = {
    V26('A', 0), V26('a', 26), V5('0', 52), V5('5', 57), V('+', 62), V('-', 62), V('/', 63), V('_', 63),
};

/* Whole groups of three bytes, then the characters that the last one or two bytes need, without padding. */
static char *encode(char *dst, const uint8_t *p, size_t n, const char alphabet[static 64])
{
    for (; n >= 3; n -= 3, p += 3, dst += 4) {
        uint32_t group = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        dst[0] = alphabet[group >> 18];
        dst[1] = alphabet[group >> 12 & 63];
        dst[2] = alphabet[group >> 6 & 63];
        dst[3] = alphabet[group & 63];
    }
    if (n > 0) {
        uint32_t group = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0);
        *dst++ = alphabet[group >> 18];
        *dst++ = alphabet[group >> 12 & 63];
        if (n > 1)
            *dst++ = alphabet[group >> 6 & 63];
    }
    return dst;
}

size_t base64_encode(char *dst, const void *src, size_t n)
{
    char *end = encode(dst, src, n, LETTERS "+/");
    while ((end - dst) % 4 != 0)
        *end++ = '=';
    return (size_t)(end - dst);
}

size_t base64_encode_url(char *dst, const void *src, size_t n)
{
    return (size_t)(encode(dst, src, n, LETTERS "-_") - dst);
}

/* n characters, 2 or 3, that carry the last n - 1 bytes; bits behind those bytes must be 0. */
static bool decode_rest(uint8_t *dst, const uint8_t *p, size_t n)
{
    uint8_t a = values[p[0]], b = values[p[1]], c = n == 3 ? values[p[2]] : VALID;
    uint32_t group = (a & 63u) << 18 | (b & 63u) << 12 | (c & 63u) << 6;
    dst[0] = (uint8_t)(group >> 16);
    if (n == 3)
        dst[1] = (uint8_t)(group >> 8);
    return (a & b & c & VALID) != 0 && (group & (n == 3 ? 0xff : 0xffff)) == 0;
}

ssize_t base64_decode(void *dst, const char *src, size_t n)
{
    if (n % 4 == 0 && n > 0 && src[n - 1] == '=')
        n -= src[n - 2] == '=' ? 2 : 1;
    if (n % 4 == 1)
        return ERR_BASE64;

    const uint8_t *p = (const uint8_t *)src;
    uint8_t *out = dst, valid = VALID;
    for (; n >= 4; n -= 4, p += 4, out += 3) {
        uint8_t a = values[p[0]], b = values[p[1]], c = values[p[2]], d = values[p[3]];
        uint32_t group = (a & 63u) << 18 | (b & 63u) << 12 | (c & 63u) << 6 | (d & 63u);
        valid &= a & b & c & d;
        out[0] = (uint8_t)(group >> 16);
        out[1] = (uint8_t)(group >> 8);
        out[2] = (uint8_t)group;
    }
    if (valid == 0 || (n > 0 && !decode_rest(out, p, n)))
        return ERR_BASE64;
    return out - (uint8_t *)dst + (ssize_t)(n > 0 ? n - 1 : 0);
}
