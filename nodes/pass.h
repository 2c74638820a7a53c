/* Hands a connection to another node of the same host: the one that has the session its request is for. The
 * descriptor and every byte read so far travel over a Unix socket (SCM_RIGHTS), so the other node sees the connection
 * as if it had accepted it itself. Sessions do not move within a host. Reactor's thread only. */
#ifndef STARLING_PASS_H
#define STARLING_PASS_H

#include "front.h"

struct pass;

/* Listens at "<base>.pass". NULL when that fails. */
struct pass *pass_new(struct reactor *r, const char *base);
void pass_free(struct pass **p);
/* Where connections go that others hand over. */
void pass_use(struct pass *p, struct front *f);

/* Sends c, with n bytes of input that it has read, to the node at this base path, and closes it here. False when that
 * cannot be: c is as it was. */
bool pass_conn(struct pass *p, const char *base, struct conn *c, const void *input, size_t n);

#endif
