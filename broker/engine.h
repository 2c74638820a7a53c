/* Engine.IO sessions: open, heartbeat, packets, close; the queue of what goes to the client. What carries the bytes
 * (nodes/ws.c, nodes/poll.c, sinks in tests) hangs below as a transport, what the messages mean hangs above as an
 * application (Socket.IO in client.c, an echo in tests). Reactor's thread only. */
#ifndef STARLING_ENGINE_H
#define STARLING_ENGINE_H

#include "bytes.h"
#include "eio.h"
#include "id.h"
#include "metrics.h"
#include "outq.h"
#include "reactor.h"
#include "table.h"
#include "ws.h"

enum close_reason {
#define X(name, text, metric) CLOSE_##name,
#include "close_reason.def"
#undef X
};

const char *close_reason_text(enum close_reason reason);

struct session;

/* What carries a session's packets. Called by the engine only. */
struct transport {
    enum eio_transport kind;
    /* Something is in session->out: take what can be taken. Failures end the session by session_close_soon(). */
    void (*flush)(struct session *s);
    /* True when a message pushed now would be written at once (volatile messages are dropped otherwise). */
    bool (*writable)(const struct session *s);
    /* Reads the client again that was not read while the engine was congested. NULL: it reads always. */
    void (*resume)(struct session *s);
    /* The session has ended. The transport lets go of it now or later by engine_forget(). */
    void (*close)(struct session *s, enum close_reason reason);
};

/* What the messages mean. From inside of these a session is ended with session_close_soon(). */
struct engine_app {
    int (*on_open)(struct session *s); /* < 0: closed at once */
    /* < 0: the message breaks the protocol; the session is closed as a parse error. */
    int (*on_text)(struct session *s, struct span text);
    int (*on_binary)(struct session *s, struct span data);
    void (*on_close)(struct session *s, enum close_reason reason);
    void (*on_ping)(struct session *s); /* one goes out now; may be NULL */
};

struct engine_options {
    uint32_t ping_interval_ms, ping_timeout_ms, upgrade_timeout_ms, poll_grace_ms;
    uint32_t max_payload_bytes;
    uint32_t queue_bytes, queue_messages; /* per client */
    bool polling, websocket;
};

struct engine {
    struct reactor *reactor;
    struct metrics *metrics;
    struct engine_options options;
    const struct engine_app *app;
    void *app_data;
    struct id_source ids;
    struct bytes bytes;
    struct session *sessions; /* by sid */
    struct session *dirty, **dirty_end;
    struct session
        *dead; /* freed at the end of the turn, so that callers up the stack may still look at them */
    struct reactor_task flush_task;
    bool shutting_down;
    bool congested; /* emits wait for their turn: who emits more is not read until they have had it */
};

enum session_state {
    SESSION_OPEN,
    SESSION_CLOSING, /* ended for the application; the transport still has to say so to the client */
    SESSION_DEAD,
};

struct session {
    /* What every delivery touches comes first. */
    struct engine *engine;
    const struct transport *transport;
    uint8_t state;
    bool is_dirty;
    bool is_blocked;    /* the transport could not write everything; it will flush by itself */
    bool is_doomed;     /* to be closed at the end of the turn; nothing is accepted any more */
    uint8_t end_reason; /* enum close_reason, once doomed or closed */
    bool awaits_pong;
    bool base64; /* binary goes out as text */
    bool recovery_off;
    bool emits;     /* has sent an emit since the engine was last congested */
    bool is_paused;   /* not read now */
    bool is_arriving; /* from another node: not read yet */
    struct outq out;
    struct session *dirty_next, *dead_next;
    void *link;      /* of the transport */
    void *candidate; /* of the upgrade: the connection that probes, or NULL */
    void *app;       /* of the application */
    struct timer heartbeat;
    char sid[ID_CHARS];
    uint32_t peer_ip; /* IPv4, network order, or 0 */
    uint32_t received, sent; /* messages, for those who look at it */
    uint64_t opened_ms;
    UT_hash_handle hh;
};

/* Borrows everything. tag: of this origin. */
struct engine *engine_new(struct reactor *r, struct metrics *m, const struct engine_options *o,
                          const struct engine_app *app, void *app_data, uint32_t tag);
/* No session may be left. */
void engine_free(struct engine **e);

/* Ends every session; their transports forget them when the clients have been told. */
void engine_shutdown(struct engine *e);
/* Ends up to n open sessions as a shutdown does; the others go on. True when there are more. */
bool engine_end_some(struct engine *e, unsigned n);
unsigned engine_count(const struct engine *e);

/* A new session with its open packet queued; NULL without memory. The application has been told. */
struct session *engine_open(struct engine *e, const struct transport *transport, void *link, bool base64);

/* A session that was on another node up to now, under the sid that it has: as after engine_open(), but the client is
 * told nothing. NULL without memory, or when there is one with this sid. */
struct session *engine_adopt(struct engine *e, const struct transport *transport, void *link,
                             const char sid[ID_CHARS]);

/* NULL when there is none with this sid, or when its pong is overdue (it is closed then). */
struct session *engine_find(struct engine *e, struct span sid);

/* The transport has no more use for a closed session; freed at the end of the turn. */
void engine_forget(struct session *s);

/* From a transport: one packet, or one binary message, of the client. The session may be closed afterwards. */
void session_receive(struct session *s, const struct eio_packet *packet);
void session_receive_binary(struct session *s, struct span data);

/* From a transport: the upgrade is complete. What is queued goes out on the new one. */
void session_switch_transport(struct session *s, const struct transport *transport, void *link);

/* Queues encoded frames (messages of them). Volatile ones are dropped, and counted, when the client is not
 * writable. A client whose queue is full is closed as slow. Takes a reference of its own. True when it is
 * queued. */
bool session_push(struct session *s, const struct slice *frames, uint32_t messages, bool is_volatile);

/* A text message of head and body, without the '4', encoded and queued. */
void session_send(struct session *s, struct span head, struct span body);

/* At once: for transports that have just read, and timers. The application is told before this returns. */
void session_close(struct session *s, enum close_reason reason);
/* At the end of the turn, after what is queued: safe anywhere. */
void session_close_soon(struct session *s, enum close_reason reason);
static inline bool session_is_open(const struct session *s)
{
    return s->state == SESSION_OPEN && !s->is_doomed;
}

/* Emits pile up, or do not any more. */
void engine_set_congested(struct engine *e, bool congested);

/* Asks for a flush at the end of the turn. */
void session_mark_dirty(struct session *s);

/* One frame with head in front of the payload; the caller fills payload_n bytes at the returned pointer. */
int engine_frame_alloc(struct engine *e, enum ws_opcode opcode, size_t payload_n, struct slice *out,
                       uint8_t **payload);

#endif
