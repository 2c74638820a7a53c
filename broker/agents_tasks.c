#include "agents_private.h"
#include "err.h"
#include <stdlib.h>
#include <time.h>

enum {
    ADMISSION_MS = 3000, /* at most, for a client that was let in to be there */
    CROWD_MS = 500,      /* at most, for what is meant for others, too */
    HURRY_MS = 5000,     /* after that it does not wait */
    ADMISSIONS_COMPARED = 64,
    ADMISSIONS_COMPARED_IN_A_HURRY = 1024,
};

/* ---- clients that have been let in ---- */

static struct admission *admission_new(struct mesh_origin from, uint64_t number, const struct agent_record *r)
{
    struct admission *ad = calloc(1, sizeof(*ad) + r->nsp.n);
    if (!ad)
        return NULL;
    ad->from = from;
    ad->number = number;
    ad->nsp_n = (uint32_t)r->nsp.n;
    memcpy(ad->nsp, r->nsp.p, r->nsp.n);
    memcpy(ad->sid, r->sid.p, r->sid.n < ID_CHARS ? r->sid.n : ID_CHARS);
    return ad;
}

static void admission_free(struct admission *ad)
{
    if (ad)
        free(ad->rooms);
    free(ad);
}

/* The agent's OK: what it says to this client from now on waits for it. */
static void begin_admission(struct agent *a, struct admission *ad, const struct agent_record *ok)
{
    size_t bytes = 1;
    for (unsigned i = 0; i < ok->n_rooms; i++)
        bytes += ok->rooms[i].n + 1;
    char *p = ad->rooms = malloc(bytes);
    if (!p) {
        admission_free(ad);
        return;
    }
    for (unsigned i = 0; i < ok->n_rooms; i++) {
        p = mempcpy(p, ok->rooms[i].p, ok->rooms[i].n);
        *p++ = '\0';
    }
    *p = '\0';
    ad->begun_ms = agents_now(a->agents);
    ad->until_ms = ad->begun_ms + ADMISSION_MS;
    ad->next = a->admissions;
    a->admissions = ad;
}

static bool lets_into(const struct admission *ad, struct span name)
{
    for (const char *room = ad->rooms; *room; room += strlen(room) + 1)
        if (span_eq(name, span_of(room)))
            return true;
    return false;
}

static bool is_in_a_hurry(const struct agent *a)
{
    return agents_now(a->agents) < a->hurries_until_ms;
}

/* Another group may take as long as its deadline to agree: this agent's work for everybody else does not wait for it. */
static bool crowd_waits(struct agent *a, const struct admission *ad)
{
    uint64_t now = agents_now(a->agents);
    if (is_in_a_hurry(a))
        return false;
    if (now - ad->begun_ms >= CROWD_MS)
        a->hurries_until_ms = now + HURRY_MS;
    return now - ad->begun_ms < CROWD_MS;
}

static bool concerns(struct agent *a, const struct admission *ad, const struct agent_record *r)
{
    bool found = r->n_to == 0;
    if (!span_eq(r->nsp, (struct span){ad->nsp, ad->nsp_n}))
        return false;
    for (unsigned i = 0; i < r->n_to; i++) {
        if (span_eq(r->to[i], (struct span){ad->sid, ID_CHARS}))
            return true;
        found = found || lets_into(ad, r->to[i]);
    }
    return found && crowd_waits(a, ad);
}

static void drop_late_admissions(struct agent *a)
{
    uint64_t now = agents_now(a->agents);
    struct admission **at = &a->admissions;
    while (*at) {
        struct admission *ad = *at;
        if (ad->until_ms > now) {
            at = &ad->next;
            continue;
        }
        *at = ad->next;
        admission_free(ad);
    }
}

bool agent_waits_for_admission(struct agent *a, const struct agent_record *r)
{
    unsigned n = 0;
    if (!a->admissions || (r->kind != AGENT_EMIT && (r->kind < AGENT_JOIN || r->kind > AGENT_SET)))
        return false;
    drop_late_admissions(a);
    unsigned compared = is_in_a_hurry(a) ? ADMISSIONS_COMPARED_IN_A_HURRY : ADMISSIONS_COMPARED;
    for (const struct admission *ad = a->admissions; ad; ad = ad->next)
        if (++n > compared || concerns(a, ad, r)) /* of very many one will */
            return true;
    return false;
}

void task_admitted(struct agents *g, struct mesh_origin from, uint64_t number, uint64_t target)
{
    struct agents_member *m = member_find(g, g->options.self, target);
    struct admission **at = m && m->reg ? &m->reg->agent->admissions : NULL;
    while (at && *at && ((*at)->number != number || !same_origin((*at)->from, from)))
        at = &(*at)->next;
    if (!at || !*at)
        return;
    struct admission *ad = *at;
    *at = ad->next;
    admission_free(ad);
    if (m->reg->agent->is_waiting)
        agent_dirty(m->reg->agent);
}

void admissions_free(struct agent *a)
{
    while (a->admissions) {
        struct admission *ad = a->admissions;
        a->admissions = ad->next;
        admission_free(ad);
    }
}

/* ---- tasks ---- */

static void drop_task(struct task *t)
{
    struct reg *reg = t->reg;
    HASH_DELETE(hh, reg->agent->tasks, t);
    HASH_DELETE(hh_call, reg->agent->by_call, t);
    if (t->reg_prev)
        t->reg_prev->reg_next = t->reg_next;
    else
        reg->tasks = t->reg_next;
    if (t->reg_next)
        t->reg_next->reg_prev = t->reg_prev;
    reg->unanswered--;
    reg->with_agent -= t->is_sent;
    if (reg->member)
        member_lighter(reg->member);
    admission_free(t->admission);
    free(t);
}

/* The reactor's clock stands still within a turn. */
static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void count_answer(struct agent *a, const struct task *t, bool is_error)
{
    struct agents *g = a->agents;
    uint64_t took_us = now_us() - t->begun_us;
    a->calls.answered++;
    a->calls.failed += is_error;
    meter_took(&a->calls.meter, agents_now(g), took_us);
    metrics_observe_us(g->metrics, METRIC_AGENT_CALL_TIME, took_us);
}

static struct task *new_task(struct reg *reg, struct mesh_origin from, uint64_t number,
                             const struct agent_record *r)
{
    struct agent *a = reg->agent;
    struct task *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    *t = (struct task){.id = ++a->next_task,
                       .reg = reg,
                       .reg_next = reg->tasks,
                       .from = from,
                       .call = {from.tag, from.boot, number},
                       .begun_us = now_us()};
    if (r->kind == AGENT_CONNECT) {
        t->admission = admission_new(from, number, r);
        if (!t->admission) {
            free(t);
            return NULL;
        }
    }
    HASH_ADD(hh, a->tasks, id, sizeof(t->id), t);
    HASH_ADD(hh_call, a->by_call, call, sizeof(t->call), t);
    if (t->reg_next)
        t->reg_next->reg_prev = t;
    reg->tasks = t;
    reg->unanswered++;
    a->calls.begun++;
    meter_begun(&a->calls.meter, agents_now(a->agents));
    return t;
}

enum agent_code task_take(struct reg *reg, struct mesh_origin from, uint64_t number, struct agent_record *r)
{
    struct task *t = NULL;
    bool is_asked = r->kind == AGENT_CALL || r->kind == AGENT_CONNECT || r->kind == AGENT_ASKED;
    if (reg->agent->is_over)
        return AGENT_E_DIED;
    r->reg = reg->id;
    if (is_asked) {
        t = new_task(reg, from, number, r);
        if (!t)
            return AGENT_E_MEMORY;
        r->id = t->id;
    }
    enum agent_code code = reg_put(reg, r, t);
    if (t && code != AGENT_CODES)
        drop_task(t);
    return code;
}

void task_answered(struct agent *a, struct agent_record *r)
{
    struct agents *g = a->agents;
    struct task *t;
    HASH_FIND(hh, a->tasks, &r->id, sizeof(r->id), t);
    if (!t || !t->is_sent)
        return;
    struct reg *reg = t->reg;
    struct mesh_origin from = t->from;
    uint64_t number = t->call.number;
    count_answer(a, t, r->kind == AGENT_ERROR);
    if (t->admission && r->kind == AGENT_OK) {
        begin_admission(a, t->admission, r);
        t->admission = NULL;
    }
    drop_task(t);
    agents_answer(g, from, number, r, reg->member);
    reg_go_on(reg);
}

/* It has not been sent. */
static void take_parcel_out(struct reg *reg, const struct task *t)
{
    struct parcel **at = &reg->first;
    while (*at && (*at)->task != t)
        at = &(*at)->next;
    struct parcel *p = *at;
    if (!p)
        return;
    *at = p->next;
    if (!*at)
        reg->last = at;
    reg->n_calls--;
    free(p);
    reg_emptied(reg);
}

/* No answer is wanted any more. */
static void drop_and_say(struct task *t)
{
    struct reg *reg = t->reg;
    struct agent *a = reg->agent;
    if (!t->is_sent) {
        take_parcel_out(reg, t);
    } else if (agent_may_send(a)) {
        struct agent_record *r = agents_out(a->agents, AGENT_CANCEL);
        r->id = t->id;
        agent_put(a, r);
    }
    drop_task(t);
}

void task_cancel(struct agents *g, struct mesh_origin from, uint64_t number, uint64_t target, bool is_late)
{
    struct agents_member *m = member_find(g, g->options.self, target);
    struct member_key call = {from.tag, from.boot, number};
    struct task *t = NULL;
    if (m && m->reg)
        HASH_FIND(hh_call, m->reg->agent->by_call, &call, sizeof(call), t);
    if (!t)
        return;
    struct reg *reg = t->reg;
    if (is_late) {
        reg->agent->calls.timed_out++;
        metrics_add(g->metrics, METRIC_AGENT_TIMEOUTS, 1);
    }
    drop_and_say(t);
    reg_go_on(reg);
}

void tasks_fail(struct agent *a, const struct reg *only)
{
    struct agents *g = a->agents;
    struct task *t;
    /* From the first one again each time: what fails here may cancel others. */
    while ((t = only ? only->tasks : a->tasks)) {
        struct mesh_origin from = t->from;
        uint64_t number = t->call.number;
        if (!t->is_sent)
            take_parcel_out(t->reg, t);
        drop_task(t);
        agents_answer_error(g, from, number, AGENT_E_DIED);
    }
}

void tasks_forget_node(struct agents *g, struct mesh_origin gone)
{
    struct task *t, *next;
    for (struct agent *a = g->agents; a; a = a->hh.next) {
        HASH_ITER(hh, a->tasks, t, next)
        {
            if (same_origin(t->from, gone))
                drop_and_say(t);
        }
        agent_dirty(a);
    }
}
