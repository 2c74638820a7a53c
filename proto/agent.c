#include "agent.h"
#include "err.h"
#include "json.h"
#include "mp.h"
#include "utf8.h"
#include <assert.h>
#include <stddef.h>

enum type {
    UINT,
    BOOL,
    TEXT,
    ARGS,
    BODY,
    ROOMS,
    ROOMS_OR_ALL,
    NAMESPACES,
    EVENTS,
    BINS,
    PEERS,
    CONFIRM,
    LIFE,
    STICKY
};

/* The item's greatest length, for lists of texts. */
#define ITEM_BYTES 256
_Static_assert(ITEM_BYTES == LIMIT_ROOM_BYTES && ITEM_BYTES == LIMIT_NAMESPACE_BYTES &&
                   ITEM_BYTES == LIMIT_EVENT_NAME_BYTES,
               "items of lists have one limit");
_Static_assert(AGENT_OPTIONS <= 64, "has is 64 bits");

struct field {
    const char *key;
    uint32_t least, most;
    uint32_t at, count_at; /* in struct agent_record */
    uint8_t key_n;
    uint8_t type;
};

/* Where a list has its count; other types have none. */
#define COUNT_UINT(member)         0
#define COUNT_BOOL(member)         0
#define COUNT_TEXT(member)         0
#define COUNT_ARGS(member)         0
#define COUNT_BODY(member)         0
#define COUNT_CONFIRM(member)      0
#define COUNT_LIFE(member)         0
#define COUNT_STICKY(member)       0
#define COUNT_ROOMS(member)        offsetof(struct agent_record, n_##member)
#define COUNT_ROOMS_OR_ALL(member) offsetof(struct agent_record, n_##member)
#define COUNT_NAMESPACES(member)   offsetof(struct agent_record, n_##member)
#define COUNT_EVENTS(member)       offsetof(struct agent_record, n_##member)
#define COUNT_BINS(member)         offsetof(struct agent_record, n_##member)
#define COUNT_PEERS(member)        offsetof(struct agent_record, n_##member)

static const struct field fields[AGENT_FIELDS] = {
#define FIELD(name, member, type, least, most, key)                                                          \
    [AGENT_F_##name] =                                                                                       \
        {key, least, most, offsetof(struct agent_record, member), COUNT_##type(member), sizeof(key) - 1,     \
         type},
#define OPTION  FIELD
#define ELEMENT FIELD
#include "agent_field.def"
};

#define MAX_ELEMENTS 7
#define MAX_OPTIONS  16

enum { FROM_AGENT = 1, FROM_NODE = 2, FROM_BOTH = 3 };

/* What a kind of record has; lists end with NONE. */
struct layout {
    uint8_t from;
    uint8_t elements[MAX_ELEMENTS];
    uint8_t options[MAX_OPTIONS];
};

#define F(name) (AGENT_F_##name + 1)
#define NONE    0

static const struct layout layouts[] = {
    [AGENT_HELLO] = {FROM_AGENT, {F(VERSION), F(NAME), F(INSTANCE), F(CREDIT)}, {F(ABOUT)}},
    [AGENT_WELCOME] = {FROM_NODE,
                       {F(VERSION), F(NODE_NAME), F(CREDIT)},
                       {F(CLUSTER), F(ORIGIN), F(HEARTBEAT_MS), F(TIMEOUT_MS), F(WINDOW_MS), F(TIME_MS),
                        F(MESSAGE_BYTES), F(MAX_CALLS), F(MAX_REGISTRATIONS), F(MAX_DEADLINE_MS), F(PEERS)}},
    [AGENT_CREDIT] = {FROM_BOTH, {F(CREDIT)}, {NONE}},
    [AGENT_NODE] = {FROM_NODE, {NONE}, {F(PEERS), F(DRAINING)}},
    [AGENT_BYE] = {FROM_BOTH, {F(CODE), F(TEXT)}, {NONE}},
    [AGENT_ERROR] = {FROM_BOTH, {F(ID), F(CODE), F(TEXT)}, {F(DATA), F(EMIT_ID), F(RETRY_MS), F(HIGHEST)}},
    [AGENT_OK] = {FROM_BOTH,
                  {F(ID)},
                  {F(ANSWER_ARGS), F(ATTACHMENTS), F(USER), F(DATA), F(ROOMS), F(ANSWER_BODY), F(EMIT_ID),
                   F(REPEATED), F(EXPECTED), F(ANSWERED), F(DROPPED), F(COUNT), F(OFFSET), F(RECOVERED),
                   F(ALIVE)}},
    [AGENT_EMIT] = {FROM_AGENT,
                    {F(ID), F(NSP), F(TO), F(EVENT), F(ARGS)},
                    {F(EXCEPT), F(ATTACHMENTS), F(VOLATILE), F(CONFIRM), F(KEY), F(ACK_MS), F(AGAIN)}},
    [AGENT_SUBSCRIBE] = {FROM_AGENT, {F(ID)}, {F(NAMESPACES), F(ROOMS), F(EVENTS), F(FROM)}},
    [AGENT_HANDLE] = {FROM_AGENT,
                      {F(ID)},
                      {F(NAMESPACES), F(EVENTS), F(LIFE), F(GROUP), F(STICKY), F(DEADLINE_MS), F(LIMIT),
                       F(OBSERVE)}},
    [AGENT_REGISTER] = {FROM_AGENT, {F(ID), F(ADDRESS)}, {F(SHARED)}},
    [AGENT_WATCH] = {FROM_AGENT, {F(ID), F(ADDRESS)}, {NONE}},
    [AGENT_UNDO] = {FROM_AGENT, {F(ID), F(REG)}, {NONE}},
    [AGENT_JOIN] = {FROM_AGENT, {F(ID), F(NSP), F(WHO), F(IN_ROOMS)}, {NONE}},
    [AGENT_LEAVE] = {FROM_AGENT, {F(ID), F(NSP), F(WHO), F(IN_ROOMS)}, {NONE}},
    [AGENT_DISCONNECT] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(CLOSE)}},
    [AGENT_MEMBERS] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(LIMIT)}},
    [AGENT_SET] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(USER), F(DATA)}},
    [AGENT_TELL] = {FROM_AGENT, {F(ID), F(ADDRESS), F(BODY)}, {NONE}},
    [AGENT_ASK] = {FROM_AGENT, {F(ID), F(ADDRESS), F(BODY)}, {F(DEADLINE_MS)}},
    [AGENT_EVENT] = {FROM_NODE,
                     {F(REG), F(NSP), F(TO), F(EVENT), F(ARGS)},
                     {F(ATTACHMENTS), F(EMIT_ID), F(OFFSET), F(VOLATILE), F(REPLAYED)}},
    [AGENT_LOST] = {FROM_NODE, {F(REG), F(LOST)}, {NONE}},
    [AGENT_CALL] = {FROM_NODE,
                    {F(ID), F(REG), F(NSP), F(SID), F(EVENT), F(ARGS)},
                    {F(ATTACHMENTS), F(USER), F(ACK), F(DEADLINE_MS)}},
    [AGENT_CONNECT] = {FROM_NODE, {F(ID), F(REG), F(NSP), F(SID), F(AUTH)}, {F(REMOTE), F(DEADLINE_MS)}},
    [AGENT_DISCONNECTED] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(REASON)}, {F(USER)}},
    [AGENT_JOINED] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(IN_ROOMS)}, {F(USER)}},
    [AGENT_LEFT] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(IN_ROOMS)}, {F(USER)}},
    [AGENT_CANCEL] = {FROM_NODE, {F(ID)}, {NONE}},
    [AGENT_TOLD] = {FROM_NODE, {F(REG), F(BODY)}, {F(FROM)}},
    [AGENT_ASKED] = {FROM_NODE, {F(ID), F(REG), F(BODY)}, {F(FROM), F(DEADLINE_MS)}},
    [AGENT_GONE] = {FROM_NODE, {F(REG), F(REASON)}, {NONE}},
    [AGENT_BACK] = {FROM_NODE, {F(REG)}, {NONE}},
    [AGENT_ANSWER] = {FROM_NODE, {F(ID), F(SID), F(ARGS)}, {F(ATTACHMENTS)}},
    [AGENT_RECOVERED] = {FROM_NODE, {F(REG), F(NSP), F(SID)}, {F(USER), F(ROOMS)}},
    [AGENT_MEMBER] = {FROM_NODE, {F(ID), F(SID), F(NODE_NAME)}, {F(USER), F(DATA), F(ROOMS)}},
};

static const struct layout *layout_of(uint64_t kind)
{
    return kind < sizeof(layouts) / sizeof(layouts[0]) && layouts[kind].from != 0 ? &layouts[kind] : NULL;
}

bool agent_from_agent(uint64_t kind)
{
    const struct layout *l = layout_of(kind);
    return l && (l->from & FROM_AGENT);
}

bool agent_from_node(uint64_t kind)
{
    const struct layout *l = layout_of(kind);
    return l && (l->from & FROM_NODE);
}

static const char *const confirm_words[] = {"none", "mesh", "mirror", NULL};
static const char *const life_words[] = {"connect", "disconnect", "join", "leave", NULL};
static const char *const sticky_words[] = {"session", NULL};

void agent_init(struct agent_record *r, enum agent_kind kind)
{
    memset(r, 0, offsetof(struct agent_record, to));
    r->kind = kind;
}

static struct span *text_at(const struct agent_record *r, const struct field *f)
{
    return (struct span *)((char *)r + f->at);
}

static uint64_t *uint_at(const struct agent_record *r, const struct field *f)
{
    return (uint64_t *)((char *)r + f->at);
}

static bool *bool_at(const struct agent_record *r, const struct field *f)
{
    return (bool *)((char *)r + f->at);
}

static unsigned *count_at(const struct agent_record *r, const struct field *f)
{
    return (unsigned *)((char *)r + f->count_at);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct span trim(struct span text)
{
    for (; text.n > 0 && is_blank(text.p[0]); text.n--)
        text.p++;
    while (text.n > 0 && is_blank(text.p[text.n - 1]))
        text.n--;
    return text;
}

bool agent_set_args(struct agent_record *r, struct span array)
{
    array = trim(array);
    if (array.n == 0)
        array = SPAN("[]");
    if (array.n < 2 || array.p[0] != '[' || array.p[array.n - 1] != ']')
        return false;
    r->args_array = array;
    r->args = trim((struct span){array.p + 1, array.n - 2});
    return true;
}

/* ---- writing ---- */

static bool text_fits(struct span text, uint32_t least, uint32_t most)
{
    return text.n >= least && text.n <= most &&
           (text.n == 0 || (!memchr(text.p, 0, text.n) && utf8_valid(text.p, text.n)));
}

static bool list_fits(const struct agent_record *r, const struct field *f)
{
    unsigned n = *count_at(r, f);
    bool fits = n <= f->most && (n >= f->least || f->type == ROOMS_OR_ALL);
    for (unsigned i = 0; fits && f->type != BINS && i < n; i++)
        fits = text_fits(text_at(r, f)[i], 1, ITEM_BYTES);
    return fits;
}

static bool peers_fit(const struct agent_record *r)
{
    bool fit = r->n_peers <= AGENT_PEERS;
    for (unsigned i = 0; fit && i < r->n_peers; i++) {
        const struct agent_peer *peer = &r->peers[i];
        fit = text_fits(peer->name, 1, AGENT_NAME_BYTES) && peer->n_endpoints >= 1 &&
              peer->n_endpoints <= AGENT_ENDPOINTS;
        for (unsigned j = 0; fit && j < peer->n_endpoints; j++)
            fit = text_fits(peer->endpoints[j], 1, AGENT_ENDPOINT_BYTES);
    }
    return fit;
}

static bool value_fits(const struct agent_record *r, const struct field *f)
{
    switch ((enum type)f->type) {
    case TEXT:
        return text_fits(*text_at(r, f), f->least, f->most);
    case ARGS:
        return text_fits(r->args, 0, f->most - 2);
    case BODY:
        return r->body.n <= f->most && (r->body_is_bin || r->body.n == 0 || utf8_valid(r->body.p, r->body.n));
    case ROOMS:
    case ROOMS_OR_ALL:
    case NAMESPACES:
    case EVENTS:
    case BINS:
        return list_fits(r, f);
    case PEERS:
        return peers_fit(r);
    default:
        return true;
    }
}

bool agent_fits(struct agent_record *r)
{
    const struct layout *l = layout_of(r->kind);
    assert(l);
    r->wrong = NULL;
    for (unsigned i = 0; i < MAX_ELEMENTS && l->elements[i] != NONE && !r->wrong; i++)
        if (!value_fits(r, &fields[l->elements[i] - 1]))
            r->wrong = fields[l->elements[i] - 1].key;
    for (unsigned i = 0; i < MAX_OPTIONS && l->options[i] != NONE && !r->wrong; i++)
        if (agent_has(r, (enum agent_field)(l->options[i] - 1)) && !value_fits(r, &fields[l->options[i] - 1]))
            r->wrong = fields[l->options[i] - 1].key;
    return r->wrong == NULL;
}

static void write_args(struct mp_writer *w, struct span args)
{
    mp_put_text_head(w, args.n + 2);
    mp_put_bytes(w, SPAN("["));
    mp_put_bytes(w, args);
    mp_put_bytes(w, SPAN("]"));
}

static void write_list(struct mp_writer *w, const struct field *f, const struct span *items, unsigned n)
{
    assert(n <= f->most);
    mp_put_array(w, n);
    for (unsigned i = 0; i < n; i++) {
        if (f->type == BINS)
            mp_put_bin(w, items[i]);
        else
            mp_put_text(w, items[i], ITEM_BYTES);
    }
}

static void write_peers(struct mp_writer *w, const struct agent_record *r)
{
    assert(r->n_peers <= AGENT_PEERS);
    mp_put_array(w, r->n_peers);
    for (unsigned i = 0; i < r->n_peers; i++) {
        const struct agent_peer *peer = &r->peers[i];
        assert(peer->n_endpoints >= 1 && peer->n_endpoints <= AGENT_ENDPOINTS);
        mp_put_array(w, 1 + peer->n_endpoints);
        mp_put_text(w, peer->name, AGENT_NAME_BYTES);
        for (unsigned j = 0; j < peer->n_endpoints; j++)
            mp_put_text(w, peer->endpoints[j], AGENT_ENDPOINT_BYTES);
    }
}

static void write_word(struct mp_writer *w, const char *word)
{
    mp_put_text(w, span_of(word), ITEM_BYTES);
}

static void write_life(struct mp_writer *w, unsigned life)
{
    unsigned n = 0;
    for (unsigned i = 0; life_words[i]; i++)
        n += life >> i & 1;
    mp_put_array(w, n);
    for (unsigned i = 0; life_words[i]; i++)
        if (life >> i & 1)
            write_word(w, life_words[i]);
}

static void write_value(struct mp_writer *w, const struct field *f, const struct agent_record *r)
{
    switch ((enum type)f->type) {
    case UINT:
        mp_put_uint(w, *uint_at(r, f));
        break;
    case BOOL:
        mp_put_bool(w, *bool_at(r, f));
        break;
    case TEXT:
        assert(text_at(r, f)->n >= f->least);
        mp_put_text(w, *text_at(r, f), f->most);
        break;
    case ARGS:
        write_args(w, r->args);
        break;
    case BODY:
        if (r->body_is_bin)
            mp_put_bin(w, r->body);
        else
            mp_put_text(w, r->body, f->most);
        break;
    case ROOMS_OR_ALL:
        if (*count_at(r, f) == 0) {
            mp_put_nil(w);
            break;
        }
        /* fall through */
    case ROOMS:
    case NAMESPACES:
    case EVENTS:
    case BINS:
        write_list(w, f, text_at(r, f), *count_at(r, f));
        break;
    case PEERS:
        write_peers(w, r);
        break;
    case CONFIRM:
        write_word(w, confirm_words[r->confirm]);
        break;
    case LIFE:
        write_life(w, r->life);
        break;
    case STICKY:
        write_word(w, sticky_words[0]);
        break;
    }
}

static unsigned count_options(const struct agent_record *r, const struct layout *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MAX_OPTIONS && l->options[i] != NONE; i++)
        n += agent_has(r, (enum agent_field)(l->options[i] - 1));
    return n;
}

int agent_write(msgpack_sbuffer *b, const struct agent_record *r)
{
    const struct layout *l = layout_of(r->kind);
    assert(l);
    struct mp_writer w;
    unsigned elements = 0, options = count_options(r, l);
    while (elements < MAX_ELEMENTS && l->elements[elements] != NONE)
        elements++;
    mp_begin(&w, b);
    mp_put_array(&w, 1 + elements + (options > 0));
    mp_put_uint(&w, r->kind);
    for (unsigned i = 0; i < elements; i++)
        write_value(&w, &fields[l->elements[i] - 1], r);
    if (options > 0)
        mp_put_map(&w, options);
    for (unsigned i = 0; i < MAX_OPTIONS && l->options[i] != NONE; i++) {
        const struct field *f = &fields[l->options[i] - 1];
        if (!agent_has(r, (enum agent_field)(l->options[i] - 1)))
            continue;
        mp_put_text(&w, (struct span){f->key, f->key_n}, ITEM_BYTES);
        write_value(&w, f, r);
    }
    return mp_end(&w);
}

/* ---- reading ---- */

/* A limit is told from another mistake by this: both end the cursor. */
struct reading {
    struct mp_cursor c;
    struct agent_record *r;
    bool too_much;
};

static void refuse_size(struct reading *in)
{
    if (!in->c.bad)
        in->too_much = true;
    mp_refuse(&in->c);
}

static struct span read_text(struct reading *in, uint32_t least, uint32_t most)
{
    struct span text = mp_get_text(&in->c, UINT32_MAX);
    if (text.n > most)
        refuse_size(in);
    else if (text.n < least || memchr(text.p, 0, text.n) || !utf8_valid(text.p, text.n))
        mp_refuse(&in->c);
    return text;
}

static unsigned read_count(struct reading *in, uint32_t least, uint32_t most)
{
    uint64_t n = mp_get_array(&in->c);
    if (n > most)
        refuse_size(in);
    else if (n < least)
        mp_refuse(&in->c);
    return in->c.bad ? 0 : (unsigned)n;
}

static void read_args(struct reading *in)
{
    if (mp_take_nil(&in->c)) {
        agent_set_args(in->r, SPAN("[]"));
        return;
    }
    struct span text = read_text(in, 2, UINT32_MAX);
    if (in->c.bad || text.p[0] != '[' || text.p[text.n - 1] != ']')
        mp_refuse(&in->c);
    else
        agent_set_args(in->r, text);
}

static void read_body(struct reading *in)
{
    in->r->body = mp_get_text_or_bin(&in->c, &in->r->body_is_bin);
    if (!in->r->body_is_bin && !utf8_valid(in->r->body.p, in->r->body.n))
        mp_refuse(&in->c);
}

static void read_list(struct reading *in, const struct field *f)
{
    unsigned n = read_count(in, f->least, f->most);
    struct span *items = text_at(in->r, f);
    for (unsigned i = 0; i < n; i++)
        items[i] = f->type == BINS ? mp_get_bin(&in->c) : read_text(in, 1, ITEM_BYTES);
    *count_at(in->r, f) = in->c.bad ? 0 : n;
}

static void read_peers(struct reading *in)
{
    unsigned n = read_count(in, 0, AGENT_PEERS);
    for (unsigned i = 0; i < n; i++) {
        struct agent_peer *peer = &in->r->peers[i];
        unsigned items = read_count(in, 2, 1 + AGENT_ENDPOINTS);
        peer->name = read_text(in, 1, AGENT_NAME_BYTES);
        peer->n_endpoints = in->c.bad ? 0 : items - 1;
        for (unsigned j = 0; j < peer->n_endpoints; j++)
            peer->endpoints[j] = read_text(in, 1, AGENT_ENDPOINT_BYTES);
    }
    in->r->n_peers = in->c.bad ? 0 : n;
}

static unsigned read_word(struct reading *in, const char *const *words)
{
    struct span text = mp_get_text(&in->c, UINT32_MAX);
    for (unsigned i = 0; words[i] && !in->c.bad; i++)
        if (span_eq(text, span_of(words[i])))
            return i;
    mp_refuse(&in->c);
    return 0;
}

static void read_life(struct reading *in)
{
    unsigned life = 0;
    for (unsigned n = read_count(in, 0, 16); n > 0; n--)
        life |= 1u << read_word(in, life_words);
    in->r->life = life;
}

static void read_value(struct reading *in, const struct field *f)
{
    switch ((enum type)f->type) {
    case UINT:
        *uint_at(in->r, f) = mp_get_uint(&in->c);
        break;
    case BOOL:
        *bool_at(in->r, f) = mp_get_bool(&in->c);
        break;
    case TEXT:
        *text_at(in->r, f) = read_text(in, f->least, f->most);
        break;
    case ARGS:
        read_args(in);
        break;
    case BODY:
        read_body(in);
        break;
    case ROOMS_OR_ALL:
        if (mp_take_nil(&in->c)) {
            *count_at(in->r, f) = 0;
            break;
        }
        /* fall through */
    case ROOMS:
    case NAMESPACES:
    case EVENTS:
    case BINS:
        read_list(in, f);
        break;
    case PEERS:
        read_peers(in);
        break;
    case CONFIRM:
        in->r->confirm = (enum agent_confirm)read_word(in, confirm_words);
        break;
    case LIFE:
        read_life(in);
        break;
    case STICKY:
        read_word(in, sticky_words);
        in->r->sticky = true;
        break;
    }
    if (in->c.bad && !in->r->wrong)
        in->r->wrong = f->key;
}

/* NONE, or which of the kind's options it is. */
static unsigned find_option(const struct layout *l, struct span key)
{
    for (unsigned i = 0; i < MAX_OPTIONS && l->options[i] != NONE; i++) {
        const struct field *f = &fields[l->options[i] - 1];
        if (f->key_n == key.n && memcmp(f->key, key.p, key.n) == 0)
            return l->options[i];
    }
    return NONE;
}

static void read_options(struct reading *in, const struct layout *l)
{
    if (mp_take_nil(&in->c))
        return;
    for (uint64_t n = mp_get_map(&in->c); n > 0 && !in->c.bad; n--) {
        struct mp_cursor at = in->c;
        struct span key = mp_get_text(&in->c, UINT32_MAX);
        unsigned option = in->c.bad ? NONE : find_option(l, key);
        if (option == NONE) {
            /* A key of another type is no key that is known either. */
            in->c = at;
            mp_skip(&in->c, 2);
        } else if (!mp_take_nil(&in->c)) {
            read_value(in, &fields[option - 1]);
            in->r->has |= UINT64_C(1) << (option - 1);
        }
    }
    if (in->c.bad && !in->r->wrong)
        in->r->wrong = "options";
}

/* n: elements behind the kind. */
static void read_elements(struct reading *in, const struct layout *l, uint64_t n)
{
    for (unsigned i = 0; i < MAX_ELEMENTS && l->elements[i] != NONE && !in->c.bad; i++, n--) {
        const struct field *f = &fields[l->elements[i] - 1];
        if (n == 0) {
            mp_refuse(&in->c);
            in->r->wrong = f->key;
            return;
        }
        read_value(in, f);
    }
    if (n > 0 && l->options[0] != NONE) {
        read_options(in, l);
        n--;
    }
    mp_skip(&in->c, n);
}

/* The second element, if it is a number: what an answer can name. */
static uint64_t id_of(struct mp_cursor c, uint64_t n)
{
    uint64_t id = n > 1 ? mp_get_uint(&c) : 0;
    return c.bad ? 0 : id;
}

int agent_read(struct agent_reader *reader, struct agent_record *r)
{
    if (reader->p == reader->end)
        return 0;
    struct mp_cursor start = mp_open((struct span){reader->p, (size_t)(reader->end - reader->p)});
    struct reading in = {start, r, false};
    uint64_t n = mp_get_array(&in.c), kind = n > 0 ? mp_get_uint(&in.c) : mp_refuse(&in.c);
    if (in.c.bad)
        return ERR_AGENT;
    struct mp_cursor behind_kind = in.c;
    const struct layout *l = layout_of(kind);
    /* Kinds beyond the table are told by their result, not by this value. */
    agent_init(r, (enum agent_kind)(kind <= INT32_MAX ? kind : 0));
    if (l)
        read_elements(&in, l, n - 1);
    bool good = l && !in.c.bad;
    if (!good) {
        in.c = start;
        mp_skip(&in.c, 1);
        if (in.c.bad)
            return ERR_AGENT;
        r->id = id_of(behind_kind, n);
    }
    r->raw = (struct span){reader->p, (size_t)((const char *)in.c.p - reader->p)};
    reader->p = (const char *)in.c.p;
    return good ? 1 : !l ? ERR_KIND : in.too_much ? ERR_LIMIT : ERR_ARGUMENT;
}
