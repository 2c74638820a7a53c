/* Error codes of the whole project: 0 is success, every failure is a negative code of err.def. */
#ifndef STARLING_ERR_H
#define STARLING_ERR_H

enum err_index {
    ERR_INDEX_OK,
#define X(name, text) ERR_INDEX_##name,
#include "err.def"
#undef X
    ERR_INDEX_COUNT
};

enum err {
    ERR_OK = 0,
#define X(name, text) ERR_##name = -(int)ERR_INDEX_##name,
#include "err.def"
#undef X
};

/* The text of a code; never NULL. */
const char *err_text(int code);

#endif
