/* What Redis keeps of the machines, so that a bus that was ended as a whole has their history when it is there again
 * (proto/redis.md, "Machines"): each machine is written by the node that its agent is at, some points at a time, and all
 * are read once, when Redis is first there. Reactor's thread only. */
#ifndef STARLING_MACHINE_REDIS_H
#define STARLING_MACHINE_REDIS_H

#include "machines.h"
#include "reactor.h"
#include "redis.h"

struct machine_redis;

/* Borrows all; cluster: as in the keys. NULL: no memory. */
struct machine_redis *machine_redis_new(struct reactor *r, struct redis *redis, const char *cluster,
                                        struct machines *machines);
/* When the connection has answered everything, which it does when it is freed. */
void machine_redis_free(struct machine_redis **m);

/* Redis can be reached. */
void machine_redis_resume(struct machine_redis *m);
/* Its agent is at this node and has said something. */
void machine_redis_heard(struct machine_redis *m, uint64_t machine);
/* Writes what has not been written. */
void machine_redis_hurry(struct machine_redis *m);
/* Does it wait for an answer to something that it has written? */
bool machine_redis_is_writing(const struct machine_redis *m);
/* The machines are about to go: nothing is looked at any more. */
void machine_redis_stop(struct machine_redis *m);

#endif
