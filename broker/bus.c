#include "bus.h"
#include "client.h"
#include "cluster.h"
#include "directory.h"
#include "err.h"
#include "json.h"
#include "limit.h"
#include <stdio.h>
#include <stdlib.h>

enum { KEY_BYTES = 16 }; /* the longest key of an emit, and more */

/* An answer that says why not; error is a literal without anything to escape. */
static void answer_error(struct socket *s, const struct sio_packet *packet, const char *error)
{
    char text[256];
    if (!packet->has_id)
        return;
    int n = snprintf(text, sizeof(text), "{\"ok\":false,\"error\":\"%s\"}", error);
    socket_ack(s, packet->id, (struct span){text, (size_t)n}, NULL, 0);
}

/* ---- reading ---- */

static const char *name_list_add(struct name_list *list, struct span value)
{
    if (list->n == LIMIT_ROOMS_PER_CALL)
        return "too many rooms in one call";
    char *at = list->text + (size_t)list->n * LIMIT_ROOM_BYTES;
    ssize_t n = json_string(value, at, LIMIT_ROOM_BYTES);
    if (n == ERR_LIMIT)
        return "a room's name is too long";
    if (n <= 0)
        return "a room is a string that is not empty";
    list->name[list->n++] = (struct span){at, (size_t)n};
    return NULL;
}

const char *name_list_read(struct name_list *list, struct span value)
{
    list->n = 0;
    if (value.n == 0)
        return NULL;
    if (json_type(value) != JSON_ARRAY)
        return name_list_add(list, value);
    struct json_cursor c = json_open(value);
    struct span item;
    while (json_item(&c, &item)) {
        const char *wrong = name_list_add(list, item);
        if (wrong)
            return wrong;
    }
    return NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* What is between the brackets of an array that json_member() gave. It is in an emit of any size and was checked as a
 * whole, so its items are not walked once more. */
static struct span inside(struct span array)
{
    if (array.n < 2)
        return (struct span){array.p, 0};
    struct span all = {array.p + 1, array.n - 2};
    for (; all.n > 0 && is_blank(*all.p); all.n--)
        all.p++;
    while (all.n > 0 && is_blank(all.p[all.n - 1]))
        all.n--;
    return all;
}

/* A key may be written with escapes. One that does not fit is none of ours. */
static struct span key_text(struct span key, char text[KEY_BYTES])
{
    ssize_t n = json_string(key, text, KEY_BYTES);
    return (struct span){text, n > 0 ? (size_t)n : 0};
}

/* What the bus itself says to clients nobody else may say. */
static bool is_of_the_bus(struct span event)
{
    char text[LIMIT_EVENT_NAME_BYTES];
    return json_string(event, text, sizeof(text)) >= 4 && memcmp(text, "bus:", 4) == 0;
}

const char *emit_request_read(struct emit_request *r, struct span object)
{
    struct span args = {NULL, 0}, to = {NULL, 0}, except = {NULL, 0}, key, value;
    struct json_cursor c = json_open(object);
    char text[KEY_BYTES];
    memset(&r->emit, 0, sizeof(r->emit));
    r->echo = false;
    bool flags_ok = true;
    if (json_type(object) != JSON_OBJECT)
        return "an emit is an object";
    while (json_member(&c, &key, &value)) {
        struct span name = key_text(key, text);
        if (span_eq(name, SPAN("event")))
            r->emit.event = value;
        else if (span_eq(name, SPAN("args")))
            args = value;
        else if (span_eq(name, SPAN("to")))
            to = value;
        else if (span_eq(name, SPAN("except")))
            except = value;
        else if (span_eq(name, SPAN("volatile")))
            r->emit.is_volatile = json_is_true(value), flags_ok = flags_ok && json_type(value) == JSON_BOOL;
        else if (span_eq(name, SPAN("echo")))
            r->echo = json_is_true(value), flags_ok = flags_ok && json_type(value) == JSON_BOOL;
    }
    if (!flags_ok)
        return "volatile and echo are true or false";
    if (json_type(r->emit.event) != JSON_STRING)
        return "event is missing or not a string";
    if (r->emit.event.n > LIMIT_EVENT_NAME_BYTES + 2)
        return "event is too long";
    if (sio_reserved(r->emit.event) || is_of_the_bus(r->emit.event))
        return "event is a reserved name";
    if (args.n && json_type(args) != JSON_ARRAY)
        return "args is not an array";
    const char *wrong = name_list_read(&r->to, to);
    if (!wrong)
        wrong = name_list_read(&r->except, except);
    if (wrong)
        return wrong;
    /* An empty list of targets is nobody; only its absence is everybody. */
    if (to.n && r->to.n == 0)
        return "to names no room";
    r->emit.args = inside(args);
    r->emit.to = r->to.name;
    r->emit.n_to = r->to.n;
    r->emit.except = r->except.name;
    r->emit.n_except = r->except.n;
    return NULL;
}

/* ---- commands ---- */

static struct span first_arg(const struct sio_packet *packet)
{
    /* args holds bare items: the first one ends where the cursor says. */
    struct json_cursor c = {packet->args.p, packet->args.p + packet->args.n};
    struct span item = {NULL, 0};
    if (packet->args.n)
        json_item(&c, &item);
    return item;
}

/* An answer that waits until the directory knows of the change. */
struct saved_answer {
    struct directory_entry *entry;
    uint64_t id;
    size_t n;
    char text[];
};

static void on_saved(void *user, int err)
{
    struct saved_answer *a = user;
    if (err != ERR_CLOSED && a->entry->socket)
        socket_ack(a->entry->socket, a->id, (struct span){a->text, a->n}, NULL, 0);
    free(a);
}

static void answer_when_saved(struct socket *s, uint64_t id, struct span text)
{
    struct saved_answer *a = s->entry ? malloc(sizeof(*a) + text.n) : NULL;
    if (!a) {
        socket_ack(s, id, text, NULL, 0);
        return;
    }
    *a = (struct saved_answer){.entry = s->entry, .id = id, .n = text.n};
    memcpy(a->text, text.p, text.n);
    directory_save(s->entry, on_saved, a);
}

/* {"ok":true,"rooms":[…]} with the rooms of the call: an answer is never much longer than its question. */
static void answer_rooms(struct socket *s, const struct sio_packet *packet, const struct name_list *rooms)
{
    size_t cap = 32;
    if (!packet->has_id) {
        if (s->entry)
            directory_save(s->entry, NULL, NULL);
        return;
    }
    for (unsigned i = 0; i < rooms->n; i++)
        cap += JSON_QUOTED_MAX(rooms->name[i].n) + 1;
    char *text = malloc(cap);
    if (!text) {
        answer_error(s, packet, err_text(ERR_MEMORY));
        return;
    }
    char *p = stpcpy(text, "{\"ok\":true,\"rooms\":[");
    for (unsigned i = 0; i < rooms->n; i++) {
        if (i > 0)
            *p++ = ',';
        p += json_quote(p, rooms->name[i]);
    }
    p = stpcpy(p, "]}");
    answer_when_saved(s, packet->id, (struct span){text, (size_t)(p - text)});
    free(text);
}

static const char *join_all(struct socket *s, const struct name_list *rooms)
{
    for (unsigned i = 0; i < rooms->n; i++) {
        int err = room_join(s, rooms->name[i]);
        if (err == ERR_LIMIT)
            return "too many rooms";
        if (err)
            return err_text(err);
    }
    return NULL;
}

static void on_join(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    static struct name_list rooms; /* large; the reactor's thread only */
    (void)attachments;
    const char *wrong = name_list_read(&rooms, first_arg(packet));
    if (!wrong && rooms.n == 0)
        wrong = "bus:join takes a room or an array of rooms";
    if (!wrong)
        wrong = join_all(s, &rooms);
    if (wrong)
        answer_error(s, packet, wrong);
    else
        answer_rooms(s, packet, &rooms);
}

static void on_leave(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    static struct name_list rooms;
    (void)attachments;
    const char *wrong = name_list_read(&rooms, first_arg(packet));
    if (!wrong && rooms.n == 0)
        wrong = "bus:leave takes a room or an array of rooms";
    if (wrong) {
        answer_error(s, packet, wrong);
        return;
    }
    for (unsigned i = 0; i < rooms.n; i++)
        room_leave(s, rooms.name[i]);
    answer_rooms(s, packet, &rooms);
}

static void on_emit(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    static struct emit_request r;
    struct hub *h = s->nsp->hub;
    const char *wrong = emit_request_read(&r, packet->args);
    if (wrong) {
        answer_error(s, packet, wrong);
        return;
    }
    r.emit.nsp = nsp_name(s->nsp);
    r.emit.attachments = attachments;
    r.emit.n_attachments = packet->attachments;
    r.emit.skip = r.echo ? NULL : s;
    r.emit.from = s;
    /* A sender that cannot be made to wait in its own socket is refused at once. */
    if (h->engine->congested && !s->session->transport->resume) {
        metrics_add(h->metrics, METRIC_EMITS_REFUSED, 1);
        answer_error(s, packet, err_text(ERR_BUSY));
        return;
    }
    uint64_t seq;
    s->session->emits = true;
    int err = hub_emit(h, &r.emit, &seq);
    if (err) {
        answer_error(s, packet, err_text(err));
        return;
    }
    if (!packet->has_id)
        return;
    char text[192];
    int n = snprintf(text, sizeof(text), "{\"ok\":true,\"id\":\"%s:%llu\"}", h->options.origin,
                     (unsigned long long)seq);
    socket_ack(s, packet->id, (struct span){text, (size_t)n}, NULL, 0);
}

/* The members of a room on this node, or on the others: a room of that name, and the socket of that sid. */
struct half {
    const struct room *room;
    const struct socket *own; /* not in the room as well */
};

static struct half look_up(struct nsp *nsp, struct span name)
{
    struct half h = {nsp ? room_find(nsp, name) : NULL, nsp ? nsp_find(nsp, name) : NULL};
    if (h.own && h.room && room_has(h.room, h.own))
        h.own = NULL;
    return h;
}

static size_t count_half(const struct half *h)
{
    return (h->room ? room_count(h->room) : 0) + (h->own != NULL);
}

enum { MEMBER_BYTES = ID_CHARS + 32 }; /* and the user's */

static char *put_member(char *p, const struct socket *s, size_t *left)
{
    p = stpcpy(p, "{\"sid\":\"");
    p = mempcpy(p, s->sid, ID_CHARS);
    --*left;
    p = stpcpy(p, "\",\"user\":");
    p = stpcpy(p, s->user ? s->user : "null");
    return stpcpy(p, "},");
}

static char *put_half(char *p, const struct half *h, size_t *left)
{
    if (h->own && *left > 0)
        p = put_member(p, h->own, left);
    for (uint32_t i = 0; h->room && *left > 0 && i < h->room->n; i++)
        if (h->room->members[i].socket)
            p = put_member(p, h->room->members[i].socket, left);
    return p;
}

static size_t users_bytes(const struct half *h, size_t left)
{
    size_t n = h->own && h->own->user ? strlen(h->own->user) : 0;
    for (uint32_t i = 0; h->room && left > 0 && i < h->room->n; i++) {
        const struct socket *s = h->room->members[i].socket;
        left -= s != NULL;
        n += s && s->user ? strlen(s->user) : 0;
    }
    return n;
}

static void on_who(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    static struct name_list rooms;
    struct cluster *cluster = s->nsp->hub->cluster;
    (void)attachments;
    const char *wrong = name_list_read(&rooms, first_arg(packet));
    if (wrong || rooms.n != 1) {
        answer_error(s, packet, wrong ? wrong : "bus:who takes a room");
        return;
    }
    if (!packet->has_id)
        return;
    struct half near = look_up(s->nsp, rooms.name[0]);
    struct half far = look_up(cluster ? cluster_far(cluster, nsp_name(s->nsp)) : NULL, rooms.name[0]);
    size_t count = count_half(&near) + count_half(&far);
    size_t left = count < LIMIT_WHO_MEMBERS ? count : LIMIT_WHO_MEMBERS;
    char *text = malloc(64 + left * MEMBER_BYTES + users_bytes(&near, left) + users_bytes(&far, left));
    if (!text) {
        answer_error(s, packet, err_text(ERR_MEMORY));
        return;
    }
    char *p = text + sprintf(text, "{\"ok\":true,\"count\":%zu,\"members\":[", count);
    p = put_half(p, &near, &left);
    p = put_half(p, &far, &left);
    if (p[-1] == ',')
        p--;
    p = stpcpy(p, "]}");
    socket_ack(s, packet->id, (struct span){text, (size_t)(p - text)}, NULL, 0);
    free(text);
}

bool bus_command(struct socket *s, const struct sio_packet *packet, const struct span *attachments)
{
    static const struct {
        struct span name;
        void (*run)(struct socket *s, const struct sio_packet *packet, const struct span *attachments);
    } commands[] = {
        {SPAN("\"bus:emit\""), on_emit},
        {SPAN("\"bus:join\""), on_join},
        {SPAN("\"bus:leave\""), on_leave},
        {SPAN("\"bus:who\""), on_who},
    };
    if (packet->event.n < 5 || memcmp(packet->event.p, "\"bus:", 5) != 0)
        return false;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (span_eq(packet->event, commands[i].name)) {
            commands[i].run(s, packet, attachments);
            return true;
        }
    }
    answer_error(s, packet, "the bus knows no such event");
    return true;
}
