#include "monitor.h"
#include "logfile.h"
#include "supervisor_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENDPOINTS_MAX = 64 }; /* as many as it takes; nodes tell it of the others */

static struct monitor *monitor_of(struct process_owner *owner)
{
    return (struct monitor *)(void *)owner;
}

/* malloc()ed, or NULL. */
static char *list_nodes(const struct supervisor *s)
{
    char *list = NULL;
    size_t size;
    FILE *to = open_memstream(&list, &size);

    if (!to)
        return NULL;
    fputs("--nodes=", to);
    for (unsigned i = 0; i < s->nodes_n && i < ENDPOINTS_MAX; i++)
        fprintf(to, "%sipc://%s/agents-%u", i > 0 ? "," : "", s->dir.path, i);
    if (fclose(to) == 0)
        return list;
    free(list);
    return NULL;
}

static char **arguments(struct process_owner *owner, const struct process *p)
{
    const struct monitor *m = monitor_of(owner);
    const struct supervisor *s = m->supervisor;
    char **argv = calloc(5, sizeof *argv);
    bool good = argv && (argv[0] = strdup(m->program)) && (argv[1] = list_nodes(s)) &&
                (argv[2] = strdup("--ready-fd=3"));

    (void)p;
    if (good && s->config.log_bytes > 0 && asprintf(&argv[3], "--log-file=%s/agent.log", s->dir.path) < 0) {
        argv[3] = NULL;
        good = false;
    }
    if (good)
        return argv;
    for (char **text = argv; text && *text; text++)
        free(*text);
    free(argv);
    return NULL;
}

/* Before it opens the file by itself there may be something to say as well. */
static void in_child(struct process_owner *owner, const struct process *p)
{
    const struct supervisor *s = monitor_of(owner)->supervisor;
    char path[PATH_MAX];

    (void)p;
    if (s->config.log_bytes > 0 && rundir_file(&s->dir, "agent.log", path, sizeof path))
        logfile_open(&(struct logfile){.path = path});
}

static void on_ready(struct process_owner *owner, const struct process *p)
{
    (void)owner;
    (void)p;
}

static void on_change(struct process_owner *owner)
{
    supervisor_save(monitor_of(owner)->supervisor);
}

void monitor_init(struct monitor *m, struct supervisor *s)
{
    m->owner = s->owner; /* its signals and time-outs */
    m->owner.program = m->program;
    m->owner.arguments = arguments;
    m->owner.in_child = in_child;
    m->owner.on_ready = on_ready;
    m->owner.on_change = on_change;
    m->supervisor = s;
    process_init(&m->process, &m->owner, "agent");
}

bool monitor_adopt(struct monitor *m, const struct process_record *record)
{
    bool lives = process_adopt(&m->process, record);

    /* Nobody hears any more when it says that it is ready. */
    if (lives && m->process.state == PROCESS_STARTING)
        process_handle(&m->process, PROCESS_SAID_READY);
    return lives;
}

void monitor_step(struct monitor *m)
{
    struct supervisor *s = m->supervisor;
    bool is_wanted = s->config.agent && !s->stopping;

    m->owner.listen_timeout_ms = s->config.listen_timeout_ms;
    m->owner.kill_timeout_ms = s->config.kill_timeout_ms;
    if (is_wanted && m->process.state == PROCESS_STOPPED && supervisor_count(s, PROCESS_READY) > 0)
        process_start(&m->process);
    else if (!is_wanted && !process_is_leaving(&m->process))
        process_handle(&m->process, PROCESS_STOP);
}
