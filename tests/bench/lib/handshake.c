/* `inflight` clients, each for ever: connect, WebSocket handshake, CONNECT, wait for its answer, reset,
 * again. */
#include "measure.h"
#include "util.h"

struct handshake {
    struct measure *measure;
    struct run run;
    uint64_t done;
    struct hist times;
};

static void on_ready(struct session *s)
{
    struct handshake *h = s->context;
    if (h->run.measuring) {
        h->done++;
        hist_add(&h->times, h->measure->loop.now_ns - s->opened_ns);
    }
    session_close(s);
}

static void open_again(struct session *s)
{
    if (s->state == SESSION_CLOSED)
        session_open(s);
}

void measure_handshake(struct measure *m)
{
    static const struct session_events EVENTS = {.on_ready = on_ready, .after_read = open_again};
    struct handshake *h = must_alloc(1, sizeof(*h));
    struct session *clients = must_alloc(m->inflight, sizeof(*clients));
    h->measure = m;
    for (unsigned i = 0; i < m->inflight; i++) {
        clients[i] = (struct session){
            .loop = &m->loop, .events = &EVENTS, .context = h, .dialect = m->dialect, .index = i};
        session_open(&clients[i]);
    }
    run_begin(&h->run, m);
    do {
        if (!loop_turn(&m->loop, 0))
            die("no handshake made progress in time, %llu were done", (unsigned long long)h->done);
    } while (!run_over(&h->run));

    report_begin(m);
    report_usage(&h->run.used, h->done, "handshake");
    report_quantiles("handshake", &h->times);
    report_end();
}
