/* Reads one HTTP/1.1 request out of a growing buffer, with Debian's http-parser. Everything that is stored is an
 * offset from the start of the request, so the buffer may move between calls. */
#ifndef STARLING_HTTP_H
#define STARLING_HTTP_H

#include "buffer.h"
#include "limit.h"
#include "span.h"
#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_progress {
    HTTP_READ_MORE, /* incomplete */
    HTTP_READ_HEAD, /* the head has just become complete; feed again for the body */
    HTTP_READ_DONE, /* head and body are complete */
};

struct http_run {
    uint16_t at, n;
};

struct http_reader {
    http_parser parser;
    uint32_t used;           /* bytes of the request seen so far; all of them when DONE */
    uint32_t head_n;         /* length of the head, known from HTTP_READ_HEAD on */
    uint32_t body_at;        /* of a body with Content-Length */
    uint32_t max_body_bytes; /* set it at HTTP_READ_HEAD */
    struct buffer chunked;   /* a chunked body, put together */
    size_t body_n;
    int err;
    bool head_complete, complete, in_value;
    uint8_t n_headers;
    struct http_run url;
    struct {
        struct http_run name, value;
    } header[LIMIT_HTTP_HEADERS];
    const char *base; /* only during a call */
};

void http_reader_init(struct http_reader *r);
void http_reader_deinit(struct http_reader *r);

/* base: the request from its first byte, n bytes of it. HTTP_READ_MORE, HTTP_READ_HEAD, HTTP_READ_DONE; or ERR_HTTP_SYNTAX,
 * ERR_HTTP_TOO_BIG, ERR_MEMORY. */
int http_reader_feed(struct http_reader *r, const char *base, size_t n);

/* From HTTP_READ_HEAD on. */
struct span http_method(const struct http_reader *r);
struct span http_path(const struct http_reader *r, const char *base);
struct span http_query(const struct http_reader *r, const char *base);
/* n == 0 when absent; the last of several. */
struct span http_header(const struct http_reader *r, const char *base, const char *name);
/* Is token one of the comma list in this header? */
bool http_header_has(const struct http_reader *r, const char *base, const char *name, const char *token);
bool http_keep_alive(const struct http_reader *r);
bool http_is_websocket(const struct http_reader *r, const char *base);
/* Announced and too long already? */
bool http_body_too_big(const struct http_reader *r, size_t max_bytes);
bool http_has_body(const struct http_reader *r);

/* From HTTP_READ_DONE on. */
struct span http_body(const struct http_reader *r, const char *base);

const char *http_status_text(int status);

#endif
