/* Where sessions are and what is known of them, so that a client that comes back is found: the entries of this node's
 * own, kept for the recovery window after they are gone, and the way to those of others, through the store or, without
 * one, by asking the node that has it. Each entry is one client's presence in one namespace. It has one owner; who takes
 * it raises its epoch, and the higher (epoch, tag) is right. Reactor's thread only.
 *
 *   state    begins when                        ends when
 *   OPEN     directory_open(), _enter()         its socket leaves: ABSENT, or is gone
 *   ABSENT   the socket has left, or a claim    it is entered again, taken by another node, or its time is over
 *   MOVED    another node has taken it          its time is over, or its client was here last */
#ifndef STARLING_DIRECTORY_H
#define STARLING_DIRECTORY_H

#include "cluster.h"
#include "entry.h"
#include "hub.h"
#include "store.h"

struct directory;
struct directory_claim;

enum directory_state { ENTRY_OPEN, ENTRY_ABSENT, ENTRY_MOVED };

struct directory_entry {
    struct directory *directory;
    enum directory_state state;
    char sid[ID_CHARS], pid[ID_CHARS];
    uint64_t epoch;
    uint64_t came_with; /* the offset with which its client came here, hashed; 0: with none, or not known */
    uint64_t version;   /* rises with each change */
    uint64_t unsaved_version;        /* that the store may not have, as the client is told; 0: it has all */
    struct socket *socket;           /* OPEN, once it is entered */
    char *since, *nsp, *user, *data; /* OPEN; data: NULL is none */
    size_t nsp_n;
    const struct span *rooms; /* OPEN, before it has a socket: that this will be in; borrowed */
    unsigned n_rooms;
    char *bytes; /* ABSENT, and MOVED when the other has it by the store: as entry_read() takes them */
    size_t bytes_n;
    uint32_t moved_to;
    struct mesh_origin
        after; /* its client's first emit here comes behind this number of that origin; tag 0: of none */
    uint64_t after_seq;
    bool is_saving, saves_again, is_freed;
    bool is_in_store, is_said_stale;
    bool is_unsaved;                      /* the store does not have it as it is, or may have lost it */
    struct save_wait *waits, *next_waits; /* for the save that is under way; for the one after it */
    uint64_t expires_ms;                  /* not OPEN */
    struct directory_entry **holder; /* who was given it by a claim, until it has a socket; may be NULL */
    struct directory_entry *older, *younger;
    UT_hash_handle hh;
};

struct directory_options {
    uint64_t window_ms;
    struct mesh_origin self;
    /* Another node, or another connection, has taken what this socket has: it is to go, at once. */
    void (*on_taken)(struct socket *s);
};

struct directory *directory_new(struct reactor *r, struct hub *h, const struct directory_options *o);
void directory_free(struct directory **d);
/* Either may be NULL: then nobody else is asked. Borrows both. */
void directory_use(struct directory *d, const struct store *store, struct cluster *cluster);

/* The store can be reached again, and may have lost or missed anything: all entries are written again, bit by bit. */
void directory_resume(struct directory *d);

/* A new entry, with a fresh pid and the sid that belongs to it. NULL without memory. */
struct directory_entry *directory_open(struct directory *d, struct span nsp, struct span user,
                                       struct span since);
/* OPEN only. ERR_MEMORY. */
int directory_set_user(struct directory_entry *e, struct span user);
int directory_set_data(struct directory_entry *e, struct span data);
/* Writes it; done is called later, once: 0; ERR_MOVED: it is another's; ERR_STORE: it cannot be written now, and a
 * recovery elsewhere may not find it; ERR_CLOSED: the entry has ended. */
void directory_save(struct directory_entry *e, void (*done)(void *user, int err), void *user);
/* OPEN or ABSENT: it has this socket now; user is a copy of the entry's, or NULL. ERR_MEMORY. */
int directory_enter(struct directory_entry *e, struct socket *s, const struct entry *known);
/* The socket goes, or what came of a claim is not wanted. recoverable: its client may come back. */
void directory_leave(struct directory_entry *e, bool recoverable);

/* Takes the entry with this pid from whoever has it; owner: the tag of the node where it was last. done is called
 * later, once: 0 with an entry that is ABSENT here; ERR_NOT_FOUND. */
struct directory_claim *directory_claim(struct directory *d, struct span pid, uint32_t owner,
                                        void (*done)(void *user, int err, struct directory_entry *e),
                                        void *user);
/* Between a claim and directory_enter(): *holder is e until somebody else takes it, or its time is over; then NULL. */
void directory_hold(struct directory_entry *e, struct directory_entry **holder);
void directory_let_go(struct directory_entry *e);
/* Right after directory_claim(): the store may have old words of this session. Who had it last is asked first. */
void directory_claim_of_owner(struct directory_claim *c);
/* Right after directory_claim(): the offset with which its client comes, hashed. An entry that is here is not the last one
 * when its client has heard of another node since it came here, and nobody knows of that any more. */
void directory_claim_with(struct directory_claim *c, uint64_t offset_hash);
/* done will not be called. */
void directory_cancel(struct directory_claim *c);

/* A peer says that it has this socket. True: it is right, and what was here has been let go; false: it is not. */
bool directory_on_enter(struct directory *d, struct span sid, uint64_t epoch, struct mesh_origin from);

/* How many entries there are whose client is away. */
unsigned directory_absent(const struct directory *d);

#endif
