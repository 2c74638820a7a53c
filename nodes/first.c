#include "first.h"
#include <assert.h>

void first_begin(struct first *f, unsigned max, struct span after)
{
    f->n = 0;
    f->max = max < FIRST_MAX ? max : FIRST_MAX;
    f->total = 0;
    f->has_more = false;
    f->after = after;
}

static int compare(const char *a, size_t a_n, const char *b, size_t b_n)
{
    int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
    return order ? order : (a_n > b_n) - (a_n < b_n);
}

void first_offer(struct first *f, const char *key, size_t key_n, const void *what)
{
    unsigned i;
    assert(key_n <= FIRST_KEY_BYTES);
    f->total++;
    if (f->after.n > 0 && compare(key, key_n, f->after.p, f->after.n) <= 0)
        return;
    f->has_more = f->has_more || f->n == f->max;
    if (f->max == 0 ||
        (f->n == f->max && compare(key, key_n, f->at[f->n - 1].key, f->at[f->n - 1].key_n) >= 0))
        return;
    if (f->n < f->max)
        f->n++;
    for (i = f->n - 1; i > 0 && compare(key, key_n, f->at[i - 1].key, f->at[i - 1].key_n) < 0; i--)
        f->at[i] = f->at[i - 1];
    memcpy(f->at[i].key, key, key_n);
    f->at[i].key_n = (uint8_t)key_n;
    f->at[i].what = what;
}
