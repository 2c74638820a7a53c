/* Base64: what is encoded decodes to itself; what decodes is, but for its alphabet and padding, how its bytes
 * are encoded. */
#include "base64.h"
#include "err.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(what) ((what) ? (void)0 : abort())

static void *allocate(size_t n)
{
    void *p = malloc(n);
    REQUIRE(p != NULL);
    return p;
}

static void decodes_to(char *text, size_t n, const uint8_t *data, size_t size)
{
    REQUIRE(base64_decode(text, text, n) == (ssize_t)size); /* in place */
    REQUIRE(size == 0 || memcmp(text, data, size) == 0);
}

static void round_trip(const uint8_t *data, size_t size)
{
    char *text = allocate(BASE64_LENGTH(size) / 4 * 3 + 3 + BASE64_LENGTH(size));
    size_t n = base64_encode(text, data, size);
    REQUIRE(n == BASE64_LENGTH(size));
    decodes_to(text, n, data, size);
    n = base64_encode_url(text, data, size);
    REQUIRE(n == (4 * size + 2) / 3);
    decodes_to(text, n, data, size);
    free(text);
}

static void decode(const char *text, size_t n)
{
    uint8_t *bytes = allocate(n / 4 * 3 + 3);
    ssize_t size = base64_decode(bytes, text, n);
    if (size < 0) {
        REQUIRE(size == ERR_BASE64);
        free(bytes);
        return;
    }
    char *again = allocate(BASE64_LENGTH((size_t)size));
    size_t again_n = base64_encode_url(again, bytes, (size_t)size);
    REQUIRE(again_n == n || (BASE64_LENGTH((size_t)size) == n && text[again_n] == '=' && text[n - 1] == '='));
    for (size_t i = 0; i < again_n; ++i) {
        char c = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
        REQUIRE(again[i] == c);
    }
    free(again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    round_trip(data, size);
    decode((const char *)data, size);
    return 0;
}
