/* A whole node without its sockets: engine, clients, bus commands, hub and fan-out over in-memory sinks. The input is a
 * program: sessions open and close, say things, stop reading and read on, turns pass. After every step the gauges equal
 * what is really there, no queue is beyond its bound, every member has its place; and what a client was written is
 * whole packets with their attachments behind them. */
#include "fanout.c"

#include "sink.h"
#include "limit.h"
#include "utf8.h"

enum { CLIENTS = 6, WAITS = 4, QUEUE_BYTES = 600, QUEUE_MESSAGES = 20 };

static struct world w;
static struct sink client[CLIENTS];
static bool is_polling[CLIENTS];
static unsigned attachments_due[CLIENTS]; /* of the packet that the client is reading */

static struct pending {
    struct ack_wait wait;
    bool used;
} waits[WAITS];

struct input {
    const uint8_t *p;
    size_t n;
};

static unsigned take(struct input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

static struct span take_bytes(struct input *in)
{
    size_t n = take(in);
    n = n < in->n ? n : in->n;
    struct span s = {(const char *)in->p, n};
    in->p += n;
    in->n -= n;
    return s;
}

/* ---- what must hold ---- */

static void check_queue(const struct session *s)
{
    uint64_t bytes = 0, messages = 0;
    for (unsigned i = 0; i < s->out.count; i++) {
        const struct outq_entry *e = &s->out.entry[(s->out.head + i) & (s->out.cap - 1u)];
        bytes += e->n;
        messages += e->messages;
    }
    MUST(bytes == s->out.bytes && messages == s->out.messages);
    /* Only what was pushed to an empty queue may be larger than the bounds, and then it is alone. */
    MUST(s->out.count <= 1 || (bytes <= QUEUE_BYTES && messages <= QUEUE_MESSAGES));
}

static void check_clients(void)
{
    uint64_t polling = 0, websocket = 0;
    unsigned known = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct session *s = client[i].session;
        if (!s)
            continue;
        known++;
        MUST(s->state != SESSION_DEAD);
        MUST((client[i].closes > 0) == (s->state == SESSION_CLOSING));
        if (s->state != SESSION_OPEN)
            continue;
        polling += is_polling[i];
        websocket += !is_polling[i];
        check_queue(s);
    }
    MUST(engine_count(w.engine) == known);
    MUST(metrics_get(w.metrics, METRIC_SESSIONS_POLLING) == polling);
    MUST(metrics_get(w.metrics, METRIC_SESSIONS_WEBSOCKET) == websocket);
}

static void check_room(const struct room *room)
{
    uint32_t holes = 0;
    for (uint32_t i = 0; i < room->n; i++) {
        const struct socket *s = room->members[i].socket;
        holes += s == NULL;
        MUST(!s || (s->places[room->members[i].place].room == room &&
                    s->places[room->members[i].place].index == i));
    }
    MUST(holes == room->holes);
    MUST(room->pins > 0 || (holes == 0 && (room->n > 0 || room == room->nsp->all)));
}

static void check_hub(void)
{
    uint64_t sockets = 0, rooms = 0;
    for (struct nsp *nsp = w.hub->nsps; nsp; nsp = nsp->hh.next) {
        sockets += HASH_COUNT(nsp->sockets);
        rooms += HASH_COUNT(nsp->rooms);
        MUST(room_count(nsp->all) == HASH_COUNT(nsp->sockets));
        check_room(nsp->all);
        for (struct room *room = nsp->rooms; room; room = room->hh.next)
            check_room(room);
        for (struct socket *s = nsp->sockets; s; s = s->hh.next)
            MUST(s->n_places >= 1 && s->session->state == SESSION_OPEN);
    }
    MUST(metrics_get(w.metrics, METRIC_SOCKETS) == sockets);
    MUST(metrics_get(w.metrics, METRIC_ROOMS) == rooms);
    MUST(metrics_get(w.metrics, METRIC_NAMESPACES) == HASH_COUNT(w.hub->nsps));
    MUST(w.hub->fanout->first || (w.hub->fanout->waiting_members == 0 && w.hub->fanout->waiting_bytes == 0));
}

/* Everything that a client has been written so far. */
static void check_written(unsigned i)
{
    struct sink_frame frame;
    struct sio_packet packet;
    while (sink_next(&client[i], &frame)) {
        if (attachments_due[i] > 0) {
            MUST(frame.opcode == WS_BINARY);
            attachments_due[i]--;
            continue;
        }
        MUST(frame.opcode == WS_TEXT && frame.payload.n > 0);
        MUST(utf8_valid(frame.payload.p, frame.payload.n));
        if (frame.payload.p[0] != '4') {
            MUST(frame.payload.p[0] == '0' || span_eq(frame.payload, SPAN("2")));
            continue;
        }
        MUST(sio_decode((struct span){frame.payload.p + 1, frame.payload.n - 1}, &packet) == 0);
        attachments_due[i] = packet.attachments;
    }
}

static void check_all(void)
{
    check_clients();
    check_hub();
    for (unsigned i = 0; i < CLIENTS; i++)
        check_written(i);
}

/* ---- steps ---- */

static void open_client(unsigned i, bool polling)
{
    if (client[i].session)
        return;
    sink_free(&client[i]);
    attachments_due[i] = 0;
    is_polling[i] = polling;
    sink_open_on(&w, &client[i], polling ? &sink_polling : &sink_ws);
}

static void say(unsigned i, struct span text)
{
    char clean[3 * 512];
    if (!client[i].session)
        return;
    /* Text reaches the engine valid, made so by the transports. */
    text.n = utf8_sanitize(clean, text.p, text.n < 512 ? text.n : 512);
    text.p = clean;
    sink_says_span(&client[i], text);
}

/* What a mutation of bytes alone would rarely say. */
static void say_something_sensible(unsigned i, unsigned which, unsigned number)
{
    static const char *const texts[] = {
        "0",
        "0/chat,{\"a\":1}",
        "1",
        "1/chat,",
        "2%u[\"bus:join\",[\"r%u\",\"r7\"]]",
        "2/chat,%u[\"bus:join\",\"r%u\"]",
        "2%u[\"bus:leave\",\"r%u\"]",
        "2%u[\"bus:emit\",{\"event\":\"e\",\"to\":\"r%u\",\"args\":[1,[2]]}]",
        "2%u[\"bus:emit\",{\"event\":\"e\",\"to\":[\"r1\",\"r%u\"],\"except\":\"r3\",\"echo\":true}]",
        "2/chat,%u[\"bus:emit\",{\"event\":\"e%u\",\"volatile\":true}]",
        "2%u[\"bus:emit\",{\"event\":\"loud\",\"echo\":true,\"args\":[\"%0200u\"]}]",
        "52-%u[\"bus:emit\",{\"event\":\"b%u\",\"args\":[{\"_placeholder\":true,\"num\":1}]}]",
        "51-/chat,%u[\"file%u\",{\"_placeholder\":true,\"num\":0}]",
        "2%u[\"bus:who\",\"r%u\"]",
        "2[\"unknown\",%u,%u]",
        "3%u[%u]",
        "3/chat,%u[%u]",
        "61-%u[{\"_placeholder\":true,\"num\":0},%u]",
        "0/admin,",
    };
    char text[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(text, sizeof(text), texts[which % (sizeof(texts) / sizeof(texts[0]))], number % 16,
                     number % 8);
#pragma GCC diagnostic pop
    say(i, (struct span){text, (size_t)n});
}

static void send_packet(unsigned i, struct input *in)
{
    struct eio_packet packet = {.type = (enum eio_type)(take(in) % (EIO_NOOP + 1))};
    if (!client[i].session)
        return;
    if (packet.type == EIO_MESSAGE) {
        packet.base64 = true;
        packet.data = take_bytes(in);
    }
    session_receive(client[i].session, &packet);
}

static void on_ack(struct ack_wait *wait, struct socket *from, struct span args,
                   const struct span *attachments, unsigned n_attachments)
{
    (void)wait, (void)args, (void)attachments, (void)n_attachments;
    MUST(from->session->state == SESSION_OPEN);
}

static void on_done(struct ack_wait *wait)
{
    struct pending *p = container_of(wait, struct pending, wait);
    MUST(p->used && wait->all_sent && !wait->pending);
    p->used = false;
}

static void ask(struct input *in)
{
    static const struct span namespaces[] = {SPAN("/"), SPAN("/chat")};
    struct span to = SPAN("r1");
    unsigned what = take(in);
    struct pending *p = &waits[what % WAITS];
    uint64_t seq;
    if (p->used)
        return;
    p->used = true;
    p->wait.on_ack = on_ack;
    p->wait.on_done = on_done;
    ack_wait_start(&p->wait, w.hub, what & 8 ? 0 : 60000);
    struct emit e = {.nsp = namespaces[what >> 4 & 1],
                     .event = SPAN("\"ask\""),
                     .to = &to,
                     .n_to = what >> 5 & 1,
                     .wait = &p->wait};
    MUST(hub_emit(w.hub, &e, &seq) == 0);
}

static void move_to_websocket(unsigned i)
{
    if (!client[i].session || client[i].session->state != SESSION_OPEN || !is_polling[i])
        return;
    is_polling[i] = false;
    session_switch_transport(client[i].session, &sink_ws, &client[i]);
}

static void throw_out(unsigned i, bool close)
{
    for (struct nsp *nsp = w.hub->nsps; nsp; nsp = nsp->hh.next) {
        for (struct socket *s = nsp->sockets; s; s = s->hh.next) {
            if (s->session == client[i].session) {
                socket_disconnect(s, close);
                return;
            }
        }
    }
}

static void end_client(unsigned i, unsigned how)
{
    struct session *s = client[i].session;
    if (!s)
        return;
    if (s->state == SESSION_CLOSING)
        sink_forget(&client[i]);
    else if (how % 2)
        session_close_soon(s, CLOSE_FORCED);
    else
        session_close(s, CLOSE_TRANSPORT_CLOSE);
}

static void step(struct input *in)
{
    unsigned op = take(in), i = op >> 4 & 7;
    if (i >= CLIENTS)
        i -= CLIENTS;
    struct sink *k = &client[i];
    switch (op & 15) {
    case 0:
        open_client(i, op & 128);
        break;
    case 1:
        say(i, take_bytes(in));
        break;
    case 2:
        if (k->session)
            session_receive_binary(k->session, take_bytes(in));
        break;
    case 3:
    case 4:
    case 5: {
        unsigned which = take(in);
        say_something_sensible(i, which, take(in));
        break;
    }
    case 6:
        send_packet(i, in);
        break;
    case 7:
        sink_block(k);
        break;
    case 8:
        sink_allow(k, op & 128 ? SIZE_MAX : take(in));
        break;
    case 9:
        world_turn(&w);
        break;
    case 10: /* a turn that reaches few members only */
        w.hub->fanout->budget = op & 128 ? 0 : TURN_BUDGET - LEADER_BUDGET + 3 * (COST_WRITE + 1);
        break;
    case 11:
        if (k->session && k->session->state == SESSION_OPEN)
            reactor_timer_set(w.reactor, &k->session->heartbeat, 0);
        break;
    case 12:
        ask(in);
        break;
    case 13:
        end_client(i, op >> 7);
        break;
    case 14:
        if (k->session)
            throw_out(i, op & 128);
        break;
    default:
        if (op & 128)
            move_to_websocket(i);
        else if (k->session && k->session->state == SESSION_OPEN)
            k->lingers = !k->lingers;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    memset(client, 0, sizeof(client));
    memset(waits, 0, sizeof(waits));
    memset(attachments_due, 0, sizeof(attachments_due));
    world_start(&w, NULL, "*");
    w.engine->options.queue_bytes = QUEUE_BYTES;
    w.engine->options.queue_messages = QUEUE_MESSAGES;
    while (in.n > 0) {
        step(&in);
        check_all();
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        client[i].lingers = false;
    for (unsigned i = 0; i < CLIENTS; i++)
        if (client[i].session && client[i].session->state == SESSION_CLOSING)
            sink_forget(&client[i]);
    world_turn(&w);
    check_all();
    for (unsigned i = 0; i < WAITS; i++)
        if (waits[i].used && waits[i].wait.all_sent)
            ack_wait_cancel(&waits[i].wait);
    world_stop(&w);
    for (unsigned i = 0; i < CLIENTS; i++)
        sink_free(&client[i]);
    return 0;
}
