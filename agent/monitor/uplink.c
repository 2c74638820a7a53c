#include "uplink.h"
#include "agent.h"
#include "err.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    ENDPOINTS_MAX = 64,
    ANSWER_MS = 1000, /* to a HELLO */
    WAIT_MS = 100,
    WAIT_MAX_MS = 5000,
    WINDOW_BYTES = 64 * 1024, /* a node has hardly anything to say to a monitor */
    HEARTBEAT_MS = 300,
    TIMEOUT_MS = 1000,
    NO_ANSWER = 0,
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
    unsigned n_own, n, current; /* those given first, then those that nodes have told of */
    unsigned tried;             /* since the last WELCOME or wait */
    char endpoint[ENDPOINTS_MAX][UPLINK_ENDPOINT_BYTES + 1];
    uint64_t wait_ms, until_ms; /* until_ms: of WAITING and ASKING */
    uint64_t heard_ms, said_ms, heartbeat_ms, timeout_ms;
    uint64_t sent, granted, got; /* bytes, see "Flow control" */
    unsigned welcomes, left;     /* how often */
    bool moving;                 /* the node wants to be left */
    uint64_t random;
    msgpack_sbuffer out;
    struct agent_record record;
};

/* ---- endpoints ---- */

static bool is_endpoint(struct span text)
{
    static const char *const kinds[] = {"tcp://", "ipc://"};
    if (text.n > UPLINK_ENDPOINT_BYTES)
        return false;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (text.n > strlen(kinds[i]) && memcmp(text.p, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

/* The next item of a comma list; false behind the last one. */
static bool next_item(const char **list, struct span *item)
{
    if (!*list)
        return false;
    *item = (struct span){*list, strcspn(*list, ",")};
    *list = (*list)[item->n] == ',' ? *list + item->n + 1 : NULL;
    return true;
}

bool uplink_check(const char *endpoints)
{
    struct span item;
    unsigned n = 0;
    while (next_item(&endpoints, &item))
        if (!is_endpoint(item) || ++n > ENDPOINTS_MAX)
            return false;
    return n > 0;
}

static void add_endpoint(struct uplink *u, struct span endpoint)
{
    if (u->n == ENDPOINTS_MAX || !is_endpoint(endpoint))
        return;
    for (unsigned i = 0; i < u->n; i++)
        if (span_eq(span_of(u->endpoint[i]), endpoint))
            return;
    memcpy(u->endpoint[u->n], endpoint.p, endpoint.n);
    u->endpoint[u->n++][endpoint.n] = '\0';
}

/* The node that is spoken with keeps its place, so that the search goes on behind it. */
static void learn_peers(struct uplink *u, const struct agent_record *r)
{
    char here[UPLINK_ENDPOINT_BYTES + 1];
    memcpy(here, u->endpoint[u->current], sizeof(here));
    u->n = u->n_own;
    for (unsigned i = 0; i < r->n_peers; i++)
        if (r->peers[i].n_endpoints > 0)
            add_endpoint(u, r->peers[i].endpoints[0]);
    add_endpoint(u, span_of(here));
    for (u->current = 0; u->current < u->n && strcmp(u->endpoint[u->current], here) != 0;)
        u->current++;
    if (u->current == u->n)
        u->current = 0;
}

/* ---- saying something ---- */

static void report(const struct uplink *u, const char *event, struct span text)
{
    if (u->options.on_event)
        u->options.on_event(event, u->endpoint[u->current], text);
}

static void transmit(struct uplink *u, uint64_t now_ms, struct span message)
{
    u->options.link.send(u->options.link.link, message);
    u->said_ms = now_ms;
    if (u->state == UP)
        u->sent += message.n;
}

static void say(struct uplink *u, uint64_t now_ms, const struct agent_record *r)
{
    msgpack_sbuffer_clear(&u->out);
    if (agent_write(&u->out, r) == 0)
        transmit(u, now_ms, (struct span){u->out.data, u->out.size});
}

static void say_hello(struct uplink *u, uint64_t now_ms)
{
    agent_init(&u->record, AGENT_HELLO);
    u->record.version = AGENT_VERSION;
    u->record.name = span_of(u->options.name);
    u->record.instance = span_of(u->options.instance);
    u->record.credit = WINDOW_BYTES;
    agent_with(&u->record, AGENT_F_ABOUT)->about = span_of(u->options.about);
    say(u, now_ms, &u->record);
}

static void say_credit(struct uplink *u, uint64_t now_ms)
{
    agent_init(&u->record, AGENT_CREDIT);
    u->record.credit = u->got + WINDOW_BYTES;
    say(u, now_ms, &u->record);
}

static void say_bye(struct uplink *u, uint64_t now_ms)
{
    agent_init(&u->record, AGENT_BYE);
    u->record.code = span_of(agent_code(AGENT_E_ENDED));
    u->record.text = SPAN("the monitor ends or goes to another node");
    say(u, now_ms, &u->record);
}

/* ---- states ---- */

/* xorshift64: spreads the monitors of many machines; no secret. */
static uint64_t draw(struct uplink *u)
{
    u->random ^= u->random << 13;
    u->random ^= u->random >> 7;
    u->random ^= u->random << 17;
    return u->random;
}

/* Shortened by up to a half. */
static void wait_a_while(struct uplink *u, uint64_t now_ms)
{
    u->state = WAITING;
    u->until_ms = now_ms + u->wait_ms - draw(u) % (u->wait_ms / 2 + 1);
    u->wait_ms = u->wait_ms < WAIT_MAX_MS / 2 ? u->wait_ms * 2 : WAIT_MAX_MS;
    u->tried = 0;
}

/* All endpoints without a pause, and then a wait. */
static void ask_next(struct uplink *u, uint64_t now_ms)
{
    while (u->tried < u->n) {
        u->tried++;
        if (u->options.link.open(u->options.link.link, u->endpoint[u->current])) {
            u->state = ASKING;
            u->until_ms = now_ms + ANSWER_MS;
            u->sent = u->got = 0;
            say_hello(u, now_ms);
            return;
        }
        report(u, "cannot_connect", SPAN(""));
        u->current = (u->current + 1) % u->n;
    }
    wait_a_while(u, now_ms);
}

static void leave(struct uplink *u, uint64_t now_ms, const char *event, struct span why)
{
    report(u, event, why);
    u->options.link.close(u->options.link.link);
    u->moving = false;
    u->left++;
    u->state = WAITING;
    u->current = (u->current + 1) % u->n;
    ask_next(u, now_ms);
}

static void begin(struct uplink *u, const struct agent_record *r)
{
    u->state = UP;
    u->granted = r->credit;
    u->heartbeat_ms = r->heartbeat_ms > 0 ? r->heartbeat_ms : HEARTBEAT_MS;
    u->timeout_ms = r->timeout_ms > 0 ? r->timeout_ms : TIMEOUT_MS;
    u->wait_ms = WAIT_MS;
    u->tried = 0;
    u->welcomes++;
    report(u, "connected", r->node);
    learn_peers(u, r);
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
        if (r->credit > u->granted)
            u->granted = r->credit;
        break;
    case AGENT_NODE:
        if (agent_has(r, AGENT_F_PEERS))
            learn_peers(u, r);
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
    u->heard_ms = now_ms;
    u->got += counts ? message.n : 0;
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
        if (now_ms >= u->heard_ms + u->timeout_ms)
            leave(u, now_ms, "silent", SPAN(""));
        else if (now_ms >= u->said_ms + u->heartbeat_ms)
            say_credit(u, now_ms);
        break;
    }
}

uint64_t uplink_due_ms(const struct uplink *u)
{
    if (u->state != UP)
        return u->until_ms;
    uint64_t silent = u->heard_ms + u->timeout_ms, heartbeat = u->said_ms + u->heartbeat_ms;
    return silent < heartbeat ? silent : heartbeat;
}

unsigned uplink_welcome(const struct uplink *u)
{
    return u->state == UP ? u->welcomes : 0;
}

bool uplink_send(struct uplink *u, uint64_t now_ms, struct span message)
{
    if (u->state != UP || u->sent >= u->granted)
        return false;
    transmit(u, now_ms, message);
    return true;
}

/* ---- life ---- */

struct uplink *uplink_new(const struct uplink_options *o)
{
    struct uplink *u = calloc(1, sizeof(*u));
    struct span item;
    const char *list = o->endpoints;
    if (!u)
        return NULL;
    u->options = *o;
    u->random = o->seed | 1; /* never 0 */
    u->wait_ms = WAIT_MS;
    msgpack_sbuffer_init(&u->out);
    while (next_item(&list, &item))
        add_endpoint(u, item);
    u->n_own = u->n;
    return u;
}

void uplink_free(struct uplink **u)
{
    struct uplink *old = *u;
    if (!old)
        return;
    if (old->state == UP)
        say_bye(old, old->said_ms);
    if (old->state != WAITING)
        old->options.link.close(old->options.link.link);
    msgpack_sbuffer_destroy(&old->out);
    free(old);
    *u = NULL;
}
