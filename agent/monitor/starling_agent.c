/* starling-agent: says how this machine is, each second, to a node of the bus. */
#include "collector.h"
#include "err.h"
#include "uplink.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    EXIT_USAGE = 2,
    INTERVAL_MIN_MS = 100,
    INTERVAL_MAX_MS = 60000,
    FD_MAX = 1048576,
    QUEUE = 64,
    GOODBYE_MS = 100
};

static const char help[] =
    "usage: starling-agent [options]\n"
    "\n"
    "Watches this machine and says how it is to a node of the bus.\n"
    "\n"
    "  --nodes LIST     endpoints of nodes for agents, with commas between them; the next is tried when one "
    "is\n"
    "                   silent (default tcp://127.0.0.1:7800)\n"
    "  --interval MS    time between two reports, 100 to 60000 (default 1000)\n"
    "  --name NAME      what the machine is called on the bus (default: its host name)\n"
    "  --print          print one sample as JSON, taken over one interval, and end\n"
    "  --log-file FILE  say there what happens, not on standard error; it is opened for each line, so it may "
    "be\n"
    "                   moved away at any time\n"
    "  --ready-fd FD    write a newline to this descriptor when the machine is being watched\n"
    "  --root DIR       look for /proc, /sys and /etc below this directory (default /)\n"
    "  --help, --version\n";

struct options {
    const char *nodes, *name, *log_file, *root;
    uint64_t interval_ms;
    int ready_fd; /* -1: none */
    bool print;
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t now_ms(void)
{
    return now_us(CLOCK_MONOTONIC) / 1000;
}

/* ---- the socket ---- */

struct line {
    void *context, *dealer; /* dealer: NULL while there is none */
};

/* A new socket for each attempt: one that was used before might send what is left in it. */
static bool open_line(void *link, const char *endpoint)
{
    struct line *l = link;
    static const struct {
        int option, value;
    } settings[] = {{ZMQ_LINGER, GOODBYE_MS}, {ZMQ_SNDHWM, QUEUE}, {ZMQ_RCVHWM, QUEUE}};
    l->dealer = zmq_socket(l->context, ZMQ_DEALER);
    if (!l->dealer)
        return false;
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        zmq_setsockopt(l->dealer, settings[i].option, &settings[i].value, sizeof(settings[i].value));
    if (zmq_connect(l->dealer, endpoint) == 0)
        return true;
    zmq_close(l->dealer);
    l->dealer = NULL;
    return false;
}

static void send_line(void *link, struct span message)
{
    struct line *l = link;
    zmq_send(l->dealer, message.p, message.n, ZMQ_DONTWAIT);
}

static void close_line(void *link)
{
    struct line *l = link;
    zmq_close(l->dealer);
    l->dealer = NULL;
}

/* What is there, or what comes until then. */
static void wait_on_line(struct line *l, struct uplink *u, uint64_t until_ms)
{
    uint64_t now = now_ms();
    long timeout = until_ms > now ? (long)(until_ms - now) : 0;
    zmq_pollitem_t item = {.socket = l->dealer, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, l->dealer ? 1 : 0, timeout) <= 0)
        return;
    for (int i = 0; i < QUEUE && l->dealer; i++) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        bool got = zmq_msg_recv(&message, l->dealer, ZMQ_DONTWAIT) >= 0;
        if (got)
            uplink_receive(u, now_ms(), (struct span){zmq_msg_data(&message), zmq_msg_size(&message)});
        zmq_msg_close(&message);
        if (!got)
            return;
    }
}

/* ---- options ---- */

static int usage(const char *what, const char *text)
{
    fprintf(stderr, "starling-agent: %s%s (see starling-agent --help)\n", what, text);
    return EXIT_USAGE;
}

static bool parse_number(const char *text, unsigned long min, unsigned long max, unsigned long *number)
{
    char *end = NULL;
    *number = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    return end && *end == '\0' && *number >= min && *number <= max;
}

/* An option that takes a value: 0 or EXIT_USAGE. */
static int take_option(struct options *o, const char *name, const char *value)
{
    unsigned long number;
    if (strcmp(name, "nodes") == 0)
        o->nodes = value;
    else if (strcmp(name, "name") == 0)
        o->name = value;
    else if (strcmp(name, "root") == 0)
        o->root = value;
    else if (strcmp(name, "log-file") == 0)
        o->log_file = value;
    else if (strcmp(name, "ready-fd") == 0) {
        if (!parse_number(value, 0, FD_MAX, &number))
            return usage("--ready-fd takes a number from 0 to 1048576, not ", value);
        o->ready_fd = (int)number;
    } else if (!parse_number(value, INTERVAL_MIN_MS, INTERVAL_MAX_MS, &number))
        return usage("--interval takes milliseconds from 100 to 60000, not ", value);
    else
        o->interval_ms = number;
    if (!uplink_check(o->nodes))
        return usage("--nodes takes endpoints like tcp://HOST:PORT or ipc://PATH with commas between, not ",
                     value);
    if (o->name && (o->name[0] == '\0' || strlen(o->name) > LIMIT_MACHINE_TEXT_BYTES))
        return usage("--name takes a text of 1 to 128 bytes, not ", value);
    return 0;
}

/* 0, EXIT_USAGE, or -1 when everything has been said. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const char *const names[] = {"nodes", "name", "root", "interval", "log-file", "ready-fd"};
    *o = (struct options){.nodes = "tcp://127.0.0.1:7800", .root = "/", .interval_ms = 1000, .ready_fd = -1};
    for (int i = 1; i < argc; i++) {
        char name[32];
        const char *value = NULL;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "--version") == 0) {
            fputs(argv[i][2] == 'h' ? help : "starling-agent " STARLING_VERSION "\n", stdout);
            return -1;
        }
        if (strcmp(argv[i], "--print") == 0) {
            o->print = true;
            continue;
        }
        if (strncmp(argv[i], "--", 2) != 0)
            return usage("takes no argument, but got ", argv[i]);
        size_t n = strcspn(argv[i] + 2, "=");
        snprintf(name, sizeof(name), "%.*s", (int)n, argv[i] + 2);
        bool known = false;
        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
            known |= strcmp(names[k], name) == 0;
        if (!known)
            return usage("unknown option ", argv[i]);
        value = argv[i][2 + n] == '=' ? argv[i] + 3 + n : argv[++i];
        if (!value)
            return usage(argv[i - 1], " takes a value");
        int rc = take_option(o, name, value);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* ---- what it is for ---- */

static int fail(const char *what)
{
    fprintf(stderr, "starling-agent: %s: %s\n", what, strerror(errno));
    return EXIT_FAILURE;
}

static const char *log_file; /* NULL: standard error */

static void on_event(const char *event, const char *endpoint, struct span text)
{
    FILE *file = log_file ? fopen(log_file, "ae") : NULL;
    fprintf(file ? file : stderr, "starling-agent: event=%s endpoint=%s%s%.*s%s\n", event, endpoint,
            text.n > 0 ? " text=\"" : "", (int)text.n, text.p ? text.p : "", text.n > 0 ? "\"" : "");
    if (file)
        fclose(file);
}

static void sample(struct collector *c, struct machine_tick *t)
{
    collector_sample(c, now_us(CLOCK_MONOTONIC), now_us(CLOCK_REALTIME) / 1000, t);
}

static int print_sample(struct collector *c, struct machine_tick *t, uint64_t interval_ms)
{
    struct timespec pause = {(time_t)(interval_ms / 1000), (long)(interval_ms % 1000) * 1000000};
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    sample(c, t);
    nanosleep(&pause, NULL);
    sample(c, t);
    bool good = msgpack_sbuffer_write(&b, "{\"description\":", 15) == 0 &&
                machine_description_json(&b, collector_description(c)) == 0 &&
                msgpack_sbuffer_write(&b, ",\"tick\":", 8) == 0 && machine_tick_json(&b, t) == 0 &&
                msgpack_sbuffer_write(&b, "}\n", 2) == 0 && fwrite(b.data, 1, b.size, stdout) == b.size &&
                fflush(stdout) == 0;
    msgpack_sbuffer_destroy(&b);
    return good ? EXIT_SUCCESS : fail("cannot print");
}

/* What this connection was told last. */
struct told {
    unsigned welcome;
    uint64_t revision;
};

/* The description first, where it is news. */
static void tell(struct uplink *u, const struct collector *c, const struct machine_tick *t, struct told *told,
                 msgpack_sbuffer *b)
{
    const struct machine_description *d = collector_description(c);
    unsigned welcome = uplink_welcome(u);
    if (welcome == 0)
        return;
    if (told->welcome != welcome || told->revision != d->revision) {
        msgpack_sbuffer_clear(b);
        if (machine_write_description(b, d) != 0 ||
            !uplink_send(u, now_ms(), (struct span){b->data, b->size}))
            return;
        *told = (struct told){welcome, d->revision};
    }
    msgpack_sbuffer_clear(b);
    if (machine_write_tick(b, t) == 0)
        uplink_send(u, now_ms(), (struct span){b->data, b->size});
}

/* A new connection is told at once what was sampled last; then each interval. */
static void watch(struct collector *c, struct uplink *u, struct line *l, struct machine_tick *t,
                  uint64_t interval_ms)
{
    struct told told = {0, 0};
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    sample(c, t);
    uint64_t due = now_ms() + interval_ms;
    while (!ended) {
        uint64_t uplink_due = uplink_due_ms(u);
        wait_on_line(l, u, due < uplink_due ? due : uplink_due);
        uplink_run(u, now_ms());
        if (now_ms() >= due) {
            sample(c, t);
            due = now_ms() >= due + interval_ms ? now_ms() + interval_ms : due + interval_ms;
        } else if (told.welcome == uplink_welcome(u)) {
            continue;
        }
        tell(u, c, t, &told, &b);
    }
    msgpack_sbuffer_destroy(&b);
}

static int run(struct collector *c, struct machine_tick *t, const struct options *o)
{
    uint64_t random[2];
    char instance[17], about[200];
    struct line line = {zmq_ctx_new(), NULL};
    if (!line.context || getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return fail("cannot start");
    snprintf(instance, sizeof(instance), "%016" PRIx64, random[0]);
    snprintf(about, sizeof(about), "starling-agent " STARLING_VERSION ", pid %ld", (long)getpid());
    struct uplink *u = uplink_new(&(struct uplink_options){
        .endpoints = o->nodes,
        .name = "starling-agent",
        .instance = instance,
        .about = about,
        .link = {open_line, send_line, close_line, &line},
        .seed = random[1],
        .on_event = on_event,
    });
    if (!u)
        return fail("cannot start");
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* whoever wanted to know that we are ready may be gone */
    log_file = o->log_file;
    if (o->ready_fd >= 0 && write(o->ready_fd, "\n", 1) == 1)
        close(o->ready_fd);
    watch(c, u, &line, t, o->interval_ms);
    uplink_free(&u);
    zmq_ctx_term(line.context);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct machine_tick tick;
    struct options o;
    int rc = parse_options(argc, argv, &o);
    if (rc != 0)
        return rc < 0 ? EXIT_SUCCESS : rc;
    struct collector *c = collector_new(&(struct collector_options){o.root, o.name, o.interval_ms});
    if (!c)
        return fail(o.root);
    rc = o.print ? print_sample(c, &tick, o.interval_ms) : run(c, &tick, &o);
    collector_free(&c);
    return rc;
}
