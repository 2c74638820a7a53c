#include "store_redis.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include "redis_error.h"
#include "store_redis_scripts.h"
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_ARGS = 16,
    KEY_BYTES = 160,
    NUMBER_BYTES = 24,
    ORIGIN_BYTES = 24,   /* 6 + 1 + 16 digits, and the zero */
    LOG_PAUSE_MS = 1000, /* between two log lines about one kind of question */
};

#define MAX_EPOCH ((UINT64_C(1) << 53) - 1)

enum call { RENEW, RESIGN, APPEND, READ, PUT, DROP, CLAIM, CALLS };

static const char *const call_names[CALLS] = {"renew", "resign", "append", "read", "put", "drop", "claim"};

struct question {
    struct redis_question base;
    struct store_redis *store;
    enum call call;
    bool sets_expiry; /* of APPEND */
    struct mesh_origin origin;
    union {
        store_done *done;
        store_members *members;
        store_batches *batches;
        store_claimed *claimed;
    } answer;
    void *user;
};

struct store_redis {
    struct reactor *reactor;
    struct metrics *metrics;
    struct redis *redis;
    struct store_user user;
    char prefix[KEY_BYTES];
    bool has_self;     /* a renewal of self has succeeded */
    bool mirror_lasts; /* its key is there, with an expiry */
    struct mesh_origin self;
    uint64_t keep_ms;
    enum redis_error trouble[CALLS]; /* REDIS_ERROR_COUNT: none; as the log has it */
    enum redis_error refusal[CALLS]; /* of APPEND and PUT, as they were answered last */
    bool refuses;                    /* as the user has been told */
    uint64_t logged_ms[CALLS];
};

/* ---- commands ---- */

/* Arguments, and the memory of those that are made up. */
struct command {
    struct span argv[MAX_ARGS];
    unsigned argc;
    size_t used;
    char text[4 * KEY_BYTES + 8 * NUMBER_BYTES];
};

static void add(struct command *c, struct span arg)
{
    assert(c->argc < MAX_ARGS);
    c->argv[c->argc++] = arg;
}

static void __attribute__((format(printf, 2, 3))) add_text(struct command *c, const char *format, ...)
{
    va_list args;
    char *p = c->text + c->used;
    va_start(args, format);
    size_t n = (size_t)vsnprintf(p, sizeof(c->text) - c->used, format, args);
    va_end(args);
    assert(n < sizeof(c->text) - c->used);
    c->used += n;
    add(c, (struct span){p, n});
}

static void add_number(struct command *c, uint64_t number)
{
    add_text(c, "%" PRIu64, number);
}

static void print_origin(struct mesh_origin origin, char out[ORIGIN_BYTES])
{
    snprintf(out, ORIGIN_BYTES, "%06x-%016" PRIx64, origin.tag & 0xffffff, origin.boot);
}

static void add_origin_key(struct command *c, const struct store_redis *s, const char *what,
                           struct mesh_origin origin)
{
    char text[ORIGIN_BYTES];
    print_origin(origin, text);
    add_text(c, "%s%s:%s", s->prefix, what, text);
}

static void add_sessions_key(struct command *c, const struct store_redis *s, uint32_t tag)
{
    add_text(c, "%ssessions:%06x", s->prefix, tag & 0xffffff);
}

static void add_script(struct command *c, const char *script, unsigned keys)
{
    add(c, SPAN("EVAL"));
    add(c, span_of(script));
    add_number(c, keys);
}

/* Only the text tells it from other errors; it is the same since Redis 5. */
static bool is_duplicate(const struct redis_reply *reply)
{
    static const struct span says = SPAN("equal or smaller than the target stream top item");
    struct span text = redis_reply_text(reply);
    return redis_reply_kind(reply) == REDIS_ERROR && memmem(text.p, text.n, says.p, says.n);
}

/* ---- the log: once for each change ---- */

static bool may_log(struct store_redis *s, enum call call)
{
    uint64_t now_ms = reactor_now_ms(s->reactor);
    if (s->logged_ms[call] && now_ms - s->logged_ms[call] < LOG_PAUSE_MS)
        return false;
    s->logged_ms[call] = now_ms;
    return true;
}

static void note(struct store_redis *s, enum call call, const struct redis_reply *reply)
{
    struct span text = redis_reply_text(reply);
    bool failed = redis_reply_kind(reply) == REDIS_ERROR;
    enum redis_error error = failed ? redis_error_of(text) : REDIS_ERROR_COUNT;
    if (!reply || error == s->trouble[call] || !may_log(s, call))
        return;
    s->trouble[call] = error;
    if (failed)
        log_event(LOG_WARN, "store_refuses", LOG_TEXT("question", call_names[call]),
                  LOG_TEXT("kind", redis_error_name(error)), LOG_TEXT("meaning", redis_error_text(error)),
                  LOG_SPAN("error", text));
    else
        log_event(LOG_INFO, "store_accepts", LOG_TEXT("question", call_names[call]));
}

static void tell_refusal(struct store_redis *s)
{
    bool refuses = s->refusal[APPEND] != REDIS_ERROR_COUNT || s->refusal[PUT] != REDIS_ERROR_COUNT;
    metrics_set(s->metrics, METRIC_STORE_REFUSES, refuses);
    if (refuses != s->refuses && s->user.on_refuses)
        s->user.on_refuses(s->user.user, refuses);
    s->refuses = refuses;
}

/* What was refused may not be asked again, so what Redis takes again in one place it is believed to take in the other. */
static void note_refusal(struct store_redis *s, enum call call, const struct redis_reply *reply)
{
    bool failed = redis_reply_kind(reply) == REDIS_ERROR && !is_duplicate(reply);
    if (!reply || (call != APPEND && call != PUT))
        return;
    s->refusal[call] = failed ? redis_error_of(redis_reply_text(reply)) : REDIS_ERROR_COUNT;
    if (call == APPEND && !failed && s->refusal[PUT] != REDIS_ERROR_WRONGTYPE)
        s->refusal[PUT] = REDIS_ERROR_COUNT;
    tell_refusal(s);
}

/* ---- answers ---- */

static bool parse_number(struct span text, unsigned base, uint64_t *out)
{
    char copy[NUMBER_BYTES], *end;
    if (text.n == 0 || text.n >= sizeof(copy) || text.p[0] == '-' || text.p[0] == '+' || text.p[0] == ' ')
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    *out = strtoull(copy, &end, (int)base);
    return *end == '\0';
}

static bool parse_origin(struct span text, struct mesh_origin *origin)
{
    uint64_t tag, boot;
    if (text.n != 23 || text.p[6] != '-' || !parse_number((struct span){text.p, 6}, 16, &tag) ||
        !parse_number((struct span){text.p + 7, 16}, 16, &boot))
        return false;
    *origin = (struct mesh_origin){.tag = (uint32_t)tag, .boot = boot};
    return true;
}

static bool read_member(const struct store_redis *s, const struct redis_reply *row, struct store_member *m)
{
    const struct redis_reply *lease = redis_reply_at(row, 1);
    uint64_t left_ms;
    *m = (struct store_member){0};
    if (!parse_origin(redis_reply_text(redis_reply_at(row, 0)), &m->origin) ||
        !parse_number(redis_reply_text(redis_reply_at(row, 2)), 10, &left_ms))
        return false;
    /* As if it kept its things for as long as this node does: all should. */
    m->silent_ms = left_ms < store_name_ms(s->keep_ms) ? store_name_ms(s->keep_ms) - left_ms : 0;
    m->lives = redis_reply_kind(redis_reply_at(lease, 0)) == REDIS_STRING;
    m->name = redis_reply_text(redis_reply_at(lease, 0));
    m->host = redis_reply_text(redis_reply_at(lease, 1));
    m->pub = redis_reply_text(redis_reply_at(lease, 2));
    m->router = redis_reply_text(redis_reply_at(lease, 3));
    return true;
}

static void answer_members(struct question *q, const struct redis_reply *reply)
{
    size_t count = redis_reply_count(reply);
    unsigned n = 0;
    struct store_member *members = calloc(count ? count : 1, sizeof(*members));
    for (size_t i = 1; members && i < count; i++)
        n += read_member(q->store, redis_reply_at(reply, i), &members[n]);
    q->answer.members(q->user, members ? 0 : ERR_MEMORY, members, n);
    free(members);
}

/* The tag is somebody else's: what self would write now would be written to their keys. */
static void on_renewed(struct question *q, int err, const struct redis_reply *reply)
{
    struct store_redis *s = q->store;
    bool is_taken = !err && redis_reply_kind(reply) == REDIS_STRING;
    if (!err && !is_taken) {
        s->self = q->origin;
        s->has_self = true;
        s->mirror_lasts = redis_reply_integer(redis_reply_at(reply, 0)) == 1;
        answer_members(q, reply);
        return;
    }
    if (is_taken) {
        s->has_self = false;
        if (may_log(s, RENEW))
            log_event(LOG_WARN, "store_tag_taken", LOG_SPAN("by", redis_reply_text(reply)));
    }
    q->answer.members(q->user, is_taken ? ERR_STATE : err, NULL, 0);
}

static void on_appended(struct question *q, int err, const struct redis_reply *reply)
{
    if (!err && q->sets_expiry)
        q->store->mirror_lasts = true;
    q->answer.done(q->user, is_duplicate(reply) ? 0 : err);
}

static bool read_batch(const struct redis_reply *row, struct store_batch *b)
{
    struct span id = redis_reply_text(redis_reply_at(row, 0));
    const struct redis_reply *fields = redis_reply_at(row, 1);
    const char *dash = id.n ? memchr(id.p, '-', id.n) : NULL;
    if (!dash || redis_reply_count(fields) != 2 ||
        !parse_number((struct span){id.p, (size_t)(dash - id.p)}, 10, &b->last))
        return false;
    b->records = redis_reply_text(redis_reply_at(fields, 1));
    return true;
}

static void on_read(struct question *q, int err, const struct redis_reply *reply)
{
    size_t count = err ? 0 : redis_reply_count(reply);
    unsigned n = 0;
    struct store_batch *batches = calloc(count ? count : 1, sizeof(*batches));
    for (size_t i = 0; batches && i < count; i++)
        n += read_batch(redis_reply_at(reply, i), &batches[n]);
    q->answer.batches(q->user, batches ? err : ERR_MEMORY, batches, n);
    free(batches);
}

static void on_written(struct question *q, int err, const struct redis_reply *reply)
{
    if (!err && redis_reply_kind(reply) == REDIS_INTEGER && redis_reply_integer(reply) == 0)
        err = ERR_MOVED;
    q->answer.done(q->user, err);
}

static int read_claim(const struct redis_reply *reply, struct store_claim *claim)
{
    struct span rest = redis_reply_text(redis_reply_at(reply, 2));
    uint64_t tag;
    if (!parse_number(redis_reply_text(redis_reply_at(reply, 1)), 10, &claim->epoch) ||
        claim->epoch > MAX_EPOCH)
        return ERR_NOT_FOUND; /* no field, or nothing of ours in it */
    if (span_eq(redis_reply_text(redis_reply_at(reply, 0)), SPAN("="))) {
        claim->entry = rest;
        return 0;
    }
    if (!parse_number(rest, 16, &tag) || tag > 0xffffff)
        return ERR_NOT_FOUND;
    claim->moved_to = (uint32_t)tag;
    return ERR_MOVED;
}

static void on_claimed(struct question *q, int err, const struct redis_reply *reply)
{
    struct store_claim claim = {0};
    if (!err)
        err = read_claim(reply, &claim);
    q->answer.claimed(q->user, err, &claim);
}

static void on_answer(struct redis_question *base, int err, const struct redis_reply *reply)
{
    struct question *q = container_of(base, struct question, base);
    if (!is_duplicate(reply))
        note(q->store, q->call, reply);
    note_refusal(q->store, q->call, reply);
    switch (q->call) {
    case RENEW:
        on_renewed(q, err, reply);
        break;
    case APPEND:
        on_appended(q, err, reply);
        break;
    case READ:
        on_read(q, err, reply);
        break;
    case CLAIM:
        on_claimed(q, err, reply);
        break;
    default:
        on_written(q, err, reply);
        break;
    }
    free(q);
}

/* ---- questions ---- */

static struct question *question_new(struct store_redis *s, enum call call, void *user)
{
    struct question *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->base.on_answer = on_answer;
    q->store = s;
    q->call = call;
    q->user = user;
    return q;
}

static void ask(struct question *q, const struct command *c)
{
    redis_ask(q->store->redis, &q->base, c->argv, c->argc);
}

static void add_own_keys(struct command *c, const struct store_redis *s, struct mesh_origin self)
{
    add_text(c, "%sorigins", s->prefix);
    add_origin_key(c, s, "lease", self);
    add_origin_key(c, s, "mirror", self);
    add_sessions_key(c, s, self.tag);
}

static void add_origin(struct command *c, struct mesh_origin origin)
{
    char text[ORIGIN_BYTES];
    print_origin(origin, text);
    add_text(c, "%s", text);
}

static void on_call_renew(void *store, const struct store_member *self, uint64_t keep_ms, store_members *done,
                          void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_new(s, RENEW, user);
    if (!q) {
        done(user, ERR_MEMORY, NULL, 0);
        return;
    }
    q->answer.members = done;
    q->origin = self->origin;
    s->keep_ms = keep_ms;
    add_script(&c, renew_script, 4);
    add_own_keys(&c, s, self->origin);
    add_origin(&c, self->origin);
    add_text(&c, "%slease:", s->prefix);
    add_number(&c, STORE_LEASE_MS);
    add_number(&c, keep_ms);
    add_number(&c, store_name_ms(keep_ms));
    add(&c, self->name);
    add(&c, self->host);
    add(&c, self->pub);
    add(&c, self->router);
    ask(q, &c);
}

/* A question that is answered by an error alone; NULL: it has been answered. */
static struct question *question_done(struct store_redis *s, enum call call, store_done *done, void *user)
{
    struct question *q = question_new(s, call, user);
    if (!q) {
        done(user, ERR_MEMORY);
        return NULL;
    }
    q->answer.done = done;
    if (s->has_self)
        return q;
    redis_refuse(s->redis, &q->base);
    return NULL;
}

static void on_call_resign(void *store, uint64_t keep_ms, store_done *done, void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_done(s, RESIGN, done, user);
    if (!q)
        return;
    s->keep_ms = keep_ms;
    add_script(&c, resign_script, 4);
    add_own_keys(&c, s, s->self);
    add_origin(&c, s->self);
    add_number(&c, keep_ms);
    add_number(&c, store_name_ms(keep_ms));
    ask(q, &c);
}

static void on_call_append(void *store, const struct store_batch *batch, uint64_t oldest, store_done *done,
                           void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_done(s, APPEND, done, user);
    if (!q)
        return;
    q->sets_expiry = !s->mirror_lasts;
    if (q->sets_expiry) {
        add_script(&c, append_script, 1);
        add_origin_key(&c, s, "mirror", s->self);
        add_text(&c, "%" PRIu64 "-0", batch->last);
        add_text(&c, "%" PRIu64 "-0", oldest);
        add(&c, batch->records);
        add_number(&c, s->keep_ms);
    } else {
        add(&c, SPAN("XADD"));
        add_origin_key(&c, s, "mirror", s->self);
        add(&c, SPAN("MINID"));
        add(&c, SPAN("="));
        add_text(&c, "%" PRIu64 "-0", oldest);
        add_text(&c, "%" PRIu64 "-0", batch->last);
        add(&c, SPAN("r"));
        add(&c, batch->records);
    }
    ask(q, &c);
}

static void on_call_read(void *store, struct mesh_origin origin, uint64_t after, unsigned count,
                         store_batches *done, void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_new(s, READ, user);
    if (!q) {
        done(user, ERR_MEMORY, NULL, 0);
        return;
    }
    q->answer.batches = done;
    add(&c, SPAN("XRANGE"));
    add_origin_key(&c, s, "mirror", origin);
    add_text(&c, "%" PRIu64 "-1", after); /* behind <after>-0, which is all there is of that number */
    add(&c, SPAN("+"));
    add(&c, SPAN("COUNT"));
    add_number(&c, count);
    ask(q, &c);
}

static void on_call_put(void *store, struct span pid, uint64_t epoch, struct span entry, store_done *done,
                        void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_done(s, PUT, done, user);
    if (!q)
        return;
    assert(epoch <= MAX_EPOCH); /* claims give no higher ones */
    add_script(&c, put_script, 1);
    add_sessions_key(&c, s, s->self.tag);
    add(&c, pid);
    add_number(&c, epoch);
    add(&c, entry);
    add_number(&c, s->keep_ms);
    ask(q, &c);
}

static void on_call_drop(void *store, struct span pid, uint64_t epoch, store_done *done, void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_done(s, DROP, done, user);
    if (!q)
        return;
    assert(epoch <= MAX_EPOCH);
    add_script(&c, drop_script, 1);
    add_sessions_key(&c, s, s->self.tag);
    add(&c, pid);
    add_number(&c, epoch);
    ask(q, &c);
}

static void on_call_claim(void *store, uint32_t owner, struct span pid, store_claimed *done, void *user)
{
    struct store_redis *s = store;
    struct command c = {.argc = 0};
    struct question *q = question_new(s, CLAIM, user);
    if (!q) {
        done(user, ERR_MEMORY, &(struct store_claim){.epoch = 0});
        return;
    }
    q->answer.claimed = done;
    if (!s->has_self) {
        redis_refuse(s->redis, &q->base);
        return;
    }
    add_script(&c, claim_script, 2);
    add_sessions_key(&c, s, owner);
    add_sessions_key(&c, s, s->self.tag);
    add(&c, pid);
    add_text(&c, "%06x", s->self.tag & 0xffffff);
    add_number(&c, s->keep_ms);
    ask(q, &c);
}

/* ---- life ---- */

static void on_up(void *user)
{
    struct store_redis *s = user;
    s->user.on_up(s->user.user);
}

static void on_down(void *user)
{
    struct store_redis *s = user;
    s->mirror_lasts = false;
    s->user.on_down(s->user.user);
}

struct store_redis *store_redis_new(struct reactor *r, struct metrics *metrics,
                                    const struct store_redis_options *o, const struct store_user *user)
{
    struct store_redis *s = calloc(1, sizeof(*s));
    struct redis_user redis_user = {.user = s, .on_up = on_up, .on_down = on_down};
    if (!s)
        return NULL;
    s->reactor = r;
    s->metrics = metrics;
    s->user = *user;
    snprintf(s->prefix, sizeof(s->prefix), "starling:{%.64s}:", o->cluster);
    for (int call = 0; call < CALLS; call++)
        s->trouble[call] = s->refusal[call] = REDIS_ERROR_COUNT;
    s->redis = redis_new(r, metrics, &o->redis, &redis_user);
    if (!s->redis) {
        free(s);
        return NULL;
    }
    return s;
}

void store_redis_free(struct store_redis **sp)
{
    struct store_redis *s = *sp;
    if (!s)
        return;
    redis_free(&s->redis);
    free(s);
    *sp = NULL;
}

struct store store_redis_store(struct store_redis *s)
{
    static const struct store_calls calls = {.renew = on_call_renew,
                                             .resign = on_call_resign,
                                             .append = on_call_append,
                                             .read = on_call_read,
                                             .put = on_call_put,
                                             .drop = on_call_drop,
                                             .claim = on_call_claim};
    return (struct store){.calls = &calls, .store = s};
}

struct redis *store_redis_connection(struct store_redis *s)
{
    return s->redis;
}

bool store_redis_is_up(const struct store_redis *s)
{
    return redis_is_up(s->redis);
}
