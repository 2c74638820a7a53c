#include "rundir.h"
#include "err.h"
#include "json.h"
#include "utf8.h"
#include <dirent.h>
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
    dir->saved = false;
    if (given[0])
        snprintf(dir->path, sizeof dir->path, "%s", given);
    else if (runtime && runtime[0] == '/' && is_directory(runtime))
        snprintf(dir->path, sizeof dir->path, "%s/starling", runtime);
    else if (geteuid() == 0 && is_directory("/run"))
        snprintf(dir->path, sizeof dir->path, "/run/starling");
    else
        snprintf(dir->path, sizeof dir->path, "/tmp/starling-%u", (unsigned)geteuid());
}

bool rundir_file(const struct rundir *dir, const char *name, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "%s/%s", dir->path, name) < size;
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
    if (!rundir_file(dir, pid_name, path, sizeof path))
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

/* Sockets of processes that were killed. */
static void remove_leftovers(const struct rundir *dir)
{
    static const char prefix[] = "mesh-", control[] = "control";
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *list = opendir(dir->path);

    while (list && (entry = readdir(list))) {
        bool is_left =
            strncmp(entry->d_name, prefix, sizeof prefix - 1) == 0 || strcmp(entry->d_name, control) == 0;
        if (is_left && rundir_file(dir, entry->d_name, path, sizeof path))
            unlink(path);
    }
    if (list)
        closedir(list);
}

/* The file with the lock stays, empty: one that is removed could be locked by one process and made anew by
 * another. */
void rundir_release(struct rundir *dir)
{
    char path[PATH_MAX];

    if (dir->lock_fd < 0)
        return;
    if (dir->saved && rundir_file(dir, state_name, path, sizeof path)) {
        unlink(path);
        remove_leftovers(dir);
    }
    if (ftruncate(dir->lock_fd, 0) != 0)
        fprintf(stderr, "starling up: %s/%s: %s\n", dir->path, pid_name, strerror(errno));
    close(dir->lock_fd);
    dir->lock_fd = -1;
}

void rundir_clean(struct rundir *dir)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX];

    if (!rundir_file(dir, pid_name, path, sizeof path))
        return;
    dir->lock_fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (dir->lock_fd >= 0 && fcntl(dir->lock_fd, F_SETLK, &lock) == 0) {
        dir->saved = true;
        rundir_release(dir);
    } else if (dir->lock_fd >= 0) {
        close(dir->lock_fd);
        dir->lock_fd = -1;
    }
}

pid_t rundir_holder(const struct rundir *dir)
{
    char path[PATH_MAX];
    pid_t pid;
    int fd;

    if (!rundir_file(dir, pid_name, path, sizeof path))
        return 0;
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return 0;
    pid = lock_holder(fd);
    close(fd);
    return pid;
}

size_t rundir_format(const struct rundir_state *state, char text[RUNDIR_TEXT_BYTES])
{
    FILE *to = fmemopen(text, RUNDIR_TEXT_BYTES, "w");
    size_t n = 0;

    text[0] = '\0';
    if (!to)
        return 0;
    fprintf(to, "{\"bind\":\"%s\",\"port\":%" PRIu32 ",\"nodes\":[", state->bind, state->port);
    for (uint32_t i = 0; i < state->nodes_n; i++) {
        const struct rundir_node *node = &state->nodes[i];
        char core[16] = "null";
        if (node->core >= 0)
            snprintf(core, sizeof core, "%d", node->core);
        fprintf(to,
                "%s{\"pid\":%d,\"core\":%s,\"port\":%" PRIu32 ",\"restarts\":%" PRIu32
                ",\"started_ms\":%" PRIu64 ",\"state\":\"%s\"}",
                i > 0 ? "," : "", (int)node->pid, core, node->port, node->restarts, node->started_ms,
                node->state);
    }
    fprintf(to, "]}\n");
    if (fclose(to) == 0)
        n = strlen(text);
    return n;
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

static int parse_node(struct span entry, struct rundir_node *node)
{
    uint64_t port, pid, restarts, core;

    if (!get_number(entry, "port", UINT16_MAX, &port) || !get_number(entry, "pid", INT_MAX, &pid) ||
        !get_number(entry, "restarts", UINT32_MAX, &restarts) ||
        !get_number(entry, "started_ms", UINT64_MAX, &node->started_ms) ||
        !get_text(entry, "state", node->state, sizeof node->state))
        return ERR_JSON;
    node->port = (uint32_t)port;
    node->pid = (pid_t)pid;
    node->restarts = (uint32_t)restarts;
    node->core = get_number(entry, "core", INT_MAX, &core) ? (int)core : -1;
    return 0;
}

int rundir_parse(struct span text, struct rundir_state *state)
{
    struct json_cursor nodes;
    struct span entry;
    uint64_t port;

    *state = (struct rundir_state){0};
    if (!utf8_valid(text.p, text.n) || json_check(text, 8) != 0)
        return ERR_JSON;
    if (!get_text(text, "bind", state->bind, sizeof state->bind) ||
        !get_number(text, "port", UINT16_MAX, &port))
        return ERR_JSON;
    state->port = (uint32_t)port;
    nodes = json_open(json_get(text, "nodes"));
    while (json_item(&nodes, &entry)) {
        if (state->nodes_n == RUNDIR_NODES_MAX || parse_node(entry, &state->nodes[state->nodes_n]) != 0)
            return ERR_JSON;
        state->nodes_n++;
    }
    return state->nodes_n > 0 ? 0 : ERR_JSON;
}

int rundir_save(struct rundir *dir, const struct rundir_state *state)
{
    char path[PATH_MAX], fresh[PATH_MAX], text[RUNDIR_TEXT_BYTES];
    size_t n = rundir_format(state, text);
    FILE *file;
    bool good;

    if (!rundir_file(dir, state_name, path, sizeof path) ||
        !rundir_file(dir, "state.json.new", fresh, sizeof fresh))
        return ERR_SYSTEM;
    file = fopen(fresh, "we");
    if (!file)
        return ERR_SYSTEM;
    good = fwrite(text, 1, n, file) == n;
    good = fclose(file) == 0 && good;
    if (!good || rename(fresh, path) != 0)
        return ERR_SYSTEM;
    dir->saved = true;
    return 0;
}

int rundir_load(const struct rundir *dir, struct rundir_state *state)
{
    char path[PATH_MAX], text[RUNDIR_TEXT_BYTES];
    size_t n;
    FILE *file;

    *state = (struct rundir_state){0};
    file = rundir_file(dir, state_name, path, sizeof path) ? fopen(path, "re") : NULL;
    if (!file)
        return ERR_SYSTEM;
    n = fread(text, 1, sizeof text, file);
    fclose(file);
    return rundir_parse((struct span){text, n}, state);
}

bool rundir_node_program(char out[PATH_MAX])
{
    static const char name[] = "/starling-node";
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - sizeof name);
    char *slash;

    out[n > 0 ? n : 0] = '\0';
    slash = strrchr(out, '/');
    if (slash)
        memcpy(slash, name, sizeof name);
    return slash && access(out, X_OK) == 0;
}

/* Pids are used again: it must be our program, and the one with this node's port. */
static bool is_node(const struct rundir_node *node, const char *program)
{
    static const char replaced[] = " (deleted)"; /* by an upgrade */
    char path[64], exe[PATH_MAX], text[16384], option[32];
    ssize_t n;
    size_t got;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/exe", (int)node->pid);
    n = node->pid > 0 ? readlink(path, exe, sizeof exe - 1) : -1;
    if (n < 0)
        return false;
    exe[n] = '\0';
    if (strncmp(exe, program, strlen(program)) != 0 ||
        (exe[strlen(program)] != '\0' && strcmp(exe + strlen(program), replaced) != 0))
        return false;
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)node->pid);
    file = fopen(path, "re");
    if (!file)
        return false;
    got = fread(text, 1, sizeof text - 1, file);
    text[got] = '\0';
    fclose(file);
    snprintf(option, sizeof option, "--node-port=%" PRIu32, node->port);
    for (const char *p = text; p < text + got; p += strlen(p) + 1) {
        if (strcmp(p, option) == 0)
            return true;
    }
    return false;
}

unsigned rundir_orphans(const struct rundir *dir, pid_t pids[RUNDIR_NODES_MAX])
{
    struct rundir_state state;
    char beside[PATH_MAX], program[PATH_MAX];
    unsigned n = 0;

    if (rundir_load(dir, &state) != 0)
        return 0;
    rundir_node_program(beside);
    if (!realpath(beside, program)) /* gone by now; then /proc has the path it had */
        snprintf(program, sizeof program, "%s", beside);
    for (uint32_t i = 0; i < state.nodes_n; i++) {
        if (is_node(&state.nodes[i], program))
            pids[n++] = state.nodes[i].pid;
    }
    return n;
}
