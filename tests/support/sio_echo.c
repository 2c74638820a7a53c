/* A node with the handlers that Socket.IO's own test suites expect of an application, and some more:
 *
 *   on connect           emits "auth" with the auth object; refuses {"refuse":true} in /custom
 *   message              emits "message-back" with the same arguments
 *   message-with-ack     acknowledges with the same arguments
 *   emit-with-ack        emits "please-ack" with them, then "ack-result" with the arguments of the acknowledgement
 *   server-disconnect    disconnects the socket; with true the whole connection
 *   volatile-burst n     emits n volatile events "v" */
#include "ack.h"
#include "client.h"
#include "config.h"
#include "container.h"
#include "joining.h"
#include "json.h"
#include "node.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACK_TIMEOUT_MS = 5000 };

static void emit_to(struct socket *s, struct span event, struct span args, const struct span *attachments,
                    unsigned n_attachments, bool is_volatile, struct ack_wait *wait)
{
    struct span to = {s->sid, ID_CHARS};
    uint64_t seq;
    hub_emit(s->nsp->hub, &(struct emit){
                              .nsp = nsp_name(s->nsp),
                              .to = &to,
                              .n_to = 1,
                              .event = event,
                              .args = args,
                              .attachments = attachments,
                              .n_attachments = n_attachments,
                              .is_volatile = is_volatile,
                              .wait = wait,
                          },
             &seq);
}

static void emit_back(struct socket *s, struct span event, const struct sio_packet *packet,
                      const struct span *attachments)
{
    emit_to(s, event, packet->args, attachments, packet->attachments, false, NULL);
}

static enum hub_verdict on_connect(void *user, struct joining *j, struct span *error)
{
    (void)user;
    if (!span_eq(joining_nsp(j), SPAN("/custom")) || !json_is_true(json_get(joining_auth(j), "refuse")))
        return HUB_ACCEPT;
    *error = SPAN("{\"message\":\"refused\",\"data\":{\"why\":\"asked\"}}");
    return HUB_REFUSE;
}

static void on_connected(void *user, struct socket *s, struct span auth)
{
    (void)user;
    emit_to(s, SPAN("\"auth\""), auth, NULL, 0, false, NULL);
}

/* ---- events of "/" ---- */

struct question {
    struct ack_wait wait;
    struct hub *hub;
    char sid[ID_CHARS];
};

static void on_answer(struct ack_wait *w, struct socket *from, struct span args, const struct span *attachments,
                      unsigned n_attachments)
{
    (void)w;
    emit_to(from, SPAN("\"ack-result\""), args, attachments, n_attachments, false, NULL);
}

static void on_answered(struct ack_wait *w)
{
    free(container_of(w, struct question, wait));
}

static void ask(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    struct question *q = calloc(1, sizeof(*q));
    if (!q)
        return;
    q->wait.on_ack = on_answer;
    q->wait.on_done = on_answered;
    ack_wait_start(&q->wait, s->nsp->hub, ACK_TIMEOUT_MS);
    emit_to(s, SPAN("\"please-ack\""), packet->args, attachments, packet->attachments, false, &q->wait);
}

static void burst(struct socket *s, struct span args)
{
    uint64_t n = 0;
    char text[24];
    json_uint(args, 100000, &n);
    for (uint64_t i = 0; i < n; i++) {
        int length = snprintf(text, sizeof(text), "%llu", (unsigned long long)i);
        emit_to(s, SPAN("\"v\""), (struct span){text, (size_t)length}, NULL, 0, true, NULL);
    }
}

static bool on_event(void *user, struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    (void)user;
    if (!span_eq(nsp_name(s->nsp), SPAN("/")))
        return true; /* /custom has no handlers, and stays silent */
    if (span_eq(packet->event, SPAN("\"message\"")))
        emit_back(s, SPAN("\"message-back\""), packet, attachments);
    else if (span_eq(packet->event, SPAN("\"message-with-ack\"")) && packet->has_id)
        socket_ack(s, packet->id, packet->args, attachments, packet->attachments);
    else if (span_eq(packet->event, SPAN("\"emit-with-ack\"")))
        ask(s, packet, attachments);
    else if (span_eq(packet->event, SPAN("\"server-disconnect\"")))
        socket_disconnect(s, span_eq(packet->args, SPAN("true")));
    else if (span_eq(packet->event, SPAN("\"volatile-burst\"")))
        burst(s, packet->args);
    return true;
}

int main(int argc, char **argv)
{
    struct config config;
    struct node_parts parts = {
        .handler = {.on_connect = on_connect, .on_connected = on_connected, .on_event = on_event},
    };
    char **args = calloc((size_t)argc + 2, sizeof(*args));
    if (!args)
        return 1;
    args[0] = argv[0];
    args[1] = "--namespaces=/,/custom"; /* one on the command line comes later and counts */
    memcpy(args + 2, argv + 1, (size_t)argc * sizeof(*args));
    int code = config_parse(argc + 1, args, CONFIG_NODE, &config);
    if (code == 0)
        code = node_run(&config, &parts);
    config_free(&config);
    free(args);
    return code == CONFIG_SHOWN ? 0 : code;
}
