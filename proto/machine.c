#include "err.h"
#include "machine_layout.h"
#include "mp.h"
#include "utf8.h"
#include <assert.h>

enum {
    NO_ANSWER = 0, /* the id of a request that wants no OK */
    HEAD_ELEMENTS = 5,
    DESCRIPTION_ELEMENTS = HEAD_ELEMENTS + 1 + MACHINE_DESCRIPTION_LISTS,
    TICK_NUMBERS = 3, /* time, elapsed, uptime */
    TICK_GROUPS = 5,  /* cpu, cores, load, memory, pressure */
    TICK_ELEMENTS = HEAD_ELEMENTS + TICK_NUMBERS + TICK_GROUPS + MACHINE_TICK_LISTS,
    CORE_BYTES = 4,
    CORE_WHOLE = 200,
};

uint64_t machine_cpus_milli(const struct machine_about *a)
{
    uint64_t host = a->cores <= UINT64_MAX / 1000 ? a->cores * 1000 : UINT64_MAX;
    return a->cpu_limit_milli != 0 && a->cpu_limit_milli < host ? a->cpu_limit_milli : host;
}

uint64_t machine_memory_bytes(const struct machine_about *a)
{
    uint64_t limit = a->memory_limit_bytes;
    return limit != 0 && limit < a->memory_bytes ? limit : a->memory_bytes;
}

uint64_t machine_busy(const struct machine_cpu *c)
{
    return c->user + c->nice + c->system + c->irq + c->steal;
}

/* ---- writing ---- */

static void put_fields(struct mp_writer *w, const struct machine_layout *layout, const void *record)
{
    mp_put_array(w, layout->n);
    for (unsigned i = 0; i < layout->n; i++) {
        const void *member = (const char *)record + layout->fields[i].offset;
        switch (layout->fields[i].type) {
        case MACHINE_TEXT:
            mp_put_text(w, *(const struct span *)member, LIMIT_MACHINE_TEXT_BYTES);
            break;
        case MACHINE_TENTHS:
            mp_put_int(w, *(const int64_t *)member);
            break;
        default:
            mp_put_uint(w, *(const uint64_t *)member);
        }
    }
}

static void put_list(struct mp_writer *w, const struct machine_list *list, const void *message)
{
    unsigned n = *(const unsigned *)((const char *)message + list->count);
    assert(n <= list->max);
    mp_put_array(w, n);
    for (unsigned i = 0; i < n; i++)
        put_fields(w, list->layout, (const char *)message + list->items + i * list->layout->size);
}

static void put_head(struct mp_writer *w, size_t elements, enum machine_kind kind, uint64_t machine,
                     uint64_t revision)
{
    mp_put_array(w, elements);
    mp_put_uint(w, kind);
    mp_put_uint(w, NO_ANSWER);
    mp_put_uint(w, MACHINE_VERSION);
    mp_put_uint(w, machine);
    mp_put_uint(w, revision);
}

static int end(struct mp_writer *w)
{
    int err = mp_end(w);
    if (err == 0 && w->buffer->size - w->before > LIMIT_MACHINE_BYTES) {
        w->buffer->size = w->before;
        err = ERR_LIMIT;
    }
    return err;
}

int machine_write_description(msgpack_sbuffer *b, const struct machine_description *d)
{
    struct mp_writer w;
    mp_begin(&w, b);
    put_head(&w, DESCRIPTION_ELEMENTS, MACHINE_DESCRIPTION, d->machine, d->revision);
    put_fields(&w, &machine_about_layout, &d->about);
    for (size_t i = 0; i < MACHINE_DESCRIPTION_LISTS; i++)
        put_list(&w, &machine_description_lists[i], d);
    return end(&w);
}

int machine_write_tick(msgpack_sbuffer *b, const struct machine_tick *t)
{
    _Static_assert(sizeof(struct machine_core) == CORE_BYTES, "a core is written as it lies in memory");
    struct mp_writer w;
    assert(t->n_cores <= LIMIT_MACHINE_CORES);
    mp_begin(&w, b);
    put_head(&w, TICK_ELEMENTS, MACHINE_TICK, t->machine, t->revision);
    mp_put_uint(&w, t->time_ms);
    mp_put_uint(&w, t->elapsed_ms);
    mp_put_uint(&w, t->uptime_s);
    put_fields(&w, &machine_cpu_layout, &t->cpu);
    mp_put_bin(&w, (struct span){(const char *)t->cores, CORE_BYTES * t->n_cores});
    put_fields(&w, &machine_load_layout, &t->load);
    put_fields(&w, &machine_memory_layout, &t->memory);
    if (t->has_pressure)
        put_fields(&w, &machine_pressure_layout, &t->pressure);
    else
        mp_put_array(&w, 0);
    for (size_t i = 0; i < MACHINE_TICK_LISTS; i++)
        put_list(&w, &machine_tick_lists[i], t);
    return end(&w);
}

/* ---- reading ---- */

static struct span get_text(struct mp_cursor *c)
{
    struct span text = mp_get_text(c, LIMIT_MACHINE_TEXT_BYTES);
    if (!utf8_valid(text.p, text.n)) {
        mp_refuse(c);
        text.n = 0;
    }
    return text;
}

static uint64_t get_number(struct mp_cursor *c, uint64_t max)
{
    uint64_t value = mp_get_uint(c);
    return value <= max ? value : mp_refuse(c);
}

/* Elements behind those that are known are skipped. */
static void skip_rest(struct mp_cursor *c, uint64_t n, uint64_t known)
{
    mp_skip(c, n >= known ? n - known : mp_refuse(c));
}

static void get_members(struct mp_cursor *c, const struct machine_layout *layout, uint64_t n, void *record)
{
    for (unsigned i = 0; i < layout->n; i++) {
        void *member = (char *)record + layout->fields[i].offset;
        switch (layout->fields[i].type) {
        case MACHINE_TEXT:
            *(struct span *)member = get_text(c);
            break;
        case MACHINE_TENTHS:
            *(int64_t *)member = mp_get_int(c);
            break;
        case MACHINE_SHARE:
            *(uint64_t *)member = get_number(c, MACHINE_WHOLE);
            break;
        default:
            *(uint64_t *)member = get_number(c, INT64_MAX);
        }
    }
    skip_rest(c, n, layout->n);
}

static void get_fields(struct mp_cursor *c, const struct machine_layout *layout, void *record)
{
    get_members(c, layout, mp_get_array(c), record);
}

static void get_list(struct mp_cursor *c, const struct machine_list *list, void *message)
{
    unsigned n = mp_get_count(c, list->max);
    *(unsigned *)((char *)message + list->count) = n;
    for (unsigned i = 0; i < n && !c->bad; i++)
        get_fields(c, list->layout, (char *)message + list->items + i * list->layout->size);
}

static bool is_core(struct machine_core core)
{
    return core.user == MACHINE_CORE_OFFLINE ||
           core.user + core.system + core.iowait + core.steal <= CORE_WHOLE;
}

static void get_cores(struct mp_cursor *c, struct machine_tick *t)
{
    struct span bytes = mp_get_bin(c);
    if (bytes.n % CORE_BYTES != 0 || bytes.n / CORE_BYTES > LIMIT_MACHINE_CORES) {
        mp_refuse(c);
        return;
    }
    t->n_cores = (unsigned)(bytes.n / CORE_BYTES);
    if (bytes.n > 0)
        memcpy(t->cores, bytes.p, bytes.n);
    for (unsigned i = 0; i < t->n_cores; i++)
        if (!is_core(t->cores[i]))
            mp_refuse(c);
}

struct head {
    uint64_t elements, kind, machine, revision;
};

/* 0, ERR_MACHINE or ERR_VERSION. */
static int get_head(struct mp_cursor *c, struct span message, struct head *head)
{
    *c = mp_open(message);
    head->elements = message.n <= LIMIT_MACHINE_BYTES ? mp_get_array(c) : mp_refuse(c);
    head->kind = head->elements > 0 ? mp_get_uint(c) : mp_refuse(c);
    mp_get_uint(c); /* whoever sends it may want an answer: not of these functions */
    uint64_t version = mp_get_uint(c);
    if (!c->bad && version != MACHINE_VERSION)
        return ERR_VERSION;
    head->machine = mp_get_uint(c);
    head->revision = get_number(c, INT64_MAX);
    return c->bad || head->elements < HEAD_ELEMENTS ? ERR_MACHINE : 0;
}

/* Nothing comes behind a message. */
static int verdict(const struct mp_cursor *c)
{
    return c->bad || mp_left(c) > 0 ? ERR_MACHINE : 0;
}

int machine_read_head(struct span message, uint64_t *machine, uint64_t *revision)
{
    struct mp_cursor c;
    struct head head;
    int err = get_head(&c, message, &head);
    if (err != 0)
        return err;
    *machine = head.machine;
    *revision = head.revision;
    return head.kind == MACHINE_DESCRIPTION || head.kind == MACHINE_TICK ? (int)head.kind : 0;
}

int machine_read_description(struct span message, struct machine_description *d)
{
    struct mp_cursor c;
    struct head head;
    int err = get_head(&c, message, &head);
    if (err != 0 || head.kind != MACHINE_DESCRIPTION)
        return err != 0 ? err : ERR_MACHINE;
    d->machine = head.machine;
    d->revision = head.revision;
    get_fields(&c, &machine_about_layout, &d->about);
    for (size_t i = 0; i < MACHINE_DESCRIPTION_LISTS; i++)
        get_list(&c, &machine_description_lists[i], d);
    skip_rest(&c, head.elements, DESCRIPTION_ELEMENTS);
    return verdict(&c);
}

int machine_read_tick(struct span message, struct machine_tick *t)
{
    struct mp_cursor c;
    struct head head;
    int err = get_head(&c, message, &head);
    if (err != 0 || head.kind != MACHINE_TICK)
        return err != 0 ? err : ERR_MACHINE;
    t->machine = head.machine;
    t->revision = head.revision;
    t->time_ms = get_number(&c, INT64_MAX);
    t->elapsed_ms = get_number(&c, INT64_MAX);
    t->uptime_s = get_number(&c, INT64_MAX);
    get_fields(&c, &machine_cpu_layout, &t->cpu);
    get_cores(&c, t);
    get_fields(&c, &machine_load_layout, &t->load);
    get_fields(&c, &machine_memory_layout, &t->memory);
    uint64_t members = mp_get_array(&c);
    t->has_pressure = members > 0;
    t->pressure = (struct machine_pressure){0};
    if (t->has_pressure)
        get_members(&c, &machine_pressure_layout, members, &t->pressure);
    for (size_t i = 0; i < MACHINE_TICK_LISTS; i++)
        get_list(&c, &machine_tick_lists[i], t);
    skip_rest(&c, head.elements, TICK_ELEMENTS);
    return verdict(&c);
}
