/* How often a Redis that is of no use is tried: seldom, never given up, and two nodes not in step. */
#include "log.h"
#include "storeworld.h"
#include <sys/epoll.h>
#include <sys/un.h>

enum { TRIES = 14, FIRST_MS = 8, MOST_MS = 64 };

/* Takes connections, says nothing, and ends them. */
struct door {
    struct reactor_io io;
    char path[64];
    unsigned n;
    uint64_t at_ms[TRIES];
};

static struct door doors[2];

static void on_knock(struct reactor_io *io, uint32_t events)
{
    struct door *d = container_of(io, struct door, io);
    int fd = accept(io->fd, NULL, NULL);
    (void)events;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && d->n < TRIES)
        d->at_ms[d->n++] = reactor_now_ms(w.reactor);
}

static void open_door(struct door *d, unsigned i)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    *d = (struct door){.io.on_ready = on_knock};
    snprintf(d->path, sizeof(d->path), "/tmp/starling-door-%d-%u", (int)getpid(), i);
    memcpy(a.sun_path, d->path, sizeof(d->path));
    unlink(d->path);
    d->io.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(d->io.fd >= 0 && bind(d->io.fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
                listen(d->io.fd, 8) == 0);
    assert_int_equal(reactor_add(w.reactor, &d->io, EPOLLIN), 0);
}

static void close_door(struct door *d)
{
    reactor_remove(w.reactor, &d->io);
    close(d->io.fd);
    unlink(d->path);
}

static int set_up(void **state)
{
    (void)state;
    log_setup(LOG_ERROR, false);
    world_init(NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct store_redis_options o;
        char url[96];
        open_door(&doors[i], i);
        snprintf(url, sizeof(url), "unix://%s", doors[i].path);
        node_name(i);
        node_options(url, &o);
        o.redis.retry_ms = FIRST_MS;
        o.redis.retry_max_ms = MOST_MS;
        node_open_redis(i, &o);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        close_door(&doors[i]);
    world_free();
    return 0;
}

/* It takes at least half of the time that has doubled since the last failure, up to the most, and does not stop. */
static void test_back_off(void **state)
{
    (void)state;
    WAIT_FOR(doors[0].n == TRIES && doors[1].n == TRIES);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t wait_ms = FIRST_MS;
        for (unsigned k = 1; k < TRIES; k++) {
            assert_true(doors[i].at_ms[k] - doors[i].at_ms[k - 1] + 1 >= wait_ms / 2);
            wait_ms = 2 * wait_ms < MOST_MS ? 2 * wait_ms : MOST_MS;
        }
    }
}

static void test_not_in_step(void **state)
{
    unsigned apart = 0;
    (void)state;
    WAIT_FOR(doors[0].n == TRIES && doors[1].n == TRIES);
    for (unsigned k = 1; k < TRIES; k++) {
        int64_t a = (int64_t)(doors[0].at_ms[k] - doors[0].at_ms[k - 1]);
        int64_t b = (int64_t)(doors[1].at_ms[k] - doors[1].at_ms[k - 1]);
        apart += a - b > 1 || b - a > 1;
    }
    assert_true(apart >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_back_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_in_step, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
