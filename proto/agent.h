/* What agents and nodes say to each other: messages of records, in msgpack. Pure functions. See agent.md.
 * One table (agent_field.def) says what each value is, one (in agent.c) which values each kind of record has;
 * reading and writing walk them. */
#ifndef STARLING_AGENT_H
#define STARLING_AGENT_H

#include "limit.h"
#include "span.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

#define AGENT_VERSION 1

/* A message ends here, unless its only record is longer. */
#define AGENT_BATCH_BYTES 65536

#define AGENT_NAME_BYTES     64
#define AGENT_CODE_BYTES     64
#define AGENT_KEY_BYTES      64
#define AGENT_ABOUT_BYTES    256
#define AGENT_TEXT_BYTES     1024
#define AGENT_EMIT_ID_BYTES  128
#define AGENT_ENDPOINT_BYTES 128
#define AGENT_PEERS          64
#define AGENT_ENDPOINTS      4

enum agent_kind {
    AGENT_HELLO = 1,
    AGENT_WELCOME = 2,
    AGENT_CREDIT = 3,
    AGENT_NODE = 4,
    AGENT_BYE = 5,
    AGENT_ERROR = 6,
    AGENT_OK = 7,
    /* from agents */
    AGENT_EMIT = 16,
    AGENT_SUBSCRIBE = 17,
    AGENT_HANDLE = 18,
    AGENT_REGISTER = 19,
    AGENT_WATCH = 20,
    AGENT_UNDO = 21,
    AGENT_JOIN = 24,
    AGENT_LEAVE = 25,
    AGENT_DISCONNECT = 26,
    AGENT_MEMBERS = 27,
    AGENT_SET = 28,
    AGENT_TELL = 32,
    AGENT_ASK = 33,
    /* from nodes */
    AGENT_EVENT = 64,
    AGENT_LOST = 65,
    AGENT_CALL = 66,
    AGENT_CONNECT = 67,
    AGENT_DISCONNECTED = 68,
    AGENT_JOINED = 69,
    AGENT_LEFT = 70,
    AGENT_CANCEL = 71,
    AGENT_TOLD = 72,
    AGENT_ASKED = 73,
    AGENT_GONE = 74,
    AGENT_BACK = 75,
    AGENT_ANSWER = 76,
    AGENT_MEMBER = 77,
    AGENT_RECOVERED = 78,
};

enum agent_field {
#define OPTION(name, member, type, least, most, key) AGENT_F_##name,
#include "agent_field.def"
    AGENT_OPTIONS,
    AGENT_F_BEFORE_ELEMENTS = AGENT_OPTIONS - 1,
#define ELEMENT(name, member, type, least, most, key) AGENT_F_##name,
#include "agent_field.def"
    AGENT_FIELDS
};

enum agent_code {
#define X(name, code, text) AGENT_E_##name,
#include "agent_code.def"
#undef X
    AGENT_CODES
};

enum agent_confirm { AGENT_CONFIRM_NONE, AGENT_CONFIRM_MESH, AGENT_CONFIRM_MIRROR };

/* Bits of life. */
enum agent_life {
    AGENT_LIFE_CONNECT = 1,
    AGENT_LIFE_DISCONNECT = 2,
    AGENT_LIFE_JOIN = 4,
    AGENT_LIFE_LEAVE = 8,
};

/* Another node. */
struct agent_peer {
    struct span name;
    unsigned n_endpoints;
    struct span endpoints[AGENT_ENDPOINTS];
};

/* Any record: only the values of its kind mean something. Large; made to be used again and again. Lists are behind
 * their counts, so that preparing one touches nothing but what stands before them. */
struct agent_record {
    enum agent_kind kind;
    uint64_t has;    /* options that are there, as bits; see agent_has() */
    struct span raw; /* the record's own bytes, when it was read */
    const char
        *wrong; /* when it could not be read: the element or option that is wrong; a literal, or NULL */

    uint64_t id, reg, version, credit, count, expected, answered, dropped, limit;
    uint64_t ack_ms, deadline_ms, heartbeat_ms, retry_ms, time_ms, timeout_ms, window_ms;
    uint64_t max_calls, max_deadline_ms, max_registrations, message_bytes;
    bool ack, again, alive, close, draining, is_volatile, observe, recovered, repeated, replayed, shared;
    bool body_is_bin;
    bool sticky; /* key: session */
    enum agent_confirm confirm;
    unsigned life; /* bits of enum agent_life */

    struct span about, address, auth, body, cluster, code, data, emit, from, group, instance, key, name, node,
        nsp, offset, origin, reason, remote, sid, text, user;
    struct span event; /* plain, without JSON's quotes */
    /* JSON items without the brackets of their array and without blanks around them, as the hub has them; n == 0: none.
     * Who writes a record sets this one only. */
    struct span args;
    /* The same with its brackets, as it was read. */
    struct span args_array;

    unsigned n_to; /* 0: everybody */
    unsigned n_attachments, n_events, n_except, n_namespaces, n_peers, n_rooms;

    struct span to[LIMIT_ROOMS_PER_CALL]; /* also: who */
    struct span except[LIMIT_ROOMS_PER_CALL];
    struct span rooms[LIMIT_ROOMS_PER_SOCKET];
    struct span attachments[LIMIT_ATTACHMENTS];
    struct span events[LIMIT_AGENT_PATTERNS], namespaces[LIMIT_AGENT_PATTERNS];
    struct agent_peer peers[AGENT_PEERS];
};

/* An empty record of a kind, to be filled and written. */
void agent_init(struct agent_record *r, enum agent_kind kind);

/* Is this option there? When it is not, its value is 0, false, empty. */
static inline bool agent_has(const struct agent_record *r, enum agent_field option)
{
    return (r->has >> option & 1) != 0;
}

/* Says that this option is to be written; returns the record for its value to be set. */
static inline struct agent_record *agent_with(struct agent_record *r, enum agent_field option)
{
    r->has |= UINT64_C(1) << option;
    return r;
}

/* ---- writing ---- */

/* Takes the text of a JSON array (blanks around it do no harm) as args and args_array; "" is []. False: no array. */
bool agent_set_args(struct agent_record *r, struct span array);

/* May this record be written: are its texts and lists of the sizes that agent.md allows, and UTF-8? If not, r->wrong
 * says what is not. */
bool agent_fits(struct agent_record *r);

/* Appends a record that fits: its elements and those of its options that `has` names. Borrows all that it points to.
 * 0 or ERR_MEMORY. */
int agent_write(msgpack_sbuffer *b, const struct agent_record *r);

/* ---- reading: spans point into the message ---- */

struct agent_reader {
    const char *p, *end;
};

static inline struct agent_reader agent_open(struct span message)
{
    return (struct agent_reader){message.p, message.p + message.n};
}

/* 1: *r is filled. 0: the end.
 * ERR_AGENT: broken from here on, the reader stays where it is.
 * ERR_KIND, ERR_ARGUMENT, ERR_LIMIT: this record is of no known kind, or not laid out as its kind is, or holds too
 * much; kind and id are set as far as they could be read, r->wrong may name what is wrong; what follows it can be read.
 * Texts of good records are UTF-8; whether JSON is JSON see agent_check(). */
int agent_read(struct agent_reader *reader, struct agent_record *r);

/* What a node must know beyond the layout of a record from an agent: JSON is JSON and fits its attachments,
 * event names may be sent, patterns, namespaces and addresses are such. True, or false with *code and r->wrong. */
bool agent_check(struct agent_record *r, enum agent_code *code);

/* May an agent send this kind? Its second element is then an id (of HELLO and BYE: not). */
bool agent_from_agent(uint64_t kind);
/* May a node send it? */
bool agent_from_node(uint64_t kind);

const char *agent_code(enum agent_code code);
const char *agent_code_text(enum agent_code code);
/* AGENT_CODES when it is none of the table. */
enum agent_code agent_code_of(struct span code);

/* ---- patterns of event names ---- */

bool agent_pattern_valid(struct span pattern);
bool agent_pattern_fits(struct span pattern, struct span name);

#endif
