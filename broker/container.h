/* From a pointer to a member to the struct that holds it. */
#ifndef STARLING_CONTAINER_H
#define STARLING_CONTAINER_H

#include <stddef.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#endif
