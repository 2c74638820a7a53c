/* The events that the bus answers itself in every namespace: bus:join, bus:leave, bus:emit, bus:who. And the same
 * emit for whoever comes over HTTP. See ../proto/bus.md. */
#ifndef STARLING_BUS_H
#define STARLING_BUS_H

#include "hub.h"
#include "limit.h"

/* False: not an event of the bus. Everything wrong with one that is gets an error in its acknowledgement. */
bool bus_command(struct socket *s, const struct sio_packet *packet, const struct span *attachments);

/* Names of rooms, decoded. */
struct name_list {
    unsigned n;
    struct span name[LIMIT_ROOMS_PER_CALL];
    char text[LIMIT_ROOMS_PER_CALL * LIMIT_ROOM_BYTES];
};

/* What an emit asks for, read from JSON. */
struct emit_request {
    struct emit emit; /* borrows the JSON and this struct */
    bool echo;
    struct name_list to, except;
};

/* value: a string or an array of strings; n == 0 gives none. NULL, or what is wrong. */
const char *name_list_read(struct name_list *list, struct span value);

/* object: checked JSON with to?, event, args?, except?, volatile?, echo?; items that follow it, with a comma before them,
 * are not looked at. NULL, or what is wrong. */
const char *emit_request_read(struct emit_request *r, struct span object);

#endif
