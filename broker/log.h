/* The one log call: a level, an event name, typed fields. logfmt on stderr, JSON when asked. Any thread; a line is
 * one write(). */
#ifndef STARLING_LOG_H
#define STARLING_LOG_H

#include "span.h"
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    enum { LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_TEXT } kind;
    union {
        int64_t i;
        uint64_t u;
        struct span text;
    };
};

#define LOG_INT(k, v)  ((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .i = (v)})
#define LOG_UINT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_UINT, .u = (v)})
#define LOG_TEXT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_TEXT, .text = span_of(v)})
#define LOG_SPAN(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_TEXT, .text = (v)})

/* log_event(LOG_INFO, "ready", LOG_TEXT("address", a), LOG_INT("pid", p)); at least one field. */
#define log_event(level, event, ...)                                                                         \
    do {                                                                                                     \
        if ((level) >= log_threshold())                                                                      \
            log_write((level), (event), (const struct log_field[]){__VA_ARGS__},                             \
                      sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field));           \
    } while (0)

void log_setup(enum log_level threshold, bool json);
enum log_level log_threshold(void);
/* "debug", "info", "warn", "error": 0 or ERR_ARGUMENT. */
int log_level_parse(const char *text, enum log_level *level);
void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t n);

#endif
