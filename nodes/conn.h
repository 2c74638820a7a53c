/* A TCP connection that the reactor owns: reading, bounded writing, one timer, an orderly end. What its bytes mean is
 * the business of its role (gate.c: HTTP; ws.c: WebSocket frames). Reactor's thread only. */
#ifndef STARLING_CONN_H
#define STARLING_CONN_H

#include "buffer.h"
#include "engine.h"
#include "http.h"
#include "outq.h"
#include "reactor.h"
#include "ws.h"

struct conn;
struct front;
struct address;

struct conn_role {
    const char *name;
    /* Bytes just read; may be changed in place, and are gone afterwards. */
    void (*on_input)(struct conn *c, uint8_t *p, size_t n);
    /* Everything in out has been written, after a time in which it could not. */
    void (*on_drained)(struct conn *c);
    /* The peer has said all it wants to say. True: it still gets an answer. NULL: it is gone. */
    bool (*on_eof)(struct conn *c);
    /* The peer is gone, or the connection broke. It is closed right after this. */
    void (*on_gone)(struct conn *c);
    void (*on_timeout)(struct conn *c);
    /* Frees what the role keeps in the connection. */
    void (*release)(struct conn *c);
};

struct conn {
    struct reactor_io io;
    struct front *front;
    const struct conn_role *role;
    void (*release)(struct conn *c); /* of the role; still due when the connection is only ending */
    uint32_t events;                 /* watched for; 0 and !is_watched: not in the reactor at all */
    bool is_watched;
    bool is_dead;
    bool is_busy;      /* HTTP: a request is being answered; what comes meanwhile is kept */
    bool resumes;      /* HTTP: what is kept is looked at when the timer fires, at once */
    bool keep_alive;   /* HTTP: after the answer under way */
    bool is_transport; /* has carried a Socket.IO transport: it does not go to civetweb for one again */
    bool base64;       /* WebSocket: of the request that made it one */
    bool close_sent;   /* WebSocket: a close frame is queued */
    bool in_line, line_ready, line_skip;
    uint8_t holds; /* who still refers to it besides the reactor: a visit to civetweb, the line */
    uint16_t port; /* the peer's, network order */
    uint32_t ip;
    struct timer timer;
    struct outq out;
    struct buffer in; /* input that is not used up */
    union {
        struct http_reader *reader; /* gate.c: NULL between requests */
        struct ws_reader ws;
    };
    struct session *session; /* whose polls or frames it carries */
    struct visit *visit;     /* an answer that is being made */
    struct tunnel *tunnel;   /* relay.c's: of a connection that it carries */
    uint64_t relayed;        /* relay.c's: number of the relay whose inner half this is; 0: of none */
    uint64_t since_ms;       /* accepted */
    int unsent;              /* ending: what was left in the kernel at the last look */
    struct address *address; /* while it counts as waiting */
    struct conn *address_prev, *address_next;
    struct conn *prev, *next; /* all of the front */
    struct conn *line_next;   /* requests to be handled in the order of arrival */
    struct conn *dead_next;
};

/* Takes fd. NULL without memory (fd is closed). */
struct conn *conn_new(struct front *front, int fd, uint32_t ip, uint16_t port, const struct conn_role *role);

void conn_set_role(struct conn *c, const struct conn_role *role);

/* Reads once and gives the bytes to the role. */
void conn_read(struct conn *c);

/* EPOLLIN, EPOLLOUT, both or 0. */
void conn_watch(struct conn *c, uint32_t events);

/* Forgets the first n bytes of what is kept. */
void conn_drop_input(struct conn *c, size_t n);

/* Queues bytes; conn_flush() writes them. 0 or ERR_MEMORY. */
int conn_put(struct conn *c, const void *p, size_t n);

/* Writes out, and then what is in more (may be NULL): 1 all written, 0 blocked (EPOLLOUT is watched for), < 0 broken. */
int conn_write(struct conn *c, struct outq *more);

/* conn_write() of out alone; a broken connection is closed. False when it is gone. */
bool conn_flush(struct conn *c);

void conn_timer(struct conn *c, uint32_t after_ms);

/* At once. The role is not told. */
void conn_close(struct conn *c);
/* At once and with a reset, so that the kernel keeps nothing for a peer that does not read. */
void conn_abort(struct conn *c);
/* After what is queued: writes it, says FIN, waits for the peer's for a short time. */
void conn_end(struct conn *c);
/* A closed connection keeps its memory while it is held. */
void conn_hold(struct conn *c);
void conn_unhold(struct conn *c);
/* The peer is gone: tells the role, then closes. */
void conn_gone(struct conn *c);

/* End of the turn: memory of closed connections. */
void conn_bury(struct front *front);

#endif
