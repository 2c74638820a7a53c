/* What the files of the directory share: directory.c (entries of this node), directory_claim.c (the way to those of
 * others). Nobody else includes this. */
#ifndef STARLING_DIRECTORY_PRIVATE_H
#define STARLING_DIRECTORY_PRIVATE_H

#include "directory.h"
#include <msgpack.h>

struct directory {
    struct reactor *reactor;
    struct hub *hub;
    struct directory_options options;
    const struct store *store;
    struct cluster *cluster;
    struct directory_entry *entries; /* by sid */
    struct directory_entry *oldest,
        *youngest; /* of those that are not OPEN, in the order in which they expire */
    struct directory_claim *claims;
    struct stale *stale;           /* by sid */
    unsigned n_absent, n_in_store; /* n_in_store: questions that the store still owes */
    uint64_t next_id;
    struct timer expire, resave;
    msgpack_sbuffer scratch;
};

/* ---- directory.c ---- */

struct directory_entry *directory_find(const struct directory *d, const char sid[ID_CHARS]);
/* OPEN, and without anything known of it. NULL without memory. */
struct directory_entry *directory_new_entry(struct directory *d, const char pid[ID_CHARS]);
/* Its memory stays until the store has answered. */
void directory_forget(struct directory_entry *e);
void directory_leave_open(struct directory_entry *e, enum directory_state state);
/* It is another node's from now on. to: its tag; 0: the store knows. */
void directory_give_away(struct directory_entry *e, uint32_t to);

/* MOVED, with what it was here: it is this node's again, above whoever has taken it. */
void directory_have_back(struct directory_entry *e);

/* The store does not have it as it is: soon, and again until it has. */
void directory_save_later(struct directory_entry *e);

/* ---- directory_claim.c ---- */

void directory_listen(struct directory *d);
void directory_end_claims(struct directory *d);

/* ---- directory_stale.c ---- */

/* The store has old words of this session, as its owner says. */
bool directory_is_stale(const struct directory *d, const char sid[ID_CHARS]);
/* Of an entry of this node: says it to all others. */
void directory_say_stale(struct directory_entry *e, bool is_stale);
/* Of cluster_part. */
void directory_on_stale(void *directory, struct mesh_origin from, struct span sid, struct span value);
void directory_on_stale_void(void *directory, struct mesh_origin from);
void directory_expire_stale(struct directory *d);
void directory_free_stale(struct directory *d);

#endif
