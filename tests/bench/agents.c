/* The load client for agents: one thread that plays agents, and the clients that they answer, or those of NATS that ask
 * each other. See README.md. */
#include "lib/measure.h"
#include "lib/util.h"
#include "lib/zagent.h"

#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static const char USAGE[] =
    "usage: agents MEASURE --at WHERE [options]\n"
    "\n"
    "MEASURE\n"
    "  ask    agent A asks agent B, --inflight asks under way\n"
    "  call   a client emits to agent B and is answered, --inflight calls under way\n"
    "  emits  agent A emits as fast as it is granted, confirm none, to a room that nobody is in\n"
    "  nats   as ask, with request and reply of NATS\n"
    "\n"
    "options\n"
    "  --at WHERE      endpoint of a node for agents, tcp://127.0.0.1:7800; of NATS its port. Twice: B is at "
    "the\n"
    "                  second\n"
    "  --client-port P of a node for clients: call\n"
    "  --pid PID       a process of the server (repeat for more): its CPU time is reported\n"
    "  --inflight N    1\n"
    "  --seconds S     measured time, 3\n"
    "  --warmup S      time before it, 1\n"
    "  --timeout S     give up when nothing comes for so long, 10\n"
    "  --core K        run on this core\n"
    "  --label TEXT    name of the target in the output\n"
    "\n"
    "Prints one line of JSON. Exit status 1: an answer was lost or wrong, or the server failed; 2: usage.\n";

struct bench {
    struct measure m;
    const char *at[2];
    unsigned n_at;
    void *context;
    struct zagent a, b;
    struct nats {
        struct io io;
        struct bench *bench;
        bool is_ready, asks;
        size_t out_n;
        char out[MEASURE_INFLIGHT_MAX * WIRE_FRAME_MAX];
    } na, nb;
    struct session client;
    struct run run;
    struct hist times;
    uint64_t next_seq, done;
    uint64_t sent_ns[MEASURE_INFLIGHT_MAX];
    char body[WIRE_PAYLOAD_BYTES];
};

/* ---- round trips ---- */

/* The number of a round trip is in its body, so each answer is known for its own. */
static uint64_t begin_round_trip(struct bench *b)
{
    uint64_t seq = b->next_seq++;
    char digits[WIRE_DIGITS + 1];
    b->sent_ns[seq % MEASURE_INFLIGHT_MAX] = now_ns();
    snprintf(digits, sizeof(digits), "%0*llu", WIRE_DIGITS, (unsigned long long)seq);
    memcpy(b->body, digits, WIRE_DIGITS);
    return seq;
}

static uint64_t body_seq(const char *p, size_t n)
{
    char digits[WIRE_DIGITS + 1] = "";
    if (n != WIRE_PAYLOAD_BYTES)
        die("an answer of %zu bytes came", n);
    memcpy(digits, p, WIRE_DIGITS);
    return strtoull(digits, NULL, 10);
}

static void end_round_trip(struct bench *b, uint64_t seq)
{
    uint64_t *sent = &b->sent_ns[seq % MEASURE_INFLIGHT_MAX];
    if (seq >= b->next_seq || *sent == 0)
        die("an answer to %llu came that nobody waits for", (unsigned long long)seq);
    if (b->run.measuring) {
        b->done++;
        hist_add(&b->times, b->m.loop.now_ns - *sent);
    }
    *sent = 0;
}

static void run_round_trips(struct bench *b)
{
    while (!run_over(&b->run))
        if (!loop_turn(&b->m.loop, 0))
            die("no answer came in time; %llu were asked for", (unsigned long long)b->next_seq);
    report_begin(&b->m);
    report_usage(&b->run.used, b->done, "round_trip");
    report_quantiles("rtt", &b->times);
    report_end();
}

/* ---- agents ---- */

static void open_agents(struct bench *b, bool only_b)
{
    b->context = zmq_ctx_new();
    if (!b->context)
        die("zmq_ctx_new: %s", zmq_strerror(zmq_errno()));
    if (!only_b)
        zagent_open(&b->a, b->context, b->at[0]);
    zagent_open(&b->b, b->context, b->at[b->n_at - 1]);
}

/* B's answer to an ASKED or a CALL: what came. */
static void put_answer(struct zagent *a, uint64_t id, const char *key, const struct zagent_value *value)
{
    zagent_put_array(a, 3);
    zagent_put_uint(a, ZAGENT_OK);
    zagent_put_uint(a, id);
    zagent_put_map(a, 1);
    zagent_put_text(a, key, strlen(key));
    zagent_put_text(a, value->p, value->n);
}

static void on_asked(struct zagent *a, const struct zagent_value *v, unsigned n)
{
    if (v[0].number == ZAGENT_ASKED && n > 3)
        put_answer(a, v[1].number, "body", &v[3]);
    else if (v[0].number == ZAGENT_CALL && n > 6)
        put_answer(a, v[1].number, "args", &v[6]);
}

static void ask(struct bench *b)
{
    uint64_t seq = begin_round_trip(b);
    zagent_put_array(&b->a, 4);
    zagent_put_uint(&b->a, ZAGENT_ASK);
    zagent_put_uint(&b->a, seq + 1);
    zagent_put_text(&b->a, "b", 1);
    zagent_put_text(&b->a, b->body, sizeof(b->body));
}

static void on_reply(struct zagent *a, const struct zagent_value *v, unsigned n)
{
    struct bench *b = a->user;
    if (v[0].number != ZAGENT_OK || n < 3)
        return;
    uint64_t seq = body_seq(v[2].p, v[2].n);
    if (seq + 1 != v[1].number)
        die("the answer to %llu came for %llu", (unsigned long long)seq, (unsigned long long)v[1].number);
    end_round_trip(b, seq);
    ask(b);
}

static void measure_ask(struct bench *b)
{
    b->a.on_record = on_reply;
    b->b.on_record = on_asked;
    open_agents(b, false);
    zagent_put_array(&b->b, 3);
    zagent_put_uint(&b->b, ZAGENT_REGISTER);
    zagent_put_uint(&b->b, 1);
    zagent_put_text(&b->b, "b", 1);
    zagent_wait(&b->b, 1);
    run_begin(&b->run, &b->m);
    for (unsigned i = 0; i < b->m.inflight; i++)
        ask(b);
    zagent_flush(&b->a);
    b->a.io.on_readable(&b->a.io, &b->m.loop);
    run_round_trips(b);
}

/* ---- a client that is answered ---- */

static void emit_call(struct bench *b)
{
    char text[WIRE_FRAME_MAX];
    uint8_t frame[WIRE_FRAME_MAX];
    uint64_t seq = begin_round_trip(b);
    int n = snprintf(text, sizeof(text), "42%llu[\"call\",\"%.*s\"]", (unsigned long long)seq,
                     (int)sizeof(b->body), b->body);
    session_send(&b->client, frame, wire_client_frame(frame, text, (size_t)n));
}

static void on_acknowledged(struct session *s, const char *text, size_t n)
{
    struct bench *b = s->context;
    const char *body = memchr(text, '"', n);
    if (!body || text[n - 1] != ']' || text[n - 2] != '"')
        die("a call was answered with %.*s", (int)n, text);
    uint64_t seq = body_seq(body + 1, (size_t)(text + n - 2 - (body + 1)));
    if (strtoull(text + 2, NULL, 10) != seq)
        die("call %llu was answered with %.*s", (unsigned long long)seq, (int)n, text);
    end_round_trip(b, seq);
    emit_call(b);
}

static void measure_call(struct bench *b)
{
    static const struct session_events EVENTS = {.on_acknowledged = on_acknowledged};
    b->b.on_record = on_asked;
    open_agents(b, true);
    zagent_put_array(&b->b, 3);
    zagent_put_uint(&b->b, ZAGENT_HANDLE);
    zagent_put_uint(&b->b, 1);
    zagent_put_map(&b->b, 1);
    zagent_put_text(&b->b, "events", 6);
    zagent_put_array(&b->b, 1);
    zagent_put_text(&b->b, "call", 4);
    zagent_wait(&b->b, 1);
    if (b->m.loop.port_count != 1)
        die_usage("call needs --client-port");
    b->client =
        (struct session){.loop = &b->m.loop, .events = &EVENTS, .context = b, .dialect = WIRE_SOCKETIO};
    session_open_all(&b->client, 1);
    loop_settle(&b->m.loop, NS_PER_S / 2);
    run_begin(&b->run, &b->m);
    for (unsigned i = 0; i < b->m.inflight; i++)
        emit_call(b);
    run_round_trips(b);
}

/* ---- emits ---- */

static void put_emit(struct zagent *a, uint64_t id, const char *args, size_t n)
{
    zagent_put_array(a, 6);
    zagent_put_uint(a, ZAGENT_EMIT);
    zagent_put_uint(a, id);
    zagent_put_text(a, "/", 1);
    zagent_put_array(a, 1);
    zagent_put_text(a, "nobody", 6);
    zagent_put_text(a, "e", 1);
    zagent_put_text(a, args, n);
}

static void measure_emits(struct bench *b)
{
    char args[WIRE_PAYLOAD_BYTES + 4];
    b->n_at = 1;
    b->b.name = "unused";
    b->context = zmq_ctx_new();
    zagent_open(&b->a, b->context, b->at[0]);
    snprintf(args, sizeof(args) + 1, "[\"%.*s\"]", (int)sizeof(b->body), b->body);
    run_begin(&b->run, &b->m);
    do {
        while (zagent_may_send(&b->a)) {
            put_emit(&b->a, 0, args, sizeof(args));
            b->done += b->run.measuring;
        }
        zagent_flush(&b->a);
        b->a.io.on_readable(&b->a.io, &b->m.loop);
        if (!zagent_may_send(&b->a) && !loop_turn(&b->m.loop, 0))
            die("no grant came in time");
        b->m.loop.now_ns = now_ns();
    } while (!run_over(&b->run));
    /* Carried out in order: with this one's answer all have been. */
    put_emit(&b->a, 1, args, sizeof(args));
    zagent_wait(&b->a, 1);
    report_begin(&b->m);
    report_usage(&b->run.used, b->done, "emit");
    report_end();
}

/* ---- NATS ---- */

static void nats_put(struct nats *n, const void *p, size_t size)
{
    if (n->out_n + size > sizeof(n->out))
        die("more than %zu bytes are to be sent at once", sizeof(n->out));
    memcpy(n->out + n->out_n, p, size);
    n->out_n += size;
}

static void nats_put_message(struct nats *n, const char *head, const char *body)
{
    nats_put(n, head, strlen(head));
    nats_put(n, body, WIRE_PAYLOAD_BYTES);
    nats_put(n, "\r\n", 2);
}

static void nats_flush(struct nats *n)
{
    if (n->out_n > 0)
        io_send(&n->io, n->out, n->out_n);
    n->out_n = 0;
}

static void nats_request(struct bench *b)
{
    begin_round_trip(b);
    nats_put_message(&b->na, "PUB b _INBOX.bench.a 128\r\n", b->body);
}

static void nats_take(struct nats *n, const struct wire_nats *m)
{
    struct bench *b = n->bench;
    if (!m->payload) {
        if (m->line_n >= 4 && !memcmp(m->line, "PING", 4))
            nats_put(n, "PONG\r\n", 6);
        else if (m->line_n >= 4 && !memcmp(m->line, "PONG", 4))
            n->is_ready = true;
        else if (m->line_n < 4 || memcmp(m->line, "INFO", 4))
            die("NATS says %.*s", (int)m->line_n, m->line);
    } else if (n->asks) {
        end_round_trip(b, body_seq(m->payload, m->payload_n));
        nats_request(b);
    } else {
        body_seq(m->payload, m->payload_n);
        nats_put_message(n, "PUB _INBOX.bench.a 128\r\n", m->payload);
    }
}

static void nats_on_readable(struct io *io, struct loop *loop)
{
    struct nats *n = (struct nats *)io;
    struct wire_cursor c;
    struct wire_nats m;
    int got;
    size_t size = io_read(io, loop, &c.p);
    if (size == 0)
        die("NATS closed the connection");
    c.end = c.p + size;
    while ((got = wire_next_nats(&c, &m)) > 0)
        nats_take(n, &m);
    if (got < 0)
        die("NATS says %.*s", (int)m.line_n, m.line);
    io_keep(io, c.p, (size_t)(c.end - c.p));
    nats_flush(n);
}

static void nats_open(struct bench *b, struct nats *n, const char *port, bool asks)
{
    static const char HELLO[] =
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\","
        "\"protocol\":1,\"echo\":false}\r\n";
    const char *sub = asks ? "SUB _INBOX.bench.* 1\r\nPING\r\n" : "SUB b 1\r\nPING\r\n";
    n->bench = b;
    n->asks = asks;
    n->io.on_readable = nats_on_readable;
    loop_connect(&b->m.loop, &n->io, (uint16_t)parse_number("--at", port, 1, 65535));
    nats_put(n, HELLO, sizeof(HELLO) - 1);
    nats_put(n, sub, strlen(sub));
    nats_flush(n);
    while (!n->is_ready)
        if (!loop_turn(&b->m.loop, 0))
            die("NATS did not answer in time");
}

static void measure_nats(struct bench *b)
{
    nats_open(b, &b->nb, b->at[b->n_at - 1], false);
    nats_open(b, &b->na, b->at[0], true);
    loop_settle(&b->m.loop, NS_PER_S / 2);
    run_begin(&b->run, &b->m);
    for (unsigned i = 0; i < b->m.inflight; i++)
        nats_request(b);
    nats_flush(&b->na);
    run_round_trips(b);
}

/* ---- the command line ---- */

static const struct kind {
    const char *name;
    void (*measure)(struct bench *);
} KINDS[] = {{"ask", measure_ask}, {"call", measure_call}, {"emits", measure_emits}, {"nats", measure_nats}};

enum option_key { AT = 256, CLIENT_PORT, PID, INFLIGHT, SECONDS, WARMUP, TIMEOUT, CORE, LABEL };

static const struct option OPTIONS[] = {
    {"at", required_argument, NULL, AT},           {"client-port", required_argument, NULL, CLIENT_PORT},
    {"pid", required_argument, NULL, PID},         {"inflight", required_argument, NULL, INFLIGHT},
    {"seconds", required_argument, NULL, SECONDS}, {"warmup", required_argument, NULL, WARMUP},
    {"timeout", required_argument, NULL, TIMEOUT}, {"core", required_argument, NULL, CORE},
    {"label", required_argument, NULL, LABEL},     {NULL, 0, NULL, 0},
};

static void run_on_core(long core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        die_usage("--core %ld: there is no such core", core);
}

static void take_option(struct bench *b, int key, uint64_t *timeout_ns)
{
    struct measure *m = &b->m;
    switch (key) {
    case AT:
        if (b->n_at == 2)
            die_usage("--at: at most two nodes");
        b->at[b->n_at++] = optarg;
        return;
    case CLIENT_PORT:
        m->loop.ports[0] = (uint16_t)parse_number("--client-port", optarg, 1, 65535);
        m->loop.port_count = 1;
        return;
    case PID:
        if (m->server.count == SERVER_PIDS)
            die_usage("--pid: at most %d processes", SERVER_PIDS);
        m->server.pids[m->server.count++] = (pid_t)parse_number("--pid", optarg, 1, INT32_MAX);
        return;
    case INFLIGHT:
        m->inflight = (unsigned)parse_number("--inflight", optarg, 1, MEASURE_INFLIGHT_MAX);
        return;
    case SECONDS:
        m->run_ns = parse_seconds_ns("--seconds", optarg);
        return;
    case WARMUP:
        m->warmup_ns = parse_seconds_ns("--warmup", optarg);
        return;
    case TIMEOUT:
        *timeout_ns = parse_seconds_ns("--timeout", optarg);
        return;
    case CORE:
        run_on_core(parse_number("--core", optarg, 0, CPU_SETSIZE - 1));
        return;
    case LABEL:
        m->target = optarg;
        return;
    default:
        die_usage("see --help");
    }
}

int main(int argc, char **argv)
{
    struct bench *b = must_alloc(1, sizeof(*b));
    uint64_t timeout_ns = 10 * NS_PER_S;
    size_t i = 0;
    if (argc > 1 && !strcmp(argv[1], "--help")) {
        fputs(USAGE, stdout);
        return 0;
    }
    while (i < sizeof(KINDS) / sizeof(KINDS[0]) && (argc < 2 || strcmp(argv[1], KINDS[i].name)))
        i++;
    if (i == sizeof(KINDS) / sizeof(KINDS[0]))
        die_usage("MEASURE is ask, call, emits or nats; see --help");
    b->m = (struct measure){.name = KINDS[i].name,
                            .target = KINDS[i].name,
                            .inflight = 1,
                            .warmup_ns = NS_PER_S,
                            .run_ns = 3 * NS_PER_S};
    optind = 2;
    for (int key; (key = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;)
        take_option(b, key, &timeout_ns);
    if (optind < argc || b->n_at == 0)
        die_usage("--at is needed, and nothing behind the options; see --help");
    memset(b->body, 'x', sizeof(b->body));
    loop_init(&b->m.loop, 1, timeout_ns);
    b->a.name = "a";
    b->b.name = "b";
    b->a.loop = b->b.loop = &b->m.loop;
    b->a.user = b->b.user = b;
    KINDS[i].measure(b);
    zagent_close(&b->a);
    zagent_close(&b->b);
    if (b->context)
        zmq_ctx_term(b->context);
    return 0;
}
