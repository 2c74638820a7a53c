/* The HTTP API behind its routes: what a request asks of the hub, and its answer, now or when others have answered.
 * Reactor's thread only. See ../proto/http.md. */
#ifndef STARLING_API_H
#define STARLING_API_H

#include "web.h"

/* POST /api/v1/emit: the visit's body is checked JSON. */
void api_run_emit(struct visit *v);

/* Answers all that still wait: the node stops. */
void api_stop(struct web *web);

#endif
