/* One publisher, a room of members. A round is `inflight` emits written at once; the next round starts when
 * every member has received all of this one. So with 1 there is nothing that a server could coalesce, with 32
 * it may. */
#include "measure.h"
#include "util.h"
#include "wire.h"

struct fanout {
    struct measure *measure;
    struct run run;
    struct session publisher;
    struct session *members;
    struct wire_emitter emitter;
    uint8_t *round;        /* the frames of one round */
    uint64_t next_seq;     /* of the next emit */
    uint64_t missing;      /* deliveries of this round */
    uint64_t published_ns; /* just before the round was written */
    uint64_t delivered;
    struct hist each; /* from the write of the round to the read by a member */
    struct hist last; /* to the read by the last member */
};

static void on_event(struct session *s, uint64_t seq, const char *text, size_t n)
{
    struct fanout *f = s->context;
    if (seq != s->received)
        die("member %u: message %llu is due, \"%.*s\" came", s->index, (unsigned long long)s->received,
            (int)(n < 200 ? n : 200), text);
    if (seq >= f->next_seq)
        die("member %u: message %llu came before it was sent", s->index, (unsigned long long)seq);
    s->received++;
    f->missing--;
    if (f->run.measuring)
        hist_add(&f->each, f->measure->loop.now_ns - f->published_ns);
}

static _Noreturn void die_stalled(const struct fanout *f)
{
    for (unsigned i = 0; i < f->measure->members; i++) {
        const struct session *s = &f->members[i];
        if (s->received < f->next_seq)
            die("%llu deliveries did not come in time; the first: member %u has %llu of %llu messages",
                (unsigned long long)f->missing, i, (unsigned long long)s->received,
                (unsigned long long)f->next_seq);
    }
    die("the client lost count");
}

static void play_round(struct fanout *f)
{
    struct measure *m = f->measure;
    size_t n = 0;
    for (unsigned i = 0; i < m->inflight; i++)
        n += wire_emitter_write(&f->emitter, f->round + n, f->next_seq++);
    f->missing = (uint64_t)m->members * m->inflight;
    f->published_ns = now_ns();
    session_send(&f->publisher, f->round, n);
    while (f->missing > 0) {
        if (!loop_turn(&m->loop, 0))
            die_stalled(f);
    }
    if (f->run.measuring) {
        f->delivered += (uint64_t)m->members * m->inflight;
        hist_add(&f->last, m->loop.now_ns - f->published_ns);
    }
}

static void open_all(struct fanout *f)
{
    static const struct session_events EVENTS = {.on_event = on_event};
    struct measure *m = f->measure;
    f->members = must_alloc(m->members, sizeof(*f->members));
    for (unsigned i = 0; i < m->members; i++)
        f->members[i] = (struct session){.loop = &m->loop,
                                         .events = &EVENTS,
                                         .context = f,
                                         .room = "bench",
                                         .role = BARE_MEMBER,
                                         .dialect = m->dialect,
                                         .node = i % m->loop.port_count,
                                         .index = i};
    f->publisher = (struct session){.loop = &m->loop,
                                    .events = &EVENTS,
                                    .context = f,
                                    .role = BARE_PUBLISHER,
                                    .dialect = m->dialect,
                                    .index = m->members};
    session_open_all(f->members, m->members);
    session_open_all(&f->publisher, 1);
    measure_settle(m);
}

void measure_fanout(struct measure *m)
{
    struct fanout *f = must_alloc(1, sizeof(*f));
    f->measure = m;
    f->round = must_alloc(m->inflight, WIRE_FRAME_MAX);
    wire_emitter_init(&f->emitter, m->dialect, "bench");
    open_all(f);
    run_begin(&f->run, m);
    do
        play_round(f);
    while (!run_over(&f->run));

    report_begin(m);
    report_usage(&f->run.used, f->delivered, "delivery");
    report_quantiles("latency", &f->each);
    report_quantiles("last", &f->last);
    report_end();
}
