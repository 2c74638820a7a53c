/* One WebSocket client: opened, connected to "/", joined to its room; then its events go to the measurement.
 * Against the bare server the way is the same, with one byte in place of CONNECT and bus:join. At NATS CONNECT and PING
 * are answered by PONG, and a room is a subscription. */
#ifndef BENCH_SESSION_H
#define BENCH_SESSION_H

#include "loop.h"
#include "wire.h"

enum session_state {
    SESSION_CLOSED,
    SESSION_UPGRADING,  /* the request is sent */
    SESSION_OPENING,    /* 101 came */
    SESSION_CONNECTING, /* the open packet came, CONNECT is sent */
    SESSION_JOINING,    /* CONNECT is answered, bus:join is sent */
    SESSION_READY,
};

/* Roles at the bare server, sent as one byte. What A sends goes to B, and what B sends to A. */
enum bare_role { BARE_NONE = 0, BARE_MEMBER = 'M', BARE_PUBLISHER = 'P', BARE_A = 'A', BARE_B = 'B' };

#define SESSION_TAG 4

struct session;

struct session_events {
    void (*on_ready)(struct session *s); /* all steps are done; the session may be closed here */
    /* An event of ours and its number; everything else is dealt with here. */
    void (*on_event)(struct session *s, uint64_t seq, const char *text, size_t n);
    /* An acknowledgement, as it came; NULL: none is expected. */
    void (*on_acknowledged)(struct session *s, const char *text, size_t n);
    void (*after_read)(struct session *s); /* after all on_event of one read; it may open the session again */
};

struct session {
    struct io io;
    struct loop *loop;
    const struct session_events *events; /* each may be NULL but on_ready */
    void *context;
    const char *room; /* NULL: joins nothing */
    enum bare_role role;
    enum wire_dialect dialect;
    enum session_state state;
    uint32_t index;
    unsigned node; /* which port it connects to */
    uint64_t received;
    uint64_t opened_ns;
    char tag[SESSION_TAG + 1]; /* the sid's first characters; with Starling they name the node */
};

/* Connects and sends the upgrade request. The fields from loop to index are the caller's to fill. */
void session_open(struct session *s);
void session_close(struct session *s);
/* Sends what a wire_emitter wrote, once or several times. */
void session_send(struct session *s, const void *p, size_t n);

/* Opens count sessions, at most 64 of them at a time on their way; returns when all are ready, or dies.
 * Their on_ready must be NULL. */
void session_open_all(struct session *sessions, unsigned count);

#endif
