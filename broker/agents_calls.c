#include "agents_private.h"
#include "container.h"
#include "err.h"
#include <stdlib.h>

/* Something that a member, of this node or another, has been asked and has not answered. */
struct call {
    struct agents *agents;
    uint64_t number;
    struct call_at at;
    struct timer deadline;
    enum agent_code failure;   /* of a deadline that only says this, later; else AGENT_CODES */
    struct question *question; /* one of these two */
    struct request *request;
    struct call *next, **link; /* of the question */
    UT_hash_handle hh;
};

/* ---- life ---- */

static void unlink_call(struct call *c)
{
    struct agents *g = c->agents;
    struct agents_member *m = member_find(g, c->at.origin, c->at.target);
    HASH_DELETE(hh, g->calls, c);
    reactor_timer_cancel(g->reactor, &c->deadline);
    if (m && m->own > 0)
        m->own--;
    if (m)
        member_lighter(m);
    if (!c->question)
        return;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
}

static void cancel_there(struct call *c, bool is_late)
{
    struct agents *g = c->agents;
    if (is_own(g, c->at.origin))
        task_cancel(g, c->at.origin, c->number, c->at.target, is_late);
    else
        agents_tell_node(g, c->at.origin,
                         &(struct gateway_head){.op = GATEWAY_CANCEL,
                                                .number = c->number,
                                                .target = c->at.target,
                                                .after = is_late ? GATEWAY_LATE : 0},
                         NULL);
}

void call_cancel(struct call *c)
{
    cancel_there(c, false);
    unlink_call(c);
    free(c);
}

static void answer_request(struct call *c, struct agent_record *r)
{
    if (r->kind == AGENT_ERROR) {
        request_failed(c->request, r);
        return;
    }
    struct span body = r->body;
    bool has_body = agent_has(r, AGENT_F_ANSWER_BODY), is_bin = r->body_is_bin;
    struct agent_record *ok = agents_out(c->agents, AGENT_OK);
    if (has_body) {
        agent_with(ok, AGENT_F_ANSWER_BODY)->body = body;
        ok->body_is_bin = is_bin;
    }
    request_ok(c->request, ok);
}

static void finish(struct call *c, struct agent_record *r)
{
    struct question *q = c->question;
    unlink_call(c);
    if (q) {
        question_answered(q, r, &c->at);
        if (!*question_calls(q))
            question_ended(q);
    } else {
        answer_request(c, r);
    }
    free(c);
}

static void fail(struct call *c, enum agent_code code)
{
    struct agent_record *r = agents_out(c->agents, AGENT_ERROR);
    r->code = span_of(agent_code(code));
    r->text = span_of(agent_code_text(code));
    metrics_add(c->agents->metrics, METRIC_AGENT_CALLS_FAILED, 1);
    finish(c, r);
}

static void on_deadline(struct timer *t)
{
    struct call *c = container_of(t, struct call, deadline);
    if (c->failure != AGENT_CODES) {
        fail(c, c->failure);
        return;
    }
    cancel_there(c, true);
    fail(c, AGENT_E_DEADLINE);
}

/* Never from within call_begin(): whoever begins one is not ready for its answer. */
static void fail_soon(struct call *c, enum agent_code code)
{
    c->failure = code;
    reactor_timer_set(c->agents->reactor, &c->deadline, 0);
}

static enum agent_code deliver(struct agents *g, const struct agents_member *m, uint64_t number,
                               struct agent_record *r)
{
    if (m->reg)
        return task_take(m->reg, g->options.self, number, r);
    struct gateway_head head = {.op = GATEWAY_DELIVER, .number = number, .target = m->key.number};
    return agents_tell_node(g, m->origin, &head, r) ? AGENT_E_DIED : AGENT_CODES;
}

struct call *call_begin(struct agents *g, struct agents_member *m, uint64_t deadline_ms,
                        struct agent_record *r, struct question *question, struct request *request)
{
    struct call *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->agents = g;
    c->number = ++g->next_number;
    c->at = (struct call_at){
        .origin = m->origin, .number = c->number, .target = m->key.number, .observes = m->observe};
    c->failure = AGENT_CODES;
    c->question = question;
    c->request = request;
    if (question) {
        struct call **list = question_calls(question);
        c->link = list;
        c->next = *list;
        if (c->next)
            c->next->link = &c->next;
        *list = c;
    }
    timer_init(&c->deadline, on_deadline);
    HASH_ADD(hh, g->calls, number, sizeof(c->number), c);
    m->own++;
    metrics_add(g->metrics, METRIC_AGENT_CALLS, 1);
    reactor_timer_set(g->reactor, &c->deadline, deadline_ms);
    enum agent_code code = deliver(g, m, c->number, r);
    if (code != AGENT_CODES)
        fail_soon(c, code);
    return c;
}

void member_tell(struct agents *g, const struct agents_member *m, struct agent_record *r)
{
    deliver(g, m, 0, r);
}

void calls_answer(struct agents *g, struct mesh_origin from, uint64_t number, struct agent_record *r)
{
    struct call *c;
    HASH_FIND(hh, g->calls, &number, sizeof(number), c);
    if (c && same_origin(c->at.origin, from) && c->failure == AGENT_CODES)
        finish(c, r);
}

void calls_forget_node(struct agents *g, struct mesh_origin gone)
{
    struct call *c, *next;
    HASH_ITER(hh, g->calls, c, next)
    {
        if (same_origin(c->at.origin, gone) && c->failure == AGENT_CODES)
            fail_soon(c, AGENT_E_DIED);
    }
}

void calls_free(struct agents *g)
{
    while (g->calls) {
        struct call *c = g->calls;
        struct question *q = c->question;
        struct request *request = c->request;
        unlink_call(c);
        free(c);
        if (q && !*question_calls(q))
            question_ended(q);
        free(request); /* its agent is gone */
    }
}

/* ---- TELL, ASK ---- */

static struct agents_member *choose(struct agent *a, const struct agent_record *r)
{
    struct address *address = address_find(a->agents, r->address);
    struct agents_member *m = address ? address_choose(a->agents, address) : NULL;
    if (!m)
        agent_put_error(a, r->id, AGENT_E_NOBODY, NULL);
    return m;
}

static struct agent_record *carry(struct agent *a, enum agent_kind kind, const struct agent_record *r)
{
    struct agent_record *out = agents_out(a->agents, kind);
    out->body = r->body;
    out->body_is_bin = r->body_is_bin;
    agent_with(out, AGENT_F_FROM)->from = span_of(a->name);
    return out;
}

static void begin_for(struct agent *a, struct agents_member *m, uint64_t deadline_ms, enum agent_kind kind,
                      struct agent_record *r)
{
    struct request *q = request_new(a, r);
    if (!q)
        return;
    struct agent_record *out = carry(a, kind, r);
    if (kind == AGENT_ASKED)
        agent_with(out, AGENT_F_DEADLINE_MS)->deadline_ms = deadline_ms;
    if (!call_begin(a->agents, m, deadline_ms, out, NULL, q))
        request_error(q, AGENT_E_MEMORY, NULL);
}

void agent_tell(struct agent *a, struct agent_record *r)
{
    struct agents_member *m = request_allowed(a, r) ? choose(a, r) : NULL;
    if (!m)
        return;
    if (!m->reg) {
        begin_for(a, m, AGENTS_DEADLINE_MS, AGENT_TOLD, r);
        return;
    }
    enum agent_code code = task_take(m->reg, a->agents->options.self, 0, carry(a, AGENT_TOLD, r));
    if (code != AGENT_CODES)
        agent_put_error(a, r->id, code, NULL);
    else
        agent_ok(a, r->id, agents_out(a->agents, AGENT_OK));
}

void agent_ask(struct agent *a, struct agent_record *r)
{
    struct agents_member *m = request_allowed(a, r) ? choose(a, r) : NULL;
    if (m)
        begin_for(a, m, agents_deadline(r->deadline_ms), AGENT_ASKED, r);
}
