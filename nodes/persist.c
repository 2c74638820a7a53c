#include "persist.h"
#include "client.h"
#include "directory.h"
#include "log.h"
#include "membership.h"
#include "mirror.h"
#include "recovery.h"
#include "redis_url.h"
#include "store_redis.h"
#include <stdlib.h>
#include <string.h>

enum {
    STORE_WAIT_MS = 2000, /* at most, before a node starts without its store */
    CATCH_UP_MS = 1000,   /* beyond the time in which a peer is found dead */
};

struct persist {
    struct persist_parts parts;
    struct store_redis *redis;
    struct store store;
    struct mirror *mirror;
    struct membership *membership;
    struct directory *directory;
    struct recovery *recovery;
    struct machine_redis *machines;
    atomic_int state;
    bool refuses; /* as the store said last */
    bool is_stopping, is_resigning, is_stopped;
};

static bool has_store(const struct config *c)
{
    return c->redis[0] && strcmp(c->redis, "none") != 0;
}

uint64_t persist_window_ms(const struct config *c)
{
    return strcmp(c->recovery, "off") == 0 ? 0 : strtoull(c->recovery, NULL, 10);
}

bool persist_is_wanted(const struct config *c)
{
    return has_store(c) || persist_window_ms(c) > 0;
}

bool persist_recovers(const struct config *c)
{
    return persist_window_ms(c) > 0;
}

/* A client's offset may be a quarter of the window old, and a ping interval, when it goes. */
uint64_t persist_keep_ms(const struct config *c)
{
    uint64_t window = persist_window_ms(c),
             keep = window ? window + window / 4 + 2ull * c->ping_interval_ms : 0;
    return keep > c->ring_ms ? keep : c->ring_ms;
}

/* ---- the store ---- */

static void on_up(void *user)
{
    struct persist *p = user;
    atomic_store(&p->state, p->refuses ? PERSIST_REFUSES : PERSIST_UP);
    if (p->is_stopping)
        return;
    membership_resume(p->membership);
    mirror_resume(p->mirror);
    if (p->directory)
        directory_resume(p->directory);
    if (p->machines)
        machine_redis_resume(p->machines);
}

static void on_down(void *user)
{
    struct persist *p = user;
    atomic_store(&p->state, PERSIST_DOWN);
}

static void on_refuses(void *user, bool refuses)
{
    struct persist *p = user;
    p->refuses = refuses;
    if (atomic_load(&p->state) != PERSIST_DOWN)
        atomic_store(&p->state, refuses ? PERSIST_REFUSES : PERSIST_UP);
}

static void on_start(void *user)
{
    struct persist *p = user;
    p->parts.on_start(p->parts.user);
}

static void on_clash(void *user)
{
    struct persist *p = user;
    log_event(LOG_ERROR, "tag_in_use", LOG_UINT("tag", p->parts.self.origin.tag),
              LOG_TEXT("help", "another node of this cluster drew the same number; start this one again"));
    p->parts.on_failed(p->parts.user);
}

static bool build_store(struct persist *p)
{
    const struct persist_parts *o = &p->parts;
    struct store_redis_options so = {.redis = {REDIS_OPTIONS_DEFAULT, .name = o->config->name},
                                     .cluster = o->config->cluster};
    const char *why;
    struct store_user user = {.user = p, .on_up = on_up, .on_down = on_down, .on_refuses = on_refuses};
    if (redis_url_parse(o->config->redis, &so.redis.url, &why)) {
        log_event(LOG_ERROR, "redis_url", LOG_TEXT("error", why));
        return false;
    }
    atomic_store(&p->state, PERSIST_DOWN);
    p->redis = store_redis_new(o->reactor, o->metrics, &so, &user);
    if (!p->redis)
        return false;
    p->store = store_redis_store(p->redis);
    p->mirror = mirror_new(o->reactor, o->metrics, &(struct mirror_options){persist_keep_ms(o->config)},
                           &p->store, o->peers);
    if (!p->mirror)
        return false;
    struct membership_options mo = {.self = o->self,
                                    .knows_siblings = o->config->mesh[0] != '\0',
                                    .keep_ms = persist_keep_ms(o->config),
                                    .start_wait_ms = STORE_WAIT_MS};
    struct membership_user mu = {.user = p, .on_start = on_start, .on_clash = on_clash};
    p->membership = membership_new(o->reactor, &mo, &p->store, o->peers, p->mirror, &mu);
    if (!p->membership)
        return false;
    cluster_use_mirror(o->cluster, p->mirror);
    return true;
}

/* ---- sessions ---- */

static bool build_recovery(struct persist *p, uint64_t window)
{
    const struct persist_parts *o = &p->parts;
    p->directory = directory_new(
        o->reactor, o->hub,
        &(struct directory_options){.window_ms = window, .self = o->self.origin, .on_taken = socket_taken});
    if (!p->directory)
        return false;
    directory_use(p->directory, p->redis ? &p->store : NULL, o->cluster);
    p->recovery =
        recovery_new(o->reactor, o->hub,
                     &(struct recovery_options){.window_ms = window,
                                                .ping_interval_ms = o->config->ping_interval_ms,
                                                .catch_up_ms = o->config->peer_timeout_ms + CATCH_UP_MS,
                                                .self = o->self.origin},
                     o->peers, p->directory);
    return p->recovery && (!p->redis || recovery_use(p->recovery, &p->store) == 0);
}

struct persist *persist_new(const struct persist_parts *parts)
{
    struct persist *p = calloc(1, sizeof(*p));
    uint64_t window = persist_window_ms(parts->config);
    if (!p)
        return NULL;
    p->parts = *parts;
    if ((has_store(parts->config) && !build_store(p)) || (window && !build_recovery(p, window)))
        persist_free(&p);
    return p;
}

struct machine_redis *persist_keep_machines(struct persist *p, struct machines *machines)
{
    if (!machines && p->machines)
        machine_redis_stop(p->machines);
    else if (machines && p->redis && !p->machines)
        p->machines = machine_redis_new(p->parts.reactor, store_redis_connection(p->redis),
                                        p->parts.config->cluster, machines);
    return p->machines;
}

void persist_start(struct persist *p)
{
    if (!p->redis)
        on_start(p); /* else membership says when */
}

/* ---- the end ---- */

static void on_resigned(void *user)
{
    struct persist *p = user;
    p->is_stopped = true;
}

void persist_stop(struct persist *p)
{
    if (p->is_stopping)
        return;
    p->is_stopping = true;
    if (p->redis)
        mirror_hurry(p->mirror);
    if (p->machines)
        machine_redis_hurry(p->machines);
}

bool persist_is_stopped(struct persist *p)
{
    if (!p->redis || !store_redis_is_up(p->redis))
        return true;
    if (p->machines && machine_redis_is_writing(p->machines))
        return false;
    if (!p->is_resigning && mirror_has(p->mirror, peers_newest(p->parts.peers))) {
        p->is_resigning = true;
        membership_resign(p->membership, on_resigned, p);
    }
    return p->is_stopped;
}

void persist_free(struct persist **pp)
{
    struct persist *p = *pp;
    if (!p)
        return;
    p->is_stopping = true;
    if (p->parts.cluster)
        cluster_use_mirror(p->parts.cluster, NULL);
    store_redis_free(&p->redis); /* answers all of them */
    directory_free(&p->directory);
    recovery_free(&p->recovery);
    membership_free(&p->membership);
    mirror_free(&p->mirror);
    machine_redis_free(&p->machines);
    free(p);
    *pp = NULL;
}

const atomic_int *persist_state(const struct persist *p)
{
    return &p->state;
}
