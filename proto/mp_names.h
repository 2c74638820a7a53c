/* Names that several formats of the mesh have in them, read with what is asked of each. Pure functions; errors as in mp.h. */
#ifndef STARLING_MP_NAMES_H
#define STARLING_MP_NAMES_H

#include "mp.h"

#define MP_ID_CHARS 20

struct span mp_get_utf8(struct mp_cursor *c, uint64_t limit);
/* As a packet can name it: begins with '/', and has no comma, which would end it (socketio.md). */
struct span mp_get_namespace(struct mp_cursor *c);
/* A sid or a pid. */
struct span mp_get_id(struct mp_cursor *c);

#endif
