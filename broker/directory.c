/* Claims without a store, on MESH_TOPIC_SESSIONS:
 *
 *   [1, id, pid]                                 give me this one
 *   [2, id, result, epoch, entry, moved_to]      result 0: it is yours; 1: I know of none; 2: moved_to has it */
#include "directory.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "mp.h"
#include "peers.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    ASK_MS = 500,  /* for the answer of the node that has it */
    MOVES_MAX = 4, /* nodes that a claim follows */
    EXPIRE_MS = 1000,
    RESAVE_MS = 1000, /* after the store has refused an entry */
    RESAVE_AT_ONCE = 128,
    RESAVE_PAUSE_MS = 5,
    SAY_CLAIM = 1,
    SAY_CLAIMED = 2,
};

enum claimed { CLAIMED_YOURS, CLAIMED_UNKNOWN, CLAIMED_MOVED };

struct save_wait {
    struct save_wait *next;
    void (*done)(void *user, int err);
    void *user;
};

struct directory_claim {
    struct directory *directory;
    struct directory_claim *next;
    char pid[ID_CHARS], sid[ID_CHARS];
    uint32_t owner;
    unsigned moves;
    uint64_t id;
    bool in_store; /* the store will answer */
    bool is_asked;
    void (*done)(void *user, int err, struct directory_entry *e); /* NULL: cancelled */
    void *user;
    struct timer timer;
};

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
    unsigned n_absent, n_in_store; /* n_in_store: questions that the store still owes */
    uint64_t next_id;
    struct timer expire, resave;
    msgpack_sbuffer scratch;
};

/* ---- entries ---- */

static struct directory_entry *find(const struct directory *d, const char sid[ID_CHARS])
{
    struct directory_entry *e;
    HASH_FIND(hh, d->entries, sid, ID_CHARS, e);
    return e;
}

static void answer(struct save_wait **list, int err)
{
    while (*list) {
        struct save_wait *w = *list;
        *list = w->next;
        w->done(w->user, err);
        free(w);
    }
}

static void unlink_absent(struct directory_entry *e)
{
    struct directory *d = e->directory;
    if (e->older)
        e->older->younger = e->younger;
    else
        d->oldest = e->younger;
    if (e->younger)
        e->younger->older = e->older;
    else
        d->youngest = e->older;
    e->older = e->younger = NULL;
    d->n_absent -= e->state == ENTRY_ABSENT;
}

static void drop_texts(struct directory_entry *e)
{
    free(e->since);
    free(e->nsp);
    free(e->user);
    e->since = e->nsp = e->user = NULL;
}

/* Whoever was given it by a claim has it no longer. */
static void take_back(struct directory_entry *e)
{
    if (e->holder)
        *e->holder = NULL;
    e->holder = NULL;
}

void directory_hold(struct directory_entry *e, struct directory_entry **holder)
{
    take_back(e);
    e->holder = holder;
    *holder = e;
}

void directory_let_go(struct directory_entry *e)
{
    take_back(e);
}

/* Its memory stays until the store has answered. */
static void forget(struct directory_entry *e)
{
    struct directory *d = e->directory;
    take_back(e);
    if (e->state != ENTRY_OPEN)
        unlink_absent(e);
    HASH_DEL(d->entries, e);
    answer(&e->waits, ERR_CLOSED);
    answer(&e->next_waits, ERR_CLOSED);
    drop_texts(e);
    free(e->bytes);
    e->bytes = NULL;
    e->is_freed = true;
    if (!e->is_saving)
        free(e);
}

static void leave_open(struct directory_entry *e, enum directory_state state)
{
    struct directory *d = e->directory;
    e->state = state;
    e->socket = NULL;
    e->expires_ms = reactor_now_ms(d->reactor) + d->options.window_ms;
    e->older = d->youngest;
    if (d->youngest)
        d->youngest->younger = e;
    else
        d->oldest = e;
    d->youngest = e;
    d->n_absent += state == ENTRY_ABSENT;
    if (!timer_pending(&d->expire))
        reactor_timer_set(d->reactor, &d->expire, EXPIRE_MS);
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
}

static void on_dropped(void *user, int err)
{
    struct directory *d = user;
    (void)err;
    d->n_in_store--;
}

/* Its client will not come back: nobody needs it any more. */
static void end(struct directory_entry *e)
{
    struct directory *d = e->directory;
    if (d->store && e->state != ENTRY_MOVED) {
        d->n_in_store++;
        d->store->calls->drop(d->store->store, (struct span){e->pid, ID_CHARS}, e->epoch, on_dropped, d);
    }
    forget(e);
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
}

static void on_expire(struct timer *t)
{
    struct directory *d = container_of(t, struct directory, expire);
    while (d->oldest && d->oldest->expires_ms <= reactor_now_ms(d->reactor))
        end(d->oldest);
    if (d->oldest)
        reactor_timer_set(d->reactor, t, EXPIRE_MS);
}

static char *copy_text(struct span s)
{
    return strndup(s.n ? s.p : "", s.n);
}

int directory_set_user(struct directory_entry *e, struct span user)
{
    char *copy = copy_text(user);
    if (!copy)
        return ERR_MEMORY;
    free(e->user);
    e->user = copy;
    return 0;
}

static struct directory_entry *new_entry(struct directory *d, const char pid[ID_CHARS])
{
    struct directory_entry *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->directory = d;
    memcpy(e->pid, pid, ID_CHARS);
    id_public(pid, e->sid);
    e->epoch = 1;
    HASH_ADD(hh, d->entries, sid, ID_CHARS, e);
    return e;
}

static int set_texts(struct directory_entry *e, struct span nsp, struct span user, struct span since)
{
    e->nsp = copy_text(nsp);
    e->user = copy_text(user);
    e->since = copy_text(since);
    return e->nsp && e->user && e->since ? 0 : ERR_MEMORY;
}

struct directory_entry *directory_open(struct directory *d, struct span nsp, struct span user,
                                       struct span since)
{
    char pid[ID_CHARS];
    id_new(&d->hub->engine->ids, pid);
    struct directory_entry *e = new_entry(d, pid);
    if (e && set_texts(e, nsp, user, since)) {
        forget(e);
        return NULL;
    }
    return e;
}

/* ---- as bytes ---- */

static struct span serialize(struct directory_entry *e)
{
    static struct entry text; /* large; the reactor's thread only */
    struct directory *d = e->directory;
    if (e->state == ENTRY_ABSENT)
        return (struct span){e->bytes, e->bytes_n};
    text = (struct entry){.nsp = span_of(e->nsp),
                          .sid = {e->sid, ID_CHARS},
                          .pid = {e->pid, ID_CHARS},
                          .user = span_of(e->user),
                          .since = span_of(e->since)};
    for (unsigned i = 0; !e->socket && i < e->n_rooms && i < LIMIT_ROOMS_PER_SOCKET; i++)
        text.rooms[text.n_rooms++] = e->rooms[i];
    for (uint32_t i = 0; e->socket && i < e->socket->n_places; i++) {
        const struct room *room = e->socket->places[i].room;
        if (room != e->socket->nsp->all && text.n_rooms < LIMIT_ROOMS_PER_SOCKET)
            text.rooms[text.n_rooms++] = (struct span){room->name, room->name_n};
    }
    msgpack_sbuffer_clear(&d->scratch);
    if (entry_write(&d->scratch, &text))
        return (struct span){NULL, 0};
    return (struct span){d->scratch.data, d->scratch.size};
}

/* From OPEN to ABSENT, with what the socket was in. False: no memory. */
static bool put_away(struct directory_entry *e)
{
    struct span bytes = serialize(e);
    e->bytes = bytes.n ? malloc(bytes.n) : NULL;
    if (!e->bytes)
        return false;
    memcpy(e->bytes, bytes.p, bytes.n);
    e->bytes_n = bytes.n;
    drop_texts(e);
    leave_open(e, ENTRY_ABSENT);
    return true;
}

int directory_enter(struct directory_entry *e, struct socket *s, const struct entry *known)
{
    if (e->state == ENTRY_ABSENT) {
        if (set_texts(e, known->nsp, known->user, known->since))
            return ERR_MEMORY;
        unlink_absent(e);
        e->state = ENTRY_OPEN;
        free(e->bytes);
        e->bytes = NULL;
        metrics_set(e->directory->hub->metrics, METRIC_SESSIONS_ABSENT, e->directory->n_absent);
    }
    e->socket = s;
    e->rooms = NULL;
    e->n_rooms = 0;
    take_back(e);
    return 0;
}

void directory_leave(struct directory_entry *e, bool recoverable)
{
    struct save_wait *waits = NULL;
    if (e->state == ENTRY_MOVED)
        return;
    if (e->state == ENTRY_ABSENT && recoverable)
        return;
    if (!recoverable || !put_away(e)) {
        end(e);
        return;
    }
    /* Who waited for an answer to the socket waits for nothing. */
    waits = e->next_waits;
    e->next_waits = NULL;
    answer(&e->waits, ERR_CLOSED);
    answer(&waits, ERR_CLOSED);
}

static void give_away(struct directory_entry *e, uint32_t to)
{
    struct directory *d = e->directory;
    struct socket *s = e->state == ENTRY_OPEN ? e->socket : NULL;
    char sid[ID_CHARS];
    memcpy(sid, e->sid, ID_CHARS);
    take_back(e);
    if (s)
        d->options.on_taken(s); /* which leaves, recoverably: then it is ABSENT, or gone without memory */
    e = find(d, sid);
    if (!e)
        return;
    if (e->state == ENTRY_OPEN) {
        drop_texts(e);
        leave_open(e, ENTRY_MOVED);
    } else if (e->state == ENTRY_ABSENT) {
        d->n_absent--;
        e->state = ENTRY_MOVED;
    }
    free(e->bytes);
    e->bytes = NULL;
    e->moved_to = to;
}

bool directory_on_enter(struct directory *d, struct span sid, uint64_t epoch, struct mesh_origin from)
{
    struct directory_entry *e = sid.n == ID_CHARS ? find(d, sid.p) : NULL;
    if (!e || e->state == ENTRY_MOVED)
        return true;
    if (epoch < e->epoch || (epoch == e->epoch && from.tag < d->options.self.tag))
        return false;
    log_event(LOG_INFO, "session_taken", LOG_SPAN("sid", sid), LOG_UINT("epoch", epoch),
              LOG_UINT("by", from.tag));
    give_away(e, from.tag);
    return true;
}

/* ---- saving ---- */

static void save_now(struct directory_entry *e);

static void save_later(struct directory *d, uint64_t ms)
{
    if (!timer_pending(&d->resave))
        reactor_timer_set(d->reactor, &d->resave, ms);
}

static void append(struct save_wait **list, struct save_wait **more)
{
    while (*list)
        list = &(*list)->next;
    *list = *more;
    *more = NULL;
}

static void on_saved(void *user, int err)
{
    struct directory_entry *e = user;
    e->directory->n_in_store--;
    e->is_saving = false;
    if (e->is_freed) {
        free(e);
        return;
    }
    struct save_wait *waits = e->waits;
    e->waits = e->next_waits;
    e->next_waits = NULL;
    e->is_unsaved = err == ERR_STORE;
    if (e->is_unsaved)
        save_later(e->directory, RESAVE_MS);
    bool again = e->saves_again && err != ERR_MOVED && e->state == ENTRY_OPEN;
    if (again)
        save_now(e);
    else
        append(&waits, &e->waits); /* the next save will not come */
    if (err == ERR_MOVED && e->state != ENTRY_MOVED)
        give_away(e, 0); /* the store knows to whom */
    answer(&waits, err);
}

static void save_now(struct directory_entry *e)
{
    struct directory *d = e->directory;
    struct span bytes = serialize(e);
    e->saves_again = false;
    e->is_saving = true;
    d->n_in_store++;
    d->store->calls->put(d->store->store, (struct span){e->pid, ID_CHARS}, e->epoch, bytes, on_saved, e);
}

void directory_save(struct directory_entry *e, void (*done)(void *user, int err), void *user)
{
    struct save_wait *w;
    if (!e->directory->store) {
        if (done)
            done(user, ERR_STORE);
        return;
    }
    if (done) {
        w = malloc(sizeof(*w));
        if (!w) {
            done(user, ERR_STORE);
            return;
        }
        *w = (struct save_wait){NULL, done, user};
        append(e->is_saving ? &e->next_waits : &e->waits, &w);
    }
    if (e->is_saving)
        e->saves_again = true;
    else
        save_now(e);
}

static void save_anew(struct directory_entry *e)
{
    struct directory *d = e->directory;
    e->is_unsaved = false;
    if (e->state == ENTRY_MOVED) { /* given away without the store, maybe, which would say that it is here */
        d->n_in_store++;
        d->store->calls->drop(d->store->store, (struct span){e->pid, ID_CHARS}, e->epoch, on_dropped, d);
    } else {
        directory_save(e, NULL, NULL);
    }
}

static void on_resave(struct timer *t)
{
    struct directory *d = container_of(t, struct directory, resave);
    unsigned n = 0;
    for (struct directory_entry *e = d->entries, *next; e && n < RESAVE_AT_ONCE; e = next) {
        next = e->hh.next;
        if (!e->is_unsaved || e->is_saving)
            continue;
        save_anew(e);
        n++;
    }
    if (n == RESAVE_AT_ONCE)
        save_later(d, RESAVE_PAUSE_MS);
}

void directory_resume(struct directory *d)
{
    for (struct directory_entry *e = d->entries; e; e = e->hh.next)
        e->is_unsaved = true;
    reactor_timer_cancel(d->reactor, &d->resave);
    save_later(d, 0);
}

/* ---- claims ---- */

static void go_on(struct directory_claim *c);

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
    e = find(c->directory, c->sid);
    if (!e || e->state != ENTRY_ABSENT)
        finish(c, ERR_NOT_FOUND, NULL);
    else
        finish(c, 0, e);
}

/* The entry with this pid, if this node has it. */
static struct directory_entry *own_entry(const struct directory_claim *c)
{
    struct directory_entry *e = find(c->directory, c->sid);
    return e && e->state != ENTRY_MOVED && memcmp(e->pid, c->pid, ID_CHARS) == 0 ? e : NULL;
}

/* Nobody else has it. What is here, when it was looked for elsewhere, is right then. */
static void take_what_is_here(struct directory_claim *c)
{
    struct directory_entry *e = own_entry(c);
    if (e)
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
    struct directory_entry *e = find(d, sid);
    char *copy = malloc(bytes.n);
    if (e)
        forget(e);
    e = copy ? new_entry(d, pid) : NULL;
    if (!e) {
        free(copy);
        return NULL;
    }
    memcpy(copy, bytes.p, bytes.n);
    e->bytes = copy;
    e->bytes_n = bytes.n;
    e->epoch = epoch;
    leave_open(e, ENTRY_ABSENT);
    return e;
}

/* It is this node's from now on. */
static void take(struct directory_claim *c, struct span bytes, uint64_t epoch)
{
    static struct entry check;
    struct directory *d = c->directory;
    struct directory_entry *e = find(d, c->sid);
    if (entry_read(bytes, &check) || memcmp(check.pid.p, c->pid, ID_CHARS) != 0) {
        take_what_is_here(c);
        return;
    }
    if (e && e->state != ENTRY_MOVED) {
        if (epoch <= e->epoch) { /* somebody was quicker here */
            take_what_is_here(c);
            return;
        }
        give_away(
            e, d->options.self.tag); /* it had been elsewhere since, and this node has not heard of it yet */
    }
    e = adopt(d, c->pid, bytes, epoch);
    finish(c, e ? 0 : ERR_NOT_FOUND, e);
}

static void on_ask_timeout(struct timer *t)
{
    take_what_is_here(container_of(t, struct directory_claim, timer));
}

/* By the mesh: as long as it lives, its owner knows best. */
static void ask_owner(struct directory_claim *c)
{
    struct directory *d = c->directory;
    struct mesh_origin owner;
    struct mp_writer w;
    if (!d->cluster || !peers_find_live(cluster_peers(d->cluster), c->owner, &owner)) {
        take_what_is_here(c);
        return;
    }
    msgpack_sbuffer_clear(&d->scratch);
    mp_begin(&w, &d->scratch);
    mp_put_array(&w, 3);
    mp_put_uint(&w, SAY_CLAIM);
    mp_put_uint(&w, c->id);
    mp_put_text(&w, (struct span){c->pid, ID_CHARS}, ID_CHARS);
    if (mp_end(&w) || cluster_tell(d->cluster, owner, MESH_TOPIC_SESSIONS,
                                   (struct span){d->scratch.data, d->scratch.size})) {
        take_what_is_here(c);
        return;
    }
    c->is_asked = true;
    timer_init(&c->timer, on_ask_timeout);
    reactor_timer_set(d->reactor, &c->timer, ASK_MS);
}

static void follow(struct directory_claim *c, uint32_t owner)
{
    c->owner = owner;
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
        take(c, claim->entry, claim->epoch);
    else if (err == ERR_MOVED)
        follow(c, claim->moved_to);
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
    struct directory_entry *e = find(d, c->sid);
    if (c->owner != d->options.self.tag) {
        if (d->store)
            ask_store(c);
        else
            ask_owner(c);
    } else if (e && e->state == ENTRY_MOVED && memcmp(e->pid, c->pid, ID_CHARS) == 0) {
        if (e->moved_to)
            follow(c, e->moved_to);
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

/* ---- other nodes ---- */

static void say_claimed(struct directory *d, struct mesh_origin to, uint64_t id, enum claimed result,
                        const struct directory_entry *e)
{
    msgpack_sbuffer b;
    struct mp_writer w;
    msgpack_sbuffer_init(&b);
    mp_begin(&w, &b);
    mp_put_array(&w, 6);
    mp_put_uint(&w, SAY_CLAIMED);
    mp_put_uint(&w, id);
    mp_put_uint(&w, result);
    mp_put_uint(&w, e ? e->epoch + 1 : 0);
    mp_put_bin(&w, result == CLAIMED_YOURS ? (struct span){e->bytes, e->bytes_n} : (struct span){"", 0});
    mp_put_uint(&w, e ? e->moved_to : 0);
    if (mp_end(&w) == 0)
        cluster_tell(d->cluster, to, MESH_TOPIC_SESSIONS, (struct span){b.data, b.size});
    msgpack_sbuffer_destroy(&b);
}

static void on_claim(struct directory *d, struct mesh_origin from, uint64_t id, struct span pid)
{
    char sid[ID_CHARS];
    struct directory_entry *e = NULL;
    if (pid.n == ID_CHARS) {
        id_public(pid.p, sid);
        e = find(d, sid);
    }
    if (e && memcmp(e->pid, pid.p, ID_CHARS) != 0)
        e = NULL;
    if (e && e->state == ENTRY_OPEN && e->socket)
        d->options.on_taken(e->socket);
    if (e)
        e = find(d, sid);
    if (e && e->state == ENTRY_ABSENT) {
        say_claimed(d, from, id, CLAIMED_YOURS, e);
        give_away(e, from.tag);
    } else {
        say_claimed(d, from, id, e && e->state == ENTRY_MOVED ? CLAIMED_MOVED : CLAIMED_UNKNOWN, e);
    }
}

/* Nobody waits for it any longer, but nobody else has it. */
static void adopt_late(struct directory *d, struct span bytes, uint64_t epoch)
{
    static struct entry entry;
    char pid[ID_CHARS];
    if (entry_read(bytes, &entry))
        return;
    memcpy(pid, entry.pid.p, ID_CHARS);
    const struct directory_entry *e = find(d, entry.sid.p);
    if (!e || e->state == ENTRY_MOVED)
        adopt(d, pid, bytes, epoch);
}

static void on_claimed_by_mesh(struct directory *d, struct mp_cursor *m)
{
    uint64_t id = mp_get_uint(m), result = mp_get_uint(m), epoch = mp_get_uint(m);
    struct span bytes = mp_get_bin(m);
    uint64_t moved_to = mp_get_uint(m);
    struct directory_claim *c = d->claims;
    while (c && c->id != id)
        c = c->next;
    if (!m->bad && !c && result == CLAIMED_YOURS)
        adopt_late(d, bytes, epoch);
    if (m->bad || !c || c->in_store)
        return;
    reactor_timer_cancel(d->reactor, &c->timer);
    if (result == CLAIMED_YOURS)
        take(c, bytes, epoch);
    else if (result == CLAIMED_MOVED)
        follow(c, (uint32_t)(moved_to & 0xffffff));
    else
        take_what_is_here(c);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct directory *d = user;
    struct mp_cursor m = mp_open(bytes);
    uint64_t n = mp_get_array(&m), what = mp_get_uint(&m);
    if (what == SAY_CLAIM && n >= 3) {
        uint64_t id = mp_get_uint(&m);
        struct span pid = mp_get_text(&m, ID_CHARS);
        if (!m.bad)
            on_claim(d, from, id, pid);
    } else if (what == SAY_CLAIMED && n >= 6) {
        on_claimed_by_mesh(d, &m);
    }
}

/* ---- start and end ---- */

struct directory *directory_new(struct reactor *r, struct hub *h, const struct directory_options *o)
{
    struct directory *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->reactor = r;
    d->hub = h;
    d->options = *o;
    timer_init(&d->expire, on_expire);
    timer_init(&d->resave, on_resave);
    msgpack_sbuffer_init(&d->scratch);
    return d;
}

void directory_use(struct directory *d, const struct store *store, struct cluster *cluster)
{
    d->store = store;
    d->cluster = cluster;
    if (cluster)
        cluster_listen(cluster, MESH_TOPIC_SESSIONS,
                       &(struct cluster_part){.user = d, .on_message = on_message});
}

/* The store has been told to answer everything before. */
void directory_free(struct directory **dp)
{
    struct directory *d = *dp;
    struct directory_entry *e, *tmp;
    if (!d)
        return;
    reactor_timer_cancel(d->reactor, &d->expire);
    reactor_timer_cancel(d->reactor, &d->resave);
    while (d->claims)
        finish(d->claims, ERR_CLOSED, NULL);
    HASH_ITER(hh, d->entries, e, tmp)
    {
        e->is_saving = false;
        forget(e);
    }
    msgpack_sbuffer_destroy(&d->scratch);
    free(d);
    *dp = NULL;
}

unsigned directory_absent(const struct directory *d)
{
    return d->n_absent;
}
