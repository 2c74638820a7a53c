#include "api.h"
#include "buffer.h"
#include "bus.h"
#include "cluster.h"
#include "collect.h"
#include "container.h"
#include "err.h"
#include "json.h"
#include "mirror.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    WAITS_MAX = 10000,
    ACK_TIMEOUT_MAX_MS = 60000,
    ACKS_MAX_BYTES = 16 * 1024 * 1024, /* of one answer; what comes beyond counts as missing */
    CONFIRM_LOOK_MS = 10,
    CONFIRM_TIMEOUT_MS = 5000, /* a peer that does not confirm is dead long before */
};

/* A request whose answer others have to make possible. */
struct api_wait {
    struct web *web;
    struct api_wait *prev, *next;
    struct visit *visit;
    uint64_t seq;
    bool is_confirm;       /* of the mesh or the mirror; otherwise acknowledgements of clients */
    struct mirror *mirror; /* that is to confirm; NULL: the mesh */
    struct collect ack;
    struct buffer acks; /* JSON arrays with commas between them */
    uint32_t lost;
    struct timer look;
    uint64_t until_ms;
};

static void finish_error(struct visit *v, int status, const char *error)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "{\"ok\":false,\"error\":\"%s\"}\n", error);
    visit_finish(v, status, "application/json", (struct span){text, (size_t)n});
}

static void finish_ok(struct visit *v, const struct web *web, uint64_t seq, const struct api_wait *wait)
{
    size_t cap = (wait ? wait->acks.n : 0) + 256;
    char *text = malloc(cap);
    if (!text) {
        finish_error(v, 503, err_text(ERR_MEMORY));
        return;
    }
    int n = snprintf(text, cap, "{\"ok\":true,\"id\":\"%s:%llu\"", web->hub->options.origin,
                     (unsigned long long)seq);
    if (wait && !wait->is_confirm)
        n += snprintf(text + n, cap - (size_t)n, ",\"acks\":[%.*s],\"missing\":%llu", (int)wait->acks.n,
                      wait->acks.n ? wait->acks.p : "",
                      (unsigned long long)(wait->ack.expected - wait->ack.answered + wait->lost));
    n += snprintf(text + n, cap - (size_t)n, "}\n");
    visit_finish(v, 200, "application/json", (struct span){text, (size_t)n});
    free(text);
}

/* ---- waiting ---- */

static struct api_wait *wait_new(struct web *web, struct visit *v)
{
    struct api_wait *w = web->n_waits < WAITS_MAX ? calloc(1, sizeof(*w)) : NULL;
    if (!w)
        return NULL;
    w->web = web;
    w->visit = v;
    w->next = web->waits;
    if (w->next)
        w->next->prev = w;
    web->waits = w;
    web->n_waits++;
    return w;
}

static void wait_free(struct api_wait *w)
{
    struct web *web = w->web;
    if (w->prev)
        w->prev->next = w->next;
    else
        web->waits = w->next;
    if (w->next)
        w->next->prev = w->prev;
    web->n_waits--;
    buffer_reset(&w->acks);
    free(w);
}

void api_stop(struct web *web)
{
    web->stopping = true;
    while (web->waits) {
        struct api_wait *w = web->waits;
        if (w->is_confirm)
            reactor_timer_cancel(web->reactor, &w->look);
        else
            collect_cancel(&w->ack);
        finish_error(w->visit, 503, "the node stops");
        wait_free(w);
    }
}

static void on_ack(struct collect *ack, struct span sid, struct span args, const struct span *attachments,
                   unsigned n_attachments)
{
    struct api_wait *w = container_of(ack, struct api_wait, ack);
    struct buffer *acks = &w->acks;
    size_t before = acks->n;
    (void)sid, (void)attachments, (void)n_attachments;
    if (before + args.n > ACKS_MAX_BYTES || buffer_append(acks, before ? ",[" : "[", before ? 2 : 1) ||
        buffer_append(acks, args.p, args.n) || buffer_append(acks, "]", 1)) {
        acks->n = before;
        w->lost++;
    }
}

static void on_acks_done(struct collect *ack)
{
    struct api_wait *w = container_of(ack, struct api_wait, ack);
    finish_ok(w->visit, w->web, w->seq, w);
    wait_free(w);
}

static void on_look(struct timer *t)
{
    struct api_wait *w = container_of(t, struct api_wait, look);
    struct reactor *r = w->web->reactor;
    if (w->mirror ? mirror_has(w->mirror, w->seq) : cluster_is_confirmed(w->web->hub->cluster, w->seq))
        finish_ok(w->visit, w->web, w->seq, w);
    else if (reactor_now_ms(r) >= w->until_ms)
        finish_error(w->visit, 504,
                     w->mirror ? "sent, but not confirmed by the mirror in time"
                               : "sent, but not confirmed by all nodes in time");
    else {
        reactor_timer_set(r, t, CONFIRM_LOOK_MS);
        return;
    }
    wait_free(w);
}

/* ---- POST /api/v1/emit ---- */

/* What only the API's emits have. */
struct rest {
    struct name_list ns;
    uint64_t ack_ms;
    bool confirm_mesh, confirm_mirror;
};

/* NULL, or what is wrong. */
static const char *read_rest(struct span body, struct rest *rest, struct cluster *cluster)
{
    struct span confirm = json_get(body, "confirm"), ack = json_get(body, "ack");
    const char *wrong = name_list_read(&rest->ns, json_get(body, "ns"));
    rest->ack_ms = 0;
    rest->confirm_mesh = span_eq(confirm, SPAN("\"mesh\""));
    if (wrong || rest->ns.n > 1 || (rest->ns.n == 1 && rest->ns.name[0].p[0] != '/'))
        return "ns is a namespace that begins with /";
    if (rest->ns.n == 1 && span_eq(rest->ns.name[0], SPAN(HUB_ADMIN)))
        return "ns: that namespace is the dashboard's";
    rest->confirm_mirror = span_eq(confirm, SPAN("\"mirror\""));
    if (rest->confirm_mirror && !(cluster && cluster_mirror(cluster)))
        return "confirm: this node has no mirror";
    if (confirm.n && !rest->confirm_mesh && !rest->confirm_mirror && !span_eq(confirm, SPAN("\"none\"")))
        return "confirm is none, mesh or mirror";
    if (ack.n && (!json_uint(ack, ACK_TIMEOUT_MAX_MS, &rest->ack_ms) || rest->ack_ms == 0))
        return "ack is a time from 1 to 60000 ms";
    if (ack.n && json_is_true(json_get(body, "volatile")))
        return "ack and volatile do not go together";
    if (ack.n && (rest->confirm_mesh || rest->confirm_mirror))
        return "ack and confirm do not go together";
    return NULL;
}

static void wait_for_others(struct api_wait *w, uint64_t seq, bool mirror)
{
    struct reactor *r = w->web->reactor;
    w->is_confirm = true;
    w->mirror = mirror ? cluster_mirror(w->web->hub->cluster) : NULL;
    if (w->mirror)
        mirror_hurry(w->mirror);
    w->seq = seq;
    w->until_ms = reactor_now_ms(r) + CONFIRM_TIMEOUT_MS;
    timer_init(&w->look, on_look);
    reactor_timer_set(r, &w->look, CONFIRM_LOOK_MS);
}

void api_run_emit(struct visit *v)
{
    static struct emit_request r; /* large; the reactor's thread only */
    static struct rest rest;
    struct web *web = visit_user(v);
    struct hub *h = web->hub;
    if (web->stopping || h->engine->congested) {
        finish_error(v, 503, web->stopping ? "the node stops" : err_text(ERR_BUSY));
        return;
    }
    const char *wrong = emit_request_read(&r, visit_body(v));
    if (!wrong)
        wrong = read_rest(visit_body(v), &rest, h->cluster);
    if (wrong) {
        finish_error(v, 400, wrong);
        return;
    }
    bool waits = rest.ack_ms || rest.confirm_mirror || (rest.confirm_mesh && h->cluster);
    struct api_wait *w = waits ? wait_new(web, v) : NULL;
    if (waits && !w) {
        finish_error(v, 503, "too many requests wait");
        return;
    }
    r.emit.nsp = rest.ns.n ? rest.ns.name[0] : SPAN("/");
    if (rest.ack_ms) {
        w->ack.on_ack = on_ack;
        w->ack.on_done = on_acks_done;
    }
    uint64_t seq = 0;
    int err = rest.ack_ms ? collect_emit(h->collects, &w->ack, &r.emit, (uint32_t)rest.ack_ms)
                          : hub_emit(h, &r.emit, &seq);
    if (err) {
        if (w)
            wait_free(w);
        finish_error(v, 503, err_text(err));
    } else if (!w) {
        finish_ok(v, web, seq, NULL);
    } else if (rest.ack_ms) {
        w->seq = w->ack.seq;
    } else {
        wait_for_others(w, seq, rest.confirm_mirror);
    }
}
