/* uthash with a keyed hash: its keys here are chosen by remotes, who must not be able to make them collide.
 * Include this instead of uthash.h. */
#ifndef STARLING_TABLE_H
#define STARLING_TABLE_H

#include "id.h"

#define HASH_FUNCTION(key, n, hash) (hash) = (unsigned)id_hash((key), (n))
#include <uthash.h>

#endif
