/* Log lines: their form, and that no value can forge one. */
#include "err.h"
#include "log.h"
#include "utf8.h"
#include <jansson.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* What one call writes to stderr, as datagrams, so that a second write() would show. */
static int real_stderr, ends[2];
static char line[8192];

static void capture_start(void)
{
    real_stderr = dup(STDERR_FILENO);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
    dup2(ends[1], STDERR_FILENO);
}

static void capture_end(void)
{
    ssize_t n, more;
    char rest[16];

    dup2(real_stderr, STDERR_FILENO);
    n = recv(ends[0], line, sizeof line - 1, 0);
    more = recv(ends[0], rest, sizeof rest, 0);
    close(real_stderr);
    close(ends[0]);
    close(ends[1]);
    line[n > 0 ? n : 0] = '\0';
    assert_int_equal(more, -1);
    if (n <= 0)
        return;
    assert_true(n <= 4096);
    assert_int_equal(strlen(line), n);
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    line[n - 1] = '\0';
}

#define CAPTURE(call)                                                                                        \
    do {                                                                                                     \
        capture_start();                                                                                     \
        call;                                                                                                \
        capture_end();                                                                                       \
    } while (0)

/* The line behind its time, which is checked here. */
static const char *after_time(const char *text)
{
    regex_t pattern;
    regmatch_t match;

    assert_int_equal(regcomp(&pattern, "^ts=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z ", REG_EXTENDED),
                     0);
    assert_int_equal(regexec(&pattern, text, 1, &match, 0), 0);
    regfree(&pattern);
    return text + match.rm_eo;
}

static void writes_logfmt(void **state)
{
    (void)state;
    log_setup(LOG_DEBUG, false);
    CAPTURE(log_event(LOG_INFO, "ready", LOG_TEXT("address", "127.0.0.1:7700"), LOG_INT("pid", -12),
                      LOG_UINT("bytes", UINT64_MAX)));
    assert_string_equal(
        after_time(line),
        "level=info event=ready address=\"127.0.0.1:7700\" pid=-12 bytes=18446744073709551615");
    CAPTURE(log_event(LOG_ERROR, "node lost", LOG_TEXT("why", "timeout"), LOG_TEXT("empty", ""),
                      LOG_TEXT("eq", "a=b"), LOG_TEXT("quote", "say \"hi\" \\"), LOG_INT("n", 1)));
    assert_string_equal(after_time(line), "level=error event=\"node lost\" why=timeout empty=\"\" eq=\"a=b\" "
                                          "quote=\"say \\\"hi\\\" \\\\\" n=1");
}

static void the_time_is_now_in_utc(void **state)
{
    struct tm tm = {0};
    time_t before = time(NULL), at;

    (void)state;
    CAPTURE(log_event(LOG_INFO, "x", LOG_INT("n", 1)));
    assert_non_null(strptime(line, "ts=%Y-%m-%dT%H:%M:%S", &tm));
    at = timegm(&tm);
    assert_true(at >= before && at <= time(NULL));
}

static void writes_json(void **state)
{
    json_t *json;

    (void)state;
    log_setup(LOG_DEBUG, true);
    CAPTURE(log_event(LOG_WARN, "odd", LOG_TEXT("text", "a \"b\" \\ \n\t\x01 \xc3\xa9 \x7f"),
                      LOG_INT("n", INT64_MIN), LOG_SPAN("bad", SPAN("x\xff\0y"))));
    log_setup(LOG_DEBUG, false);
    json = json_loadb(line, strlen(line), JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(json, "event")), "odd");
    assert_string_equal(json_string_value(json_object_get(json, "text")),
                        "a \"b\" \\ \n\t\x01 \xc3\xa9 \x7f");
    assert_int_equal(json_integer_value(json_object_get(json, "n")), INT64_MIN);
    assert_int_equal(json_string_length(json_object_get(json, "bad")), 6);
    assert_int_equal(strlen(json_string_value(json_object_get(json, "ts"))), 24);
    json_decref(json);
}

static void the_threshold_silences(void **state)
{
    int evaluated = 0;

    (void)state;
    log_setup(LOG_WARN, false);
    assert_int_equal(log_threshold(), LOG_WARN);
    CAPTURE(log_event(LOG_INFO, "x", LOG_INT("n", ++evaluated)));
    assert_string_equal(line, "");
    assert_int_equal(evaluated, 0);
    CAPTURE(log_event(LOG_WARN, "x", LOG_INT("n", 1)));
    assert_string_equal(after_time(line), "level=warn event=x n=1");
    log_setup(LOG_DEBUG, false);
}

static void levels_have_names(void **state)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    enum log_level level;

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(log_level_parse(names[i], &level), 0);
        assert_int_equal(level, i);
    }
    assert_int_equal(log_level_parse("", &level), ERR_ARGUMENT);
    assert_int_equal(log_level_parse("INFO", &level), ERR_ARGUMENT);
    assert_int_equal(level, LOG_ERROR);
}

static void escapes_what_could_forge_or_steer(void **state)
{
    static const struct {
        struct span in;
        const char *out;
    } cases[] = {
        {SPAN("a\nts=1 level=error"), "\"a\\nts=1 level=error\""},
        {SPAN("a\r\tb"), "\"a\\r\\tb\""},
        {SPAN("\x1b[2J\x07\0"), "\"\\u001b[2J\\u0007\\u0000\""},
        {SPAN("\x7f"), "\"\\u007f\""},
        {SPAN("\xc2\x9b"), "\"\\u009b\""},
        {SPAN("\x9b"), "\"\\x9b\""},
        {SPAN("\xe2\x80\xae\xe2\x80\xa8\xe2\x81\xa6\xef\xbb\xbf"), "\"\\u202e\\u2028\\u2066\\ufeff\""},
        {SPAN("\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6"), "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6\""},
        {SPAN("\xc3"), "\"\\xc3\""},
        {SPAN("\xc0\x8a"), "\"\\xc0\\x8a\""},
        {SPAN("\xe0\x80\x8a"), "\"\\xe0\\x80\\x8a\""},
        {SPAN("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\""},
        {SPAN("\xf4\x90\x80\x80"), "\"\\xf4\\x90\\x80\\x80\""},
        {SPAN("\xf0\x9f\x90"), "\"\\xf0\\x9f\\x90\""},
        {SPAN("\xff\xfe"), "\"\\xff\\xfe\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "level=info event=x v=%s", cases[i].out);
        CAPTURE(log_event(LOG_INFO, "x", LOG_SPAN("v", cases[i].in)));
        assert_string_equal(after_time(line), expected);
    }
}

static void cuts_a_long_value(void **state)
{
    static char plain[5000], controls[5000];
    const char *rest;

    (void)state;
    memset(plain, 'a', sizeof plain);
    memset(controls, '\x01', sizeof controls);
    CAPTURE(log_event(LOG_INFO, "x", LOG_SPAN("v", ((struct span){plain, sizeof plain})), LOG_INT("n", 1)));
    rest = after_time(line) + strlen("level=info event=x v=\"");
    assert_int_equal(strspn(rest, "a"), 1024);
    assert_string_equal(rest + 1024, "\xe2\x80\xa6\" n=1");
    CAPTURE(log_event(LOG_INFO, "x", LOG_SPAN("v", ((struct span){plain, 1024})), LOG_INT("n", 1)));
    assert_string_equal(after_time(line) + strlen("level=info event=x v=") + 1024, " n=1");
    CAPTURE(log_event(LOG_INFO, "x", LOG_SPAN("v", ((struct span){controls, sizeof controls}))));
    rest = after_time(line) + strlen("level=info event=x v=\"");
    assert_string_equal(rest + 1020, "\xe2\x80\xa6\"");
}

static void a_line_is_bounded(void **state)
{
    static char plain[1000];
    struct log_field fields[10];
    json_t *json;

    (void)state;
    memset(plain, 'a', sizeof plain);
    for (size_t i = 0; i < 10; i++)
        fields[i] = LOG_SPAN("v", ((struct span){plain, sizeof plain}));
    fields[9] = LOG_INT("small", 1);
    CAPTURE(log_write(LOG_INFO, "x", fields, 10));
    assert_string_equal(line + strlen(line) - strlen("aaa truncated=true"), "aaa truncated=true");
    log_setup(LOG_DEBUG, true);
    CAPTURE(log_write(LOG_INFO, "x", fields, 10));
    log_setup(LOG_DEBUG, false);
    json = json_loads(line, 0, NULL);
    assert_true(json_is_true(json_object_get(json, "truncated")));
    json_decref(json);
}

/* Random bytes, of the kinds that matter. */
static size_t random_text(char *out, size_t max)
{
    static const char *const kinds[] = {"\n",       "\"",           "\\",       "\x1b", "=",
                                        "\xc2\x9b", "\xe2\x80\xae", "\xc3\xa9", "\xc3", "\xf0",
                                        "\x80",     "\xff",         " ",        "abc"};
    size_t n = 0, parts = (size_t)rand() % 600;

    while (parts-- > 0) {
        const char *part = kinds[(size_t)rand() % (sizeof kinds / sizeof kinds[0])];
        if (n + strlen(part) > max)
            break;
        memcpy(out + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

static void random_bytes_make_one_clean_line(void **state)
{
    char text[1200], other[1200];

    (void)state;
    srand(7);
    for (int i = 0; i < 4000; i++) {
        struct span a = {text, random_text(text, sizeof text)}, b = {other, random_text(other, sizeof other)};
        log_setup(LOG_DEBUG, i % 2);
        CAPTURE(log_event(LOG_INFO, "x", LOG_SPAN("a", a), LOG_SPAN("b", b)));
        assert_true(utf8_valid(line, strlen(line)));
        for (const char *c = line; *c; c++)
            assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
        assert_null(strstr(line, "\xc2\x9b"));
        assert_null(strstr(line, "\xe2\x80\xae"));
        if (i % 2) {
            json_t *json = json_loads(line, 0, NULL);
            assert_int_equal(json_object_size(json), 5);
            json_decref(json);
        }
    }
    log_setup(LOG_DEBUG, false);
}

enum { WRITERS = 4, LINES = 500 };

static void *write_lines(void *arg)
{
    static char padding[900];
    int *number = arg;

    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, "x", LOG_INT("writer", *number), LOG_INT("n", i),
                  LOG_SPAN("v", ((struct span){padding, sizeof padding})), LOG_TEXT("end", "yes"));
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    FILE *file = tmpfile();
    pthread_t threads[WRITERS];
    int numbers[WRITERS], next[WRITERS] = {0}, total = 0;

    (void)state;
    real_stderr = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, write_lines, &numbers[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        int writer, n;
        assert_int_equal(sscanf(after_time(line), "level=info event=x writer=%d n=%d v=", &writer, &n), 2);
        assert_true(writer >= 0 && writer < WRITERS);
        assert_int_equal(n, next[writer]);
        next[writer]++;
        assert_string_equal(line + strlen(line) - strlen("\" end=yes\n"), "\" end=yes\n");
        total++;
    }
    assert_int_equal(total, WRITERS * LINES);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_logfmt),
        cmocka_unit_test(the_time_is_now_in_utc),
        cmocka_unit_test(writes_json),
        cmocka_unit_test(the_threshold_silences),
        cmocka_unit_test(levels_have_names),
        cmocka_unit_test(escapes_what_could_forge_or_steer),
        cmocka_unit_test(cuts_a_long_value),
        cmocka_unit_test(a_line_is_bounded),
        cmocka_unit_test(random_bytes_make_one_clean_line),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
