#include "source.h"
#include "limit.h"
#include "utf8.h"
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void source_init(struct source *s, int root, const char *format, ...)
{
    va_list args;
    *s = (struct source){.root = root, .fd = -1};
    va_start(args, format);
    if (vasprintf(&s->path, format, args) < 0)
        s->path = NULL;
    va_end(args);
}

static void close_file(struct source *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

void source_deinit(struct source *s)
{
    if (!s->path)
        return;
    close_file(s);
    free(s->path);
    s->path = NULL;
}

static ssize_t read_whole(int fd, char *text, size_t cap)
{
    size_t n = 0;
    ssize_t part = 1;
    while (n < cap - 1 && part > 0) {
        part = pread(fd, text + n, cap - 1 - n, (off_t)n);
        n += part > 0 ? (size_t)part : 0;
    }
    text[n] = '\0';
    return part < 0 ? -1 : (ssize_t)n;
}

ssize_t source_read(struct source *s, char *text, size_t cap)
{
    text[0] = '\0';
    if (!s->path)
        return -1;
    if (s->fd < 0)
        s->fd = openat(s->root, s->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (s->fd < 0)
        return -1;
    ssize_t n = read_whole(s->fd, text, cap);
    if (n < 0) {
        text[0] = '\0';
        close_file(s); /* a device or process that is gone; it may come back as another file */
    }
    return n;
}

ssize_t source_read_once(int root, char *text, size_t cap, const char *format, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(path, sizeof(path), format, args);
    va_end(args);
    text[0] = '\0';
    int fd = openat(root, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    ssize_t n = read_whole(fd, text, cap);
    close(fd);
    return n;
}

bool source_exists(int root, const char *format, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(path, sizeof(path), format, args);
    va_end(args);
    return faccessat(root, path, F_OK, 0) == 0;
}

bool source_line(const char **p, struct span *line)
{
    if (**p == '\0')
        return false;
    *line = (struct span){*p, strcspn(*p, "\n")};
    *p += line->n + ((*p)[line->n] == '\n');
    return true;
}

static void advance(struct span *line, size_t n)
{
    line->p += n;
    line->n -= n;
}

static void skip_blanks(struct span *line)
{
    while (line->n > 0 && (*line->p == ' ' || *line->p == '\t'))
        advance(line, 1);
}

uint64_t source_number(struct span *line)
{
    uint64_t value = 0;
    skip_blanks(line);
    for (; line->n > 0 && *line->p >= '0' && *line->p <= '9'; advance(line, 1)) {
        unsigned digit = (unsigned)(*line->p - '0');
        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
    }
    return value;
}

struct span source_word(struct span *line)
{
    skip_blanks(line);
    struct span word = {line->p, 0};
    while (word.n < line->n && word.p[word.n] != ' ' && word.p[word.n] != '\t')
        word.n++;
    advance(line, word.n);
    return word;
}

void source_keep(char *dst, struct span text)
{
    char clean[3 * LIMIT_MACHINE_TEXT_BYTES];
    size_t n = text.n < LIMIT_MACHINE_TEXT_BYTES ? text.n : LIMIT_MACHINE_TEXT_BYTES;
    n = utf8_sanitize(clean, text.p, n);
    if (n > LIMIT_MACHINE_TEXT_BYTES)
        n = LIMIT_MACHINE_TEXT_BYTES;
    while (n > 0 && !utf8_valid(clean, n))
        n--;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)clean[i] < 0x20 || clean[i] == 0x7f)
            clean[i] = '?';
    while (n > 0 && clean[n - 1] == ' ')
        n--;
    memcpy(dst, clean, n);
    dst[n] = '\0';
}
