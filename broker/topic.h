/* A room of a namespace as the key of a table. */
#ifndef STARLING_TOPIC_H
#define STARLING_TOPIC_H

#include "limit.h"
#include "span.h"
#include <stdint.h>
#include <string.h>

enum { TOPIC_BYTES = 2 + LIMIT_NAMESPACE_BYTES + LIMIT_ROOM_BYTES };

/* Names may have any bytes in them, also NUL: only lengths tell where one ends. Returns the key's length. */
static inline uint32_t topic_name(char name[TOPIC_BYTES], struct span nsp, struct span room)
{
    name[0] = (char)(nsp.n >> 8);
    name[1] = (char)(nsp.n & 0xff);
    memcpy(name + 2, nsp.p, nsp.n);
    if (room.n)
        memcpy(name + 2 + nsp.n, room.p, room.n);
    return (uint32_t)(2 + nsp.n + room.n);
}

#endif
