/* Limits on what a remote chooses, from limits.def. */
#ifndef STARLING_LIMIT_H
#define STARLING_LIMIT_H

enum limit {
#define X(name, value, help) LIMIT_##name = (value),
#include "limits.def"
#undef X
};

#endif
