#include "sim.h"
#include "loop.h"
#include "must.h"
#include <stdarg.h>
#include <stdio.h>

enum {
    HEAL_MS = 30000, /* at most, until everybody is back */
    QUIET_MS = 2500,
    CHECK_MS = 250,
    FIRST_MS = 1000000,
};

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;
    if (sim->has_failed)
        return;
    sim->has_failed = true;
    va_start(args, format);
    vsnprintf(sim->why, sizeof(sim->why), format, args);
    va_end(args);
    sim_say(sim, "FAILED: %s", sim->why);
}

void sim_say(struct sim *sim, const char *format, ...)
{
    va_list args;
    if (!sim->is_verbose)
        return;
    printf("%8.3f ", (double)(net_clock_ms - FIRST_MS) / 1000);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

/* ---- the plan ---- */

static uint64_t one_of(struct sim *sim, uint64_t a, uint64_t b, uint64_t c)
{
    unsigned which = sim_draw(sim, 3);
    return which == 0 ? a : which == 1 ? b : c;
}

static void make_plan(struct sim *sim)
{
    struct plan *p = &sim->plan;
    p->n_stations = 2 + sim_draw(sim, 3);
    p->n_players = 3 + sim_draw(sim, 8);
    p->chaos_ms = 2000 + sim_draw(sim, 6000);
    p->pace_ms = 20 + sim_draw(sim, 40);
    p->troubles = sim_draw(sim, 1u << TROUBLES);
    if (sim_chance(sim, 100))
        p->troubles = 0;
    p->trouble_every_ms = 50 + sim_draw(sim, 400);
    p->window_ms = one_of(sim, 3000, 10000, 30000);
    p->ping_interval_ms = (uint32_t)one_of(sim, 500, 1500, 4000);
    p->ping_timeout_ms = (uint32_t)one_of(sim, 600, 1500, 3000);
    p->peer_timeout_ms = (uint32_t)one_of(sim, 400, 800, 1500);
    p->ring_bytes = one_of(sim, 40 * 1024, 400 * 1024, 64 << 20);
    p->queue_bytes = (uint32_t)one_of(sim, 16 * 1024, 100 * 1024, 1 << 20);
    p->queue_messages = (uint32_t)one_of(sim, 30, 200, 1000);
    p->link_delay_ms = sim_draw(sim, 4);
    p->keeps_order = sim_chance(sim, 800);
    p->names = sim_chance(sim, 600) ? NAMES_ALL : sim_chance(sim, 500) ? NAMES_ONE : NAMES_NONE;
}

/* ---- what clients do ---- */

static void aim(struct sim *sim, struct truth_emit *e)
{
    const struct seat *other = &sim->player[sim_draw(sim, sim->plan.n_players)].seat[e->nsp];
    if (sim_chance(sim, 600))
        e->to =
            (uint8_t)(1u << sim_draw(sim, ROOMS) | (sim_chance(sim, 200) ? 1u << sim_draw(sim, ROOMS) : 0));
    else if (sim_chance(sim, 300))
        memcpy(e->to_sid, other->sid, ID_CHARS);
    if (sim_chance(sim, 150))
        e->except = (uint8_t)(1u << sim_draw(sim, ROOMS));
    else if (sim_chance(sim, 80))
        memcpy(e->except_sid, other->sid, ID_CHARS);
    e->is_volatile = sim_chance(sim, 80);
}

static void emit(struct sim *sim)
{
    struct player *p = &sim->player[sim_draw(sim, sim->plan.n_players)];
    struct station *s = &sim->station[sim_draw(sim, sim->plan.n_stations)];
    struct truth_emit *e = truth_new_emit(&sim->truth);
    if (!e)
        return;
    e->nsp = sim_chance(sim, 700) ? 0 : sim_draw(sim, NAMESPACES);
    aim(sim, e);
    if (sim_chance(sim, 150) && station_is_open(s) && !station_is_frozen(s))
        station_emit(s, e);
    else if (p->conn && p->seat[e->nsp].state == SEAT_IN)
        player_emit(p, e->nsp, e, sim_chance(sim, 300), sim_chance(sim, 100) ? sim_draw(sim, 3000) : 0);
}

static void change(struct sim *sim)
{
    struct player *p = &sim->player[sim_draw(sim, sim->plan.n_players)];
    unsigned nsp = sim_chance(sim, 700) ? 0 : sim_draw(sim, NAMESPACES);
    player_change(p, nsp, sim_draw(sim, ROOMS), sim_chance(sim, 650));
}

static void act(struct sim *sim)
{
    unsigned what = sim_draw(sim, 100);
    struct player *p = &sim->player[sim_draw(sim, sim->plan.n_players)];
    unsigned nsp = sim_draw(sim, NAMESPACES);
    if (what < 70)
        for (unsigned n = sim_chance(sim, 100) ? 1 + sim_draw(sim, 20) : 1; n > 0; n--)
            emit(sim);
    else if (what < 95)
        change(sim);
    else if (what < 98)
        player_enter(p, nsp);
    else
        player_quit(p, nsp);
}

/* ---- time ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_ms(const struct sim *sim)
{
    uint64_t next = least(least(net_next_ms(&sim->net), faults_next_ms(sim)), conn_next_ms(sim));
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        next = least(next, station_next_ms(&sim->station[i]));
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        next = least(next, player_next_ms(&sim->player[i]));
    return next;
}

/* Everything that is due; then the time is that of the next thing, at most until_ms. */
static void step(struct sim *sim, uint64_t until_ms)
{
    sim->steps++;
    faults_run(sim);
    net_deliver(&sim->net);
    conn_run_all(sim);
    for (unsigned i = 0; i < sim->plan.n_stations; i++)
        station_run(&sim->station[i]);
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        player_run(&sim->player[i]);
    uint64_t next = least(next_ms(sim), until_ms);
    if (next > net_clock_ms)
        net_clock_ms = next;
}

static void run_until(struct sim *sim, uint64_t until_ms)
{
    unsigned steps = 0;
    uint64_t at_ms = net_clock_ms;
    while (net_clock_ms < until_ms && !sim->has_failed) {
        step(sim, until_ms);
        steps = net_clock_ms == at_ms ? steps + 1 : 0;
        at_ms = net_clock_ms;
        MUST(steps < 10000);
    }
}

static void on_delivery(struct net *net, unsigned from, unsigned to, struct span message)
{
    struct sim *sim = net->user;
    struct station *s = &sim->station[to];
    s->is_touched = true;
    /* Before that it may have to leave what it hears. */
    if (s->is_ready && s->met_ms[sim->station[from].origin])
        truth_on_delivery(&sim->truth, to, message);
}

/* ---- the run ---- */

static void run_chaos(struct sim *sim)
{
    uint64_t end_ms = net_clock_ms + sim->plan.chaos_ms, trouble_ms = net_clock_ms + 300, check_ms = 0;
    uint64_t act_ms = net_clock_ms;
    while (net_clock_ms < end_ms && !sim->has_failed) {
        if (act_ms <= net_clock_ms) {
            act(sim);
            act_ms = net_clock_ms + 1 + sim_draw(sim, sim->plan.pace_ms);
        }
        if (trouble_ms <= net_clock_ms) {
            faults_begin(sim);
            trouble_ms = net_clock_ms + 1 + sim_draw(sim, sim->plan.trouble_every_ms);
        }
        if (check_ms <= net_clock_ms) {
            verdict_check(sim);
            check_ms = net_clock_ms + CHECK_MS;
        }
        run_until(sim, least(least(act_ms, trouble_ms), least(check_ms, end_ms)));
    }
}

static void run_healed(struct sim *sim)
{
    uint64_t limit_ms = net_clock_ms + HEAL_MS;
    faults_heal(sim);
    sim_say(sim, "all is healed");
    while (!verdict_is_settled(sim) && !sim->has_failed) {
        if (net_clock_ms >= limit_ms)
            verdict_tell(sim);
        if (net_clock_ms >= limit_ms)
            sim_fail(sim, "not everybody is back %u ms after all was healed", HEAL_MS);
        run_until(sim, net_clock_ms + 100);
        verdict_check(sim);
    }
    run_until(sim, net_clock_ms + QUIET_MS);
    for (unsigned i = 0; i < sim->plan.n_stations && !sim->has_failed; i++)
        for (unsigned nsp = 0; nsp < NAMESPACES; nsp++) {
            struct truth_emit *e = truth_new_emit(&sim->truth);
            MUST(e);
            e->nsp = nsp;
            station_emit(&sim->station[i], e);
        }
    run_until(sim, net_clock_ms + QUIET_MS);
    /* A connection that nobody has any more may end just now. */
    uint64_t end_ms = net_clock_ms + QUIET_MS;
    while (!sim->has_failed && net_clock_ms < end_ms && !verdict_all_have_all(sim))
        run_until(sim, net_clock_ms + 10);
}

static void begin(struct sim *sim)
{
    net_clock_ms = FIRST_MS;
    net_init(&sim->net, sim->seed);
    sim->net.user = sim;
    sim->net.on_delivery = on_delivery;
    loop_seed(sim->seed);
    make_plan(sim);
    sim->net.keeps_order = sim->plan.keeps_order;
    sim->memory = store_memory_new();
}

static void end(struct sim *sim)
{
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        if (sim->station[i].is_up)
            station_kill(&sim->station[i]);
    }
    conn_free_all(sim);
    net_end(&sim->net);
    store_memory_free(&sim->memory);
    truth_deinit(&sim->truth);
}

bool sim_run(struct sim *sim, uint64_t seed)
{
    bool is_verbose = sim->is_verbose;
    memset(sim, 0, sizeof(*sim));
    sim->seed = seed;
    sim->is_verbose = is_verbose;
    begin(sim);
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        sim->station[i] = (struct station){.sim = sim, .index = i};
        station_start(&sim->station[i]);
    }
    for (unsigned i = 0; i < sim->plan.n_players; i++)
        player_init(&sim->player[i], sim, i);
    run_until(sim, net_clock_ms + 500);
    run_chaos(sim);
    run_healed(sim);
    if (!sim->has_failed)
        verdict_check_end(sim);
    end(sim);
    return !sim->has_failed;
}
