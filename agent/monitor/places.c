#include "places.h"
#include "source.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { TEXT_BYTES = 64 * 1024, SENSORS_PER_CHIP = 32 };

struct filesystem {
    char path[LIMIT_MACHINE_TEXT_BYTES + 1], device[LIMIT_MACHINE_TEXT_BYTES + 1];
    char type[LIMIT_MACHINE_TEXT_BYTES + 1];
    uint64_t total, used, available;
};

struct sensor {
    struct source file;
    char label[LIMIT_MACHINE_TEXT_BYTES + 1];
    int64_t decicelsius;
    bool there;
};

struct places {
    int root;
    const char *prefix;
    unsigned n_filesystems, n_sensors;
    struct filesystem filesystem[LIMIT_MACHINE_FILESYSTEMS];
    struct sensor sensor[LIMIT_MACHINE_TEMPERATURES];
    char text[TEXT_BYTES];
};

struct places *places_new(int root, const char *prefix)
{
    struct places *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->root = root;
    p->prefix = prefix;
    return p;
}

static void forget_sensors(struct places *p)
{
    while (p->n_sensors > 0)
        source_deinit(&p->sensor[--p->n_sensors].file);
}

void places_free(struct places **p)
{
    if (!*p)
        return;
    forget_sensors(*p);
    free(*p);
    *p = NULL;
}

/* ---- file systems ---- */

/* Those with a device below them, and the root whatever it is. Never one of the network: statvfs() on a server that is
 * gone does not return. */
static bool is_local(struct span device, struct span path, struct span type)
{
    static const char others[] = "squashfs,iso9660,fuse,nfs,nfs4,cifs,smb3,9p,ceph,autofs";
    if (span_in_list(others, type) || (type.n > 5 && memcmp(type.p, "fuse.", 5) == 0))
        return false;
    return (device.n > 0 && *device.p == '/') || span_eq(type, SPAN("zfs")) || span_eq(path, SPAN("/"));
}

/* The kernel writes blanks and the like in paths as a backslash and three octal digits. */
static struct span unescape(struct span path, char *dst, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < path.n && n < cap; n++) {
        const char *p = path.p + i;
        bool escaped = path.n - i > 3 && p[0] == '\\' && p[1] >= '0' && p[1] <= '3';
        dst[n] = escaped ? (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0')) : *p;
        i += escaped ? 4 : 1;
    }
    return (struct span){dst, n};
}

static bool is_known(const struct places *p, const char *device)
{
    for (unsigned i = 0; i < p->n_filesystems; i++)
        if (strcmp(p->filesystem[i].device, device) == 0)
            return true;
    return false;
}

/* A device that is mounted several times counts once, where it was mounted first. */
static void find_filesystems(struct places *p)
{
    struct span line;
    const char *text = p->text;
    char decoded[LIMIT_MACHINE_TEXT_BYTES + 1];
    p->n_filesystems = 0;
    source_read_once(p->root, p->text, sizeof(p->text), "proc/self/mounts");
    while (source_line(&text, &line) && p->n_filesystems < LIMIT_MACHINE_FILESYSTEMS) {
        struct span device = source_word(&line), path = source_word(&line), type = source_word(&line);
        struct filesystem *f = &p->filesystem[p->n_filesystems];
        path = unescape(path, decoded, sizeof(decoded));
        if (!is_local(device, path, type) || path.n > LIMIT_MACHINE_TEXT_BYTES)
            continue;
        source_keep(f->device, device);
        source_keep(f->path, path);
        source_keep(f->type, type);
        if (!is_known(p, f->device))
            p->n_filesystems++;
    }
}

static void measure_filesystem(const struct places *p, struct filesystem *f)
{
    struct statvfs s;
    char path[PATH_MAX];
    f->total = f->used = f->available = 0;
    snprintf(path, sizeof(path), "%s%s", p->prefix, f->path);
    if (statvfs(path, &s) != 0)
        return;
    f->total = (uint64_t)s.f_blocks * s.f_frsize;
    f->used = f->total - (uint64_t)s.f_bfree * s.f_frsize;
    f->available = (uint64_t)s.f_bavail * s.f_frsize;
}

/* ---- temperatures ---- */

/* Calls back with the names in a directory that begin with a prefix. */
static void each_entry(struct places *p, const char *dir, const char *prefix,
                       void (*take)(struct places *, const char *dir, const char *name))
{
    int fd = openat(p->root, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *open_dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!open_dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *e = readdir(open_dir); e; e = readdir(open_dir))
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && strlen(e->d_name) < 64)
            take(p, dir, e->d_name);
    closedir(open_dir);
}

static void read_label(struct places *p, char *out, const char *path)
{
    source_read_once(p->root, p->text, sizeof(p->text), "%s", path);
    source_keep(out, (struct span){p->text, strcspn(p->text, "\n")});
}

static void add_sensor(struct places *p, const char *path, struct span label)
{
    if (p->n_sensors == LIMIT_MACHINE_TEMPERATURES)
        return;
    struct sensor *s = &p->sensor[p->n_sensors++];
    source_init(&s->file, p->root, "%s", path);
    source_keep(s->label, label);
    s->there = false;
}

/* "coretemp Core 0": the chip's name, then the label of the input if it has one. */
static void take_chip(struct places *p, const char *dir, const char *name)
{
    char path[PATH_MAX], chip[LIMIT_MACHINE_TEXT_BYTES + 1], input[LIMIT_MACHINE_TEXT_BYTES + 1];
    snprintf(path, sizeof(path), "%s/%s/name", dir, name);
    read_label(p, chip, path);
    for (unsigned i = 1; i <= SENSORS_PER_CHIP; i++) {
        char label[2 * LIMIT_MACHINE_TEXT_BYTES + 2];
        if (!source_exists(p->root, "%s/%s/temp%u_input", dir, name, i))
            continue;
        snprintf(path, sizeof(path), "%s/%s/temp%u_label", dir, name, i);
        read_label(p, input, path);
        int n = snprintf(label, sizeof(label), "%s%s%s", chip, *input ? " " : "", input);
        snprintf(path, sizeof(path), "%s/%s/temp%u_input", dir, name, i);
        add_sensor(p, path, (struct span){label, (size_t)n});
    }
}

static void take_zone(struct places *p, const char *dir, const char *name)
{
    char path[PATH_MAX], type[LIMIT_MACHINE_TEXT_BYTES + 1];
    snprintf(path, sizeof(path), "%s/%s/type", dir, name);
    read_label(p, type, path);
    snprintf(path, sizeof(path), "%s/%s/temp", dir, name);
    add_sensor(p, path, span_of(type));
}

static void measure_sensor(struct sensor *s)
{
    char text[32];
    const char *p = text;
    s->there = source_read(&s->file, text, sizeof(text)) > 0;
    bool negative = *p == '-';
    struct span line = span_of(p + negative);
    uint64_t tenths = source_number(&line) / 100;
    s->there = s->there && tenths < 10000; /* some chips say nonsense for an input that is not connected */
    s->decicelsius = negative ? -(int64_t)tenths : (int64_t)tenths;
}

/* ---- both ---- */

/* Thermal zones are mostly the same sensors once more. */
void places_refresh(struct places *p)
{
    find_filesystems(p);
    forget_sensors(p);
    each_entry(p, "sys/class/hwmon", "hwmon", take_chip);
    if (p->n_sensors == 0)
        each_entry(p, "sys/class/thermal", "thermal_zone", take_zone);
    places_measure(p);
}

void places_measure(struct places *p)
{
    for (unsigned i = 0; i < p->n_filesystems; i++)
        measure_filesystem(p, &p->filesystem[i]);
    for (unsigned i = 0; i < p->n_sensors; i++)
        measure_sensor(&p->sensor[i]);
}

void places_sample(const struct places *p, struct machine_tick *t)
{
    t->n_filesystems = t->n_temperatures = 0;
    for (unsigned i = 0; i < p->n_filesystems; i++) {
        const struct filesystem *f = &p->filesystem[i];
        if (f->total > 0)
            t->filesystems[t->n_filesystems++] = (struct machine_filesystem){
                span_of(f->path), span_of(f->device), span_of(f->type), f->total, f->used, f->available};
    }
    for (unsigned i = 0; i < p->n_sensors; i++)
        if (p->sensor[i].there)
            t->temperatures[t->n_temperatures++] =
                (struct machine_temperature){span_of(p->sensor[i].label), p->sensor[i].decicelsius};
}
