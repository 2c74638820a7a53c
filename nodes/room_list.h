/* The rooms of the whole cluster: every node knows who is in which, so no other one is asked. It looks at each room once for
 * each question. Reactor's thread only. */
#ifndef STARLING_ROOM_LIST_H
#define STARLING_ROOM_LIST_H

#include "cluster.h"
#include "hub.h"
#include <msgpack.h>

struct room_question {
    struct span q, ns,
        after;       /* parts of names; a namespace; "next" of the page before. Empty: any, or the first */
    bool by_traffic; /* else by members */
    unsigned limit;
};

/* As proto/http.md has it for GET /api/v1/rooms. cluster: NULL when this node is alone. 0 or ERR_MEMORY. */
int room_list_json(struct hub *h, struct cluster *cluster, const struct room_question *question,
                   msgpack_sbuffer *b);

#endif
