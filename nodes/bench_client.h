/* A Socket.IO client as `starling bench` plays many of: over WebSocket, in one room of its own and in one that all are
 * in. The thread of its reactor; lives until bench_client_close(). */
#ifndef STARLING_BENCH_CLIENT_H
#define STARLING_BENCH_CLIENT_H

#include "reactor.h"
#include "span.h"
#include <netinet/in.h>

enum { BENCH_ROOM_BYTES = 48 };

struct bench_client;

/* What all clients of a bench share. */
struct bench_bus {
    struct reactor *reactor;
    struct sockaddr_in address;
    const char *path, *ns;
    char all[BENCH_ROOM_BYTES]; /* the room that everyone joins */
    void (*on_joined)(struct bench_client *client);
    /* args: what was emitted, as JSON without brackets. */
    void (*on_event)(struct bench_client *client, struct span args);
    /* It cannot go on; once. why is borrowed. */
    void (*on_failure)(struct bench_client *client, const char *why);
};

struct bench_client {
    struct bench_bus *bus;
    unsigned index;
    char room[BENCH_ROOM_BYTES];
    struct reactor_io io;
    enum {
        BENCH_CLOSED,
        BENCH_CONNECTING,
        BENCH_UPGRADING,
        BENCH_OPENING,
        BENCH_JOINING,
        BENCH_JOINED
    } state;
    bool waits; /* for the socket to take more */
    struct reactor_task flush;
    struct bench_buffer {
        uint8_t *bytes;
        size_t n, size;
    } in, out;
};

/* index: its number, from which its room has its name. */
void bench_client_open(struct bench_client *client, struct bench_bus *bus, unsigned index);
void bench_client_close(struct bench_client *client);

/* Sent at the end of the loop's turn. args: JSON without brackets. */
void bench_client_emit(struct bench_client *client, const char *room, struct span args);
/* Bytes that the kernel has not taken yet. */
size_t bench_client_queued(const struct bench_client *client);

#endif
