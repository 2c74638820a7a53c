#include "entry.h"
#include "err.h"
#include "json.h"
#include "mp_names.h"
#include <assert.h>

#define VERSION  1
#define ELEMENTS 7 /* that are always there */

int entry_write(msgpack_sbuffer *b, const struct entry *e)
{
    struct mp_writer w;
    assert(e->nsp.n > 0 && e->sid.n == ENTRY_ID_CHARS && e->pid.n == ENTRY_ID_CHARS);
    assert(e->n_rooms <= LIMIT_ROOMS_PER_SOCKET);
    mp_begin(&w, b);
    mp_put_array(&w, ELEMENTS + (e->data.n > 0));
    mp_put_uint(&w, VERSION);
    mp_put_text(&w, e->nsp, LIMIT_NAMESPACE_BYTES);
    mp_put_text(&w, e->sid, ENTRY_ID_CHARS);
    mp_put_text(&w, e->pid, ENTRY_ID_CHARS);
    mp_put_text(&w, e->user, LIMIT_USER_BYTES);
    mp_put_text(&w, e->since, LIMIT_OFFSET_BYTES);
    mp_put_array(&w, e->n_rooms);
    for (unsigned i = 0; i < e->n_rooms; i++)
        mp_put_text(&w, e->rooms[i], LIMIT_ROOM_BYTES);
    if (e->data.n > 0)
        mp_put_text(&w, e->data, LIMIT_AGENT_DATA_BYTES);
    return mp_end(&w);
}

static struct span get_json(struct mp_cursor *c, uint32_t most)
{
    struct span text = mp_get_utf8(c, most);
    if (text.n > 0 && json_check(text, LIMIT_JSON_DEPTH) != 0)
        mp_refuse(c);
    return text;
}

int entry_read(struct span bytes, struct entry *e)
{
    struct mp_cursor c = mp_open(bytes);
    uint64_t n = mp_get_array(&c);
    if (n < ELEMENTS || mp_get_uint(&c) != VERSION)
        return ERR_ENTRY;
    e->nsp = mp_get_namespace(&c);
    e->sid = mp_get_id(&c);
    e->pid = mp_get_id(&c);
    e->user = get_json(&c, LIMIT_USER_BYTES);
    e->since = mp_get_text(&c, LIMIT_OFFSET_BYTES);
    e->n_rooms = mp_get_count(&c, LIMIT_ROOMS_PER_SOCKET);
    for (unsigned i = 0; i < e->n_rooms; i++)
        e->rooms[i] = mp_get_utf8(&c, LIMIT_ROOM_BYTES);
    e->data = n > ELEMENTS ? get_json(&c, LIMIT_AGENT_DATA_BYTES) : (struct span){"", 0};
    mp_skip(&c, n > ELEMENTS ? n - ELEMENTS - 1 : 0);
    return c.bad || c.p != c.end ? ERR_ENTRY : 0;
}
