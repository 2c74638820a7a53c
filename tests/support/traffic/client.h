/* One client: a WebSocket that is opened, connected to "/", joined to its room, and opened again when it ends.
 * Thread: the loop's. Nothing here waits: connecting, reading and writing all go on when the socket can. */
#ifndef TRAFFIC_CLIENT_H
#define TRAFFIC_CLIENT_H

#include "ledger.h"

#include <netinet/in.h>
#include <stddef.h>

#define ROOM_PREFIX "traffic-"

/* Where clients connect to. Sockets belong to the network namespace in which they were made. */
struct target {
    const char *name;
    unsigned index;
    struct sockaddr_in address;
    int netns;    /* descriptor of its network namespace; -1: that of the program */
    bool is_mute; /* its clients send nothing */
    unsigned up;  /* of its clients */
};

struct swarm {
    int epoll;
    int own_netns;
    struct ledger *ledger;
    uint8_t *input;          /* what one read takes, behind what the client has kept */
    uint64_t reconnect_ns;   /* until the next attempt; 0: none */
    size_t padding;          /* bytes of an event beside its numbers */
    uint64_t opened, failed; /* attempts to connect, and those of them that did not come to their room */
    unsigned up;
};

enum client_state {
    CLIENT_CLOSED,
    CLIENT_REACHING,   /* connect() */
    CLIENT_UPGRADING,  /* the request is sent */
    CLIENT_OPENING,    /* 101 came */
    CLIENT_CONNECTING, /* the open packet came, CONNECT is sent */
    CLIENT_JOINING,    /* CONNECT is answered, bus:join is sent */
    CLIENT_UP,
};

struct client {
    struct swarm *swarm;
    struct target *target;
    unsigned room;
    enum client_state state;
    int fd;
    bool wants_write;
    uint64_t next_try_ns; /* when closed; 0: never */
    struct life *life;    /* when up */
    uint8_t *kept;        /* the start of an incomplete frame */
    size_t kept_n;
    uint8_t *unsent;
    size_t unsent_n;
};

void swarm_init(struct swarm *s, struct ledger *ledger);

void client_open(struct client *c);
/* For a client that is up. false: its server has not read for so long that nothing more is sent. */
bool client_emit(struct client *c);
void client_on_event(struct client *c, uint32_t events); /* of epoll */

#endif
