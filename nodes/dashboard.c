#include "dashboard.h"
#include "err.h"
#include "persist.h"
#include "query.h"
#include "statuses.h"
#include <stdio.h>
#include <stdlib.h>

struct dashboard {
    struct dashboard_parts parts;
    struct statuses *statuses;
    msgpack_sbuffer text; /* of one answer */
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
                          : store == PERSIST_DOWN ? STATUS_STORE_DOWN
                                                  : STATUS_STORE_NONE;
}

struct dashboard *dashboard_new(const struct dashboard_parts *parts)
{
    struct dashboard *d = calloc(1, sizeof(*d));
    const struct config *c = parts->config;
    if (!d)
        return NULL;
    d->parts = *parts;
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
                                   .user = d,
                               });
    if (!d->statuses)
        dashboard_free(&d);
    return d;
}

void dashboard_free(struct dashboard **dp)
{
    struct dashboard *d = *dp;
    if (!d)
        return;
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

static const struct {
    struct span path;
    void (*get)(struct dashboard *d, struct visit *v, struct span query);
} routes[] = {
    {SPAN("/api/v1/nodes"), get_nodes},
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
