/* Stored history. Whatever the bytes are, nothing from after the present gets in, what is read and written again is
 * read the same, and its JSON is JSON. */
#include "err.h"
#include "history.h"
#include "json.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

enum { NOW_MS = 100000000 };

static void check_level(const struct history *h, enum history_level level)
{
    msgpack_sbuffer once, twice;
    uint64_t oldest, newest;
    if (!history_range(h, level, &oldest, &newest))
        return;
    CHECK(oldest <= newest && newest <= NOW_MS && oldest > 0);
    struct history *copy = history_new();
    CHECK(copy);
    msgpack_sbuffer_init(&once);
    msgpack_sbuffer_init(&twice);
    CHECK(history_write(h, level, 0, UINT64_MAX, &once) == 0);
    CHECK(history_read(copy, NOW_MS, (struct span){once.data, once.size}) == 0);
    CHECK(history_write(copy, level, 0, UINT64_MAX, &twice) == 0);
    CHECK(span_eq((struct span){once.data, once.size}, (struct span){twice.data, twice.size}));
    msgpack_sbuffer_clear(&once);
    CHECK(history_json(h, level, newest - 10 * history_step_ms(level), &once) == 0);
    CHECK(json_check((struct span){once.data, once.size}, 2) == 0);
    msgpack_sbuffer_destroy(&once);
    msgpack_sbuffer_destroy(&twice);
    history_free(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct history *h = history_new();
    CHECK(h);
    int err = history_read(h, NOW_MS, (struct span){(const char *)data, n});
    CHECK(err == 0 || err == ERR_MACHINE || err == ERR_VERSION);
    for (int level = 0; level < HISTORY_LEVELS; level++)
        check_level(h, (enum history_level)level);
    history_free(&h);
    return 0;
}
