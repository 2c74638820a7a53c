/* Offsets. As text: whatever is taken is exactly what the encoder writes. As an issuer and a list of entries: written
 * and read back they are the same. */
#include "err.h"
#include "offset.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_text(struct span text)
{
    struct offset o;
    char again[LIMIT_OFFSET_BYTES];
    int err = offset_decode(text, &o);
    CHECK(err == 0 || err == ERR_OFFSET);
    if (err != 0)
        return;
    CHECK(o.issuer <= 0xffffff && o.n <= LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < o.n; i++)
        CHECK(o.entry[i].origin <= 0xffffff && (i == 0 || o.entry[i].origin > o.entry[i - 1].origin));
    ssize_t n = offset_encode(&o, again, sizeof(again));
    CHECK(n >= 0 && span_eq((struct span){again, (size_t)n}, text));
}

static uint32_t get_tag(const uint8_t *data)
{
    return (uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2];
}

/* Eleven bytes an entry: the distance to the origin before it, and its number. */
static void read_entries(const uint8_t *data, size_t n, struct offset *o)
{
    uint32_t next = 0;
    for (o->n = 0; n >= 11 && o->n < LIMIT_OFFSET_ORIGINS; data += 11, n -= 11) {
        struct offset_entry *e = &o->entry[o->n];
        e->origin = next + get_tag(data);
        if (e->origin > 0xffffff)
            return;
        memcpy(&e->seq, data + 3, sizeof(e->seq));
        next = e->origin + 1;
        o->n++;
    }
}

static void check_offset(const struct offset *o, size_t at, uint8_t with)
{
    char text[LIMIT_OFFSET_BYTES];
    ssize_t n = offset_encode(o, text, sizeof(text));
    if (n == ERR_LIMIT) {
        CHECK(o->n > LIMIT_OFFSET_ORIGINS / 2);
        return;
    }
    CHECK(n > 0);
    struct offset back;
    CHECK(offset_decode((struct span){text, (size_t)n}, &back) == 0);
    CHECK(back.issuer == o->issuer && back.n == o->n);
    for (unsigned i = 0; i < o->n; i++)
        CHECK(back.entry[i].origin == o->entry[i].origin && back.entry[i].seq == o->entry[i].seq);
    CHECK(offset_encode(o, text, (size_t)n - 1) == ERR_LIMIT);
    text[at % (size_t)n] = (char)with;
    check_text((struct span){text, (size_t)n});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    check_text((struct span){(const char *)data, n});
    if (n < 3)
        return 0;
    struct offset o = {.issuer = get_tag(data)};
    read_entries(data + 3, n - 3, &o);
    check_offset(&o, data[1], data[2]);
    return 0;
}
