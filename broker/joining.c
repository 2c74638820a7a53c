#include "joining.h"
#include "client.h"
#include "container.h"
#include "err.h"
#include "fanout.h"
#include "json.h"
#include "log.h"
#include "recovery.h"
#include <stdlib.h>

enum { LOOK_MS = 5, LOOK_MAX_MS = 40 };

struct joining {
    struct hub *hub;
    struct session *session;
    struct joining_user user;
    struct joining *next, **list;
    enum joining_state state;
    struct directory_entry *entry;
    struct directory_claim *claim;
    uint64_t came_with;     /* its offset, hashed; 0: none */
    uint64_t version;       /* of its session that it must have; 0: any */
    struct offset *since;   /* where the client is, when it comes back; else NULL */
    uint64_t until_ms;      /* this node may take to come as far as the client is */
    uint64_t read_until_ms; /* reading may take; 0: it has not begun */
    struct fetch *fetch;    /* what the store had of what it missed, or NULL */
    uint32_t look_ms;
    struct timer look;
    void *data;
    char *json_user, *json_data;
    struct room_names {
        unsigned n;
        struct span name[];
    } * rooms; /* that the handler has given it; names lie behind */
    char sid[ID_CHARS];
    bool is_recovered, is_silent;
    size_t nsp_n, auth_n;
    char nsp[]; /* then auth */
};

static void ask_handler(struct joining *j);

static bool recovers(const struct joining *j)
{
    return j->hub->recovery && !j->session->recovery_off;
}

/* What ends its client now does not find it. */
static void unlink_joining(struct joining *j)
{
    struct joining **at = j->list;
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
}

static void free_joining(struct joining *j)
{
    reactor_timer_cancel(j->session->engine->reactor, &j->look);
    if (j->entry)
        directory_let_go(j->entry);
    fetch_free(&j->fetch);
    free(j->since);
    free(j->json_user);
    free(j->json_data);
    free(j->rooms);
    free(j);
}

static void drop_entry(struct joining *j)
{
    if (j->entry)
        directory_leave(j->entry, false); /* and j->entry is NULL */
}

static void fail(struct joining *j)
{
    drop_entry(j);
    unlink_joining(j);
    j->user.on_failed(j->user.client, j);
    free_joining(j);
}

static void refuse(struct joining *j, struct span error)
{
    drop_entry(j);
    unlink_joining(j);
    j->user.on_refused(j->user.client, j, error);
    free_joining(j);
}

/* ---- a socket ---- */

static void hand_over(struct joining *j, struct socket *s)
{
    unlink_joining(j);
    j->user.on_socket(j->user.client, j, s);
    free_joining(j);
}

static struct span text_or_none(const char *text)
{
    return span_of(text ? text : "");
}

static struct socket *make_socket(struct joining *j)
{
    struct nsp *nsp = hub_obtain(j->hub, joining_nsp(j));
    if (!nsp)
        return NULL;
    return hub_add(j->hub, nsp,
                   &(struct hub_newcomer){.session = j->session,
                                          .client = j->user.client,
                                          .sid = j->sid,
                                          .entry = j->entry,
                                          .user = text_or_none(j->json_user),
                                          .data = text_or_none(j->json_data)});
}

static int join_rooms(struct socket *s, const struct span *rooms, unsigned n)
{
    int err = 0;
    for (unsigned i = 0; i < n && !err; i++)
        err = room_join(s, rooms[i]);
    return err;
}

static void admit(struct joining *j)
{
    struct socket *s = make_socket(j);
    if (s && j->entry)
        directory_enter(j->entry, s, NULL);
    if (s && j->rooms && join_rooms(s, j->rooms->name, j->rooms->n))
        log_event(LOG_WARN, "rooms_not_joined", LOG_SPAN("sid", joining_sid(j)));
    if (s)
        hand_over(j, s);
    else
        fail(j);
}

static void on_saved(void *user, int err)
{
    struct joining *j = user;
    if (err == ERR_CLOSED)
        return; /* the joining ends its entry itself */
    admit(j);
}

static void save(struct joining *j)
{
    j->state = JOINING_SAVING;
    if (j->entry)
        directory_save(j->entry, on_saved, j);
    else
        admit(j);
}

/* ---- a fresh one ---- */

static int open_entry(struct joining *j)
{
    struct recovery *r = j->hub->recovery;
    uint64_t newest = cluster_newest(j->hub->cluster);
    struct directory_entry *e = directory_open(recovery_directory(r), joining_nsp(j),
                                               text_or_none(j->json_user), recovery_offset(r, newest));
    if (!e)
        return ERR_MEMORY;
    e->came_with = j->came_with;
    directory_hold(e, &j->entry);
    memcpy(j->sid, e->sid, ID_CHARS);
    return 0;
}

static void begin_anew(struct joining *j)
{
    if (j->since)
        metrics_add(j->hub->metrics, METRIC_RECOVERIES_FAILED, 1);
    drop_entry(j);
    fetch_free(&j->fetch);
    if (j->is_silent || (recovers(j) && open_entry(j)))
        fail(j);
    else
        ask_handler(j);
}

static void ask_handler(struct joining *j)
{
    const struct hub_handler *handler = hub_handler_of(j->hub, joining_nsp(j));
    struct span error = SPAN("{\"message\":\"refused\"}");
    enum hub_verdict verdict = HUB_ACCEPT;
    j->state = JOINING_ASKED;
    if (handler->on_connect)
        verdict = handler->on_connect(handler->user, j, &error);
    if (verdict == HUB_ACCEPT)
        save(j);
    else if (verdict == HUB_REFUSE)
        refuse(j, error);
}

void joining_refuse(struct joining *j, struct span error)
{
    refuse(j, error);
}

static struct room_names *copy_names(const struct span *rooms, unsigned n)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += rooms[i].n;
    struct room_names *names = malloc(sizeof(*names) + n * sizeof(names->name[0]) + bytes);
    if (!names)
        return NULL;
    char *p = (char *)(names->name + n);
    names->n = n;
    for (unsigned i = 0; i < n; i++) {
        names->name[i] = (struct span){p, rooms[i].n};
        p = mempcpy(p, rooms[i].p, rooms[i].n);
    }
    return names;
}

void joining_accept(struct joining *j, struct span user, struct span data, const struct span *rooms,
                    unsigned n_rooms)
{
    if (user.n)
        j->json_user = strndup(user.p, user.n);
    if (data.n)
        j->json_data = strndup(data.p, data.n);
    if (n_rooms)
        j->rooms = copy_names(rooms, n_rooms);
    if (j->rooms && j->entry) {
        j->entry->rooms = j->rooms->name;
        j->entry->n_rooms = j->rooms->n;
    }
    if ((user.n && !j->json_user) || (data.n && !j->json_data) || (n_rooms && !j->rooms) ||
        (j->entry && (directory_set_user(j->entry, user) || directory_set_data(j->entry, data))))
        fail(j);
    else
        save(j);
}

/* ---- one that comes back ---- */

static void recover(struct joining *j, const struct entry *known)
{
    j->json_user = strndup(known->user.n ? known->user.p : "", known->user.n);
    j->json_data = strndup(known->data.n ? known->data.p : "", known->data.n);
    struct socket *s = j->json_user && j->json_data ? make_socket(j) : NULL;
    if (!s || join_rooms(s, known->rooms, known->n_rooms) ||
        recovery_ahead(j->hub->recovery, j->since, &s->ahead) || directory_enter(j->entry, s, known)) {
        if (s)
            hub_remove(s);
        fail(j);
        return;
    }
    struct peers_position owner = recovery_position(j->hub->recovery, j->since->issuer);
    if (owner.origin.tag && owner.origin.tag != cluster_tag(j->hub->cluster)) {
        s->entry->after = owner.origin;
        s->entry->after_seq = owner.received;
    }
    j->is_recovered = true;
    s->is_recovered = true;
    metrics_add(j->hub->metrics, METRIC_RECOVERIES, 1);
    metrics_add(j->hub->metrics, METRIC_RECOVERIES_READ, j->fetch != NULL);
    hand_over(j, s);
}

/* Later than the entry's first offset, as the stock client keeps an old one when it gets a new session. */
static bool begin_catching(struct joining *j)
{
    static struct entry known; /* large; the reactor's thread only */
    static struct offset first;
    struct span bytes = {j->entry->bytes, j->entry->bytes_n};
    return entry_read(bytes, &known) == 0 && span_eq(known.nsp, joining_nsp(j)) &&
           offset_decode(known.since, &first) == 0 && recovery_take_version(&first) >= j->version &&
           recovery_later_of(j->hub->recovery, j->since, &first) == 0;
}

/* Lives until the next call. */
static struct recovery_missed missed_by(const struct joining *j)
{
    static struct offset reached;
    if (j->fetch)
        recovery_reached(j->fetch, j->since, &reached);
    return (struct recovery_missed){
        .since = j->since, .reached = j->fetch ? &reached : j->since, .fetch = j->fetch};
}

static void look(struct joining *j);

static void on_read(void *user, int err)
{
    struct joining *j = user;
    struct reactor *r = j->session->engine->reactor;
    reactor_timer_cancel(r, &j->look);
    j->state = JOINING_CATCHING;
    j->until_ms = reactor_now_ms(r) + recovery_catch_up_ms(j->hub->recovery);
    if (err)
        begin_anew(j);
    else
        look(j);
}

static bool begin_reading(struct joining *j, const struct entry *known)
{
    struct reactor *r = j->session->engine->reactor;
    uint64_t now = reactor_now_ms(r);
    bool begins = j->fetch == NULL;
    if (begins) {
        j->fetch = recovery_fetch(j->hub->recovery, j->session, j->since, known, on_read, j);
        j->read_until_ms = now + LIMIT_RECOVERY_WAIT_MS;
    }
    if (!j->fetch || now >= j->read_until_ms ||
        (!begins && !recovery_fetch_more(j->hub->recovery, j->fetch, missed_by(j).reached)))
        return false;
    j->state = JOINING_READING;
    reactor_timer_set(r, &j->look, (uint32_t)(j->read_until_ms - now));
    return true;
}

static void look(struct joining *j)
{
    static struct entry known;
    struct reactor *r = j->session->engine->reactor;
    struct recovery_missed missed = missed_by(j);
    enum recovery_verdict verdict = j->entry ? recovery_check(j->hub->recovery, missed.reached)
                                             : RECOVERY_NO; /* another claim was quicker */
    bool is_known = j->entry && entry_read((struct span){j->entry->bytes, j->entry->bytes_n}, &known) == 0;
    if (verdict == RECOVERY_LATER && reactor_now_ms(r) < j->until_ms) {
        reactor_timer_set(r, &j->look, j->look_ms);
        j->look_ms = 2 * j->look_ms < LOOK_MAX_MS ? 2 * j->look_ms : LOOK_MAX_MS;
    } else if (verdict == RECOVERY_YES && is_known &&
               recovery_fits(j->hub->recovery, j->session, &missed, &known)) {
        struct recovery *recovery = j->hub->recovery;
        recovery_hold(recovery);
        recover(j, &known);
        recovery_let_go(recovery);
    } else if (verdict != RECOVERY_NO || !is_known || !begin_reading(j, &known)) {
        begin_anew(j);
    }
}

static void on_look(struct timer *t)
{
    struct joining *j = container_of(t, struct joining, look);
    if (j->state != JOINING_READING) {
        look(j);
        return;
    }
    metrics_add(j->hub->metrics, METRIC_RECOVERY_READS_TIME, 1);
    begin_anew(j);
}

static void on_claimed(void *user, int err, struct directory_entry *e)
{
    struct joining *j = user;
    struct reactor *r = j->session->engine->reactor;
    j->claim = NULL;
    if (err == ERR_CLOSED)
        return;
    if (e)
        directory_hold(e, &j->entry);
    if (err || !begin_catching(j)) {
        begin_anew(j);
        return;
    }
    memcpy(j->sid, e->sid, ID_CHARS);
    j->state = JOINING_CATCHING;
    j->look_ms = LOOK_MS;
    j->until_ms = reactor_now_ms(r) + recovery_catch_up_ms(j->hub->recovery);
    look(j);
}

/* True: the client says which session it had, and it is being looked for. */
static bool begin_claim(struct joining *j)
{
    char pid[ID_CHARS + 1], text[LIMIT_OFFSET_BYTES];
    struct span auth = joining_auth(j);
    ssize_t pid_n = json_string(json_get(auth, "pid"), pid, sizeof(pid));
    ssize_t offset_n = json_string(json_get(auth, "offset"), text, sizeof(text));
    if (!recovers(j) || pid_n != ID_CHARS || offset_n <= 0)
        return false;
    j->since = malloc(sizeof(*j->since));
    if (!j->since || offset_decode((struct span){text, (size_t)offset_n}, j->since)) {
        metrics_add(j->hub->metrics, METRIC_RECOVERIES_FAILED, 1);
        free(j->since);
        j->since = NULL;
        return false;
    }
    j->state = JOINING_CLAIMING;
    j->version = recovery_take_version(j->since);
    j->came_with = id_hash(text, (size_t)offset_n);
    j->claim = directory_claim(recovery_directory(j->hub->recovery), (struct span){pid, ID_CHARS},
                               j->since->issuer, on_claimed, j);
    if (j->claim && j->version)
        directory_claim_of_owner(j->claim);
    if (j->claim)
        directory_claim_with(j->claim, j->came_with);
    return j->claim != NULL;
}

void joining_catch_up(struct joining *j, struct socket *s)
{
    struct recovery *r = j->hub->recovery;
    struct recovery_missed missed = j->is_recovered ? missed_by(j) : (struct recovery_missed){.since = NULL};
    if (j->is_recovered && recovery_replay(r, s, &missed))
        session_close_soon(s->session, CLOSE_FORCED); /* without memory: it may try again */
    if (s->entry)
        recovery_tell_offset(r, s);
}

/* ---- life ---- */

static struct joining *new_joining(struct hub *h, struct session *session, const struct joining_user *user,
                                   struct span nsp, struct span auth, struct joining **list)
{
    struct joining *j = calloc(1, sizeof(*j) + nsp.n + auth.n);
    if (!j)
        return NULL;
    j->hub = h;
    j->session = session;
    j->user = *user;
    j->nsp_n = nsp.n;
    j->auth_n = auth.n;
    memcpy(j->nsp, nsp.p, nsp.n);
    memcpy(j->nsp + nsp.n, auth.p, auth.n);
    timer_init(&j->look, on_look);
    j->list = list;
    j->next = *list;
    *list = j;
    return j;
}

int joining_go_on(struct hub *h, struct session *session, const struct joining_user *user, struct span nsp,
                  struct span pid, const struct offset *since, struct joining **list)
{
    struct joining *j = new_joining(h, session, user, nsp, SPAN("{}"), list);
    if (!j)
        return ERR_MEMORY;
    j->is_silent = true;
    j->since = malloc(sizeof(*j->since));
    if (j->since) {
        *j->since = *since;
        j->state = JOINING_CLAIMING;
        j->claim = directory_claim(recovery_directory(h->recovery), pid, since->issuer, on_claimed, j);
    }
    if (j->claim)
        return 0;
    unlink_joining(j);
    free_joining(j);
    return ERR_MEMORY;
}

int joining_start(struct hub *h, struct session *session, const struct joining_user *user, struct span nsp,
                  struct span auth, struct joining **list)
{
    struct joining *j = new_joining(h, session, user, nsp, auth, list);
    if (!j)
        return ERR_MEMORY;
    if (!begin_claim(j)) {
        if (!recovers(j))
            id_new(&h->engine->ids, j->sid);
        begin_anew(j);
    }
    return 0;
}

static void cancel(struct joining *j)
{
    const struct hub_handler *handler = hub_handler_of(j->hub, joining_nsp(j));
    struct directory_entry *e = j->entry;
    if (j->claim)
        directory_cancel(j->claim);
    if (j->state == JOINING_ASKED && handler->on_gave_up)
        handler->on_gave_up(handler->user, j);
    if (e && e->state == ENTRY_OPEN) /* what was claimed stays for the next time */
        directory_leave(e, false);
    unlink_joining(j);
    free_joining(j);
}

unsigned joining_count(const struct joining *list)
{
    unsigned n = 0;
    for (; list; list = list->next)
        n++;
    return n;
}

void joining_cancel_all(struct joining **list)
{
    while (*list)
        cancel(*list);
}

struct joining *joining_find(struct joining *list, struct span nsp)
{
    while (list && !span_eq(joining_nsp(list), nsp))
        list = list->next;
    return list;
}

/* ---- for handlers ---- */

struct span joining_nsp(const struct joining *j)
{
    return (struct span){j->nsp, j->nsp_n};
}

struct span joining_sid(const struct joining *j)
{
    return (struct span){j->sid, ID_CHARS};
}

struct span joining_auth(const struct joining *j)
{
    return (struct span){j->nsp + j->nsp_n, j->auth_n};
}

const struct session *joining_session(const struct joining *j)
{
    return j->session;
}

void joining_set_data(struct joining *j, void *data)
{
    j->data = data;
}

void *joining_data(const struct joining *j)
{
    return j->data;
}
