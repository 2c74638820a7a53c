#include "player.h"
#include "must.h"
#include "sim.h"
#include "sio.h"

enum { RETURN_MS = 1200, AGAIN_MS = 40, TEXT_BYTES = 8192 };

void player_init(struct player *p, struct sim *sim, unsigned index)
{
    *p = (struct player){.sim = sim, .index = index, .is_plain = index == 0};
    for (unsigned i = 0; i < NAMESPACES; i++) {
        struct seat *s = &p->seat[i];
        s->sim = sim;
        s->player = index;
        s->nsp = i;
        s->is_plain = p->is_plain;
        s->is_wanted = i == 0 || sim_chance(sim, 300);
    }
}

/* ---- its connection ---- */

static void lose(struct player *p, uint64_t told_after_ms)
{
    conn_leave(p->conn, told_after_ms);
    p->conn = NULL;
    for (unsigned i = 0; i < NAMESPACES; i++)
        seat_leave(&p->seat[i]);
    p->returns_ms = net_clock_ms + 1 + sim_draw(p->sim, sim_chance(p->sim, 300) ? AGAIN_MS : RETURN_MS);
}

void player_drop(struct player *p, enum drop how)
{
    uint64_t after_ms = 0;
    if (!p->conn)
        return;
    if (how == DROP_SILENT)
        after_ms = sim_chance(p->sim, 300) ? UINT64_MAX : 100 + sim_draw(p->sim, 5000);
    sim_say(p->sim, "client %u loses its connection, told after %lld", p->index, (long long)after_ms);
    lose(p, after_ms);
}

static void come_back(struct player *p)
{
    struct sim *sim = p->sim;
    struct station *station = &sim->station[sim_draw(sim, sim->plan.n_stations)];
    if (!station_is_open(station)) {
        p->returns_ms = net_clock_ms + AGAIN_MS;
        return;
    }
    sim_say(sim, "client %u goes to %s", p->index, station->name);
    p->conn = conn_open(p, station);
    p->heard_ms = net_clock_ms;
}

void player_stall(struct player *p, uint64_t until_ms)
{
    if (p->conn && p->conn->sink.session && !p->conn->stalled_ms)
        conn_stall(p->conn, until_ms);
}

/* ---- what it says ---- */

static void say(struct player *p, const char *text, size_t n)
{
    if (n)
        conn_say(p->conn, (struct span){text, n}, NULL);
}

static void connect_seat(struct seat *s, struct player *p)
{
    char text[LIMIT_OFFSET_BYTES + 128];
    if (s->offset[0] && sim_chance(p->sim, 20)) { /* an application's own last argument */
        strcpy(s->offset, "a text of its own");
        s->is_poisoned = s->pid[0] != '\0';
    }
    say(p, text, seat_write_connect(s, text, sizeof(text)));
}

void player_enter(struct player *p, unsigned nsp)
{
    struct seat *s = &p->seat[nsp];
    if (s->state != SEAT_OUT || (p->conn && p->seat[0].state != SEAT_IN))
        return;
    s->is_wanted = true;
    if (p->conn)
        connect_seat(s, p);
}

void player_quit(struct player *p, unsigned nsp)
{
    struct seat *s = &p->seat[nsp];
    char text[16];
    if (nsp == 0 || s->state != SEAT_IN || !p->conn)
        return;
    sim_say(p->sim, "client %u leaves %s", p->index, seat_nsp_name(nsp));
    say(p, text, (size_t)snprintf(text, sizeof(text), "1%s,", seat_nsp_name(nsp)));
    s->is_wanted = false;
    seat_leave(s);
}

void player_change(struct player *p, unsigned nsp, unsigned room, bool joins)
{
    char text[128];
    if (p->conn && p->seat[nsp].state == SEAT_IN)
        say(p, text, seat_write_change(&p->seat[nsp], room, joins, text, sizeof(text)));
}

static size_t write_names(char *dst, const char *key, uint8_t rooms, const char *sid)
{
    size_t n = (size_t)sprintf(dst, ",\"%s\":[", key);
    if (!rooms && !sid[0])
        return 0;
    for (unsigned i = 0; i < ROOMS; i++)
        if (rooms & 1u << i)
            n += (size_t)sprintf(dst + n, "\"r%u\",", i);
    if (sid[0])
        n += (size_t)sprintf(dst + n, "\"%.*s\",", ID_CHARS, sid);
    dst[n - 1] = ']';
    return n;
}

void player_emit(struct player *p, unsigned nsp, struct truth_emit *e, bool echo, unsigned padding)
{
    struct seat *s = &p->seat[nsp];
    char text[TEXT_BYTES];
    MUST(padding < TEXT_BYTES / 2);
    if (!echo)
        memcpy(e->skip_sid, s->sid, ID_CHARS);
    size_t n = (size_t)snprintf(text, 64, "2%s%s%llu[\"bus:emit\",{\"event\":\"e\",\"args\":[%u,\"",
                                nsp ? seat_nsp_name(nsp) : "", nsp ? "," : "",
                                (unsigned long long)s->next_id++, e->number);
    memset(text + n, 'x', padding);
    n += padding;
    n += (size_t)sprintf(text + n, "\"],\"echo\":%s,\"volatile\":%s", echo ? "true" : "false",
                         e->is_volatile ? "true" : "false");
    n += write_names(text + n, "to", e->to, e->to_sid);
    n += write_names(text + n, "except", e->except, e->except_sid);
    n += (size_t)sprintf(text + n, "}]");
    conn_say(p->conn, (struct span){text, n}, e);
}

/* ---- what it hears ---- */

static void on_open(struct player *p)
{
    for (unsigned i = 0; i < NAMESPACES; i++)
        if (p->seat[i].is_wanted)
            connect_seat(&p->seat[i], p);
}

static struct seat *seat_at(struct player *p, struct span nsp)
{
    for (unsigned i = 0; i < NAMESPACES; i++)
        if (span_eq(nsp, span_of(seat_nsp_name(i))))
            return &p->seat[i];
    return NULL;
}

static void on_message(struct player *p, struct span text)
{
    struct sio_packet packet;
    struct seat *s = sio_decode(text, &packet) == 0 ? seat_at(p, packet.nsp) : NULL;
    if (!s) {
        sim_fail(p->sim, "client %u was sent what it does not understand: %.*s", p->index, (int)text.n,
                 text.p);
        return;
    }
    if (packet.type == SIO_CONNECT)
        seat_on_connect(s, packet.payload);
    else if (s->state == SEAT_OUT || (packet.type == SIO_EVENT && s->state == SEAT_ASKED))
        return; /* it has just left, and may be coming back */
    else if (packet.type == SIO_EVENT && s->state == SEAT_IN)
        seat_on_event(s, packet.payload);
    else if (packet.type == SIO_ACK && packet.has_id)
        seat_on_ack(s, packet.id, packet.payload);
    else
        sim_fail(p->sim, "client %u was sent what does not belong here: %.*s", p->index, (int)text.n, text.p);
}

static void on_text(struct player *p, struct span text)
{
    p->sim->packets++;
    if (text.p[0] == '0')
        on_open(p);
    else if (text.p[0] == '2')
        conn_pong(p->conn);
    else if (text.p[0] == '4')
        on_message(p, (struct span){text.p + 1, text.n - 1});
    else
        sim_fail(p->sim, "client %u was sent an odd packet: %.*s", p->index, (int)text.n, text.p);
}

static void read_all(struct player *p)
{
    struct sink *k = &p->conn->sink;
    struct sink_frame frame;
    p->heard_ms = net_clock_ms;
    while (sink_next(k, &frame)) {
        if (frame.opcode == WS_TEXT && frame.payload.n)
            on_text(p, frame.payload);
        else
            sim_fail(p->sim, "client %u was sent an odd frame", p->index);
    }
    if (k->read == k->n || k->closes > 0) /* the rest of a frame does not come */
        sink_skip(k);
}

/* ---- its time ---- */

static uint64_t patience_ms(const struct player *p)
{
    const struct plan *plan = &p->sim->plan;
    return p->conn->stalled_ms ? UINT64_MAX
                               : p->heard_ms + plan->ping_interval_ms + plan->ping_timeout_ms + 50;
}

void player_run(struct player *p)
{
    if (!p->conn && p->returns_ms <= net_clock_ms)
        come_back(p);
    if (!p->conn)
        return;
    if (conn_is_readable(p->conn))
        read_all(p);
    if (conn_is_over(p->conn)) {
        sim_say(p->sim, "client %u finds its connection ended", p->index);
        lose(p, 0);
    } else if (patience_ms(p) <= net_clock_ms) {
        player_drop(p, DROP_CLOSE);
    }
}

uint64_t player_next_ms(const struct player *p)
{
    if (!p->conn)
        return p->returns_ms;
    uint64_t next = conn_client_next_ms(p->conn), patience = patience_ms(p);
    return next < patience ? next : patience;
}

bool player_is_settled(const struct player *p)
{
    for (unsigned i = 0; i < NAMESPACES; i++)
        if (p->seat[i].is_wanted && (p->seat[i].state != SEAT_IN || p->seat[i].n_asked))
            return false;
    return p->conn && conn_is_quiet(p->conn);
}
