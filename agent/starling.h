/* libstarling: take part in a Starling bus from a C program: emit, subscribe, handle what clients send, be an actor.
 * What things mean is said in proto/agent.md; this page says how to call them.
 *
 * Threads: an agent belongs to the thread that made it. That thread makes all calls, and all callbacks run in it, within
 * starling_dispatch(), starling_run() or a call that waits. Only starling_post() and starling_stop() may be called from
 * other threads. No thread of the library's own calls anything.
 *
 * Callbacks must be quick: heartbeats are sent by the same thread, and an agent that is silent for a second
 * is taken for dead. Long work belongs into another thread, which hands its result back by starling_post(): a call
 * may be answered long after its callback has returned.
 *
 * Connection: made and kept by the library. When the node is lost it connects to one of the peers that it was told
 * of, makes the registrations again (subscriptions go on where they were), and sends again what has an idempotency key
 * and no answer. All else that has no answer fails with the code "lost".
 *
 * Texts given to callbacks end with a NUL and live until the callback returns. Texts and arrays given to functions
 * are copied. JSON arguments are the text of an array, "[1,\"two\"]"; NULL stands for none. */
#ifndef STARLING_STARLING_H
#define STARLING_STARLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STARLING_API __attribute__((visibility("default")))

struct starling;

/* What functions return when they fail: negative. Errors of the protocol have codes of their own, which are texts and come
 * in struct starling_answer. */
enum starling_error {
    STARLING_OK = 0,
    STARLING_ARGUMENT = -1, /* an argument is missing, too long, or not UTF-8 */
    STARLING_MEMORY = -2,
    STARLING_FULL = -3,    /* queue_bytes are waiting: starling_flush(), or less */
    STARLING_TIMEOUT = -4, /* of a call that waits */
    STARLING_INSIDE = -5,  /* a call that waits, made within a callback */
    STARLING_STALE = -6,   /* what is to be answered came over a connection that is no more: nobody waits */
    STARLING_REFUSED = -7, /* the answer is an error: see its code */
    STARLING_SYSTEM = -8,  /* errno says more */
    STARLING_STOPPED = -9, /* starling_stop() has been called */
};

STARLING_API const char *starling_strerror(int error);

/* ---- making one ---- */

enum starling_state {
    STARLING_CONNECTED, /* node says to which; registrations are being made again */
    STARLING_LOST,      /* code and text say why; trying others */
    STARLING_DRAINING,  /* the node is about to end; the library moves to another */
};

struct starling_options {
    const char *name;      /* of this program, as people know it; needed */
    const char *endpoints; /* nodes, "tcp://127.0.0.1:7800,ipc:///run/starling/agents-1"; needed */
    const char *about;     /* for people: version, purpose */
    size_t queue_bytes;    /* of requests that wait or have no answer; 0: 16 MiB */
    size_t window_bytes;   /* that the node may have under way to us; 0: 1 MiB */
    uint32_t timeout_ms;   /* after which a request without an answer fails with "deadline"; 0: 30 s */
    void *user;            /* for the callbacks below, which may be NULL */
    void (*on_state)(void *user, enum starling_state state, const char *node, const char *code,
                     const char *text);
    /* An error that belongs to no request. */
    void (*on_error)(void *user, const char *code, const char *text);
};

/* Begins to connect. NULL with errno: EINVAL, ENOMEM, EMFILE. Borrows nothing. */
STARLING_API struct starling *starling_new(const struct starling_options *options);
/* Says BYE. Requests without an answer are dropped without their callbacks. Not within a callback. */
STARLING_API void starling_free(struct starling **s);

/* ---- one's own event loop ---- */

/* Readable when starling_dispatch() has something to do. The same one for the agent's whole life. */
STARLING_API int starling_fd(const struct starling *s);
/* How long to wait for it at most, milliseconds: starling_dispatch() is due then in any case. */
STARLING_API int starling_timeout_ms(const struct starling *s);
/* Does what there is to do and returns; 0, or STARLING_STOPPED. */
STARLING_API int starling_dispatch(struct starling *s);

/* ---- or this one ---- */

/* Until starling_stop(): 0. */
STARLING_API int starling_run(struct starling *s);
/* From any thread, and from signal handlers. For good: an agent that has been stopped can only be freed. */
STARLING_API void starling_stop(struct starling *s);
/* From any thread: calls run(user) in the agent's thread, in the order of these calls. */
STARLING_API int starling_post(struct starling *s, void (*run)(void *user), void *user);

/* ---- calls that wait ----
 * Callbacks run meanwhile. timeout_ms -1: however long it takes. */

/* Until there is a connection. */
STARLING_API int starling_connect(struct starling *s, int timeout_ms);
/* Until all that was asked for has been sent and answered. */
STARLING_API int starling_flush(struct starling *s, int timeout_ms);

/* ---- answers ---- */

struct starling_bytes {
    const void *data;
    size_t n;
};

/* The answer to a request. What the request's kind does not have is 0 or "". */
struct starling_answer {
    const char
        *code; /* NULL: it was carried out. Codes of agent.md, of other agents, or "lost", "deadline" */
    const char *text, *data; /* of an error: for people; JSON or "" */
    uint32_t retry_ms;
    const char *emit; /* "<origin>:<number>" */
    bool repeated;    /* the key was known: emitted once, and not now */
    uint64_t expected, answered, dropped, count;
    const char *offset;
    bool recovered, alive;
    const char *body; /* of a reply; a NUL stands behind its n bytes */
    size_t body_n;
    bool body_is_bin;
};

typedef void starling_done(void *user, const struct starling_answer *answer);

/* Where an answer goes: done(user, …) is called exactly once, unless the agent is freed before. Functions
 * that take one, or NULL, return 0 or an error; after an error done is not called. */
struct starling_then {
    starling_done *done;
    void *user;
};

/* Given as `then`: the answer is waited for with starling_wait(), which comes next. */
STARLING_API extern const struct starling_then starling_waited;
#define STARLING_WAITED (&starling_waited)

/* Waits for the request that was made last with STARLING_WAITED:
 *
 *     starling_ask(s, "clock", body, false, 500, STARLING_WAITED);
 *     if (starling_wait(s, 1000, &answer) == STARLING_OK)
 *         puts(answer->body);
 *
 * STARLING_OK, STARLING_REFUSED (answer->code says why), the error that the request itself returned, STARLING_TIMEOUT (an answer that
 * comes later is dropped). answer may be NULL; *answer is good until the next wait, NULL where there is none. */
STARLING_API int starling_wait(struct starling *s, int timeout_ms, const struct starling_answer **answer);

/* ---- emit ---- */

enum starling_confirm { STARLING_CONFIRM_NONE, STARLING_CONFIRM_MESH, STARLING_CONFIRM_MIRROR };

/* An acknowledgement of one receiver. */
typedef void starling_ack(void *user, const char *sid, const char *args,
                          const struct starling_bytes *attachments, size_t n_attachments);

struct starling_emit {
    const char *nsp;          /* NULL: "/" */
    const char *const *rooms; /* ends with NULL; NULL: the whole namespace */
    const char *const *except;
    const char *event; /* needed */
    const char *args;
    const struct starling_bytes *attachments;
    size_t n_attachments;
    bool is_volatile;
    enum starling_confirm confirm;
    const char *key; /* NULL: one is made when the emit is confirmed or then.done is given */
    bool again;      /* this emit may have been made before under its key, by whoever: the node makes sure */
    uint32_t ack_ms; /* collect acknowledgements that long: on_ack for each, then done */
    starling_ack *on_ack;
    void *ack_user;
};

/* Without `then`, key, confirm and ack_ms: sent and forgotten; lost when the node is lost before it has read it. */
STARLING_API int starling_emit(struct starling *s, const struct starling_emit *e,
                               const struct starling_then *then);

/* ---- subscribe ---- */

struct starling_event {
    uint64_t registration;
    const char *nsp, *event, *args;
    const char *const *rooms; /* ends with NULL; none: the whole namespace */
    size_t n_rooms;
    const struct starling_bytes *attachments;
    size_t n_attachments;
    const char *emit, *offset;
    bool is_volatile, replayed;
};

/* Lists end with NULL; NULL: "/", every room, every event. */
struct starling_subscribe {
    const char *const *namespaces, *const *rooms, *const *events;
    const char *from; /* an offset, or NULL */
    void *user;
    void (*on_event)(void *user, const struct starling_event *e); /* needed */
    /* Events are missing here: count, 0 when that is not known. Also after a reconnection that could not catch up. */
    void (*on_lost)(void *user, uint64_t count);
    /* In force, each time after a connection was made; or refused or ended for good, with a code. */
    starling_done *on_made;
};

/* Registrations are numbers; a negative one is an error. */
STARLING_API int64_t starling_subscribe(struct starling *s, const struct starling_subscribe *o);

/* ---- handle ---- */

/* What is to be answered. A value: copy it to answer later. */
struct starling_ref {
    uint64_t connection, id;
};

struct starling_call {
    struct starling_ref ref;
    uint64_t registration;
    const char *nsp, *sid, *event, *args;
    const char *user; /* JSON that an agent has set, or "" */
    const struct starling_bytes *attachments;
    size_t n_attachments;
    bool ack; /* the client waits for an acknowledgement */
    uint32_t deadline_ms;
};

struct starling_client {
    struct starling_ref ref; /* of on_connect */
    uint64_t registration;
    const char *nsp, *sid;
    const char *user;         /* JSON or ""; not of on_connect */
    const char *auth;         /* JSON, on_connect */
    const char *remote;       /* on_connect */
    const char *reason;       /* on_disconnect */
    const char *const *rooms; /* on_join, on_leave, on_recover; ends with NULL */
    size_t n_rooms;
    uint32_t deadline_ms;
};

struct starling_handle {
    const char *const *namespaces, *const *events;
    const char *group; /* NULL: the agent's name */
    bool by_session;   /* what comes from one session goes to the same member */
    bool observe;
    uint32_t deadline_ms; /* 0: 5 s */
    uint32_t limit;       /* calls without an answer; 0: none */
    void *user;
    void (*on_call)(
        void *user,
        const struct starling_call *c); /* needed with events: starling_reply() or starling_fail() */
    /* Those that are given are what the registration asks for. on_connect: starling_accept() or starling_fail(). */
    void (*on_connect)(void *user, const struct starling_client *c);
    void (*on_disconnect)(void *user, const struct starling_client *c);
    void (*on_join)(void *user, const struct starling_client *c);
    void (*on_leave)(void *user, const struct starling_client *c);
    /* With on_disconnect: a client that was disconnected is there again, as the same session. May be NULL. */
    void (*on_recover)(void *user, const struct starling_client *c);
    /* Nobody wants the answer any more. */
    void (*on_cancel)(void *user, struct starling_ref ref);
    starling_done *on_made;
};

STARLING_API int64_t starling_handle(struct starling *s, const struct starling_handle *o);

/* Answers to calls; each is answered once, by one of these. */
STARLING_API int starling_reply(struct starling *s, struct starling_ref ref, const char *args,
                                const struct starling_bytes *attachments, size_t n_attachments);
/* Lets a client in. user, data: JSON; NULL: no user, data, rooms. */
STARLING_API int starling_accept(struct starling *s, struct starling_ref ref, const char *user,
                                 const char *data, const char *const *rooms);
/* Also of asks. data: JSON or NULL. */
STARLING_API int starling_fail(struct starling *s, struct starling_ref ref, const char *code,
                               const char *text, const char *data);

/* ---- act on sessions: who are rooms or sids, ending with NULL; NULL: the whole namespace ---- */

STARLING_API int starling_join(struct starling *s, const char *nsp, const char *const *who,
                               const char *const *rooms, const struct starling_then *then);
STARLING_API int starling_leave(struct starling *s, const char *nsp, const char *const *who,
                                const char *const *rooms, const struct starling_then *then);
/* close: their whole connection, not only this namespace. */
STARLING_API int starling_disconnect(struct starling *s, const char *nsp, const char *const *who, bool close,
                                     const struct starling_then *then);
/* user, data: JSON; NULL leaves it as it is. */
STARLING_API int starling_set(struct starling *s, const char *nsp, const char *const *who, const char *user,
                              const char *data, const struct starling_then *then);

struct starling_member {
    const char *sid, *node, *user, *data;
    const char *const *rooms;
    size_t n_rooms;
};

/* on_member for each, then done. */
STARLING_API int starling_members(struct starling *s, const char *nsp, const char *const *who, uint32_t limit,
                                  void (*on_member)(void *user, const struct starling_member *m),
                                  void *member_user, const struct starling_then *then);

/* ---- actors ---- */

struct starling_message {
    struct starling_ref ref; /* of on_ask */
    uint64_t registration;
    const char *from; /* the agent's name */
    const char *body; /* a NUL stands behind its n bytes */
    size_t n;
    bool is_bin;
    uint32_t deadline_ms;
};

struct starling_actor {
    const char *address; /* needed */
    bool shared;
    void *user;
    void (*on_tell)(void *user, const struct starling_message *m);
    void (*on_ask)(void *user,
                   const struct starling_message *m); /* starling_reply_body() or starling_fail() */
    void (*on_cancel)(void *user, struct starling_ref ref);
    starling_done *on_made;
};

STARLING_API int64_t starling_register(struct starling *s, const struct starling_actor *o);
STARLING_API int starling_reply_body(struct starling *s, struct starling_ref ref, struct starling_bytes body,
                                     bool is_bin);
STARLING_API int starling_tell(struct starling *s, const char *address, struct starling_bytes body,
                               bool is_bin, const struct starling_then *then);
/* deadline_ms 0: 5 s. */
STARLING_API int starling_ask(struct starling *s, const char *address, struct starling_bytes body,
                              bool is_bin, uint32_t deadline_ms, const struct starling_then *then);

/* alive: somebody has that address; reason when not: "ended", "died", "node", or "" at the beginning. Called once it is known and
 * with each change. */
STARLING_API int64_t starling_watch(struct starling *s, const char *address,
                                    void (*on_change)(void *user, bool alive, const char *reason),
                                    void *user);

/* Ends a registration: nothing more comes of it. */
STARLING_API int starling_undo(struct starling *s, int64_t registration);

#ifdef __cplusplus
}
#endif

#endif
