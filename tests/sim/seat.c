#include "seat.h"
#include "json.h"
#include "must.h"
#include "offset.h"
#include "sim.h"
#include <stdarg.h>
#include <stdio.h>

const char *seat_nsp_name(unsigned nsp)
{
    static const char *const names[NAMESPACES] = {"/", "/a", "/b"};
    return names[nsp];
}

__attribute__((format(printf, 2, 3))) static void fail(struct seat *s, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim_fail(s->sim, "client %u in %s: %s", s->player, seat_nsp_name(s->nsp), text);
}

static struct truth *truth_of(const struct seat *s)
{
    return &s->sim->truth;
}

/* ---- what it says ---- */

static const char *nsp_prefix(const struct seat *s, char text[8])
{
    snprintf(text, 8, "%s%s", s->nsp ? seat_nsp_name(s->nsp) : "", s->nsp ? "," : "");
    return text;
}

size_t seat_write_connect(struct seat *s, char *dst, size_t cap)
{
    char nsp[8];
    int n = snprintf(dst, cap, "0%s", nsp_prefix(s, nsp));
    if (s->pid[0] && s->offset[0])
        n = snprintf(dst, cap, "0%s{\"pid\":\"%s\",\"offset\":\"%s\"}", nsp, s->pid, s->offset);
    else if (s->pid[0])
        n = snprintf(dst, cap, "0%s{\"pid\":\"%s\"}", nsp, s->pid);
    MUST((size_t)n < cap);
    s->state = SEAT_ASKED;
    s->next_id = s->n_asked = 0;
    return (size_t)n;
}

size_t seat_write_change(struct seat *s, unsigned room, bool joins, char *dst, size_t cap)
{
    char nsp[8];
    if (s->n_asked == ASKED)
        return 0;
    s->asked[s->n_asked++] = (struct seat_asked){s->next_id, room, joins};
    s->room[room].asked++;
    s->room[room].state = ROOM_MAYBE;
    int n = snprintf(dst, cap, "2%s%llu[\"bus:%s\",\"r%u\"]", nsp_prefix(s, nsp),
                     (unsigned long long)s->next_id++, joins ? "join" : "leave", room);
    MUST((size_t)n < cap);
    return (size_t)n;
}

void seat_leave(struct seat *s)
{
    s->state = SEAT_OUT;
    for (unsigned i = 0; i < ROOMS; i++)
        s->room[i].asked = 0; /* nobody will answer: it stays uncertain */
}

/* ---- what was for it ---- */

static bool is_certain(const struct seat *s, unsigned room, enum room_state state)
{
    return s->room[room].state == state && s->room[room].since_packet <= s->offset_packet;
}

static bool is_sid(const struct seat *s, const char sid[ID_CHARS])
{
    return sid[0] && memcmp(sid, s->sid, ID_CHARS) == 0;
}

static bool any_room(const struct seat *s, uint8_t rooms, enum room_state state)
{
    for (unsigned i = 0; i < ROOMS; i++)
        if (rooms & 1u << i && is_certain(s, i, state))
            return true;
    return false;
}

static bool all_rooms(const struct seat *s, uint8_t rooms, enum room_state state)
{
    for (unsigned i = 0; i < ROOMS; i++)
        if (rooms & 1u << i && !is_certain(s, i, state))
            return false;
    return true;
}

/* Certainly for this client. */
static bool must_have(const struct seat *s, const struct truth_emit *e)
{
    bool is_target = (!e->to && !e->to_sid[0]) || is_sid(s, e->to_sid) || any_room(s, e->to, ROOM_IN);
    return e->nsp == s->nsp && !e->is_volatile && is_target && !is_sid(s, e->skip_sid) &&
           !is_sid(s, e->except_sid) && all_rooms(s, e->except, ROOM_OUT);
}

/* Certainly not. */
static bool must_not_have(const struct seat *s, const struct truth_emit *e)
{
    bool is_target = (!e->to && !e->to_sid[0]) || is_sid(s, e->to_sid) || !all_rooms(s, e->to, ROOM_OUT);
    return e->nsp != s->nsp || !is_target || is_sid(s, e->skip_sid) || is_sid(s, e->except_sid) ||
           any_room(s, e->except, ROOM_IN);
}

static bool has_come(const struct seat *s, unsigned number)
{
    return s->came[number / 8] & 1u << number % 8;
}

static bool was_told_gap(const struct seat *s, unsigned origin, uint64_t seq)
{
    for (unsigned i = 0; i < s->n_gaps; i++)
        if (s->gap[i].origin == origin && s->gap[i].first <= seq && seq <= s->gap[i].last)
            return true;
    return false;
}

/* ---- offsets ---- */

/* The client has been told that it has everything of this origin up to seq. */
static void raise_to(struct seat *s, unsigned origin, uint64_t seq)
{
    const struct truth *t = truth_of(s);
    const struct truth_origin *o = &t->origin[origin];
    for (; s->checked[origin] < o->n_emits; s->checked[origin]++) {
        const struct truth_emit *e = &t->emit[o->emits[s->checked[origin]]];
        if (e->seq > seq)
            break;
        bool is_due = s->has_base && e->at_ms >= s->begun_ms;
        if (is_due && must_have(s, e) && !has_come(s, e->number) && !was_told_gap(s, origin, e->seq))
            fail(s, "a hole: emit %u (number %llu of origin %u) was not given, the offset says it was",
                 e->number, (unsigned long long)e->seq, origin);
    }
    if (s->have[origin] < seq)
        s->have[origin] = seq;
}

static void take_offset(struct seat *s, struct span text)
{
    static struct offset o; /* large */
    if (text.n < 2 || text.p[0] != '~')
        return;
    if (offset_decode(text, &o)) {
        fail(s, "no offset: %.*s", (int)text.n, text.p);
        return;
    }
    for (unsigned i = 0; i < o.n; i++) {
        if (o.entry[i].origin == 0) /* no origin: offset.md */
            continue;
        unsigned origin = truth_find_origin(truth_of(s), o.entry[i].origin);
        if (origin == ORIGINS)
            fail(s, "the offset names an origin that never was: %06x", o.entry[i].origin);
        else
            raise_to(s, origin, o.entry[i].seq);
        if (origin != ORIGINS && o.entry[i].seq < s->have[origin])
            sim_say(s->sim, "client %u%s is taken back from %llu to %llu of origin %u", s->player,
                    seat_nsp_name(s->nsp), (unsigned long long)s->have[origin],
                    (unsigned long long)o.entry[i].seq, origin);
    }
    s->has_base = true;
    s->offset_packet = s->packets;
}

/* ---- packets ---- */

static void copy_string(char *dst, size_t cap, struct span value)
{
    ssize_t n = json_string(value, dst, cap - 1);
    dst[n > 0 ? n : 0] = '\0';
}

static void begin_session(struct seat *s)
{
    s->has_base = false;
    s->begun_ms = net_clock_ms;
    s->packets = s->offset_packet = 0;
    s->n_gaps = 0;
    memset(s->have, 0, sizeof(s->have));
    memset(s->checked, 0, sizeof(s->checked));
    memset(s->last, 0, sizeof(s->last));
    memset(s->came, 0, sizeof(s->came));
    memset(s->misjudged, 0, sizeof(s->misjudged));
    memset(s->room, 0, sizeof(s->room));
}

/* Of an origin that lives, but is heard neither over the mesh nor through the store, a node cannot know that what this
 * client has of it will come yet: for some seconds it looks as one that was killed with its last words. */
static void take_misjudged(struct seat *s)
{
    const struct station *at = s->sim->player[s->player].conn->station;
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = at && at->is_up ? peers_positions(at->peers, position, LIMIT_OFFSET_ORIGINS) : 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned origin = truth_find_origin(truth_of(s), position[i].origin.tag);
        bool is_dead = truth_of(s)->origin[origin].is_dead;
        if (!is_dead && !position[i].lives && position[i].received < s->have[origin])
            s->misjudged[origin] = s->have[origin];
    }
}

void seat_on_connect(struct seat *s, struct span payload)
{
    char sid[ID_CHARS + 1], pid[ID_CHARS + 1];
    copy_string(sid, sizeof(sid), json_get(payload, "sid"));
    copy_string(pid, sizeof(pid), json_get(payload, "pid"));
    bool is_recovered = pid[0] && strcmp(pid, s->pid) == 0;
    if (s->state != SEAT_ASKED || strlen(sid) != ID_CHARS || (pid[0] == '\0') != s->is_plain)
        fail(s, "an odd answer to CONNECT: %.*s", (int)payload.n, payload.p);
    if (is_recovered && strcmp(sid, s->sid) != 0)
        fail(s, "recovered with another sid");
    if (is_recovered && s->is_poisoned)
        fail(s, "recovered without an offset");
    sim_say(s->sim, "client %u%s is %s as %.8s", s->player, seat_nsp_name(s->nsp),
            is_recovered ? "recovered" : "new", sid);
    s->recoveries += is_recovered;
    s->sim->recoveries += is_recovered;
    s->sim->fresh += !is_recovered;
    memcpy(s->sid, sid, sizeof(sid));
    memcpy(s->pid, pid, sizeof(pid));
    s->state = SEAT_IN;
    s->is_poisoned = false;
    if (is_recovered)
        take_misjudged(s);
    else
        begin_session(s);
    s->packets++;
}

static void take_emit(struct seat *s, unsigned number)
{
    const struct truth *t = truth_of(s);
    const struct truth_emit *e = &t->emit[number];
    if (number >= t->n_emits || !e->is_accepted) {
        fail(s, "emit %u never was", number);
        return;
    }
    if (has_come(s, number) && e->seq <= s->misjudged[e->origin])
        s->sim->misjudged++;
    else if (has_come(s, number))
        fail(s, "emit %u (number %llu of origin %u) twice", number, (unsigned long long)e->seq, e->origin);
    else if (e->seq <= s->last[e->origin])
        fail(s, "emit %u (number %llu of origin %u) after number %llu", number, (unsigned long long)e->seq,
             e->origin, (unsigned long long)s->last[e->origin]);
    if (must_not_have(s, e))
        fail(s, "emit %u was not for it", number);
    s->last[e->origin] = e->seq;
    s->came[number / 8] |= (uint8_t)(1u << number % 8);
}

static void take_gap(struct seat *s, struct span what)
{
    uint64_t first = 0, last = 0;
    char origin[64];
    copy_string(origin, sizeof(origin), json_get(what, "origin"));
    unsigned i = truth_find_origin(truth_of(s), (uint32_t)strtoul(origin, NULL, 16));
    if (i == ORIGINS || s->n_gaps == GAPS || !json_uint(json_get(what, "from"), UINT64_MAX / 16, &first) ||
        !json_uint(json_get(what, "to"), UINT64_MAX / 16, &last)) {
        fail(s, "an odd gap: %.*s", (int)what.n, what.p);
        return;
    }
    s->gap[s->n_gaps++] = (struct seat_gap){i, first, last};
    s->sim->gaps++;
}

void seat_on_event(struct seat *s, struct span payload)
{
    struct json_cursor c = json_open(payload);
    struct span event, first = {NULL, 0}, item, last;
    uint64_t number;
    if (!json_item(&c, &event))
        return;
    for (last = event; json_item(&c, &item); last = item)
        first = first.n ? first : item;
    s->packets++;
    if (span_eq(event, SPAN("\"e\"")) && json_uint(first, EMITS - 1, &number))
        take_emit(s, (unsigned)number);
    else if (span_eq(event, SPAN("\"bus:gap\"")))
        take_gap(s, first);
    else if (!span_eq(event, SPAN("\"bus:offset\"")))
        fail(s, "an event that nobody has sent: %.*s", (int)event.n, event.p);
    if (json_type(last) != JSON_STRING)
        return;
    copy_string(s->offset, sizeof(s->offset), last);
    if (!s->is_plain)
        take_offset(s, span_of(s->offset));
}

static void settle_room(struct seat *s, const struct seat_asked *a)
{
    struct seat_room *room = &s->room[a->room];
    if (--room->asked > 0)
        return;
    room->state = a->joins ? ROOM_IN : ROOM_OUT;
    room->since_packet = s->packets;
}

void seat_on_ack(struct seat *s, uint64_t id, struct span payload)
{
    struct span answer = {NULL, 0};
    struct json_cursor c = json_open(payload);
    s->packets++;
    json_item(&c, &answer);
    for (unsigned i = 0; i < s->n_asked; i++) {
        if (s->asked[i].id != id)
            continue;
        if (!json_is_true(json_get(answer, "ok")))
            fail(s, "not joined: %.*s", (int)payload.n, payload.p);
        settle_room(s, &s->asked[i]);
        s->asked[i] = s->asked[--s->n_asked];
        return;
    }
}

/* How this node sees the origin. A node that it never met cannot be missed by anybody there: it has come and gone while
 * they were apart; and offsets do not name one that it has not heard for long. */
static struct peers_position position_of(const struct seat *s, const struct truth_origin *o)
{
    const struct station *at = s->sim->player[s->player].conn->station;
    struct peers_position position[LIMIT_OFFSET_ORIGINS];
    unsigned n = peers_positions(at->peers, position, LIMIT_OFFSET_ORIGINS);
    for (unsigned i = 0; i < n; i++)
        if (position[i].origin.tag == o->id.tag)
            return position[i];
    return (struct peers_position){.is_old = true};
}

void seat_check_end(struct seat *s)
{
    const struct truth *t = truth_of(s);
    for (unsigned i = 0; i < t->n_origins && !s->is_plain; i++) {
        const struct truth_origin *o = &t->origin[i];
        bool is_named = !position_of(s, o).is_old;
        for (unsigned k = s->checked[i]; k < o->n_emits; k++) {
            const struct truth_emit *e = &t->emit[o->emits[k]];
            bool is_due = is_named && e->nsp == s->nsp && e->at_ms > s->begun_ms && truth_is_held(o, e->seq);
            if (is_due && !was_told_gap(s, i, e->seq))
                fail(s, "emit %u (number %llu of origin %u) never came, and it is at %llu", e->number,
                     (unsigned long long)e->seq, i, (unsigned long long)s->have[i]);
        }
    }
}
