#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static _Noreturn void die_with(int status, const char *format, va_list args)
{
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    die_with(1, format, args);
}

void die_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    die_with(2, format, args);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

long parse_number(const char *option, const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high)
        die_usage("%s takes a number from %ld to %ld, not \"%s\"", option, low, high, text);
    return value;
}

uint64_t parse_seconds_ns(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= 3600))
        die_usage("%s takes seconds from 0 to 3600, not \"%s\"", option, text);
    return (uint64_t)(value * (double)NS_PER_S);
}

void raise_descriptor_limit(uint64_t needed)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("getrlimit failed");
    if (limit.rlim_max < needed)
        die("%llu descriptors are needed, the hard limit (ulimit -Hn) is %llu", (unsigned long long)needed,
            (unsigned long long)limit.rlim_max);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("setrlimit failed");
}

void *must_alloc(size_t count, size_t bytes)
{
    void *p = calloc(count, bytes);
    if (!p)
        die("out of memory");
    return p;
}
