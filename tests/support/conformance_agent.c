/* The application that Socket.IO's own test suites expect behind a server, as an agent:
 *
 *   / and /custom        on connect: emits "auth" with the auth object
 *   / message            emits "message-back" with the same arguments
 *   / message-with-ack   acknowledges with the same arguments
 *
 * usage: conformance_agent ENDPOINT[,ENDPOINT…]; prints "ready" when its handlers are in force, until SIGTERM. */
#include "starling.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct starling *agent;

static void check(int err, const char *what)
{
    if (err < 0)
        fprintf(stderr, "conformance_agent: %s: %s\n", what, starling_strerror(err));
}

static void emit(const char *nsp, const char *sid, const char *event, const char *args,
                 const struct starling_bytes *attachments, size_t n_attachments)
{
    const char *const to[] = {sid, NULL};
    const struct starling_emit e = {.nsp = nsp,
                                    .rooms = to,
                                    .event = event,
                                    .args = args,
                                    .attachments = attachments,
                                    .n_attachments = n_attachments};
    check(starling_emit(agent, &e, NULL), event);
}

static void on_connect(void *user, const struct starling_client *c)
{
    (void)user;
    size_t n = strlen(c->auth) + 3;
    char *args = malloc(n);
    check(starling_accept(agent, c->ref, NULL, NULL, NULL), "connect");
    if (args) {
        snprintf(args, n, "[%s]", c->auth);
        emit(c->nsp, c->sid, "auth", args, NULL, 0);
    }
    free(args);
}

static void on_call(void *user, const struct starling_call *c)
{
    (void)user;
    if (strcmp(c->event, "message") == 0) {
        emit(c->nsp, c->sid, "message-back", c->args, c->attachments, c->n_attachments);
        check(starling_reply(agent, c->ref, NULL, NULL, 0), c->event);
    } else {
        check(starling_reply(agent, c->ref, c->args, c->attachments, c->n_attachments), c->event);
    }
}

static void on_made(void *user, const struct starling_answer *answer)
{
    static unsigned made;
    (void)user;
    if (answer->code) {
        fprintf(stderr, "conformance_agent: %s: %s\n", answer->code, answer->text);
        starling_stop(agent);
    } else if (++made == 2) {
        puts("ready");
        fflush(stdout);
    }
}

static void on_error(void *user, const char *code, const char *text)
{
    (void)user;
    fprintf(stderr, "conformance_agent: %s: %s\n", code, text);
}

static void on_signal(int number)
{
    (void)number;
    starling_stop(agent);
}

int main(int argc, char **argv)
{
    static const char *const both[] = {"/", "/custom", NULL};
    static const char *const events[] = {"message", "message-with-ack", NULL};
    if (argc != 2) {
        fprintf(stderr, "usage: conformance_agent ENDPOINT[,ENDPOINT...]\n");
        return 2;
    }
    const struct starling_options o = {.name = "conformance", .endpoints = argv[1], .on_error = on_error};
    agent = starling_new(&o);
    if (!agent) {
        perror("conformance_agent");
        return 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    const struct starling_handle connects = {
        .namespaces = both, .on_connect = on_connect, .on_made = on_made};
    const struct starling_handle calls = {.events = events, .on_call = on_call, .on_made = on_made};
    int err = starling_handle(agent, &connects) < 0 || starling_handle(agent, &calls) < 0
                  ? STARLING_ARGUMENT
                  : starling_run(agent);
    check(err, "run");
    starling_free(&agent);
    return err == STARLING_OK ? 0 : 1;
}
