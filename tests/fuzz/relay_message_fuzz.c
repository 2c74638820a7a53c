/* Messages about relays: a second reader, which walks msgpack-c's tree, says which bytes are good and which are of a newer
 * node, and relay_message_read() agrees; what is read and written again is the same to msgpack-c but for elements that are
 * skipped. */
#include "err.h"
#include "good_names.h"
#include "msgpack_whole.h"
#include "relay_message.h"

static const uint32_t elements[] = {0, 5, 5, 4, 3, 7};
static struct relay_message message, back;

static bool good_places(const msgpack_object *o)
{
    bool all = o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= 1 && o->via.array.size <= 32;
    for (uint32_t i = 0; all && i < o->via.array.size; i++) {
        const msgpack_object *place = &o->via.array.ptr[i];
        all = place->type == MSGPACK_OBJECT_ARRAY && place->via.array.size >= 2 &&
              good_namespace(&place->via.array.ptr[0]) && good_id(&place->via.array.ptr[1]);
        for (uint32_t j = 0; all && j < i; j++)
            all = !span_eq(text_of(&place->via.array.ptr[0]), text_of(&o->via.array.ptr[j].via.array.ptr[0]));
    }
    return all;
}

static bool good_rest(uint64_t what, const msgpack_object *e)
{
    bool has_mine = e[2].type == MSGPACK_OBJECT_BOOLEAN;
    if (what == RELAY_OPEN)
        return good_uint(&e[2], 0, 0xffffffff) && good_uint(&e[3], 0, 0xffff) && good_bin(&e[4], 0, 16384);
    if (what == RELAY_DATA)
        return has_mine && good_uint(&e[3], 0, UINT64_MAX) && good_bin(&e[4], 0, 16384);
    if (what == RELAY_TAKEN)
        return has_mine && good_uint(&e[3], 0, UINT64_MAX);
    if (what == RELAY_CLOSE)
        return has_mine;
    return good_id(&e[2]) && good_uint(&e[3], 0, UINT64_MAX) && good_text(&e[4], 0, 4096) &&
           good_places(&e[5]) && good_bin(&e[6], 0, 1048576);
}

static int verdict(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 1)
        return ERR_RELAY;
    const msgpack_object *e = o->via.array.ptr;
    if (!good_uint(&e[0], 0, UINT64_MAX))
        return ERR_RELAY;
    if (!good_uint(&e[0], 1, 5))
        return ERR_KIND;
    bool good = o->via.array.size >= elements[e[0].via.u64] && good_uint(&e[1], 0, UINT64_MAX) &&
                good_rest(e[0].via.u64, e);
    return good ? 0 : ERR_RELAY;
}

static void shorten(msgpack_object *o)
{
    o->via.array.size = elements[message.what];
    for (uint32_t i = 0; i < message.n_places; i++)
        o->via.array.ptr[5].via.array.ptr[i].via.array.size = 2;
}

static void check_again(msgpack_object *expected)
{
    msgpack_sbuffer b;
    msgpack_unpacked tree;
    size_t at = 0;
    msgpack_sbuffer_init(&b);
    msgpack_unpacked_init(&tree);
    CHECK(relay_message_write(&b, &message) == 0);
    CHECK(msgpack_unpack_next(&tree, b.data, b.size, &at) == MSGPACK_UNPACK_SUCCESS && at == b.size);
    shorten(expected);
    CHECK(msgpack_object_equal(tree.data, *expected));
    CHECK(relay_message_read((struct span){b.data, b.size}, &back) == 0);
    CHECK(relay_message_read((struct span){b.data, b.size - 1}, &back) == ERR_RELAY);
    msgpack_unpacked_destroy(&tree);
    msgpack_sbuffer_destroy(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int err = relay_message_read((struct span){(const char *)data, n}, &message);
    CHECK(err == 0 || err == ERR_RELAY || err == ERR_KIND);
    if (n == 0 || whole((struct bytes){data, n}) != n) {
        CHECK(err != 0);
        return 0;
    }
    msgpack_unpacked tree;
    msgpack_unpacked_init(&tree);
    size_t at = 0;
    msgpack_unpack_return status = msgpack_unpack_next(&tree, (const char *)data, n, &at);
    /* What is nested too deep for msgpack-c has no tree. */
    CHECK(status == MSGPACK_UNPACK_SUCCESS || status == MSGPACK_UNPACK_NOMEM_ERROR);
    if (status == MSGPACK_UNPACK_SUCCESS) {
        CHECK(err == verdict(&tree.data));
        if (err == 0)
            check_again(&tree.data);
    }
    msgpack_unpacked_destroy(&tree);
    return 0;
}
