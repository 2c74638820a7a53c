#include "err.h"
#include "json.h"
#include "machine_layout.h"
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct printer {
    msgpack_sbuffer *buffer;
    size_t before;
    int err; /* sticky */
};

static void print(struct printer *p, struct span text)
{
    p->err |= msgpack_sbuffer_write(p->buffer, text.p, text.n);
}

__attribute__((format(printf, 2, 3))) static void print_format(struct printer *p, const char *format, ...)
{
    char text[160];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < sizeof(text));
    print(p, (struct span){text, (size_t)n});
}

static void print_text(struct printer *p, struct span text)
{
    char quoted[JSON_QUOTED_MAX(LIMIT_MACHINE_TEXT_BYTES)];
    print(p, (struct span){quoted, json_quote(quoted, text)});
}

static void print_member(struct printer *p, enum machine_type type, const void *member)
{
    uint64_t value = type == MACHINE_TEXT ? 0 : *(const uint64_t *)member;
    int64_t tenths = type == MACHINE_TENTHS ? *(const int64_t *)member : 0;
    switch (type) {
    case MACHINE_TEXT:
        print_text(p, *(const struct span *)member);
        break;
    case MACHINE_TENTHS:
        print_format(p, "%s%" PRIu64 ".%u", tenths < 0 ? "-" : "",
                     (tenths < 0 ? -(uint64_t)tenths : (uint64_t)tenths) / 10,
                     (unsigned)((tenths < 0 ? -(uint64_t)tenths : (uint64_t)tenths) % 10));
        break;
    case MACHINE_CENTI:
    case MACHINE_SHARE:
        print_format(p, "%" PRIu64 ".%02u", value / 100, (unsigned)(value % 100));
        break;
    case MACHINE_MILLI:
        print_format(p, "%" PRIu64 ".%03u", value / 1000, (unsigned)(value % 1000));
        break;
    case MACHINE_FLAG:
        print(p, value != 0 ? SPAN("true") : SPAN("false"));
        break;
    default:
        print_format(p, "%" PRIu64, value);
    }
}

/* Members without the brackets of an object. */
static void print_members(struct printer *p, const struct machine_layout *layout, const void *record)
{
    const char *comma = "";
    for (unsigned i = 0; i < layout->n; i++) {
        const struct machine_field *field = &layout->fields[i];
        if (field->type == MACHINE_HIDDEN)
            continue;
        print_format(p, "%s\"%s\":", comma, field->key);
        print_member(p, field->type, (const char *)record + field->offset);
        comma = ",";
    }
}

static void print_group(struct printer *p, const char *key, const struct machine_layout *layout,
                        const void *record)
{
    print_format(p, ",\"%s\":{", key);
    print_members(p, layout, record);
    print(p, SPAN("}"));
}

static void print_lists(struct printer *p, const struct machine_list *lists, size_t n, const void *message)
{
    for (size_t i = 0; i < n; i++) {
        unsigned count = *(const unsigned *)((const char *)message + lists[i].count);
        print_format(p, ",\"%s\":[", lists[i].key);
        for (unsigned k = 0; k < count; k++) {
            print(p, k > 0 ? SPAN(",{") : SPAN("{"));
            print_members(p, lists[i].layout,
                          (const char *)message + lists[i].items + k * lists[i].layout->size);
            print(p, SPAN("}"));
        }
        print(p, SPAN("]"));
    }
}

/* null for a core that is switched off. */
static void print_cores(struct printer *p, const struct machine_tick *t)
{
    print(p, SPAN(",\"cores\":["));
    for (unsigned i = 0; i < t->n_cores; i++) {
        const struct machine_core core = t->cores[i];
        const uint8_t shares[] = {core.user, core.system, core.iowait, core.steal};
        const char *comma = i > 0 ? "," : "";
        if (core.user == MACHINE_CORE_OFFLINE) {
            print_format(p, "%snull", comma);
            continue;
        }
        print_format(p, "%s[", comma);
        for (size_t k = 0; k < sizeof(shares); k++)
            print_format(p, "%s%u%s", k > 0 ? "," : "", shares[k] / 2u, shares[k] % 2 ? ".5" : "");
        print(p, SPAN("]"));
    }
    print(p, SPAN("]"));
}

/* A limit, or null for none. */
static void print_limit(struct printer *p, const char *key, enum machine_type type, uint64_t value)
{
    print_format(p, ",\"%s\":", key);
    if (value == 0)
        print(p, SPAN("null"));
    else
        print_member(p, type, &value);
}

static void print_head(struct printer *p, msgpack_sbuffer *b, uint64_t machine, uint64_t revision)
{
    char id[MACHINE_ID_BYTES];
    *p = (struct printer){.buffer = b, .before = b->size};
    machine_id(id, machine);
    print_format(p, "{\"id\":\"%s\",\"revision\":%" PRIu64, id, revision);
}

static int printed(struct printer *p)
{
    print(p, SPAN("}"));
    if (p->err == 0)
        return 0;
    p->buffer->size = p->before;
    return ERR_MEMORY;
}

void machine_id(char out[MACHINE_ID_BYTES], uint64_t machine)
{
    snprintf(out, MACHINE_ID_BYTES, "%016" PRIx64, machine);
}

int machine_description_json(msgpack_sbuffer *b, const struct machine_description *d)
{
    struct printer p;
    uint64_t cpus = machine_cpus_milli(&d->about), bytes = machine_memory_bytes(&d->about);
    print_head(&p, b, d->machine, d->revision);
    print(&p, SPAN(","));
    print_members(&p, &machine_about_layout, &d->about);
    print(&p, SPAN(",\"cpus\":"));
    print_member(&p, MACHINE_MILLI, &cpus);
    print(&p, SPAN(",\"memory_bytes\":"));
    print_member(&p, MACHINE_UINT, &bytes);
    print_limit(&p, "cpu_limit", MACHINE_MILLI, d->about.cpu_limit_milli);
    print_limit(&p, "memory_limit_bytes", MACHINE_UINT, d->about.memory_limit_bytes);
    print_lists(&p, machine_description_lists, MACHINE_DESCRIPTION_LISTS, d);
    return printed(&p);
}

int machine_tick_json(msgpack_sbuffer *b, const struct machine_tick *t)
{
    struct printer p;
    uint64_t busy = machine_busy(&t->cpu);
    print_head(&p, b, t->machine, t->revision);
    print_format(&p, ",\"time_ms\":%" PRIu64 ",\"elapsed_ms\":%" PRIu64 ",\"uptime_s\":%" PRIu64, t->time_ms,
                 t->elapsed_ms, t->uptime_s);
    print(&p, SPAN(",\"cpu\":{\"busy_pct\":"));
    print_member(&p, MACHINE_CENTI, &busy);
    print(&p, SPAN(","));
    print_members(&p, &machine_cpu_layout, &t->cpu);
    print(&p, SPAN("}"));
    print_cores(&p, t);
    print_group(&p, "load", &machine_load_layout, &t->load);
    print_group(&p, "memory", &machine_memory_layout, &t->memory);
    if (t->has_pressure)
        print_group(&p, "pressure", &machine_pressure_layout, &t->pressure);
    else
        print(&p, SPAN(",\"pressure\":null"));
    print_lists(&p, machine_tick_lists, MACHINE_TICK_LISTS, t);
    return printed(&p);
}
