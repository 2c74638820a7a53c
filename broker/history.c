/* Each level is a ring of points whose place is their number (time / step) modulo its size, so a machine that was away
 * leaves places without values and nothing is searched. A value has 16 bits with an exponent: the size is what matters
 * for 250 machines, and a chart has no thousand rows. */
#include "history.h"
#include "err.h"
#include "mp.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    VERSION = 1,
    BLOCK_ELEMENTS = 5,
    BLOCK_VALUES_MAX = 64,
    NONE = 0xffff,
    FRACTION = 1024,
    EXPONENT_MAX = 63,
    QUARTERS = 4,
};

static const struct {
    uint64_t step_ms;
    unsigned points;
    unsigned cells; /* of a value: the mean, or the mean and the maximum */
} levels[HISTORY_LEVELS] = {
    [HISTORY_SECONDS] = {1000, 600, 1},
    [HISTORY_TENS] = {10000, 720, 2},
    [HISTORY_MINUTES] = {60000, 1440, 2},
};

static const char *const names[HISTORY_VALUES] = {
#define X(NAME, name, kind) #name,
#include "history.def"
#undef X
};

enum kind { RATE, STATE };
static const enum kind kinds[HISTORY_VALUES] = {
#define X(NAME, name, kind) kind,
#include "history.def"
#undef X
};

struct ring {
    uint64_t newest;                /* number of the newest point; 0: there is none */
    unsigned count[HISTORY_VALUES]; /* of ticks in the newest point */
    double sum[HISTORY_VALUES], max[HISTORY_VALUES];
    uint16_t *cells;
};

struct history {
    struct ring ring[HISTORY_LEVELS];
};

struct history *history_new(void)
{
    struct history *h = calloc(1, sizeof(*h));
    for (unsigned i = 0; h && i < HISTORY_LEVELS; i++) {
        size_t n = (size_t)levels[i].points * levels[i].cells * HISTORY_VALUES;
        h->ring[i].cells = malloc(n * sizeof(uint16_t));
        if (h->ring[i].cells)
            memset(h->ring[i].cells, NONE & 0xff, n * sizeof(uint16_t));
        else
            history_free(&h);
    }
    return h;
}

void history_free(struct history **h)
{
    if (!*h)
        return;
    for (int i = 0; i < HISTORY_LEVELS; i++)
        free((*h)->ring[i].cells);
    free(*h);
    *h = NULL;
}

/* ---- values of 16 bits ---- */

/* Of one that may not be known and one that is. */
static double larger(double a, double b)
{
    return a > b ? a : b;
}

static uint16_t pack(double value)
{
    double q = value * QUARTERS;
    unsigned exponent = 1;
    if (!(q >= 0)) /* not known, or below what there is a form for */
        return NONE;
    if (q < FRACTION)
        return (uint16_t)(q + 0.5); /* 1024 is also the first number with an exponent */
    for (; q >= 2 * FRACTION - 0.5; q /= 2)
        if (++exponent > EXPONENT_MAX)
            return NONE - 1;
    unsigned packed = exponent * FRACTION + (unsigned)(q + 0.5) - FRACTION;
    return (uint16_t)(packed < NONE ? packed : NONE - 1);
}

static double unpack(uint16_t packed)
{
    if (packed == NONE)
        return NAN;
    unsigned exponent = packed / FRACTION, fraction = packed % FRACTION;
    double quarters = exponent == 0 ? fraction : FRACTION + fraction;
    for (; exponent > 1; exponent--)
        quarters *= 2;
    return quarters / QUARTERS;
}

/* ---- the ring ---- */

static size_t point_cells(unsigned level)
{
    return (size_t)levels[level].cells * HISTORY_VALUES;
}

static uint16_t *cells_of(const struct history *h, unsigned level, uint64_t number)
{
    return h->ring[level].cells + number % levels[level].points * point_cells(level);
}

static bool is_held(const struct history *h, unsigned level, uint64_t number)
{
    uint64_t newest = h->ring[level].newest;
    return number <= newest && newest - number < levels[level].points;
}

static void clear_points(struct history *h, unsigned level, uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last && n - first < levels[level].points; n++)
        memset(cells_of(h, level, n), NONE & 0xff, point_cells(level) * sizeof(uint16_t));
}

/* Makes this point the newest. */
static void turn_to(struct history *h, unsigned level, uint64_t number)
{
    struct ring *r = &h->ring[level];
    if (number == r->newest)
        return;
    if (number > r->newest)
        clear_points(h, level, r->newest == 0 ? number : r->newest + 1, number);
    else
        clear_points(h, level, number, r->newest);
    r->newest = number;
    memset(r->count, 0, sizeof(r->count));
}

static void add_value(struct ring *r, int i, double value, uint16_t *cells, unsigned per_value)
{
    if (isnan(value))
        return;
    if (r->count[i]++ == 0)
        r->sum[i] = r->max[i] = 0;
    r->sum[i] += value;
    r->max[i] = larger(r->max[i], value);
    cells[0] = pack(r->sum[i] / r->count[i]);
    if (per_value > 1)
        cells[1] = pack(r->max[i]);
}

/* ---- from a tick ---- */

static void add_devices(const struct machine_tick *t, double *v)
{
    for (unsigned i = 0; i < t->n_disks; i++) {
        v[HISTORY_DISK_READ] += (double)t->disks[i].read_bytes;
        v[HISTORY_DISK_WRITE] += (double)t->disks[i].write_bytes;
        v[HISTORY_DISK_BUSY] = larger(v[HISTORY_DISK_BUSY], (double)t->disks[i].busy);
    }
    for (unsigned i = 0; i < t->n_filesystems; i++) {
        double used = (double)t->filesystems[i].used, all = used + (double)t->filesystems[i].available;
        if (all > 0)
            v[HISTORY_DISK_FULL] = larger(v[HISTORY_DISK_FULL], used / all * MACHINE_WHOLE);
    }
    for (unsigned i = 0; i < t->n_interfaces; i++) {
        v[HISTORY_NET_RX] += (double)t->interfaces[i].rx_bytes;
        v[HISTORY_NET_TX] += (double)t->interfaces[i].tx_bytes;
        v[HISTORY_NET_ERRORS] += (double)t->interfaces[i].errors + (double)t->interfaces[i].drops;
    }
    for (unsigned i = 0; i < t->n_processes; i++) {
        v[HISTORY_NODES_CPU] += (double)t->processes[i].cpu;
        v[HISTORY_NODES_RSS] += (double)t->processes[i].rss_bytes / 1024;
    }
}

/* The hottest; a machine below zero is colder than there is a form for. */
static double temperature_of(const struct machine_tick *t)
{
    double hottest = NAN;
    for (unsigned i = 0; i < t->n_temperatures; i++)
        hottest = larger(hottest, (double)t->temperatures[i].decicelsius);
    return hottest >= 0 ? hottest : NAN;
}

static void values_of(const struct machine_tick *t, double v[HISTORY_VALUES])
{
    const struct machine_memory *m = &t->memory;
    memset(v, 0, HISTORY_VALUES * sizeof(*v));
    v[HISTORY_CPU_BUSY] = (double)machine_busy(&t->cpu);
    v[HISTORY_CPU_USER] = (double)(t->cpu.user + t->cpu.nice);
    v[HISTORY_CPU_SYSTEM] = (double)(t->cpu.system + t->cpu.irq);
    v[HISTORY_CPU_IOWAIT] = (double)t->cpu.iowait;
    v[HISTORY_CPU_STEAL] = (double)t->cpu.steal;
    v[HISTORY_LOAD_ONE] = (double)t->load.one;
    v[HISTORY_MEMORY_USED] = m->total > m->available ? (double)(m->total - m->available) / 1024 : 0;
    v[HISTORY_SWAP_USED] = (double)m->swap_used / 1024;
    add_devices(t, v);
    v[HISTORY_PRESSURE_CPU] = t->has_pressure ? (double)t->pressure.cpu_some : NAN;
    v[HISTORY_PRESSURE_MEMORY] = t->has_pressure ? (double)t->pressure.memory_some : NAN;
    v[HISTORY_PRESSURE_IO] = t->has_pressure ? (double)t->pressure.io_some : NAN;
    v[HISTORY_TEMPERATURE] = temperature_of(t);
    for (int i = 0; i < HISTORY_VALUES; i++)
        if (kinds[i] == RATE && t->elapsed_ms == 0)
            v[i] = NAN;
}

void history_add(struct history *h, uint64_t now_ms, const struct machine_tick *t)
{
    double values[HISTORY_VALUES];
    values_of(t, values);
    for (unsigned level = 0; level < HISTORY_LEVELS; level++) {
        uint64_t number = now_ms / levels[level].step_ms;
        unsigned per_value = levels[level].cells;
        turn_to(h, level, number);
        uint16_t *cells = cells_of(h, level, number);
        for (int i = 0; i < HISTORY_VALUES; i++)
            add_value(&h->ring[level], i, values[i], cells + (size_t)i * per_value, per_value);
    }
}

/* ---- looking at it ---- */

uint64_t history_step_ms(enum history_level level)
{
    return levels[level].step_ms;
}

unsigned history_points(enum history_level level)
{
    return levels[level].points;
}

static uint64_t oldest_of(const struct history *h, unsigned level)
{
    uint64_t newest = h->ring[level].newest, points = levels[level].points;
    return newest >= points ? newest - points + 1 : 1;
}

bool history_range(const struct history *h, enum history_level level, uint64_t *oldest_ms,
                   uint64_t *newest_ms)
{
    *newest_ms = h->ring[level].newest * levels[level].step_ms;
    *oldest_ms = oldest_of(h, level) * levels[level].step_ms;
    return h->ring[level].newest != 0;
}

void history_get(const struct history *h, enum history_level level, uint64_t at_ms,
                 struct history_point *point)
{
    uint64_t number = at_ms / levels[level].step_ms;
    const uint16_t *cells = cells_of(h, level, number);
    unsigned per_value = levels[level].cells;
    bool held = is_held(h, level, number);
    for (unsigned i = 0; i < HISTORY_VALUES; i++) {
        point->mean[i] = held ? unpack(cells[i * per_value]) : NAN;
        point->max[i] = held ? unpack(cells[i * per_value + per_value - 1]) : NAN;
    }
}

/* The first point to tell of. */
static uint64_t first_from(const struct history *h, unsigned level, uint64_t from_ms)
{
    uint64_t first = from_ms / levels[level].step_ms, oldest = oldest_of(h, level);
    return first > oldest ? first : oldest;
}

/* ---- stored ---- */

int history_write(const struct history *h, enum history_level level, uint64_t from_ms, uint64_t to_ms,
                  msgpack_sbuffer *b)
{
    uint64_t newest = h->ring[level].newest, first = first_from(h, level, from_ms),
             last = to_ms == 0 ? 0 : (to_ms - 1) / levels[level].step_ms;
    size_t per_point = point_cells(level), n;
    last = last < newest ? last : newest;
    if (newest == 0 || first > last)
        return 0;
    n = (size_t)(last - first + 1) * per_point * 2;
    unsigned char *bytes = malloc(n), *p = bytes;
    if (!bytes)
        return ERR_MEMORY;
    for (uint64_t number = first; number <= last; number++) {
        const uint16_t *cells = cells_of(h, level, number);
        for (size_t i = 0; i < per_point; i++) {
            *p++ = (unsigned char)(cells[i] >> 8);
            *p++ = (unsigned char)cells[i];
        }
    }
    struct mp_writer w;
    mp_begin(&w, b);
    mp_put_array(&w, BLOCK_ELEMENTS);
    mp_put_uint(&w, VERSION);
    mp_put_uint(&w, levels[level].step_ms);
    mp_put_uint(&w, HISTORY_VALUES);
    mp_put_uint(&w, first);
    mp_put_bin(&w, (struct span){(const char *)bytes, n});
    free(bytes);
    return mp_end(&w);
}

struct block {
    unsigned level;
    uint64_t values, first, count;
    const uint8_t *points;
};

/* What is there already stays. */
static void merge_point(struct history *h, const struct block *block, uint64_t index)
{
    unsigned per_value = levels[block->level].cells;
    const uint8_t *p = block->points + index * block->values * per_value * 2;
    uint16_t *cells = cells_of(h, block->level, block->first + index);
    uint64_t values = block->values < HISTORY_VALUES ? block->values : HISTORY_VALUES;
    for (size_t i = 0; i < values * per_value; i++)
        if (cells[i] == NONE)
            cells[i] = (uint16_t)(p[2 * i] << 8 | p[2 * i + 1]);
}

static void merge(struct history *h, uint64_t now_ms, const struct block *block)
{
    unsigned level = block->level;
    uint64_t now = now_ms / levels[level].step_ms, last = block->first + block->count - 1;
    if (block->count == 0 || block->first > now)
        return;
    last = last < now ? last : now;
    if (last > h->ring[level].newest)
        turn_to(h, level, last);
    uint64_t oldest = oldest_of(h, level), first = block->first > oldest ? block->first : oldest;
    for (uint64_t number = first; number <= last; number++)
        merge_point(h, block, number - block->first);
}

/* 0, ERR_MACHINE or ERR_VERSION. A block with another step is of a later version, and read past. */
static int read_block(struct mp_cursor *c, struct block *block)
{
    uint64_t n = mp_get_array(c), version = n > 0 ? mp_get_uint(c) : mp_refuse(c);
    if (!c->bad && version != VERSION)
        return ERR_VERSION;
    uint64_t step_ms = n >= BLOCK_ELEMENTS ? mp_get_uint(c) : mp_refuse(c);
    block->values = mp_get_uint(c);
    block->first = mp_get_uint(c);
    struct span points = mp_get_bin(c);
    mp_skip(c, n >= BLOCK_ELEMENTS ? n - BLOCK_ELEMENTS : 0);
    if (c->bad || block->values == 0 || block->values > BLOCK_VALUES_MAX || block->first == 0 ||
        block->first > INT64_MAX)
        return ERR_MACHINE;
    block->points = (const uint8_t *)points.p;
    block->count = 0;
    for (unsigned level = 0; level < HISTORY_LEVELS; level++) {
        size_t point_bytes = block->values * levels[level].cells * 2;
        if (levels[level].step_ms != step_ms)
            continue;
        if (points.n % point_bytes != 0)
            return ERR_MACHINE;
        block->level = level;
        block->count = points.n / point_bytes;
    }
    return 0;
}

int history_read(struct history *h, uint64_t now_ms, struct span blocks)
{
    struct mp_cursor c = mp_open(blocks);
    while (mp_left(&c) > 0) {
        struct block block = {0};
        int err = read_block(&c, &block);
        if (err != 0)
            return err;
        merge(h, now_ms, &block);
    }
    return 0;
}

/* ---- as JSON ---- */

static int print_series(const struct history *h, unsigned level, uint64_t first, unsigned value, bool max,
                        msgpack_sbuffer *b)
{
    char text[64];
    int n = snprintf(text, sizeof(text), ",\"%s%s\":[", names[value], max ? "_max" : "");
    int err = msgpack_sbuffer_write(b, text, (size_t)n);
    unsigned per_value = levels[level].cells;
    for (uint64_t number = first; number <= h->ring[level].newest; number++) {
        double v = unpack(cells_of(h, level, number)[value * per_value + (max ? 1 : 0)]);
        const char *comma = number > first ? "," : "";
        n = isnan(v) ? snprintf(text, sizeof(text), "%snull", comma)
                     : snprintf(text, sizeof(text), v < FRACTION ? "%s%.6g" : "%s%.0f", comma, v);
        err |= msgpack_sbuffer_write(b, text, (size_t)n);
    }
    return err | msgpack_sbuffer_write(b, "]", 1);
}

int history_json(const struct history *h, enum history_level level, uint64_t from_ms, msgpack_sbuffer *b)
{
    uint64_t first = first_from(h, level, from_ms);
    size_t before = b->size;
    char text[96];
    int n = snprintf(text, sizeof(text), "{\"step_ms\":%" PRIu64 ",\"from_ms\":%" PRIu64,
                     levels[level].step_ms, first * levels[level].step_ms);
    int err = msgpack_sbuffer_write(b, text, (size_t)n);
    for (unsigned value = 0; value < HISTORY_VALUES; value++)
        for (unsigned cell = 0; cell < levels[level].cells; cell++)
            err |= print_series(h, level, first, value, cell > 0, b);
    err |= msgpack_sbuffer_write(b, "}", 1);
    if (err == 0)
        return 0;
    b->size = before;
    return ERR_MEMORY;
}
