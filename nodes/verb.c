#include "verb.h"
#include "control.h"
#include "json.h"
#include "utf8.h"
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int verb_usage(const char *verb, const char *what, const char *text)
{
    fprintf(stderr, "starling %s: %s%s%s\n", verb, what, text, *text ? " (see starling --help)" : "");
    return EXIT_USAGE;
}

static const struct option {
    const char *name;
    enum { SWITCH, TEXT, NUMBER } kind;
    size_t at; /* of its field in struct verb_options */
    unsigned min, max;
} options[] = {
    {"--run-dir", TEXT, offsetof(struct verb_options, run_dir), 0, 0},
    {"--bind", TEXT, offsetof(struct verb_options, bind), 0, 0},
    {"--port", NUMBER, offsetof(struct verb_options, port), 1, 65535},
    {"--ns", TEXT, offsetof(struct verb_options, ns), 0, 0},
    {"--path", TEXT, offsetof(struct verb_options, path), 0, 0},
    {"--lines", NUMBER, offsetof(struct verb_options, lines), 0, 1000000},
    {"--clients", NUMBER, offsetof(struct verb_options, clients), 2, 20000},
    {"--seconds", NUMBER, offsetof(struct verb_options, seconds), 1, 3600},
    {"--payload", NUMBER, offsetof(struct verb_options, payload), 0, 500000},
    {"--rate", NUMBER, offsetof(struct verb_options, rate), 0, 1000000},
    {"--in-flight", NUMBER, offsetof(struct verb_options, in_flight), 1, 10000},
    {"--json", SWITCH, offsetof(struct verb_options, json), 0, 0},
    {"--reference", SWITCH, offsetof(struct verb_options, reference), 0, 0},
    {"--remote", SWITCH, offsetof(struct verb_options, remote), 0, 0},
    {"-f", SWITCH, offsetof(struct verb_options, follow), 0, 0},
};

/* Among those that the verb has; the name may have "=" and a value behind it. */
static const struct option *find_option(const char *text, const char *allowed)
{
    size_t n = strcspn(text, "=");

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        const char *name = options[i].name, *found = strstr(allowed, name);
        if (strlen(name) == n && memcmp(name, text, n) == 0 && found && found[n] == ' ' && found[-1] == ' ')
            return &options[i];
    }
    return NULL;
}

/* 0, or EXIT_USAGE after a message. value: NULL when there is none. */
static int take_option(const char *verb, const struct option *option, const char *value,
                       struct verb_options *o)
{
    void *field = (char *)o + option->at;
    unsigned *number = field;
    char takes[64];

    if (option->kind == SWITCH && value)
        return verb_usage(verb, option->name, " takes no value");
    if (option->kind == SWITCH) {
        *(bool *)field = true;
    } else if (option->kind == TEXT) {
        if (!value)
            return verb_usage(verb, option->name, " takes a value");
        *(const char **)field = value;
    } else if (!value || !verb_parse_number(value, option->max, number) || *number < option->min) {
        snprintf(takes, sizeof takes, "%s takes a number from %u to %u", option->name, option->min,
                 option->max);
        return verb_usage(verb, takes, "");
    }
    return 0;
}

int verb_parse(int argc, char **argv, const char *allowed, struct verb_options *o)
{
    const char *verb = argv[0];
    bool is_open = true; /* no "--" so far */
    int n = 1;

    *o = (struct verb_options){.run_dir = "",
                               .path = "/socket.io/",
                               .lines = 100,
                               .clients = 100,
                               .seconds = 5,
                               .payload = 128,
                               .in_flight = 32};
    for (int i = 1; i < argc; i++) {
        const struct option *option = is_open ? find_option(argv[i], allowed) : NULL;
        const char *equals = strchr(argv[i], '=');
        bool has_next = option && option->kind != SWITCH && !equals;
        if (is_open && strcmp(argv[i], "--") == 0)
            is_open = false;
        else if (is_open && !option && strncmp(argv[i], "--", 2) == 0)
            return verb_usage(verb, "unknown option ", argv[i]);
        else if (!option)
            argv[n++] = argv[i];
        else if (take_option(verb, option, equals ? equals + 1 : has_next ? argv[i + 1] : NULL, o) != 0)
            return EXIT_USAGE;
        i += has_next;
    }
    argv[n] = NULL;
    o->arguments = argv + 1;
    o->arguments_n = n - 1;
    return 0;
}

bool verb_parse_number(const char *text, unsigned max, unsigned *number)
{
    char *end = NULL;
    unsigned long value = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;

    *number = (unsigned)value;
    return end && *end == '\0' && value <= max;
}

void verb_sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

uint64_t verb_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void verb_find_bus(const struct verb_options *o, struct rundir_state *state)
{
    struct rundir dir;

    rundir_init(&dir, o->run_dir);
    if (o->port || rundir_holder(&dir) <= 0 || rundir_load(&dir, state) != 0)
        *state = (struct rundir_state){.bind = "127.0.0.1", .port = o->port ? o->port : 7700};
    if (o->bind)
        snprintf(state->bind, sizeof state->bind, "%s", o->bind);
}

int verb_not_running(const char *verb, const struct rundir *dir)
{
    char path[PATH_MAX];

    if (rundir_file(dir, "starling.pid", path, sizeof path) && access(path, R_OK) != 0 && errno == EACCES)
        fprintf(stderr, "starling %s: cannot look for a bus in the run directory %s: %s\n", verb, dir->path,
                strerror(errno));
    else
        fprintf(stderr, "starling %s: no bus runs with the run directory %s\n", verb, dir->path);
    return 1;
}

int verb_find(int argc, char **argv, const char *allowed, int arguments_n, struct verb_options *o,
              struct rundir *dir, pid_t *supervisor)
{
    int rc = verb_parse(argc, argv, allowed, o);

    if (rc != 0)
        return rc;
    if (o->arguments_n > arguments_n)
        return verb_usage(argv[0], "unexpected argument ", o->arguments[arguments_n]);
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

int verb_ask_state(const char *verb, const struct rundir *dir, struct rundir_state *state)
{
    char text[RUNDIR_TEXT_BYTES];

    if (rundir_holder(dir) <= 0)
        return verb_not_running(verb, dir);
    if (ask(verb, dir, "ps", text) != 0)
        return 1;
    if (rundir_parse(span_of(text), state) == 0)
        return 0;
    fprintf(stderr, "starling %s: the supervisor's answer is not understood\n", verb);
    return 1;
}

int verb_order(const char *verb, const struct rundir *dir, const char *request)
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
