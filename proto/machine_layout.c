#include "machine_layout.h"

#define F(type, member, key, kind)                                                                           \
    {                                                                                                        \
        key, kind, offsetof(struct type, member)                                                             \
    }
#define LAYOUT(name)                                                                                         \
    {                                                                                                        \
        name##_fields, sizeof(name##_fields) / sizeof(struct machine_field), sizeof(struct machine_##name)   \
    }

static const struct machine_field about_fields[] = {
    F(machine_about, name, "name", MACHINE_TEXT),
    F(machine_about, hostname, "hostname", MACHINE_TEXT),
    F(machine_about, machine_id, "machine_id", MACHINE_TEXT),
    F(machine_about, os, "os", MACHINE_TEXT),
    F(machine_about, kernel, "kernel", MACHINE_TEXT),
    F(machine_about, arch, "arch", MACHINE_TEXT),
    F(machine_about, cpu_model, "cpu_model", MACHINE_TEXT),
    F(machine_about, agent_version, "agent_version", MACHINE_TEXT),
    F(machine_about, cores, "cores", MACHINE_UINT),
    F(machine_about, mhz, "mhz", MACHINE_UINT),
    F(machine_about, cpu_limit_milli, "cpu_limit", MACHINE_HIDDEN),
    F(machine_about, memory_bytes, "host_memory_bytes", MACHINE_UINT),
    F(machine_about, memory_limit_bytes, "memory_limit_bytes", MACHINE_HIDDEN),
    F(machine_about, boot_time_s, "boot_time_s", MACHINE_UINT),
    F(machine_about, interval_ms, "interval_ms", MACHINE_UINT),
};
const struct machine_layout machine_about_layout = LAYOUT(about);

static const struct machine_field nic_fields[] = {
    F(machine_nic, name, "name", MACHINE_TEXT),
    F(machine_nic, address, "address", MACHINE_TEXT),
    F(machine_nic, speed_mbit, "speed_mbit", MACHINE_UINT),
    F(machine_nic, mtu, "mtu", MACHINE_UINT),
};
static const struct machine_layout machine_nic_layout = LAYOUT(nic);

static const struct machine_field drive_fields[] = {
    F(machine_drive, name, "name", MACHINE_TEXT),
    F(machine_drive, model, "model", MACHINE_TEXT),
    F(machine_drive, bytes, "bytes", MACHINE_UINT),
    F(machine_drive, rotates, "rotates", MACHINE_FLAG),
};
static const struct machine_layout machine_drive_layout = LAYOUT(drive);

static const struct machine_field cpu_fields[] = {
    F(machine_cpu, user, "user_pct", MACHINE_SHARE),
    F(machine_cpu, nice, "nice_pct", MACHINE_SHARE),
    F(machine_cpu, system, "system_pct", MACHINE_SHARE),
    F(machine_cpu, irq, "irq_pct", MACHINE_SHARE),
    F(machine_cpu, iowait, "iowait_pct", MACHINE_SHARE),
    F(machine_cpu, steal, "steal_pct", MACHINE_SHARE),
    F(machine_cpu, throttled, "throttled_pct", MACHINE_SHARE),
};
const struct machine_layout machine_cpu_layout = LAYOUT(cpu);

static const struct machine_field load_fields[] = {
    F(machine_load, one, "one", MACHINE_CENTI),         F(machine_load, five, "five", MACHINE_CENTI),
    F(machine_load, fifteen, "fifteen", MACHINE_CENTI), F(machine_load, running, "running", MACHINE_UINT),
    F(machine_load, tasks, "tasks", MACHINE_UINT),
};
const struct machine_layout machine_load_layout = LAYOUT(load);

static const struct machine_field memory_fields[] = {
    F(machine_memory, total, "total_bytes", MACHINE_UINT),
    F(machine_memory, available, "available_bytes", MACHINE_UINT),
    F(machine_memory, cached, "cached_bytes", MACHINE_UINT),
    F(machine_memory, swap_total, "swap_total_bytes", MACHINE_UINT),
    F(machine_memory, swap_used, "swap_used_bytes", MACHINE_UINT),
};
const struct machine_layout machine_memory_layout = LAYOUT(memory);

static const struct machine_field pressure_fields[] = {
    F(machine_pressure, cpu_some, "cpu_some_pct", MACHINE_SHARE),
    F(machine_pressure, memory_some, "memory_some_pct", MACHINE_SHARE),
    F(machine_pressure, memory_full, "memory_full_pct", MACHINE_SHARE),
    F(machine_pressure, io_some, "io_some_pct", MACHINE_SHARE),
    F(machine_pressure, io_full, "io_full_pct", MACHINE_SHARE),
};
const struct machine_layout machine_pressure_layout = LAYOUT(pressure);

static const struct machine_field disk_fields[] = {
    F(machine_disk, name, "name", MACHINE_TEXT),
    F(machine_disk, read_bytes, "read_bytes_s", MACHINE_UINT),
    F(machine_disk, write_bytes, "write_bytes_s", MACHINE_UINT),
    F(machine_disk, reads, "reads_s", MACHINE_UINT),
    F(machine_disk, writes, "writes_s", MACHINE_UINT),
    F(machine_disk, busy, "busy_pct", MACHINE_SHARE),
};
static const struct machine_layout machine_disk_layout = LAYOUT(disk);

static const struct machine_field filesystem_fields[] = {
    F(machine_filesystem, path, "path", MACHINE_TEXT),
    F(machine_filesystem, device, "device", MACHINE_TEXT),
    F(machine_filesystem, type, "type", MACHINE_TEXT),
    F(machine_filesystem, total, "total_bytes", MACHINE_UINT),
    F(machine_filesystem, used, "used_bytes", MACHINE_UINT),
    F(machine_filesystem, available, "available_bytes", MACHINE_UINT),
};
static const struct machine_layout machine_filesystem_layout = LAYOUT(filesystem);

static const struct machine_field interface_fields[] = {
    F(machine_interface, name, "name", MACHINE_TEXT),
    F(machine_interface, rx_bytes, "rx_bytes_s", MACHINE_UINT),
    F(machine_interface, tx_bytes, "tx_bytes_s", MACHINE_UINT),
    F(machine_interface, rx_packets, "rx_packets_s", MACHINE_UINT),
    F(machine_interface, tx_packets, "tx_packets_s", MACHINE_UINT),
    F(machine_interface, errors, "errors_s", MACHINE_UINT),
    F(machine_interface, drops, "drops_s", MACHINE_UINT),
};
static const struct machine_layout machine_interface_layout = LAYOUT(interface);

static const struct machine_field temperature_fields[] = {
    F(machine_temperature, label, "label", MACHINE_TEXT),
    F(machine_temperature, decicelsius, "celsius", MACHINE_TENTHS),
};
static const struct machine_layout machine_temperature_layout = LAYOUT(temperature);

static const struct machine_field process_fields[] = {
    F(machine_process, name, "name", MACHINE_TEXT),
    F(machine_process, node, "node", MACHINE_TEXT),
    F(machine_process, pid, "pid", MACHINE_UINT),
    F(machine_process, cpu, "cpu_pct", MACHINE_CENTI),
    F(machine_process, rss_bytes, "rss_bytes", MACHINE_UINT),
    F(machine_process, threads, "threads", MACHINE_UINT),
    F(machine_process, uptime_s, "uptime_s", MACHINE_UINT),
};
static const struct machine_layout machine_process_layout = LAYOUT(process);

#define L(type, member, key, layout, max)                                                                    \
    {                                                                                                        \
        key, &machine_##layout##_layout, offsetof(struct type, n_##member), offsetof(struct type, member),   \
            max                                                                                              \
    }

const struct machine_list machine_description_lists[MACHINE_DESCRIPTION_LISTS] = {
    L(machine_description, nics, "interfaces", nic, LIMIT_MACHINE_INTERFACES),
    L(machine_description, drives, "disks", drive, LIMIT_MACHINE_DISKS),
};

const struct machine_list machine_tick_lists[MACHINE_TICK_LISTS] = {
    L(machine_tick, disks, "disks", disk, LIMIT_MACHINE_DISKS),
    L(machine_tick, filesystems, "filesystems", filesystem, LIMIT_MACHINE_FILESYSTEMS),
    L(machine_tick, interfaces, "interfaces", interface, LIMIT_MACHINE_INTERFACES),
    L(machine_tick, temperatures, "temperatures", temperature, LIMIT_MACHINE_TEMPERATURES),
    L(machine_tick, processes, "processes", process, LIMIT_MACHINE_PROCESSES),
};
