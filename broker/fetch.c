#include "fetch.h"
#include "archive_private.h"
#include "container.h"
#include "err.h"
#include "topic.h"
#include <stdlib.h>

/* ---- whom it concerns ---- */

static struct interest *find_interest(const struct archive *a, struct span nsp, struct span room)
{
    char name[TOPIC_BYTES];
    struct interest *i = NULL;
    if (nsp.n <= LIMIT_NAMESPACE_BYTES && room.n <= LIMIT_ROOM_BYTES)
        HASH_FIND(hh, a->interests, name, topic_name(name, nsp, room), i);
    return i;
}

static int add_wish(struct fetch *f, struct span room)
{
    struct archive *a = f->archive;
    struct interest *i = find_interest(a, f->options.nsp, room);
    struct wish *w = &f->wish[f->n_wishes];
    char name[TOPIC_BYTES];
    if (!i && (f->options.nsp.n > LIMIT_NAMESPACE_BYTES || room.n > LIMIT_ROOM_BYTES))
        return ERR_LIMIT;
    if (!i) {
        uint32_t n = topic_name(name, f->options.nsp, room);
        i = calloc(1, sizeof(*i) + n);
        if (!i)
            return ERR_MEMORY;
        i->n = n;
        memcpy(i->name, name, n);
        HASH_ADD(hh, a->interests, name, n, i);
    }
    *w = (struct wish){.next = i->wishes, .at = &i->wishes, .interest = i, .fetch = f};
    if (w->next)
        w->next->at = &w->next;
    i->wishes = w;
    f->n_wishes++;
    return 0;
}

static void drop_wishes(struct fetch *f)
{
    while (f->n_wishes > 0) {
        struct wish *w = &f->wish[--f->n_wishes];
        *w->at = w->next;
        if (w->next)
            w->next->at = w->at;
        if (w->interest->wishes)
            continue;
        HASH_DEL(f->archive->interests, w->interest);
        free(w->interest);
    }
}

static bool is_in(const struct fetch *f, struct span room)
{
    for (unsigned i = 0; i < f->options.n_rooms; i++)
        if (span_eq(room, f->options.rooms[i]))
            return true;
    return span_eq(room, f->options.sid);
}

static bool is_for(const struct fetch *f, const struct mesh_emit *e)
{
    if (e->skip.n && span_eq(e->skip, f->options.sid))
        return false;
    for (unsigned i = 0; i < e->n_except; i++)
        if (is_in(f, e->except[i]))
            return false;
    return true;
}

/* ---- legs ---- */

static void unref(struct archive *a, struct record *r)
{
    a->held_bytes -= sizeof(r);
    if (--r->refs > 0)
        return;
    a->held_bytes -= sizeof(*r) + r->n;
    free(r);
}

static void detach(struct leg *leg)
{
    if (!leg->sweep && !leg->is_due)
        return;
    leg->fetch->pending--;
    leg->is_due = false;
    if (!leg->sweep)
        return;
    *leg->at = leg->next;
    if (leg->next)
        leg->next->at = leg->at;
    leg->sweep = NULL;
}

static int attach(struct leg *leg)
{
    struct sweep *s = archive_sweep(leg->fetch->archive, leg->origin);
    if (!s)
        return ERR_MEMORY;
    leg->is_due = leg->takes = false;
    leg->sweep = s;
    leg->next = s->legs;
    leg->at = &s->legs;
    if (leg->next)
        leg->next->at = &leg->next;
    s->legs = leg;
    return 0;
}

/* ---- whose turn it is ---- */

/* done is called at the end of the turn: nothing here changes under who is in the middle of it. */
static void is_done(struct fetch *f, int err)
{
    struct archive *a = f->archive;
    for (struct leg *leg = f->legs; leg; leg = leg->next_of_fetch)
        detach(leg);
    if (f->done_at)
        return;
    f->err = err;
    f->next_done = NULL;
    f->done_at = a->done_end;
    *a->done_end = f;
    a->done_end = &f->next_done;
    reactor_defer(a->reactor, &a->tell, REACTOR_WORK);
}

static void forget_done(struct fetch *f)
{
    struct archive *a = f->archive;
    if (!f->done_at)
        return;
    *f->done_at = f->next_done;
    if (f->next_done)
        f->next_done->done_at = f->done_at;
    else
        a->done_end = f->done_at;
    f->done_at = NULL;
}

static void wait_for_turn(struct fetch *f)
{
    struct archive *a = f->archive;
    f->next_waiting = NULL;
    f->waiting_at = a->waiting_end;
    *a->waiting_end = f;
    a->waiting_end = &f->next_waiting;
}

static void forget_waiting(struct fetch *f)
{
    struct archive *a = f->archive;
    if (!f->waiting_at)
        return;
    *f->waiting_at = f->next_waiting;
    if (f->next_waiting)
        f->next_waiting->waiting_at = f->waiting_at;
    else
        a->waiting_end = f->waiting_at;
    f->waiting_at = NULL;
}

void fetch_give_up(struct fetch *f, int err)
{
    enum metric why = err == ERR_STORE       ? METRIC_RECOVERY_READS_STORE
                      : err == ERR_NOT_FOUND ? METRIC_RECOVERY_READS_GONE
                                             : METRIC_RECOVERY_READS_BOUND;
    metrics_add(f->archive->metrics, why, 1);
    is_done(f, err);
}

static void take_turn(struct fetch *f)
{
    int err = 0;
    f->archive->active += !f->is_active;
    f->is_active = true;
    for (struct leg *leg = f->legs; leg && !err; leg = leg->next_of_fetch)
        if (leg->is_due)
            err = attach(leg);
    if (err)
        fetch_give_up(f, err);
}

void fetches_tell(struct reactor_task *task)
{
    struct archive *a = container_of(task, struct archive, tell);
    while (a->done) {
        struct fetch *f = a->done;
        forget_done(f);
        f->options.done(f->options.user, f->err);
    }
    while (a->waiting && a->active < LIMIT_RECOVERY_READING) {
        struct fetch *f = a->waiting;
        forget_waiting(f);
        take_turn(f);
    }
    archive_go_on(a);
}

void leg_settle(struct leg *leg)
{
    detach(leg);
    if (leg->fetch->pending == 0)
        is_done(leg->fetch, 0);
}

/* ---- taking what is read ---- */

static struct record *new_record(struct archive *a, const struct mesh_record *from)
{
    struct record *r = NULL;
    if (a->held_bytes + sizeof(*r) + from->raw.n <= LIMIT_RECOVERY_HELD_BYTES)
        r = malloc(sizeof(*r) + from->raw.n);
    if (!r)
        return NULL;
    *r = (struct record){.seq = from->seq, .n = from->raw.n};
    memcpy(r->raw, from->raw.p, from->raw.n);
    a->held_bytes += sizeof(*r) + r->n;
    return r;
}

static bool has_room(struct leg *leg)
{
    if (leg->n < leg->cap)
        return true;
    unsigned cap = leg->cap ? 2 * leg->cap : 8;
    struct record **more = realloc(leg->record, cap * sizeof(struct record *));
    if (!more)
        return false;
    leg->record = more;
    leg->cap = cap;
    return true;
}

static int keep(struct leg *leg, const struct mesh_record *from, struct record **shared)
{
    struct fetch *f = leg->fetch;
    const struct mesh_emit *e = &from->emit;
    uint64_t bytes = e->event.n + e->args.n;
    for (unsigned i = 0; i < e->n_attachments; i++)
        bytes += e->attachments[i].n;
    f->messages += 1 + e->n_attachments;
    f->bytes += bytes;
    if (f->messages > f->options.max_messages || f->bytes > f->options.max_bytes)
        return ERR_LIMIT;
    if (!*shared)
        *shared = new_record(f->archive, from);
    if (!*shared || !has_room(leg))
        return ERR_LIMIT;
    (*shared)->refs++;
    f->archive->held_bytes += sizeof(*shared);
    leg->record[leg->n++] = *shared;
    return 0;
}

static struct leg *leg_of(const struct fetch *f, const struct sweep *s)
{
    struct leg *leg = f->legs;
    while (leg && leg->sweep != s)
        leg = leg->next_of_fetch;
    return leg;
}

/* Once for each client, in however many of the rooms it is. */
static void offer(struct sweep *s, struct span room, struct record **shared)
{
    const struct mesh_record *record = &s->archive->record;
    const struct interest *i = find_interest(s->archive, record->emit.nsp, room);
    for (const struct wish *w = i ? i->wishes : NULL; w; w = w->next) {
        struct leg *leg = leg_of(w->fetch, s);
        if (!leg || !leg->takes || record->seq < leg->wanted ||
            (leg->n > 0 && leg->record[leg->n - 1]->seq >= record->seq) || !is_for(w->fetch, &record->emit))
            continue;
        int err = keep(leg, record, shared);
        if (err)
            fetch_give_up(w->fetch, err);
    }
}

void fetches_offer(struct sweep *s)
{
    struct archive *a = s->archive;
    const struct mesh_emit *e = &a->record.emit;
    struct record *shared = NULL;
    if (a->record.kind != MESH_EMIT || e->is_volatile)
        return;
    if (e->n_to == 0)
        offer(s, (struct span){"", 0}, &shared);
    for (unsigned i = 0; i < e->n_to; i++)
        offer(s, e->to[i], &shared);
    if (shared && shared->refs == 0) { /* there was no memory for where it was to go */
        a->held_bytes -= sizeof(*shared) + shared->n;
        free(shared);
    }
}

/* ---- life ---- */

static int copy_names(struct fetch *f, const struct fetch_options *o)
{
    size_t bytes = o->nsp.n + o->sid.n;
    for (unsigned i = 0; i < o->n_rooms; i++)
        bytes += o->rooms[i].n;
    f->names = malloc(bytes + 1);
    f->rooms = calloc(o->n_rooms + 1, sizeof(*f->rooms));
    f->wish = calloc(o->n_rooms + 2, sizeof(*f->wish));
    if (!f->names || !f->rooms || !f->wish)
        return ERR_MEMORY;
    char *p = f->names;
    f->options = *o;
    f->options.rooms = f->rooms;
    f->options.nsp.p = p;
    p = mempcpy(p, o->nsp.p, o->nsp.n);
    f->options.sid.p = p;
    p = mempcpy(p, o->sid.p, o->sid.n);
    for (unsigned i = 0; i < o->n_rooms; i++) {
        f->rooms[i] = (struct span){p, o->rooms[i].n};
        p = mempcpy(p, o->rooms[i].p, o->rooms[i].n);
    }
    return 0;
}

struct fetch *fetch_new(struct archive *a, const struct fetch_options *o)
{
    struct fetch *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->archive = a;
    metrics_set(a->metrics, METRIC_RECOVERY_WAITING, ++a->fetches);
    int err = copy_names(f, o);
    if (!err)
        err = add_wish(f, (struct span){"", 0});
    if (!err)
        err = add_wish(f, f->options.sid);
    for (unsigned i = 0; i < o->n_rooms && !err; i++)
        err = add_wish(f, f->rooms[i]);
    if (err)
        fetch_free(&f);
    return f;
}

void fetch_free(struct fetch **fp)
{
    struct fetch *f = *fp;
    if (!f)
        return;
    struct archive *a = f->archive;
    forget_done(f);
    forget_waiting(f);
    drop_wishes(f);
    while (f->legs) {
        struct leg *leg = f->legs;
        f->legs = leg->next_of_fetch;
        detach(leg);
        while (leg->n > 0)
            unref(a, leg->record[--leg->n]);
        free(leg->record);
        free(leg);
    }
    archive_tell_held(a);
    metrics_set(a->metrics, METRIC_RECOVERY_WAITING, --a->fetches);
    a->active -= f->is_active;
    if (a->waiting)
        reactor_defer(a->reactor, &a->tell, REACTOR_WORK);
    free(f->wish);
    free(f->rooms);
    free(f->names);
    free(f);
    *fp = NULL;
}

static struct leg *obtain_leg(struct fetch *f, struct mesh_origin origin)
{
    struct leg **at = &f->legs;
    unsigned n = 0;
    for (; *at && ((*at)->origin.tag != origin.tag || (*at)->origin.boot != origin.boot); n++)
        at = &(*at)->next_of_fetch;
    if (!*at && n < LIMIT_OFFSET_ORIGINS && (*at = calloc(1, sizeof(**at))))
        **at = (struct leg){.fetch = f, .origin = origin};
    return *at;
}

int fetch_want(struct fetch *f, struct mesh_origin origin, uint64_t first)
{
    struct leg *leg = obtain_leg(f, origin);
    if (!leg)
        return ERR_MEMORY;
    if (leg->sweep || leg->is_due)
        return 0;
    if (leg->wanted < first)
        leg->wanted = first;
    leg->is_due = true;
    f->pending++;
    return 0;
}

void fetch_begin(struct fetch *f)
{
    struct archive *a = f->archive;
    if (f->pending == 0)
        is_done(f, 0);
    else if (f->is_active || a->active < LIMIT_RECOVERY_READING)
        take_turn(f);
    else
        wait_for_turn(f);
    archive_go_on(a);
}

bool fetch_part(const struct fetch *f, unsigned i, struct fetch_part *out)
{
    const struct leg *leg = f->legs;
    while (leg && i-- > 0)
        leg = leg->next_of_fetch;
    if (leg)
        *out = (struct fetch_part){.origin = leg->origin, .last = leg->wanted - 1, .n = leg->n};
    return leg != NULL;
}

struct span fetch_record(const struct fetch *f, unsigned i, unsigned k, uint64_t *seq)
{
    const struct leg *leg = f->legs;
    while (i-- > 0)
        leg = leg->next_of_fetch;
    *seq = leg->record[k]->seq;
    return (struct span){leg->record[k]->raw, leg->record[k]->n};
}
