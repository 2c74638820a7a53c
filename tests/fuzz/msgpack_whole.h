/* How long an element of msgpack is: written without any of the code under test, which reads with a cursor too, and
 * asked before msgpack-c is let at the bytes, as that believes what lengths announce. */
#ifndef STARLING_FUZZ_MSGPACK_WHOLE_H
#define STARLING_FUZZ_MSGPACK_WHOLE_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
    const uint8_t *p;
    size_t n;
};

static inline uint64_t number(struct bytes b, size_t from, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++)
        value = value * 256 + b.p[from + i];
    return value;
}

/* Bytes of an element's own, and how many others it holds; 0 when it is none or is cut off. */
static inline size_t own_bytes(struct bytes b, uint64_t *inner)
{
    static const uint8_t lengths[32] = {
        [0xc4 - 0xc0] = 1, [0xc5 - 0xc0] = 2, [0xc6 - 0xc0] = 4, [0xc7 - 0xc0] = 1, [0xc8 - 0xc0] = 2,
        [0xc9 - 0xc0] = 4, [0xd9 - 0xc0] = 1, [0xda - 0xc0] = 2, [0xdb - 0xc0] = 4, [0xdc - 0xc0] = 2,
        [0xdd - 0xc0] = 4, [0xde - 0xc0] = 2, [0xdf - 0xc0] = 4,
    };
    static const uint8_t plain[32] = {
        [0] = 1,
        [2] = 1,
        [3] = 1,
        [0xca - 0xc0] = 5,
        [0xcb - 0xc0] = 9,
        [0xcc - 0xc0] = 2,
        [0xcd - 0xc0] = 3,
        [0xce - 0xc0] = 5,
        [0xcf - 0xc0] = 9,
        [0xd0 - 0xc0] = 2,
        [0xd1 - 0xc0] = 3,
        [0xd2 - 0xc0] = 5,
        [0xd3 - 0xc0] = 9,
        [0xd4 - 0xc0] = 3,
        [0xd5 - 0xc0] = 4,
        [0xd6 - 0xc0] = 6,
        [0xd7 - 0xc0] = 10,
        [0xd8 - 0xc0] = 18,
    };
    *inner = 0;
    if (b.n == 0)
        return 0;
    uint8_t f = b.p[0];
    if (f < 0xc0 || f >= 0xe0) {
        *inner = f >> 4 == 8 ? 2u * (f & 15u) : f >> 4 == 9 ? f & 15u : 0;
        return f >= 0xa0 && f < 0xc0 ? 1u + (f & 31u) : 1;
    }
    size_t length = lengths[f - 0xc0];
    if (length == 0 || b.n < 1 + length)
        return length == 0 ? plain[f - 0xc0] : 0;
    uint64_t value = number(b, 1, length);
    if (f >= 0xdc)
        *inner = f >= 0xde ? 2 * value : value;
    else
        length += value + (f >= 0xc7 && f <= 0xc9);
    return 1 + length;
}

/* Bytes of an element with all that it holds, or 0. */
static inline size_t whole(struct bytes b)
{
    uint64_t inner;
    size_t n = own_bytes(b, &inner);
    if (n == 0 || n > b.n)
        return 0;
    for (; inner > 0; inner--) {
        size_t part = whole((struct bytes){b.p + n, b.n - n});
        if (part == 0)
            return 0;
        n += part;
    }
    return n;
}

#endif
