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

/* Others are told of it who may run elsewhere. */
static void make_absolute(struct rundir *dir, const char *given)
{
    char here[PATH_MAX];

    if (given[0] == '/' || !getcwd(here, sizeof here) ||
        (size_t)snprintf(dir->path, sizeof dir->path, "%s/%s", here, given) >= sizeof dir->path)
        snprintf(dir->path, sizeof dir->path, "%s", given);
}

void rundir_init(struct rundir *dir, const char *given)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    dir->lock_fd = -1;
    dir->saved = false;
    if (given[0])
        make_absolute(dir, given);
    else if (runtime && runtime[0] == '/' && is_directory(runtime))
        snprintf(dir->path, sizeof dir->path, "%s/starling", runtime);
    else if (geteuid() == 0 && is_directory("/run"))
        snprintf(dir->path, sizeof dir->path, "/run/starling");
    else
        snprintf(dir->path, sizeof dir->path, "/tmp/starling-%u", (unsigned)geteuid());
}

bool rundir_is_usable(const struct rundir *dir)
{
    return strlen(dir->path) <= RUNDIR_PATH_CHARS && !strpbrk(dir->path, ",%");
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
    static const char *const prefixes[] = {"mesh-", "agents-"}, *const names[] = {"control", "redis.sock"};
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *list = opendir(dir->path);

    while (list && (entry = readdir(list))) {
        bool is_left = false;
        for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
            is_left = is_left || strncmp(entry->d_name, prefixes[i], strlen(prefixes[i])) == 0;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            is_left = is_left || strcmp(entry->d_name, names[i]) == 0;
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

/* Pids and start times count from the start of the machine; a state of another one names nobody. */
static void read_boot(char out[64])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    out[0] = '\0';
    if (file && !fgets(out, 64, file))
        out[0] = '\0';
    if (file)
        fclose(file);
    out[strcspn(out, "\n")] = '\0';
}

static void put_text(FILE *to, const char *key, const char *text)
{
    char quoted[JSON_QUOTED_MAX(256)];
    size_t n = json_quote(quoted, span_of(text));

    fprintf(to, "\"%s\":%.*s", key, (int)n, quoted);
}

static void put_process(FILE *to, const struct process_record *p)
{
    fprintf(to,
            "\"pid\":%d,\"start\":%" PRIu64 ",\"restarts\":%u,\"generation\":%u,\"started_ms\":%" PRIu64
            ",\"state\":\"%s\"",
            (int)p->pid, p->start_ticks, p->restarts, p->generation, p->started_ms, p->state);
}

static void put_node(FILE *to, const struct rundir_node *node)
{
    fputc('{', to);
    put_process(to, &node->process);
    fprintf(to, ",\"port\":%" PRIu32, node->port);
    if (node->core >= 0)
        fprintf(to, ",\"core\":%d}", node->core);
    else
        fputs(",\"core\":null}", to);
}

static void put_extra(FILE *to, const char *key, const struct rundir_node *node, uint32_t index)
{
    if (node->process.pid <= 0)
        return;
    fprintf(to, ",\"%s_index\":%" PRIu32 ",\"%s\":", key, index, key);
    put_node(to, node);
}

static void put_rest(FILE *to, const struct rundir_state *state)
{
    put_extra(to, "old", &state->old, state->old_index);
    put_extra(to, "next", &state->next, state->next_index);
    if (state->redis_url[0]) {
        fputs(",\"redis\":{", to);
        put_process(to, &state->redis);
        fputc(',', to);
        put_text(to, "url", state->redis_url);
        fputc('}', to);
    }
    if (strcmp(state->agent.state, "stopped") != 0) {
        fputs(",\"agent\":{", to);
        put_process(to, &state->agent);
        fputc('}', to);
    }
    fprintf(to, ",\"reloads\":%" PRIu32 ",\"reloading\":%s,", state->reloads,
            state->reloading ? "true" : "false");
    put_text(to, "reload_error", state->reload_error);
}

size_t rundir_format(const struct rundir_state *state, char text[RUNDIR_TEXT_BYTES])
{
    FILE *to = fmemopen(text, RUNDIR_TEXT_BYTES, "w");
    char boot[64];
    size_t n = 0;

    text[0] = '\0';
    if (!to)
        return 0;
    read_boot(boot);
    fprintf(to, "{\"bind\":\"%s\",\"port\":%" PRIu32 ",\"boot\":\"%s\",\"nodes\":[", state->bind, state->port,
            boot);
    for (uint32_t i = 0; i < state->nodes_n; i++) {
        if (i > 0)
            fputc(',', to);
        put_node(to, &state->nodes[i]);
    }
    fputc(']', to);
    put_rest(to, state);
    fputs("}\n", to);
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

static int parse_process(struct span entry, struct process_record *process)
{
    uint64_t pid, restarts, generation;

    if (!get_number(entry, "pid", INT_MAX, &pid) ||
        !get_number(entry, "start", UINT64_MAX, &process->start_ticks) ||
        !get_number(entry, "restarts", UINT_MAX, &restarts) ||
        !get_number(entry, "generation", 1, &generation) ||
        !get_number(entry, "started_ms", UINT64_MAX, &process->started_ms) ||
        !get_text(entry, "state", process->state, sizeof process->state))
        return ERR_JSON;
    process->pid = (pid_t)pid;
    process->restarts = (unsigned)restarts;
    process->generation = (unsigned)generation;
    return 0;
}

static int parse_node(struct span entry, struct rundir_node *node)
{
    uint64_t port, core;

    if (parse_process(entry, &node->process) != 0 || !get_number(entry, "port", UINT16_MAX, &port))
        return ERR_JSON;
    node->port = (uint32_t)port;
    node->core = get_number(entry, "core", INT_MAX, &core) ? (int)core : -1;
    return 0;
}

static int parse_extra(struct span text, const char *key, struct rundir_node *node, uint32_t *index)
{
    struct span entry = json_get(text, key);
    char index_key[16];
    uint64_t number;

    if (entry.n == 0)
        return 0;
    snprintf(index_key, sizeof index_key, "%s_index", key);
    if (!get_number(text, index_key, RUNDIR_NODES_MAX - 1, &number) || parse_node(entry, node) != 0)
        return ERR_JSON;
    *index = (uint32_t)number;
    return 0;
}

static int parse_rest(struct span text, struct rundir_state *state)
{
    const struct process_record none = {.state = "stopped"};
    struct span redis = json_get(text, "redis"), agent = json_get(text, "agent");
    uint64_t reloads;

    if (!get_number(text, "reloads", UINT32_MAX, &reloads) ||
        !get_text(text, "reload_error", state->reload_error, sizeof state->reload_error))
        return ERR_JSON;
    state->reloads = (uint32_t)reloads;
    state->reloading = json_is_true(json_get(text, "reloading"));
    if (parse_extra(text, "old", &state->old, &state->old_index) != 0 ||
        parse_extra(text, "next", &state->next, &state->next_index) != 0)
        return ERR_JSON;
    state->agent = state->redis = none;
    if (redis.n > 0 && (parse_process(redis, &state->redis) ||
                        !get_text(redis, "url", state->redis_url, sizeof state->redis_url)))
        return ERR_JSON;
    return agent.n > 0 ? parse_process(agent, &state->agent) : 0;
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
    return parse_rest(text, state);
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
    char path[PATH_MAX], text[RUNDIR_TEXT_BYTES], boot[64], saved_boot[64];
    size_t n;
    FILE *file;
    int rc;

    *state = (struct rundir_state){0};
    file = rundir_file(dir, state_name, path, sizeof path) ? fopen(path, "re") : NULL;
    if (!file)
        return ERR_SYSTEM;
    n = fread(text, 1, sizeof text, file);
    fclose(file);
    rc = rundir_parse((struct span){text, n}, state);
    read_boot(boot);
    if (rc == 0 && get_text((struct span){text, n}, "boot", saved_boot, sizeof saved_boot) &&
        strcmp(boot, saved_boot) == 0)
        return 0;
    state->redis.pid = state->agent.pid = state->old.process.pid = state->next.process.pid = 0;
    for (uint32_t i = 0; i < state->nodes_n; i++)
        state->nodes[i].process.pid = 0;
    return rc;
}

bool rundir_program(const char *name, char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    char *end;

    out[n > 0 ? n : 0] = '\0';
    end = strrchr(out, '/');
    end = end ? end + 1 : out;
    if (snprintf(end, (size_t)(out + PATH_MAX - end), "%s", name) >= out + PATH_MAX - end) {
        errno = ENAMETOOLONG;
        return false;
    }
    return access(out, X_OK) == 0;
}

static bool lives(const struct process_record *process)
{
    return process->pid > 0 && process->start_ticks > 0 &&
           process_start_ticks(process->pid) == process->start_ticks;
}

unsigned rundir_orphans(const struct rundir *dir, pid_t pids[RUNDIR_PIDS_MAX])
{
    struct rundir_state state;
    unsigned n = 0;

    if (rundir_load(dir, &state) != 0)
        return 0;
    for (uint32_t i = 0; i < state.nodes_n; i++) {
        if (lives(&state.nodes[i].process))
            pids[n++] = state.nodes[i].process.pid;
    }
    if (lives(&state.old.process))
        pids[n++] = state.old.process.pid;
    if (lives(&state.next.process))
        pids[n++] = state.next.process.pid;
    return n;
}

static unsigned find_orphan(const struct rundir *dir, bool is_agent, pid_t *pid)
{
    struct rundir_state state;
    const struct process_record *process = is_agent ? &state.agent : &state.redis;

    if (rundir_load(dir, &state) != 0 || !lives(process))
        return 0;
    *pid = process->pid;
    return 1;
}

unsigned rundir_orphan_redis(const struct rundir *dir, pid_t *pid)
{
    return find_orphan(dir, false, pid);
}

unsigned rundir_orphan_agent(const struct rundir *dir, pid_t *pid)
{
    return find_orphan(dir, true, pid);
}
