#include "agents_private.h"
#include "container.h"
#include "err.h"
#include "json.h"
#include "log.h"
#include "mirror.h"
#include <stdlib.h>

enum {
    KEYS_MAX = 1000 * 1000,
    AHEAD_MS = 3000, /* for all nodes to get an emit that is repeated here */
};

/* ---- keys of emits: which one had it first ---- */

struct key {
    struct key *younger;
    struct mesh_origin origin;
    uint64_t seq, at_ms;
    UT_hash_handle hh;
    uint32_t n;
    char text[]; /* the agent's name, NUL, its key */
};

struct keys {
    struct key *by_text, *oldest, **youngest;
};

static struct key *find_key(const struct agents *g, struct span text)
{
    struct key *k = NULL;
    if (g->keys)
        HASH_FIND(hh, g->keys->by_text, text.p, text.n, k);
    return k;
}

static void drop_oldest(struct keys *keys)
{
    struct key *k = keys->oldest;
    keys->oldest = k->younger;
    if (!keys->oldest)
        keys->youngest = &keys->oldest;
    HASH_DELETE(hh, keys->by_text, k);
    free(k);
}

void keys_add(struct agents *g, const struct mesh_origin *origin, uint64_t seq, struct span text)
{
    struct keys *keys = g->keys;
    if (!keys || find_key(g, text))
        return;
    struct key *k = malloc(sizeof(*k) + text.n);
    if (!k) {
        log_event(LOG_WARN, "key_not_kept", LOG_UINT("number", seq));
        return;
    }
    if (HASH_COUNT(keys->by_text) >= KEYS_MAX) {
        log_event(LOG_WARN, "keys_full", LOG_UINT("limit", KEYS_MAX));
        drop_oldest(keys);
    }
    *k = (struct key){.origin = origin ? *origin : g->options.self,
                      .seq = seq,
                      .at_ms = agents_now(g),
                      .n = (uint32_t)text.n};
    memcpy(k->text, text.p, text.n);
    HASH_ADD(hh, keys->by_text, text, k->n, k);
    *keys->youngest = k;
    keys->youngest = &k->younger;
}

void keys_expire(struct agents *g)
{
    uint64_t now = agents_now(g);
    if (g->options.window_ms && !g->keys) {
        g->keys = calloc(1, sizeof(*g->keys));
        if (g->keys)
            g->keys->youngest = &g->keys->oldest;
    }
    while (g->keys && g->keys->oldest && now - g->keys->oldest->at_ms > g->options.window_ms)
        drop_oldest(g->keys);
}

void keys_free(struct agents *g)
{
    while (g->keys && g->keys->oldest)
        drop_oldest(g->keys);
    free(g->keys);
    g->keys = NULL;
}

/* ---- acknowledgements of receivers ---- */

struct emit_acks {
    struct agents *agents;
    struct emit_acks *prev, *next;
    struct request *request;
    struct collect collect;
    uint64_t dropped;
};

static void forget_acks(struct emit_acks *e)
{
    if (e->prev)
        e->prev->next = e->next;
    else
        e->agents->acks = e->next;
    if (e->next)
        e->next->prev = e->prev;
    free(e);
}

static void on_ack(struct collect *c, struct span sid, struct span args, const struct span *attachments,
                   unsigned n_attachments)
{
    struct emit_acks *e = container_of(c, struct emit_acks, collect);
    struct agent *a = e->request->agent;
    if (!a || !agent_may_send(a)) {
        e->dropped++;
        return;
    }
    struct agent_record *r = agents_out(e->agents, AGENT_ANSWER);
    r->id = e->request->id;
    r->sid = sid;
    r->args = args;
    if (n_attachments) {
        agent_with(r, AGENT_F_ATTACHMENTS)->n_attachments = n_attachments;
        memcpy(r->attachments, attachments, n_attachments * sizeof(attachments[0]));
    }
    agent_put(a, r);
}

static void on_acks_done(struct collect *c)
{
    struct emit_acks *e = container_of(c, struct emit_acks, collect);
    char text[AGENT_EMIT_ID_BYTES];
    struct agent_record *r = agents_out(e->agents, AGENT_OK);
    agent_with(r, AGENT_F_EMIT_ID)->emit = agents_emit_id(e->agents, NULL, c->seq, text);
    agent_with(r, AGENT_F_EXPECTED)->expected = c->expected;
    agent_with(r, AGENT_F_ANSWERED)->answered = c->answered;
    agent_with(r, AGENT_F_DROPPED)->dropped = e->dropped;
    request_ok(e->request, r);
    forget_acks(e);
}

static void emit_with_acks(struct agent *a, const struct agent_record *r, struct emit *emit)
{
    struct agents *g = a->agents;
    struct emit_acks *e = calloc(1, sizeof(*e));
    struct request *q = e ? request_new(a, r) : NULL;
    if (!q) {
        if (!e)
            agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        free(e);
        return;
    }
    e->agents = g;
    e->request = q;
    e->collect.on_ack = on_ack;
    e->collect.on_done = on_acks_done;
    e->next = g->acks;
    if (e->next)
        e->next->prev = e;
    g->acks = e;
    int err = collect_emit(g->hub->collects, &e->collect, emit, (uint32_t)r->ack_ms);
    if (err) {
        request_error(q, err == ERR_BUSY ? AGENT_E_BUSY : AGENT_E_MEMORY, NULL);
        forget_acks(e);
    }
}

void emit_acks_free(struct agents *g)
{
    while (g->acks) {
        collect_cancel(&g->acks->collect);
        free(g->acks->request);
        forget_acks(g->acks);
    }
}

/* ---- emits ---- */

static void answer_repeat(struct agent *a, const struct agent_record *r, const struct key *k)
{
    struct agents *g = a->agents;
    char text[AGENT_EMIT_ID_BYTES];
    if (r->confirm != AGENT_CONFIRM_NONE) {
        struct request *q = request_new(a, r);
        if (q)
            confirm_emit(q, k->origin, k->seq, r->confirm == AGENT_CONFIRM_MIRROR, true);
        return;
    }
    struct agent_record *ok = agents_out(g, AGENT_OK);
    agent_with(ok, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, &k->origin, k->seq, text);
    agent_with(ok, AGENT_F_REPEATED)->repeated = true;
    agent_ok(a, r->id, ok);
}

static void emit_now(struct agent *a, struct agent_record *r, struct span key)
{
    struct agents *g = a->agents;
    char event[JSON_QUOTED_MAX(LIMIT_EVENT_NAME_BYTES)], text[AGENT_EMIT_ID_BYTES];
    struct emit emit = {
        .nsp = r->nsp,
        .to = r->to,
        .n_to = r->n_to,
        .except = r->except,
        .n_except = r->n_except,
        .event = {event, json_quote(event, r->event)},
        .args = r->args,
        .attachments = r->attachments,
        .n_attachments = r->n_attachments,
        .is_volatile = r->is_volatile,
        .key = key,
    };
    uint64_t seq;
    if (r->ack_ms) {
        emit_with_acks(a, r, &emit);
        return;
    }
    int err = hub_emit(g->hub, &emit, &seq);
    if (err) {
        agent_put_error(a, r->id, err == ERR_BUSY ? AGENT_E_BUSY : AGENT_E_MEMORY, NULL);
    } else if (r->confirm != AGENT_CONFIRM_NONE && r->id) {
        struct request *q = request_new(a, r);
        if (q)
            confirm_emit(q, g->options.self, seq, r->confirm == AGENT_CONFIRM_MIRROR, false);
    } else if (r->id) {
        struct agent_record *ok = agents_out(g, AGENT_OK);
        agent_with(ok, AGENT_F_EMIT_ID)->emit = agents_emit_id(g, NULL, seq, text);
        agent_ok(a, r->id, ok);
    }
}

/* What is wrong with it beyond what agent_check() knows. */
static enum agent_code check_emit(const struct agents *g, const struct agent_record *r, const char **text)
{
    const struct cluster *cluster = g->hub->cluster;
    *text = NULL;
    if (!hub_allows_agents(g->hub, r->nsp))
        return AGENT_E_NAMESPACE;
    if (r->ack_ms && r->confirm != AGENT_CONFIRM_NONE) {
        *text = "ack_ms and confirm do not go together";
        return AGENT_E_ARGUMENT;
    }
    if (r->confirm == AGENT_CONFIRM_MIRROR && !(cluster && cluster_mirror(cluster))) {
        *text = "this node has no mirror";
        return AGENT_E_UNAVAILABLE;
    }
    return AGENT_CODES;
}

/* Can an emit with a key that is not known here have been said elsewhere? Everybody has answered since the EMIT came, or
 * is dead and what it has said last is here. An agent's older connection ends before the node that has it answers, as
 * that hears of the newer one first. */
static bool may_be_said(struct agent *a)
{
    struct cluster *cluster = a->agents->hub->cluster;
    if (!cluster)
        return false;
    const struct peers *peers = cluster_peers(cluster);
    const struct mirror *mirror = cluster_mirror(cluster);
    if (peers_alive(peers) > 0 && peers_newest(peers) == a->newest)
        agents_repeat_instance(a); /* something for them to answer to */
    return !peers_is_confirmed(peers, a->newest + 1) || !peers_is_settled(peers) ||
           (mirror && !mirror_is_settled(mirror));
}

/* What an agent says behind a repeat must not overtake, at a node that lacks it yet, what its node had said before that
 * died. Who does not get it in time does not hold up the agent for good. */
static bool is_ahead(struct agent *a, const struct key *k)
{
    const struct agents *g = a->agents;
    const struct cluster *cluster = g->hub->cluster;
    if (!cluster || is_own(g, k->origin) || peers_have(cluster_peers(cluster), k->origin, k->seq)) {
        a->ahead_ms = 0;
        return false;
    }
    if (a->ahead_ms == 0)
        a->ahead_ms = agents_now(g);
    return agents_now(g) - a->ahead_ms < AHEAD_MS;
}

bool agent_emit(struct agent *a, struct agent_record *r)
{
    struct agents *g = a->agents;
    char text[MESH_KEY_BYTES];
    struct span key = {text, 0};
    const char *why;
    if (g->hub->engine->congested)
        return false;
    if (r->key.n && g->options.window_ms) {
        char *p = mempcpy(text, a->name, strlen(a->name) + 1);
        key.n = (size_t)((char *)mempcpy(p, r->key.p, r->key.n) - text);
        const struct key *said = r->again ? find_key(g, key) : NULL;
        if (r->again && (said ? is_ahead(a, said) : may_be_said(a)))
            return false;
    }
    if (!request_allowed(a, r))
        return true;
    enum agent_code code = check_emit(g, r, &why);
    const struct key *known = key.n ? find_key(g, key) : NULL;
    if (code != AGENT_CODES)
        agent_put_error(a, r->id, code, why);
    else if (known)
        answer_repeat(a, r, known);
    else
        emit_now(a, r, key);
    return true;
}
