/* What the verbs of the command line share: their options, and how they find and ask the supervisor. Main thread. */
#ifndef STARLING_VERB_H
#define STARLING_VERB_H

#include "rundir.h"
#include <stdbool.h>
#include <stdint.h>

enum { EXIT_USAGE = 2 };

/* What the verbs other than `up` take; NULL and 0: not given, where there is no default. */
struct verb_options {
    const char *run_dir, *bind, *ns, *path;
    unsigned port, lines, clients, seconds, payload, rate, in_flight;
    bool json, reference, follow, remote;
    int arguments_n;
    char **arguments; /* what is left */
};

/* A message; EXIT_USAGE. */
int verb_usage(const char *verb, const char *what, const char *text);

/* allowed: the names of the options that the verb has, with blanks around each. They may stand before and after the
 * arguments; after "--" everything is an argument. argv is put in order: the arguments end with NULL. 0, or an exit code after a message. */
int verb_parse(int argc, char **argv, const char *allowed, struct verb_options *o);
bool verb_parse_number(const char *text, unsigned max, unsigned *number);

/* Parses, and finds the run directory: *supervisor is 0 when none runs. At most arguments_n arguments. */
int verb_find(int argc, char **argv, const char *allowed, int arguments_n, struct verb_options *o,
              struct rundir *dir, pid_t *supervisor);
/* Where the bus is: as told, or as the run directory has it, or the default. Only bind and port are filled. */
void verb_find_bus(const struct verb_options *o, struct rundir_state *state);
/* A message; 1. */
int verb_not_running(const char *verb, const struct rundir *dir);

/* Asks the supervisor. 0, or 1 after a message, also when none runs. */
int verb_ask_state(const char *verb, const struct rundir *dir, struct rundir_state *state);
int verb_order(const char *verb, const struct rundir *dir, const char *request);

void verb_sleep_ms(unsigned ms);
uint64_t verb_now_ms(void);

/* The verbs themselves; argv[0] is the verb. The exit code. */
int verb_restart(int argc, char **argv); /* verb_control.c */
int verb_scale(int argc, char **argv);
int verb_reload(int argc, char **argv);
int verb_stop(int argc, char **argv);
int verb_ps(int argc, char **argv); /* ps.c */
int verb_top(int argc, char **argv);
int verb_logs(int argc, char **argv); /* logs.c */
int verb_call(int argc, char **argv); /* verb_agent.c */
int verb_tail(int argc, char **argv);
int verb_bench(int argc, char **argv);  /* verb_bench.c */
int verb_doctor(int argc, char **argv); /* doctor.c */

#endif
