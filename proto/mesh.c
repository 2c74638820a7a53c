#include "mesh.h"
#include "err.h"
#include "mp.h"
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

/* Elements behind those that version 1 had: read where they are. */
static const uint8_t later_elements[] = {[MESH_EMIT] = 3, [MESH_ENTER] = 2, [MESH_HELLO] = 1};

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

/* What most records do not have costs them nothing. */
static unsigned later_elements_in(const struct mesh_record *record)
{
    if (record->kind == MESH_EMIT && record->emit.key.n == 0 && record->emit.ack_ms == 0)
        return 1;
    if (record->kind == MESH_ENTER && record->presence.user.n == 0)
        return 1;
    return later_elements_of(record->kind);
}

/* ---- writing ---- */

static void put_texts(struct mp_writer *w, const struct span *texts, unsigned n)
{
    assert(n <= LIMIT_ROOMS_PER_CALL);
    mp_put_array(w, n);
    for (unsigned i = 0; i < n; i++)
        mp_put_text(w, texts[i], LIMIT_ROOM_BYTES);
}

static void put_origin(struct mp_writer *w, struct mesh_origin origin)
{
    assert(origin.tag <= TAG_MAX);
    mp_put_uint(w, origin.tag);
    mp_put_uint(w, origin.boot);
}

static void put_emit(struct mp_writer *w, const struct mesh_emit *emit)
{
    assert(emit->n_attachments <= LIMIT_ATTACHMENTS);
    mp_put_text(w, emit->nsp, LIMIT_NAMESPACE_BYTES);
    put_texts(w, emit->to, emit->n_to);
    mp_put_uint(w, emit->is_volatile ? EMIT_VOLATILE : 0);
    mp_put_text(w, emit->event, UINT32_MAX);
    mp_put_text(w, emit->args, UINT32_MAX);
    put_texts(w, emit->except, emit->n_except);
    mp_put_array(w, emit->n_attachments);
    for (unsigned i = 0; i < emit->n_attachments; i++)
        mp_put_bin(w, emit->attachments[i]);
    put_origin(w, emit->after_origin);
    mp_put_uint(w, emit->after_seq);
    mp_put_text(w, emit->skip, LIMIT_ROOM_BYTES);
    if (emit->key.n == 0 && emit->ack_ms == 0)
        return;
    assert(emit->key.n <= MESH_KEY_BYTES);
    mp_put_bin(w, emit->key);
    mp_put_uint(w, emit->ack_ms);
}

static void put_presence(struct mp_writer *w, const struct mesh_presence *presence, bool rooms)
{
    mp_put_text(w, presence->nsp, LIMIT_NAMESPACE_BYTES);
    mp_put_text(w, presence->sid, LIMIT_ROOM_BYTES);
    if (rooms)
        put_texts(w, presence->rooms, presence->n_rooms);
}

static void put_heartbeat(struct mp_writer *w, const struct mesh_heartbeat *heartbeat)
{
    assert(heartbeat->n_heard <= LIMIT_OFFSET_ORIGINS);
    mp_put_uint(w, heartbeat->newest);
    mp_put_uint(w, heartbeat->sent_us);
    mp_put_uint(w,
                (heartbeat->ready ? HEARTBEAT_READY : 0u) | (heartbeat->draining ? HEARTBEAT_DRAINING : 0u));
    mp_put_array(w, heartbeat->n_heard);
    for (unsigned i = 0; i < heartbeat->n_heard; i++) {
        uint64_t silent_ms = heartbeat->heard[i].silent_ms;
        mp_put_array(w, HEARD_ELEMENTS + (silent_ms > 0));
        put_origin(w, heartbeat->heard[i].origin);
        mp_put_uint(w, heartbeat->heard[i].seq);
        if (silent_ms > 0)
            mp_put_uint(w, silent_ms);
    }
}

static void put_hello(struct mp_writer *w, const struct mesh_hello *hello)
{
    mp_put_text(w, hello->name, MESH_NAME_BYTES);
    mp_put_text(w, hello->pub, MESH_ENDPOINT_BYTES);
    mp_put_text(w, hello->router, MESH_ENDPOINT_BYTES);
    mp_put_text(w, hello->host, MESH_NAME_BYTES);
    mp_put_uint(w, hello->newest);
    mp_put_uint(w, hello->answer ? HELLO_ANSWER : 0);
    mp_put_text(w, hello->asked, MESH_ENDPOINT_BYTES);
}

static void put_peers(struct mp_writer *w, const struct mesh_peers *peers)
{
    assert(peers->n <= LIMIT_OFFSET_ORIGINS);
    mp_put_array(w, peers->n);
    for (unsigned i = 0; i < peers->n; i++) {
        mp_put_array(w, PEER_ELEMENTS);
        mp_put_text(w, peers->peer[i].pub, MESH_ENDPOINT_BYTES);
        mp_put_text(w, peers->peer[i].router, MESH_ENDPOINT_BYTES);
    }
}

static void put_message(struct mp_writer *w, const struct mesh_message *message, bool key)
{
    mp_put_uint(w, message->topic);
    if (key)
        mp_put_bin(w, message->key);
    mp_put_bin(w, message->bytes);
}

static void put_repair(struct mp_writer *w, const struct mesh_repair *repair, bool repaired)
{
    put_origin(w, repair->origin);
    mp_put_uint(w, repair->from);
    mp_put_uint(w, repair->to);
    if (repaired)
        mp_put_uint(w, repair->gone_to);
}

static void put_body(struct mp_writer *w, const struct mesh_record *record)
{
    switch (record->kind) {
    case MESH_EMIT:
        put_emit(w, &record->emit);
        break;
    case MESH_ENTER:
        put_presence(w, &record->presence, false);
        mp_put_uint(w, record->presence.epoch);
        if (record->presence.user.n)
            mp_put_text(w, record->presence.user, LIMIT_USER_BYTES);
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
        mp_put_uint(w, record->part.as_of);
        mp_put_uint(w, (record->part.first ? PRESENCE_FIRST : 0u) | (record->part.last ? PRESENCE_LAST : 0u) |
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

int mesh_write_head(msgpack_sbuffer *b, const struct mesh_head *head)
{
    struct mp_writer w;
    assert(head->version == MESH_VERSION || head->version + 1 == MESH_VERSION);
    mp_begin(&w, b);
    mp_put_array(&w, HEAD_ELEMENTS);
    mp_put_uint(&w, head->version);
    mp_put_text(&w, head->cluster, MESH_NAME_BYTES);
    put_origin(&w, head->origin);
    return mp_end(&w);
}

int mesh_write(msgpack_sbuffer *b, const struct mesh_record *record)
{
    struct mp_writer w;
    assert(elements_of(record->kind) != 0);
    mp_begin(&w, b);
    mp_put_array(&w, elements_of(record->kind) + later_elements_in(record));
    mp_put_uint(&w, record->kind);
    if (is_numbered(record->kind))
        mp_put_uint(&w, record->seq);
    put_body(&w, record);
    return mp_end(&w);
}

/* ---- reading ---- */

static uint32_t get_tag(struct mp_cursor *c)
{
    uint64_t tag = mp_get_uint(c);
    return (uint32_t)(tag <= TAG_MAX ? tag : mp_refuse(c));
}

static struct mesh_origin get_origin(struct mp_cursor *c)
{
    struct mesh_origin origin;
    origin.tag = get_tag(c);
    origin.boot = mp_get_uint(c);
    return origin;
}

static unsigned get_rooms(struct mp_cursor *c, struct span *rooms)
{
    unsigned n = mp_get_count(c, LIMIT_ROOMS_PER_CALL);
    for (unsigned i = 0; i < n; i++)
        rooms[i] = mp_get_text(c, LIMIT_ROOM_BYTES);
    return n;
}

static struct span get_key(struct mp_cursor *c)
{
    struct span key = mp_get_bin(c);
    if (key.n > MESH_KEY_BYTES)
        mp_refuse(c);
    return key;
}

/* later: how many of the later elements are there. */
static void get_emit(struct mp_cursor *c, struct mesh_emit *emit, unsigned later)
{
    emit->nsp = mp_get_text(c, LIMIT_NAMESPACE_BYTES);
    emit->n_to = get_rooms(c, emit->to);
    emit->is_volatile = (mp_get_uint(c) & EMIT_VOLATILE) != 0;
    emit->event = mp_get_text(c, UINT32_MAX);
    emit->args = mp_get_text(c, UINT32_MAX);
    emit->n_except = get_rooms(c, emit->except);
    emit->n_attachments = mp_get_count(c, LIMIT_ATTACHMENTS);
    for (unsigned i = 0; i < emit->n_attachments; i++)
        emit->attachments[i] = mp_get_bin(c);
    emit->after_origin = get_origin(c);
    emit->after_seq = mp_get_uint(c);
    emit->skip = later > 0 ? mp_get_text(c, LIMIT_ROOM_BYTES) : (struct span){NULL, 0};
    emit->key = later > 1 ? get_key(c) : (struct span){NULL, 0};
    emit->ack_ms = later > 2 ? mp_get_uint(c) : 0;
}

static void get_presence(struct mp_cursor *c, struct mesh_presence *presence, bool rooms)
{
    presence->nsp = mp_get_text(c, LIMIT_NAMESPACE_BYTES);
    presence->sid = mp_get_text(c, LIMIT_ROOM_BYTES);
    presence->n_rooms = rooms ? get_rooms(c, presence->rooms) : 0;
    presence->epoch = 0;
    presence->user = (struct span){NULL, 0};
}

static void get_heartbeat(struct mp_cursor *c, struct mesh_heartbeat *heartbeat)
{
    heartbeat->newest = mp_get_uint(c);
    heartbeat->sent_us = mp_get_uint(c);
    uint64_t flags = mp_get_uint(c);
    heartbeat->ready = (flags & HEARTBEAT_READY) != 0;
    heartbeat->draining = (flags & HEARTBEAT_DRAINING) != 0;
    heartbeat->n_heard = mp_get_count(c, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < heartbeat->n_heard; i++) {
        uint64_t n = mp_get_array(c);
        heartbeat->heard[i].origin = get_origin(c);
        heartbeat->heard[i].seq = mp_get_uint(c);
        heartbeat->heard[i].silent_ms = n > HEARD_ELEMENTS ? mp_get_uint(c) : 0;
        mp_skip(c, n > HEARD_ELEMENTS ? n - HEARD_ELEMENTS - 1 : n == HEARD_ELEMENTS ? 0 : mp_refuse(c));
    }
}

static void get_hello(struct mp_cursor *c, struct mesh_hello *hello, unsigned later)
{
    hello->name = mp_get_text(c, MESH_NAME_BYTES);
    hello->pub = mp_get_text(c, MESH_ENDPOINT_BYTES);
    hello->router = mp_get_text(c, MESH_ENDPOINT_BYTES);
    hello->host = mp_get_text(c, MESH_NAME_BYTES);
    hello->newest = mp_get_uint(c);
    hello->answer = (mp_get_uint(c) & HELLO_ANSWER) != 0;
    hello->asked = later > 0 ? mp_get_text(c, MESH_ENDPOINT_BYTES) : (struct span){NULL, 0};
}

static void get_peers(struct mp_cursor *c, struct mesh_peers *peers)
{
    peers->n = mp_get_count(c, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < peers->n; i++) {
        uint64_t n = mp_get_array(c);
        peers->peer[i].pub = mp_get_text(c, MESH_ENDPOINT_BYTES);
        peers->peer[i].router = mp_get_text(c, MESH_ENDPOINT_BYTES);
        mp_skip(c, n >= PEER_ELEMENTS ? n - PEER_ELEMENTS : mp_refuse(c));
    }
}

static void get_message(struct mp_cursor *c, struct mesh_message *message, bool key)
{
    uint64_t topic = mp_get_uint(c);
    message->topic = topic < MESH_TOPICS ? (unsigned)topic : 0;
    message->key = key ? mp_get_bin(c) : (struct span){NULL, 0};
    message->bytes = mp_get_bin(c);
}

static void get_repair(struct mp_cursor *c, struct mesh_repair *repair, bool repaired)
{
    repair->origin = get_origin(c);
    repair->from = mp_get_uint(c);
    repair->to = mp_get_uint(c);
    repair->gone_to = repaired ? mp_get_uint(c) : 0;
}

static void get_part(struct mp_cursor *c, struct mesh_presence_part *part)
{
    part->as_of = mp_get_uint(c);
    uint64_t flags = mp_get_uint(c);
    part->first = (flags & PRESENCE_FIRST) != 0;
    part->last = (flags & PRESENCE_LAST) != 0;
    part->number = (uint32_t)(flags >> PRESENCE_NUMBER_SHIFT);
}

static void get_body(struct mp_cursor *c, struct mesh_record *record, unsigned later)
{
    switch (record->kind) {
    case MESH_EMIT:
        get_emit(c, &record->emit, later);
        break;
    case MESH_ENTER:
        get_presence(c, &record->presence, false);
        record->presence.epoch = later > 0 ? mp_get_uint(c) : 0;
        record->presence.user = later > 1 ? mp_get_text(c, LIMIT_USER_BYTES) : (struct span){NULL, 0};
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
    struct mp_cursor c = mp_open(message);
    uint64_t n = mp_get_array(&c), version = mp_get_uint(&c);
    if (c.bad || n == 0)
        return ERR_MESH;
    if (version != MESH_VERSION && version != MESH_VERSION - 1)
        return ERR_VERSION;
    head->version = (unsigned)version;
    head->cluster = mp_get_text(&c, MESH_NAME_BYTES);
    head->origin = get_origin(&c);
    mp_skip(&c, n >= HEAD_ELEMENTS ? n - HEAD_ELEMENTS : mp_refuse(&c));
    *r = (struct mesh_reader){(const char *)c.p, (const char *)c.end};
    return c.bad ? ERR_MESH : 0;
}

/* What is behind the kind of a record with n elements. */
static void get_record(struct mp_cursor *c, struct mesh_record *record, uint64_t kind, uint64_t n)
{
    unsigned known = elements_of(kind), later = later_elements_of(kind);
    if (n < known + later)
        later = n > known ? (unsigned)(n - known) : 0;
    record->kind = (enum mesh_kind)kind;
    record->seq = is_numbered(kind) ? mp_get_uint(c) : 0;
    if (known == 0)
        known = 2; /* a kind that is not known but has a number */
    else if (n >= known)
        get_body(c, record, later);
    if (n < known)
        mp_refuse(c);
    else
        mp_skip(c, n - known - later);
}

/* The reader moves past whole records only: at a broken one it stays. */
int mesh_read(struct mesh_reader *r, struct mesh_record *record)
{
    struct mp_cursor c = mp_open((struct span){r->p, (size_t)(r->end - r->p)});
    while (c.p < c.end) {
        const char *start = (const char *)c.p;
        uint64_t n = mp_get_array(&c), kind = n > 0 ? mp_get_uint(&c) : mp_refuse(&c);
        bool is_known = elements_of(kind) != 0 || is_numbered(kind);
        if (c.bad)
            return ERR_MESH;
        if (is_known)
            get_record(&c, record, kind, n);
        else
            mp_skip(&c, n - 1);
        if (c.bad)
            return ERR_MESH;
        r->p = (const char *)c.p;
        record->raw = (struct span){start, (size_t)(r->p - start)};
        if (is_known)
            return 1;
    }
    return 0;
}

/* ---- between versions ---- */

static bool version_1_knows(uint64_t kind)
{
    return kind >= MESH_EMIT && kind <= MESH_PART;
}

int mesh_write_as(msgpack_sbuffer *b, unsigned version, struct span raw)
{
    struct mp_cursor c = mp_open(raw);
    struct mp_writer w;
    mp_get_array(&c);
    uint64_t kind = mp_get_uint(&c), seq = is_numbered(kind) ? mp_get_uint(&c) : 0;
    assert(!c.bad);
    mp_begin(&w, b);
    w.err |= msgpack_sbuffer_write(b, raw.p, raw.n);
    if (version < 2 && seq != 0 && !version_1_knows(kind)) {
        mp_put_array(&w, elements_of(MESH_PART));
        mp_put_uint(&w, MESH_PART);
        mp_put_uint(&w, seq);
        put_presence(&w, &(struct mesh_presence){.n_rooms = 0}, true);
    }
    return mp_end(&w);
}
