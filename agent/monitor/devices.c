#include "devices.h"
#include "rate.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    NAME_BYTES = 32, /* the kernel's own bound for disks; interfaces have 16 */
    KNOWN_MAX = 512, /* partitions and loops too, so that they are looked at once only */
    COUNTERS = 8,
    SECTOR_BYTES = 512,
    TEXT_BYTES = 128 * 1024,
};

struct device {
    char name[NAME_BYTES + 1];
    bool kept, seen, sampled;
    uint64_t counter[COUNTERS];
};

/* What is in one file of the kernel, in its order. */
struct table {
    struct source file;
    struct device device[KNOWN_MAX];
    unsigned n, next; /* next: where the following line is expected */
    bool changed;
    bool (*wanted)(int root, const char *name);
};

struct devices {
    int root;
    struct table disks, nics;
    char texts[LIMIT_MACHINE_INTERFACES + LIMIT_MACHINE_DISKS][LIMIT_MACHINE_TEXT_BYTES + 1];
    char text[TEXT_BYTES];
};

/* Whole disks that are no layer above others: what they do is counted once. */
static bool is_disk(int root, const char *name)
{
    return !strchr(name, '/') && source_exists(root, "sys/block/%s/device", name);
}

/* Not the loopback, nor the host's ends of containers. */
static bool is_nic(int root, const char *name)
{
    static const char *const others[] = {"veth", "ifb", "dummy"};
    (void)root;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strncmp(name, others[i], strlen(others[i])) == 0)
            return false;
    return strcmp(name, "lo") != 0;
}

struct devices *devices_new(int root)
{
    struct devices *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->root = root;
    d->disks.wanted = is_disk;
    d->nics.wanted = is_nic;
    source_init(&d->disks.file, root, "proc/diskstats");
    source_init(&d->nics.file, root, "proc/net/dev");
    return d;
}

void devices_free(struct devices **d)
{
    if (!*d)
        return;
    source_deinit(&(*d)->disks.file);
    source_deinit(&(*d)->nics.file);
    free(*d);
    *d = NULL;
}

static bool is_named(const struct device *device, struct span name)
{
    return span_eq(span_of(device->name), name);
}

/* NULL: there are too many. */
static struct device *find(struct table *t, int root, struct span name)
{
    if (name.n == 0 || name.n > NAME_BYTES)
        return NULL;
    if (t->next >= t->n || !is_named(&t->device[t->next], name))
        for (t->next = 0; t->next < t->n && !is_named(&t->device[t->next], name);)
            t->next++;
    if (t->next == KNOWN_MAX)
        return NULL;
    struct device *device = &t->device[t->next];
    if (t->next++ == t->n) {
        *device = (struct device){.kept = false};
        memcpy(device->name, name.p, name.n);
        device->kept = t->wanted(root, device->name);
        t->changed |= device->kept;
        t->n++;
    }
    device->seen = true;
    return device;
}

/* Before a sample: those that the last one did not see go, the others keep their order. */
static void settle(struct table *t)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t->n; i++) {
        if (!t->device[i].seen)
            continue;
        if (n != i)
            t->device[n] = t->device[i];
        t->device[n++].seen = false;
    }
    t->n = n;
    t->next = 0;
    t->changed = false;
}

/* After it: has one come or gone? */
static bool has_changed(const struct table *t)
{
    bool changed = t->changed;
    for (unsigned i = 0; i < t->n; i++)
        changed |= t->device[i].kept && !t->device[i].seen;
    return changed;
}

/* Rates of a device whose counters are now these; none at first sight. */
static void take_counters(struct device *device, const uint64_t *now, uint64_t elapsed_us, uint64_t *rates)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        rates[i] = device->sampled ? rate_per_s(device->counter[i], now[i], elapsed_us) : 0;
        device->counter[i] = now[i];
    }
    device->sampled = true;
}

/* Two columns, then the name, then eleven numbers and more: see the kernel's iostats.rst. */
static void sample_disk(struct devices *d, struct span line, uint64_t elapsed_us, struct machine_tick *t)
{
    enum { READS, READ_SECTORS = 2, WRITES = 4, WRITE_SECTORS = 6, BUSY_MS = 9, COLUMNS = 10 };
    uint64_t column[COLUMNS], now[COUNTERS] = {0}, rates[COUNTERS];
    source_number(&line);
    source_number(&line);
    struct span name = source_word(&line);
    struct device *device = find(&d->disks, d->root, name);
    if (!device || !device->kept)
        return;
    for (unsigned i = 0; i < COLUMNS; i++)
        column[i] = source_number(&line);
    now[0] = column[READ_SECTORS];
    now[1] = column[WRITE_SECTORS];
    now[2] = column[READS];
    now[3] = column[WRITES];
    now[4] = column[BUSY_MS];
    take_counters(device, now, elapsed_us, rates);
    if (t->n_disks == LIMIT_MACHINE_DISKS)
        return;
    t->disks[t->n_disks++] = (struct machine_disk){
        span_of(device->name),     rates[0] * SECTOR_BYTES, rates[1] * SECTOR_BYTES, rates[2], rates[3],
        rate_share(rates[4], 1000)};
}

/* "  eth0: " and 16 numbers. */
static void sample_nic(struct devices *d, struct span line, uint64_t elapsed_us, struct machine_tick *t)
{
    enum {
        RX_BYTES,
        RX_PACKETS,
        RX_ERRORS,
        RX_DROPS,
        TX_BYTES = 8,
        TX_PACKETS,
        TX_ERRORS,
        TX_DROPS,
        COLUMNS
    };
    uint64_t column[COLUMNS], rates[COUNTERS];
    const char *colon = memrchr(line.p, ':', line.n);
    if (!colon)
        return; /* one of the two lines of titles */
    struct span head = {line.p, (size_t)(colon - line.p)};
    struct device *device = find(&d->nics, d->root, source_word(&head));
    if (!device || !device->kept)
        return;
    line.n -= (size_t)(colon + 1 - line.p);
    line.p = colon + 1;
    for (unsigned i = 0; i < COLUMNS; i++)
        column[i] = source_number(&line);
    const uint64_t now[COUNTERS] = {column[RX_BYTES],   column[TX_BYTES],  column[RX_PACKETS],
                                    column[TX_PACKETS], column[RX_ERRORS], column[TX_ERRORS],
                                    column[RX_DROPS],   column[TX_DROPS]};
    take_counters(device, now, elapsed_us, rates);
    if (t->n_interfaces == LIMIT_MACHINE_INTERFACES)
        return;
    t->interfaces[t->n_interfaces++] =
        (struct machine_interface){span_of(device->name), rates[0],           rates[1], rates[2], rates[3],
                                   rates[4] + rates[5],   rates[6] + rates[7]};
}

bool devices_sample(struct devices *d, uint64_t elapsed_us, struct machine_tick *t)
{
    struct span line;
    const char *p = d->text;
    t->n_disks = t->n_interfaces = 0;
    settle(&d->disks);
    settle(&d->nics);
    source_read(&d->disks.file, d->text, sizeof(d->text));
    while (source_line(&p, &line))
        sample_disk(d, line, elapsed_us, t);
    p = d->text;
    source_read(&d->nics.file, d->text, sizeof(d->text));
    while (source_line(&p, &line))
        sample_nic(d, line, elapsed_us, t);
    return has_changed(&d->disks) || has_changed(&d->nics);
}

static uint64_t number_of(struct devices *d, const char *format, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), format, name);
    source_read_once(d->root, d->text, sizeof(d->text), "%s", path);
    struct span line = span_of(d->text); /* some say -1 when they do not know */
    return source_number(&line);
}

static struct span text_of(struct devices *d, unsigned slot, const char *format, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), format, name);
    source_read_once(d->root, d->text, sizeof(d->text), "%s", path);
    source_keep(d->texts[slot], (struct span){d->text, strcspn(d->text, "\n")});
    return span_of(d->texts[slot]);
}

static void describe_nics(struct devices *d, struct machine_description *description)
{
    description->n_nics = 0;
    for (unsigned i = 0; i < d->nics.n && description->n_nics < LIMIT_MACHINE_INTERFACES; i++) {
        const char *name = d->nics.device[i].name;
        if (!d->nics.device[i].kept || !d->nics.device[i].seen)
            continue;
        unsigned slot = description->n_nics++;
        description->nics[slot] = (struct machine_nic){
            .name = span_of(name),
            .address = text_of(d, slot, "sys/class/net/%s/address", name),
            .speed_mbit = number_of(d, "sys/class/net/%s/speed", name),
            .mtu = number_of(d, "sys/class/net/%s/mtu", name),
        };
    }
}

void devices_describe(struct devices *d, struct machine_description *description)
{
    describe_nics(d, description);
    description->n_drives = 0;
    for (unsigned i = 0; i < d->disks.n && description->n_drives < LIMIT_MACHINE_DISKS; i++) {
        const char *name = d->disks.device[i].name;
        if (!d->disks.device[i].kept || !d->disks.device[i].seen)
            continue;
        unsigned slot = description->n_drives++;
        description->drives[slot] = (struct machine_drive){
            .name = span_of(name),
            .model = text_of(d, LIMIT_MACHINE_INTERFACES + slot, "sys/block/%s/device/model", name),
            .bytes = number_of(d, "sys/block/%s/size", name) * SECTOR_BYTES,
            .rotates = number_of(d, "sys/block/%s/queue/rotational", name) != 0,
        };
    }
}
