#include "print.h"
#include "err.h"
#include "json.h"
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { PIECE = 256 }; /* of a text that is quoted at a time */

struct printer print_begin(msgpack_sbuffer *buffer)
{
    return (struct printer){.buffer = buffer, .before = buffer->size};
}

int print_end(struct printer *p)
{
    if (p->err)
        p->buffer->size = p->before;
    return p->err;
}

void print_span(struct printer *p, struct span text)
{
    if (p->err == 0 && text.n > 0 && msgpack_sbuffer_write(p->buffer, text.p, text.n) != 0)
        p->err = ERR_MEMORY;
}

void print_format(struct printer *p, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    assert(n >= 0 && n < (int)sizeof(text));
    print_span(p, (struct span){text, (size_t)n});
}

/* Escapes are of single characters, none of which is longer than its piece. */
void print_quoted(struct printer *p, struct span text)
{
    char quoted[JSON_QUOTED_MAX(PIECE)];
    print_span(p, SPAN("\""));
    while (text.n > 0) {
        size_t n = text.n < PIECE ? text.n : PIECE;
        size_t quoted_n = json_quote(quoted, (struct span){text.p, n});
        print_span(p, (struct span){quoted + 1, quoted_n - 2});
        text.p += n;
        text.n -= n;
    }
    print_span(p, SPAN("\""));
}

void print_hundredths(struct printer *p, uint64_t value)
{
    print_format(p, "%" PRIu64 ".%02u", value / 100, (unsigned)(value % 100));
}
