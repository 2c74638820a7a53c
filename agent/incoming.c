/* Records from the node, to the callbacks of those they are for. */
#include "err.h"
#include "library.h"
#include <stdlib.h>

/* Ends a text of the record with a NUL: in the message, where the record has been read already. */
static const char *text(struct span s)
{
    if (!s.p)
        return "";
    if (s.p[s.n] != 0)
        ((char *)s.p)[s.n] = 0;
    return s.p;
}

static const char *const *rooms(struct starling *s, const struct span *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        s->rooms[i] = text(list[i]);
    s->rooms[n] = NULL;
    return s->rooms;
}

static const struct starling_bytes *attachments(struct starling *s, const struct agent_record *r)
{
    for (unsigned i = 0; i < r->n_attachments; i++)
        s->attachments[i] = (struct starling_bytes){r->attachments[i].p, r->attachments[i].n};
    return s->attachments;
}

static struct starling_ref ref(const struct starling *s, const struct agent_record *r)
{
    return (struct starling_ref){link_number(s->link), r->id};
}

/* ---- answers ---- */

static struct starling_answer make_answer(const struct agent_record *r)
{
    return (struct starling_answer){.code = r->kind == AGENT_ERROR ? text(r->code) : NULL,
                                    .text = text(r->text),
                                    .data = text(r->data),
                                    .retry_ms = (uint32_t)r->retry_ms,
                                    .emit = text(r->emit),
                                    .repeated = r->repeated,
                                    .expected = r->expected,
                                    .answered = r->answered,
                                    .dropped = r->dropped,
                                    .count = r->count,
                                    .offset = text(r->offset),
                                    .recovered = r->recovered,
                                    .alive = r->alive,
                                    .body = text(r->body),
                                    .body_n = r->body.n,
                                    .body_is_bin = r->body_is_bin};
}

static struct starling_answer local_answer(const char *code, const char *why)
{
    return (struct starling_answer){
        .code = code, .text = why, .data = "", .emit = "", .offset = "", .body = ""};
}

/* An answer that starling_wait() does not wait for any more is dropped. */
static void finish(struct starling *s, struct request *request, const struct starling_answer *answer)
{
    if (request->then.done && (request->then.done != on_waited || s->wait.id == request->id))
        request->then.done(request->then.user, answer);
}

void request_fail(struct starling *s, struct request *r, const char *code, const char *why)
{
    struct starling_answer answer = local_answer(code, why);
    finish(s, r, &answer);
    requests_drop(&s->requests, r);
}

/* One buffer for all texts of the answer that is waited for. */
static char *keep(char **p, const char *from, size_t n)
{
    char *to = *p;
    memcpy(to, from, n);
    to[n] = 0;
    *p += n + 1;
    return to;
}

static bool keep_answer(struct starling *s, const struct starling_answer *a)
{
    const char *code = a->code ? a->code : "";
    size_t n = strlen(code) + strlen(a->text) + strlen(a->data) + strlen(a->emit) + strlen(a->offset) +
               a->body_n + 6;
    free(s->wait.texts);
    char *p = s->wait.texts = malloc(n);
    if (!p)
        return false;
    struct starling_answer *kept = &s->wait.answer;
    *kept = *a;
    kept->text = keep(&p, a->text, strlen(a->text));
    kept->data = keep(&p, a->data, strlen(a->data));
    kept->emit = keep(&p, a->emit, strlen(a->emit));
    kept->offset = keep(&p, a->offset, strlen(a->offset));
    kept->body = keep(&p, a->body, a->body_n);
    if (a->code)
        kept->code = keep(&p, code, strlen(code));
    return true;
}

void on_waited(void *user, const struct starling_answer *answer)
{
    struct starling *s = user;
    if (keep_answer(s, answer))
        s->wait.done = true;
    else
        s->wait.result = STARLING_MEMORY;
}

/* ---- registrations ---- */

static void keep_offset(struct registration *g, struct span offset)
{
    if (offset.n == 0)
        return;
    /* The one before is almost always as long. */
    if (!g->offset || strlen(g->offset) < offset.n) {
        char *larger = realloc(g->offset, offset.n + 1);
        if (!larger)
            return;
        g->offset = larger;
    }
    memcpy(g->offset, offset.p, offset.n);
    g->offset[offset.n] = 0;
}

static void tell_watch(struct registration *g, bool alive, const char *reason)
{
    if (g->known && g->alive == alive)
        return;
    g->known = true;
    g->alive = alive;
    g->watch.on_change(g->watch.user, alive, reason);
}

static void on_made(struct registration *g, const struct agent_record *r)
{
    bool caught_up = !g->offset || r->recovered;
    if (g->kind == AGENT_SUBSCRIBE && !r->recovered)
        keep_offset(g, r->offset);
    struct starling_answer answer = make_answer(r);
    if (g->kind == AGENT_SUBSCRIBE && g->subscribe.on_made)
        g->subscribe.on_made(g->subscribe.user, &answer);
    if (g->kind == AGENT_SUBSCRIBE && !caught_up && g->subscribe.on_lost && !g->ended)
        g->subscribe.on_lost(g->subscribe.user, 0);
    if (g->kind == AGENT_HANDLE && g->handle.on_made)
        g->handle.on_made(g->handle.user, &answer);
    if (g->kind == AGENT_REGISTER && g->actor.on_made)
        g->actor.on_made(g->actor.user, &answer);
    if (g->kind == AGENT_WATCH)
        tell_watch(g, r->alive, "");
}

/* Refused, or ended by the node: for good. */
static void on_refused(struct starling *s, struct registration *g, const struct agent_record *r)
{
    struct starling_answer answer = make_answer(r);
    registration_end(s, g);
    starling_done *made = g->kind == AGENT_SUBSCRIBE  ? g->subscribe.on_made
                          : g->kind == AGENT_HANDLE   ? g->handle.on_made
                          : g->kind == AGENT_REGISTER ? g->actor.on_made
                                                      : NULL;
    void *user = g->kind == AGENT_SUBSCRIBE ? g->subscribe.user
                 : g->kind == AGENT_HANDLE  ? g->handle.user
                                            : g->actor.user;
    if (made)
        made(user, &answer);
    else if (s->o.on_error)
        s->o.on_error(s->o.user, answer.code, answer.text);
}

static struct registration *find(struct starling *s, uint64_t id, enum agent_kind kind)
{
    struct registration *g;
    HASH_FIND(hh, s->registrations, &id, sizeof(id), g);
    return g && g->kind == kind ? g : NULL;
}

static void on_answer(struct starling *s, struct agent_record *r)
{
    struct registration *g;
    HASH_FIND(hh, s->registrations, &r->id, sizeof(r->id), g);
    if (g) {
        if (r->kind == AGENT_OK)
            on_made(g, r);
        else
            on_refused(s, g, r);
        return;
    }
    struct request *request = requests_find(&s->requests, r->id);
    struct starling_answer answer = make_answer(r);
    if (request) {
        HASH_DEL(s->requests.table, request);
        request->wanted = false;
        finish(s, request, &answer);
        requests_drop(&s->requests, request);
    } else if (r->kind == AGENT_ERROR && r->id == 0 && s->o.on_error) {
        s->o.on_error(s->o.user, answer.code, answer.text);
    }
}

/* ---- what nodes send unasked ---- */

static void on_event(struct starling *s, struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_SUBSCRIBE);
    if (!g)
        return;
    keep_offset(g, r->offset);
    struct starling_event e = {.registration = g->id,
                               .nsp = text(r->nsp),
                               .event = text(r->event),
                               .args = text(r->args_array),
                               .rooms = rooms(s, r->to, r->n_to),
                               .n_rooms = r->n_to,
                               .attachments = attachments(s, r),
                               .n_attachments = r->n_attachments,
                               .emit = text(r->emit),
                               .offset = text(r->offset),
                               .is_volatile = r->is_volatile,
                               .replayed = r->replayed};
    g->subscribe.on_event(g->subscribe.user, &e);
}

static void on_lost(struct starling *s, const struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_SUBSCRIBE);
    if (g && g->subscribe.on_lost)
        g->subscribe.on_lost(g->subscribe.user, r->count);
}

static void on_call(struct starling *s, struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_HANDLE);
    s->unanswered++;
    if (!g || !g->handle.on_call) {
        starling_refuse(s, r->id, agent_code(AGENT_E_NOT_FOUND), "not registered any more");
        return;
    }
    struct starling_call c = {.ref = ref(s, r),
                              .registration = g->id,
                              .nsp = text(r->nsp),
                              .sid = text(r->sid),
                              .user = text(r->user),
                              .event = text(r->event),
                              .args = text(r->args_array),
                              .attachments = attachments(s, r),
                              .n_attachments = r->n_attachments,
                              .ack = r->ack,
                              .deadline_ms = (uint32_t)r->deadline_ms};
    g->handle.on_call(g->handle.user, &c);
}

static void on_client(struct starling *s, struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_HANDLE);
    void (*run)(void *user, const struct starling_client *c) = NULL;
    if (g)
        run = r->kind == AGENT_CONNECT        ? g->handle.on_connect
              : r->kind == AGENT_DISCONNECTED ? g->handle.on_disconnect
              : r->kind == AGENT_RECOVERED    ? g->handle.on_recover
              : r->kind == AGENT_JOINED       ? g->handle.on_join
                                              : g->handle.on_leave;
    s->unanswered += r->kind == AGENT_CONNECT;
    if (!run) {
        if (r->kind == AGENT_CONNECT)
            starling_refuse(s, r->id, agent_code(AGENT_E_NOT_FOUND), "not registered any more");
        return;
    }
    struct starling_client c = {.ref = ref(s, r),
                                .registration = g->id,
                                .nsp = text(r->nsp),
                                .sid = text(r->sid),
                                .user = text(r->user),
                                .auth = text(r->auth),
                                .remote = text(r->remote),
                                .reason = text(r->reason),
                                .rooms = rooms(s, r->rooms, r->n_rooms),
                                .n_rooms = r->n_rooms,
                                .deadline_ms = (uint32_t)r->deadline_ms};
    run(g->handle.user, &c);
}

static void on_message(struct starling *s, struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_REGISTER);
    bool asked = r->kind == AGENT_ASKED;
    void (*run)(void *user, const struct starling_message *m) = NULL;
    if (g)
        run = asked ? g->actor.on_ask : g->actor.on_tell;
    s->unanswered += asked;
    if (!run) {
        if (asked)
            starling_refuse(s, r->id, agent_code(AGENT_E_NOBODY), "this actor answers nothing");
        return;
    }
    struct starling_message m = {.ref = ref(s, r),
                                 .registration = g->id,
                                 .from = text(r->from),
                                 .body = text(r->body),
                                 .n = r->body.n,
                                 .is_bin = r->body_is_bin,
                                 .deadline_ms = (uint32_t)r->deadline_ms};
    run(g->actor.user, &m);
}

/* Which registration had the call is not known any more: all that want to know are told. */
static void on_cancel(struct starling *s, const struct agent_record *r)
{
    struct registration *g, *next;
    s->unanswered -= s->unanswered > 0;
    HASH_ITER(hh, s->registrations, g, next)
    {
        if (g->ended) /* by one of these callbacks; it leads to those behind it all the same */
            continue;
        if (g->kind == AGENT_HANDLE && g->handle.on_cancel)
            g->handle.on_cancel(g->handle.user, ref(s, r));
        else if (g->kind == AGENT_REGISTER && g->actor.on_cancel)
            g->actor.on_cancel(g->actor.user, ref(s, r));
    }
}

static void on_stream(struct starling *s, struct agent_record *r)
{
    struct request *request = requests_find(&s->requests, r->id);
    if (request && r->kind == AGENT_ANSWER && request->on_ack)
        request->on_ack(request->stream_user, text(r->sid), text(r->args_array), attachments(s, r),
                        r->n_attachments);
    if (!request || r->kind != AGENT_MEMBER || !request->on_member)
        return;
    struct starling_member m = {.sid = text(r->sid),
                                .node = text(r->node),
                                .user = text(r->user),
                                .data = text(r->data),
                                .rooms = rooms(s, r->rooms, r->n_rooms),
                                .n_rooms = r->n_rooms};
    request->on_member(request->stream_user, &m);
}

static void on_watch(struct starling *s, struct agent_record *r)
{
    struct registration *g = find(s, r->reg, AGENT_WATCH);
    if (g)
        tell_watch(g, r->kind == AGENT_BACK, r->kind == AGENT_BACK ? "" : text(r->reason));
}

/* What this version does not know but the node asks for gets an answer, so that the node need not wait for it. */
static void on_unreadable(struct starling *s, struct agent_record *r, int result)
{
    if (result == ERR_KIND && r->id != 0)
        starling_refuse(s, r->id, agent_code(AGENT_E_UNKNOWN_KIND), agent_code_text(AGENT_E_UNKNOWN_KIND));
    if (s->o.on_error)
        s->o.on_error(s->o.user, agent_code(AGENT_E_MALFORMED),
                      "the node sent something that cannot be read");
}

void on_record(void *user, struct agent_record *r, int result)
{
    struct starling *s = user;
    if (result != 1) {
        on_unreadable(s, r, result);
        return;
    }
    switch (r->kind) {
    case AGENT_OK:
    case AGENT_ERROR:
        on_answer(s, r);
        break;
    case AGENT_EVENT:
        on_event(s, r);
        break;
    case AGENT_LOST:
        on_lost(s, r);
        break;
    case AGENT_CALL:
        on_call(s, r);
        break;
    case AGENT_CONNECT:
    case AGENT_DISCONNECTED:
    case AGENT_JOINED:
    case AGENT_LEFT:
    case AGENT_RECOVERED:
        on_client(s, r);
        break;
    case AGENT_TOLD:
    case AGENT_ASKED:
        on_message(s, r);
        break;
    case AGENT_CANCEL:
        on_cancel(s, r);
        break;
    case AGENT_GONE:
    case AGENT_BACK:
        on_watch(s, r);
        break;
    case AGENT_ANSWER:
    case AGENT_MEMBER:
        on_stream(s, r);
        break;
    default: /* agents' own kinds, a second WELCOME: no node sends them */
        break;
    }
}
