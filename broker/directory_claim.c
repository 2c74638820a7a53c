/* Who claims asks the store; without one, or when it knows of nothing, the node that has the entry (../proto/claim.md). */
#include "claim.h"
#include "container.h"
#include "directory_private.h"
#include "err.h"
#include "log.h"
#include "peers.h"
#include "recovery.h"
#include <stdlib.h>

enum {
    ASK_MS = 500,  /* for the answer of the node that has it */
    MOVES_MAX = 4, /* nodes that a claim follows */
};

struct directory_claim {
    struct directory *directory;
    struct directory_claim *next;
    char pid[ID_CHARS], sid[ID_CHARS];
    uint32_t owner;
    unsigned moves;
    uint64_t least_epoch; /* under which it moved to where it is looked for: what is lower there is old */
    uint64_t id;
    uint64_t came_with;
    bool in_store; /* the store will answer */
    bool of_owner; /* it is asked last */
    bool is_asked;
    void (*done)(void *user, int err, struct directory_entry *e); /* NULL: cancelled */
    void *user;
    struct timer timer;
};

/* ---- claims ---- */

static void go_on(struct directory_claim *c);
static void ask_store(struct directory_claim *c);
static void ask_owner(struct directory_claim *c);

static void unlink_claim(struct directory_claim *c)
{
    struct directory_claim **at = &c->directory->claims;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    reactor_timer_cancel(c->directory->reactor, &c->timer);
}

static void finish(struct directory_claim *c, int err, struct directory_entry *e)
{
    void (*done)(void *user, int err, struct directory_entry *e) = c->done;
    void *user = c->user;
    unlink_claim(c);
    free(c);
    if (done)
        done(user, err, e);
}

/* What is asked already may be given: the entry must not get lost on the way. */
void directory_cancel(struct directory_claim *c)
{
    c->done = NULL;
    if (!c->is_asked)
        finish(c, ERR_CLOSED, NULL);
}

/* The entry that is here is the one. */
static void take_own(struct directory_claim *c, struct directory_entry *e)
{
    if (e->state == ENTRY_OPEN && e->socket)
        c->directory->options.on_taken(e->socket); /* the old connection still seemed alive */
    e = directory_find(c->directory, c->sid);
    if (!e || e->state != ENTRY_ABSENT) {
        finish(c, ERR_NOT_FOUND, NULL);
        return;
    }
    e->came_with = c->came_with;
    finish(c, 0, e);
}

/* The entry with this pid, if this node has it. */
static struct directory_entry *own_entry(const struct directory_claim *c)
{
    struct directory_entry *e = directory_find(c->directory, c->sid);
    return e && e->state != ENTRY_MOVED && memcmp(e->pid, c->pid, ID_CHARS) == 0 ? e : NULL;
}

/* Its client was here last, or was sent here; unless what was given to this node has not come. Who comes with the offset of
 * another node has heard nothing of this one, or was there since: then it comes with another offset than before, and what
 * is here is old. */
static bool was_here_last(const struct directory_claim *c, const struct directory_entry *e)
{
    bool is_sought_here = c->owner == c->directory->options.self.tag;
    return (is_sought_here && e->epoch >= c->least_epoch) || (c->came_with && c->came_with == e->came_with);
}

/* Nobody else has it. What is here, when it was looked for elsewhere, may be right then. */
static void take_what_is_here(struct directory_claim *c)
{
    struct directory_entry *e = own_entry(c);
    if (c->of_owner && c->directory->store && c->owner != c->directory->options.self.tag) {
        c->of_owner = false;
        ask_store(c);
        return;
    }
    if (e && was_here_last(c, e))
        take_own(c, e);
    else
        finish(c, ERR_NOT_FOUND, NULL);
}

/* Here from now on, in the place of what was known of it. NULL: no memory. */
static struct directory_entry *adopt(struct directory *d, const char pid[ID_CHARS], struct span bytes,
                                     uint64_t epoch)
{
    char sid[ID_CHARS];
    id_public(pid, sid);
    struct directory_entry *e = directory_find(d, sid);
    char *copy = malloc(bytes.n);
    if (e)
        directory_forget(e);
    e = copy ? directory_new_entry(d, pid) : NULL;
    if (!e) {
        free(copy);
        return NULL;
    }
    memcpy(copy, bytes.p, bytes.n);
    e->bytes = copy;
    e->bytes_n = bytes.n;
    e->epoch = epoch;
    e->is_in_store = true; /* here, or where it was before */
    directory_leave_open(e, ENTRY_ABSENT);
    return e;
}

static uint64_t version_of(struct span text)
{
    static struct offset since; /* large; the reactor's thread only */
    return offset_decode(text, &since) ? 0 : recovery_take_version(&since);
}

/* What is heard of this session from other nodes: its epoch, and where it is. */
static uint64_t heard_epoch(const struct directory *d, struct span nsp, const char sid[ID_CHARS],
                            uint32_t *owner)
{
    struct nsp *far = d->cluster ? cluster_far(d->cluster, nsp) : NULL;
    const struct socket *s = far ? nsp_find(far, (struct span){sid, ID_CHARS}) : NULL;
    struct mesh_origin origin = {0};
    *owner = s && cluster_origin_of(s, &origin) ? origin.tag : 0;
    return s ? s->offset_ms : 0;
}

/* It is this node's from now on. The store may not have heard of a node that took it by the mesh. */
static void take(struct directory_claim *c, struct span bytes, uint64_t epoch, bool by_mesh)
{
    static struct entry check;
    struct directory *d = c->directory;
    struct directory_entry *e = directory_find(d, c->sid);
    uint32_t owner;
    if (entry_read(bytes, &check) || memcmp(check.pid.p, c->pid, ID_CHARS) != 0) {
        take_what_is_here(c);
        return;
    }
    if (epoch <= c->least_epoch) { /* it was given back to who says this, and got lost on its way */
        finish(c, ERR_NOT_FOUND, NULL);
        return;
    }
    uint64_t heard = heard_epoch(d, check.nsp, c->sid, &owner);
    if (heard >= epoch && !by_mesh && owner != c->owner && ++c->moves <= MOVES_MAX) {
        c->owner = owner; /* the store does not know of this one: what it has is old */
        ask_owner(c);
        return;
    }
    if (e && e->state != ENTRY_MOVED && epoch <= e->epoch) {
        if (was_here_last(c, e)) { /* somebody was quicker here */
            take_own(c, e);
            return;
        }
        epoch = e->epoch + 1; /* taken here for a connection that its client has left since */
    }
    if (e && e->state != ENTRY_MOVED) /* it had been elsewhere since, and this node has not heard of it yet */
        directory_give_away(e, d->options.self.tag);
    e = adopt(d, c->pid, bytes, epoch > heard ? epoch : heard + 1);
    if (e) {
        e->version = version_of(check.since);
        e->came_with = c->came_with;
    }
    if (e && by_mesh && d->store) {
        e->unsaved_version = ++e->version;
        directory_save_later(e);
    }
    finish(c, e ? 0 : ERR_NOT_FOUND, e);
}

static void on_ask_timeout(struct timer *t)
{
    take_what_is_here(container_of(t, struct directory_claim, timer));
}

static int say(struct directory *d, struct mesh_origin to, const struct claim *claim)
{
    msgpack_sbuffer_clear(&d->scratch);
    int err = claim_write(&d->scratch, claim);
    return err ? err
               : cluster_tell(d->cluster, to, MESH_TOPIC_SESSIONS,
                              (struct span){d->scratch.data, d->scratch.size});
}

/* By the mesh: as long as it lives, its owner knows best. */
static void ask_owner(struct directory_claim *c)
{
    struct directory *d = c->directory;
    struct mesh_origin owner;
    struct claim claim = {.what = CLAIM_ASK, .id = c->id, .pid = {c->pid, ID_CHARS}};
    if (!d->cluster || !peers_find_live(cluster_peers(d->cluster), c->owner, &owner) ||
        say(d, owner, &claim)) {
        take_what_is_here(c);
        return;
    }
    c->is_asked = true;
    timer_init(&c->timer, on_ask_timeout);
    reactor_timer_set(d->reactor, &c->timer, ASK_MS);
}

static void follow(struct directory_claim *c, uint32_t owner, uint64_t epoch)
{
    c->owner = owner;
    if (c->least_epoch < epoch)
        c->least_epoch = epoch;
    if (++c->moves > MOVES_MAX)
        take_what_is_here(c);
    else
        go_on(c);
}

static void on_claimed(void *user, int err, const struct store_claim *claim)
{
    struct directory_claim *c = user;
    c->in_store = false;
    c->directory->n_in_store--;
    if (err == 0)
        take(c, claim->entry, claim->epoch, false);
    else if (err == ERR_MOVED)
        follow(c, claim->moved_to, claim->epoch);
    else
        ask_owner(c);
}

static void ask_store(struct directory_claim *c)
{
    struct directory *d = c->directory;
    c->in_store = c->is_asked = true;
    d->n_in_store++;
    d->store->calls->claim(d->store->store, c->owner, (struct span){c->pid, ID_CHARS}, on_claimed, c);
}

/* Where its client last heard of it. What is here although it was last somewhere else may be old: it is looked for
 * there first. */
static void go_on(struct directory_claim *c)
{
    struct directory *d = c->directory;
    struct directory_entry *e = directory_find(d, c->sid);
    if (c->owner != d->options.self.tag) {
        if (d->store && !c->of_owner && !directory_is_stale(d, c->sid))
            ask_store(c);
        else
            ask_owner(c);
    } else if (e && e->state == ENTRY_MOVED && memcmp(e->pid, c->pid, ID_CHARS) == 0) {
        if (e->bytes && c->moves == 0) {
            directory_have_back(e);
            take_own(c, e);
        } else if (e->moved_to)
            follow(c, e->moved_to, e->epoch);
        else
            ask_store(c); /* which said that it is another's */
    } else {
        take_what_is_here(c);
    }
}

static void on_begin(struct timer *t)
{
    go_on(container_of(t, struct directory_claim, timer));
}

struct directory_claim *directory_claim(struct directory *d, struct span pid, uint32_t owner,
                                        void (*done)(void *user, int err, struct directory_entry *e),
                                        void *user)
{
    struct directory_claim *c = pid.n == ID_CHARS ? calloc(1, sizeof(*c)) : NULL;
    if (!c)
        return NULL;
    c->directory = d;
    c->owner = owner;
    c->done = done;
    c->user = user;
    c->id = ++d->next_id;
    memcpy(c->pid, pid.p, ID_CHARS);
    id_public(c->pid, c->sid);
    c->next = d->claims;
    d->claims = c;
    timer_init(&c->timer, on_begin);
    reactor_timer_set(d->reactor, &c->timer, 0);
    return c;
}

void directory_claim_of_owner(struct directory_claim *c)
{
    c->of_owner = true;
}

void directory_claim_with(struct directory_claim *c, uint64_t offset_hash)
{
    c->came_with = offset_hash;
}

/* ---- other nodes ---- */

static struct directory_entry *find_claimed(const struct directory *d, struct span pid)
{
    char sid[ID_CHARS];
    id_public(pid.p, sid);
    struct directory_entry *e = directory_find(d, sid);
    return e && memcmp(e->pid, pid.p, ID_CHARS) == 0 ? e : NULL;
}

static void on_ask(struct directory *d, struct mesh_origin from, const struct claim *asked)
{
    struct claim answer = {.what = CLAIM_ANSWER, .id = asked->id, .result = CLAIM_UNKNOWN};
    struct directory_entry *e = find_claimed(d, asked->pid);
    if (e && e->state == ENTRY_OPEN && e->socket) {
        d->options.on_taken(e->socket);
        e = find_claimed(d, asked->pid);
    }
    if (e && e->state == ENTRY_ABSENT) {
        answer.result = CLAIM_YOURS;
        answer.epoch = e->epoch + 1;
        answer.entry = (struct span){e->bytes, e->bytes_n};
        if (say(d, from, &answer) == 0) {
            directory_say_stale(e, e->is_in_store); /* which says that it is here, until it is told */
            directory_give_away(e, from.tag);
            e->epoch = answer.epoch;
            directory_save_later(e);
        }
        return;
    }
    if (e && e->state == ENTRY_MOVED) {
        answer.result = CLAIM_MOVED;
        answer.moved_to = e->moved_to;
        answer.epoch = e->epoch;
    }
    say(d, from, &answer);
}

/* Nobody waits for it any longer, but nobody else has it. */
static void adopt_late(struct directory *d, struct span bytes, uint64_t epoch)
{
    static struct entry known; /* large; the reactor's thread only */
    char pid[ID_CHARS], sid[ID_CHARS];
    if (entry_read(bytes, &known))
        return;
    memcpy(pid, known.pid.p, ID_CHARS);
    id_public(pid, sid);
    struct directory_entry *e = directory_find(d, sid);
    if (!e || e->state == ENTRY_MOVED)
        e = adopt(d, pid, bytes, epoch);
    if (e)
        directory_save_later(e);
}

static void on_answer(struct directory *d, const struct claim *answer)
{
    struct directory_claim *c = d->claims;
    while (c && c->id != answer->id)
        c = c->next;
    if (!c && answer->result == CLAIM_YOURS)
        adopt_late(d, answer->entry, answer->epoch);
    if (!c || c->in_store)
        return;
    reactor_timer_cancel(d->reactor, &c->timer);
    if (answer->result == CLAIM_YOURS)
        take(c, answer->entry, answer->epoch, true);
    else if (answer->result == CLAIM_MOVED)
        follow(c, answer->moved_to, answer->epoch);
    else
        take_what_is_here(c);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct directory *d = user;
    struct claim claim;
    int err = claim_read(bytes, &claim);
    if (err && err != ERR_KIND)
        metrics_add(d->hub->metrics, METRIC_MESH_REJECTED, 1);
    else if (!err && claim.what == CLAIM_ASK)
        on_ask(d, from, &claim);
    else if (!err)
        on_answer(d, &claim);
}

void directory_listen(struct directory *d)
{
    cluster_listen(d->cluster, MESH_TOPIC_SESSIONS,
                   &(struct cluster_part){.user = d,
                                          .on_set = directory_on_stale,
                                          .on_void = directory_on_stale_void,
                                          .on_message = on_message});
}

void directory_end_claims(struct directory *d)
{
    while (d->claims)
        finish(d->claims, ERR_CLOSED, NULL);
}
