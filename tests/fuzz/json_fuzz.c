/* JSON: text that the check accepts is walked by cursors to its end and, put together again from what they
 * gave, is the text without its blanks; strings survive decoding and quoting; the depth that is needed is the
 * depth that is there. Text that the check refuses is walked too: that must stay within it. */
#include "err.h"
#include "json.h"
#include "limit.h"
#include "utf8.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(what) ((what) ? (void)0 : abort())

static void *allocate(size_t n)
{
    void *p = malloc(n);
    REQUIRE(p != NULL);
    return p;
}

struct text {
    char *p;
    size_t n;
};

static void append(struct text *t, struct span s)
{
    memcpy(t->p + t->n, s.p, s.n);
    t->n += s.n;
}

static struct text without_blanks(struct span s)
{
    struct text t = {allocate(s.n), 0};
    bool in_string = false;
    for (size_t i = 0; i < s.n; ++i) {
        char c = s.p[i];
        if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r'))
            continue;
        t.p[t.n++] = c;
        if (c == '"')
            in_string = !in_string;
        else if (in_string && c == '\\')
            t.p[t.n++] = s.p[++i];
    }
    return t;
}

static void round_trip(struct span string)
{
    char *decoded = allocate(string.n);
    ssize_t n = json_string(string, decoded, string.n);
    if (n >= 0) {
        REQUIRE(utf8_valid(decoded, (size_t)n));
        REQUIRE(n == 0 || json_string(string, decoded, (size_t)n - 1) == ERR_LIMIT);
        REQUIRE(json_string(string, decoded, (size_t)n) == n);
        char *quoted = allocate(JSON_QUOTED_MAX((size_t)n)), *again = allocate((size_t)n);
        struct span q = {quoted, json_quote(quoted, (struct span){decoded, (size_t)n})};
        REQUIRE(q.n <= JSON_QUOTED_MAX((size_t)n) && json_check(q, 0) == 0);
        REQUIRE(json_string(q, again, (size_t)n) == n && (n == 0 || memcmp(again, decoded, (size_t)n) == 0));
        free(quoted);
        free(again);
    } else {
        REQUIRE(n == ERR_JSON); /* U+0000 or a lone surrogate */
    }
    free(decoded);
}

/* The value that a plain key finds is that of the last member with it. */
static void find(struct span object, struct span name, struct span value)
{
    char key[32];
    ssize_t n = json_string(name, key, sizeof key - 1);
    for (ssize_t i = 0; i < n; ++i) {
        if ((key[i] & 0x80) != 0)
            return;
    }
    if (n < 0)
        return;
    key[n] = '\0';
    struct span found = json_get(object, key);
    REQUIRE(found.n > 0 && found.p >= value.p);
}

/* Appends the value to out; returns how deep it is nested. */
static unsigned rebuild(struct span value, struct text *out)
{
    struct json_cursor c = json_open(value);
    struct span name, item;
    unsigned deepest = 0, n = 0;
    enum json_type type = json_type(value);
    REQUIRE(type != JSON_NONE);
    if (type != JSON_ARRAY && type != JSON_OBJECT) {
        REQUIRE(!json_item(&c, &item));
        if (type == JSON_STRING)
            round_trip(value);
        append(out, value);
        return 0;
    }
    append(out, type == JSON_ARRAY ? SPAN("[") : SPAN("{"));
    while (type == JSON_ARRAY ? json_item(&c, &item) : json_member(&c, &name, &item)) {
        if (n++ > 0)
            append(out, SPAN(","));
        if (type == JSON_OBJECT) {
            round_trip(name);
            find(value, name, item);
            append(out, name);
            append(out, SPAN(":"));
        }
        unsigned depth = rebuild(item, out);
        if (depth > deepest)
            deepest = depth;
    }
    append(out, type == JSON_ARRAY ? SPAN("]") : SPAN("}"));
    return deepest + 1;
}

static void accepted(struct span text)
{
    struct text expected = without_blanks(text), rebuilt = {allocate(text.n), 0};
    struct span value = text;
    while (strchr(" \t\r\n", *value.p) != NULL)
        ++value.p, --value.n;
    while (strchr(" \t\r\n", value.p[value.n - 1]) != NULL)
        --value.n;
    unsigned depth = rebuild(value, &rebuilt);
    REQUIRE(span_eq((struct span){expected.p, expected.n}, (struct span){rebuilt.p, rebuilt.n}));
    REQUIRE(depth <= LIMIT_JSON_DEPTH && json_check(text, depth) == 0);
    REQUIRE(depth == 0 || json_check(text, depth - 1) == ERR_JSON_DEPTH);
    REQUIRE(json_check((struct span){expected.p, expected.n}, depth) == 0);

    uint64_t n;
    if (json_uint(value, UINT64_MAX, &n)) {
        REQUIRE(json_uint(value, n, &n));
        REQUIRE(n == 0 || !json_uint(value, n - 1, &n));
    }
    free(expected.p);
    free(rebuilt.p);
}

static void walk_unchecked(struct span text)
{
    struct json_cursor c = json_open(text);
    struct span name, value;
    char dst[16];
    uint64_t n;
    while (json_item(&c, &value))
        REQUIRE(value.p >= text.p && value.p + value.n <= text.p + text.n && value.n > 0);
    c = json_open(text);
    while (json_member(&c, &name, &value))
        json_string(name, dst, sizeof dst);
    json_get(text, "to");
    json_string(text, dst, sizeof dst);
    json_uint(text, UINT64_MAX, &n);
    json_is_true(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = {(const char *)data, size};
    int rc = json_check(text, LIMIT_JSON_DEPTH);
    REQUIRE(rc == 0 || rc == ERR_JSON || rc == ERR_JSON_DEPTH);
    walk_unchecked(text);
    if (!utf8_valid(data, size))
        return 0;
    if (rc == 0)
        accepted(text);

    char *quoted = allocate(JSON_QUOTED_MAX(size));
    struct span q = {quoted, json_quote(quoted, text)};
    REQUIRE(json_check(q, 0) == 0);
    if (memchr(data, 0, size) == NULL)
        round_trip(q);
    free(quoted);
    return 0;
}
