/* Acts on sessions: done to those of this node here, and told to each other node that has some of them. */
#include "agents_private.h"
#include "client.h"
#include "directory.h"
#include "err.h"
#include <stdlib.h>

enum { LATER_MS = 500 }; /* at most, for what was emitted before an act */

struct act {
    struct agents *agents;
    uint64_t number, until_ms;
    struct request *request;
    bool failed;
    uint64_t count, dropped, left; /* left: MEMBERs that may be given */
    unsigned n_open;
    struct mesh_origin *open;
    UT_hash_handle hh;
};

/* Another node's, that waits for what its sender has emitted before. */
struct later_act {
    struct later_act *next;
    struct mesh_origin from;
    struct gateway_head head;
    uint64_t until_ms;
    size_t n;
    char record[];
};

/* ---- who ---- */

struct crowd {
    struct socket **socket;
    size_t n, cap;
    bool failed;
};

static void add_socket(struct crowd *c, struct socket *s)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        struct socket **more = realloc(c->socket, cap * sizeof(struct socket *));
        if (!more) {
            c->failed = true;
            return;
        }
        c->socket = more;
        c->cap = cap;
    }
    c->socket[c->n++] = s;
}

static void add_room(struct crowd *c, const struct room *room)
{
    for (uint32_t i = 0; room && i < room->n; i++)
        if (room->members[i].socket)
            add_socket(c, room->members[i].socket);
}

static int compare(const void *a, const void *b)
{
    const struct socket *x = *(struct socket *const *)a, *y = *(struct socket *const *)b;
    return (x > y) - (x < y);
}

static bool is_named_before(const struct agent_record *r, unsigned i)
{
    unsigned j = 0;
    while (j < i && !span_eq(r->to[j], r->to[i]))
        j++;
    return j < i;
}

/* Each once. */
static void gather(struct agents *g, struct crowd *c, struct nsp *nsp, const struct agent_record *r)
{
    size_t kept = 0;
    if (r->n_to == 0)
        add_room(c, nsp->all);
    for (unsigned i = 0; i < r->n_to; i++) {
        struct socket *s = nsp_find(nsp, r->to[i]);
        if (is_named_before(r, i))
            continue;
        add_room(c, room_find(nsp, r->to[i]));
        if (s)
            add_socket(c, s);
    }
    g->looked_at += c->n;
    if (c->n > 1 && r->n_to > 0)
        qsort(c->socket, c->n, sizeof(c->socket[0]), compare);
    for (size_t i = 0; i < c->n; i++)
        if (i == 0 || c->socket[i] != c->socket[kept - 1])
            c->socket[kept++] = c->socket[i];
    c->n = kept;
}

/* ---- what is done ---- */

static void save(const struct socket *s)
{
    if (s->entry)
        directory_save(s->entry, NULL, NULL);
}

static bool change_rooms(struct socket *s, const struct agent_record *r)
{
    bool good = true;
    for (unsigned i = 0; i < r->n_rooms; i++) {
        if (r->kind == AGENT_LEAVE)
            room_leave(s, r->rooms[i]);
        else
            good = room_join(s, r->rooms[i]) == 0 && good;
    }
    save(s);
    return good;
}

static bool set_session(struct socket *s, const struct agent_record *r)
{
    int err = agent_has(r, AGENT_F_USER) ? socket_set_user(s, r->user) : 0;
    if (!err && agent_has(r, AGENT_F_DATA))
        err = socket_set_data(s, r->data);
    save(s);
    return err == 0;
}

static struct agent_record *member_record(struct agents *g, uint64_t id, const struct socket *s)
{
    struct agent_record *m = agents_out(g, AGENT_MEMBER);
    m->id = id;
    m->sid = (struct span){s->sid, ID_CHARS};
    m->node = g->options.name;
    if (s->user)
        agent_with(m, AGENT_F_USER)->user = span_of(s->user);
    if (s->data)
        agent_with(m, AGENT_F_DATA)->data = span_of(s->data);
    agent_with(m, AGENT_F_ROOMS);
    for (uint32_t i = 0; i < s->n_places && m->n_rooms < LIMIT_ROOMS_PER_SOCKET; i++) {
        const struct room *room = s->places[i].room;
        if (room != s->nsp->all)
            m->rooms[m->n_rooms++] = (struct span){room->name, room->name_n};
    }
    return m;
}

/* Where members are listed to: the agent, or the node that asks. */
struct listing {
    struct act *act;
    struct mesh_origin to;
    uint64_t number, left;
};

static void give_member(struct act *act, struct agent_record *m)
{
    struct agent *a = act->request->agent;
    if (act->left == 0 || !a || !agent_may_send(a)) {
        act->dropped++;
        return;
    }
    act->left--;
    m->id = act->request->id;
    agent_put(a, m);
}

static void list_member(struct agents *g, struct listing *l, const struct socket *s)
{
    struct gateway_head head = {.op = GATEWAY_PART, .number = l->number};
    if (l->left == 0)
        return;
    l->left--;
    struct agent_record *m = member_record(g, l->number, s);
    if (l->act)
        give_member(l->act, m);
    else
        agents_tell_node(g, l->to, &head, m);
}

static bool act_on(struct agents *g, struct socket *s, const struct agent_record *r, struct listing *l)
{
    switch (r->kind) {
    case AGENT_JOIN:
    case AGENT_LEAVE:
        return change_rooms(s, r);
    case AGENT_DISCONNECT:
        socket_disconnect(s, r->close);
        return true;
    case AGENT_MEMBERS:
        list_member(g, l, s);
        return true;
    default:
        return set_session(s, r);
    }
}

/* How many sockets of this node it was done to; UINT64_MAX without memory. */
static uint64_t act_here(struct agents *g, const struct agent_record *r, struct listing *l)
{
    struct nsp *nsp = hub_find(g->hub, r->nsp);
    struct crowd crowd = {.n = 0};
    uint64_t count = 0;
    if (!nsp)
        return 0;
    gather(g, &crowd, nsp, r);
    for (size_t i = 0; i < crowd.n && !crowd.failed; i++)
        count += act_on(g, crowd.socket[i], r, l);
    free(crowd.socket);
    return crowd.failed ? UINT64_MAX : count;
}

static uint64_t limit_of(const struct agent_record *r)
{
    return agent_has(r, AGENT_F_LIMIT) && r->limit < LIMIT_WHO_MEMBERS ? r->limit : LIMIT_WHO_MEMBERS;
}

/* ---- other nodes ---- */

static void add_node(struct act *act, struct mesh_origin o)
{
    for (unsigned i = 0; i < act->n_open; i++)
        if (same_origin(act->open[i], o))
            return;
    struct mesh_origin *more = realloc(act->open, (act->n_open + 1) * sizeof(*more));
    if (!more) {
        act->failed = true;
        return;
    }
    act->open = more;
    more[act->n_open++] = o;
}

static void find_nodes(struct act *act, const struct agent_record *r)
{
    struct agents *g = act->agents;
    struct nsp *far = g->hub->cluster ? cluster_far(g->hub->cluster, r->nsp) : NULL;
    struct crowd crowd = {.n = 0};
    struct mesh_origin origin;
    if (!far)
        return;
    gather(g, &crowd, far, r);
    for (size_t i = 0; i < crowd.n; i++)
        if (cluster_origin_of(crowd.socket[i], &origin))
            add_node(act, origin);
    act->failed = act->failed || crowd.failed;
    free(crowd.socket);
}

static void close_node(struct act *act, unsigned i)
{
    act->open[i] = act->open[--act->n_open];
}

static void end_act(struct act *act)
{
    struct agents *g = act->agents;
    HASH_DELETE(hh, g->acts, act);
    if (act->failed) {
        request_error(act->request, AGENT_E_UNAVAILABLE, NULL);
    } else {
        struct agent_record *ok = agents_out(g, AGENT_OK);
        agent_with(ok, AGENT_F_COUNT)->count = act->count;
        if (act->dropped)
            agent_with(ok, AGENT_F_DROPPED)->dropped = act->dropped;
        request_ok(act->request, ok);
    }
    free(act->open);
    free(act);
}

static void tell_nodes(struct act *act, const struct agent_record *r)
{
    struct agents *g = act->agents;
    struct gateway_head head = {.op = GATEWAY_ACT,
                                .number = act->number,
                                .after = g->hub->cluster ? cluster_newest(g->hub->cluster) : 0};
    for (unsigned i = act->n_open; i-- > 0;) {
        if (agents_tell_node(g, act->open[i], &head, r)) {
            act->failed = true;
            close_node(act, i);
        }
    }
}

void agent_act(struct agent *a, struct agent_record *r)
{
    struct agents *g = a->agents;
    if (!request_allowed(a, r))
        return;
    if (!hub_allows_agents(g->hub, r->nsp)) {
        agent_put_error(a, r->id, AGENT_E_NAMESPACE, NULL);
        return;
    }
    struct act *act = calloc(1, sizeof(*act));
    struct request *q = act ? request_new(a, r) : NULL;
    if (!q) {
        if (!act)
            agent_put_error(a, r->id, AGENT_E_MEMORY, NULL);
        free(act);
        return;
    }
    act->agents = g;
    act->number = ++g->next_number;
    act->until_ms = agents_now(g) + AGENTS_ACT_MS;
    act->request = q;
    act->left = limit_of(r);
    HASH_ADD(hh, g->acts, number, sizeof(act->number), act);
    find_nodes(act, r);
    tell_nodes(act, r);
    struct listing l = {.act = act, .left = act->left};
    uint64_t count = act_here(g, r, &l);
    if (count == UINT64_MAX)
        act->failed = true;
    else
        act->count += count;
    if (act->n_open == 0)
        end_act(act);
}

static struct act *find_act(struct agents *g, uint64_t number)
{
    struct act *act;
    HASH_FIND(hh, g->acts, &number, sizeof(number), act);
    return act;
}

void act_part(struct agents *g, uint64_t number, struct agent_record *r)
{
    struct act *act = find_act(g, number);
    if (act)
        give_member(act, r);
}

bool act_answered(struct agents *g, struct mesh_origin from, uint64_t number, const struct agent_record *r)
{
    struct act *act = find_act(g, number);
    if (!act)
        return false;
    for (unsigned i = 0; i < act->n_open; i++) {
        if (!same_origin(act->open[i], from))
            continue;
        close_node(act, i);
        act->count += r->kind == AGENT_OK ? r->count : 0;
        act->failed = act->failed || r->kind == AGENT_ERROR;
        break;
    }
    if (act->n_open == 0)
        end_act(act);
    return true;
}

void acts_forget_node(struct agents *g, struct mesh_origin gone)
{
    struct act *act, *next;
    HASH_ITER(hh, g->acts, act, next)
    act_answered(g, gone, act->number, &(struct agent_record){.kind = AGENT_ERROR});
}

/* ---- for other nodes ---- */

static bool is_act(enum agent_kind kind)
{
    return kind >= AGENT_JOIN && kind <= AGENT_SET;
}

static bool has_all_before(struct agents *g, struct mesh_origin from, uint64_t after)
{
    unsigned n = peers_positions(cluster_peers(g->hub->cluster), g->positions, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 1; i < n; i++)
        if (same_origin(g->positions[i].origin, from))
            return g->positions[i].received >= after;
    return true;
}

static void serve_now(struct agents *g, struct mesh_origin from, uint64_t number,
                      const struct agent_record *r)
{
    struct listing l = {.to = from, .number = number, .left = limit_of(r)};
    uint64_t count = act_here(g, r, &l);
    if (count == UINT64_MAX) {
        agents_answer_error(g, from, number, AGENT_E_MEMORY);
        return;
    }
    struct agent_record *ok = agents_out(g, AGENT_OK);
    agent_with(ok, AGENT_F_COUNT)->count = count;
    agents_answer(g, from, number, ok, NULL);
}

void act_serve(struct agents *g, struct mesh_origin from, const struct gateway_head *head,
               struct agent_record *r)
{
    enum agent_code code;
    if (!is_act(r->kind) || !agent_check(r, &code))
        return;
    if (!g->later_acts && has_all_before(g, from, head->after)) {
        serve_now(g, from, head->number, r);
        return;
    }
    struct later_act *later = malloc(sizeof(*later) + r->raw.n), **at = &g->later_acts;
    if (!later) {
        agents_answer_error(g, from, head->number, AGENT_E_MEMORY);
        return;
    }
    *later =
        (struct later_act){.from = from, .head = *head, .until_ms = agents_now(g) + LATER_MS, .n = r->raw.n};
    memcpy(later->record, r->raw.p, r->raw.n);
    while (*at)
        at = &(*at)->next;
    *at = later;
    agents_look_soon(g);
}

/* In the order in which they came. */
static void serve_later_acts(struct agents *g)
{
    while (g->later_acts) {
        struct later_act *later = g->later_acts;
        if (agents_now(g) < later->until_ms && !has_all_before(g, later->from, later->head.after))
            return;
        struct agent_reader reader = agent_open((struct span){later->record, later->n});
        g->later_acts = later->next;
        if (agent_read(&reader, &g->far) == 1)
            serve_now(g, later->from, later->head.number, &g->far);
        free(later);
    }
}

bool acts_look(struct agents *g)
{
    struct act *act, *next;
    serve_later_acts(g);
    HASH_ITER(hh, g->acts, act, next)
    {
        if (agents_now(g) >= act->until_ms) {
            act->failed = true;
            end_act(act);
        }
    }
    return g->later_acts != NULL;
}

void acts_free(struct agents *g)
{
    while (g->acts) {
        struct act *act = g->acts;
        HASH_DELETE(hh, g->acts, act);
        free(act->request);
        free(act->open);
        free(act);
    }
    while (g->later_acts) {
        struct later_act *later = g->later_acts;
        g->later_acts = later->next;
        free(later);
    }
}
