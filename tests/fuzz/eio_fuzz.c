/* Engine.IO packets and polling payloads: what is read back joins to what was there. */
#include "eio.h"
#include "err.h"
#include <stdlib.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* The packet's text starts at p; returns where it stops. */
static const char *check_packet(const struct eio_packet *packet, const char *p, const char *end)
{
    CHECK(packet->type <= EIO_NOOP);
    CHECK(packet->base64 ? *p == 'b' && packet->type == EIO_MESSAGE : *p == '0' + (int)packet->type);
    CHECK(packet->data.p == p + 1 && packet->data.n <= (size_t)(end - packet->data.p));
    return packet->data.p + packet->data.n;
}

static void check_payload(struct span body)
{
    const char *p = body.p, *end = body.p + body.n;
    struct eio_payload it;
    struct eio_packet packet;
    unsigned count = 0;
    int result;
    eio_payload_init(&it, body);
    while ((result = eio_payload_next(&it, &packet)) == 1) {
        CHECK(p < end);
        const char *stop = check_packet(&packet, p, end);
        CHECK(memchr(p, EIO_SEPARATOR, (size_t)(stop - p)) == NULL);
        CHECK(stop == end || *stop == EIO_SEPARATOR);
        /* Past the end only after a last packet: a trailing separator must be an error. */
        p = stop == end ? NULL : stop + 1;
        count++;
        if (p == NULL)
            break;
    }
    CHECK(it.count == count);
    if (p == NULL) {
        CHECK(eio_payload_next(&it, &packet) == 0);
        return;
    }
    CHECK(result == ERR_EIO_PACKET);
    CHECK(p == end || !((*p >= '0' && *p <= '6') || *p == 'b'));
    CHECK(eio_payload_next(&it, &packet) == result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct span text = {(const char *)data, n};
    struct eio_packet packet;
    if (eio_decode(text, &packet) == 0)
        CHECK(check_packet(&packet, text.p, text.p + n) == text.p + n);
    check_payload(text);
    return 0;
}
