/* Acknowledgements that clients owe for an emit: collected until all have come, or their time is over.
 * A client that leaves counts as missing. Reactor's thread only. */
#ifndef STARLING_ACK_H
#define STARLING_ACK_H

#include "hub.h"

struct ack_pending;

struct ack_wait {
    struct reactor *reactor;
    struct hub *hub;
    struct timer timeout;
    struct ack_pending *pending; /* one for each socket that still owes */
    uint32_t missing;            /* sockets that left or did not answer in time */
    bool all_sent, done;
    /* args: raw JSON items; attachments of a binary acknowledgement. */
    void (*on_ack)(struct ack_wait *w, struct socket *from, struct span args, const struct span *attachments,
                   unsigned n_attachments);
    /* Once, after the last acknowledgement or the time-out; may free w. Never called from ack_wait_start() or
     * hub_emit(). */
    void (*on_done)(struct ack_wait *w);
};

/* Before the emit that asks. The emit may fail: ack_wait_cancel() then. */
void ack_wait_start(struct ack_wait *w, struct hub *h, uint32_t timeout_ms);
void ack_wait_cancel(struct ack_wait *w);

/* Of the fan-out: this socket was asked under this id; all have been asked. */
void ack_expect(struct ack_wait *w, struct socket *s, uint64_t id);
void ack_all_sent(struct ack_wait *w);

/* Of the client: an answer came (unknown ids are ignored); the socket goes. */
void ack_receive(struct socket *s, uint64_t id, struct span args, const struct span *attachments,
                 unsigned n_attachments);
void ack_forget_socket(struct socket *s);

#endif
