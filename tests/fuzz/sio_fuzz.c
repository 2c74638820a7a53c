/* Socket.IO packets: every span lies in the text, the JSON of an accepted packet can be walked, placeholders
 * are judged as a plain recursive walk judges them, and a packet put together again is read the same. */
#include "err.h"
#include "json.h"
#include "limit.h"
#include "sio.h"
#include "utf8.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_inside(struct span part, struct span whole)
{
    CHECK(part.p >= whole.p && part.n <= whole.n && (size_t)(part.p - whole.p) <= whole.n - part.n);
}

static bool placeholders_valid(struct span value, unsigned attachments)
{
    struct json_cursor c = json_open(value);
    struct span key, item;
    bool valid = true;
    if (json_type(value) == JSON_ARRAY) {
        while (json_item(&c, &item))
            valid = placeholders_valid(item, attachments) && valid;
        return valid;
    }
    if (json_type(value) != JSON_OBJECT)
        return true;
    while (json_member(&c, &key, &item))
        valid = placeholders_valid(item, attachments) && valid;
    uint64_t num;
    if (json_is_true(json_get(value, "_placeholder")))
        valid = json_uint(json_get(value, "num"), attachments - 1, &num) && valid;
    return valid;
}

/* The items of the payload are the event, then those that args holds. */
static void check_items(const struct sio_packet *packet, char *copy)
{
    bool is_event = packet->type == SIO_EVENT || packet->type == SIO_BINARY_EVENT;
    struct json_cursor items = json_open(packet->payload);
    struct span item, arg;
    if (is_event) {
        CHECK(json_item(&items, &item) && item.p == packet->event.p && item.n == packet->event.n);
        CHECK(json_type(item) == JSON_STRING || json_type(item) == JSON_NUMBER);
    }
    copy[0] = '[';
    memcpy(copy + 1, packet->args.p, packet->args.n);
    copy[1 + packet->args.n] = ']';
    struct span args = {copy, packet->args.n + 2};
    CHECK(json_check(args, LIMIT_JSON_DEPTH) == 0);
    struct json_cursor c = json_open(args);
    while (json_item(&items, &item))
        CHECK(json_item(&c, &arg) && span_eq(item, arg));
    CHECK(!json_item(&c, &arg));
}

static void check_payload(const struct sio_packet *packet, char *copy)
{
    bool binary = packet->type >= SIO_BINARY_EVENT;
    CHECK(json_check(packet->payload, LIMIT_JSON_DEPTH) == 0);
    switch (packet->type) {
    case SIO_CONNECT:
        CHECK(json_type(packet->payload) == JSON_OBJECT);
        return;
    case SIO_CONNECT_ERROR:
        CHECK(json_type(packet->payload) == JSON_OBJECT || json_type(packet->payload) == JSON_STRING);
        return;
    case SIO_DISCONNECT:
        abort();
    default:
        CHECK(json_type(packet->payload) == JSON_ARRAY);
        CHECK(!binary || placeholders_valid(packet->payload, packet->attachments));
        check_items(packet, copy);
    }
}

/* A placeholder error is never made up: the same packet as a plain one passes, and the walk agrees. */
static void check_refused_placeholder(struct span text, char *copy)
{
    const char *dash = memchr(text.p, '-', text.n);
    CHECK(dash != NULL);
    size_t rest = (size_t)(text.p + text.n - dash - 1);
    copy[0] = text.p[0] == '5' ? '2' : '3';
    memcpy(copy + 1, dash + 1, rest);
    struct sio_packet plain;
    CHECK(sio_decode((struct span){copy, rest + 1}, &plain) == 0);
    CHECK(!placeholders_valid(plain.payload, (unsigned)strtoul(text.p + 1, NULL, 10)));
}

static void check_packet(const struct sio_packet *packet, struct span text, char *copy)
{
    bool binary = packet->type >= SIO_BINARY_EVENT;
    CHECK(packet->type == (enum sio_type)(text.p[0] - '0'));
    CHECK(binary ? packet->attachments >= 1 && packet->attachments <= LIMIT_ATTACHMENTS
                 : packet->attachments == 0);
    CHECK(packet->nsp.n >= 1 && packet->nsp.n <= LIMIT_NAMESPACE_BYTES && packet->nsp.p[0] == '/');
    CHECK(memchr(packet->nsp.p, ',', packet->nsp.n) == NULL);
    if (packet->nsp.n > 1)
        check_inside(packet->nsp, text);
    check_inside(packet->payload, text);
    check_inside(packet->event, text);
    check_inside(packet->args, text);
    CHECK(packet->has_id || packet->id == 0);
    if (packet->payload.n > 0)
        check_payload(packet, copy);
    else
        CHECK(packet->event.n == 0 && packet->args.n == 0);
}

static void check_round_trip(const struct sio_packet *packet, char *copy)
{
    size_t n =
        sio_encode_head(copy, packet->type, packet->attachments, packet->nsp, packet->has_id, packet->id);
    CHECK(n <= SIO_HEAD_MAX(packet->nsp.n) && copy[0] == '4');
    memcpy(copy + n, packet->payload.p, packet->payload.n);
    struct sio_packet again;
    CHECK(sio_decode((struct span){copy + 1, n - 1 + packet->payload.n}, &again) == 0);
    CHECK(again.type == packet->type && again.attachments == packet->attachments);
    CHECK(again.has_id == packet->has_id && again.id == packet->id);
    CHECK(span_eq(again.nsp, packet->nsp) && span_eq(again.payload, packet->payload));
    CHECK(span_eq(again.event, packet->event) && span_eq(again.args, packet->args));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    /* Text reaches the decoder valid, made so by the polling transport. */
    char *clean = malloc(3 * n + 1), *copy = malloc(3 * n + SIO_HEAD_MAX(LIMIT_NAMESPACE_BYTES));
    CHECK(clean != NULL && copy != NULL);
    struct span text = {clean, utf8_sanitize(clean, (const char *)data, n)};
    clean[text.n] = 0;
    struct sio_packet packet;
    int err = sio_decode(text, &packet);
    if (err == 0) {
        check_packet(&packet, text, copy);
        check_round_trip(&packet, copy);
    } else if (err == ERR_SIO_PLACEHOLDER) {
        check_refused_placeholder(text, copy);
    }
    free(copy);
    free(clean);
    return 0;
}
