#include "web.h"
#include "ack.h"
#include "buffer.h"
#include "bundle.h"
#include "bus.h"
#include "container.h"
#include "err.h"
#include "json.h"
#include "limit.h"
#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>

#define JSON_TYPE    "application/json"
#define TEXT_TYPE    "text/plain; charset=UTF-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum {
    COLLECTIONS_MAX = 10000,
    ACK_TIMEOUT_MAX_MS = 60000,
    ACKS_MAX_BYTES = 16 * 1024 * 1024, /* of one answer; what comes beyond counts as missing */
};

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

static void finish_error(struct visit *v, int status, const char *error)
{
    char text[256];
    visit_finish(v, status, JSON_TYPE, (struct span){text, error_text(text, sizeof(text), error)});
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

static void answer_bundle(struct visit *v, const struct web *web, const struct bundle_file *file)
{
    char headers[512 + CORS_HEADERS_MAX], etag[64], cors[CORS_HEADERS_MAX];
    bool gzip = file->gzip && accepts_gzip(visit_header(v, "Accept-Encoding"));
    snprintf(etag, sizeof(etag), "\"%s%s\"", bundle_version, gzip ? "-gzip" : "");
    cors_headers(&web->cors, visit_header(v, "Origin"), cors);
    snprintf(headers, sizeof(headers),
             "ETag: %s\r\nCache-Control: public, max-age=0\r\nVary: Accept-Encoding\r\n"
             "X-Content-Type-Options: nosniff\r\n%s%s",
             etag, gzip ? "Content-Encoding: gzip\r\n" : "", cors);
    if (!is_read(v)) {
        answer_error(v, 405, "the client's files can only be read", "Allow: GET, HEAD\r\n");
    } else if (etag_matches(visit_header(v, "If-None-Match"), etag)) {
        visit_answer_unmodified(v, headers);
    } else {
        struct span body = gzip ? (struct span){(const char *)file->gzip, file->gzip_n}
                                : (struct span){(const char *)file->data, file->n};
        visit_answer_static(v, 200, file->content_type, headers, body);
    }
}

/* ---- state ---- */

static void answer_health(struct visit *v, struct web *web)
{
    (void)web;
    visit_answer(v, 200, JSON_TYPE, "Cache-Control: no-store\r\n", SPAN("{\"ok\":true}\n"));
}

static void answer_ready(struct visit *v, struct web *web)
{
    bool ready = atomic_load(&web->ready);
    visit_answer(v, ready ? 200 : 503, JSON_TYPE, "Cache-Control: no-store\r\n",
                 ready ? SPAN("{\"ok\":true,\"state\":\"ready\"}\n")
                       : SPAN("{\"ok\":false,\"state\":\"stopping\"}\n"));
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

/* Acknowledgements being collected for one request. */
struct collection {
    struct ack_wait wait;
    struct web *web;
    struct collection *prev, *next;
    struct visit *visit;
    struct buffer acks; /* JSON arrays with commas between them */
    uint32_t lost;
    char id[96];
};

static void on_ack(struct ack_wait *w, struct socket *from, struct span args, const struct span *attachments,
                   unsigned n_attachments)
{
    struct collection *k = container_of(w, struct collection, wait);
    struct buffer *acks = &k->acks;
    size_t before = acks->n;
    (void)from, (void)attachments, (void)n_attachments;
    if (before + args.n > ACKS_MAX_BYTES || buffer_append(acks, before ? ",[" : "[", before ? 2 : 1) ||
        buffer_append(acks, args.p, args.n) || buffer_append(acks, "]", 1)) {
        acks->n = before;
        k->lost++;
    }
}

static void collection_free(struct collection *k)
{
    struct web *web = k->web;
    if (k->prev)
        k->prev->next = k->next;
    else
        web->collections = k->next;
    if (k->next)
        k->next->prev = k->prev;
    web->n_collections--;
    buffer_reset(&k->acks);
    free(k);
}

static void on_acks_done(struct ack_wait *w)
{
    struct collection *k = container_of(w, struct collection, wait);
    size_t cap = k->acks.n + 256;
    char *text = malloc(cap);
    if (text) {
        int n = snprintf(text, cap, "{\"ok\":true,\"id\":\"%s\",\"acks\":[%.*s],\"missing\":%u}\n", k->id,
                         (int)k->acks.n, k->acks.n ? k->acks.p : "", w->missing + k->lost);
        visit_finish(k->visit, 200, JSON_TYPE, (struct span){text, (size_t)n});
    } else {
        finish_error(k->visit, 503, err_text(ERR_MEMORY));
    }
    free(text);
    collection_free(k);
}

void web_stop(struct web *web)
{
    while (web->collections) {
        struct collection *k = web->collections;
        ack_wait_cancel(&k->wait);
        finish_error(k->visit, 503, "the node stops");
        collection_free(k);
    }
}

static struct collection *collection_start(struct web *web, struct visit *v, uint32_t timeout_ms)
{
    struct collection *k = web->n_collections < COLLECTIONS_MAX ? calloc(1, sizeof(*k)) : NULL;
    if (!k)
        return NULL;
    k->web = web;
    k->next = web->collections;
    if (k->next)
        k->next->prev = k;
    web->collections = k;
    web->n_collections++;
    k->visit = v;
    k->wait.on_ack = on_ack;
    k->wait.on_done = on_acks_done;
    ack_wait_start(&k->wait, web->reactor, timeout_ms);
    return k;
}

/* What only the API's emits have. NULL, or what is wrong. */
static const char *read_rest(struct span body, struct name_list *ns, uint64_t *ack_ms)
{
    struct span confirm = json_get(body, "confirm"), ack = json_get(body, "ack");
    *ack_ms = 0;
    const char *wrong = name_list_read(ns, json_get(body, "ns"));
    if (wrong || ns->n > 1 || (ns->n == 1 && ns->name[0].p[0] != '/'))
        return "ns is a namespace that begins with /";
    /* A mirror is not there to confirm. */
    if (confirm.n && !span_eq(confirm, SPAN("\"none\"")) && !span_eq(confirm, SPAN("\"mesh\"")))
        return span_eq(confirm, SPAN("\"mirror\"")) ? "confirm: this node has no mirror"
                                                    : "confirm is none, mesh or mirror";
    if (ack.n && (!json_uint(ack, ACK_TIMEOUT_MAX_MS, ack_ms) || *ack_ms == 0))
        return "ack is a time from 1 to 60000 ms";
    return NULL;
}

static void run_emit(struct visit *v)
{
    static struct emit_request r; /* large; the reactor's thread only */
    static struct name_list ns;
    struct web *web = visit_user(v);
    struct collection *k = NULL;
    char text[192];
    uint64_t ack_ms, seq;
    const char *wrong = emit_request_read(&r, visit_body(v));
    if (!wrong)
        wrong = read_rest(visit_body(v), &ns, &ack_ms);
    if (wrong) {
        finish_error(v, 400, wrong);
        return;
    }
    r.emit.nsp = ns.n ? ns.name[0] : SPAN("/");
    if (ack_ms) {
        k = collection_start(web, v, (uint32_t)ack_ms);
        if (!k) {
            finish_error(v, 503, "too many requests wait for acknowledgements");
            return;
        }
        r.emit.wait = &k->wait;
    }
    int err = hub_emit(web->hub, &r.emit, &seq);
    if (err) {
        if (k) {
            ack_wait_cancel(&k->wait);
            collection_free(k);
        }
        finish_error(v, 503, err_text(err));
        return;
    }
    int n = snprintf(text, sizeof(text), "%s:%llu", web->hub->options.origin, (unsigned long long)seq);
    if (k) {
        memcpy(k->id, text, (size_t)n + 1 < sizeof(k->id) ? (size_t)n + 1 : sizeof(k->id));
        return;
    }
    char answer[256];
    n = snprintf(answer, sizeof(answer), "{\"ok\":true,\"id\":\"%s\"}\n", text);
    visit_finish(v, 200, JSON_TYPE, (struct span){answer, (size_t)n});
}

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
        visit_defer(v, run_emit);
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
        if (file)
            answer_bundle(v, web, file);
        else
            visit_transport(v);
        return;
    }
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!span_eq(path, routes[i].path))
            continue;
        if (routes[i].answer != answer_emit && !is_read(v))
            answer_error(v, 405, "this can only be read", "Allow: GET, HEAD\r\n");
        else
            routes[i].answer(v, web);
        return;
    }
    answer_error(v, 404, "there is nothing here", "");
}
