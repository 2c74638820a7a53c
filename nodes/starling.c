/* The command line of the bus: `up` runs it (supervisor.c), the other verbs find it by its run directory and
 * talk to its HTTP API. */
#include "config.h"
#include "err.h"
#include "fetch.h"
#include "json.h"
#include "limit.h"
#include "rundir.h"
#include "supervisor.h"
#include "utf8.h"
#include "verb.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_MS = 5000 };

static const char help[] =
    "usage: starling COMMAND [options]\n"
    "\n"
    "  up [options]                     run the bus (starling up --help)\n"
    "  ps [--json]                      show the processes of a running bus\n"
    "  top                              the same, again every second, with sums, all nodes of the\n"
    "                                   cluster and all machines\n"
    "  logs [-f] [--lines N] [WHO]      what nodes and agent logged last, or only WHO: the index of a node,\n"
    "                                   agent, redis or supervisor; -f: and what comes\n"
    "  restart K|agent|redis            stop node K, the agent or the redis-server, and start it again\n"
    "again\n"
    "  reload                           replace each node by a new process, without a connection refused\n"
    "  scale N                          run N nodes: start more, or drain those with the highest indices\n"
    "  stop                             stop a running bus and wait for its end\n"
    "  emit ROOM EVENT [JSON ...]       send an event to a room (\"\" for everyone) with these arguments\n"
    "  call ADDRESS [JSON]              ask the actor of an address, and print its answer\n"
    "  tail [PATTERN ...]               print the events that are emitted, a line of JSON each, while it "
    "runs\n"
    "  doctor [options of up]           check whether the bus can run well here, and say what to mend\n"
    "  bench [options]                  measure a running bus: round trips, fan-out, emits (see below)\n"
    "  config [options of up]           print what the bus would run with, as a file for --config\n"
    "  config --reference               print all options as a page of Markdown\n"
    "\n"
    "  --run-dir DIR     all but config: the run directory that `up` was given\n"
    "  --bind ADDRESS, --port P\n"
    "                    emit, call, tail, bench: the bus, when it is not that of the run directory\n"
    "  --ns NAMESPACE    emit, bench: a namespace other than /; tail: only this one\n"
    "  --clients N, --seconds S, --payload BYTES\n"
    "                    bench: connections (100), for each measure (5), of each emit (128)\n"
    "  --rate N          bench: emits a second of fan-out and emits; 0, the default: as fast as they go, "
    "with\n"
    "  --in-flight N     bench: this many on their way at a time (32)\n"
    "  --path PATH       bench: where Socket.IO clients connect (/socket.io/)\n"
    "  --remote          bench: load a bus that is not at a loopback address\n"
    "  --json            ps, bench: print JSON\n"
    "  --help, --version\n";

/* emit */

static bool put_quoted(FILE *to, const char *text)
{
    struct span span = span_of(text);
    char *quoted = utf8_valid(text, span.n) ? malloc(JSON_QUOTED_MAX(span.n)) : NULL;

    if (!quoted) {
        fprintf(stderr, "starling emit: \"%s\" is not UTF-8\n", text);
        return false;
    }
    fwrite(quoted, 1, json_quote(quoted, span), to);
    free(quoted);
    return true;
}

static bool put_argument(FILE *to, const char *text)
{
    struct span span = span_of(text);

    if (!utf8_valid(text, span.n) || json_check(span, LIMIT_JSON_DEPTH - 2) != 0) {
        fprintf(stderr, "starling emit: arguments are JSON (a text is '\"text\"'), not %s\n", text);
        return false;
    }
    fputs(text, to);
    return true;
}

/* Arguments go out as they were given: numbers that no C type holds stay what they are. malloc()ed, or NULL.
 */
static char *emit_request(const struct verb_options *o)
{
    char *body = NULL;
    size_t n;
    FILE *to = open_memstream(&body, &n);
    bool good;

    if (!to)
        return NULL;
    fputs("{\"ns\":", to);
    good = put_quoted(to, o->ns ? o->ns : "/");
    if (good && o->arguments[0][0]) {
        fputs(",\"to\":[", to);
        good = put_quoted(to, o->arguments[0]);
        fputs("]", to);
    }
    fputs(",\"event\":", to);
    good = good && put_quoted(to, o->arguments[1]);
    fputs(",\"args\":[", to);
    for (int i = 2; i < o->arguments_n && good; i++) {
        if (i > 2)
            fputc(',', to);
        good = put_argument(to, o->arguments[i]);
    }
    fputs("]}", to);
    if (fclose(to) == 0 && good)
        return body;
    free(body);
    return NULL;
}

/* The node's own words on why it refuses; "" when it has none. */
static void error_text(const struct fetch *answer, char *out, size_t size)
{
    struct span text = {answer->body, answer->n};
    bool good = utf8_valid(text.p, text.n) && json_check(text, LIMIT_JSON_DEPTH) == 0;
    ssize_t n = good ? json_string(json_get(text, "error"), out, size - 1) : 0;

    out[n > 0 ? n : 0] = '\0';
}

static int send_emit(const char *address, unsigned port, const char *body)
{
    struct fetch answer;
    char error[256];
    int rc = fetch(address, (uint16_t)port, "/api/v1/emit", body, TIMEOUT_MS, &answer);

    if (rc != 0) {
        fprintf(stderr, "starling emit: http://%s:%u: %s\n", address, port,
                rc == ERR_SYSTEM ? strerror(errno) : err_text(rc));
        return 1;
    }
    if (answer.status == 200) {
        printf("%.*s\n", (int)strcspn(answer.body, "\r\n"), answer.body);
    } else {
        error_text(&answer, error, sizeof error);
        fprintf(stderr, "starling emit: http://%s:%u answered %d%s%s\n", address, port, answer.status,
                *error ? ": " : "", error);
        rc = 1;
    }
    free(answer.body);
    return rc;
}

static int run_emit(int argc, char **argv)
{
    struct verb_options o;
    struct rundir_state bus;
    char *body;
    int rc = verb_parse(argc, argv, " --run-dir --bind --port --ns ", &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n < 2)
        return verb_usage("emit", "takes a room, an event and its arguments", "");
    body = emit_request(&o);
    if (!body)
        return EXIT_USAGE;
    verb_find_bus(&o, &bus);
    rc = send_emit(bus.bind, bus.port, body);
    free(body);
    return rc;
}

/* What a bus started with these options would run with; or the page of all options. */
static int run_config(int argc, char **argv)
{
    struct config config;
    int rc;

    if (argc == 2 && strcmp(argv[1], "--reference") == 0) {
        config_print_reference(stdout);
        return 0;
    }
    rc = config_parse(argc, argv, CONFIG_UP, &config);
    if (rc == 0)
        config_print(stdout, &config, CONFIG_UP);
    config_free(&config);
    return rc == CONFIG_SHOWN ? 0 : rc;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
} verbs[] = {
    {"up", supervisor_run},    {"ps", verb_ps},         {"top", verb_top},     {"logs", verb_logs},
    {"restart", verb_restart}, {"reload", verb_reload}, {"scale", verb_scale}, {"stop", verb_stop},
    {"emit", run_emit},        {"call", verb_call},     {"tail", verb_tail},   {"doctor", verb_doctor},
    {"bench", verb_bench},     {"config", run_config},
};

/* Whoever starts us may have closed them, and a socket must not become our standard error. */
static void open_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    open_standard_files();
    if (argc < 2) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(help, stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("starling %s\n", STARLING_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            bool asks_help = argc > 2 && strcmp(argv[2], "--help") == 0;
            if (asks_help && i > 0) {
                fputs(help, stdout);
                return 0;
            }
            return verbs[i].run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "starling: unknown command %s (see starling --help)\n", argv[1]);
    return EXIT_USAGE;
}
