/* One CONNECT on its way: asked of the handler, written to the directory, or found there again and brought up to date.
 * Reactor's thread only.
 *
 *   state     begins when                           ends when
 *   CLAIMING  the client says which session it had  its entry is here: CATCHING; or nowhere: as if it had not said so
 *   CATCHING  this node may have to learn more      recovered; or not all is in the ring: READING
 *   READING   the store may have the rest           it is read: CATCHING; it cannot be had: as if it had not said so
 *   ASKED     the handler wants time                joining_accept(): SAVING; joining_refuse()
 *   SAVING    it is accepted                        the directory has it, or cannot have it: a socket
 *
 * The client may go at any time: joining_cancel(). */
#ifndef STARLING_JOINING_H
#define STARLING_JOINING_H

#include "hub.h"
#include "offset.h"

struct joining;

enum joining_state {
    JOINING_NEW,
    JOINING_CLAIMING,
    JOINING_CATCHING,
    JOINING_READING,
    JOINING_ASKED,
    JOINING_SAVING
};

/* Exactly one of these is called, from joining_start() or later; the joining is gone afterwards. */
struct joining_user {
    struct client *client;
    /* s is in the hub. CONNECT is to be sent, then what it has missed by joining_catch_up(). */
    void (*on_socket)(struct client *c, struct joining *j, struct socket *s);
    /* error: a JSON object. */
    void (*on_refused)(struct client *c, struct joining *j, struct span error);
    /* No memory. */
    void (*on_failed)(struct client *c, struct joining *j);
};

/* auth: a JSON object. Copies what it needs. May be over when it returns. ERR_MEMORY: nothing was called. */
int joining_start(struct hub *h, struct session *session, const struct joining_user *user, struct span nsp,
                  struct span auth, struct joining **list);
/* The same for one that was connected on another node up to now: the client does not know that anything happens, so no
 * handler is asked, and on_failed() is called when not all is as it was. */
int joining_go_on(struct hub *h, struct session *session, const struct joining_user *user, struct span nsp,
                  struct span pid, const struct offset *since, struct joining **list);
/* Ends all of a client's. */
void joining_cancel_all(struct joining **list);
unsigned joining_count(const struct joining *list);
struct joining *joining_find(struct joining *list, struct span nsp);
/* Inside of on_socket(), after CONNECT: what was missed and the offset follow. */
void joining_catch_up(struct joining *j, struct socket *s);

/* ---- for handlers ---- */

struct span joining_nsp(const struct joining *j);
struct span joining_sid(const struct joining *j);
struct span joining_auth(const struct joining *j);
const struct session *joining_session(const struct joining *j);
/* What the handler remembers. */
void joining_set_data(struct joining *j, void *data);
void *joining_data(const struct joining *j);
/* After LATER, not from inside of on_connect(). user, data: raw JSON, or empty. */
void joining_accept(struct joining *j, struct span user, struct span data, const struct span *rooms,
                    unsigned n_rooms);
void joining_refuse(struct joining *j, struct span error);

#endif
