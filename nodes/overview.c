#include "overview.h"
#include "json.h"
#include "limit.h"
#include "utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SILENT_MS = 3000, NAME_BYTES = 65, CELL_BYTES = 32 };

/* ---- values ---- */

static bool is_json(const char *text)
{
    struct span span = text ? span_of(text) : (struct span){"", 0};
    return span.n > 0 && utf8_valid(span.p, span.n) && json_check(span, LIMIT_JSON_DEPTH) == 0;
}

/* NAN: null, or nothing. What follows a number in JSON is no part of one. */
static double number(struct span object, const char *key)
{
    struct span value = json_get(object, key);
    return json_type(value) == JSON_NUMBER ? strtod(value.p, NULL) : NAN;
}

/* A terminal must not be told what to do by a name. */
static const char *text(struct span object, const char *key, char out[NAME_BYTES])
{
    ssize_t n = json_string(json_get(object, key), out, NAME_BYTES - 1);
    out[n > 0 ? n : 0] = '\0';
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return out;
}

static double sum_of(struct span array, const char *key)
{
    struct json_cursor c = json_open(array);
    struct span item;
    double sum = 0;
    while (json_item(&c, &item))
        sum += number(item, key);
    return sum;
}

/* ---- cells ---- */

static const char *plain(double value, int decimals, char out[CELL_BYTES])
{
    if (isnan(value))
        return "-";
    snprintf(out, CELL_BYTES, "%.*f", decimals, value);
    return out;
}

static const char *bytes(double value, char out[CELL_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;
    if (isnan(value))
        return "-";
    while (value >= 1000 && unit < 4) {
        value /= 1024;
        unit++;
    }
    snprintf(out, CELL_BYTES, "%.*f %s", unit > 0 && value < 10 ? 1 : 0, value, units[unit]);
    return out;
}

static const char *time_us(double us, char out[CELL_BYTES])
{
    if (isnan(us))
        return "-";
    if (us < 1000)
        snprintf(out, CELL_BYTES, "%.0f us", us);
    else
        snprintf(out, CELL_BYTES, "%.*f ms", us < 10000 ? 1 : 0, us / 1000);
    return out;
}

static const char *duration(double seconds, char out[CELL_BYTES])
{
    if (isnan(seconds))
        return "-";
    unsigned long s = (unsigned long)seconds;
    if (s < 60)
        snprintf(out, CELL_BYTES, "%lu s", s);
    else if (s < 3600)
        snprintf(out, CELL_BYTES, "%lu min", s / 60);
    else if (s < 86400)
        snprintf(out, CELL_BYTES, "%lu h %lu min", s / 3600, s % 3600 / 60);
    else
        snprintf(out, CELL_BYTES, "%lu d %lu h", s / 86400, s % 86400 / 3600);
    return out;
}

/* ---- nodes ---- */

struct sums {
    unsigned live, all;
    double sessions, emits, deliveries, out, cpu, rss;
};

static double sessions_of(struct span node)
{
    return number(node, "sessions_polling") + number(node, "sessions_websocket");
}

static const char *state_of(struct span node, char out[NAME_BYTES])
{
    if (strcmp(text(node, "life", out), "live") != 0)
        return out;
    return number(node, "silent_ms") > SILENT_MS ? "silent" : text(node, "state", out);
}

static void add(struct sums *s, struct span node)
{
    char life[NAME_BYTES];
    s->all++;
    if (strcmp(text(node, "life", life), "live") != 0)
        return;
    s->live++;
    s->sessions += sessions_of(node);
    s->emits += number(node, "emits_per_s");
    s->deliveries += number(node, "deliveries_per_s");
    s->out += number(node, "bytes_out_per_s");
    s->cpu += number(node, "cpu_pct");
    s->rss += number(node, "rss_bytes");
}

/* Of the other nodes those that it hears, and all. */
static const char *mesh_of(struct span node, char out[CELL_BYTES])
{
    struct json_cursor c = json_open(json_get(node, "links"));
    struct span link;
    unsigned heard = 0, all = 0;
    for (; json_item(&c, &link); all++)
        heard += number(link, "silent_ms") <= SILENT_MS;
    snprintf(out, CELL_BYTES, "%u of %u", heard, all);
    return out;
}

static void print_node(FILE *out, struct span node)
{
    char name[NAME_BYTES], host[NAME_BYTES], state[NAME_BYTES], store[NAME_BYTES], cell[10][CELL_BYTES];
    bool has_mirror = strcmp(text(node, "store", store), "none") != 0;
    fprintf(out, "%-16s %-14s %-9s %7s %9s %9s %9s %9s %9s %8s %6s %7s %4s\n", text(node, "name", name),
            text(node, "host", host), state_of(node, state), plain(number(node, "cpu_pct"), 1, cell[0]),
            bytes(number(node, "rss_bytes"), cell[1]), plain(sessions_of(node), 0, cell[2]),
            plain(number(node, "emits_per_s"), 1, cell[3]),
            plain(number(node, "deliveries_per_s"), 1, cell[4]),
            time_us(number(node, "loop_p99_us"), cell[5]), mesh_of(node, cell[6]),
            plain(number(node, "mesh_holes_total"), 0, cell[7]),
            has_mirror ? plain(number(node, "mirror_behind"), 0, cell[8]) : "-",
            plain(number(node, "restarts"), 0, cell[9]));
}

static void print_nodes(FILE *out, struct span all)
{
    struct sums s = {.live = 0};
    struct json_cursor c = json_open(all);
    struct span node;
    char cell[CELL_BYTES], more[CELL_BYTES];
    while (json_item(&c, &node))
        add(&s, node);
    fprintf(out, "%u of %u nodes live, %.0f sessions, %.1f emits/s, %.1f messages/s out, %s/s, ", s.live,
            s.all, s.sessions, s.emits, s.deliveries, bytes(s.out, cell));
    fprintf(out, "%.1f %% of a core, %s\n\n", s.cpu, bytes(s.rss, more));
    fprintf(out, "%-16s %-14s %-9s %7s %9s %9s %9s %9s %9s %8s %6s %7s %4s\n", "NODE", "HOST", "STATE",
            "CPU_PCT", "MEMORY", "SESSIONS", "EMITS/S", "OUT/S", "LOOP_P99", "MESH", "HOLES", "MIRROR",
            "RST");
    c = json_open(all);
    while (json_item(&c, &node))
        print_node(out, node);
}

/* ---- machines ---- */

static void print_machine(FILE *out, struct span machine)
{
    char name[NAME_BYTES], state[NAME_BYTES], cell[9][CELL_BYTES];
    struct span tick = json_get(machine, "tick"), memory = json_get(tick, "memory");
    struct span nets = json_get(tick, "interfaces"), disks = json_get(tick, "disks");
    double total = number(memory, "total_bytes");
    if (!*text(json_get(machine, "description"), "name", name))
        text(machine, "id", name);
    text(machine, "state", state);
    fprintf(out, "%-31s %-9s %7s %9s %9s %9s %10s %10s %10s %10s %12s\n", name, state,
            plain(number(json_get(tick, "cpu"), "busy_pct"), 1, cell[0]),
            bytes(total - number(memory, "available_bytes"), cell[1]), bytes(total, cell[2]),
            plain(number(json_get(tick, "load"), "one"), 2, cell[3]),
            bytes(sum_of(nets, "rx_bytes_s"), cell[4]), bytes(sum_of(nets, "tx_bytes_s"), cell[5]),
            bytes(sum_of(disks, "read_bytes_s"), cell[6]), bytes(sum_of(disks, "write_bytes_s"), cell[7]),
            duration(number(tick, "uptime_s"), cell[8]));
}

static void print_machines(FILE *out, struct span all)
{
    struct json_cursor c = json_open(all);
    struct span machine;
    bool is_first = true;
    while (json_item(&c, &machine)) {
        if (is_first)
            fprintf(out, "\n%-31s %-9s %7s %9s %9s %9s %10s %10s %10s %10s %12s\n", "MACHINE", "STATE",
                    "CPU_PCT", "MEMORY", "OF", "LOAD", "NET_IN/S", "NET_OUT/S", "READ/S", "WRITE/S", "UP");
        is_first = false;
        print_machine(out, machine);
    }
}

void overview_print(FILE *out, const char *nodes, const char *machines)
{
    if (is_json(nodes))
        print_nodes(out, json_get(span_of(nodes), "nodes"));
    if (is_json(machines))
        print_machines(out, json_get(span_of(machines), "machines"));
}
