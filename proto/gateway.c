#include "gateway.h"
#include "err.h"
#include "mesh.h"
#include "mp.h"
#include "utf8.h"

enum { ABOUT_ELEMENTS = 3, HEAD_ELEMENTS = 4 };

/* ---- writing ---- */

struct span gateway_write_key(char text[GATEWAY_KEY_BYTES], enum gateway_key type, uint64_t number)
{
    text[0] = (char)type;
    for (unsigned i = 0; i < 8; i++)
        text[1 + i] = (char)(uint8_t)(number >> (56 - 8 * i));
    return (struct span){text, GATEWAY_KEY_BYTES};
}

int gateway_write_about(msgpack_sbuffer *b, enum gateway_key type, const struct gateway_about *about)
{
    struct mp_writer w;
    mp_begin(&w, b);
    mp_put_array(&w, ABOUT_ELEMENTS);
    mp_put_text(&w, about->name, GATEWAY_TEXT_BYTES);
    mp_put_text(&w, about->instance, GATEWAY_TEXT_BYTES);
    if (type == GATEWAY_INSTANCE)
        mp_put_uint(&w, about->epoch);
    else
        mp_put_text(&w, about->reason, GATEWAY_TEXT_BYTES);
    return mp_end(&w);
}

int gateway_write_node(msgpack_sbuffer *b, const struct gateway_node *node)
{
    struct mp_writer w;
    mp_begin(&w, b);
    mp_put_array(&w, 2 + node->n);
    mp_put_text(&w, node->name, GATEWAY_TEXT_BYTES);
    mp_put_text(&w, node->host, GATEWAY_TEXT_BYTES);
    for (unsigned i = 0; i < node->n; i++)
        mp_put_text(&w, node->endpoint[i], MESH_ENDPOINT_BYTES);
    return mp_end(&w);
}

static void put_head(struct mp_writer *w, const struct gateway_head *head, unsigned more)
{
    mp_put_array(w, HEAD_ELEMENTS + more);
    mp_put_uint(w, head->op);
    mp_put_uint(w, head->number);
    mp_put_uint(w, head->target);
    mp_put_uint(w, head->after);
}

int gateway_write_head(msgpack_sbuffer *b, const struct gateway_head *head)
{
    struct mp_writer w;
    mp_begin(&w, b);
    put_head(&w, head, 0);
    return mp_end(&w);
}

int gateway_write_loads(msgpack_sbuffer *b, const struct gateway_load *loads, unsigned n)
{
    struct mp_writer w;
    mp_begin(&w, b);
    put_head(&w, &(struct gateway_head){.op = GATEWAY_LOAD}, 1);
    mp_put_array(&w, 2 * (size_t)n);
    for (unsigned i = 0; i < n; i++) {
        mp_put_uint(&w, loads[i].number);
        mp_put_uint(&w, loads[i].load);
    }
    return mp_end(&w);
}

/* ---- reading ---- */

static struct span rest_of(const struct mp_cursor *c)
{
    return (struct span){(const char *)c->p, (size_t)(c->end - c->p)};
}

static struct span get_text(struct mp_cursor *c, uint64_t limit)
{
    struct span text = mp_get_text(c, limit);
    if (!c->bad && text.n > 0 && (memchr(text.p, 0, text.n) || !utf8_valid(text.p, text.n)))
        mp_refuse(c);
    return c->bad ? (struct span){NULL, 0} : text;
}

static uint64_t get_array(struct mp_cursor *c, uint64_t least)
{
    uint64_t n = mp_get_array(c);
    return n >= least ? n : mp_refuse(c);
}

int gateway_read_key(struct span key, enum gateway_key *type, uint64_t *number)
{
    if (key.n != GATEWAY_KEY_BYTES || !memchr("RIN", key.p[0], 3))
        return ERR_MESH;
    *type = (enum gateway_key)key.p[0];
    *number = 0;
    for (unsigned i = 0; i < 8; i++)
        *number = *number << 8 | (uint8_t)key.p[1 + i];
    return 0;
}

int gateway_read_about(struct span value, enum gateway_key type, struct gateway_about *about,
                       struct span *rest)
{
    struct mp_cursor c = mp_open(value);
    uint64_t n = get_array(&c, ABOUT_ELEMENTS);
    *about = (struct gateway_about){.name = get_text(&c, GATEWAY_TEXT_BYTES)};
    about->instance = get_text(&c, GATEWAY_TEXT_BYTES);
    if (type == GATEWAY_INSTANCE)
        about->epoch = mp_get_uint(&c);
    else
        about->reason = get_text(&c, GATEWAY_TEXT_BYTES);
    mp_skip(&c, c.bad ? 0 : n - ABOUT_ELEMENTS);
    *rest = rest_of(&c);
    return c.bad || about->name.n == 0 || about->instance.n == 0 ? ERR_MESH : 0;
}

int gateway_read_node(struct span value, struct gateway_node *node)
{
    struct mp_cursor c = mp_open(value);
    uint64_t n = get_array(&c, 2);
    node->name = get_text(&c, GATEWAY_TEXT_BYTES);
    node->host = get_text(&c, GATEWAY_TEXT_BYTES);
    node->n = 0;
    while (!c.bad && node->n < GATEWAY_ENDPOINTS && 2 + (uint64_t)node->n < n)
        node->endpoint[node->n++] = get_text(&c, MESH_ENDPOINT_BYTES);
    mp_skip(&c, c.bad ? 0 : n - 2 - node->n);
    return c.bad || node->name.n == 0 ? ERR_MESH : 0;
}

int gateway_read_head(struct span message, struct gateway_head *head, struct span *rest)
{
    struct mp_cursor c = mp_open(message);
    uint64_t n = get_array(&c, HEAD_ELEMENTS), op = mp_get_uint(&c);
    head->number = mp_get_uint(&c);
    head->target = mp_get_uint(&c);
    head->after = mp_get_uint(&c);
    if (c.bad || op < GATEWAY_DELIVER || op > GATEWAY_LOAD)
        return ERR_MESH;
    head->op = (enum gateway_op)op;
    *rest = rest_of(&c);
    if (op != GATEWAY_LOAD) { /* whose list is the element behind */
        mp_skip(&c, n - HEAD_ELEMENTS);
        *rest = rest_of(&c);
    } else if (n == HEAD_ELEMENTS) {
        return ERR_MESH;
    }
    return c.bad ? ERR_MESH : 0;
}

int gateway_open_loads(struct span rest, struct gateway_loads *loads)
{
    struct mp_cursor c = mp_open(rest);
    uint64_t n = mp_get_array(&c);
    if (c.bad)
        return ERR_MESH;
    *loads = (struct gateway_loads){(const char *)c.p, (const char *)c.end, n / 2};
    return 0;
}

bool gateway_next_load(struct gateway_loads *loads, struct gateway_load *load)
{
    struct mp_cursor c = mp_open((struct span){loads->p, (size_t)(loads->end - loads->p)});
    if (loads->left == 0)
        return false;
    load->number = mp_get_uint(&c);
    load->load = mp_get_uint(&c);
    loads->p = (const char *)c.p;
    loads->left = c.bad ? 0 : loads->left - 1;
    return !c.bad;
}
