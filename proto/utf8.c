#include "utf8.h"
#include <endian.h>
#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static const uint8_t *skip_ascii(const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word = le64toh(word) & HIGH_BITS;
        if (word != 0)
            return p + __builtin_ctzll(word) / 8;
    }
    while (p < end && *p < 0x80)
        ++p;
    return p;
}

static bool is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Length of the sequence of two to four bytes at p, of which four are readable; 0 when it is not valid. */
static size_t sequence(const uint8_t *p)
{
    if (!is_tail(p[1]))
        return 0;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return 2;
    unsigned high = (p[0] & 0x0fu) << 6 | (p[1] & 0x3fu); /* the code point's bits above the last tails */
    if ((p[0] & 0xf0) == 0xe0)
        return is_tail(p[2]) && high >= 0x800 >> 6 && (high < 0xd800 >> 6 || high > 0xdfff >> 6) ? 3 : 0;
    if (p[0] >= 0xf0 && p[0] <= 0xf4)
        return is_tail(p[2]) && is_tail(p[3]) && high >= 0x10000 >> 12 && high <= 0x10ffff >> 12 ? 4 : 0;
    return 0;
}

/* Past whole valid sequences. Stops at an invalid one, and may stop within the last three bytes: step()
 * decides about what is left. */
static const uint8_t *skip_valid(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 4) {
        if (*p < 0x80) {
            p = skip_ascii(p, end);
            continue;
        }
        size_t n = sequence(p);
        if (n == 0)
            break;
        p += n;
    }
    return p;
}

/* The byte that follows the state u; false when it may not. */
static bool step(struct utf8 *u, uint8_t byte)
{
    if (u->need > 0) {
        if (byte < u->lo || byte > u->hi)
            return false;
        *u = (struct utf8){(uint8_t)(u->need - 1), 0x80, 0xbf};
        return true;
    }
    if (byte < 0x80)
        return true;
    if (byte < 0xc2 || byte > 0xf4)
        return false;
    *u = (struct utf8){byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3, 0x80, 0xbf};
    switch (byte) {
    case 0xe0:
        u->lo = 0xa0;
        break;
    case 0xed:
        u->hi = 0x9f;
        break;
    case 0xf0:
        u->lo = 0x90;
        break;
    case 0xf4:
        u->hi = 0x8f;
        break;
    }
    return true;
}

bool utf8_feed(struct utf8 *u, const void *text, size_t n)
{
    if (n == 0)
        return true;
    const uint8_t *p = text, *end = p + n;
    struct utf8 state = *u;
    for (; p < end && state.need > 0; ++p) {
        if (!step(&state, *p))
            return false;
    }
    for (p = skip_valid(p, end); p < end; ++p) {
        if (!step(&state, *p))
            return false;
    }
    *u = state;
    return true;
}

bool utf8_valid(const void *p, size_t n)
{
    struct utf8 u = {0};
    return utf8_feed(&u, p, n) && utf8_complete(&u);
}

size_t utf8_sanitize(char *dst, const char *src, size_t n)
{
    if (n == 0)
        return 0;
    const uint8_t *p = (const uint8_t *)src, *end = p + n;
    char *out = dst;
    while (p < end) {
        struct utf8 u = {0};
        const uint8_t *q = skip_valid(p, end);
        bool ok = true;
        if (q == p) {
            while (q < end && (ok = step(&u, *q)) && (++q, u.need > 0))
                continue;
        }
        if (ok && utf8_complete(&u)) {
            memcpy(out, p, (size_t)(q - p));
            out += q - p;
        } else {
            memcpy(out, "\xef\xbf\xbd", 3);
            out += 3;
            if (q == p)
                ++q; /* a byte that starts nothing */
        }
        p = q;
    }
    return (size_t)(out - dst);
}
