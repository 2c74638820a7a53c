#include "station.h"
#include "client.h"
#include "loop.h"
#include "must.h"
#include "ring.h"
#include "sim.h"
#include <inttypes.h>

enum {
    STORE_WAIT_MS = 2000,
    START_WAIT_MS = 5000,
    STOP_WAIT_MS = 1000,
    CATCH_UP_MS = 1000,
    GAP_CLEAN_MS = 700, /* a link that has been well for so long repairs every hole that it can */
};

/* ---- a store that nobody is behind, for a node that is being killed ---- */

static void no_renew(void *store, const struct store_member *self, uint64_t keep_ms, store_members *done,
                     void *user)
{
    (void)store, (void)self, (void)keep_ms, (void)done, (void)user;
}

static void no_resign(void *store, uint64_t keep_ms, store_done *done, void *user)
{
    (void)store, (void)keep_ms, (void)done, (void)user;
}

static void no_append(void *store, const struct store_batch *batch, uint64_t oldest, store_done *done,
                      void *user)
{
    (void)store, (void)batch, (void)oldest, (void)done, (void)user;
}

static void no_read(void *store, struct mesh_origin origin, uint64_t after, unsigned count,
                    store_batches *done, void *user)
{
    (void)store, (void)origin, (void)after, (void)count, (void)done, (void)user;
}

static void no_put(void *store, struct span pid, uint64_t epoch, struct span entry, store_done *done,
                   void *user)
{
    (void)store, (void)pid, (void)epoch, (void)entry, (void)done, (void)user;
}

static void no_drop(void *store, struct span pid, uint64_t epoch, store_done *done, void *user)
{
    (void)store, (void)pid, (void)epoch, (void)done, (void)user;
}

static void no_claim(void *store, uint32_t owner, struct span pid, store_claimed *done, void *user)
{
    (void)store, (void)owner, (void)pid, (void)done, (void)user;
}

static const struct store_calls no_store = {.renew = no_renew,
                                            .resign = no_resign,
                                            .append = no_append,
                                            .read = no_read,
                                            .put = no_put,
                                            .drop = no_drop,
                                            .claim = no_claim};

/* ---- what the peers tell, on its way to the cluster ---- */

static const struct peers_user *behind(void *user)
{
    return &((struct station *)user)->peers_user;
}

/* Something of this origin is taken here. */
static void note_met(struct station *s, struct mesh_origin from)
{
    uint64_t *met_ms = &s->met_ms[truth_find_origin(&s->sim->truth, from.tag)];
    if (*met_ms == 0)
        *met_ms = net_clock_ms;
}

static void on_emit(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit)
{
    note_met(user, from);
    behind(user)->on_emit(behind(user)->user, from, seq, emit);
}

static void on_presence(void *user, struct mesh_origin from, enum mesh_kind kind,
                        const struct mesh_presence *presence)
{
    const struct station *s = user;
    sim_say(s->sim, "%s hears %u of %.8s of %06x, epoch %" PRIu64, s->name, (unsigned)kind, presence->sid.p,
            from.tag, presence->epoch);
    behind(user)->on_presence(behind(user)->user, from, kind, presence);
}

static void on_presence_void(void *user, struct mesh_origin from)
{
    const struct station *s = user;
    sim_say(s->sim, "%s forgets who is at %06x", s->name, from.tag);
    note_met(user, from);
    behind(user)->on_presence_void(behind(user)->user, from);
}

static void on_set(void *user, struct mesh_origin from, const struct mesh_message *set)
{
    behind(user)->on_set(behind(user)->user, from, set);
}

static void on_message(void *user, struct mesh_origin from, const struct mesh_message *message)
{
    behind(user)->on_message(behind(user)->user, from, message);
}

/* A hole may be given up when nobody can fill it. An origin that lives, has it, and has been reached all the time can. */
static void on_gap(void *user, struct mesh_origin from, uint64_t first, uint64_t last)
{
    struct station *s = user;
    struct sim *sim = s->sim;
    uint64_t held_first, held_last, since_ms = net_clock_ms - GAP_CLEAN_MS;
    sim_say(sim, "%s gives up %06x %" PRIu64 " to %" PRIu64, s->name, from.tag, first, last);
    for (unsigned i = 0; i < sim->plan.n_stations; i++) {
        const struct station *o = &sim->station[i];
        bool is_reached = sim->clean_ms[i][s->index] <= since_ms && sim->clean_ms[s->index][i] <= since_ms;
        bool is_met = s->met_ms[o->origin] && s->met_ms[o->origin] <= since_ms;
        if (o->is_up && o->self.tag == from.tag && is_reached && is_met &&
            ring_range(peers_ring(o->peers), from, &held_first, &held_last) && held_first <= first)
            sim_fail(sim,
                     "%s gave up numbers %" PRIu64 " to %" PRIu64
                     " of %s, which has them and could be asked all the time",
                     s->name, first, last, o->name);
    }
    behind(user)->on_gap(behind(user)->user, from, first, last);
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    const struct station *s = user;
    sim_say(s->sim, "%s finds %06x dead at %" PRIu64, s->name, from.tag, received);
    behind(user)->on_dead(behind(user)->user, from, received);
}

static bool is_busy(void *user)
{
    return behind(user)->is_busy(behind(user)->user);
}

static void on_published(void *user)
{
    behind(user)->on_published(behind(user)->user);
}

static void put_presence(void *user, struct peers *m)
{
    behind(user)->put_presence(behind(user)->user, m);
}

static void on_past(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit)
{
    if (behind(user)->on_past)
        behind(user)->on_past(behind(user)->user, from, seq, emit);
}

static void on_ready(void *user)
{
    struct station *s = user;
    sim_say(s->sim, "%s is ready", s->name);
    s->is_ready = true;
}

static const struct peers_user in_front = {.on_emit = on_emit,
                                           .on_presence = on_presence,
                                           .on_presence_void = on_presence_void,
                                           .on_set = on_set,
                                           .on_message = on_message,
                                           .on_gap = on_gap,
                                           .on_dead = on_dead,
                                           .is_busy = is_busy,
                                           .on_published = on_published,
                                           .on_past = on_past,
                                           .put_presence = put_presence,
                                           .on_ready = on_ready};

/* ---- the store ---- */

static void on_up(void *user)
{
    struct station *s = user;
    s->store_is_up = true;
    if (s->is_stopping)
        return;
    membership_resume(s->membership);
    mirror_resume(s->mirror);
    directory_resume(s->directory);
}

static void on_down(void *user)
{
    struct station *s = user;
    s->store_is_up = false;
}

static void on_start(void *user)
{
    struct station *s = user;
    peers_start(s->peers);
}

static void on_clash(void *user)
{
    struct station *s = user;
    sim_fail(s->sim, "%s: the store says that its tag is another's", s->name);
}

/* ---- putting it together ---- */

static void name_origin(struct station *s)
{
    struct sim *sim = s->sim;
    do
        s->self.tag = 1 + sim_draw(sim, 0xfffffe);
    while (truth_find_origin(&sim->truth, s->self.tag) != ORIGINS);
    s->self.boot = 1 + sim_draw(sim, 1u << 30);
    s->origin = truth_begin_origin(&sim->truth, s->self, s->index);
    snprintf(s->name, sizeof(s->name), "node %u", s->index);
    snprintf(s->text, sizeof(s->text), "node-%u-%llx", s->index, (unsigned long long)s->self.boot);
}

static uint64_t keep_ms(const struct plan *p)
{
    return p->window_ms + p->window_ms / 4 + 2ull * p->ping_interval_ms;
}

static void build_hub(struct station *s)
{
    const struct plan *p = &s->sim->plan;
    s->reactor = reactor_new();
    s->metrics = metrics_new();
    MUST(s->reactor && s->metrics);
    s->hub =
        hub_new(s->reactor, s->metrics,
                &(struct hub_options){.origin = s->text, .namespaces = "*", .connect_timeout_ms = 45000});
    MUST(s->hub);
    s->engine = engine_new(s->reactor, s->metrics,
                           &(struct engine_options){.ping_interval_ms = p->ping_interval_ms,
                                                    .ping_timeout_ms = p->ping_timeout_ms,
                                                    .upgrade_timeout_ms = 10000,
                                                    .poll_grace_ms = 30000,
                                                    .max_payload_bytes = 1000000,
                                                    .queue_bytes = p->queue_bytes,
                                                    .queue_messages = p->queue_messages,
                                                    .polling = true,
                                                    .websocket = true},
                           &client_app, s->hub, s->self.tag);
    MUST(s->engine);
    s->hub->engine = s->engine;
}

static void build_mesh(struct station *s)
{
    const struct plan *p = &s->sim->plan;
    struct peers_user user = in_front;
    user.user = s;
    s->cluster = cluster_new(s->reactor, s->hub);
    MUST(s->cluster);
    s->peers_user = cluster_user(s->cluster, on_ready, s);
    s->peers = net_start(&s->sim->net, s->index, s->reactor, s->metrics,
                         (struct peers_options){.cluster = SPAN("sim"),
                                                .name = span_of(s->name),
                                                .host = SPAN("host"),
                                                .self = s->self,
                                                .peer_timeout_ms = p->peer_timeout_ms,
                                                .start_wait_ms = START_WAIT_MS,
                                                .ring = {.max_ms = keep_ms(p), .max_bytes = p->ring_bytes}},
                         &user);
    cluster_use(s->cluster, s->peers);
    for (unsigned i = 0; i < p->n_stations; i++)
        if (i != s->index && (p->names == NAMES_ALL || (p->names == NAMES_ONE && (i == 0 || s->index == 0))))
            net_name(&s->sim->net, s->index, i);
}

static void build_store(struct station *s)
{
    const struct plan *p = &s->sim->plan;
    const struct net_node *at = &s->sim->net.node[s->index];
    struct store_user user = {.user = s, .on_up = on_up, .on_down = on_down};
    s->member = (struct store_member){.origin = s->self,
                                      .lives = true,
                                      .name = span_of(s->name),
                                      .host = SPAN("host"),
                                      .pub = span_of(at->pub),
                                      .router = span_of(at->router)};
    s->client = store_memory_open(s->sim->memory, s->reactor, &user);
    s->store = store_memory_store(s->client);
    s->mirror = mirror_new(s->reactor, s->metrics, &(struct mirror_options){keep_ms(p)}, &s->store, s->peers);
    MUST(s->mirror);
    struct membership_options mo = {.self = s->member, .keep_ms = keep_ms(p), .start_wait_ms = STORE_WAIT_MS};
    struct membership_user mu = {.user = s, .on_start = on_start, .on_clash = on_clash};
    s->membership = membership_new(s->reactor, &mo, &s->store, s->peers, s->mirror, &mu);
    MUST(s->membership);
    cluster_use_mirror(s->cluster, s->mirror);
}

static void build_recovery(struct station *s)
{
    const struct plan *p = &s->sim->plan;
    s->directory = directory_new(
        s->reactor, s->hub,
        &(struct directory_options){.window_ms = p->window_ms, .self = s->self, .on_taken = socket_taken});
    MUST(s->directory);
    directory_use(s->directory, &s->store, s->cluster);
    s->recovery = recovery_new(s->reactor, s->hub,
                               &(struct recovery_options){.window_ms = p->window_ms,
                                                          .ping_interval_ms = p->ping_interval_ms,
                                                          .catch_up_ms = p->peer_timeout_ms + CATCH_UP_MS,
                                                          .self = s->self},
                               s->peers, s->directory);
    MUST(s->recovery && recovery_use(s->recovery, &s->store) == 0);
}

void station_start(struct station *s)
{
    struct sim *sim = s->sim;
    unsigned index = s->index;
    *s = (struct station){.sim = sim, .index = index, .is_up = true, .is_touched = true};
    name_origin(s);
    sim_say(sim, "%s starts as %06x, origin %u", s->name, s->self.tag, s->origin);
    build_hub(s);
    build_mesh(s);
    build_store(s);
    build_recovery(s);
}

/* ---- the end ---- */

static void take_apart(struct station *s)
{
    s->sim->reads += (unsigned)metrics_get(s->metrics, METRIC_RECOVERIES_READ);
    engine_free(&s->engine);
    cluster_use_mirror(s->cluster, NULL);
    store_memory_close(&s->client);
    directory_free(&s->directory);
    recovery_free(&s->recovery);
    membership_free(&s->membership);
    mirror_free(&s->mirror);
    cluster_free(&s->cluster);
    net_stop(&s->sim->net, s->index);
    s->peers = NULL;
    hub_free(&s->hub);
    reactor_free(&s->reactor);
    metrics_free(&s->metrics);
    s->is_up = s->is_ready = false;
    truth_end_origin(&s->sim->truth, s->origin);
}

void station_kill(struct station *s)
{
    sim_say(s->sim, "%s is killed at %" PRIu64, s->name, peers_newest(s->peers));
    conn_break_all(s->sim, s);
    s->sim->net.node[s->index].is_silent = true;
    s->is_stopping = true;
    store_memory_close(&s->client); /* what is answered now is told to nobody */
    s->store = (struct store){.calls = &no_store};
    engine_shutdown(s->engine);
    loop_run(s->reactor); /* buries the sessions */
    MUST(engine_count(s->engine) == 0);
    take_apart(s);
}

void station_stop(struct station *s)
{
    sim_say(s->sim, "%s stops", s->name);
    s->is_stopping = true;
    s->is_touched = true;
    s->ends_ms = net_clock_ms + STOP_WAIT_MS;
    engine_shutdown(s->engine);
}

static void on_resigned(void *user)
{
    struct station *s = user;
    s->has_resigned = true;
}

static void go_on_stopping(struct station *s)
{
    bool is_over = net_clock_ms >= s->ends_ms || s->has_resigned;
    if (engine_count(s->engine) == 0 && !s->store_is_up)
        is_over = true;
    else if (engine_count(s->engine) == 0 && !s->is_resigning) {
        mirror_hurry(s->mirror);
        s->is_resigning = mirror_has(s->mirror, peers_newest(s->peers));
        if (s->is_resigning)
            membership_resign(s->membership, on_resigned, s);
    }
    if (is_over) {
        sim_say(s->sim, "%s has stopped", s->name);
        take_apart(s);
    }
}

void station_freeze(struct station *s, bool is_frozen)
{
    sim_say(s->sim, "%s %s", s->name, is_frozen ? "freezes" : "thaws");
    s->sim->net.node[s->index].is_frozen = is_frozen;
    s->thawed_ms = net_clock_ms;
}

bool station_is_frozen(const struct station *s)
{
    return s->is_up && s->sim->net.node[s->index].is_frozen;
}

bool station_is_open(const struct station *s)
{
    return s->is_up && s->is_ready && !s->is_stopping;
}

/* ---- its loop ---- */

void station_run(struct station *s)
{
    if (station_next_ms(s) > net_clock_ms)
        return;
    s->is_touched = false;
    s->wakes_ms = loop_run(s->reactor);
    if (s->is_stopping)
        go_on_stopping(s);
}

uint64_t station_next_ms(const struct station *s)
{
    if (!s->is_up || station_is_frozen(s))
        return UINT64_MAX;
    if (s->is_touched)
        return 0;
    return s->is_stopping && s->ends_ms < s->wakes_ms ? s->ends_ms : s->wakes_ms;
}

void station_emit(struct station *s, struct truth_emit *e)
{
    static const char *const names[ROOMS] = {"r0", "r1", "r2", "r3"};
    struct span to[ROOMS + 1], except[ROOMS + 1];
    char args[32];
    uint64_t seq;
    struct emit emit = {.nsp = span_of(seat_nsp_name(e->nsp)),
                        .to = to,
                        .except = except,
                        .event = SPAN("\"e\""),
                        .is_volatile = e->is_volatile};
    for (unsigned i = 0; i < ROOMS; i++) {
        if (e->to & 1u << i)
            to[emit.n_to++] = span_of(names[i]);
        if (e->except & 1u << i)
            except[emit.n_except++] = span_of(names[i]);
    }
    if (e->to_sid[0])
        to[emit.n_to++] = (struct span){e->to_sid, ID_CHARS};
    if (e->except_sid[0])
        except[emit.n_except++] = (struct span){e->except_sid, ID_CHARS};
    emit.args = (struct span){args, (size_t)snprintf(args, sizeof(args), "%u", e->number)};
    s->is_touched = true;
    if (hub_emit(s->hub, &emit, &seq) == 0)
        truth_accept(&s->sim->truth, e, s->origin, seq);
}
