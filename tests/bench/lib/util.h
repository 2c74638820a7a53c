/* What every bench program needs. */
#ifndef BENCH_UTIL_H
#define BENCH_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_US 1000.0

/* Prints the program's name and the message to stderr, exits 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with exit 2: the command line is wrong. */
_Noreturn void die_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void); /* monotonic */

/* A whole number within the bounds, or die_usage() naming the option. */
long parse_number(const char *option, const char *text, long low, long high);
/* Seconds, fractions allowed. */
uint64_t parse_seconds_ns(const char *option, const char *text);

/* As many descriptors as the hard limit allows; dies when that is below needed. */
void raise_descriptor_limit(uint64_t needed);

void *must_alloc(size_t count, size_t bytes); /* zeroed */

#endif
