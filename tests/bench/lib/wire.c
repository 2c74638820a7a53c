#include "wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { OPCODE_TEXT = 1, OPCODE_BINARY = 2 };

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};
static const char FILL[] = "the quick brown fox jumps over the lazy dog, 0123456789 time"
                           "s, while all of the other animals look on and cheer.";
static_assert(sizeof(FILL) - 1 == WIRE_PAYLOAD_BYTES - WIRE_DIGITS, "the payload has its stated size");

static size_t frame_head(uint8_t *dst, uint8_t opcode, size_t text_n, uint8_t mask_bit)
{
    dst[0] = 0x80 | opcode;
    if (text_n < 126) {
        dst[1] = (uint8_t)(mask_bit | text_n);
        return 2;
    }
    assert(text_n < 65536);
    dst[1] = mask_bit | 126;
    dst[2] = (uint8_t)(text_n >> 8);
    dst[3] = (uint8_t)text_n;
    return 4;
}

size_t wire_client_frame(uint8_t *dst, const char *text, size_t text_n)
{
    size_t head = frame_head(dst, OPCODE_TEXT, text_n, 0x80);
    memcpy(dst + head, MASK, sizeof(MASK));
    head += sizeof(MASK);
    for (size_t i = 0; i < text_n; i++)
        dst[head + i] = (uint8_t)text[i] ^ MASK[i & 3];
    return head + text_n;
}

size_t wire_server_frame(uint8_t *dst, const char *text, size_t text_n)
{
    size_t head = frame_head(dst, OPCODE_TEXT, text_n, 0);
    memcpy(dst + head, text, text_n);
    return head + text_n;
}

size_t wire_binary_head(uint8_t *dst, size_t n)
{
    size_t head = 10;
    if (n < 65536) {
        head = frame_head(dst, OPCODE_BINARY, n, 0x80);
    } else {
        dst[0] = 0x80 | OPCODE_BINARY;
        dst[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++)
            dst[2 + i] = (uint8_t)(n >> (56 - 8 * i));
    }
    memset(dst + head, 0, 4);
    return head + 4;
}

size_t wire_server_head(uint8_t *dst, size_t n)
{
    return frame_head(dst, OPCODE_BINARY, n, 0);
}

static void write_digits(char *dst, uint64_t seq)
{
    for (int i = WIRE_DIGITS; i-- > 0; seq /= 10)
        dst[i] = (char)('0' + seq % 10);
}

static void write_payload(char *dst, uint64_t seq)
{
    write_digits(dst, seq);
    memcpy(dst + WIRE_DIGITS, FILL, sizeof(FILL) - 1);
}

void wire_event_text(char *dst, uint64_t seq)
{
    memcpy(dst, WIRE_EVENT_HEAD, WIRE_EVENT_HEAD_N);
    write_payload(dst + WIRE_EVENT_HEAD_N, seq);
    memcpy(dst + WIRE_EVENT_HEAD_N + WIRE_PAYLOAD_BYTES, "\"]", 2);
}

static uint64_t read_digits(const char *digits)
{
    uint64_t seq = 0;
    for (int i = 0; i < WIRE_DIGITS; i++)
        seq = seq * 10 + (uint64_t)(digits[i] - '0');
    return seq;
}

static bool is_whole(const char *payload)
{
    return !memcmp(payload + WIRE_DIGITS, FILL, sizeof(FILL) - 1);
}

uint64_t wire_event_seq(const char *text)
{
    const char *payload = text + WIRE_EVENT_HEAD_N, *end = payload + WIRE_PAYLOAD_BYTES;
    uint64_t seq = read_digits(payload);
    if (seq % 16 == 0 && (!is_whole(payload) || end[0] != '"' || (end[1] != ']' && end[1] != ',')))
        return UINT64_MAX;
    return seq;
}

uint64_t wire_payload_seq(const char *payload)
{
    uint64_t seq = read_digits(payload);
    return seq % 16 == 0 && !is_whole(payload) ? UINT64_MAX : seq;
}

static void init_socketio(struct wire_emitter *e, const char *room)
{
    char text[WIRE_FRAME_MAX], payload[WIRE_PAYLOAD_BYTES + 1] = "";
    write_payload(payload, 0);
    int before =
        snprintf(text, sizeof(text), "42[\"bus:emit\",{\"to\":\"%s\",\"event\":\"e\",\"args\":[\"", room);
    int n = before + snprintf(text + before, sizeof(text) - (size_t)before, "%s\"]}]", payload);
    e->n = wire_client_frame(e->frame, text, (size_t)n);
    e->digits_at = e->n - (size_t)(n - before);
}

static void init_nats(struct wire_emitter *e, const char *room)
{
    char *text = (char *)e->frame;
    e->digits_at = (size_t)snprintf(text, sizeof(e->frame), "PUB %s %d\r\n", room, WIRE_PAYLOAD_BYTES);
    write_payload(text + e->digits_at, 0);
    memcpy(text + e->digits_at + WIRE_PAYLOAD_BYTES, "\r\n", 2);
    e->n = e->digits_at + WIRE_PAYLOAD_BYTES + 2;
}

static void init_bare(struct wire_emitter *e)
{
    char text[WIRE_EVENT_BYTES];
    wire_event_text(text, 0);
    e->n = wire_server_frame(e->frame, text, sizeof(text));
    e->digits_at = e->n - sizeof(text) + WIRE_EVENT_HEAD_N;
}

void wire_emitter_init(struct wire_emitter *e, enum wire_dialect dialect, const char *room)
{
    switch (dialect) {
    case WIRE_SOCKETIO:
        init_socketio(e, room);
        return;
    case WIRE_NATS:
        init_nats(e, room);
        return;
    case WIRE_BARE:
        init_bare(e);
        return;
    }
}

void wire_emitter_init_bare_poll(struct wire_emitter *e)
{
    char text[WIRE_EVENT_BYTES];
    wire_event_text(text, 0);
    int head = snprintf((char *)e->frame, sizeof(e->frame),
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: %d\r\n"
                        "cache-control: no-store\r\nConnection: keep-alive\r\n\r\n",
                        WIRE_EVENT_BYTES);
    memcpy(e->frame + head, text, sizeof(text));
    e->n = (size_t)head + sizeof(text);
    e->digits_at = (size_t)head + WIRE_EVENT_HEAD_N;
}

size_t wire_emitter_write(const struct wire_emitter *e, uint8_t *dst, uint64_t seq)
{
    char digits[WIRE_DIGITS];
    write_digits(digits, seq);
    memcpy(dst, e->frame, e->n);
    /* The template holds zeros there: what differs from them is the number, masked or not. */
    for (size_t i = 0; i < WIRE_DIGITS; i++)
        dst[e->digits_at + i] ^= (uint8_t)(digits[i] ^ '0');
    return e->n;
}

static size_t upgrade_request(char *dst, const char *path, unsigned port)
{
    return (size_t)snprintf(dst, WIRE_FRAME_MAX,
                            "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: " WIRE_WS_KEY "\r\n\r\n",
                            path, port);
}

size_t wire_upgrade_request(char *dst, unsigned port)
{
    return upgrade_request(dst, "/socket.io/?EIO=4&transport=websocket", port);
}

size_t wire_nats_request(char *dst, unsigned port)
{
    return upgrade_request(dst, "/", port);
}

size_t wire_poll_request(char *dst, unsigned port, const char *sid)
{
    return (size_t)snprintf(
        dst, WIRE_FRAME_MAX,
        "GET /socket.io/?EIO=4&transport=polling%s%.64s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
        "Accept: */*\r\nConnection: keep-alive\r\n\r\n",
        *sid ? "&sid=" : "", sid, port);
}

size_t wire_post_request(char *dst, unsigned port, const char *sid, const char *body)
{
    return (size_t)snprintf(
        dst, WIRE_FRAME_MAX,
        "POST /socket.io/?EIO=4&transport=polling&sid=%.64s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
        "Accept: */*\r\nConnection: keep-alive\r\nContent-Type: text/plain;charset=UTF-8\r\n"
        "Content-Length: %zu\r\n\r\n%.64s",
        sid, port, strlen(body), body);
}

/* The value of Content-Length in the head, or -1. */
static long content_length(const char *head, size_t n)
{
    static const char NAME[] = "\r\ncontent-length:";
    const size_t name_n = sizeof(NAME) - 1;
    for (const char *p = head; p + name_n < head + n; p++) {
        p = memchr(p, '\r', (size_t)(head + n - p) - name_n);
        if (!p)
            break;
        if (!strncasecmp(p, NAME, name_n))
            return strtol(p + name_n, NULL, 10);
    }
    return -1;
}

int wire_next_answer(struct wire_cursor *c, const char **body, size_t *n)
{
    const char *head = (const char *)c->p;
    size_t have = (size_t)(c->end - c->p);
    const char *blank = memmem(head, have, "\r\n\r\n", 4);
    if (!blank)
        return 0;
    size_t head_n = (size_t)(blank - head) + 4;
    long length = content_length(head, head_n);
    if (strncmp(head, "HTTP/1.1 200 ", 13) || length < 0)
        return -1;
    if (have < head_n + (size_t)length)
        return 0;
    *body = head + head_n;
    *n = (size_t)length;
    c->p += head_n + (size_t)length;
    return 1;
}

/* The payload's length, which is the last word of "MSG subject sid [reply] length"; -1: there is none. */
static long payload_length(const char *line, size_t n)
{
    const char *blank = memrchr(line, ' ', n);
    char *end;
    if (!blank)
        return -1;
    long length = strtol(blank + 1, &end, 10); /* the line's end stops it */
    return end == line + n && length < WIRE_NATS_MAX ? length : -1;
}

int wire_next_nats(struct wire_cursor *c, struct wire_nats *m)
{
    size_t have = (size_t)(c->end - c->p);
    const char *line = (const char *)c->p, *end = memmem(line, have, "\r\n", 2);
    *m = (struct wire_nats){.line = line};
    if (!end)
        return 0;
    m->line_n = (size_t)(end - line);
    size_t n = m->line_n + 2;
    if (!strncmp(line, "MSG ", 4)) {
        long length = payload_length(line, m->line_n);
        if (length < 0)
            return -1;
        m->payload = line + n;
        m->payload_n = (size_t)length;
        n += m->payload_n + 2;
        if (have < n)
            return 0;
    }
    c->p += n;
    return 1;
}
