/* What every node must keep to at any time, whatever happens around it: each queue has a bound and everything that is
 * kept has an end (P6), and who can be reached hears the others without a pause, whoever else is dead or slow, and without
 * the store (P1, P2). */
#include "bounds.h"
#include "directory_private.h"
#include "engine.h"
#include "limit.h"
#include "peers_private.h"
#include "sim.h"
#include <inttypes.h>

enum {
    RING_SLACK_BYTES = 70 * 1024, /* the newest record is always held */
    RECORD_BYTES = 16 * 1024,     /* the largest that is said here, and more */
    TIMER_SLACK_MS = 1500,        /* of what is looked at each second */
    BEAT_SLACK_MS = 300,          /* of what is looked at with each heartbeat */
    FLOW_MS = 1200, /* of clean links: a hole before them, and what waits for another's, each HOLE_WAIT_MS */
};

/* ---- clients ---- */

static void check_sessions(struct sim *sim, const struct station *s)
{
    const struct session *session, *tmp;
    unsigned n = 0, conns = 0;
    HASH_ITER(hh, s->engine->sessions, session, tmp)
    {
        n++;
        if (session->out.bytes > sim->plan.queue_bytes || session->out.messages > sim->plan.queue_messages)
            sim_fail(sim, "%s: %" PRIu64 " bytes in %u messages wait for one client", s->name,
                     session->out.bytes, (unsigned)session->out.messages);
    }
    for (const struct conn *c = sim->conns; c; c = c->next)
        conns += c->station == s && c->sink.session;
    if (n > conns)
        sim_fail(sim, "%s: %u sessions have %u connections", s->name, n, conns);
}

/* What is read in the store for clients that come back. */
static void check_reads(struct sim *sim, const struct station *s)
{
    uint64_t held = metrics_get(s->metrics, METRIC_RECOVERY_HELD_BYTES);
    uint64_t waiting = metrics_get(s->metrics, METRIC_RECOVERY_WAITING);
    if (held > waiting * (sim->plan.queue_bytes + RECORD_BYTES) || held > LIMIT_RECOVERY_HELD_BYTES)
        sim_fail(sim, "%s: %" PRIu64 " bytes were read for %" PRIu64 " clients", s->name, held, waiting);
    if (waiting > NAMESPACES * HASH_COUNT(s->engine->sessions))
        sim_fail(sim, "%s: %" PRIu64 " wait for what is read, and there are %u clients", s->name, waiting,
                 HASH_COUNT(s->engine->sessions));
}

/* ---- the directory ---- */

static void check_directory(struct sim *sim, const struct station *s)
{
    const struct directory *d = s->directory;
    unsigned away = 0, open = 0, entries = HASH_COUNT(d->entries);
    for (const struct directory_entry *e = d->oldest; e; e = e->younger) {
        away++;
        if (e->expires_ms + TIMER_SLACK_MS < net_clock_ms)
            sim_fail(sim, "%s: the entry of %.8s was to go %" PRIu64 " ms ago", s->name, e->sid,
                     net_clock_ms - e->expires_ms);
    }
    for (const struct nsp *nsp = s->hub->nsps; nsp; nsp = nsp->hh.next)
        open += HASH_COUNT(nsp->sockets);
    /* Those that are neither away nor a socket's are of clients that are about to be let in: one a namespace. */
    if (entries < away || entries - away > open + NAMESPACES * HASH_COUNT(s->engine->sessions))
        sim_fail(sim, "%s: %u entries, of which %u are away, for %u sockets", s->name, entries, away, open);
    if (d->n_absent > away)
        sim_fail(sim, "%s: counts %u clients as away, and %u are", s->name, d->n_absent, away);
}

/* ---- the mesh ---- */

static void check_held(struct sim *sim, const struct station *s, const struct origin *o,
                       const struct held_list *list, const char *what)
{
    uint64_t last = 0;
    size_t bytes = 0;
    for (const struct held *h = list->first; h; h = h->next) {
        bytes += sizeof(*h) + h->n;
        if (h->seq <= last || h->seq > o->newest)
            sim_fail(sim, "%s: of %06x number %" PRIu64 " %s, behind %" PRIu64 " and up to %" PRIu64, s->name,
                     o->id.tag, h->seq, what, last, o->newest);
        last = h->seq;
    }
    if (bytes != list->bytes || bytes > HELD_BYTES + RECORD_BYTES)
        sim_fail(sim, "%s: of %06x %zu bytes %s, and %zu are counted", s->name, o->id.tag, bytes, what,
                 list->bytes);
}

static void check_origin(struct sim *sim, const struct station *s, const struct origin *o)
{
    const struct peers *m = s->peers;
    uint64_t silent_ms = o->state == ORIGIN_DEAD ? net_clock_ms - o->last_ms : 0, first, last;
    check_held(sim, s, o, &o->held, "waits for a hole");
    check_held(sim, s, o, &o->late, "waits for who is there");
    if (o->held.first && o->held.first->seq <= o->received)
        sim_fail(sim, "%s: of %06x number %" PRIu64 " still waits, and %" PRIu64 " has come", s->name,
                 o->id.tag, o->held.first->seq, o->received);
    if (silent_ms > peers_kept_ms(m) + BEAT_SLACK_MS && ring_range(m->ring, o->id, &first, &last))
        sim_fail(sim, "%s: still has records of %06x, which died %" PRIu64 " ms ago", s->name, o->id.tag,
                 silent_ms);
    if (silent_ms > peers_named_ms(m) + peers_kept_ms(m) + BEAT_SLACK_MS)
        sim_fail(sim, "%s: still knows %06x, which died %" PRIu64 " ms ago", s->name, o->id.tag, silent_ms);
}

static void check_mesh(struct sim *sim, const struct station *s)
{
    const struct peers *m = s->peers;
    for (const struct origin *o = m->origins; o; o = o->hh.next)
        check_origin(sim, s, o);
    for (const struct peer *p = m->peers; p; p = p->next)
        if (p->batch.size > BATCH_BYTES + RECORD_BYTES)
            sim_fail(sim, "%s: %zu bytes wait for one peer", s->name, p->batch.size);
    if (m->batch.size > BATCH_BYTES + RECORD_BYTES)
        sim_fail(sim, "%s: %zu bytes wait for all peers", s->name, m->batch.size);
    if (ring_bytes(m->ring) > sim->plan.ring_bytes + RING_SLACK_BYTES)
        sim_fail(sim, "%s: its ring has %" PRIu64 " bytes", s->name, ring_bytes(m->ring));
    if (ring_window_ms(m->ring, net_clock_ms) > peers_kept_ms(m) + BEAT_SLACK_MS)
        sim_fail(sim, "%s: its ring has records of %" PRIu64 " ms ago", s->name,
                 ring_window_ms(m->ring, net_clock_ms));
}

/* ---- without a pause ---- */

static uint64_t received_by(const struct station *s, struct mesh_origin origin)
{
    const struct origin *o = peers_find_origin(s->peers, origin);
    return o ? o->received : 0;
}

static bool is_running(const struct station *s)
{
    return s->is_up && s->is_ready && !s->is_stopping && !station_is_frozen(s);
}

static void check_flow(struct sim *sim, const struct station *from, const struct station *to)
{
    uint64_t since_ms = net_clock_ms - FLOW_MS, met_ms = to->met_ms[from->origin];
    const struct said *said = &from->said[(from->n_said + 1) % SAID];
    bool is_reached = sim->clean_ms[from->index][to->index] <= since_ms &&
                      sim->clean_ms[to->index][from->index] <= since_ms && met_ms && met_ms <= since_ms;
    if (is_reached && from->n_said >= SAID && said->at_ms <= since_ms &&
        received_by(to, from->self) < said->newest)
        sim_fail(sim,
                 "%s has %" PRIu64 " of %s, which said %" PRIu64 " %u ms ago, and nothing is between them",
                 to->name, received_by(to, from->self), from->name, said->newest, FLOW_MS);
}

static void note_said(struct station *s)
{
    s->said[s->n_said++ % SAID] = (struct said){net_clock_ms, peers_newest(s->peers)};
}

/* ---- all ---- */

void bounds_check(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        struct station *s = &sim->station[i];
        if (!is_running(s)) /* what is frozen cannot let go of anything */
            continue;
        note_said(s);
        if (s->thawed_ms + BEAT_SLACK_MS + TIMER_SLACK_MS > net_clock_ms)
            continue;
        check_sessions(sim, s);
        check_reads(sim, s);
        check_directory(sim, s);
        check_mesh(sim, s);
        for (unsigned k = 0; k < sim->plan.n_stations; k++)
            if (k != i && is_running(&sim->station[k]))
                check_flow(sim, &sim->station[k], s);
    }
}

void bounds_check_end(struct sim *sim)
{
    for (const struct conn *c = sim->conns; c; c = c->next)
        if (c->player && c->sink.session && !outq_empty(&c->sink.session->out))
            sim_fail(sim, "%s: %" PRIu64 " bytes still wait for client %u", c->station->name,
                     c->sink.session->out.bytes, c->player->index);
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        const struct station *s = &sim->station[i];
        for (const struct origin *o = s->peers->origins; o; o = o->hh.next)
            if (o->held.first || o->late.first)
                sim_fail(sim, "%s: records of %06x still wait", s->name, o->id.tag);
        if (metrics_get(s->metrics, METRIC_RECOVERY_WAITING) ||
            metrics_get(s->metrics, METRIC_RECOVERY_HELD_BYTES))
            sim_fail(sim, "%s: still reads for clients that are back", s->name);
        if (s->directory->claims || s->directory->n_in_store)
            sim_fail(sim, "%s: asks for sessions, and is not answered", s->name);
    }
}
