#include "about.h"
#include "source.h"
#include <stdlib.h>
#include <sys/utsname.h>

enum { TEXT_BYTES = 4096 }; /* the first core of /proc/cpuinfo */

enum text { NAME, HOSTNAME, MACHINE_ID, OS, KERNEL, ARCH, CPU_MODEL, TEXTS };

struct about {
    int root;
    uint64_t
        mhz; /* as it was first: without a driver that knows the highest clock, this is the one of the moment */
    char texts[TEXTS][LIMIT_MACHINE_TEXT_BYTES + 1];
    char text[TEXT_BYTES];
};

struct about *about_new(int root)
{
    struct about *a = calloc(1, sizeof(*a));
    if (a)
        a->root = root;
    return a;
}

void about_free(struct about **a)
{
    free(*a);
    *a = NULL;
}

/* The first line of a file. */
static struct span first_line(struct about *a, enum text which, const char *path)
{
    source_read_once(a->root, a->text, sizeof(a->text), "%s", path);
    source_keep(a->texts[which], (struct span){a->text, strcspn(a->text, "\n")});
    return span_of(a->texts[which]);
}

/* What stands behind a key at the beginning of a line, and behind the blanks and the mark after it. */
static struct span value_of(const struct about *a, const char *key, char mark)
{
    struct span line;
    const char *p = a->text;
    size_t n = strlen(key);
    while (source_line(&p, &line)) {
        const char *found =
            line.n > n && memcmp(line.p, key, n) == 0 ? memchr(line.p + n, mark, line.n - n) : NULL;
        if (found && strspn(line.p + n, " \t") == (size_t)(found - line.p) - n) {
            size_t blanks = 1 + strspn(found + 1, " \t");
            size_t start = (size_t)(found - line.p) + blanks;
            return start < line.n ? (struct span){line.p + start, line.n - start} : (struct span){NULL, 0};
        }
    }
    return (struct span){NULL, 0};
}

static struct span os_name(struct about *a)
{
    if (source_read_once(a->root, a->text, sizeof(a->text), "etc/os-release") < 0)
        source_read_once(a->root, a->text, sizeof(a->text), "usr/lib/os-release");
    struct span value = value_of(a, "PRETTY_NAME", '=');
    if (value.n >= 2 && *value.p == '"')
        value = (struct span){value.p + 1, value.n - 2};
    source_keep(a->texts[OS], value);
    return span_of(a->texts[OS]);
}

/* Of the first core; x86 and some others tell. */
static struct span cpu_model(struct about *a)
{
    source_read_once(a->root, a->text, sizeof(a->text), "proc/cpuinfo");
    struct span model = value_of(a, "model name", ':'), clock = value_of(a, "cpu MHz", ':');
    if (model.n == 0)
        model = value_of(a, "Model", ':');
    source_keep(a->texts[CPU_MODEL], model.n > 0 ? model : SPAN(""));
    if (a->mhz == 0)
        a->mhz = source_number(&clock);
    const char *khz = "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq";
    if (source_read_once(a->root, a->text, sizeof(a->text), "%s", khz) > 0) {
        struct span line = span_of(a->text);
        a->mhz = source_number(&line) / 1000;
    }
    return span_of(a->texts[CPU_MODEL]);
}

static uint64_t memory_bytes(struct about *a)
{
    source_read_once(a->root, a->text, sizeof(a->text), "proc/meminfo");
    struct span total = value_of(a, "MemTotal", ':');
    return source_number(&total) * 1024;
}

void about_describe(struct about *a, const char *name, struct machine_about *out)
{
    struct utsname u;
    out->hostname = first_line(a, HOSTNAME, "proc/sys/kernel/hostname");
    source_keep(a->texts[NAME], name ? span_of(name) : out->hostname);
    out->name = span_of(a->texts[NAME]);
    out->machine_id = first_line(a, MACHINE_ID, "etc/machine-id");
    out->os = os_name(a);
    out->kernel = first_line(a, KERNEL, "proc/sys/kernel/osrelease");
    source_keep(a->texts[ARCH], uname(&u) == 0 ? span_of(u.machine) : SPAN(""));
    out->arch = span_of(a->texts[ARCH]);
    out->cpu_model = cpu_model(a);
    out->mhz = a->mhz;
    out->agent_version = span_of(STARLING_VERSION);
    out->memory_bytes = memory_bytes(a);
}
