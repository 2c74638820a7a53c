#include "agents_private.h"
#include "err.h"
#include "mirror.h"
#include <stdio.h>
#include <stdlib.h>

/* A request whose answer waits until others have a number of ours. */
struct confirm {
    struct confirm *next;
    struct request *request;
    uint64_t seq, until_ms;
    bool is_emit, mirror, repeated;
};

/* ---- requests ---- */

static bool id_in_use(const struct agent *a, uint64_t id)
{
    struct request *q;
    struct reg *reg;
    HASH_FIND(hh, a->by_id, &id, sizeof(id), q);
    HASH_FIND(hh, a->regs, &id, sizeof(id), reg);
    return q || reg;
}

bool request_allowed(struct agent *a, const struct agent_record *r)
{
    if (r->id == 0 || !id_in_use(a, r->id))
        return true;
    agent_put_error(a, r->id, AGENT_E_ID, NULL);
    return false;
}

struct request *request_new(struct agent *a, const struct agent_record *r)
{
    struct request *q = a->n_requests < LIMIT_AGENT_CALLS ? calloc(1, sizeof(*q)) : NULL;
    if (!q) {
        bool is_limit = a->n_requests >= LIMIT_AGENT_CALLS;
        agent_put_error(a, r->id, is_limit ? AGENT_E_LIMIT : AGENT_E_MEMORY, NULL);
        return NULL;
    }
    q->agent = a;
    q->id = r->id;
    q->bytes = r->raw.n;
    q->next = a->requests;
    if (q->next)
        q->next->prev = q;
    a->requests = q;
    if (q->id)
        HASH_ADD(hh, a->by_id, id, sizeof(q->id), q);
    a->n_requests++;
    a->unfinished += q->bytes;
    return q;
}

static void unlink_request(struct request *q)
{
    struct agent *a = q->agent;
    if (q->prev)
        q->prev->next = q->next;
    else
        a->requests = q->next;
    if (q->next)
        q->next->prev = q->prev;
    if (q->id)
        HASH_DELETE(hh, a->by_id, q);
    a->n_requests--;
    a->unfinished -= q->bytes;
    q->agent = NULL;
    agent_dirty(a); /* it may be granted more */
}

void agent_ok(struct agent *a, uint64_t id, struct agent_record *r)
{
    r->id = id;
    if (id)
        agent_put(a, r);
}

void request_ok(struct request *q, struct agent_record *r)
{
    struct agent *a = q->agent;
    if (a) {
        unlink_request(q);
        agent_ok(a, q->id, r);
    }
    free(q);
}

void request_error(struct request *q, enum agent_code code, const char *text)
{
    struct agent *a = q->agent;
    if (a) {
        unlink_request(q);
        agent_put_error(a, q->id, code, text);
    }
    free(q);
}

void request_failed(struct request *q, const struct agent_record *error)
{
    struct agent *a = q->agent;
    if (a) {
        /* error may be what agents_out() empties. */
        struct span code = error->code, text = error->text, data = error->data;
        bool has_data = agent_has(error, AGENT_F_DATA);
        struct agent_record *r = agents_out(a->agents, AGENT_ERROR);
        unlink_request(q);
        r->id = q->id;
        r->code = code;
        r->text = text;
        if (has_data)
            agent_with(r, AGENT_F_DATA)->data = data;
        agent_put(a, r);
    }
    free(q);
}

void requests_forget(struct agent *a)
{
    while (a->requests)
        unlink_request(a->requests); /* whoever has it frees it */
}

/* ---- confirmations ---- */

struct span agents_emit_id(struct agents *g, const struct mesh_origin *origin, uint64_t seq,
                           char text[AGENT_EMIT_ID_BYTES])
{
    struct agents_node *node = NULL;
    int n;
    if (origin && !is_own(g, *origin)) {
        struct member_key key = {origin->tag, origin->boot, 0};
        HASH_FIND(hh, g->nodes, &key, sizeof(key), node);
    }
    if (!origin || is_own(g, *origin))
        n = snprintf(text, AGENT_EMIT_ID_BYTES, "%s:%llu", g->hub->options.origin, (unsigned long long)seq);
    else if (node)
        n = snprintf(text, AGENT_EMIT_ID_BYTES, "%s-%012llx:%llu", node->name,
                     (unsigned long long)origin->boot, (unsigned long long)seq);
    else
        n = snprintf(text, AGENT_EMIT_ID_BYTES, "%06x-%012llx:%llu", origin->tag,
                     (unsigned long long)origin->boot, (unsigned long long)seq);
    return (struct span){text, (size_t)n};
}

static void add_confirm(struct request *q, struct confirm with)
{
    struct agents *g = q->agent->agents;
    struct confirm *c = malloc(sizeof(*c));
    if (!c) {
        request_error(q, AGENT_E_MEMORY, NULL);
        return;
    }
    *c = with;
    c->request = q;
    c->next = NULL;
    *g->confirms_end = c;
    g->confirms_end = &c->next;
    agents_look_soon(g);
}

void confirm_registration(struct request *q, uint64_t seq)
{
    struct agents *g = q->agent->agents;
    add_confirm(q, (struct confirm){.seq = seq, .until_ms = agents_now(g) + AGENTS_KNOWN_MS});
}

void confirm_emit(struct request *q, uint64_t seq, bool mirror, bool repeated)
{
    struct agents *g = q->agent->agents;
    if (mirror)
        mirror_hurry(cluster_mirror(g->hub->cluster));
    add_confirm(q, (struct confirm){.seq = seq,
                                    .until_ms = agents_now(g) + AGENTS_CONFIRM_MS,
                                    .is_emit = true,
                                    .mirror = mirror,
                                    .repeated = repeated});
}

static bool is_confirmed(const struct agents *g, const struct confirm *c)
{
    struct cluster *cluster = g->hub->cluster;
    if (!cluster)
        return true;
    return c->mirror ? mirror_has(cluster_mirror(cluster), c->seq) : cluster_is_confirmed(cluster, c->seq);
}

static void answer_unconfirmed(struct agents *g, struct confirm *c)
{
    char text[AGENT_EMIT_ID_BYTES];
    struct agent_record *r = agents_out(g, AGENT_ERROR);
    struct request *q = c->request;
    struct agent *a = q->agent;
    if (a) {
        unlink_request(q);
        r->id = q->id;
        r->code = span_of(agent_code(AGENT_E_UNCONFIRMED));
        r->text = span_of(agent_code_text(AGENT_E_UNCONFIRMED));
        agent_with(r, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, NULL, c->seq, text);
        agent_put(a, r);
    }
    free(q);
}

static void answer_confirmed(struct agents *g, struct confirm *c)
{
    char text[AGENT_EMIT_ID_BYTES];
    struct agent_record *r = agents_out(g, AGENT_OK);
    if (c->is_emit)
        agent_with(r, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, NULL, c->seq, text);
    if (c->repeated)
        agent_with(r, AGENT_F_REPEATED)->repeated = true;
    request_ok(c->request, r);
}

bool confirms_look(struct agents *g)
{
    struct confirm **at = &g->confirms;
    while (*at) {
        struct confirm *c = *at;
        bool is_late = agents_now(g) >= c->until_ms;
        if (!is_late && !is_confirmed(g, c)) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        /* Who does not answer for so long is dead: all others know. */
        if (c->is_emit && !is_confirmed(g, c))
            answer_unconfirmed(g, c);
        else
            answer_confirmed(g, c);
        free(c);
    }
    g->confirms_end = at;
    return g->confirms != NULL;
}

void confirms_free(struct agents *g)
{
    while (g->confirms) {
        struct confirm *c = g->confirms;
        g->confirms = c->next;
        free(c->request);
        free(c);
    }
    g->confirms_end = &g->confirms;
}
