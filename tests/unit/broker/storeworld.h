/* Nodes that ask a store, for tests: what they ask, in which order the answers come, and what is in them. Over Redis or in memory. */
#ifndef STARLING_TESTS_STOREWORLD_H
#define STARLING_TESTS_STOREWORLD_H

#include "container.h"
#include "err.h"
#include "redis_server.h"
#include "store_memory.h"
#include "store_redis.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { NODES = 3, LISTED = 8 };

struct node {
    struct store store;
    struct store_redis *redis;
    struct store_memory_client *memory;
    struct store_member self;
    unsigned ups, downs;
};

static struct {
    struct reactor *reactor;
    struct metrics *metrics;
    struct store_memory *memory;
    struct redis_server *server; /* NULL: memory */
    char cluster[48];
    struct node node[NODES];
    struct timer tick;
    unsigned answers; /* so far */
    bool is_asking;
} w;

/* What came for one question. */
struct reply {
    unsigned times; /* must become 1 */
    unsigned order;
    int err;
    unsigned n;
    struct store_member member[LISTED];
    char name[LISTED][64], host[LISTED][64], pub[LISTED][64], router[LISTED][64];
    uint64_t last[LISTED];
    size_t size[LISTED];
    uint64_t epoch;
    uint32_t moved_to;
    char text[1 << 17]; /* of a claim, or the first batch */
    size_t text_n;
};

/* ---- the loop ---- */

static inline uint64_t patience_ms(void)
{
    const char *text = getenv("STARLING_PATIENCE_MS");
    uint64_t ms = text ? strtoull(text, NULL, 10) : 0;
    return ms > 30000 ? ms : 30000;
}

static inline void on_tick(struct timer *t)
{
    (void)t;
    reactor_stop(w.reactor);
}

static inline void world_turn(void)
{
    reactor_timer_set(w.reactor, &w.tick, 2);
    assert_int_equal(reactor_run(w.reactor), 0);
    reactor_timer_cancel(w.reactor, &w.tick);
}

/* Until the condition holds. */
#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        uint64_t until_ms_ = reactor_now_ms(w.reactor) + patience_ms();                                      \
        while (!(condition) && reactor_now_ms(w.reactor) < until_ms_)                                        \
            world_turn();                                                                                    \
        if (!(condition))                                                                                    \
            fail_msg("never came true: %s", #condition);                                                     \
    } while (0)

/* ---- asking ---- */

static inline void reply_came(struct reply *r, int err)
{
    assert_false(w.is_asking);
    r->times++;
    assert_int_equal(r->times, 1);
    r->order = ++w.answers;
    r->err = err;
}

static inline void print_span(char out[64], struct span s)
{
    assert_true(s.n < 64);
    snprintf(out, 64, "%.*s", (int)s.n, s.n ? s.p : "");
}

static inline void keep_text(struct reply *r, struct span s)
{
    assert_true(s.n <= sizeof(r->text));
    if (s.n)
        memcpy(r->text, s.p, s.n);
    r->text_n = s.n;
}

static inline void on_done(void *user, int err)
{
    reply_came(user, err);
}

static inline void on_members(void *user, int err, const struct store_member *member, unsigned n)
{
    struct reply *r = user;
    reply_came(r, err);
    assert_true(n <= LISTED && (err == 0 || n == 0));
    r->n = n;
    for (unsigned i = 0; i < n; i++) {
        r->member[i] = member[i];
        print_span(r->name[i], member[i].name);
        print_span(r->host[i], member[i].host);
        print_span(r->pub[i], member[i].pub);
        print_span(r->router[i], member[i].router);
    }
}

static inline void on_batches(void *user, int err, const struct store_batch *batch, unsigned n)
{
    struct reply *r = user;
    reply_came(r, err);
    assert_true(n <= LISTED && (err == 0 || n == 0));
    r->n = n;
    for (unsigned i = 0; i < n; i++) {
        r->last[i] = batch[i].last;
        r->size[i] = batch[i].records.n;
    }
    if (n > 0)
        keep_text(r, batch[0].records);
}

static inline void on_claim(void *user, int err, const struct store_claim *claim)
{
    struct reply *r = user;
    reply_came(r, err);
    r->epoch = claim->epoch;
    r->moved_to = claim->moved_to;
    keep_text(r, claim->entry);
}

/* The reply must be there until it has come: r->times is 1 then. */
#define ASK(asker, what, r, ...)                                                                             \
    do {                                                                                                     \
        memset((r), 0, offsetof(struct reply, text));                                                        \
        w.is_asking = true;                                                                                  \
        w.node[asker].store.calls->what(w.node[asker].store.store, __VA_ARGS__);                             \
        w.is_asking = false;                                                                                 \
    } while (0)

#define ASK_AND_WAIT(asker, what, r, ...)                                                                    \
    do {                                                                                                     \
        ASK(asker, what, r, __VA_ARGS__);                                                                    \
        WAIT_FOR((r)->times == 1);                                                                           \
    } while (0)

static inline int renew(unsigned i, uint64_t keep_ms, struct reply *r)
{
    ASK_AND_WAIT(i, renew, r, &w.node[i].self, keep_ms, on_members, r);
    return r->err;
}

static inline int resign(unsigned i, uint64_t keep_ms, struct reply *r)
{
    ASK_AND_WAIT(i, resign, r, keep_ms, on_done, r);
    return r->err;
}

static inline int append(unsigned i, uint64_t last, uint64_t oldest, struct span records, struct reply *r)
{
    struct store_batch b = {last, records};
    ASK_AND_WAIT(i, append, r, &b, oldest, on_done, r);
    return r->err;
}

/* Of node `of`. */
static inline int read_mirror(unsigned i, unsigned of, uint64_t after, unsigned count, struct reply *r)
{
    ASK_AND_WAIT(i, read, r, w.node[of].self.origin, after, count, on_batches, r);
    return r->err;
}

static inline int put(unsigned i, const char *pid, uint64_t epoch, struct span entry, struct reply *r)
{
    ASK_AND_WAIT(i, put, r, span_of(pid), epoch, entry, on_done, r);
    return r->err;
}

static inline int drop(unsigned i, const char *pid, uint64_t epoch, struct reply *r)
{
    ASK_AND_WAIT(i, drop, r, span_of(pid), epoch, on_done, r);
    return r->err;
}

/* What node `of` owns. */
static inline int claim(unsigned i, unsigned of, const char *pid, struct reply *r)
{
    ASK_AND_WAIT(i, claim, r, w.node[of].self.origin.tag, span_of(pid), on_claim, r);
    return r->err;
}

static inline const struct store_member *find_member(const struct reply *r, unsigned i)
{
    for (unsigned k = 0; k < r->n; k++)
        if (r->member[k].origin.tag == w.node[i].self.origin.tag &&
            r->member[k].origin.boot == w.node[i].self.origin.boot)
            return &r->member[k];
    return NULL;
}

#define ASSERT_TEXT(r, span_)                                                                                \
    do {                                                                                                     \
        struct span want_ = (span_);                                                                         \
        assert_int_equal((r)->text_n, want_.n);                                                              \
        assert_memory_equal((r)->text, want_.p, want_.n);                                                    \
    } while (0)

/* ---- life ---- */

static inline void on_node_up(void *user)
{
    struct node *n = user;
    assert_int_equal(n->ups, n->downs);
    n->ups++;
}

static inline void on_node_down(void *user)
{
    struct node *n = user;
    n->downs++;
    assert_int_equal(n->ups, n->downs);
}

static inline void node_options(const char *url, struct store_redis_options *o)
{
    const char *why;
    *o = (struct store_redis_options){.redis = {REDIS_OPTIONS_DEFAULT, .name = "starling-test"},
                                      .cluster = w.cluster};
    if (redis_url_parse(url, &o->redis.url, &why))
        fail_msg("%s: %s", url, why);
}

static inline void node_open_redis(unsigned i, const struct store_redis_options *o)
{
    struct node *n = &w.node[i];
    struct store_user user = {.user = n, .on_up = on_node_up, .on_down = on_node_down};
    n->redis = store_redis_new(w.reactor, w.metrics, o, &user);
    assert_non_null(n->redis);
    n->store = store_redis_store(n->redis);
}

static inline void node_name(unsigned i)
{
    static uint64_t boot;
    w.node[i] = (struct node){0};
    w.node[i].self =
        (struct store_member){.origin = {.tag = 0xabc000 + i, .boot = UINT64_C(0xf000000000000000) + ++boot},
                              .name = SPAN("node"),
                              .host = SPAN("host:1"),
                              .pub = SPAN("tcp://1.2.3.4:7900"),
                              .router = SPAN("")};
}

static inline void node_open(unsigned i)
{
    struct node *n = &w.node[i];
    node_name(i);
    if (w.server) {
        struct store_redis_options o;
        char url[128];
        snprintf(url, sizeof(url), "unix://%s", w.server->socket);
        node_options(url, &o);
        node_open_redis(i, &o);
    } else {
        struct store_user user = {.user = n, .on_up = on_node_up, .on_down = on_node_down};
        n->memory = store_memory_open(w.memory, w.reactor, &user);
        n->store = store_memory_store(n->memory);
    }
}

static inline void node_close(unsigned i)
{
    store_redis_free(&w.node[i].redis);
    store_memory_close(&w.node[i].memory);
}

/* server NULL: memory. No node is open. */
static inline void world_init(struct redis_server *server)
{
    static unsigned number;
    memset(&w, 0, sizeof(w));
    signal(SIGPIPE, SIG_IGN);
    w.server = server;
    w.reactor = reactor_new();
    w.metrics = metrics_new();
    w.memory = store_memory_new();
    assert_true(w.reactor && w.metrics);
    timer_init(&w.tick, on_tick);
    snprintf(w.cluster, sizeof(w.cluster), "test-%u", ++number);
}

static inline void world_free(void)
{
    for (unsigned i = 0; i < NODES; i++)
        node_close(i);
    store_memory_free(&w.memory);
    metrics_free(&w.metrics);
    reactor_free(&w.reactor);
}

#endif
