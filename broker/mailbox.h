/* Many threads post, one takes: a lock-free list with an eventfd that is written only when the box was empty. */
#ifndef STARLING_MAILBOX_H
#define STARLING_MAILBOX_H

#include "reactor.h"
#include <stdatomic.h>

struct mailbox {
    _Atomic(struct mail *) newest;
    int event_fd;
};

int mailbox_init(struct mailbox *box);
void mailbox_deinit(struct mailbox *box);

/* Any thread. */
void mailbox_post(struct mailbox *box, struct mail *mail);

/* Everything posted so far, oldest first; resets the eventfd. The taking thread only. */
struct mail *mailbox_take(struct mailbox *box);

#endif
