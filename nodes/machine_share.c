#include "machine_share.h"
#include <stdlib.h>
#include <time.h>

struct machine_share {
    struct reactor *reactor;
    struct cluster *cluster;
    struct agents *agents;
    struct persist *persist;
    struct machine_redis *kept; /* NULL: there is no store */
};

static void on_machine(void *user, struct span message)
{
    struct machine_share *s = user;
    char id[MACHINE_ID_BYTES];
    uint64_t machine, revision;
    int kind = machine_read_head(message, &machine, &revision);
    machine_id(id, machine);
    if (kind == MACHINE_DESCRIPTION)
        cluster_set(s->cluster, MESH_TOPIC_MACHINES, span_of(id), message);
    else if (kind == MACHINE_TICK)
        cluster_note(s->cluster, MESH_TOPIC_MACHINES, message);
    if (s->kept && kind > 0)
        machine_redis_heard(s->kept, machine);
}

/* machines_take() checks all of it. */
static void take(struct machine_share *s, struct span message)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (message.n > 0 && message.n <= LIMIT_MACHINE_BYTES)
        machines_take(agents_machines(s->agents), reactor_now_ms(s->reactor),
                      (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000, message);
}

static void on_set(void *user, struct mesh_origin from, struct span key, struct span value)
{
    (void)from, (void)key;
    take(user, value);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    (void)from;
    take(user, bytes);
}

struct machine_share *machine_share_new(struct reactor *r, struct cluster *cluster, struct agents *agents,
                                        struct persist *persist)
{
    struct machine_share *s = malloc(sizeof(*s));
    if (!s)
        return NULL;
    *s = (struct machine_share){.reactor = r, .cluster = cluster, .agents = agents, .persist = persist};
    if (persist)
        s->kept = persist_keep_machines(persist, agents_machines(agents));
    cluster_listen(cluster, MESH_TOPIC_MACHINES,
                   &(struct cluster_part){.user = s, .on_set = on_set, .on_message = on_message});
    agents_watch_machines(agents, on_machine, s);
    return s;
}

void machine_share_free(struct machine_share **sp)
{
    struct machine_share *s = *sp;
    if (!s)
        return;
    if (s->persist)
        persist_keep_machines(s->persist, NULL);
    agents_watch_machines(s->agents, NULL, NULL);
    cluster_listen(s->cluster, MESH_TOPIC_MACHINES, &(struct cluster_part){.user = NULL});
    free(s);
    *sp = NULL;
}
