#include "store_kept.h"
#include "err.h"
#include "table.h"

/* ---- what is kept ---- */

struct text {
    char *p;
    size_t n;
};

struct origin {
    struct origin *next;
    struct mesh_origin id;
    uint64_t until_ms, lease_until_ms, renewed_ms;
    struct text name, host, pub, router;
};

struct batch {
    struct batch *next;
    uint64_t last;
    struct text records;
};

struct mirror {
    struct mirror *next;
    struct mesh_origin id;
    uint64_t until_ms, newest;
    struct batch *first;
};

/* The expiry of all sessions of an owner. */
struct owner {
    struct owner *next;
    uint32_t tag;
    uint64_t until_ms;
};

struct session {
    UT_hash_handle hh;
    uint32_t tag;
    uint64_t epoch;
    bool has_moved;
    uint32_t moved_to;
    struct text entry;
    size_t key_n;
    char key[]; /* tag and pid */
};

struct kept {
    bool is_full;
    struct origin *origins;
    struct mirror *mirrors;
    struct owner *owners;
    struct session *sessions;
};

void *must_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    MUST(p);
    return p;
}

static void set_text(struct text *t, struct span from)
{
    char *p = must_alloc(from.n);
    if (from.n)
        memcpy(p, from.p, from.n);
    free(t->p);
    *t = (struct text){p, from.n};
}

struct span copy_span(struct question *q, struct span from)
{
    struct copy *c = must_alloc(sizeof(*c) + from.n);
    if (from.n)
        memcpy(c->bytes, from.p, from.n);
    c->next = q->copies;
    q->copies = c;
    return (struct span){c->bytes, from.n};
}

static struct span copy_text(struct question *q, const struct text *t)
{
    return copy_span(q, (struct span){t->p, t->n});
}

void question_free(struct question *q)
{
    while (q->copies) {
        struct copy *next = q->copies->next;
        free(q->copies);
        q->copies = next;
    }
    free(q->members);
    free(q->batches);
    free(q);
}

/* ---- what expires ---- */

static void batches_free(struct mirror *m)
{
    while (m->first) {
        struct batch *next = m->first->next;
        free(m->first->records.p);
        free(m->first);
        m->first = next;
    }
}

static void origin_free(struct origin *o)
{
    free(o->name.p);
    free(o->host.p);
    free(o->pub.p);
    free(o->router.p);
    free(o);
}

static void session_free(struct kept *m, struct session *s)
{
    HASH_DEL(m->sessions, s);
    free(s->entry.p);
    free(s);
}

static void drop_sessions(struct kept *m, uint32_t tag, bool all)
{
    struct session *s, *next;
    HASH_ITER(hh, m->sessions, s, next)
    {
        if (all || s->tag == tag)
            session_free(m, s);
    }
}

static void expire_origins(struct kept *m, uint64_t now_ms)
{
    for (struct origin **at = &m->origins; *at;) {
        struct origin *o = *at;
        if (o->until_ms > now_ms) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        origin_free(o);
    }
}

static void expire_mirrors(struct kept *m, uint64_t now_ms)
{
    for (struct mirror **at = &m->mirrors; *at;) {
        struct mirror *mirror = *at;
        if (mirror->until_ms > now_ms) {
            at = &mirror->next;
            continue;
        }
        *at = mirror->next;
        batches_free(mirror);
        free(mirror);
    }
}

static void expire_owners(struct kept *m, uint64_t now_ms)
{
    for (struct owner **at = &m->owners; *at;) {
        struct owner *o = *at;
        if (o->until_ms > now_ms) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        drop_sessions(m, o->tag, false);
        free(o);
    }
}

static void expire(struct kept *m, uint64_t now_ms)
{
    expire_origins(m, now_ms);
    expire_mirrors(m, now_ms);
    expire_owners(m, now_ms);
}

/* ---- finding ---- */

static bool same_origin(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

static struct origin *find_origin(struct kept *m, struct mesh_origin id)
{
    struct origin *o = m->origins;
    while (o && !same_origin(o->id, id))
        o = o->next;
    return o;
}

static struct mirror *find_mirror(struct kept *m, struct mesh_origin id)
{
    struct mirror *mirror = m->mirrors;
    while (mirror && !same_origin(mirror->id, id))
        mirror = mirror->next;
    return mirror;
}

static struct owner *find_owner(struct kept *m, uint32_t tag)
{
    struct owner *o = m->owners;
    while (o && o->tag != tag)
        o = o->next;
    return o;
}

static struct session *find_session(struct kept *m, uint32_t tag, struct span pid)
{
    char key[sizeof(tag) + 256];
    struct session *s;
    MUST(pid.n <= 256);
    memcpy(key, &tag, sizeof(tag));
    if (pid.n)
        memcpy(key + sizeof(tag), pid.p, pid.n);
    HASH_FIND(hh, m->sessions, key, sizeof(tag) + pid.n, s);
    return s;
}

/* The session's place, made when it is not there; with the owner's expiry, which is set only when there is none yet. */
static struct session *place(struct kept *m, uint32_t tag, struct span pid, uint64_t until_ms)
{
    struct session *s = find_session(m, tag, pid);
    if (!find_owner(m, tag)) {
        struct owner *o = must_alloc(sizeof(*o));
        *o = (struct owner){.next = m->owners, .tag = tag, .until_ms = until_ms};
        m->owners = o;
    }
    if (s)
        return s;
    s = must_alloc(sizeof(*s) + sizeof(tag) + pid.n);
    s->tag = tag;
    s->key_n = sizeof(tag) + pid.n;
    memcpy(s->key, &tag, sizeof(tag));
    if (pid.n)
        memcpy(s->key + sizeof(tag), pid.p, pid.n);
    HASH_ADD_KEYPTR(hh, m->sessions, s->key, s->key_n, s);
    return s;
}

static void extend(struct kept *m, struct mesh_origin id, uint64_t until_ms)
{
    struct mirror *mirror = find_mirror(m, id);
    struct owner *owner = find_owner(m, id.tag);
    if (mirror)
        mirror->until_ms = until_ms;
    if (owner)
        owner->until_ms = until_ms;
}

/* ---- what questions do ---- */

static void list_members(struct kept *m, struct question *q, uint64_t now_ms)
{
    for (struct origin *o = m->origins; o; o = o->next)
        q->n++;
    q->members = must_alloc(q->n * sizeof(*q->members));
    struct store_member *out = q->members;
    for (struct origin *o = m->origins; o; o = o->next, out++) {
        *out = (struct store_member){
            .origin = o->id, .lives = o->lease_until_ms > now_ms, .silent_ms = now_ms - o->renewed_ms};
        if (!out->lives)
            continue;
        out->name = copy_text(q, &o->name);
        out->host = copy_text(q, &o->host);
        out->pub = copy_text(q, &o->pub);
        out->router = copy_text(q, &o->router);
    }
}

static int do_renew(struct kept *m, struct question *q, uint64_t now_ms)
{
    struct mesh_origin id = q->self.origin;
    struct origin *o;
    for (o = m->origins; o; o = o->next)
        if (o->id.tag == id.tag && o->id.boot != id.boot)
            return ERR_STATE;
    o = find_origin(m, id);
    if (!o) {
        o = must_alloc(sizeof(*o));
        o->id = id;
        o->next = m->origins;
        m->origins = o;
    }
    o->until_ms = now_ms + store_name_ms(q->keep_ms);
    o->renewed_ms = now_ms;
    o->lease_until_ms = now_ms + STORE_LEASE_MS;
    set_text(&o->name, q->self.name);
    set_text(&o->host, q->self.host);
    set_text(&o->pub, q->self.pub);
    set_text(&o->router, q->self.router);
    extend(m, id, now_ms + q->keep_ms);
    list_members(m, q, now_ms);
    return 0;
}

static int do_resign(struct kept *m, struct question *q, uint64_t now_ms)
{
    struct origin *o = find_origin(m, q->origin);
    if (o) {
        o->lease_until_ms = 0;
        o->until_ms = now_ms + store_name_ms(q->keep_ms);
        o->renewed_ms = now_ms;
    }
    extend(m, q->origin, now_ms + q->keep_ms);
    return 0;
}

static int do_append(struct kept *m, struct question *q, uint64_t now_ms)
{
    struct mirror *mirror = find_mirror(m, q->origin);
    struct batch **at, *b;
    if (m->is_full)
        return ERR_STORE;
    if (!mirror) {
        mirror = must_alloc(sizeof(*mirror));
        *mirror = (struct mirror){.next = m->mirrors, .id = q->origin, .until_ms = now_ms + q->keep_ms};
        m->mirrors = mirror;
    }
    if (q->batch.last <= mirror->newest)
        return 0;
    for (at = &mirror->first; *at; at = &(*at)->next)
        ;
    *at = b = must_alloc(sizeof(*b));
    mirror->newest = b->last = q->batch.last;
    set_text(&b->records, q->batch.records);
    while (mirror->first && mirror->first->last < q->oldest) {
        b = mirror->first;
        mirror->first = b->next;
        free(b->records.p);
        free(b);
    }
    return 0;
}

static int do_read(struct kept *m, struct question *q)
{
    struct mirror *mirror = find_mirror(m, q->origin);
    struct batch *b = mirror ? mirror->first : NULL, *first;
    while (b && b->last <= q->after)
        b = b->next;
    for (first = b; b && q->n < q->count; b = b->next)
        q->n++;
    q->batches = must_alloc(q->n * sizeof(*q->batches));
    for (unsigned i = 0; i < q->n; i++, first = first->next)
        q->batches[i] = (struct store_batch){first->last, copy_text(q, &first->records)};
    return 0;
}

static bool is_fenced(const struct session *s, uint64_t epoch)
{
    return s && (s->epoch > epoch || (s->has_moved && s->epoch == epoch));
}

static int do_put(struct kept *m, struct question *q, uint64_t now_ms)
{
    struct session *s = find_session(m, q->origin.tag, q->pid);
    if (is_fenced(s, q->epoch))
        return ERR_MOVED;
    if (m->is_full)
        return ERR_STORE;
    s = place(m, q->origin.tag, q->pid, now_ms + q->keep_ms);
    s->has_moved = false;
    s->epoch = q->epoch;
    set_text(&s->entry, q->entry);
    return 0;
}

static int do_drop(struct kept *m, struct question *q)
{
    struct session *s = find_session(m, q->origin.tag, q->pid);
    if (is_fenced(s, q->epoch))
        return ERR_MOVED;
    if (s)
        session_free(m, s);
    return 0;
}

static int do_claim(struct kept *m, struct question *q, uint64_t now_ms)
{
    struct session *s = find_session(m, q->owner, q->pid), *mine;
    struct owner *self = find_owner(m, q->origin.tag);
    if (!s)
        return ERR_NOT_FOUND;
    q->claim.epoch = s->epoch;
    if (s->has_moved) {
        q->claim.moved_to = s->moved_to;
        return ERR_MOVED;
    }
    if (self)
        self->until_ms = now_ms + q->keep_ms;
    q->claim.entry = copy_text(q, &s->entry);
    q->claim.epoch++;
    s->has_moved = true;
    s->moved_to = q->origin.tag;
    s->epoch = q->claim.epoch;
    set_text(&s->entry, (struct span){NULL, 0});
    mine = place(m, q->origin.tag, q->pid, now_ms + q->keep_ms);
    mine->has_moved = false;
    mine->epoch = q->claim.epoch;
    set_text(&mine->entry, q->claim.entry);
    return 0;
}

void kept_do(struct kept *m, struct question *q, uint64_t now_ms)
{
    expire(m, now_ms);
    switch (q->call) {
    case RENEW:
        q->err = do_renew(m, q, now_ms);
        break;
    case RESIGN:
        q->err = do_resign(m, q, now_ms);
        break;
    case APPEND:
        q->err = do_append(m, q, now_ms);
        break;
    case READ:
        q->err = do_read(m, q);
        break;
    case PUT:
        q->err = do_put(m, q, now_ms);
        break;
    case DROP:
        q->err = do_drop(m, q);
        break;
    case CLAIM:
        q->err = do_claim(m, q, now_ms);
        break;
    }
}

/* ---- life ---- */

struct kept *kept_new(void)
{
    return must_alloc(sizeof(struct kept));
}

void kept_free(struct kept **m)
{
    if (!*m)
        return;
    kept_lose(*m);
    free(*m);
    *m = NULL;
}

void kept_lose(struct kept *m)
{
    expire(m, UINT64_MAX);
    drop_sessions(m, 0, true);
}

void kept_set_full(struct kept *m, bool is_full)
{
    m->is_full = is_full;
}

unsigned kept_owners(struct kept *m, struct span pid, uint64_t now_ms)
{
    unsigned n = 0;
    for (struct owner *o = m->owners; o; o = o->next) {
        const struct session *s = find_session(m, o->tag, pid);
        n += s && !s->has_moved && o->until_ms > now_ms;
    }
    return n;
}

uint64_t kept_newest(struct kept *m, struct mesh_origin origin)
{
    /* Who looks for it begins with its name. */
    const struct mirror *mirror = find_origin(m, origin) ? find_mirror(m, origin) : NULL;
    return mirror ? mirror->newest : 0;
}
