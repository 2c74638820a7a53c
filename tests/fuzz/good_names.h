/* Which names are good, as the pages have it: written without any of the code under test but utf8_valid(). */
#ifndef STARLING_FUZZ_GOOD_NAMES_H
#define STARLING_FUZZ_GOOD_NAMES_H

#include "span.h"
#include "utf8.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static inline struct span text_of(const msgpack_object *o)
{
    return (struct span){o->via.str.ptr, o->via.str.size};
}

static inline bool good_text(const msgpack_object *o, size_t min, size_t max)
{
    return o->type == MSGPACK_OBJECT_STR && o->via.str.size >= min && o->via.str.size <= max;
}

static inline bool good_utf8(const msgpack_object *o, size_t min, size_t max)
{
    return good_text(o, min, max) && utf8_valid(o->via.str.ptr, o->via.str.size);
}

static inline bool good_namespace(const msgpack_object *o)
{
    if (!good_utf8(o, 1, 256) || o->via.str.ptr[0] != '/')
        return false;
    for (uint32_t i = 0; i < o->via.str.size; i++)
        if (o->via.str.ptr[i] == ',')
            return false;
    return true;
}

static inline bool good_id(const msgpack_object *o)
{
    if (!good_text(o, 20, 20))
        return false;
    for (unsigned i = 0; i < 20; i++) {
        char c = o->via.str.ptr[i];
        if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_')
            return false;
    }
    return true;
}

static inline bool good_uint(const msgpack_object *o, uint64_t min, uint64_t max)
{
    return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 >= min && o->via.u64 <= max;
}

static inline bool good_bin(const msgpack_object *o, size_t min, size_t max)
{
    return o->type == MSGPACK_OBJECT_BIN && o->via.bin.size >= min && o->via.bin.size <= max;
}

#endif
