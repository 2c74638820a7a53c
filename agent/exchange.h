/* An agent's side of one connection, but for its bytes: what it says by itself (HELLO, CREDIT, BYE), the sums of "Flow
 * control", and when the node counts as silent. For the library and for the monitor. No I/O and no clock of its own; of
 * one thread. */
#ifndef STARLING_EXCHANGE_H
#define STARLING_EXCHANGE_H

#include "agent.h"
#include <stdbool.h>
#include <stdint.h>

struct exchange {
    uint64_t window;          /* bytes that the node may have under way */
    uint64_t sent, granted;   /* bytes; what we may send */
    uint64_t received, given; /* bytes; what the node may send */
    uint64_t heard_ms, said_ms;
    uint64_t since_ms; /* of the WELCOME */
    uint64_t heartbeat_ms, timeout_ms;
};

/* ---- records that an agent says; texts are borrowed ---- */

/* Begins the sums anew, too. */
void exchange_hello(struct exchange *x, struct agent_record *r, const char *name, const char *instance,
                    const char *about);
void exchange_credit(struct exchange *x, struct agent_record *r);
void exchange_bye(struct agent_record *r, const char *code, const char *text);

/* ---- what happens ---- */

void exchange_welcome(struct exchange *x, const struct agent_record *welcome);
void exchange_granted(struct exchange *x, const struct agent_record *credit);
/* A message behind the HELLO went; one behind the WELCOME has been dealt with. */
void exchange_sent(struct exchange *x, size_t n, uint64_t now_ms);
static inline void exchange_received(struct exchange *x, size_t n)
{
    x->received += n;
}

/* Has it stood for a while? What ends sooner may end again as soon: the next attempt waits then. */
bool exchange_was_steady(const struct exchange *x, uint64_t now_ms);

/* ---- what is due ---- */

static inline bool exchange_may_send(const struct exchange *x)
{
    return x->sent < x->granted;
}
bool exchange_is_silent(const struct exchange *x, uint64_t now_ms);
bool exchange_owes_credit(const struct exchange *x, uint64_t now_ms);
uint64_t exchange_due_ms(const struct exchange *x);

#endif
