#include "server.h"
#include "util.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file of /proc as a string; false when it is gone. */
static bool read_file(const char *path, char *text, size_t cap)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(text, 1, cap - 1, f);
    fclose(f);
    text[n] = '\0';
    return n > 0;
}

static uint64_t threads_cpu_ns(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        die("the server's process %d is gone", (int)pid);
    uint64_t sum = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char file[384], text[128];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof(file), "%s/%s/schedstat", path, e->d_name);
        if (read_file(file, text, sizeof(text)))
            sum += strtoull(text, NULL, 10);
    }
    closedir(dir);
    return sum;
}

static void add_ticks(pid_t pid, struct server_usage *u)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_file(path, text, sizeof(text)))
        die("the server's process %d is gone", (int)pid);
    unsigned long long user, system;
    const char *rest = strrchr(text, ')'); /* the name before it may hold anything */
    if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        die("%s is not understood", path);
    uint64_t tick_ns = NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    u->user_ns += user * tick_ns;
    u->system_ns += system * tick_ns;
}

struct server_usage server_usage(const struct server *s)
{
    struct server_usage u = {.at_ns = now_ns()};
    for (unsigned i = 0; i < s->count; i++) {
        u.cpu_ns += threads_cpu_ns(s->pids[i]);
        add_ticks(s->pids[i], &u);
    }
    return u;
}

struct server_usage server_usage_since(const struct server *s, const struct server_usage *start)
{
    struct server_usage u = server_usage(s);
    u.at_ns -= start->at_ns;
    u.cpu_ns -= start->cpu_ns;
    u.user_ns -= start->user_ns;
    u.system_ns -= start->system_ns;
    return u;
}

uint64_t server_rss_bytes(const struct server *s)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < s->count; i++) {
        char path[64], text[4096];
        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)s->pids[i]);
        if (!read_file(path, text, sizeof(text)))
            die("the server's process %d is gone", (int)s->pids[i]);
        const char *line = strstr(text, "\nRss:");
        if (!line)
            die("%s has no line Rss", path);
        sum += strtoull(line + 5, NULL, 10) * 1024;
    }
    return sum;
}
