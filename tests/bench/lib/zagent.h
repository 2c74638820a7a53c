/* An agent of Starling as proto/agent.md has it: a DEALER on the load client's loop, with just the records that are
 * measured. It shares no code with the library under test. */
#ifndef BENCH_ZAGENT_H
#define BENCH_ZAGENT_H

#include "loop.h"

enum zagent_kind {
    ZAGENT_CREDIT = 3,
    ZAGENT_BYE = 5,
    ZAGENT_ERROR = 6,
    ZAGENT_OK = 7,
    ZAGENT_EMIT = 16,
    ZAGENT_HANDLE = 18,
    ZAGENT_REGISTER = 19,
    ZAGENT_ASK = 33,
    ZAGENT_CALL = 66,
    ZAGENT_ASKED = 73,
};

enum { ZAGENT_BATCH = 65536, ZAGENT_RECORD_MAX = 1024, ZAGENT_VALUES = 8 };

/* An element of a record; of a map the first value, which is all that answers have. */
struct zagent_value {
    uint64_t number;
    const char *p; /* of texts and bin, else NULL */
    size_t n;
};

struct zagent {
    struct io io;
    struct loop *loop;
    const char *name;
    void *user;
    /* v[0] is the kind. */
    void (*on_record)(struct zagent *a, const struct zagent_value *v, unsigned n);
    void (*after_read)(struct zagent *a); /* after all on_record of one turn; may be NULL */
    void *socket;
    bool is_welcome;
    uint64_t sent, granted, got, given, said_ns;
    uint64_t asked, answered; /* by zagent_wait() */
    size_t out_n;
    uint8_t out[ZAGENT_BATCH + ZAGENT_RECORD_MAX];
};

/* Connects to a node; returns when it is welcome, or dies. The fields up to after_read are the
 * caller's to fill. */
void zagent_open(struct zagent *a, void *zmq_context, const char *endpoint);
/* Says BYE, so that its registrations go at once. */
void zagent_close(struct zagent *a);
bool zagent_may_send(const struct zagent *a);

/* What is put goes with the next flush, or when 64 KiB are there. */
void zagent_put_array(struct zagent *a, unsigned n); /* begins a record */
void zagent_put_map(struct zagent *a, unsigned n);
void zagent_put_uint(struct zagent *a, uint64_t number);
void zagent_put_text(struct zagent *a, const char *p, size_t n);
void zagent_flush(struct zagent *a);

/* Flushes, and turns until the request with this id has been answered; an ERROR ends the program. */
void zagent_wait(struct zagent *a, uint64_t id);

#endif
