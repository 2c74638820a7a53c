/* A machine laid out below a directory, whose files change between two samples. */
#include "collector.h"
#include "rate.h"
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];
static struct collector *collector;
static struct machine_tick tick;
static uint64_t clock_us;

/* In place, as the kernel's files are: whoever has them open sees what is new. */
static void put_bytes(const char *path, const char *bytes, size_t n)
{
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static void drop(const char *path)
{
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    nftw(full, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void put_process(unsigned pid, const char *comm, const char *cmdline, size_t n, unsigned ticks)
{
    char path[64], text[256];
    snprintf(path, sizeof(path), "proc/%u/comm", pid);
    snprintf(text, sizeof(text), "%s\n", comm);
    put(path, text);
    snprintf(path, sizeof(path), "proc/%u/cmdline", pid);
    put_bytes(path, cmdline, n);
    snprintf(path, sizeof(path), "proc/%u/stat", pid);
    snprintf(text, sizeof(text), "%u (%s) S 1 2 3 0 -1 4 5 0 0 0 %u %u 0 0 20 0 7 0 5000 999 250 1 2 3\n",
             pid, comm, ticks, ticks);
    put(path, text);
}

static int lay_out(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/starling-machine-XXXXXX");
    assert_non_null(mkdtemp(root));
    put("proc/sys/kernel/hostname", "web1\n");
    put("proc/sys/kernel/osrelease", "6.1.0\n");
    put("etc/machine-id", "00112233445566778899aabbccddeeff\n");
    put("etc/os-release", "NAME=\"X\"\nPRETTY_NAME=\"Some OS 12\"\n");
    put("proc/cpuinfo", "processor\t: 0\nmodel name\t: A  CPU\ncpu MHz\t\t: 2600.5\n");
    put("proc/meminfo", "MemTotal: 8000 kB\nMemFree: 1000 kB\nMemAvailable: 5000 kB\nBuffers: 100 kB\n"
                        "Cached: 2000 kB\nSwapTotal: 400 kB\nSwapFree: 300 kB\nSReclaimable: 50 kB\n");
    put("proc/stat", "cpu  100 10 50 1000 20 5 5 10 0 0\ncpu0 50 5 25 500 10 2 3 5 0 0\n"
                     "cpu1 50 5 25 500 10 3 2 5 0 0\nintr 5\nbtime 1700000000\nprocs_running 3\n");
    put("proc/loadavg", "0.52 1.50 12.09 3/345 6789\n");
    put("proc/uptime", "1000.50 500.00\n");
    put("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\n");
    put("proc/pressure/memory",
        "some avg10=0 avg60=0 avg300=0 total=0\nfull avg10=0 avg60=0 avg300=0 total=0\n");
    put("proc/pressure/io",
        "some avg10=0 avg60=0 avg300=0 total=10\nfull avg10=0 avg60=0 avg300=0 total=5\n");
    put("proc/diskstats", "   7       0 loop0 1 1 1 1 1 1 1 1 1 1 1\n"
                          "   8       0 sda 100 0 1000 5 200 0 2000 6 0 500 11\n"
                          "   8       1 sda1 90 0 900 5 100 0 1000 6 0 400 11\n");
    put("sys/block/sda/device/model", "SPINNER 1T      \n");
    put("sys/block/sda/size", "2000\n");
    put("sys/block/sda/queue/rotational", "1\n");
    put("proc/net/dev", "Inter-|   Receive     |  Transmit\n face |bytes    packets errs\n"
                        "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"
                        "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
                        "vethab: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0\n");
    put("sys/class/net/eth0/address", "02:00:00:00:00:01\n");
    put("sys/class/net/eth0/speed", "-1\n");
    put("sys/class/net/eth0/mtu", "1500\n");
    put("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /again ext4 rw 0 0\n"
                            "/dev/sdb1 /my\\040data xfs rw 0 0\nserver:/x /nfs nfs4 rw 0 0\n");
    put("my data/file", "x");
    put("sys/class/hwmon/hwmon0/name", "coretemp\n");
    put("sys/class/hwmon/hwmon0/temp1_input", "45500\n");
    put("sys/class/hwmon/hwmon0/temp1_label", "Core 0\n");
    put("sys/class/hwmon/hwmon0/temp2_input", "-5000\n");
    put("sys/class/thermal/thermal_zone0/temp", "99000\n");
    put("proc/self/cgroup", "0::/\n");
    clock_us = 1000000;
    return 0;
}

static void start(const char *name)
{
    collector = collector_new(&(struct collector_options){root, name, 1000});
    assert_non_null(collector);
}

static int clean_up(void **state)
{
    (void)state;
    collector_free(&collector);
    nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* Two seconds later. */
static void sample(void)
{
    clock_us += 2000000;
    memset(&tick, 0xa5, sizeof(tick));
    collector_sample(collector, clock_us, 1700001000000, &tick);
    /* Whatever there is, it can be written and is taken by the reader. */
    static struct machine_tick back;
    static struct machine_description description;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_tick(&b, &tick), 0);
    assert_int_equal(machine_read_tick((struct span){b.data, b.size}, &back), 0);
    msgpack_sbuffer_clear(&b);
    assert_int_equal(machine_write_description(&b, collector_description(collector)), 0);
    assert_int_equal(machine_read_description((struct span){b.data, b.size}, &description), 0);
    msgpack_sbuffer_destroy(&b);
}

static void assert_text(struct span text, const char *expected)
{
    if (!span_eq(text, span_of(expected)))
        fail_msg("'%.*s' is not '%s'", (int)text.n, text.p, expected);
}

static void test_description(void **state)
{
    (void)state;
    start(NULL);
    sample();
    const struct machine_description *d = collector_description(collector);
    assert_text(d->about.name, "web1");
    assert_text(d->about.machine_id, "00112233445566778899aabbccddeeff");
    assert_text(d->about.os, "Some OS 12");
    assert_text(d->about.kernel, "6.1.0");
    assert_text(d->about.cpu_model, "A  CPU");
    assert_true(d->about.cores == 2 && d->about.mhz == 2600 && d->about.memory_bytes == 8000 * 1024);
    assert_true(d->about.boot_time_s == 1700000000 && d->about.interval_ms == 1000);
    assert_true(d->about.cpu_limit_milli == 0 && d->about.memory_limit_bytes == 0);
    assert_int_equal(d->n_drives, 1);
    assert_text(d->drives[0].name, "sda");
    assert_text(d->drives[0].model, "SPINNER 1T");
    assert_true(d->drives[0].bytes == 2000 * 512 && d->drives[0].rotates == 1);
    assert_int_equal(d->n_nics, 1);
    assert_text(d->nics[0].address, "02:00:00:00:00:01");
    assert_true(d->nics[0].speed_mbit == 0 && d->nics[0].mtu == 1500);
    assert_true(tick.machine == d->machine && tick.revision == d->revision);
    uint64_t machine = d->machine;
    collector_free(&collector);
    start("another");
    sample();
    d = collector_description(collector);
    assert_text(d->about.name, "another");
    assert_true(d->machine != machine);
}

static void test_first_tick_has_no_rates(void **state)
{
    (void)state;
    start(NULL);
    sample();
    assert_int_equal(tick.elapsed_ms, 0);
    assert_int_equal(machine_busy(&tick.cpu), 0);
    assert_true(tick.n_cores == 2 && tick.cores[0].user == 0);
    assert_true(tick.disks[0].read_bytes == 0 && tick.interfaces[0].rx_bytes == 0 &&
                tick.pressure.cpu_some == 0);
    assert_true(tick.has_pressure && tick.uptime_s == 1000 && tick.time_ms == 1700001000000);
    assert_true(tick.load.one == 52 && tick.load.five == 150 && tick.load.fifteen == 1209);
    assert_true(tick.load.running == 3 && tick.load.tasks == 345);
    assert_true(tick.memory.total == 8000 * 1024 && tick.memory.available == 5000 * 1024);
    assert_true(tick.memory.cached == 2150 * 1024 && tick.memory.swap_used == 100 * 1024);
}

static void test_rates(void **state)
{
    (void)state;
    start(NULL);
    sample();
    /* 400 ticks: user 100, nice 20, system 40, idle 200, iowait 16, irq 4 + 4, steal 16. */
    put("proc/stat", "cpu  200 30 90 1200 36 9 9 26 0 0\ncpu0 150 25 65 500 10 6 7 5 0 0\n"
                     "cpu1 50 5 25 700 10 3 2 5 0 0\nprocs_running 1\n");
    put("proc/diskstats", "   8       0 sda 120 0 1040 5 300 0 3000 6 0 1500 11\n");
    put("proc/net/dev", "  eth0:11000 30 3 4 0 0 0 0 6000 60 5 6 0 0 0 0\n");
    put("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=501000\n");
    put("proc/pressure/io",
        "some avg10=0 avg60=0 avg300=0 total=2000010\nfull avg10=0 avg60=0 avg300=0 total=25\n");
    sample();
    assert_int_equal(tick.elapsed_ms, 2000);
    assert_true(tick.cpu.user == 2500 && tick.cpu.nice == 500 && tick.cpu.system == 1000 &&
                tick.cpu.iowait == 400);
    assert_true(tick.cpu.irq == 200 && tick.cpu.steal == 400 && machine_busy(&tick.cpu) == 4600);
    /* The first core did 120 of user and nice and 40 + 8 of the system, the second one was idle. */
    assert_int_equal(tick.cores[0].user, 200 * 120 / 168);
    assert_int_equal(tick.cores[0].system, 200 * 48 / 168);
    assert_int_equal(tick.cores[1].user, 0);
    assert_true(tick.disks[0].read_bytes == 40 * 512 / 2 && tick.disks[0].write_bytes == 1000 * 512 / 2);
    assert_true(tick.disks[0].reads == 10 && tick.disks[0].writes == 50 && tick.disks[0].busy == 5000);
    assert_int_equal(tick.n_interfaces, 1);
    assert_true(tick.interfaces[0].rx_bytes == 5000 && tick.interfaces[0].tx_bytes == 2000);
    assert_true(tick.interfaces[0].rx_packets == 10 && tick.interfaces[0].tx_packets == 20);
    assert_true(tick.interfaces[0].errors == 2 && tick.interfaces[0].drops == 2);
    assert_true(tick.pressure.cpu_some == 2500 && tick.pressure.io_some == MACHINE_WHOLE &&
                tick.pressure.io_full == 0);
}

/* Counters that went back: a driver loaded anew, and one of 32 bits that wrapped. */
static void test_counters_that_go_back(void **state)
{
    (void)state;
    start(NULL);
    put("proc/net/dev", "  eth0: 4294967000 10 0 0 0 0 0 0 5000000000 20 0 0 0 0 0 0\n");
    sample();
    put("proc/net/dev", "  eth0: 1704 5 0 0 0 0 0 0 10 20 0 0 0 0 0 0\n");
    put("proc/stat", "cpu  90 10 50 900 20 5 5 10 0 0\ncpu0 50 5 25 500 10 2 3 5 0 0\n");
    sample();
    assert_int_equal(tick.interfaces[0].rx_bytes, 1000);
    assert_int_equal(tick.interfaces[0].tx_bytes, 0);
    assert_int_equal(tick.interfaces[0].rx_packets, 0);
    assert_int_equal(machine_busy(&tick.cpu), 0);
    assert_int_equal(rate_delta(7, 3), 0);
    assert_int_equal(rate_delta(UINT32_MAX, 0), 1);
    assert_true(rate_delta(UINT64_MAX - 1, UINT64_MAX) == 1);
    assert_int_equal(rate_per_s(0, 100, 0), 0);
}

/* Devices and cores that come and go change the description; a device that comes back has no peak. */
static void test_hot_plug(void **state)
{
    (void)state;
    start(NULL);
    sample();
    uint64_t revision = tick.revision;
    sample();
    assert_int_equal(tick.revision, revision);
    put("proc/net/dev",
        "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n  usb0: 7000 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
    sample();
    assert_int_equal(tick.n_interfaces, 2);
    assert_int_equal(tick.interfaces[1].rx_bytes, 0);
    assert_true(tick.revision != revision);
    assert_int_equal(collector_description(collector)->n_nics, 2);
    put("proc/net/dev", "  usb0: 9000 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
    sample();
    assert_int_equal(tick.n_interfaces, 1);
    assert_text(tick.interfaces[0].name, "usb0");
    assert_int_equal(tick.interfaces[0].rx_bytes, 1000);
    assert_int_equal(collector_description(collector)->n_nics, 1);
    put("proc/net/dev",
        "  usb0: 9000 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 500000 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
    sample();
    assert_int_equal(tick.interfaces[1].rx_bytes, 0);
    put("proc/stat", "cpu  100 10 50 1000 20 5 5 10 0 0\ncpu1 50 5 25 500 10 3 2 5 0 0\n");
    sample();
    assert_true(tick.n_cores == 2 && tick.cores[0].user == MACHINE_CORE_OFFLINE && tick.cores[1].user == 0);
    assert_int_equal(collector_description(collector)->about.cores, 1);
}

static void test_places(void **state)
{
    (void)state;
    start(NULL);
    sample();
    assert_int_equal(tick.n_filesystems, 2);
    assert_text(tick.filesystems[0].path, "/");
    assert_text(tick.filesystems[1].path, "/my data");
    assert_text(tick.filesystems[1].type, "xfs");
    assert_true(tick.filesystems[1].total > 0 && tick.filesystems[1].used <= tick.filesystems[1].total);
    assert_int_equal(tick.n_temperatures, 2);
    assert_text(tick.temperatures[0].label, "coretemp Core 0");
    assert_int_equal(tick.temperatures[0].decicelsius, 455);
    assert_text(tick.temperatures[1].label, "coretemp");
    assert_int_equal(tick.temperatures[1].decicelsius, -50);
    put("sys/class/hwmon/hwmon0/temp1_input", "50000\n");
    for (int i = 0; i < 3; i++) /* they are looked at each five seconds */
        sample();
    assert_int_equal(tick.temperatures[0].decicelsius, 500);
    drop("sys/class/hwmon/hwmon0");
    put("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    for (int i = 0; i < 5; i++)
        sample();
    assert_int_equal(tick.n_filesystems, 1);
    assert_int_equal(tick.n_temperatures, 1); /* of the thermal zone, when no chip tells */
    assert_int_equal(tick.temperatures[0].decicelsius, 990);
}

static void test_processes(void **state)
{
    (void)state;
    const uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
    static const char node[] = "starling-node\0--name=web-0\0--port=1", other[] = "starling\0up";
    put_process(10, "starling-node", node, sizeof(node), 100);
    put_process(11, "starling", other, sizeof(other), 0);
    put_process(12, "bash", other, sizeof(other), 0);
    put_process(13, "starling-node", "", 0, 0); /* has ended, its parent does not know yet */
    start(NULL);
    sample();
    assert_int_equal(tick.n_processes, 2);
    const struct machine_process *p = &tick.processes[tick.processes[0].pid == 10 ? 0 : 1];
    assert_int_equal(p->pid, 10);
    assert_text(p->name, "starling-node");
    assert_text(p->node, "web-0");
    assert_true(p->cpu == 0 && p->threads == 7 && p->rss_bytes == 250 * (uint64_t)sysconf(_SC_PAGESIZE));
    assert_int_equal(p->uptime_s, 1000 - 5000 / hz);
    put_process(10, "starling-node", node, sizeof(node), 100 + (unsigned)hz / 2);
    sample();
    p = &tick.processes[tick.processes[0].pid == 10 ? 0 : 1];
    assert_int_equal(p->cpu, 5000); /* one second of two */
    /* One ends, another begins: known with the second tick after it. */
    put("proc/10/stat", "");
    put_process(14, "starling-agent", other, sizeof(other), 0);
    sample();
    assert_int_equal(tick.n_processes, 1);
    drop("proc/10");
    sample();
    assert_int_equal(tick.n_processes, 2);
}

static void test_container_of_version_2(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/pod/box\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    put("sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
    put("sys/fs/cgroup/pod/cpu.stat",
        "usage_usec 9\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 0\n");
    put("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/pod/box/memory.max", "4096000\n");
    put("sys/fs/cgroup/pod/memory.max", "9000000000000\n");
    put("sys/fs/cgroup/pod/box/memory.current", "3000000\n");
    put("sys/fs/cgroup/pod/box/memory.stat", "anon 1\nfile 900000\ninactive_file 500000\n");
    start(NULL);
    sample();
    const struct machine_description *d = collector_description(collector);
    assert_int_equal(d->about.cpu_limit_milli, 500);
    assert_int_equal(d->about.memory_limit_bytes, 4096000);
    assert_int_equal(machine_memory_bytes(&d->about), 4096000);
    assert_true(tick.memory.total == 4096000 && tick.memory.available == 4096000 - 2500000);
    assert_int_equal(tick.memory.cached, 900000);
    put("sys/fs/cgroup/pod/cpu.stat",
        "user_usec 1500000\nsystem_usec 600000\nnr_periods 30\nnr_throttled 5\n");
    sample();
    /* In two seconds it might have used one. */
    assert_true(tick.cpu.user == 5000 && tick.cpu.system == 1000 && tick.cpu.throttled == 2500);
    put("sys/fs/cgroup/pod/cpu.max", "max 100000\n");
    for (int i = 0; i < 5; i++)
        sample();
    assert_int_equal(collector_description(collector)->about.cpu_limit_milli, 0);
}

static void test_container_of_version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup", "5:memory:/docker/abc\n4:cpuset:/\n3:cpu,cpuacct:/docker/abc\n0::/\n");
    /* Without a namespace of its own, a container sees its groups at the top and not at that path. */
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 0\nnr_throttled 0\n");
    put("sys/fs/cgroup/cpuacct/cpuacct.usage_user", "0\n");
    put("sys/fs/cgroup/cpuacct/cpuacct.usage_sys", "0\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2048000\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
    put("sys/fs/cgroup/memory/memory.stat", "total_cache 300000\ntotal_inactive_file 200000\n");
    start(NULL);
    sample();
    assert_int_equal(collector_description(collector)->about.cpu_limit_milli, 1500);
    assert_true(tick.memory.total == 2048000 && tick.memory.available == 2048000 - 800000);
    put("sys/fs/cgroup/cpuacct/cpuacct.usage_user", "1500000000\n");
    sample();
    assert_true(tick.cpu.user == 5000 && tick.cpu.system == 0);
}

/* "max", "-1", the host's size and above, and a service's own limits are none. */
static void test_no_limits(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/system.slice/starling-agent.service\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    put("sys/fs/cgroup/system.slice/starling-agent.service/memory.max", "8000000\n");
    put("sys/fs/cgroup/system.slice/starling-agent.service/cpu.max", "1000 100000\n");
    put("sys/fs/cgroup/system.slice/memory.max", "max\n");
    put("sys/fs/cgroup/system.slice/cpu.max", "200000 100000\n");
    start(NULL);
    sample();
    assert_int_equal(collector_description(collector)->about.cpu_limit_milli, 0);
    assert_int_equal(collector_description(collector)->about.memory_limit_bytes, 0);
    assert_int_equal(tick.memory.total, 8000 * 1024);
}

/* Nothing of what it looks for is there, or all of it is nonsense. */
static void test_empty_and_strange(void **state)
{
    (void)state;
    drop("proc");
    drop("sys");
    drop("etc");
    start(NULL);
    sample();
    sample();
    assert_true(tick.n_cores == 0 && tick.n_disks == 0 && tick.n_processes == 0 && !tick.has_pressure);
    assert_int_equal(tick.memory.total, 0);
    collector_free(&collector);
    static const char *const files[] = {"proc/stat",        "proc/meminfo",   "proc/diskstats",
                                        "proc/net/dev",     "proc/loadavg",   "proc/self/mounts",
                                        "proc/uptime",      "etc/os-release", "proc/pressure/cpu",
                                        "proc/self/cgroup", "proc/cpuinfo"};
    static const char *const texts[] = {"\n\n\n",
                                        "cpu",
                                        "cpu99999999999999999999 1",
                                        ":::::",
                                        "cpu \xff\xfe -1 -1",
                                        "a b c d e f 99999999999999999999999",
                                        "model name",
                                        "PRETTY_NAME=\""};
    for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
            put(files[i], texts[t]);
        start(NULL);
        sample();
        sample();
        collector_free(&collector);
    }
    assert_null(collector_new(&(struct collector_options){"/no/such/directory", NULL, 1000}));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, lay_out, clean_up)
    const struct CMUnitTest tests[] = {
        TEST(test_description),
        TEST(test_first_tick_has_no_rates),
        TEST(test_rates),
        TEST(test_counters_that_go_back),
        TEST(test_hot_plug),
        TEST(test_places),
        TEST(test_processes),
        TEST(test_container_of_version_2),
        TEST(test_container_of_version_1),
        TEST(test_no_limits),
        TEST(test_empty_and_strange),
    };
    return cmocka_run_group_tests_name("collector", tests, NULL, NULL);
}
