#include "exchange.h"

/* Unless a WELCOME says otherwise. */
enum { HEARTBEAT_MS = 300, TIMEOUT_MS = 1000 };
/* What a WELCOME may say. */
enum { HEARTBEAT_MAX_MS = 60 * 1000, TIMEOUT_MAX_MS = 600 * 1000 };
enum { STEADY_MS = 1000 };

void exchange_hello(struct exchange *x, struct agent_record *r, const char *name, const char *instance,
                    const char *about)
{
    x->sent = x->received = x->granted = 0;
    x->given = x->window;
    agent_init(r, AGENT_HELLO);
    r->version = AGENT_VERSION;
    r->name = span_of(name);
    r->instance = span_of(instance);
    r->credit = x->window;
    agent_with(r, AGENT_F_ABOUT)->about = span_of(about);
}

void exchange_credit(struct exchange *x, struct agent_record *r)
{
    x->given = x->received + x->window;
    agent_init(r, AGENT_CREDIT);
    r->credit = x->given;
}

void exchange_bye(struct agent_record *r, const char *code, const char *text)
{
    agent_init(r, AGENT_BYE);
    r->code = span_of(code);
    r->text = span_of(text);
}

static uint64_t between(uint64_t said, uint64_t otherwise, uint64_t most)
{
    return said == 0 ? otherwise : said < most ? said : most;
}

void exchange_welcome(struct exchange *x, const struct agent_record *welcome)
{
    x->since_ms = x->heard_ms;
    x->granted = welcome->credit;
    x->heartbeat_ms = between(welcome->heartbeat_ms, HEARTBEAT_MS, HEARTBEAT_MAX_MS);
    x->timeout_ms = between(welcome->timeout_ms, TIMEOUT_MS, TIMEOUT_MAX_MS);
}

bool exchange_was_steady(const struct exchange *x, uint64_t now_ms)
{
    return now_ms >= x->since_ms + STEADY_MS;
}

void exchange_granted(struct exchange *x, const struct agent_record *credit)
{
    if (credit->credit > x->granted)
        x->granted = credit->credit;
}

void exchange_sent(struct exchange *x, size_t n, uint64_t now_ms)
{
    x->sent += n;
    x->said_ms = now_ms;
}

bool exchange_is_silent(const struct exchange *x, uint64_t now_ms)
{
    return now_ms >= x->heard_ms + x->timeout_ms;
}

bool exchange_owes_credit(const struct exchange *x, uint64_t now_ms)
{
    return now_ms >= x->said_ms + x->heartbeat_ms || x->received + x->window >= x->given + x->window / 2;
}

uint64_t exchange_due_ms(const struct exchange *x)
{
    uint64_t silent_ms = x->heard_ms + x->timeout_ms, beat_ms = x->said_ms + x->heartbeat_ms;
    return silent_ms < beat_ms ? silent_ms : beat_ms;
}
