#include "membership.h"
#include "container.h"
#include "err.h"
#include "log.h"
#include <stdlib.h>

enum { RENEW_MS = 1000 };

struct membership {
    struct reactor *reactor;
    struct membership_options options;
    const struct store *store;
    struct peers *peers;
    struct mirror *mirror;
    struct membership_user user;
    struct timer renew, wait;
    bool is_started, is_asking, is_filling, is_resigned;
    void (*resigned)(void *user);
    void *resigned_user;
};

static void start(struct membership *m)
{
    if (m->is_started)
        return;
    m->is_started = true;
    reactor_timer_cancel(m->reactor, &m->wait);
    m->user.on_start(m->user.user);
}

static void on_filled(void *user)
{
    start(user);
}

static void look_for_peers(struct membership *m, const struct store_member *members, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct store_member *one = &members[i];
        bool is_sibling = m->options.knows_siblings && span_eq(one->host, m->options.self.host);
        if (one->lives && one->router.n && !is_sibling && one->origin.tag != m->options.self.origin.tag)
            peers_found(m->peers, one->pub, one->router);
    }
}

static void on_members(void *user, int err, const struct store_member *members, unsigned n)
{
    struct membership *m = user;
    m->is_asking = false;
    if (err == ERR_STATE) {
        m->user.on_clash(m->user.user);
        return;
    }
    if (err)
        return;
    look_for_peers(m, members, n);
    mirror_on_members(m->mirror, members, n);
    if (!m->is_started && !m->is_filling) {
        m->is_filling = true;
        mirror_fill(m->mirror, members, n, on_filled, m);
    }
}

static void renew(struct membership *m)
{
    reactor_timer_set(m->reactor, &m->renew, RENEW_MS);
    if (m->is_asking || m->is_resigned)
        return;
    m->is_asking = true;
    m->store->calls->renew(m->store->store, &m->options.self, m->options.keep_ms, on_members, m);
}

static void on_renew(struct timer *t)
{
    renew(container_of(t, struct membership, renew));
}

static void on_wait(struct timer *t)
{
    struct membership *m = container_of(t, struct membership, wait);
    log_event(LOG_WARN, "store_not_there", LOG_UINT("waited_ms", m->options.start_wait_ms));
    start(m);
}

struct membership *membership_new(struct reactor *r, const struct membership_options *o,
                                  const struct store *store, struct peers *peers, struct mirror *mirror,
                                  const struct membership_user *user)
{
    struct membership *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->reactor = r;
    m->options = *o;
    m->store = store;
    m->peers = peers;
    m->mirror = mirror;
    m->user = *user;
    timer_init(&m->renew, on_renew);
    timer_init(&m->wait, on_wait);
    reactor_timer_set(r, &m->wait, o->start_wait_ms);
    return m;
}

void membership_resume(struct membership *m)
{
    renew(m);
}

static void on_resigned(void *user, int err)
{
    struct membership *m = user;
    (void)err;
    m->resigned(m->resigned_user);
}

void membership_resign(struct membership *m, void (*done)(void *user), void *user)
{
    m->is_resigned = true;
    m->resigned = done;
    m->resigned_user = user;
    m->store->calls->resign(m->store->store, m->options.keep_ms, on_resigned, m);
}

void membership_free(struct membership **mp)
{
    struct membership *m = *mp;
    if (!m)
        return;
    reactor_timer_cancel(m->reactor, &m->renew);
    reactor_timer_cancel(m->reactor, &m->wait);
    free(m);
    *mp = NULL;
}
