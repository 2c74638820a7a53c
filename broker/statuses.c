/* Nodes are few, and looked for a few times a second each: an array serves. A row is dropped when its node has been dead
 * for as long as its trail is, or when the same node has started again: that one takes the trail over. */
#include "statuses.h"
#include "container.h"
#include "err.h"
#include "print.h"
#include "trail.h"
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { SECOND_MS = 1000, ROWS_MAX = LIMIT_STATUS_LINKS + 1 };

struct row {
    struct mesh_origin origin;
    enum statuses_life life;
    uint64_t came_us, died_ms; /* came: the last status, by this node's clock */
    uint64_t sent_us;          /* and by its own */
    uint64_t delay_us;         /* half a round trip from here to there and back; 0: not known */
    uint64_t state;
    char *bytes; /* its last status */
    size_t bytes_n;
    char name[MESH_NAME_BYTES], host[MESH_NAME_BYTES];
    uint8_t name_n, host_n;
    struct trail *trail;
};

struct statuses {
    struct reactor *reactor;
    struct metrics *metrics;
    struct cluster *cluster;
    struct statuses_options options;
    struct timer timer;
    struct row *rows[ROWS_MAX];
    unsigned n;
    int statm_fd;
    uint64_t started_us, last_us, last_cpu_us, last[STATUS_VALUES];
    struct status status; /* large: one is enough */
    msgpack_sbuffer buffer;
};

/* Where the values come from that metrics tell. */
enum source { SOURCE_NONE, NOW, RATE };
static const struct {
    enum source how;
    enum metric metric;
} sources[STATUS_VALUES] = {
#define X(NAME, key, kind, meaning)
#define M(NAME, key, kind, how, METRIC, meaning) [STATUS_##NAME] = {how, METRIC_##METRIC},
#include "status_value.def"
#undef M
#undef X
};

static uint64_t clock_us(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- rows ---- */

static struct row *find(const struct statuses *s, struct mesh_origin o)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->rows[i]->origin.tag == o.tag && s->rows[i]->origin.boot == o.boot)
            return s->rows[i];
    return NULL;
}

static void free_row(struct row *row)
{
    trail_free(&row->trail);
    free(row->bytes);
    free(row);
}

static void drop_at(struct statuses *s, unsigned index)
{
    free_row(s->rows[index]);
    memmove(s->rows + index, s->rows + index + 1, (s->n - index - 1) * sizeof(s->rows[0]));
    s->n--;
}

/* One that lives never gives up its place for another. */
static bool make_place(struct statuses *s)
{
    unsigned oldest = 0;
    if (s->n < ROWS_MAX)
        return true;
    for (unsigned i = 1; i < s->n; i++)
        if (s->rows[i]->life != STATUSES_LIVE && (!oldest || s->rows[i]->died_ms < s->rows[oldest]->died_ms))
            oldest = i;
    if (oldest)
        drop_at(s, oldest);
    return oldest != 0;
}

static struct row *obtain(struct statuses *s, struct mesh_origin origin)
{
    struct row *row = find(s, origin);
    if (row || !make_place(s))
        return row;
    row = calloc(1, sizeof(*row));
    if (row)
        row->trail = trail_new();
    if (!row || !row->trail) {
        free(row);
        return NULL;
    }
    row->origin = origin;
    s->rows[s->n++] = row;
    return row;
}

static bool same_node(const struct row *a, const struct row *b)
{
    return a->name_n == b->name_n && a->host_n == b->host_n && memcmp(a->name, b->name, a->name_n) == 0 &&
           memcmp(a->host, b->host, a->host_n) == 0;
}

/* Those that have died and whose node is there again, or that nobody asks for any more. */
static void drop_old(struct statuses *s)
{
    uint64_t now = reactor_now_ms(s->reactor);
    for (unsigned i = s->n; i-- > 1;) {
        struct row *old = s->rows[i], *next = NULL;
        if (old->life == STATUSES_LIVE)
            continue;
        for (unsigned k = 0; k < s->n && !next; k++)
            if (s->rows[k]->life == STATUSES_LIVE && same_node(old, s->rows[k]))
                next = s->rows[k];
        if (next)
            trail_adopt(next->trail, old->trail);
        if (next || now - old->died_ms > TRAIL_MS)
            drop_at(s, i);
    }
}

/* status has been read from bytes. */
static void keep(struct statuses *s, struct row *row, const struct status *status, struct span bytes)
{
    char *copy = row->bytes_n == bytes.n ? row->bytes : realloc(row->bytes, bytes.n);
    if (!copy)
        return;
    memcpy(copy, bytes.p, bytes.n);
    row->bytes = copy;
    row->bytes_n = bytes.n;
    row->life = STATUSES_LIVE;
    row->came_us = clock_us(CLOCK_MONOTONIC);
    row->sent_us = status->sent_us;
    row->state = status->value[STATUS_STATE];
    memcpy(row->name, status->name.p, status->name.n);
    memcpy(row->host, status->host.p, status->host.n);
    row->name_n = (uint8_t)status->name.n;
    row->host_n = (uint8_t)status->host.n;
    trail_add(row->trail, clock_us(CLOCK_REALTIME) / 1000, status->value);
    drop_old(s);
}

/* ---- this node's own ---- */

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static uint64_t rss_bytes(const struct statuses *s)
{
    char text[128];
    unsigned long pages = 0;
    ssize_t n = s->statm_fd >= 0 ? pread(s->statm_fd, text, sizeof(text) - 1, 0) : -1;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return sscanf(text, "%*u %lu", &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* In hundredths. */
static uint64_t per_second(uint64_t now, uint64_t before, uint64_t elapsed_us)
{
    if (now <= before || elapsed_us == 0)
        return 0;
    return (uint64_t)((double)(now - before) * 1e8 / (double)elapsed_us + 0.5);
}

static void fill_process(struct statuses *s, uint64_t now_us, uint64_t value[STATUS_VALUES])
{
    struct reactor_stats stats;
    uint64_t cpu = cpu_us();
    reactor_take_stats(s->reactor, &stats);
    metrics_observe_us(s->metrics, METRIC_LOOP_TURN, stats.max_turn_us);
    value[STATUS_TIME_MS] = clock_us(CLOCK_REALTIME) / 1000;
    value[STATUS_UPTIME_S] = (now_us - s->started_us) / 1000000;
    value[STATUS_PID] = (uint64_t)getpid();
    value[STATUS_CORE] = (uint64_t)(s->options.core + 1);
    value[STATUS_PORT] = s->options.port;
    value[STATUS_NODE_PORT] = s->options.node_port;
    value[STATUS_RESTARTS] = s->options.restarts;
    value[STATUS_CPU] = per_second(cpu, s->last_cpu_us, (now_us - s->last_us) * 10000);
    value[STATUS_RSS] = rss_bytes(s);
    value[STATUS_LOOP_P99] = stats.p99_turn_us;
    value[STATUS_LOOP_MAX] = stats.max_turn_us;
    value[STATUS_PEERS] = s->cluster ? peers_alive(cluster_peers(s->cluster)) : 0;
    s->last_cpu_us = cpu;
}

static void fill_from_metrics(struct statuses *s, uint64_t now_us, uint64_t value[STATUS_VALUES])
{
    for (unsigned i = 0; i < STATUS_VALUES; i++) {
        if (sources[i].how == SOURCE_NONE)
            continue;
        uint64_t now = metrics_get(s->metrics, sources[i].metric);
        value[i] = sources[i].how == NOW ? now : per_second(now, s->last[i], now_us - s->last_us);
        s->last[i] = now;
    }
}

static void fill_links(struct statuses *s, uint64_t now_us)
{
    struct peers_view views[LIMIT_STATUS_LINKS];
    struct peers *peers = s->cluster ? cluster_peers(s->cluster) : NULL;
    unsigned n = peers ? peers_views(peers, views, LIMIT_STATUS_LINKS) : 0;
    for (unsigned i = 0; i < n; i++) {
        const struct row *row = find(s, views[i].origin);
        bool has_come = row && row->bytes;
        s->status.link[i] = (struct status_link){
            .from = views[i].origin,
            .sent_us = has_come ? row->sent_us : 0,
            .held_us = has_come ? now_us - row->came_us : 0,
            .delay_us = row ? row->delay_us : 0,
            .silent_ms = has_come ? (now_us - row->came_us) / 1000 : views[i].silent_ms,
            .behind = views[i].behind,
            .in_hole = views[i].in_hole,
        };
    }
    s->status.n_links = n;
}

static void on_second(struct timer *t)
{
    struct statuses *s = container_of(t, struct statuses, timer);
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    reactor_timer_set(s->reactor, t, SECOND_MS);
    s->status.name = s->options.name;
    s->status.host = s->options.host;
    s->status.sent_us = now_us;
    memset(s->status.value, 0, sizeof(s->status.value));
    fill_process(s, now_us, s->status.value);
    fill_from_metrics(s, now_us, s->status.value);
    s->options.on_fill(s->options.user, s->status.value);
    fill_links(s, now_us);
    s->last_us = now_us;
    msgpack_sbuffer_clear(&s->buffer);
    if (status_write(&s->buffer, &s->status))
        return;
    struct span bytes = {s->buffer.data, s->buffer.size};
    keep(s, s->rows[0], &s->status, bytes);
    if (s->cluster)
        cluster_note(s->cluster, MESH_TOPIC_STATUS, bytes);
    if (s->options.on_news)
        s->options.on_news(s->options.user);
}

/* ---- those of others ---- */

/* What it held of ours tells the round trip. A number that cannot be is not believed. */
static void take_canary(struct statuses *s, struct row *row)
{
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < s->status.n_links; i++) {
        const struct status_link *l = &s->status.link[i];
        if (l->from.tag != s->options.self.tag || l->from.boot != s->options.self.boot || l->sent_us == 0)
            continue;
        if (l->sent_us > now_us || l->held_us > now_us - l->sent_us)
            continue;
        uint64_t round_us = now_us - l->sent_us - l->held_us;
        row->delay_us = round_us < 2 ? 1 : round_us / 2;
        metrics_observe_us(s->metrics, METRIC_MESH_DELAY, row->delay_us);
    }
}

static void on_message(void *user, struct mesh_origin from, struct span bytes)
{
    struct statuses *s = user;
    if (status_read(bytes, &s->status))
        return;
    struct row *row = obtain(s, from);
    if (!row || row == s->rows[0])
        return;
    bool is_new = !row->bytes || row->life != STATUSES_LIVE;
    take_canary(s, row);
    keep(s, row, &s->status, bytes);
    if (is_new && s->options.on_news)
        s->options.on_news(s->options.user);
}

static void on_dead(void *user, struct mesh_origin from, uint64_t received)
{
    struct statuses *s = user;
    struct row *row = find(s, from);
    (void)received;
    if (!row || row == s->rows[0])
        return;
    row->life =
        row->state == STATUS_DRAINING || row->state == STATUS_STOPPING ? STATUSES_GONE : STATUSES_DEAD;
    row->died_ms = reactor_now_ms(s->reactor);
    drop_old(s);
    if (s->options.on_news)
        s->options.on_news(s->options.user);
}

/* ---- life ---- */

struct statuses *statuses_new(struct reactor *r, struct metrics *m, struct cluster *cluster,
                              const struct statuses_options *o)
{
    struct statuses *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->reactor = r;
    s->metrics = m;
    s->cluster = cluster;
    s->options = *o;
    s->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    s->started_us = s->last_us = clock_us(CLOCK_MONOTONIC);
    s->last_cpu_us = cpu_us();
    timer_init(&s->timer, on_second);
    msgpack_sbuffer_init(&s->buffer);
    if (!obtain(s, o->self)) {
        statuses_free(&s);
        return NULL;
    }
    if (cluster)
        cluster_listen(cluster, MESH_TOPIC_STATUS,
                       &(struct cluster_part){.user = s, .on_message = on_message, .on_dead = on_dead});
    reactor_timer_set(r, &s->timer, 1);
    return s;
}

void statuses_free(struct statuses **sp)
{
    struct statuses *s = *sp;
    if (!s)
        return;
    if (s->cluster)
        cluster_listen(s->cluster, MESH_TOPIC_STATUS, &(struct cluster_part){.user = NULL});
    reactor_timer_cancel(s->reactor, &s->timer);
    while (s->n > 0)
        free_row(s->rows[--s->n]);
    if (s->statm_fd >= 0)
        close(s->statm_fd);
    msgpack_sbuffer_destroy(&s->buffer);
    free(s);
    *sp = NULL;
}

/* ---- questions ---- */

unsigned statuses_count(const struct statuses *s)
{
    return s->n;
}

struct statuses_row statuses_at(const struct statuses *s, unsigned index)
{
    const struct row *row = s->rows[index];
    return (struct statuses_row){
        .origin = row->origin,
        .life = row->life,
        .silent_ms = row->bytes ? (clock_us(CLOCK_MONOTONIC) - row->came_us) / 1000 : 0,
        .name = {row->name, row->name_n},
        .host = {row->host, row->host_n},
        .is_self = index == 0,
    };
}

static int row_json(struct statuses *s, unsigned index, bool with_trail, msgpack_sbuffer *b)
{
    static const char *const lives[] = {"live", "gone", "dead"};
    const struct row *row = s->rows[index];
    char id[STATUS_ID_BYTES], origin[MESH_NAME_BYTES + 24];
    status_id(id, row->origin);
    int n = snprintf(origin, sizeof(origin), "%.*s-%012" PRIx64, row->name_n, row->name, row->origin.boot);
    struct printer p = print_begin(b);
    print_format(&p, "{\"id\":\"%s\",\"life\":\"%s\",\"here\":%s,\"origin\":", id, lives[row->life],
                 index == 0 ? "true" : "false");
    print_quoted(&p, (struct span){origin, (size_t)n});
    print_format(&p, ",\"silent_ms\":%" PRIu64 ",", statuses_at(s, index).silent_ms);
    if (print_end(&p) || status_json(b, &s->status) || trail_json(row->trail, with_trail, b))
        return ERR_MEMORY;
    print_span(&p, SPAN("}"));
    return print_end(&p);
}

int statuses_json(struct statuses *s, bool with_trails, msgpack_sbuffer *b)
{
    struct printer p = print_begin(b);
    bool is_first = true;
    print_format(&p, "{\"time_ms\":%" PRIu64 ",\"nodes\":[", clock_us(CLOCK_REALTIME) / 1000);
    for (unsigned i = 0; i < s->n && p.err == 0; i++) {
        if (!s->rows[i]->bytes ||
            status_read((struct span){s->rows[i]->bytes, s->rows[i]->bytes_n}, &s->status))
            continue;
        print_span(&p, is_first ? SPAN("") : SPAN(","));
        is_first = false;
        p.err = p.err ? p.err : row_json(s, i, with_trails, b);
    }
    print_span(&p, SPAN("]}"));
    return print_end(&p);
}
