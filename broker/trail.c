#include "trail.h"
#include "print.h"
#include <inttypes.h>
#include <stdlib.h>

enum { SECONDS = TRAIL_MS / 1000, STEP_S = 10, STEPS = SECONDS / STEP_S };

/* What the charts of the page show; hundredths are kept as whole ones. */
static const struct {
    enum status_value value;
    unsigned divisor;
} shown[] = {
    {STATUS_POLLING, 1},           {STATUS_WEBSOCKET, 1},      {STATUS_EMITS_RATE, 100},
    {STATUS_DELIVERIES_RATE, 100}, {STATUS_PACKETS_RATE, 100}, {STATUS_BYTES_IN_RATE, 100},
    {STATUS_BYTES_OUT_RATE, 100},  {STATUS_CPU, 100},          {STATUS_RSS, 1},
    {STATUS_LOOP_P99, 1},          {STATUS_QUEUED, 1},         {STATUS_MIRROR_BEHIND, 1},
};
enum { SHOWN = sizeof(shown) / sizeof(shown[0]) };

struct trail {
    uint64_t newest_s;      /* 0: empty */
    uint64_t at_s[SECONDS]; /* what is in each place; any other second has gone */
    float point[SECONDS][SHOWN];
    uint64_t now[STATUS_VALUES];
    uint64_t step_s[STEPS];
    uint64_t total[STEPS][STATUS_VALUES];
};

struct trail *trail_new(void)
{
    return calloc(1, sizeof(struct trail));
}

void trail_free(struct trail **t)
{
    free(*t);
    *t = NULL;
}

void trail_add(struct trail *t, uint64_t now_ms, const uint64_t value[STATUS_VALUES])
{
    uint64_t now_s = now_ms / 1000, step = now_s / STEP_S;
    t->newest_s = now_s;
    memcpy(t->now, value, sizeof(t->now));
    t->at_s[now_s % SECONDS] = now_s;
    for (unsigned i = 0; i < SHOWN; i++)
        t->point[now_s % SECONDS][i] = (float)value[shown[i].value] / (float)shown[i].divisor;
    if (t->step_s[step % STEPS] / STEP_S == step)
        return;
    t->step_s[step % STEPS] = now_s;
    memcpy(t->total[step % STEPS], value, sizeof(t->total[0]));
}

void trail_adopt(struct trail *t, const struct trail *before)
{
    for (unsigned i = 0; i < SECONDS; i++) {
        if (before->at_s[i] <= t->at_s[i])
            continue;
        t->at_s[i] = before->at_s[i];
        memcpy(t->point[i], before->point[i], sizeof(t->point[0]));
    }
}

static bool is_total(enum status_value value)
{
    const char *key = status_key(value);
    size_t n = strlen(key);
    return n > 6 && strcmp(key + n - 6, "_total") == 0;
}

/* The oldest step that is not too old; the newest second is always in one. */
static unsigned oldest_step(const struct trail *t)
{
    uint64_t newest = t->newest_s / STEP_S;
    for (uint64_t step = newest >= STEPS ? newest - STEPS + 1 : 0; step < newest; step++)
        if (t->step_s[step % STEPS] / STEP_S == step)
            return (unsigned)(step % STEPS);
    return (unsigned)(newest % STEPS);
}

static void print_grown(struct printer *p, const struct trail *t)
{
    unsigned oldest = oldest_step(t);
    print_format(p, ",\"grown\":{\"since_ms\":%" PRIu64, t->step_s[oldest] * 1000);
    for (unsigned i = 0; i < STATUS_VALUES; i++) {
        uint64_t was = t->total[oldest][i], is = t->now[i];
        if (is_total(i))
            print_format(p, ",\"%s\":%" PRIu64, status_key(i), is > was ? is - was : 0);
    }
    print_span(p, SPAN("}"));
}

static void print_series(struct printer *p, const struct trail *t, unsigned which, uint64_t from_s)
{
    print_format(p, ",\"%s\":[", status_key(shown[which].value));
    for (uint64_t at_s = from_s; at_s <= t->newest_s; at_s++) {
        const char *comma = at_s > from_s ? "," : "";
        if (t->at_s[at_s % SECONDS] == at_s)
            print_format(p, "%s%.10g", comma, (double)t->point[at_s % SECONDS][which]);
        else
            print_format(p, "%snull", comma);
    }
    print_span(p, SPAN("]"));
}

static void print_whole(struct printer *p, const struct trail *t)
{
    uint64_t from_s = t->newest_s >= SECONDS ? t->newest_s - SECONDS + 1 : 0;
    while (from_s < t->newest_s && t->at_s[from_s % SECONDS] != from_s)
        from_s++;
    print_format(p, ",\"trail\":{\"from_ms\":%" PRIu64 ",\"step_ms\":1000", from_s * 1000);
    for (unsigned i = 0; i < SHOWN; i++)
        print_series(p, t, i, from_s);
    print_span(p, SPAN("}"));
}

int trail_json(const struct trail *t, bool whole, msgpack_sbuffer *b)
{
    struct printer p = print_begin(b);
    print_grown(&p, t);
    if (whole)
        print_whole(&p, t);
    return print_end(&p);
}
