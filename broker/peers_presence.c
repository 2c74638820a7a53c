#include "err.h"
#include "peers_private.h"
#include <stdlib.h>

void peers_put_presence(struct peers *m, enum mesh_kind kind, const struct mesh_presence *presence)
{
    struct mesh_record *record = &m->record; /* a new one would cost more than what is in it */
    record->kind = kind;
    record->seq = 0;
    memcpy(&record->presence, presence,
           offsetof(struct mesh_presence, rooms) + presence->n_rooms * sizeof(presence->rooms[0]));
    mesh_write(&m->parts, record);
}

void peers_put_set(struct peers *m, const struct mesh_message *set)
{
    struct mesh_record *record = &m->record;
    record->kind = MESH_SET;
    record->seq = 0;
    record->message = *set;
    mesh_write(&m->parts, record);
}

void presence_apply(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (record->kind == MESH_SET)
        m->user.on_set(m->user.user, o->id, &record->message);
    else
        m->user.on_presence(m->user.user, o->id, record->kind, &record->presence);
}

void presence_forget(struct origin *o)
{
    o->presence = PRESENCE_UNKNOWN;
    o->presence_begun = false;
    held_drop_all(&o->late);
}

void presence_lose(struct origin *o, uint64_t last)
{
    if (o->presence == PRESENCE_KNOWN && o->presence_as_of < last)
        presence_forget(o);
    else if (o->presence == PRESENCE_ASKED && o->presence_since < last)
        o->presence_since = last;
}

static void hold_late(struct origin *o, const struct mesh_record *record)
{
    if (!held_fits(&o->late, record->raw) || held_add(&o->late, record->seq, record->raw))
        presence_forget(o);
}

void presence_take(struct peers *m, struct origin *o, const struct mesh_record *record)
{
    if (o->presence == PRESENCE_KNOWN && record->seq > o->presence_as_of)
        presence_apply(m, o, record);
    else if (o->presence == PRESENCE_ASKED) /* before that: the snapshot will include it */
        hold_late(o, record);
}

/* As many records as fit one message. False: those were the last. */
static bool fill_part(struct peers *m, struct mesh_reader *r, msgpack_sbuffer *part)
{
    int got = 1;
    while (part->size < BATCH_BYTES && (got = mesh_read(r, &m->record)) == 1)
        msgpack_sbuffer_write(part, m->record.raw.p, m->record.raw.n);
    return got == 1;
}

static void send_part(struct peers *m, const struct peer *p, const struct mesh_presence_part *part,
                      const msgpack_sbuffer *records)
{
    struct mesh_record head = {.kind = MESH_PRESENCE, .part = *part};
    if (peers_begin(m, &m->scratch, peers_version_of(m, p)) || mesh_write(&m->scratch, &head))
        return;
    if (records->size)
        msgpack_sbuffer_write(&m->scratch, records->data, records->size);
    m->link.send(m->link.link, p->channel, peers_message(&m->scratch));
}

void presence_answer(struct peers *m, const struct peer *p)
{
    /* All in one go, so that it is the state after exactly one number. */
    msgpack_sbuffer_clear(&m->parts);
    m->user.put_presence(m->user.user, m);
    const char *parts = m->parts.size ? m->parts.data : "";
    struct mesh_reader r = {parts, parts + m->parts.size};
    struct mesh_presence_part part = {.as_of = m->seq, .first = true};
    msgpack_sbuffer records;
    msgpack_sbuffer_init(&records);
    for (; !part.last; part.number++, part.first = false) {
        msgpack_sbuffer_clear(&records);
        part.last = !fill_part(m, &r, &records);
        send_part(m, p, &part, &records);
    }
    msgpack_sbuffer_destroy(&records);
}

void presence_ask(struct peers *m, struct origin *o)
{
    struct peer *p = peers_of_origin(m, o);
    uint64_t now = peers_now_ms(m);
    bool again = now - o->presence_asked_ms > HOLE_WAIT_MS;
    if (!p || o->presence == PRESENCE_KNOWN || (o->presence == PRESENCE_ASKED && !again))
        return;
    if (o->presence == PRESENCE_UNKNOWN)
        o->presence_since = o->received;
    o->presence = PRESENCE_ASKED;
    o->presence_begun = false;
    o->presence_asked_ms = now;
    peers_send_record(m, p, &(struct mesh_record){.kind = MESH_ASK_PRESENCE});
}

bool presence_take_part(struct peers *m, struct origin *o, const struct mesh_presence_part *part)
{
    if (o->presence != PRESENCE_ASKED || part->as_of < o->presence_since)
        return false;
    if (!part->first && (!o->presence_begun || part->as_of != o->presence_as_of))
        return false;
    if (part->number != (part->first ? 0 : o->presence_parts)) { /* one is lost: all of it again */
        o->presence_begun = false;
        return false;
    }
    o->presence_parts = part->number + 1;
    if (part->first)
        m->user.on_presence_void(m->user.user, o->id);
    o->presence_begun = true;
    o->presence_asked_ms = peers_now_ms(m);
    o->presence_as_of = part->as_of;
    return true;
}

void presence_finish(struct peers *m, struct origin *o)
{
    o->presence = PRESENCE_KNOWN;
    while (o->late.first) {
        struct held *h = held_take(&o->late);
        if (h->seq > o->presence_as_of && records_read(m, h->raw, h->n))
            presence_apply(m, o, &m->record);
        free(h);
    }
}
