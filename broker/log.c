/* A line is built on the stack and leaves in one write(), so lines of several threads and processes do not
 * mix: a pipe takes up to PIPE_BUF (4096) bytes whole. Values may hold bytes that a client chose: whatever
 * could end a line, steer a terminal or reorder the text on it is escaped. */
#include "log.h"
#include "err.h"
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_SIZE = 4096,
    LINE_END_ROOM = 32, /* for the mark of a cut line and the line's end */
    VALUE_SIZE = 1024,  /* what a text may take of a line, quotes and the mark of a cut text left out */
    ESCAPE_SIZE = 6,    /* the longest escape, as of a control character in JSON */
};

static const char cut_mark[] = "\xe2\x80\xa6"; /* an ellipsis */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static atomic_int threshold = LOG_INFO;
static atomic_bool as_json = false;

struct line {
    size_t n;
    bool full; /* something did not fit; what has been written of it is to be taken back */
    bool json;
    char text[LINE_SIZE];
};

void log_setup(enum log_level new_threshold, bool json)
{
    atomic_store_explicit(&threshold, (int)new_threshold, memory_order_relaxed);
    atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

enum log_level log_threshold(void)
{
    return (enum log_level)atomic_load_explicit(&threshold, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return ERR_ARGUMENT;
}

static void put(struct line *line, const char *p, size_t n)
{
    if (n > LINE_SIZE - LINE_END_ROOM - line->n) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->n, p, n);
    line->n += n;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* The length of the UTF-8 sequence at p and its code point; 0 when the bytes are none. */
static size_t decode(const unsigned char *p, size_t n, uint32_t *code)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80   ? 1
                    : p[0] < 0xc0 ? 0
                    : p[0] < 0xe0 ? 2
                    : p[0] < 0xf0 ? 3
                    : p[0] < 0xf8 ? 4
                                  : 0;

    if (length == 0 || length > n)
        return 0;
    *code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (p[i] & 0x3f);
    }
    if (*code < smallest[length] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
        return 0;
    return length;
}

/* Control characters, line separators, and what turns the direction of text. All are below U+10000. */
static bool is_harmful(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
           code == 0x200f || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
           code == 0xfeff;
}

/* Writes the next character of a text, escaped when need be, to out; returns the bytes read. */
static size_t escape(const unsigned char *p, size_t n, bool json, char out[ESCAPE_SIZE + 1], size_t *out_n)
{
    uint32_t code = 0;
    size_t length = decode(p, n, &code);

    if (length == 0) {
        *out_n = (size_t)snprintf(out, ESCAPE_SIZE + 1, json ? "\\ufffd" : "\\x%02x", p[0]);
        return 1;
    }
    if (code == '"' || code == '\\') {
        *out_n = (size_t)snprintf(out, ESCAPE_SIZE + 1, "\\%c", (char)code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
        *out_n = 2;
        out[0] = '\\';
        out[1] = code == '\n' ? 'n' : code == '\r' ? 'r' : 't';
    } else if (is_harmful(code)) {
        *out_n = (size_t)snprintf(out, ESCAPE_SIZE + 1, "\\u%04x", (unsigned)code & 0xffff);
    } else {
        memcpy(out, p, length);
        *out_n = length;
    }
    return length;
}

static void put_quoted(struct line *line, struct span text)
{
    size_t used = 0, i = 0;

    put(line, "\"", 1);
    while (i < text.n) {
        char out[ESCAPE_SIZE + 1];
        size_t n = 0;
        size_t read = escape((const unsigned char *)text.p + i, text.n - i, line->json, out, &n);
        if (used + n > VALUE_SIZE) {
            put_text(line, cut_mark);
            break;
        }
        put(line, out, n);
        used += n;
        i += read;
    }
    put(line, "\"", 1);
}

/* Whether a logfmt value can stand without quotes. */
static bool is_bare(struct span text)
{
    if (text.n == 0 || text.n > VALUE_SIZE)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == ':' || c == '\\')
            return false;
    }
    return true;
}

static void put_value(struct line *line, struct span text)
{
    if (!line->json && is_bare(text))
        put(line, text.p, text.n);
    else
        put_quoted(line, text);
}

static void put_key(struct line *line, const char *key)
{
    if (line->json) {
        put_text(line, line->n == 0 ? "{" : ",");
        put_quoted(line, span_of(key));
        put_text(line, ":");
    } else {
        if (line->n > 0)
            put_text(line, " ");
        put_text(line, key);
        put_text(line, "=");
    }
}

static void put_field(struct line *line, const struct log_field *field)
{
    char number[24];

    put_key(line, field->key);
    switch (field->kind) {
    case LOG_FIELD_INT:
        snprintf(number, sizeof number, "%" PRId64, field->i);
        put_text(line, number);
        break;
    case LOG_FIELD_UINT:
        snprintf(number, sizeof number, "%" PRIu64, field->u);
        put_text(line, number);
        break;
    case LOG_FIELD_TEXT:
        put_value(line, field->text);
        break;
    }
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[64];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1,
             utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(now.tv_nsec / 1000000));
    put_key(line, "ts");
    if (line->json)
        put_quoted(line, span_of(text));
    else
        put_text(line, text);
}

/* Fields are left out from the first that does not fit. */
static void put_fields(struct line *line, const struct log_field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t before = line->n;
        put_field(line, &fields[i]);
        if (line->full) {
            line->n = before;
            break;
        }
    }
}

static void end_line(struct line *line)
{
    const char *end = line->json ? (line->full ? ",\"truncated\":true}\n" : "}\n")
                                 : (line->full ? " truncated=true\n" : "\n");
    size_t n = strlen(end);

    memcpy(line->text + line->n, end, n);
    line->n += n;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t n)
{
    struct line line = {.json = atomic_load_explicit(&as_json, memory_order_relaxed)};
    int saved_errno = errno;

    put_time(&line);
    put_key(&line, "level");
    put_value(&line, span_of(level_names[level]));
    put_key(&line, "event");
    put_value(&line, span_of(event));
    put_fields(&line, fields, n);
    end_line(&line);
    while (write(STDERR_FILENO, line.text, line.n) < 0 && errno == EINTR)
        ;
    errno = saved_errno;
}
