#include "relay_message.h"
#include "err.h"
#include "mp_names.h"
#include <assert.h>

static const uint8_t elements[] = {
    [RELAY_OPEN] = 5, [RELAY_DATA] = 5, [RELAY_TAKEN] = 4, [RELAY_CLOSE] = 3, [RELAY_MOVE] = 7,
};

/* ---- writing ---- */

static void put_bin(struct mp_writer *w, struct span bytes, size_t limit)
{
    assert(bytes.n <= limit);
    (void)limit;
    mp_put_bin(w, bytes);
}

static void put_move(struct mp_writer *w, const struct relay_message *m)
{
    assert(m->n_places > 0 && m->n_places <= LIMIT_NAMESPACES_PER_CLIENT);
    mp_put_text(w, m->sid, MP_ID_CHARS);
    mp_put_uint(w, m->got);
    mp_put_text(w, m->since, LIMIT_OFFSET_BYTES);
    mp_put_array(w, m->n_places);
    for (unsigned i = 0; i < m->n_places; i++) {
        mp_put_array(w, 2);
        mp_put_text(w, m->places[i].nsp, LIMIT_NAMESPACE_BYTES);
        mp_put_text(w, m->places[i].pid, MP_ID_CHARS);
    }
    put_bin(w, m->bytes, LIMIT_RELAY_OUTPUT_BYTES);
}

int relay_message_write(msgpack_sbuffer *b, const struct relay_message *m)
{
    struct mp_writer w;
    mp_begin(&w, b);
    mp_put_array(&w, elements[m->what]);
    mp_put_uint(&w, m->what);
    mp_put_uint(&w, m->id);
    if (m->what == RELAY_DATA || m->what == RELAY_TAKEN || m->what == RELAY_CLOSE)
        mp_put_bool(&w, m->mine);
    if (m->what == RELAY_OPEN) {
        mp_put_uint(&w, m->ip);
        mp_put_uint(&w, m->port);
        put_bin(&w, m->bytes, LIMIT_RELAY_PIECE_BYTES);
    } else if (m->what == RELAY_DATA) {
        mp_put_uint(&w, m->offset);
        put_bin(&w, m->bytes, LIMIT_RELAY_PIECE_BYTES);
    } else if (m->what == RELAY_TAKEN) {
        mp_put_uint(&w, m->n);
    } else if (m->what == RELAY_MOVE) {
        put_move(&w, m);
    }
    return mp_end(&w);
}

/* ---- reading ---- */

static uint64_t get_uint(struct mp_cursor *c, uint64_t max)
{
    uint64_t value = mp_get_uint(c);
    return value <= max ? value : mp_refuse(c);
}

static struct span get_bin(struct mp_cursor *c, size_t limit)
{
    struct span bytes = mp_get_bin(c);
    if (bytes.n > limit)
        mp_refuse(c);
    return bytes;
}

static void get_place(struct mp_cursor *c, struct relay_message *m, unsigned i)
{
    uint64_t n = mp_get_array(c);
    m->places[i].nsp = mp_get_namespace(c);
    m->places[i].pid = mp_get_id(c);
    mp_skip(c, n >= 2 ? n - 2 : mp_refuse(c));
    for (unsigned j = 0; j < i; j++)
        if (span_eq(m->places[j].nsp, m->places[i].nsp))
            mp_refuse(c);
}

static void get_move(struct mp_cursor *c, struct relay_message *m)
{
    m->sid = mp_get_id(c);
    m->got = mp_get_uint(c);
    m->since = mp_get_text(c, LIMIT_OFFSET_BYTES);
    m->n_places = mp_get_count(c, LIMIT_NAMESPACES_PER_CLIENT);
    if (m->n_places == 0)
        mp_refuse(c);
    for (unsigned i = 0; i < m->n_places && !c->bad; i++)
        get_place(c, m, i);
    m->bytes = get_bin(c, LIMIT_RELAY_OUTPUT_BYTES);
}

static void get_rest(struct mp_cursor *c, struct relay_message *m)
{
    if (m->what == RELAY_DATA || m->what == RELAY_TAKEN || m->what == RELAY_CLOSE)
        m->mine = mp_get_bool(c);
    if (m->what == RELAY_OPEN) {
        m->ip = (uint32_t)get_uint(c, UINT32_MAX);
        m->port = (uint16_t)get_uint(c, UINT16_MAX);
        m->bytes = get_bin(c, LIMIT_RELAY_PIECE_BYTES);
    } else if (m->what == RELAY_DATA) {
        m->offset = mp_get_uint(c);
        m->bytes = get_bin(c, LIMIT_RELAY_PIECE_BYTES);
    } else if (m->what == RELAY_TAKEN) {
        m->n = mp_get_uint(c);
    } else if (m->what == RELAY_MOVE) {
        get_move(c, m);
    }
}

int relay_message_read(struct span bytes, struct relay_message *m)
{
    struct mp_cursor c = mp_open(bytes);
    uint64_t n = mp_get_array(&c), what = mp_get_uint(&c);
    if (c.bad)
        return ERR_RELAY;
    if (what < RELAY_OPEN || what > RELAY_MOVE)
        return ERR_KIND;
    *m = (struct relay_message){.what = (enum relay_what)what, .id = mp_get_uint(&c)};
    get_rest(&c, m);
    mp_skip(&c, n >= elements[what] ? n - elements[what] : mp_refuse(&c));
    return c.bad || c.p != c.end ? ERR_RELAY : 0;
}
