#include "agent_layout.h"
#include "err.h"
#include "mp.h"
#include "utf8.h"

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

static void read_list(struct reading *in, const struct agent_layout_field *f)
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
        life |= 1u << read_word(in, agent_life_words);
    in->r->life = life;
}

static void read_value(struct reading *in, const struct agent_layout_field *f)
{
    switch ((enum agent_type)f->type) {
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
        in->r->confirm = (enum agent_confirm)read_word(in, agent_confirm_words);
        break;
    case LIFE:
        read_life(in);
        break;
    case STICKY:
        read_word(in, agent_sticky_words);
        in->r->sticky = true;
        break;
    }
    if (in->c.bad && !in->r->wrong)
        in->r->wrong = f->key;
}

/* NONE, or which of the kind's options it is. */
static unsigned find_option(const struct agent_layout *l, struct span key)
{
    for (unsigned i = 0; i < AGENT_MAX_OPTIONS && l->options[i] != NONE; i++) {
        const struct agent_layout_field *f = &agent_fields[l->options[i] - 1];
        if (f->key_n == key.n && memcmp(f->key, key.p, key.n) == 0)
            return l->options[i];
    }
    return NONE;
}

static void read_options(struct reading *in, const struct agent_layout *l)
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
            read_value(in, &agent_fields[option - 1]);
            in->r->has |= UINT64_C(1) << (option - 1);
        }
    }
    if (in->c.bad && !in->r->wrong)
        in->r->wrong = "options";
}

/* n: elements behind the kind. */
static void read_elements(struct reading *in, const struct agent_layout *l, uint64_t n)
{
    for (unsigned i = 0; i < AGENT_MAX_ELEMENTS && l->elements[i] != NONE && !in->c.bad; i++, n--) {
        const struct agent_layout_field *f = &agent_fields[l->elements[i] - 1];
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
    const struct agent_layout *l = agent_layout_of(kind);
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
