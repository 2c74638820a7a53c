/* What nodes say to each other: messages of records, in msgpack. Pure functions. See mesh.md. */
#ifndef STARLING_MESH_H
#define STARLING_MESH_H

#include "limit.h"
#include "span.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

/* Raised when a record's meaning changes; a node speaks with MESH_VERSION - 1 too. Records of unknown kinds, and
 * elements behind those that are known, are skipped, so most additions need no new version. Version 1 does not know
 * MESH_SET, and that kinds below MESH_HEARTBEAT have numbers whatever they are. */
#define MESH_VERSION 2

#define MESH_NAME_BYTES     64
#define MESH_ENDPOINT_BYTES 128
#define MESH_KEY_BYTES      129

/* One start of one node. */
struct mesh_origin {
    uint32_t tag;  /* 24 bits, the start of its ids */
    uint64_t boot; /* tells starts of the same tag apart */
};

/* The beginning of each message. */
struct mesh_head {
    unsigned version;
    struct span cluster;       /* another cluster's messages are ignored */
    struct mesh_origin origin; /* who sends it */
};

enum mesh_kind {
    /* Numbered: part of the origin's sequence, kept in rings, repaired. */
    MESH_EMIT = 1,
    MESH_ENTER = 2, /* a socket has connected to a namespace */
    MESH_EXIT = 3,  /* it is gone from it, and from all rooms */
    MESH_JOIN = 4,  /* it is in these rooms now, too */
    MESH_PART = 5,  /* and not in these any more */
    MESH_SET = 6,   /* the value of a key of this origin, from now on; part of the snapshot of presence */
    /* Not numbered. */
    MESH_HEARTBEAT = 16,
    MESH_NOTE = 17, /* to all, and nobody asks for it again */
    /* Between two peers. */
    MESH_HELLO = 32,        /* who I am, where to hear me */
    MESH_REPAIR = 33,       /* send me these numbers of an origin */
    MESH_REPAIRED = 34,     /* here are some, behind this in the same message, and what I do not have */
    MESH_ASK_PRESENCE = 35, /* send me who is with you */
    MESH_PRESENCE = 36,     /* one part of it: ENTER, JOIN and SET with number 0 follow in the same message */
    MESH_PEERS = 37,        /* whom else I know */
    MESH_TELL = 40,         /* what one part of a node says to the same part of another one */
};

/* Whose a SET, NOTE or TELL is. */
enum mesh_topic {
    MESH_TOPIC_SESSIONS = 1,  /* session directory, requests and sessions that move */
    MESH_TOPIC_AGENTS = 2,    /* registrations, calls and answers of agents */
    MESH_TOPIC_STATUS = 3,    /* what a node says of itself each second */
    MESH_TOPIC_RELAY = 4,     /* connections whose session is on another host: relay.md */
    MESH_TOPIC_ACKS = 5,      /* acknowledgements that one emit collects over all nodes */
    MESH_TOPIC_DASHBOARD = 6, /* what pages of the dashboard ask of all nodes */
    MESH_TOPIC_MACHINES =
        7, /* what machines say of themselves, from the node that their agent talks to: machine.md */
    MESH_TOPICS
};

struct mesh_emit {
    struct span nsp;
    unsigned n_to, n_except, n_attachments;
    bool is_volatile;
    struct span event, args;         /* raw JSON, as the hub has it */
    struct span skip;                /* sid of the sender, who does not get it, or empty */
    struct mesh_origin after_origin; /* to be held until its number after_seq has come; tag 0: nothing */
    uint64_t after_seq;
    struct span key; /* an emit that has the same is the same one again; or empty */
    uint64_t ack_ms; /* each receiver is asked for an acknowledgement, for so long; 0: none is */
    struct span to[LIMIT_ROOMS_PER_CALL], except[LIMIT_ROOMS_PER_CALL];
    struct span attachments[LIMIT_ATTACHMENTS];
};

/* ENTER, EXIT: without rooms. */
struct mesh_presence {
    struct span nsp, sid;
    uint64_t epoch;   /* of ENTER: how often the session has changed its node */
    struct span user; /* of ENTER: raw JSON, or empty */
    unsigned n_rooms;
    struct span rooms[LIMIT_ROOMS_PER_CALL];
};

/* What a node has received of an origin without a hole. */
struct mesh_heard {
    struct mesh_origin origin;
    uint64_t seq;
    uint64_t silent_ms; /* since it was heard last; at least 1; 0: it never was, only records of it came */
};

struct mesh_heartbeat {
    uint64_t newest;  /* own number */
    uint64_t sent_us; /* own clock, for the delay of links */
    bool ready, draining;
    unsigned n_heard;
    struct mesh_heard heard[LIMIT_OFFSET_ORIGINS];
};

struct mesh_hello {
    struct span name, pub, router; /* endpoints as other hosts reach them */
    struct span host;              /* nodes of one host have the same */
    uint64_t newest;
    struct span asked; /* the router endpoint that the hello is sent to, or that the answered one was */
    bool answer;       /* this is the answer to a hello */
};

/* REPAIR, REPAIRED: from..to of origin; REPAIRED: what of it the sender does not have any more, gone_to 0: it has all. */
struct mesh_repair {
    struct mesh_origin origin;
    uint64_t from, to;
    uint64_t gone_to; /* numbers up to this one are gone */
};

struct mesh_presence_part {
    uint64_t as_of; /* the origin's number that this snapshot includes */
    bool first, last;
    uint32_t number; /* of the part, from 0 */
};

struct mesh_peers {
    unsigned n;
    struct mesh_endpoints {
        struct span pub, router;
    } peer[LIMIT_OFFSET_ORIGINS];
};

/* SET: empty bytes remove the key. NOTE, TELL: without a key. */
struct mesh_message {
    unsigned topic; /* 0 when read: one that is not known */
    struct span key, bytes;
};

struct mesh_record {
    enum mesh_kind kind; /* below MESH_HEARTBEAT it may be an unknown one: then only seq and raw are filled */
    uint64_t seq;        /* of numbered kinds */
    struct span raw;     /* the record's own bytes: what rings keep and repairs send */
    union {
        struct mesh_emit emit;
        struct mesh_presence presence;
        struct mesh_heartbeat heartbeat;
        struct mesh_hello hello;
        struct mesh_repair repair;
        struct mesh_presence_part part;
        struct mesh_peers peers;
        struct mesh_message message;
    };
};

/* ---- writing: appends to a buffer; 0 or ERR_MEMORY ---- */

int mesh_write_head(msgpack_sbuffer *b, const struct mesh_head *head);
/* record->raw is ignored. */
int mesh_write(msgpack_sbuffer *b, const struct mesh_record *record);
/* A record's own bytes, as mesh_read() gave them, for a message whose head has this version. In version 1 an empty PART
 * with the same number follows what that version does not know, so that its readers count on. */
int mesh_write_as(msgpack_sbuffer *b, unsigned version, struct span raw);

/* ---- reading: spans point into the message ---- */

struct mesh_reader {
    const char *p, *end;
};

/* 0, or ERR_MESH when this is no message of the mesh, or ERR_VERSION. */
int mesh_read_head(struct mesh_reader *r, struct span message, struct mesh_head *head);
/* 1: *record is filled; 0: the end; ERR_MESH: broken from here on. Unknown kinds without a number are skipped. */
int mesh_read(struct mesh_reader *r, struct mesh_record *record);

#endif
