/* What a node says of itself each second, to all nodes. See status.md. Pure functions. */
#ifndef STARLING_STATUS_H
#define STARLING_STATUS_H

#include "limit.h"
#include "mesh.h"
#include "span.h"
#include <msgpack.h>

enum status_value {
#define X(NAME, key, kind, meaning)              STATUS_##NAME,
#define M(NAME, key, kind, how, METRIC, meaning) STATUS_##NAME,
#include "status_value.def"
#undef M
#undef X
    STATUS_VALUES
};

enum status_state { STATUS_STARTING, STATUS_READY, STATUS_DRAINING, STATUS_STOPPING, STATUS_STATES };
enum status_store { STATUS_STORE_NONE, STATUS_STORE_DOWN, STATUS_STORE_UP, STATUS_STORES };

/* How a node hears another one. */
struct status_link {
    struct mesh_origin from;
    uint64_t sent_us;  /* by the other one's clock, when it sent the last status that came */
    uint64_t held_us;  /* since that came: the other one tells the round trip from both */
    uint64_t delay_us; /* half of the last round trip; 0: not known */
    uint64_t silent_ms;
    uint64_t behind; /* records that it is known to have said and that have not come */
    bool in_hole;
};

struct status {
    struct span name, host;
    uint64_t sent_us; /* the sender's clock, from any start */
    uint64_t value[STATUS_VALUES];
    unsigned n_links;
    struct status_link link[LIMIT_STATUS_LINKS];
};

/* Appends to the buffer; 0 or ERR_MEMORY. The caller keeps the limits. */
int status_write(msgpack_sbuffer *b, const struct status *s);
/* 0; texts point into bytes. Or ERR_STATUS, and *s says nothing. */
int status_read(struct span bytes, struct status *s);

/* The key of a value in JSON. */
const char *status_key(enum status_value value);
/* Members of a JSON object, without its brackets; 0 or ERR_MEMORY. */
int status_json(msgpack_sbuffer *b, const struct status *s);

/* An origin as text, "<tag>-<boot>", as status_json() and bus:gap have it. */
enum { STATUS_ID_BYTES = 24 };
void status_id(char out[STATUS_ID_BYTES], struct mesh_origin origin);
/* False: no such text. */
bool status_id_read(struct span text, struct mesh_origin *origin);

#endif
