/* Statuses of nodes. What is read, written and read again is the same; and its JSON is JSON. */
#include "err.h"
#include "json.h"
#include "status.h"
#include "utf8.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static struct status status, back;

static bool same_links(void)
{
    bool is_same = status.n_links == back.n_links;
    for (unsigned i = 0; is_same && i < status.n_links; i++) {
        const struct status_link *a = &status.link[i], *b = &back.link[i];
        is_same = a->from.tag == b->from.tag && a->from.boot == b->from.boot && a->sent_us == b->sent_us &&
                  a->held_us == b->held_us && a->delay_us == b->delay_us && a->silent_ms == b->silent_ms &&
                  a->behind == b->behind && a->in_hole == b->in_hole;
    }
    return is_same;
}

static void check_json(msgpack_sbuffer *b)
{
    msgpack_sbuffer_clear(b);
    CHECK(msgpack_sbuffer_write(b, "{", 1) == 0 && status_json(b, &status) == 0 &&
          msgpack_sbuffer_write(b, "}", 1) == 0);
    struct span text = {b->data, b->size};
    CHECK(utf8_valid(text.p, text.n) && json_check(text, 3) == 0);
    CHECK(json_type(json_get(text, "links")) == JSON_ARRAY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mesh_origin origin;
    char id[STATUS_ID_BYTES];
    struct span bytes = {(const char *)data, n};
    if (status_id_read(bytes, &origin)) {
        status_id(id, origin);
        CHECK(n <= strlen(id) || data[7] == '0');
    }
    int err = status_read(bytes, &status);
    CHECK(err == 0 || err == ERR_STATUS);
    if (err != 0)
        return 0;
    CHECK(status.name.n <= MESH_NAME_BYTES && status.host.n <= MESH_NAME_BYTES &&
          status.n_links <= LIMIT_STATUS_LINKS);
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    CHECK(status_write(&b, &status) == 0 && status_read((struct span){b.data, b.size}, &back) == 0);
    CHECK(span_eq(status.name, back.name) && span_eq(status.host, back.host) && same_links());
    CHECK(status.sent_us == back.sent_us && memcmp(status.value, back.value, sizeof(status.value)) == 0);
    check_json(&b);
    msgpack_sbuffer_destroy(&b);
    return 0;
}
