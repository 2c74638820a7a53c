#include "agents_private.h"
#include "err.h"
#include "mirror.h"
#include <stdio.h>
#include <stdlib.h>

enum { LOOK_UP_AGAIN_MS = 100 };

/* A request whose answer waits until others have a number, ours or, of a repeated emit, another origin's. */
struct confirm {
    struct agents *agents; /* NULL: gone, and the store still owes its answer */
    struct confirm *next;
    struct request *request;
    struct mesh_origin origin;
    uint64_t seq, until_ms;
    uint64_t asked_ms; /* the store, whether it has another origin's */
    bool is_emit, mirror, repeated;
    bool is_asking, is_stored;
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
    c->agents = g;
    c->request = q;
    c->next = NULL;
    *g->confirms_end = c;
    g->confirms_end = &c->next;
    agents_look_soon(g);
}

void confirm_registration(struct request *q, uint64_t seq)
{
    struct agents *g = q->agent->agents;
    add_confirm(q, (struct confirm){
                       .origin = g->options.self, .seq = seq, .until_ms = agents_now(g) + AGENTS_KNOWN_MS});
}

void confirm_emit(struct request *q, struct mesh_origin origin, uint64_t seq, bool mirror, bool repeated)
{
    struct agents *g = q->agent->agents;
    if (mirror && is_own(g, origin))
        mirror_hurry(cluster_mirror(g->hub->cluster));
    add_confirm(q, (struct confirm){.origin = origin,
                                    .seq = seq,
                                    .until_ms = agents_now(g) + AGENTS_CONFIRM_MS,
                                    .is_emit = true,
                                    .mirror = mirror,
                                    .repeated = repeated});
}

static void on_looked_up(void *user, bool has)
{
    struct confirm *c = user;
    c->is_asking = false;
    c->is_stored = has;
    if (c->agents)
        agents_look_soon(c->agents);
    else
        free(c);
}

static bool is_stored(const struct agents *g, struct confirm *c)
{
    struct mirror *mirror = cluster_mirror(g->hub->cluster);
    if (!mirror || is_own(g, c->origin))
        return mirror && mirror_has(mirror, c->seq);
    bool asks = !c->is_stored && !c->is_asking && agents_now(g) - c->asked_ms >= LOOK_UP_AGAIN_MS;
    if (asks) {
        c->is_asking = true;
        c->asked_ms = agents_now(g);
        mirror_look_up(mirror, c->origin, c->seq, on_looked_up, c);
    }
    return c->is_stored;
}

static bool is_confirmed(const struct agents *g, struct confirm *c)
{
    struct cluster *cluster = g->hub->cluster;
    if (!cluster)
        return true;
    if (c->mirror)
        return is_stored(g, c);
    return is_own(g, c->origin) ? cluster_is_confirmed(cluster, c->seq)
                                : peers_have(cluster_peers(cluster), c->origin, c->seq);
}

static void confirm_free(struct confirm *c)
{
    c->agents = NULL;
    if (!c->is_asking)
        free(c);
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
        agent_with(r, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, &c->origin, c->seq, text);
        agent_put(a, r);
    }
    free(q);
}

static void answer_confirmed(struct agents *g, struct confirm *c)
{
    char text[AGENT_EMIT_ID_BYTES];
    struct agent_record *r = agents_out(g, AGENT_OK);
    if (c->is_emit)
        agent_with(r, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, &c->origin, c->seq, text);
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
        bool confirmed = is_confirmed(g, c);
        if (!is_late && !confirmed) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        /* Who does not answer for so long is dead: all others know. */
        if (c->is_emit && !confirmed)
            answer_unconfirmed(g, c);
        else
            answer_confirmed(g, c);
        confirm_free(c);
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
        confirm_free(c);
    }
    g->confirms_end = &g->confirms;
}
