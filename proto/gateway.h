/* What nodes tell each other of their agents, in msgpack. Pure functions. See gateway.md. */
#ifndef STARLING_GATEWAY_H
#define STARLING_GATEWAY_H

#include "span.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

#define GATEWAY_KEY_BYTES  9
#define GATEWAY_TEXT_BYTES 64
#define GATEWAY_ENDPOINTS  4
#define GATEWAY_FULL       1000000 /* added to the load of who takes no calls */
#define GATEWAY_LATE       1       /* after, of a CANCEL: the deadline is over */

enum gateway_key { GATEWAY_REGISTRATION = 'R', GATEWAY_INSTANCE = 'I', GATEWAY_NODE = 'N' };

enum gateway_op {
    GATEWAY_DELIVER = 1,
    GATEWAY_ANSWER = 2,
    GATEWAY_CANCEL = 3,
    GATEWAY_ACT = 4,
    GATEWAY_PART = 5,
    GATEWAY_ADMITTED = 6,
    GATEWAY_LOAD = 7,
};

struct gateway_head {
    enum gateway_op op;
    uint64_t number, target, after;
};

/* The value of a registration (reason) or an instance (epoch). */
struct gateway_about {
    struct span name, instance, reason;
    uint64_t epoch;
};

struct gateway_node {
    struct span name, host;
    unsigned n;
    struct span endpoint[GATEWAY_ENDPOINTS];
};

struct gateway_load {
    uint64_t number, load;
};

/* ---- writing: appends; 0 or ERR_MEMORY ---- */

struct span gateway_write_key(char text[GATEWAY_KEY_BYTES], enum gateway_key type, uint64_t number);
int gateway_write_about(msgpack_sbuffer *b, enum gateway_key type, const struct gateway_about *about);
int gateway_write_node(msgpack_sbuffer *b, const struct gateway_node *node);
int gateway_write_head(msgpack_sbuffer *b, const struct gateway_head *head);
int gateway_write_loads(msgpack_sbuffer *b, const struct gateway_load *loads, unsigned n);

/* ---- reading: 0 or ERR_MESH; spans point into what is read, *rest is what follows ---- */

int gateway_read_key(struct span key, enum gateway_key *type, uint64_t *number);
int gateway_read_about(struct span value, enum gateway_key type, struct gateway_about *about,
                       struct span *rest);
int gateway_read_node(struct span value, struct gateway_node *node);
int gateway_read_head(struct span message, struct gateway_head *head, struct span *rest);
/* The next of the rest of a LOAD; false behind the last one. */
struct gateway_loads {
    const char *p, *end;
    uint64_t left;
};
int gateway_open_loads(struct span rest, struct gateway_loads *loads);
bool gateway_next_load(struct gateway_loads *loads, struct gateway_load *load);

#endif
