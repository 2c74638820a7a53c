/* How records are laid out, as tables: what agent_read.c and agent_write.c go by. */
#ifndef STARLING_AGENT_LAYOUT_H
#define STARLING_AGENT_LAYOUT_H

#include "agent.h"

enum agent_type {
    UINT,
    BOOL,
    TEXT,
    ARGS,
    BODY,
    ROOMS,
    ROOMS_OR_ALL,
    NAMESPACES,
    EVENTS,
    BINS,
    PEERS,
    CONFIRM,
    LIFE,
    STICKY
};

/* The item's greatest length, for lists of texts. */
#define ITEM_BYTES 256

struct agent_layout_field {
    const char *key;
    uint32_t least, most;
    uint32_t at, count_at; /* in struct agent_record */
    uint8_t key_n;
    uint8_t type;
};

extern const struct agent_layout_field agent_fields[AGENT_FIELDS];

#define AGENT_MAX_ELEMENTS 7
#define AGENT_MAX_OPTIONS  16

enum { FROM_AGENT = 1, FROM_NODE = 2, FROM_BOTH = 3 };

/* What a kind of record has; lists end with NONE. */
struct agent_layout {
    uint8_t from;
    uint8_t elements[AGENT_MAX_ELEMENTS];
    uint8_t options[AGENT_MAX_OPTIONS];
};

#define NONE 0

/* NULL: there is no such kind. */
const struct agent_layout *agent_layout_of(uint64_t kind);

/* Those of CONFIRM, LIFE and STICKY; each list ends with NULL. */
extern const char *const agent_confirm_words[], *const agent_life_words[], *const agent_sticky_words[];

static inline struct span *text_at(const struct agent_record *r, const struct agent_layout_field *f)
{
    return (struct span *)((char *)r + f->at);
}

static inline uint64_t *uint_at(const struct agent_record *r, const struct agent_layout_field *f)
{
    return (uint64_t *)((char *)r + f->at);
}

static inline bool *bool_at(const struct agent_record *r, const struct agent_layout_field *f)
{
    return (bool *)((char *)r + f->at);
}

static inline unsigned *count_at(const struct agent_record *r, const struct agent_layout_field *f)
{
    return (unsigned *)((char *)r + f->count_at);
}

#endif
