#include "config.h"
#include "mesh.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct config config;
static char output[65536]; /* what the last call wrote to stdout and stderr */

/* Parses the arguments (after the program's name, ended by NULL) with stdout and stderr going to `output`. */
static int parse(enum config_program program, ...)
{
    char path[] = "/tmp/starling-config-XXXXXX";
    char *argv[32] = {(char[]){"program"}, NULL};
    int argc = 1, rc, file = mkstemp(path), saved[2] = {dup(1), dup(2)};
    ssize_t n;
    va_list args;

    va_start(args, program);
    while ((argv[argc] = va_arg(args, char *)))
        argc++;
    va_end(args);
    unlink(path);
    fflush(NULL);
    dup2(file, 1);
    dup2(file, 2);
    rc = config_parse(argc, argv, program, &config);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], i + 1);
        close(saved[i]);
    }
    n = pread(file, output, sizeof output - 1, 0);
    output[n > 0 ? n : 0] = '\0';
    close(file);
    return rc;
}

static void accepts(int rc)
{
    assert_string_equal(output, "");
    assert_int_equal(rc, 0);
}

static void refuses(int rc, const char *message)
{
    assert_int_equal(rc, 2);
    assert_string_equal(output, message);
    config_free(&config);
}

static char *write_file(const char *text)
{
    static char path[64];
    int file;

    snprintf(path, sizeof path, "/tmp/starling-config-XXXXXX");
    file = mkstemp(path);
    assert_true(write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
    return path;
}

static void test_defaults(void **state)
{
    (void)state;
    accepts(parse(CONFIG_NODE, NULL));
    assert_int_equal(config.port, 7700);
    assert_int_equal(config.node_port, 0);
    assert_string_equal(config.bind, "127.0.0.1");
    assert_false(config.insecure);
    assert_int_equal(config.core, -1);
    assert_string_equal(config.path, "/socket.io/");
    assert_string_equal(config.namespaces, "*");
    assert_int_equal(config.ping_interval_ms, 25000);
    assert_int_equal(config.ping_timeout_ms, 20000);
    assert_int_equal(config.max_payload_bytes, 1000000);
    assert_string_equal(config.recovery, "120000");
    assert_string_equal(config.cors, "");
    assert_string_equal(config.cookie, "");
    assert_string_equal(config.transports, "polling,websocket");
    assert_int_equal(config.log_level, LOG_INFO);
    assert_int_equal(config.ready_fd, -1);
    assert_int_equal(config.mesh_version, MESH_VERSION);
    assert_true(strlen(config.name) > 0);
    config_free(&config);
}

static void test_values(void **state)
{
    (void)state;
    accepts(parse(CONFIG_NODE, "--port", "65535", "--node-port=7", "--no-pin", "--cors-credentials", "--cors",
                  "https://a.example", "--cors=http://b.example:8080 , null", "--log-level", "warn", "--name",
                  "n-1.a_b", "--path", "/bus/", "--transports", "websocket", "--log-json=no", "--cookie",
                  "io", NULL));
    assert_int_equal(config.port, 65535);
    assert_int_equal(config.node_port, 7);
    assert_true(config.no_pin);
    assert_string_equal(config.cors, "https://a.example,http://b.example:8080,null");
    assert_int_equal(config.log_level, LOG_WARN);
    assert_false(config.log_json);
    assert_string_equal(config.transports, "websocket");
    assert_string_equal(config.cookie, "io");
    assert_string_equal(config.name, "n-1.a_b");
    config_free(&config);
}

static void test_refused_values(void **state)
{
    static const char port[] = "starling-node: --port takes a number from 1 to 65535, not \"%s\"\n";
    static const char *const bad[] = {"x",  "0",  "65536", "-1",  "",
                                      " 1", "1 ", "0x10",  "1e3", "99999999999999999999"};
    char message[256];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(message, sizeof message, port, bad[i]);
        refuses(parse(CONFIG_NODE, "--port", bad[i], NULL), message);
    }
    refuses(parse(CONFIG_NODE, "--port", NULL), "starling-node: --port takes a number from 1 to 65535\n");
    refuses(parse(CONFIG_NODE, "--core", "-2", NULL),
            "starling-node: --core takes a number from -1 to 1023, not \"-2\"\n");
    refuses(parse(CONFIG_NODE, "--no-pin=maybe", NULL),
            "starling-node: --no-pin takes yes or no, not \"maybe\"\n");
    refuses(parse(CONFIG_NODE, "--path", "socket.io", NULL),
            "starling-node: --path takes a path that begins and ends with \"/\", not \"socket.io\"\n");
    refuses(parse(CONFIG_NODE, "--transports", "polling,webtransport", NULL),
            "starling-node: --transports takes polling, websocket or both, not \"polling,webtransport\"\n");
    refuses(parse(CONFIG_NODE, "--recovery", "999", NULL),
            "starling-node: --recovery takes 1000 to 86400000 ms, or off, not \"999\"\n");
    refuses(parse(CONFIG_NODE, "--recovery", "2m", NULL),
            "starling-node: --recovery takes 1000 to 86400000 ms, or off, not \"2m\"\n");
    refuses(parse(CONFIG_NODE, "--log-level", "loud", NULL),
            "starling-node: --log-level takes debug, info, warn or error, not \"loud\"\n");
    refuses(parse(CONFIG_NODE, "--cors", "https://a.example,", NULL),
            "starling-node: --cors takes \"*\" or origins such as https://example.org, not "
            "\"https://a.example,\"\n");
    refuses(parse(CONFIG_UP, "-n", "100", NULL),
            "starling up: --nodes takes a number from 0 to 99, not \"100\"\n");
    refuses(parse(CONFIG_UP, "--watchdog", "999", NULL),
            "starling up: --watchdog takes 0 or a number from 1000 to 86400000, not \"999\"\n");
    refuses(parse(CONFIG_UP, "--redis", "rediss://127.0.0.1", NULL),
            "starling up: --redis takes redis://…, unix://PATH, redis+sentinel://…, private or none, not "
            "\"rediss://127.0.0.1\"\n");
    refuses(parse(CONFIG_NODE, "--redis", "private", NULL),
            "starling-node: --redis private is what starling up takes; a node takes a URL or none\n");
}

static void test_unknown(void **state)
{
    (void)state;
    refuses(parse(CONFIG_NODE, "--prot=1", NULL), "starling-node: unknown option --prot (see --help)\n");
    refuses(parse(CONFIG_NODE, "-x", NULL), "starling-node: unknown option -x (see --help)\n");
    refuses(parse(CONFIG_NODE, "--nodes", "1", NULL), "starling-node: unknown option --nodes (see --help)\n");
    refuses(parse(CONFIG_NODE, "-n", "1", NULL), "starling-node: unknown option -n (see --help)\n");
    refuses(parse(CONFIG_UP, "--ready-fd", "3", NULL),
            "starling up: unknown option --ready-fd (see --help)\n");
    refuses(parse(CONFIG_NODE, "up", NULL), "starling-node: unexpected argument \"up\" (see --help)\n");
}

static void test_combinations(void **state)
{
    (void)state;
    refuses(parse(CONFIG_NODE, "--bind", "0.0.0.0", NULL),
            "starling-node: --bind 0.0.0.0 would let everyone who reaches that address do everything: "
            "authentication "
            "is not configured (it is not in this version); --insecure accepts that\n");
    accepts(parse(CONFIG_NODE, "--bind", "0.0.0.0", "--insecure", NULL));
    config_free(&config);
    accepts(parse(CONFIG_NODE, "--bind", "127.9.9.9", NULL));
    config_free(&config);
    refuses(parse(CONFIG_NODE, "--cors-credentials", NULL),
            "starling-node: --cors-credentials needs --cors\n");
    refuses(parse(CONFIG_NODE, "--core", "0", "--no-pin", NULL),
            "starling-node: --core and --no-pin exclude each other\n");
    refuses(parse(CONFIG_NODE, "--node-port", "7700", NULL),
            "starling-node: --node-port takes another port than --port, not 7700\n");
}

static void test_file(void **state)
{
    char *path = write_file("# comment\n\nport = 9000\r\n  ping-interval=300  \ncors = "
                            "https://a.example\ncors = https://b.example\n"
                            "log-json = on\nnodes = 1\ncore = 3");

    (void)state;
    /* The command line wins on both sides of --config. */
    accepts(parse(CONFIG_NODE, "--ping-interval", "400", "--config", path, "--cors", "*", NULL));
    assert_int_equal(config.port, 9000);
    assert_int_equal(config.ping_interval_ms, 400);
    assert_string_equal(config.cors, "*");
    assert_true(config.log_json);
    assert_int_equal(config.core, 3);
    config_free(&config);
    accepts(parse(CONFIG_UP, "--config", path, NULL));
    assert_string_equal(config.cors, "https://a.example,https://b.example");
    assert_int_equal(config.core, -1);
    config_free(&config);
    unlink(path);
}

static void refuses_file(const char *text, const char *message)
{
    char expected[512], *path = write_file(text);

    snprintf(expected, sizeof expected, "starling-node: %s%s", path, message);
    refuses(parse(CONFIG_NODE, "--config", path, NULL), expected);
    unlink(path);
}

static void test_bad_file(void **state)
{
    static char longest[5000];

    (void)state;
    refuses_file("\nport = x\n", ":2: port takes a number from 1 to 65535, not \"x\"\n");
    refuses_file("port 1\n", ":1: expected \"key = value\", not \"port 1\"\n");
    refuses_file("prot = 1\n", ":1: unknown key \"prot\"\n");
    refuses_file("nodes = 100\n", ":1: nodes takes a number from 0 to 99, not \"100\"\n");
    memset(longest, 'x', sizeof longest - 1);
    refuses_file(longest, ":1: a line takes up to 4094 bytes\n");
    refuses(parse(CONFIG_NODE, "--config", "/nonexistent", NULL),
            "starling-node: --config takes a file that can be read, not \"/nonexistent\": No such file or "
            "directory\n");
    refuses(parse(CONFIG_NODE, "--config", NULL), "starling-node: --config takes a file\n");
}

static void test_list_has(void **state)
{
    (void)state;
    assert_true(config_list_has("*", SPAN("/any")));
    assert_true(config_list_has("/a,/b", SPAN("/b")));
    assert_true(config_list_has("/a,*", SPAN("/c")));
    assert_false(config_list_has("/ab,/b", SPAN("/a")));
    assert_false(config_list_has("/a", SPAN("/ab")));
    assert_false(config_list_has("", SPAN("")));
}

static void test_help_and_reference(void **state)
{
    char *page = NULL;
    size_t n;
    FILE *to = open_memstream(&page, &n);

    (void)state;
    config_print_reference(to);
    fclose(to);
    assert_int_equal(parse(CONFIG_UP, "--help", NULL), CONFIG_SHOWN);
    assert_non_null(strstr(output, "--nodes N"));
    assert_null(strstr(output, "--ready-fd"));
    config_free(&config);
    assert_int_equal(parse(CONFIG_NODE, "--version", NULL), CONFIG_SHOWN);
    assert_string_equal(output, "starling-node " STARLING_VERSION "\n");
    config_free(&config);
    assert_int_equal(parse(CONFIG_NODE, "-h", NULL), CONFIG_SHOWN);
#define X(kind, field, key, argument, value, min, max, check, takes, who, when, help)                        \
    assert_non_null(strstr(page, "| `" key "` |"));                                                          \
    if ((who)&CONFIG_NODE)                                                                                   \
        assert_non_null(strstr(output, "  --" key " "));
    enum { NODE = CONFIG_NODE, UP = CONFIG_UP, BOTH = NODE | UP };
#include "config.def"
#undef X
    config_free(&config);
    free(page);
}

static void test_node_arguments(void **state)
{
    static const char *const expected[] = {"--no-pin=yes", "--ping-interval=300",
                                           "--cors=http://a.example,http://b", "--log-level=debug"};
    char **arguments;
    size_t n = 0;

    (void)state;
    accepts(parse(CONFIG_UP, "--ping-interval", "300", "--cors", "http://a.example", "--cors", "http://b",
                  "--no-pin", "--log-level", "debug", "--run-dir", "/tmp/x", NULL));
    arguments = config_node_arguments(&config);
    assert_non_null(arguments);
    for (; arguments[n]; n++) {
        assert_true(n < 4);
        assert_string_equal(arguments[n], expected[n]);
        free(arguments[n]);
    }
    assert_int_equal(n, 4);
    free(arguments);
    config_free(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),           cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused_values),     cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_combinations),       cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_file),           cmocka_unit_test(test_list_has),
        cmocka_unit_test(test_help_and_reference), cmocka_unit_test(test_node_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
