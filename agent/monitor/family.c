#include "family.h"
#include "rate.h"
#include "source.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { TEXT_BYTES = 32 * 1024, NAME_BYTES = 16 };

static const char names[] = "starling,starling-node,starling-agent";

struct member {
    struct source stat; /* open, it stays that of this process, whoever has its number later */
    uint64_t pid, cpu;  /* cpu: in the clock's ticks */
    bool sampled;
    char name[NAME_BYTES + 1], node[LIMIT_MACHINE_TEXT_BYTES + 1];
};

struct family {
    int root;
    uint64_t ticks_per_s, page_bytes;
    unsigned n;
    struct member member[LIMIT_MACHINE_PROCESSES];
    char text[TEXT_BYTES];
};

struct family *family_new(int root)
{
    struct family *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->root = root;
    f->ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK);
    f->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    return f;
}

void family_free(struct family **f)
{
    if (!*f)
        return;
    for (unsigned i = 0; i < (*f)->n; i++)
        source_deinit(&(*f)->member[i].stat);
    free(*f);
    *f = NULL;
}

static bool is_known(const struct family *f, uint64_t pid)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->member[i].pid == pid)
            return true;
    return false;
}

/* The value of --name among the arguments, which end with a NUL each. False: it has none at all, as a process that has
 * ended and waits for its parent. */
static bool find_node_name(struct family *f, uint64_t pid, char *node)
{
    static const char option[] = "--name";
    ssize_t n = source_read_once(f->root, f->text, sizeof(f->text), "proc/%lu/cmdline", (unsigned long)pid);
    node[0] = '\0';
    for (const char *p = f->text, *end = p + (n > 0 ? n : 0); p < end; p += strlen(p) + 1) {
        if (strncmp(p, option, sizeof(option) - 1) != 0)
            continue;
        const char *rest = p + sizeof(option) - 1;
        if (*rest == '=')
            source_keep(node, span_of(rest + 1));
        else if (*rest == '\0' && rest + 1 < end)
            source_keep(node, span_of(rest + 1));
    }
    return n > 0;
}

static void take_process(struct family *f, const char *entry)
{
    char name[NAME_BYTES + 1];
    uint64_t pid = strtoul(entry, NULL, 10);
    if (source_read_once(f->root, name, sizeof(name), "proc/%s/comm", entry) <= 0)
        return;
    name[strcspn(name, "\n")] = '\0';
    if (!span_in_list(names, span_of(name)) || is_known(f, pid) || f->n == LIMIT_MACHINE_PROCESSES)
        return;
    struct member *m = &f->member[f->n];
    *m = (struct member){.pid = pid};
    if (!find_node_name(f, pid, m->node))
        return;
    memcpy(m->name, name, sizeof(name));
    source_init(&m->stat, f->root, "proc/%s/stat", entry);
    f->n++;
}

void family_refresh(struct family *f)
{
    int fd = openat(f->root, "proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir))
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            take_process(f, e->d_name);
    closedir(dir);
}

/* See proc_pid_stat(5); the fields are counted from the one behind the name. False: it has ended. */
static bool sample_member(struct family *f, struct member *m, uint64_t elapsed_us, uint64_t uptime_s,
                          struct machine_process *process)
{
    enum { STATE, UTIME = 11, STIME, THREADS = 17, START = 19, RSS = 21, FIELDS };
    uint64_t field[FIELDS];
    char text[1024];
    ssize_t n = source_read(&m->stat, text, sizeof(text));
    const char *rest = n > 0 ? strrchr(text, ')') : NULL; /* the name before it may hold anything */
    if (!rest)
        return false;
    struct span line = span_of(rest + 1), state = source_word(&line);
    for (unsigned i = STATE + 1; i < FIELDS; i++) {
        struct span word = source_word(&line);
        field[i] = source_number(&word);
    }
    uint64_t cpu = field[UTIME] + field[STIME], age = field[START] / f->ticks_per_s;
    *process = (struct machine_process){
        .name = span_of(m->name),
        .node = span_of(m->node),
        .pid = m->pid,
        .cpu = m->sampled ? rate_scale(rate_delta(m->cpu, cpu),
                                       MACHINE_WHOLE * UINT64_C(1000000) / f->ticks_per_s, elapsed_us)
                          : 0,
        .rss_bytes = field[RSS] * f->page_bytes,
        .threads = field[THREADS],
        .uptime_s = uptime_s > age ? uptime_s - age : 0,
    };
    m->cpu = cpu;
    m->sampled = true;
    return !span_eq(state, SPAN("Z"));
}

bool family_sample(struct family *f, uint64_t elapsed_us, uint64_t uptime_s, struct machine_tick *t)
{
    unsigned kept = 0, before = f->n;
    for (unsigned i = 0; i < before; i++) {
        if (kept != i)
            f->member[kept] = f->member[i];
        if (sample_member(f, &f->member[kept], elapsed_us, uptime_s, &t->processes[kept]))
            kept++;
        else
            source_deinit(&f->member[kept].stat);
    }
    f->n = t->n_processes = kept;
    return kept < before;
}
