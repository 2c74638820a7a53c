/* What kinds of errors Redis answers with: redis_error.def. Pure functions. */
#ifndef STARLING_REDIS_ERROR_H
#define STARLING_REDIS_ERROR_H

#include "span.h"

enum redis_error {
#define X(name, ends, text) REDIS_ERROR_##name,
#include "redis_error.def"
#undef X
    REDIS_ERROR_COUNT
};

/* Of an error reply's text, also when a script has wrapped it; REDIS_ERROR_ERR when it names no other. */
enum redis_error redis_error_of(struct span text);
const char *redis_error_name(enum redis_error error);
/* For the log: what it means, and what to do. */
const char *redis_error_text(enum redis_error error);
/* A connection with such an error is of no use. */
bool redis_error_ends(enum redis_error error);

#endif
