#include "mp.h"
#include "err.h"
#include <assert.h>

void mp_begin(struct mp_writer *w, msgpack_sbuffer *buffer)
{
    *w = (struct mp_writer){.buffer = buffer, .before = buffer->size};
    msgpack_packer_init(&w->packer, buffer, msgpack_sbuffer_write);
}

int mp_end(struct mp_writer *w)
{
    if (w->err == 0)
        return 0;
    w->buffer->size = w->before;
    return ERR_MEMORY;
}

void mp_put_uint(struct mp_writer *w, uint64_t value)
{
    w->err |= msgpack_pack_uint64(&w->packer, value);
}

void mp_put_int(struct mp_writer *w, int64_t value)
{
    w->err |= msgpack_pack_int64(&w->packer, value);
}

void mp_put_array(struct mp_writer *w, size_t n)
{
    w->err |= msgpack_pack_array(&w->packer, n);
}

void mp_put_bytes(struct mp_writer *w, struct span bytes)
{
    if (bytes.n > 0)
        w->err |= msgpack_sbuffer_write(w->packer.data, bytes.p, bytes.n);
}

void mp_put_text(struct mp_writer *w, struct span text, size_t limit)
{
    assert(text.n <= limit);
    (void)limit;
    w->err |= msgpack_pack_str(&w->packer, text.n);
    mp_put_bytes(w, text);
}

void mp_put_bin(struct mp_writer *w, struct span bytes)
{
    assert(bytes.n <= UINT32_MAX);
    w->err |= msgpack_pack_bin(&w->packer, bytes.n);
    mp_put_bytes(w, bytes);
}

void mp_put_nil(struct mp_writer *w)
{
    w->err |= msgpack_pack_nil(&w->packer);
}

void mp_put_bool(struct mp_writer *w, bool value)
{
    w->err |= value ? msgpack_pack_true(&w->packer) : msgpack_pack_false(&w->packer);
}

void mp_put_map(struct mp_writer *w, size_t n)
{
    w->err |= msgpack_pack_map(&w->packer, n);
}

void mp_put_text_head(struct mp_writer *w, size_t n)
{
    assert(n <= UINT32_MAX);
    w->err |= msgpack_pack_str(&w->packer, n);
}

struct mp_cursor mp_open(struct span bytes)
{
    const uint8_t *p = (const uint8_t *)(bytes.p ? bytes.p : "");
    return (struct mp_cursor){p, p + bytes.n, false};
}

uint64_t mp_refuse(struct mp_cursor *c)
{
    c->p = c->end;
    c->bad = true;
    return 0;
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static uint64_t get_fixed(struct mp_cursor *c, size_t bytes)
{
    if (mp_left(c) < bytes)
        return mp_refuse(c);
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | *c->p++;
    return value;
}

static uint64_t get_wide_uint(struct mp_cursor *c, uint8_t format)
{
    size_t bytes = (size_t)1 << (format & 3);
    if (format < 0xcc || format > 0xd3)
        return mp_refuse(c);
    uint64_t value = get_fixed(c, bytes);
    /* d0 to d3 are signed: the number's high bit must not be set. */
    return format >= 0xd0 && value >> (8 * bytes - 1) != 0 ? mp_refuse(c) : value;
}

uint64_t mp_get_uint(struct mp_cursor *c)
{
    if (c->p == c->end)
        return mp_refuse(c);
    uint8_t format = *c->p++;
    return format <= 0x7f ? format : get_wide_uint(c, format);
}

int64_t mp_get_int(struct mp_cursor *c)
{
    uint8_t format = c->p == c->end ? 0 : *c->p;
    if (format >= 0xe0) {
        c->p++;
        return (int64_t)format - 256;
    }
    if (format >= 0xd0 && format <= 0xd3) {
        unsigned bits = 8u << (format & 3);
        c->p++;
        uint64_t value = get_fixed(c, bits / 8), sign = UINT64_C(1) << (bits - 1);
        /* Extends the sign without ever leaving the range of either type. */
        return value & sign ? -(int64_t)(sign - (value ^ sign) - 1) - 1 : (int64_t)value;
    }
    uint64_t value = mp_get_uint(c);
    return (int64_t)(value <= INT64_MAX ? value : mp_refuse(c));
}

/* Each element takes a byte at least: whoever announces more than there is left is not believed. */
uint64_t mp_get_array(struct mp_cursor *c)
{
    if (c->p == c->end)
        return mp_refuse(c);
    uint8_t format = *c->p++;
    uint64_t n;
    if (format >= 0x90 && format <= 0x9f)
        n = format & 0xf;
    else if (format == 0xdc || format == 0xdd)
        n = get_fixed(c, format == 0xdc ? 2 : 4);
    else
        return mp_refuse(c);
    return n <= mp_left(c) ? n : mp_refuse(c);
}

unsigned mp_get_count(struct mp_cursor *c, unsigned limit)
{
    uint64_t n = mp_get_array(c);
    return (unsigned)(n <= limit ? n : mp_refuse(c));
}

static struct span get_bytes(struct mp_cursor *c, uint64_t n)
{
    if (n > mp_left(c))
        n = mp_refuse(c);
    struct span bytes = {(const char *)c->p, n};
    c->p += n;
    return bytes;
}

struct span mp_get_text(struct mp_cursor *c, uint64_t limit)
{
    uint64_t n = 0;
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format >= 0xa0 && format <= 0xbf)
        n = format & 0x1f;
    else if (format >= 0xd9 && format <= 0xdb)
        n = get_fixed(c, (size_t)1 << (format - 0xd9));
    else
        mp_refuse(c);
    return get_bytes(c, n <= limit ? n : mp_refuse(c));
}

struct span mp_get_bin(struct mp_cursor *c)
{
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format < 0xc4 || format > 0xc6)
        mp_refuse(c);
    return get_bytes(c, get_fixed(c, (size_t)1 << (format & 3)));
}

struct span mp_get_text_or_bin(struct mp_cursor *c, bool *is_bin)
{
    *is_bin = c->p < c->end && *c->p >= 0xc4 && *c->p <= 0xc6;
    return *is_bin ? mp_get_bin(c) : mp_get_text(c, UINT32_MAX);
}

bool mp_get_bool(struct mp_cursor *c)
{
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format != 0xc2 && format != 0xc3)
        mp_refuse(c);
    return format == 0xc3;
}

uint64_t mp_get_map(struct mp_cursor *c)
{
    uint64_t n = 0;
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format >= 0x80 && format <= 0x8f)
        n = format & 0xf;
    else if (format == 0xde || format == 0xdf)
        n = get_fixed(c, format == 0xde ? 2 : 4);
    else
        mp_refuse(c);
    return 2 * n <= mp_left(c) ? n : mp_refuse(c);
}

bool mp_take_nil(struct mp_cursor *c)
{
    bool is_nil = c->p < c->end && *c->p == 0xc0;
    c->p += is_nil;
    return is_nil;
}

/* The bytes behind a format byte, and in *follow how many elements come then. */
static uint64_t get_extent(struct mp_cursor *c, uint8_t format, uint64_t *follow)
{
    static const uint8_t fixed[] = {
        [0xca - 0xc0] = 4, [0xcb - 0xc0] = 8, [0xcc - 0xc0] = 1, [0xcd - 0xc0] = 2, [0xce - 0xc0] = 4,
        [0xcf - 0xc0] = 8, [0xd0 - 0xc0] = 1, [0xd1 - 0xc0] = 2, [0xd2 - 0xc0] = 4, [0xd3 - 0xc0] = 8,
        [0xd4 - 0xc0] = 2, [0xd5 - 0xc0] = 3, [0xd6 - 0xc0] = 5, [0xd7 - 0xc0] = 9, [0xd8 - 0xc0] = 17,
    };
    *follow = 0;
    if (format < 0x80 || format >= 0xe0)
        return 0;
    if (format < 0xa0)
        *follow = format < 0x90 ? 2 * (format & 0xfu) : format & 0xfu;
    else if (format < 0xc0)
        return format & 0x1f;
    else if (format == 0xc1)
        return mp_refuse(c);
    else if (format < 0xc4)
        return 0;
    else if (format < 0xc7) /* bin */
        return get_fixed(c, (size_t)1 << (format - 0xc4));
    else if (format < 0xca) /* ext, and its type */
        return get_fixed(c, (size_t)1 << (format - 0xc7)) + 1;
    else if (format < 0xd9)
        return fixed[format - 0xc0];
    else if (format < 0xdc) /* str */
        return get_fixed(c, (size_t)1 << (format - 0xd9));
    else if (format < 0xde)
        *follow = get_fixed(c, format == 0xdc ? 2 : 4);
    else
        *follow = 2 * get_fixed(c, format == 0xde ? 2 : 4);
    return 0;
}

/* Nesting needs no memory: only how many elements are still to come
 * matters. */
void mp_skip(struct mp_cursor *c, uint64_t n)
{
    for (; n > 0; n--) {
        uint64_t follow;
        if (n > mp_left(c)) {
            mp_refuse(c);
            return;
        }
        uint8_t format = *c->p++;
        get_bytes(c, get_extent(c, format, &follow));
        n += follow;
    }
}
