#include "eio.h"
#include "err.h"
#include "limit.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

int eio_decode(struct span text, struct eio_packet *packet)
{
    if (text.n == 0)
        return ERR_EIO_PACKET;
    char type = text.p[0];
    packet->data = (struct span){text.p + 1, text.n - 1};
    packet->base64 = type == 'b';
    if (packet->base64)
        packet->type = EIO_MESSAGE;
    else if (type >= '0' && type <= '6')
        packet->type = (enum eio_type)(type - '0');
    else
        return ERR_EIO_PACKET;
    return 0;
}

void eio_payload_init(struct eio_payload *it, struct span body)
{
    it->p = body.p;
    it->end = body.n == 0 ? body.p : body.p + body.n;
    it->done = false;
    it->count = 0;
}

int eio_payload_next(struct eio_payload *it, struct eio_packet *packet)
{
    if (it->done)
        return 0;
    if (it->count == LIMIT_PACKETS_PER_PAYLOAD)
        return ERR_LIMIT;
    size_t left = (size_t)(it->end - it->p);
    const char *separator = left == 0 ? NULL : memchr(it->p, EIO_SEPARATOR, left);
    const char *stop = separator == NULL ? it->end : separator;
    /* An error does not move the walk, so it is found again by a caller that asks once more. */
    int err = eio_decode((struct span){it->p, (size_t)(stop - it->p)}, packet);
    if (err != 0)
        return err;
    it->count++;
    it->done = separator == NULL;
    it->p = it->done ? it->end : separator + 1;
    return 1;
}

size_t eio_encode_handshake(char *dst, const struct eio_handshake *h)
{
    int n = snprintf(dst, EIO_HANDSHAKE_MAX,
                     "0{\"sid\":\"%.*s\",\"upgrades\":[%s],\"pingInterval\":%" PRIu32
                     ",\"pingTimeout\":%" PRIu32 ",\"maxPayload\":%" PRIu64 "}",
                     EIO_SID_CHARS, h->sid, h->upgrade ? "\"websocket\"" : "", h->ping_interval_ms,
                     h->ping_timeout_ms, h->max_payload_bytes);
    assert(n > 0 && n < EIO_HANDSHAKE_MAX);
    return (size_t)n;
}

/* Decoded text as far as any known name or value reaches; n goes on counting beyond that, up to cap + 1, so
 * that a longer text is equal to none of them. */
struct short_text {
    size_t n;
    char p[EIO_SID_CHARS];
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* As browsers read a form: '+' is a blank, a '%' without two hex digits stands for itself. */
static void percent_decode(struct short_text *to, struct span raw)
{
    to->n = 0;
    for (size_t i = 0; i < raw.n && to->n <= sizeof(to->p); i++) {
        char c = raw.p[i];
        int hi = c == '%' && raw.n - i > 2 ? hex_digit(raw.p[i + 1]) : -1;
        int lo = hi >= 0 ? hex_digit(raw.p[i + 2]) : -1;
        if (lo >= 0) {
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        if (to->n < sizeof(to->p))
            to->p[to->n] = c;
        to->n++;
    }
}

static bool short_text_is(const struct short_text *t, const char *text)
{
    size_t n = strlen(text);
    return t->n == n && n <= sizeof(t->p) && memcmp(t->p, text, n) == 0;
}

static bool is_id_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '_';
}

static void query_set_sid(struct eio_query *q, const struct short_text *value)
{
    q->sid_n = value->n <= EIO_SID_CHARS ? (uint8_t)value->n : EIO_SID_CHARS + 1;
    if (q->sid_n == 0)
        return;
    bool possible = q->sid_n == EIO_SID_CHARS;
    for (size_t i = 0; possible && i < EIO_SID_CHARS; i++)
        possible = is_id_char(value->p[i]);
    if (possible)
        memcpy(q->sid, value->p, EIO_SID_CHARS);
    else
        q->sid_n = EIO_SID_CHARS + 1;
}

static enum eio_transport transport_of(const struct short_text *value)
{
    if (short_text_is(value, "polling"))
        return EIO_POLLING;
    return short_text_is(value, "websocket") ? EIO_WEBSOCKET : EIO_TRANSPORT_UNKNOWN;
}

static void query_set(struct eio_query *q, struct span name, struct span raw_value)
{
    struct short_text key, value;
    percent_decode(&key, name);
    percent_decode(&value, raw_value);
    if (short_text_is(&key, "transport"))
        q->transport = transport_of(&value);
    else if (short_text_is(&key, "EIO"))
        q->version_4 = short_text_is(&value, "4");
    else if (short_text_is(&key, "b64"))
        q->base64 = value.n > 0;
    else if (short_text_is(&key, "recovery"))
        q->recovery_off = short_text_is(&value, "0");
    else if (short_text_is(&key, "sid"))
        query_set_sid(q, &value);
}

void eio_query_parse(struct eio_query *q, struct span query)
{
    *q = (struct eio_query){.transport = EIO_TRANSPORT_UNKNOWN};
    if (query.n == 0)
        return;
    const char *fragment = memchr(query.p, '#', query.n);
    const char *end = fragment == NULL ? query.p + query.n : fragment;
    for (const char *p = query.p; p < end;) {
        const char *stop = memchr(p, '&', (size_t)(end - p));
        if (stop == NULL)
            stop = end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        const char *name_end = equals == NULL ? stop : equals;
        const char *value = equals == NULL ? stop : equals + 1;
        query_set(q, (struct span){p, (size_t)(name_end - p)}, (struct span){value, (size_t)(stop - value)});
        p = stop == end ? end : stop + 1;
    }
}

static bool header_text_valid(struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c != '\t' && (c < 0x20 || c == 0x7f))
            return false;
    }
    return true;
}

static bool transport_enabled(const struct eio_query *q, const struct eio_request *r)
{
    switch (q->transport) {
    case EIO_POLLING:
        return r->polling_enabled;
    case EIO_WEBSOCKET:
        return r->websocket_enabled;
    default:
        return false;
    }
}

enum eio_reject eio_check_request(const struct eio_query *q, const struct eio_request *r)
{
    if (!transport_enabled(q, r))
        return EIO_REJECT_TRANSPORT;
    if (!header_text_valid(r->origin))
        return EIO_REJECT_REQUEST;
    bool transport_fits = r->upgrade == (q->transport == EIO_WEBSOCKET);
    if (q->sid_n > 0) {
        if (!r->sid_known || q->sid_n != EIO_SID_CHARS)
            return EIO_REJECT_SID;
        if (!transport_fits || (!r->upgrade && r->session_transport != EIO_POLLING))
            return EIO_REJECT_REQUEST;
        return EIO_ACCEPT;
    }
    if (!r->get)
        return EIO_REJECT_METHOD;
    if (!transport_fits)
        return EIO_REJECT_REQUEST;
    return q->version_4 ? EIO_ACCEPT : EIO_REJECT_VERSION;
}

struct span eio_reject_body(enum eio_reject reject, int *status)
{
    static const struct {
        struct span body;
        int status;
    } table[] = {
#define X(name, code, message, http_status)                                                                  \
    [code] = {{"{\"code\":" #code ",\"message\":\"" message "\"}",                                           \
               sizeof("{\"code\":" #code ",\"message\":\"" message "\"}") - 1},                              \
              http_status},
        EIO_REJECT_TABLE
#undef X
    };
    assert(reject >= 0 && (size_t)reject < sizeof(table) / sizeof(table[0]));
    *status = table[reject].status;
    return table[reject].body;
}

struct span eio_reject_text(enum eio_reject reject)
{
    static const char *const texts[] = {
#define X(name, code, message, http_status) [code] = message,
        EIO_REJECT_TABLE
#undef X
    };
    assert(reject >= 0 && (size_t)reject < sizeof(texts) / sizeof(texts[0]));
    return span_of(texts[reject]);
}
