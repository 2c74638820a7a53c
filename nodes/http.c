#include "http.h"
#include "err.h"
#include <strings.h>

static struct http_reader *of(http_parser *p)
{
    return p->data;
}

/* Pieces of one run lie side by side, so a later piece only makes it longer. */
static int extend(struct http_reader *r, struct http_run *run, const char *at, size_t n)
{
    size_t offset = (size_t)(at - r->base);
    if (offset + n > LIMIT_HTTP_HEAD_BYTES) {
        r->err = ERR_HTTP_TOO_BIG;
        return -1;
    }
    if (run->n == 0)
        run->at = (uint16_t)offset;
    if (run->at + run->n != offset) { /* a folded line: obsolete, and a way to smuggle line breaks */
        r->err = ERR_HTTP_SYNTAX;
        return -1;
    }
    run->n = (uint16_t)(offset + n - run->at);
    return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
    struct http_reader *r = of(p);
    if (extend(r, &r->url, at, n))
        return -1;
    if (r->url.n > LIMIT_HTTP_URL_BYTES) {
        r->err = ERR_HTTP_TOO_BIG;
        return -1;
    }
    return 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
    struct http_reader *r = of(p);
    if (r->head_complete)
        return 0; /* trailers say nothing to us */
    if (r->n_headers == 0 || r->in_value) {
        if (r->n_headers == LIMIT_HTTP_HEADERS) {
            r->err = ERR_HTTP_TOO_BIG;
            return -1;
        }
        r->n_headers++;
        r->in_value = false;
        memset(&r->header[r->n_headers - 1], 0, sizeof(r->header[0]));
    }
    return extend(r, &r->header[r->n_headers - 1].name, at, n);
}

static int on_value(http_parser *p, const char *at, size_t n)
{
    struct http_reader *r = of(p);
    if (r->head_complete)
        return 0;
    r->in_value = true;
    return extend(r, &r->header[r->n_headers - 1].value, at, n);
}

static int on_headers_complete(http_parser *p)
{
    struct http_reader *r = of(p);
    r->head_complete = true;
    http_parser_pause(p, 1);
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
    struct http_reader *r = of(p);
    if (r->body_n + n > r->max_body_bytes) {
        r->err = ERR_HTTP_TOO_BIG;
        return -1;
    }
    if (p->flags & F_CHUNKED) {
        r->err = buffer_append(&r->chunked, at, n);
        if (r->err)
            return -1;
    } else if (r->body_n == 0) {
        r->body_at = (uint32_t)(at - r->base);
    }
    r->body_n += n;
    return 0;
}

static int on_complete(http_parser *p)
{
    of(p)->complete = true;
    http_parser_pause(p, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* The header slots need no clearing: each is cleared when it is taken. */
void http_reader_init(struct http_reader *r)
{
    memset(r, 0, offsetof(struct http_reader, header));
    http_parser_init(&r->parser, HTTP_REQUEST);
    r->parser.data = r;
}

void http_reader_deinit(struct http_reader *r)
{
    buffer_reset(&r->chunked);
}

/* "Content-Length : 5": the library lets it pass, others do not see that header. */
static bool has_blank_name(const struct http_reader *r, const char *base)
{
    for (unsigned i = 0; i < r->n_headers; i++) {
        const struct http_run *name = &r->header[i].name;
        if (name->n == 0 || memchr(base + name->at, ' ', name->n) || memchr(base + name->at, '\t', name->n))
            return true;
    }
    return false;
}

int http_reader_feed(struct http_reader *r, const char *base, size_t n)
{
    bool had_head = r->head_complete;
    r->parser.data = r;
    r->base = base;
    if (HTTP_PARSER_ERRNO(&r->parser) == HPE_PAUSED)
        http_parser_pause(&r->parser, 0);
    /* A length of 0 would tell the parser that the connection has ended. */
    if (n > r->used || had_head != r->head_complete)
        r->used += (uint32_t)http_parser_execute(&r->parser, &settings, base + r->used, n - r->used);
    if (r->err)
        return r->err;
    if (r->complete)
        return HTTP_READ_DONE;
    enum http_errno err = HTTP_PARSER_ERRNO(&r->parser);
    if (r->head_complete && !had_head) {
        if (base[r->used] != '\n' || has_blank_name(r, base))
            return ERR_HTTP_SYNTAX;
        r->head_n = r->used + 1; /* the parser pauses on the last line feed */
        return r->head_n <= LIMIT_HTTP_HEAD_BYTES ? HTTP_READ_HEAD : ERR_HTTP_TOO_BIG;
    }
    if (err == HPE_HEADER_OVERFLOW || (!r->head_complete && r->used > LIMIT_HTTP_HEAD_BYTES))
        return ERR_HTTP_TOO_BIG;
    return err == HPE_OK ? HTTP_READ_MORE : ERR_HTTP_SYNTAX;
}

struct span http_method(const struct http_reader *r)
{
    return span_of(http_method_str((enum http_method)r->parser.method));
}

static struct span target(const struct http_reader *r, const char *base)
{
    return (struct span){base + r->url.at, r->url.n};
}

struct span http_path(const struct http_reader *r, const char *base)
{
    struct span url = target(r, base);
    const char *mark = memchr(url.p, '?', url.n);
    return (struct span){url.p, mark ? (size_t)(mark - url.p) : url.n};
}

struct span http_query(const struct http_reader *r, const char *base)
{
    struct span url = target(r, base);
    const char *mark = memchr(url.p, '?', url.n);
    return mark ? (struct span){mark + 1, (size_t)(url.p + url.n - mark - 1)} : (struct span){"", 0};
}

/* Without the blanks behind it. */
static struct span value_of(const struct http_reader *r, const char *base, unsigned i)
{
    struct span value = {base + r->header[i].value.at, r->header[i].value.n};
    while (value.n && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
        value.n--;
    return value;
}

struct span http_header(const struct http_reader *r, const char *base, const char *name)
{
    size_t n = strlen(name);
    for (unsigned i = r->n_headers; i-- > 0;) {
        const struct http_run *h = &r->header[i].name;
        if (h->n == n && strncasecmp(base + h->at, name, n) == 0)
            return value_of(r, base, i);
    }
    return (struct span){"", 0};
}

static bool list_has(struct span list, const char *token)
{
    size_t token_n = strlen(token);
    const char *p = list.p, *end = list.p + list.n;
    while (p < end) {
        while (p < end && (*p == ' ' || *p == '\t' || *p == ','))
            p++;
        const char *start = p;
        while (p < end && *p != ',')
            p++;
        const char *stop = p;
        while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        if ((size_t)(stop - start) == token_n && strncasecmp(start, token, token_n) == 0)
            return true;
    }
    return false;
}

bool http_header_has(const struct http_reader *r, const char *base, const char *name, const char *token)
{
    size_t n = strlen(name);
    for (unsigned i = 0; i < r->n_headers; i++) {
        const struct http_run *h = &r->header[i].name;
        if (h->n == n && strncasecmp(base + h->at, name, n) == 0 && list_has(value_of(r, base, i), token))
            return true;
    }
    return false;
}

bool http_keep_alive(const struct http_reader *r)
{
    return http_should_keep_alive(&r->parser) != 0;
}

bool http_is_websocket(const struct http_reader *r, const char *base)
{
    return r->parser.upgrade && http_header_has(r, base, "Upgrade", "websocket");
}

static bool has_length(const struct http_reader *r)
{
    return (r->parser.flags & F_CONTENTLENGTH) != 0;
}

bool http_body_too_big(const struct http_reader *r, size_t max_bytes)
{
    return has_length(r) && r->parser.content_length > max_bytes;
}

bool http_has_body(const struct http_reader *r)
{
    return (r->parser.flags & F_CHUNKED) || (has_length(r) && r->parser.content_length > 0);
}

struct span http_body(const struct http_reader *r, const char *base)
{
    if (r->body_n == 0)
        return (struct span){"", 0};
    return (struct span){r->chunked.n ? r->chunked.p : base + r->body_at, r->body_n};
}

const char *http_status_text(int status)
{
    switch (status) {
#define X(number, name, string)                                                                              \
    case number:                                                                                             \
        return #string;
        HTTP_STATUS_MAP(X)
#undef X
    default:
        return "Unknown";
    }
}
