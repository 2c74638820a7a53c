/* What machines say of themselves. What is read, written again and read again is the same; it fits the bound of a
 * message; and its JSON is JSON. */
#include "err.h"
#include "json.h"
#include "machine.h"
#include "utf8.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_json(const msgpack_sbuffer *b)
{
    struct span text = {b->data, b->size};
    CHECK(utf8_valid(text.p, text.n));
    CHECK(json_check(text, 3) == 0 && json_type(text) == JSON_OBJECT);
}

static void check_description(struct span message, msgpack_sbuffer *once, msgpack_sbuffer *twice)
{
    static struct machine_description d;
    CHECK(machine_read_description(message, &d) == 0);
    CHECK(machine_write_description(once, &d) == 0 && once->size <= message.n);
    CHECK(machine_read_description((struct span){once->data, once->size}, &d) == 0);
    CHECK(machine_write_description(twice, &d) == 0);
    CHECK(span_eq((struct span){once->data, once->size}, (struct span){twice->data, twice->size}));
    CHECK(machine_memory_bytes(&d.about) <= d.about.memory_bytes);
    msgpack_sbuffer_clear(twice);
    CHECK(machine_description_json(twice, &d) == 0);
}

static void check_tick(struct span message, msgpack_sbuffer *once, msgpack_sbuffer *twice)
{
    static struct machine_tick t;
    CHECK(machine_read_tick(message, &t) == 0);
    CHECK(machine_write_tick(once, &t) == 0 && once->size <= message.n);
    CHECK(machine_read_tick((struct span){once->data, once->size}, &t) == 0);
    CHECK(machine_write_tick(twice, &t) == 0);
    CHECK(span_eq((struct span){once->data, once->size}, (struct span){twice->data, twice->size}));
    CHECK(machine_busy(&t.cpu) <= 5 * MACHINE_WHOLE);
    msgpack_sbuffer_clear(twice);
    CHECK(machine_tick_json(twice, &t) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct machine_description d;
    static struct machine_tick t;
    struct span message = {(const char *)data, n};
    uint64_t machine, revision;
    int kind = machine_read_head(message, &machine, &revision);
    bool is_description = machine_read_description(message, &d) == 0;
    bool is_tick = machine_read_tick(message, &t) == 0;
    CHECK(!(is_description && is_tick));
    CHECK(!is_description || (kind == MACHINE_DESCRIPTION && d.machine == machine && d.revision == revision));
    CHECK(!is_tick || (kind == MACHINE_TICK && t.machine == machine && t.revision == revision));
    if (!is_description && !is_tick)
        return 0;
    msgpack_sbuffer once, twice;
    msgpack_sbuffer_init(&once);
    msgpack_sbuffer_init(&twice);
    if (is_description)
        check_description(message, &once, &twice);
    else
        check_tick(message, &once, &twice);
    check_json(&twice);
    msgpack_sbuffer_destroy(&once);
    msgpack_sbuffer_destroy(&twice);
    return 0;
}
