/* URLs of Redis: what is taken is printed as a URL that means the same but for user and password, and what is refused
 * says why. */
#include "err.h"
#include "redis_url.h"
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_same(const struct redis_url *a, const struct redis_url *b)
{
    CHECK(a->kind == b->kind && a->n == b->n && a->db == b->db);
    CHECK(strcmp(a->path, b->path) == 0 && strcmp(a->master, b->master) == 0);
    for (unsigned i = 0; i < a->n; i++)
        CHECK(strcmp(a->address[i].host, b->address[i].host) == 0 &&
              a->address[i].port == b->address[i].port);
}

static void check_taken(const struct redis_url *url)
{
    static char text[REDIS_URL_BYTES];
    static struct redis_url again;
    const char *why;
    CHECK((url->kind == REDIS_UNIX) == (url->n == 0) && url->n <= REDIS_ADDRESSES);
    CHECK((url->kind == REDIS_UNIX) == (url->path[0] == '/'));
    CHECK((url->kind == REDIS_SENTINEL) == (url->master[0] != '\0'));
    CHECK(url->db <= REDIS_MAX_DB && (url->password[0] || !url->user[0]));
    redis_url_print(url, text);
    CHECK(redis_url_parse(text, &again, &why) == 0);
    CHECK(!again.user[0] && !again.password[0]);
    check_same(url, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct redis_url url;
    const char *why;
    char *text = malloc(n + 1);
    CHECK(text);
    if (n > 0)
        memcpy(text, data, n);
    text[n] = '\0';
    int err = redis_url_parse(text, &url, &why);
    CHECK(err == 0 ? !why : err == ERR_ARGUMENT && why && *why);
    if (err == 0)
        check_taken(&url);
    free(text);
    return 0;
}
