/* A stack of letters that senders push with compare-and-swap; the taker swaps it out whole and turns it over.
 * It is never popped one by one, so a letter's address coming back does no harm. A sender touches the box
 * once more (the eventfd) after its letter can have been delivered: senders must have returned from
 * mailbox_post(), not merely had their last letter delivered, before the box goes. */
#include "mailbox.h"
#include "err.h"
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct mailbox *box)
{
    atomic_init(&box->newest, NULL);
    box->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return box->event_fd < 0 ? ERR_SYSTEM : 0;
}

void mailbox_deinit(struct mailbox *box)
{
    if (box->event_fd >= 0)
        close(box->event_fd);
    box->event_fd = -1;
}

void mailbox_post(struct mailbox *box, struct mail *mail)
{
    struct mail *before = atomic_load_explicit(&box->newest, memory_order_relaxed);

    do {
        mail->next = before;
    } while (!atomic_compare_exchange_weak_explicit(&box->newest, &before, mail, memory_order_release,
                                                    memory_order_relaxed));
    /* Of a box that was not empty the taker has been told, or is being told by the sender that found it
     * empty. */
    if (!before)
        (void)!eventfd_write(box->event_fd, 1);
}

struct mail *mailbox_take(struct mailbox *box)
{
    struct mail *newest, *oldest = NULL;
    eventfd_t count;

    /* Before the exchange: reset after it, the signal of a letter posted in between would be lost. */
    (void)!eventfd_read(box->event_fd, &count);
    newest = atomic_exchange_explicit(&box->newest, NULL, memory_order_acquire);
    while (newest) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}
