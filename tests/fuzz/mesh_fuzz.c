/* Messages of the mesh. A second reader, which walks records as trees and knows each kind's layout as a word,
 * says which records are good: mesh_read() agrees with it on every one, and its fields, written again, are to
 * msgpack-c the same values as the bytes read. The records' own bytes put together make the same message, and version 1
 * finds the number of each in what is written for it. */
#include "err.h"
#include "mesh.h"
#include "msgpack_whole.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* Behind the kind: u number, f flags, g tag, t topic, s text, m name, e endpoint, r namespace or room, b binary, k key, U user, R rooms,
 * B binaries, H heard, P peers; behind the bar what version 1 does not have. */
static const char *const layouts[] = {
    [1] = "urRfssRBguu|rku",
    [2] = "urr|uU",
    [3] = "urr",
    [4] = "urrR",
    [5] = "urrR",
    [6] = "utbb",
    [16] = "uufH",
    [17] = "tb",
    [33] = "guuu",
    [34] = "guuuu",
    [32] = "meemuf|e",
    [35] = "",
    [36] = "uf",
    [37] = "P",
    [40] = "tb",
};

static const char *layout(uint64_t kind)
{
    return kind < sizeof(layouts) / sizeof(layouts[0]) ? layouts[kind] : NULL;
}

static bool has_number(uint64_t kind)
{
    return kind < 16;
}

static bool good_uint(const msgpack_object *o, uint64_t max)
{
    return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= max;
}

static bool good_array(const msgpack_object *o, char of, uint32_t max);

static bool good(const msgpack_object *o, char as)
{
    switch (as) {
    case 'u':
    case 'f':
    case 't':
        return good_uint(o, UINT64_MAX);
    case 'g':
        return good_uint(o, 0xffffff);
    case 's':
        return o->type == MSGPACK_OBJECT_STR;
    case 'm':
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= MESH_NAME_BYTES;
    case 'e':
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= MESH_ENDPOINT_BYTES;
    case 'r':
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= LIMIT_ROOM_BYTES;
    case 'R':
        return good_array(o, 'r', LIMIT_ROOMS_PER_CALL);
    case 'B':
        return good_array(o, 'b', LIMIT_ATTACHMENTS);
    case 'b':
        return o->type == MSGPACK_OBJECT_BIN;
    case 'k':
        return o->type == MSGPACK_OBJECT_BIN && o->via.bin.size <= MESH_KEY_BYTES;
    case 'U':
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= LIMIT_USER_BYTES;
    case 'H':
        return good_array(o, 'h', LIMIT_OFFSET_ORIGINS);
    case 'P':
        return good_array(o, 'p', LIMIT_OFFSET_ORIGINS);
    case 'p':
        return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= 2 && good(o->via.array.ptr, 'e') &&
               good(o->via.array.ptr + 1, 'e');
    default: /* one item of heard */
        return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= 3 && good(o->via.array.ptr, 'g') &&
               good(o->via.array.ptr + 1, 'u') && good(o->via.array.ptr + 2, 'u') &&
               (o->via.array.size == 3 || good(o->via.array.ptr + 3, 'u'));
    }
}

static bool good_array(const msgpack_object *o, char of, uint32_t max)
{
    bool all = o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size <= max;
    for (uint32_t i = 0; all && i < o->via.array.size; i++)
        all = good(&o->via.array.ptr[i], of);
    return all;
}

static bool good_record(const msgpack_object *o, const char *as)
{
    uint32_t at = 1;
    bool is_later = false;
    for (; *as != 0; as++) {
        if (*as == '|')
            is_later = true;
        else if (at == o->via.array.size)
            return is_later;
        else if (!good(&o->via.array.ptr[at++], *as))
            return false;
    }
    return true;
}

static void trim_items(msgpack_object *o, uint32_t n)
{
    for (uint32_t i = 0; i < o->via.array.size; i++)
        o->via.array.ptr[i].via.array.size = n;
}

static void trim_element(msgpack_object *o, char as, uint64_t flags)
{
    if (as == 'f')
        o->via.u64 &= flags;
    else if (as == 't' && o->via.u64 >= MESH_TOPICS)
        o->via.u64 = 0;
    else if (as == 'H' || as == 'P')
        trim_items(o, as == 'H' ? 3 : 2);
}

static msgpack_object nothing(char as)
{
    if (as == 'u')
        return (msgpack_object){.type = MSGPACK_OBJECT_POSITIVE_INTEGER, .via.u64 = 0};
    if (as == 'k')
        return (msgpack_object){.type = MSGPACK_OBJECT_BIN, .via.bin = {.size = 0, .ptr = ""}};
    return (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {.size = 0, .ptr = ""}};
}

/* Takes from a good record what a reader skips, and adds the later elements that it does not have. */
static void trim(msgpack_object *o, uint64_t kind)
{
    static msgpack_object elements[16];
    /* Those of PRESENCE hold the number of the part too. */
    uint64_t flags = kind == MESH_HEARTBEAT ? 3 : kind == MESH_PRESENCE ? UINT64_C(0x3ffffffff) : 1;
    uint32_t n = 1;
    elements[0] = o->via.array.ptr[0];
    for (const char *as = layout(kind); *as != 0; as++) {
        if (*as == '|')
            continue;
        elements[n] = n < o->via.array.size ? o->via.array.ptr[n] : nothing(*as);
        trim_element(&elements[n++], *as, flags);
    }
    /* The newest of the later ones are written only as far as they say something. */
    if (kind == MESH_EMIT && elements[n - 1].via.u64 == 0 && elements[n - 2].via.bin.size == 0)
        n -= 2;
    if (kind == MESH_ENTER && elements[n - 1].via.str.size == 0)
        n--;
    o->via.array.ptr = elements;
    o->via.array.size = n;
}

static void unpack(struct span bytes, msgpack_unpacked *result, msgpack_unpack_return *status)
{
    size_t at = 0;
    msgpack_unpacked_init(result);
    *status = msgpack_unpack_next(result, bytes.p, bytes.n, &at);
    CHECK(*status == MSGPACK_UNPACK_NOMEM_ERROR || (*status == MSGPACK_UNPACK_SUCCESS && at == bytes.n));
}

static void check_written(const struct mesh_record *record, msgpack_object *expected)
{
    static struct mesh_record again;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    CHECK(mesh_write(&b, record) == 0);
    struct span bytes = {b.data, b.size};
    msgpack_unpacked result;
    msgpack_unpack_return status;
    unpack(bytes, &result, &status);
    trim(expected, record->kind);
    CHECK(status == MSGPACK_UNPACK_SUCCESS && msgpack_object_equal(result.data, *expected));

    msgpack_sbuffer c;
    msgpack_sbuffer_init(&c);
    struct mesh_reader r = {b.data, b.data + b.size};
    CHECK(mesh_read(&r, &again) == 1 && r.p == r.end);
    CHECK(again.kind == record->kind && again.seq == record->seq && again.raw.n == b.size);
    CHECK(mesh_write(&c, &again) == 0 && span_eq((struct span){c.data, c.size}, bytes));
    msgpack_unpacked_destroy(&result);
    msgpack_sbuffer_destroy(&b);
    msgpack_sbuffer_destroy(&c);
}

/* In what is written for version 1 there is one record with this number that it knows, or none for a record that it
 * does not know and that has no number. The record itself comes first, for others who hear it. */
static void check_as_version_1(const struct mesh_record *record)
{
    static struct mesh_record again;
    bool is_known = record->kind >= MESH_EMIT && record->kind <= MESH_PART;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    CHECK(mesh_write_as(&b, MESH_VERSION, record->raw) == 0);
    CHECK(span_eq((struct span){b.data, b.size}, record->raw));
    msgpack_sbuffer_clear(&b);
    CHECK(mesh_write_as(&b, 1, record->raw) == 0);
    struct mesh_reader r = {b.data, b.data + b.size};
    CHECK(mesh_read(&r, &again) == 1 && span_eq(again.raw, record->raw));
    if (has_number(record->kind) && record->seq != 0 && !is_known) {
        CHECK(mesh_read(&r, &again) == 1 && again.kind == MESH_PART && again.seq == record->seq);
        CHECK(again.presence.nsp.n == 0 && again.presence.sid.n == 0 && again.presence.n_rooms == 0);
    }
    CHECK(r.p == r.end);
    msgpack_sbuffer_destroy(&b);
}

enum verdict {
    GOOD,
    NUMBERED, /* not known, but good as far as it is read */
    BROKEN,
    SKIPPED,
    UNCLEAR /* nested too deep for msgpack-c */
};

/* What the second reader says of the record that begins here; *result is then its tree. */
static enum verdict judge(struct span rest, size_t *n, msgpack_unpacked *result)
{
    *n = whole((struct bytes){(const uint8_t *)rest.p, rest.n});
    if (*n == 0)
        return BROKEN;
    msgpack_unpack_return status;
    unpack((struct span){rest.p, *n}, result, &status);
    const msgpack_object *o = &result->data;
    if (status == MSGPACK_UNPACK_NOMEM_ERROR)
        return UNCLEAR;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size == 0 || !good(o->via.array.ptr, 'u'))
        return BROKEN;
    uint64_t kind = o->via.array.ptr[0].via.u64;
    const char *as = layout(kind);
    if (as == NULL && !has_number(kind))
        return SKIPPED;
    if (!good_record(o, as == NULL ? "u" : as))
        return BROKEN;
    return as == NULL ? NUMBERED : GOOD;
}

/* Reads on to the next record that is not skipped, with both. */
static int step(struct mesh_reader *r, struct mesh_record *record)
{
    msgpack_unpacked tree;
    enum verdict verdict = SKIPPED;
    size_t n = 0;
    const char *at = r->p, *end = r->end;
    while (verdict == SKIPPED && at < end) {
        msgpack_unpacked_init(&tree);
        verdict = judge((struct span){at, (size_t)(end - at)}, &n, &tree);
        if (verdict > NUMBERED)
            msgpack_unpacked_destroy(&tree);
        at += verdict == SKIPPED ? n : 0;
    }
    int result = mesh_read(r, record);
    CHECK(verdict == UNCLEAR || result == (verdict <= NUMBERED ? 1 : verdict == BROKEN ? ERR_MESH : 0));
    if (verdict > NUMBERED)
        return result;
    CHECK(record->raw.p == at && record->raw.n == n && r->p == at + n);
    const msgpack_object *elements = tree.data.via.array.ptr;
    CHECK(record->kind == elements[0].via.u64);
    CHECK(record->seq == (has_number(record->kind) ? elements[1].via.u64 : 0));
    check_as_version_1(record);
    if (verdict == GOOD)
        check_written(record, &tree.data);
    msgpack_unpacked_destroy(&tree);
    return 1;
}

/* The records' own bytes, put together, are the same records. */
static void check_joined(const msgpack_sbuffer *joined, const struct mesh_head *head, size_t records)
{
    static struct mesh_record record;
    struct mesh_head again;
    struct mesh_reader r;
    CHECK(mesh_read_head(&r, (struct span){joined->data, joined->size}, &again) == 0);
    CHECK(again.version == head->version && span_eq(again.cluster, head->cluster));
    CHECK(again.origin.tag == head->origin.tag && again.origin.boot == head->origin.boot);
    for (; records > 0; records--) {
        const char *at = r.p;
        CHECK(mesh_read(&r, &record) == 1 && record.raw.p == at && r.p == at + record.raw.n);
    }
    CHECK(r.p == r.end && mesh_read(&r, &record) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct mesh_record record;
    struct mesh_head head;
    struct mesh_reader r;
    int err = mesh_read_head(&r, (struct span){(const char *)data, n}, &head);
    CHECK(err == 0 || err == ERR_MESH || err == ERR_VERSION);
    if (err != 0)
        return 0;
    CHECK(r.p > (const char *)data && r.p <= r.end && r.end == (const char *)data + n);
    CHECK((size_t)(r.p - (const char *)data) == whole((struct bytes){data, n}));
    msgpack_sbuffer joined;
    msgpack_sbuffer_init(&joined);
    CHECK(mesh_write_head(&joined, &head) == 0);
    size_t records = 0;
    while ((err = step(&r, &record)) == 1) {
        CHECK(msgpack_sbuffer_write(&joined, record.raw.p, record.raw.n) == 0);
        records++;
    }
    CHECK(err == ERR_MESH || (err == 0 && r.p == r.end));
    CHECK(mesh_read(&r, &record) == err);
    check_joined(&joined, &head, records);
    msgpack_sbuffer_destroy(&joined);
    return 0;
}
