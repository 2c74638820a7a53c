/* Recovery of what a client has missed: the offset that its events end with, and everything since an offset, from the
 * ring and, what that does not hold any more, from the store. Which session it was and where, says the directory.
 * Reactor's thread only. */
#ifndef STARLING_RECOVERY_H
#define STARLING_RECOVERY_H

#include "directory.h"
#include "fetch.h"
#include "hub.h"
#include "offset.h"
#include "peers.h"

struct recovery;

struct recovery_options {
    uint64_t window_ms, ping_interval_ms;
    uint64_t catch_up_ms; /* in which this node learns what its peers know, or that they are dead */
    struct mesh_origin self;
};

/* The hub gets it as hub->recovery. Borrows peers and directory. */
struct recovery *recovery_new(struct reactor *r, struct hub *h, const struct recovery_options *o,
                              struct peers *peers, struct directory *directory);
/* After the store: it has answered everything, or never will. */
void recovery_free(struct recovery **r);
/* Borrows it. Without one the ring is all there is. ERR_MEMORY. */
int recovery_use(struct recovery *r, const struct store *store);
struct directory *recovery_directory(const struct recovery *r);

/* The offset of whoever has everything up to now, and this node's own numbers up to newest: its text, which lives
 * until the next call. */
struct span recovery_offset(struct recovery *r, uint64_t newest);

/* Can everything since an offset be given out of the ring? LATER: this node itself is behind it, and not for long. Of a dead node
 * somebody may have more than all who live: that is no hole, see recovery_ahead(). */
enum recovery_verdict { RECOVERY_YES, RECOVERY_NO, RECOVERY_LATER };
enum recovery_verdict recovery_check(const struct recovery *r, const struct offset *since);

uint64_t recovery_catch_up_ms(const struct recovery *r);

/* Raises a client's offset to the first one of its entry. Of origins that neither the client nor this node has heard
 * of nothing is taken: they are over for long. ERR_LIMIT. */
int recovery_later_of(const struct recovery *r, struct offset *o, const struct offset *first);

/* What the client has of other nodes and this node does not have yet. NULL in *ahead: nothing. ERR_MEMORY. */
int recovery_ahead(const struct recovery *r, const struct offset *since, struct ahead **ahead);
/* From now on this socket's offsets say that the store may not have its session in this version; 0: it has. ERR_MEMORY. */
int recovery_say_unsaved(struct socket *s, uint64_t version);
/* The version of a session that an offset names, which it does no more; 0: none. */
uint64_t recovery_take_version(struct offset *o);
int recovery_put_version(struct offset *o, uint64_t version);
/* An offset for everybody, raised to what this socket has beyond it, so that its client never falls behind what it has;
 * the offset itself when it is ahead of nobody any more. Lives until the next call. */
struct span recovery_own_offset(struct recovery *r, struct socket *s, struct span offset);

/* ---- what the ring does not hold any more ---- */

/* After RECOVERY_NO: reads from the store what is missing. NULL: it cannot be had. done is called later. */
struct fetch *recovery_fetch(struct recovery *r, const struct session *session, const struct offset *since,
                             const struct entry *known, void (*done)(void *user, int err), void *user);
/* The ring has lost more meanwhile. False: it cannot be had. */
bool recovery_fetch_more(struct recovery *r, struct fetch *f, const struct offset *since);
/* Where the client is when it has what was read. */
void recovery_reached(const struct fetch *f, const struct offset *since, struct offset *reached);

/* ---- giving it ---- */

/* What has been read, and the ring from there on. */
struct recovery_missed {
    const struct offset *since, *reached; /* without a fetch they are the same */
    const struct fetch *fetch;            /* or NULL */
};

/* May everything that the owner of this entry has missed wait for one client? After recovery_check() of what is reached
 * said YES. */
bool recovery_fits(struct recovery *r, const struct session *session, const struct recovery_missed *missed,
                   const struct entry *known);
/* From recovery_fits() to recovery_replay(), in one turn: what this node says meanwhile must not push it out. */
void recovery_hold(struct recovery *r);
void recovery_let_go(struct recovery *r);
/* The origin with this tag, and how far this node has come in its numbers; tag 0: not known. */
struct peers_position recovery_position(const struct recovery *r, uint32_t tag);
/* Queues what this socket has missed. ERR_MEMORY. */
int recovery_replay(struct recovery *r, struct socket *s, const struct recovery_missed *missed);

/* Sends the event bus:offset, so that a client that hears nothing else knows how far it is. */
void recovery_tell_offset(struct recovery *r, struct socket *s);
/* A ping goes out: the same, when the last offset was sent too long ago. */
void recovery_on_ping(struct recovery *r, struct socket *s);

#endif
