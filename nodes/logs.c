/* `starling logs`: what the nodes and the other processes wrote to their files in the run directory, as it stands
 * there. It needs nobody running. */
#include "verb.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_MS = 200, PIECE_BYTES = 16 * 1024, TAIL_BYTES = 4 * 1024 * 1024 };

/* Who has a file beside the nodes; the first is shown with them. */
static const char *const others[] = {"agent", "redis", "supervisor"};

enum { FILES_MAX = RUNDIR_NODES_MAX + 1 };

/* One file, and how much of it has been shown. */
struct follower {
    char path[PATH_MAX], name[16];
    int fd; /* -1: it is not there yet */
    bool in_line;
};

static void show(struct follower *f, const char *text, size_t n, bool with_name)
{
    for (size_t i = 0; i < n; i++) {
        if (!f->in_line && with_name)
            printf("%s| ", f->name);
        putchar(text[i]);
        f->in_line = text[i] != '\n';
    }
}

/* Where the last lines begin; a bounded look back. */
static off_t find_tail(int fd, unsigned lines)
{
    off_t end = lseek(fd, 0, SEEK_END), start = end > TAIL_BYTES ? end - TAIL_BYTES : 0, at = end;
    char piece[PIECE_BYTES];

    while (at > start) {
        off_t from = at - (off_t)sizeof piece > start ? at - (off_t)sizeof piece : start;
        ssize_t n = pread(fd, piece, (size_t)(at - from), from);
        for (ssize_t i = n - 1; i >= 0; i--) {
            /* The last line's own end is none before it. */
            if (piece[i] == '\n' && from + i + 1 < end && lines-- <= 1)
                return from + i + 1;
        }
        if (n <= 0)
            break;
        at = from;
    }
    return start;
}

static void show_new(struct follower *f, bool with_name)
{
    char piece[PIECE_BYTES];
    ssize_t n;

    while (f->fd >= 0 && (n = read(f->fd, piece, sizeof piece)) > 0)
        show(f, piece, (size_t)n, with_name);
}

/* The file may have been turned over: the old one to its end, then the new one from its start. */
static void follow(struct follower *f, bool with_name)
{
    struct stat ours, named;

    show_new(f, with_name);
    if (stat(f->path, &named) != 0 || (f->fd >= 0 && fstat(f->fd, &ours) == 0 &&
                                       ours.st_ino == named.st_ino && ours.st_dev == named.st_dev))
        return;
    show_new(f, with_name);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    show_new(f, with_name);
}

static bool open_file(const struct rundir *dir, const struct verb_options *o, const char *name,
                      struct follower *f)
{
    bool is_node = name[0] >= '0' && name[0] <= '9';
    char file[32];

    *f = (struct follower){.fd = -1};
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(file, sizeof file, is_node ? "node-%s.log" : "%s.log", name);
    if (!rundir_file(dir, file, f->path, sizeof f->path))
        return false;
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (f->fd >= 0)
        lseek(f->fd, o->lines > 0 ? find_tail(f->fd, o->lines) : lseek(f->fd, 0, SEEK_END), SEEK_SET);
    return f->fd >= 0 || o->follow;
}

/* Those of all, or only one: how many there are. */
static unsigned open_files(const struct rundir *dir, const struct verb_options *o, const char *only,
                           struct follower *files)
{
    unsigned n = 0;
    char name[16];

    if (only)
        return open_file(dir, o, only, files);
    for (unsigned i = 0; i < RUNDIR_NODES_MAX; i++) {
        snprintf(name, sizeof name, "%u", i);
        n += open_file(dir, o, name, &files[n]);
    }
    return n + open_file(dir, o, others[0], &files[n]);
}

/* The index of a node without zeros before it, or a name; NULL: neither. */
static const char *parse_name(const char *text, char out[16])
{
    unsigned index;

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strcmp(text, others[i]) == 0)
            return others[i];
    }
    if (!verb_parse_number(text, RUNDIR_NODES_MAX - 1, &index))
        return NULL;
    snprintf(out, 16, "%u", index);
    return out;
}

int verb_logs(int argc, char **argv)
{
    struct verb_options o;
    struct rundir dir;
    pid_t supervisor;
    char name[16];
    const char *only = NULL;
    unsigned n;
    int rc = verb_find(argc, argv, " --run-dir --lines -f ", 1, &o, &dir, &supervisor);
    struct follower *files;

    if (rc != 0)
        return rc;
    if (o.arguments_n > 0 && !(only = parse_name(o.arguments[0], name)))
        return verb_usage("logs", "takes the index of a node, from 0 to 98, or agent, redis or supervisor",
                          "");
    files = calloc(FILES_MAX, sizeof *files);
    if (!files)
        return 1;
    n = open_files(&dir, &o, only, files);
    if (n == 0)
        fprintf(stderr, "starling logs: there are no logs in %s\n", dir.path);
    for (unsigned i = 0; i < n; i++)
        show_new(&files[i], !only);
    while (o.follow && n > 0 && fflush(stdout) == 0) {
        verb_sleep_ms(LOOK_MS);
        for (unsigned i = 0; i < n; i++)
            follow(&files[i], !only);
    }
    for (unsigned i = 0; i < n; i++) {
        if (files[i].fd >= 0)
            close(files[i].fd);
    }
    free(files);
    return n == 0;
}
