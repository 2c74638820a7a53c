/* The file that a process's standard output and error go to. A node itself turns it over when it has grown: FILE
 * becomes FILE.1, FILE.1 becomes FILE.2, and so on, whether anybody watches the node or not. For programs that open
 * their file for each line the supervisor does it. */
#ifndef STARLING_LOGFILE_H
#define STARLING_LOGFILE_H

#include <stdint.h>

struct logfile {
    const char *path; /* "": none */
    uint64_t max_bytes;
    uint32_t kept; /* older files */
};

/* Makes standard output and error write to it. 0, or ERR_SYSTEM with errno. */
int logfile_open(const struct logfile *log);
/* To be called now and then: turns the file over when it is due, and follows when another process has done so. */
void logfile_check(const struct logfile *log);

/* The same for the file of another process, which opens it for each line. */
void logfile_limit(const struct logfile *log);

#endif
