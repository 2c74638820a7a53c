/* This node's lease in the store, renewed each second, and what the leases of others say: peers to look for. Before the
 * mesh starts it reads all that was said before, so that whoever comes back finds it. Reactor's thread only. */
#ifndef STARLING_MEMBERSHIP_H
#define STARLING_MEMBERSHIP_H

#include "mirror.h"
#include "peers.h"
#include "store.h"

struct membership;

struct membership_options {
    struct store_member self; /* borrowed */
    bool knows_siblings;      /* nodes of this host are named by other means */
    uint64_t keep_ms;         /* for what this node leaves behind */
    uint64_t start_wait_ms;   /* at most, for the store */
};

/* Begins when the store is up. on_start: everything is read, or the store cannot be waited for any longer: the mesh may
 * start. on_clash: another origin has this one's tag; this node must not go on. */
struct membership_user {
    void *user;
    void (*on_start)(void *user);
    void (*on_clash)(void *user);
};

struct membership *membership_new(struct reactor *r, const struct membership_options *o,
                                  const struct store *store, struct peers *peers, struct mirror *mirror,
                                  const struct membership_user *user);
/* After the store: it has answered everything. */
void membership_free(struct membership **m);
/* The store is up. */
void membership_resume(struct membership *m);
/* The node goes as it should: done when the store knows, or cannot be told. */
void membership_resign(struct membership *m, void (*done)(void *user), void *user);

#endif
