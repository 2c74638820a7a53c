/* Nodes that have all that outlives them, on a network, a store and a clock in memory; and people, who are clients that
 * write down what they hear, go, and come back as the stock client does. */
#ifndef STARLING_TESTS_FAKERECOVERY_H
#define STARLING_TESTS_FAKERECOVERY_H

#include "cluster.h"
#include "directory.h"
#include "err.h"
#include "fakenet.h"
#include "fanout.h"
#include "joining.h"
#include "limit.h"
#include "log.h"
#include "membership.h"
#include "mirror.h"
#include "recovery.h"
#include "ring.h"
#include "sink.h"
#include "store_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* NAMED_MS: for so long offsets name the dead. */
enum {
    NODES = 3,
    KEEP_MS = 20000,
    NAMED_MS = 2 * KEEP_MS,
    WINDOW_MS = 10000,
    PEER_TIMEOUT_MS = 300
};

static struct node {
    struct world w;
    struct cluster *cluster;
    struct peers *peers;
    struct store_memory_client *client; /* NULL: this node has no store */
    struct store store;
    struct mirror *mirror;
    struct membership *membership;
    struct directory *directory;
    struct recovery *recovery;
    struct mesh_origin self;
    bool is_started, is_ready;
    unsigned clashes;
} nodes[NODES];

static struct net net;
static struct store_memory *memory;
static struct engine_options engine_options; /* what new nodes get */
static uint64_t ring_max_bytes = 64 << 20;

/* ---- nodes ---- */

static inline void on_ready(void *user)
{
    ((struct node *)user)->is_ready = true;
}

static inline void on_start(void *user)
{
    struct node *n = user;
    n->is_started = true;
    peers_start(n->peers);
}

static inline void on_clash(void *user)
{
    ((struct node *)user)->clashes++;
}

static inline void on_up(void *user)
{
    struct node *n = user;
    membership_resume(n->membership);
    mirror_resume(n->mirror);
    directory_resume(n->directory);
}

static inline void on_down(void *user)
{
    (void)user;
}

static inline void open_store(struct node *n, unsigned i)
{
    n->client = store_memory_open(memory, n->w.reactor,
                                  &(struct store_user){.user = n, .on_up = on_up, .on_down = on_down});
    n->store = store_memory_store(n->client);
    n->mirror = mirror_new(n->w.reactor, n->w.metrics, &(struct mirror_options){.window_ms = KEEP_MS},
                           &n->store, n->peers);
    struct membership_options o = {
        .self = {.origin = n->self,
                 .lives = true,
                 .name = SPAN("node"),
                 .host = SPAN("host"),
                 .pub = span_of(net.node[i].pub),
                 .router = span_of(net.node[i].router)},
        .keep_ms = KEEP_MS,
        .start_wait_ms = 1000,
    };
    n->membership =
        membership_new(n->w.reactor, &o, &n->store, n->peers, n->mirror,
                       &(struct membership_user){.user = n, .on_start = on_start, .on_clash = on_clash});
    MUST(n->mirror && n->membership);
    cluster_use_mirror(n->cluster, n->mirror);
}

/* The tag differs from boot to boot, as it does in life. */
static inline void start_node(unsigned i, unsigned boot)
{
    struct node *n = &nodes[i];
    *n = (struct node){.self = {0x100 * boot + 0x10 + i, boot}};
    world_start(&n->w, NULL, "*");
    engine_free(&n->w.engine);
    n->w.engine = engine_new(n->w.reactor, n->w.metrics, &engine_options, &client_app, n->w.hub, n->self.tag);
    n->w.hub->engine = n->w.engine;
    n->cluster = cluster_new(n->w.reactor, n->w.hub);
    struct peers_user user = cluster_user(n->cluster, on_ready, n);
    struct peers_options o = {.cluster = SPAN("c"),
                              .name = SPAN("node"),
                              .host = SPAN("host"),
                              .self = n->self,
                              .peer_timeout_ms = PEER_TIMEOUT_MS,
                              .start_wait_ms = 1000,
                              .ring = {.max_ms = KEEP_MS, .max_bytes = ring_max_bytes}};
    n->peers = net_start(&net, i, n->w.reactor, n->w.metrics, o, &user);
    cluster_use(n->cluster, n->peers);
    for (unsigned j = 0; j < NODES; j++)
        if (i != j)
            net_name(&net, i, j);
    if (memory)
        open_store(n, i);
    n->directory = directory_new(
        n->w.reactor, n->w.hub,
        &(struct directory_options){.window_ms = WINDOW_MS, .self = n->self, .on_taken = socket_taken});
    directory_use(n->directory, memory ? &n->store : NULL, n->cluster);
    n->recovery = recovery_new(n->w.reactor, n->w.hub,
                               &(struct recovery_options){.window_ms = WINDOW_MS,
                                                          .ping_interval_ms = 1000,
                                                          .catch_up_ms = PEER_TIMEOUT_MS + 500,
                                                          .self = n->self},
                               n->peers, n->directory);
    MUST(n->directory && n->recovery && (!memory || recovery_use(n->recovery, &n->store) == 0));
    if (!memory)
        on_start(n);
}

static inline void take_apart(unsigned i, bool at_once)
{
    struct node *n = &nodes[i];
    if (!n->peers)
        return;
    net.node[i].is_silent = at_once;
    if (at_once && n->client) {
        directory_use(n->directory, NULL, n->cluster);
        store_memory_kill(&n->client);
    }
    engine_shutdown(n->w.engine);
    world_turn(&n->w);
    cluster_use_mirror(n->cluster, NULL);
    if (n->client)
        store_memory_close(&n->client);
    directory_free(&n->directory);
    recovery_free(&n->recovery);
    membership_free(&n->membership);
    mirror_free(&n->mirror);
    net_stop(&net, i);
    n->peers = NULL;
    cluster_free(&n->cluster);
    world_stop(&n->w);
}

/* As by SIGKILL. */
static inline void kill_node(unsigned i)
{
    take_apart(i, true);
}

static inline bool all_are_ready(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].peers && !nodes[i].is_ready)
            return false;
    return true;
}

static inline void settle(void)
{
    net_run(&net, 20);
}

static inline int begin(bool has_store)
{
    log_setup(LOG_ERROR, false);
    net_init(&net, 1);
    engine_options = world_engine_options();
    engine_options.ping_interval_ms = 1000000;
    memory = has_store ? store_memory_new() : NULL;
    for (unsigned i = 0; i < NODES; i++)
        start_node(i, 1);
    assert_true(net_until(&net, all_are_ready, NULL));
    return 0;
}

static inline int set_up(void **state)
{
    (void)state;
    return begin(true);
}

static inline int set_up_without_store(void **state)
{
    (void)state;
    return begin(false);
}

/* ---- people ---- */

enum { PEOPLE = 4 };

static struct person {
    struct sink k;
    bool is_open;
    unsigned connects;
    bool is_recovered;
    char sid[ID_CHARS + 1], pid[ID_CHARS + 1], offset[LIMIT_OFFSET_BYTES];
    char log[8192];
} people[PEOPLE];

static inline void hear_event(struct person *p, struct span text)
{
    const char *open = memchr(text.p, '[', text.n), *mark = NULL;
    const char *end = text.p + text.n;
    size_t at = strlen(p->log);
    for (const char *c = text.p; c + 3 < end; c++)
        if (memcmp(c, "\"~1", 3) == 0)
            mark = c;
    if (mark) {
        size_t n = (size_t)((const char *)memchr(mark + 1, '"', (size_t)(end - mark - 1)) - mark - 1);
        memcpy(p->offset, mark + 1, n);
        p->offset[n] = '\0';
        end = mark - 1; /* the comma */
    } else {
        end--;
    }
    if (memmem(text.p, text.n, "bus:offset", 10))
        return;
    MUST(open && at + (size_t)(end - open) + 2 < sizeof(p->log));
    snprintf(p->log + at, sizeof(p->log) - at, "%.*s;", (int)(end - open - 1), open + 1);
}

/* Takes in what has come. Events: `"news",1;"news",2;` and so on. */
static inline void person_hear(struct person *p)
{
    struct sink_frame frame;
    while (sink_next(&p->k, &frame)) {
        struct span text = frame.payload;
        const char *sid = text.n ? memmem(text.p, text.n, "{\"sid\":\"", 8) : NULL;
        const char *pid = sid ? memmem(text.p, text.n, "\"pid\":\"", 7) : NULL;
        if (text.n > 2 && text.p[0] == '4' && text.p[1] == '0' && sid) {
            p->connects++;
            p->is_recovered = p->sid[0] && memcmp(p->sid, sid + 8, ID_CHARS) == 0;
            memcpy(p->sid, sid + 8, ID_CHARS);
            if (pid)
                memcpy(p->pid, pid + 7, ID_CHARS);
        } else if (text.n > 2 && text.p[0] == '4' && (text.p[1] == '2' || text.p[1] == '5')) {
            hear_event(p, text);
        }
    }
}

static inline void all_hear(void)
{
    settle();
    for (unsigned i = 0; i < PEOPLE; i++)
        if (people[i].is_open)
            person_hear(&people[i]);
}

/* Opens a connection and says CONNECT with what it knows. */
static inline void person_ask(struct person *p, unsigned node)
{
    char text[LIMIT_OFFSET_BYTES + 128] = "0";
    struct sink k;
    MUST(!p->is_open);
    if (p->pid[0])
        snprintf(text, sizeof(text), "0{\"pid\":\"%s\",\"offset\":\"%s\"}", p->pid, p->offset);
    memset(&k, 0, sizeof(k));
    p->k = k;
    sink_open(&nodes[node].w, &p->k);
    p->is_open = true;
    sink_says(&p->k, text);
}

static inline bool has_connected(void *arg)
{
    struct person *p = arg;
    person_hear(p);
    return p->connects > 0;
}

/* True: recovered. */
static inline bool person_come(struct person *p, unsigned node)
{
    p->connects = 0;
    person_ask(p, node);
    assert_true(net_until(&net, has_connected, p));
    settle();
    person_hear(p);
    return p->is_recovered;
}

static inline void person_go(struct person *p)
{
    MUST(p->is_open);
    sink_end(&p->k);
    p->is_open = false;
}

/* Its node has died: whatever it was sent before, it has. */
static inline void person_loses_node(struct person *p)
{
    sink_free(&p->k);
    p->is_open = false;
}

static inline void person_joins(struct person *p, const char *room)
{
    char text[128];
    snprintf(text, sizeof(text), "21[\"bus:join\",\"%s\"]", room);
    sink_says(&p->k, text);
    all_hear();
}

static inline struct socket *socket_of(const struct person *p, unsigned node)
{
    struct nsp *nsp = hub_find(nodes[node].w.hub, SPAN("/"));
    return nsp ? nsp_find(nsp, (struct span){p->sid, ID_CHARS}) : NULL;
}

/* What a node says: ["news",value] to a room, NULL: to all. Gives the emit's number. */
static inline uint64_t say_to(unsigned node, const char *room, int value)
{
    char args[16];
    uint64_t seq = 0;
    struct span to = room ? span_of(room) : (struct span){NULL, 0};
    snprintf(args, sizeof(args), "%d", value);
    MUST(hub_emit(nodes[node].w.hub,
                  &(struct emit){.nsp = SPAN("/"),
                                 .to = &to,
                                 .n_to = room != NULL,
                                 .event = SPAN("\"news\""),
                                 .args = span_of(args)},
                  &seq) == 0);
    return seq;
}

static inline int tear_down(void **state)
{
    (void)state;
    net_set_all(&net, (struct net_way){.is_cut = false});
    for (unsigned i = 0; i < NODES; i++)
        take_apart(i, false);
    for (unsigned i = 0; i < PEOPLE; i++)
        sink_free(&people[i].k);
    memset(people, 0, sizeof(people));
    net_end(&net);
    if (memory)
        store_memory_free(&memory);
    return 0;
}

#endif
