/* They are few, and looked for once a second each: an array in the order of their coming serves. */
#include "machines.h"
#include "err.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LOST_MS = 3000,
    LOST_INTERVALS = 3,
    INTERVAL_MAX_MS = 60000,
    FORGET_MS = 24 * 60 * 60 * 1000, /* as long as its history lasts */
};

struct message {
    char *bytes;
    size_t n;
};

struct row {
    uint64_t machine, heard_ms, lost_after_ms;
    bool lost;
    struct message description, tick;
    struct history *history;
};

struct machines {
    struct machines_options options;
    struct row *rows;
    unsigned n;
    struct machine_description description; /* for reading */
    struct machine_tick tick;
};

struct machines *machines_new(const struct machines_options *o)
{
    struct machines *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->options = *o;
    if (m->options.max == 0)
        m->options.max = LIMIT_MACHINES;
    m->rows = calloc(m->options.max, sizeof(*m->rows));
    if (!m->rows)
        machines_free(&m);
    return m;
}

static void clear_row(struct row *row)
{
    free(row->description.bytes);
    free(row->tick.bytes);
    history_free(&row->history);
}

void machines_free(struct machines **m)
{
    if (!*m)
        return;
    for (unsigned i = 0; i < (*m)->n; i++)
        clear_row(&(*m)->rows[i]);
    free((*m)->rows);
    free(*m);
    *m = NULL;
}

static void tell(const struct machines *m, uint64_t machine, enum machines_change change)
{
    if (m->options.on_change)
        m->options.on_change(m->options.context, machine, change);
}

static struct row *find(const struct machines *m, uint64_t machine)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->rows[i].machine == machine)
            return &m->rows[i];
    return NULL;
}

static void forget(struct machines *m, struct row *row)
{
    uint64_t machine = row->machine;
    clear_row(row);
    memmove(row, row + 1, (size_t)(m->rows + m->n - row - 1) * sizeof(*row));
    m->n--;
    tell(m, machine, MACHINES_FORGOTTEN);
}

/* One that lives never gives up its place for another. */
static bool make_place(struct machines *m)
{
    struct row *oldest = NULL;
    if (m->n < m->options.max)
        return true;
    for (unsigned i = 0; i < m->n; i++)
        if (m->rows[i].lost && (!oldest || m->rows[i].heard_ms < oldest->heard_ms))
            oldest = &m->rows[i];
    if (oldest)
        forget(m, oldest);
    return oldest != NULL;
}

static int obtain(struct machines *m, uint64_t machine, struct row **row)
{
    *row = find(m, machine);
    if (*row)
        return 0;
    if (!make_place(m))
        return ERR_LIMIT;
    struct history *history = history_new();
    if (!history)
        return ERR_MEMORY;
    *row = &m->rows[m->n++];
    **row = (struct row){.machine = machine, .lost_after_ms = LOST_MS, .history = history};
    return 0;
}

static int keep(struct message *kept, struct span message)
{
    char *bytes = kept->n == message.n ? kept->bytes : realloc(kept->bytes, message.n);
    if (!bytes)
        return ERR_MEMORY;
    memcpy(bytes, message.p, message.n);
    *kept = (struct message){bytes, message.n};
    return 0;
}

static void hear(struct machines *m, struct row *row, uint64_t now_ms)
{
    row->heard_ms = now_ms;
    if (!row->lost)
        return;
    row->lost = false;
    tell(m, row->machine, MACHINES_BACK);
}

static int take_description(struct machines *m, uint64_t now_ms, struct span message)
{
    struct row *row;
    int err = machine_read_description(message, &m->description);
    if (err == 0)
        err = obtain(m, m->description.machine, &row);
    if (err != 0)
        return err;
    bool same = span_eq((struct span){row->description.bytes, row->description.n}, message);
    err = same ? 0 : keep(&row->description, message);
    if (err != 0)
        return err;
    uint64_t interval_ms = m->description.about.interval_ms;
    interval_ms = interval_ms < INTERVAL_MAX_MS ? interval_ms : INTERVAL_MAX_MS;
    row->lost_after_ms = LOST_INTERVALS * interval_ms > LOST_MS ? LOST_INTERVALS * interval_ms : LOST_MS;
    hear(m, row, now_ms);
    if (!same)
        tell(m, row->machine, MACHINES_DESCRIBED);
    return 0;
}

static int take_tick(struct machines *m, uint64_t now_ms, uint64_t time_ms, struct span message)
{
    struct row *row;
    int err = machine_read_tick(message, &m->tick);
    if (err == 0)
        err = obtain(m, m->tick.machine, &row);
    if (err == 0)
        err = keep(&row->tick, message);
    if (err != 0)
        return err;
    history_add(row->history, time_ms, &m->tick);
    hear(m, row, now_ms);
    tell(m, row->machine, MACHINES_TICKED);
    return 0;
}

int machines_take(struct machines *m, uint64_t now_ms, uint64_t time_ms, struct span message)
{
    uint64_t machine, revision;
    int kind = machine_read_head(message, &machine, &revision);
    switch (kind) {
    case MACHINE_DESCRIPTION:
        return take_description(m, now_ms, message);
    case MACHINE_TICK:
        return take_tick(m, now_ms, time_ms, message);
    default:
        return kind < 0 ? kind : ERR_KIND;
    }
}

static int obtain_lost(struct machines *m, uint64_t machine, uint64_t now_ms, struct row **row)
{
    *row = find(m, machine);
    if (*row)
        return 0;
    if (m->n == m->options.max)
        return ERR_LIMIT;
    int err = obtain(m, machine, row);
    if (err == 0) {
        (*row)->lost = true;
        (*row)->heard_ms = now_ms > FORGET_MS ? now_ms - FORGET_MS + 1 : 0;
    }
    return err;
}

int machines_restore(struct machines *m, uint64_t machine, uint64_t now_ms, struct span message)
{
    struct row *row;
    int err = machine_read_description(message, &m->description);
    if (err == 0 && m->description.machine != machine)
        err = ERR_MACHINE;
    if (err == 0)
        err = obtain_lost(m, machine, now_ms, &row);
    if (err != 0 || row->description.n > 0)
        return err;
    err = keep(&row->description, message);
    if (err == 0)
        tell(m, machine, MACHINES_DESCRIBED);
    return err;
}

int machines_restore_history(struct machines *m, uint64_t machine, uint64_t now_ms, uint64_t time_ms,
                             struct span blocks)
{
    uint64_t oldest_ms, newest_ms;
    struct row *row;
    int err = obtain_lost(m, machine, now_ms, &row);
    if (err == 0)
        err = history_read(row->history, time_ms, blocks);
    if (err != 0 || !row->lost || !history_range(row->history, HISTORY_SECONDS, &oldest_ms, &newest_ms))
        return err;
    uint64_t silent_ms = time_ms > newest_ms ? time_ms - newest_ms : 0;
    uint64_t heard_ms = now_ms > silent_ms ? now_ms - silent_ms : 0;
    row->heard_ms = row->heard_ms > heard_ms ? row->heard_ms : heard_ms;
    return 0;
}

void machines_expire(struct machines *m, uint64_t now_ms)
{
    for (unsigned i = 0; i < m->n;) {
        struct row *row = &m->rows[i];
        uint64_t silent_ms = now_ms - row->heard_ms;
        if (silent_ms >= FORGET_MS) {
            forget(m, row);
            continue;
        }
        if (!row->lost && silent_ms >= row->lost_after_ms) {
            row->lost = true;
            tell(m, row->machine, MACHINES_LOST);
        }
        i++;
    }
}

unsigned machines_count(const struct machines *m)
{
    return m->n;
}

static void show(const struct row *row, uint64_t now_ms, struct machines_row *out)
{
    *out = (struct machines_row){
        .machine = row->machine,
        .lost = row->lost,
        .silent_ms = now_ms - row->heard_ms,
        .description = {row->description.bytes, row->description.n},
        .tick = {row->tick.bytes, row->tick.n},
        .history = row->history,
    };
}

void machines_at(const struct machines *m, unsigned index, uint64_t now_ms, struct machines_row *row)
{
    show(&m->rows[index], now_ms, row);
}

bool machines_find(const struct machines *m, uint64_t machine, uint64_t now_ms, struct machines_row *row)
{
    const struct row *found = find(m, machine);
    if (found)
        show(found, now_ms, row);
    return found != NULL;
}

static int print(msgpack_sbuffer *b, const char *text)
{
    return msgpack_sbuffer_write(b, text, strlen(text)) == 0 ? 0 : ERR_MEMORY;
}

static int print_row(struct machines *m, const struct row *row, uint64_t now_ms, msgpack_sbuffer *b)
{
    char id[MACHINE_ID_BYTES], text[128];
    machine_id(id, row->machine);
    snprintf(text, sizeof(text),
             "{\"id\":\"%s\",\"state\":\"%s\",\"silent_ms\":%" PRIu64 ",\"description\":", id,
             row->lost ? "lost" : "live", now_ms - row->heard_ms);
    int err = print(b, text);
    if (row->description.n == 0)
        err |= print(b, "null");
    else if (machine_read_description((struct span){row->description.bytes, row->description.n},
                                      &m->description) == 0)
        err |= machine_description_json(b, &m->description);
    err |= print(b, ",\"tick\":");
    if (row->tick.n == 0)
        err |= print(b, "null");
    else if (machine_read_tick((struct span){row->tick.bytes, row->tick.n}, &m->tick) == 0)
        err |= machine_tick_json(b, &m->tick);
    return err | print(b, "}");
}

int machines_json(struct machines *m, uint64_t now_ms, msgpack_sbuffer *b)
{
    size_t before = b->size;
    int err = print(b, "{\"machines\":[");
    for (unsigned i = 0; i < m->n; i++) {
        err |= i > 0 ? print(b, ",") : 0;
        err |= print_row(m, &m->rows[i], now_ms, b);
    }
    err |= print(b, "]}");
    if (err == 0)
        return 0;
    b->size = before;
    return ERR_MEMORY;
}
