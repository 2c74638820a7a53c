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
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, TIMEOUT_MS = 5000, STOP_TIMEOUT_MS = 10000, SAMPLE_MS = 250 };

static const char help[] =
    "usage: starling COMMAND [options]\n"
    "\n"
    "  up [options]                     run the bus in the foreground (starling up --help)\n"
    "  ps [--json]                      show the processes of a running bus\n"
    "  stop                             stop a running bus and wait for its end\n"
    "  emit ROOM EVENT [JSON ...]       send an event to a room (\"\" for everyone) with these arguments\n"
    "  config --reference               print all options as a page of Markdown\n"
    "\n"
    "  --run-dir DIR     ps, stop, emit: the run directory that `up` was given\n"
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

static uint64_t now_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* stop */

static int not_running(const char *verb, const struct rundir *dir)
{
    fprintf(stderr, "starling %s: no bus runs with the run directory %s\n", verb, dir->path);
    return 1;
}

static int run_stop(int argc, char **argv)
{
    struct options o;
    struct rundir dir;
    uint64_t deadline_ms = now_ms(CLOCK_MONOTONIC) + STOP_TIMEOUT_MS;
    pid_t pid;
    int rc = parse_options(argc, argv, " --run-dir ", &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n > 0)
        return usage("stop", "unexpected argument ", o.arguments[0]);
    rundir_init(&dir, o.run_dir);
    pid = rundir_holder(&dir);
    if (pid <= 0)
        return not_running("stop", &dir);
    if (kill(pid, SIGTERM) != 0) {
        fprintf(stderr, "starling stop: cannot end pid %d: %s\n", (int)pid, strerror(errno));
        return 1;
    }
    while (rundir_holder(&dir) == pid) {
        if (now_ms(CLOCK_MONOTONIC) > deadline_ms) {
            fprintf(stderr, "starling stop: pid %d is still there after %d s\n", (int)pid,
                    STOP_TIMEOUT_MS / 1000);
            return 1;
        }
        sleep_ms(20);
    }
    return 0;
}

/* ps */

/* What a node is asked twice, to tell rates. A value that cannot be had is -1. */
struct sample {
    uint64_t at_ms;
    double cpu_s, emits, sessions, rss_bytes;
};

/* The sum of all samples of one metric. */
static double metric_sum(const char *text, const char *name)
{
    size_t n = strlen(name);
    double sum = -1;

    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        const char *end;
        line += *line == '\n';
        if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '{'))
            continue;
        end = line + strcspn(line, "\n");
        while (end > line && end[-1] != ' ')
            end--;
        sum = (sum < 0 ? 0 : sum) + strtod(end, NULL);
    }
    return sum;
}

/* CPU time and memory from /proc: they are there when the node does not answer. */
static void sample_process(pid_t pid, struct sample *sample)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    long pages = 0;
    const char *rest;
    size_t n;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return;
    n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    rest = strrchr(text, ')'); /* the name before it may hold anything */
    if (rest &&
        sscanf(rest,
               ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
               &user, &system, &pages) == 3) {
        sample->cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        sample->rss_bytes = (double)pages * (double)sysconf(_SC_PAGESIZE);
    }
}

static struct sample take_sample(const char *address, uint32_t port, pid_t pid)
{
    struct sample sample = {now_ms(CLOCK_MONOTONIC), -1, -1, -1, -1};
    struct fetch answer;

    sample_process(pid, &sample);
    if (fetch(address, (uint16_t)port, "/metrics", NULL, TIMEOUT_MS, &answer) == 0) {
        if (answer.status == 200) {
            sample.emits = metric_sum(answer.body, "starling_emits_total");
            sample.sessions = metric_sum(answer.body, "starling_sessions");
        }
        free(answer.body);
    }
    return sample;
}

/* Every field of a node as text, "null" where there is nothing to tell. */
enum { FIELD_COUNT = 11, FIELD_SIZE = 32 };
static const struct {
    const char *key, *title;
    int width;
} fields[FIELD_COUNT] = {{"index", "NODE", 4},
                         {"pid", "PID", 9},
                         {"core", "CORE", 6},
                         {"port", "PORT", 7},
                         {"state", "STATE", 10},
                         {"uptime_s", "UPTIME_S", 10},
                         {"restarts", "RESTARTS", 10},
                         {"cpu_pct", "CPU_PCT", 9},
                         {"rss_bytes", "RSS_BYTES", 12},
                         {"sessions", "SESSIONS", 10},
                         {"emits_per_s", "EMITS_PER_S", 13}};

static void put_field(char out[FIELD_SIZE], bool known, int decimals, double value)
{
    if (known)
        snprintf(out, FIELD_SIZE, "%.*f", decimals, value);
    else
        snprintf(out, FIELD_SIZE, "null");
}

/* What the supervisor has written down, and what can be measured now. */
static void describe_node(const struct rundir_state *state, char field[FIELD_COUNT][FIELD_SIZE])
{
    const struct rundir_node *node = &state->node;
    struct sample first = {0, -1, -1, -1, -1}, second = first;
    double seconds = 1;
    bool lives = node->pid > 0;

    if (lives) {
        first = take_sample(state->bind, node->port, node->pid);
        sleep_ms(SAMPLE_MS);
        second = take_sample(state->bind, node->port, node->pid);
        seconds = (double)(second.at_ms - first.at_ms) / 1000;
    }
    put_field(field[0], true, 0, 0);
    put_field(field[1], lives, 0, node->pid);
    put_field(field[2], node->core >= 0, 0, node->core);
    put_field(field[3], true, 0, node->port);
    snprintf(field[4], FIELD_SIZE, "%s", node->state);
    put_field(field[5], lives, 0, (double)((now_ms(CLOCK_BOOTTIME) - node->started_ms) / 1000));
    put_field(field[6], true, 0, node->restarts);
    put_field(field[7], first.cpu_s >= 0 && second.cpu_s >= 0, 1,
              100 * (second.cpu_s - first.cpu_s) / seconds);
    put_field(field[8], second.rss_bytes >= 0, 0, second.rss_bytes);
    put_field(field[9], second.sessions >= 0, 0, second.sessions);
    put_field(field[10], first.emits >= 0 && second.emits >= first.emits, 1,
              (second.emits - first.emits) / seconds);
}

static void print_json(pid_t supervisor, char field[FIELD_COUNT][FIELD_SIZE])
{
    /* There is no Redis in this version. */
    printf("{\"supervisor\":{\"pid\":%d},\"redis\":null,\"nodes\":[{", (int)supervisor);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *quote = strcmp(fields[i].key, "state") == 0 ? "\"" : "";
        printf("%s\"%s\":%s%s%s", i > 0 ? "," : "", fields[i].key, quote, field[i], quote);
    }
    printf("}]}\n");
}

static void print_table(char field[FIELD_COUNT][FIELD_SIZE])
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        printf("%*s", fields[i].width, fields[i].title);
    putchar('\n');
    for (size_t i = 0; i < FIELD_COUNT; i++)
        printf("%*s", fields[i].width, strcmp(field[i], "null") == 0 ? "-" : field[i]);
    putchar('\n');
}

static int run_ps(int argc, char **argv)
{
    char field[FIELD_COUNT][FIELD_SIZE];
    struct options o;
    struct rundir dir;
    struct rundir_state state;
    pid_t supervisor;
    int rc = parse_options(argc, argv, " --run-dir --json ", &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n > 0)
        return usage("ps", "unexpected argument ", o.arguments[0]);
    rundir_init(&dir, o.run_dir);
    supervisor = rundir_holder(&dir);
    if (supervisor <= 0 || rundir_load(&dir, &state) != 0)
        return not_running("ps", &dir);
    describe_node(&state, field);
    if (o.json)
        print_json(supervisor, field);
    else
        print_table(field);
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
} verbs[] = {
    {"up", supervisor_run}, {"ps", run_ps}, {"stop", run_stop}, {"emit", run_emit}, {"config", run_config}};

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
