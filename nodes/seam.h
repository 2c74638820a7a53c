/* The seam to civetweb: it parses, routes and answers requests out of memory. The reactor reads a request from the
 * client and writes the answer to the client; what civetweb holds in between is a visit, whose number it takes for a
 * connected socket. Its socket calls on such a number are answered here, from the visit's bytes, so a civetweb
 * thread never waits for a client, whatever that does, and a handful of threads is enough. */
#ifndef STARLING_SEAM_H
#define STARLING_SEAM_H

#include "reactor.h"
#include "span.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

struct seam;
struct visit;

/* What became of a visit. */
enum visit_end {
    VISIT_REFUSED,   /* civetweb itself answered: a request it takes for broken */
    VISIT_ANSWERED,  /* a handler answered */
    VISIT_DEFERRED,  /* a handler wants the reactor to go on (visit_defer) */
    VISIT_TRANSPORT, /* a Socket.IO transport: the reactor's for good */
};

/* Called on a civetweb thread for each request; must call one of visit_answer…(), visit_defer(), visit_transport(). */
typedef void visit_handler(struct visit *v, void *user);

struct seam_options {
    unsigned threads;
};

/* Starts civetweb's threads. One seam a process; NULL (with a log line) when that fails. */
struct seam *seam_start(struct reactor *r, const struct seam_options *o, visit_handler *handler, void *user);
/* Ends the threads. Visits must have come back. */
void seam_stop(struct seam **s);

/* ---- the reactor's side ---- */

/* Sends a request to civetweb: its head, and the body for visit_read_body(). Both are malloc()ed and taken. on_back
 * runs on the reactor later and ends with visit_free(). When civetweb has its fill a request waits for its turn; false
 * when too much waits: nothing is taken then. */
bool seam_visit(struct seam *s, struct span head, struct span body, const struct sockaddr_in *peer,
                bool keep_alive, void (*on_back)(struct visit *v), void *owner);
bool seam_is_idle(const struct seam *s);

void *visit_owner(const struct visit *v);
enum visit_end visit_end(const struct visit *v);
/* The answer's bytes: head and dynamic body (may be taken: malloc()ed), then static ones. */
char *visit_take_answer(struct visit *v, size_t *n);
struct span visit_static_body(const struct visit *v);
bool visit_keep_alive(const struct visit *v);
/* Runs what visit_defer() asked for. Answers may take long, so the visit gives back its number to civetweb first:
 * v is void afterwards. on_finish gets the visit that goes on. False without memory. */
bool visit_run_deferred(struct visit *v, void (*on_finish)(struct visit *v), struct visit **goes_on);
void visit_free(struct visit *v);

/* ---- a handler's side ---- */

struct span visit_method(const struct visit *v);
struct span visit_path(const struct visit *v);
struct span visit_query(const struct visit *v);
struct span visit_header(const struct visit *v, const char *name);
struct span visit_body(const struct visit *v);
/* The request's target as it was sent: path, and query behind a question mark. Like the body it is there on the reactor, too;
 * the rest is not. */
struct span visit_target(const struct visit *v);
/* As given to seam_start(). */
void *visit_user(const struct visit *v);

/* headers: "" or more lines, each ending with CRLF. HEAD requests get no body. */
void visit_answer(struct visit *v, int status, const char *content_type, const char *headers,
                  struct span body);
/* The same with a body that lives as long as the process; it is not copied. */
void visit_answer_static(struct visit *v, int status, const char *content_type, const char *headers,
                         struct span body);
void visit_answer_unmodified(struct visit *v, const char *headers);
/* run is called on the reactor with the visit, which it must answer by visit_finish() then or later. */
void visit_defer(struct visit *v, void (*run)(struct visit *v));
void visit_finish(struct visit *v, int status, const char *content_type, struct span body);
/* The client went away while the answer was made: on_finish is not called, the visit is freed when finished. */
void visit_abandon(struct visit *v);
void visit_transport(struct visit *v);

#endif
