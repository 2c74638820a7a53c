/* Subscriptions. One that the agent does not read falls behind: nothing is kept for it but how far it has come, from
 * where it goes on out of the ring when there is credit again. */
#include "agents_private.h"
#include "container.h"
#include "err.h"
#include "json.h"
#include "recovery.h"
#include <stdlib.h>

enum { VISITS_PER_TURN = 4096 }; /* records that a replay looks at before others have their turn */

struct subscription {
    struct reg *reg;
    struct subscription *prev, *next;
    unsigned n_namespaces, n_events, n_rooms;
    struct span *patterns; /* namespaces, then events */
    struct span *rooms;
    bool behind;
    uint64_t missed;      /* events while it is behind */
    bool has_gap;         /* and others were lost by the node meanwhile: nobody knows how many */
    struct offset *since; /* of one that is behind; or what is to come of it has been had already */
};

/* What is known of an emit while it is held against subscriptions. */
struct heard {
    const struct emit *emit;
    struct span name, offset, id;
    char name_text[LIMIT_EVENT_NAME_BYTES], id_text[AGENT_EMIT_ID_BYTES];
};

/* ---- what fits ---- */

static bool fits_rooms(const struct subscription *sub, const struct emit *e)
{
    bool found = sub->n_rooms == 0;
    for (unsigned i = 0; i < e->n_to && !found; i++)
        for (unsigned j = 0; j < sub->n_rooms && !found; j++)
            found = span_eq(e->to[i], sub->rooms[j]);
    return found;
}

/* name.n == 0 when it is none that agents can be told. */
static void read_name(struct heard *h, const struct emit *e)
{
    ssize_t n = json_string(e->event, h->name_text, sizeof(h->name_text));
    h->emit = e;
    h->name = (struct span){h->name_text, n > 0 ? (size_t)n : 0};
    h->offset = h->id = (struct span){NULL, 0};
}

static bool fits(const struct subscription *sub, const struct heard *h)
{
    if (h->name.n == 0 || !patterns_fit_namespace(sub->patterns, sub->n_namespaces, h->emit->nsp) ||
        !fits_rooms(sub, h->emit))
        return false;
    return sub->n_events == 0 ||
           patterns_fit_event(sub->patterns + sub->n_namespaces, sub->n_events, h->name);
}

/* ---- giving it ---- */

static void put_event(struct subscription *sub, const struct heard *h, bool replayed)
{
    struct agent *a = sub->reg->agent;
    const struct emit *e = h->emit;
    struct agent_record *r = agents_out(a->agents, AGENT_EVENT);
    r->reg = sub->reg->id;
    r->nsp = e->nsp;
    r->n_to = e->n_to;
    for (unsigned i = 0; i < e->n_to; i++)
        r->to[i] = e->to[i];
    r->event = h->name;
    r->args = e->args;
    if (e->n_attachments) {
        agent_with(r, AGENT_F_ATTACHMENTS)->n_attachments = e->n_attachments;
        memcpy(r->attachments, e->attachments, e->n_attachments * sizeof(e->attachments[0]));
    }
    agent_with(r, AGENT_F_EMIT_ID)->emit = h->id;
    if (h->offset.n)
        agent_with(r, AGENT_F_OFFSET)->offset = h->offset;
    if (e->is_volatile)
        agent_with(r, AGENT_F_VOLATILE)->is_volatile = true;
    if (replayed)
        agent_with(r, AGENT_F_REPLAYED)->replayed = true;
    agent_put(a, r);
}

static struct span offset_now(struct agents *g)
{
    return g->hub->recovery ? recovery_offset(g->hub->recovery, cluster_newest(g->hub->cluster))
                            : (struct span){NULL, 0};
}

static struct offset_entry *entry_of(struct offset *o, uint32_t tag)
{
    for (unsigned i = 0; i < o->n; i++)
        if (o->entry[i].origin == tag)
            return &o->entry[i];
    return NULL;
}

static void set_behind(struct subscription *sub, bool behind)
{
    struct agent *a = sub->reg->agent;
    a->n_behind += behind && !sub->behind;
    a->n_behind -= !behind && sub->behind;
    sub->behind = behind;
}

/* The next that it gets is this one. */
static void fall_behind(struct subscription *sub, uint32_t tag, uint64_t seq)
{
    struct agents *g = sub->reg->agent->agents;
    set_behind(sub, true);
    sub->missed = 1;
    if (!g->hub->recovery)
        return;
    if (!sub->since)
        sub->since = malloc(sizeof(*sub->since));
    if (!sub->since || offset_decode(offset_now(g), sub->since)) {
        free(sub->since);
        sub->since = NULL; /* it will hear that something is lost */
        return;
    }
    struct offset_entry *entry = entry_of(sub->since, tag);
    if (entry && entry->seq >= seq)
        entry->seq = seq - 1;
}

static bool had_already(const struct subscription *sub, uint32_t tag, uint64_t seq)
{
    const struct offset_entry *entry = sub->since ? entry_of(sub->since, tag) : NULL;
    return entry && seq <= entry->seq;
}

void subscriptions_emit(struct agents *g, const struct mesh_origin *origin, uint64_t seq,
                        const struct emit *e)
{
    struct heard h;
    uint32_t tag = origin ? origin->tag : g->options.self.tag;
    read_name(&h, e);
    for (struct subscription *sub = g->subscriptions; sub; sub = sub->next) {
        if (!fits(sub, &h))
            continue;
        if (sub->behind) {
            sub->missed += !e->is_volatile;
        } else if (had_already(sub, tag, seq)) {
            continue;
        } else if (agent_may_send(sub->reg->agent)) {
            if (h.id.n == 0) {
                h.id = agents_emit_id(g, origin, seq, h.id_text);
                h.offset = offset_now(g);
            }
            put_event(sub, &h, false);
        } else if (!e->is_volatile) {
            fall_behind(sub, tag, seq);
        }
    }
}

/* ---- replays ---- */

struct replay {
    struct subscription *sub;
    unsigned visits;
    bool stopped;
    int err;
};

static void raise_to(struct replay *p, uint32_t tag, uint64_t seq)
{
    struct offset *o = p->sub->since;
    struct offset_entry *entry = entry_of(o, tag);
    unsigned i = o->n;
    if (entry) {
        entry->seq = seq;
        return;
    }
    if (o->n == LIMIT_OFFSET_ORIGINS) {
        p->err = ERR_LIMIT;
        return;
    }
    for (; i > 0 && o->entry[i - 1].origin > tag; i--) /* ascending */
        o->entry[i] = o->entry[i - 1];
    o->entry[i] = (struct offset_entry){tag, seq};
    o->n++;
}

static void replay_emit(struct replay *p, const struct heard *h, const struct ring_found *found)
{
    struct agents *g = p->sub->reg->agent->agents;
    struct heard at = *h;
    char text[LIMIT_OFFSET_BYTES];
    at.name.p = at.name_text;
    ssize_t n = offset_encode(p->sub->since, text, sizeof(text));
    at.offset = (struct span){text, n > 0 ? (size_t)n : 0};
    at.id = agents_emit_id(g, &found->origin, found->seq, at.id_text);
    put_event(p->sub, &at, true);
    p->sub->missed -= p->sub->missed > 0;
}

static bool on_found(void *user, const struct ring_found *found)
{
    static struct mesh_record record; /* large; the reactor's thread only */
    struct replay *p = user;
    struct mesh_reader reader = {found->raw.p, found->raw.p + found->raw.n};
    const struct mesh_emit *m = &record.emit;
    if (++p->visits > VISITS_PER_TURN) {
        p->stopped = true;
        return false;
    }
    bool is_emit = mesh_read(&reader, &record) == 1 && record.kind == MESH_EMIT && !m->is_volatile;
    struct emit e = {.nsp = m->nsp,
                     .to = m->to,
                     .n_to = m->n_to,
                     .event = m->event,
                     .args = m->args,
                     .attachments = m->attachments,
                     .n_attachments = m->n_attachments};
    struct heard h;
    if (is_emit)
        read_name(&h, &e);
    bool is_wanted = is_emit && fits(p->sub, &h);
    if (is_wanted && !agent_may_send(p->sub->reg->agent)) {
        p->stopped = true;
        return false;
    }
    raise_to(p, found->origin.tag, found->seq);
    if (is_wanted && !p->err)
        replay_emit(p, &h, found);
    return !p->err;
}

/* Does the agent have more of some node than has come here? Of one that is dead others may. */
static bool is_ahead(struct agents *g, struct offset *since)
{
    unsigned n = peers_positions(cluster_peers(g->hub->cluster), g->positions, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++) {
        const struct offset_entry *entry = entry_of(since, g->positions[i].origin.tag);
        if (entry && entry->seq > g->positions[i].received)
            return true;
    }
    return false;
}

static void forget_since(struct subscription *sub)
{
    free(sub->since);
    sub->since = NULL;
}

static void go_live(struct subscription *sub)
{
    set_behind(sub, false);
    sub->missed = 0;
    sub->has_gap = false;
    if (sub->since && !is_ahead(sub->reg->agent->agents, sub->since))
        forget_since(sub);
}

static void put_lost(struct subscription *sub, uint64_t count)
{
    struct agent_record *r = agents_out(sub->reg->agent->agents, AGENT_LOST);
    r->reg = sub->reg->id;
    r->count = count;
    agent_put(sub->reg->agent, r);
}

static void say_lost(struct subscription *sub)
{
    put_lost(sub, sub->has_gap ? 0 : sub->missed);
    forget_since(sub);
    go_live(sub);
}

static void catch_up(struct subscription *sub)
{
    struct agents *g = sub->reg->agent->agents;
    struct replay p = {.sub = sub};
    enum recovery_verdict verdict =
        g->hub->recovery && sub->since ? recovery_check(g->hub->recovery, sub->since) : RECOVERY_NO;
    if (verdict == RECOVERY_NO || sub->has_gap) {
        say_lost(sub);
        return;
    }
    if (ring_walk(peers_ring(cluster_peers(g->hub->cluster)), sub->since, on_found, &p) || p.err)
        say_lost(sub);
    else if (p.stopped)
        agents_look_soon(g);
    else
        go_live(sub);
}

void agent_catch_up(struct agent *a)
{
    for (struct subscription *sub = a->agents->subscriptions; sub && a->n_behind > 0; sub = sub->next)
        if (sub->reg->agent == a && sub->behind && agent_may_send(a))
            catch_up(sub);
}

/* Events of another node are lost for this one. Who reads is told at once, as what comes behind them goes on. */
void subscriptions_gap(struct agents *g)
{
    for (struct subscription *sub = g->subscriptions; sub; sub = sub->next) {
        if (!sub->behind && agent_may_send(sub->reg->agent)) {
            put_lost(sub, 0);
            continue;
        }
        if (!sub->behind)
            forget_since(sub);
        set_behind(sub, true);
        sub->has_gap = true;
    }
}

/* What had not come here when it began has come. */
void subscriptions_expire(struct agents *g)
{
    for (struct subscription *sub = g->subscriptions; sub; sub = sub->next)
        if (sub->since && !sub->behind && !is_ahead(g, sub->since))
            forget_since(sub);
}

/* ---- life ---- */

static struct subscription *subscription_new(struct reg *reg, const struct agent_record *r)
{
    struct agents *g = reg->agent->agents;
    struct subscription *sub = calloc(1, sizeof(*sub));
    if (!sub)
        return NULL;
    sub->reg = reg;
    sub->n_namespaces = r->n_namespaces;
    sub->n_events = r->n_events;
    sub->n_rooms = r->n_rooms;
    sub->patterns = spans_copy(r->namespaces, r->n_namespaces, r->events, r->n_events);
    sub->rooms = spans_copy(r->rooms, r->n_rooms, NULL, 0);
    if (!sub->patterns || !sub->rooms) {
        free(sub->patterns);
        free(sub->rooms);
        free(sub);
        return NULL;
    }
    sub->next = g->subscriptions;
    if (sub->next)
        sub->next->prev = sub;
    g->subscriptions = sub;
    return sub;
}

void subscription_describe(const struct subscription *sub, struct reg_row *row)
{
    row->n_namespaces = sub->n_namespaces;
    row->namespaces = sub->patterns;
    row->n_events = sub->n_events;
    row->events = sub->patterns + sub->n_namespaces;
    row->n_rooms = sub->n_rooms;
    row->rooms = sub->rooms;
}

void subscription_free(struct reg *reg)
{
    struct subscription *sub = reg->sub;
    set_behind(sub, false);
    if (sub->prev)
        sub->prev->next = sub->next;
    else
        reg->agent->agents->subscriptions = sub->next;
    if (sub->next)
        sub->next->prev = sub->prev;
    free(sub->since);
    free(sub->patterns);
    free(sub->rooms);
    free(sub);
    reg->sub = NULL;
}

/* Everything since then will come, or something of it is not here yet: this node may not know yet what others do. */
static enum recovery_verdict check_from(struct agent *a, struct span from, struct offset *since)
{
    struct agents *g = a->agents;
    uint64_t now = agents_now(g);
    enum recovery_verdict verdict = RECOVERY_NO;
    if (g->hub->recovery && offset_decode(from, since) == 0)
        verdict = recovery_check(g->hub->recovery, since);
    if (verdict == RECOVERY_LATER && a->later_ms == 0)
        a->later_ms = now;
    if (verdict == RECOVERY_LATER && now - a->later_ms > recovery_catch_up_ms(g->hub->recovery))
        verdict = RECOVERY_NO;
    if (verdict != RECOVERY_LATER)
        a->later_ms = 0;
    return verdict;
}

static bool begin_at(struct subscription *sub, const struct offset *since)
{
    sub->since = malloc(sizeof(*sub->since));
    if (!sub->since)
        return false;
    *sub->since = *since;
    set_behind(sub, true);
    return true;
}

bool agent_subscribe(struct agent *a, struct agent_record *r)
{
    static struct offset since; /* large; the reactor's thread only */
    bool has_from = agent_has(r, AGENT_F_FROM);
    enum recovery_verdict verdict = has_from ? check_from(a, r->from, &since) : RECOVERY_NO;
    if (verdict == RECOVERY_LATER)
        return false;
    struct reg *reg = request_allowed(a, r) ? reg_new(a, r) : NULL;
    if (!reg)
        return true;
    reg->sub = subscription_new(reg, r);
    if (!reg->sub) {
        reg_free(reg, "ended");
        agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        return true;
    }
    bool recovered = verdict == RECOVERY_YES && begin_at(reg->sub, &since);
    struct agent_record *ok = agents_out(a->agents, AGENT_OK);
    struct span offset = recovered ? r->from : offset_now(a->agents);
    if (offset.n)
        agent_with(ok, AGENT_F_OFFSET)->offset = offset;
    if (has_from)
        agent_with(ok, AGENT_F_RECOVERED)->recovered = recovered;
    agent_ok(a, r->id, ok);
    if (recovered)
        agent_pump(a);
    return true;
}
