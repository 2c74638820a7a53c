#include "logfile.h"
#include "err.h"
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int logfile_open(const struct logfile *log)
{
    /* O_APPEND: two processes of one node, old and new, write to it during a reload. */
    int fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return ERR_SYSTEM;
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    return 0;
}

static void turn_over(const struct logfile *log)
{
    char from[PATH_MAX], to[PATH_MAX];
    for (uint32_t i = log->kept; i > 0; i--) {
        int n = i > 1 ? snprintf(from, sizeof(from), "%s.%u", log->path, i - 1)
                      : snprintf(from, sizeof(from), "%s", log->path);
        if (n >= PATH_MAX || snprintf(to, sizeof(to), "%s.%u", log->path, i) >= PATH_MAX)
            return;
        rename(from, to);
    }
    if (log->kept == 0)
        unlink(log->path);
}

void logfile_check(const struct logfile *log)
{
    struct stat ours, named;
    if (!log->path[0] || fstat(STDERR_FILENO, &ours))
        return;
    bool is_named =
        stat(log->path, &named) == 0 && named.st_ino == ours.st_ino && named.st_dev == ours.st_dev;
    if (is_named && (uint64_t)ours.st_size < log->max_bytes)
        return;
    if (is_named)
        turn_over(log);
    logfile_open(log); /* when that fails the old one goes on */
}

void logfile_limit(const struct logfile *log)
{
    struct stat status;
    if (stat(log->path, &status) == 0 && (uint64_t)status.st_size >= log->max_bytes)
        turn_over(log);
}
