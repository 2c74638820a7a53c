/* The monitor's connection to the bus, by the agents' protocol: finds a node that answers, keeps to what it grants, and
 * goes on to the next when it falls silent. Nothing is kept for later: what cannot be sent now is not sent. No I/O and
 * no clock of its own. One thread. */
#ifndef STARLING_UPLINK_H
#define STARLING_UPLINK_H

#include "span.h"
#include <stdbool.h>
#include <stdint.h>

#define UPLINK_ENDPOINT_BYTES 128

struct uplink;

/* One connection at a time. What is sent on one that does not stand may be lost. */
struct uplink_link {
    bool (*open)(void *link, const char *endpoint);
    void (*send)(void *link, struct span message);
    void (*close)(void *link);
    void *link;
};

struct uplink_options {
    const char *endpoints; /* "tcp://…,ipc://…"; see uplink_check() */
    const char *name, *instance, *about;
    struct uplink_link link;
    uint64_t seed; /* of the waits' randomness */
    /* Something that people want to know, as logfmt; may be NULL. */
    void (*on_event)(const char *event, const char *endpoint, struct span text);
};

/* A list of endpoints that uplink_new() takes? */
bool uplink_check(const char *endpoints);

/* Borrows the texts. NULL: no memory. */
struct uplink *uplink_new(const struct uplink_options *o);
/* Says BYE when there is somebody to hear it. */
void uplink_free(struct uplink **u);

/* Does what is due; call it again when uplink_due_ms() has come. */
void uplink_run(struct uplink *u, uint64_t now_ms);
uint64_t uplink_due_ms(const struct uplink *u);
void uplink_receive(struct uplink *u, uint64_t now_ms, struct span message);

/* How many nodes have let it in so far; each of them wants the description. 0 while there is no connection. */
unsigned uplink_welcome(const struct uplink *u);
/* False: not now. */
bool uplink_send(struct uplink *u, uint64_t now_ms, struct span message);

#endif
