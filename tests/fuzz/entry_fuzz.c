/* Entries. As bytes: a second reader, which walks msgpack-c's tree, says which are good, and entry_read() agrees; what
 * is read and written again is the same to msgpack-c but for elements that are skipped. As an entry of any lengths:
 * written and read back it is the same, and one byte less or more makes it none. */
#include "entry.h"
#include "err.h"
#include "good_names.h"
#include "json.h"
#include "msgpack_whole.h"
#include <stdlib.h>

#define ELEMENTS 7

static struct entry entry, back;

static bool same(const struct entry *a, const struct entry *b)
{
    bool is_same = span_eq(a->nsp, b->nsp) && span_eq(a->sid, b->sid) && span_eq(a->pid, b->pid) &&
                   span_eq(a->user, b->user) && span_eq(a->data, b->data) && span_eq(a->since, b->since) &&
                   a->n_rooms == b->n_rooms;
    for (unsigned i = 0; is_same && i < a->n_rooms; i++)
        is_same = span_eq(a->rooms[i], b->rooms[i]);
    return is_same;
}

/* ---- bytes ---- */

static bool good_json(const msgpack_object *o, uint32_t most)
{
    return good_utf8(o, 0, most) && (o->via.str.size == 0 || json_check(text_of(o), 512) == 0);
}

static bool good_rooms(const msgpack_object *o)
{
    bool all = o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size <= 1024;
    for (uint32_t i = 0; all && i < o->via.array.size; i++)
        all = good_utf8(&o->via.array.ptr[i], 0, 256);
    return all;
}

static bool good(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < ELEMENTS)
        return false;
    const msgpack_object *e = o->via.array.ptr;
    return e[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER && e[0].via.u64 == 1 && good_namespace(&e[1]) &&
           good_id(&e[2]) && good_id(&e[3]) && good_json(&e[4], 4096) && good_text(&e[5], 0, 4096) &&
           good_rooms(&e[6]) && (o->via.array.size == ELEMENTS || good_json(&e[7], 16384));
}

static void check_again(const msgpack_object *expected)
{
    msgpack_sbuffer b, c;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&c);
    CHECK(entry_write(&b, &entry) == 0);
    CHECK(entry_read((struct span){b.data, b.size}, &back) == 0 && same(&entry, &back));
    CHECK(entry_write(&c, &back) == 0 &&
          span_eq((struct span){b.data, b.size}, (struct span){c.data, c.size}));
    msgpack_unpacked tree;
    msgpack_unpacked_init(&tree);
    size_t at = 0;
    CHECK(msgpack_unpack_next(&tree, b.data, b.size, &at) == MSGPACK_UNPACK_SUCCESS && at == b.size);
    CHECK(msgpack_object_equal(tree.data, *expected));
    msgpack_unpacked_destroy(&tree);
    msgpack_sbuffer_destroy(&b);
    msgpack_sbuffer_destroy(&c);
}

static void check_bytes(struct span bytes)
{
    int err = entry_read(bytes, &entry);
    CHECK(err == 0 || err == ERR_ENTRY);
    if (bytes.n == 0 || whole((struct bytes){(const uint8_t *)bytes.p, bytes.n}) != bytes.n) {
        CHECK(err != 0);
        return;
    }
    msgpack_unpacked tree;
    msgpack_unpacked_init(&tree);
    size_t at = 0;
    msgpack_unpack_return status = msgpack_unpack_next(&tree, bytes.p, bytes.n, &at);
    /* What is nested too deep for msgpack-c has no tree. */
    CHECK(status == MSGPACK_UNPACK_SUCCESS || status == MSGPACK_UNPACK_NOMEM_ERROR);
    if (status == MSGPACK_UNPACK_SUCCESS) {
        CHECK((err == 0) == good(&tree.data));
        tree.data.via.array.size = err == 0 ? ELEMENTS + (entry.data.n > 0) : tree.data.via.array.size;
        if (err == 0)
            check_again(&tree.data);
    }
    msgpack_unpacked_destroy(&tree);
}

/* ---- entries ---- */

struct supply {
    const uint8_t *p;
    size_t n;
};

static size_t draw(struct supply *s, size_t max)
{
    size_t value = s->n > 0 ? s->p[0] : 0, used = s->n > 1 ? 2 : s->n;
    value = s->n > 1 ? value << 8 | s->p[1] : value;
    s->p += used;
    s->n -= used;
    return value % (max + 1);
}

/* Texts of any length from one place each: a number as user and data, so that each length is JSON. */
static void make(struct supply *s)
{
    static const char ids[] = "CgsMo1JXq0bUu8wRk2_VCgsM-x7PzE4nd0aGt5hY";
    static char letters[LIMIT_OFFSET_BYTES + 64], digits[LIMIT_AGENT_DATA_BYTES],
        slashes[LIMIT_NAMESPACE_BYTES];
    for (size_t i = 0; i < sizeof(letters); i++)
        letters[i] = (char)('a' + i % 26);
    memset(digits, '7', sizeof(digits));
    memset(slashes, '/', sizeof(slashes));
    entry.nsp = (struct span){slashes, 1 + draw(s, LIMIT_NAMESPACE_BYTES - 1)};
    entry.sid = (struct span){ids + draw(s, ENTRY_ID_CHARS), ENTRY_ID_CHARS};
    entry.pid = (struct span){ids + draw(s, ENTRY_ID_CHARS), ENTRY_ID_CHARS};
    entry.user = (struct span){digits, draw(s, LIMIT_USER_BYTES)};
    entry.since = (struct span){letters + draw(s, 25), draw(s, LIMIT_OFFSET_BYTES)};
    entry.data = (struct span){digits, draw(s, LIMIT_AGENT_DATA_BYTES)};
    entry.n_rooms = (unsigned)draw(s, LIMIT_ROOMS_PER_SOCKET);
    for (unsigned i = 0; i < entry.n_rooms; i++)
        entry.rooms[i] = (struct span){letters + i % 26, draw(s, LIMIT_ROOM_BYTES)};
}

static void check_entry(void)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    CHECK(msgpack_sbuffer_write(&b, "x", 1) == 0 && entry_write(&b, &entry) == 0);
    CHECK(b.data[0] == 'x' && entry_read((struct span){b.data + 1, b.size - 1}, &back) == 0 &&
          same(&entry, &back));
    CHECK(entry_read((struct span){b.data + 1, b.size - 2}, &back) == ERR_ENTRY);
    CHECK(msgpack_sbuffer_write(&b, "\xc0", 1) == 0);
    CHECK(entry_read((struct span){b.data + 1, b.size - 1}, &back) == ERR_ENTRY);
    msgpack_sbuffer_destroy(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    check_bytes((struct span){(const char *)data, n});
    make(&(struct supply){data, n});
    check_entry();
    return 0;
}
