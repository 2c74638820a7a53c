/* What nodes have said of themselves and their agents. When a node's keys are void, they follow anew at once, or it is
 * dead: what is not said again in the meantime is gone. */
#include "agents_private.h"
#include "err.h"
#include <stdlib.h>

enum { SAID_AGAIN_MS = 1000 };

int agents_set(struct agents *g, enum gateway_key type, uint64_t number, struct span value)
{
    char key[GATEWAY_KEY_BYTES];
    if (!g->hub->cluster)
        return 0;
    return cluster_set(g->hub->cluster, MESH_TOPIC_AGENTS, gateway_write_key(key, type, number), value);
}

static struct span told(const struct agents *g)
{
    return (struct span){g->told.data, g->told.size};
}

/* ---- nodes ---- */

static struct agents_node *find_node(struct agents *g, struct mesh_origin o)
{
    struct member_key key = {o.tag, o.boot, 0};
    struct agents_node *n;
    HASH_FIND(hh, g->nodes, &key, sizeof(key), n);
    return n;
}

void agents_say_node(struct agents *g)
{
    struct gateway_node node = {
        .name = g->options.name, .host = g->options.host, .n = g->options.n_endpoints};
    for (unsigned i = 0; i < node.n; i++)
        node.endpoint[i] = g->options.endpoint[i];
    msgpack_sbuffer_clear(&g->told);
    if (gateway_write_node(&g->told, &node) == 0)
        agents_set(g, GATEWAY_NODE, 0, told(g));
}

static void copy_text(char *to, struct span text)
{
    memcpy(to, text.p, text.n);
    to[text.n] = '\0';
}

static void take_node(struct agents *g, struct mesh_origin from, struct span value)
{
    struct gateway_node said;
    struct agents_node *n = find_node(g, from);
    if (value.n == 0 && n) { /* it drains */
        n->n = 0;
        g->nodes_changed = true;
    }
    if (value.n == 0 || gateway_read_node(value, &said))
        return;
    if (!n) {
        n = calloc(1, sizeof(*n));
        if (!n)
            return;
        n->key = (struct member_key){from.tag, from.boot, 0};
        HASH_ADD(hh, g->nodes, key, sizeof(n->key), n);
    }
    copy_text(n->name, said.name);
    copy_text(n->host, said.host);
    n->n = said.n;
    for (unsigned i = 0; i < n->n; i++)
        copy_text(n->endpoint[i], said.endpoint[i]);
    n->lives = true;
    n->stale_ms = 0;
    g->nodes_changed = true;
}

static void forget_node(struct agents *g, struct agents_node *n)
{
    HASH_DELETE(hh, g->nodes, n);
    free(n);
}

/* Those of the same host may be reached by a path, too. */
static bool is_of_use(const struct agents *g, const struct agents_node *n, const char *endpoint)
{
    return endpoint[0] && (strncmp(endpoint, "ipc:", 4) != 0 || span_eq(span_of(n->host), g->options.host));
}

void agents_put_peers(struct agents *g, struct agent_record *r)
{
    for (struct agents_node *n = g->nodes; n && r->n_peers < AGENT_PEERS; n = n->hh.next) {
        struct agent_peer *p = &r->peers[r->n_peers];
        *p = (struct agent_peer){.name = span_of(n->name)};
        for (unsigned i = 0; i < n->n; i++)
            if (is_of_use(g, n, n->endpoint[i]))
                p->endpoints[p->n_endpoints++] = span_of(n->endpoint[i]);
        r->n_peers += n->lives && p->n_endpoints > 0;
    }
    if (r->n_peers > 0 || r->kind == AGENT_NODE)
        agent_with(r, AGENT_F_PEERS);
}

/* ---- instances ---- */

static struct far_instance *find_instance(struct agents *g, struct span text)
{
    struct far_instance *i;
    HASH_FIND(hh, g->instances, text.p, text.n, i);
    return i;
}

static void forget_instance(struct agents *g, struct far_instance *i)
{
    HASH_DELETE(hh, g->instances, i);
    free(i);
}

void agents_say_instance(struct agent *a)
{
    struct agents *g = a->agents;
    struct far_instance *elsewhere = find_instance(g, span_of(a->instance));
    a->epoch = (elsewhere ? elsewhere->epoch : 0) + 1;
    a->number = ++g->next_number;
    agents_repeat_instance(a);
}

void agents_repeat_instance(struct agent *a)
{
    struct agents *g = a->agents;
    struct gateway_about about = {
        .name = span_of(a->name), .instance = span_of(a->instance), .epoch = a->epoch};
    msgpack_sbuffer_clear(&g->told);
    if (gateway_write_about(&g->told, GATEWAY_INSTANCE, &about) == 0)
        agents_set(g, GATEWAY_INSTANCE, a->number, told(g));
}

static void take_instance(struct agents *g, struct mesh_origin from, uint64_t number, struct span value)
{
    struct gateway_about said;
    struct span rest;
    struct agent *own;
    if (gateway_read_about(value, GATEWAY_INSTANCE, &said, &rest))
        return;
    struct far_instance *i = find_instance(g, said.instance);
    HASH_FIND(hh_instance, g->by_instance, said.instance.p, said.instance.n, own);
    bool theirs =
        own && (said.epoch > own->epoch || (said.epoch == own->epoch && from.tag > g->options.self.tag));
    if (i && (i->epoch > said.epoch || (i->epoch == said.epoch && i->origin.tag > from.tag)))
        return;
    if (i)
        forget_instance(g, i);
    i = calloc(1, sizeof(*i) + said.instance.n);
    if (i) {
        *i = (struct far_instance){
            .origin = from, .number = number, .epoch = said.epoch, .name_n = (uint32_t)said.instance.n};
        memcpy(i->name, said.instance.p, said.instance.n);
        HASH_ADD(hh, g->instances, name, i->name_n, i);
    }
    if (theirs)
        agent_end(own, AGENT_E_REPLACED, "died");
}

static void drop_instance(struct agents *g, struct mesh_origin from, uint64_t number)
{
    struct far_instance *i, *next;
    HASH_ITER(hh, g->instances, i, next)
    if (i->number == number && same_origin(i->origin, from))
        forget_instance(g, i);
}

/* ---- registrations ---- */

static void take_registration(struct agents *g, struct mesh_origin from, uint64_t number, struct span value)
{
    struct gateway_about about;
    struct span rest;
    struct agents_member *m = member_find(g, from, number);
    enum agent_code code;
    if (value.n == 0) {
        if (m)
            member_remove(g, m, "died");
        return;
    }
    if (gateway_read_about(value, GATEWAY_REGISTRATION, &about, &rest))
        return;
    if (m) {
        m->stale_ms = 0;
        memcpy(m->reason, about.reason.p ? about.reason.p : "", about.reason.n);
        m->reason[about.reason.n] = '\0';
        return;
    }
    struct agent_reader reader = agent_open(rest);
    if (agent_read(&reader, &g->far) != 1 || (g->far.kind != AGENT_HANDLE && g->far.kind != AGENT_REGISTER) ||
        !agent_check(&g->far, &code))
        return;
    m = member_new(g, from, number, about.name, &g->far);
    if (m && m->address)
        address_settle(m);
}

/* ---- from the mesh ---- */

void agents_on_set(void *user, struct mesh_origin from, struct span key, struct span value)
{
    struct agents *g = user;
    enum gateway_key type;
    uint64_t number;
    if (is_own(g, from) || gateway_read_key(key, &type, &number))
        return;
    if (type == GATEWAY_REGISTRATION)
        take_registration(g, from, number, value);
    else if (type == GATEWAY_INSTANCE && value.n == 0)
        drop_instance(g, from, number);
    else if (type == GATEWAY_INSTANCE)
        take_instance(g, from, number, value);
    else
        take_node(g, from, value);
}

void agents_on_void(void *user, struct mesh_origin from)
{
    struct agents *g = user;
    uint64_t now = agents_now(g);
    for (struct agents_member *m = g->members; m; m = m->hh.next)
        if (same_origin(m->origin, from))
            m->stale_ms = now ? now : 1;
    for (struct far_instance *i = g->instances; i; i = i->hh.next)
        if (same_origin(i->origin, from))
            i->stale_ms = now ? now : 1;
}

static void drop_members(struct agents *g, const struct mesh_origin *of, uint64_t stale_before,
                         const char *reason)
{
    struct agents_member *m, *next;
    HASH_ITER(hh, g->members, m, next)
    {
        if (of ? same_origin(m->origin, *of) : m->stale_ms && m->stale_ms < stale_before)
            member_remove(g, m, reason);
    }
}

static void drop_instances(struct agents *g, const struct mesh_origin *of, uint64_t stale_before)
{
    struct far_instance *i, *next;
    HASH_ITER(hh, g->instances, i, next)
    {
        if (of ? same_origin(i->origin, *of) : i->stale_ms && i->stale_ms < stale_before)
            forget_instance(g, i);
    }
}

void known_forget(struct agents *g, struct mesh_origin from)
{
    struct agents_node *n = find_node(g, from);
    drop_members(g, &from, 0, "node");
    drop_instances(g, &from, 0);
    if (!n)
        return;
    n->lives = false; /* its name is in the ids of its emits */
    n->stale_ms = agents_now(g);
    g->nodes_changed = true;
}

void known_expire(struct agents *g)
{
    uint64_t now = agents_now(g);
    struct agents_node *n, *next;
    if (now > SAID_AGAIN_MS) {
        drop_members(g, NULL, now - SAID_AGAIN_MS, "died");
        drop_instances(g, NULL, now - SAID_AGAIN_MS);
    }
    HASH_ITER(hh, g->nodes, n, next)
    {
        if (!n->lives && now - n->stale_ms > g->options.window_ms)
            forget_node(g, n);
    }
}

void known_free(struct agents *g)
{
    while (g->nodes)
        forget_node(g, g->nodes);
    while (g->instances)
        forget_instance(g, g->instances);
}
