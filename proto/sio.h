/* Socket.IO v5 packets in their text form. Pure functions. See socketio.md. */
#ifndef STARLING_SIO_H
#define STARLING_SIO_H

#include "span.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sio_type {
    SIO_CONNECT,
    SIO_DISCONNECT,
    SIO_EVENT,
    SIO_ACK,
    SIO_CONNECT_ERROR,
    SIO_BINARY_EVENT,
    SIO_BINARY_ACK,
};

/* A decoded packet; all spans point into the text that was decoded (the "/" of nsp aside). */
struct sio_packet {
    enum sio_type type;
    unsigned attachments; /* binary messages that follow; 0 for the plain types */
    struct span nsp;      /* "/" when the packet names none */
    bool has_id;
    uint64_t id;
    struct span payload; /* the JSON text, checked, no blanks around it; n == 0 when absent */
    struct span event;   /* EVENT: the first item, a raw JSON string or number; n == 0 without payload */
    struct span args;    /* EVENT: the items after it, ACK: all items; without the brackets, "" when none */
};

/* Decodes and checks one packet by every rule of the reference's decoder: reserved event names, payload
 * types, attachment counts, placeholders against the count. The JSON is checked to LIMIT_JSON_DEPTH. 0 or
 * ERR_SIO_PACKET, ERR_SIO_PAYLOAD, ERR_SIO_RESERVED, ERR_SIO_ATTACHMENTS, ERR_SIO_PLACEHOLDER, ERR_JSON,
 * ERR_JSON_DEPTH, ERR_LIMIT (namespace). The text must be valid UTF-8. */
int sio_decode(struct span text, struct sio_packet *packet);

/* A JSON array of arguments that did not come in a packet: the same checks of JSON and, with attachments, of
 * placeholders. 0, ERR_SIO_PAYLOAD (another value), ERR_JSON, ERR_JSON_DEPTH or ERR_SIO_PLACEHOLDER. Valid UTF-8. */
int sio_check_args(struct span array, unsigned attachments);

/* Is this raw JSON string an event name that the protocol keeps for itself? */
bool sio_reserved(struct span name);

/* Everything of a packet before its JSON, with the Engine.IO message digit '4' in front:
 * 4<type>[<attachments>-][<namespace>,][<id>]. Returns its length; needs SIO_HEAD_MAX(nsp.n) bytes. */
#define SIO_HEAD_MAX(nsp_n) (48 + (nsp_n))
size_t sio_encode_head(char *dst, enum sio_type type, unsigned attachments, struct span nsp, bool has_id,
                       uint64_t id);

#endif
