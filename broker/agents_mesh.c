#include "agents_private.h"
#include "err.h"
#include "log.h"

enum { LOADS_MAX = 1024 }; /* of one note */

int agents_tell_node(struct agents *g, struct mesh_origin to, const struct gateway_head *head,
                     const struct agent_record *r)
{
    msgpack_sbuffer *b = &g->told;
    msgpack_sbuffer_clear(b);
    if (!g->hub->cluster)
        return ERR_NOT_FOUND;
    if (gateway_write_head(b, head) || (r && agent_write(b, r)))
        return ERR_MEMORY;
    return cluster_tell(g->hub->cluster, to, MESH_TOPIC_AGENTS, (struct span){b->data, b->size});
}

void agents_answer(struct agents *g, struct mesh_origin to, uint64_t number, struct agent_record *r,
                   const struct agents_member *by)
{
    if (is_own(g, to)) {
        calls_answer(g, to, number, r);
        return;
    }
    r->id = number;
    struct gateway_head head = {.op = GATEWAY_ANSWER, .number = number};
    if (by) {
        head.target = by->key.number;
        head.after = member_load(by);
    }
    agents_tell_node(g, to, &head, r);
}

void agents_answer_error(struct agents *g, struct mesh_origin to, uint64_t number, enum agent_code code)
{
    struct agent_record *r = agents_out(g, AGENT_ERROR);
    r->code = span_of(agent_code(code));
    r->text = span_of(agent_code_text(code));
    agents_answer(g, to, number, r, NULL);
}

static void take_load(struct agents *g, struct mesh_origin from, uint64_t number, uint64_t load)
{
    struct agents_member *m = number ? member_find(g, from, number) : NULL;
    if (!m)
        return;
    m->others = load > m->own ? load - m->own : 0;
    member_lighter(m);
}

static void take_loads(struct agents *g, struct mesh_origin from, struct span rest)
{
    struct gateway_loads loads;
    struct gateway_load load;
    if (gateway_open_loads(rest, &loads))
        return;
    while (gateway_next_load(&loads, &load))
        take_load(g, from, load.number, load.load);
}

static void note_loads(struct agents *g, const struct gateway_load *loads, unsigned n)
{
    msgpack_sbuffer_clear(&g->told);
    if (n > 0 && g->hub->cluster && gateway_write_loads(&g->told, loads, n) == 0)
        cluster_note(g->hub->cluster, MESH_TOPIC_AGENTS, (struct span){g->told.data, g->told.size});
}

void agents_say_loads(struct agents *g)
{
    static struct gateway_load loads[LOADS_MAX]; /* the reactor's thread only */
    unsigned n = 0;
    for (struct agents_member *m = g->members; m; m = m->hh.next) {
        uint64_t load = m->reg ? member_load(m) : 0;
        member_lighter(m); /* for whatever has not said so */
        if (!m->reg || load == m->said)
            continue;
        m->said = load;
        loads[n++] = (struct gateway_load){m->key.number, load};
        if (n == LOADS_MAX) {
            note_loads(g, loads, n);
            n = 0;
        }
    }
    note_loads(g, loads, n);
}

static void deliver(struct agents *g, struct mesh_origin from, const struct gateway_head *head,
                    struct agent_record *r)
{
    struct agents_member *m = member_find(g, g->options.self, head->target);
    enum agent_code code = m && m->reg ? task_take(m->reg, from, head->number, r) : AGENT_E_DIED;
    if (code != AGENT_CODES && head->number)
        agents_answer_error(g, from, head->number, code);
    else if (r->kind == AGENT_TOLD && head->number)
        agents_answer(g, from, head->number, agents_out(g, AGENT_OK), NULL);
}

static bool is_for_agents(enum agent_kind kind)
{
    return kind >= AGENT_CALL && kind <= AGENT_ASKED && kind != AGENT_CANCEL;
}

static void take_record(struct agents *g, struct mesh_origin from, const struct gateway_head *head,
                        struct agent_record *r)
{
    switch (head->op) {
    case GATEWAY_DELIVER:
        if (is_for_agents(r->kind) || r->kind == AGENT_RECOVERED)
            deliver(g, from, head, r);
        return;
    case GATEWAY_ANSWER:
        if ((r->kind == AGENT_OK || r->kind == AGENT_ERROR) && !act_answered(g, from, head->number, r))
            calls_answer(g, from, head->number, r);
        take_load(g, from, head->target, head->after);
        return;
    case GATEWAY_ACT:
        act_serve(g, from, head, r);
        return;
    case GATEWAY_PART:
        if (r->kind == AGENT_MEMBER)
            act_part(g, head->number, r);
        return;
    default:
        return;
    }
}

void agents_on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct agents *g = user;
    struct gateway_head head;
    struct span rest;
    if (gateway_read_head(bytes, &head, &rest))
        return;
    if (head.op == GATEWAY_LOAD) {
        take_loads(g, from, rest);
    } else if (head.op == GATEWAY_CANCEL) {
        task_cancel(g, from, head.number, head.target, head.after == GATEWAY_LATE);
    } else if (head.op == GATEWAY_ADMITTED) {
        task_admitted(g, from, head.number, head.target);
    } else {
        struct agent_reader reader = agent_open(rest);
        if (agent_read(&reader, &g->far) == 1)
            take_record(g, from, &head, &g->far);
    }
}
