/* A hole is a number that somebody is known to have (a later record, or a heartbeat says so) and this node has not.
 * It is asked for at once, then every REPAIR_AGAIN_MS from the next one who may have it. What comes behind it waits.
 * Without any progress for HOLE_WAIT_MS, or when everybody says it is gone, it is declared lost. */
#include "container.h"
#include "err.h"
#include "log.h"
#include "peers_private.h"
#include <stdlib.h>

/* ---- lists of waiting records ---- */

bool held_fits(const struct held_list *list, struct span raw)
{
    return list->bytes == 0 || list->bytes + sizeof(struct held) + raw.n <= HELD_BYTES;
}

int held_add(struct held_list *list, uint64_t seq, struct span raw)
{
    struct held *h = malloc(sizeof(*h) + raw.n), **at = &list->first;
    if (!h)
        return ERR_MEMORY;
    h->seq = seq;
    h->n = raw.n;
    memcpy(h->raw, raw.p, raw.n);
    /* Nearly always the last. */
    if (list->first && container_of(list->end, struct held, next)->seq < seq)
        at = list->end;
    while (*at && (*at)->seq < seq)
        at = &(*at)->next;
    if (*at && (*at)->seq == seq) {
        free(h);
        return 0;
    }
    h->next = *at;
    *at = h;
    if (!h->next)
        list->end = &h->next;
    list->bytes += sizeof(*h) + raw.n;
    return 0;
}

struct held *held_take(struct held_list *list)
{
    struct held *h = list->first;
    list->first = h->next;
    if (!list->first)
        list->end = &list->first;
    list->bytes -= sizeof(*h) + h->n;
    return h;
}

void held_drop_all(struct held_list *list)
{
    while (list->first)
        free(held_take(list));
}

/* ---- taking records in ---- */

bool records_read(struct peers *m, const char *raw, size_t n)
{
    struct mesh_reader r = {raw, raw + n};
    return mesh_read(&r, &m->record) == 1;
}

void records_tell_gap(struct peers *m, struct origin *o, uint64_t first, uint64_t last)
{
    log_event(LOG_WARN, "mesh_gap", LOG_UINT("tag", o->id.tag), LOG_UINT("boot", o->id.boot),
              LOG_UINT("from", first), LOG_UINT("to", last));
    metrics_add(m->metrics, METRIC_MESH_LOST, last - first + 1);
    m->user.on_gap(m->user.user, o->id, first, last);
}

/* It has emitted before it met this node, which was ready then and had clients. */
static void tell_missed(struct peers *m, struct origin *o, uint64_t first)
{
    if (!m->is_ready || first <= o->missed_to)
        return;
    o->missed_to = o->fill_to;
    records_tell_gap(m, o, first, o->fill_to);
}

static void deliver(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (record->kind == MESH_EMIT && record->seq <= o->fill_to)
        tell_missed(m, o, record->seq);
    if (record->kind == MESH_EMIT && record->seq > o->fill_to)
        m->user.on_emit(m->user.user, o->id, record->seq, &record->emit);
    else if (record->kind == MESH_EMIT && m->user.on_past)
        m->user.on_past(m->user.user, o->id, record->seq, &record->emit);
    else if (is_presence(record->kind))
        presence_take(m, o, record);
}

static void keep(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (o->state == ORIGIN_DEAD && peers_now_ms(m) - o->last_ms > peers_kept_ms(m))
        return;
    const struct mesh_emit *emit = record->kind == MESH_EMIT ? &record->emit : NULL;
    if (ring_add(m->ring, peers_now_ms(m), o->id, record->seq, record->raw, emit)) {
        ring_restart(m->ring, o->id);
        ring_add(m->ring, peers_now_ms(m), o->id, record->seq, record->raw, emit);
    }
}

/* A node of version 1 has kept this in place of a SET: what it said is only in a snapshot. */
static bool is_stand_in(const struct mesh_record *record)
{
    return record->kind == MESH_PART && record->presence.sid.n == 0;
}

static void accept_next(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    o->received = record->seq;
    o->progress_ms = peers_now_ms(m);
    o->waits_since_ms = 0;
    if (o->newest < record->seq)
        o->newest = record->seq;
    keep(m, o, record);
    if (is_stand_in(record))
        presence_forget(o);
    deliver(m, o, record);
}

/* A sender that has moved here from another node: what it said there comes first, if it comes at all. Many may have
 * moved from a node that has died with its last words: all of them together wait for these once. */
static bool waits_for_other(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    const struct mesh_emit *emit = &record->emit;
    if (record->kind != MESH_EMIT || emit->after_origin.tag == 0 || origin_is_filling(o))
        return false;
    struct origin *other = peers_find_origin(m, emit->after_origin);
    if (!other || other == o || other->received >= emit->after_seq || other->vain == other->received + 1)
        return false;
    if (o->waits_since_ms == 0)
        o->waits_since_ms = peers_now_ms(m);
    if (peers_now_ms(m) - o->waits_since_ms < HOLE_WAIT_MS)
        return true;
    other->vain = other->received + 1;
    return false;
}

static bool can_accept(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    return (!m->is_busy || record->kind != MESH_EMIT) && !waits_for_other(m, o, record);
}

void records_go_on(struct peers *m, struct origin *o)
{
    while (o->held.first && o->held.first->seq <= o->received + 1) {
        struct held *h = o->held.first;
        bool is_next = h->seq == o->received + 1 && records_read(m, h->raw, h->n);
        if (is_next && !can_accept(m, o, &m->record))
            return;
        held_take(&o->held);
        if (is_next)
            accept_next(m, o, &m->record);
        free(h);
    }
}

void records_take(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (record->seq <= o->received) {
        if (!is_stand_in(record)) /* which comes behind what it stands for */
            metrics_add(m->metrics, METRIC_MESH_DUPLICATES, 1);
        return;
    }
    if (record->seq == o->received + 1 && can_accept(m, o, record)) {
        accept_next(m, o, record);
        return;
    }
    o->came_ms = peers_now_ms(m);
    if (o->newest < record->seq)
        o->newest = record->seq;
    if (held_fits(&o->held, record->raw))
        held_add(&o->held, record->seq, record->raw);
}

/* ---- holes ---- */

bool origin_has(const struct origin *who, struct mesh_origin of, uint64_t seq)
{
    for (unsigned i = 0; i < who->n_heard; i++)
        if (same_origin(who->heard[i].origin, of))
            return who->heard[i].seq >= seq;
    return false;
}

/* Whom to ask, in turn: the origin itself while it lives, then others who have the number. */
static unsigned list_able(const struct peers *m, const struct origin *o,
                          struct peer *able[LIMIT_OFFSET_ORIGINS])
{
    unsigned n = 0;
    if (o->state == ORIGIN_LIVE && peers_of_origin(m, o))
        able[n++] = peers_of_origin(m, o);
    for (struct peer *p = m->peers; p && n < LIMIT_OFFSET_ORIGINS; p = p->next)
        if (p->origin && p->origin != o && p->origin->state == ORIGIN_LIVE &&
            origin_has(p->origin, o->id, o->received + 1))
            able[n++] = p;
    return n;
}

static struct peer *whom_to_ask(const struct peers *m, const struct origin *o, unsigned nth)
{
    struct peer *able[LIMIT_OFFSET_ORIGINS];
    unsigned n = list_able(m, o, able);
    return n ? able[nth % n] : NULL;
}

/* For the holes of a dead one's tail, for all of them once. */
static bool has_waited(const struct peers *m, const struct origin *o)
{
    uint64_t now = peers_now_ms(m);
    return o->state == ORIGIN_DEAD && now - o->died_ms > HOLE_WAIT_MS && now - o->came_ms > HOLE_WAIT_MS;
}

static void declare_lost(struct peers *m, struct origin *o, uint64_t last)
{
    uint64_t first = o->received + 1;
    bool is_silent = origin_is_filling(o); /* it is before this node's time: nobody here waits for it */
    if (is_silent && last > o->fill_to)
        last = o->fill_to;
    o->received = last;
    o->in_hole = false;
    o->progress_ms = peers_now_ms(m);
    o->waits_since_ms = 0;
    ring_restart(m->ring, o->id);
    presence_lose(o, last);
    if (is_silent)
        tell_missed(m, o, first);
    else
        records_tell_gap(m, o, first, last);
    records_go_on(m, o);
}

static void ask_for_repair(struct peers *m, struct origin *o)
{
    uint64_t now = peers_now_ms(m), to = o->held.first ? o->held.first->seq - 1 : o->newest;
    uint64_t last_ms = o->asked_ms > o->progress_ms ? o->asked_ms : o->progress_ms;
    bool is_answered = o->asked_to && o->received >= o->asked_to;
    struct peer *p;
    if (o->asked_ms && !is_answered && now - last_ms < REPAIR_AGAIN_MS)
        return;
    if (o->asked_ms && !is_answered)
        o->asked_n++; /* somebody else may answer */
    p = whom_to_ask(m, o, o->asked_n);
    o->asked_ms = now;
    o->asked_to = 0;
    if (!p)
        return;
    metrics_add(m->metrics, METRIC_MESH_REPAIRS_ASKED, 1);
    peers_send_record(m, p,
                      &(struct mesh_record){
                          .kind = MESH_REPAIR,
                          .repair = {.origin = o->id, .from = o->received + 1, .to = to},
                      });
}

static void begin_hole(struct peers *m, struct origin *o)
{
    if (!origin_is_filling(o))
        metrics_add(m->metrics, METRIC_MESH_HOLES, 1);
    o->in_hole = true;
    o->progress_ms = peers_now_ms(m);
    o->asked_ms = o->asked_to = 0;
    o->asked_n = 0;
}

/* Of who is dead nobody has it. */
static bool is_hopeless(const struct peers *m, const struct origin *o)
{
    return o->held.first && has_waited(m, o) && !whom_to_ask(m, o, 0);
}

static bool is_at_hole(const struct peers *m, const struct origin *o)
{
    bool has_next = o->held.first && o->held.first->seq == o->received + 1;
    return o->received < o->newest && !has_next && !m->is_busy;
}

void records_look_for_holes(struct peers *m, struct origin *o)
{
    records_go_on(m, o);
    while (is_at_hole(m, o)) {
        if (!o->in_hole)
            begin_hole(m, o);
        if (peers_now_ms(m) - o->progress_ms <= HOLE_WAIT_MS && !is_hopeless(m, o)) {
            ask_for_repair(m, o);
            return;
        }
        declare_lost(m, o, o->held.first ? o->held.first->seq - 1 : o->newest);
    }
    o->in_hole = false;
}

/* The number up to which everybody who may have the next one has said that it is gone; 0: not everybody has. */
static uint64_t gone_everywhere(const struct peers *m, const struct origin *o)
{
    struct peer *able[LIMIT_OFFSET_ORIGINS];
    unsigned n = list_able(m, o, able);
    uint64_t to = n > 0 ? UINT64_MAX : 0;
    for (unsigned i = 0; i < n && to > 0; i++) {
        bool is_gone = same_origin(able[i]->gone_of, o->id) && able[i]->gone_from == o->received + 1;
        to = !is_gone ? 0 : able[i]->gone_to < to ? able[i]->gone_to : to;
    }
    return to;
}

void records_gone(struct peers *m, struct origin *o, struct mesh_origin says, uint64_t gone_to)
{
    const struct origin *by = peers_find_origin(m, says);
    struct peer *p = by ? peers_of_origin(m, by) : NULL;
    if (gone_to <= o->received)
        return;
    if (same_origin(says, o->id)) {
        declare_lost(m, o, gone_to);
        return;
    }
    if (!p || (!origin_is_filling(o) && !has_waited(m, o)))
        return;
    p->gone_of = o->id;
    p->gone_from = o->received + 1;
    p->gone_to = gone_to;
    gone_to = gone_everywhere(m, o);
    if (gone_to > 0) {
        declare_lost(m, o, gone_to);
        return;
    }
    o->asked_n++;
    o->asked_ms = 0; /* the next one, at once */
}

/* The last number from first on that one answer may hold. */
static uint64_t end_of_answer(const struct peers *m, struct mesh_origin origin, uint64_t first, uint64_t last)
{
    size_t bytes = 0;
    uint64_t seq = first;
    while (seq <= last && bytes < REPAIR_BYTES)
        bytes += ring_get(m->ring, origin, seq++).n;
    return seq - 1;
}

/* Somebody asks: what of it is here goes in messages of a bounded size, up to a bounded sum; it asks again for more. */
void records_answer(struct peers *m, const struct peer *p, const struct mesh_repair *asked)
{
    uint64_t first = UINT64_MAX, last = 0, seq = asked->from;
    struct mesh_repair answer = *asked;
    unsigned version = peers_version_of(m, p);
    bool is_held = ring_range(m->ring, asked->origin, &first, &last);
    if (seq < first)
        seq = first;
    bool is_gone = !is_held || seq > asked->to;
    answer.gone_to = is_gone ? asked->to : seq > asked->from ? seq - 1 : 0;
    last = end_of_answer(m, asked->origin, seq, last < asked->to ? last : asked->to);
    answer.to = is_gone ? asked->to : last;
    do {
        if (peers_begin(m, &m->scratch, version) ||
            mesh_write(&m->scratch, &(struct mesh_record){.kind = MESH_REPAIRED, .repair = answer}))
            return;
        for (; seq <= last && m->scratch.size < BATCH_BYTES; seq++)
            mesh_write_as(&m->scratch, version, ring_get(m->ring, asked->origin, seq));
        m->link.send(m->link.link, p->channel, peers_message(&m->scratch));
        answer.gone_to = 0; /* said once */
    } while (seq <= last);
}

/* ---- from the store ---- */

int peers_fill(struct peers *m, struct mesh_origin id, struct span records)
{
    struct mesh_reader r = {records.p, records.p + records.n};
    struct origin *o = peers_obtain_dead(m, id);
    int got = 0;
    while (o && (got = mesh_read(&r, &m->record)) == 1) {
        if (m->record.seq == 0)
            return ERR_MESH;
        bool is_behind = o->state == ORIGIN_DEAD && m->record.seq > o->received + 1;
        if (is_behind && (!m->is_ready || o->received == 0)) { /* those between are gone */
            ring_restart(m->ring, id);
            if (m->is_ready)
                records_tell_gap(m, o, 1, m->record.seq - 1);
            o->received = m->record.seq - 1;
        }
        if (o->newest < m->record.seq)
            o->newest = m->record.seq;
        if (!m->is_ready && o->fill_to < m->record.seq)
            o->fill_to = m->record.seq;
        if (m->record.seq > o->received)
            records_take(m, o, &m->record);
    }
    if (o)
        records_go_on(m, o);
    return o ? got : ERR_MEMORY;
}
