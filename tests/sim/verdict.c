/* What must hold, at any time and at the end. */
#include "bounds.h"
#include "must.h"
#include "sim.h"

enum { HEARD_MS = 1200 }; /* what is said over a link that is well has come, also what was lost before */

/* ---- at any time ---- */

static struct socket *socket_at(const struct station *s, const struct seat *seat)
{
    struct nsp *nsp = s->is_up ? hub_find(s->hub, span_of(seat_nsp_name(seat->nsp))) : NULL;
    return nsp ? nsp_find(nsp, (struct span){seat->sid, ID_CHARS}) : NULL;
}

/* Two nodes may take a session at once, one from the store and one from its owner, when they do not hear each other. Of
 * two with the same epoch the higher tag is right, and the other lets go when it hears of it. */
static bool hear_each_other(const struct sim *sim, unsigned a, unsigned b)
{
    return sim->clean_ms[a][b] <= net_clock_ms - HEARD_MS && sim->clean_ms[b][a] <= net_clock_ms - HEARD_MS;
}

/* Nodes that have a socket of this session. */
static unsigned count_owners(struct sim *sim, const struct seat *seat)
{
    uint64_t epoch[STATIONS];
    unsigned at[STATIONS], n = 0;
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        const struct socket *s = seat->sid[0] ? socket_at(&sim->station[i], seat) : NULL;
        if (!s)
            continue;
        at[n] = i;
        epoch[n] = s->entry ? s->entry->epoch : 0;
        for (unsigned k = 0; k < n; k++)
            if (epoch[k] == epoch[n] && hear_each_other(sim, at[k], i))
                sim_fail(sim, "client %u in %s: nodes %u and %u have its session under epoch %llu",
                         seat->player, seat_nsp_name(seat->nsp), at[k], i, (unsigned long long)epoch[n]);
        n++;
    }
    return n;
}

void verdict_check(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            count_owners(sim, &sim->player[i].seat[k]);
    bounds_check(sim);
}

/* ---- healed ---- */

void verdict_tell(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        const struct station *s = &sim->station[i];
        sim_say(sim, "%s is %s, %s, and knows %u peers", s->name, s->is_up ? "up" : "down",
                s->is_ready ? "ready" : "not ready", s->is_up ? peers_alive(s->peers) : 0);
    }
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        if (!player_is_settled(&sim->player[i]))
            sim_say(sim, "client %u is not where it wants to be", i);
}

bool verdict_is_settled(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        const struct station *s = &sim->station[i];
        if (!s->is_up || !s->is_ready || s->is_stopping || station_is_frozen(s) ||
            peers_alive(s->peers) != sim->plan.n_stations - 1)
            return false;
    }
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        if (!player_is_settled(&sim->player[i]))
            return false;
    return true;
}

static uint64_t position_of(const struct station *s, struct mesh_origin origin)
{
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(s->peers, position, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++)
        if (position[i].origin.tag == origin.tag)
            return position[i].received;
    return 0;
}

bool verdict_all_have_all(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        for (unsigned k = 0; k < sim->plan.n_stations; k++)
            if (k != i &&
                position_of(&sim->station[i], sim->station[k].self) != peers_newest(sim->station[k].peers))
                return false;
    return true;
}

/* ---- who is where ---- */

static bool same_rooms(const struct socket *own, const struct socket *far)
{
    /* The far one is in the room of its origin, too. */
    if (own->n_places + 1 != far->n_places)
        return false;
    for (uint32_t i = 0; i < own->n_places; i++) {
        const struct room *room = own->places[i].room;
        const struct room *there = room == own->nsp->all
                                       ? far->nsp->all
                                       : room_find(far->nsp, (struct span){room->name, room->name_n});
        if (!there || !room_has(there, far))
            return false;
    }
    return true;
}

static unsigned check_far_of(struct sim *sim, const struct station *s, const struct station *other)
{
    unsigned n = 0;
    for (struct nsp *nsp = other->hub->nsps; nsp; nsp = nsp->hh.next) {
        struct nsp *far = cluster_far(s->cluster, nsp_name(nsp));
        for (struct socket *own = nsp->sockets; own; own = own->hh.next) {
            struct socket *there = far ? nsp_find(far, (struct span){own->sid, ID_CHARS}) : NULL;
            if (!there || !same_rooms(own, there))
                sim_fail(sim, "%s does not know who is where: %.8s of %s %s", s->name, own->sid, other->name,
                         there ? "is in other rooms" : "is not known");
            n++;
        }
    }
    return n;
}

static void check_presence(struct sim *sim, const struct station *s)
{
    unsigned own = 0, far = 0;
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        if (i != s->index)
            own += check_far_of(sim, s, &sim->station[i]);
    for (unsigned i = 0; i < NAMESPACES; i++) {
        const struct nsp *nsp = cluster_far(s->cluster, span_of(seat_nsp_name(i)));
        far += nsp ? HASH_COUNT(nsp->sockets) : 0;
    }
    if (own != far)
        sim_fail(sim, "%s knows %u sockets of other nodes, and there are %u", s->name, far, own);
}

/* ---- the end ---- */

static void check_seat(struct sim *sim, struct seat *seat)
{
    if (seat->state != SEAT_IN)
        return;
    unsigned n = count_owners(sim, seat);
    if (n != 1)
        sim_fail(sim, "client %u in %s: %u nodes have its socket", seat->player, seat_nsp_name(seat->nsp), n);
    seat_check_end(seat);
}

void verdict_check_end(struct sim *sim)
{
    for (unsigned i = 0; i < sim->truth.n_origins; i++) {
        struct truth_origin *o = &sim->truth.origin[i];
        o->mirrored = store_memory_newest(sim->memory, o->id);
    }
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            check_seat(sim, &sim->player[i].seat[k]);
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        check_presence(sim, &sim->station[i]);
    bounds_check_end(sim);
}
