#include "faults.h"
#include "must.h"
#include "sim.h"

enum { SETTLE_MS = 60 }; /* after the end of a fault what was sent during it is still under way */

static struct fault *find(struct sim *sim, enum trouble trouble, unsigned a)
{
    for (unsigned i = 0; i < sim->n_faults; i++)
        if (sim->faults[i].trouble == trouble && sim->faults[i].a == a)
            return &sim->faults[i];
    return NULL;
}

/* ---- links ---- */

static void spoil(struct net_way *way, const struct net_way *fault)
{
    way->is_cut |= fault->is_cut;
    way->loss = fault->loss > way->loss ? fault->loss : way->loss;
    way->twice = fault->twice > way->twice ? fault->twice : way->twice;
    way->delay_ms = fault->delay_ms > way->delay_ms ? fault->delay_ms : way->delay_ms;
}

static bool is_on(const struct fault *f, unsigned from, unsigned to)
{
    switch (f->trouble) {
    case TROUBLE_PARTITION:
        return (f->groups >> from & 1) != (f->groups >> to & 1);
    case TROUBLE_CUT:
    case TROUBLE_LOSS:
        return f->a == from && f->b == to;
    case TROUBLE_NOISE:
        return true;
    default:
        return false;
    }
}

static void set_way(struct sim *sim, unsigned from, unsigned to)
{
    struct net_way way = {.delay_ms = sim->plan.link_delay_ms};
    bool is_clean = !station_is_frozen(&sim->station[from]) && !station_is_frozen(&sim->station[to]);
    for (unsigned i = 0; i < sim->n_faults; i++) {
        if (!is_on(&sim->faults[i], from, to))
            continue;
        spoil(&way, &sim->faults[i].way);
        is_clean = false;
    }
    sim->net.way[from][to] = way;
    if (!is_clean)
        sim->clean_ms[from][to] = UINT64_MAX;
    else if (sim->clean_ms[from][to] == UINT64_MAX)
        sim->clean_ms[from][to] = net_clock_ms + SETTLE_MS;
}

static void set_ways(struct sim *sim)
{
    for (unsigned i = 0; i < STATIONS; i++)
        for (unsigned j = 0; j < STATIONS; j++)
            set_way(sim, i, j);
}

/* ---- begin ---- */

static bool begin_on_station(struct sim *sim, struct fault *f)
{
    struct station *s = &sim->station[f->a];
    if (!s->is_up)
        return false;
    if (f->trouble == TROUBLE_FREEZE) {
        if (station_is_frozen(s) || s->is_stopping)
            return false;
        station_freeze(s, true);
        return true;
    }
    if (f->trouble == TROUBLE_STOP && (s->is_stopping || station_is_frozen(s)))
        return false;
    struct fault *frozen = find(sim, TROUBLE_FREEZE, f->a);
    if (frozen)
        frozen->until_ms = 0;
    sim->kills++;
    if (f->trouble == TROUBLE_KILL)
        station_kill(s);
    else
        station_stop(s);
    s->starts_ms = net_clock_ms + 20 + sim_draw(sim, 3000);
    return false; /* it is over at once */
}

static bool begin_on_store(struct sim *sim, struct fault *f)
{
    struct station *s = &sim->station[f->a];
    sim_say(sim, "the store: trouble %u for %s", (unsigned)f->trouble, s->name);
    switch (f->trouble) {
    case TROUBLE_AWAY:
        store_memory_set_away(sim->memory, true);
        return true;
    case TROUBLE_FULL:
        store_memory_set_full(sim->memory, true);
        return true;
    case TROUBLE_STORE_CUT:
        if (s->is_up)
            store_memory_cut(s->client, true);
        return s->is_up;
    case TROUBLE_SLOW:
        if (s->is_up)
            store_memory_set_delay(s->client, 5 + sim_draw(sim, sim_chance(sim, 200) ? 2500 : 300));
        return s->is_up;
    default:
        store_memory_lose(sim->memory);
        return false;
    }
}

static bool begin_on_links(struct sim *sim, struct fault *f)
{
    unsigned n = sim->plan.n_stations;
    f->b = (f->a + 1 + sim_draw(sim, n - 1)) % n;
    f->groups = 1 + sim_draw(sim, (1u << n) - 2);
    f->way = (struct net_way){.is_cut = f->trouble == TROUBLE_PARTITION || f->trouble == TROUBLE_CUT};
    if (!f->way.is_cut)
        f->way = (struct net_way){.loss = sim_draw(sim, f->trouble == TROUBLE_LOSS ? 300 : 80),
                                  .twice = sim_draw(sim, 100),
                                  .delay_ms = sim_draw(sim, 40)};
    sim_say(sim, "links: trouble %u of node %u, %u, %x", (unsigned)f->trouble, f->a, f->b, f->groups);
    return true;
}

static bool begin_on_client(struct sim *sim, const struct fault *f)
{
    struct player *p = &sim->player[sim_draw(sim, sim->plan.n_players)];
    if (f->trouble == TROUBLE_DROP)
        player_drop(p, (enum drop)sim_draw(sim, DROPS));
    else
        player_stall(p, f->until_ms);
    return false;
}

static bool begin(struct sim *sim, struct fault *f)
{
    switch (f->trouble) {
    case TROUBLE_KILL:
    case TROUBLE_STOP:
    case TROUBLE_FREEZE:
        return begin_on_station(sim, f);
    case TROUBLE_PARTITION:
    case TROUBLE_CUT:
    case TROUBLE_LOSS:
    case TROUBLE_NOISE:
        return begin_on_links(sim, f);
    case TROUBLE_DROP:
    case TROUBLE_STALL:
        return begin_on_client(sim, f);
    default:
        return begin_on_store(sim, f);
    }
}

void faults_begin(struct sim *sim)
{
    enum trouble trouble = (enum trouble)sim_draw(sim, TROUBLES);
    if (!(sim->plan.troubles >> trouble & 1) || sim->n_faults == FAULTS)
        return;
    struct fault *f = &sim->faults[sim->n_faults];
    *f = (struct fault){.trouble = trouble,
                        .a = sim_draw(sim, sim->plan.n_stations),
                        .until_ms = net_clock_ms + 30 + sim_draw(sim, sim_chance(sim, 500) ? 400 : 4000)};
    sim->n_faults += begin(sim, f);
    set_ways(sim);
}

/* ---- end ---- */

static bool is_still(struct sim *sim, enum trouble trouble)
{
    for (unsigned i = 0; i < sim->n_faults; i++)
        if (sim->faults[i].trouble == trouble)
            return true;
    return false;
}

static void end(struct sim *sim, struct fault f)
{
    struct station *s = &sim->station[f.a];
    if (f.trouble == TROUBLE_FREEZE && s->is_up && !find(sim, TROUBLE_FREEZE, f.a))
        station_freeze(s, false);
    else if (f.trouble == TROUBLE_AWAY)
        store_memory_set_away(sim->memory, is_still(sim, TROUBLE_AWAY));
    else if (f.trouble == TROUBLE_FULL)
        store_memory_set_full(sim->memory, is_still(sim, TROUBLE_FULL));
    else if (f.trouble == TROUBLE_STORE_CUT && s->is_up)
        store_memory_cut(s->client, find(sim, TROUBLE_STORE_CUT, f.a) != NULL);
    else if (f.trouble == TROUBLE_SLOW && s->is_up)
        store_memory_set_delay(s->client, 0);
    sim_say(sim, "trouble %u of node %u is over", (unsigned)f.trouble, f.a);
}

void faults_run(struct sim *sim)
{
    bool any = false;
    for (unsigned i = 0; i < sim->n_faults;) {
        struct fault f = sim->faults[i];
        if (f.until_ms > net_clock_ms) {
            i++;
            continue;
        }
        sim->faults[i] = sim->faults[--sim->n_faults];
        end(sim, f);
        any = true;
    }
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        struct station *s = &sim->station[i];
        if (!s->is_up && s->starts_ms <= net_clock_ms) {
            station_start(s);
            any = true;
        }
    }
    if (any)
        set_ways(sim);
}

uint64_t faults_next_ms(const struct sim *sim)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < sim->n_faults; i++)
        if (sim->faults[i].until_ms < next)
            next = sim->faults[i].until_ms;
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        if (!sim->station[i].is_up && sim->station[i].starts_ms < next)
            next = sim->station[i].starts_ms;
    return next;
}

void faults_heal(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_faults; i++)
        sim->faults[i].until_ms = 0;
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        if (!sim->station[i].is_up && sim->station[i].starts_ms > net_clock_ms)
            sim->station[i].starts_ms = net_clock_ms;
    faults_run(sim);
}
