#include "endpoints.h"

enum { FIRST_WAIT_MS = 100, LONGEST_WAIT_MS = 5000 };

/* ---- endpoints ---- */

static bool is_endpoint(struct span text)
{
    static const char *const kinds[] = {"tcp://", "ipc://"};
    if (text.n > AGENT_ENDPOINT_BYTES)
        return false;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (text.n > strlen(kinds[i]) && memcmp(text.p, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

/* The next item of a comma list; false behind the last one. */
static bool next_item(const char **list, struct span *item)
{
    if (!*list)
        return false;
    *item = (struct span){*list, strcspn(*list, ",")};
    *list = (*list)[item->n] == ',' ? *list + item->n + 1 : NULL;
    return true;
}

bool endpoints_check(const char *list)
{
    struct span item;
    unsigned n = 0;
    while (next_item(&list, &item))
        if (!is_endpoint(item) || ++n > ENDPOINTS_MAX)
            return false;
    return n > 0;
}

static void add(struct endpoints *e, struct span endpoint)
{
    if (e->n == ENDPOINTS_MAX || !is_endpoint(endpoint))
        return;
    for (unsigned i = 0; i < e->n; i++)
        if (span_eq(span_of(e->at[i]), endpoint))
            return;
    memcpy(e->at[e->n], endpoint.p, endpoint.n);
    e->at[e->n++][endpoint.n] = '\0';
}

void endpoints_init(struct endpoints *e, const char *list)
{
    struct span item;
    e->n = e->current = 0;
    while (next_item(&list, &item))
        add(e, item);
    e->n_own = e->n;
}

void endpoints_learn(struct endpoints *e, const struct agent_record *r, unsigned each)
{
    char here[AGENT_ENDPOINT_BYTES + 1];
    memcpy(here, endpoints_current(e), sizeof(here));
    e->n = e->n_own;
    for (unsigned i = 0; i < r->n_peers; i++)
        for (unsigned j = 0; j < r->peers[i].n_endpoints && j < each; j++)
            add(e, r->peers[i].endpoints[j]);
    add(e, span_of(here));
    for (e->current = 0; e->current < e->n && strcmp(endpoints_current(e), here) != 0;)
        e->current++;
    if (e->current == e->n)
        e->current = 0;
}

/* ---- waits ---- */

void backoff_init(struct backoff *b, uint64_t seed)
{
    *b = (struct backoff){FIRST_WAIT_MS, seed | 1};
}

void backoff_reset(struct backoff *b)
{
    b->wait_ms = FIRST_WAIT_MS;
}

/* xorshift64 */
uint64_t backoff_draw(struct backoff *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

/* Shortened by up to a half. */
uint64_t backoff_next_ms(struct backoff *b)
{
    uint64_t wait_ms = b->wait_ms - backoff_draw(b) % (b->wait_ms / 2 + 1);
    b->wait_ms = b->wait_ms < LONGEST_WAIT_MS / 2 ? b->wait_ms * 2 : LONGEST_WAIT_MS;
    return wait_ms;
}
