#include "admin.h"
#include "client.h"
#include "err.h"
#include "joining.h"
#include "json.h"
#include "print.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEYS_MAX = LIMIT_STATUS_LINKS, LIMIT_ROWS = 100 };

/* Of another node: valid here, too, as a page's requests may go to any. */
struct key {
    struct mesh_origin origin;
    char text[ADMIN_KEY_CHARS];
};

/* A page that watches events. Found by its sid: it may go at any time. */
struct watch {
    struct admin *admin;
    struct watch *next;
    struct tail *tail;
    char sid[ID_CHARS];
};

/* A question of a page that waits for its answer. */
struct question {
    struct admin *admin;
    uint64_t ack_id;
    bool has_ack;
    char sid[ID_CHARS];
};

struct admin {
    struct admin_parts parts;
    struct statuses *statuses;
    struct hub_handler handler;
    char key[ADMIN_KEY_CHARS];
    struct key keys[KEYS_MAX];
    unsigned n_keys;
    struct watch *watches;
    msgpack_sbuffer text;
};

/* ---- telling ---- */

static struct nsp *pages(const struct admin *a)
{
    return hub_find(a->parts.hub, SPAN(HUB_ADMIN));
}

unsigned admin_pages(const struct admin *a)
{
    const struct nsp *nsp = pages(a);
    return nsp ? room_count(nsp->all) : 0;
}

/* To one page, or to all; what a page cannot take now is too old for it later. */
static void tell(struct admin *a, const char *sid, struct span event, struct span args)
{
    struct span to = {sid, ID_CHARS};
    hub_deliver(a->parts.hub, &(struct emit){.nsp = SPAN(HUB_ADMIN),
                                             .to = &to,
                                             .n_to = sid != NULL,
                                             .event = event,
                                             .args = args,
                                             .is_volatile = sid == NULL});
}

static void tell_nodes(struct admin *a, const char *sid, bool with_trails)
{
    msgpack_sbuffer_clear(&a->text);
    if (a->statuses && statuses_json(a->statuses, with_trails, &a->text) == 0)
        tell(a, sid, SPAN("\"nodes\""), (struct span){a->text.data, a->text.size});
}

void admin_tell_nodes(struct admin *a)
{
    if (pages(a))
        tell_nodes(a, NULL, false);
}

void admin_use(struct admin *a, struct statuses *statuses)
{
    a->statuses = statuses;
}

/* ---- keys ---- */

struct span admin_key(const struct admin *a)
{
    return (struct span){a->key, ADMIN_KEY_CHARS};
}

/* The time that it takes says nothing about how much of it is right. */
static bool same_key(const char *a, const char *b)
{
    unsigned differs = 0;
    for (unsigned i = 0; i < ADMIN_KEY_CHARS; i++)
        differs |= (unsigned)(uint8_t)a[i] ^ (uint8_t)b[i];
    return differs == 0;
}

static bool is_key(const struct admin *a, const char *key)
{
    bool found = same_key(a->key, key);
    for (unsigned i = 0; i < a->n_keys; i++)
        found |= same_key(a->keys[i].text, key);
    return found;
}

static void forget_key(struct admin *a, struct mesh_origin from)
{
    for (unsigned i = 0; i < a->n_keys; i++) {
        if (a->keys[i].origin.tag == from.tag && a->keys[i].origin.boot == from.boot) {
            a->keys[i] = a->keys[--a->n_keys];
            return;
        }
    }
}

static void on_set(void *user, struct mesh_origin from, struct span name, struct span value)
{
    struct admin *a = user;
    if (!span_eq(name, SPAN("key")))
        return;
    forget_key(a, from);
    if (value.n != ADMIN_KEY_CHARS || a->n_keys == KEYS_MAX)
        return;
    a->keys[a->n_keys].origin = from;
    memcpy(a->keys[a->n_keys++].text, value.p, ADMIN_KEY_CHARS);
}

static void on_void(void *user, struct mesh_origin from)
{
    forget_key(user, from);
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    const struct admin *a = user;
    surveys_take(a->parts.surveys, from, bytes);
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    const struct admin *a = user;
    (void)received;
    surveys_on_dead(a->parts.surveys, from);
}

/* ---- pages come and go ---- */

static enum hub_verdict on_connect(void *user, struct joining *j, struct span *error)
{
    const struct admin *a = user;
    char key[ADMIN_KEY_CHARS];
    ssize_t n = json_string(json_get(joining_auth(j), "key"), key, sizeof(key));
    if (n == ADMIN_KEY_CHARS && is_key(a, key))
        return HUB_ACCEPT;
    *error = SPAN("{\"message\":\"the key is missing or wrong\"}");
    return HUB_REFUSE;
}

static void on_connected(void *user, struct socket *s, struct span auth)
{
    (void)auth;
    tell_nodes(user, s->sid, true);
}

static void stop_watching(struct admin *a, const char *sid)
{
    for (struct watch **at = &a->watches; *at; at = &(*at)->next) {
        struct watch *w = *at;
        if (memcmp(w->sid, sid, ID_CHARS) != 0)
            continue;
        *at = w->next;
        tail_stop(&w->tail);
        free(w);
        return;
    }
}

static void on_disconnected(void *user, struct socket *s, const char *reason)
{
    (void)reason;
    stop_watching(user, s->sid);
}

static void on_emit(void *user, const struct mesh_origin *origin, uint64_t seq, const struct emit *e)
{
    const struct admin *a = user;
    tails_on_emit(a->parts.tails, origin, seq, e);
}

static void on_end(void *user, const struct session *s, enum close_reason reason)
{
    const struct admin *a = user;
    lists_note_end(a->parts.lists, s, reason);
}

/* ---- what pages ask ---- */

static void answer(struct socket *s, bool has_ack, uint64_t id, struct span text)
{
    if (has_ack)
        socket_ack(s, id, text, NULL, 0);
}

static void on_events(void *user, struct span items, unsigned n, uint64_t skipped)
{
    struct watch *w = user;
    struct admin *a = w->admin;
    (void)n;
    msgpack_sbuffer_clear(&a->text);
    struct printer p = print_begin(&a->text);
    print_format(&p, "{\"skipped\":%" PRIu64 ",\"events\":[", skipped);
    print_span(&p, items);
    print_span(&p, SPAN("]}"));
    if (print_end(&p) == 0)
        tell(a, w->sid, SPAN("\"tail\""), (struct span){a->text.data, a->text.size});
}

static struct span get_text(struct span object, const char *key, char *text)
{
    ssize_t n = json_string(json_get(object, key), text, TAIL_FILTER_BYTES);
    return (struct span){text, n > 0 ? (size_t)n : 0};
}

/* The first argument: filters, or anything else to stop. */
static void on_tail(struct admin *a, struct socket *s, const struct sio_packet *packet, struct span arg)
{
    char ns[TAIL_FILTER_BYTES], room[TAIL_FILTER_BYTES], event[TAIL_FILTER_BYTES];
    stop_watching(a, s->sid);
    if (json_type(arg) != JSON_OBJECT) {
        answer(s, packet->has_id, packet->id, SPAN("{\"ok\":true}"));
        return;
    }
    struct tail_filter filter = {get_text(arg, "ns", ns), get_text(arg, "room", room),
                                 get_text(arg, "event", event)};
    struct watch *w = calloc(1, sizeof(*w));
    if (w)
        w->tail = tail_start(a->parts.tails, &filter, on_events, w);
    if (!w || !w->tail) {
        free(w);
        answer(s, packet->has_id, packet->id,
               SPAN("{\"ok\":false,\"error\":\"too many watch events already\"}"));
        return;
    }
    w->admin = a;
    memcpy(w->sid, s->sid, ID_CHARS);
    w->next = a->watches;
    a->watches = w;
    answer(s, packet->has_id, packet->id, SPAN("{\"ok\":true}"));
}

static void on_asked(void *user, const struct survey_result *result)
{
    struct question *q = user;
    struct admin *a = q->admin;
    struct nsp *nsp = pages(a);
    struct socket *s = nsp ? nsp_find(nsp, (struct span){q->sid, ID_CHARS}) : NULL;
    msgpack_sbuffer_clear(&a->text);
    struct printer p = print_begin(&a->text);
    print_format(&p, "{\"ok\":%s,\"total\":%" PRIu64 ",\"unanswered\":%u,\"more\":%s,\"rows\":[",
                 result->total > 0 ? "true" : "false", result->total, result->unanswered,
                 result->has_more ? "true" : "false");
    for (unsigned i = 0; i < result->n; i++) {
        print_span(&p, i > 0 ? SPAN(",") : SPAN(""));
        print_span(&p, result->row[i].json);
    }
    print_span(&p, SPAN("]}"));
    if (s && print_end(&p) == 0)
        answer(s, q->has_ack, q->ack_id, (struct span){a->text.data, a->text.size});
    free(q);
}

static void on_ask(struct admin *a, struct socket *s, const struct sio_packet *packet, struct span arg)
{
    struct question *q = json_type(arg) == JSON_OBJECT ? malloc(sizeof(*q)) : NULL;
    if (!q) {
        answer(s, packet->has_id, packet->id, SPAN("{\"ok\":false,\"error\":\"ask takes an object\"}"));
        return;
    }
    *q = (struct question){.admin = a, .ack_id = packet->id, .has_ack = packet->has_id};
    memcpy(q->sid, s->sid, ID_CHARS);
    if (surveys_ask(a->parts.surveys, arg, LIMIT_ROWS, on_asked, q)) {
        answer(s, packet->has_id, packet->id,
               SPAN("{\"ok\":false,\"error\":\"too many questions at a time\"}"));
        free(q);
    }
}

static bool on_event(void *user, struct socket *s, const struct sio_packet *packet,
                     const struct span *attachments)
{
    struct json_cursor c = {packet->args.p, packet->args.p + packet->args.n};
    struct span arg = {"", 0};
    (void)attachments;
    if (packet->args.n)
        json_item(&c, &arg);
    if (span_eq(packet->event, SPAN("\"tail\"")))
        on_tail(user, s, packet, arg);
    else if (span_eq(packet->event, SPAN("\"ask\"")))
        on_ask(user, s, packet, arg);
    else
        return false;
    return true;
}

/* ---- life ---- */

struct admin *admin_new(const struct admin_parts *parts)
{
    struct admin *a = calloc(1, sizeof(*a));
    struct id_source ids;
    if (!a)
        return NULL;
    a->parts = *parts;
    msgpack_sbuffer_init(&a->text);
    id_source_init(&ids, 0);
    id_new(&ids, a->key);
    a->handler = (struct hub_handler){.user = a,
                                      .on_connect = on_connect,
                                      .on_connected = on_connected,
                                      .on_disconnected = on_disconnected,
                                      .on_event = on_event,
                                      .on_emit = on_emit,
                                      .on_end = on_end};
    parts->hub->watcher = &a->handler;
    if (!parts->cluster)
        return a;
    cluster_listen(
        parts->cluster, MESH_TOPIC_DASHBOARD,
        &(struct cluster_part){
            .user = a, .on_set = on_set, .on_void = on_void, .on_message = on_message, .on_dead = on_dead});
    if (cluster_set(parts->cluster, MESH_TOPIC_DASHBOARD, SPAN("key"), admin_key(a)))
        admin_free(&a);
    return a;
}

void admin_free(struct admin **ap)
{
    struct admin *a = *ap;
    if (!a)
        return;
    a->parts.hub->watcher = NULL;
    if (a->parts.cluster)
        cluster_listen(a->parts.cluster, MESH_TOPIC_DASHBOARD, &(struct cluster_part){.user = NULL});
    while (a->watches)
        stop_watching(a, a->watches->sid);
    msgpack_sbuffer_destroy(&a->text);
    free(a);
    *ap = NULL;
}
