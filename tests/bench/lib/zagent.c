#include "zagent.h"
#include "util.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

enum { WELCOME = 2, WINDOW = 4 << 20, BEAT_NS = 200 * 1000 * 1000 };

static void must(int rc, const char *what)
{
    if (rc < 0)
        die("%s: %s", what, zmq_strerror(zmq_errno()));
}

/* ---- writing ---- */

static void put(struct zagent *a, const void *p, size_t n)
{
    if (a->out_n + n > sizeof(a->out))
        die("a record of more than %d bytes", ZAGENT_RECORD_MAX);
    memcpy(a->out + a->out_n, p, n);
    a->out_n += n;
}

static void put_byte(struct zagent *a, unsigned byte)
{
    uint8_t b = (uint8_t)byte;
    put(a, &b, 1);
}

static void put_big_endian(struct zagent *a, uint64_t number, unsigned bytes)
{
    while (bytes > 0)
        put_byte(a, (unsigned)(number >> (8 * --bytes) & 255));
}

void zagent_put_array(struct zagent *a, unsigned n)
{
    if (a->out_n >= ZAGENT_BATCH)
        zagent_flush(a);
    put_byte(a, 0x90 | n);
}

void zagent_put_map(struct zagent *a, unsigned n)
{
    put_byte(a, 0x80 | n);
}

void zagent_put_uint(struct zagent *a, uint64_t number)
{
    bool is_short = number < 128;
    if (!is_short)
        put_byte(a, number <= UINT32_MAX ? 0xce : 0xcf);
    put_big_endian(a, number, is_short ? 1 : number <= UINT32_MAX ? 4 : 8);
}

void zagent_put_text(struct zagent *a, const char *p, size_t n)
{
    put_byte(a, n < 32 ? 0xa0 | (unsigned)n : 0xda);
    if (n >= 32)
        put_big_endian(a, n, 2);
    put(a, p, n);
}

void zagent_flush(struct zagent *a)
{
    if (a->out_n == 0)
        return;
    must(zmq_send(a->socket, a->out, a->out_n, ZMQ_DONTWAIT), "zmq_send");
    if (a->is_welcome)
        a->sent += a->out_n;
    a->out_n = 0;
    a->said_ns = now_ns();
}

bool zagent_may_send(const struct zagent *a)
{
    return a->sent + a->out_n < a->granted;
}

static void grant(struct zagent *a)
{
    a->given = a->got + WINDOW;
    zagent_put_array(a, 2);
    zagent_put_uint(a, ZAGENT_CREDIT);
    zagent_put_uint(a, a->given);
    zagent_flush(a);
}

/* ---- reading ---- */

struct cursor {
    const uint8_t *p, *end;
};

static uint64_t take_big_endian(struct cursor *c, unsigned bytes)
{
    uint64_t number = 0;
    if ((size_t)(c->end - c->p) < bytes)
        die("the node sent a record that ends too early");
    while (bytes-- > 0)
        number = number << 8 | *c->p++;
    return number;
}

static void take_bytes(struct cursor *c, size_t n, struct zagent_value *v)
{
    if ((size_t)(c->end - c->p) < n)
        die("the node sent a text that ends too early");
    v->p = (const char *)c->p;
    v->n = n;
    c->p += n;
}

static void take_value(struct cursor *c, struct zagent_value *v);

/* *v becomes the first value (of a map: behind its key). */
static void take_items(struct cursor *c, uint64_t n, bool is_map, struct zagent_value *v)
{
    struct zagent_value other;
    for (uint64_t i = 0; i < n; i++) {
        if (is_map)
            take_value(c, &other);
        take_value(c, i == 0 ? v : &other);
    }
}

static void take_value(struct cursor *c, struct zagent_value *v)
{
    unsigned head = (unsigned)take_big_endian(c, 1);
    *v = (struct zagent_value){.number = 0};
    if (head < 0x80)
        v->number = head;
    else if (head < 0x90)
        take_items(c, head & 15, true, v);
    else if (head < 0xa0)
        take_items(c, head & 15, false, v);
    else if (head < 0xc0)
        take_bytes(c, head & 31, v);
    else if (head == 0xc0 || head == 0xc2 || head == 0xc3)
        v->number = head == 0xc3;
    else if (head >= 0xc4 && head <= 0xc6)
        take_bytes(c, take_big_endian(c, 1u << (head - 0xc4)), v);
    else if (head >= 0xcc && head <= 0xcf)
        v->number = take_big_endian(c, 1u << (head - 0xcc));
    else if (head >= 0xd9 && head <= 0xdb)
        take_bytes(c, take_big_endian(c, 1u << (head - 0xd9)), v);
    else if (head == 0xdc || head == 0xde)
        take_items(c, take_big_endian(c, 2), head == 0xde, v);
    else
        die("the node sent msgpack of a form (0x%02x) that is not expected", head);
}

static void take_record(struct zagent *a, const struct zagent_value *v, unsigned n)
{
    if (v[0].number == WELCOME && n > 3) {
        a->granted = v[3].number;
        a->is_welcome = true;
    } else if (v[0].number == ZAGENT_CREDIT && n > 1) {
        a->granted = v[1].number > a->granted ? v[1].number : a->granted;
    } else if (v[0].number == ZAGENT_ERROR || v[0].number == ZAGENT_BYE) {
        die("the node says %.*s", n > 2 ? (int)v[2].n : 0, n > 2 && v[2].p ? v[2].p : "");
    } else if (v[0].number == ZAGENT_OK && n > 1 && a->asked && v[1].number == a->asked) {
        a->answered = a->asked;
        a->asked = 0;
    } else if (a->on_record) {
        a->on_record(a, v, n);
    }
}

static void take_message(struct zagent *a, const void *bytes, size_t size)
{
    struct cursor c = {bytes, (const uint8_t *)bytes + size};
    bool was_welcome = a->is_welcome;
    while (c.p < c.end) {
        struct zagent_value v[ZAGENT_VALUES];
        unsigned head = (unsigned)take_big_endian(&c, 1), n = head & 15;
        if (head < 0x91 || head > 0x90 + ZAGENT_VALUES)
            die("the node sent a record of a form (0x%02x) that is not expected", head);
        for (unsigned i = 0; i < n; i++)
            take_value(&c, &v[i]);
        take_record(a, v, n);
    }
    if (was_welcome)
        a->got += size;
}

/* ZMQ_FD tells changes only: it is read until there is nothing, and again behind each send. */
static void on_readable(struct io *io, struct loop *loop)
{
    struct zagent *a = (struct zagent *)io;
    bool found;
    do {
        zmq_msg_t message;
        found = false;
        must(zmq_msg_init(&message), "zmq_msg_init");
        while (zmq_msg_recv(&message, a->socket, ZMQ_DONTWAIT) >= 0) {
            found = true;
            loop->now_ns = now_ns();
            take_message(a, zmq_msg_data(&message), zmq_msg_size(&message));
        }
        if (zmq_errno() != EAGAIN)
            die("zmq_msg_recv: %s", zmq_strerror(zmq_errno()));
        zmq_msg_close(&message);
        if (found && a->after_read && a->is_welcome)
            a->after_read(a);
        if (a->is_welcome && (a->given - a->got < WINDOW / 2 || now_ns() - a->said_ns > BEAT_NS))
            grant(a);
        zagent_flush(a);
    } while (found);
}

/* ---- beginning ---- */

void zagent_open(struct zagent *a, void *zmq_context, const char *endpoint)
{
    char instance[32];
    const int zero = 0;
    size_t n = sizeof(a->io.fd);
    a->io.on_readable = on_readable;
    a->socket = zmq_socket(zmq_context, ZMQ_DEALER);
    if (!a->socket)
        die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    must(zmq_setsockopt(a->socket, ZMQ_LINGER, &zero, sizeof(zero)), "ZMQ_LINGER");
    must(zmq_setsockopt(a->socket, ZMQ_SNDHWM, &zero, sizeof(zero)), "ZMQ_SNDHWM");
    must(zmq_connect(a->socket, endpoint), endpoint);
    must(zmq_getsockopt(a->socket, ZMQ_FD, &a->io.fd, &n), "ZMQ_FD");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->io};
    must(epoll_ctl(a->loop->epoll_fd, EPOLL_CTL_ADD, a->io.fd, &e), "epoll_ctl");
    snprintf(instance, sizeof(instance), "%s-%d", a->name, (int)getpid());
    a->given = WINDOW;
    zagent_put_array(a, 5);
    zagent_put_uint(a, 1);
    zagent_put_uint(a, 1);
    zagent_put_text(a, a->name, strlen(a->name));
    zagent_put_text(a, instance, strlen(instance));
    zagent_put_uint(a, WINDOW);
    zagent_flush(a);
    on_readable(&a->io, a->loop); /* only who has looked in vain is told */
    while (!a->is_welcome)
        if (!loop_turn(a->loop, 0))
            die("agent %s: no WELCOME came in time", a->name);
}

void zagent_close(struct zagent *a)
{
    const int linger_ms = 1000;
    if (!a->socket)
        return;
    zagent_put_array(a, 3);
    zagent_put_uint(a, ZAGENT_BYE);
    zagent_put_text(a, "ended", 5);
    zagent_put_text(a, "", 0);
    zagent_flush(a);
    must(zmq_setsockopt(a->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)), "ZMQ_LINGER");
    zmq_close(a->socket);
    a->socket = NULL;
}

void zagent_wait(struct zagent *a, uint64_t id)
{
    a->asked = id;
    zagent_flush(a);
    on_readable(&a->io, a->loop);
    while (a->answered != id)
        if (!loop_turn(a->loop, 0))
            die("agent %s: no answer to request %llu came in time", a->name, (unsigned long long)id);
}
