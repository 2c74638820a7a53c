/* The back end of a chat in namespace /chat. Clients give a name when they connect, and say things:
 *
 *     const socket = io('/chat', { auth: { name: 'Ann' } });
 *     socket.on('said', (name, text) => …);    // also: joined, left
 *     await socket.emitWithAck('say', 'hello');
 *
 * usage: chat [ENDPOINTS]. Start as many as you like: each event goes to one of them. */
#include <jansson.h>
#include <starling.h>
#include <stdio.h>
#include <stdlib.h>

static struct starling *bus;
static const char *const lobby[] = {"lobby", NULL};

static void emit(const char *event, json_t *args)
{
    char *text = json_dumps(args, JSON_COMPACT);
    starling_emit(bus, &(struct starling_emit){.nsp = "/chat", .rooms = lobby, .event = event, .args = text},
                  NULL);
    free(text);
    json_decref(args);
}

static void on_connect(void *user, const struct starling_client *c)
{
    json_t *auth = json_loads(c->auth, 0, NULL);
    json_t *name = json_object_get(auth, "name");
    (void)user;
    if (json_string_length(name) > 0) {
        char *who = json_dumps(name, JSON_ENCODE_ANY);
        starling_accept(bus, c->ref, who, NULL, lobby);
        free(who);
        emit("joined", json_pack("[O]", name));
    } else {
        starling_fail(bus, c->ref, "nameless", "who are you?", NULL);
    }
    json_decref(auth);
}

static void on_disconnect(void *user, const struct starling_client *c)
{
    (void)user;
    emit("left", json_pack("[o]", json_loads(c->user, JSON_DECODE_ANY, NULL)));
}

static void on_say(void *user, const struct starling_call *c)
{
    json_t *args = json_loads(c->args, 0, NULL);
    json_t *text = json_array_get(args, 0);
    (void)user;
    if (json_is_string(text)) {
        emit("said", json_pack("[o, O]", json_loads(c->user, JSON_DECODE_ANY, NULL), text));
        starling_reply(bus, c->ref, "[{\"ok\":true}]", NULL, 0);
    } else {
        starling_fail(bus, c->ref, "say", "say what?", NULL);
    }
    json_decref(args);
}

static void on_made(void *user, const struct starling_answer *answer)
{
    (void)user;
    fprintf(stderr, "%s %s\n", answer->code ? answer->code : "ready", answer->text);
}

int main(int argc, char **argv)
{
    static const char *const chat[] = {"/chat", NULL}, *const say[] = {"say", NULL};
    struct starling_options o = {.name = "chat", .endpoints = argc > 1 ? argv[1] : "tcp://127.0.0.1:7800"};
    struct starling_handle h = {.namespaces = chat,
                                .events = say,
                                .on_call = on_say,
                                .on_connect = on_connect,
                                .on_disconnect = on_disconnect,
                                .on_made = on_made};
    bus = starling_new(&o);
    return !bus || starling_handle(bus, &h) < 0 || starling_run(bus) != STARLING_OK;
}
