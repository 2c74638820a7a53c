/* Limits on what a remote chooses, from limits.def. */
#ifndef STARLING_LIMITS_H
#define STARLING_LIMITS_H

enum limit {
#define X(name, value, help) LIMIT_##name = (value),
#include "limits.def"
#undef X
};

#endif
