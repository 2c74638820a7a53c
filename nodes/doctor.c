/* `starling doctor`: would `starling up` with these options run well here? Each line says what was found, and how to
 * mend it when it is not as it should be. */
#include "supervisor_parts.h"
#include "verb.h"
#include <arpa/inet.h>
#include <civetweb.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    OWN_DESCRIPTORS = 64, /* of a node that are no connections */
    BACKLOG = 4096,
    REDIS_MAJOR = 7,
    REDIS_SECONDS = 2,
    URL_BYTES = 512,
};

enum verdict { GOOD, NOTE, WRONG };

struct doctor {
    struct supervisor *s;
    pid_t running; /* the supervisor of the run directory; 0: none */
    unsigned wrong;
};

__attribute__((format(printf, 4, 5))) static void say(struct doctor *d, enum verdict verdict,
                                                      const char *about, const char *format, ...)
{
    static const char *const words[] = {"ok", "note", "WRONG"};
    va_list args;

    printf("%-6s%-15s", words[verdict], about);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    d->wrong += verdict == WRONG;
}

/* The first line that a command prints; false when it fails. */
static bool run(const char *program, const char *argument, char *out, size_t size)
{
    char command[2 * PATH_MAX];
    FILE *from;
    bool good;

    out[0] = '\0';
    if (strchr(program, '\'') || snprintf(command, sizeof command, "'%s' %s 2>&1", program, argument) < 0)
        return false;
    from = popen(command, "re");
    if (!from)
        return false;
    good = fgets(out, (int)size, from) != NULL;
    while (fgetc(from) != EOF)
        ;
    out[strcspn(out, "\n")] = '\0';
    return pclose(from) == 0 && good;
}

/* ---- checks ---- */

static void check_program(struct doctor *d)
{
    char program[PATH_MAX], line[256];

    if (!rundir_program("starling-node", program))
        say(d, WRONG, "program", "cannot run %s: %s; install starling-node beside starling", program,
            strerror(errno));
    else if (!run(program, "--version", line, sizeof line))
        say(d, WRONG, "program", "%s does not start: %s; deploy/install-deps installs the libraries it needs",
            program, line);
    else if (strcmp(line, "starling-node " STARLING_VERSION) != 0)
        say(d, WRONG, "program",
            "%s is \"%s\", and this is starling " STARLING_VERSION "; install both from one build", program,
            line);
    else
        say(d, GOOD, "program", "%s", line);
    if (d->s->config.agent && !rundir_program("starling-agent", program))
        say(d, WRONG, "program", "cannot run %s: %s; install it there, or leave --agent out", program,
            strerror(errno));
}

static void check_libraries(struct doctor *d)
{
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    say(d, major > 4 || (major == 4 && minor >= 3) ? GOOD : WRONG, "libraries",
        "libzmq %d.%d.%d (4.3 or newer), civetweb %s", major, minor, patch, mg_version());
}

static void check_descriptors(struct doctor *d)
{
    const struct config *c = &d->s->config;
    uint64_t wanted = (uint64_t)c->max_connections + 2 * OWN_DESCRIPTORS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (limit.rlim_max < wanted)
        say(d, WRONG, "descriptors",
            "a node may open %" PRIu64 " and wants %" PRIu64
            " for --max-connections %u: raise the hard limit (`ulimit -Hn`, LimitNOFILE= of the service), or "
            "lower "
            "the option",
            (uint64_t)limit.rlim_max, wanted, c->max_connections);
    else
        say(d, GOOD, "descriptors", "a node may open %" PRIu64 ", enough for %u connections",
            (uint64_t)limit.rlim_max, c->max_connections);
}

static void check_run_dir(struct doctor *d)
{
    const char *path = d->s->dir.path;
    char parent[PATH_MAX], *slash;
    struct stat status;

    if (!rundir_is_usable(&d->s->dir)) {
        say(d, WRONG, "run directory",
            "%s: takes up to %d characters without a comma and a percent sign; give another --run-dir", path,
            RUNDIR_PATH_CHARS);
        return;
    }
    if (stat(path, &status) == 0) {
        if (!S_ISDIR(status.st_mode))
            say(d, WRONG, "run directory", "%s is not a directory; give another --run-dir", path);
        else if (status.st_uid != geteuid())
            say(d, WRONG, "run directory", "%s belongs to another user; give another --run-dir", path);
        else if (status.st_mode & (S_IWGRP | S_IWOTH))
            say(d, WRONG, "run directory", "other users may write to %s: chmod 700 it", path);
        else if (access(path, R_OK | W_OK | X_OK) != 0)
            say(d, WRONG, "run directory",
                "%s cannot be written to: %s; chmod 700 it, or give another --run-dir", path,
                strerror(errno));
        else
            say(d, GOOD, "run directory", "%s", path);
        return;
    }
    snprintf(parent, sizeof parent, "%s", path);
    slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    if (access(parent, W_OK | X_OK) != 0)
        say(d, WRONG, "run directory", "%s cannot be made: %s: %s; give another --run-dir", path, parent,
            strerror(errno));
    else
        say(d, GOOD, "run directory", "%s will be made", path);
}

static void check_ports(struct doctor *d)
{
    const struct supervisor *s = d->s;
    char problem[256];
    bool bad = false;

    if (d->running > 0) {
        say(d, GOOD, "ports", "a bus runs with this run directory (pid %d)", (int)d->running);
        return;
    }
    if (ports_highest(s, s->config.nodes) > UINT16_MAX) {
        say(d, WRONG, "ports", "%" PRIu32 " nodes need ports up to %" PRIu32 "; give a lower --port",
            s->config.nodes, ports_highest(s, s->config.nodes));
        return;
    }
    bad = ports_find_bad_public(s, problem, sizeof problem);
    for (unsigned i = 0; i < s->config.nodes && !bad; i++)
        bad = ports_find_bad(s, i, problem, sizeof problem);
    if (bad)
        say(d, WRONG, "ports", "%s; free it, or give another --port or --bind", problem);
    else
        say(d, GOOD, "ports", "%" PRIu32 " to %" PRIu32 " are free", s->config.port,
            ports_highest(s, s->config.nodes));
}

/* ---- Redis ---- */

static void check_private_redis(struct doctor *d)
{
    char program[PATH_MAX], line[256];
    const char *version;

    if (!redis_server_find(program)) {
        say(d, WRONG, "redis",
            "there is no redis-server in PATH, so clients of a node that dies cannot recover: install it "
            "(apt-get install redis-server), or say --redis none");
        return;
    }
    if (!run(program, "--version", line, sizeof line) || !(version = strstr(line, "v="))) {
        say(d, WRONG, "redis", "%s --version fails: %s", program, line);
        return;
    }
    if (atoi(version + 2) < REDIS_MAJOR)
        say(d, WRONG, "redis",
            "%s is version %.*s, and %d or newer is needed: upgrade it, or say --redis none", program,
            (int)strcspn(version + 2, " "), version + 2, REDIS_MAJOR);
    else
        say(d, GOOD, "redis", "private, %s version %.*s", program, (int)strcspn(version + 2, " "),
            version + 2);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s", path) >= sizeof address.sun_path)
        errno = ENAMETOOLONG;
    else if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int connect_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timeval wait = {.tv_sec = REDIS_SECONDS};
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &found) != 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait); /* also of the connect */
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

/* redis://[user:password@]host[:port][/database], unix://PATH[?…]; a Sentinel's first address. */
static int connect_redis(const char *url)
{
    char text[URL_BYTES], *host, *port;

    snprintf(text, sizeof text, "%s", strstr(url, "://") + 3);
    if (strncmp(url, "unix://", 7) == 0) {
        text[strcspn(text, "?")] = '\0';
        return connect_unix(text);
    }
    text[strcspn(text, "/,")] = '\0';
    host = strrchr(text, '@');
    host = host ? host + 1 : text;
    port = strrchr(host, ':');
    if (port)
        *port++ = '\0';
    return connect_tcp(host, port ? port : strncmp(url, "redis+sentinel", 14) == 0 ? "26379" : "6379");
}

/* What it answers to PING; a server that wants a password says so, and that is an answer too. */
static bool ask_redis(int fd, char *answer, size_t size)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    ssize_t n = -1;

    if (send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && poll(&wait, 1, REDIS_SECONDS * 1000) == 1)
        n = recv(fd, answer, size - 1, 0);
    answer[n > 0 ? n : 0] = '\0';
    answer[strcspn(answer, "\r\n")] = '\0';
    return n > 0 && (answer[0] == '+' || strncmp(answer, "-NOAUTH", 7) == 0);
}

/* Without what is before the "@": a password is in it. */
static const char *without_password(const char *url)
{
    const char *at = strrchr(url, '@');
    return at ? at + 1 : url;
}

static void check_given_redis(struct doctor *d)
{
    const char *url = d->s->config.redis;
    char answer[128] = "";
    int fd = connect_redis(url);

    if (fd < 0)
        say(d, WRONG, "redis", "%s cannot be reached: %s; start it, or give another --redis",
            without_password(url), strerror(errno));
    else if (!ask_redis(fd, answer, sizeof answer))
        say(d, WRONG, "redis", "%s does not answer PING as Redis does (%s)", without_password(url),
            answer[0] ? answer : "no answer");
    else
        say(d, GOOD, "redis", "%s answers", without_password(url));
    if (fd >= 0)
        close(fd);
}

static void check_redis(struct doctor *d)
{
    const char *redis = d->s->config.redis;

    if (strcmp(redis, "none") == 0)
        say(d, NOTE, "redis", "none: clients of a node that dies cannot recover what they miss");
    else if (!redis[0] || strcmp(redis, "private") == 0)
        check_private_redis(d);
    else
        check_given_redis(d);
}

/* ---- the kernel ---- */

static bool read_setting(const char *path, long *value)
{
    FILE *file = fopen(path, "re");
    bool good = file && fscanf(file, "%ld", value) == 1;

    if (file)
        fclose(file);
    return good;
}

static void check_kernel(struct doctor *d)
{
    const char *redis = d->s->config.redis;
    bool is_private = !redis[0] || strcmp(redis, "private") == 0;
    long value;

    if (read_setting("/proc/sys/net/core/somaxconn", &value))
        say(d, value < BACKLOG ? NOTE : GOOD, "kernel", "net.core.somaxconn is %ld%s", value,
            value < BACKLOG
                ? ": connects may be lost when many clients come at once; sysctl -w net.core.somaxconn=4096"
                : "");
    if (read_setting("/proc/sys/vm/overcommit_memory", &value) && is_private && value != 1)
        say(d, NOTE, "kernel",
            "vm.overcommit_memory is %ld: Redis may fail to rewrite its file when memory is short; "
            "sysctl -w vm.overcommit_memory=1",
            value);
    if (read_setting("/proc/sys/net/ipv4/tcp_migrate_req", &value) && value == 0)
        say(d, NOTE, "kernel",
            "net.ipv4.tcp_migrate_req is 0: `scale` down may reset a connect that is under way at that "
            "moment; "
            "sysctl -w net.ipv4.tcp_migrate_req=1");
}

int verb_doctor(int argc, char **argv)
{
    struct supervisor *s = calloc(1, sizeof *s);
    struct doctor d = {.s = s};
    int rc = s ? config_parse(argc, argv, CONFIG_UP, &s->config) : 1;

    if (rc != 0)
        goto out;
    rundir_init(&s->dir, s->config.run_dir);
    d.running = rundir_holder(&s->dir);
    if (s->config.nodes == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        s->config.nodes = cores < 1 ? 1 : cores > NODES_MAX ? NODES_MAX : (uint32_t)cores;
    }
    check_program(&d);
    check_libraries(&d);
    check_descriptors(&d);
    check_run_dir(&d);
    check_ports(&d);
    check_redis(&d);
    check_kernel(&d);
    rc = d.wrong > 0;
out:
    if (s)
        config_free(&s->config);
    free(s);
    return rc == CONFIG_SHOWN ? 0 : rc;
}
