/* What nodes say to each other about connections that one relays to the other. Pure functions. See relay.md. */
#ifndef STARLING_RELAY_MESSAGE_H
#define STARLING_RELAY_MESSAGE_H

#include "limit.h"
#include "span.h"
#include <msgpack.h>
#include <stdbool.h>

enum relay_what { RELAY_OPEN = 1, RELAY_DATA = 2, RELAY_TAKEN = 3, RELAY_CLOSE = 4, RELAY_MOVE = 5 };

/* One Socket.IO socket of a session that moves. */
struct relay_place {
    struct span nsp, pid;
};

struct relay_message {
    enum relay_what what;
    uint64_t id;
    bool mine;         /* DATA, TAKEN, CLOSE: the sender has opened it */
    uint32_t ip;       /* OPEN: network order */
    uint16_t port;     /* OPEN: network order */
    uint64_t offset;   /* DATA: bytes before */
    uint64_t n;        /* TAKEN */
    struct span bytes; /* OPEN, DATA; MOVE: what the client has not got */
    struct span sid;   /* MOVE */
    uint64_t got;      /* MOVE: bytes of the client that are done with */
    struct span since; /* MOVE: text of an offset */
    unsigned n_places; /* MOVE */
    struct relay_place places[LIMIT_NAMESPACES_PER_CLIENT];
};

/* Appends to the buffer: 0 or ERR_MEMORY, and the buffer is as it was. What is of another kind is not written. The caller
 * keeps the limits. */
int relay_message_write(msgpack_sbuffer *b, const struct relay_message *m);

/* 0; spans point into bytes, what is of another kind is empty. ERR_KIND: of a newer node. ERR_RELAY. Trusts nothing;
 * whether since is an offset, offset_decode() says. */
int relay_message_read(struct span bytes, struct relay_message *m);

#endif
