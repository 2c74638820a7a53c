/* What an emit costs on a node that has no member for it. `members` clients of the first node emit `rate` times a second in
 * all to a room that nobody is in, in three phases: traffic, silence, traffic. A member of another room at the last node receives
 * one emit of the first sender at the end of each phase: what came before it has then been dealt with there, since a
 * sender's order is kept. */
#include "measure.h"
#include "util.h"

#include <stdio.h>

enum { PHASES = 3, BURST_MAX = 256, LEAST_PERCENT = 95 };

struct mesh {
    struct measure *measure;
    struct session *senders, witness;
    unsigned next_sender;
    struct wire_emitter nobody, mark;
    uint64_t next_seq, marks;
    uint64_t writes;
    uint8_t burst[BURST_MAX * WIRE_FRAME_MAX];
};

struct phase {
    uint64_t emits, wall_ns;
    uint64_t cpu_ns[SERVER_PIDS];
};

static void on_event(struct session *s, uint64_t seq, const char *text, size_t n)
{
    const struct mesh *x = s->context;
    if (s != &x->witness || seq != s->received || seq >= x->marks)
        die("the witness waits for %llu, \"%.*s\" came", (unsigned long long)s->received,
            (int)(n < 200 ? n : 200), text);
    s->received++;
}

static void open_sessions(struct mesh *x)
{
    static const struct session_events EVENTS = {.on_event = on_event};
    struct measure *m = x->measure;
    const struct session session = {
        .loop = &m->loop, .events = &EVENTS, .context = x, .dialect = m->dialect, .index = m->members};
    x->senders = must_alloc(m->members, sizeof(*x->senders));
    for (unsigned i = 0; i < m->members; i++) {
        x->senders[i] = session;
        x->senders[i].index = i;
    }
    x->witness = session;
    x->witness.room = "mark";
    x->witness.node = m->loop.port_count - 1;
    session_open_all(x->senders, m->members);
    session_open_all(&x->witness, 1);
    measure_settle(m);
}

static void send_mark(struct mesh *x)
{
    uint8_t frame[WIRE_FRAME_MAX];
    session_send(&x->senders[0], frame, wire_emitter_write(&x->mark, frame, x->marks++));
    while (x->witness.received < x->marks)
        if (!loop_turn(&x->measure->loop, 0))
            die("what was emitted did not come through in time");
}

static void emit_some(struct mesh *x, uint64_t count)
{
    size_t n = 0;
    for (uint64_t i = 0; i < count; i++)
        n += wire_emitter_write(&x->nobody, x->burst + n, x->next_seq++);
    session_send(&x->senders[x->next_sender], x->burst, n);
    x->next_sender = (x->next_sender + 1) % x->measure->members;
    x->writes++;
}

/* Once a millisecond what is due by then, in one write of each sender. */
static uint64_t emit_for(struct mesh *x, uint64_t duration_ns)
{
    uint64_t started = now_ns(), sent = 0, gone;
    while ((gone = now_ns() - started) < duration_ns) {
        uint64_t due = gone * x->measure->rate / NS_PER_S - sent;
        uint64_t each = (due + x->measure->members - 1) / x->measure->members;
        each = each < BURST_MAX ? each : BURST_MAX;
        for (; due > 0; due -= each) {
            each = each < due ? each : due;
            emit_some(x, each);
            sent += each;
        }
        loop_turn(&x->measure->loop, now_ns() + 1000000);
    }
    return sent;
}

static void read_cpu(const struct measure *m, uint64_t cpu_ns[SERVER_PIDS])
{
    for (unsigned i = 0; i < m->server.count; i++)
        cpu_ns[i] = server_usage(&(struct server){.count = 1, .pids = {m->server.pids[i]}}).cpu_ns;
}

static struct phase play(struct mesh *x, bool traffic)
{
    const struct measure *m = x->measure;
    struct phase p = {.wall_ns = now_ns()};
    uint64_t before[SERVER_PIDS];
    read_cpu(m, before);
    if (traffic)
        p.emits = emit_for(x, m->run_ns);
    else
        loop_settle(&x->measure->loop, m->run_ns);
    send_mark(x);
    p.wall_ns = now_ns() - p.wall_ns;
    read_cpu(m, p.cpu_ns);
    for (unsigned i = 0; i < m->server.count; i++)
        p.cpu_ns[i] -= before[i];
    if (traffic && (double)p.emits / (double)p.wall_ns * NS_PER_S < m->rate * (LEAST_PERCENT / 100.0))
        die("only %.0f emits a second got through, %u were intended",
            (double)p.emits / (double)p.wall_ns * NS_PER_S, m->rate);
    return p;
}

/* What the traffic added, an emit. */
static double added_us(const struct phase *busy, const struct phase *quiet, unsigned pid)
{
    double idle_ns = (double)quiet->cpu_ns[pid] / (double)quiet->wall_ns * (double)busy->wall_ns;
    return ((double)busy->cpu_ns[pid] - idle_ns) / (double)busy->emits / NS_PER_US;
}

void measure_mesh(struct measure *m)
{
    struct mesh *x = must_alloc(1, sizeof(*x));
    struct phase phases[PHASES];
    char name[64];
    x->measure = m;
    wire_emitter_init(&x->nobody, m->dialect, "nobody");
    wire_emitter_init(&x->mark, m->dialect, "mark");
    open_sessions(x);
    emit_for(x, m->warmup_ns);
    x->writes = 0;
    for (unsigned i = 0; i < PHASES; i++)
        phases[i] = play(x, i % 2 == 0);

    report_begin(m);
    report("emits_per_s", (double)phases[0].emits / (double)phases[0].wall_ns * (double)NS_PER_S);
    report("emits_per_write", (double)(phases[0].emits + phases[2].emits) / (double)x->writes);
    for (unsigned i = 0; i < m->server.count; i++) {
        double first = added_us(&phases[0], &phases[1], i), second = added_us(&phases[2], &phases[1], i);
        snprintf(name, sizeof(name), "cpu_us_per_emit_%u", i);
        report(name, (first + second) / 2);
        snprintf(name, sizeof(name), "cpu_us_per_emit_%u_first", i);
        report(name, first);
        snprintf(name, sizeof(name), "cpu_us_per_emit_%u_second", i);
        report(name, second);
        snprintf(name, sizeof(name), "idle_percent_%u", i);
        report(name, 100 * (double)phases[1].cpu_ns[i] / (double)phases[1].wall_ns);
        snprintf(name, sizeof(name), "busy_percent_%u", i);
        report(name, 100 * (double)phases[0].cpu_ns[i] / (double)phases[0].wall_ns);
    }
    report_end();
}
