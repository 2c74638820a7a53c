/* How the kernel spreads `members` connections to one shared port over the nodes that listen on it: a sid's first
 * characters name its node. */
#include "measure.h"
#include "util.h"

struct share {
    char tag[SESSION_TAG + 1];
    unsigned count;
};

static unsigned count_nodes(const struct session *clients, unsigned n, struct share shares[LOOP_PORTS])
{
    unsigned nodes = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = 0;
        while (at < nodes && strcmp(shares[at].tag, clients[i].tag))
            at++;
        if (at == LOOP_PORTS)
            die("the clients' sids begin in more than %d ways", LOOP_PORTS);
        if (at == nodes)
            memcpy(shares[nodes++].tag, clients[i].tag, sizeof(shares[0].tag));
        shares[at].count++;
    }
    return nodes;
}

void measure_spread(struct measure *m)
{
    static const struct session_events EVENTS = {.on_ready = NULL};
    struct session *clients = must_alloc(m->members, sizeof(*clients));
    struct share shares[LOOP_PORTS] = {{.count = 0}};
    for (unsigned i = 0; i < m->members; i++)
        clients[i] = (struct session){.loop = &m->loop, .events = &EVENTS, .dialect = m->dialect, .index = i};
    session_open_all(clients, m->members);

    unsigned nodes = count_nodes(clients, m->members, shares), least = m->members, most = 0;
    for (unsigned i = 0; i < nodes; i++) {
        least = shares[i].count < least ? shares[i].count : least;
        most = shares[i].count > most ? shares[i].count : most;
    }
    report_begin(m);
    report("nodes", nodes);
    report("least", least);
    report("most", most);
    report("apart_percent", 100 * ((double)most / (double)least - 1));
    report_end();
}
