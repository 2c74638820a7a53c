/* The server's memory before and after `members` clients have connected and said nothing more. */
#include "measure.h"
#include "util.h"

/* So many clients come and go before, so that what a server sets up once is not counted for each connection.
 */
#define FIRST_CLIENTS 64

static struct session *make_clients(struct measure *m, unsigned count)
{
    static const struct session_events EVENTS = {.on_ready = NULL};
    struct session *clients = must_alloc(count, sizeof(*clients));
    for (unsigned i = 0; i < count; i++)
        clients[i] = (struct session){.loop = &m->loop, .events = &EVENTS, .dialect = m->dialect, .index = i};
    return clients;
}

void measure_idle(struct measure *m)
{
    struct session *first = make_clients(m, FIRST_CLIENTS);
    session_open_all(first, FIRST_CLIENTS);
    for (unsigned i = 0; i < FIRST_CLIENTS; i++)
        session_close(&first[i]);
    loop_settle(&m->loop, m->run_ns);

    struct session *clients = make_clients(m, m->members);
    uint64_t before = server_rss_bytes(&m->server);
    session_open_all(clients, m->members);
    loop_settle(&m->loop, m->run_ns);
    uint64_t after = server_rss_bytes(&m->server);

    report_begin(m);
    report("rss_before_bytes", (double)before);
    report("rss_after_bytes", (double)after);
    report("bytes_per_connection", ((double)after - (double)before) / (double)m->members);
    report_end();
}
