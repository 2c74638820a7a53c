#include "uplink.h"
#include "agent.h"
#include "endpoints.h"
#include "err.h"
#include "exchange.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    ANSWER_MS = 1000,         /* to a HELLO */
    WINDOW_BYTES = 64 * 1024, /* a node has hardly anything to say to a monitor */
};

/* state        what ends it                        then
 * WAITING      the time is over                    HELLO to the next endpoint, ASKING
 * ASKING       WELCOME                             UP
 *              ERROR, BYE, no answer               the next endpoint; after the last one, WAITING
 * UP           silence, BYE, ERROR hello, drain    the next endpoint */
enum state { WAITING, ASKING, UP };

struct uplink {
    struct uplink_options options;
    enum state state;
    struct endpoints endpoints;
    struct backoff backoff;
    struct exchange exchange;
    unsigned tried;          /* since a connection that stood for a while, or a wait */
    uint64_t until_ms;       /* of WAITING and ASKING */
    unsigned welcomes, left; /* how often */
    bool moving;             /* the node wants to be left */
    msgpack_sbuffer out;
    struct agent_record record;
};

bool uplink_check(const char *endpoints)
{
    return endpoints_check(endpoints);
}

/* ---- saying something ---- */

static void report(const struct uplink *u, const char *event, struct span text)
{
    if (u->options.on_event)
        u->options.on_event(event, endpoints_current(&u->endpoints), text);
}

static void transmit(struct uplink *u, uint64_t now_ms, struct span message)
{
    u->options.link.send(u->options.link.link, message);
    exchange_sent(&u->exchange, u->state == UP ? message.n : 0, now_ms);
}

static void say(struct uplink *u, uint64_t now_ms, const struct agent_record *r)
{
    msgpack_sbuffer_clear(&u->out);
    if (agent_write(&u->out, r) == 0)
        transmit(u, now_ms, (struct span){u->out.data, u->out.size});
}

static void say_bye(struct uplink *u, uint64_t now_ms)
{
    exchange_bye(&u->record, agent_code(AGENT_E_ENDED), "the monitor ends or goes to another node");
    say(u, now_ms, &u->record);
}

/* ---- states ---- */

static void wait_a_while(struct uplink *u, uint64_t now_ms)
{
    u->state = WAITING;
    u->until_ms = now_ms + backoff_next_ms(&u->backoff);
    u->tried = 0;
}

/* All endpoints without a pause, and then a wait. */
static void ask_next(struct uplink *u, uint64_t now_ms)
{
    while (u->tried < u->endpoints.n) {
        u->tried++;
        if (u->options.link.open(u->options.link.link, endpoints_current(&u->endpoints))) {
            u->state = ASKING;
            u->until_ms = now_ms + ANSWER_MS;
            exchange_hello(&u->exchange, &u->record, u->options.name, u->options.instance, u->options.about);
            say(u, now_ms, &u->record);
            return;
        }
        report(u, "cannot_connect", SPAN(""));
        endpoints_next(&u->endpoints);
    }
    wait_a_while(u, now_ms);
}

static void leave(struct uplink *u, uint64_t now_ms, const char *event, struct span why)
{
    report(u, event, why);
    u->options.link.close(u->options.link.link);
    if (u->state == UP && exchange_was_steady(&u->exchange, now_ms)) {
        backoff_reset(&u->backoff);
        u->tried = 0;
    }
    u->moving = false;
    u->left++;
    u->state = WAITING;
    endpoints_next(&u->endpoints);
    ask_next(u, now_ms);
}

static void begin(struct uplink *u, const struct agent_record *r)
{
    u->state = UP;
    exchange_welcome(&u->exchange, r);
    u->welcomes++;
    report(u, "connected", r->node);
    endpoints_learn(&u->endpoints, r, 1);
}

/* A node that is not ready is asked again later: its peers are tried meanwhile. */
static void take_error(struct uplink *u, uint64_t now_ms, const struct agent_record *r)
{
    if (u->state == ASKING)
        leave(u, now_ms, "refused", r->text);
    else if (agent_code_of(r->code) == AGENT_E_HELLO)
        leave(u, now_ms, "forgotten", r->text);
    else
        report(u, "error", r->text);
}

static void take_record(struct uplink *u, uint64_t now_ms, const struct agent_record *r)
{
    switch (r->kind) {
    case AGENT_WELCOME:
        if (u->state == ASKING)
            begin(u, r);
        break;
    case AGENT_CREDIT:
        exchange_granted(&u->exchange, r);
        break;
    case AGENT_NODE:
        if (agent_has(r, AGENT_F_PEERS))
            endpoints_learn(&u->endpoints, r, 1);
        u->moving |= r->draining;
        break;
    case AGENT_BYE:
        leave(u, now_ms, "ended", r->text);
        break;
    case AGENT_ERROR:
        take_error(u, now_ms, r);
        break;
    default:
        break; /* a monitor asks for nothing and registers nothing */
    }
}

void uplink_receive(struct uplink *u, uint64_t now_ms, struct span message)
{
    struct agent_reader reader = agent_open(message);
    bool counts = u->state == UP;
    if (u->state == WAITING)
        return;
    u->exchange.heard_ms = now_ms;
    exchange_received(&u->exchange, counts ? message.n : 0);
    const unsigned left = u->left;
    int rc;
    while ((rc = agent_read(&reader, &u->record)) != 0 && rc != ERR_AGENT) {
        if (rc == 1)
            take_record(u, now_ms, &u->record);
        if (u->left != left)
            return; /* what follows is of a connection that is no more */
    }
    if (u->state == UP && u->moving) {
        say_bye(u, now_ms);
        leave(u, now_ms, "drained", SPAN(""));
    }
}

void uplink_run(struct uplink *u, uint64_t now_ms)
{
    switch (u->state) {
    case WAITING:
        if (now_ms >= u->until_ms)
            ask_next(u, now_ms);
        break;
    case ASKING:
        if (now_ms >= u->until_ms)
            leave(u, now_ms, "no_answer", SPAN(""));
        break;
    case UP:
        if (exchange_is_silent(&u->exchange, now_ms)) {
            leave(u, now_ms, "silent", SPAN(""));
        } else if (exchange_owes_credit(&u->exchange, now_ms)) {
            exchange_credit(&u->exchange, &u->record);
            say(u, now_ms, &u->record);
        }
        break;
    }
}

uint64_t uplink_due_ms(const struct uplink *u)
{
    return u->state == UP ? exchange_due_ms(&u->exchange) : u->until_ms;
}

unsigned uplink_welcome(const struct uplink *u)
{
    return u->state == UP ? u->welcomes : 0;
}

bool uplink_send(struct uplink *u, uint64_t now_ms, struct span message)
{
    if (u->state != UP || !exchange_may_send(&u->exchange))
        return false;
    transmit(u, now_ms, message);
    return true;
}

/* ---- life ---- */

struct uplink *uplink_new(const struct uplink_options *o)
{
    struct uplink *u = calloc(1, sizeof(*u));
    if (!u)
        return NULL;
    u->options = *o;
    u->exchange.window = WINDOW_BYTES;
    backoff_init(&u->backoff, o->seed);
    msgpack_sbuffer_init(&u->out);
    endpoints_init(&u->endpoints, o->endpoints);
    return u;
}

void uplink_free(struct uplink **u)
{
    struct uplink *old = *u;
    if (!old)
        return;
    if (old->state == UP)
        say_bye(old, old->exchange.said_ms);
    if (old->state != WAITING)
        old->options.link.close(old->options.link.link);
    msgpack_sbuffer_destroy(&old->out);
    free(old);
    *u = NULL;
}
