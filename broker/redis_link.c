/* hiredis 0.14's asynchronous API, and what it does not do by itself:
 * - It has no time-outs. Answers come in the order of questions, so one timer for the oldest is enough.
 * - It frees its context when a connection ends, and must not be told to from inside of the connect callback. So nothing
 *   here ends a connection but one task, and the only sign of an end is the clean-up hook, which always comes, after all
 *   answers.
 * - A reply that nobody asked for ends the process by an assertion of its own. So we count: a reply beyond what was
 *   asked is not built, which hiredis takes for a broken connection.
 * - It asks for each command to be told when the socket is writable. We write at the end of the turn instead, and wait
 *   for the socket only when it takes no more. */
#include "redis_link.h"
#include "container.h"
#include "err.h"
#include <fcntl.h>
#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

enum { MAX_ARGS = REDIS_LINK_ARGS, COMMAND_OVERHEAD_BYTES = 64 };

struct redis_link {
    struct reactor *reactor;
    struct redis_link_options o;
    redisAsyncContext *context; /* NULL: it has ended */
    bool is_watched, is_ending, is_flushing;
    struct reactor_io io;
    uint32_t events; /* that we wait for */
    struct reactor_task flush, end;
    struct timer timer; /* for the oldest ask */
    struct redis_ask *first, **tail;
    size_t pending_bytes;
    redisReplyObjectFunctions plain, counted; /* hiredis's builders of replies, and ours over them */
    char why[160];
};

static uint64_t clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* ---- replies ---- */

static const redisReply *native(const struct redis_reply *reply)
{
    return (const redisReply *)(const void *)reply;
}

enum redis_reply_kind redis_reply_kind(const struct redis_reply *reply)
{
    switch (reply ? native(reply)->type : REDIS_REPLY_NIL) {
    case REDIS_REPLY_ERROR:
        return REDIS_ERROR;
    case REDIS_REPLY_STATUS:
        return REDIS_STATUS;
    case REDIS_REPLY_INTEGER:
        return REDIS_INTEGER;
    case REDIS_REPLY_STRING:
        return REDIS_STRING;
    case REDIS_REPLY_ARRAY:
        return REDIS_ARRAY;
    default:
        return REDIS_NIL;
    }
}

struct span redis_reply_text(const struct redis_reply *reply)
{
    enum redis_reply_kind kind = redis_reply_kind(reply);
    if (kind != REDIS_ERROR && kind != REDIS_STATUS && kind != REDIS_STRING)
        return (struct span){NULL, 0};
    return (struct span){native(reply)->str, native(reply)->len};
}

int64_t redis_reply_integer(const struct redis_reply *reply)
{
    return redis_reply_kind(reply) == REDIS_INTEGER ? native(reply)->integer : 0;
}

size_t redis_reply_count(const struct redis_reply *reply)
{
    return redis_reply_kind(reply) == REDIS_ARRAY ? native(reply)->elements : 0;
}

const struct redis_reply *redis_reply_at(const struct redis_reply *reply, size_t i)
{
    if (i >= redis_reply_count(reply))
        return NULL;
    return (const struct redis_reply *)(const void *)native(reply)->element[i];
}

static void set_why(struct redis_link *l, const char *why)
{
    if (!l->why[0])
        snprintf(l->why, sizeof(l->why), "%s", why);
}

/* ---- no reply but to a question ---- */

/* An error may come unasked ("max number of clients reached"); hiredis ends the connection with its text then. */
static bool is_unasked(const redisReadTask *task)
{
    struct redis_link *l = task->privdata;
    if (task->parent || l->first || task->type == REDIS_REPLY_ERROR)
        return false;
    set_why(l, "a reply that nobody asked for: is it a Redis?");
    return true;
}

static const redisReplyObjectFunctions *builders(const redisReadTask *task)
{
    return &((const struct redis_link *)task->privdata)->plain;
}

static void *create_string(const redisReadTask *task, char *text, size_t n)
{
    return is_unasked(task) ? NULL : builders(task)->createString(task, text, n);
}

static void *create_array(const redisReadTask *task, int n)
{
    return is_unasked(task) ? NULL : builders(task)->createArray(task, n);
}

static void *create_integer(const redisReadTask *task, long long value)
{
    return is_unasked(task) ? NULL : builders(task)->createInteger(task, value);
}

static void *create_nil(const redisReadTask *task)
{
    return is_unasked(task) ? NULL : builders(task)->createNil(task);
}

static void count_replies(struct redis_link *l)
{
    redisReader *reader = l->context->c.reader;
    l->plain = l->counted = *reader->fn;
    l->counted.createString = create_string;
    l->counted.createArray = create_array;
    l->counted.createInteger = create_integer;
    l->counted.createNil = create_nil;
    reader->fn = &l->counted;
    reader->privdata = l;
}

/* ---- the end ---- */

void redis_link_fail(struct redis_link *l, const char *why)
{
    set_why(l, why);
    l->is_ending = true;
    reactor_defer(l->reactor, &l->end, REACTOR_WORK);
}

/* hiredis's last call for this context, whatever ended it. */
static void on_cleanup(void *arg)
{
    struct redis_link *l = arg;
    if (l->is_watched)
        reactor_remove(l->reactor, &l->io);
    l->is_watched = false;
    reactor_undefer(l->reactor, &l->flush, REACTOR_FLUSH);
    reactor_timer_cancel(l->reactor, &l->timer);
    if (l->context->err)
        set_why(l, l->context->errstr);
    l->context = NULL;
    redis_link_fail(l, "the connection was closed");
}

static void end_context(struct redis_link *l)
{
    if (!l->context)
        return;
    l->is_ending = true;
    if (l->context->ev.cleanup) {
        redisAsyncFree(l->context);
    } else { /* it was never attached */
        redisAsyncFree(l->context);
        l->context = NULL;
    }
}

static void on_end(struct reactor_task *task)
{
    struct redis_link *l = container_of(task, struct redis_link, end);
    end_context(l);
    reactor_undefer(l->reactor, &l->end, REACTOR_WORK); /* the clean-up has asked for it again */
    l->o.on_lost(l->o.user, l->why);
}

void redis_link_close(struct redis_link **lp)
{
    struct redis_link *l = *lp;
    if (!l)
        return;
    end_context(l);
    reactor_undefer(l->reactor, &l->end, REACTOR_WORK);
    free(l);
    *lp = NULL;
}

/* ---- on the reactor ---- */

static void watch(struct redis_link *l, uint32_t events)
{
    if (events == l->events || !l->is_watched)
        return;
    l->events = events;
    if (reactor_modify(l->reactor, &l->io, events))
        redis_link_fail(l, "the event loop does not take its socket");
}

static void on_ready(struct reactor_io *io, uint32_t events)
{
    struct redis_link *l = container_of(io, struct redis_link, io);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        redisAsyncHandleRead(l->context);
    if (l->context && (events & EPOLLOUT))
        redisAsyncHandleWrite(l->context);
}

static void on_flush(struct reactor_task *task)
{
    struct redis_link *l = container_of(task, struct redis_link, flush);
    l->is_flushing = true;
    redisAsyncHandleWrite(l->context);
    l->is_flushing = false;
}

static void on_add_read(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->events | EPOLLIN);
}

static void on_del_read(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->events & ~(uint32_t)EPOLLIN);
}

/* Before it is connected, being writable is how that shows. */
static void on_add_write(void *arg)
{
    struct redis_link *l = arg;
    if (l->is_flushing || !(l->context->c.flags & REDIS_CONNECTED))
        watch(l, l->events | EPOLLOUT);
    else if (!(l->events & EPOLLOUT))
        reactor_defer(l->reactor, &l->flush, REACTOR_FLUSH);
}

static void on_del_write(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->events & ~(uint32_t)EPOLLOUT);
}

/* ---- questions ---- */

static void arm(struct redis_link *l)
{
    uint64_t now_us, due_us;
    reactor_timer_cancel(l->reactor, &l->timer);
    if (!l->first || !l->context)
        return;
    now_us = clock_us();
    due_us = l->first->asked_us + l->o.timeout_ms * 1000;
    reactor_timer_set(l->reactor, &l->timer, due_us > now_us ? (due_us - now_us + 999) / 1000 : 0);
}

/* Answers do not move the timer: most would for nothing. */
static void on_timeout(struct timer *t)
{
    struct redis_link *l = container_of(t, struct redis_link, timer);
    if (l->first && l->first->asked_us + l->o.timeout_ms * 1000 <= clock_us())
        redis_link_fail(l, "no answer in time");
    else
        arm(l);
}

static void on_reply(redisAsyncContext *context, void *reply, void *arg)
{
    struct redis_ask *ask = arg;
    struct redis_link *l = context->data;
    l->first = ask->next;
    if (!l->first)
        l->tail = &l->first;
    l->pending_bytes -= ask->bytes;
    ask->on_answer(ask, reply);
}

static void enqueue(struct redis_link *l, struct redis_ask *ask)
{
    ask->next = NULL;
    *l->tail = ask;
    l->tail = &ask->next;
    l->pending_bytes += ask->bytes;
    if (!timer_pending(&l->timer))
        arm(l);
}

int redis_link_ask(struct redis_link *l, struct redis_ask *ask, const struct span *argv, unsigned argc)
{
    const char *text[MAX_ARGS];
    size_t length[MAX_ARGS];
    if (!l->context || l->is_ending || argc > MAX_ARGS)
        return ERR_STORE;
    ask->bytes = COMMAND_OVERHEAD_BYTES;
    for (unsigned i = 0; i < argc; i++) {
        text[i] = argv[i].n ? argv[i].p : "";
        length[i] = argv[i].n;
        ask->bytes += argv[i].n;
    }
    ask->asked_us = clock_us();
    if (redisAsyncCommandArgv(l->context, on_reply, ask, (int)argc, text, length) != REDIS_OK)
        return ERR_STORE;
    enqueue(l, ask);
    return 0;
}

bool redis_link_is_ending(const struct redis_link *l)
{
    return l->is_ending || !l->context;
}

size_t redis_link_pending_bytes(const struct redis_link *l)
{
    return l->pending_bytes;
}

/* ---- the beginning ---- */

static void attach(struct redis_link *l)
{
    redisAsyncContext *c = l->context;
    c->data = c->ev.data = l;
    c->ev.addRead = on_add_read;
    c->ev.delRead = on_del_read;
    c->ev.addWrite = on_add_write;
    c->ev.delWrite = on_del_write;
    c->ev.cleanup = on_cleanup;
    count_replies(l);
    l->io = (struct reactor_io){.on_ready = on_ready, .fd = c->c.fd};
    l->events = EPOLLIN | EPOLLOUT;
    fcntl(c->c.fd, F_SETFD, FD_CLOEXEC);
    l->is_watched = reactor_add(l->reactor, &l->io, l->events) == 0;
    if (!l->is_watched)
        redis_link_fail(l, "the event loop does not take its socket");
}

struct redis_link *redis_link_open(struct reactor *r, const struct redis_link_options *o)
{
    struct redis_link *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->reactor = r;
    l->o = *o;
    l->tail = &l->first;
    l->flush.run = on_flush;
    l->end.run = on_end;
    timer_init(&l->timer, on_timeout);
    l->context = o->ip ? redisAsyncConnect(o->ip, o->port) : redisAsyncConnectUnix(o->path);
    if (!l->context)
        redis_link_fail(l, "out of memory");
    else if (l->context->err)
        redis_link_fail(l, l->context->errstr);
    else
        attach(l);
    return l;
}
