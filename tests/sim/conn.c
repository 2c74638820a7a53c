#include "conn.h"
#include "must.h"
#include "sim.h"

enum {
    LATENCY_MS = 20,
    BREAK_MS = 400,
    STALLED_ROOM_BYTES = 4000, /* in the buffers of a client that does not read */
};

/* On its way to the node. */
struct parcel {
    struct parcel *next;
    enum parcel_kind { PARCEL_OPEN, PARCEL_SAY, PARCEL_PONG, PARCEL_CLOSE } kind;
    uint64_t due_ms;
    struct truth_emit *emit;
    size_t n;
    char text[];
};

static struct parcel *put(struct conn *c, enum parcel_kind kind, uint64_t after_ms, struct span text)
{
    struct parcel *p = malloc(sizeof(*p) + text.n);
    MUST(p);
    *p = (struct parcel){.kind = kind, .due_ms = net_clock_ms + after_ms, .n = text.n};
    if (text.n)
        memcpy(p->text, text.p, text.n);
    *c->end = p;
    c->end = &p->next;
    return p;
}

static void drop_parcels(struct conn *c)
{
    while (c->first) {
        struct parcel *next = c->first->next;
        free(c->first);
        c->first = next;
    }
    c->end = &c->first;
}

/* ---- the client's end ---- */

struct conn *conn_open(struct player *p, struct station *station)
{
    struct sim *sim = p->sim;
    struct conn *c = calloc(1, sizeof(*c));
    MUST(c);
    c->sim = sim;
    c->player = p;
    c->station = station;
    c->is_plain = p->is_plain;
    c->latency_ms = 1 + sim_draw(sim, LATENCY_MS);
    c->sink.room = SIZE_MAX;
    c->end = &c->first;
    c->next = sim->conns;
    sim->conns = c;
    put(c, PARCEL_OPEN, c->latency_ms, (struct span){NULL, 0});
    return c;
}

void conn_leave(struct conn *c, uint64_t after_ms)
{
    bool loses = after_ms > 0 && c->sink.session && sim_chance(c->sim, 500);
    c->player = NULL;
    c->stalled_ms = 0;
    if (loses) /* also what it has said last */
        drop_parcels(c);
    if (after_ms != UINT64_MAX)
        put(c, PARCEL_CLOSE, after_ms + c->latency_ms, (struct span){NULL, 0});
}

void conn_say(struct conn *c, struct span text, struct truth_emit *e)
{
    put(c, PARCEL_SAY, c->latency_ms, text)->emit = e;
}

void conn_pong(struct conn *c)
{
    put(c, PARCEL_PONG, c->latency_ms, (struct span){NULL, 0});
}

void conn_stall(struct conn *c, uint64_t until_ms)
{
    c->stalled_ms = until_ms;
    c->sink.room = STALLED_ROOM_BYTES;
}

static void end_stall(struct conn *c)
{
    c->stalled_ms = 0;
    if (c->station)
        c->station->is_touched = true;
    sink_unblock(&c->sink);
}

static void note_arrival(struct conn *c)
{
    if (c->read_ms == 0 && c->sink.n > c->sink.read)
        c->read_ms = net_clock_ms + c->latency_ms;
}

bool conn_is_readable(struct conn *c)
{
    if (c->stalled_ms && c->stalled_ms <= net_clock_ms)
        end_stall(c);
    note_arrival(c);
    if (c->stalled_ms || c->read_ms == 0 || c->read_ms > net_clock_ms)
        return false;
    c->read_ms = 0;
    return true;
}

bool conn_is_over(struct conn *c)
{
    bool has_read = c->read_ms == 0 && c->sink.n == c->sink.read;
    if (c->broken_ms)
        return c->broken_ms <= net_clock_ms;
    return c->sink.closes > 0 && has_read;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t conn_client_next_ms(struct conn *c)
{
    uint64_t next = UINT64_MAX;
    note_arrival(c);
    if (c->stalled_ms)
        next = c->stalled_ms;
    else if (c->read_ms)
        next = c->read_ms;
    else if (c->sink.closes > 0 && !c->broken_ms)
        next = 0;
    return c->broken_ms ? least(next, c->broken_ms) : next;
}

bool conn_is_quiet(const struct conn *c)
{
    return !c->first && !c->stalled_ms && !c->broken_ms && c->sink.closes == 0 && c->sink.n == c->sink.read;
}

/* ---- the node's end ---- */

static void open_session(struct conn *c)
{
    if (!station_is_open(c->station)) { /* refused */
        c->broken_ms = net_clock_ms + c->latency_ms;
        return;
    }
    c->sink.session = engine_open(c->station->engine, &sink_ws, &c->sink, false);
    MUST(c->sink.session);
    c->sink.session->recovery_off = c->is_plain;
}

static void receive(struct conn *c, const struct parcel *p)
{
    struct eio_packet packet = {.type = p->kind == PARCEL_PONG ? EIO_PONG : EIO_MESSAGE,
                                .data = {p->text, p->n}};
    uint64_t before = peers_newest(c->station->peers);
    session_receive(c->sink.session, &packet);
    uint64_t after = peers_newest(c->station->peers);
    if (p->emit && after > before)
        truth_accept(&c->sim->truth, p->emit, c->station->origin, after);
}

static void deliver(struct conn *c, const struct parcel *p)
{
    c->station->is_touched = true;
    if (p->kind == PARCEL_OPEN)
        open_session(c);
    else if (!c->sink.session)
        return;
    else if (p->kind == PARCEL_CLOSE)
        session_close(c->sink.session, CLOSE_TRANSPORT_CLOSE);
    else
        receive(c, p);
}

static bool can_deliver(const struct conn *c)
{
    return c->first && c->station && !station_is_frozen(c->station);
}

static void run(struct conn *c)
{
    while (can_deliver(c) && c->first->due_ms <= net_clock_ms) {
        struct parcel *p = c->first;
        c->first = p->next;
        if (!c->first)
            c->end = &c->first;
        deliver(c, p);
        free(p);
    }
}

/* ---- all of them ---- */

void conn_break_all(struct sim *sim, const struct station *station)
{
    for (struct conn *c = sim->conns; c; c = c->next) {
        if (c->station != station)
            continue;
        c->station = NULL;
        c->sink.fails = true; /* what waits in the node's queue is lost */
        c->broken_ms = net_clock_ms + 1 + sim_draw(sim, BREAK_MS);
        drop_parcels(c);
    }
}

static void free_conn(struct conn *c)
{
    MUST(!c->sink.session);
    drop_parcels(c);
    sink_free(&c->sink);
    free(c);
}

void conn_run_all(struct sim *sim)
{
    for (struct conn **at = &sim->conns; *at;) {
        struct conn *c = *at;
        run(c);
        if (c->player || c->sink.session || (c->first && c->station)) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        free_conn(c);
    }
}

uint64_t conn_next_ms(const struct sim *sim)
{
    uint64_t next = UINT64_MAX;
    for (const struct conn *c = sim->conns; c; c = c->next)
        if (can_deliver(c))
            next = least(next, c->first->due_ms);
    return next;
}

void conn_free_all(struct sim *sim)
{
    while (sim->conns) {
        struct conn *c = sim->conns;
        sim->conns = c->next;
        free_conn(c);
    }
}
