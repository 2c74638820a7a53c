/* What a node serves over plain HTTP: the client's files, /healthz, /readyz, /metrics and the API (proto/http.md).
 * web_answer() runs on civetweb's threads; what needs the hub goes on on the reactor. */
#ifndef STARLING_WEB_H
#define STARLING_WEB_H

#include "cors.h"
#include "hub.h"
#include "seam.h"
#include <stdatomic.h>

struct agents;

struct web {
    struct hub *hub;
    struct reactor *reactor;
    struct metrics *metrics;
    struct dashboard *dashboard;
    struct agents *agents; /* NULL: none are listened to */
    const char *path;      /* of the transports: the client's files lie below it */
    const char *base_path; /* of all the rest; "/" or with slashes at both ends */
    struct cors cors;
    atomic_bool ready, draining;
    const atomic_int *store; /* enum persist_state; NULL: there is none */
    struct api_wait *waits;  /* api.c's; the reactor's */
    unsigned n_waits;
    bool stopping;
};

/* What is left of a path below the base path, from its last slash on; the path itself when it is not below. */
struct span web_below(const struct web *web, struct span path);

/* user is a struct web. */
void web_answer(struct visit *v, void *user);

#endif
