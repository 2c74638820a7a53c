/* Claims: a second reader, which walks msgpack-c's tree, says which bytes are good and which are of a newer node, and
 * claim_read() agrees; what is read and written again is the same to msgpack-c but for elements that are skipped. */
#include "claim.h"
#include "err.h"
#include "good_names.h"
#include "msgpack_whole.h"

enum { ASK_ELEMENTS = 3, ANSWER_ELEMENTS = 6, ANSWER_WRITTEN = 7 };

static bool good_answer(const msgpack_object *e, uint32_t n)
{
    if (!good_uint(&e[2], 0, 2) || !good_uint(&e[3], 0, UINT64_MAX) || !good_bin(&e[4], 0, 524288) ||
        !good_uint(&e[5], 0, 0xffffff) || (n > ANSWER_ELEMENTS && !good_uint(&e[6], 0, UINT64_MAX)))
        return false;
    bool is_yours = e[2].via.u64 == 0, is_moved = e[2].via.u64 == 2;
    return is_yours == (e[3].via.u64 > 0) && is_yours == (e[4].via.bin.size > 0) &&
           (is_moved || (e[5].via.u64 == 0 && (n == ANSWER_ELEMENTS || e[6].via.u64 == 0)));
}

static int verdict(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 1)
        return ERR_CLAIM;
    const msgpack_object *e = o->via.array.ptr;
    uint32_t n = o->via.array.size;
    if (!good_uint(&e[0], 0, UINT64_MAX))
        return ERR_CLAIM;
    if (!good_uint(&e[0], 1, 2))
        return ERR_KIND;
    if (n < ASK_ELEMENTS || !good_uint(&e[1], 0, UINT64_MAX))
        return ERR_CLAIM;
    if (e[0].via.u64 == 1)
        return good_id(&e[2]) ? 0 : ERR_CLAIM;
    return n >= ANSWER_ELEMENTS && good_answer(e, n) ? 0 : ERR_CLAIM;
}

static void check_again(const struct claim *c, msgpack_object *expected)
{
    struct claim back;
    msgpack_sbuffer b;
    msgpack_unpacked tree;
    size_t at = 0;
    msgpack_sbuffer_init(&b);
    msgpack_unpacked_init(&tree);
    CHECK(claim_write(&b, c) == 0);
    CHECK(msgpack_unpack_next(&tree, b.data, b.size, &at) == MSGPACK_UNPACK_SUCCESS && at == b.size);
    uint32_t written = c->what == CLAIM_ASK ? ASK_ELEMENTS : ANSWER_WRITTEN, had = expected->via.array.size;
    expected->via.array.size = tree.data.via.array.size = had < written ? had : written;
    CHECK(msgpack_object_equal(tree.data, *expected));
    CHECK(claim_read((struct span){b.data, b.size}, &back) == 0);
    CHECK(claim_read((struct span){b.data, b.size - 1}, &back) == ERR_CLAIM);
    msgpack_unpacked_destroy(&tree);
    msgpack_sbuffer_destroy(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct claim c;
    int err = claim_read((struct span){(const char *)data, n}, &c);
    CHECK(err == 0 || err == ERR_CLAIM || err == ERR_KIND);
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
            check_again(&c, &tree.data);
    }
    msgpack_unpacked_destroy(&tree);
    return 0;
}
