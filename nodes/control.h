/* The supervisor's socket in the run directory: one line of request, one line of answer (JSON), one client at a
 * time. Only the user who runs the bus may ask. The supervisor's side never blocks. */
#ifndef STARLING_CONTROL_H
#define STARLING_CONTROL_H

#include "rundir.h"
#include <stddef.h>
#include <stdint.h>

enum { CONTROL_REQUEST_BYTES = 128 };

struct control {
    int listen_fd, client_fd; /* -1: none */
    uint64_t deadline_ms;     /* of the client; 0: none */
    size_t n;
    char request[CONTROL_REQUEST_BYTES];
};

/* Needs control_close() whatever is returned. The run directory's lock is held. 0 or ERR_SYSTEM. */
int control_listen(struct control *control, const struct rundir *dir);
void control_close(struct control *control, const struct rundir *dir);

/* What to wait for, to be readable. */
int control_fd(const struct control *control);
/* When that is readable: a request without its newline, or NULL when there is none yet. Lives until the next
 * call; control_answer() ends it. */
const char *control_read(struct control *control, uint64_t now_ms);
void control_answer(struct control *control, const char *line, size_t n);
/* Lets go of a client whose time is over. */
void control_expire(struct control *control, uint64_t now_ms);

/* For the other verbs: the answer's line in text, which is ended by '\0'. 0 or ERR_SYSTEM. Blocks. */
int control_ask(const struct rundir *dir, const char *request, char text[RUNDIR_TEXT_BYTES]);

#endif
