/* machine_sink ENDPOINT [GRANT]: what a node is to a machine monitor, alone. Lets agents in, grants them GRANT bytes in
 * all (without it, a MiB more each time), and prints a line of JSON for all that they say. */
#include "agent.h"
#include "err.h"
#include "machine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

enum { HEARTBEAT_MS = 300, WINDOW = 1 << 20 };

static struct agent_record record;
static struct machine_description description;
static struct machine_tick tick;

static struct {
    void *socket;
    char identity[256];
    size_t identity_n; /* 0: nobody has been let in */
    uint64_t got, grant;
} sink;

static void answer(void)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    if (agent_write(&b, &record) == 0) {
        zmq_send(sink.socket, sink.identity, sink.identity_n, ZMQ_SNDMORE);
        zmq_send(sink.socket, b.data, b.size, 0);
    }
    msgpack_sbuffer_destroy(&b);
}

static uint64_t granted(void)
{
    return sink.grant > 0 ? sink.grant : sink.got + WINDOW;
}

static void let_in(const char *identity, size_t n)
{
    printf("{\"hello\":\"%.*s\"}\n", (int)record.name.n, record.name.p);
    memcpy(sink.identity, identity, n);
    sink.identity_n = n;
    sink.got = 0;
    agent_init(&record, AGENT_WELCOME);
    record.version = AGENT_VERSION;
    record.node = SPAN("sink");
    record.credit = granted();
    agent_with(&record, AGENT_F_HEARTBEAT_MS)->heartbeat_ms = HEARTBEAT_MS;
    answer();
}

static void say_credit(void)
{
    if (sink.identity_n == 0)
        return;
    agent_init(&record, AGENT_CREDIT);
    record.credit = granted();
    answer();
}

static void print_machine(struct span message)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    if (machine_read_description(message, &description) == 0 &&
        machine_description_json(&b, &description) == 0)
        printf("{\"description\":%.*s}\n", (int)b.size, b.data);
    else if (machine_read_tick(message, &tick) == 0 && machine_tick_json(&b, &tick) == 0)
        printf("{\"tick\":%.*s}\n", (int)b.size, b.data);
    else
        printf("{\"refused\":%zu}\n", message.n);
    msgpack_sbuffer_destroy(&b);
}

static void take(const char *identity, size_t identity_n, struct span message)
{
    struct agent_reader reader = agent_open(message);
    int rc;
    bool known = identity_n == sink.identity_n && memcmp(identity, sink.identity, identity_n) == 0;
    while ((rc = agent_read(&reader, &record)) != 0 && rc != ERR_AGENT) {
        if (rc == 1 && record.kind == AGENT_HELLO)
            let_in(identity, identity_n);
        else if (known && rc == ERR_KIND)
            print_machine(record.raw);
        else if (known && rc == 1 && record.kind == AGENT_CREDIT)
            printf("{\"heartbeat\":%" PRIu64 "}\n", record.credit);
        else if (known && rc == 1 && record.kind == AGENT_BYE)
            printf("{\"bye\":\"%.*s\"}\n", (int)record.code.n, record.code.p);
    }
    sink.got += known ? message.n : 0;
    fflush(stdout);
}

static void receive(void)
{
    zmq_msg_t identity, message;
    zmq_msg_init(&identity);
    zmq_msg_init(&message);
    if (zmq_msg_recv(&identity, sink.socket, 0) >= 0 && zmq_msg_more(&identity) &&
        zmq_msg_recv(&message, sink.socket, 0) >= 0 && zmq_msg_size(&identity) <= sizeof(sink.identity))
        take(zmq_msg_data(&identity), zmq_msg_size(&identity),
             (struct span){zmq_msg_data(&message), zmq_msg_size(&message)});
    zmq_msg_close(&identity);
    zmq_msg_close(&message);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fputs("usage: machine_sink ENDPOINT [GRANT]\n", stderr);
        return 2;
    }
    void *context = zmq_ctx_new();
    sink.socket = zmq_socket(context, ZMQ_ROUTER);
    sink.grant = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (zmq_bind(sink.socket, argv[1]) != 0) {
        fprintf(stderr, "machine_sink: %s: %s\n", argv[1], zmq_strerror(zmq_errno()));
        return 1;
    }
    puts("{\"ready\":true}");
    fflush(stdout);
    for (;;) {
        zmq_pollitem_t item = {.socket = sink.socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, HEARTBEAT_MS) > 0)
            receive();
        else
            say_credit();
    }
}
