/* A client's offset: how far it has come in each origin's numbers, as one short string. Pure functions. See
 * offset.md. */
#ifndef STARLING_OFFSET_H
#define STARLING_OFFSET_H

#include "limit.h"
#include "span.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct offset_entry {
    uint32_t origin; /* the 24-bit tag that an origin's ids start with */
    uint64_t seq;    /* the newest number of that origin which the client has */
};

/* Entries in ascending order of origin, none twice. */
struct offset {
    uint32_t issuer; /* tag of the node that gave it out: the one that has the session */
    unsigned n;
    struct offset_entry entry[LIMIT_OFFSET_ORIGINS];
};

/* Text of an offset, JSON-safe without escapes: its length, or ERR_LIMIT when it needs more than cap or than
 * LIMIT_OFFSET_BYTES. */
ssize_t offset_encode(const struct offset *o, char *dst, size_t cap);

/* 0, or ERR_OFFSET for any text that offset_encode() did not write (a checksum tells an application's own
 * trailing string from an offset). */
int offset_decode(struct span text, struct offset *o);

/* The number that it names of an origin; 0: none. */
uint64_t offset_seq(const struct offset *o, uint32_t origin);
bool offset_names(const struct offset *o, uint32_t origin);
/* Names at least this number of an origin. ERR_LIMIT. */
int offset_raise(struct offset *o, uint32_t origin, uint64_t seq);

#endif
