/* The inside of libstarling: the agent that starling.h shows as opaque, and what its parts call of each other. */
#ifndef STARLING_LIBRARY_H
#define STARLING_LIBRARY_H

#include "request.h"
#include <pthread.h>
#include <stdatomic.h>

/* SUBSCRIBE, HANDLE, REGISTER or WATCH: made again with each connection. */
struct registration {
    UT_hash_handle hh; /* by id, in the order in which they were made */
    struct registration *next_ended;
    uint64_t id;
    enum agent_kind kind;
    bool ended;        /* freed when the turn ends: its own callback may be running */
    bool known, alive; /* of WATCH: what on_change has been told */
    char *offset;      /* of SUBSCRIBE: where it goes on, or NULL */
    union {
        struct starling_subscribe subscribe;
        struct starling_handle handle;
        struct starling_actor actor;
        struct {
            void *user;
            void (*on_change)(void *user, bool alive, const char *reason);
        } watch;
    };
    size_t n;
    char bytes[]; /* the request, without an offset */
};

struct post {
    struct post *next;
    void (*run)(void *user);
    void *user;
};

struct starling {
    struct starling_options o; /* its texts belong to the caller and are not looked at after starling_new() */
    int epoll, wake;
    struct link *link;
    struct requests requests;
    struct registration *registrations, *ended;
    uint64_t next_id;
    char key_prefix[17];
    bool inside; /* of a turn: callbacks run */
    bool asked_to_wake;
    atomic_bool stopped;
    unsigned unanswered;  /* calls and asks that the node waits for */
    uint64_t leave_by_ms; /* 0: the node does not drain */
    uint64_t now_ms, expire_ms;
    pthread_mutex_t lock; /* of the posts */
    struct post *posts, **posts_end;
    unsigned n_posts;
    struct {
        uint64_t id; /* 0: nothing is waited for */
        int result;  /* of the request itself, then of its answer */
        bool done;
        struct starling_answer answer;
        char *texts; /* of the answer */
    } wait;
    struct agent_record out;
    msgpack_sbuffer packed;
    /* For callbacks. */
    const char *rooms[LIMIT_ROOMS_PER_SOCKET + 1];
    struct starling_bytes attachments[LIMIT_ATTACHMENTS];
};

uint64_t starling_now_ms(void);
/* There is something to do besides what the socket says. */
void starling_wake(struct starling *s);

/* ---- calls.c ---- */

/* Puts a registration's request into the queue. False: no memory; the next connection tries again. */
bool registration_send(struct starling *s, struct registration *g);
void registration_end(struct starling *s, struct registration *g);
/* An answer that says: not that call. */
void starling_refuse(struct starling *s, uint64_t id, const char *code, const char *text);

/* ---- incoming.c ---- */

void on_record(void *user, struct agent_record *r, int result);
/* Gives the request its answer, an error, and frees it. */
void request_fail(struct starling *s, struct request *r, const char *code, const char *text);
/* The done of STARLING_WAITED. */
void on_waited(void *user, const struct starling_answer *answer);

#endif
