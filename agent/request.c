#include "request.h"
#include "err.h"
#include <stdlib.h>

int requests_init(struct requests *q, size_t limit)
{
    *q = (struct requests){.limit = limit, .batch = malloc(AGENT_BATCH_BYTES)};
    q->end = &q->first;
    return q->batch ? 0 : ERR_MEMORY;
}

void requests_deinit(struct requests *q)
{
    struct request *r, *next;
    for (r = q->first; r; r = next) {
        next = r->next;
        if (!r->wanted)
            free(r);
    }
    HASH_ITER(hh, q->table, r, next)
    {
        HASH_DEL(q->table, r);
        free(r);
    }
    free(q->batch);
}

struct request *request_new(const void *bytes, size_t n)
{
    struct request *r = malloc(sizeof(*r) + n);
    if (!r)
        return NULL;
    memset(r, 0, sizeof(*r));
    memcpy(r->bytes, bytes, n);
    r->n = n;
    return r;
}

static size_t weight(const struct request *r)
{
    return sizeof(*r) + r->n;
}

bool requests_full(const struct requests *q, size_t n)
{
    return q->bytes > 0 && q->bytes + sizeof(struct request) + n > q->limit;
}

static void append(struct requests *q, struct request *r)
{
    r->queued = true;
    r->picked = false;
    r->next = NULL;
    *q->end = r;
    q->end = &r->next;
    q->n_answers += r->is_answer;
    q->queued += r->n;
}

void requests_add(struct requests *q, struct request *r)
{
    append(q, r);
    q->bytes += weight(r);
    if (r->wanted)
        HASH_ADD(hh, q->table, id, sizeof(r->id), r);
}

struct request *requests_find(struct requests *q, uint64_t id)
{
    struct request *r;
    HASH_FIND(hh, q->table, &id, sizeof(id), r);
    return r;
}

static void forget(struct requests *q, struct request *r)
{
    q->bytes -= weight(r);
    free(r);
}

static void unlink_from_queue(struct requests *q, struct request *r)
{
    struct request **at = &q->first;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    if (q->end == &r->next)
        q->end = at;
    q->n_answers -= r->is_answer;
    q->queued -= r->n;
    r->queued = false;
}

void requests_drop(struct requests *q, struct request *r)
{
    if (r->queued)
        unlink_from_queue(q, r);
    if (r->wanted)
        HASH_DEL(q->table, r);
    forget(q, r);
}

/* ---- sending ---- */

/* Marks what goes with the next message: as many records as a batch holds, at least one. Without credit answers
 * only. Returns their number, and their bytes in *n. */
static unsigned pick(struct requests *q, bool credit, size_t *n)
{
    unsigned count = 0;
    *n = 0;
    for (struct request *r = q->first; r; r = r->next) {
        if (!credit && !r->is_answer)
            continue;
        if (count > 0 && *n + r->n > AGENT_BATCH_BYTES)
            break;
        r->picked = true;
        *n += r->n;
        count++;
        if (!credit && count == q->n_answers)
            break;
    }
    return count;
}

static bool send_picked(struct requests *q, unsigned count, size_t n, struct link *l, uint64_t now_ms)
{
    struct request *r = q->first;
    while (!r->picked)
        r = r->next;
    if (count == 1)
        return link_send(l, r->bytes, r->n, now_ms);
    char *p = q->batch;
    for (; count > 0; r = r->next) {
        if (!r->picked)
            continue;
        p = mempcpy(p, r->bytes, r->n);
        count--;
    }
    return link_send(l, q->batch, n, now_ms);
}

/* sent: they leave the queue; else they stay for the next time. */
static void settle(struct requests *q, unsigned count, bool sent)
{
    for (struct request **at = &q->first; count > 0;) {
        struct request *r = *at;
        if (!r->picked || !sent) {
            count -= r->picked;
            r->picked = false;
            at = &r->next;
            continue;
        }
        count--;
        *at = r->next;
        if (q->end == &r->next)
            q->end = at;
        q->n_answers -= r->is_answer;
        q->queued -= r->n;
        r->queued = r->picked = false;
        if (!r->wanted)
            forget(q, r);
    }
}

void requests_flush(struct requests *q, struct link *l, uint64_t now_ms)
{
    bool sent = true;
    while (sent && q->first && link_state(l) == LINK_OPEN) {
        bool credit = link_has_credit(l);
        size_t n;
        unsigned count = credit || q->n_answers > 0 ? pick(q, credit, &n) : 0;
        if (count == 0)
            return;
        sent = send_picked(q, count, n, l, now_ms);
        settle(q, count, sent);
    }
}

/* ---- connections that end ---- */

struct request *requests_set_aside(struct requests *q)
{
    struct request *aside = q->first;
    q->first = NULL;
    q->end = &q->first;
    q->n_answers = 0;
    q->queued = 0;
    return aside;
}

void requests_put_back(struct requests *q, struct request *aside)
{
    for (struct request *next; aside; aside = next) {
        next = aside->next;
        append(q, aside);
    }
}

static void drop_bound(struct requests *q)
{
    struct request *next;
    for (struct request *r = requests_set_aside(q); r; r = next) {
        next = r->next;
        if (r->is_bound)
            forget(q, r);
        else
            append(q, r);
    }
}

/* `again` is the last option of an EMIT, so the record ends with it. */
static void say_again(struct request *r)
{
    r->bytes[r->n - 1] = (char)0xc3; /* true */
}

void requests_reset(struct requests *q, void (*fail)(void *user, struct request *r), void *user)
{
    struct request *r, *next, *failed = NULL, **end = &failed;
    drop_bound(q);
    struct request *aside = requests_set_aside(q);
    HASH_ITER(hh, q->table, r, next)
    {
        if (r->queued)
            continue;
        if (r->has_key) {
            say_again(r);
            append(q, r);
            continue;
        }
        HASH_DEL(q->table, r);
        r->wanted = false;
        *end = r;
        end = &r->next;
    }
    *end = NULL;
    requests_put_back(q, aside);
    for (r = failed; r; r = next) {
        next = r->next;
        fail(user, r);
    }
}

void requests_expire(struct requests *q, uint64_t now_ms, void (*fail)(void *user, struct request *r),
                     void *user)
{
    struct request *r, *next, *failed = NULL, **end = &failed;
    HASH_ITER(hh, q->table, r, next)
    {
        if (r->expires_ms > now_ms)
            continue;
        if (r->queued)
            unlink_from_queue(q, r);
        HASH_DEL(q->table, r);
        r->wanted = false;
        *end = r;
        end = &r->next;
    }
    *end = NULL;
    for (r = failed; r; r = next) {
        next = r->next;
        fail(user, r);
    }
}
