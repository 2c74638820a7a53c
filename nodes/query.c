#include "query.h"
#include "err.h"
#include "utf8.h"

static bool find(struct span query, const char *name, struct span *value)
{
    size_t name_n = strlen(name);
    const char *p = query.p, *end = query.p + query.n;
    while (p && p < end) {
        const char *next = memchr(p, '&', (size_t)(end - p));
        const char *item_end = next ? next : end;
        if ((size_t)(item_end - p) > name_n && memcmp(p, name, name_n) == 0 && p[name_n] == '=') {
            *value = (struct span){p + name_n + 1, (size_t)(item_end - p) - name_n - 1};
            return true;
        }
        p = next ? next + 1 : end;
    }
    return false;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int query_text(struct span query, const char *name, char *dst, size_t cap)
{
    struct span value;
    size_t n = 0;
    if (!find(query, name, &value))
        return 0;
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        int high = i + 2 < value.n ? hex(value.p[i + 1]) : -1, low = high >= 0 ? hex(value.p[i + 2]) : -1;
        if (n == cap)
            return ERR_LIMIT;
        if (c == '%' && low >= 0) {
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        dst[n++] = c;
    }
    return utf8_valid(dst, n) ? (int)n : ERR_UTF8;
}

bool query_uint(struct span query, const char *name, uint64_t max, uint64_t *out)
{
    struct span text;
    uint64_t value = 0;
    if (!find(query, name, &text))
        return true;
    if (text.n == 0 || text.n > 19)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.p[i] - '0');
    }
    *out = value;
    return value <= max;
}
