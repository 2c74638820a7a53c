/* Of which sessions the store has old words: their owner could not write what has changed, and says so by the mesh, as
 * keys on MESH_TOPIC_SESSIONS (../proto/claim.md). Who claims one of these asks its owner, and when that is dead nobody
 * knows which rooms it was in: better a new session than one with a hole. */
#include "directory_private.h"
#include <stdlib.h>

struct stale {
    char sid[ID_CHARS];
    struct mesh_origin owner;
    uint64_t until_ms; /* 0: until its owner says otherwise */
    UT_hash_handle hh;
};

static struct stale *find(const struct directory *d, const char sid[ID_CHARS])
{
    struct stale *s;
    HASH_FIND(hh, d->stale, sid, ID_CHARS, s);
    return s;
}

static void drop(struct directory *d, struct stale *s)
{
    HASH_DEL(d->stale, s);
    free(s);
}

static bool same(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

bool directory_is_stale(const struct directory *d, const char sid[ID_CHARS])
{
    return find(d, sid) != NULL;
}

void directory_on_stale(void *user, struct mesh_origin from, struct span sid, struct span value)
{
    struct directory *d = user;
    struct stale *s = sid.n == ID_CHARS ? find(d, sid.p) : NULL;
    if (sid.n != ID_CHARS)
        return;
    if (s && (value.n || same(s->owner, from)))
        drop(d, s);
    s = value.n ? calloc(1, sizeof(*s)) : NULL;
    if (!s)
        return;
    memcpy(s->sid, sid.p, ID_CHARS);
    s->owner = from;
    HASH_ADD(hh, d->stale, sid, ID_CHARS, s);
}

/* It is dead, or says all again: what is not said again counts for as long as its sessions may come back. */
void directory_on_stale_void(void *user, struct mesh_origin from)
{
    struct directory *d = user;
    for (struct stale *s = d->stale; s; s = s->hh.next)
        if (same(s->owner, from))
            s->until_ms = reactor_now_ms(d->reactor) + 2 * d->options.window_ms;
    if (d->stale && !timer_pending(&d->expire))
        reactor_timer_set(d->reactor, &d->expire, d->options.window_ms);
}

void directory_expire_stale(struct directory *d)
{
    struct stale *s, *tmp;
    HASH_ITER(hh, d->stale, s, tmp)
    {
        if (s->until_ms && s->until_ms <= reactor_now_ms(d->reactor))
            drop(d, s);
    }
}

void directory_free_stale(struct directory *d)
{
    while (d->stale)
        drop(d, d->stale);
}

void directory_say_stale(struct directory_entry *e, bool is_stale)
{
    struct span sid = {e->sid, ID_CHARS};
    struct directory *d = e->directory;
    if (!d->cluster || e->is_said_stale == is_stale)
        return;
    if (cluster_set(d->cluster, MESH_TOPIC_SESSIONS, sid, is_stale ? SPAN("1") : SPAN("")) == 0)
        e->is_said_stale = is_stale;
}
