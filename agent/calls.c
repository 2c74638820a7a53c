/* Functions that ask something of the node: each fills a record, checks it, and puts it into the queue. */
#include "err.h"
#include "library.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- records from arguments ---- */

static struct span span_or_empty(const char *text)
{
    return text ? span_of(text) : (struct span){"", 0};
}

/* A list that ends with NULL. False: it is longer than cap. */
static bool set_list(struct span *to, unsigned *n, unsigned cap, const char *const *list)
{
    for (*n = 0; list && list[*n]; ++*n) {
        if (*n == cap)
            return false;
        to[*n] = span_of(list[*n]);
    }
    return true;
}

/* A list that names nobody is nobody: not everybody. */
static bool set_targets(struct agent_record *r, const char *const *list)
{
    return set_list(r->to, &r->n_to, LIMIT_ROOMS_PER_CALL, list) && (!list || r->n_to > 0);
}

static bool set_option_list(struct agent_record *r, enum agent_field option, struct span *to, unsigned *n,
                            unsigned cap, const char *const *list)
{
    if (list)
        agent_with(r, option);
    return set_list(to, n, cap, list);
}

static bool set_attachments(struct agent_record *r, const struct starling_bytes *attachments, size_t n)
{
    if (n > LIMIT_ATTACHMENTS)
        return false;
    for (size_t i = 0; i < n; i++)
        r->attachments[i] = (struct span){attachments[i].data, attachments[i].n};
    r->n_attachments = (unsigned)n;
    if (n > 0)
        agent_with(r, AGENT_F_ATTACHMENTS);
    return true;
}

static struct agent_record *begin(struct starling *s, enum agent_kind kind)
{
    agent_init(&s->out, kind);
    return &s->out;
}

/* s->out into s->packed, checked as the node will check it. */
static int pack(struct starling *s)
{
    enum agent_code code;
    s->packed.size = 0;
    if (!agent_fits(&s->out) || !agent_check(&s->out, &code))
        return STARLING_ARGUMENT;
    if (agent_write(&s->packed, &s->out) != 0)
        return STARLING_MEMORY;
    return s->packed.size <= LIMIT_AGENT_MESSAGE_BYTES ? STARLING_OK : STARLING_ARGUMENT;
}

static struct request *make(struct starling *s, int *err)
{
    *err = pack(s);
    struct request *r = *err == STARLING_OK ? request_new(s->packed.data, s->packed.size) : NULL;
    if (*err == STARLING_OK && !r)
        *err = STARLING_MEMORY;
    return r;
}

/* A queue that has a batch is emptied at once; else at the end of the turn, or in the next one, with what else is
 * there then. */
static void enqueue(struct starling *s, struct request *r)
{
    requests_add(&s->requests, r);
    if (s->inside)
        return;
    if (s->requests.queued >= AGENT_BATCH_BYTES)
        requests_flush(&s->requests, s->link, starling_now_ms());
    starling_wake(s);
}

/* ---- requests ---- */

/* A request whose `then` is waited for is the one that starling_wait() is about, also when it fails here. */
static int submit(struct starling *s, const struct starling_then *then, bool wanted, uint64_t answer_ms,
                  bool has_key, const struct request *stream)
{
    bool waited = then == STARLING_WAITED;
    int err = waited && s->inside ? STARLING_INSIDE : STARLING_OK;
    s->out.id = wanted ? s->next_id : 0;
    struct request *r = err == STARLING_OK ? make(s, &err) : NULL;
    if (r && requests_full(&s->requests, r->n)) {
        free(r);
        err = STARLING_FULL;
    }
    if (waited && !s->inside) {
        s->wait.result = err;
        s->wait.done = false;
        s->wait.id = s->out.id;
    }
    if (err != STARLING_OK)
        return err;
    r->id = s->out.id;
    r->wanted = wanted;
    r->has_key = has_key;
    r->expires_ms = starling_now_ms() + (answer_ms > 0 ? answer_ms + 1000 : s->o.timeout_ms);
    if (then)
        r->then = waited ? (struct starling_then){on_waited, s} : *then;
    if (stream) {
        r->on_ack = stream->on_ack;
        r->on_member = stream->on_member;
        r->stream_user = stream->stream_user;
    }
    if (wanted)
        s->next_id++;
    enqueue(s, r);
    return STARLING_OK;
}

/* What was wrong with the arguments before there was a record. */
static int refuse(struct starling *s, const struct starling_then *then)
{
    if (then == STARLING_WAITED && !s->inside) {
        s->wait.result = STARLING_ARGUMENT;
        s->wait.done = false;
    }
    return STARLING_ARGUMENT;
}

int starling_emit(struct starling *s, const struct starling_emit *e, const struct starling_then *then)
{
    struct agent_record *r = begin(s, AGENT_EMIT);
    bool wanted = then || e->key || e->confirm != STARLING_CONFIRM_NONE || e->ack_ms > 0;
    char key[48];
    r->nsp = e->nsp ? span_of(e->nsp) : SPAN("/");
    r->event = span_or_empty(e->event);
    if (!set_targets(r, e->rooms) || !agent_set_args(r, span_or_empty(e->args)) ||
        !set_option_list(r, AGENT_F_EXCEPT, r->except, &r->n_except, LIMIT_ROOMS_PER_CALL, e->except) ||
        !set_attachments(r, e->attachments, e->n_attachments) || e->confirm > STARLING_CONFIRM_MIRROR)
        return refuse(s, then);
    if (r->n_except == 0)
        r->has &= ~(UINT64_C(1) << AGENT_F_EXCEPT);
    if (e->is_volatile)
        agent_with(r, AGENT_F_VOLATILE)->is_volatile = true;
    if (e->confirm != STARLING_CONFIRM_NONE)
        agent_with(r, AGENT_F_CONFIRM)->confirm = (enum agent_confirm)e->confirm;
    if (e->ack_ms > 0)
        agent_with(r, AGENT_F_ACK_MS)->ack_ms = e->ack_ms;
    if (wanted && !e->key)
        snprintf(key, sizeof(key), "%s-%llu", s->key_prefix, (unsigned long long)s->next_id);
    if (wanted)
        agent_with(r, AGENT_F_KEY)->key = span_of(e->key ? e->key : key);
    /* Acknowledgements that have come once must not come again. */
    bool again = wanted && e->ack_ms == 0;
    if (again)
        agent_with(r, AGENT_F_AGAIN)->again = e->again;
    const struct request stream = {.on_ack = e->on_ack, .stream_user = e->ack_user};
    return submit(s, then, wanted, e->ack_ms, again, &stream);
}

static bool begin_act(struct starling *s, enum agent_kind kind, const char *nsp, const char *const *who)
{
    struct agent_record *r = begin(s, kind);
    r->nsp = nsp ? span_of(nsp) : SPAN("/");
    return set_targets(r, who);
}

static int move(struct starling *s, enum agent_kind kind, const char *nsp, const char *const *who,
                const char *const *rooms, const struct starling_then *then)
{
    if (!begin_act(s, kind, nsp, who) ||
        !set_list(s->out.rooms, &s->out.n_rooms, LIMIT_ROOMS_PER_CALL, rooms))
        return refuse(s, then);
    return submit(s, then, true, 0, false, NULL);
}

int starling_join(struct starling *s, const char *nsp, const char *const *who, const char *const *rooms,
                  const struct starling_then *then)
{
    return move(s, AGENT_JOIN, nsp, who, rooms, then);
}

int starling_leave(struct starling *s, const char *nsp, const char *const *who, const char *const *rooms,
                   const struct starling_then *then)
{
    return move(s, AGENT_LEAVE, nsp, who, rooms, then);
}

int starling_disconnect(struct starling *s, const char *nsp, const char *const *who, bool close,
                        const struct starling_then *then)
{
    if (!begin_act(s, AGENT_DISCONNECT, nsp, who))
        return refuse(s, then);
    agent_with(&s->out, AGENT_F_CLOSE)->close = close;
    return submit(s, then, true, 0, false, NULL);
}

int starling_set(struct starling *s, const char *nsp, const char *const *who, const char *user,
                 const char *data, const struct starling_then *then)
{
    if (!begin_act(s, AGENT_SET, nsp, who))
        return refuse(s, then);
    if (user)
        agent_with(&s->out, AGENT_F_USER)->user = span_of(user);
    if (data)
        agent_with(&s->out, AGENT_F_DATA)->data = span_of(data);
    return submit(s, then, true, 0, false, NULL);
}

int starling_members(struct starling *s, const char *nsp, const char *const *who, uint32_t limit,
                     starling_on_member *on_member, void *member_user, const struct starling_then *then)
{
    const struct request stream = {.on_member = on_member, .stream_user = member_user};
    if (!begin_act(s, AGENT_MEMBERS, nsp, who))
        return refuse(s, then);
    agent_with(&s->out, AGENT_F_LIMIT)->limit = limit;
    return submit(s, then, true, 0, false, &stream);
}

int starling_tell(struct starling *s, const char *address, struct starling_bytes body, bool is_bin,
                  const struct starling_then *then)
{
    struct agent_record *r = begin(s, AGENT_TELL);
    r->address = span_or_empty(address);
    r->body = (struct span){body.data, body.n};
    r->body_is_bin = is_bin;
    return submit(s, then, then != NULL, 0, false, NULL);
}

int starling_ask(struct starling *s, const char *address, struct starling_bytes body, bool is_bin,
                 uint32_t deadline_ms, const struct starling_then *then)
{
    struct agent_record *r = begin(s, AGENT_ASK);
    r->address = span_or_empty(address);
    r->body = (struct span){body.data, body.n};
    r->body_is_bin = is_bin;
    agent_with(r, AGENT_F_DEADLINE_MS)->deadline_ms = deadline_ms > 0 ? deadline_ms : 5000;
    return submit(s, then, true, r->deadline_ms, false, NULL);
}

/* ---- answers to the node ---- */

static int answer(struct starling *s, struct starling_ref ref)
{
    int err;
    if (link_state(s->link) != LINK_OPEN || ref.connection != link_number(s->link))
        return STARLING_STALE;
    s->out.id = ref.id;
    struct request *r = make(s, &err);
    if (!r)
        return err;
    r->is_answer = r->is_bound = true;
    s->unanswered -= s->unanswered > 0;
    enqueue(s, r);
    return STARLING_OK;
}

int starling_reply(struct starling *s, struct starling_ref ref, const char *args,
                   const struct starling_bytes *attachments, size_t n_attachments)
{
    struct agent_record *r = agent_with(begin(s, AGENT_OK), AGENT_F_ANSWER_ARGS);
    if (!agent_set_args(r, span_or_empty(args)) || !set_attachments(r, attachments, n_attachments))
        return STARLING_ARGUMENT;
    return answer(s, ref);
}

int starling_reply_body(struct starling *s, struct starling_ref ref, struct starling_bytes body, bool is_bin)
{
    struct agent_record *r = agent_with(begin(s, AGENT_OK), AGENT_F_ANSWER_BODY);
    r->body = (struct span){body.data, body.n};
    r->body_is_bin = is_bin;
    return answer(s, ref);
}

int starling_accept(struct starling *s, struct starling_ref ref, const char *user, const char *data,
                    const char *const *rooms)
{
    struct agent_record *r = begin(s, AGENT_OK);
    if (user)
        agent_with(r, AGENT_F_USER)->user = span_of(user);
    if (data)
        agent_with(r, AGENT_F_DATA)->data = span_of(data);
    if (!set_option_list(r, AGENT_F_ROOMS, r->rooms, &r->n_rooms, LIMIT_ROOMS_PER_SOCKET, rooms))
        return STARLING_ARGUMENT;
    return answer(s, ref);
}

int starling_fail(struct starling *s, struct starling_ref ref, const char *code, const char *text,
                  const char *data)
{
    struct agent_record *r = begin(s, AGENT_ERROR);
    r->code = code ? span_of(code) : span_of(agent_code(AGENT_E_FAILED));
    r->text = span_or_empty(text);
    if (data)
        agent_with(r, AGENT_F_DATA)->data = span_of(data);
    return answer(s, ref);
}

void starling_refuse(struct starling *s, uint64_t id, const char *code, const char *text)
{
    starling_fail(s, (struct starling_ref){link_number(s->link), id}, code, text, NULL);
}

/* ---- registrations ---- */

/* Of s->out. NULL: *err says why. */
static struct registration *registration_add(struct starling *s, int *err)
{
    s->out.id = s->next_id;
    *err = pack(s);
    if (*err != STARLING_OK)
        return NULL;
    struct registration *g = malloc(sizeof(*g) + s->packed.size);
    if (!g) {
        *err = STARLING_MEMORY;
        return NULL;
    }
    memset(g, 0, sizeof(*g));
    memcpy(g->bytes, s->packed.data, s->packed.size);
    g->n = s->packed.size;
    g->kind = s->out.kind;
    g->id = s->next_id++;
    HASH_ADD(hh, s->registrations, id, sizeof(g->id), g);
    return g;
}

bool registration_send(struct starling *s, struct registration *g)
{
    struct agent_reader reader = agent_open((struct span){g->bytes, g->n});
    struct span bytes = {g->bytes, g->n};
    if (g->offset && agent_read(&reader, &s->out) == 1) {
        agent_with(&s->out, AGENT_F_FROM)->from = span_of(g->offset);
        if (pack(s) != STARLING_OK)
            return false;
        bytes = (struct span){s->packed.data, s->packed.size};
    }
    struct request *r = request_new(bytes.p, bytes.n);
    if (!r)
        return false;
    r->is_bound = true;
    enqueue(s, r);
    return true;
}

void registration_end(struct starling *s, struct registration *g)
{
    if (g->ended)
        return;
    g->ended = true;
    HASH_DEL(s->registrations, g);
    g->next_ended = s->ended;
    s->ended = g;
}

static int64_t begin_registration(struct starling *s, struct registration *g)
{
    if (link_state(s->link) == LINK_OPEN && !registration_send(s, g)) {
        registration_end(s, g);
        return STARLING_MEMORY;
    }
    return (int64_t)g->id;
}

int64_t starling_subscribe(struct starling *s, const struct starling_subscribe *o)
{
    struct agent_record *r = begin(s, AGENT_SUBSCRIBE);
    int err;
    if (!o->on_event ||
        !set_option_list(r, AGENT_F_NAMESPACES, r->namespaces, &r->n_namespaces, LIMIT_AGENT_PATTERNS,
                         o->namespaces) ||
        !set_option_list(r, AGENT_F_ROOMS, r->rooms, &r->n_rooms, LIMIT_ROOMS_PER_SOCKET, o->rooms) ||
        !set_option_list(r, AGENT_F_EVENTS, r->events, &r->n_events, LIMIT_AGENT_PATTERNS, o->events) ||
        (o->from && strlen(o->from) > LIMIT_OFFSET_BYTES))
        return STARLING_ARGUMENT;
    struct registration *g = registration_add(s, &err);
    if (!g)
        return err;
    g->subscribe = *o;
    g->offset = o->from ? strdup(o->from) : NULL;
    if (!o->from || g->offset)
        return begin_registration(s, g);
    registration_end(s, g);
    return STARLING_MEMORY;
}

static unsigned life_of(const struct starling_handle *o)
{
    return (o->on_connect ? AGENT_LIFE_CONNECT : 0u) | (o->on_disconnect ? AGENT_LIFE_DISCONNECT : 0u) |
           (o->on_join ? AGENT_LIFE_JOIN : 0u) | (o->on_leave ? AGENT_LIFE_LEAVE : 0u);
}

static void set_handle_options(struct agent_record *r, const struct starling_handle *o)
{
    if (life_of(o) != 0)
        agent_with(r, AGENT_F_LIFE)->life = life_of(o);
    if (o->group)
        agent_with(r, AGENT_F_GROUP)->group = span_of(o->group);
    if (o->by_session)
        agent_with(r, AGENT_F_STICKY)->sticky = true;
    if (o->observe)
        agent_with(r, AGENT_F_OBSERVE)->observe = true;
    if (o->deadline_ms > 0)
        agent_with(r, AGENT_F_DEADLINE_MS)->deadline_ms = o->deadline_ms;
    if (o->limit > 0)
        agent_with(r, AGENT_F_LIMIT)->limit = o->limit;
}

int64_t starling_handle(struct starling *s, const struct starling_handle *o)
{
    struct agent_record *r = begin(s, AGENT_HANDLE);
    int err;
    if ((o->events && !o->on_call) ||
        !set_option_list(r, AGENT_F_NAMESPACES, r->namespaces, &r->n_namespaces, LIMIT_AGENT_PATTERNS,
                         o->namespaces) ||
        !set_option_list(r, AGENT_F_EVENTS, r->events, &r->n_events, LIMIT_AGENT_PATTERNS, o->events))
        return STARLING_ARGUMENT;
    set_handle_options(r, o);
    struct registration *g = registration_add(s, &err);
    if (!g)
        return err;
    g->handle = *o;
    return begin_registration(s, g);
}

int64_t starling_register(struct starling *s, const struct starling_actor *o)
{
    struct agent_record *r = begin(s, AGENT_REGISTER);
    int err;
    r->address = span_or_empty(o->address);
    if (o->shared)
        agent_with(r, AGENT_F_SHARED)->shared = true;
    struct registration *g = registration_add(s, &err);
    if (!g)
        return err;
    g->actor = *o;
    return begin_registration(s, g);
}

int64_t starling_watch(struct starling *s, const char *address,
                       void (*on_change)(void *user, bool alive, const char *reason), void *user)
{
    int err;
    begin(s, AGENT_WATCH)->address = span_or_empty(address);
    if (!on_change)
        return STARLING_ARGUMENT;
    struct registration *g = registration_add(s, &err);
    if (!g)
        return err;
    g->watch.on_change = on_change;
    g->watch.user = user;
    return begin_registration(s, g);
}

int starling_undo(struct starling *s, int64_t registration)
{
    struct registration *g;
    uint64_t id = (uint64_t)registration;
    HASH_FIND(hh, s->registrations, &id, sizeof(id), g);
    if (!g)
        return STARLING_ARGUMENT;
    registration_end(s, g);
    if (link_state(s->link) != LINK_OPEN)
        return STARLING_OK;
    begin(s, AGENT_UNDO)->reg = id;
    int err;
    struct request *r = make(s, &err);
    if (!r)
        return err;
    r->is_bound = true;
    enqueue(s, r);
    return STARLING_OK;
}
