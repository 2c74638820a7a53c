#include "check.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_CHARS = 64 };

bool check_bind(const char *text)
{
    struct in_addr address;
    return inet_pton(AF_INET, text, &address) == 1;
}

bool check_path(const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++) {
        if (text[i] <= ' ' || text[i] > '~' || strchr("?#%\\\"", text[i]))
            return false;
    }
    return n > 1 && n <= 256 && text[0] == '/' && text[n - 1] == '/' && !strstr(text, "//");
}

bool check_base_path(const char *text)
{
    return strcmp(text, "/") == 0 || check_path(text);
}

bool check_namespaces(const char *item)
{
    return strcmp(item, "*") == 0 || item[0] == '/';
}

bool check_recovery(const char *text)
{
    char *end;
    unsigned long ms = strtoul(text, &end, 10);
    return strcmp(text, "off") == 0 ||
           (*text >= '0' && *text <= '9' && *end == '\0' && ms >= 1000 && ms <= 86400000);
}

bool check_cors(const char *item)
{
    const char *host = strstr(item, "://");

    if (strcmp(item, "*") == 0 || strcmp(item, "null") == 0)
        return true;
    for (const char *p = item; *p; p++) {
        if (*p <= ' ' || *p > '~')
            return false;
    }
    return host && host > item && host[3] && !strchr(host + 3, '/');
}

bool check_transports(const char *item)
{
    return strcmp(item, "polling") == 0 || strcmp(item, "websocket") == 0;
}

static bool check_word(const char *text, const char *marks)
{
    for (const char *p = text; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr(marks, *p))
            return false;
    }
    return strlen(text) <= NAME_MAX_CHARS;
}

bool check_cookie(const char *text)
{
    return check_word(text, "!#$%&'*+-.^_`|~");
}

bool check_name(const char *text)
{
    return check_word(text, ".-_");
}

/* "ipc://PATH.router" must fit into a Unix socket's name; commas separate lists. */
bool check_mesh(const char *path)
{
    size_t n = strlen(path);
    return n > 0 && n <= 90 && !strchr(path, ',');
}

bool check_peer(const char *text)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(host))
        return false;
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    int port = atoi(colon + 1);
    return check_bind(host) && port > 0 && port <= 65435 &&
           strspn(colon + 1, "0123456789") == strlen(colon + 1);
}

/* rediss:// is not among them: the client library has no TLS. */
bool check_redis(const char *text)
{
    static const char *const schemes[] = {"redis://", "unix://", "redis+sentinel://"};

    if (strcmp(text, "private") == 0 || strcmp(text, "none") == 0)
        return true;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t n = strlen(schemes[i]);
        if (strncmp(text, schemes[i], n) == 0 && text[n])
            return true;
    }
    return false;
}

/* Below that an ordinary hiccup of the machine would look like a node that hangs. */
bool check_watchdog(const char *text)
{
    unsigned long ms = strtoul(text, NULL, 10);
    return ms == 0 || ms >= 1000;
}
