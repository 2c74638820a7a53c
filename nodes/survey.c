/* On the mesh, as TELL of topic MESH_TOPIC_DASHBOARD: [1, number, question] and
 *  [2, number, total, more, [[key, json], …]]. */
#include "survey.h"
#include "container.h"
#include "err.h"
#include "json.h"
#include "limit.h"
#include "mp.h"
#include "utf8.h"
#include <stdlib.h>

enum { ASK = 1, ANSWER = 2, UNDER_WAY_MAX = 64, WAIT_MS = 1500 };

struct survey {
    struct surveys *all;
    struct survey *next;
    uint64_t number, total;
    unsigned limit, n, n_asked;
    bool has_more;
    struct mesh_origin asked[LIMIT_STATUS_LINKS]; /* that have not answered yet */
    struct timer timer;
    void (*done)(void *user, const struct survey_result *result);
    void *user;
    struct lists_row row[LISTS_ROWS_MAX]; /* their json is malloc()ed */
};

struct surveys {
    struct reactor *reactor;
    struct cluster *cluster;
    struct lists *lists;
    struct survey *first;
    unsigned n;
    uint64_t number;
    struct lists_answer answer; /* large: one is enough */
    msgpack_sbuffer buffer;
};

struct surveys *surveys_new(struct reactor *r, struct cluster *cluster, struct lists *lists)
{
    struct surveys *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->reactor = r;
    s->cluster = cluster;
    s->lists = lists;
    msgpack_sbuffer_init(&s->buffer);
    msgpack_sbuffer_init(&s->answer.text);
    return s;
}

static void free_survey(struct survey *v)
{
    struct survey **at = &v->all->first;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    v->all->n--;
    reactor_timer_cancel(v->all->reactor, &v->timer);
    for (unsigned i = 0; i < v->n; i++)
        free((void *)(uintptr_t)v->row[i].json.p);
    free(v);
}

/* ---- asking ---- */

static void finish(struct survey *v)
{
    struct survey_result result = {
        .total = v->total, .n = v->n, .unanswered = v->n_asked, .has_more = v->has_more, .row = v->row};
    v->done(v->user, &result);
    free_survey(v);
}

void surveys_stop(struct surveys *s)
{
    while (s->first)
        finish(s->first);
}

void surveys_free(struct surveys **s)
{
    if (!*s)
        return;
    surveys_stop(*s);
    msgpack_sbuffer_destroy(&(*s)->buffer);
    msgpack_sbuffer_destroy(&(*s)->answer.text);
    free(*s);
    *s = NULL;
}

static void on_timeout(struct timer *t)
{
    finish(container_of(t, struct survey, timer));
}

static int compare(const struct lists_row *a, const struct lists_row *b)
{
    int order = memcmp(a->key, b->key, a->key_n < b->key_n ? a->key_n : b->key_n);
    return order ? order : a->key_n - b->key_n;
}

/* Copies the row, when it is among the first. */
static void merge(struct survey *v, const struct lists_row *row)
{
    unsigned i;
    if (v->n == v->limit && (v->n == 0 || compare(row, &v->row[v->n - 1]) >= 0)) {
        v->has_more = true;
        return;
    }
    char *copy = malloc(row->json.n);
    if (!copy)
        return;
    memcpy(copy, row->json.p, row->json.n);
    if (v->n == v->limit) {
        free((void *)(uintptr_t)v->row[v->n - 1].json.p);
        v->has_more = true;
    } else {
        v->n++;
    }
    for (i = v->n - 1; i > 0 && compare(row, &v->row[i - 1]) < 0; i--)
        v->row[i] = v->row[i - 1];
    v->row[i] = *row;
    v->row[i].json = (struct span){copy, row->json.n};
}

static void ask_own(struct surveys *s, struct survey *v, struct span question)
{
    msgpack_sbuffer_clear(&s->answer.text);
    if (lists_ask(s->lists, question, &s->answer))
        return;
    v->total += s->answer.total;
    v->has_more = s->answer.has_more;
    for (unsigned i = 0; i < s->answer.n; i++)
        merge(v, &s->answer.row[i]);
}

static void ask_others(struct surveys *s, struct survey *v, struct span question)
{
    struct peers_view peers[LIMIT_STATUS_LINKS];
    unsigned n = s->cluster ? peers_views(cluster_peers(s->cluster), peers, LIMIT_STATUS_LINKS) : 0;
    struct mp_writer w;
    msgpack_sbuffer_clear(&s->buffer);
    mp_begin(&w, &s->buffer);
    mp_put_array(&w, 3);
    mp_put_uint(&w, ASK);
    mp_put_uint(&w, v->number);
    mp_put_text(&w, question, UINT32_MAX);
    if (mp_end(&w))
        return;
    for (unsigned i = 0; i < n; i++)
        if (cluster_tell(s->cluster, peers[i].origin, MESH_TOPIC_DASHBOARD,
                         (struct span){s->buffer.data, s->buffer.size}) == 0)
            v->asked[v->n_asked++] = peers[i].origin;
}

int surveys_ask(struct surveys *s, struct span question, unsigned limit,
                void (*done)(void *user, const struct survey_result *result), void *user)
{
    struct survey *v = s->n < UNDER_WAY_MAX ? calloc(1, sizeof(*v)) : NULL;
    if (!v)
        return s->n < UNDER_WAY_MAX ? ERR_MEMORY : ERR_LIMIT;
    *v = (struct survey){
        .all = s, .next = s->first, .number = ++s->number, .limit = limit, .done = done, .user = user};
    if (v->limit > LISTS_ROWS_MAX)
        v->limit = LISTS_ROWS_MAX;
    s->first = v;
    s->n++;
    timer_init(&v->timer, on_timeout);
    ask_own(s, v, question);
    ask_others(s, v, question);
    if (v->n_asked == 0)
        finish(v);
    else
        reactor_timer_set(s->reactor, &v->timer, WAIT_MS);
    return 0;
}

/* ---- messages ---- */

static void answer(struct surveys *s, struct mesh_origin to, uint64_t number, struct span question)
{
    struct mp_writer w;
    if (!s->cluster || !utf8_valid(question.p, question.n) || json_check(question, LIMIT_JSON_DEPTH) != 0)
        return;
    msgpack_sbuffer_clear(&s->answer.text);
    if (lists_ask(s->lists, question, &s->answer))
        return;
    msgpack_sbuffer_clear(&s->buffer);
    mp_begin(&w, &s->buffer);
    mp_put_array(&w, 5);
    mp_put_uint(&w, ANSWER);
    mp_put_uint(&w, number);
    mp_put_uint(&w, s->answer.total);
    mp_put_bool(&w, s->answer.has_more);
    mp_put_array(&w, s->answer.n);
    for (unsigned i = 0; i < s->answer.n; i++) {
        mp_put_array(&w, 2);
        mp_put_bin(&w, (struct span){s->answer.row[i].key, s->answer.row[i].key_n});
        mp_put_text(&w, s->answer.row[i].json, UINT32_MAX);
    }
    if (mp_end(&w) == 0)
        cluster_tell(s->cluster, to, MESH_TOPIC_DASHBOARD, (struct span){s->buffer.data, s->buffer.size});
}

static bool same(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

/* False: it was not asked, or has answered. */
static bool take_name(struct survey *v, struct mesh_origin from)
{
    for (unsigned i = 0; i < v->n_asked; i++) {
        if (same(v->asked[i], from)) {
            v->asked[i] = v->asked[--v->n_asked];
            return true;
        }
    }
    return false;
}

static struct survey *find(struct surveys *s, uint64_t number)
{
    struct survey *v = s->first;
    while (v && v->number != number)
        v = v->next;
    return v;
}

static void take_rows(struct survey *v, struct mp_cursor *c)
{
    struct lists_row row;
    unsigned n = mp_get_count(c, LISTS_ROWS_MAX);
    for (unsigned i = 0; i < n && !c->bad; i++) {
        uint64_t elements = mp_get_array(c);
        struct span key = mp_get_bin(c);
        row.json = mp_get_text(c, UINT32_MAX);
        mp_skip(c, elements >= 2 ? elements - 2 : mp_refuse(c));
        if (c->bad || key.n > LISTS_KEY_BYTES || !utf8_valid(row.json.p, row.json.n) ||
            json_check(row.json, LIMIT_JSON_DEPTH) != 0)
            continue;
        memcpy(row.key, key.p, key.n);
        row.key_n = (uint8_t)key.n;
        merge(v, &row);
    }
}

void surveys_take(struct surveys *s, struct mesh_origin from, struct span bytes)
{
    struct mp_cursor c = mp_open(bytes);
    uint64_t n = mp_get_array(&c), kind = mp_get_uint(&c), number = mp_get_uint(&c);
    if (kind == ASK && n >= 3) {
        struct span question = mp_get_text(&c, LIMIT_API_BODY_BYTES);
        if (!c.bad)
            answer(s, from, number, question);
    } else if (kind == ANSWER && n >= 5) {
        struct survey *v = find(s, number);
        if (!v || !take_name(v, from))
            return;
        v->total += mp_get_uint(&c);
        v->has_more |= mp_get_bool(&c);
        take_rows(v, &c);
        if (v->n_asked == 0)
            finish(v);
    }
}

void surveys_on_dead(struct surveys *s, struct mesh_origin from)
{
    struct survey *v, *next;
    for (v = s->first; v; v = next) {
        next = v->next;
        if (take_name(v, from) && v->n_asked == 0)
            finish(v);
    }
}
