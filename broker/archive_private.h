/* What archive.c and fetch.c share. */
#ifndef STARLING_ARCHIVE_PRIVATE_H
#define STARLING_ARCHIVE_PRIVATE_H

#include "archive.h"
#include "fetch.h"
#include "table.h"

/* An emit that somebody waits for; shared. */
struct record {
    unsigned refs;
    uint64_t seq;
    size_t n;
    char raw[];
};

/* One origin that one client waits for. */
struct leg {
    struct leg *next_of_fetch;
    struct leg *next, **at; /* of the sweep */
    struct fetch *fetch;
    struct sweep *sweep; /* NULL: nothing more is wanted of it, or not yet */
    bool is_due;         /* its fetch waits for its turn */
    struct mesh_origin origin;
    uint64_t wanted; /* the next number */
    bool takes;      /* of the batch that is being read */
    struct record **record;
    unsigned n, cap;
};

/* A room of a namespace, or the whole namespace, that somebody who waits is in. */
struct interest {
    struct wish *wishes;
    UT_hash_handle hh;
    uint32_t n;
    char name[]; /* length of the namespace in two bytes, namespace, room */
};

struct wish {
    struct wish *next, **at;
    struct interest *interest;
    struct fetch *fetch;
};

struct fetch {
    struct archive *archive;
    struct fetch_options options;             /* its spans lie in names */
    struct fetch *next_done, **done_at;       /* while it waits to be told; else done_at is NULL */
    struct fetch *next_waiting, **waiting_at; /* while it waits for its turn; else waiting_at is NULL */
    bool is_active;                           /* it has had its turn */
    int err;
    struct leg *legs;
    unsigned pending; /* legs of which something is wanted */
    uint64_t messages, bytes;
    struct wish *wish;
    unsigned n_wishes;
    struct span *rooms;
    char *names;
};

/* An origin that is being read. */
struct sweep {
    struct sweep *next;
    struct archive *archive;
    struct mesh_origin origin;
    struct leg *legs;
    uint64_t after; /* of the question that is under way */
    uint64_t at;    /* up to this number it has come */
    unsigned count;
    bool is_asking;
    uint64_t vain_since_ms, again_ms; /* since when nothing came; 0: something has */
};

struct archive {
    struct reactor *reactor;
    struct metrics *metrics;
    struct archive_options options;
    const struct store *store;
    struct peers *peers;
    struct sweep *sweeps; /* whose turn is next comes first */
    unsigned asking, fetches, active;
    uint64_t held_bytes;
    struct interest *interests;
    struct fetch *done, **done_end;
    struct fetch *waiting, **waiting_end;
    struct reactor_task tell;
    struct timer again;
    struct mesh_record record; /* large: one is enough */
};

/* ---- fetch.c ---- */

/* The archive's record is for whoever of this sweep takes and is meant by it. */
void fetches_offer(struct sweep *s);
/* Nothing more is wanted of this leg. */
void leg_settle(struct leg *leg);
/* With its metric. */
void fetch_give_up(struct fetch *f, int err);
/* Calls done of all that are; others have their turn. */
void fetches_tell(struct reactor_task *task);

/* ---- archive.c ---- */

/* NULL without memory. */
struct sweep *archive_sweep(struct archive *a, struct mesh_origin origin);
void archive_go_on(struct archive *a);
void archive_tell_held(const struct archive *a);

#endif
