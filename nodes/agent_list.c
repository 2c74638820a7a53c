#include "agent_list.h"
#include "agent.h"
#include "first.h"
#include "limit.h"
#include "print.h"
#include <inttypes.h>
#include <stdio.h>

enum { NAMES_SHOWN = 8, NAME_IN_KEY = 30 };

static bool contains(struct span text, struct span part)
{
    return text.n >= part.n && memmem(text.p, text.n, part.p, part.n) != NULL;
}

static bool some_contains(const struct span *list, unsigned n, struct span part)
{
    for (unsigned i = 0; i < n; i++)
        if (contains(list[i], part))
            return true;
    return false;
}

/* ---- which ---- */

static bool is_in_group(const struct agent *a, struct span group)
{
    struct reg_row r;
    for (const struct reg *reg = agent_next_reg(a, NULL); reg; reg = agent_next_reg(a, reg)) {
        reg_describe(reg, &r);
        if (strcmp(r.kind, "handle") == 0 && span_eq(r.name, group))
            return true;
    }
    return false;
}

static bool some_reg_contains(const struct agent *a, struct span part)
{
    struct reg_row r;
    for (const struct reg *reg = agent_next_reg(a, NULL); reg; reg = agent_next_reg(a, reg)) {
        reg_describe(reg, &r);
        if (contains(r.name, part) || some_contains(r.events, r.n_events, part) ||
            some_contains(r.namespaces, r.n_namespaces, part))
            return true;
    }
    return false;
}

static bool matches(const struct agent *a, const struct agent_row *row, struct span node,
                    const struct agent_question *q)
{
    if (q->instance.n && !span_eq(row->instance, q->instance))
        return false;
    if (q->group.n && !is_in_group(a, q->group))
        return false;
    return q->q.n == 0 || contains(row->name, q->q) || contains(row->instance, q->q) ||
           contains(node, q->q) || contains(row->about, q->q) || some_reg_contains(a, q->q);
}

/* Not within a character: a key is also a text in an address. */
static int cut(struct span text, size_t max)
{
    size_t n = text.n < max ? text.n : max;
    while (n < text.n && n > 0 && ((uint8_t)text.p[n] & 0xc0) == 0x80)
        n--;
    return (int)n;
}

static uint64_t hash(struct span text)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < text.n; i++)
        h = (h ^ (uint8_t)text.p[i]) * 1099511628211u;
    return h;
}

static size_t key_of(const struct agent_row *row, const struct agent_question *q, char key[FIRST_KEY_BYTES])
{
    int n;
    if (q->by_calls)
        n = snprintf(key, FIRST_KEY_BYTES, "%010" PRIu32 "%016" PRIx64, UINT32_MAX - row->calls_per_s,
                     hash(row->instance));
    else
        n = snprintf(key, FIRST_KEY_BYTES, "%.*s %016" PRIx64, cut(row->name, NAME_IN_KEY), row->name.p,
                     hash(row->instance));
    return (size_t)n;
}

/* ---- how ---- */

static void print_texts(struct printer *p, const char *key, const struct span *list, unsigned n)
{
    print_format(p, ",\"%s\":[", key);
    for (unsigned i = 0; i < n; i++) {
        print_span(p, i > 0 ? SPAN(",") : SPAN(""));
        print_quoted(p, list[i]);
    }
    print_span(p, SPAN("]"));
}

/* Names of its registrations of one kind, each once. */
static void print_names(struct printer *p, const char *key, const char *kind, const struct agent *a)
{
    struct span seen[NAMES_SHOWN];
    struct reg_row r;
    unsigned n = 0;
    for (const struct reg *reg = agent_next_reg(a, NULL); reg && n < NAMES_SHOWN;
         reg = agent_next_reg(a, reg)) {
        bool is_new = true;
        reg_describe(reg, &r);
        for (unsigned i = 0; i < n; i++)
            is_new = is_new && !span_eq(seen[i], r.name);
        if (is_new && strcmp(r.kind, kind) == 0)
            seen[n++] = r.name;
    }
    print_texts(p, key, seen, n);
}

static void print_life(struct printer *p, unsigned life)
{
    static const struct {
        unsigned bit;
        struct span name;
    } words[] = {{AGENT_LIFE_CONNECT, SPAN("connect")},
                 {AGENT_LIFE_DISCONNECT, SPAN("disconnect")},
                 {AGENT_LIFE_JOIN, SPAN("join")},
                 {AGENT_LIFE_LEAVE, SPAN("leave")}};
    struct span named[4];
    unsigned n = 0;
    for (unsigned i = 0; i < 4; i++)
        if (life & words[i].bit)
            named[n++] = words[i].name;
    print_texts(p, "life", named, n);
}

static void print_regs(struct printer *p, const struct agent *a)
{
    const char *comma = "";
    struct reg_row r;
    print_span(p, SPAN(",\"registrations\":["));
    for (const struct reg *reg = agent_next_reg(a, NULL); reg; reg = agent_next_reg(a, reg)) {
        reg_describe(reg, &r);
        print_format(p, "%s{\"kind\":\"%s\",\"name\":", comma, r.kind);
        print_quoted(p, r.name);
        print_texts(p, "namespaces", r.namespaces, r.n_namespaces);
        print_texts(p, "events", r.events, r.n_events);
        print_texts(p, "rooms", r.rooms, r.n_rooms);
        print_life(p, r.life);
        print_format(p, ",\"limit\":%" PRIu64 ",\"unanswered\":%" PRIu64 "}", r.limit, r.unanswered);
        comma = ",";
    }
    print_span(p, SPAN("]"));
}

static void print_time(struct printer *p, const char *key, uint64_t us)
{
    if (us)
        print_format(p, ",\"%s\":%" PRIu64, key, us);
    else
        print_format(p, ",\"%s\":null", key);
}

static int print_agent(const struct agent *a, const struct agent_row *row, struct span node, bool with_regs,
                       msgpack_sbuffer *text)
{
    struct printer p = print_begin(text);
    print_span(&p, SPAN("{\"name\":"));
    print_quoted(&p, row->name);
    print_span(&p, SPAN(",\"instance\":"));
    print_quoted(&p, row->instance);
    print_span(&p, SPAN(",\"node\":"));
    print_quoted(&p, node);
    print_span(&p, SPAN(",\"about\":"));
    print_quoted(&p, row->about);
    print_format(&p, ",\"connected_ms\":%" PRIu64 ",\"silent_ms\":%" PRIu64, row->connected_ms,
                 row->silent_ms);
    print_names(&p, "groups", "handle", a);
    print_names(&p, "addresses", "register", a);
    print_format(&p, ",\"handlers\":%u,\"actors\":%u,\"subscriptions\":%u,\"watches\":%u", row->handlers,
                 row->actors, row->subscriptions, row->watches);
    print_format(&p, ",\"calls_per_s\":%" PRIu32 ",\"calls_total\":%" PRIu64 ",\"answered_total\":%" PRIu64,
                 row->calls_per_s, row->calls, row->answered);
    print_format(&p, ",\"failed_total\":%" PRIu64 ",\"timed_out_total\":%" PRIu64, row->failed,
                 row->timed_out);
    print_time(&p, "p50_us", row->p50_us);
    print_time(&p, "p99_us", row->p99_us);
    print_format(&p, ",\"unanswered\":%u,\"waiting\":%u,\"credit_bytes\":%" PRIu64 ",\"behind\":%u",
                 row->unanswered, row->waiting, row->credit_bytes, row->behind);
    if (with_regs)
        print_regs(&p, a);
    print_span(&p, SPAN("}"));
    return print_end(&p);
}

int agent_list_ask(const struct agents *g, struct span node, const struct agent_question *q,
                   struct lists_answer *answer)
{
    static struct first first; /* large; the reactor's thread only */
    char key[FIRST_KEY_BYTES];
    struct agent_row row;
    int err = 0;
    first_begin(&first, q->limit, q->after);
    for (struct agent *a = agents_next(g, NULL); a; a = agents_next(g, a)) {
        agent_describe(a, &row);
        if (matches(a, &row, node, q))
            first_offer(&first, key, key_of(&row, q, key), a);
    }
    answer->total = first.total;
    answer->has_more = first.has_more;
    for (unsigned i = 0; i < first.n && !err; i++) {
        struct agent *a = (struct agent *)(uintptr_t)first.at[i].what;
        size_t from = answer->text.size;
        agent_describe(a, &row);
        err = print_agent(a, &row, node, q->instance.n > 0, &answer->text);
        lists_put(answer, &first.at[i], from);
    }
    return err;
}
