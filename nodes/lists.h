/* What a node answers of its own sessions and agents when a page of the dashboard asks, and what it does to them: the node's part of a
 * survey. It looks at each session once for each question, and never without one. Reactor's thread only.
 *
 * A question is a JSON object; "do" says which:
 *
 *   sessions    sockets, by q, ns, room, sid and sort
 *   agents      by q, group, instance and sort (agent_list.h)
 *   ends        sessions that have ended in the last 10 minutes, by q and reason
 *   disconnect  the socket sid, with close its whole connection
 *   join, leave the socket sid and a room */
#ifndef STARLING_LISTS_H
#define STARLING_LISTS_H

#include "agents.h"
#include "first.h"
#include "hub.h"
#include <msgpack.h>

enum { LISTS_ROWS_MAX = FIRST_MAX, LISTS_KEY_BYTES = FIRST_KEY_BYTES };

struct lists;

/* NULL without memory. Borrows the name. agents: NULL when this node listens to none. */
struct lists *lists_new(struct reactor *r, struct hub *h, const struct agents *agents, struct span name);
void lists_free(struct lists **l);

/* A session has ended. */
void lists_note_end(struct lists *l, const struct session *s, enum close_reason reason);

/* One thing that was found: rows are sorted by key, and a page begins behind the last key of the one before. */
struct lists_row {
    char key[LISTS_KEY_BYTES];
    uint8_t key_n;
    struct span json; /* an object; in the answer's text */
};
struct lists_answer {
    uint64_t total; /* that match, whatever was left out */
    bool has_more;  /* behind those that are here */
    unsigned n;
    struct lists_row row[LISTS_ROWS_MAX];
    msgpack_sbuffer text;
};

/* One more row, whose text begins at from. Rows get their pointers when all are there: the text may still move. */
void lists_put(struct lists_answer *a, const struct first_candidate *c, size_t from);

/* question: checked JSON. Fills the answer, whose text is the caller's. 0 or ERR_MEMORY. */
int lists_ask(struct lists *l, struct span question, struct lists_answer *answer);

#endif
