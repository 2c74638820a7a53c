/* The command line of the bus: `up` runs it (supervisor.c), the other verbs find it by its run directory and
 * talk to its HTTP API. */
#include "config.h"
#include "control.h"
#include "err.h"
#include "fetch.h"
#include "json.h"
#include "limit.h"
#include "ps.h"
#include "rundir.h"
#include "supervisor.h"
#include "utf8.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    TIMEOUT_MS = 5000,
    STOP_TIMEOUT_MS = 10000,
    CHANGE_TIMEOUT_MS = 30000,
    KILL_AFTER_MS = 1600,
};

static const char help[] =
    "usage: starling COMMAND [options]\n"
    "\n"
    "  up [options]                     run the bus in the foreground (starling up --help)\n"
    "  ps [--json]                      show the processes of a running bus\n"
    "  restart K                        stop node K and start it again\n"
    "  scale N                          run N nodes: start more, or stop those with the highest indices\n"
    "  stop                             stop a running bus and wait for its end\n"
    "  emit ROOM EVENT [JSON ...]       send an event to a room (\"\" for everyone) with these arguments\n"
    "  config --reference               print all options as a page of Markdown\n"
    "\n"
    "  --run-dir DIR     ps, restart, scale, stop, emit: the run directory that `up` was given\n"
    "  --bind ADDRESS, --port P\n"
    "                    emit: where to send to, when that is not the bus of the run directory\n"
    "  --ns NAMESPACE    emit: a namespace other than /\n"
    "  --help, --version\n";

/* What the verbs other than `up` take; NULL and 0: not given. */
struct options {
    const char *run_dir, *bind, *ns;
    unsigned port;
    bool json, reference;
    int arguments_n;
    char **arguments; /* what is left */
};

static int usage(const char *verb, const char *what, const char *text)
{
    fprintf(stderr, "starling %s: %s%s%s\n", verb, what, text, *text ? " (see starling --help)" : "");
    return EXIT_USAGE;
}

static bool parse_port(const char *text, unsigned *port)
{
    char *end = NULL;
    long number = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : 0;

    *port = number >= 1 && number <= 65535 && *end == '\0' ? (unsigned)number : 0;
    return *port != 0;
}

/* allowed: the names of the options that the verb has, with blanks around each. After "--" everything is an
 * argument. */
static int parse_options(int argc, char **argv, const char *allowed, struct options *o)
{
    const char *verb = argv[0];
    int i = 1;

    *o = (struct options){.run_dir = ""};
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        char name[32];
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        snprintf(name, sizeof name, " %s ", argv[i]);
        if (!strstr(allowed, name))
            return usage(verb, "unknown option ", argv[i]);
        if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
            continue;
        }
        if (strcmp(argv[i], "--reference") == 0) {
            o->reference = true;
            continue;
        }
        if (strcmp(argv[i], "--port") == 0 && (!value || !parse_port(value, &o->port)))
            return usage(verb, "--port takes a number from 1 to 65535", "");
        if (!value)
            return usage(verb, argv[i], " takes a value");
        if (strcmp(argv[i], "--run-dir") == 0)
            o->run_dir = value;
        else if (strcmp(argv[i], "--bind") == 0)
            o->bind = value;
        else if (strcmp(argv[i], "--ns") == 0)
            o->ns = value;
        i++;
    }
    o->arguments = argv + i;
    o->arguments_n = argc - i;
    return 0;
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Verbs that talk to the supervisor */

static int not_running(const char *verb, const struct rundir *dir)
{
    fprintf(stderr, "starling %s: no bus runs with the run directory %s\n", verb, dir->path);
    return 1;
}

/* For verbs that take nothing but options: 0, or an exit code after a message. *supervisor is 0 when none
 * runs. */
static int find_supervisor(int argc, char **argv, const char *allowed, int arguments_n, struct options *o,
                           struct rundir *dir, pid_t *supervisor)
{
    int rc = parse_options(argc, argv, allowed, o);

    if (rc != 0)
        return rc;
    if (o->arguments_n > arguments_n)
        return usage(argv[0], "unexpected argument ", o->arguments[arguments_n]);
    rundir_init(dir, o->run_dir);
    *supervisor = rundir_holder(dir);
    return 0;
}

static int ask(const char *verb, const struct rundir *dir, const char *request, char text[RUNDIR_TEXT_BYTES])
{
    if (control_ask(dir, request, text) == 0)
        return 0;
    fprintf(stderr, "starling %s: the supervisor of the run directory %s does not answer: %s\n", verb,
            dir->path, strerror(errno));
    return 1;
}

static int ask_state(const char *verb, const struct rundir *dir, struct rundir_state *state)
{
    char text[RUNDIR_TEXT_BYTES];

    if (ask(verb, dir, "ps", text) != 0)
        return 1;
    if (rundir_parse(span_of(text), state) == 0)
        return 0;
    fprintf(stderr, "starling %s: the supervisor's answer is not understood\n", verb);
    return 1;
}

/* Asks for something to be done. */
static int order(const char *verb, const struct rundir *dir, const char *request)
{
    char text[RUNDIR_TEXT_BYTES], error[256];
    struct span answer;
    bool good;
    ssize_t n;

    if (ask(verb, dir, request, text) != 0)
        return 1;
    answer = span_of(text);
    good = utf8_valid(answer.p, answer.n) && json_check(answer, 2) == 0;
    if (good && json_is_true(json_get(answer, "ok")))
        return 0;
    n = good ? json_string(json_get(answer, "error"), error, sizeof error) : 0;
    fprintf(stderr, "starling %s: %.*s\n", verb, n > 0 ? (int)n : 0, error);
    return 1;
}

static bool parse_number(const char *text, unsigned max, unsigned *number)
{
    char *end = NULL;
    unsigned long value = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;

    *number = (unsigned)value;
    return end && *end == '\0' && value <= max;
}

/* The supervisor does what it was asked for in its own time. done() says 1, 0 or, for never, -1. */
static int wait_until(const char *verb, const struct rundir *dir,
                      int (*done)(const struct rundir_state *now, const struct rundir_state *before,
                                  unsigned number),
                      const struct rundir_state *before, unsigned number)
{
    uint64_t deadline_ms = now_ms() + CHANGE_TIMEOUT_MS;
    struct rundir_state state;

    for (;;) {
        int rc = ask_state(verb, dir, &state) == 0 ? done(&state, before, number) : -1;
        if (rc == 1)
            return 0;
        if (rc < 0 || now_ms() > deadline_ms) {
            fprintf(stderr, "starling %s: %s; see starling ps and the messages of `starling up`\n", verb,
                    rc < 0 ? "a node does not come up" : "it is not done yet");
            return 1;
        }
        sleep_ms(50);
    }
}

static bool in_state(const struct rundir_node *node, const char *name)
{
    return strcmp(node->state, name) == 0;
}

static int restarted(const struct rundir_state *now, const struct rundir_state *before, unsigned index)
{
    const struct rundir_node *node = &now->nodes[index];

    if (index >= now->nodes_n || in_state(node, "errored"))
        return -1;
    return node->restarts != before->nodes[index].restarts && in_state(node, "ready");
}

static int run_restart(int argc, char **argv)
{
    struct options o;
    struct rundir dir;
    struct rundir_state before;
    pid_t supervisor;
    unsigned index;
    char request[CONTROL_REQUEST_BYTES];
    int rc = find_supervisor(argc, argv, " --run-dir ", 1, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (o.arguments_n != 1 || !parse_number(o.arguments[0], RUNDIR_NODES_MAX - 1, &index))
        return usage("restart", "takes the index of a node, from 0 to 98", "");
    if (supervisor <= 0)
        return not_running("restart", &dir);
    if (ask_state("restart", &dir, &before) != 0)
        return 1;
    snprintf(request, sizeof request, "restart %u", index);
    rc = order("restart", &dir, request);
    return rc == 0 ? wait_until("restart", &dir, restarted, &before, index) : rc;
}

static int scaled(const struct rundir_state *now, const struct rundir_state *before, unsigned wanted)
{
    bool all_ready = now->nodes_n == wanted;

    for (uint32_t i = before->nodes_n; i < now->nodes_n; i++) {
        if (in_state(&now->nodes[i], "errored"))
            return -1;
        all_ready = all_ready && in_state(&now->nodes[i], "ready");
    }
    return all_ready;
}

static int run_scale(int argc, char **argv)
{
    struct options o;
    struct rundir dir;
    struct rundir_state before;
    pid_t supervisor;
    unsigned wanted;
    char request[CONTROL_REQUEST_BYTES];
    int rc = find_supervisor(argc, argv, " --run-dir ", 1, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (o.arguments_n != 1 || !parse_number(o.arguments[0], RUNDIR_NODES_MAX, &wanted) || wanted == 0)
        return usage("scale", "takes the number of nodes, from 1 to 99", "");
    if (supervisor <= 0)
        return not_running("scale", &dir);
    if (ask_state("scale", &dir, &before) != 0)
        return 1;
    snprintf(request, sizeof request, "scale %u", wanted);
    rc = order("scale", &dir, request);
    return rc == 0 ? wait_until("scale", &dir, scaled, &before, wanted) : rc;
}

static void signal_all(const struct rundir *dir, int signal)
{
    pid_t pids[RUNDIR_NODES_MAX];

    for (unsigned n = rundir_orphans(dir, pids); n > 0; n--)
        kill(pids[n - 1], signal);
}

/* Nodes whose supervisor was killed. */
static int stop_orphans(struct rundir *dir)
{
    static const int signals[] = {SIGTERM, SIGKILL};
    pid_t pids[RUNDIR_NODES_MAX];

    if (rundir_orphans(dir, pids) == 0)
        return not_running("stop", dir);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        uint64_t deadline_ms = now_ms() + KILL_AFTER_MS;
        signal_all(dir, signals[i]);
        while (now_ms() < deadline_ms) {
            if (rundir_orphans(dir, pids) == 0) {
                rundir_clean(dir);
                return 0;
            }
            sleep_ms(20);
        }
    }
    fprintf(stderr, "starling stop: pid %d is still there\n", (int)pids[0]);
    return 1;
}

static int run_stop(int argc, char **argv)
{
    char text[RUNDIR_TEXT_BYTES];
    struct options o;
    struct rundir dir;
    uint64_t deadline_ms = now_ms() + STOP_TIMEOUT_MS;
    pid_t pid;
    int rc = find_supervisor(argc, argv, " --run-dir ", 0, &o, &dir, &pid);

    if (rc != 0)
        return rc;
    if (pid <= 0)
        return stop_orphans(&dir);
    if (control_ask(&dir, "stop", text) != 0 && kill(pid, SIGTERM) != 0) {
        fprintf(stderr, "starling stop: cannot end pid %d: %s\n", (int)pid, strerror(errno));
        return 1;
    }
    while (rundir_holder(&dir) == pid) {
        if (now_ms() > deadline_ms) {
            fprintf(stderr, "starling stop: pid %d is still there after %d s\n", (int)pid,
                    STOP_TIMEOUT_MS / 1000);
            return 1;
        }
        sleep_ms(20);
    }
    return 0;
}

static int run_ps(int argc, char **argv)
{
    struct options o;
    struct rundir dir;
    struct rundir_state state;
    pid_t supervisor;
    int rc = find_supervisor(argc, argv, " --run-dir --json ", 0, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (supervisor <= 0)
        return not_running("ps", &dir);
    if (ask_state("ps", &dir, &state) != 0)
        return 1;
    ps_print(&state, supervisor, o.json);
    return 0;
}

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
static char *emit_request(const struct options *o)
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

/* Where the bus is: as told, or as the run directory has it, or the default. */
static void find_bus(const struct options *o, struct rundir_state *state)
{
    struct rundir dir;

    rundir_init(&dir, o->run_dir);
    if (o->port || rundir_holder(&dir) <= 0 || rundir_load(&dir, state) != 0)
        *state = (struct rundir_state){.bind = "127.0.0.1", .port = o->port ? o->port : 7700};
    if (o->bind)
        snprintf(state->bind, sizeof state->bind, "%s", o->bind);
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
    struct options o;
    struct rundir_state bus;
    char *body;
    int rc = parse_options(argc, argv, " --run-dir --bind --port --ns ", &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n < 2)
        return usage("emit", "takes a room, an event and its arguments", "");
    body = emit_request(&o);
    if (!body)
        return EXIT_USAGE;
    find_bus(&o, &bus);
    rc = send_emit(bus.bind, bus.port, body);
    free(body);
    return rc;
}

static int run_config(int argc, char **argv)
{
    struct options o;
    int rc = parse_options(argc, argv, " --reference ", &o);

    if (rc != 0)
        return rc;
    if (!o.reference || o.arguments_n > 0)
        return usage("config", "takes --reference", "");
    config_print_reference(stdout);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
} verbs[] = {{"up", supervisor_run}, {"ps", run_ps},     {"restart", run_restart}, {"scale", run_scale},
             {"stop", run_stop},     {"emit", run_emit}, {"config", run_config}};

int main(int argc, char **argv)
{
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
