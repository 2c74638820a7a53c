#include "agents_list.h"
#include "agents_private.h"

struct agent *agents_next(const struct agents *g, const struct agent *after)
{
    struct agent *a = after ? after->hh.next : g->agents;
    while (a && (a->is_over || a->is_replaced))
        a = a->hh.next;
    return a;
}

const struct reg *agent_next_reg(const struct agent *a, const struct reg *after)
{
    return after ? after->hh.next : a->regs;
}

static void count_reg(const struct reg *reg, struct agent_row *row)
{
    row->handlers += reg->kind == AGENT_HANDLE;
    row->actors += reg->kind == AGENT_REGISTER;
    row->subscriptions += reg->kind == AGENT_SUBSCRIBE;
    row->watches += reg->kind == AGENT_WATCH;
    row->unanswered += reg->unanswered;
    row->waiting += reg->n_calls;
}

void agent_describe(struct agent *a, struct agent_row *row)
{
    uint64_t now = agents_now(a->agents);
    *row = (struct agent_row){
        .name = span_of(a->name),
        .instance = span_of(a->instance),
        .about = {a->about, a->about_n},
        .connected_ms = now - a->since_ms,
        .silent_ms = now - a->heard_ms,
        .calls = a->calls.begun,
        .answered = a->calls.answered,
        .failed = a->calls.failed,
        .timed_out = a->calls.timed_out,
        .calls_per_s = meter_rate(&a->calls.meter, now),
        .p50_us = meter_quantile_us(&a->calls.meter, now, 50),
        .p99_us = meter_quantile_us(&a->calls.meter, now, 99),
        .credit_bytes = a->credit > a->sent ? a->credit - a->sent : 0,
        .behind = a->n_behind,
    };
    for (const struct reg *reg = a->regs; reg; reg = reg->hh.next)
        count_reg(reg, row);
}

static void describe_member(const struct agents_member *m, struct reg_row *row)
{
    row->name = m->group ? (struct span){m->group->name, m->group->name_n}
                         : (struct span){m->address->name, m->address->name_n};
    row->n_namespaces = m->n_namespaces;
    row->namespaces = m->patterns;
    row->n_events = m->n_events;
    row->events = m->patterns + m->n_namespaces;
    row->life = m->life;
}

void reg_describe(const struct reg *reg, struct reg_row *row)
{
    *row = (struct reg_row){.kind = reg->kind == AGENT_HANDLE     ? "handle"
                                    : reg->kind == AGENT_REGISTER ? "register"
                                    : reg->kind == AGENT_WATCH    ? "watch"
                                                                  : "subscribe",
                            .limit = reg->limit,
                            .unanswered = reg->unanswered};
    if (reg->member)
        describe_member(reg->member, row);
    if (reg->watched)
        row->name = (struct span){reg->watched->name, reg->watched->name_n};
    if (reg->sub)
        subscription_describe(reg->sub, row);
}
