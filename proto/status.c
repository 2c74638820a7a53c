#include "status.h"
#include "err.h"
#include "mp.h"
#include "print.h"
#include "utf8.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum { VERSION = 1, ELEMENTS = 6, LINK_ELEMENTS = 8, IN_HOLE = 1 };

enum kind { COUNT, HUNDREDTHS, OPTIONAL, STATE, STORE };

static const struct {
    const char *key;
    enum kind kind;
} table[STATUS_VALUES] = {
#define X(NAME, key, kind, meaning)              {key, kind},
#define M(NAME, key, kind, how, METRIC, meaning) {key, kind},
#include "status_value.def"
#undef M
#undef X
};

const char *status_key(enum status_value value)
{
    return table[value].key;
}

/* ---- writing ---- */

static void put_link(struct mp_writer *w, const struct status_link *l)
{
    mp_put_array(w, LINK_ELEMENTS);
    mp_put_uint(w, l->from.tag);
    mp_put_uint(w, l->from.boot);
    mp_put_uint(w, l->sent_us);
    mp_put_uint(w, l->held_us);
    mp_put_uint(w, l->delay_us);
    mp_put_uint(w, l->silent_ms);
    mp_put_uint(w, l->behind);
    mp_put_uint(w, l->in_hole ? IN_HOLE : 0);
}

int status_write(msgpack_sbuffer *b, const struct status *s)
{
    struct mp_writer w;
    assert(s->n_links <= LIMIT_STATUS_LINKS);
    mp_begin(&w, b);
    mp_put_array(&w, ELEMENTS);
    mp_put_uint(&w, VERSION);
    mp_put_text(&w, s->name, MESH_NAME_BYTES);
    mp_put_text(&w, s->host, MESH_NAME_BYTES);
    mp_put_uint(&w, s->sent_us);
    mp_put_array(&w, STATUS_VALUES);
    for (unsigned i = 0; i < STATUS_VALUES; i++)
        mp_put_uint(&w, s->value[i]);
    mp_put_array(&w, s->n_links);
    for (unsigned i = 0; i < s->n_links; i++)
        put_link(&w, &s->link[i]);
    return mp_end(&w);
}

/* ---- reading ---- */

static struct span get_name(struct mp_cursor *c)
{
    struct span name = mp_get_text(c, MESH_NAME_BYTES);
    if (!utf8_valid(name.p, name.n))
        mp_refuse(c);
    return name;
}

static uint64_t get_below(struct mp_cursor *c, uint64_t end)
{
    uint64_t value = mp_get_uint(c);
    return value < end ? value : mp_refuse(c);
}

static uint64_t get_value(struct mp_cursor *c, enum kind kind)
{
    return kind == STATE   ? get_below(c, STATUS_STATES)
           : kind == STORE ? get_below(c, STATUS_STORES)
                           : mp_get_uint(c);
}

/* A newer node tells more, an older one less. */
static void get_values(struct mp_cursor *c, uint64_t value[STATUS_VALUES])
{
    uint64_t n = mp_get_array(c), known = n < STATUS_VALUES ? n : STATUS_VALUES;
    memset(value, 0, STATUS_VALUES * sizeof(*value));
    for (unsigned i = 0; i < known; i++)
        value[i] = get_value(c, table[i].kind);
    mp_skip(c, n - known);
}

static void get_link(struct mp_cursor *c, struct status_link *l)
{
    uint64_t n = mp_get_array(c);
    l->from.tag = (uint32_t)get_below(c, 1u << 24);
    l->from.boot = mp_get_uint(c);
    l->sent_us = mp_get_uint(c);
    l->held_us = mp_get_uint(c);
    l->delay_us = mp_get_uint(c);
    l->silent_ms = mp_get_uint(c);
    l->behind = mp_get_uint(c);
    l->in_hole = (mp_get_uint(c) & IN_HOLE) != 0;
    mp_skip(c, n >= LINK_ELEMENTS ? n - LINK_ELEMENTS : mp_refuse(c));
}

int status_read(struct span bytes, struct status *s)
{
    struct mp_cursor c = mp_open(bytes);
    uint64_t n = mp_get_array(&c);
    if (n < ELEMENTS || mp_get_uint(&c) != VERSION)
        return ERR_STATUS;
    s->name = get_name(&c);
    s->host = get_name(&c);
    s->sent_us = mp_get_uint(&c);
    get_values(&c, s->value);
    s->n_links = mp_get_count(&c, LIMIT_STATUS_LINKS);
    for (unsigned i = 0; i < s->n_links; i++)
        get_link(&c, &s->link[i]);
    mp_skip(&c, n - ELEMENTS);
    return c.bad || c.p != c.end ? ERR_STATUS : 0;
}

/* ---- as JSON ---- */

void status_id(char out[STATUS_ID_BYTES], struct mesh_origin origin)
{
    snprintf(out, STATUS_ID_BYTES, "%06" PRIx32 "-%" PRIx64, origin.tag & 0xffffff, origin.boot);
}

static bool read_hex(struct span text, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < text.n; i++) {
        const char *digits = "0123456789abcdef", *digit = memchr(digits, text.p[i], 16);
        if (!digit)
            return false;
        *value = *value << 4 | (uint64_t)(digit - digits);
    }
    return text.n > 0;
}

bool status_id_read(struct span text, struct mesh_origin *origin)
{
    uint64_t tag, boot;
    if (text.n < 8 || text.n > 23 || text.p[6] != '-' || !read_hex((struct span){text.p, 6}, &tag) ||
        !read_hex((struct span){text.p + 7, text.n - 7}, &boot))
        return false;
    *origin = (struct mesh_origin){(uint32_t)tag, boot};
    return true;
}

static void print_value(struct printer *p, enum kind kind, uint64_t value)
{
    static const char *const states[] = {"starting", "ready", "draining", "stopping"};
    static const char *const stores[] = {"none", "down", "up"};
    switch (kind) {
    case HUNDREDTHS:
        print_hundredths(p, value);
        break;
    case OPTIONAL:
        if (value)
            print_format(p, "%" PRIu64, value - 1);
        else
            print_span(p, SPAN("null"));
        break;
    case STATE:
        print_format(p, "\"%s\"", states[value]);
        break;
    case STORE:
        print_format(p, "\"%s\"", stores[value]);
        break;
    default:
        print_format(p, "%" PRIu64, value);
    }
}

static void print_link(struct printer *p, const struct status_link *l)
{
    char id[STATUS_ID_BYTES];
    status_id(id, l->from);
    print_format(p, "{\"from\":\"%s\",\"delay_us\":", id);
    if (l->delay_us)
        print_format(p, "%" PRIu64, l->delay_us);
    else
        print_span(p, SPAN("null"));
    print_format(p, ",\"silent_ms\":%" PRIu64 ",\"behind\":%" PRIu64 ",\"hole\":%s}", l->silent_ms, l->behind,
                 l->in_hole ? "true" : "false");
}

int status_json(msgpack_sbuffer *b, const struct status *s)
{
    struct printer p = print_begin(b);
    print_span(&p, SPAN("\"name\":"));
    print_quoted(&p, s->name);
    print_span(&p, SPAN(",\"host\":"));
    print_quoted(&p, s->host);
    for (unsigned i = 0; i < STATUS_VALUES; i++) {
        print_format(&p, ",\"%s\":", table[i].key);
        print_value(&p, table[i].kind, s->value[i]);
    }
    print_span(&p, SPAN(",\"links\":["));
    for (unsigned i = 0; i < s->n_links; i++) {
        print_span(&p, i > 0 ? SPAN(",") : SPAN(""));
        print_link(&p, &s->link[i]);
    }
    print_span(&p, SPAN("]"));
    return print_end(&p);
}
