#include "redis_url.h"
#include "err.h"
#include "span.h"
#include <stdbool.h>
#include <stdio.h>

enum { DEFAULT_PORT = 6379, DEFAULT_SENTINEL_PORT = 26379 };

static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

struct reader {
    struct span rest;
    const char *why; /* not NULL: it failed */
};

static void fail(struct reader *r, const char *why)
{
    if (!r->why)
        r->why = why;
}

static struct span cut(struct span *s, size_t n)
{
    struct span head = {s->p, n};
    s->p += n;
    s->n -= n;
    return head;
}

/* The bytes before the first of c, which is taken, too; all when there is none. */
static struct span take_until(struct span *s, char c)
{
    const char *at = s->n ? memchr(s->p, c, s->n) : NULL;
    if (!at)
        return cut(s, s->n);
    struct span head = cut(s, (size_t)(at - s->p));
    cut(s, 1);
    return head;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX. */
static void decode(struct reader *r, struct span from, char *to, size_t size, const char *too_long)
{
    size_t n = 0;
    for (size_t i = 0; i < from.n; i++) {
        int c = (unsigned char)from.p[i];
        if (c == '%') {
            int high = i + 2 < from.n ? hex(from.p[i + 1]) : -1, low = high >= 0 ? hex(from.p[i + 2]) : -1;
            if (low < 0 || high * 16 + low == 0) {
                fail(r, "a % must be followed by two hexadecimal digits, not 00");
                return;
            }
            c = high * 16 + low;
            i += 2;
        }
        if (n + 1 >= size) {
            fail(r, too_long);
            return;
        }
        to[n++] = (char)c;
    }
    to[n] = '\0';
}

static bool parse_number(struct span s, unsigned max, unsigned *out)
{
    unsigned value = 0;
    if (s.n == 0 || s.n > 5)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    *out = value;
    return value <= max;
}

static void parse_db(struct reader *r, struct span s, struct redis_url *url)
{
    if (s.n > 0 && !parse_number(s, REDIS_MAX_DB, &url->db))
        fail(r, "the database is a number from 0 to 65535");
}

/* [[user]:password@]; an @ of a password is written %40. */
static void parse_credentials(struct reader *r, struct redis_url *url)
{
    struct span all = r->rest, authority = take_until(&all, '/');
    if (authority.n == 0 || !memchr(authority.p, '@', authority.n))
        return;
    struct span both = take_until(&r->rest, '@');
    bool has_password = both.n > 0 && memchr(both.p, ':', both.n);
    struct span user = take_until(&both, ':');
    decode(r, user, url->user, sizeof(url->user), "the user's name is too long");
    decode(r, both, url->password, sizeof(url->password), "the password is too long");
    if (!has_password || !url->password[0])
        fail(r, "before the @ stand a user's name, which may be empty, a colon and a password");
}

static bool is_host_character(char c, bool in_brackets)
{
    return in_brackets ? hex(c) >= 0 || c == ':' || c == '.' : c != '\0' && (strchr(unreserved, c) != NULL);
}

static void parse_address(struct reader *r, struct span s, struct redis_url *url)
{
    struct redis_address *a = &url->address[url->n];
    bool in_brackets = s.n > 0 && s.p[0] == '[';
    unsigned port = url->kind == REDIS_SENTINEL ? DEFAULT_SENTINEL_PORT : DEFAULT_PORT;
    struct span host;
    if (in_brackets)
        cut(&s, 1);
    host = take_until(&s, in_brackets ? ']' : ':');
    bool has_port = host.p[host.n] == ':' && !in_brackets;
    if (in_brackets && host.p[host.n] != ']')
        fail(r, "an IPv6 address ends with a ], for it stands in brackets");
    if (in_brackets && s.n > 0) {
        has_port = s.p[0] == ':';
        if (!has_port)
            fail(r, "after the ] stands a colon and the port");
        cut(&s, 1);
    }
    if (host.n == 0 || host.n >= sizeof(a->host))
        fail(r, "a host's name, or its address, is missing or too long");
    for (size_t i = 0; i < host.n; i++)
        if (!is_host_character(host.p[i], in_brackets))
            fail(r, "a host is a name, an IPv4 address, or an IPv6 address in brackets");
    if (has_port && (!parse_number(s, UINT16_MAX, &port) || port == 0))
        fail(r, "a port is a number from 1 to 65535");
    if (r->why)
        return;
    memcpy(a->host, host.p, host.n);
    a->port = (uint16_t)port;
    url->n++;
}

static void parse_tcp(struct reader *r, struct redis_url *url)
{
    parse_address(r, take_until(&r->rest, '/'), url);
    parse_db(r, r->rest, url);
}

static void parse_unix(struct reader *r, struct redis_url *url)
{
    struct span path = take_until(&r->rest, '?');
    if (path.n < 2 || path.p[0] != '/')
        fail(r, "unix:// is followed by the socket's absolute path");
    decode(r, path, url->path, sizeof(url->path), "the socket's path is longer than 107 bytes");
    if (r->rest.n == 0)
        return;
    if (r->rest.n <= 3 || memcmp(r->rest.p, "db=", 3) != 0)
        fail(r, "after the path only ?db=N may stand");
    else
        parse_db(r, (struct span){r->rest.p + 3, r->rest.n - 3}, url);
}

static void parse_sentinel(struct reader *r, struct redis_url *url)
{
    struct span hosts = take_until(&r->rest, '/');
    if (hosts.n > 0 && hosts.p[hosts.n - 1] == ',')
        fail(r, "after a comma stands another sentinel");
    do {
        if (url->n == REDIS_ADDRESSES)
            fail(r, "more than 16 sentinels");
        else
            parse_address(r, take_until(&hosts, ','), url);
    } while (!r->why && hosts.n > 0);
    decode(r, take_until(&r->rest, '/'), url->master, sizeof(url->master), "the master's name is too long");
    if (!r->why && !url->master[0])
        fail(r, "after the sentinels stands a slash and the master's name");
    parse_db(r, r->rest, url);
}

static bool take_scheme(struct reader *r, struct span scheme)
{
    if (r->rest.n < scheme.n || memcmp(r->rest.p, scheme.p, scheme.n) != 0)
        return false;
    cut(&r->rest, scheme.n);
    return true;
}

int redis_url_parse(const char *text, struct redis_url *url, const char **why)
{
    struct reader r = {.rest = span_of(text)};
    *url = (struct redis_url){.kind = REDIS_TCP};
    if (take_scheme(&r, SPAN("redis+sentinel://")))
        url->kind = REDIS_SENTINEL;
    else if (take_scheme(&r, SPAN("unix://")) || take_scheme(&r, SPAN("redis+unix://")))
        url->kind = REDIS_UNIX;
    else if (take_scheme(&r, SPAN("rediss://")))
        fail(
            &r,
            "rediss:// (TLS) is not supported: connect to a stunnel on this host, or to Redis's Unix socket");
    else if (!take_scheme(&r, SPAN("redis://")))
        fail(&r, "it begins with redis://, unix:// or redis+sentinel://");
    if (!r.why)
        parse_credentials(&r, url);
    if (!r.why)
        (url->kind == REDIS_TCP ? parse_tcp : url->kind == REDIS_UNIX ? parse_unix : parse_sentinel)(&r, url);
    *why = r.why;
    return r.why ? ERR_ARGUMENT : 0;
}

/* ---- printing ---- */

static size_t print_escaped(const char *text, const char *plain, char *out)
{
    size_t n = 0;
    for (; *text; text++)
        n += (size_t)sprintf(out + n, strchr(plain, *text) ? "%c" : "%%%02x", (unsigned char)*text);
    return n;
}

static size_t print_address(const struct redis_address *a, char *out)
{
    return (size_t)sprintf(out, strchr(a->host, ':') ? "[%s]:%u" : "%s:%u", a->host, a->port);
}

void redis_url_print(const struct redis_url *url, char out[REDIS_URL_BYTES])
{
    static const char *const schemes[] = {"redis://", "unix://", "redis+sentinel://"};
    char plain[sizeof(unreserved) + 1];
    size_t n = (size_t)sprintf(out, "%s", schemes[url->kind]);
    sprintf(plain, "%s/", unreserved);
    if (url->kind == REDIS_UNIX)
        n += print_escaped(url->path, plain, out + n);
    for (unsigned i = 0; i < url->n; i++) {
        if (i > 0)
            out[n++] = ',';
        n += print_address(&url->address[i], out + n);
    }
    if (url->kind == REDIS_SENTINEL) {
        out[n++] = '/';
        n += print_escaped(url->master, unreserved, out + n);
    }
    if (url->db)
        n += (size_t)sprintf(out + n, url->kind == REDIS_UNIX ? "?db=%u" : "/%u", url->db);
    out[n] = '\0';
}
