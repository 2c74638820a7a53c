/* Identifiers that nobody can guess: 20 base64url characters, the first four of which are the origin's tag
 * (3 bytes) and the rest 12 random bytes. */
#ifndef STARLING_ID_H
#define STARLING_ID_H

#include <stddef.h>
#include <stdint.h>

#define ID_CHARS 20

struct id_source {
    uint8_t tag[3];
    uint8_t pool[1020]; /* random bytes, drawn many at a time */
    size_t left;
};

/* tag: 24 bits that tell this origin from others. */
void id_source_init(struct id_source *ids, uint32_t tag);
void id_new(struct id_source *ids, char out[ID_CHARS]);
uint64_t id_random_u64(struct id_source *ids);

/* The public id that belongs to a private one: whoever knows the private one can tell it, not the other way round. */
void id_public(const char private_id[ID_CHARS], char out[ID_CHARS]);

/* Keyed hash for tables whose keys a remote chooses (SipHash-1-3). */
uint64_t id_hash(const void *key, size_t n);

#endif
