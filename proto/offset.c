#include "offset.h"
#include "base64.h"
#include "err.h"
#include <assert.h>
#include <stdbool.h>

#define PREFIX       "~1"
#define PREFIX_CHARS (sizeof(PREFIX) - 1)
#define SUM_BYTES    3
#define ORIGIN_BYTES 3
#define VARINT_MAX   10
#define HEAD_BYTES   (SUM_BYTES + ORIGIN_BYTES)
#define BYTES_MAX    (HEAD_BYTES + LIMIT_OFFSET_ORIGINS * (ORIGIN_BYTES + VARINT_MAX))

/* FNV-1a, folded to 24 bits. It guards against accidents, not against a client, who may send any offset
 * anyway. */
static uint32_t checksum(const uint8_t *p, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 16777619u;
    return (h >> 24) ^ (h & 0xffffff);
}

static void put24(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 16);
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)value;
}

static uint32_t get24(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

static uint8_t *put_varint(uint8_t *p, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        *p++ = (uint8_t)(value | 0x80);
    *p++ = (uint8_t)value;
    return p;
}

/* The bytes taken, or 0 when the number is cut off, exceeds 64 bits or has a needless last byte. */
static size_t get_varint(const uint8_t *p, size_t n, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < n && i < VARINT_MAX; i++) {
        *value |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if ((p[i] & 0x80) != 0)
            continue;
        bool minimal = i == 0 || p[i] != 0;
        bool fits = i < VARINT_MAX - 1 || p[i] == 1;
        return minimal && fits ? i + 1 : 0;
    }
    return 0;
}

ssize_t offset_encode(const struct offset *o, char *dst, size_t cap)
{
    assert(o->n <= LIMIT_OFFSET_ORIGINS);
    uint8_t bytes[BYTES_MAX], *p = bytes + HEAD_BYTES;
    assert(o->issuer <= 0xffffff);
    put24(bytes + SUM_BYTES, o->issuer);
    for (unsigned i = 0; i < o->n; i++) {
        const struct offset_entry *e = &o->entry[i];
        assert(e->origin <= 0xffffff && (i == 0 || e->origin > o->entry[i - 1].origin));
        put24(p, e->origin);
        p = put_varint(p + ORIGIN_BYTES, e->seq);
    }
    size_t n = (size_t)(p - bytes);
    put24(bytes, checksum(bytes + SUM_BYTES, n - SUM_BYTES));
    size_t chars = PREFIX_CHARS + (n * 4 + 2) / 3;
    if (chars > cap || chars > LIMIT_OFFSET_BYTES)
        return ERR_LIMIT;
    memcpy(dst, PREFIX, PREFIX_CHARS);
    size_t written = base64_encode_url(dst + PREFIX_CHARS, bytes, n);
    assert(PREFIX_CHARS + written == chars);
    return (ssize_t)(PREFIX_CHARS + written);
}

static int decode_entries(const uint8_t *p, size_t n, struct offset *o)
{
    o->n = 0;
    while (n > 0) {
        if (o->n == LIMIT_OFFSET_ORIGINS || n <= ORIGIN_BYTES)
            return ERR_OFFSET;
        struct offset_entry *e = &o->entry[o->n];
        e->origin = get24(p);
        size_t used = get_varint(p + ORIGIN_BYTES, n - ORIGIN_BYTES, &e->seq);
        if (used == 0 || (o->n > 0 && e->origin <= o->entry[o->n - 1].origin))
            return ERR_OFFSET;
        o->n++;
        p += ORIGIN_BYTES + used;
        n -= ORIGIN_BYTES + used;
    }
    return 0;
}

int offset_decode(struct span text, struct offset *o)
{
    if (text.n < PREFIX_CHARS || text.n > LIMIT_OFFSET_BYTES || memcmp(text.p, PREFIX, PREFIX_CHARS) != 0)
        return ERR_OFFSET;
    struct span body = {text.p + PREFIX_CHARS, text.n - PREFIX_CHARS};
    uint8_t bytes[LIMIT_OFFSET_BYTES / 4 * 3 + 3];
    ssize_t n = base64_decode(bytes, body.p, body.n);
    if (n < HEAD_BYTES || get24(bytes) != checksum(bytes + SUM_BYTES, (size_t)n - SUM_BYTES))
        return ERR_OFFSET;
    /* base64_decode() also takes padding and the other alphabet. */
    char again[BASE64_LENGTH(sizeof(bytes))];
    size_t again_n = base64_encode_url(again, bytes, (size_t)n);
    if (!span_eq((struct span){again, again_n}, body))
        return ERR_OFFSET;
    o->issuer = get24(bytes + SUM_BYTES);
    return decode_entries(bytes + HEAD_BYTES, (size_t)n - HEAD_BYTES, o);
}

/* Where it is among the entries, or would be. Mostly near the end. */
static unsigned place_of(const struct offset *o, uint32_t origin)
{
    unsigned i = o->n;
    while (i > 0 && o->entry[i - 1].origin >= origin)
        i--;
    return i;
}

bool offset_names(const struct offset *o, uint32_t origin)
{
    unsigned i = place_of(o, origin);
    return i < o->n && o->entry[i].origin == origin;
}

uint64_t offset_seq(const struct offset *o, uint32_t origin)
{
    unsigned i = place_of(o, origin);
    return i < o->n && o->entry[i].origin == origin ? o->entry[i].seq : 0;
}

int offset_raise(struct offset *o, uint32_t origin, uint64_t seq)
{
    unsigned i = place_of(o, origin);
    if (i < o->n && o->entry[i].origin == origin) {
        if (o->entry[i].seq < seq)
            o->entry[i].seq = seq;
        return 0;
    }
    if (o->n == LIMIT_OFFSET_ORIGINS)
        return ERR_LIMIT;
    memmove(&o->entry[i + 1], &o->entry[i], (o->n - i) * sizeof(o->entry[0]));
    o->entry[i] = (struct offset_entry){origin, seq};
    o->n++;
    return 0;
}
