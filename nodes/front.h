/* The front door of a node: listeners, connections, who waits from where, and civetweb behind its seam.
 * Reactor's thread only. */
#ifndef STARLING_FRONT_H
#define STARLING_FRONT_H

#include "conn.h"
#include "cors.h"
#include "engine.h"
#include "seam.h"

struct front_options {
    const char *path;   /* of the transports, with slashes at both ends */
    const char *cookie; /* name, or "" */
    struct cors cors;
    uint32_t request_timeout_ms, idle_timeout_ms;
    uint32_t max_waiting_per_address, max_connections;
    unsigned threads;
    /* Takes a connection whose request is for a session of another node, with n bytes of input from the start of
     * that request; false: nobody has it. NULL: this node is alone. */
    bool (*elsewhere)(void *user, struct conn *c, struct span sid, const void *input, size_t n);
    /* A session has come to a WebSocket that is relayed from another node. May be NULL. */
    void (*upgraded)(void *user, struct conn *c);
    void *elsewhere_user; /* of both */
    /* Answers what is not a transport, on civetweb's threads. */
    visit_handler *web;
    void *web_user;
};

/* Connections from one address that carry no transport, oldest first. */
struct address {
    uint32_t ip;
    unsigned count;
    struct conn *oldest, *newest;
    UT_hash_handle hh;
};

struct listener {
    struct reactor_io io;
    struct front *front;
};

enum { FRONT_LISTENERS = 2 };

struct front {
    struct reactor *reactor;
    struct metrics *metrics;
    struct engine *engine;
    struct front_options options;
    struct seam *seam;
    struct listener listener[FRONT_LISTENERS];
    unsigned n_listeners;
    bool draining;
    int reserve_fd; /* given up for a moment to refuse a connection when there is no descriptor left */
    struct address *addresses;
    struct conn *conns, *dead;
    unsigned n_conns;
    struct conn *line, **line_end;
    bool line_runs;
    struct reactor_task bury_task;
    struct http_reader scratch_reader; /* for requests that come in one piece */
    uint8_t scratch[64 * 1024];
};

/* Borrows everything that options point to. NULL on failure. */
struct front *front_new(struct reactor *r, struct metrics *m, struct engine *e,
                        const struct front_options *o);
/* 0 or ERR_SYSTEM with errno. is_shared: other nodes of this host listen on the same port. */
int front_listen(struct front *f, const char *ip, uint16_t port, bool is_shared);
/* Takes a listening socket that another process has opened. 0 or ERR_SYSTEM: then fd is the caller's. */
int front_adopt(struct front *f, int fd);
/* Whether it listens on this port. */
bool front_has_port(const struct front *f, uint16_t port);
/* Takes in what waits to be accepted, and nothing after that. Connections that are there still get what they ask for,
 * and end with the answer they are waiting for. */
void front_close_doors(struct front *f);
/* No new connections from now on; kept-alive ones end with the answer they are waiting for. */
void front_drain(struct front *f);
/* Closes what is left; visits must have come back. */
void front_free(struct front **f);

/* A connection begins and ends to count as waiting from its address. */
void front_count_waiting(struct front *f, struct conn *c);
void front_uncount_waiting(struct front *f, struct conn *c);

/* Transports' requests are handled in the order in which their heads became complete, although the first one of a
 * connection visits civetweb on the way: a request joins the line, and has its turn (gate_take_turn) when it is ready
 * and everything before it has had its own. */
void front_line_join(struct front *f, struct conn *c, bool ready);
/* skip: it has been answered already, its turn is passed over. */
void front_line_ready(struct front *f, struct conn *c, bool skip);

#endif
