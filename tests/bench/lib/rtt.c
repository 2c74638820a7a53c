/* Client A emits to the room of B, B at once emits the same back to the room of A. `inflight` messages are
 * kept on their way; what one read brings is answered with one write, or with one for each message
 * (write_each). */
#include "measure.h"
#include "util.h"
#include "wire.h"

enum { A, B };

struct rtt {
    struct measure *measure;
    struct run run;
    struct session peers[2];
    struct wire_emitter emitters[2]; /* of A: to B's room */
    uint8_t *out[2];
    size_t out_n[2];
    uint64_t next_seq;
    uint64_t sent_ns[MEASURE_INFLIGHT_MAX];
    uint64_t done;
    struct hist times;
};

static void add_message(struct rtt *r, int from, uint64_t seq)
{
    r->out_n[from] += wire_emitter_write(&r->emitters[from], r->out[from] + r->out_n[from], seq);
}

static void add_round_trip(struct rtt *r)
{
    uint64_t seq = r->next_seq++;
    r->sent_ns[seq % MEASURE_INFLIGHT_MAX] = now_ns();
    add_message(r, A, seq);
}

static void on_event(struct session *s, uint64_t seq, const char *text, size_t n)
{
    struct rtt *r = s->context;
    if (seq != s->received || seq >= r->next_seq)
        die("client %c: message %llu is due, \"%.*s\" came", "AB"[s->index],
            (unsigned long long)s -> received, (int)(n < 200 ? n : 200), text);
    s->received++;
    if (s->index == B) {
        add_message(r, B, seq);
        return;
    }
    if (r->run.measuring) {
        r->done++;
        hist_add(&r->times, r->measure->loop.now_ns - r->sent_ns[seq % MEASURE_INFLIGHT_MAX]);
    }
    add_round_trip(r);
}

static void flush(struct session *s)
{
    struct rtt *r = s->context;
    if (r->out_n[s->index] == 0)
        return;
    size_t step = r->measure->write_each ? r->emitters[s->index].n : r->out_n[s->index];
    for (size_t at = 0; at < r->out_n[s->index]; at += step)
        session_send(s, r->out[s->index] + at, step);
    r->out_n[s->index] = 0;
}

static void open_peers(struct rtt *r)
{
    static const struct session_events EVENTS = {.on_event = on_event, .after_read = flush};
    static const char *const ROOMS[] = {"a", "b"};
    struct measure *m = r->measure;
    for (unsigned i = A; i <= B; i++) {
        r->peers[i] = (struct session){.loop = &m->loop,
                                       .events = &EVENTS,
                                       .context = r,
                                       .room = ROOMS[i],
                                       .role = i == A ? BARE_A : BARE_B,
                                       .dialect = m->dialect,
                                       .node = i % m->loop.port_count,
                                       .index = i};
        r->out[i] = must_alloc(m->inflight, WIRE_FRAME_MAX);
        wire_emitter_init(&r->emitters[i], m->dialect, ROOMS[B - i]);
    }
    session_open_all(r->peers, 2);
    measure_settle(m);
}

void measure_rtt(struct measure *m)
{
    struct rtt *r = must_alloc(1, sizeof(*r));
    r->measure = m;
    open_peers(r);
    for (unsigned i = 0; i < m->inflight; i++)
        add_round_trip(r);
    run_begin(&r->run, m);
    flush(&r->peers[A]);
    do {
        if (!loop_turn(&m->loop, 0))
            die("no message came in time: A sent %llu, B received %llu, A received %llu",
                (unsigned long long)r->next_seq, (unsigned long long)r->peers[B].received,
                (unsigned long long)r->peers[A].received);
    } while (!run_over(&r->run));

    report_begin(m);
    report_usage(&r->run.used, r->done, "round_trip");
    report_quantiles("rtt", &r->times);
    report_end();
}
