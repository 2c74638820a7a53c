#include "verb.h"
#include "control.h"
#include "json.h"
#include "utf8.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int verb_usage(const char *verb, const char *what, const char *text)
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

int verb_parse(int argc, char **argv, const char *allowed, struct verb_options *o)
{
    const char *verb = argv[0];
    int i = 1;

    *o = (struct verb_options){.run_dir = ""};
    for (; i < argc && (strncmp(argv[i], "--", 2) == 0 || strcmp(argv[i], "-f") == 0); i++) {
        char name[32];
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        snprintf(name, sizeof name, " %s ", argv[i]);
        if (!strstr(allowed, name))
            return verb_usage(verb, "unknown option ", argv[i]);
        if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
            continue;
        }
        if (strcmp(argv[i], "-f") == 0) {
            o->follow = true;
            continue;
        }
        if (strcmp(argv[i], "--reference") == 0) {
            o->reference = true;
            continue;
        }
        if (strcmp(argv[i], "--port") == 0 && (!value || !parse_port(value, &o->port)))
            return verb_usage(verb, "--port takes a number from 1 to 65535", "");
        if (strcmp(argv[i], "--lines") == 0 && (!value || !verb_parse_number(value, 1000000, &o->lines)))
            return verb_usage(verb, "--lines takes a number from 0 to 1000000", "");
        if (!value)
            return verb_usage(verb, argv[i], " takes a value");
        o->has_lines = o->has_lines || strcmp(argv[i], "--lines") == 0;
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

int verb_not_running(const char *verb, const struct rundir *dir)
{
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
