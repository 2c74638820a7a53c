#include "truth.h"
#include "must.h"
#include <stdlib.h>
#include <string.h>

void truth_deinit(struct truth *t)
{
    for (unsigned i = 0; i < t->n_origins; i++) {
        free(t->origin[i].emits);
        free(t->origin[i].had);
    }
    t->n_origins = t->n_emits = 0;
}

/* ---- origins ---- */

unsigned truth_begin_origin(struct truth *t, struct mesh_origin id, unsigned station)
{
    MUST(t->n_origins < ORIGINS);
    t->origin[t->n_origins] = (struct truth_origin){.id = id, .station = station};
    return t->n_origins++;
}

void truth_end_origin(struct truth *t, unsigned origin)
{
    uint8_t others = (uint8_t) ~(1u << t->origin[origin].station);
    t->origin[origin].is_dead = true;
    for (unsigned i = 0; i < t->n_origins; i++)
        for (uint64_t seq = 0; seq < t->origin[i].had_n; seq++)
            t->origin[i].had[seq] &= others;
}

unsigned truth_find_origin(const struct truth *t, uint32_t tag)
{
    for (unsigned i = 0; i < t->n_origins; i++)
        if (t->origin[i].id.tag == tag)
            return i;
    return ORIGINS;
}

/* ---- emits ---- */

struct truth_emit *truth_new_emit(struct truth *t)
{
    if (t->n_emits == EMITS)
        return NULL;
    struct truth_emit *e = &t->emit[t->n_emits];
    *e = (struct truth_emit){.number = t->n_emits++};
    return e;
}

static void *grown(void *p, size_t n)
{
    p = realloc(p, n);
    MUST(p);
    return p;
}

void truth_accept(struct truth *t, struct truth_emit *e, unsigned origin, uint64_t seq)
{
    struct truth_origin *o = &t->origin[origin];
    e->is_accepted = true;
    e->origin = origin;
    e->seq = seq;
    e->at_ms = net_clock_ms;
    if (o->n_emits % 64 == 0)
        o->emits = grown(o->emits, (o->n_emits + 64) * sizeof(o->emits[0]));
    o->emits[o->n_emits++] = e->number;
}

/* ---- who was given what ---- */

static void note(struct truth *t, struct mesh_origin id, uint64_t seq, unsigned station)
{
    unsigned i = truth_find_origin(t, id.tag);
    struct truth_origin *o = &t->origin[i];
    MUST(i < ORIGINS && o->id.boot == id.boot);
    if (seq >= o->had_n) {
        uint64_t n = seq + 256;
        o->had = grown(o->had, n);
        memset(o->had + o->had_n, 0, n - o->had_n);
        o->had_n = n;
    }
    o->had[seq] |= (uint8_t)(1u << station);
}

void truth_on_delivery(struct truth *t, unsigned station, struct span message)
{
    static struct mesh_record record; /* large */
    struct mesh_reader r;
    struct mesh_head head;
    MUST(mesh_read_head(&r, message, &head) == 0);
    struct mesh_origin of = head.origin;
    while (mesh_read(&r, &record) == 1 && record.kind != MESH_HEARTBEAT) {
        if (record.kind == MESH_REPAIRED)
            of = record.repair.origin;
        else if (record.kind < MESH_HEARTBEAT && record.seq > 0)
            note(t, of, record.seq, station);
    }
}

bool truth_is_held(const struct truth_origin *o, uint64_t seq)
{
    return !o->is_dead || seq <= o->mirrored || (seq < o->had_n && o->had[seq]);
}
