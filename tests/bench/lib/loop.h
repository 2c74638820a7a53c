/* The load client's only loop: epoll, level-triggered, one thread, one receive buffer for all connections. */
#ifndef BENCH_LOOP_H
#define BENCH_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOOP_PORTS     8
#define LOOP_CARRY_MAX 65536             /* the longest incomplete frame or answer */
#define LOOP_READ_MAX  ((size_t)1 << 20) /* taken from a connection in one read */

struct loop;

/* The first member of everything that the loop watches. */
struct io {
    int fd; /* -1 when closed */
    uint32_t carry_n;
    uint8_t *carry; /* start of an incomplete frame; room is made on first need */
    void (*on_readable)(struct io *io, struct loop *loop);
};

struct loop {
    int epoll_fd;
    uint16_t ports[LOOP_PORTS]; /* of the nodes */
    unsigned port_count;
    unsigned sources; /* connections come from this many addresses, 127.0.0.2 and up */
    unsigned next_source;
    uint64_t timeout_ns;
    uint64_t now_ns; /* taken after each read */
    uint8_t *rx;     /* LOOP_CARRY_MAX + LOOP_READ_MAX */
};

/* ports and port_count are filled by the caller. */
void loop_init(struct loop *l, unsigned sources, uint64_t timeout_ns);

/* Connects to a port and watches the connection; dies when that fails. */
void loop_connect(struct loop *l, struct io *io, uint16_t port);
/* Closes with a reset, so that no address is held in TIME_WAIT. */
void loop_close(struct io *io);

/* Runs handlers for what is readable. false: nothing was, for timeout_ns or until wake_ns (0: no such limit).
 */
bool loop_turn(struct loop *l, uint64_t wake_ns);
/* Turns for so long. */
void loop_settle(struct loop *l, uint64_t ns);

/* Reads what is there behind the bytes kept last time. 0: the peer closed, or reset the connection. */
size_t io_read(struct io *io, struct loop *l, const uint8_t **bytes);
/* Keeps what could not be used yet for the next io_read(), behind what was kept since the last one. */
void io_keep(struct io *io, const uint8_t *p, size_t n);
/* Sends all of it or dies. */
void io_send(struct io *io, const void *p, size_t n);
/* The same with a head before it. */
void io_send_with_head(struct io *io, const void *head, size_t head_n, const void *p, size_t n);

#endif
