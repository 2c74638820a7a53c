/* A Socket.IO packet as the frames in which it leaves: its text, then each attachment, side by side in one slice. */
#ifndef STARLING_FRAMES_H
#define STARLING_FRAMES_H

#include "bytes.h"
#include "sio.h"

struct frames_packet {
    enum sio_type type; /* EVENT or ACK; attachments make it the binary one */
    struct span nsp;
    bool has_id;
    uint64_t id;
    struct span event;  /* EVENT: raw JSON string; ACK: n == 0 */
    struct span args;   /* raw JSON items without brackets */
    struct span offset; /* a last argument of an EVENT, without its quotes; n == 0: none */
    const struct span *attachments;
    unsigned n_attachments;
};

/* The caller holds the reference. 0 or ERR_MEMORY. */
int frames_encode(struct bytes *b, const struct frames_packet *packet, struct slice *out);

/* The offset that such frames end their text with; n == 0: they have none. */
struct span frames_offset(const struct slice *frames);
/* The same frames with another offset in the place of theirs. The caller holds the reference. 0 or ERR_MEMORY. */
int frames_with_offset(struct bytes *b, const struct slice *frames, struct span offset, struct slice *out);

#endif
