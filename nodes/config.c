/* One table (config.def) becomes an array of rows; everything here walks that array. */
#include "config.h"
#include "check.h"
#include "mesh.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, LINE_MAX_BYTES = 4096, LIST_MAX_BYTES = 65536 };

enum kind { UINT, INT, FLAG, TEXT, LIST, LEVEL };
enum when { RESTART, RELOAD };
enum source { FROM_DEFAULT, FROM_FILE, FROM_COMMAND };

#define NODE CONFIG_NODE
#define UP   CONFIG_UP
#define BOTH (CONFIG_NODE | CONFIG_UP)

struct row {
    enum kind kind;
    size_t at; /* of its field in struct config */
    const char *key, *argument, *value;
    int64_t min, max;
    bool (*check)(const char *item); /* of a text, or of each item of a list */
    const char *takes;
    int who;
    enum when when;
    const char *help;
};

static const struct row table[] = {
#define X(kind, field, key, argument, value, min, max, check, takes, who, when, help)                        \
    {kind, offsetof(struct config, field), key, argument, value, min, max, check, takes, who, when, help},
#include "config.def"
#undef X
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static const char *program_name(enum config_program program)
{
    return program == CONFIG_NODE ? "starling-node" : "starling up";
}

/* Where an option was found, for messages. */
struct place {
    enum config_program program;
    enum source source;
    const char *file;
    unsigned line;
};

__attribute__((format(printf, 2, 3))) static int fail(const struct place *where, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", program_name(where->program));
    if (where->source == FROM_FILE)
        fprintf(stderr, "%s:%u: ", where->file, where->line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return EXIT_USAGE;
}

static int fail_value(const struct place *where, const struct row *row, const char *value)
{
    const char *dashes = where->source == FROM_FILE ? "" : "--";
    char takes[128];

    if (row->takes)
        snprintf(takes, sizeof takes, "%s", row->takes);
    else if (row->kind == FLAG)
        snprintf(takes, sizeof takes, "yes or no");
    else
        snprintf(takes, sizeof takes, "a number from %" PRId64 " to %" PRId64, row->min, row->max);
    if (value)
        return fail(where, "%s%s takes %s, not \"%s\"", dashes, row->key, takes, value);
    return fail(where, "%s%s takes %s", dashes, row->key, takes);
}

static bool parse_number(const struct row *row, const char *value, int64_t *number)
{
    char *end = NULL;
    bool negative = value[0] == '-' && isdigit((unsigned char)value[1]);

    if (!isdigit((unsigned char)value[0]) && !negative)
        return false;
    errno = 0;
    *number = strtoll(value, &end, 10);
    return errno == 0 && *end == '\0' && *number >= row->min && *number <= row->max;
}

static bool parse_flag(const char *value, bool *flag)
{
    static const char *const words[] = {"no", "yes", "off", "on", "false", "true"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(value, words[i]) == 0) {
            *flag = i % 2;
            return true;
        }
    }
    return false;
}

static bool set_text(char **field, const char *text)
{
    char *copy = strdup(text);

    if (!copy)
        return false;
    free(*field);
    *field = copy;
    return true;
}

/* Adds the items of value to the list at field, or starts it anew. Blanks around items go. */
static bool set_list(const struct row *row, char **field, const char *value, bool append)
{
    size_t kept = append ? strlen(*field) : 0;
    char *list = malloc(kept + strlen(value) + 2);
    char *items = strdup(value), *rest = items;
    bool good = list && items && kept + strlen(value) < LIST_MAX_BYTES;

    if (good)
        memcpy(list, *field ? *field : "", kept);
    for (char *item = good ? strsep(&rest, ",") : NULL; item && good; item = strsep(&rest, ",")) {
        size_t n;
        item += strspn(item, " \t");
        n = strcspn(item, " \t");
        good = item[n + strspn(item + n, " \t")] == '\0';
        item[n] = '\0';
        good = good && n > 0 && row->check(item);
        if (good && kept > 0)
            list[kept++] = ',';
        if (good)
            memcpy(list + kept, item, n);
        kept += good ? n : 0;
    }
    free(items);
    if (!good) {
        free(list);
        return false;
    }
    list[kept] = '\0';
    free(*field);
    *field = list;
    return true;
}

/* Sets the option when the value is good: false when it is not. */
static bool set_value(struct config *config, const struct row *row, const char *value, bool append)
{
    void *field = (char *)config + row->at;
    int64_t number = 0;

    switch (row->kind) {
    case UINT:
        if (!parse_number(row, value, &number) || (row->check && !row->check(value)))
            return false;
        *(uint32_t *)field = (uint32_t)number;
        return true;
    case INT:
        if (!parse_number(row, value, &number))
            return false;
        *(int32_t *)field = (int32_t)number;
        return true;
    case FLAG: {
        bool flag = false;
        if (!parse_flag(value, &flag) || (row->check && !row->check(flag ? "yes" : "no")))
            return false;
        *(bool *)field = flag;
        return true;
    }
    case LEVEL:
        return log_level_parse(value, field) == 0;
    case TEXT:
        return (!row->check || row->check(value)) && set_text(field, value);
    case LIST:
        return set_list(row, field, value, append);
    }
    return false;
}

/* The command line wins over the file, the file over the defaults, whatever is read first. */
static int set_option(struct config *config, const struct row *row, const char *value,
                      const struct place *where)
{
    uint8_t *source = &config->source[row - table];
    struct config scratch = {0};
    bool good;

    if (where->source >= *source) {
        bool append = *source == where->source;
        *source = (uint8_t)where->source;
        return set_value(config, row, value, append) ? 0 : fail_value(where, row, value);
    }
    good = set_value(&scratch, row, value, false);
    config_free(&scratch);
    return good ? 0 : fail_value(where, row, value);
}

static const struct row *find_row(const char *key, size_t n, int who)
{
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct row *row = &table[i];
        if ((row->who & who) && strlen(row->key) == n && memcmp(row->key, key, n) == 0)
            return row;
    }
    return NULL;
}

static char *trim(char *text)
{
    char *end;

    text += strspn(text, " \t");
    end = text + strlen(text);
    while (end > text && strchr(" \t\r\n", end[-1]))
        *--end = '\0';
    return text;
}

static int read_line(struct config *config, char *line, const struct place *where)
{
    const struct row *row;
    char *key = trim(line), *equals = strchr(key, '='), *value;

    if (key[0] == '\0' || key[0] == '#')
        return 0;
    if (!equals)
        return fail(where, "expected \"key = value\", not \"%s\"", key);
    *equals = '\0';
    value = trim(equals + 1);
    key = trim(key);
    row = find_row(key, strlen(key), BOTH);
    if (!row)
        return fail(where, "unknown key \"%s\"", key);
    /* One file serves both programs: what is the other's is checked, and then left to it. */
    if (!(row->who & (int)where->program)) {
        struct config scratch = {0};
        bool good = set_value(&scratch, row, value, false);
        config_free(&scratch);
        return good ? 0 : fail_value(where, row, value);
    }
    return set_option(config, row, value, where);
}

static int read_file(struct config *config, const char *path, enum config_program program)
{
    struct place where = {program, FROM_FILE, path, 0};
    char line[LINE_MAX_BYTES];
    FILE *file = fopen(path, "re");
    int rc = 0;

    if (!file) {
        fprintf(stderr, "%s: --config takes a file that can be read, not \"%s\": %s\n", program_name(program),
                path, strerror(errno));
        return EXIT_USAGE;
    }
    while (rc == 0 && fgets(line, sizeof line, file)) {
        where.line++;
        if (!strchr(line, '\n') && !feof(file))
            rc = fail(&where, "a line takes up to %d bytes", LINE_MAX_BYTES - 2);
        else
            rc = read_line(config, line, &where);
    }
    if (rc == 0 && ferror(file)) {
        fprintf(stderr, "%s: cannot read %s: %s\n", program_name(program), path, strerror(errno));
        rc = 1;
    }
    fclose(file);
    return rc;
}

static int show_help(enum config_program program)
{
    if (program == CONFIG_NODE)
        printf("usage: starling-node [options]\n\nOne node of the event bus, in the foreground.\n\n");
    else
        printf("usage: starling up [options]\n\nRuns the event bus in the foreground.\n\n");
    config_print_options(stdout, program);
    return CONFIG_SHOWN;
}

/* One option of the command line with what may follow it; *used is 2 when the next argument is its value. */
static int read_argument(struct config *config, const char *text, const char *next, const struct place *where,
                         int *used)
{
    const char *key = strncmp(text, "--", 2) == 0 ? text + 2 : strcmp(text, "-n") == 0 ? "nodes" : NULL;
    const char *value = key ? strchr(key, '=') : NULL;
    size_t n = key ? (value ? (size_t)(value - key) : strlen(key)) : 0;
    const struct row *row = key ? find_row(key, n, (int)where->program) : NULL;
    bool is_file = n == 6 && memcmp(key, "config", n) == 0;

    *used = 1;
    if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)
        return show_help(where->program);
    if (strcmp(text, "--version") == 0) {
        printf("%s %s\n", program_name(where->program), STARLING_VERSION);
        return CONFIG_SHOWN;
    }
    if (!row && !is_file && text[0] == '-')
        return fail(where, "unknown option %.*s (see --help)", (int)strcspn(text, "="), text);
    if (!row && !is_file)
        return fail(where, "unexpected argument \"%s\" (see --help)", text);
    if (value) {
        value++;
    } else if (row && row->kind == FLAG) {
        value = "yes";
    } else {
        value = next;
        *used = 2;
    }
    if (!value && is_file)
        return fail(where, "--config takes a file");
    if (!value)
        return fail_value(where, row, NULL);
    return is_file ? read_file(config, value, where->program) : set_option(config, row, value, where);
}

static int set_defaults(struct config *config)
{
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct row *row = &table[i];
        bool is_text = row->kind == TEXT || row->kind == LIST;
        bool good = is_text ? set_text((char **)(void *)((char *)config + row->at), row->value)
                            : set_value(config, row, row->value, false);
        if (!good) {
            fprintf(stderr, "starling: out of memory\n");
            return 1;
        }
    }
    return 0;
}

static int set_name(struct config *config)
{
    char host[HOST_NAME_MAX + 1] = "";

    if (config->name[0])
        return 0;
    if (gethostname(host, sizeof host - 1) != 0 || !host[0] || !check_name(host))
        snprintf(host, sizeof host, "node");
    return set_text(&config->name, host) ? 0 : 1;
}

/* What must not be seen in a list of processes may come from there. */
static int read_environment(struct config *config, const struct place *where)
{
    const char *url = getenv("STARLING_REDIS");

    if (config->redis[0] || !url || !url[0])
        return 0;
    if (!check_redis(url))
        return fail(where, "$STARLING_REDIS takes %s, not \"%s\"", table[CONFIG_OPTION_redis].takes, url);
    return set_text(&config->redis, url) ? 0 : 1;
}

int config_parse(int argc, char **argv, enum config_program program, struct config *config)
{
    struct place where = {program, FROM_COMMAND, NULL, 0};
    int rc, used = 1;

    memset(config, 0, sizeof *config);
    rc = set_defaults(config);
    for (int i = 1; i < argc && rc == 0; i += used)
        rc = read_argument(config, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &where, &used);
    if (rc == 0)
        rc = read_environment(config, &where);
    if (rc == 0)
        rc = set_name(config);
    return rc ? rc : config_check(config, program);
}

void config_free(struct config *config)
{
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        if (table[i].kind == TEXT || table[i].kind == LIST) {
            char **field = (char **)(void *)((char *)config + table[i].at);
            free(*field);
            *field = NULL;
        }
    }
}

int config_check(const struct config *config, enum config_program program)
{
    const struct place where = {program, FROM_COMMAND, NULL, 0};
    bool is_loopback = strncmp(config->bind, "127.", 4) == 0;

    if (!is_loopback && !config->insecure)
        return fail(
            &where,
            "--bind %s would let everyone who reaches that address do everything: authentication is not "
            "configured (it is not in this version); --insecure accepts that",
            config->bind);
    if (program == CONFIG_NODE && config->node_port == config->port)
        return fail(&where, "--node-port takes another port than --port, not %" PRIu32, config->port);
    if (program == CONFIG_UP && config->port == 65535)
        return fail(&where,
                    "--port takes a number from 1 to 65534, since the next port is the node's own, not "
                    "\"65535\"");
    if ((config->mesh_port || config->peers[0]) && !config->advertise[0] &&
        strcmp(config->bind, "0.0.0.0") == 0)
        return fail(&where,
                    "--bind 0.0.0.0 needs --advertise with the address by which other hosts reach this one");
    if (config->cors_credentials && !config->cors[0])
        return fail(&where, "--cors-credentials needs --cors");
    if (program == CONFIG_NODE && strcmp(config->redis, "private") == 0)
        return fail(&where, "--redis private is what starling up takes; a node takes a URL or none");
    if (program == CONFIG_NODE && config->no_pin && config->core >= 0)
        return fail(&where, "--core and --no-pin exclude each other");
    return 0;
}

bool config_list_has(const char *list, struct span item)
{
    return span_in_list(list, item) || span_in_list(list, SPAN("*"));
}

/* As an argument that read_argument() takes back. */
static char *option_text(const struct config *config, const struct row *row)
{
    const void *field = (const char *)config + row->at;
    char *text = NULL;
    int n = -1;

    switch (row->kind) {
    case UINT:
        n = asprintf(&text, "--%s=%" PRIu32, row->key, *(const uint32_t *)field);
        break;
    case INT:
        n = asprintf(&text, "--%s=%" PRId32, row->key, *(const int32_t *)field);
        break;
    case FLAG:
        n = asprintf(&text, "--%s=%s", row->key, *(const bool *)field ? "yes" : "no");
        break;
    case LEVEL:
        n = asprintf(&text, "--%s=%s", row->key, level_names[*(const enum log_level *)field]);
        break;
    case TEXT:
    case LIST:
        n = asprintf(&text, "--%s=%s", row->key, *(char *const *)field);
        break;
    }
    return n < 0 ? NULL : text;
}

const char *config_find_fixed(const struct config *now, const struct config *wanted,
                              enum config_program program)
{
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        char *a, *b;
        bool same;
        if (table[i].when != RESTART || !(table[i].who & (int)program))
            continue;
        a = option_text(now, &table[i]);
        b = option_text(wanted, &table[i]);
        same = a && b && strcmp(a, b) == 0;
        free(a);
        free(b);
        if (!same)
            return table[i].key;
    }
    return NULL;
}

char **config_node_arguments(const struct config *config)
{
    char **arguments = calloc(CONFIG_OPTION_COUNT + 1, sizeof *arguments);
    size_t n = 0;

    for (size_t i = 0; arguments && i < CONFIG_OPTION_COUNT; i++) {
        if (table[i].who != BOTH || config->source[i] == FROM_DEFAULT || i == CONFIG_OPTION_redis)
            continue;
        arguments[n] = option_text(config, &table[i]);
        if (!arguments[n++]) {
            while (n > 0)
                free(arguments[--n]);
            free(arguments);
            return NULL;
        }
    }
    return arguments;
}

/* The help text in lines of up to width characters, each after the first behind indent blanks. */
static void print_wrapped(FILE *to, const char *text, int indent, size_t width)
{
    size_t column = 0;

    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + n > width) {
            fprintf(to, "\n%*s", indent, "");
            column = 0;
        } else if (column > 0) {
            fputc(' ', to);
            column++;
        }
        fwrite(text, 1, n, to);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

void config_print_options(FILE *to, enum config_program program)
{
    enum { INDENT = 30, WIDTH = 66 };

    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct row *row = &table[i];
        char head[64], help[512];
        bool has_default = row->kind != FLAG && row->value[0];
        if (!(row->who & (int)program))
            continue;
        snprintf(head, sizeof head, "  --%s %s", row->key, row->argument ? row->argument : "");
        snprintf(help, sizeof help, "%s%s%s%s", row->help, has_default ? " (default " : "",
                 has_default ? row->value : "", has_default ? ")" : "");
        fprintf(to, "%-*s", INDENT, head);
        print_wrapped(to, help, INDENT, WIDTH);
    }
    fprintf(to, "%-*s%s\n", INDENT, "  --config FILE", "read options from a file of lines \"key = value\"");
    fprintf(to, "%-*s%s\n", INDENT, "  --help, --version", "show this, or the version, and end");
}

void config_print(FILE *to, const struct config *config, enum config_program program)
{
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct row *row = &table[i];
        char *text = row->who & (int)program ? option_text(config, row) : NULL;
        const char *value = text ? strchr(text, '=') + 1 : NULL;
        /* A file cannot say that a text is empty; a line without it does. */
        if (text)
            fprintf(to, "%s%s =%s%s\n", *value ? "" : "# ", row->key, *value ? " " : "", value);
        free(text);
    }
}

static void print_limits(FILE *to)
{
    fputs("\n# Limits\n\nOf what a remote chooses; they are fixed.\n\n| limit | value |\n|---|---|\n", to);
#define X(name, value, help) fprintf(to, "| %s | %d |\n", help, value);
#include "limits.def"
#undef X
}

void config_print_reference(FILE *to)
{
    fprintf(
        to,
        "# Options\n\nOn the command line as `--key value`, in the file that `--config` names as "
        "`key = value`, one a line, with\ncomments after `#` at the start of a line. The command line wins. "
        "A list may be given several times.\n\n"
        "| key | takes | default | program | takes effect | what it is |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct row *row = &table[i];
        fprintf(to, "| `%s` | ", row->key);
        if (row->kind == UINT || row->kind == INT)
            fprintf(to, "%" PRId64 " … %" PRId64, row->min, row->max);
        else
            fputs(row->kind == FLAG ? "yes or no" : row->takes, to);
        fprintf(to, " | %s%s%s | %s | at a %s | %s |\n", row->value[0] ? "`" : "", row->value,
                row->value[0] ? "`" : "",
                row->who == BOTH   ? "both"
                : row->who == NODE ? "`starling-node`"
                                   : "`starling up`",
                row->when == RESTART ? "restart" : "reload", row->help);
    }
    print_limits(to);
}
