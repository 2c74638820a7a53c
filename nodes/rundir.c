#include "rundir.h"
#include "err.h"
#include "json.h"
#include "utf8.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char pid_name[] = "starling.pid";
static const char state_name[] = "state.json";

static bool is_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

void rundir_init(struct rundir *dir, const char *given)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    dir->lock_fd = -1;
    if (given[0])
        snprintf(dir->path, sizeof dir->path, "%s", given);
    else if (runtime && runtime[0] == '/' && is_directory(runtime))
        snprintf(dir->path, sizeof dir->path, "%s/starling", runtime);
    else if (geteuid() == 0 && is_directory("/run"))
        snprintf(dir->path, sizeof dir->path, "/run/starling");
    else
        snprintf(dir->path, sizeof dir->path, "/tmp/starling-%u", (unsigned)geteuid());
}

static bool file_path(const struct rundir *dir, const char *name, char out[PATH_MAX])
{
    return (size_t)snprintf(out, PATH_MAX, "%s/%s", dir->path, name) < PATH_MAX;
}

static int fail(const struct rundir *dir, const char *why)
{
    fprintf(stderr, "starling up: cannot use the run directory %s: %s\n", dir->path, why);
    return 1;
}

/* Somebody else's directory (/tmp is everyone's) could make us follow a link or trust a pid. */
static int make_directory(const struct rundir *dir)
{
    struct stat status;

    if (mkdir(dir->path, 0700) != 0 && errno != EEXIST)
        return fail(dir, strerror(errno));
    if (stat(dir->path, &status) != 0)
        return fail(dir, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return fail(dir, "it is not a directory");
    if (status.st_uid != geteuid())
        return fail(dir, "it belongs to another user");
    if (status.st_mode & (S_IWGRP | S_IWOTH))
        return fail(dir, "other users may write to it");
    return 0;
}

/* Record locks tell who holds them, end with the process, and are not inherited by its children. */
static pid_t lock_holder(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
        return 0;
    return lock.l_pid;
}

int rundir_acquire(struct rundir *dir)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX], text[32];
    int fd, rc = make_directory(dir);

    if (rc != 0)
        return rc;
    if (!file_path(dir, pid_name, path))
        return fail(dir, strerror(ENAMETOOLONG));
    fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(dir, strerror(errno));
    if (fcntl(fd, F_SETLK, &lock) != 0) {
        fprintf(
            stderr,
            "starling up: a bus runs already with the run directory %s (pid %d); stop it, or give another "
            "--run-dir\n",
            dir->path, (int)lock_holder(fd));
        close(fd);
        return 1;
    }
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, strlen(text), 0) != (ssize_t)strlen(text)) {
        close(fd);
        return fail(dir, strerror(errno));
    }
    dir->lock_fd = fd;
    return 0;
}

/* The file with the lock stays, empty: one that is removed could be locked by one process and made anew by
 * another. */
void rundir_release(struct rundir *dir)
{
    char path[PATH_MAX];

    if (dir->lock_fd < 0)
        return;
    if (file_path(dir, state_name, path))
        unlink(path);
    if (ftruncate(dir->lock_fd, 0) != 0)
        fprintf(stderr, "starling up: %s/%s: %s\n", dir->path, pid_name, strerror(errno));
    close(dir->lock_fd);
    dir->lock_fd = -1;
}

pid_t rundir_holder(const struct rundir *dir)
{
    char path[PATH_MAX];
    pid_t pid;
    int fd;

    if (!file_path(dir, pid_name, path))
        return 0;
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return 0;
    pid = lock_holder(fd);
    close(fd);
    return pid;
}

int rundir_save(const struct rundir *dir, const struct rundir_state *state)
{
    const struct rundir_node *node = &state->node;
    char path[PATH_MAX], fresh[PATH_MAX], core[16] = "null";
    FILE *file;
    bool good;

    if (!file_path(dir, state_name, path) || !file_path(dir, "state.json.new", fresh))
        return ERR_SYSTEM;
    file = fopen(fresh, "we");
    if (!file)
        return ERR_SYSTEM;
    if (node->core >= 0)
        snprintf(core, sizeof core, "%d", node->core);
    good =
        fprintf(file,
                "{\"bind\":\"%s\",\"port\":%" PRIu32 ",\"nodes\":[{\"pid\":%d,\"core\":%s,\"port\":%" PRIu32
                ",\"restarts\":%" PRIu32 ",\"started_ms\":%" PRIu64 ",\"state\":\"%s\"}]}\n",
                state->bind, state->port, (int)node->pid, core, node->port, node->restarts, node->started_ms,
                node->state) > 0;
    good = fclose(file) == 0 && good;
    return good && rename(fresh, path) == 0 ? 0 : ERR_SYSTEM;
}

static bool get_number(struct span object, const char *key, uint64_t max, uint64_t *out)
{
    return json_uint(json_get(object, key), max, out);
}

static bool get_text(struct span object, const char *key, char *out, size_t size)
{
    ssize_t n = json_string(json_get(object, key), out, size - 1);

    out[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

static int parse_state(struct span text, struct rundir_state *state)
{
    struct rundir_node *node = &state->node;
    struct json_cursor nodes;
    struct span entry;
    uint64_t port, node_port, pid, restarts, core;

    if (!utf8_valid(text.p, text.n) || json_check(text, 8) != 0)
        return ERR_JSON;
    nodes = json_open(json_get(text, "nodes"));
    if (!json_item(&nodes, &entry) || !get_text(text, "bind", state->bind, sizeof state->bind) ||
        !get_number(text, "port", UINT16_MAX, &port) || !get_number(entry, "port", UINT16_MAX, &node_port) ||
        !get_number(entry, "pid", INT_MAX, &pid) || !get_number(entry, "restarts", UINT32_MAX, &restarts) ||
        !get_number(entry, "started_ms", UINT64_MAX, &node->started_ms) ||
        !get_text(entry, "state", node->state, sizeof node->state))
        return ERR_JSON;
    state->port = (uint32_t)port;
    node->port = (uint32_t)node_port;
    node->pid = (pid_t)pid;
    node->restarts = (uint32_t)restarts;
    node->core = get_number(entry, "core", INT_MAX, &core) ? (int)core : -1;
    return 0;
}

int rundir_load(const struct rundir *dir, struct rundir_state *state)
{
    char path[PATH_MAX], text[4096];
    size_t n;
    FILE *file;

    *state = (struct rundir_state){0};
    file = file_path(dir, state_name, path) ? fopen(path, "re") : NULL;
    if (!file)
        return ERR_SYSTEM;
    n = fread(text, 1, sizeof text, file);
    fclose(file);
    return parse_state((struct span){text, n}, state);
}
