#include "fetch.h"
#include "err.h"
#include <arpa/inet.h>
#include <errno.h>
#include <http_parser.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_MAX_BYTES = 16 * 1024 * 1024 };

struct exchange {
    struct fetch *answer;
    int rc;
    bool complete;
};

static int on_body(http_parser *parser, const char *p, size_t n)
{
    struct exchange *exchange = parser->data;
    struct fetch *answer = exchange->answer;
    char *body;

    if (n > ANSWER_MAX_BYTES - answer->n) {
        exchange->rc = ERR_HTTP_TOO_BIG;
        return -1;
    }
    body = realloc(answer->body, answer->n + n + 1);
    if (!body) {
        exchange->rc = ERR_MEMORY;
        return -1;
    }
    memcpy(body + answer->n, p, n);
    answer->body = body;
    answer->n += n;
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct exchange *exchange = parser->data;
    exchange->complete = true;
    return 0;
}

static int send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return ERR_SYSTEM;
        p += sent;
        n -= (size_t)sent;
    }
    return 0;
}

static int receive(int fd, struct fetch *answer)
{
    static const http_parser_settings settings = {.on_body = on_body, .on_message_complete = on_complete};
    struct exchange exchange = {.answer = answer, .rc = ERR_HTTP_SYNTAX};
    http_parser parser;
    char buffer[16384];

    http_parser_init(&parser, HTTP_RESPONSE);
    parser.data = &exchange;
    while (!exchange.complete) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_SYSTEM;
        if (http_parser_execute(&parser, &settings, buffer, (size_t)n) != (size_t)n && !exchange.complete)
            return exchange.rc;
        if (n == 0 && !exchange.complete)
            return ERR_HTTP_SYNTAX;
    }
    answer->status = (int)parser.status_code;
    return on_body(&parser, "", 0) == 0 ? (answer->body[answer->n] = '\0', 0) : exchange.rc;
}

static int open_connection(const char *address, uint16_t port, unsigned timeout_ms)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int fetch(const char *address, uint16_t port, const char *path, const char *body, unsigned timeout_ms,
          struct fetch *answer)
{
    char head[512];
    int n, saved, rc, fd = open_connection(address, port, timeout_ms);

    *answer = (struct fetch){0};
    if (fd < 0)
        return ERR_SYSTEM;
    n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: %s:%u\r\nConnection: close\r\n",
                 body ? "POST" : "GET", path, address, (unsigned)port);
    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n,
                      "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    rc = send_all(fd, head, (size_t)n);
    if (rc == 0 && body)
        rc = send_all(fd, body, strlen(body));
    if (rc == 0)
        rc = receive(fd, answer);
    saved = errno;
    close(fd);
    if (rc != 0) {
        free(answer->body);
        *answer = (struct fetch){0};
    }
    errno = saved;
    return rc;
}
