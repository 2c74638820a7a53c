/* A session as the directory keeps it, and as one node gives it to another that claims it: one element of msgpack.
 * Pure functions. See entry.md. */
#ifndef STARLING_ENTRY_H
#define STARLING_ENTRY_H

#include "limit.h"
#include "span.h"
#include <msgpack.h>

#define ENTRY_ID_CHARS 20

/* One client's presence in one namespace, as it must be known to go on elsewhere. */
struct entry {
    struct span nsp, sid, pid;
    struct span user;  /* raw JSON, or empty */
    struct span data;  /* raw JSON, or empty */
    struct span since; /* text of the offset from which on it may be given what it missed */
    unsigned n_rooms;
    struct span rooms[LIMIT_ROOMS_PER_SOCKET];
};

/* Appends to the buffer: 0 or ERR_MEMORY, and the buffer is as it was. The caller keeps the limits. */
int entry_write(msgpack_sbuffer *b, const struct entry *e);

/* 0; spans point into bytes. Or ERR_ENTRY, and *e says nothing. Trusts nothing: namespace and rooms are checked to be
 * UTF-8, user and data to be JSON. Whether since is an offset, offset_decode() says. */
int entry_read(struct span bytes, struct entry *e);

#endif
