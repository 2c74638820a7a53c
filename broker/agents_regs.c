/* HANDLE, REGISTER, WATCH and UNDO: registrations of agents of this node. */
#include "agents_private.h"
#include "err.h"
#include <stdlib.h>

struct reg *reg_new(struct agent *a, const struct agent_record *r)
{
    if (a->n_regs >= LIMIT_AGENT_REGISTRATIONS) {
        agent_put_error(a, r->id, AGENT_E_LIMIT, "too many registrations");
        return NULL;
    }
    struct reg *reg = calloc(1, sizeof(*reg));
    if (!reg) {
        agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        return NULL;
    }
    reg->agent = a;
    reg->id = r->id;
    reg->kind = r->kind;
    reg->last = &reg->first;
    HASH_ADD(hh, a->regs, id, sizeof(reg->id), reg);
    a->n_regs++;
    return reg;
}

static void stop_watching(struct reg *reg)
{
    if (reg->watch_prev)
        reg->watch_prev->watch_next = reg->watch_next;
    else
        reg->watched->watchers = reg->watch_next;
    if (reg->watch_next)
        reg->watch_next->watch_prev = reg->watch_prev;
    address_drop_if_unused(reg->agent->agents, reg->watched);
}

/* ---- members of this node: known to all ---- */

/* The record says no more than others have to know. */
static int say_member(struct agents *g, const struct agents_member *m, const struct agent_record *r,
                      const char *reason)
{
    struct gateway_about about = {
        .name = span_of(m->name), .instance = span_of(m->reg->agent->instance), .reason = span_of(reason)};
    msgpack_sbuffer_clear(&g->told);
    if (gateway_write_about(&g->told, GATEWAY_REGISTRATION, &about) || agent_write(&g->told, r))
        return ERR_MEMORY;
    return agents_set(g, GATEWAY_REGISTRATION, m->key.number, (struct span){g->told.data, g->told.size});
}

static void say_member_gone(struct agents *g, const struct agents_member *m, const char *reason)
{
    struct agent_record *r = agents_out(g, AGENT_REGISTER);
    r->id = m->reg->id;
    if (m->address && strcmp(reason, "node") != 0) { /* watchers elsewhere are told why */
        r->address = (struct span){m->address->name, m->address->name_n};
        if (m->shared)
            agent_with(r, AGENT_F_SHARED)->shared = true;
        say_member(g, m, r, reason);
    }
    agents_set(g, GATEWAY_REGISTRATION, m->key.number, (struct span){"", 0});
}

void reg_free(struct reg *reg, const char *reason)
{
    struct agent *a = reg->agent;
    struct agents *g = a->agents;
    tasks_fail(a, reg);
    reg_drop_parcels(reg);
    if (reg->member) {
        say_member_gone(g, reg->member, reason);
        member_remove(g, reg->member, reason);
    }
    if (reg->watched)
        stop_watching(reg);
    if (reg->sub)
        subscription_free(reg);
    HASH_DELETE(hh, a->regs, reg);
    a->n_regs--;
    free(reg);
}

static void add_member(struct agent *a, struct agent_record *r)
{
    struct agents *g = a->agents;
    struct reg *reg = reg_new(a, r);
    if (!reg)
        return;
    reg->limit = r->limit;
    struct agents_member *m = member_new(g, g->options.self, ++g->next_number, span_of(a->name), r);
    if (m) {
        m->reg = reg;
        member_lighter(m); /* it is of this node now */
    }
    reg->member = m;
    if (!m || say_member(g, m, r, "")) {
        reg_free(reg, "ended");
        agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        return;
    }
    struct request *q = request_new(a, r);
    if (!q) {
        reg_free(reg, "ended");
        return;
    }
    confirm_registration(q, g->hub->cluster ? cluster_newest(g->hub->cluster) : 0);
}

void agent_handle(struct agent *a, struct agent_record *r)
{
    if (request_allowed(a, r))
        add_member(a, r);
}

static bool is_taken(const struct address *address, bool shared)
{
    bool taken = false;
    for (unsigned i = 0; address && i < address->members.n && !taken; i++) {
        const struct agents_member *m = address->members.heap[i];
        taken = !(m->shared && shared) && m->reason[0] == '\0';
    }
    return taken;
}

void agent_register(struct agent *a, struct agent_record *r)
{
    if (!request_allowed(a, r))
        return;
    if (is_taken(address_find(a->agents, r->address), r->shared))
        agent_put_error(a, r->id, AGENT_E_TAKEN, NULL);
    else
        add_member(a, r);
}

static bool loses(const struct agents_member *m, const struct agents_member *far)
{
    bool they_win = far->key.tag < m->key.tag || (far->key.tag == m->key.tag && far->key.boot < m->key.boot);
    return m->reg && !(m->shared && far->shared) && !far->reason[0] && they_win;
}

/* Another node's actor has this address by right: ours has lost it. */
void address_settle(const struct agents_member *far)
{
    const struct pool *members = &far->address->members;
    unsigned i = 0;
    while (i < members->n) {
        struct agents_member *m = members->heap[i];
        if (!loses(m, far)) {
            i++;
            continue;
        }
        struct agent *a = m->reg->agent;
        agent_put_error(a, m->reg->id, AGENT_E_TAKEN, NULL);
        reg_free(m->reg, "ended");
        i = 0; /* others have changed their places */
    }
}

/* ---- WATCH, UNDO ---- */

void agent_watch(struct agent *a, struct agent_record *r)
{
    struct agents *g = a->agents;
    struct reg *reg = request_allowed(a, r) ? reg_new(a, r) : NULL;
    struct address *address = reg ? address_obtain(g, r->address) : NULL;
    if (!reg)
        return;
    if (!address) {
        reg_free(reg, "ended");
        agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        return;
    }
    reg->watched = address;
    reg->watch_next = address->watchers;
    if (reg->watch_next)
        reg->watch_next->watch_prev = reg;
    address->watchers = reg;
    struct agent_record *ok = agents_out(g, AGENT_OK);
    agent_with(ok, AGENT_F_ALIVE)->alive = address->members.n > 0;
    agent_ok(a, r->id, ok);
}

void agent_undo(struct agent *a, struct agent_record *r)
{
    struct reg *reg;
    if (!request_allowed(a, r))
        return;
    HASH_FIND(hh, a->regs, &r->reg, sizeof(r->reg), reg);
    if (!reg) {
        agent_put_error(a, r->id, AGENT_E_NOT_FOUND, NULL);
        return;
    }
    reg_free(reg, "ended");
    agent_ok(a, r->id, agents_out(a->agents, AGENT_OK));
}
