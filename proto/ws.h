/* WebSocket frames (RFC 6455), the server's side. Pure: bytes in, messages out. See websocket.md. */
#ifndef STARLING_WS_H
#define STARLING_WS_H

#include "utf8.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode {
    WS_CONTINUATION = 0x0,
    WS_TEXT = 0x1,
    WS_BINARY = 0x2,
    WS_CLOSE = 0x8,
    WS_PING = 0x9,
    WS_PONG = 0xa,
};

enum ws_status {
    WS_STATUS_NORMAL = 1000,
    WS_STATUS_PROTOCOL = 1002,
    WS_STATUS_NONE = 1005, /* a close frame without a code; never sent */
    WS_STATUS_UTF8 = 1007,
    WS_STATUS_TOO_BIG = 1009,
    WS_STATUS_INTERNAL = 1011, /* out of memory */
};

#define WS_HEAD_MAX 10 /* of a frame that a server sends */

/* Writes the head of an unmasked frame; returns its length. */
size_t ws_encode_head(uint8_t dst[WS_HEAD_MAX], enum ws_opcode opcode, bool fin, uint64_t payload_bytes);

/* Reads the head of a complete, unmasked frame that ws_encode_head() wrote: the head's length, and the payload's. */
size_t ws_own_head(const uint8_t *p, enum ws_opcode *opcode, size_t *payload_bytes);

/* One message or control frame. data is never NULL and lives until the next call on the same reader, which frees
 * what the reader held of it: call until the answer is 0. */
struct ws_event {
    enum ws_opcode opcode; /* TEXT, BINARY, CLOSE, PING or PONG */
    const uint8_t *data;
    size_t n;
    unsigned status; /* CLOSE: the peer's code, or WS_STATUS_NONE; data is then the reason text */
};

/* The receiving half of a connection. Holds memory only while a frame or message is incomplete. */
struct ws_reader {
    size_t max_message_bytes;
    uint8_t *held; /* start of an incomplete message or frame */
    size_t held_n, held_cap;
    /* the rest is private to ws.c */
    struct ws_frame_state {
        uint8_t head[14];
        uint8_t head_n;
        uint8_t opcode;        /* of the frame being read */
        uint8_t message;       /* opcode of the fragmented message being collected, or 0 */
        bool fin, in_payload;
        uint8_t mask[4];
        uint64_t payload_n, payload_done;
        struct utf8 utf8;
        uint8_t control[125];
    } *frame; /* NULL while between messages with nothing pending */
};

void ws_reader_init(struct ws_reader *r, size_t max_message_bytes);
void ws_reader_deinit(struct ws_reader *r);

/* Takes bytes from *p (unmasked in place), moves *p and *n past what it used.
 * 1: *event is filled, call again with the rest; 0: all bytes used, more needed;
 * ERR_WS_PROTOCOL, ERR_WS_UTF8, ERR_WS_TOO_BIG, ERR_MEMORY: close with ws_close_status() and stop reading;
 * all memory has been freed.
 * A message that lies complete in the input is not copied. */
int ws_reader_next(struct ws_reader *r, uint8_t **p, size_t *n, struct ws_event *event);

/* The close code that answers an error of ws_reader_next(). */
unsigned ws_close_status(int err);

#endif
