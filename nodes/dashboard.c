#include "dashboard.h"
#include "admin.h"
#include "container.h"
#include "err.h"
#include "limit.h"
#include "persist.h"
#include "print.h"
#include "query.h"
#include "room_list.h"
#include "statuses.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct dashboard {
    struct dashboard_parts parts;
    struct statuses *statuses;
    struct machines *machines; /* NULL: this node listens to no agents */
    struct lists *lists;
    struct surveys *surveys;
    struct tails *tails;
    struct admin *admin;
    struct watched *watched; /* requests that wait for events */
    msgpack_sbuffer text;    /* of one answer */
};

/* A request whose answer is made later. */
struct watched {
    struct dashboard *dashboard;
    struct visit *visit;
    struct watched *next;
    struct tail *tail;
    struct timer timer;
    msgpack_sbuffer items;
    uint64_t skipped, n, limit;
};

static void on_fill(void *user, uint64_t value[STATUS_VALUES])
{
    const struct dashboard *d = user;
    const struct web *web = d->parts.web;
    int store = web->store ? atomic_load(web->store) : PERSIST_NONE;
    value[STATUS_STATE] = atomic_load(&web->draining) ? STATUS_DRAINING
                          : atomic_load(&web->ready)  ? STATUS_READY
                          : web->stopping             ? STATUS_STOPPING
                                                      : STATUS_STARTING;
    value[STATUS_STORE] = store == PERSIST_UP     ? STATUS_STORE_UP
                          : store != PERSIST_NONE ? STATUS_STORE_DOWN
                                                  : STATUS_STORE_NONE;
    value[STATUS_DASHBOARDS] = d->admin ? admin_pages(d->admin) : 0;
}

static void on_news(void *user)
{
    const struct dashboard *d = user;
    if (d->admin)
        admin_tell_nodes(d->admin);
}

struct dashboard *dashboard_new(const struct dashboard_parts *parts)
{
    struct dashboard *d = calloc(1, sizeof(*d));
    const struct config *c = parts->config;
    if (!d)
        return NULL;
    d->parts = *parts;
    d->machines = parts->agents ? agents_machines(parts->agents) : NULL;
    msgpack_sbuffer_init(&d->text);
    d->statuses = statuses_new(parts->reactor, parts->metrics, parts->cluster,
                               &(struct statuses_options){
                                   .name = span_of(c->name),
                                   .host = span_of(parts->host),
                                   .self = parts->self,
                                   .restarts = c->restarts,
                                   .port = c->port,
                                   .node_port = c->node_port,
                                   .core = c->no_pin ? -1 : c->core,
                                   .on_fill = on_fill,
                                   .on_news = on_news,
                                   .user = d,
                               });
    d->lists = lists_new(parts->reactor, parts->hub, parts->agents, span_of(c->name));
    d->tails = tails_new(parts->reactor, parts->hub);
    d->surveys = d->lists ? surveys_new(parts->reactor, parts->cluster, d->lists) : NULL;
    if (d->statuses && d->tails && d->surveys)
        d->admin = admin_new(&(struct admin_parts){parts->reactor, parts->hub, parts->cluster, d->lists,
                                                   d->tails, d->surveys});
    if (d->admin)
        admin_use(d->admin, d->statuses);
    else
        dashboard_free(&d);
    return d;
}

static void finish_watched(struct watched *w);

void dashboard_stop(struct dashboard *d)
{
    while (d->watched)
        finish_watched(d->watched);
    if (d->surveys)
        surveys_stop(d->surveys);
}

void dashboard_free(struct dashboard **dp)
{
    struct dashboard *d = *dp;
    if (!d)
        return;
    dashboard_stop(d);
    admin_free(&d->admin);
    tails_free(&d->tails);
    surveys_free(&d->surveys);
    lists_free(&d->lists);
    statuses_free(&d->statuses);
    msgpack_sbuffer_destroy(&d->text);
    free(d);
    *dp = NULL;
}

/* ---- HTTP ---- */

static void finish_error(struct visit *v, int status, const char *error)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "{\"ok\":false,\"error\":\"%s\"}\n", error);
    visit_finish(v, status, "application/json", (struct span){text, (size_t)n});
}

static void get_nodes(struct dashboard *d, struct visit *v, struct span query)
{
    uint64_t with_trails = 0;
    if (!query_uint(query, "trail", 1, &with_trails)) {
        finish_error(v, 400, "trail is 0 or 1");
        return;
    }
    msgpack_sbuffer_clear(&d->text);
    if (statuses_json(d->statuses, with_trails == 1, &d->text))
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){d->text.data, d->text.size});
}

/* What parameters of a question are called; the same in the query and in the question. */
struct names {
    const char *const *name;
    unsigned n;
};

/* False: answered. */
static bool make_question(struct dashboard *d, struct visit *v, struct span query, const char *what,
                          struct names names, uint64_t *limit)
{
    char text[256];
    struct printer p = print_begin(&d->text);
    *limit = 50;
    if (!query_uint(query, "limit", LISTS_ROWS_MAX, limit)) {
        finish_error(v, 400, "limit is a number up to 200");
        return false;
    }
    print_format(&p, "{\"do\":\"%s\",\"limit\":%" PRIu64, what, *limit);
    for (unsigned i = 0; i < names.n; i++) {
        int n = query_text(query, names.name[i], text, sizeof(text));
        if (n < 0) {
            finish_error(v, 400, "a parameter is too long, or no UTF-8");
            return false;
        }
        print_format(&p, ",\"%s\":", names.name[i]);
        print_quoted(&p, (struct span){text, (size_t)n});
    }
    print_span(&p, SPAN("}"));
    if (print_end(&p) == 0)
        return true;
    finish_error(v, 503, err_text(ERR_MEMORY));
    return false;
}

static void print_next(struct printer *p, const struct survey_result *r)
{
    print_span(p, SPAN("],\"next\":"));
    if (r->has_more && r->n > 0)
        print_quoted(p, (struct span){r->row[r->n - 1].key, r->row[r->n - 1].key_n});
    else
        print_span(p, SPAN("null"));
    print_format(p, ",\"unanswered\":%u}", r->unanswered);
}

static void on_asked(void *user, const struct survey_result *r)
{
    struct visit *v = user;
    msgpack_sbuffer text;
    msgpack_sbuffer_init(&text);
    struct printer p = print_begin(&text);
    print_format(&p, "{\"ok\":true,\"total\":%" PRIu64 ",\"rows\":[", r->total);
    for (unsigned i = 0; i < r->n; i++) {
        print_span(&p, i > 0 ? SPAN(",") : SPAN(""));
        print_span(&p, r->row[i].json);
    }
    print_next(&p, r);
    if (print_end(&p))
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){text.data, text.size});
    msgpack_sbuffer_destroy(&text);
}

static void ask(struct dashboard *d, struct visit *v, struct span query, const char *what, struct names names)
{
    uint64_t limit;
    msgpack_sbuffer_clear(&d->text);
    if (!make_question(d, v, query, what, names, &limit))
        return;
    if (surveys_ask(d->surveys, (struct span){d->text.data, d->text.size}, (unsigned)limit, on_asked, v))
        finish_error(v, 503, "too many questions at a time");
}

static void get_sessions(struct dashboard *d, struct visit *v, struct span query)
{
    static const char *const names[] = {"q", "ns", "room", "sid", "sort", "after"};
    ask(d, v, query, "sessions", (struct names){names, 6});
}

static void get_ends(struct dashboard *d, struct visit *v, struct span query)
{
    static const char *const names[] = {"q", "after"};
    ask(d, v, query, "ends", (struct names){names, 2});
}

static void get_agents(struct dashboard *d, struct visit *v, struct span query)
{
    static const char *const names[] = {"q", "group", "instance", "sort", "after"};
    ask(d, v, query, "agents", (struct names){names, 5});
}

static void get_rooms(struct dashboard *d, struct visit *v, struct span query)
{
    char q[256], ns[256], after[FIRST_KEY_BYTES], sort[16];
    int q_n = query_text(query, "q", q, sizeof(q)), ns_n = query_text(query, "ns", ns, sizeof(ns));
    int after_n = query_text(query, "after", after, sizeof(after));
    int sort_n = query_text(query, "sort", sort, sizeof(sort));
    uint64_t limit = 50;
    if (q_n < 0 || ns_n < 0 || after_n < 0 || sort_n < 0 || !query_uint(query, "limit", FIRST_MAX, &limit)) {
        finish_error(v, 400, "a parameter is too long, or not what it should be");
        return;
    }
    struct room_question question = {{q, (size_t)q_n},
                                     {ns, (size_t)ns_n},
                                     {after, (size_t)after_n},
                                     span_eq((struct span){sort, (size_t)sort_n}, SPAN("traffic")),
                                     (unsigned)limit};
    msgpack_sbuffer_clear(&d->text);
    if (room_list_json(d->parts.hub, d->parts.cluster, &question, &d->text))
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){d->text.data, d->text.size});
}

/* ---- GET /api/v1/machines ---- */

static bool read_level(struct span query, enum history_level *level)
{
    static const char *const names[HISTORY_LEVELS] = {"seconds", "tens", "minutes"};
    char text[16];
    int n = query_text(query, "history", text, sizeof(text));
    for (unsigned i = 0; i < HISTORY_LEVELS && n > 0; i++) {
        if (span_eq((struct span){text, (size_t)n}, span_of(names[i]))) {
            *level = (enum history_level)i;
            return true;
        }
    }
    return false;
}

static bool read_machine(struct span query, uint64_t *machine)
{
    char text[MACHINE_ID_BYTES];
    struct mesh_origin number;
    int n = query_text(query, "id", text, MACHINE_ID_BYTES - 1);
    char padded[MACHINE_ID_BYTES + 8];
    int padded_n = n == MACHINE_ID_BYTES - 1 ? snprintf(padded, sizeof(padded), "000000-%.*s", n, text) : 0;
    if (!status_id_read((struct span){padded, (size_t)padded_n}, &number))
        return false;
    *machine = number.boot;
    return true;
}

static void get_history(struct dashboard *d, struct visit *v, struct span query)
{
    enum history_level level;
    struct machines_row row;
    uint64_t machine, from_ms = 0;
    if (!read_level(query, &level) || !read_machine(query, &machine) ||
        !query_uint(query, "from_ms", UINT64_MAX / 2, &from_ms)) {
        finish_error(v, 400, "history is seconds, tens or minutes, and id a machine's");
        return;
    }
    if (!d->machines || !machines_find(d->machines, machine, reactor_now_ms(d->parts.reactor), &row)) {
        finish_error(v, 404, "there is no such machine");
        return;
    }
    msgpack_sbuffer_clear(&d->text);
    if (history_json(row.history, level, from_ms, &d->text))
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){d->text.data, d->text.size});
}

static void get_machines(struct dashboard *d, struct visit *v, struct span query)
{
    char text[16];
    if (query_text(query, "history", text, sizeof(text)) != 0) {
        get_history(d, v, query);
        return;
    }
    msgpack_sbuffer_clear(&d->text);
    int err = d->machines ? machines_json(d->machines, reactor_now_ms(d->parts.reactor), &d->text)
                          : msgpack_sbuffer_write(&d->text, "{\"machines\":[]}", 15);
    if (err)
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){d->text.data, d->text.size});
}

static void get_key(struct dashboard *d, struct visit *v, struct span query)
{
    struct span key = admin_key(d->admin);
    (void)query;
    msgpack_sbuffer_clear(&d->text);
    struct printer p = print_begin(&d->text);
    print_format(&p, "{\"ok\":true,\"key\":\"%.*s\",\"path\":", (int)key.n, key.p);
    print_quoted(&p, span_of(d->parts.config->path));
    print_span(&p, SPAN(",\"base_path\":"));
    print_quoted(&p, span_of(d->parts.config->base_path));
    print_format(&p, ",\"version\":\"%s\"}", STARLING_VERSION);
    if (print_end(&p))
        finish_error(v, 503, err_text(ERR_MEMORY));
    else
        visit_finish(v, 200, "application/json", (struct span){d->text.data, d->text.size});
}

/* ---- GET /api/v1/events ---- */

static void finish_watched(struct watched *w)
{
    struct dashboard *d = w->dashboard;
    struct watched **at = &d->watched;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    tail_stop(&w->tail);
    reactor_timer_cancel(d->parts.reactor, &w->timer);
    struct printer p = print_begin(&w->items);
    print_format(&p, "],\"skipped\":%" PRIu64 "}", w->skipped);
    if (print_end(&p))
        finish_error(w->visit, 503, err_text(ERR_MEMORY));
    else
        visit_finish(w->visit, 200, "application/json", (struct span){w->items.data, w->items.size});
    msgpack_sbuffer_destroy(&w->items);
    free(w);
}

static void on_watched_enough(struct timer *t)
{
    finish_watched(container_of(t, struct watched, timer));
}

static void on_events(void *user, struct span items, unsigned n, uint64_t skipped)
{
    struct watched *w = user;
    struct printer p = print_begin(&w->items);
    print_span(&p, w->n > 0 && n > 0 ? SPAN(",") : SPAN(""));
    print_span(&p, items);
    w->skipped += print_end(&p) ? skipped + n : skipped;
    w->n += n;
    if (w->n >= w->limit)
        reactor_timer_set(w->dashboard->parts.reactor, &w->timer, 0);
}

static struct watched *watch(struct dashboard *d, const struct tail_filter *filter)
{
    struct watched *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->dashboard = d;
    timer_init(&w->timer, on_watched_enough);
    msgpack_sbuffer_init(&w->items);
    w->tail = tail_start(d->tails, filter, on_events, w);
    if (!w->tail || msgpack_sbuffer_write(&w->items, "{\"ok\":true,\"events\":[", 21) != 0) {
        tail_stop(&w->tail);
        msgpack_sbuffer_destroy(&w->items);
        free(w);
        return NULL;
    }
    return w;
}

/* As many as pass within some time; sooner when there are enough of them. */
static void get_events(struct dashboard *d, struct visit *v, struct span query)
{
    char ns[TAIL_FILTER_BYTES], room[TAIL_FILTER_BYTES], event[TAIL_FILTER_BYTES];
    int ns_n = query_text(query, "ns", ns, sizeof(ns)),
        room_n = query_text(query, "room", room, sizeof(room));
    int event_n = query_text(query, "event", event, sizeof(event));
    uint64_t wait_ms = 1000, limit = 50;
    if (ns_n < 0 || room_n < 0 || event_n < 0 || !query_uint(query, "wait_ms", 10000, &wait_ms) ||
        !query_uint(query, "limit", 1000, &limit)) {
        finish_error(v, 400, "a parameter is too long, or not what it should be");
        return;
    }
    struct tail_filter filter = {{ns, (size_t)ns_n}, {room, (size_t)room_n}, {event, (size_t)event_n}};
    struct watched *w = watch(d, &filter);
    if (!w) {
        finish_error(v, 503, "too many watch events already");
        return;
    }
    w->visit = v;
    w->limit = limit;
    w->next = d->watched;
    d->watched = w;
    reactor_timer_set(d->parts.reactor, &w->timer, wait_ms);
}

static const struct {
    struct span path;
    void (*get)(struct dashboard *d, struct visit *v, struct span query);
} routes[] = {
    {SPAN("/api/v1/nodes"), get_nodes},       {SPAN("/api/v1/sessions"), get_sessions},
    {SPAN("/api/v1/rooms"), get_rooms},       {SPAN("/api/v1/ends"), get_ends},
    {SPAN("/api/v1/machines"), get_machines}, {SPAN("/api/v1/events"), get_events},
    {SPAN("/api/v1/agents"), get_agents},     {SPAN("/api/v1/key"), get_key},
};

bool dashboard_has_path(struct span path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (span_eq(path, routes[i].path))
            return true;
    return false;
}

void dashboard_run_get(struct visit *v)
{
    const struct web *web = visit_user(v);
    if (web->stopping || !web->dashboard) {
        finish_error(v, 503, "the node stops");
        return;
    }
    struct span target = visit_target(v);
    const char *mark = memchr(target.p, '?', target.n);
    struct span path = {target.p, mark ? (size_t)(mark - target.p) : target.n};
    struct span query = {target.p + path.n, target.n - path.n};
    path = web_below(web, path);
    if (query.n > 0)
        query = (struct span){query.p + 1, query.n - 1};
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (span_eq(path, routes[i].path)) {
            routes[i].get(web->dashboard, v, query);
            return;
        }
    }
    finish_error(v, 404, "there is nothing here"); /* a path that is written with escapes */
}
