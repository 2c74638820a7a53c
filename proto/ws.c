#include "ws.h"
#include "err.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_BYTES 125
#define FIN           0x80
#define RSV           0x70
#define MASKED        0x80

/* What an empty event points to when nothing was held. */
static const uint8_t nothing[1];

size_t ws_encode_head(uint8_t dst[WS_HEAD_MAX], enum ws_opcode opcode, bool fin, uint64_t payload_bytes)
{
    dst[0] = (uint8_t)((fin ? FIN : 0) | opcode);
    size_t bytes = payload_bytes < 126 ? 0 : payload_bytes <= UINT16_MAX ? 2 : 8;
    dst[1] = (uint8_t)(bytes == 0 ? payload_bytes : bytes == 2 ? 126 : 127);
    for (size_t i = 0; i < bytes; ++i)
        dst[2 + i] = (uint8_t)(payload_bytes >> 8 * (bytes - 1 - i));
    return 2 + bytes;
}

/* The length that the bytes behind the first two of a head give. */
static uint64_t long_length(const uint8_t *p, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = 0; i < bytes; ++i)
        n = n << 8 | p[i];
    return n;
}

size_t ws_own_head(const uint8_t *p, enum ws_opcode *opcode, size_t *payload_bytes)
{
    size_t bytes = p[1] < 126 ? 0 : p[1] == 126 ? 2 : 8;
    *opcode = p[0] & 0x0f;
    *payload_bytes = bytes == 0 ? p[1] : (size_t)long_length(p + 2, bytes);
    return 2 + bytes;
}

void ws_reader_init(struct ws_reader *r, size_t max_message_bytes)
{
    *r = (struct ws_reader){.max_message_bytes = max_message_bytes};
}

static void drop_frame(struct ws_reader *r)
{
    free(r->frame);
    r->frame = NULL;
}

static void drop_held(struct ws_reader *r)
{
    free(r->held);
    r->held = NULL;
    r->held_n = r->held_cap = 0;
}

void ws_reader_deinit(struct ws_reader *r)
{
    drop_frame(r);
    drop_held(r);
}

/* Frees what the last event pointed to, and the state when nothing is pending. */
static void drop_delivered(struct ws_reader *r)
{
    const struct ws_frame_state *f = r->frame;
    if (f == NULL) {
        if (r->held != NULL)
            drop_held(r);
    } else if (f->head_n == 0 && f->message == 0 && !f->in_payload) {
        drop_frame(r);
    }
}

/* dst = src ^ mask, beginning with byte `phase` of the mask. dst may be src. */
static void unmask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t mask[4], size_t phase)
{
    uint8_t key[8];
    for (size_t i = 0; i < 8; ++i)
        key[i] = mask[(phase + i) & 3];
    uint64_t key_word, word;
    memcpy(&key_word, key, 8);
    for (; n >= 8; n -= 8, src += 8, dst += 8) {
        memcpy(&word, src, 8);
        word ^= key_word;
        memcpy(dst, &word, 8);
    }
    for (size_t i = 0; i < n; ++i)
        dst[i] = src[i] ^ key[i];
}

struct head {
    uint8_t opcode;
    bool fin;
    uint8_t mask[4];
    uint64_t payload_n;
};

static bool is_control(uint8_t opcode)
{
    return (opcode & 0x8) != 0;
}

/* The rules that the first two bytes of a head must keep; message is the opcode of the fragmented message
 * that is open, or 0. */
static bool head_legal(uint8_t first, uint8_t second, uint8_t message)
{
    uint8_t opcode = first & 0x0f, length = second & 0x7f;
    if ((first & RSV) != 0 || (second & MASKED) == 0)
        return false;
    switch (opcode) {
    case WS_CONTINUATION:
        return message != 0;
    case WS_TEXT:
    case WS_BINARY:
        return message == 0;
    case WS_CLOSE:
        return (first & FIN) != 0 && length <= CONTROL_BYTES && length != 1;
    case WS_PING:
    case WS_PONG:
        return (first & FIN) != 0 && length <= CONTROL_BYTES;
    default:
        return false;
    }
}

/* The head that starts at p: its length, 0 when n bytes are not all of it, or an error. What the bytes there
 * are already break is reported before the rest has come, so the result never depends on how the input was
 * cut. */
static int parse_head(const struct ws_reader *r, const uint8_t *p, size_t n, struct head *head)
{
    if (n < 2)
        return 0;
    if (!head_legal(p[0], p[1], r->frame != NULL ? r->frame->message : 0))
        return ERR_WS_PROTOCOL;
    uint64_t length = p[1] & 0x7f;
    size_t bytes = length < 126 ? 0 : length == 126 ? 2 : 8;
    if (n < 2 + bytes)
        return 0;
    if (bytes > 0) {
        length = long_length(p + 2, bytes);
        if (length < (bytes == 2 ? 126 : 0x10000) || length > INT64_MAX)
            return ERR_WS_PROTOCOL;
    }
    if (!is_control(p[0] & 0x0f) && length > r->max_message_bytes - r->held_n)
        return ERR_WS_TOO_BIG;
    if (n < 2 + bytes + 4)
        return 0;
    head->opcode = p[0] & 0x0f;
    head->fin = (p[0] & FIN) != 0;
    head->payload_n = length;
    memcpy(head->mask, p + 2 + bytes, 4);
    return (int)(2 + bytes + 4);
}

static bool need_frame(struct ws_reader *r)
{
    if (r->frame == NULL)
        r->frame = calloc(1, sizeof *r->frame);
    return r->frame != NULL;
}

/* Reads a head from the bytes kept of it and the input: 1 when it is complete and the input stands behind it,
 * 0 when all input was used up, or an error. */
static int take_head(struct ws_reader *r, uint8_t **p, size_t *n, struct head *head)
{
    size_t kept = r->frame != NULL ? r->frame->head_n : 0;
    if (kept == 0) {
        int used = parse_head(r, *p, *n, head);
        if (used > 0) {
            *p += used;
            *n -= (size_t)used;
        }
        if (used != 0)
            return used < 0 ? used : 1;
        if (!need_frame(r))
            return ERR_MEMORY;
    }
    struct ws_frame_state *f = r->frame;
    size_t more = sizeof f->head - kept;
    if (more > *n)
        more = *n;
    memcpy(f->head + kept, *p, more);
    int used = parse_head(r, f->head, kept + more, head);
    if (used > 0) {
        f->head_n = 0;
        more = (size_t)used - kept;
    } else {
        f->head_n = (uint8_t)(kept + more);
    }
    *p += more;
    *n -= more;
    return used < 0 ? used : used > 0;
}

static bool close_code_legal(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/* Fills the event of a complete frame or message: 1 or an error. */
static int deliver(struct ws_event *event, uint8_t opcode, const uint8_t *data, size_t n)
{
    *event = (struct ws_event){.opcode = opcode, .data = data, .n = n};
    if (opcode != WS_CLOSE)
        return 1;
    event->status = WS_STATUS_NONE;
    if (n == 0)
        return 1;
    event->status = (unsigned)(data[0] << 8 | data[1]);
    event->data += 2;
    event->n -= 2;
    if (!close_code_legal(event->status))
        return ERR_WS_PROTOCOL;
    return utf8_valid(event->data, event->n) ? 1 : ERR_WS_UTF8;
}

/* A frame that is a whole message, or a control frame, and lies complete in the input. */
static int deliver_from_input(struct ws_reader *r, uint8_t **p, size_t *n, const struct head *head,
                              struct ws_event *event)
{
    uint8_t *data = *p;
    size_t payload_n = (size_t)head->payload_n;
    *p += payload_n;
    *n -= payload_n;
    unmask(data, data, payload_n, head->mask, 0);
    if (head->opcode == WS_TEXT && !utf8_valid(data, payload_n))
        return ERR_WS_UTF8;
    if (r->frame != NULL && r->frame->message == 0)
        drop_frame(r);
    return deliver(event, head->opcode, data, payload_n);
}

static int begin_payload(struct ws_reader *r, const struct head *head)
{
    if (!need_frame(r))
        return ERR_MEMORY;
    struct ws_frame_state *f = r->frame;
    f->in_payload = true;
    f->opcode = head->opcode;
    f->fin = head->fin;
    memcpy(f->mask, head->mask, 4);
    f->payload_n = head->payload_n;
    f->payload_done = 0;
    if (head->opcode == WS_TEXT || head->opcode == WS_BINARY)
        f->message = head->opcode;
    return 0;
}

/* Room for n more bytes of the message. Grows by doubling what has arrived, never past what the frame
 * announced. */
static bool reserve(struct ws_reader *r, size_t n)
{
    enum { CAP_MIN = 256 };
    size_t need = r->held_n + n;
    if (need <= r->held_cap)
        return true;
    size_t cap = need > CAP_MIN ? need : CAP_MIN;
    if (cap < 2 * r->held_cap)
        cap = 2 * r->held_cap;
    const struct ws_frame_state *f = r->frame;
    size_t most = f->fin ? r->held_n + (size_t)(f->payload_n - f->payload_done) : r->max_message_bytes;
    if (cap > most)
        cap = most;
    uint8_t *grown = realloc(r->held, cap);
    if (grown == NULL)
        return false;
    r->held = grown;
    r->held_cap = cap;
    return true;
}

/* Takes as much of the frame's payload as there is. */
static int take_payload(struct ws_reader *r, uint8_t **p, size_t *n)
{
    struct ws_frame_state *f = r->frame;
    uint64_t left = f->payload_n - f->payload_done;
    size_t taken = left < *n ? (size_t)left : *n;
    if (taken == 0)
        return 0;
    size_t phase = (size_t)(f->payload_done & 3);
    if (is_control(f->opcode)) {
        unmask(f->control + f->payload_done, *p, taken, f->mask, phase);
    } else {
        if (!reserve(r, taken))
            return ERR_MEMORY;
        uint8_t *end = r->held + r->held_n;
        unmask(end, *p, taken, f->mask, phase);
        r->held_n += taken;
        if (f->message == WS_TEXT && !utf8_feed(&f->utf8, end, taken))
            return ERR_WS_UTF8;
    }
    f->payload_done += taken;
    *p += taken;
    *n -= taken;
    return 0;
}

/* The frame's payload is complete: 1 with an event, 0 when the message goes on, or an error. */
static int end_payload(struct ws_reader *r, struct ws_event *event)
{
    struct ws_frame_state *f = r->frame;
    f->in_payload = false;
    if (is_control(f->opcode))
        return deliver(event, f->opcode, f->control, (size_t)f->payload_n);
    if (!f->fin)
        return 0;
    if (!utf8_complete(&f->utf8))
        return ERR_WS_UTF8;
    uint8_t message = f->message;
    drop_frame(r);
    return deliver(event, message, r->held != NULL ? r->held : nothing, r->held_n);
}

static int next(struct ws_reader *r, uint8_t **p, size_t *n, struct ws_event *event)
{
    drop_delivered(r);
    while (*n > 0) {
        int rc;
        if (r->frame == NULL || !r->frame->in_payload) {
            struct head head;
            rc = take_head(r, p, n, &head);
            if (rc <= 0)
                return rc;
            bool whole = is_control(head.opcode) || (head.fin && head.opcode != WS_CONTINUATION);
            if (whole && head.payload_n <= *n)
                return deliver_from_input(r, p, n, &head, event);
            if ((rc = begin_payload(r, &head)) < 0)
                return rc;
        }
        if ((rc = take_payload(r, p, n)) < 0)
            return rc;
        if (r->frame->payload_done < r->frame->payload_n)
            return 0;
        if ((rc = end_payload(r, event)) != 0)
            return rc;
    }
    return 0;
}

int ws_reader_next(struct ws_reader *r, uint8_t **p, size_t *n, struct ws_event *event)
{
    int rc = next(r, p, n, event);
    assert(rc != 0 || *n == 0);
    if (rc < 0)
        ws_reader_deinit(r); /* a connection that is being closed needs no buffers */
    return rc;
}

unsigned ws_close_status(int err)
{
    switch (err) {
    case ERR_WS_PROTOCOL:
        return WS_STATUS_PROTOCOL;
    case ERR_WS_UTF8:
        return WS_STATUS_UTF8;
    case ERR_WS_TOO_BIG:
        return WS_STATUS_TOO_BIG;
    default:
        return WS_STATUS_INTERNAL;
    }
}
