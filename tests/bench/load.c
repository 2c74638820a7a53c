/* The load client: one thread that plays all clients of one measurement against one server. See README.md. */
#include "lib/measure.h"
#include "lib/util.h"

#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static const char USAGE[] =
    "usage: load MEASURE --port P --target starling|socketio|nats|bare [options]\n"
    "\n"
    "MEASURE\n"
    "  fanout     one publisher, --members in a room, --inflight emits at once\n"
    "  rtt        client A to client B and back, --inflight messages on their way\n"
    "  handshake  WebSocket handshake and CONNECT, --inflight at a time\n"
    "  idle       the server's memory for --members silent clients\n"
    "  poll       --members long-polling clients, released by one emit after the other\n"
    "  mesh       --members clients of the first port emit what nobody receives: CPU of each process\n"
    "  spread     how many of --members clients each node gets, by their sids\n"
    "\n"
    "options\n"
    "  --port P        of the server; repeat it for the nodes of a cluster: clients are spread over them\n"
    "  --pid PID       a process of the server (repeat for more): its CPU time and memory are reported\n"
    "  --members N     1000, idle and spread 5000, poll 500, mesh 1\n"
    "  --inflight N    1, handshake 64\n"
    "  --rate N        mesh: emits a second of all members, 50000\n"
    "  --seconds S     measured time, 3; for idle the time to settle, 1\n"
    "  --warmup S      time before it, 1\n"
    "  --timeout S     give up when nothing comes for so long, 10\n"
    "  --write HOW     rtt: burst, one write for all that one read brought, or each; burst\n"
    "  --core K        run on this core\n"
    "  --sources N     number of source addresses from 127.0.0.2 on, 16\n"
    "  --label TEXT    name of the target in the output\n"
    "\n"
    "Prints one line of JSON. Exit status 1: a message was lost or wrong, or the server failed; 2: usage.\n";

static const struct kind {
    const char *name;
    void (*measure)(struct measure *);
    unsigned members, inflight;
    double run_s;
} KINDS[] = {
    {"fanout", measure_fanout, 1000, 1, 3},     {"rtt", measure_rtt, 2, 1, 3},
    {"handshake", measure_handshake, 0, 64, 3}, {"idle", measure_idle, 5000, 0, 1},
    {"poll", measure_poll, 500, 1, 3},          {"mesh", measure_mesh, 1, 0, 3},
    {"spread", measure_spread, 5000, 0, 0},
};

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++) {
        if (!strcmp(KINDS[i].name, name))
            return &KINDS[i];
    }
    die_usage("MEASURE is fanout, rtt, handshake, idle, poll, mesh or spread, not \"%s\"; see --help", name);
}

static void run_on_core(long core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        die_usage("--core %ld: there is no such core", core);
}

static void set_target(struct measure *m, const char *name)
{
    static const struct {
        const char *name;
        enum wire_dialect dialect;
    } TARGETS[] = {
        {"starling", WIRE_SOCKETIO}, {"socketio", WIRE_SOCKETIO}, {"nats", WIRE_NATS}, {"bare", WIRE_BARE}};
    size_t i = 0;
    while (i < sizeof(TARGETS) / sizeof(TARGETS[0]) && strcmp(TARGETS[i].name, name))
        i++;
    if (i == sizeof(TARGETS) / sizeof(TARGETS[0]))
        die_usage("--target is starling, socketio, nats or bare, not \"%s\"", name);
    m->dialect = TARGETS[i].dialect;
    if (!m->target)
        m->target = name;
}

static void add_pid(struct server *s, const char *text)
{
    if (s->count == SERVER_PIDS)
        die_usage("--pid: at most %d processes", SERVER_PIDS);
    s->pids[s->count++] = (pid_t)parse_number("--pid", text, 1, INT32_MAX);
}

static void add_port(struct loop *l, const char *text)
{
    if (l->port_count == LOOP_PORTS)
        die_usage("--port: at most %d nodes", LOOP_PORTS);
    l->ports[l->port_count++] = (uint16_t)parse_number("--port", text, 1, 65535);
}

enum option_key {
    PORT = 256,
    TARGET,
    PID,
    MEMBERS,
    INFLIGHT,
    RATE,
    SECONDS,
    WARMUP,
    TIMEOUT,
    CORE,
    SOURCES,
    WRITE,
    LABEL,
    HELP
};

static const struct option OPTIONS[] = {
    {"port", required_argument, NULL, PORT},
    {"target", required_argument, NULL, TARGET},
    {"pid", required_argument, NULL, PID},
    {"members", required_argument, NULL, MEMBERS},
    {"inflight", required_argument, NULL, INFLIGHT},
    {"rate", required_argument, NULL, RATE},
    {"seconds", required_argument, NULL, SECONDS},
    {"warmup", required_argument, NULL, WARMUP},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"core", required_argument, NULL, CORE},
    {"sources", required_argument, NULL, SOURCES},
    {"write", required_argument, NULL, WRITE},
    {"label", required_argument, NULL, LABEL},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

struct connection_options {
    unsigned sources;
    uint64_t timeout_ns;
    const char *target;
};

static bool take_option(int key, struct measure *m, struct connection_options *c)
{
    switch (key) {
    case PORT:
        add_port(&m->loop, optarg);
        return true;
    case TARGET:
        c->target = optarg;
        return true;
    case PID:
        add_pid(&m->server, optarg);
        return true;
    case MEMBERS:
        m->members = (unsigned)parse_number("--members", optarg, 1, 1000000);
        return true;
    case INFLIGHT:
        m->inflight = (unsigned)parse_number("--inflight", optarg, 1, MEASURE_INFLIGHT_MAX);
        return true;
    case RATE:
        m->rate = (unsigned)parse_number("--rate", optarg, 1, 1000000);
        return true;
    case SECONDS:
        m->run_ns = parse_seconds_ns("--seconds", optarg);
        return true;
    case WARMUP:
        m->warmup_ns = parse_seconds_ns("--warmup", optarg);
        return true;
    case TIMEOUT:
        c->timeout_ns = parse_seconds_ns("--timeout", optarg);
        return true;
    case CORE:
        run_on_core(parse_number("--core", optarg, 0, CPU_SETSIZE - 1));
        return true;
    case SOURCES:
        c->sources = (unsigned)parse_number("--sources", optarg, 1, 250);
        return true;
    case WRITE:
        if (strcmp(optarg, "burst") && strcmp(optarg, "each"))
            die_usage("--write is burst or each, not \"%s\"", optarg);
        m->write_each = !strcmp(optarg, "each");
        return true;
    case LABEL:
        m->target = optarg;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        die_usage("MEASURE is missing; see --help");
    if (!strcmp(argv[1], "--help")) {
        fputs(USAGE, stdout);
        return 0;
    }
    const struct kind *kind = find_kind(argv[1]);
    struct measure m = {.name = kind->name,
                        .members = kind->members,
                        .inflight = kind->inflight,
                        .rate = 50000,
                        .warmup_ns = NS_PER_S,
                        .run_ns = (uint64_t)(kind->run_s * (double)NS_PER_S)};
    struct connection_options c = {.sources = 16, .timeout_ns = 10 * NS_PER_S};
    optind = 2;
    for (int key; (key = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (!take_option(key, &m, &c))
            die_usage("see --help");
    }
    if (optind < argc)
        die_usage("\"%s\" is one argument too many; see --help", argv[optind]);
    if (!m.loop.port_count || !c.target)
        die_usage("--port and --target are needed; see --help");
    set_target(&m, c.target);
    raise_descriptor_limit((uint64_t)m.members + m.inflight + 64);
    loop_init(&m.loop, c.sources, c.timeout_ns);
    kind->measure(&m);
    return 0;
}
