/* What a machine says of itself: its description once and when it changes, and a tick each second. See machine.md.
 * Pure functions. What is read points into the message it was read from. */
#ifndef STARLING_MACHINE_H
#define STARLING_MACHINE_H

#include "limit.h"
#include "span.h"
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

/* Raised when something known changes its meaning; most additions need no new version. */
#define MACHINE_VERSION 1

/* A record that was never filled is all zero. The order of members is that on the wire (machine.c has the table). */

struct machine_about {
    struct span name, hostname, machine_id, os, kernel, arch, cpu_model, agent_version;
    uint64_t cores, mhz, cpu_limit_milli; /* limits: of the container, in thousandths of a core; 0: none */
    uint64_t memory_bytes, memory_limit_bytes;
    uint64_t boot_time_s, interval_ms;
};

struct machine_nic {
    struct span name, address;
    uint64_t speed_mbit, mtu; /* 0: not known */
};

struct machine_drive {
    struct span name, model;
    uint64_t bytes, rotates;
};

struct machine_description {
    uint64_t machine, revision;
    struct machine_about about;
    unsigned n_nics, n_drives;
    struct machine_nic nics[LIMIT_MACHINE_INTERFACES];
    struct machine_drive drives[LIMIT_MACHINE_DISKS];
};

/* Shares of time are in hundredths of a percent: 10000 is all of it. */
#define MACHINE_WHOLE 10000

struct machine_cpu {
    uint64_t user, nice, system, irq, iowait, steal, throttled;
};

/* A core's time in half percents; what is left to 200 is idle. */
#define MACHINE_CORE_OFFLINE 255
struct machine_core {
    uint8_t user, system, iowait, steal; /* user == MACHINE_CORE_OFFLINE: it is switched off */
};

struct machine_load {
    uint64_t one, five, fifteen; /* hundredths */
    uint64_t running, tasks;
};

struct machine_memory {
    uint64_t total, available, cached, swap_total, swap_used; /* bytes */
};

/* Time in which some or all tasks waited for it. */
struct machine_pressure {
    uint64_t cpu_some, memory_some, memory_full, io_some, io_full;
};

/* Rates are for each second. */
struct machine_disk {
    struct span name;
    uint64_t read_bytes, write_bytes, reads, writes, busy;
};

struct machine_filesystem {
    struct span path, device, type;
    uint64_t total, used, available;
};

struct machine_interface {
    struct span name;
    uint64_t rx_bytes, tx_bytes, rx_packets, tx_packets, errors, drops;
};

struct machine_temperature {
    struct span label;
    int64_t decicelsius;
};

struct machine_process {
    struct span name, node; /* node: its --name, or empty */
    uint64_t pid, cpu;      /* share of one core */
    uint64_t rss_bytes, threads, uptime_s;
};

struct machine_tick {
    uint64_t machine, revision; /* revision: of the description that belongs to it */
    uint64_t time_ms, elapsed_ms, uptime_s;
    struct machine_cpu cpu;
    struct machine_load load;
    struct machine_memory memory;
    bool has_pressure;
    struct machine_pressure pressure;
    unsigned n_cores, n_disks, n_filesystems, n_interfaces, n_temperatures, n_processes;
    struct machine_core cores[LIMIT_MACHINE_CORES];
    struct machine_disk disks[LIMIT_MACHINE_DISKS];
    struct machine_filesystem filesystems[LIMIT_MACHINE_FILESYSTEMS];
    struct machine_interface interfaces[LIMIT_MACHINE_INTERFACES];
    struct machine_temperature temperatures[LIMIT_MACHINE_TEMPERATURES];
    struct machine_process processes[LIMIT_MACHINE_PROCESSES];
};

/* The size that is shown: the container's where it is the lower one. */
uint64_t machine_cpus_milli(const struct machine_about *about);
uint64_t machine_memory_bytes(const struct machine_about *about);

/* All but the idle time and the waiting for disks; of the whole machine. */
uint64_t machine_busy(const struct machine_cpu *cpu);

/* ---- writing: appends one message; 0, ERR_MEMORY, or ERR_LIMIT when it would be longer than one may be. Texts are
 * UTF-8 within LIMIT_MACHINE_TEXT_BYTES ---- */

int machine_write_description(msgpack_sbuffer *b, const struct machine_description *d);
int machine_write_tick(msgpack_sbuffer *b, const struct machine_tick *t);

/* ---- reading ---- */

/* Kinds of agent.md. */
enum machine_kind { MACHINE_DESCRIPTION = 40, MACHINE_TICK = 41 };

/* What a message is, and whose: its kind (0: one that is not known, which is to be ignored), ERR_MACHINE or
 * ERR_VERSION. */
int machine_read_head(struct span message, uint64_t *machine, uint64_t *revision);

/* 0, ERR_MACHINE or ERR_VERSION. */
int machine_read_description(struct span message, struct machine_description *d);
int machine_read_tick(struct span message, struct machine_tick *t);

/* ---- as JSON: appends one object; 0 or ERR_MEMORY ---- */

/* The digits that stand for a machine in JSON and URLs; out holds MACHINE_ID_BYTES. */
#define MACHINE_ID_BYTES 17
void machine_id(char out[MACHINE_ID_BYTES], uint64_t machine);

int machine_description_json(msgpack_sbuffer *b, const struct machine_description *d);
int machine_tick_json(msgpack_sbuffer *b, const struct machine_tick *t);

#endif
