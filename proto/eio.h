/* Engine.IO v4: packets, polling payloads, handshake, request rules. Pure functions. See engineio.md. */
#ifndef STARLING_EIO_H
#define STARLING_EIO_H

#include "span.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum eio_type {
    EIO_OPEN,
    EIO_CLOSE,
    EIO_PING,
    EIO_PONG,
    EIO_MESSAGE,
    EIO_UPGRADE,
    EIO_NOOP,
};

#define EIO_SID_CHARS 20
#define EIO_SEPARATOR '\x1e'

/* data of a binary message that came as text is still base64. */
struct eio_packet {
    enum eio_type type;
    bool base64;
    struct span data;
};

/* One text packet: 0 or ERR_EIO_PACKET. */
int eio_decode(struct span text, struct eio_packet *packet);

/* A walk over the packets of a polling payload. */
struct eio_payload {
    const char *p, *end;
    bool done;
    unsigned count;
};

void eio_payload_init(struct eio_payload *it, struct span body);
/* 1: *packet is filled; 0: end; ERR_EIO_PACKET or ERR_LIMIT, each time again: bad from here on. */
int eio_payload_next(struct eio_payload *it, struct eio_packet *packet);

struct eio_handshake {
    const char *sid; /* EIO_SID_CHARS characters */
    bool upgrade;    /* offer the upgrade to WebSocket */
    uint32_t ping_interval_ms, ping_timeout_ms;
    uint64_t max_payload_bytes;
};

/* The open packet, with its leading '0'. Returns its length; needs EIO_HANDSHAKE_MAX bytes. */
#define EIO_HANDSHAKE_MAX 192
size_t eio_encode_handshake(char *dst, const struct eio_handshake *h);

/* The query of a request (without '?'), values percent-decoded, the last of each name winning. */
enum eio_transport { EIO_TRANSPORT_UNKNOWN, EIO_POLLING, EIO_WEBSOCKET };

struct eio_query {
    enum eio_transport transport;
    bool version_4;
    bool base64;             /* b64 given and not empty */
    bool recovery_off;       /* recovery=0 */
    uint8_t sid_n;           /* 0: no sid */
    char sid[EIO_SID_CHARS]; /* one that cannot exist (length, alphabet) has sid_n == EIO_SID_CHARS + 1 */
};

void eio_query_parse(struct eio_query *q, struct span query);

/* The rejections of a request, X(NAME, code, message, HTTP status). */
#define EIO_REJECT_TABLE                                                                                     \
    X(TRANSPORT, 0, "Transport unknown", 400)                                                                \
    X(SID, 1, "Session ID unknown", 400)                                                                     \
    X(METHOD, 2, "Bad handshake method", 400)                                                                \
    X(REQUEST, 3, "Bad request", 400)                                                                        \
    X(FORBIDDEN, 4, "Forbidden", 403)                                                                        \
    X(VERSION, 5, "Unsupported protocol version", 400)

enum eio_reject {
    EIO_ACCEPT = -1,
#define X(name, code, message, status) EIO_REJECT_##name = (code),
    EIO_REJECT_TABLE
#undef X
};

/* What the rules of spec section 2 look at, beside the query. */
struct eio_request {
    bool get;           /* the method is GET */
    bool upgrade;       /* a WebSocket upgrade */
    struct span origin; /* the Origin header, n == 0 when absent */
    bool polling_enabled, websocket_enabled;
    bool sid_known;                       /* the query's sid names a living session */
    enum eio_transport session_transport; /* and this is its transport */
};

/* The first rule that is broken, in the order of the reference, or EIO_ACCEPT. The application's veto
 * (FORBIDDEN) and, for a sid, the method are the caller's. */
enum eio_reject eio_check_request(const struct eio_query *q, const struct eio_request *r);

/* {"code":…,"message":"…"}; *status receives the HTTP status. A static text. Not for EIO_ACCEPT. */
struct span eio_reject_body(enum eio_reject reject, int *status);
/* The plain message, as an upgrade that fails is answered. */
struct span eio_reject_text(enum eio_reject reject);

#endif
