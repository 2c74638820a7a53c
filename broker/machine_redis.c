/* A level of a history is cut into chunks by the numbers of its points. A chunk is a field of the machine's hash, whose
 * name is the chunk's number modulo how many there may be, so that a new one takes the place of one that is too old. What
 * has grown is written whole: a chunk is small, and a field that is written twice does no harm. */
#include "machine_redis.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "table.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    FLUSH_MS = 10000, /* between two writings of one machine */
    LOOK_MS = 1000,
    READ_AGAIN_MS = 5000,
    KEEP_MS = 24 * 60 * 60 * 1000, /* as long as the history lasts */
    TAKE_OVER_MS = 60000,          /* what is older was written by the node that the agent was at before */
    CHUNKS_AT_ONCE = 4,            /* of a level: after a time without Redis there may be more */
    FIELDS = 1 + HISTORY_LEVELS * CHUNKS_AT_ONCE,
    HEAD_ARGS = 9,
    KEY_BYTES = 128,
    NAME_BYTES = 24,
};

_Static_assert(HEAD_ARGS + 2 * FIELDS <= REDIS_LINK_ARGS, "all fields go with one question");

static const unsigned chunk_points[HISTORY_LEVELS] = {
    [HISTORY_SECONDS] = 30, [HISTORY_TENS] = 20, [HISTORY_MINUTES] = 20};

/* KEYS: machines, machine:<id>. ARGV: id, keep_ms, most, prefix of the machines' keys, then fields and values. It begins
 * with what needs memory, so that Redis refuses all of it when it is full. */
static const char write_script[] = "redis.call('HSET', KEYS[2], unpack(ARGV, 5))\n"
                                   "redis.call('PEXPIRE', KEYS[2], ARGV[2])\n"
                                   "local t = redis.call('TIME')\n"
                                   "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
                                   "local function text(n) return string.format('%.0f', n) end\n"
                                   "redis.call('ZADD', KEYS[1], text(now + ARGV[2]), ARGV[1])\n"
                                   "redis.call('PEXPIRE', KEYS[1], ARGV[2])\n"
                                   "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))\n"
                                   "for _, old in ipairs(redis.call('ZRANGE', KEYS[1], 0, -ARGV[3] - 1)) do\n"
                                   "  redis.call('DEL', ARGV[4] .. old)\n"
                                   "  redis.call('ZREM', KEYS[1], old)\n"
                                   "end\n"
                                   "return redis.call('HLEN', KEYS[2])\n";

/* A machine whose agent is, or was, at this node. */
struct kept {
    struct machine_redis *owner;
    uint64_t machine;
    bool is_heard; /* since it was written */
    bool is_asked, has_more;
    uint64_t due_ms;
    uint64_t written[HISTORY_LEVELS], asked[HISTORY_LEVELS]; /* the newest point's number */
    int64_t n_fields;                   /* of its hash, when it was written; 0: it was not */
    uint64_t described, asks_described; /* the description's fingerprint; 0: none */
    struct redis_question question;
    UT_hash_handle hh;
};

struct machine_redis {
    struct reactor *reactor;
    struct redis *redis;
    struct machines *machines; /* NULL: stopped */
    struct kept *kept;
    unsigned writing;
    struct timer timer;
    bool was_read, is_reading;
    uint64_t retry_ms;
    struct redis_question question; /* of reading */
    char (*ids)[MACHINE_ID_BYTES];  /* that are to be read, */
    size_t n_ids, next_id;          /* and the next of them */
    msgpack_sbuffer bytes;
    char prefix[KEY_BYTES];
};

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- writing ---- */

/* Names and values of fields; the values lie in m->bytes. */
struct fields {
    unsigned n;
    char name[FIELDS][NAME_BYTES];
    size_t begin[FIELDS], end[FIELDS];
};

static uint64_t fingerprint(struct span s)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 1099511628211u;
    return h ? h : 1;
}

static void add_description(struct machine_redis *m, struct kept *k, const struct machines_row *row,
                            struct fields *f)
{
    k->asks_described = row->description.n ? fingerprint(row->description) : 0;
    if (k->asks_described == 0 || k->asks_described == k->described)
        return;
    f->begin[f->n] = m->bytes.size;
    if (msgpack_sbuffer_write(&m->bytes, row->description.p, row->description.n))
        return;
    snprintf(f->name[f->n], NAME_BYTES, "about");
    f->end[f->n++] = m->bytes.size;
}

static bool add_chunk(struct machine_redis *m, const struct history *h, enum history_level level,
                      uint64_t chunk, struct fields *f)
{
    uint64_t step_ms = history_step_ms(level), width_ms = chunk_points[level] * step_ms;
    unsigned places = history_points(level) / chunk_points[level] + 1;
    f->begin[f->n] = m->bytes.size;
    if (history_write(h, level, chunk * width_ms, (chunk + 1) * width_ms, &m->bytes))
        return false;
    snprintf(f->name[f->n], NAME_BYTES, "%u:%u", (unsigned)(step_ms / 1000), (unsigned)(chunk % places));
    f->end[f->n] = m->bytes.size;
    f->n += f->end[f->n] > f->begin[f->n];
    return true;
}

/* From the chunk on that was written last, which may have grown. */
static void add_level(struct machine_redis *m, struct kept *k, const struct history *h,
                      enum history_level level, struct fields *f)
{
    uint64_t oldest_ms, newest_ms, step_ms = history_step_ms(level), points = chunk_points[level];
    k->asked[level] = k->written[level];
    if (!history_range(h, level, &oldest_ms, &newest_ms))
        return;
    uint64_t oldest = oldest_ms / step_ms, newest = newest_ms / step_ms, from = k->written[level];
    if (newest == from) /* a point that grows is written with the next one; the seconds have it */
        return;
    if (from > newest || from < oldest) /* the clock was set back, or Redis was away for long */
        from = oldest;
    uint64_t chunk = from / points, last = newest / points;
    for (unsigned n = 0; chunk <= last && n < CHUNKS_AT_ONCE; n++, chunk++)
        if (!add_chunk(m, h, level, chunk, f))
            return;
    k->asked[level] = chunk > last ? newest : chunk * points;
    k->has_more = k->has_more || chunk <= last;
}

/* The node that the agent was at before has written the rest. */
static void take_over(struct kept *k, const struct history *h)
{
    uint64_t oldest_ms, newest_ms;
    for (unsigned level = 0; level < HISTORY_LEVELS; level++)
        if (k->n_fields == 0 && history_range(h, (enum history_level)level, &oldest_ms, &newest_ms))
            k->written[level] = (newest_ms > TAKE_OVER_MS ? newest_ms - TAKE_OVER_MS : 0) /
                                history_step_ms((enum history_level)level);
}

static void on_written(struct redis_question *q, int err, const struct redis_reply *reply)
{
    struct kept *k = container_of(q, struct kept, question);
    int64_t n_fields = err ? 0 : redis_reply_integer(reply);
    k->is_asked = false;
    k->owner->writing--;
    if (err) {
        k->is_heard = true;
        return;
    }
    bool has_lost = n_fields < k->n_fields;
    k->n_fields = n_fields;
    memcpy(k->written, k->asked, sizeof(k->written));
    k->described = k->asks_described;
    if (!has_lost)
        return;
    memset(k->written, 0, sizeof(k->written));
    k->described = 0;
    k->is_heard = true;
}

static void ask_to_write(struct machine_redis *m, struct kept *k, const struct fields *f)
{
    char id[MACHINE_ID_BYTES], index[KEY_BYTES + 16], key[KEY_BYTES + 32], of_all[KEY_BYTES + 16];
    char keep[24], most[24];
    struct span argv[HEAD_ARGS + 2 * FIELDS];
    unsigned n = 0;
    machine_id(id, k->machine);
    snprintf(index, sizeof(index), "%smachines", m->prefix);
    snprintf(of_all, sizeof(of_all), "%smachine:", m->prefix);
    snprintf(key, sizeof(key), "%s%s", of_all, id);
    snprintf(keep, sizeof(keep), "%d", KEEP_MS);
    snprintf(most, sizeof(most), "%d", LIMIT_MACHINES);
    const struct span head[HEAD_ARGS] = {SPAN("EVAL"),   span_of(write_script), SPAN("2"),
                                         span_of(index), span_of(key),          span_of(id),
                                         span_of(keep),  span_of(most),         span_of(of_all)};
    for (; n < HEAD_ARGS; n++)
        argv[n] = head[n];
    for (unsigned i = 0; i < f->n; i++) {
        argv[n++] = span_of(f->name[i]);
        argv[n++] = (struct span){m->bytes.data + f->begin[i], f->end[i] - f->begin[i]};
    }
    k->is_asked = true;
    m->writing++;
    k->question.on_answer = on_written;
    redis_ask(m->redis, &k->question, argv, n);
}

static void write_machine(struct machine_redis *m, struct kept *k)
{
    struct fields fields = {.n = 0};
    struct machines_row row;
    k->has_more = k->is_heard = false;
    if (!machines_find(m->machines, k->machine, reactor_now_ms(m->reactor), &row))
        return;
    msgpack_sbuffer_clear(&m->bytes);
    add_description(m, k, &row, &fields);
    take_over(k, row.history);
    for (unsigned level = 0; level < HISTORY_LEVELS; level++)
        add_level(m, k, row.history, (enum history_level)level, &fields);
    if (fields.n > 0)
        ask_to_write(m, k, &fields);
    k->is_heard = k->has_more;
}

static bool may_write(const struct machine_redis *m)
{
    return m->machines && m->was_read && redis_is_up(m->redis);
}

static void forget(struct machine_redis *m, struct kept *k)
{
    HASH_DEL(m->kept, k);
    free(k);
}

static void write_due(struct machine_redis *m, uint64_t now)
{
    struct kept *k, *next;
    HASH_ITER(hh, m->kept, k, next)
    {
        if (k->is_asked || now < k->due_ms)
            continue;
        if (k->is_heard) {
            write_machine(m, k);
            k->due_ms = k->has_more ? now : now + FLUSH_MS;
        } else if (now - k->due_ms > KEEP_MS) {
            forget(m, k);
        }
    }
}

void machine_redis_heard(struct machine_redis *m, uint64_t machine)
{
    struct kept *k;
    HASH_FIND(hh, m->kept, &machine, sizeof(machine), k);
    if (!k) {
        k = calloc(1, sizeof(*k));
        if (!k)
            return;
        k->owner = m;
        k->machine = machine;
        /* Not all of them at once. */
        k->due_ms = reactor_now_ms(m->reactor) + LOOK_MS + machine % (FLUSH_MS - LOOK_MS);
        HASH_ADD(hh, m->kept, machine, sizeof(k->machine), k);
    }
    k->is_heard = true;
    if (!timer_pending(&m->timer))
        reactor_timer_set(m->reactor, &m->timer, LOOK_MS);
}

void machine_redis_hurry(struct machine_redis *m)
{
    for (struct kept *k = m->kept; k && may_write(m); k = k->hh.next)
        if (k->is_heard && !k->is_asked)
            write_machine(m, k);
}

bool machine_redis_is_writing(const struct machine_redis *m)
{
    return m->writing > 0;
}

/* ---- reading ---- */

static void end_reading(struct machine_redis *m, int err)
{
    free(m->ids);
    m->ids = NULL;
    m->is_reading = false;
    m->was_read = !err;
    if (err)
        m->retry_ms = reactor_now_ms(m->reactor) + READ_AGAIN_MS;
    else
        log_event(LOG_INFO, "machines_read", LOG_UINT("machines", m->n_ids));
    if (err && m->machines && !timer_pending(&m->timer))
        reactor_timer_set(m->reactor, &m->timer, LOOK_MS);
}

static void take_machine(struct machine_redis *m, const struct redis_reply *reply)
{
    size_t n = redis_reply_count(reply);
    uint64_t machine = strtoull(m->ids[m->next_id], NULL, 16), now = reactor_now_ms(m->reactor);
    for (size_t i = 0; i + 1 < n; i += 2) {
        struct span name = redis_reply_text(redis_reply_at(reply, i)),
                    value = redis_reply_text(redis_reply_at(reply, i + 1));
        bool is_chunk = name.n > 0 && name.p[0] >= '0' && name.p[0] <= '9';
        int err = 0;
        if (span_eq(name, SPAN("about")))
            err = machines_restore(m->machines, machine, now, value);
        else if (is_chunk)
            err = machines_restore_history(m->machines, machine, now, wall_ms(), value);
        if (err)
            log_event(LOG_WARN, "machine_not_read", LOG_TEXT("machine", m->ids[m->next_id]),
                      LOG_SPAN("field", name), LOG_TEXT("error", err_text(err)));
    }
}

static void read_next(struct machine_redis *m);

static void on_machine(struct redis_question *q, int err, const struct redis_reply *reply)
{
    struct machine_redis *m = container_of(q, struct machine_redis, question);
    if (!err && m->machines)
        take_machine(m, reply);
    m->next_id++;
    if (err || !m->machines)
        end_reading(m, ERR_STORE);
    else
        read_next(m);
}

/* One at a time: each is some hundred KiB. */
static void read_next(struct machine_redis *m)
{
    char key[KEY_BYTES + 32];
    if (m->next_id == m->n_ids) {
        end_reading(m, 0);
        return;
    }
    snprintf(key, sizeof(key), "%smachine:%s", m->prefix, m->ids[m->next_id]);
    m->question.on_answer = on_machine;
    redis_ask(m->redis, &m->question, (const struct span[]){SPAN("HGETALL"), span_of(key)}, 2);
}

static bool take_ids(struct machine_redis *m, const struct redis_reply *reply)
{
    size_t n = redis_reply_count(reply);
    m->n_ids = m->next_id = 0;
    m->ids = calloc(n + 1, sizeof(*m->ids));
    for (size_t i = 0; m->ids && i < n; i++) {
        struct span id = redis_reply_text(redis_reply_at(reply, i));
        if (id.n == MACHINE_ID_BYTES - 1)
            memcpy(m->ids[m->n_ids++], id.p, id.n);
    }
    return m->ids != NULL;
}

static void on_machines(struct redis_question *q, int err, const struct redis_reply *reply)
{
    struct machine_redis *m = container_of(q, struct machine_redis, question);
    if (!err && !take_ids(m, reply))
        err = ERR_MEMORY;
    if (err || !m->machines)
        end_reading(m, ERR_STORE);
    else
        read_next(m);
}

/* The newest first: there is room for so many. */
static void begin_reading(struct machine_redis *m)
{
    char key[KEY_BYTES + 16], last[24];
    m->is_reading = true;
    snprintf(key, sizeof(key), "%smachines", m->prefix);
    snprintf(last, sizeof(last), "%d", LIMIT_MACHINES - 1);
    m->question.on_answer = on_machines;
    redis_ask(m->redis, &m->question,
              (const struct span[]){SPAN("ZREVRANGE"), span_of(key), SPAN("0"), span_of(last)}, 4);
}

void machine_redis_resume(struct machine_redis *m)
{
    if (m->machines && !m->was_read && !m->is_reading)
        begin_reading(m);
}

/* ---- time, start and end ---- */

static void on_timer(struct timer *t)
{
    struct machine_redis *m = container_of(t, struct machine_redis, timer);
    uint64_t now = reactor_now_ms(m->reactor);
    if (may_write(m))
        write_due(m, now);
    else if (redis_is_up(m->redis) && now >= m->retry_ms)
        machine_redis_resume(m);
    if (m->kept || !m->was_read)
        reactor_timer_set(m->reactor, t, LOOK_MS);
}

struct machine_redis *machine_redis_new(struct reactor *r, struct redis *redis, const char *cluster,
                                        struct machines *machines)
{
    struct machine_redis *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->reactor = r;
    m->redis = redis;
    m->machines = machines;
    timer_init(&m->timer, on_timer);
    msgpack_sbuffer_init(&m->bytes);
    snprintf(m->prefix, sizeof(m->prefix), "starling:{%.64s}:", cluster);
    if (redis_is_up(redis))
        begin_reading(m);
    return m;
}

void machine_redis_stop(struct machine_redis *m)
{
    m->machines = NULL;
    reactor_timer_cancel(m->reactor, &m->timer);
}

void machine_redis_free(struct machine_redis **mp)
{
    struct machine_redis *m = *mp;
    if (!m)
        return;
    assert(m->writing == 0 && !m->is_reading);
    machine_redis_stop(m);
    while (m->kept)
        forget(m, m->kept);
    msgpack_sbuffer_destroy(&m->bytes);
    free(m);
    *mp = NULL;
}
