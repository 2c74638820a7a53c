/* What the files of the peers share: peers.c (messages), peers_life.c (who is there, and who lives), peers_records.c
 * (numbers, holes, repairs), peers_presence.c (snapshots of who is where). Nobody else includes this. */
#ifndef STARLING_PEERS_PRIVATE_H
#define STARLING_PEERS_PRIVATE_H

#include "peers.h"
#include "table.h"

enum {
    HEARTBEAT_MS = 100,
    HELLO_MS = 250, /* until a peer has answered */
    REPAIR_AGAIN_MS = 50,
    HOLE_WAIT_MS = 500,
    HELD_BYTES = 8 * 1024 * 1024, /* behind holes of one origin; what does not fit is repaired later */
    BATCH_BYTES = 64 * 1024,      /* of one message */
    EARLY_BYTES = 6 * 1024,       /* of a turn's first message: not kept back until the turn is over */
    REPAIR_BYTES = 1024 * 1024,   /* answered to one request */
};

enum origin_state { ORIGIN_NEW, ORIGIN_LIVE, ORIGIN_DEAD };
enum presence_state { PRESENCE_UNKNOWN, PRESENCE_ASKED, PRESENCE_KNOWN };

/* A record that waits: for a hole before it, for another origin's, or for the snapshot of presence. */
struct held {
    struct held *next;
    uint64_t seq;
    size_t n;
    char raw[];
};

struct held_list {
    struct held *first, **end;
    size_t bytes;
};

struct origin {
    struct mesh_origin id;
    uint64_t key[2];
    enum origin_state state;
    uint64_t heard_ms, died_ms;
    uint64_t beat_ms; /* when its heartbeat came */
    uint64_t last_ms; /* DEAD: when anybody has heard it last; is_dated: that is known */
    bool is_dated, was_heard;
    uint64_t received; /* all up to this number */
    uint64_t newest;   /* that anybody is known to have */
    uint64_t
        fill_to; /* what came before this node's start is taken up to here, for the ring only; 0: nothing */
    uint64_t missed_to; /* clients were told that they missed what of it was said before the nodes met */
    struct held_list held;
    uint64_t came_ms;               /* the last one that had to wait */
    uint64_t progress_ms, asked_ms; /* of the hole being repaired */
    uint64_t asked_to;              /* the last number of the answer that is coming; 0: not known */
    unsigned asked_n;
    bool in_hole;
    uint64_t waits_since_ms; /* its next record waits for another origin's; 0: it does not */
    uint64_t vain; /* received + 1 when somebody waited for more of this one in vain; 0: nobody has */
    enum presence_state presence;
    uint64_t presence_as_of, presence_asked_ms;
    uint64_t presence_since; /* received when it was asked for: an older snapshot answers an older question */
    bool presence_begun;     /* its first part has come */
    uint32_t presence_parts; /* how many of them */
    struct held_list late;   /* presence records that came during the snapshot */
    uint64_t hears_us;       /* our number that it has */
    bool hears_this_boot;
    bool has_begun; /* a hello has said where its numbers begin for this node */
    bool is_over;   /* started again: of what is still under way from then only records count */
    bool is_draining;
    unsigned version; /* the highest one in which it was heard */
    unsigned n_heard;
    struct mesh_heard *heard; /* what it has of others */
    UT_hash_handle hh;
};

/* Somebody at known endpoints, whichever origin that is at the moment. */
struct peer {
    struct peer *next;
    struct peers_channel *channel;
    struct origin *origin; /* NULL: has not answered yet */
    uint64_t hello_ms, since_ms;
    struct mesh_origin gone_of; /* of this one it has said that these numbers are gone there */
    uint64_t gone_from, gone_to;
    bool was_named;        /* given by configuration: a start waits for it */
    bool is_awaited;       /* a start waits for it all the same */
    msgpack_sbuffer batch; /* of this turn, for it alone; empty: nothing */
    char name[MESH_NAME_BYTES + 1];
    char pub[MESH_ENDPOINT_BYTES + 1];
    char router[MESH_ENDPOINT_BYTES + 1];
    /* What it calls these itself, when those are other names, or by what other hosts know one of this host; or "". */
    char own_pub[MESH_ENDPOINT_BYTES + 1];
    char own_router[MESH_ENDPOINT_BYTES + 1];
};

struct peers {
    struct reactor *reactor;
    struct metrics *metrics;
    struct peers_options options;
    struct peers_link link;
    struct peers_user user;
    struct ring *ring;
    struct origin *origins;
    struct peer *peers;
    uint64_t seq;         /* own newest */
    unsigned pub_version; /* that all who live understand */
    msgpack_sbuffer batch, scratch, parts;
    struct reactor_task flush;
    bool has_sent_early; /* this turn's first message */
    struct timer heartbeat;
    uint64_t started_ms, beat_ms, full_ms; /* full: a peer too many was refused */
    bool is_ready, is_draining;
    bool is_busy; /* the hub can take no more emits for a while: what comes is held, or repaired later */
    struct mesh_record record; /* large: one is enough */
};

static inline uint64_t peers_now_ms(const struct peers *m)
{
    return reactor_now_ms(m->reactor);
}

/* Nothing of a dead origin is kept for longer than this, */
static inline uint64_t peers_kept_ms(const struct peers *m)
{
    return m->options.ring.max_ms;
}

/* nor is it named in offsets for longer than this. An offset that comes back without its name is younger, so that its
 * client has missed nothing of it; and nodes do not agree to the millisecond on when it died. */
static inline uint64_t peers_named_ms(const struct peers *m)
{
    return 2 * peers_kept_ms(m);
}

static inline bool same_origin(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

/* What comes of it is its past. */
static inline bool origin_is_filling(const struct origin *o)
{
    return o->received < o->fill_to;
}

static inline bool peer_lives(const struct peer *p)
{
    return p->origin && p->origin->state == ORIGIN_LIVE;
}

static inline bool peer_is_local(const struct peer *p)
{
    return strncmp(p->router, "ipc://", 6) == 0;
}

static inline bool is_presence(enum mesh_kind kind)
{
    return kind >= MESH_ENTER && kind <= MESH_SET;
}

/* ---- peers.c ---- */

/* Empties the buffer but for a head. 0 or ERR_MEMORY. */
int peers_begin(struct peers *m, msgpack_sbuffer *b, unsigned version);
/* What this peer understands. */
unsigned peers_version_of(const struct peers *m, const struct peer *p);
struct span peers_message(const msgpack_sbuffer *b);
void peers_send_record(struct peers *m, const struct peer *p, const struct mesh_record *record);
void peers_send_as(struct peers *m, const struct peer *p, unsigned version, const struct mesh_record *record);
/* What this turn has published so far goes now. */
void peers_send_batch(struct peers *m);
/* Somebody has come or gone: what is published is for all who live. */
void peers_choose_version(struct peers *m);
/* It was heard in this version. */
void peers_heard_version(struct peers *m, struct origin *o, unsigned version);

/* ---- peers_life.c ---- */

void life_init(struct peers *m);
void life_free(struct peers *m);
struct origin *peers_find_origin(const struct peers *m, struct mesh_origin id);
/* Finds or makes: one of which only records are known. NULL without memory. */
struct origin *peers_obtain_dead(struct peers *m, struct mesh_origin id);
struct peer *peers_of_origin(const struct peers *m, const struct origin *o);
/* Something of it has come. */
void life_heard(struct peers *m, struct origin *o);
void life_hello(struct peers *m, const struct mesh_head *head, const struct mesh_hello *hello);
/* One of this node's own. */
void life_own_hello(struct peers *m, const struct mesh_hello *hello);
void life_heartbeat(struct peers *m, struct origin *o, const struct mesh_heartbeat *beat);
void life_peers(struct peers *m, const struct mesh_peers *list);

/* ---- peers_records.c ---- */

/* Does it fit? One always does. */
bool held_fits(const struct held_list *list, struct span raw);
/* In the order of numbers, each once. 0 or ERR_MEMORY. */
int held_add(struct held_list *list, uint64_t seq, struct span raw);
struct held *held_take(struct held_list *list);
void held_drop_all(struct held_list *list);

/* Has it said that it has this number? */
bool origin_has(const struct origin *who, struct mesh_origin of, uint64_t seq);
/* Reads a record on its own, as rings and lists keep it, into m->record. */
bool records_read(struct peers *m, const char *raw, size_t n);
void records_take(struct peers *m, struct origin *o, const struct mesh_record *record);
/* Delivers what waits and can be delivered. */
void records_go_on(struct peers *m, struct origin *o);
/* Asks for what is missing, or gives it up. */
void records_look_for_holes(struct peers *m, struct origin *o);
/* Numbers first..last will not be given to anybody here. */
void records_tell_gap(struct peers *m, struct origin *o, uint64_t first, uint64_t last);
/* The answer to a repair says that numbers up to this one are gone there. */
void records_gone(struct peers *m, struct origin *o, struct mesh_origin says, uint64_t gone_to);
void records_answer(struct peers *m, const struct peer *p, const struct mesh_repair *asked);

/* ---- peers_presence.c ---- */

/* The snapshot begins anew: whatever is said until it is asked for is in it. */
void presence_forget(struct origin *o);
/* Numbers up to this one are lost, so who came and went is not known: only what is said after that counts. */
void presence_lose(struct origin *o, uint64_t last);
void presence_ask(struct peers *m, struct origin *o);
void presence_answer(struct peers *m, const struct peer *p);
/* False: not a part of the snapshot that is wanted. */
bool presence_take_part(struct peers *m, struct origin *o, const struct mesh_presence_part *part);
/* The snapshot is complete: what it does not include yet follows. */
void presence_finish(struct peers *m, struct origin *o);
/* A numbered record of presence. */
void presence_take(struct peers *m, struct origin *o, const struct mesh_record *record);
/* One without a number, of a snapshot. */
void presence_apply(struct peers *m, struct origin *o, const struct mesh_record *record);

#endif
