/* A node with a crowd of clients that have no connection: for everybody else, the other nodes and the dashboard, they are
 * sessions as others are, with sids, rooms and a part in what the node says of itself. What is sent to them is dropped.
 *
 *   crowd n rooms    of a client: opens n of them, each in one of so many rooms ("hall-0" and up); acknowledged when
 *                    they are all there
 *
 * Options are those of starling-node; the ping interval has to be longer than the crowd is wanted, as nobody answers. */
#include "client.h"
#include "config.h"
#include "container.h"
#include "engine.h"
#include "json.h"
#include "node.h"
#include <stdio.h>
#include <stdlib.h>

enum { AT_A_TIME = 500, PAUSE_MS = 5 };

static struct {
    struct timer timer;
    struct hub *hub;
    uint64_t wanted, rooms, opened, ack_id;
    char asker[ID_CHARS];
} crowd;

/* ---- clients without a connection ---- */

static void drop(struct session *s)
{
    struct iovec iov[16];
    while (!outq_empty(&s->out)) {
        size_t bytes = 0;
        int n = outq_iov(&s->out, iov, 16);
        for (int i = 0; i < n; i++)
            bytes += iov[i].iov_len;
        outq_advance(&s->out, bytes);
    }
}

static bool writable(const struct session *s)
{
    (void)s;
    return true;
}

static void on_close(struct session *s, enum close_reason reason)
{
    (void)reason;
    engine_forget(s);
}

static const struct transport nowhere = {
    .kind = EIO_WEBSOCKET, .flush = drop, .writable = writable, .close = on_close};

static void says(struct session *s, const char *text)
{
    session_receive(s, &(struct eio_packet){.type = EIO_MESSAGE, .data = span_of(text)});
}

static bool open_one(void)
{
    char join[64];
    struct session *s = engine_open(crowd.hub->engine, &nowhere, NULL, false);
    if (!s)
        return false;
    snprintf(join, sizeof(join), "2[\"bus:join\",\"hall-%llu\"]",
             (unsigned long long)(crowd.opened % crowd.rooms));
    says(s, "0");
    says(s, join);
    crowd.opened++;
    return true;
}

/* ---- who asks for them ---- */

static void answer(void)
{
    struct nsp *nsp = hub_find(crowd.hub, SPAN("/"));
    struct socket *s = nsp ? nsp_find(nsp, (struct span){crowd.asker, ID_CHARS}) : NULL;
    if (s)
        socket_ack(s, crowd.ack_id, SPAN("true"), NULL, 0);
}

/* So many that the mesh keeps up. */
static void on_time(struct timer *t)
{
    for (unsigned i = 0; i < AT_A_TIME && crowd.opened < crowd.wanted; i++) {
        if (!open_one()) {
            fprintf(stderr, "crowd: no memory\n");
            exit(1);
        }
    }
    if (crowd.opened < crowd.wanted)
        reactor_timer_set(crowd.hub->engine->reactor, t, PAUSE_MS);
    else
        answer();
}

static bool on_event(void *user, struct socket *s, const struct sio_packet *packet,
                     const struct span *attachments)
{
    struct json_cursor c = {packet->args.p, packet->args.p + packet->args.n};
    struct span n, rooms;
    (void)user;
    (void)attachments;
    if (!span_eq(packet->event, SPAN("\"crowd\"")) || crowd.wanted > 0)
        return false;
    if (!json_item(&c, &n) || !json_item(&c, &rooms) || !json_uint(n, 1000000, &crowd.wanted) ||
        !json_uint(rooms, 1000000, &crowd.rooms) || crowd.rooms == 0)
        return false;
    crowd.hub = s->nsp->hub;
    crowd.ack_id = packet->id;
    memcpy(crowd.asker, s->sid, ID_CHARS);
    timer_init(&crowd.timer, on_time);
    reactor_timer_set(crowd.hub->engine->reactor, &crowd.timer, 0);
    return true;
}

int main(int argc, char **argv)
{
    struct config config;
    struct node_parts parts = {.handler = {.on_event = on_event}};
    int code = config_parse(argc, argv, CONFIG_NODE, &config);
    if (code == 0)
        code = node_run(&config, &parts);
    config_free(&config);
    return code == CONFIG_SHOWN ? 0 : code;
}
