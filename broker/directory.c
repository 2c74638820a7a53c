#include "container.h"
#include "directory_private.h"
#include "err.h"
#include "fanout.h"
#include "log.h"
#include "recovery.h"
#include <stdlib.h>

enum {
    EXPIRE_MS = 1000,
    RESAVE_MS = 1000, /* after the store has refused an entry */
    RESAVE_AT_ONCE = 128,
    RESAVE_PAUSE_MS = 5,
};

struct save_wait {
    struct save_wait *next;
    void (*done)(void *user, int err);
    void *user;
};

/* ---- entries ---- */

struct directory_entry *directory_find(const struct directory *d, const char sid[ID_CHARS])
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
    free(e->data);
    e->since = e->nsp = e->user = e->data = NULL;
    e->nsp_n = 0;
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
void directory_forget(struct directory_entry *e)
{
    struct directory *d = e->directory;
    take_back(e);
    directory_say_stale(e, false);
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

void directory_leave_open(struct directory_entry *e, enum directory_state state)
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
    directory_forget(e);
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
}

static void on_expire(struct timer *t)
{
    struct directory *d = container_of(t, struct directory, expire);
    while (d->oldest && d->oldest->expires_ms <= reactor_now_ms(d->reactor))
        end(d->oldest);
    directory_expire_stale(d);
    if (d->oldest || d->stale)
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

int directory_set_data(struct directory_entry *e, struct span data)
{
    char *copy = data.n ? copy_text(data) : NULL;
    if (data.n && !copy)
        return ERR_MEMORY;
    free(e->data);
    e->data = copy;
    return 0;
}

struct directory_entry *directory_new_entry(struct directory *d, const char pid[ID_CHARS])
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

/* A namespace may hold a NUL; JSON and offsets have none. */
static int set_texts(struct directory_entry *e, struct span nsp, struct span user, struct span since)
{
    e->nsp = malloc(nsp.n);
    if (e->nsp)
        memcpy(e->nsp, nsp.p, nsp.n);
    e->nsp_n = nsp.n;
    e->user = copy_text(user);
    e->since = copy_text(since);
    return e->nsp && e->user && e->since ? 0 : ERR_MEMORY;
}

struct directory_entry *directory_open(struct directory *d, struct span nsp, struct span user,
                                       struct span since)
{
    char pid[ID_CHARS];
    id_new(&d->hub->engine->ids, pid);
    struct directory_entry *e = directory_new_entry(d, pid);
    if (e && set_texts(e, nsp, user, since)) {
        directory_forget(e);
        return NULL;
    }
    return e;
}

/* ---- as bytes ---- */

/* The first offset of a session, and its version. */
static struct span since_of(const struct directory_entry *e)
{
    static struct offset since; /* large; the reactor's thread only */
    static char text[LIMIT_OFFSET_BYTES];
    ssize_t n = -1;
    if (offset_decode(span_of(e->since), &since) == 0 && recovery_put_version(&since, e->version) == 0)
        n = offset_encode(&since, text, sizeof(text));
    return n < 0 ? span_of(e->since) : (struct span){text, (size_t)n};
}

static struct span serialize(struct directory_entry *e)
{
    static struct entry text; /* large; the reactor's thread only */
    struct directory *d = e->directory;
    if (e->state == ENTRY_ABSENT)
        return (struct span){e->bytes, e->bytes_n};
    text = (struct entry){.nsp = {e->nsp, e->nsp_n},
                          .sid = {e->sid, ID_CHARS},
                          .pid = {e->pid, ID_CHARS},
                          .user = span_of(e->user),
                          .data = span_of(e->data ? e->data : ""),
                          .since = since_of(e)};
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
    directory_leave_open(e, ENTRY_ABSENT);
    return true;
}

/* The store has what has changed, or has refused it: the client is told by its offsets, as it depends on that whom it may
 * be taken from. */
static void set_unsaved_version(struct directory_entry *e, uint64_t version)
{
    struct hub *h = e->directory->hub;
    if (e->unsaved_version == version)
        return;
    e->unsaved_version = version;
    if (e->state != ENTRY_OPEN || !e->socket || !h->recovery)
        return;
    if (recovery_say_unsaved(e->socket, version))
        session_close_soon(e->socket->session, CLOSE_FORCED); /* it must not hear that all is well */
    /* What waits in line is counted in the offset, but has not been sent. */
    else if (version || fanout_is_idle(h->fanout))
        recovery_tell_offset(h->recovery, e->socket);
}

int directory_enter(struct directory_entry *e, struct socket *s, const struct entry *known)
{
    if (e->unsaved_version && recovery_say_unsaved(s, e->unsaved_version))
        return ERR_MEMORY;
    if (e->state == ENTRY_ABSENT) {
        if (set_texts(e, known->nsp, known->user, known->since) || directory_set_data(e, known->data))
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

void directory_give_away(struct directory_entry *e, uint32_t to)
{
    struct directory *d = e->directory;
    struct socket *s = e->state == ENTRY_OPEN ? e->socket : NULL;
    char sid[ID_CHARS];
    memcpy(sid, e->sid, ID_CHARS);
    take_back(e);
    if (s)
        d->options.on_taken(s); /* which leaves, recoverably: then it is ABSENT, or gone without memory */
    e = directory_find(d, sid);
    if (!e)
        return;
    if (e->state == ENTRY_OPEN) {
        drop_texts(e);
        directory_leave_open(e, ENTRY_MOVED);
    } else if (e->state == ENTRY_ABSENT) {
        d->n_absent--;
        e->state = ENTRY_MOVED;
    }
    free(e->bytes);
    e->bytes = NULL;
    e->moved_to = to;
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
}

/* The client that is here, if there is one, has no session here any more. Returns what is left of the entry, or NULL. */
static struct directory_entry *let_client_go(struct directory *d, struct directory_entry *e)
{
    char sid[ID_CHARS];
    memcpy(sid, e->sid, ID_CHARS);
    take_back(e);
    if (e->state == ENTRY_OPEN && e->socket)
        d->options.on_taken(e->socket);
    return directory_find(d, sid);
}

/* Another node has taken this session at the same time, one of them by the store and one from its owner, and does not have
 * what has happened here since. If the client was here it comes back with the offset that it has from here, and has it. */
static void stand_back(struct directory *d, struct directory_entry *e)
{
    e = let_client_go(d, e);
    if (!e || e->state != ENTRY_ABSENT)
        return;
    e->epoch++;
    directory_save_later(e);
}

/* Another node has it, as it was in the store once. What has become of it here stays for the client that comes with an offset
 * from here: it has heard nothing of the other. */
static void let_other_have(struct directory *d, struct directory_entry *e, uint64_t epoch, uint32_t by)
{
    e = let_client_go(d, e);
    if (!e)
        return;
    if (e->state != ENTRY_ABSENT) {
        directory_give_away(e, by);
        return;
    }
    d->n_absent--;
    e->state = ENTRY_MOVED;
    e->moved_to = by;
    e->epoch = epoch;
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
}

void directory_have_back(struct directory_entry *e)
{
    struct directory *d = e->directory;
    e->state = ENTRY_ABSENT;
    e->epoch++;
    d->n_absent++;
    metrics_set(d->hub->metrics, METRIC_SESSIONS_ABSENT, d->n_absent);
    directory_save_later(e);
}

bool directory_on_enter(struct directory *d, struct span sid, uint64_t epoch, struct mesh_origin from)
{
    struct directory_entry *e = sid.n == ID_CHARS ? directory_find(d, sid.p) : NULL;
    if (!e || e->state == ENTRY_MOVED)
        return true;
    if (epoch < e->epoch || (epoch == e->epoch && from.tag < d->options.self.tag))
        return false;
    log_event(LOG_INFO, "session_taken", LOG_SPAN("sid", sid), LOG_UINT("epoch", epoch),
              LOG_UINT("by", from.tag));
    if (epoch == e->epoch) {
        stand_back(d, e);
        return true;
    }
    let_other_have(d, e, epoch, from.tag);
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

static void note_saved(struct directory_entry *e, int err)
{
    e->is_unsaved = err == ERR_STORE;
    directory_say_stale(e, e->is_unsaved && e->is_in_store);
    if (e->is_unsaved)
        save_later(e->directory, RESAVE_MS);
    if (err != ERR_MOVED)
        set_unsaved_version(e, err ? e->version : 0); /* before anybody is answered */
}

/* The store has answered. False: nobody has the entry any more. */
static bool end_saving(struct directory_entry *e)
{
    bool is_freed = e->is_freed;
    e->directory->n_in_store--;
    e->is_saving = false;
    if (is_freed)
        free(e);
    return !is_freed;
}

static void on_saved(void *user, int err)
{
    struct directory_entry *e = user;
    if (!end_saving(e))
        return;
    struct save_wait *waits = e->waits;
    e->waits = e->next_waits;
    e->next_waits = NULL;
    e->is_in_store |= err == 0;
    if (e->state != ENTRY_MOVED)
        note_saved(e, err);
    bool again = e->saves_again && err != ERR_MOVED && e->state == ENTRY_OPEN;
    if (again)
        save_now(e);
    else
        append(&waits, &e->waits); /* the next save will not come */
    if (err == ERR_MOVED && e->state != ENTRY_MOVED)
        directory_give_away(e, 0); /* the store knows to whom */
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

static void save_soon(struct directory_entry *e)
{
    if (e->is_saving)
        e->saves_again = true;
    else
        save_now(e);
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
    e->version++;
    save_soon(e);
}

void directory_save_later(struct directory_entry *e)
{
    if (!e->directory->store)
        return;
    e->is_unsaved = true;
    save_later(e->directory, RESAVE_PAUSE_MS);
}

static void on_dropped_moved(void *user, int err)
{
    struct directory_entry *e = user;
    if (!end_saving(e))
        return;
    e->is_unsaved = err == ERR_STORE;
    if (e->is_unsaved)
        save_later(e->directory, RESAVE_MS);
    else
        directory_say_stale(e, false);
}

static void save_anew(struct directory_entry *e)
{
    struct directory *d = e->directory;
    e->is_unsaved = false;
    if (e->state != ENTRY_MOVED) {
        save_soon(e);
        return;
    }
    /* Given away without the store, maybe, which says that it is here. */
    e->is_saving = true;
    d->n_in_store++;
    d->store->calls->drop(d->store->store, (struct span){e->pid, ID_CHARS}, e->epoch, on_dropped_moved, e);
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
        directory_listen(d);
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
    directory_end_claims(d);
    directory_free_stale(d);
    HASH_ITER(hh, d->entries, e, tmp)
    {
        e->is_saving = false;
        directory_forget(e);
    }
    msgpack_sbuffer_destroy(&d->scratch);
    free(d);
    *dp = NULL;
}

unsigned directory_absent(const struct directory *d)
{
    return d->n_absent;
}
