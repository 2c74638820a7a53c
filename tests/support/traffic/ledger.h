/* Who sent what to whom: every event that was sent is accounted for at every client that had to get it.
 * A *life* is one connection of a client, from the acknowledgement of its join to its end; each life numbers what it
 * sends to its room from 0, and the room's other lives must hear these numbers once, in order, without a hole.
 * Thread: one. A life belongs to the ledger and stays until ledger_free(). */
#ifndef TRAFFIC_LEDGER_H
#define TRAFFIC_LEDGER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct ledger;
struct life;

/* names: one for each target, borrowed. */
struct ledger *ledger_new(unsigned rooms, unsigned targets, const char *const *names);
void ledger_free(struct ledger *l);

struct life *ledger_begin(struct ledger *l, unsigned room, unsigned target);
/* The connection is gone: what was on its way to it or from it is not missed. */
void ledger_end(struct ledger *l, struct life *life);

uint32_t life_id(const struct life *life);
/* The number of the next event that it sends. */
uint64_t ledger_send(struct ledger *l, struct life *from);
/* An emit was answered; false: it was refused. */
void ledger_acknowledge(struct ledger *l, struct life *from, uint64_t number, bool ok);
/* to heard event number of the life from_id, sent took_us ago. */
void ledger_hear(struct ledger *l, struct life *to, uint64_t from_id, uint64_t number, uint64_t took_us);
/* to was told by bus:gap that events are lost. */
void ledger_gap(struct ledger *l, struct life *to);

uint64_t ledger_sent(const struct ledger *l);
uint64_t ledger_heard(const struct ledger *l);
/* Events and acknowledgements that have yet to come. */
uint64_t ledger_missing(const struct ledger *l);
/* The members of a JSON object, without its braces. */
void ledger_report(const struct ledger *l, FILE *out);

#endif
