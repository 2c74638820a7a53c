#include "redis_error.h"

static const struct {
    struct span name;
    bool ends;
    const char *text;
} table[REDIS_ERROR_COUNT] = {
#define X(name, ends, text) {SPAN(#name), ends, text},
#include "redis_error.def"
#undef X
};

/* The word stands at text, and after it a blank or the end. */
static bool stands_at(struct span text, struct span word)
{
    return text.n >= word.n && memcmp(text.p, word.p, word.n) == 0 &&
           (text.n == word.n || text.p[word.n] == ' ');
}

static enum redis_error first_word(struct span text)
{
    for (int i = 0; i < REDIS_ERROR_ERR; i++)
        if (stands_at(text, table[i].name))
            return (enum redis_error)i;
    return REDIS_ERROR_ERR;
}

/* Redis 6 wraps what a script's command said: "ERR Error running script (call to f_…): @user_script:3: -OOM …". */
enum redis_error redis_error_of(struct span text)
{
    static const struct span wrapper = SPAN("ERR Error running script");
    enum redis_error error = first_word(text);
    if (error != REDIS_ERROR_ERR || text.n < wrapper.n || memcmp(text.p, wrapper.p, wrapper.n) != 0)
        return error;
    for (size_t i = wrapper.n; i < text.n && error == REDIS_ERROR_ERR; i++)
        if (text.p[i - 1] == ' ' || text.p[i - 1] == '-')
            error = first_word((struct span){text.p + i, text.n - i});
    return error;
}

const char *redis_error_name(enum redis_error error)
{
    return table[error].name.p;
}

const char *redis_error_text(enum redis_error error)
{
    return table[error].text;
}

bool redis_error_ends(enum redis_error error)
{
    return table[error].ends;
}
