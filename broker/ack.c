#include "ack.h"
#include "container.h"
#include "fanout.h"
#include <stdlib.h>

enum { PENDING_MAX = 1000 * 1000 }; /* of a node; clients beyond that count as missing */

struct ack_pending {
    struct ack_pending *socket_next, **socket_link;
    struct ack_pending *wait_next, **wait_link;
    struct socket *socket;
    struct ack_wait *wait;
    uint64_t id;
};

/* on_done runs from the timer, so that it never surprises whoever is in the middle of an emit. */
static void done_if_complete(struct ack_wait *w)
{
    if (w->done || !w->all_sent || w->pending)
        return;
    w->done = true;
    reactor_timer_set(w->reactor, &w->timeout, 0);
}

static void take_from_wait(struct ack_pending *p)
{
    *p->wait_link = p->wait_next;
    if (p->wait_next)
        p->wait_next->wait_link = p->wait_link;
}

static void take_from_socket(struct ack_pending *p)
{
    *p->socket_link = p->socket_next;
    if (p->socket_next)
        p->socket_next->socket_link = p->socket_link;
}

/* Answered, or nobody is left to answer. */
static void drop(struct ack_pending *p)
{
    p->wait->hub->pending_acks--;
    take_from_wait(p);
    take_from_socket(p);
    free(p);
}

static void drop_all(struct ack_wait *w)
{
    while (w->pending) {
        drop(w->pending);
        w->missing++;
    }
}

static void on_timeout(struct timer *t)
{
    struct ack_wait *w = container_of(t, struct ack_wait, timeout);
    /* A fan-out that is still under way refers to w: let it end first. */
    if (!w->all_sent) {
        reactor_timer_set(w->reactor, &w->timeout, 10);
        return;
    }
    drop_all(w);
    w->done = true;
    w->on_done(w);
}

void ack_wait_start(struct ack_wait *w, struct hub *h, uint32_t timeout_ms)
{
    struct reactor *r = h->engine->reactor;
    w->reactor = r;
    w->hub = h;
    w->pending = NULL;
    w->missing = 0;
    w->all_sent = w->done = false;
    timer_init(&w->timeout, on_timeout);
    reactor_timer_set(r, &w->timeout, timeout_ms);
}

void ack_wait_cancel(struct ack_wait *w)
{
    reactor_timer_cancel(w->reactor, &w->timeout);
    fanout_forget_wait(w->hub->fanout, w);
    drop_all(w);
}

void ack_expect(struct ack_wait *w, struct socket *s, uint64_t id)
{
    struct ack_pending *p = w->hub->pending_acks < PENDING_MAX ? malloc(sizeof(*p)) : NULL;
    if (!p) {
        w->missing++;
        return;
    }
    w->hub->pending_acks++;
    *p = (struct ack_pending){
        .socket_next = s->acks,
        .socket_link = &s->acks,
        .wait_next = w->pending,
        .wait_link = &w->pending,
        .socket = s,
        .wait = w,
        .id = id,
    };
    if (w->pending)
        w->pending->wait_link = &p->wait_next;
    if (s->acks)
        s->acks->socket_link = &p->socket_next;
    w->pending = p;
    s->acks = p;
}

void ack_all_sent(struct ack_wait *w)
{
    w->all_sent = true;
    done_if_complete(w);
}

void ack_receive(struct socket *s, uint64_t id, struct span args, const struct span *attachments,
                 unsigned n_attachments)
{
    for (struct ack_pending *p = s->acks; p; p = p->socket_next) {
        if (p->id != id)
            continue;
        struct ack_wait *w = p->wait;
        drop(p);
        w->on_ack(w, s, args, attachments, n_attachments);
        done_if_complete(w);
        return;
    }
}

void ack_forget_socket(struct socket *s)
{
    while (s->acks) {
        struct ack_wait *w = s->acks->wait;
        drop(s->acks);
        w->missing++;
        done_if_complete(w);
    }
}
