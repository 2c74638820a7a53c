/* What the files of the gateway share. Nobody else includes this. */
#ifndef STARLING_AGENTS_PRIVATE_H
#define STARLING_AGENTS_PRIVATE_H

#include "agent.h"
#include "agents.h"
#include "agents_list.h"
#include "buffer.h"
#include "cluster.h"
#include "gateway.h"
#include "joining.h"
#include "meter.h"
#include "table.h"
#include <time.h>

enum {
    AGENTS_BEAT_MS = 100,
    AGENTS_HEARTBEAT_MS = 300,
    AGENTS_TIMEOUT_MS = 1000,
    AGENTS_WINDOW = LIMIT_AGENT_WINDOW_BYTES,
    AGENTS_CREDIT = 16 * 1024 * 1024, /* beyond what was sent: what is granted above it counts as this */
    AGENTS_INPUT = 2 * AGENTS_WINDOW + LIMIT_AGENT_MESSAGE_BYTES, /* that waits behind a request that does */
    AGENTS_LOOK_MS = 5, /* between two looks at what others have to make possible */
    AGENTS_CONFIRM_MS = 5000,
    AGENTS_KNOWN_MS = 1500, /* for all nodes to know of a registration */
    AGENTS_DEADLINE_MS = 5000,
    AGENTS_ACT_MS = 2000,
    AGENTS_IDENTITY_BYTES = 255,
};

struct member_key {
    uint64_t tag, boot, number;
};

/* A record for an agent that waits for credit. */
struct parcel {
    struct parcel *next;
    struct task *task; /* of CALL, CONNECT and ASKED */
    bool is_life, is_told;
    bool in_excess;  /* of an input: begun without a grant */
    uint64_t newest; /* of an input: this node's newest number when it came */
    size_t n;
    char bytes[];
};

/* A registration of an agent of this node. */
struct reg {
    struct agent *agent;
    uint64_t id; /* the agent's */
    enum agent_kind kind;
    struct agents_member *member; /* of HANDLE and REGISTER */
    struct subscription *sub;     /* of SUBSCRIBE */
    struct address *watched;      /* of WATCH */
    struct reg *watch_prev, *watch_next;
    struct parcel *first, **last;
    unsigned n_calls, n_told; /* that wait */
    size_t told_bytes;
    uint64_t limit;      /* of calls that are unanswered; 0: none */
    unsigned unanswered; /* calls, with those that wait */
    struct task *tasks;  /* these */
    unsigned with_agent; /* of them: that it has been sent */
    bool is_ready;       /* in the agent's list of those that have something */
    struct reg *ready_next;
    UT_hash_handle hh;
};

/* A request to an agent of this node that it has not answered. */
struct task {
    uint64_t id;
    struct reg *reg;
    struct task *reg_prev, *reg_next;
    struct mesh_origin from; /* its home */
    struct member_key call;  /* there */
    uint64_t begun_us;
    bool is_sent;
    struct admission *admission; /* of a CONNECT: to begin with its OK */
    UT_hash_handle hh, hh_call;
};

/* A client that an agent has let in, and that is not there yet. */
struct admission {
    struct admission *next;
    struct mesh_origin from;
    uint64_t number, begun_ms, until_ms;
    char *rooms; /* that it is let into: names with NUL between them, and one more behind */
    uint32_t nsp_n;
    char sid[ID_CHARS];
    char nsp[];
};

/* A request of an agent that is not answered at once. Whoever has it answers it once, by request_ok() or
 * request_error(), also when the agent is gone. */
struct request {
    struct agent *agent; /* NULL: gone */
    uint64_t id;
    size_t bytes;
    struct request *prev, *next;
    UT_hash_handle hh; /* when it has an id */
};

struct agent {
    struct agents *agents;
    uint64_t number, epoch; /* of its presence */
    uint64_t since_ms, heard_ms, sent_ms;
    struct {
        uint64_t begun, answered, failed, timed_out;
        struct meter meter;
    } calls;
    /* bytes, see "Flow control" */
    uint64_t received, granted;
    uint64_t excess;     /* of what was refused as it came without a grant */
    uint64_t unfinished; /* of what was received: of requests that are not answered */
    uint64_t sent, credit, first_credit;
    uint64_t unread; /* of what was sent, as far as is known */
    msgpack_sbuffer out;
    struct parcel *blocked, **blocked_end; /* whole messages that the link did not take */
    size_t blocked_bytes;
    bool was_full;           /* when it was flushed last */
    bool is_dirty;           /* in the list of those that are flushed at the end of the turn */
    bool is_replaced;        /* not in the table of instances any more */
    bool is_over;            /* to be freed at the end of the turn */
    const char *over_reason; /* for those who watch its addresses */
    bool tells_node;         /* NODE could not be sent */
    struct agent *dirty_next;
    struct reg *regs, *ready, **ready_end;
    struct task *tasks, *by_call;
    uint64_t next_task;
    struct request *requests, *by_id;
    unsigned n_requests, n_regs, n_life;
    struct admission *admissions;
    uint64_t hurries_until_ms; /* as a client was let in by others too late to wait for it */
    struct parcel *input,
        **input_end; /* messages that wait, the first of which from its first record that does */
    size_t input_bytes;
    uint64_t newest; /* this node's newest number when what is carried out came */
    bool is_waiting;
    uint64_t work, work_ms; /* done for it at this time: records, and sockets that were looked at */
    uint64_t later_ms; /* since when a SUBSCRIBE waits for what this node does not know yet; 0: none does */
    uint64_t ahead_ms; /* since when it waits for others to have an emit that it repeats; 0: all have it */
    unsigned n_behind; /* subscriptions */
    uint64_t errors_ms;
    unsigned errors;
    UT_hash_handle hh, hh_instance;
    char name[AGENT_NAME_BYTES + 1], instance[AGENT_NAME_BYTES + 1];
    char about[AGENT_ABOUT_BYTES];
    uint32_t about_n, identity_n;
    char identity[AGENTS_IDENTITY_BYTES];
};

/* A HANDLE or REGISTER of an agent of any node. */
struct agents_member {
    struct member_key key;
    struct mesh_origin origin;
    struct reg *reg;     /* NULL: of another node */
    struct group *group; /* one of these two */
    struct address *address;
    struct pool *pool; /* of the same shape, or the same address */
    unsigned place;    /* in its heap */
    uint64_t seen_load;
    uint64_t hash;     /* of its key */
    unsigned own;      /* calls of this node's that it has not answered */
    uint64_t others;   /* those of other nodes, as far as is known */
    uint64_t said;     /* its load when others were last told */
    uint64_t used;     /* when it was last chosen */
    uint64_t stale_ms; /* since when its origin does not say so any more; 0: it does */
    bool sticky, observe, shared;
    unsigned life;
    uint64_t deadline_ms;
    unsigned n_namespaces, n_events;
    struct span *patterns; /* namespaces, then events */
    UT_hash_handle hh;
    char reason[GATEWAY_TEXT_BYTES + 1];
    char name[AGENT_NAME_BYTES + 1];
};

/* See agents_pool.c. */
struct pool {
    struct agents_member **heap;
    unsigned n, cap;
};

/* Members of a group that handle the same: mostly all of them. */
struct shape {
    struct pool pool; /* what they handle says the first one */
    struct shape *next;
};

/* Whose member a session's events go to. */
struct sticky {
    struct member_key key;
    UT_hash_handle hh;
    char sid[ID_CHARS];
};

struct group {
    struct shape *shapes; /* none is empty */
    struct sticky *stickies;
    unsigned life; /* of all members */
    UT_hash_handle hh;
    uint32_t name_n;
    char name[];
};

struct address {
    struct pool members;
    struct reg *watchers;
    bool is_alive; /* as its watchers know */
    UT_hash_handle hh;
    uint32_t name_n;
    char name[];
};

/* Another node, or one that was. */
struct agents_node {
    struct member_key key; /* number 0 */
    bool lives;
    uint64_t stale_ms;
    char name[GATEWAY_TEXT_BYTES + 1], host[GATEWAY_TEXT_BYTES + 1];
    unsigned n;
    char endpoint[GATEWAY_ENDPOINTS][AGENT_ENDPOINT_BYTES + 1];
    UT_hash_handle hh;
};

/* An instance that is connected to another node. */
struct far_instance {
    struct mesh_origin origin;
    uint64_t number, epoch, stale_ms;
    UT_hash_handle hh; /* by its text */
    uint32_t name_n;
    char name[];
};

struct agents {
    struct reactor *reactor;
    struct hub *hub;
    struct metrics *metrics;
    struct agents_options options;
    struct agents_link link;
    struct machines *machines;
    void (*on_machine)(void *user, struct span message); /* NULL: nobody wants to know */
    void *on_machine_user;
    struct agent *agents, *by_instance, *dirty;
    struct agents_member *members;
    struct group *groups;
    struct route *routes;
    uint64_t registrations; /* rises when one of a group comes or goes */
    struct address *addresses;
    struct agents_node *nodes;
    struct far_instance *instances;
    struct call *calls;
    struct question *connects; /* accepted, until the socket is there */
    struct act *acts;
    struct later_act *later_acts;
    struct keys *keys;
    struct emit_acks *acks;
    struct confirm *confirms, **confirms_end;
    struct subscription *subscriptions;
    uint64_t next_number, used, sent_unread;
    uint64_t looked_at; /* sockets, for acts */
    uint64_t beat_ms;
    bool is_ready, is_draining, nodes_changed;
    struct timer beat, look;
    struct reactor_task flush;
    msgpack_sbuffer scratch, told;
    struct peers_position positions[LIMIT_OFFSET_ORIGINS];
    struct agent_record in, out, far; /* large: of an agent's message, being written, of another node's */
};

static inline bool same_origin(struct mesh_origin a, struct mesh_origin b)
{
    return a.tag == b.tag && a.boot == b.boot;
}

static inline bool is_own(const struct agents *g, struct mesh_origin o)
{
    return same_origin(g->options.self, o);
}

static inline uint64_t agents_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline uint64_t agents_now(const struct agents *g)
{
    return reactor_now_ms(g->reactor);
}

/* Longer than any answer takes: a deadline that an agent may set. */
static inline uint64_t agents_deadline(uint64_t asked_ms)
{
    return asked_ms == 0                        ? AGENTS_DEADLINE_MS
           : asked_ms > LIMIT_AGENT_DEADLINE_MS ? LIMIT_AGENT_DEADLINE_MS
                                                : asked_ms;
}

/* ---- agents.c ---- */

/* Ends the connection: BYE, unless code is AGENT_CODES; what it had is gone, for watchers with this reason. */
void agent_end(struct agent *a, enum agent_code code, const char *reason);
/* Goes on with what waits, when it can. */
void agents_look_soon(struct agents *g);

/* ---- agents_input.c ---- */

void agent_take_message(struct agent *a, struct span message);
/* With what has waited. */
void agent_go_on(struct agent *a);
void agent_drop_input(struct agent *a);

/* ---- agents_out.c ---- */

/* An empty record to be filled in and given to one of these. */
struct agent_record *agents_out(struct agents *g, enum agent_kind kind);
/* Appends what may always be sent, or what agent_may_send() has allowed. */
void agent_put(struct agent *a, const struct agent_record *r);
void agent_put_bytes(struct agent *a, struct span record);
bool agent_may_send(const struct agent *a);
void agent_put_error(struct agent *a, uint64_t id, enum agent_code code, const char *text);
void agent_grant(struct agent *a);
/* As far as it counts: whoever grants without end has not read without end. */
uint64_t agent_credit(uint64_t said, uint64_t sent);
/* Is the agent behind with what it reads? Its calls go elsewhere then. */
bool agent_is_full(const struct agent *a);
/* Queues a record for a registration, or sends it. AGENT_CODES, or why not. */
enum agent_code reg_put(struct reg *reg, const struct agent_record *r, struct task *task);
/* Sends what waits and can be sent. */
void agent_pump(struct agent *a);
void reg_drop_parcels(struct reg *reg);
/* One of its calls has been answered. */
void reg_go_on(struct reg *reg);
/* Something of it does not wait any more. */
void reg_emptied(struct reg *reg);
void agent_flush(struct agent *a);
void agent_dirty(struct agent *a);
/* Its credit, or what was sent, has changed. */
void agent_count_unread(struct agent *a);
void agent_free_out(struct agent *a);

/* ---- agents_requests.c ---- */

/* NULL: refused, and answered. */
/* False: its id is in use; answered. */
bool request_allowed(struct agent *a, const struct agent_record *r);
struct request *request_new(struct agent *a, const struct agent_record *r);
/* r: agents_out(AGENT_OK), filled in. */
void request_ok(struct request *q, struct agent_record *r);
void request_error(struct request *q, enum agent_code code, const char *text);
/* An error as an agent has given it, carried on as it is. */
void request_failed(struct request *q, const struct agent_record *error);
void requests_forget(struct agent *a);
/* An answer that is given at once. */
void agent_ok(struct agent *a, uint64_t id, struct agent_record *r);
/* OK with nothing in it, when all nodes have number seq, or it has been waited for long enough. */
void confirm_registration(struct request *q, uint64_t seq);
/* OK with the emit's id, when the mesh or the mirror has it; ERROR unconfirmed. */
void confirm_emit(struct request *q, struct mesh_origin origin, uint64_t seq, bool mirror, bool repeated);
/* True: some are left. */
bool confirms_look(struct agents *g);
void confirms_free(struct agents *g);
struct span agents_emit_id(struct agents *g, const struct mesh_origin *origin, uint64_t seq,
                           char text[AGENT_EMIT_ID_BYTES]);

/* ---- agents_emit.c ---- */

/* False: it has to wait. */
bool agent_emit(struct agent *a, struct agent_record *r);
void keys_add(struct agents *g, const struct mesh_origin *origin, uint64_t seq, struct span key);
void keys_expire(struct agents *g);
void keys_free(struct agents *g);
void emit_acks_free(struct agents *g);

/* ---- agents_regs.c ---- */

void agent_handle(struct agent *a, struct agent_record *r);
void agent_register(struct agent *a, struct agent_record *r);
void agent_watch(struct agent *a, struct agent_record *r);
void agent_undo(struct agent *a, struct agent_record *r);
/* Makes a registration; NULL: refused, and answered. */
struct reg *reg_new(struct agent *a, const struct agent_record *r);
/* Takes it away: reason for watchers. */
void reg_free(struct reg *reg, const char *reason);
/* Of two actors of one address that do not share it one is ended. */
void address_settle(const struct agents_member *far);

/* ---- agents_members.c ---- */

/* r: HANDLE or REGISTER. NULL without memory. */
struct agents_member *member_new(struct agents *g, struct mesh_origin origin, uint64_t number,
                                 struct span name, const struct agent_record *r);
void member_remove(struct agents *g, struct agents_member *m, const char *reason);
struct agents_member *member_find(struct agents *g, struct mesh_origin origin, uint64_t number);
uint64_t member_load(const struct agents_member *m);
bool member_fits_event(const struct agents_member *m, struct span nsp, struct span event);
bool member_fits_life(const struct agents_member *m, struct span nsp, unsigned life);
bool patterns_fit_namespace(const struct span *patterns, unsigned n, struct span nsp);
bool patterns_fit_event(const struct span *patterns, unsigned n, struct span event);
/* Both lists, one behind the other, in one piece of memory. */
struct span *spans_copy(const struct span *a, unsigned n_a, const struct span *b, unsigned n_b);
/* One of the group's members that has this event (n > 0) or this part of a socket's life; NULL: none. */
struct agents_member *group_choose(struct agents *g, struct group *group, struct span nsp, struct span event,
                                   unsigned life, struct span sid);
/* The same on every node that knows the same members, and none of the origin that is gone. */
struct agents_member *group_choose_alike(struct group *group, struct span nsp, unsigned life, struct span sid,
                                         struct mesh_origin gone);
void groups_forget_session(struct agents *g, struct span sid);
struct address *address_find(struct agents *g, struct span name);
/* Finds or makes. NULL without memory. */
struct address *address_obtain(struct agents *g, struct span name);
void address_drop_if_unused(struct agents *g, struct address *address);
struct agents_member *address_choose(struct agents *g, struct address *address);
void members_free(struct agents *g);

/* ---- agents_pool.c ---- */

/* Less busy, as far as was seen; of equals one of this node, then the one that has waited longest. */
bool member_before(const struct agents_member *a, const struct agents_member *b);
/* ERR_MEMORY. */
int pool_add(struct pool *p, struct agents_member *m);
void pool_remove(struct agents_member *m);
void pool_free(struct pool *p);
/* NULL: there is nobody. */
struct agents_member *pool_least(struct pool *p);
/* It may have less to do than before. */
void member_lighter(struct agents_member *m);
/* It was chosen. */
void member_used(struct agents *g, struct agents_member *m);

/* ---- agents_routes.c ---- */

/* The groups that have members for this event (n > 0) or this part of a socket's life; how many. What *groups points to
 * lasts until this is called again, or a registration comes or goes. Without memory there are none. */
unsigned routes_find(struct agents *g, struct span nsp, struct span event, unsigned life,
                     struct group *const **groups);
void routes_free(struct agents *g);

/* ---- agents_known.c: what other nodes have said of theirs ---- */

int agents_set(struct agents *g, enum gateway_key type, uint64_t number, struct span value);
void agents_say_node(struct agents *g);
void agents_say_instance(struct agent *a);
/* The same once more, for its number. */
void agents_repeat_instance(struct agent *a);
void agents_on_set(void *user, struct mesh_origin from, struct span key, struct span value);
void agents_on_void(void *user, struct mesh_origin from);
void known_forget(struct agents *g, struct mesh_origin from);
void known_expire(struct agents *g);
void known_free(struct agents *g);
void agents_put_peers(struct agents *g, struct agent_record *r);

/* ---- agents_calls.c: at home ---- */

/* Whom a call is for. */
struct call_at {
    struct mesh_origin origin;
    uint64_t number, target;
    bool observes;
};

/* Something that several groups are asked: what a client has sent, or whether it may connect. */
struct question;

/* Asks a member; the answer goes to the question or to the request. r is the record for the agent. NULL: no memory. */
struct call *call_begin(struct agents *g, struct agents_member *m, uint64_t deadline_ms,
                        struct agent_record *r, struct question *question, struct request *request);
/* Tells a member something that wants no answer. */
void member_tell(struct agents *g, const struct agents_member *m, struct agent_record *r);
/* r: OK or ERROR. */
void calls_answer(struct agents *g, struct mesh_origin from, uint64_t number, struct agent_record *r);
void calls_forget_node(struct agents *g, struct mesh_origin gone);
void call_cancel(struct call *c);
void calls_free(struct agents *g);
void agent_tell(struct agent *a, struct agent_record *r);
void agent_ask(struct agent *a, struct agent_record *r);

/* What answers mean for a question (agents_clients.c). Of the last call of it question_ended() is called. */
void question_answered(struct question *q, struct agent_record *r, const struct call_at *at);
void question_ended(struct question *q);
struct call **question_calls(struct question *q);

/* ---- agents_clients.c ---- */

void clients_node_died(struct agents *g, struct mesh_origin gone);
void clients_expire(struct agents *g);
void clients_free(struct agents *g);

/* ---- agents_tasks.c: where the agent is ---- */

/* Gives a record to the agent; number: of the call at its home, 0: none. AGENT_CODES: it is taken. */
enum agent_code task_take(struct reg *reg, struct mesh_origin from, uint64_t number, struct agent_record *r);
/* OK or ERROR of an agent. */
void task_answered(struct agent *a, struct agent_record *r);
void task_cancel(struct agents *g, struct mesh_origin from, uint64_t number, uint64_t target, bool is_late);
/* All fail; of this registration only, unless it is NULL. */
void tasks_fail(struct agent *a, const struct reg *only);
void tasks_forget_node(struct agents *g, struct mesh_origin gone);
/* The socket that an agent has let in is there, or will not be. */
void task_admitted(struct agents *g, struct mesh_origin from, uint64_t number, uint64_t target);
/* Does this record concern a client that is let in, and not there yet? */
bool agent_waits_for_admission(struct agent *a, const struct agent_record *r);
void admissions_free(struct agent *a);

/* ---- agents_mesh.c ---- */

void agents_on_message(void *user, struct mesh_origin from, struct span bytes);
/* head, and r unless it is NULL. 0, ERR_NOT_FOUND, ERR_MEMORY. */
int agents_tell_node(struct agents *g, struct mesh_origin to, const struct gateway_head *head,
                     const struct agent_record *r);
/* r: OK or ERROR, to a call's home. */
/* by: who has answered, or NULL. */
void agents_answer(struct agents *g, struct mesh_origin to, uint64_t number, struct agent_record *r,
                   const struct agents_member *by);
void agents_answer_error(struct agents *g, struct mesh_origin to, uint64_t number, enum agent_code code);
void agents_say_loads(struct agents *g);

/* ---- agents_subscribe.c ---- */

/* False: it has to wait. */
bool agent_subscribe(struct agent *a, struct agent_record *r);
void subscription_free(struct reg *reg);
void subscription_describe(const struct subscription *sub, struct reg_row *row);
void subscriptions_expire(struct agents *g);
void subscriptions_emit(struct agents *g, const struct mesh_origin *origin, uint64_t seq,
                        const struct emit *e);
void subscriptions_gap(struct agents *g);
/* Gives what was missed as far as there is credit. */
void agent_catch_up(struct agent *a);

/* ---- agents_sessions.c ---- */

/* JOIN, LEAVE, DISCONNECT, MEMBERS, SET. */
void agent_act(struct agent *a, struct agent_record *r);
void act_serve(struct agents *g, struct mesh_origin from, const struct gateway_head *head,
               struct agent_record *r);
void act_part(struct agents *g, uint64_t number, struct agent_record *r);
/* False: it is no act's answer. */
bool act_answered(struct agents *g, struct mesh_origin from, uint64_t number, const struct agent_record *r);
void acts_forget_node(struct agents *g, struct mesh_origin gone);
bool acts_look(struct agents *g);
void acts_free(struct agents *g);

#endif
