/* UTF-8: the check agrees with a plain decoder, however the text is cut; what is sanitized is valid, and a
 * valid text is left as it is. */
#include "utf8.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(what) ((what) ? (void)0 : abort())

/* Decodes and judges one code point after the other. */
static bool plainly_valid(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t tails = p[i] < 0x80 ? 0 : p[i] >> 5 == 6 ? 1 : p[i] >> 4 == 14 ? 2 : p[i] >> 3 == 30 ? 3 : 9;
        if (tails == 9 || tails >= n - i)
            return false;
        uint32_t c = tails == 0 ? p[i] : p[i] & (0x3fu >> tails);
        for (size_t k = 1; k <= tails; ++k) {
            if (p[i + k] >> 6 != 2)
                return false;
            c = c << 6 | (p[i + k] & 0x3fu);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (c < least[tails] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
        i += tails + 1;
    }
    return true;
}

static bool valid_in_pieces(const uint8_t *p, size_t n, size_t seed)
{
    struct utf8 u = {0};
    for (size_t at = 0; at < n;) {
        seed = seed * 1103515245 + 12345;
        size_t piece = (seed >> 16) % 20;
        if (piece > n - at)
            piece = n - at;
        if (!utf8_feed(&u, p + at, piece))
            return false;
        at += piece;
    }
    return utf8_complete(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool valid = utf8_valid(data, size);
    REQUIRE(valid == plainly_valid(data, size));
    REQUIRE(valid == valid_in_pieces(data, size, size > 0 ? data[size - 1] : 0));

    char *clean = malloc(3 * size);
    REQUIRE(clean != NULL);
    size_t n = utf8_sanitize(clean, (const char *)data, size);
    REQUIRE(n <= 3 * size && utf8_valid(clean, n));
    REQUIRE((n == size && (n == 0 || memcmp(clean, data, n) == 0)) == valid);
    free(clean);
    return 0;
}
