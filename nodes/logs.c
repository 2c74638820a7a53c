/* `starling logs`: what the nodes wrote to their files in the run directory, as it stands there. It needs nobody
 * running. */
#include "verb.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINES = 100, LOOK_MS = 200, PIECE_BYTES = 16 * 1024, TAIL_BYTES = 4 * 1024 * 1024 };

/* One node's file, and how much of it has been shown. */
struct follower {
    char path[PATH_MAX];
    unsigned index;
    int fd; /* -1: it is not there yet */
    bool in_line;
};

static void show(struct follower *f, const char *text, size_t n, bool with_index)
{
    for (size_t i = 0; i < n; i++) {
        if (!f->in_line && with_index)
            printf("%u| ", f->index);
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

static void show_new(struct follower *f, bool with_index)
{
    char piece[PIECE_BYTES];
    ssize_t n;

    while (f->fd >= 0 && (n = read(f->fd, piece, sizeof piece)) > 0)
        show(f, piece, (size_t)n, with_index);
}

/* The file may have been turned over: the old one to its end, then the new one from its start. */
static void follow(struct follower *f, bool with_index)
{
    struct stat ours, named;

    show_new(f, with_index);
    if (stat(f->path, &named) != 0 || (f->fd >= 0 && fstat(f->fd, &ours) == 0 &&
                                       ours.st_ino == named.st_ino && ours.st_dev == named.st_dev))
        return;
    show_new(f, with_index);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    show_new(f, with_index);
}

/* Those of all nodes, or of one: how many there are. */
static unsigned open_files(const struct rundir *dir, const struct verb_options *o, unsigned only,
                           struct follower *files)
{
    unsigned n = 0;
    bool one = o->arguments_n > 0;

    for (unsigned i = one ? only : 0; i < (one ? only + 1 : RUNDIR_NODES_MAX); i++) {
        struct follower *f = &files[n];
        char name[32];
        snprintf(name, sizeof name, "node-%u.log", i);
        *f = (struct follower){.index = i};
        if (!rundir_file(dir, name, f->path, sizeof f->path))
            return n;
        f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
        if (f->fd >= 0)
            lseek(f->fd, o->lines > 0 ? find_tail(f->fd, o->lines) : lseek(f->fd, 0, SEEK_END), SEEK_SET);
        n += f->fd >= 0 || o->follow;
    }
    return n;
}

int verb_logs(int argc, char **argv)
{
    struct verb_options o;
    struct rundir dir;
    pid_t supervisor;
    unsigned only = 0, n;
    int rc = verb_find(argc, argv, " --run-dir --lines -f ", 1, &o, &dir, &supervisor);
    struct follower *files;

    if (rc != 0)
        return rc;
    if (o.arguments_n > 0 && !verb_parse_number(o.arguments[0], RUNDIR_NODES_MAX - 1, &only))
        return verb_usage("logs", "takes the index of a node, from 0 to 98", "");
    if (!o.has_lines)
        o.lines = LINES;
    files = calloc(RUNDIR_NODES_MAX, sizeof *files);
    if (!files)
        return 1;
    n = open_files(&dir, &o, only, files);
    if (n == 0)
        fprintf(stderr, "starling logs: there are no logs in %s\n", dir.path);
    for (unsigned i = 0; i < n; i++)
        show_new(&files[i], o.arguments_n == 0);
    while (o.follow && n > 0 && fflush(stdout) == 0) {
        verb_sleep_ms(LOOK_MS);
        for (unsigned i = 0; i < n; i++)
            follow(&files[i], o.arguments_n == 0);
    }
    for (unsigned i = 0; i < n; i++) {
        if (files[i].fd >= 0)
            close(files[i].fd);
    }
    free(files);
    return n == 0;
}
