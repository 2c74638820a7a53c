/* Messages of agents and nodes. A second reader, which walks records as trees of msgpack-c and knows each kind's layout
 * as text, says which records are good: agent_read() agrees with it on every one. What was read, written again, reads
 * and writes the same; and an emit that agent_check() lets pass is a packet that the clients' decoder takes. */
#include "agent.h"
#include "err.h"
#include "json.h"
#include "msgpack_whole.h"
#include "sio.h"
#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* Elements, then options as "key:type". u number, f bool, s text up to 256 bytes and never empty, e the same but may be
 * empty, n text of 1 to 64, t up to 1,024, d data, U user, o offset, j text that is not empty, a args, y body, r rooms, R rooms
 * up to 1,024, A rooms or nil, P patterns, B binaries, p peers, c confirm, l life, k session, i emit id, I the same but
 * may be empty, N name that may be empty. */
static const struct {
    unsigned kind;
    const char *elements, *options;
} layouts[] = {
    {1, "unnu", " about:e"},
    {2, "unu",
     " cluster:N origin:I heartbeat_ms:u timeout_ms:u window_ms:u time_ms:u message_bytes:u max_calls:u"
     " max_registrations:u max_deadline_ms:u peers:p"},
    {3, "u", ""},
    {4, "", " peers:p draining:f"},
    {5, "nt", ""},
    {6, "unt", " data:d emit:i retry_ms:u version:u"},
    {7, "u",
     " args:a attachments:B user:U data:d rooms:R body:y emit:i repeated:f expected:u answered:u dropped:u"
     " count:u offset:o recovered:f alive:f"},
    {16, "usAsa", " except:r attachments:B volatile:f confirm:c key:n ack_ms:u again:f"},
    {17, "u", " namespaces:P rooms:R events:P from:o"},
    {18, "u", " namespaces:P events:P life:l group:n key:k deadline_ms:u limit:u observe:f"},
    {19, "us", " shared:f"},
    {20, "us", ""},
    {21, "uu", ""},
    {24, "usAr", ""},
    {25, "usAr", ""},
    {26, "usA", " close:f"},
    {27, "usA", " limit:u"},
    {28, "usA", " user:U data:d"},
    {32, "usy", ""},
    {33, "usy", " deadline_ms:u"},
    {64, "usAsa", " attachments:B emit:i offset:o volatile:f replayed:f"},
    {65, "uu", ""},
    {66, "uusssa", " attachments:B user:U ack:f deadline_ms:u"},
    {67, "uussj", " remote:e deadline_ms:u"},
    {68, "usse", " user:U"},
    {69, "ussr", " user:U"},
    {70, "ussr", " user:U"},
    {71, "u", ""},
    {72, "uy", " from:o"},
    {73, "uuy", " from:o deadline_ms:u"},
    {74, "ue", ""},
    {75, "u", ""},
    {76, "usa", " attachments:B"},
    {77, "usn", " user:U data:d rooms:R"},
    {78, "uss", " user:U rooms:R"},
};

static bool text(const msgpack_object *o, uint32_t least, uint32_t most)
{
    if (o->type != MSGPACK_OBJECT_STR || o->via.str.size < least || o->via.str.size > most)
        return false;
    return o->via.str.size == 0 || (memchr(o->via.str.ptr, 0, o->via.str.size) == NULL &&
                                    utf8_valid(o->via.str.ptr, o->via.str.size));
}

static bool one_of(const msgpack_object *o, const char *words)
{
    char word[16];
    if (o->type != MSGPACK_OBJECT_STR || o->via.str.size == 0 || o->via.str.size > 12)
        return false;
    sprintf(word, " %.*s ", (int)o->via.str.size, o->via.str.ptr);
    return strlen(word) == o->via.str.size + 2 && strchr(word + 1, ' ') == word + o->via.str.size + 1 &&
           strstr(words, word) != NULL;
}

static bool good(const msgpack_object *o, char as);

static bool list(const msgpack_object *o, char of, uint32_t least, uint32_t most)
{
    bool all = o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= least && o->via.array.size <= most;
    for (uint32_t i = 0; all && i < o->via.array.size; i++)
        all = good(&o->via.array.ptr[i], of);
    return all;
}

static bool args(const msgpack_object *o)
{
    if (o->type == MSGPACK_OBJECT_NIL)
        return true;
    return text(o, 2, UINT32_MAX) && o->via.str.ptr[0] == '[' && o->via.str.ptr[o->via.str.size - 1] == ']';
}

static bool body(const msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_BIN ||
           (o->type == MSGPACK_OBJECT_STR &&
            (o->via.str.size == 0 || utf8_valid(o->via.str.ptr, o->via.str.size)));
}

static bool peer(const msgpack_object *o)
{
    bool all = o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= 2 && o->via.array.size <= 5;
    for (uint32_t i = 0; all && i < o->via.array.size; i++)
        all = text(&o->via.array.ptr[i], 1, i == 0 ? 64 : 128);
    return all;
}

static bool good(const msgpack_object *o, char as)
{
    switch (as) {
    case 'u':
        return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER;
    case 'f':
        return o->type == MSGPACK_OBJECT_BOOLEAN;
    case 's':
    case 'e':
        return text(o, as == 's', 256);
    case 'n':
    case 'N':
        return text(o, as == 'n', 64);
    case 't':
        return text(o, 0, 1024);
    case 'd':
        return text(o, 1, LIMIT_AGENT_DATA_BYTES);
    case 'U':
        return text(o, 1, LIMIT_USER_BYTES);
    case 'o':
        return text(o, 0, LIMIT_OFFSET_BYTES);
    case 'j':
        return text(o, 1, UINT32_MAX);
    case 'i':
    case 'I':
        return text(o, as == 'i', 128);
    case 'a':
        return args(o);
    case 'y':
        return body(o);
    case 'A':
        return o->type == MSGPACK_OBJECT_NIL || list(o, 's', 1, 256);
    case 'r':
        return list(o, 's', 1, 256);
    case 'R':
        return list(o, 's', 0, 1024);
    case 'P':
        return list(o, 's', 1, LIMIT_AGENT_PATTERNS);
    case 'B':
        return list(o, 'b', 0, 10);
    case 'b':
        return o->type == MSGPACK_OBJECT_BIN;
    case 'p':
        return list(o, 'q', 0, AGENT_PEERS);
    case 'q':
        return peer(o);
    case 'c':
        return one_of(o, " none mesh mirror ");
    case 'l':
        return list(o, 'w', 0, 16);
    case 'w':
        return one_of(o, " connect disconnect join leave ");
    case 'k':
        return one_of(o, " session ");
    default:
        abort();
    }
}

/* The type of an option, or 0. */
static char type_of(const char *options, const msgpack_object *key)
{
    char wanted[24];
    if (key->type != MSGPACK_OBJECT_STR || key->via.str.size == 0 || key->via.str.size > 20 ||
        memchr(key->via.str.ptr, ':', key->via.str.size) ||
        memchr(key->via.str.ptr, ' ', key->via.str.size) || memchr(key->via.str.ptr, 0, key->via.str.size))
        return 0;
    int n = sprintf(wanted, " %.*s:", (int)key->via.str.size, key->via.str.ptr);
    const char *at = strstr(options, wanted);
    return at ? at[n] : 0;
}

static bool good_options(const msgpack_object *o, const char *options)
{
    if (o->type == MSGPACK_OBJECT_NIL)
        return true;
    if (o->type != MSGPACK_OBJECT_MAP)
        return false;
    for (uint32_t i = 0; i < o->via.map.size; i++) {
        char type = type_of(options, &o->via.map.ptr[i].key);
        const msgpack_object *value = &o->via.map.ptr[i].val;
        if (type != 0 && value->type != MSGPACK_OBJECT_NIL && !good(value, type))
            return false;
    }
    return true;
}

enum verdict { GOOD, WRONG, UNKNOWN, BROKEN, UNCLEAR /* nested too deep for msgpack-c */ };

static enum verdict judge_tree(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size == 0 || !good(&o->via.array.ptr[0], 'u'))
        return BROKEN;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        if (layouts[i].kind != o->via.array.ptr[0].via.u64)
            continue;
        size_t n = strlen(layouts[i].elements);
        if (o->via.array.size < 1 + n)
            return WRONG;
        for (size_t j = 0; j < n; j++)
            if (!good(&o->via.array.ptr[1 + j], layouts[i].elements[j]))
                return WRONG;
        bool has_options = o->via.array.size > 1 + n && layouts[i].options[0] != 0;
        return !has_options || good_options(&o->via.array.ptr[1 + n], layouts[i].options) ? GOOD : WRONG;
    }
    return UNKNOWN;
}

static enum verdict judge(struct span rest, size_t *n)
{
    *n = whole((struct bytes){(const uint8_t *)rest.p, rest.n});
    if (*n == 0)
        return BROKEN;
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    size_t at = 0;
    msgpack_unpack_return status = msgpack_unpack_next(&result, rest.p, *n, &at);
    CHECK(status == MSGPACK_UNPACK_NOMEM_ERROR || (status == MSGPACK_UNPACK_SUCCESS && at == *n));
    enum verdict verdict = status == MSGPACK_UNPACK_SUCCESS ? judge_tree(&result.data) : UNCLEAR;
    msgpack_unpacked_destroy(&result);
    return verdict;
}

static void check_written(struct agent_record *record)
{
    static struct agent_record again;
    msgpack_sbuffer b, c;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&c);
    CHECK(agent_fits(record) && agent_write(&b, record) == 0);
    struct agent_reader r = agent_open((struct span){b.data, b.size});
    CHECK(agent_read(&r, &again) == 1 && r.p == r.end && agent_read(&r, &again) == 0);
    r = agent_open((struct span){b.data, b.size});
    CHECK(agent_read(&r, &again) == 1 && again.kind == record->kind && again.has == record->has);
    CHECK(span_eq(again.args, record->args) && again.n_to == record->n_to && again.life == record->life);
    CHECK(agent_write(&c, &again) == 0);
    CHECK(span_eq((struct span){b.data, b.size}, (struct span){c.data, c.size}));
    msgpack_sbuffer_destroy(&b);
    msgpack_sbuffer_destroy(&c);
}

static char *append(char *p, struct span s)
{
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

/* The packet that a client would get. */
static void check_packet(const struct agent_record *r)
{
    struct sio_packet packet;
    char *bytes =
        malloc(SIO_HEAD_MAX(LIMIT_NAMESPACE_BYTES) + JSON_QUOTED_MAX(LIMIT_EVENT_NAME_BYTES) + r->args.n + 3);
    CHECK(bytes != NULL);
    enum sio_type type = r->n_attachments > 0 ? SIO_BINARY_EVENT : SIO_EVENT;
    char *p = bytes + sio_encode_head(bytes, type, r->n_attachments, SPAN("/"), false, 0);
    *p++ = '[';
    p += json_quote(p, r->event);
    if (r->args.n > 0)
        *p++ = ',';
    p = append(p, r->args);
    *p++ = ']';
    CHECK(sio_decode((struct span){bytes + 1, (size_t)(p - bytes - 1)}, &packet) == 0);
    CHECK(packet.type == type && span_eq(packet.args, r->args));
    free(bytes);
}

static void check_sense(struct agent_record *r)
{
    enum agent_code code = AGENT_CODES;
    r->wrong = NULL;
    bool sense = agent_from_agent(r->kind) && agent_check(r, &code);
    if (!sense)
        CHECK(!agent_from_agent(r->kind) || (code < AGENT_CODES && r->wrong != NULL));
    else if (r->kind == AGENT_EMIT)
        check_packet(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct agent_record record;
    struct agent_reader r = agent_open((struct span){(const char *)data, n});
    for (;;) {
        const char *at = r.p;
        size_t bytes = 0;
        enum verdict verdict = at == r.end ? GOOD : judge((struct span){at, (size_t)(r.end - at)}, &bytes);
        int result = agent_read(&r, &record);
        if (at == r.end) {
            CHECK(result == 0);
            break;
        }
        CHECK(verdict == UNCLEAR || (result == 1) == (verdict == GOOD));
        CHECK(verdict == UNCLEAR || (result == ERR_KIND) == (verdict == UNKNOWN));
        CHECK(verdict == UNCLEAR || (result == ERR_AGENT) == (verdict == BROKEN));
        CHECK(result == 1 || result == ERR_KIND || result == ERR_AGENT || result == ERR_ARGUMENT ||
              result == ERR_LIMIT);
        if (result == ERR_AGENT) {
            CHECK(r.p == at && agent_read(&r, &record) == ERR_AGENT);
            break;
        }
        CHECK(r.p == at + bytes && record.raw.p == at && record.raw.n == bytes);
        CHECK((record.wrong != NULL) == (result == ERR_ARGUMENT || result == ERR_LIMIT));
        if (result == 1) {
            check_written(&record);
            check_sense(&record);
        }
    }
    return 0;
}
