#include "id.h"
#include "base64.h"
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void random_bytes(void *dst, size_t n)
{
    uint8_t *p = dst;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0)
            continue; /* EINTR: there is no other failure once the kernel's pool is up */
        p += got;
        n -= (size_t)got;
    }
}

static void draw(struct id_source *ids, void *dst, size_t n)
{
    if (ids->left < n) {
        random_bytes(ids->pool, sizeof(ids->pool));
        ids->left = sizeof(ids->pool);
    }
    uint8_t *from = ids->pool + ids->left - n;
    memcpy(dst, from, n);
    memset(from, 0, n); /* what was given out must not be found in memory later */
    ids->left -= n;
}

void id_source_init(struct id_source *ids, uint32_t tag)
{
    memset(ids, 0, sizeof(*ids));
    ids->tag[0] = (uint8_t)(tag >> 16);
    ids->tag[1] = (uint8_t)(tag >> 8);
    ids->tag[2] = (uint8_t)tag;
}

void id_new(struct id_source *ids, char out[ID_CHARS])
{
    uint8_t raw[15];
    memcpy(raw, ids->tag, sizeof(ids->tag));
    draw(ids, raw + sizeof(ids->tag), sizeof(raw) - sizeof(ids->tag));
    base64_encode_url(out, raw, sizeof(raw));
}

void id_public(const char private_id[ID_CHARS], char out[ID_CHARS])
{
    uint8_t sum[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)private_id, ID_CHARS, sum);
    memcpy(out, private_id, 4); /* the origin's tag */
    base64_encode_url(out + 4, sum, 12);
}

uint64_t id_random_u64(struct id_source *ids)
{
    uint64_t v;
    draw(ids, &v, sizeof(v));
    return v;
}

static uint64_t hash_key[2];

/* Before main(), so that a hash, of which an emit takes a dozen, need not ask whether there is a key. */
__attribute__((constructor)) static void make_hash_key(void)
{
    random_bytes(hash_key, sizeof(hash_key));
}

static inline uint64_t rotl(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t id_hash(const void *key, size_t n)
{
    const uint8_t *p = key;
    uint64_t v[4] = {hash_key[0] ^ 0x736f6d6570736575u, hash_key[1] ^ 0x646f72616e646f6du,
                     hash_key[0] ^ 0x6c7967656e657261u, hash_key[1] ^ 0x7465646279746573u};
    size_t left = n;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    uint64_t last = (uint64_t)n << 56;
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)p[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
