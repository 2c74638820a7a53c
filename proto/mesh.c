#include "mesh.h"
#include "err.h"
#include <assert.h>

#define TAG_MAX        0xffffffu
#define HEAD_ELEMENTS  4
#define HEARD_ELEMENTS 3
#define PEER_ELEMENTS  2

/* The bits of flags, for each kind. */
enum {
    EMIT_VOLATILE = 1,
    HEARTBEAT_READY = 1,
    HEARTBEAT_DRAINING = 2,
    HELLO_ANSWER = 1,
    PRESENCE_FIRST = 1,
    PRESENCE_LAST = 2,
    PRESENCE_NUMBER_SHIFT = 2,
};

/* Elements of a kind's record with the kind itself; 0: not known. */
static const uint8_t elements[] = {
    [MESH_EMIT] = 12,    [MESH_ENTER] = 4,        [MESH_EXIT] = 4,     [MESH_JOIN] = 5,  [MESH_PART] = 5,
    [MESH_SET] = 5,      [MESH_HEARTBEAT] = 5,    [MESH_NOTE] = 3,     [MESH_HELLO] = 7, [MESH_REPAIR] = 5,
    [MESH_REPAIRED] = 6, [MESH_ASK_PRESENCE] = 1, [MESH_PRESENCE] = 3, [MESH_PEERS] = 2, [MESH_TELL] = 3,
};

/* Elements behind those that version 1 had: written always, read where they are. */
static const uint8_t later_elements[] = {[MESH_EMIT] = 1, [MESH_ENTER] = 1, [MESH_HELLO] = 1};

static bool is_numbered(uint64_t kind)
{
    return kind < MESH_HEARTBEAT;
}

static unsigned elements_of(uint64_t kind)
{
    return kind < sizeof(elements) ? elements[kind] : 0;
}

static unsigned later_elements_of(uint64_t kind)
{
    return kind < sizeof(later_elements) ? later_elements[kind] : 0;
}

/* ---- writing ---- */

struct writer {
    msgpack_packer packer;
    int err; /* sticky */
};

static void put_uint(struct writer *w, uint64_t value)
{
    w->err |= msgpack_pack_uint64(&w->packer, value);
}

static void put_array(struct writer *w, size_t n)
{
    w->err |= msgpack_pack_array(&w->packer, n);
}

static void put_bytes(struct writer *w, struct span bytes)
{
    if (bytes.n > 0)
        w->err |= msgpack_sbuffer_write(w->packer.data, bytes.p, bytes.n);
}

static void put_text(struct writer *w, struct span text, size_t limit)
{
    assert(text.n <= limit);
    (void)limit;
    w->err |= msgpack_pack_str(&w->packer, text.n);
    put_bytes(w, text);
}

static void put_bin(struct writer *w, struct span bytes)
{
    assert(bytes.n <= UINT32_MAX);
    w->err |= msgpack_pack_bin(&w->packer, bytes.n);
    put_bytes(w, bytes);
}

static void put_texts(struct writer *w, const struct span *texts, unsigned n)
{
    assert(n <= LIMIT_ROOMS_PER_CALL);
    put_array(w, n);
    for (unsigned i = 0; i < n; i++)
        put_text(w, texts[i], LIMIT_ROOM_BYTES);
}

static void put_origin(struct writer *w, struct mesh_origin origin)
{
    assert(origin.tag <= TAG_MAX);
    put_uint(w, origin.tag);
    put_uint(w, origin.boot);
}

static void put_emit(struct writer *w, const struct mesh_emit *emit)
{
    assert(emit->n_attachments <= LIMIT_ATTACHMENTS);
    put_text(w, emit->nsp, LIMIT_NAMESPACE_BYTES);
    put_texts(w, emit->to, emit->n_to);
    put_uint(w, emit->is_volatile ? EMIT_VOLATILE : 0);
    put_text(w, emit->event, UINT32_MAX);
    put_text(w, emit->args, UINT32_MAX);
    put_texts(w, emit->except, emit->n_except);
    put_array(w, emit->n_attachments);
    for (unsigned i = 0; i < emit->n_attachments; i++)
        put_bin(w, emit->attachments[i]);
    put_origin(w, emit->after_origin);
    put_uint(w, emit->after_seq);
    put_text(w, emit->skip, LIMIT_ROOM_BYTES);
}

static void put_presence(struct writer *w, const struct mesh_presence *presence, bool rooms)
{
    put_text(w, presence->nsp, LIMIT_NAMESPACE_BYTES);
    put_text(w, presence->sid, LIMIT_ROOM_BYTES);
    if (rooms)
        put_texts(w, presence->rooms, presence->n_rooms);
}

static void put_heartbeat(struct writer *w, const struct mesh_heartbeat *heartbeat)
{
    assert(heartbeat->n_heard <= LIMIT_OFFSET_ORIGINS);
    put_uint(w, heartbeat->newest);
    put_uint(w, heartbeat->sent_us);
    put_uint(w, (heartbeat->ready ? HEARTBEAT_READY : 0u) | (heartbeat->draining ? HEARTBEAT_DRAINING : 0u));
    put_array(w, heartbeat->n_heard);
    for (unsigned i = 0; i < heartbeat->n_heard; i++) {
        put_array(w, HEARD_ELEMENTS);
        put_origin(w, heartbeat->heard[i].origin);
        put_uint(w, heartbeat->heard[i].seq);
    }
}

static void put_hello(struct writer *w, const struct mesh_hello *hello)
{
    put_text(w, hello->name, MESH_NAME_BYTES);
    put_text(w, hello->pub, MESH_ENDPOINT_BYTES);
    put_text(w, hello->router, MESH_ENDPOINT_BYTES);
    put_text(w, hello->host, MESH_NAME_BYTES);
    put_uint(w, hello->newest);
    put_uint(w, hello->answer ? HELLO_ANSWER : 0);
    put_text(w, hello->asked, MESH_ENDPOINT_BYTES);
}

static void put_peers(struct writer *w, const struct mesh_peers *peers)
{
    assert(peers->n <= LIMIT_OFFSET_ORIGINS);
    put_array(w, peers->n);
    for (unsigned i = 0; i < peers->n; i++) {
        put_array(w, PEER_ELEMENTS);
        put_text(w, peers->peer[i].pub, MESH_ENDPOINT_BYTES);
        put_text(w, peers->peer[i].router, MESH_ENDPOINT_BYTES);
    }
}

static void put_message(struct writer *w, const struct mesh_message *message, bool key)
{
    put_uint(w, message->topic);
    if (key)
        put_bin(w, message->key);
    put_bin(w, message->bytes);
}

static void put_repair(struct writer *w, const struct mesh_repair *repair, bool repaired)
{
    put_origin(w, repair->origin);
    put_uint(w, repair->from);
    put_uint(w, repair->to);
    if (repaired)
        put_uint(w, repair->gone_to);
}

static void put_body(struct writer *w, const struct mesh_record *record)
{
    switch (record->kind) {
    case MESH_EMIT:
        put_emit(w, &record->emit);
        break;
    case MESH_ENTER:
        put_presence(w, &record->presence, false);
        put_uint(w, record->presence.epoch);
        break;
    case MESH_EXIT:
        put_presence(w, &record->presence, false);
        break;
    case MESH_JOIN:
    case MESH_PART:
        put_presence(w, &record->presence, true);
        break;
    case MESH_HEARTBEAT:
        put_heartbeat(w, &record->heartbeat);
        break;
    case MESH_HELLO:
        put_hello(w, &record->hello);
        break;
    case MESH_REPAIR:
    case MESH_REPAIRED:
        put_repair(w, &record->repair, record->kind == MESH_REPAIRED);
        break;
    case MESH_ASK_PRESENCE:
        break;
    case MESH_PRESENCE:
        put_uint(w, record->part.as_of);
        put_uint(w, (record->part.first ? PRESENCE_FIRST : 0u) | (record->part.last ? PRESENCE_LAST : 0u) |
                        (uint64_t)record->part.number << PRESENCE_NUMBER_SHIFT);
        break;
    case MESH_PEERS:
        put_peers(w, &record->peers);
        break;
    case MESH_SET:
    case MESH_NOTE:
    case MESH_TELL:
        put_message(w, &record->message, record->kind == MESH_SET);
        break;
    }
}

/* What does not fit is taken back whole: a buffer never ends within a record. */
static int end(const struct writer *w, msgpack_sbuffer *b, size_t before)
{
    if (w->err == 0)
        return 0;
    b->size = before;
    return ERR_MEMORY;
}

int mesh_write_head(msgpack_sbuffer *b, const struct mesh_head *head)
{
    struct writer w = {.err = 0};
    size_t before = b->size;
    assert(head->version == MESH_VERSION || head->version + 1 == MESH_VERSION);
    msgpack_packer_init(&w.packer, b, msgpack_sbuffer_write);
    put_array(&w, HEAD_ELEMENTS);
    put_uint(&w, head->version);
    put_text(&w, head->cluster, MESH_NAME_BYTES);
    put_origin(&w, head->origin);
    return end(&w, b, before);
}

int mesh_write(msgpack_sbuffer *b, const struct mesh_record *record)
{
    struct writer w = {.err = 0};
    size_t before = b->size;
    assert(elements_of(record->kind) != 0);
    msgpack_packer_init(&w.packer, b, msgpack_sbuffer_write);
    put_array(&w, elements_of(record->kind) + later_elements_of(record->kind));
    put_uint(&w, record->kind);
    if (is_numbered(record->kind))
        put_uint(&w, record->seq);
    put_body(&w, record);
    return end(&w, b, before);
}

/* ---- reading ---- */

/* After an error the cursor is at its end, so that everything read from it is empty. */
struct cursor {
    const uint8_t *p, *end;
    bool bad;
};

static uint64_t refuse(struct cursor *c)
{
    c->p = c->end;
    c->bad = true;
    return 0;
}

static size_t left(const struct cursor *c)
{
    return (size_t)(c->end - c->p);
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static uint64_t get_fixed(struct cursor *c, size_t bytes)
{
    if (left(c) < bytes)
        return refuse(c);
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | *c->p++;
    return value;
}

static uint64_t get_wide_uint(struct cursor *c, uint8_t format)
{
    size_t bytes = (size_t)1 << (format & 3);
    if (format < 0xcc || format > 0xd3)
        return refuse(c);
    uint64_t value = get_fixed(c, bytes);
    /* d0 to d3 are signed: the number's high bit must not be set. */
    return format >= 0xd0 && value >> (8 * bytes - 1) != 0 ? refuse(c) : value;
}

static uint64_t get_uint(struct cursor *c)
{
    if (c->p == c->end)
        return refuse(c);
    uint8_t format = *c->p++;
    return format <= 0x7f ? format : get_wide_uint(c, format);
}

/* Each element takes a byte at least: whoever announces more than there is left is not believed. */
static uint64_t get_array(struct cursor *c)
{
    if (c->p == c->end)
        return refuse(c);
    uint8_t format = *c->p++;
    uint64_t n;
    if (format >= 0x90 && format <= 0x9f)
        n = format & 0xf;
    else if (format == 0xdc || format == 0xdd)
        n = get_fixed(c, format == 0xdc ? 2 : 4);
    else
        return refuse(c);
    return n <= left(c) ? n : refuse(c);
}

static struct span get_bytes(struct cursor *c, uint64_t n)
{
    if (n > left(c))
        n = refuse(c);
    struct span bytes = {(const char *)c->p, n};
    c->p += n;
    return bytes;
}

static struct span get_text(struct cursor *c, uint64_t limit)
{
    uint64_t n = 0;
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format >= 0xa0 && format <= 0xbf)
        n = format & 0x1f;
    else if (format >= 0xd9 && format <= 0xdb)
        n = get_fixed(c, (size_t)1 << (format - 0xd9));
    else
        refuse(c);
    return get_bytes(c, n <= limit ? n : refuse(c));
}

static struct span get_bin(struct cursor *c)
{
    uint8_t format = c->p == c->end ? 0 : *c->p++;
    if (format < 0xc4 || format > 0xc6)
        refuse(c);
    return get_bytes(c, get_fixed(c, (size_t)1 << (format & 3)));
}

/* The bytes behind a format byte, and in *follow how many elements come then. */
static uint64_t get_extent(struct cursor *c, uint8_t format, uint64_t *follow)
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
        return refuse(c);
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

/* Past n elements with all that is in them. Nesting needs no memory: only how many elements are still to come
 * matters. */
static void skip(struct cursor *c, uint64_t n)
{
    for (; n > 0; n--) {
        uint64_t follow;
        if (n > left(c)) {
            refuse(c);
            return;
        }
        uint8_t format = *c->p++;
        get_bytes(c, get_extent(c, format, &follow));
        n += follow;
    }
}

static uint32_t get_tag(struct cursor *c)
{
    uint64_t tag = get_uint(c);
    return (uint32_t)(tag <= TAG_MAX ? tag : refuse(c));
}

static struct mesh_origin get_origin(struct cursor *c)
{
    struct mesh_origin origin;
    origin.tag = get_tag(c);
    origin.boot = get_uint(c);
    return origin;
}

static unsigned get_count(struct cursor *c, unsigned limit)
{
    uint64_t n = get_array(c);
    return (unsigned)(n <= limit ? n : refuse(c));
}

static unsigned get_rooms(struct cursor *c, struct span *rooms)
{
    unsigned n = get_count(c, LIMIT_ROOMS_PER_CALL);
    for (unsigned i = 0; i < n; i++)
        rooms[i] = get_text(c, LIMIT_ROOM_BYTES);
    return n;
}

static void get_emit(struct cursor *c, struct mesh_emit *emit, bool later)
{
    emit->nsp = get_text(c, LIMIT_NAMESPACE_BYTES);
    emit->n_to = get_rooms(c, emit->to);
    emit->is_volatile = (get_uint(c) & EMIT_VOLATILE) != 0;
    emit->event = get_text(c, UINT32_MAX);
    emit->args = get_text(c, UINT32_MAX);
    emit->n_except = get_rooms(c, emit->except);
    emit->n_attachments = get_count(c, LIMIT_ATTACHMENTS);
    for (unsigned i = 0; i < emit->n_attachments; i++)
        emit->attachments[i] = get_bin(c);
    emit->after_origin = get_origin(c);
    emit->after_seq = get_uint(c);
    emit->skip = later ? get_text(c, LIMIT_ROOM_BYTES) : (struct span){NULL, 0};
}

static void get_presence(struct cursor *c, struct mesh_presence *presence, bool rooms)
{
    presence->nsp = get_text(c, LIMIT_NAMESPACE_BYTES);
    presence->sid = get_text(c, LIMIT_ROOM_BYTES);
    presence->n_rooms = rooms ? get_rooms(c, presence->rooms) : 0;
}

static void get_heartbeat(struct cursor *c, struct mesh_heartbeat *heartbeat)
{
    heartbeat->newest = get_uint(c);
    heartbeat->sent_us = get_uint(c);
    uint64_t flags = get_uint(c);
    heartbeat->ready = (flags & HEARTBEAT_READY) != 0;
    heartbeat->draining = (flags & HEARTBEAT_DRAINING) != 0;
    heartbeat->n_heard = get_count(c, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < heartbeat->n_heard; i++) {
        uint64_t n = get_array(c);
        heartbeat->heard[i].origin = get_origin(c);
        heartbeat->heard[i].seq = get_uint(c);
        skip(c, n >= HEARD_ELEMENTS ? n - HEARD_ELEMENTS : refuse(c));
    }
}

static void get_hello(struct cursor *c, struct mesh_hello *hello, bool later)
{
    hello->name = get_text(c, MESH_NAME_BYTES);
    hello->pub = get_text(c, MESH_ENDPOINT_BYTES);
    hello->router = get_text(c, MESH_ENDPOINT_BYTES);
    hello->host = get_text(c, MESH_NAME_BYTES);
    hello->newest = get_uint(c);
    hello->answer = (get_uint(c) & HELLO_ANSWER) != 0;
    hello->asked = later ? get_text(c, MESH_ENDPOINT_BYTES) : (struct span){NULL, 0};
}

static void get_peers(struct cursor *c, struct mesh_peers *peers)
{
    peers->n = get_count(c, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < peers->n; i++) {
        uint64_t n = get_array(c);
        peers->peer[i].pub = get_text(c, MESH_ENDPOINT_BYTES);
        peers->peer[i].router = get_text(c, MESH_ENDPOINT_BYTES);
        skip(c, n >= PEER_ELEMENTS ? n - PEER_ELEMENTS : refuse(c));
    }
}

static void get_message(struct cursor *c, struct mesh_message *message, bool key)
{
    uint64_t topic = get_uint(c);
    message->topic = topic < MESH_TOPICS ? (unsigned)topic : 0;
    message->key = key ? get_bin(c) : (struct span){NULL, 0};
    message->bytes = get_bin(c);
}

static void get_repair(struct cursor *c, struct mesh_repair *repair, bool repaired)
{
    repair->origin = get_origin(c);
    repair->from = get_uint(c);
    repair->to = get_uint(c);
    repair->gone_to = repaired ? get_uint(c) : 0;
}

static void get_part(struct cursor *c, struct mesh_presence_part *part)
{
    part->as_of = get_uint(c);
    uint64_t flags = get_uint(c);
    part->first = (flags & PRESENCE_FIRST) != 0;
    part->last = (flags & PRESENCE_LAST) != 0;
    part->number = (uint32_t)(flags >> PRESENCE_NUMBER_SHIFT);
}

static void get_body(struct cursor *c, struct mesh_record *record, bool later)
{
    switch (record->kind) {
    case MESH_EMIT:
        get_emit(c, &record->emit, later);
        break;
    case MESH_ENTER:
        get_presence(c, &record->presence, false);
        record->presence.epoch = later ? get_uint(c) : 0;
        break;
    case MESH_EXIT:
        get_presence(c, &record->presence, false);
        break;
    case MESH_JOIN:
    case MESH_PART:
        get_presence(c, &record->presence, true);
        break;
    case MESH_HEARTBEAT:
        get_heartbeat(c, &record->heartbeat);
        break;
    case MESH_HELLO:
        get_hello(c, &record->hello, later);
        break;
    case MESH_REPAIR:
    case MESH_REPAIRED:
        get_repair(c, &record->repair, record->kind == MESH_REPAIRED);
        break;
    case MESH_ASK_PRESENCE:
        break;
    case MESH_PRESENCE:
        get_part(c, &record->part);
        break;
    case MESH_PEERS:
        get_peers(c, &record->peers);
        break;
    case MESH_SET:
    case MESH_NOTE:
    case MESH_TELL:
        get_message(c, &record->message, record->kind == MESH_SET);
        break;
    }
}

int mesh_read_head(struct mesh_reader *r, struct span message, struct mesh_head *head)
{
    if (message.n == 0)
        return ERR_MESH;
    struct cursor c = {(const uint8_t *)message.p, (const uint8_t *)message.p + message.n, false};
    uint64_t n = get_array(&c), version = get_uint(&c);
    if (c.bad || n == 0)
        return ERR_MESH;
    if (version != MESH_VERSION && version != MESH_VERSION - 1)
        return ERR_VERSION;
    head->version = (unsigned)version;
    head->cluster = get_text(&c, MESH_NAME_BYTES);
    head->origin = get_origin(&c);
    skip(&c, n >= HEAD_ELEMENTS ? n - HEAD_ELEMENTS : refuse(&c));
    *r = (struct mesh_reader){(const char *)c.p, (const char *)c.end};
    return c.bad ? ERR_MESH : 0;
}

/* What is behind the kind of a record with n elements. */
static void get_record(struct cursor *c, struct mesh_record *record, uint64_t kind, uint64_t n)
{
    unsigned known = elements_of(kind), later = later_elements_of(kind);
    bool has_later = later != 0 && n >= known + later;
    record->kind = (enum mesh_kind)kind;
    record->seq = is_numbered(kind) ? get_uint(c) : 0;
    if (known == 0)
        known = 2; /* a kind that is not known but has a number */
    else if (n >= known)
        get_body(c, record, has_later);
    if (n < known)
        refuse(c);
    else
        skip(c, n - known - (has_later ? later : 0));
}

/* The reader moves past whole records only: at a broken one it stays. */
int mesh_read(struct mesh_reader *r, struct mesh_record *record)
{
    struct cursor c = {(const uint8_t *)r->p, (const uint8_t *)r->end, false};
    while (c.p < c.end) {
        const char *start = (const char *)c.p;
        uint64_t n = get_array(&c), kind = n > 0 ? get_uint(&c) : refuse(&c);
        bool is_known = elements_of(kind) != 0 || is_numbered(kind);
        if (c.bad)
            return ERR_MESH;
        if (is_known)
            get_record(&c, record, kind, n);
        else
            skip(&c, n - 1);
        if (c.bad)
            return ERR_MESH;
        r->p = (const char *)c.p;
        record->raw = (struct span){start, (size_t)(r->p - start)};
        if (is_known)
            return 1;
    }
    return 0;
}
