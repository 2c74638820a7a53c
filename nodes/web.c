#include "web.h"
#include "api.h"
#include "bundle.h"
#include "dashboard.h"
#include "err.h"
#include "json.h"
#include "limit.h"
#include "persist.h"
#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>

#define JSON_TYPE    "application/json"
#define TEXT_TYPE    "text/plain; charset=UTF-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static bool is_read(struct visit *v)
{
    struct span method = visit_method(v);
    return span_eq(method, SPAN("GET")) || span_eq(method, SPAN("HEAD"));
}

static size_t error_text(char *dst, size_t cap, const char *error)
{
    int n = snprintf(dst, cap, "{\"ok\":false,\"error\":\"%s\"}\n", error);
    return n < (int)cap ? (size_t)n : cap - 1;
}

/* error has nothing to escape. */
static void answer_error(struct visit *v, int status, const char *error, const char *headers)
{
    char text[256];
    visit_answer(v, status, JSON_TYPE, headers, (struct span){text, error_text(text, sizeof(text), error)});
}

/* ---- the client's files ---- */

static bool etag_matches(struct span header, const char *etag)
{
    return header.n && (span_eq(header, SPAN("*")) || memmem(header.p, header.n, etag, strlen(etag)));
}

/* gzip in the list, unless with a quality of zero. */
static bool accepts_gzip(struct span header)
{
    const char *p = memmem(header.p, header.n, "gzip", 4), *end = header.p + header.n;
    if (!p)
        return false;
    const char *item_end = memchr(p, ',', (size_t)(end - p));
    const char *q = memmem(p, (size_t)((item_end ? item_end : end) - p), "q=", 2);
    for (q = q ? q + 2 : NULL; q && q < end && *q != ',' && *q != ' '; q++)
        if (*q >= '1' && *q <= '9')
            return true;
    return q == NULL;
}

/* etag: of the file as it is. */
static void answer_file(struct visit *v, const struct bundle_file *file, const char *etag, const char *more)
{
    char headers[1024 + CORS_HEADERS_MAX], tag[96];
    bool gzip = file->gzip && accepts_gzip(visit_header(v, "Accept-Encoding"));
    snprintf(tag, sizeof(tag), "\"%s%s\"", etag, gzip ? "-gzip" : "");
    snprintf(headers, sizeof(headers),
             "ETag: %s\r\nVary: Accept-Encoding\r\nX-Content-Type-Options: nosniff\r\n%s%s", tag,
             gzip ? "Content-Encoding: gzip\r\n" : "", more);
    if (!is_read(v)) {
        answer_error(v, 405, "files can only be read", "Allow: GET, HEAD\r\n");
    } else if (etag_matches(visit_header(v, "If-None-Match"), tag)) {
        visit_answer_unmodified(v, headers);
    } else {
        struct span body = gzip ? (struct span){(const char *)file->gzip, file->gzip_n}
                                : (struct span){(const char *)file->data, file->n};
        visit_answer_static(v, 200, file->content_type, headers, body);
    }
}

static void answer_bundle(struct visit *v, const struct web *web, const struct bundle_file *file)
{
    char more[64 + CORS_HEADERS_MAX], cors[CORS_HEADERS_MAX];
    cors_headers(&web->cors, visit_header(v, "Origin"), cors);
    snprintf(more, sizeof(more), "Cache-Control: public, max-age=0\r\n%s", cors);
    answer_file(v, file, bundle_version, more);
}

/* ---- the dashboard ---- */

/* Nothing but what this node serves itself, no script or style inside of the page, and the page in no frame. */
#define PAGE_HEADERS                                                                                         \
    "Cache-Control: no-cache\r\n"                                                                            \
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "      \
    "data:; "                                                                                                \
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "         \
    "'none'\r\n"                                                                                             \
    "Referrer-Policy: no-referrer\r\n"

struct span web_below(const struct web *web, struct span path)
{
    size_t n = strlen(web->base_path) - 1;
    if (path.n <= n || memcmp(path.p, web->base_path, n + 1) != 0)
        return path;
    return (struct span){path.p + n, path.n - n};
}

/* False: there is no such file. */
static bool answer_page(struct visit *v, struct span path)
{
    const struct bundle_file *file = bundle_find(span_eq(path, SPAN("/")) ? SPAN("/index.html") : path);
    if (file)
        answer_file(v, file, file->etag, PAGE_HEADERS);
    return file != NULL;
}

/* "/starling" is written for "/starling/". */
static bool answer_slash(struct visit *v, const struct web *web, struct span path)
{
    char headers[512];
    size_t n = strlen(web->base_path);
    if (n < 2 || path.n != n - 1 || memcmp(path.p, web->base_path, n - 1) != 0)
        return false;
    snprintf(headers, sizeof(headers), "Location: %s\r\n", web->base_path);
    answer_error(v, 308, "the path ends with a slash", headers);
    return true;
}

/* ---- state ---- */

static void answer_health(struct visit *v, struct web *web)
{
    (void)web;
    visit_answer(v, 200, JSON_TYPE, "Cache-Control: no-store\r\n", SPAN("{\"ok\":true}\n"));
}

static void answer_ready(struct visit *v, struct web *web)
{
    bool ready = atomic_load(&web->ready), draining = atomic_load(&web->draining);
    int store = web->store ? atomic_load(web->store) : PERSIST_NONE;
    visit_answer(v, ready ? 200 : 503, JSON_TYPE, "Cache-Control: no-store\r\n",
                 !ready && draining ? SPAN("{\"ok\":false,\"state\":\"draining\"}\n")
                 : !ready           ? SPAN("{\"ok\":false,\"state\":\"stopping\"}\n")
                 : store == PERSIST_DOWN
                     ? SPAN("{\"ok\":true,\"state\":\"ready\",\"degraded\":\"no store\"}\n")
                 : store == PERSIST_REFUSES
                     ? SPAN("{\"ok\":true,\"state\":\"ready\",\"degraded\":\"the store refuses\"}\n")
                     : SPAN("{\"ok\":true,\"state\":\"ready\"}\n"));
}

static void answer_metrics(struct visit *v, struct web *web)
{
    size_t n;
    char *text = metrics_render(web->metrics, &n);
    if (text)
        visit_answer(v, 200, METRICS_TYPE, "", (struct span){text, n});
    else
        answer_error(v, 503, err_text(ERR_MEMORY), "");
    free(text);
}

/* ---- POST /api/v1/emit ---- */

/* A page of another site must not emit through its visitor's browser: its request names its origin. */
static bool is_foreign(struct visit *v, const struct web *web)
{
    struct span origin = visit_header(v, "Origin"), host = visit_header(v, "Host");
    if (origin.n == 0)
        return false;
    const char *slashes = memmem(origin.p, origin.n, "://", 3);
    size_t skip = slashes ? (size_t)(slashes + 3 - origin.p) : origin.n;
    if (span_eq((struct span){origin.p + skip, origin.n - skip}, host))
        return false;
    return !cors_allows(&web->cors, origin);
}

static void answer_emit(struct visit *v, struct web *web)
{
    struct span body = visit_body(v);
    if (!span_eq(visit_method(v), SPAN("POST"))) {
        answer_error(v, 405, "emit takes a POST", "Allow: POST\r\n");
        return;
    }
    if (is_foreign(v, web)) {
        answer_error(v, 403, "this origin is not allowed", "");
        return;
    }
    if (body.n == 0)
        answer_error(v, 400, "the body is empty", "");
    else if (!utf8_valid(body.p, body.n))
        answer_error(v, 400, err_text(ERR_UTF8), "");
    else if (json_check(body, LIMIT_JSON_DEPTH))
        answer_error(v, 400, err_text(json_check(body, LIMIT_JSON_DEPTH)), "");
    else
        visit_defer(v, api_run_emit);
}

/* ---- routes ---- */

void web_answer(struct visit *v, void *user)
{
    static const struct {
        struct span path;
        void (*answer)(struct visit *v, struct web *web);
    } routes[] = {
        {SPAN("/healthz"), answer_health},
        {SPAN("/readyz"), answer_ready},
        {SPAN("/metrics"), answer_metrics},
        {SPAN("/api/v1/emit"), answer_emit},
    };
    struct web *web = user;
    struct span path = visit_path(v);
    size_t prefix_n = strlen(web->path);
    if (path.n >= prefix_n && memcmp(path.p, web->path, prefix_n) == 0) {
        const struct bundle_file *file = bundle_find((struct span){path.p + prefix_n, path.n - prefix_n});
        if (file && file->name[0] != '/')
            answer_bundle(v, web, file);
        else
            visit_transport(v);
        return;
    }
    if (answer_slash(v, web, path))
        return;
    path = web_below(web, path);
    if (answer_page(v, path))
        return;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!span_eq(path, routes[i].path))
            continue;
        if (routes[i].answer != answer_emit && !is_read(v))
            answer_error(v, 405, "this can only be read", "Allow: GET, HEAD\r\n");
        else
            routes[i].answer(v, web);
        return;
    }
    if (!dashboard_has_path(path))
        answer_error(v, 404, "there is nothing here", "");
    else if (is_read(v))
        visit_defer(v, dashboard_run_get);
    else
        answer_error(v, 405, "this can only be read", "Allow: GET, HEAD\r\n");
}
