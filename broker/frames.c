#include "frames.h"
#include "limit.h"
#include "ws.h"
#include <string.h>

static size_t frame_length(enum ws_opcode opcode, size_t n)
{
    uint8_t head[WS_HEAD_MAX];
    return ws_encode_head(head, opcode, true, n) + n;
}

static uint8_t *put(uint8_t *p, struct span s)
{
    return s.n ? (uint8_t *)mempcpy(p, s.p, s.n) : p;
}

int frames_encode(struct bytes *b, const struct frames_packet *packet, struct slice *out)
{
    char head[SIO_HEAD_MAX(LIMIT_NAMESPACE_BYTES)];
    enum sio_type binary = packet->type == SIO_EVENT ? SIO_BINARY_EVENT : SIO_BINARY_ACK;
    size_t head_n = sio_encode_head(head, packet->n_attachments ? binary : packet->type,
                                    packet->n_attachments, packet->nsp, packet->has_id, packet->id);
    bool comma = packet->event.n && packet->args.n;
    size_t offset_n = packet->offset.n ? packet->offset.n + 3 : 0;
    size_t text_n = head_n + 1 + packet->event.n + comma + packet->args.n + offset_n + 1;
    size_t total = frame_length(WS_TEXT, text_n);
    for (unsigned i = 0; i < packet->n_attachments; i++)
        total += frame_length(WS_BINARY, packet->attachments[i].n);
    int err = bytes_alloc(b, total, out);
    if (err)
        return err;
    uint8_t *p = out->p;
    p += ws_encode_head(p, WS_TEXT, true, text_n);
    p = put(p, (struct span){head, head_n});
    *p++ = '[';
    p = put(p, packet->event);
    if (comma)
        *p++ = ',';
    p = put(p, packet->args);
    if (packet->offset.n) {
        p = put(p, SPAN(",\""));
        p = put(p, packet->offset);
        *p++ = '"';
    }
    *p++ = ']';
    for (unsigned i = 0; i < packet->n_attachments; i++) {
        p += ws_encode_head(p, WS_BINARY, true, packet->attachments[i].n);
        p = put(p, packet->attachments[i]);
    }
    return 0;
}

static struct span text_of(const struct slice *frames)
{
    enum ws_opcode opcode;
    size_t n, head_n = ws_own_head(frames->p, &opcode, &n);
    return (struct span){(const char *)frames->p + head_n, n};
}

struct span frames_offset(const struct slice *frames)
{
    struct span text = text_of(frames);
    const char *end = text.p + text.n - 2; /* the quote before the bracket */
    if (text.n < 6 || end[0] != '"')
        return (struct span){NULL, 0};
    const char *quote = memrchr(text.p, '"', text.n - 2);
    bool is_offset = quote && end - quote > 3 && quote[1] == '~' && quote[-1] == ',';
    return is_offset ? (struct span){quote + 1, (size_t)(end - quote - 1)} : (struct span){NULL, 0};
}

int frames_with_offset(struct bytes *b, const struct slice *frames, struct span offset, struct slice *out)
{
    struct span text = text_of(frames), old = frames_offset(frames);
    size_t before_n = (size_t)(old.p - text.p), text_n = before_n + offset.n + 2;
    const char *rest = text.p + text.n;
    size_t rest_n = (size_t)((const char *)frames->p + frames->n - rest);
    int err = bytes_alloc(b, frame_length(WS_TEXT, text_n) + rest_n, out);
    if (err)
        return err;
    uint8_t *p = out->p;
    p += ws_encode_head(p, WS_TEXT, true, text_n);
    p = put(p, (struct span){text.p, before_n});
    p = put(p, offset);
    p = put(p, SPAN("\"]"));
    put(p, (struct span){rest, rest_n});
    return 0;
}
