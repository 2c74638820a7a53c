#include "agent_layout.h"
#include "err.h"
#include "mp.h"
#include "utf8.h"
#include <assert.h>

static bool text_fits(struct span text, uint32_t least, uint32_t most)
{
    return text.n >= least && text.n <= most &&
           (text.n == 0 || (!memchr(text.p, 0, text.n) && utf8_valid(text.p, text.n)));
}

static bool list_fits(const struct agent_record *r, const struct agent_layout_field *f)
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

static bool value_fits(const struct agent_record *r, const struct agent_layout_field *f)
{
    switch ((enum agent_type)f->type) {
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
    const struct agent_layout *l = agent_layout_of(r->kind);
    assert(l);
    r->wrong = NULL;
    for (unsigned i = 0; i < AGENT_MAX_ELEMENTS && l->elements[i] != NONE && !r->wrong; i++)
        if (!value_fits(r, &agent_fields[l->elements[i] - 1]))
            r->wrong = agent_fields[l->elements[i] - 1].key;
    for (unsigned i = 0; i < AGENT_MAX_OPTIONS && l->options[i] != NONE && !r->wrong; i++)
        if (agent_has(r, (enum agent_field)(l->options[i] - 1)) &&
            !value_fits(r, &agent_fields[l->options[i] - 1]))
            r->wrong = agent_fields[l->options[i] - 1].key;
    return r->wrong == NULL;
}

static void write_args(struct mp_writer *w, struct span args)
{
    mp_put_text_head(w, args.n + 2);
    mp_put_bytes(w, SPAN("["));
    mp_put_bytes(w, args);
    mp_put_bytes(w, SPAN("]"));
}

static void write_list(struct mp_writer *w, const struct agent_layout_field *f, const struct span *items,
                       unsigned n)
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
    for (unsigned i = 0; agent_life_words[i]; i++)
        n += life >> i & 1;
    mp_put_array(w, n);
    for (unsigned i = 0; agent_life_words[i]; i++)
        if (life >> i & 1)
            write_word(w, agent_life_words[i]);
}

static void write_value(struct mp_writer *w, const struct agent_layout_field *f, const struct agent_record *r)
{
    switch ((enum agent_type)f->type) {
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
        write_word(w, agent_confirm_words[r->confirm]);
        break;
    case LIFE:
        write_life(w, r->life);
        break;
    case STICKY:
        write_word(w, agent_sticky_words[0]);
        break;
    }
}

static unsigned count_options(const struct agent_record *r, const struct agent_layout *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < AGENT_MAX_OPTIONS && l->options[i] != NONE; i++)
        n += agent_has(r, (enum agent_field)(l->options[i] - 1));
    return n;
}

int agent_write(msgpack_sbuffer *b, const struct agent_record *r)
{
    const struct agent_layout *l = agent_layout_of(r->kind);
    assert(l);
    struct mp_writer w;
    unsigned elements = 0, options = count_options(r, l);
    while (elements < AGENT_MAX_ELEMENTS && l->elements[elements] != NONE)
        elements++;
    mp_begin(&w, b);
    mp_put_array(&w, 1 + elements + (options > 0));
    mp_put_uint(&w, r->kind);
    for (unsigned i = 0; i < elements; i++)
        write_value(&w, &agent_fields[l->elements[i] - 1], r);
    if (options > 0)
        mp_put_map(&w, options);
    for (unsigned i = 0; i < AGENT_MAX_OPTIONS && l->options[i] != NONE; i++) {
        const struct agent_layout_field *f = &agent_fields[l->options[i] - 1];
        if (!agent_has(r, (enum agent_field)(l->options[i] - 1)))
            continue;
        mp_put_text(&w, (struct span){f->key, f->key_n}, ITEM_BYTES);
        write_value(&w, f, r);
    }
    return mp_end(&w);
}
