/* The redis-server of one bus alone: a child of the supervisor with a Unix socket in the run directory, its
 * append-only file beside it. It is started before the nodes, started again when it dies, and stopped after them; like
 * them it outlives a supervisor that is killed. Main thread only. */
#ifndef STARLING_REDIS_SERVER_H
#define STARLING_REDIS_SERVER_H

#include "process.h"
#include "rundir.h"
#include <limits.h>

struct redis_server {
    struct process_owner owner; /* first: callbacks get back to us from it */
    struct process process;
    const struct rundir *dir;
    bool is_wanted;
    int ping_fd;         /* -1: no question is under way */
    uint64_t ping_at_ms; /* of the next one, or when the one under way is given up */
    char program[PATH_MAX], url[128];
    void (*on_change)(void *user);
    void *user;
};

/* Looks for redis-server in PATH. */
bool redis_server_find(char program[PATH_MAX]);

void redis_server_init(struct redis_server *r, const struct rundir *dir, const sigset_t *mask);
/* False when there is none to be started (errno says why). */
bool redis_server_start(struct redis_server *r);
bool redis_server_adopt(struct redis_server *r, const struct process_record *record);
void redis_server_deinit(struct redis_server *r);

/* "" when there is none. */
const char *redis_server_url(const struct redis_server *r);
/* It answers, or there is no reason to wait for it. */
bool redis_server_is_settled(const struct redis_server *r);

/* Beside those of the process: when ping_fd is readable, and when time has gone on. */
void redis_server_on_pong(struct redis_server *r);
void redis_server_on_time(struct redis_server *r);
/* 0: none. */
uint64_t redis_server_next_ms(const struct redis_server *r);

#endif
