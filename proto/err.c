#include "err.h"

const char *err_text(int code)
{
    static const char *const texts[] = {
        "success",
#define X(name, text) text,
#include "err.def"
#undef X
    };
    return code <= 0 && code > -(int)ERR_INDEX_COUNT ? texts[-code] : "unknown error";
}
