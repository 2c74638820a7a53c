/* An emit is a list of stages, each a walk over one room up to the member that was last when the emit was made:
 * first the excepted rooms (their members are marked as seen), then the targets (members not seen yet get it).
 * Emits wait in line, so each client sees them in order. One that finds the line empty runs at once; a turn has a
 * budget, and what is left when that is used up goes on in the next turn. Emits to the same room go over its members
 * side by side, block by block, so that a client of a large room is written once for all of them. */
#include "fanout.h"
#include "ack.h"
#include "container.h"
#include "err.h"
#include "frames.h"
#include "recovery.h"
#include <stdlib.h>

/* What may wait in line before its senders are not read any more, in members to be visited and in bytes; at the
 * hard bound an emit is refused. */
enum {
    CONGESTED_MEMBERS = 1000 * 1000,
    CONGESTED_BYTES = 4 * 1024 * 1024,
    REFUSED_FACTOR = 16,
};

/* Costs in units of about 10 ns, measured with 1,000 WebSockets: queueing a message is cheap, writing to one more
 * client at the end of the turn is not. The budget is some 5 ms, which leaves the rest of the loop its share of a
 * bound of 20 ms; the first emit in line may use half of it, so that those beside it come along. */
enum { COST_PUSH = 2, COST_WRITE = 400, TURN_BUDGET = 500000, LEADER_BUDGET = TURN_BUDGET / 2 };

struct stage {
    struct room *room; /* NULL: the one socket with this sid */
    uint32_t next, end;
    bool except;
    char sid[ID_CHARS];
};

struct job {
    struct job *next;
    struct nsp *nsp;
    struct slice frames, plain;
    uint32_t messages;
    bool is_volatile;
    bool marks;                /* a socket could be met twice, or is excepted */
    const struct socket *skip; /* compared only: it may be gone */
    struct ack_wait *wait;
    uint64_t ack_id, number;
    uint64_t origin_number;
    uint32_t origin; /* of another node's emit; 0: of this one */
    struct own_frames {
        struct ahead *ahead; /* of whom they are: nearly always the same for all who have one */
        struct slice frames;
    } own;
    unsigned stage, n_stages;
    struct stage stages[];
};

struct fanout {
    struct reactor *reactor;
    struct metrics *metrics;
    struct job *first, **last;
    uint64_t number;
    uint64_t waiting_members, waiting_bytes;
    struct engine *engine; /* of the namespace that was congested */
    int64_t budget;        /* what may still be spent in this turn */
    uint64_t now_ms;       /* when an emit was last started */
    struct reactor_task task, refill;
};

static void run_jobs(struct reactor_task *task);
static void refill(struct reactor_task *task);

struct fanout *fanout_new(struct reactor *r, struct metrics *m)
{
    struct fanout *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->reactor = r;
    f->metrics = m;
    f->last = &f->first;
    f->task.run = run_jobs;
    f->refill.run = refill;
    f->budget = TURN_BUDGET;
    return f;
}

/* It had come to its client before, on another node. */
static bool is_had(const struct ahead *ahead, const struct job *job)
{
    for (unsigned i = 0; i < ahead->n; i++)
        if (ahead->have[i].origin == job->origin)
            return job->origin_number <= ahead->have[i].number;
    return false;
}

static size_t ahead_bytes(const struct ahead *a)
{
    return sizeof(*a) + a->n * sizeof(a->have[0]);
}

static void forget_own(struct own_frames *own)
{
    if (own->ahead)
        slice_unref(&own->frames);
    free(own->ahead);
    own->ahead = NULL;
}

/* For a client that has more than this node: the frames with an offset that says so. */
static const struct slice *own_frames(struct job *job, struct socket *s)
{
    struct hub *h = s->nsp->hub;
    struct own_frames *own = &job->own;
    struct span common = frames_offset(&job->frames), offset;
    if (!h->recovery || common.n == 0)
        return &job->frames;
    offset = recovery_own_offset(h->recovery, s, common);
    if (!s->ahead)
        return &job->frames;
    if (own->ahead && own->ahead->n == s->ahead->n &&
        memcmp(own->ahead, s->ahead, ahead_bytes(s->ahead)) == 0)
        return &own->frames;
    forget_own(own);
    own->ahead = malloc(ahead_bytes(s->ahead));
    if (!own->ahead || frames_with_offset(&h->engine->bytes, &job->frames, offset, &own->frames)) {
        free(own->ahead);
        own->ahead = NULL;
        return &job->plain;
    }
    memcpy(own->ahead, s->ahead, ahead_bytes(s->ahead));
    return &own->frames;
}

static const struct slice *frames_for(struct job *job, struct socket *s)
{
    if (s->session->recovery_off)
        return &job->plain;
    return s->ahead ? own_frames(job, s) : &job->frames;
}

static void deliver(struct fanout *f, struct job *job, struct socket *s)
{
    if (s->ahead && job->origin && is_had(s->ahead, job))
        return;
    f->budget -= s->session->is_dirty ? COST_PUSH : COST_WRITE;
    if (job->wait)
        ack_expect(job->wait, s, job->ack_id);
    else
        s->offset_ms = f->now_ms; /* who is asked for an answer gets no offset */
    const struct slice *frames = frames_for(job, s);
    if (session_push(s->session, frames, job->messages, job->is_volatile))
        metrics_add(f->metrics, METRIC_DELIVERIES, job->messages);
}

static void visit(struct fanout *f, struct job *job, const struct stage *stage, struct socket *s)
{
    if (job->marks) {
        if (s->mark == job->number)
            return;
        s->mark = job->number;
    }
    if (!stage->except && s != job->skip)
        deliver(f, job, s);
}

/* Up to member number bound, or until the budget has fallen to reserve. True when the stage is done. */
static bool run_stage(struct fanout *f, struct job *job, struct stage *stage, uint32_t bound, int64_t reserve)
{
    if (!stage->room) {
        struct socket *s = nsp_find(job->nsp, (struct span){stage->sid, ID_CHARS});
        if (s && s->mark < job->number) /* else it is younger than the emit, or has it */
            visit(f, job, stage, s);
        return true;
    }
    /* Pushing to a client never changes the room: sessions end later in the turn. */
    uint32_t end = stage->end < bound ? stage->end : bound;
    while (stage->next < end && f->budget > reserve) {
        struct socket *s = stage->room->members[stage->next++].socket;
        f->budget--; /* holes are looked at too */
        if (s)
            visit(f, job, stage, s);
    }
    return stage->next == stage->end;
}

/* True when the job is done. */
static bool run_job(struct fanout *f, struct job *job, uint32_t bound, int64_t reserve)
{
    while (f->budget > reserve && job->stage < job->n_stages) {
        if (!run_stage(f, job, &job->stages[job->stage], bound, reserve))
            break;
        job->stage++;
    }
    return job->stage == job->n_stages;
}

static void unpin_stages(struct job *job)
{
    struct room *all = job->nsp->all;
    for (unsigned i = 0; i < job->n_stages; i++)
        if (job->stages[i].room)
            room_unpin(job->stages[i].room);
    room_unpin(all); /* last: the namespace may go with it */
}

static uint64_t members_of(const struct job *job)
{
    uint64_t n = 1;
    for (unsigned i = 0; i < job->n_stages; i++)
        n += job->stages[i].end;
    return n;
}

static bool is_above(const struct fanout *f, uint64_t factor)
{
    return f->waiting_members > factor * CONGESTED_MEMBERS || f->waiting_bytes > factor * CONGESTED_BYTES;
}

static void enqueue(struct fanout *f, struct job *job)
{
    struct engine *e = job->nsp->hub->engine;
    *f->last = job;
    f->last = &job->next;
    f->waiting_members += members_of(job);
    f->waiting_bytes += job->frames.n;
    if (!e->congested && is_above(f, 1)) {
        f->engine = e;
        engine_set_congested(e, true);
    }
}

/* Takes the first one out of the line. */
static struct job *dequeue(struct fanout *f)
{
    struct job *job = f->first;
    f->first = job->next;
    if (!f->first)
        f->last = &f->first;
    f->waiting_members -= members_of(job);
    f->waiting_bytes -= job->frames.n;
    if (f->engine && !is_above(f, 1) && 2 * f->waiting_members < CONGESTED_MEMBERS) {
        engine_set_congested(f->engine, false);
        f->engine = NULL;
    }
    return job;
}

static void finish(struct job *job)
{
    if (job->wait)
        ack_all_sent(job->wait);
    slice_unref(&job->frames);
    slice_unref(&job->plain);
    forget_own(&job->own);
    unpin_stages(job);
    free(job);
}

void fanout_free(struct fanout **fp)
{
    struct fanout *f = *fp;
    if (!f)
        return;
    reactor_undefer(f->reactor, &f->task, REACTOR_WORK);
    reactor_undefer(f->reactor, &f->refill, REACTOR_FLUSH);
    f->engine = NULL;
    while (f->first)
        finish(dequeue(f));
    free(f);
    *fp = NULL;
}

/* The turn's end: the next one has a fresh budget. */
static void refill(struct reactor_task *task)
{
    struct fanout *f = container_of(task, struct fanout, refill);
    f->budget = TURN_BUDGET;
    if (f->first)
        reactor_defer(f->reactor, &f->task, REACTOR_WORK);
}

/* The room of an emit that walks over one room only; NULL for others. */
static const struct room *only_room(const struct job *job)
{
    return job->n_stages == 1 ? job->stages[0].room : NULL;
}

/* Those behind the first one that go over the same room follow it, up to where the one before them is. */
static void run_followers(struct fanout *f)
{
    const struct room *room = only_room(f->first);
    const struct job *before = f->first;
    for (struct job *job = before->next; job && room && only_room(job) == room; job = job->next) {
        run_job(f, job, before->stages[0].next, 0);
        before = job;
    }
}

static void run_jobs(struct reactor_task *task)
{
    struct fanout *f = container_of(task, struct fanout, task);
    while (f->first && f->budget > TURN_BUDGET - LEADER_BUDGET) {
        struct job *job = f->first;
        if (!run_job(f, job, UINT32_MAX, TURN_BUDGET - LEADER_BUDGET)) {
            run_followers(f);
            break;
        }
        finish(dequeue(f));
    }
    reactor_defer(f->reactor, &f->refill, REACTOR_FLUSH);
}

void fanout_forget_wait(struct fanout *f, const struct ack_wait *wait)
{
    for (struct job *job = f->first; job; job = job->next)
        if (job->wait == wait)
            job->wait = NULL;
}

static void add_stage(struct job *job, struct nsp *nsp, struct span name, bool except)
{
    struct room *room = room_find(nsp, name);
    if (room && !except)
        room->emits++;
    if (room) {
        room_pin(room);
        job->stages[job->n_stages++] = (struct stage){.room = room, .end = room->n, .except = except};
    }
    if (nsp_find(nsp, name)) {
        struct stage *stage = &job->stages[job->n_stages++];
        *stage = (struct stage){.except = except};
        memcpy(stage->sid, name.p, ID_CHARS);
    }
}

static void add_stages(struct job *job, struct nsp *nsp, const struct emit *e)
{
    for (unsigned i = 0; i < e->n_except; i++)
        add_stage(job, nsp, e->except[i], true);
    for (unsigned i = 0; i < e->n_to; i++)
        add_stage(job, nsp, e->to[i], false);
    if (e->n_to == 0) {
        room_pin(nsp->all);
        job->stages[job->n_stages++] = (struct stage){.room = nsp->all, .end = nsp->all->n};
    }
    job->marks = job->n_stages > 1;
    room_pin(nsp->all);
}

int fanout_start(struct fanout *f, struct nsp *nsp, const struct emit *e, uint64_t ack_id,
                 const struct slice *frames, const struct slice *plain)
{
    f->now_ms = reactor_now_ms(f->reactor);
    if (is_above(f, REFUSED_FACTOR)) {
        metrics_add(f->metrics, METRIC_EMITS_REFUSED, 1);
        return ERR_BUSY;
    }
    /* Each name can be a room and a sid. */
    size_t most = 2 * (size_t)(e->n_except + e->n_to) + 1;
    struct job *job = malloc(sizeof(*job) + most * sizeof(job->stages[0]));
    if (!job)
        return ERR_MEMORY;
    *job = (struct job){
        .nsp = nsp,
        .frames = *frames,
        .plain = *plain,
        .messages = 1 + e->n_attachments,
        .is_volatile = e->is_volatile,
        .skip = e->skip,
        .wait = e->wait,
        .ack_id = ack_id,
        .number = ++f->number,
        .origin = e->origin,
        .origin_number = e->number,
    };
    slice_ref(frames);
    slice_ref(plain);
    add_stages(job, nsp, e);
    reactor_defer(f->reactor, &f->refill, REACTOR_FLUSH);
    if (!f->first && run_job(f, job, UINT32_MAX, 0)) {
        finish(job);
        return 0;
    }
    enqueue(f, job);
    return 0;
}

bool fanout_is_idle(const struct fanout *f)
{
    return !f->first;
}

uint64_t fanout_number(const struct fanout *f)
{
    return f->number;
}
