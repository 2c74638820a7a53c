/* Traffic to rooms of a bus of several nodes, while a test does harm to these nodes: who sent and heard what is kept
 * whole, and what is missing, came twice or in another order is told in the end. One thread plays all clients. */
#include "../../bench/lib/util.h"
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: traffic --target NAME=ADDRESS:PORT[@NETNS] [--target …] [options]\n"
    "\n"
    "  --clients N       500, spread over the targets in turn\n"
    "  --room-size N     10 clients are in a room, those of different targets\n"
    "  --rate N          2000 events a second, from each client that is up in its turn, to its room\n"
    "  --padding N       0 more bytes in each event\n"
    "  --mute NAME       clients of this target send nothing\n"
    "  --reconnect MS    0: a client that has lost its connection tries again after this time; 0: never\n"
    "  --patience S      20: gives up, at the start and at the end, when nothing comes for so long\n"
    "\n"
    "Prints {\"up\":N} when all clients are in their rooms, and {\"sent\":N,\"heard\":N,\"up\":N} each 100 "
    "ms from then\n"
    "on. A line on standard input, or its end, ends the traffic; what is on its way is awaited, then the "
    "account is\n"
    "printed. NETNS is the path of a network namespace. Exit status 1: something failed; 2: usage.\n";

enum {
    TARGETS = 32,
    EVENTS = 256,
    AT_A_TIME = 64, /* clients on their way up, before the traffic */
    PROGRESS_MS = 100,
    BEHIND_MS = 1000, /* what could not be sent for so long is not sent at all */
};

static struct {
    struct target targets[TARGETS];
    const char *names[TARGETS];
    unsigned targets_n;
    unsigned clients_n, room_size, rate;
    uint64_t patience_ns;
    struct client *clients;
    struct swarm swarm;
    /* traffic */
    uint64_t start_ns, due, generated, intended;
    unsigned next_sender;
    bool stop;
} t = {.clients_n = 500, .room_size = 10, .rate = 2000, .patience_ns = 20 * NS_PER_S};

/* ---- the command line ---- */

static void add_target(char *text)
{
    char *address = strchr(text, '='), *port = address ? strchr(address, ':') : NULL;
    if (!port || t.targets_n == TARGETS)
        die_usage("--target takes NAME=ADDRESS:PORT[@NETNS], at most %d times, not \"%s\"", TARGETS, text);
    char *netns = strchr(port, '@');
    *address++ = *port++ = '\0';
    if (netns)
        *netns++ = '\0';
    struct target *target = &t.targets[t.targets_n];
    *target = (struct target){.name = text, .index = t.targets_n, .netns = -1};
    target->address.sin_family = AF_INET;
    target->address.sin_port = htons((uint16_t)parse_number("--target", port, 1, 65535));
    if (inet_pton(AF_INET, address, &target->address.sin_addr) != 1)
        die_usage("--target: \"%s\" is no IPv4 address", address);
    if (netns && (target->netns = open(netns, O_RDONLY | O_CLOEXEC)) < 0)
        die_usage("--target: %s: %s", netns, strerror(errno));
    t.names[t.targets_n++] = text;
}

static void mute(const char *name)
{
    for (unsigned i = 0; i < t.targets_n; i++) {
        if (!strcmp(t.targets[i].name, name)) {
            t.targets[i].is_mute = true;
            return;
        }
    }
    die_usage("--mute: no target before it is named \"%s\"", name);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option OPTIONS[] = {
        {"target", 1, NULL, 't'}, {"clients", 1, NULL, 'c'},   {"room-size", 1, NULL, 'r'},
        {"rate", 1, NULL, 'e'},   {"padding", 1, NULL, 'p'},   {"mute", 1, NULL, 'm'},
        {"help", 0, NULL, 'h'},   {"reconnect", 1, NULL, 'n'}, {"patience", 1, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    for (int key; (key = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (key == 't')
            add_target(optarg);
        else if (key == 'c')
            t.clients_n = (unsigned)parse_number("--clients", optarg, 2, 100000);
        else if (key == 'r')
            t.room_size = (unsigned)parse_number("--room-size", optarg, 2, 1000);
        else if (key == 'e')
            t.rate = (unsigned)parse_number("--rate", optarg, 1, 1000000);
        else if (key == 'p')
            t.swarm.padding = (size_t)parse_number("--padding", optarg, 0, 1000);
        else if (key == 'm')
            mute(optarg);
        else if (key == 'n')
            t.swarm.reconnect_ns = (uint64_t)parse_number("--reconnect", optarg, 0, 60000) * 1000000;
        else if (key == 'w')
            t.patience_ns = parse_seconds_ns("--patience", optarg);
        else if (key == 'h') {
            fputs(USAGE, stdout);
            exit(0);
        } else
            die_usage("see --help");
    }
    if (optind < argc || t.targets_n == 0)
        die_usage("at least one --target, and nothing but options; see --help");
}

/* ---- the loop ---- */

static void on_stdin(void)
{
    char line[64];
    if (read(STDIN_FILENO, line, sizeof(line)) >= 0)
        t.stop = true;
    epoll_ctl(t.swarm.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static void turn(int wait_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(t.swarm.epoll, events, EVENTS, wait_ms);
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            client_on_event(events[i].data.ptr, events[i].events);
        else
            on_stdin();
    }
}

static void reopen(uint64_t now)
{
    for (unsigned i = 0; i < t.clients_n; i++) {
        struct client *c = &t.clients[i];
        if (c->state == CLIENT_CLOSED && c->next_try_ns && c->next_try_ns <= now)
            client_open(c);
    }
}

static void open_all(void)
{
    uint64_t last_ns = now_ns();
    unsigned up = 0;
    for (unsigned next = 0; t.swarm.up < t.clients_n;) {
        while (next < t.clients_n && next - t.swarm.up < AT_A_TIME)
            client_open(&t.clients[next++]);
        turn(PROGRESS_MS);
        if (t.swarm.failed)
            die("a client did not come into its room");
        if (t.swarm.up != up)
            last_ns = now_ns();
        if (now_ns() - last_ns > t.patience_ns)
            die("only %u of %u clients are in their rooms", t.swarm.up, t.clients_n);
        up = t.swarm.up;
    }
}

static void emit_one(void)
{
    for (unsigned tries = 0; tries < t.clients_n; tries++) {
        struct client *c = &t.clients[t.next_sender];
        t.next_sender = (t.next_sender + 1) % t.clients_n;
        if (c->state == CLIENT_UP && !c->target->is_mute && client_emit(c)) {
            t.generated++;
            return;
        }
    }
}

/* Sends what is due by now. What a stall of this program has left behind is not made up for: it would be a burst. */
static void generate(uint64_t now)
{
    uint64_t intended = (now - t.start_ns) / 1000 * t.rate / 1000000;
    uint64_t most = (uint64_t)t.rate * BEHIND_MS / 1000 + 1;
    if (intended - t.due > most)
        t.due = intended - most;
    for (; t.due < intended; t.due++)
        emit_one();
    t.intended = intended;
}

static void print_progress(void)
{
    printf("{\"sent\":%ju,\"heard\":%ju,\"up\":%u}\n", (uintmax_t)ledger_sent(t.swarm.ledger),
           (uintmax_t)ledger_heard(t.swarm.ledger), t.swarm.up);
    fflush(stdout);
}

static void run(void)
{
    uint64_t told_ns = 0;
    t.start_ns = now_ns();
    while (!t.stop) {
        turn(1);
        uint64_t now = now_ns();
        generate(now);
        if (now - told_ns > PROGRESS_MS * UINT64_C(1000000)) {
            reopen(now);
            print_progress();
            told_ns = now;
        }
    }
}

/* Until nothing is missing, or nothing has come for as long as the patience lasts. */
static void drain(void)
{
    uint64_t last_ns = now_ns(), heard = 0;
    while (ledger_missing(t.swarm.ledger) > 0 && now_ns() - last_ns < t.patience_ns) {
        uint64_t until = now_ns() + PROGRESS_MS * UINT64_C(1000000);
        while (now_ns() < until)
            turn(PROGRESS_MS / 10);
        print_progress();
        if (ledger_heard(t.swarm.ledger) != heard)
            last_ns = now_ns();
        heard = ledger_heard(t.swarm.ledger);
    }
    /* What comes now was delivered twice. */
    uint64_t until = now_ns() + PROGRESS_MS * UINT64_C(1000000);
    while (now_ns() < until)
        turn(PROGRESS_MS / 10);
}

static void make_clients(void)
{
    t.clients = must_alloc(t.clients_n, sizeof(*t.clients));
    for (unsigned i = 0; i < t.clients_n; i++)
        t.clients[i] = (struct client){
            .swarm = &t.swarm, .target = &t.targets[i % t.targets_n], .room = i / t.room_size, .fd = -1};
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    raise_descriptor_limit(t.clients_n + 64);
    unsigned rooms = (t.clients_n + t.room_size - 1) / t.room_size;
    struct swarm options = t.swarm;
    swarm_init(&t.swarm, ledger_new(rooms, t.targets_n, t.names));
    t.swarm.reconnect_ns = options.reconnect_ns;
    t.swarm.padding = options.padding;
    t.swarm.own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    make_clients();
    open_all();
    struct epoll_event e = {.events = EPOLLIN};
    if (epoll_ctl(t.swarm.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e) < 0)
        die("standard input must be a pipe: %s", strerror(errno));
    printf("{\"up\":%u}\n", t.swarm.up);
    run();
    drain();
    printf("{\"intended\":%ju,\"opened\":%ju,\"failed\":%ju,\"up\":%u,", (uintmax_t)t.intended,
           (uintmax_t)t.swarm.opened, (uintmax_t)t.swarm.failed, t.swarm.up);
    ledger_report(t.swarm.ledger, stdout);
    puts("}");
    ledger_free(t.swarm.ledger);
    return 0;
}
