#include "detach.h"
#include "logfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DONE = '+', FAILED = '-' };

/* What it says; or it ends before it has said anything, and its exit code tells. */
static int wait_for(int fd, pid_t pid)
{
    char how = 0;
    int status;

    while (read(fd, &how, 1) < 0 && errno == EINTR)
        ;
    if (how == DONE)
        return 0;
    if (how == FAILED) {
        fprintf(stderr,
                "starling up: a node does not come up (see starling logs); the others run in the background "
                "(pid %d)\n",
                (int)pid);
        return 1;
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return 1;
    if (WEXITSTATUS(status) == 0)
        fprintf(stderr, "starling up: the bus was stopped before it was ready\n");
    return WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
}

bool detach_begin(int *fd, int *exit_code)
{
    int ends[2];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        fprintf(stderr, "starling up: --detach: %s\n", strerror(errno));
        *exit_code = 1;
        return true;
    }
    if (pid == 0) {
        close(ends[0]);
        setsid();
        *fd = ends[1];
        return false;
    }
    close(ends[1]);
    *exit_code = wait_for(ends[0], pid);
    close(ends[0]);
    return true;
}

static void say(int *fd, char how)
{
    if (write(*fd, &how, 1) != 1)
        fprintf(stderr, "starling up: --detach: %s\n", strerror(errno));
    close(*fd);
    *fd = -1;
}

void detach_done(int *fd, const struct rundir *dir)
{
    char path[PATH_MAX];
    int null;

    if (*fd < 0)
        return;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
    if (rundir_file(dir, "supervisor.log", path, sizeof path) &&
        logfile_open(&(struct logfile){.path = path}) != 0)
        fprintf(stderr, "starling up: %s: %s\n", path, strerror(errno));
    say(fd, DONE);
}

void detach_fail(int *fd)
{
    if (*fd >= 0)
        say(fd, FAILED);
}
