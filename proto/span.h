/* A borrowed run of bytes. Whoever hands one out says how long it lives. */
#ifndef STARLING_SPAN_H
#define STARLING_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
    const char *p;
    size_t n;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})

static inline struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Is item one of a comma list without blanks? */
static inline bool span_in_list(const char *list, struct span item)
{
    while (*list) {
        size_t n = strcspn(list, ",");
        if (span_eq(item, (struct span){list, n}))
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

#endif
