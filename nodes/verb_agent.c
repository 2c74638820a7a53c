/* Verbs that are agents for a moment: they speak with the bus as any program beside it does, by libstarling. */
#include "json.h"
#include "limit.h"
#include "starling.h"
#include "utf8.h"
#include "verb.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    AGENT_PORTS = 100, /* from the public port to those for agents */
    ENDPOINTS_MAX = 8,
    CONNECT_MS = 5000,
    ANSWER_MS = 6000, /* an ask that is not answered fails at the node after 5 s */
};

static struct starling *bus;

/* The nodes of the run directory by their paths, or the first two of the port that was given. */
static void put_endpoints(const struct verb_options *o, char *out, size_t size)
{
    struct rundir dir;
    struct rundir_state state;
    size_t n = 0;

    rundir_init(&dir, o->run_dir);
    if (!o->port && rundir_holder(&dir) > 0 && rundir_load(&dir, &state) == 0) {
        for (unsigned i = 0; i < state.nodes_n && i < ENDPOINTS_MAX && n < size; i++)
            n += (size_t)snprintf(out + n, size - n, "%sipc://%s/agents-%u", i > 0 ? "," : "", dir.path, i);
        return;
    }
    for (unsigned i = 0; i < 2 && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%stcp://%s:%u", i > 0 ? "," : "",
                              o->bind ? o->bind : "127.0.0.1", (o->port ? o->port : 7700) + AGENT_PORTS + i);
}

/* 0, or 1 after a message. */
static int join_bus(const char *verb, const struct verb_options *o)
{
    char endpoints[ENDPOINTS_MAX * 128], name[32];

    put_endpoints(o, endpoints, sizeof endpoints);
    snprintf(name, sizeof name, "starling-%s", verb);
    bus = starling_new(
        &(struct starling_options){.name = name, .endpoints = endpoints, .about = "the command line"});
    if (bus && starling_connect(bus, CONNECT_MS) == STARLING_OK)
        return 0;
    fprintf(stderr, "starling %s: no node answers at %s\n", verb, endpoints);
    starling_free(&bus);
    return 1;
}

static bool is_json(const char *text)
{
    struct span span = span_of(text);

    return utf8_valid(span.p, span.n) && json_check(span, LIMIT_JSON_DEPTH) == 0;
}

int verb_call(int argc, char **argv)
{
    const struct starling_answer *answer = NULL;
    struct verb_options o;
    const char *body;
    int rc = verb_parse(argc, argv, " --run-dir --bind --port ", &o);

    if (rc != 0)
        return rc;
    if (o.arguments_n < 1 || o.arguments_n > 2)
        return verb_usage("call", "takes an address and what to ask, as JSON", "");
    body = o.arguments_n > 1 ? o.arguments[1] : "null";
    if (!is_json(body))
        return verb_usage("call", "what is asked is JSON (a text is '\"text\"'), not ", body);
    if (join_bus("call", &o) != 0)
        return 1;
    starling_ask(bus, o.arguments[0], (struct starling_bytes){body, strlen(body)}, false, 0, STARLING_WAITED);
    rc = starling_wait(bus, ANSWER_MS, &answer);
    if (rc == STARLING_OK) {
        fwrite(answer->body, 1, answer->body_n, stdout);
        putchar('\n');
    } else if (rc == STARLING_REFUSED) {
        fprintf(stderr, "starling call: %s: %s (%s)\n", o.arguments[0], answer->text, answer->code);
        if (answer->data[0])
            fprintf(stderr, "%s\n", answer->data);
    } else {
        fprintf(stderr, "starling call: %s: %s\n", o.arguments[0], starling_strerror(rc));
    }
    starling_free(&bus);
    return rc == STARLING_OK ? 0 : 1;
}

/* ---- tail ---- */

static void print_quoted(const char *text)
{
    struct span span = span_of(text);
    char *quoted = malloc(JSON_QUOTED_MAX(span.n));

    if (quoted)
        fwrite(quoted, 1, json_quote(quoted, span), stdout);
    free(quoted);
}

/* One line of JSON. */
static void on_event(void *user, const struct starling_event *e)
{
    (void)user;
    printf("{\"ns\":");
    print_quoted(e->nsp);
    printf(",\"to\":");
    for (size_t i = 0; i < e->n_rooms; i++) {
        putchar(i > 0 ? ',' : '[');
        print_quoted(e->rooms[i]);
    }
    printf("%s,\"event\":", e->n_rooms > 0 ? "]" : "null");
    print_quoted(e->event);
    printf(",\"args\":%s,\"id\":", e->args);
    print_quoted(e->emit);
    puts("}");
    fflush(stdout);
    if (ferror(stdout)) /* whoever has read it is gone */
        starling_stop(bus);
}

static void on_lost(void *user, uint64_t count)
{
    (void)user;
    if (count > 0)
        fprintf(stderr, "starling tail: %llu events are missing here\n", (unsigned long long)count);
    else
        fprintf(stderr, "starling tail: events are missing here\n");
}

static void on_subscribed(void *user, const struct starling_answer *answer)
{
    int *rc = user;

    if (!answer->code)
        return;
    fprintf(stderr, "starling tail: %s (%s)\n", answer->text, answer->code);
    *rc = 1;
    starling_stop(bus);
}

static void on_signal(int number)
{
    (void)number;
    starling_stop(bus);
}

int verb_tail(int argc, char **argv)
{
    struct verb_options o;
    int rc = verb_parse(argc, argv, " --run-dir --bind --port --ns ", &o);
    const char *namespaces[] = {o.ns ? o.ns : "*", NULL};
    struct starling_subscribe subscription = {.namespaces = namespaces,
                                              .on_event = on_event,
                                              .on_lost = on_lost,
                                              .on_made = on_subscribed,
                                              .user = &rc};

    if (rc != 0)
        return rc;
    if (o.arguments_n > LIMIT_AGENT_PATTERNS)
        return verb_usage("tail", "takes up to 32 patterns of events", "");
    if (o.arguments_n > 0) /* argv ends with NULL */
        subscription.events = (const char *const *)o.arguments;
    if (join_bus("tail", &o) != 0)
        return 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    if (starling_subscribe(bus, &subscription) < 0)
        rc = verb_usage("tail", "a pattern of events is not one", "");
    else
        starling_run(bus);
    starling_free(&bus);
    return rc;
}
