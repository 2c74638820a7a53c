#include "claim.h"
#include "err.h"
#include "limit.h"
#include "mp_names.h"
#include <assert.h>

/* Older nodes' answers end before moved_under. */
enum { ASK_ELEMENTS = 3, OLD_ANSWER_ELEMENTS = 6, ANSWER_ELEMENTS = 7, TAG_MAX = 0xffffff };

static void put_answer(struct mp_writer *w, const struct claim *c)
{
    bool is_yours = c->result == CLAIM_YOURS;
    assert(c->result != CLAIM_MOVED || c->moved_to <= TAG_MAX);
    assert(!is_yours || (c->entry.n > 0 && c->entry.n <= LIMIT_ENTRY_BYTES && c->epoch > 0));
    mp_put_uint(w, c->result);
    mp_put_uint(w, is_yours ? c->epoch : 0);
    mp_put_bin(w, is_yours ? c->entry : (struct span){"", 0});
    mp_put_uint(w, c->result == CLAIM_MOVED ? c->moved_to : 0);
    mp_put_uint(w, c->result == CLAIM_MOVED ? c->epoch : 0);
}

int claim_write(msgpack_sbuffer *b, const struct claim *c)
{
    struct mp_writer w;
    mp_begin(&w, b);
    mp_put_array(&w, c->what == CLAIM_ASK ? ASK_ELEMENTS : ANSWER_ELEMENTS);
    mp_put_uint(&w, c->what);
    mp_put_uint(&w, c->id);
    if (c->what == CLAIM_ASK)
        mp_put_text(&w, c->pid, MP_ID_CHARS);
    else
        put_answer(&w, c);
    return mp_end(&w);
}

static void get_answer(struct mp_cursor *m, bool is_old, struct claim *c)
{
    uint64_t result = mp_get_uint(m);
    c->epoch = mp_get_uint(m);
    c->entry = mp_get_bin(m);
    uint64_t moved_to = mp_get_uint(m);
    bool is_yours = result == CLAIM_YOURS;
    uint64_t moved_under = is_old ? 0 : mp_get_uint(m);
    if (result > CLAIM_MOVED || is_yours != (c->epoch > 0) || is_yours != (c->entry.n > 0) ||
        c->entry.n > LIMIT_ENTRY_BYTES || moved_to > (result == CLAIM_MOVED ? TAG_MAX : 0) ||
        (moved_under > 0 && result != CLAIM_MOVED))
        mp_refuse(m);
    if (result == CLAIM_MOVED)
        c->epoch = moved_under;
    c->result = (enum claim_result)result;
    c->moved_to = (uint32_t)moved_to;
}

int claim_read(struct span bytes, struct claim *c)
{
    struct mp_cursor m = mp_open(bytes);
    uint64_t n = mp_get_array(&m), what = mp_get_uint(&m);
    bool is_old = what == CLAIM_ANSWER && n == OLD_ANSWER_ELEMENTS;
    uint64_t elements = what == CLAIM_ASK ? ASK_ELEMENTS : is_old ? OLD_ANSWER_ELEMENTS : ANSWER_ELEMENTS;
    if (m.bad)
        return ERR_CLAIM;
    if (what != CLAIM_ASK && what != CLAIM_ANSWER)
        return ERR_KIND;
    *c = (struct claim){.what = (enum claim_what)what, .id = mp_get_uint(&m)};
    if (what == CLAIM_ASK)
        c->pid = mp_get_id(&m);
    else
        get_answer(&m, is_old, c);
    mp_skip(&m, n >= elements ? n - elements : mp_refuse(&m));
    return m.bad || m.p != m.end ? ERR_CLAIM : 0;
}
