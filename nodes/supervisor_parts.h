/* What the files of the supervisor share: one struct, and what each of them does to it. Main thread only. */
#ifndef STARLING_SUPERVISOR_PARTS_H
#define STARLING_SUPERVISOR_PARTS_H

#include "config.h"
#include "control.h"
#include "monitor.h"
#include "notify.h"
#include "process.h"
#include "redis_server.h"
#include "rundir.h"
#include <limits.h>
#include <sched.h>

enum {
    NODES_MAX = RUNDIR_NODES_MAX,
    AGENT_PORTS = 100,       /* from the public port to those for agents */
    MESH_PORTS = 200,        /* from the public port to those of the mesh */
    MESH_ROUTER_PORTS = 100, /* from there to a node's second one */
    MESH_GENERATION = 200,   /* to those of a node's other generation */
};

/* Nodes are replaced one by one: next becomes ready beside the node, takes its place, and old drains. */
struct reload {
    bool active;
    enum { RELOAD_STARTING, RELOAD_DRAINING } phase;
    unsigned count, index;
    char error[192];
    struct process next, old;
};

struct supervisor {
    struct process_owner owner; /* of the nodes; first: callbacks get back to us from it */
    int argc;                   /* of `up`: the configuration is read again from it */
    char **argv;
    struct config config;
    struct rundir dir;
    struct control control;
    struct notify notify;
    char program[PATH_MAX]; /* starling-node */
    char **shared;          /* arguments that nodes take over from us */
    int signal_fd, detach_fd;
    bool announced;   /* the line that all nodes are ready has been printed */
    bool keeps_state; /* not to be written down at the moment */
    bool nodes_begun, stopping;
    uint64_t begun_ms, looked_ms, turned_ms;
    int cores[CPU_SETSIZE];
    unsigned cores_n;
    unsigned nodes_n;
    struct process nodes[NODES_MAX];
    struct reload reload;
    struct redis_server redis;
    struct monitor monitor;
};

unsigned supervisor_count(const struct supervisor *s, enum process_state state);
void supervisor_save(struct supervisor *s);
/* The state as text; its length. */
size_t supervisor_format(const struct supervisor *s, char text[RUNDIR_TEXT_BYTES]);
void supervisor_init_node(struct supervisor *s, struct process *node, unsigned index);
void supervisor_add_node(struct supervisor *s);
/* From the command line and the file, as config_parse(). */
int supervisor_read_config(const struct supervisor *s, struct config *config);
/* What processes start with from now on. Takes shared, the arguments for nodes; NULL: no more. */
void supervisor_use_config(struct supervisor *s, char **shared);

/* orders.c: what the other verbs ask for. */
void orders_take(struct supervisor *s, const char *request);
const char *orders_stop(struct supervisor *s);

/* launch.c: with what a node starts. */
char **launch_arguments(struct process_owner *owner, const struct process *p);
void launch_in_child(struct process_owner *owner, const struct process *p);
/* Where the node's sockets and its pulse lie. */
bool launch_base(const struct supervisor *s, const struct process *p, char *out, size_t size);

/* ports.c. The first port that cannot be had: true, and a sentence about it. */
uint32_t ports_highest(const struct supervisor *s, unsigned nodes_n);
bool ports_find_bad_public(const struct supervisor *s, char *out, size_t size);
bool ports_find_bad(const struct supervisor *s, unsigned index, char *out, size_t size);

/* watch.c: are the nodes alive? */
void watch_look(struct supervisor *s);
uint64_t watch_next_ms(const struct supervisor *s);

/* takeover.c: what outlived the supervisor before this one. 0, or 1 after a message. */
int takeover_run(struct supervisor *s);

/* reload.c */
void reload_init(struct supervisor *s);
/* Why there can be none now; NULL: there can. */
const char *reload_obstacle(const struct supervisor *s);
void reload_begin(struct supervisor *s);
/* After anything has happened. */
void reload_step(struct supervisor *s);
void reload_abort(struct supervisor *s, const char *why);

#endif
