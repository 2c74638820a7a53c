/* The client's half of the wire: requests, masked frames, and a reader of the server's frames; Socket.IO, NATS, and
 * the bare server's bytes.
 * It shares no code with the server under test, so that an error there cannot cancel out here. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_PAYLOAD_BYTES 128 /* of each message: WIRE_DIGITS digits of its number, then a fixed text */
#define WIRE_DIGITS        16
#define WIRE_FRAME_MAX     512 /* of any frame that the client sends */
#define WIRE_SID_MAX       64
#define WIRE_NATS_MAX      65536 /* payload of a NATS message */

#define WIRE_EVENT_HEAD   "42[\"e\",\""
#define WIRE_EVENT_HEAD_N 8
/* An event without anything behind the payload; with recovery on an offset follows. */
#define WIRE_EVENT_BYTES (WIRE_EVENT_HEAD_N + WIRE_PAYLOAD_BYTES + 2)

/* The example key of RFC 6455: its answer is known, so the client can check it without SHA-1. */
#define WIRE_WS_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define WIRE_WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum wire_dialect { WIRE_SOCKETIO, WIRE_BARE, WIRE_NATS };

/* A masked text frame; needs text_n + 8 bytes (text_n < 65536). Returns its length. */
size_t wire_client_frame(uint8_t *dst, const char *text, size_t text_n);
/* The head of a masked binary frame with n bytes whose mask is zero, so that they need not be changed; 14 bytes. */
size_t wire_binary_head(uint8_t *dst, size_t n);
#define WIRE_BINARY_HEAD_MAX 14
/* The head of an unmasked binary frame (n < 65536). */
size_t wire_server_head(uint8_t *dst, size_t n);
/* The same unmasked, as a server sends it. */
size_t wire_server_frame(uint8_t *dst, const char *text, size_t text_n);

/* The text of event number seq, WIRE_EVENT_BYTES long. */
void wire_event_text(char *dst, uint64_t seq);
/* Whether the text starts like one of our events; other events of the bus do not. */
static inline bool wire_is_event(const char *text, size_t n)
{
    return n >= WIRE_EVENT_BYTES && !memcmp(text, WIRE_EVENT_HEAD, WIRE_EVENT_HEAD_N);
}
/* Its number. Each 16th event is compared as a whole: UINT64_MAX when it is damaged. */
uint64_t wire_event_seq(const char *text);
/* The same for the payload of a NATS message, WIRE_PAYLOAD_BYTES long with a line's end behind it. */
uint64_t wire_payload_seq(const char *payload);

/* Frames of one publisher to one room that differ in the number alone: made once, then copied and patched. */
struct wire_emitter {
    uint8_t frame[WIRE_FRAME_MAX];
    size_t n, digits_at;
};

/* Emits to a room: bus:emit of Socket.IO, PUB of NATS without a frame around it (session_send() puts one around all),
 * or the frame that members at the bare server receive, whatever the room is. */
void wire_emitter_init(struct wire_emitter *e, enum wire_dialect dialect, const char *room);
void wire_emitter_init_bare_poll(struct wire_emitter *e); /* an HTTP answer that holds that frame's text */
/* Writes message seq to dst, returns its length (e->n). */
size_t wire_emitter_write(const struct wire_emitter *e, uint8_t *dst, uint64_t seq);

/* Unread bytes of one connection. */
struct wire_cursor {
    const uint8_t *p, *end;
};

/* 1: *text is a complete text or binary frame, the cursor is behind it; 0: more bytes are needed;
 * -1: not an unfragmented, unmasked frame of that kind, or one of 64 KiB or more. */
static inline int wire_next(struct wire_cursor *c, const char **text, size_t *n)
{
    size_t have = (size_t)(c->end - c->p);
    if (have < 2)
        return 0;
    if ((c->p[0] != 0x81 && c->p[0] != 0x82) || c->p[1] > 126)
        return -1;
    size_t head = 2, length = c->p[1];
    if (length == 126) {
        if (have < 4)
            return 0;
        head = 4;
        length = (size_t)c->p[2] << 8 | c->p[3];
    }
    if (have < head + length)
        return 0;
    *text = (const char *)c->p + head;
    *n = length;
    c->p += head + length;
    return 1;
}

/* One message of the NATS protocol, as the server sends it. */
struct wire_nats {
    const char *line; /* without its end */
    size_t line_n;
    const char *payload; /* of MSG, else NULL */
    size_t payload_n;
};

/* 1: *m is complete, the cursor is behind it; 0: more bytes are needed; -1: no message of the protocol. */
int wire_next_nats(struct wire_cursor *c, struct wire_nats *m);

/* HTTP requests; each needs WIRE_FRAME_MAX bytes and returns its length. sid "" opens a session. */
size_t wire_upgrade_request(char *dst, unsigned port);
size_t wire_nats_request(char *dst, unsigned port); /* an upgrade as well */
size_t wire_poll_request(char *dst, unsigned port, const char *sid);
size_t wire_post_request(char *dst, unsigned port, const char *sid, const char *body);

/* 1: a complete answer with status 200, the cursor is behind it; 0: more bytes are needed; -1: anything else.
 */
int wire_next_answer(struct wire_cursor *c, const char **body, size_t *n);

#endif
