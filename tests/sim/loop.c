#include "loop.h"
#include "fakenet.h"
#include "id.h"
#include "must.h"
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TURNS_MAX = 10000 }; /* at one point of time: more is a loop that never sleeps */

static struct {
    struct reactor *reactor;
    unsigned turns;
    uint64_t wakes_ms;
    bool is_stopping;
} running;

static uint64_t randomness;

void loop_seed(uint64_t seed)
{
    id_hash("", 0); /* draws its key once in a process, which no run may depend on */
    randomness = seed * 0x9e3779b97f4a7c15u + 1;
}

ssize_t getrandom(void *dst, size_t n, unsigned flags)
{
    uint8_t *p = dst;
    (void)flags;
    for (size_t i = 0; i < n; i++) {
        randomness = randomness * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(randomness >> 56);
    }
    return (ssize_t)n;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    (void)fd;
    (void)events;
    (void)max;
    MUST(running.turns < TURNS_MAX);
    if (running.turns++ > 0 && timeout_ms != 0) {
        running.wakes_ms = timeout_ms < 0 ? UINT64_MAX : net_clock_ms + (uint64_t)timeout_ms;
        running.is_stopping = true;
        reactor_stop(running.reactor);
        running.is_stopping = false;
    }
    return 0;
}

/* Nobody sleeps who would have to be woken. */
ssize_t write(int fd, const void *bytes, size_t n)
{
    return running.is_stopping ? (ssize_t)n : syscall(SYS_write, fd, bytes, n);
}

uint64_t loop_run(struct reactor *r)
{
    running.reactor = r;
    running.turns = 0;
    MUST(reactor_run(r) == 0);
    return running.wakes_ms;
}
