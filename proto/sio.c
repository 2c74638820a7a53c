#include "sio.h"
#include "err.h"
#include "json.h"
#include "limit.h"
#include <assert.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_binary(enum sio_type type)
{
    return type == SIO_BINARY_EVENT || type == SIO_BINARY_ACK;
}

/* Digits, then '-'. Leading zeros pass, as in the reference; its other spellings of a number (1.0, 0x1, 1e0)
 * do not. */
static int decode_attachments(const char **p, const char *end, unsigned *attachments)
{
    const char *c = *p;
    unsigned value = 0;
    for (; c < end && is_digit(*c); c++) {
        value = value * 10 + (unsigned)(*c - '0');
        if (value > LIMIT_ATTACHMENTS)
            return ERR_SIO_ATTACHMENTS;
    }
    if (value == 0 || c == end || *c != '-')
        return ERR_SIO_ATTACHMENTS;
    *attachments = value;
    *p = c + 1;
    return 0;
}

static int decode_namespace(const char **p, const char *end, struct span *nsp)
{
    *nsp = SPAN("/");
    if (*p == end || **p != '/')
        return 0;
    size_t left = (size_t)(end - *p);
    size_t seen = left < LIMIT_NAMESPACE_BYTES + 1 ? left : LIMIT_NAMESPACE_BYTES + 1;
    const char *comma = memchr(*p, ',', seen);
    const char *stop = comma == NULL ? end : comma;
    *nsp = (struct span){*p, (size_t)(stop - *p)};
    *p = comma == NULL ? end : comma + 1;
    return nsp->n > LIMIT_NAMESPACE_BYTES ? ERR_LIMIT : 0;
}

static int decode_id(const char **p, const char *end, struct sio_packet *packet)
{
    const char *c = *p;
    uint64_t value = 0;
    for (; c < end && is_digit(*c); c++) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (unsigned)(*c - '0'), &value))
            return ERR_SIO_PACKET;
    }
    /* The reference takes a blank for a digit of the id, JSON takes it for nothing: it is neither here. */
    if (c < end && is_blank(*c))
        return ERR_SIO_PACKET;
    packet->has_id = c > *p;
    packet->id = value;
    *p = c;
    return 0;
}

bool sio_reserved(struct span name)
{
    static const char *const reserved[] = {
        "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener",
    };
    char decoded[sizeof("removeListener") - 1];
    struct span text = {name.p + 1, name.n - 2};
    if (memchr(text.p, '\\', text.n) != NULL) {
        ssize_t n = json_string(name, decoded, sizeof(decoded));
        if (n < 0)
            return false;
        text = (struct span){decoded, (size_t)n};
    }
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (span_eq(text, span_of(reserved[i])))
            return true;
    return false;
}

/* Takes the event name off the array in packet->payload; the arguments stay as they are. */
static int split_event(struct sio_packet *packet)
{
    struct json_cursor items = json_open(packet->payload);
    if (!json_item(&items, &packet->event))
        return ERR_SIO_PAYLOAD;
    enum json_type type = json_type(packet->event);
    if (type != JSON_STRING && type != JSON_NUMBER)
        return ERR_SIO_PAYLOAD;
    if (type == JSON_STRING && sio_reserved(packet->event))
        return ERR_SIO_RESERVED;
    return 0;
}

/* What stands between p and the bracket that closes the payload, without blanks and without a comma in front.
 */
static struct span between(const struct sio_packet *packet, const char *p)
{
    const char *end = packet->payload.p + packet->payload.n - 1;
    while (p < end && is_blank(*p))
        p++;
    if (p < end && *p == ',')
        p++;
    while (p < end && is_blank(*p))
        p++;
    while (end > p && is_blank(end[-1]))
        end--;
    return (struct span){p, (size_t)(end - p)};
}

/* An open object or array on the way to the place that the scan has reached. */
struct container {
    bool object;
    bool placeholder; /* the last _placeholder is true */
    bool num_valid;   /* the last num is an attachment's number */
};

static const char *string_end(const char *p)
{
    for (p++; *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p + 1;
}

static bool key_is(struct span key, const char *name)
{
    char decoded[16];
    ssize_t n = json_string(key, decoded, sizeof(decoded));
    return n >= 0 && span_eq((struct span){decoded, (size_t)n}, span_of(name));
}

/* p is behind a member's key. */
static void note_member(struct container *object, struct span key, const char *p, const char *end,
                        unsigned attachments)
{
    bool is_flag = key_is(key, "_placeholder");
    if (!is_flag && !key_is(key, "num"))
        return;
    while (is_blank(*p) || *p == ':')
        p++;
    if (is_flag) {
        object->placeholder = *p == 't';
        return;
    }
    const char *stop = p;
    while (stop < end && *stop != ',' && *stop != '}' && !is_blank(*stop))
        stop++;
    uint64_t num;
    object->num_valid =
        is_digit(*p) && json_uint((struct span){p, (size_t)(stop - p)}, attachments - 1, &num);
}

/* One pass over checked JSON with a stack as deep as the check allows: cost does not grow with the nesting.
 */
static int scan_placeholders(struct span json, unsigned attachments)
{
    struct container stack[LIMIT_JSON_DEPTH + 1];
    unsigned depth = 0;
    bool at_key = false;
    const char *p = json.p, *end = json.p + json.n;
    stack[0] = (struct container){.object = false};
    while (p < end) {
        char c = *p;
        if (c == '"') {
            const char *stop = string_end(p);
            if (at_key)
                note_member(&stack[depth], (struct span){p, (size_t)(stop - p)}, stop, end, attachments);
            at_key = false;
            p = stop;
            continue;
        }
        if (c == '{' || c == '[') {
            assert(depth < LIMIT_JSON_DEPTH);
            stack[++depth] = (struct container){.object = c == '{'};
            at_key = c == '{';
        } else if (c == '}' || c == ']') {
            if (stack[depth].placeholder && !stack[depth].num_valid)
                return ERR_SIO_PLACEHOLDER;
            depth--;
            at_key = false;
        } else if (c == ',') {
            at_key = stack[depth].object;
        }
        p++;
    }
    return 0;
}

static int check_placeholders(struct span json, unsigned attachments)
{
    /* The key is there as it is, or with one of its characters as \u00xx. */
    if (memmem(json.p, json.n, "_placeholder", sizeof("_placeholder") - 1) == NULL &&
        memmem(json.p, json.n, "\\u", 2) == NULL)
        return 0;
    return scan_placeholders(json, attachments);
}

int sio_check_args(struct span array, unsigned attachments)
{
    int err = json_check(array, LIMIT_JSON_DEPTH);
    if (err == 0 && json_type(array) != JSON_ARRAY)
        err = ERR_SIO_PAYLOAD;
    return err == 0 && attachments > 0 ? check_placeholders(array, attachments) : err;
}

static int check_payload(struct sio_packet *packet)
{
    enum json_type type = json_type(packet->payload);
    switch (packet->type) {
    case SIO_CONNECT:
        return type == JSON_OBJECT ? 0 : ERR_SIO_PAYLOAD;
    case SIO_CONNECT_ERROR:
        return type == JSON_OBJECT || type == JSON_STRING ? 0 : ERR_SIO_PAYLOAD;
    case SIO_DISCONNECT:
        return ERR_SIO_PAYLOAD;
    default:
        break;
    }
    if (type != JSON_ARRAY)
        return ERR_SIO_PAYLOAD;
    const char *args = packet->payload.p + 1;
    if (packet->type == SIO_EVENT || packet->type == SIO_BINARY_EVENT) {
        int err = split_event(packet);
        if (err != 0)
            return err;
        args = packet->event.p + packet->event.n;
    }
    packet->args = between(packet, args);
    return is_binary(packet->type) ? check_placeholders(packet->payload, packet->attachments) : 0;
}

int sio_decode(struct span text, struct sio_packet *packet)
{
    if (text.n == 0 || text.p[0] < '0' || text.p[0] > '6')
        return ERR_SIO_PACKET;
    const char *p = text.p + 1, *end = text.p + text.n;
    *packet = (struct sio_packet){.type = (enum sio_type)(text.p[0] - '0')};
    packet->payload = packet->event = packet->args = (struct span){end, 0};

    int err = is_binary(packet->type) ? decode_attachments(&p, end, &packet->attachments) : 0;
    if (err == 0)
        err = decode_namespace(&p, end, &packet->nsp);
    if (err == 0)
        err = decode_id(&p, end, packet);
    if (err != 0 || p == end)
        return err;

    packet->payload = (struct span){p, (size_t)(end - p)};
    err = json_check(packet->payload, LIMIT_JSON_DEPTH);
    if (err != 0)
        return err;
    while (is_blank(packet->payload.p[packet->payload.n - 1]))
        packet->payload.n--;
    return check_payload(packet);
}

static char *put_decimal(char *dst, uint64_t value)
{
    char digits[20];
    size_t n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    memcpy(dst, digits + n, sizeof(digits) - n);
    return dst + sizeof(digits) - n;
}

size_t sio_encode_head(char *dst, enum sio_type type, unsigned attachments, struct span nsp, bool has_id,
                       uint64_t id)
{
    assert(is_binary(type) == (attachments > 0));
    char *p = dst;
    *p++ = '4';
    *p++ = (char)('0' + (int)type);
    if (attachments > 0) {
        p = put_decimal(p, attachments);
        *p++ = '-';
    }
    if (!span_eq(nsp, SPAN("/"))) {
        memcpy(p, nsp.p, nsp.n);
        p += nsp.n;
        *p++ = ',';
    }
    return (size_t)((has_id ? put_decimal(p, id) : p) - dst);
}
