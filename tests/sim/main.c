/* sim --seed S [--verbose]: one run, as often as wanted the same.
 * sim [--from S] [--count N] [--seconds T]: many runs, until one fails, N are done or the time is over. */
#include "log.h"
#include "sim.h"
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct sim sim;

static void say_seed(void)
{
    fprintf(stderr, "sim: died with seed %llu: sim --seed %llu --verbose\n", (unsigned long long)sim.seed,
            (unsigned long long)sim.seed);
}

/* Of the sanitizers, when the program has them. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static void on_abort(int signal_number)
{
    say_seed();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* The C library's clock is the simulation's. */
static double seconds(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int usage(int code)
{
    fprintf(code ? stderr : stdout, "usage: sim --seed S [--verbose]\n"
                                    "       sim [--from S] [--count N] [--seconds T]\n");
    return code;
}

struct options {
    uint64_t from, count;
    double seconds;
    bool is_verbose;
};

static int run_all(const struct options *o)
{
    uint64_t done = 0, recoveries = 0, reads = 0, fresh = 0, kills = 0, gaps = 0, misjudged = 0, packets = 0;
    double start = seconds();
    sim.is_verbose = o->is_verbose;
    for (; done < o->count && seconds() - start < o->seconds; done++) {
        if (!sim_run(&sim, o->from + done)) {
            printf("seed %llu: %s\nsee it again: sim --seed %llu --verbose\n", (unsigned long long)sim.seed,
                   sim.why, (unsigned long long)sim.seed);
            return 1;
        }
        recoveries += sim.recoveries;
        reads += sim.reads;
        fresh += sim.fresh;
        kills += sim.kills;
        gaps += sim.gaps;
        misjudged += sim.misjudged;
        packets += sim.packets;
    }
    double took = seconds() - start;
    printf("%llu seeds from %llu in %.1f s (%.0f/s): %llu kills, %llu sessions, %llu recoveries (%llu of "
           "them by the store), %llu gaps, "
           "%llu packets, %llu of them again\n",
           (unsigned long long)done, (unsigned long long)o->from, took, (double)done / took,
           (unsigned long long)kills, (unsigned long long)fresh, (unsigned long long)recoveries,
           (unsigned long long)reads, (unsigned long long)gaps, (unsigned long long)packets,
           (unsigned long long)misjudged);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"seed", required_argument, NULL, 's'},
                                                 {"verbose", no_argument, NULL, 'v'},
                                                 {"from", required_argument, NULL, 'f'},
                                                 {"count", required_argument, NULL, 'c'},
                                                 {"seconds", required_argument, NULL, 't'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {0}};
    struct options o = {.from = 1, .count = UINT64_MAX, .seconds = 1e9};
    bool is_bounded = false;
    int option;
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 's')
            o.from = strtoull(optarg, NULL, 10), o.count = 1, is_bounded = true;
        else if (option == 'v')
            o.is_verbose = true;
        else if (option == 'f')
            o.from = strtoull(optarg, NULL, 10);
        else if (option == 'c')
            o.count = strtoull(optarg, NULL, 10), is_bounded = true;
        else if (option == 't')
            o.seconds = strtod(optarg, NULL), is_bounded = true;
        else
            return usage(option == 'h' ? 0 : 2);
    }
    if (!is_bounded || optind < argc)
        return usage(2);
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(o.is_verbose ? LOG_DEBUG : LOG_ERROR, false);
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_seed);
    return run_all(&o);
}
