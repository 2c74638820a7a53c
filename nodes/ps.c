/* `ps` and `top`: what the supervisor knows of the processes, what the kernel does, and what the nodes say; `top` also how
 * the whole cluster is (overview.h). */
#include "fetch.h"
#include "json.h"
#include "overview.h"
#include "verb.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_MS = 1000, SAMPLE_MS = 250, TOP_EVERY_MS = 1000, ROWS_MAX = RUNDIR_NODES_MAX + 4 };

static uint64_t now_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What a node is asked twice, to tell rates. A value that cannot be had is -1. */
struct sample {
    uint64_t at_ms;
    double cpu_s, emits, sessions, rss_bytes;
};

/* The sum of all samples of one metric. */
static double metric_sum(const char *text, const char *name)
{
    size_t n = strlen(name);
    double sum = -1;

    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        const char *end;
        line += *line == '\n';
        if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '{'))
            continue;
        end = line + strcspn(line, "\n");
        while (end > line && end[-1] != ' ')
            end--;
        sum = (sum < 0 ? 0 : sum) + strtod(end, NULL);
    }
    return sum;
}

/* CPU time and memory from /proc: they are there when the node does not answer. */
static void sample_process(pid_t pid, struct sample *sample)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    long pages = 0;
    const char *rest;
    size_t n;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return;
    n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    rest = strrchr(text, ')'); /* the name before it may hold anything */
    if (rest &&
        sscanf(rest,
               ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
               &user, &system, &pages) == 3) {
        sample->cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        sample->rss_bytes = (double)pages * (double)sysconf(_SC_PAGESIZE);
    }
}

/* The process of a row behind the nodes, those of a reload last; NULL: no more. */
static const struct process_record *other_at(const struct rundir_state *state, unsigned i, const char **name)
{
    const struct process_record *others[] = {&state->agent, &state->redis, &state->next.process,
                                             &state->old.process};
    static const char *const names[] = {"agent", "redis", "next", "old"};

    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        bool is_there = others[k]->pid > 0 || (k < 2 && strcmp(others[k]->state, "stopped") != 0);
        if (is_there && i-- == 0) {
            *name = names[k];
            return others[k];
        }
    }
    return NULL;
}

struct row {
    char name[16];
    struct rundir_node node; /* port 0: another process */
};

static bool row_at(const struct rundir_state *state, unsigned i, struct row *row)
{
    const char *name;
    const struct process_record *other;

    if (i < state->nodes_n) {
        snprintf(row->name, sizeof row->name, "%u", i);
        row->node = state->nodes[i];
        return true;
    }
    other = other_at(state, i - state->nodes_n, &name);
    if (!other)
        return false;
    snprintf(row->name, sizeof row->name, "%s", name);
    row->node = (struct rundir_node){.process = *other, .core = -1};
    return true;
}

static unsigned count_rows(const struct rundir_state *state)
{
    struct row row;
    unsigned n = state->nodes_n;

    while (row_at(state, n, &row))
        n++;
    return n;
}

/* A node that did not answer the first time is not asked again: it would cost its time-out twice. */
static struct sample take_sample(const char *address, const struct rundir_node *node, bool ask)
{
    struct sample sample = {now_ms(CLOCK_MONOTONIC), -1, -1, -1, -1};
    struct fetch answer;

    if (node->process.pid <= 0)
        return sample;
    sample_process(node->process.pid, &sample);
    if (ask && node->port > 0 && strcmp(node->process.state, "ready") == 0 &&
        fetch(address, (uint16_t)node->port, "/metrics", NULL, TIMEOUT_MS, &answer) == 0) {
        if (answer.status == 200) {
            sample.emits = metric_sum(answer.body, "starling_emits_total");
            sample.sessions = metric_sum(answer.body, "starling_sessions");
        }
        free(answer.body);
    }
    return sample;
}

/* Every field of a node as text, "null" where there is nothing to tell. */
enum { FIELD_COUNT = 11, FIELD_SIZE = 32 };
static const struct {
    const char *key, *title;
    int width;
    bool is_for_all; /* and not for nodes alone */
} fields[FIELD_COUNT] = {{"index", "NODE", 5, false},
                         {"pid", "PID", 9, true},
                         {"core", "CORE", 6, false},
                         {"port", "PORT", 7, false},
                         {"state", "STATE", 11, true},
                         {"uptime_s", "UPTIME_S", 10, true},
                         {"restarts", "RESTARTS", 10, true},
                         {"cpu_pct", "CPU_PCT", 9, true},
                         {"rss_bytes", "RSS_BYTES", 12, true},
                         {"sessions", "SESSIONS", 10, false},
                         {"emits_per_s", "EMITS_PER_S", 13, false}};

static void put_field(char out[FIELD_SIZE], bool known, int decimals, double value)
{
    if (known)
        snprintf(out, FIELD_SIZE, "%.*f", decimals, value);
    else
        snprintf(out, FIELD_SIZE, "null");
}

struct fields {
    char text[FIELD_COUNT][FIELD_SIZE];
};

static struct fields describe(const struct row *row, const struct sample *first, const struct sample *second)
{
    const struct rundir_node *node = &row->node;
    struct fields f;
    bool lives = node->process.pid > 0;
    double seconds = (double)(second->at_ms - first->at_ms) / 1000;

    snprintf(f.text[0], FIELD_SIZE, "%s", row->name);
    put_field(f.text[1], lives, 0, node->process.pid);
    put_field(f.text[2], node->core >= 0, 0, node->core);
    put_field(f.text[3], node->port > 0, 0, node->port);
    snprintf(f.text[4], FIELD_SIZE, "%s", node->process.state);
    put_field(f.text[5], lives, 0, (double)((now_ms(CLOCK_BOOTTIME) - node->process.started_ms) / 1000));
    put_field(f.text[6], true, 0, node->process.restarts);
    put_field(f.text[7], first->cpu_s >= 0 && second->cpu_s >= first->cpu_s, 1,
              100 * (second->cpu_s - first->cpu_s) / seconds);
    put_field(f.text[8], second->rss_bytes >= 0, 0, second->rss_bytes);
    put_field(f.text[9], second->sessions >= 0, 0, second->sessions);
    put_field(f.text[10], first->emits >= 0 && second->emits >= first->emits, 1,
              (second->emits - first->emits) / seconds);
    return f;
}

static void print_json(const struct fields *f, bool is_node)
{
    const char *before = "{";

    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *quote = strcmp(fields[i].key, "state") == 0 ? "\"" : "";
        if (!is_node && !fields[i].is_for_all)
            continue;
        printf("%s\"%s\":%s%s%s", before, fields[i].key, quote, f->text[i], quote);
        before = ",";
    }
    putchar('}');
}

static void print_row(const struct fields *f)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        printf("%*s", fields[i].width, strcmp(f->text[i], "null") == 0 ? "-" : f->text[i]);
    putchar('\n');
}

static void print_titles(void)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        printf("%*s", fields[i].width, fields[i].title);
    putchar('\n');
}

/* The contract's own fields; more may be added. */
static void print_redis(const struct rundir_state *state)
{
    char url[JSON_QUOTED_MAX(sizeof state->redis_url)];

    if (!state->redis_url[0]) {
        printf("null");
        return;
    }
    if (state->redis.pid > 0)
        printf("{\"pid\":%d", (int)state->redis.pid);
    else
        printf("{\"pid\":null");
    if (strcmp(state->redis.state, "stopped") != 0)
        printf(",\"state\":\"%s\",\"restarts\":%u", state->redis.state, state->redis.restarts);
    printf(",\"url\":%.*s}", (int)json_quote(url, span_of(state->redis_url)), url);
}

static void take_first_samples(const struct rundir_state *state, struct sample *first)
{
    struct row row;

    for (unsigned i = 0; row_at(state, i, &row); i++)
        first[i] = take_sample(state->bind, &row.node, true);
}

static struct fields describe_again(const char *address, const struct row *row, const struct sample *first,
                                    struct sample *second)
{
    *second = take_sample(address, &row->node, first->emits >= 0);
    return describe(row, first, second);
}

static void print_rows(const struct rundir_state *state, const struct sample *first, struct sample *second)
{
    struct row row;

    print_titles();
    for (unsigned i = 0; row_at(state, i, &row); i++) {
        struct fields f = describe_again(state->bind, &row, &first[i], &second[i]);
        print_row(&f);
    }
}

static void print_state(pid_t supervisor, const struct rundir_state *state, const struct sample *first,
                        struct sample *second)
{
    bool has_agent = strcmp(state->agent.state, "stopped") != 0; /* whose row is the first behind the nodes */
    struct row row;

    printf("{\"supervisor\":{\"pid\":%d},\"redis\":", (int)supervisor);
    print_redis(state);
    printf(",\"nodes\":[");
    for (unsigned i = 0; i < state->nodes_n + has_agent && row_at(state, i, &row); i++) {
        struct fields f = describe_again(state->bind, &row, &first[i], &second[i]);
        bool is_node = i < state->nodes_n;
        printf("%s", !is_node ? "],\"agent\":" : i > 0 ? "," : "");
        print_json(&f, is_node);
    }
    printf("%s}\n", has_agent ? "" : "],\"agent\":null");
}

int verb_ps(int argc, char **argv)
{
    struct timespec pause = {0, SAMPLE_MS * 1000000};
    struct sample first[ROWS_MAX], second[ROWS_MAX];
    struct verb_options o;
    struct rundir dir;
    struct rundir_state state;
    pid_t supervisor;
    int rc = verb_find(argc, argv, " --run-dir --json ", 0, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (verb_ask_state("ps", &dir, &state) != 0)
        return 1;
    take_first_samples(&state, first);
    nanosleep(&pause, NULL);
    if (o.json)
        print_state(supervisor, &state, first, second);
    else
        print_rows(&state, first, second);
    return 0;
}

/* ---- top ---- */

static void print_sums(const struct rundir_state *state, const struct sample *first,
                       const struct sample *second)
{
    double cpu = 0, rss = 0, sessions = 0, emits = 0;
    unsigned restarts = 0;
    struct row row;

    for (unsigned i = 0; row_at(state, i, &row); i++) {
        double seconds = (double)(second[i].at_ms - first[i].at_ms) / 1000;
        restarts += row.node.process.restarts;
        rss += second[i].rss_bytes > 0 ? second[i].rss_bytes : 0;
        sessions += second[i].sessions > 0 ? second[i].sessions : 0;
        if (seconds <= 0)
            continue;
        if (first[i].cpu_s >= 0 && second[i].cpu_s >= first[i].cpu_s)
            cpu += 100 * (second[i].cpu_s - first[i].cpu_s) / seconds;
        if (first[i].emits >= 0 && second[i].emits >= first[i].emits)
            emits += (second[i].emits - first[i].emits) / seconds;
    }
    printf("%5s%53u%9.1f%12.0f%10.0f%13.1f\n", "ALL", restarts, cpu, rss, sessions, emits);
}

/* What any node says of all of them, and of the machines. */
static void print_cluster(const struct rundir_state *state)
{
    for (unsigned i = 0; i < state->nodes_n; i++) {
        const struct rundir_node *node = &state->nodes[i];
        struct fetch nodes, machines;
        if (node->port == 0 || strcmp(node->process.state, "ready") != 0 ||
            fetch(state->bind, (uint16_t)node->port, "/api/v1/nodes", NULL, TIMEOUT_MS, &nodes) != 0)
            continue;
        bool has_machines =
            fetch(state->bind, (uint16_t)node->port, "/api/v1/machines", NULL, TIMEOUT_MS, &machines) == 0;
        putchar('\n');
        overview_print(stdout, nodes.body, has_machines ? machines.body : NULL);
        free(nodes.body);
        if (has_machines)
            free(machines.body);
        return;
    }
}

/* Without the user and the password, which are nothing for a screen. */
static const char *redis_place(const char *url)
{
    const char *at = strrchr(url, '@');

    return at ? at + 1 : url[0] ? url : "none";
}

/* One screen from the samples of a second ago, and new samples. The processes may be others by now. */
static void print_screen(const struct rundir_state *state, struct sample *first, pid_t supervisor,
                         bool is_first)
{
    struct sample second[ROWS_MAX];

    if (is_first)
        take_first_samples(state, first);
    printf("\033[H\033[2Jstarling: http://%s:%" PRIu32 ", supervisor %d, redis %s%s\n\n", state->bind,
           state->port, (int)supervisor, redis_place(state->redis_url),
           state->reloading ? ", reloading" : "");
    print_rows(state, first, second);
    print_sums(state, first, second);
    print_cluster(state);
    printf("\nCtrl-C ends this\n");
    fflush(stdout);
    memcpy(first, second, count_rows(state) * sizeof *first);
}

int verb_top(int argc, char **argv)
{
    struct sample first[ROWS_MAX];
    struct verb_options o;
    struct rundir dir;
    struct rundir_state state;
    pid_t supervisor;
    unsigned rows = 0;
    int rc = verb_find(argc, argv, " --run-dir ", 0, &o, &dir, &supervisor);

    if (rc != 0)
        return rc;
    if (!isatty(STDOUT_FILENO)) {
        fprintf(stderr, "starling top: standard output is no terminal; starling ps prints once\n");
        return 1;
    }
    for (;;) {
        supervisor = rundir_holder(&dir);
        if (verb_ask_state("top", &dir, &state) != 0)
            return 1;
        print_screen(&state, first, supervisor, count_rows(&state) != rows);
        rows = count_rows(&state);
        verb_sleep_ms(TOP_EVERY_MS);
    }
}
