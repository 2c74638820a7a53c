/* One connection at a time to a node of the bus, made again when it is lost: HELLO and WELCOME, heartbeats, both
 * directions' credit, choice of the next node. Belongs to one thread; lives as long as the agent. libzmq is seen here
 * only (and not CZMQ: what is needed is one socket's descriptor in an epoll set, which CZMQ has nothing to add to). */
#ifndef STARLING_LINK_H
#define STARLING_LINK_H

#include "agent.h"
#include <stdbool.h>
#include <stdint.h>

enum link_state {
    LINK_WAITING,  /* until it is time to try the next node */
    LINK_GREETING, /* HELLO has been said */
    LINK_OPEN,
};

struct link_options {
    const char *name, *about;
    const char *endpoints; /* a comma list */
    uint64_t window;       /* bytes that the node may have under way */
    void *user;
    void (*on_open)(void *user, const struct agent_record *welcome);
    /* The connection is over, or could not be made. */
    void (*on_down)(void *user, bool was_open, const char *code, const char *text);
    void (*on_draining)(void *user);
    /* Every other record; what agent_read() said of it. *record may be changed, its texts be ended with a NUL. */
    void (*on_record)(void *user, struct agent_record *record, int result);
};

struct link;

/* Copies the texts. NULL with errno. */
struct link *link_new(const struct link_options *o, int epoll);
/* Says BYE when it is open; what was sent before is given a moment to leave. */
void link_free(struct link **l);

enum link_state link_state(const struct link *l);
/* Numbers connections; changes with each WELCOME. */
uint64_t link_number(const struct link *l);
const char *link_node(const struct link *l);

/* Receives up to a few messages, keeps heartbeats and time-outs. True: there is more to receive. */
bool link_work(struct link *l, uint64_t now_ms);
/* When link_work() is due, if nothing comes before. */
uint64_t link_due_ms(const struct link *l);
/* Has something come that link_work() would take? libzmq's descriptor does not say so a second time. */
bool link_has_input(const struct link *l);

/* May requests be sent? Answers always may. */
bool link_has_credit(const struct link *l);
/* One message of whole records. False: not now. */
bool link_send(struct link *l, const void *bytes, size_t n, uint64_t now_ms);
/* Ends the connection and goes on to the next node. */
void link_leave(struct link *l, const char *code, const char *text, uint64_t now_ms);

#endif
