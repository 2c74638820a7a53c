#include "logfile.h"
#include "supervisor_parts.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    OWN_ARGUMENTS = 16, /* at most, beside the shared ones */
    BASE_BYTES = PATH_MAX + 32,
};

static struct supervisor *supervisor_of(struct process_owner *owner)
{
    return (struct supervisor *)(void *)owner;
}

__attribute__((format(printf, 3, 4))) static bool add(char **argv, size_t *n, const char *format, ...)
{
    va_list args;
    int rc;

    va_start(args, format);
    rc = vasprintf(&argv[*n], format, args);
    va_end(args);
    if (rc < 0)
        argv[*n] = NULL;
    *n += rc >= 0;
    return rc >= 0;
}

static int print_base(char *out, size_t size, const struct supervisor *s, unsigned index, unsigned generation)
{
    return snprintf(out, size, "%s/mesh-%u%s", s->dir.path, index, generation ? ".1" : "");
}

bool launch_base(const struct supervisor *s, const struct process *p, char *out, size_t size)
{
    return (size_t)print_base(out, size, s, p->index, p->generation) < size;
}

static void put_sibling(FILE *to, const struct supervisor *s, const struct process *other,
                        const struct process *p)
{
    char base[BASE_BYTES];

    /* One that is not there will come to us by itself. */
    if (other->pid <= 0 || other->state == PROCESS_STOPPING)
        return;
    if (other->index == p->index && other->generation == p->generation)
        return;
    print_base(base, sizeof base, s, other->index, other->generation);
    fprintf(to, "%s%s", ftell(to) > 0 ? "," : "", base);
}

/* Also the process whose place this one takes: it goes on for a while. */
static bool add_siblings(const struct supervisor *s, char **argv, size_t *n, const struct process *p)
{
    char *list = NULL;
    size_t size;
    FILE *to = open_memstream(&list, &size);
    bool good;

    if (!to)
        return false;
    for (unsigned i = 0; i < s->nodes_n; i++)
        put_sibling(to, s, &s->nodes[i], p);
    put_sibling(to, s, &s->reload.old, p);
    good = fclose(to) == 0 && (size == 0 || add(argv, n, "--siblings=%s", list));
    free(list);
    return good;
}

static bool add_paths(const struct supervisor *s, char **argv, size_t *n, const struct process *p)
{
    char base[BASE_BYTES];
    bool good = launch_base(s, p, base, sizeof base) && add(argv, n, "--mesh=%s", base) &&
                add(argv, n, "--agents=%s/agents-%u", s->dir.path, p->index) &&
                add(argv, n, "--pulse=%s.pulse", base) && add_siblings(s, argv, n, p);

    if (good && p->is_trial && process_is_in_use(&s->nodes[p->index])) {
        print_base(base, sizeof base, s, p->index, s->nodes[p->index].generation);
        good = add(argv, n, "--inherit=%s", base);
    }
    if (good && s->config.log_bytes > 0)
        good = add(argv, n, "--log-file=%s/node-%u.log", s->dir.path, p->index);
    return good;
}

char **launch_arguments(struct process_owner *owner, const struct process *p)
{
    struct supervisor *s = supervisor_of(owner);
    char **argv = calloc(CONFIG_OPTION_COUNT + OWN_ARGUMENTS, sizeof *argv);
    size_t n = 0;
    bool good = argv && add(argv, &n, "%s", s->program) && add(argv, &n, "--port=%" PRIu32, s->config.port) &&
                add(argv, &n, "--node-port=%" PRIu32, s->config.port + 1 + p->index) &&
                add(argv, &n, "--agent-port=%" PRIu32, s->config.port + AGENT_PORTS + p->index) &&
                add(argv, &n, "--core=%d", p->core) && add(argv, &n, "--ready-fd=3") &&
                add(argv, &n, "--restarts=%u", p->restarts) &&
                add(argv, &n, "--name=%.60s-%u", s->config.name, p->index);

    for (char **shared = s->shared; good && *shared; shared++)
        good = add(argv, &n, "%s", *shared);
    good = good && add_paths(s, argv, &n, p);
    if (good && s->config.peers[0])
        good = add(argv, &n, "--mesh-port=%" PRIu32,
                   s->config.port + MESH_PORTS + p->generation * MESH_GENERATION + p->index);
    if (good)
        return argv;
    while (argv && n > 0)
        free(argv[--n]);
    free(argv);
    return NULL;
}

/* "private" is our word. */
static const char *redis_of(const struct supervisor *s)
{
    if (redis_server_url(&s->redis)[0])
        return redis_server_url(&s->redis);
    return strcmp(s->config.redis, "private") == 0 ? "none" : s->config.redis;
}

/* The node opens the file by itself; before that there may be something to say as well. */
void launch_in_child(struct process_owner *owner, const struct process *p)
{
    struct supervisor *s = supervisor_of(owner);
    char path[PATH_MAX];

    setenv("STARLING_REDIS", redis_of(s), 1);
    if (s->config.log_bytes > 0 &&
        snprintf(path, sizeof path, "%s/node-%u.log", s->dir.path, p->index) < (int)sizeof path)
        logfile_open(&(struct logfile){.path = path});
}
