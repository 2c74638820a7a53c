/* What other nodes say of agents: keys, values and messages. A second reader made of msgpack-c is not needed: what is
 * read is written again, and read once more as the same. */
#include "agent.h"
#include "gateway.h"
#include "mesh.h"
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static struct span written(const msgpack_sbuffer *b)
{
    return (struct span){b->data, b->size};
}

static bool is_inside(struct span part, struct span all)
{
    return part.n == 0 || (part.p >= all.p && part.p + part.n <= all.p + all.n);
}

static void check_about(struct span value, enum gateway_key type)
{
    struct gateway_about about, again;
    struct span rest;
    msgpack_sbuffer b;
    if (gateway_read_about(value, type, &about, &rest))
        return;
    CHECK(is_inside(about.name, value) && is_inside(about.instance, value) && is_inside(rest, value));
    CHECK(about.name.n > 0 && about.name.n <= GATEWAY_TEXT_BYTES);
    msgpack_sbuffer_init(&b);
    CHECK(gateway_write_about(&b, type, &about) == 0);
    CHECK(gateway_read_about(written(&b), type, &again, &rest) == 0 && rest.n == 0);
    CHECK(span_eq(again.name, about.name) && span_eq(again.instance, about.instance));
    CHECK(again.epoch == about.epoch && span_eq(again.reason, about.reason));
    msgpack_sbuffer_destroy(&b);
}

static void check_node(struct span value)
{
    struct gateway_node node, again;
    msgpack_sbuffer b;
    if (gateway_read_node(value, &node))
        return;
    CHECK(node.n <= GATEWAY_ENDPOINTS);
    msgpack_sbuffer_init(&b);
    CHECK(gateway_write_node(&b, &node) == 0);
    CHECK(gateway_read_node(written(&b), &again) == 0);
    CHECK(span_eq(again.name, node.name) && span_eq(again.host, node.host) && again.n == node.n);
    for (unsigned i = 0; i < node.n; i++)
        CHECK(node.endpoint[i].n <= MESH_ENDPOINT_BYTES && span_eq(again.endpoint[i], node.endpoint[i]));
    msgpack_sbuffer_destroy(&b);
}

static void check_loads(struct span rest)
{
    struct gateway_loads loads;
    struct gateway_load load;
    unsigned n = 0;
    if (gateway_open_loads(rest, &loads))
        return;
    while (gateway_next_load(&loads, &load))
        n++;
    CHECK(n <= rest.n / 2);
}

static void check_message(struct span message)
{
    static struct agent_record record;
    struct gateway_head head, again;
    struct span rest;
    msgpack_sbuffer b;
    if (gateway_read_head(message, &head, &rest))
        return;
    CHECK(is_inside(rest, message) && head.op >= GATEWAY_DELIVER && head.op <= GATEWAY_LOAD);
    if (head.op == GATEWAY_LOAD) {
        check_loads(rest);
        return;
    }
    msgpack_sbuffer_init(&b);
    CHECK(gateway_write_head(&b, &head) == 0);
    CHECK(gateway_read_head(written(&b), &again, &rest) == 0 && rest.n == 0);
    CHECK(again.op == head.op && again.number == head.number && again.target == head.target &&
          again.after == head.after);
    msgpack_sbuffer_destroy(&b);
    gateway_read_head(message, &head, &rest);
    struct agent_reader reader = agent_open(rest);
    agent_read(&reader, &record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span input = {(const char *)data, size};
    enum gateway_key type;
    uint64_t number;
    char key[GATEWAY_KEY_BYTES];
    check_about(input, GATEWAY_REGISTRATION);
    check_about(input, GATEWAY_INSTANCE);
    check_node(input);
    check_message(input);
    if (gateway_read_key(input, &type, &number) == 0)
        CHECK(span_eq(gateway_write_key(key, type, number), input));
    return 0;
}
