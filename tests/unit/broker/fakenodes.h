/* Nodes on a fake network that have nothing but peers, for tests of the mesh's logic. What a node is told is checked
 * as it comes: each number of an origin once and in order, or in a gap that was told; and who is where is kept, to be
 * compared with the truth. */
#ifndef STARLING_TESTS_FAKENODES_H
#define STARLING_TESTS_FAKENODES_H

#include "fakenet.h"
#include "log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { BOOTS = 3, SOCKETS = 40, ROOMS = 16, KEYS = 12 };

struct seat {
    bool is_in;
    uint32_t rooms;
};

/* What one node has been told of one origin. */
struct view {
    uint64_t next; /* number; 0: nothing has come yet */
    uint64_t emits, lost;
    uint64_t last_turn; /* of its last emit among all that the node was given */
    unsigned gaps, voids;
    struct seat socket[SOCKETS];
    uint64_t key[KEYS]; /* 0: none */
};

static struct node {
    struct net_node *at;
    struct reactor *reactor;
    struct metrics *metrics;
    struct peers *peers;
    struct mesh_origin self;
    char name[16];
    unsigned readies;
    uint64_t turns;
    bool is_busy;
    struct seat socket[SOCKETS];
    uint64_t key[KEYS];
    struct view view[NET_NODES][BOOTS];
} nodes[NET_NODES];

static struct net net;
static uint64_t seed;
static bool has_presence; /* numbers go to presence, too: emits are not without a hole then */
static struct peers_options options;
static struct mesh_record record; /* large: one is enough */

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            print_error("seed %llu\n", (unsigned long long)seed);                                            \
        assert_true(condition);                                                                              \
    } while (0)

/* ---- the user of the peers ---- */

static inline struct view *view_of(unsigned node, struct mesh_origin o)
{
    assert_true(o.tag >= 1 && o.tag <= NET_NODES);
    return &nodes[node].view[o.tag - 1][o.boot % BOOTS];
}

static inline unsigned index_of(void *user)
{
    return (unsigned)((struct node *)user - nodes);
}

static inline void on_emit(void *user, struct mesh_origin from, uint64_t seq, const struct mesh_emit *emit)
{
    struct view *v = view_of(index_of(user), from);
    char text[32];
    size_t n = (size_t)snprintf(text, sizeof(text), "%u-%llu:%llu ", from.tag, (unsigned long long)from.boot,
                                (unsigned long long)seq);
    CHECK(emit->args.n >= n && memcmp(emit->args.p, text, n) == 0);
    CHECK(v->next == 0 || (has_presence ? seq >= v->next : seq == v->next));
    CHECK(!nodes[index_of(user)].is_busy);
    v->next = seq + 1;
    v->last_turn = ++nodes[index_of(user)].turns;
    v->emits++;
}

/* Sockets are "s<number>", rooms "r<number>" and dots behind, so that many do not fit into one message. */
static inline unsigned number_of(struct span name)
{
    unsigned n = 0;
    for (size_t i = 1; i < name.n && name.p[i] != '.'; i++)
        n = n * 10 + (unsigned)(name.p[i] - '0');
    return n;
}

static inline void on_presence(void *user, struct mesh_origin from, enum mesh_kind kind,
                               const struct mesh_presence *presence)
{
    CHECK(kind >= MESH_ENTER && kind <= MESH_PART);
    struct seat *seat = &view_of(index_of(user), from)->socket[number_of(presence->sid)];
    if (kind == MESH_EXIT) {
        *seat = (struct seat){false, 0};
        return;
    }
    if (kind != MESH_PART)
        seat->is_in = true;
    for (unsigned i = 0; i < presence->n_rooms; i++) {
        uint32_t bit = 1u << number_of(presence->rooms[i]);
        seat->rooms = kind == MESH_PART ? seat->rooms & ~bit : seat->rooms | bit;
    }
}

static inline void on_presence_void(void *user, struct mesh_origin from)
{
    struct view *v = view_of(index_of(user), from);
    memset(v->socket, 0, sizeof(v->socket));
    memset(v->key, 0, sizeof(v->key));
    v->voids++;
}

static inline void on_set(void *user, struct mesh_origin from, const struct mesh_message *set)
{
    assert_true(set->key.n == 1 && (uint8_t)set->key.p[0] < KEYS);
    uint64_t *value = &view_of(index_of(user), from)->key[(uint8_t)set->key.p[0]];
    *value = 0;
    assert_true(set->bytes.n == 0 || set->bytes.n >= sizeof(*value));
    if (set->bytes.n)
        memcpy(value, set->bytes.p, sizeof(*value));
}

static inline bool is_busy(void *user)
{
    return ((struct node *)user)->is_busy;
}

/* As large as asked for; 0: none. */
static inline struct mesh_message set_of(uint8_t *key, uint64_t *value, size_t bytes)
{
    static char text[70000];
    assert_true(bytes <= sizeof(text));
    memcpy(text, value, sizeof(*value));
    return (struct mesh_message){.topic = MESH_TOPIC_AGENTS,
                                 .key = {(char *)key, 1},
                                 .bytes = {text, *value == 0              ? 0
                                                 : bytes > sizeof(*value) ? bytes
                                                                          : sizeof(*value)}};
}

static inline void on_gap(void *user, struct mesh_origin from, uint64_t first, uint64_t last)
{
    struct view *v = view_of(index_of(user), from);
    CHECK(first <= last);
    CHECK(v->next == 0 || (has_presence ? first >= v->next : first == v->next));
    v->next = last + 1;
    v->lost += last - first + 1;
    v->gaps++;
}

static inline struct span long_name(char text[256], char kind, unsigned number)
{
    memset(text, '.', 256);
    text[snprintf(text, 256, "%c%u", kind, number)] = '.';
    return (struct span){text, 250};
}

static inline void set_presence(struct mesh_presence *p, char texts[][256], unsigned socket, uint32_t rooms)
{
    *p = (struct mesh_presence){.nsp = SPAN("/")};
    p->sid = long_name(texts[ROOMS], 's', socket);
    p->n_rooms = 0;
    for (unsigned i = 0; i < ROOMS; i++)
        if (rooms >> i & 1)
            p->rooms[p->n_rooms++] = long_name(texts[i], 'r', i);
}

static inline void put_presence(void *user, struct peers *m)
{
    static char texts[ROOMS + 1][256];
    static struct mesh_presence p;
    const struct node *node = user;
    for (unsigned i = 0; i < SOCKETS; i++) {
        if (!node->socket[i].is_in)
            continue;
        set_presence(&p, texts, i, 0);
        peers_put_presence(m, MESH_ENTER, &p);
        set_presence(&p, texts, i, node->socket[i].rooms);
        if (p.n_rooms)
            peers_put_presence(m, MESH_JOIN, &p);
    }
    for (uint8_t k = 0; k < KEYS; k++) {
        uint64_t value = node->key[k];
        struct mesh_message set = set_of(&k, &value, 0);
        if (value)
            peers_put_set(m, &set);
    }
}

static inline void on_ready(void *user)
{
    ((struct node *)user)->readies++;
}

/* ---- nodes ---- */

static inline void start_node(unsigned i, uint64_t boot)
{
    struct node *n = &nodes[i];
    struct peers_user user = {.user = n,
                              .on_emit = on_emit,
                              .on_presence = on_presence,
                              .on_presence_void = on_presence_void,
                              .on_set = on_set,
                              .on_gap = on_gap,
                              .is_busy = is_busy,
                              .put_presence = put_presence,
                              .on_ready = on_ready};
    memset(n, 0, sizeof(*n));
    n->at = &net.node[i];
    n->self = options.self = (struct mesh_origin){i + 1, boot};
    n->reactor = reactor_new();
    n->metrics = metrics_new();
    assert_true(n->reactor && n->metrics);
    snprintf(n->name, sizeof(n->name), "node-%u", i);
    options.name = span_of(n->name);
    n->peers = net_start(&net, i, n->reactor, n->metrics, options, &user);
}

static inline void stop_node(unsigned i)
{
    net_stop(&net, i);
    nodes[i].peers = NULL;
    reactor_free(&nodes[i].reactor);
    metrics_free(&nodes[i].metrics);
}

/* Every one of the first n has been given all others. */
static inline void start_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        start_node(i, 1);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < n; j++)
            if (i != j)
                net_name(&net, i, j);
        peers_start(nodes[i].peers);
    }
}

static inline void start_over(uint64_t with)
{
    for (unsigned i = 0; i < NET_NODES; i++)
        if (nodes[i].peers)
            stop_node(i);
    net_end(&net);
    memset(nodes, 0, sizeof(nodes));
    seed = with;
    net_init(&net, with);
}

static inline int set_up(void **state)
{
    (void)state;
    log_setup(LOG_ERROR, false);
    has_presence = false;
    options = (struct peers_options){
        .cluster = SPAN("c"),
        .host = SPAN("host"),
        .peer_timeout_ms = 1500,
        .start_wait_ms = 5000,
        .ring = {.max_ms = 120000, .max_bytes = 64 << 20},
    };
    start_over(1);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    start_over(1);
    return 0;
}

static inline uint64_t say_long(unsigned i, size_t bytes)
{
    static char text[70000];
    struct node *n = &nodes[i];
    memset(text, 'x', bytes);
    size_t used =
        (size_t)snprintf(text, sizeof(text), "%u-%llu:%llu ", n->self.tag, (unsigned long long)n->self.boot,
                         (unsigned long long)peers_newest(n->peers) + 1);
    memset(&record.emit, 0, offsetof(struct mesh_emit, to));
    record.kind = MESH_EMIT;
    record.emit.nsp = SPAN("/");
    record.emit.event = SPAN("\"e\"");
    record.emit.args = (struct span){text, used > bytes ? used : bytes};
    uint64_t seq = peers_publish(n->peers, &record);
    assert_int_equal(seq, peers_newest(n->peers));
    return seq;
}

static inline uint64_t say(unsigned i)
{
    return say_long(i, 0);
}

static inline void say_each(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        say(i);
}

/* Something happens to a socket of this node, or nothing when it cannot. */
static inline void move(unsigned i, enum mesh_kind kind, unsigned socket, uint32_t rooms)
{
    static char texts[ROOMS + 1][256];
    struct seat *seat = &nodes[i].socket[socket];
    if (seat->is_in == (kind == MESH_ENTER))
        return;
    if (kind == MESH_ENTER || kind == MESH_EXIT)
        *seat = (struct seat){kind == MESH_ENTER, 0};
    else
        seat->rooms = kind == MESH_JOIN ? seat->rooms | rooms : seat->rooms & ~rooms;
    record.kind = kind;
    set_presence(&record.presence, texts, socket, kind == MESH_ENTER || kind == MESH_EXIT ? 0 : rooms);
    assert_int_not_equal(peers_publish(nodes[i].peers, &record), 0);
}

static inline void move_at_random(unsigned i)
{
    enum mesh_kind kind = MESH_JOIN;
    uint64_t what = net_draw(&net, 10);
    if (what < 5)
        kind = what == 0 ? MESH_EXIT : what < 3 ? MESH_ENTER : MESH_PART;
    move(i, kind, (unsigned)net_draw(&net, SOCKETS), 1u << net_draw(&net, ROOMS));
}

static inline void set_key_long(unsigned i, uint8_t key, uint64_t value, size_t bytes)
{
    nodes[i].key[key] = value;
    record.kind = MESH_SET;
    record.message = set_of(&key, &value, bytes);
    assert_int_not_equal(peers_publish(nodes[i].peers, &record), 0);
}

static inline void set_key(unsigned i, uint8_t key, uint64_t value)
{
    set_key_long(i, key, value, 0);
}

/* Some 170 KB when all of it is said at once. */
static inline void crowd(unsigned i)
{
    for (unsigned s = 0; s < SOCKETS; s++) {
        move(i, MESH_ENTER, s, 0);
        move(i, MESH_JOIN, s, (1u << ROOMS) - 1);
    }
}

/* ---- conditions ---- */

static inline bool is_up(unsigned i)
{
    return nodes[i].peers != NULL;
}

static inline unsigned others_up(unsigned i)
{
    unsigned n = 0;
    for (unsigned j = 0; j < NET_NODES; j++)
        n += j != i && is_up(j);
    return n;
}

static inline bool all_know_each_other(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NET_NODES; i++)
        if (is_up(i) && (!peers_is_ready(nodes[i].peers) || peers_alive(nodes[i].peers) != others_up(i)))
            return false;
    return true;
}

/* Everybody has been told the last that everybody has said. */
static inline bool has_all(unsigned i, unsigned of)
{
    uint64_t next = view_of(i, nodes[of].self)->next, newest = peers_newest(nodes[of].peers);
    return next ? next == newest + 1 : newest == 0;
}

static inline bool all_have_all(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            if (i != j && is_up(i) && is_up(j) && !has_all(i, j))
                return false;
    return true;
}

static inline bool all_know_the_truth(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            if (i != j && is_up(i) && is_up(j) &&
                memcmp(view_of(i, nodes[j].self)->socket, nodes[j].socket, sizeof(nodes[j].socket)) != 0)
                return false;
    return true;
}

static inline bool all_know_the_keys(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            if (i != j && is_up(i) && is_up(j) &&
                memcmp(view_of(i, nodes[j].self)->key, nodes[j].key, sizeof(nodes[j].key)) != 0)
                return false;
    return true;
}

static inline bool all_are_confirmed(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NET_NODES; i++)
        if (is_up(i) && !peers_is_confirmed(nodes[i].peers, peers_newest(nodes[i].peers)))
            return false;
    return true;
}

static inline bool knows(bool (*holds)(void *arg))
{
    return net_until(&net, holds, NULL);
}

static inline bool has_alive(unsigned i, unsigned n)
{
    for (unsigned ms = 0; ms < 30000 && peers_alive(nodes[i].peers) != n; ms++)
        net_step(&net);
    return peers_alive(nodes[i].peers) == n;
}

static inline bool has_next(unsigned i, struct mesh_origin of, uint64_t next)
{
    for (unsigned ms = 0; ms < 30000 && view_of(i, of)->next != next; ms++)
        net_step(&net);
    return view_of(i, of)->next == next;
}

static inline uint64_t lost_by_all(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < NET_NODES; i++)
        for (unsigned j = 0; j < NET_NODES; j++)
            for (unsigned boot = 0; boot < BOOTS; boot++)
                n += nodes[i].view[j][boot].lost;
    return n;
}

static inline uint64_t metric(unsigned i, enum metric which)
{
    return metrics_get(nodes[i].metrics, which);
}

/* ---- messages by hand ---- */

static msgpack_sbuffer forged;

static inline void forge(const char *cluster, struct mesh_origin from)
{
    msgpack_sbuffer_destroy(&forged);
    msgpack_sbuffer_init(&forged);
    assert_int_equal(mesh_write_head(&forged, &(struct mesh_head){.version = MESH_VERSION,
                                                                  .cluster = span_of(cluster),
                                                                  .origin = from}),
                     0);
}

static inline void forge_record(const struct mesh_record *r)
{
    assert_int_equal(mesh_write(&forged, r), 0);
}

static inline void forge_emit(struct mesh_origin of, uint64_t seq)
{
    static char text[64];
    snprintf(text, sizeof(text), "%u-%llu:%llu ", of.tag, (unsigned long long)of.boot,
             (unsigned long long)seq);
    memset(&record.emit, 0, offsetof(struct mesh_emit, to));
    record.kind = MESH_EMIT;
    record.seq = seq;
    record.emit.nsp = SPAN("/");
    record.emit.event = SPAN("\"e\"");
    record.emit.args = span_of(text);
    forge_record(&record);
}

static inline void forge_presence(enum mesh_kind kind, uint64_t seq, unsigned socket, uint32_t rooms)
{
    static char texts[ROOMS + 1][256];
    record.kind = kind;
    record.seq = seq;
    set_presence(&record.presence, texts, socket, rooms);
    forge_record(&record);
}

static inline void forge_hello(unsigned i, uint64_t newest)
{
    record.kind = MESH_HELLO;
    record.hello = (struct mesh_hello){.name = SPAN("forged"),
                                       .pub = span_of(net.node[i].pub),
                                       .router = span_of(net.node[i].router),
                                       .host = SPAN("host"),
                                       .newest = newest,
                                       .answer = true};
    forge_record(&record);
}

static inline void forge_heartbeat(uint64_t newest)
{
    record.kind = MESH_HEARTBEAT;
    memset(&record.heartbeat, 0, offsetof(struct mesh_heartbeat, heard));
    record.heartbeat.newest = newest;
    forge_record(&record);
}

static inline void forge_part(uint64_t as_of, bool first, bool last)
{
    record.kind = MESH_PRESENCE;
    record.part = (struct mesh_presence_part){.as_of = as_of, .first = first, .last = last, .number = !first};
    forge_record(&record);
}

static inline void forge_repaired(struct mesh_origin of, uint64_t from, uint64_t to, uint64_t gone_to)
{
    record.kind = MESH_REPAIRED;
    record.repair = (struct mesh_repair){.origin = of, .from = from, .to = to, .gone_to = gone_to};
    forge_record(&record);
}

static inline void receive(unsigned i)
{
    peers_receive(nodes[i].peers, (struct span){forged.data, forged.size});
}

/* Node 0 alone, and a peer that we write by hand: it has said this many numbers. */
static const struct mesh_origin ghost = {4, 1};

static inline void start_with_ghost(uint64_t newest)
{
    start_node(0, 1);
    peers_start(nodes[0].peers);
    net_run(&net, 2);
    forge("c", ghost);
    forge_hello(3, newest);
    receive(0);
    forge("c", ghost);
    forge_heartbeat(newest);
    forge_repaired(ghost, 1, newest, newest); /* nothing of its past is held */
    receive(0);
    assert_int_equal(peers_alive(nodes[0].peers), 1);
}

static enum mesh_kind lost_kind;
static unsigned lost_from, lost_to, to_lose, to_spare;

/* Loses to_lose messages that begin with lost_kind, behind the first to_spare of them. */
static inline bool loses_some(struct net *n, unsigned from, unsigned to, struct span message)
{
    (void)n;
    if (from != lost_from || to != lost_to || net_kind(message) != lost_kind)
        return false;
    if (to_spare > 0) {
        to_spare--;
        return false;
    }
    if (to_lose == 0)
        return false;
    to_lose--;
    return true;
}

static inline void lose(unsigned from, unsigned to, enum mesh_kind kind, unsigned spare, unsigned n)
{
    lost_from = from;
    lost_to = to;
    lost_kind = kind;
    to_spare = spare;
    to_lose = n;
    net.loses = loses_some;
}

#endif
