#include "lists.h"
#include "agent_list.h"
#include "client.h"
#include "directory.h"
#include "err.h"
#include "first.h"
#include "json.h"
#include "limit.h"
#include "print.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    ENDS = 1024,
    ENDS_MS = 600 * 1000,
    ROOMS_SHOWN = 8, /* of a socket in a list; all of one that is asked for by its sid */
    FILTER_BYTES = 256,
    PAGE = 50,
};

/* A session that has ended. */
struct end {
    uint64_t at_ms; /* since 1970 */
    uint64_t lived_ms, queued_bytes;
    uint32_t ip;
    uint8_t reason, transport;
    char sid[ID_CHARS];
};

struct lists {
    struct reactor *reactor;
    struct hub *hub;
    const struct agents *agents;
    struct span name;
    struct end end[ENDS]; /* a ring */
    uint64_t n_ends;
};

/* What is looked for. Empty: anything. */
struct filter {
    char text[8][FILTER_BYTES];
    struct span what, q, ns, room, sid, group, instance, sort, after;
    uint64_t limit;
};

struct lists *lists_new(struct reactor *r, struct hub *h, const struct agents *agents, struct span name)
{
    struct lists *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->reactor = r;
    l->hub = h;
    l->agents = agents;
    l->name = name;
    return l;
}

void lists_free(struct lists **l)
{
    free(*l);
    *l = NULL;
}

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct span get_text(struct span question, const char *key, char text[FILTER_BYTES])
{
    struct span value = json_get(question, key);
    ssize_t n = json_string(value, text, FILTER_BYTES);
    if (value.n > 0 && n < 0) { /* of what no text can be: nothing matches it */
        text[0] = '\xff';
        n = 1;
    }
    return (struct span){text, n > 0 ? (size_t)n : 0};
}

static void read_filter(struct span question, struct filter *f)
{
    f->q = get_text(question, "q", f->text[0]);
    f->ns = get_text(question, "ns", f->text[1]);
    f->room = get_text(question, "room", f->text[2]);
    f->sid = get_text(question, "sid", f->text[3]);
    f->sort = get_text(question, "sort", f->text[4]);
    f->after = get_text(question, "after", f->text[5]);
    f->group = get_text(question, "group", f->text[6]);
    f->instance = get_text(question, "instance", f->text[7]);
    if (!json_uint(json_get(question, "limit"), LISTS_ROWS_MAX, &f->limit))
        f->limit = PAGE;
}

void lists_put(struct lists_answer *a, const struct first_candidate *c, size_t from)
{
    struct lists_row *row = &a->row[a->n++];
    memcpy(row->key, c->key, c->key_n);
    row->key_n = c->key_n;
    row->json = (struct span){NULL, a->text.size - from};
}

static void finish_rows(struct lists_answer *a)
{
    const char *p = a->text.data;
    for (unsigned i = 0; i < a->n; i++) {
        a->row[i].json.p = p;
        p += a->row[i].json.n;
    }
}

/* ---- sessions ---- */

static bool contains(struct span text, struct span part)
{
    return part.n > 0 && text.n >= part.n && memmem(text.p, text.n, part.p, part.n) != NULL;
}

static struct span ip_text(uint32_t ip, char text[INET_ADDRSTRLEN])
{
    inet_ntop(AF_INET, &ip, text, INET_ADDRSTRLEN);
    return span_of(text);
}

static struct span user_of(const struct socket *s)
{
    return s->user ? span_of(s->user) : (struct span){"", 0};
}

static bool is_in(const struct socket *s, struct span name)
{
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        if (room != s->nsp->all && span_eq((struct span){room->name, room->name_n}, name))
            return true;
    }
    return false;
}

static bool some_room_contains(const struct socket *s, struct span part)
{
    for (uint32_t i = 0; i < s->n_places; i++)
        if (contains((struct span){s->places[i].room->name, s->places[i].room->name_n}, part))
            return true;
    return false;
}

static bool matches(const struct lists *l, const struct filter *f, const struct socket *s)
{
    char ip[INET_ADDRSTRLEN];
    struct span sid = {s->sid, ID_CHARS};
    if (f->ns.n && !span_eq(nsp_name(s->nsp), f->ns))
        return false;
    if (f->sid.n && !span_eq(sid, f->sid))
        return false;
    if (f->room.n && !is_in(s, f->room))
        return false;
    return f->q.n == 0 || contains(sid, f->q) || contains(user_of(s), f->q) ||
           contains(ip_text(s->session->peer_ip, ip), f->q) || contains(l->name, f->q) ||
           contains(nsp_name(s->nsp), f->q) || some_room_contains(s, f->q);
}

/* By sid, which begins with the tag of the node where it began; or by what waits, the most first. */
static size_t key_of(const struct filter *f, const struct socket *s, char key[LISTS_KEY_BYTES])
{
    if (!span_eq(f->sort, SPAN("queue"))) {
        memcpy(key, s->sid, ID_CHARS);
        return ID_CHARS;
    }
    int n = snprintf(key, LISTS_KEY_BYTES, "%016" PRIx64, UINT64_MAX - s->session->out.bytes);
    memcpy(key + n, s->sid, ID_CHARS);
    return (size_t)n + ID_CHARS;
}

static void print_rooms(struct printer *p, const struct socket *s, unsigned max)
{
    const char *comma = "";
    unsigned n = 0;
    print_span(p, SPAN(",\"rooms\":["));
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        if (room == s->nsp->all || n++ >= max)
            continue;
        print_span(p, span_of(comma));
        print_quoted(p, (struct span){room->name, room->name_n});
        comma = ",";
    }
    print_format(p, "],\"rooms_n\":%u", n);
}

static int print_socket(const struct lists *l, const struct filter *f, const struct socket *s,
                        msgpack_sbuffer *text)
{
    const struct session *session = s->session;
    char ip[INET_ADDRSTRLEN];
    struct printer p = print_begin(text);
    print_format(&p, "{\"sid\":\"%.*s\",\"session\":\"%.*s\",\"node\":", ID_CHARS, s->sid, ID_CHARS,
                 session->sid);
    print_quoted(&p, l->name);
    print_span(&p, SPAN(",\"ns\":"));
    print_quoted(&p, nsp_name(s->nsp));
    print_format(&p, ",\"transport\":\"%s\",\"address\":\"%.*s\"",
                 session->transport->kind == EIO_WEBSOCKET ? "websocket" : "polling",
                 (int)ip_text(session->peer_ip, ip).n, ip);
    print_span(&p, SPAN(",\"user\":"));
    print_span(&p, s->user ? user_of(s) : SPAN("null"));
    print_rooms(&p, s, f->sid.n ? LIMIT_ROOMS_PER_SOCKET : ROOMS_SHOWN);
    print_format(&p, ",\"connected_ms\":%" PRIu64 ",\"recovered\":%s,\"recoverable\":%s",
                 reactor_now_ms(l->reactor) - session->opened_ms, s->is_recovered ? "true" : "false",
                 s->entry ? "true" : "false");
    print_format(&p, ",\"messages_in\":%" PRIu32 ",\"messages_out\":%" PRIu32, session->received,
                 session->sent);
    print_format(&p, ",\"queued_messages\":%" PRIu32 ",\"queued_bytes\":%" PRIu64 ",\"blocked\":%s}",
                 session->out.messages, session->out.bytes, session->is_blocked ? "true" : "false");
    return print_end(&p);
}

static int ask_sessions(struct lists *l, const struct filter *f, struct lists_answer *a)
{
    static struct first first; /* large; the reactor's thread only */
    char key[LISTS_KEY_BYTES];
    int err = 0;
    first_begin(&first, (unsigned)f->limit, f->after);
    for (const struct nsp *nsp = l->hub->nsps; nsp; nsp = nsp->hh.next)
        for (const struct socket *s = nsp->sockets; s; s = s->hh.next)
            if (matches(l, f, s) && !(span_eq(f->sort, SPAN("queue")) && s->session->out.bytes == 0))
                first_offer(&first, key, key_of(f, s, key), s);
    a->total = first.total;
    a->has_more = first.has_more;
    for (unsigned i = 0; i < first.n && !err; i++) {
        size_t from = a->text.size;
        err = print_socket(l, f, first.at[i].what, &a->text);
        lists_put(a, &first.at[i], from);
    }
    return err;
}

/* ---- ends ---- */

void lists_note_end(struct lists *l, const struct session *s, enum close_reason reason)
{
    struct end *end = &l->end[l->n_ends++ % ENDS];
    *end = (struct end){.at_ms = wall_ms(),
                        .lived_ms = reactor_now_ms(l->reactor) - s->opened_ms,
                        .queued_bytes = s->out.bytes,
                        .ip = s->peer_ip,
                        .reason = (uint8_t)reason,
                        .transport = (uint8_t)s->transport->kind};
    memcpy(end->sid, s->sid, ID_CHARS);
}

static int print_end_of(const struct lists *l, const struct end *e, msgpack_sbuffer *text)
{
    char ip[INET_ADDRSTRLEN];
    struct printer p = print_begin(text);
    print_format(&p, "{\"time_ms\":%" PRIu64 ",\"reason\":\"%s\",\"address\":\"%.*s\",\"transport\":\"%s\"",
                 e->at_ms, close_reason_text(e->reason), (int)ip_text(e->ip, ip).n, ip,
                 e->transport == EIO_WEBSOCKET ? "websocket" : "polling");
    print_format(&p,
                 ",\"connected_ms\":%" PRIu64 ",\"queued_bytes\":%" PRIu64 ",\"session\":\"%.*s\",\"node\":",
                 e->lived_ms, e->queued_bytes, ID_CHARS, e->sid);
    print_quoted(&p, l->name);
    print_span(&p, SPAN("}"));
    return print_end(&p);
}

static bool end_matches(const struct lists *l, const struct filter *f, const struct end *e)
{
    char ip[INET_ADDRSTRLEN];
    struct span reason = span_of(close_reason_text(e->reason));
    return f->q.n == 0 || contains(reason, f->q) || contains((struct span){e->sid, ID_CHARS}, f->q) ||
           contains(ip_text(e->ip, ip), f->q) || contains(l->name, f->q);
}

/* The newest first. */
static int ask_ends(struct lists *l, const struct filter *f, struct lists_answer *a)
{
    static struct first first;
    uint64_t now = wall_ms();
    char key[LISTS_KEY_BYTES];
    int err = 0;
    first_begin(&first, (unsigned)f->limit, f->after);
    for (uint64_t i = l->n_ends > ENDS ? l->n_ends - ENDS : 0; i < l->n_ends; i++) {
        const struct end *e = &l->end[i % ENDS];
        if (now - e->at_ms > ENDS_MS || !end_matches(l, f, e))
            continue;
        int n = snprintf(key, sizeof(key), "%016" PRIx64, UINT64_MAX - e->at_ms);
        memcpy(key + n, e->sid, ID_CHARS);
        first_offer(&first, key, (size_t)n + ID_CHARS, e);
    }
    a->total = first.total;
    a->has_more = first.has_more;
    for (unsigned i = 0; i < first.n && !err; i++) {
        size_t from = a->text.size;
        err = print_end_of(l, first.at[i].what, &a->text);
        lists_put(a, &first.at[i], from);
    }
    return err;
}

/* ---- agents ---- */

static int ask_agents(const struct lists *l, const struct filter *f, struct lists_answer *a)
{
    if (!l->agents)
        return 0;
    return agent_list_ask(l->agents, l->name,
                          &(struct agent_question){.q = f->q,
                                                   .group = f->group,
                                                   .instance = f->instance,
                                                   .after = f->after,
                                                   .by_calls = span_eq(f->sort, SPAN("calls")),
                                                   .limit = (unsigned)f->limit},
                          a);
}

/* ---- actions ---- */

static struct socket *find_socket(const struct lists *l, const struct filter *f)
{
    struct socket *s = NULL;
    for (struct nsp *nsp = l->hub->nsps; nsp && !s; nsp = nsp->hh.next)
        if (f->ns.n == 0 || span_eq(nsp_name(nsp), f->ns))
            s = nsp_find(nsp, f->sid);
    return s;
}

static int act(struct lists *l, const struct filter *f, bool close, struct lists_answer *a)
{
    struct socket *s = find_socket(l, f);
    struct first_candidate done = {.key = "done", .key_n = 4};
    int err = 0;
    if (!s)
        return 0;
    if (span_eq(f->what, SPAN("disconnect")))
        socket_disconnect(s, close);
    else if (span_eq(f->what, SPAN("leave")))
        room_leave(s, f->room);
    else
        err = f->room.n ? room_join(s, f->room) : ERR_ARGUMENT;
    if (!span_eq(f->what, SPAN("disconnect")) && s->entry)
        directory_save(s->entry, NULL, NULL);
    struct printer p = print_begin(&a->text);
    size_t from = a->text.size;
    print_span(&p, err ? SPAN("{\"ok\":false}") : SPAN("{\"ok\":true}"));
    a->total = 1;
    lists_put(a, &done, from);
    return print_end(&p);
}

int lists_ask(struct lists *l, struct span question, struct lists_answer *a)
{
    static struct filter f; /* large; the reactor's thread only */
    char what[FILTER_BYTES];
    int err = 0;
    f.what = get_text(question, "do", what);
    read_filter(question, &f);
    a->total = 0;
    a->n = 0;
    a->has_more = false;
    if (span_eq(f.what, SPAN("sessions")))
        err = ask_sessions(l, &f, a);
    else if (span_eq(f.what, SPAN("ends")))
        err = ask_ends(l, &f, a);
    else if (span_eq(f.what, SPAN("agents")))
        err = ask_agents(l, &f, a);
    else if (span_eq(f.what, SPAN("disconnect")) || span_eq(f.what, SPAN("join")) ||
             span_eq(f.what, SPAN("leave")))
        err = act(l, &f, json_is_true(json_get(question, "close")), a);
    finish_rows(a);
    return err;
}
