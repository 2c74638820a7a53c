#include "mp_names.h"
#include "limit.h"
#include "utf8.h"

struct span mp_get_utf8(struct mp_cursor *c, uint64_t limit)
{
    struct span text = mp_get_text(c, limit);
    if (!utf8_valid(text.p, text.n))
        mp_refuse(c);
    return text;
}

struct span mp_get_namespace(struct mp_cursor *c)
{
    struct span nsp = mp_get_utf8(c, LIMIT_NAMESPACE_BYTES);
    if (nsp.n == 0 || nsp.p[0] != '/' || memchr(nsp.p, ',', nsp.n) != NULL)
        mp_refuse(c);
    return nsp;
}

struct span mp_get_id(struct mp_cursor *c)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct span id = mp_get_text(c, MP_ID_CHARS);
    bool good = id.n == MP_ID_CHARS;
    for (size_t i = 0; good && i < id.n; i++)
        good = memchr(chars, id.p[i], sizeof(chars) - 1) != NULL;
    if (!good)
        mp_refuse(c);
    return id;
}
