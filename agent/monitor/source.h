/* Files of /proc and /sys, opened once and read from their start each time. Paths are relative to a root directory, so
 * that tests can lay out a machine of their own. One thread. */
#ifndef STARLING_SOURCE_H
#define STARLING_SOURCE_H

#include "span.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct source {
    int root; /* borrowed */
    int fd;   /* -1: not open */
    char *path;
};

/* root: a descriptor of a directory, which must outlive the source. Without memory the source is one that is never
 * there. */
__attribute__((format(printf, 3, 4))) void source_init(struct source *s, int root, const char *format, ...);
void source_deinit(struct source *s);

/* Up to cap - 1 bytes and a NUL: their number, or -1 when the file is not there (any more). */
ssize_t source_read(struct source *s, char *text, size_t cap);

/* The same for a file that is read rarely. */
__attribute__((format(printf, 4, 5))) ssize_t source_read_once(int root, char *text, size_t cap,
                                                               const char *format, ...);
__attribute__((format(printf, 2, 3))) bool source_exists(int root, const char *format, ...);

/* ---- walking text that ends with a NUL ---- */

/* The next line without its end; false after the last one. */
bool source_line(const char **p, struct span *line);
/* Blanks, then digits: moves past both. 0 without digits, UINT64_MAX when there are too many. */
uint64_t source_number(struct span *line);
/* Blanks, then anything else. Empty at the end of the line. */
struct span source_word(struct span *line);

/* A text as machine.h wants it, with a NUL behind: cut to fit, what is no UTF-8 or not printable replaced. dst holds
 * LIMIT_MACHINE_TEXT_BYTES + 1. */
void source_keep(char *dst, struct span text);

#endif
