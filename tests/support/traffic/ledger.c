#include "ledger.h"
#include "../../bench/lib/util.h"

#include <stdlib.h>

/* What one life has heard of another one of its room. */
struct cell {
    uint32_t from;
    bool begun;
    uint64_t must;  /* what was sent before it joined may come, but need not */
    uint64_t first; /* heard */
    uint64_t next;
    uint64_t *holes; /* numbers below next that did not come */
    size_t holes_n, holes_max;
};

struct life {
    uint32_t id;
    unsigned room, target;
    bool ended;
    uint64_t sent, acknowledged;
    struct cell *cells;
    size_t cells_n;
};

/* Of all events from one target's clients to those of another one. */
struct pair {
    uint64_t heard, lost, twice, disordered, worst_us;
};

struct ids {
    uint32_t *at;
    size_t n;
};

struct ledger {
    unsigned rooms_n, targets_n;
    const char *const *names;
    struct life **lives;
    size_t lives_n;
    struct ids *rooms;
    struct pair *pairs;
    uint64_t *gaps, *ends; /* of each target's clients */
    uint64_t sent, heard, refused, strays, acks_wrong;
};

/* Makes room for one more item at the end of an array that grows to the next power of two. */
static void *grown(void *array, size_t n, size_t item)
{
    if (n & (n - 1))
        return array;
    array = realloc(array, (n ? n * 2 : 1) * item);
    if (!array)
        die("out of memory");
    return array;
}

struct ledger *ledger_new(unsigned rooms, unsigned targets, const char *const *names)
{
    struct ledger *l = must_alloc(1, sizeof(*l));
    l->rooms_n = rooms;
    l->targets_n = targets;
    l->names = names;
    l->rooms = must_alloc(rooms, sizeof(*l->rooms));
    l->pairs = must_alloc((size_t)targets * targets, sizeof(*l->pairs));
    l->gaps = must_alloc(targets, sizeof(*l->gaps));
    l->ends = must_alloc(targets, sizeof(*l->ends));
    return l;
}

void ledger_free(struct ledger *l)
{
    for (size_t i = 0; i < l->lives_n; i++) {
        for (size_t k = 0; k < l->lives[i]->cells_n; k++)
            free(l->lives[i]->cells[k].holes);
        free(l->lives[i]->cells);
        free(l->lives[i]);
    }
    for (unsigned i = 0; i < l->rooms_n; i++)
        free(l->rooms[i].at);
    free(l->rooms);
    free(l->lives);
    free(l->pairs);
    free(l->gaps);
    free(l->ends);
    free(l);
}

static struct pair *pair_of(const struct ledger *l, const struct life *from, const struct life *to)
{
    return &l->pairs[from->target * l->targets_n + to->target];
}

static struct cell *add_cell(struct life *to, const struct life *from)
{
    to->cells = grown(to->cells, to->cells_n, sizeof(*to->cells));
    struct cell *cell = &to->cells[to->cells_n++];
    *cell = (struct cell){.from = from->id, .must = from->sent, .next = from->sent};
    return cell;
}

struct life *ledger_begin(struct ledger *l, unsigned room, unsigned target)
{
    struct life *life = must_alloc(1, sizeof(*life));
    struct ids *ids = &l->rooms[room];
    life->id = (uint32_t)l->lives_n;
    life->room = room;
    life->target = target;
    for (size_t i = 0; i < ids->n; i++) {
        struct life *other = l->lives[ids->at[i]];
        add_cell(life, other);
        if (!other->ended)
            add_cell(other, life);
    }
    l->lives = grown(l->lives, l->lives_n, sizeof(*l->lives));
    l->lives[l->lives_n++] = life;
    ids->at = grown(ids->at, ids->n, sizeof(*ids->at));
    ids->at[ids->n++] = life->id;
    return life;
}

void ledger_end(struct ledger *l, struct life *life)
{
    life->ended = true;
    l->ends[life->target]++;
}

uint32_t life_id(const struct life *life)
{
    return life->id;
}

uint64_t ledger_send(struct ledger *l, struct life *from)
{
    l->sent++;
    return from->sent++;
}

void ledger_acknowledge(struct ledger *l, struct life *from, uint64_t number, bool ok)
{
    l->refused += !ok;
    l->acks_wrong += number != from->acknowledged || number >= from->sent;
    from->acknowledged++;
}

/* ---- what is heard ---- */

static struct cell *find_cell(struct life *to, uint64_t from_id)
{
    for (size_t i = 0; i < to->cells_n; i++) {
        if (to->cells[i].from == from_id)
            return &to->cells[i];
    }
    return NULL;
}

static bool fill_hole(struct cell *cell, uint64_t number)
{
    for (size_t i = 0; i < cell->holes_n; i++) {
        if (cell->holes[i] == number) {
            cell->holes[i] = cell->holes[--cell->holes_n];
            return true;
        }
    }
    return false;
}

static void advance(struct cell *cell, uint64_t number)
{
    if (!cell->begun) {
        cell->begun = true;
        cell->first = number;
        if (number < cell->must)
            cell->next = number;
    }
    for (; cell->next < number; cell->next++) {
        cell->holes = grown(cell->holes, cell->holes_n, sizeof(*cell->holes));
        cell->holes[cell->holes_n++] = cell->next;
    }
    cell->next = number + 1;
}

void ledger_hear(struct ledger *l, struct life *to, uint64_t from_id, uint64_t number, uint64_t took_us)
{
    struct cell *cell = find_cell(to, from_id);
    if (!cell ||
        number >= l->lives[from_id]->sent) { /* never sent, or to another room, or the sender's own */
        l->strays++;
        return;
    }
    struct pair *pair = pair_of(l, l->lives[from_id], to);
    l->heard++;
    pair->heard++;
    if (took_us > pair->worst_us)
        pair->worst_us = took_us;
    if (!cell->begun || number >= cell->next)
        advance(cell, number);
    else if (number < cell->first || fill_hole(cell, number))
        pair->disordered++;
    else
        pair->twice++;
}

void ledger_gap(struct ledger *l, struct life *to)
{
    l->gaps[to->target]++;
}

/* ---- what is missing ---- */

uint64_t ledger_sent(const struct ledger *l)
{
    return l->sent;
}

uint64_t ledger_heard(const struct ledger *l)
{
    return l->heard;
}

/* Of a life that has ended nobody knows how much of its last words was taken; but those who are still there must agree:
 * the most that any of them has heard. */
static uint64_t last_of(const struct ledger *l, const struct life *from)
{
    if (!from->ended)
        return from->sent;
    uint64_t last = 0;
    const struct ids *room = &l->rooms[from->room];
    for (size_t i = 0; i < room->n; i++) {
        struct life *life = l->lives[room->at[i]];
        struct cell *cell = life->ended ? NULL : find_cell(life, from->id);
        if (cell && cell->begun && cell->next > last)
            last = cell->next;
    }
    return last;
}

static uint64_t lost_between(const struct ledger *l, const struct life *from, const struct life *to,
                             const struct cell *cell)
{
    uint64_t last = last_of(l, from);
    if (to->ended)
        return cell->holes_n;
    /* It joined after all that the others have heard of an ended life. */
    return cell->holes_n + (last > cell->next ? last - cell->next : 0);
}

/* The losses of all pairs of lives, by pairs of targets. */
static uint64_t count_lost(const struct ledger *l, struct pair *pairs)
{
    uint64_t all = 0;
    for (size_t i = 0; i < l->lives_n; i++) {
        const struct life *to = l->lives[i];
        for (size_t k = 0; k < to->cells_n; k++) {
            const struct life *from = l->lives[to->cells[k].from];
            uint64_t lost = lost_between(l, from, to, &to->cells[k]);
            all += lost;
            if (pairs)
                pairs[from->target * l->targets_n + to->target].lost += lost;
        }
    }
    return all;
}

static uint64_t unacknowledged(const struct ledger *l)
{
    uint64_t all = 0;
    for (size_t i = 0; i < l->lives_n; i++) {
        const struct life *life = l->lives[i];
        if (!life->ended)
            all += life->sent - life->acknowledged;
    }
    return all;
}

uint64_t ledger_missing(const struct ledger *l)
{
    return count_lost(l, NULL) + unacknowledged(l);
}

static void report_pairs(const struct ledger *l, struct pair *pairs, FILE *out)
{
    const char *between = "";
    for (unsigned from = 0; from < l->targets_n; from++) {
        for (unsigned to = 0; to < l->targets_n; to++) {
            const struct pair *p = &pairs[from * l->targets_n + to];
            fprintf(out,
                    "%s{\"from\":\"%s\",\"to\":\"%s\",\"heard\":%ju,\"lost\":%ju,\"twice\":%ju,"
                    "\"disordered\":%ju,"
                    "\"worst_ms\":%.1f}",
                    between, l->names[from], l->names[to], (uintmax_t)p->heard, (uintmax_t)p->lost,
                    (uintmax_t)p->twice, (uintmax_t)p->disordered, (double)p->worst_us / 1000);
            between = ",";
        }
    }
}

static void report_targets(const struct ledger *l, FILE *out)
{
    for (unsigned i = 0; i < l->targets_n; i++) {
        fprintf(out, "%s{\"name\":\"%s\",\"gaps\":%ju,\"ended\":%ju}", i ? "," : "", l->names[i],
                (uintmax_t)l->gaps[i], (uintmax_t)l->ends[i]);
    }
}

void ledger_report(const struct ledger *l, FILE *out)
{
    struct pair *pairs = must_alloc((size_t)l->targets_n * l->targets_n, sizeof(*pairs));
    for (unsigned i = 0; i < l->targets_n * l->targets_n; i++)
        pairs[i] = l->pairs[i];
    uint64_t lost = count_lost(l, pairs), twice = 0, disordered = 0;
    for (unsigned i = 0; i < l->targets_n * l->targets_n; i++) {
        twice += pairs[i].twice;
        disordered += pairs[i].disordered;
    }
    fprintf(out,
            "\"sent\":%ju,\"heard\":%ju,\"lost\":%ju,\"twice\":%ju,\"disordered\":%ju,\"strays\":%ju,"
            "\"refused\":%ju,\"unacknowledged\":%ju,\"acks_wrong\":%ju,\"targets\":[",
            (uintmax_t)l->sent, (uintmax_t)l->heard, (uintmax_t)lost, (uintmax_t)twice, (uintmax_t)disordered,
            (uintmax_t)l->strays, (uintmax_t)l->refused, (uintmax_t)unacknowledged(l),
            (uintmax_t)l->acks_wrong);
    report_targets(l, out);
    fputs("],\"pairs\":[", out);
    report_pairs(l, pairs, out);
    fputc(']', out);
    free(pairs);
}
