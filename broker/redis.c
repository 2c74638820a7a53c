#include "redis.h"
#include "container.h"
#include "err.h"
#include "id.h"
#include "log.h"
#include "redis_error.h"
#include "resolve.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

/* WAITING to try again, FINDING the address of a name, GREETING: connecting, log-in and checks, UP. */
enum state { WAITING, FINDING, GREETING, UP };

/* What is said first on a connection, in this order. */
enum what { AUTH, NAME, SELECT, ROLE, PING, MASTER, GREETINGS };

enum {
    STEADY_MS = 1000, /* a connection that held for so long was a good one */
    MAX_TOLD = 64,    /* sentinels, addresses and their reasons; more than that need not be in the log */
};

struct greeting {
    struct redis_ask ask;
    struct redis *redis;
    enum what what;
};

struct redis {
    struct reactor *reactor;
    struct metrics *metrics;
    struct redis_options o;
    struct redis_user user;
    char name[64];
    enum state state;
    struct timer timer; /* WAITING: to try again; FINDING, GREETING: enough of it */
    unsigned failures;
    uint64_t up_ms;
    /* ---- the server that is tried, or used ---- */
    bool is_sentinel;
    unsigned sentinel, tried;    /* next to be asked; in this round */
    struct redis_address server; /* not of a Unix socket */
    struct redis_address master; /* port 0: not known */
    struct resolve *resolve;
    unsigned n, at;
    char address[RESOLVE_ADDRESSES][RESOLVE_TEXT_BYTES];
    struct redis_link *link;
    struct greeting greeting[GREETINGS];
    unsigned n_told;
    uint64_t told[MAX_TOLD]; /* hashes of what the log says of failures since it was up */
    /* ---- questions ---- */
    struct redis_question *first, **tail;
    uint64_t asked; /* number of the newest */
    struct reactor_task refusals;
};

static void begin(struct redis *redis);
static void find(struct redis *redis, const struct redis_address *server);

static void count_error(struct redis *redis, enum redis_error error)
{
    static const enum metric metric[REDIS_ERROR_COUNT] = {
#define X(name, ends, text) METRIC_STORE_ERROR_##name,
#include "redis_error.def"
#undef X
    };
    metrics_add(redis->metrics, metric[error], 1);
}

/* ---- questions ---- */

static struct redis_question *pop(struct redis *redis)
{
    struct redis_question *q = redis->first;
    redis->first = q->next;
    if (!redis->first)
        redis->tail = &redis->first;
    return q;
}

/* Those that were not sent, up to this number or the first that was sent. */
static void answer_refused(struct redis *redis, uint64_t number)
{
    while (redis->first && !redis->first->is_sent && redis->first->number <= number) {
        struct redis_question *q = pop(redis);
        q->on_answer(q, ERR_STORE, NULL);
    }
}

/* What an answer asks anew is left for the next turn. */
static void on_refusals(struct reactor_task *task)
{
    struct redis *redis = container_of(task, struct redis, refusals);
    answer_refused(redis, redis->asked);
}

static void note_pending(struct redis *redis)
{
    metrics_set(redis->metrics, METRIC_STORE_PENDING_BYTES,
                redis->link ? redis_link_pending_bytes(redis->link) : 0);
}

static void note_round_trip(struct redis *redis, uint64_t asked_us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    metrics_observe_us(redis->metrics, METRIC_STORE_ROUND_TRIP,
                       (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u - asked_us);
}

static int judge(struct redis *redis, const struct redis_reply *reply)
{
    if (!reply) {
        metrics_add(redis->metrics, METRIC_STORE_UNREACHED, 1);
        return ERR_STORE;
    }
    if (redis_reply_kind(reply) != REDIS_ERROR)
        return 0;
    enum redis_error error = redis_error_of(redis_reply_text(reply));
    count_error(redis, error);
    if (redis_error_ends(error))
        redis_link_fail(redis->link, redis_error_text(error));
    return ERR_STORE;
}

/* Those behind the last that was sent have nobody else to wake them. */
static void wake_refused(struct redis *redis)
{
    if (redis->first && !redis->first->is_sent)
        reactor_defer(redis->reactor, &redis->refusals, REACTOR_WORK);
}

static void on_reply(struct redis_ask *ask, const struct redis_reply *reply)
{
    struct redis_question *q = container_of(ask, struct redis_question, ask);
    struct redis *redis = q->redis;
    answer_refused(redis, q->number);
    pop(redis);
    wake_refused(redis);
    note_pending(redis);
    if (reply)
        note_round_trip(redis, ask->asked_us);
    q->on_answer(q, judge(redis, reply), reply);
}

static void enqueue(struct redis *redis, struct redis_question *q)
{
    q->redis = redis;
    q->next = NULL;
    q->is_sent = false;
    q->number = ++redis->asked;
    *redis->tail = q;
    redis->tail = &q->next;
}

void redis_refuse(struct redis *redis, struct redis_question *q)
{
    enqueue(redis, q);
    reactor_defer(redis->reactor, &redis->refusals, REACTOR_WORK);
}

static bool has_room(const struct redis *redis, const struct span *argv, unsigned argc)
{
    size_t pending = redis_link_pending_bytes(redis->link), n = 0;
    for (unsigned i = 0; i < argc; i++)
        n += argv[i].n;
    return pending == 0 || pending + n <= redis->o.pending_bytes;
}

void redis_ask(struct redis *redis, struct redis_question *q, const struct span *argv, unsigned argc)
{
    bool is_up = redis->state == UP, fits = is_up && has_room(redis, argv, argc);
    q->ask.on_answer = on_reply;
    if (!fits || redis_link_ask(redis->link, &q->ask, argv, argc)) {
        metrics_add(redis->metrics, is_up && !fits ? METRIC_STORE_OVERFLOWS : METRIC_STORE_UNREACHED, 1);
        redis_refuse(redis, q);
        return;
    }
    enqueue(redis, q);
    q->is_sent = true;
    metrics_add(redis->metrics, METRIC_STORE_COMMANDS, 1);
    note_pending(redis);
}

/* ---- failures ---- */

static void print_server(const struct redis *redis, char out[REDIS_URL_BYTES])
{
    if (redis->o.url.kind == REDIS_SENTINEL)
        snprintf(out, REDIS_URL_BYTES, "%s %s port %u", redis->is_sentinel ? "sentinel" : "master",
                 redis->server.host, redis->server.port);
    else
        redis_url_print(&redis->o.url, out);
}

/* Each server and reason once until it is up again. */
static bool is_told(struct redis *redis, const char *line)
{
    uint64_t hash = id_hash(line, strlen(line));
    for (unsigned i = 0; i < redis->n_told; i++)
        if (redis->told[i] == hash)
            return true;
    if (redis->n_told == MAX_TOLD)
        return true;
    redis->told[redis->n_told++] = hash;
    return false;
}

static void report(struct redis *redis, const char *event, const char *why)
{
    char server[REDIS_URL_BYTES], line[REDIS_URL_BYTES + 256];
    print_server(redis, server);
    snprintf(line, sizeof(line), "%.200s %s", why, server);
    if (!is_told(redis, line))
        log_event(LOG_WARN, event, LOG_TEXT("server", server), LOG_TEXT("error", why));
}

/* Between half of the time and all of it, so that nodes do not come back in step. */
static uint64_t draw_delay(struct redis *redis)
{
    uint64_t ms = redis->o.retry_ms, drawn = 0;
    for (unsigned i = 0; i < redis->failures && ms < redis->o.retry_max_ms; i++)
        ms *= 2;
    if (ms > redis->o.retry_max_ms)
        ms = redis->o.retry_max_ms;
    (void)!getrandom(&drawn, sizeof(drawn), GRND_NONBLOCK);
    return ms / 2 + drawn % (ms / 2 + 1);
}

static void retry_later(struct redis *redis)
{
    redis->state = WAITING;
    reactor_timer_set(redis->reactor, &redis->timer, draw_delay(redis));
    redis->failures++;
}

static void next_sentinel(struct redis *redis)
{
    redis->sentinel = (redis->sentinel + 1) % redis->o.url.n;
}

/* This server is of no use: another sentinel, or all again later. */
static void give_up_server(struct redis *redis, const char *why)
{
    report(redis, "redis_unreachable", why);
    if (redis->o.url.kind == REDIS_SENTINEL)
        next_sentinel(redis);
    if (redis->is_sentinel && ++redis->tried < redis->o.url.n)
        find(redis, &redis->o.url.address[redis->sentinel]);
    else
        retry_later(redis);
}

static void go_down(struct redis *redis, const char *why)
{
    metrics_set(redis->metrics, METRIC_STORE_UP, 0);
    if (reactor_now_ms(redis->reactor) - redis->up_ms >= STEADY_MS)
        redis->failures = 0;
    report(redis, "redis_down", why);
    retry_later(redis);
    answer_refused(redis, redis->asked);
    redis->user.on_down(redis->user.user);
}

/* ---- the greeting ---- */

static void go_up(struct redis *redis)
{
    char server[REDIS_URL_BYTES];
    reactor_timer_cancel(redis->reactor, &redis->timer);
    redis->state = UP;
    redis->up_ms = reactor_now_ms(redis->reactor);
    redis->n_told = 0;
    metrics_set(redis->metrics, METRIC_STORE_UP, 1);
    metrics_add(redis->metrics, METRIC_STORE_CONNECTS, 1);
    print_server(redis, server);
    log_event(LOG_INFO, "redis_up", LOG_TEXT("server", server));
    redis->user.on_up(redis->user.user);
}

static void check_role(struct redis *redis, const struct redis_reply *reply)
{
    struct span role = redis_reply_text(redis_reply_at(reply, 0));
    if (span_eq(role, SPAN("slave")))
        redis_link_fail(redis->link, "it is a replica, which cannot be written");
    else if (span_eq(role, SPAN("sentinel")))
        redis_link_fail(redis->link, "it is a sentinel: the URL begins with redis+sentinel:// then");
}

static void take_master(struct redis *redis, const struct redis_reply *reply)
{
    struct span host = redis_reply_text(redis_reply_at(reply, 0));
    struct span port = redis_reply_text(redis_reply_at(reply, 1));
    char text[8];
    snprintf(text, sizeof(text), "%.*s", (int)port.n, port.n ? port.p : "");
    unsigned long number = strtoul(text, NULL, 10);
    if (host.n > 0 && host.n < sizeof(redis->master.host) && number > 0 && number <= UINT16_MAX) {
        snprintf(redis->master.host, sizeof(redis->master.host), "%.*s", (int)host.n, host.p);
        redis->master.port = (uint16_t)number;
    }
    redis_link_fail(redis->link, "the sentinel knows no master of this name");
}

/* NOPERM: an ACL may forbid what we only use to look. MISCONF is said to PING, too. */
static bool may_ignore(const struct redis *redis, enum what what, enum redis_error error)
{
    switch (what) {
    case NAME:
        return true;
    case AUTH: /* a sentinel may have no password */
        return redis->is_sentinel;
    case ROLE:
        return !redis_error_ends(error);
    case PING:
        return !redis_error_ends(error) && error != REDIS_ERROR_ERR;
    default:
        return false;
    }
}

static void on_greeting(struct redis_ask *ask, const struct redis_reply *reply)
{
    struct greeting *g = container_of(ask, struct greeting, ask);
    struct redis *redis = g->redis;
    if (!reply || redis->state != GREETING)
        return;
    if (redis_reply_kind(reply) == REDIS_ERROR) {
        enum redis_error error = redis_error_of(redis_reply_text(reply));
        if (!may_ignore(redis, g->what, error)) {
            char why[160];
            struct span text = redis_reply_text(reply);
            count_error(redis, error);
            snprintf(why, sizeof(why), "%.*s", (int)text.n, text.p);
            redis_link_fail(redis->link, error == REDIS_ERROR_ERR ? why : redis_error_text(error));
            return;
        }
    }
    if (g->what == ROLE)
        check_role(redis, reply);
    else if (g->what == MASTER)
        take_master(redis, reply);
    else if (g->what == PING && !redis_link_is_ending(redis->link))
        go_up(redis);
}

static void say(struct redis *redis, enum what what, const struct span *argv, unsigned argc)
{
    struct greeting *g = &redis->greeting[what];
    *g = (struct greeting){.ask = {.on_answer = on_greeting}, .redis = redis, .what = what};
    if (redis_link_ask(redis->link, &g->ask, argv, argc))
        redis_link_fail(redis->link, "out of memory");
}

static void log_in(struct redis *redis)
{
    struct span argv[3] = {SPAN("AUTH")};
    unsigned n = 1;
    if (redis->o.url.user[0])
        argv[n++] = span_of(redis->o.url.user);
    argv[n++] = span_of(redis->o.url.password);
    say(redis, AUTH, argv, n);
}

static void greet(struct redis *redis)
{
    char db[8];
    if (redis->o.url.password[0])
        log_in(redis);
    say(redis, NAME, (struct span[]){SPAN("CLIENT"), SPAN("SETNAME"), span_of(redis->name)}, 3);
    if (redis->is_sentinel) {
        say(redis, MASTER,
            (struct span[]){SPAN("SENTINEL"), SPAN("get-master-addr-by-name"), span_of(redis->o.url.master)},
            3);
        return;
    }
    snprintf(db, sizeof(db), "%u", redis->o.url.db);
    if (redis->o.url.db)
        say(redis, SELECT, (struct span[]){SPAN("SELECT"), span_of(db)}, 2);
    say(redis, ROLE, (struct span[]){SPAN("ROLE")}, 1);
    say(redis, PING, (struct span[]){SPAN("PING")}, 1);
}

/* ---- finding and connecting ---- */

static void on_lost(void *user, const char *why);

static void connect_next(struct redis *redis)
{
    bool is_unix = redis->o.url.kind == REDIS_UNIX;
    struct redis_link_options o = {.ip = is_unix ? NULL : redis->address[redis->at++],
                                   .port = redis->server.port,
                                   .path = redis->o.url.path,
                                   .timeout_ms = redis->o.command_ms,
                                   .on_lost = on_lost,
                                   .user = redis};
    redis->state = GREETING;
    reactor_timer_set(redis->reactor, &redis->timer, redis->o.connect_ms);
    redis->link = redis_link_open(redis->reactor, &o);
    if (redis->link)
        greet(redis);
    else
        give_up_server(redis, "out of memory");
}

static void on_lost(void *user, const char *why)
{
    struct redis *redis = user;
    char copy[160];
    snprintf(copy, sizeof(copy), "%s", why);
    reactor_timer_cancel(redis->reactor, &redis->timer);
    redis_link_close(&redis->link);
    note_pending(redis);
    if (redis->state == UP) {
        go_down(redis, copy);
    } else if (redis->master.port) {
        struct redis_address master = redis->master;
        redis->is_sentinel = false;
        redis->master.port = 0;
        find(redis, &master);
    } else if (redis->at < redis->n) {
        connect_next(redis);
    } else {
        give_up_server(redis, copy);
    }
}

static void on_resolved(void *user, const char (*address)[RESOLVE_TEXT_BYTES], unsigned n, const char *why)
{
    struct redis *redis = user;
    if (n == 0) {
        give_up_server(redis, why);
        return;
    }
    memcpy(redis->address, address, n * sizeof(*address));
    redis->n = n;
    redis->at = 0;
    resolve_end(&redis->resolve);
    connect_next(redis);
}

static void find(struct redis *redis, const struct redis_address *server)
{
    redis->server = *server;
    redis->n = redis->at = 0;
    redis->state = FINDING;
    reactor_timer_set(redis->reactor, &redis->timer, redis->o.connect_ms);
    resolve_end(&redis->resolve);
    redis->resolve = resolve_start(redis->reactor, redis->server.host, on_resolved, redis);
    if (!redis->resolve) /* tried again when the timer ends this */
        log_event(LOG_WARN, "redis_resolve", LOG_TEXT("error", "no memory, or no thread to be had"));
}

static void begin(struct redis *redis)
{
    redis->is_sentinel = redis->o.url.kind == REDIS_SENTINEL;
    redis->master.port = 0;
    redis->tried = 0;
    if (redis->o.url.kind == REDIS_UNIX)
        connect_next(redis);
    else
        find(redis, &redis->o.url.address[redis->is_sentinel ? redis->sentinel : 0]);
}

static void on_timer(struct timer *t)
{
    struct redis *redis = container_of(t, struct redis, timer);
    if (redis->state == WAITING) {
        begin(redis);
    } else if (redis->state == FINDING) {
        resolve_end(&redis->resolve);
        give_up_server(redis, "its name was not resolved in time");
    } else if (redis->state == GREETING) {
        redis_link_fail(redis->link, "no connection in time");
    }
}

/* ---- life ---- */

struct redis *redis_new(struct reactor *r, struct metrics *metrics, const struct redis_options *o,
                        const struct redis_user *user)
{
    struct redis *redis = calloc(1, sizeof(*redis));
    if (!redis)
        return NULL;
    redis->reactor = r;
    redis->metrics = metrics;
    redis->o = *o;
    redis->user = *user;
    redis->tail = &redis->first;
    redis->refusals.run = on_refusals;
    timer_init(&redis->timer, on_timer);
    snprintf(redis->name, sizeof(redis->name), "%s", o->name);
    redis->o.name = redis->name;
    begin(redis);
    return redis;
}

void redis_free(struct redis **rp)
{
    struct redis *redis = *rp;
    if (!redis)
        return;
    redis->state = WAITING;
    redis_link_close(&redis->link);
    while (redis->first)
        answer_refused(redis, redis->asked);
    note_pending(redis);
    metrics_set(redis->metrics, METRIC_STORE_UP, 0);
    reactor_undefer(redis->reactor, &redis->refusals, REACTOR_WORK);
    reactor_timer_cancel(redis->reactor, &redis->timer);
    resolve_end(&redis->resolve);
    free(redis);
    *rp = NULL;
}

bool redis_is_up(const struct redis *redis)
{
    return redis->state == UP;
}
