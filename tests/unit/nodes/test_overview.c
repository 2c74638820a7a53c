/* The cluster on a terminal: lines made of what the API answers. */
#include "overview.h"
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NODE(name, life, silent)                                                                             \
    "{\"name\":\"" name "\",\"host\":\"h\",\"life\":\"" life "\",\"silent_ms\":" #silent                     \
    ",\"state\":\"ready\",\"store\":\"up\",\"restarts\":2,\"cpu_pct\":12.34,\"rss_bytes\":13631488,"         \
    "\"loop_p99_us\":1234,\"sessions_polling\":1,\"sessions_websocket\":41,\"emits_per_s\":7.5,"             \
    "\"deliveries_per_s\":900,\"bytes_out_per_s\":2048,\"mesh_holes_total\":3,\"mirror_behind\":4,"          \
    "\"links\":[{\"silent_ms\":10},{\"silent_ms\":9000}]}"

static char *printed(const char *nodes, const char *machines)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    overview_print(out, nodes, machines);
    fclose(out);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in\n%s", part, text);
}

static void nodes_are_summed_while_they_live(void **state)
{
    (void)state;
    char *text = printed("{\"nodes\":[" NODE("one", "live", 5) "," NODE("two", "live", 5000) "," NODE(
                             "three", "dead", 70000) "]}",
                         NULL);
    assert_has(text,
               "2 of 3 nodes live, 84 sessions, 15.0 emits/s, 1800.0 messages/s out, 4.0 KiB/s, 24.7 %");
    assert_has(
        text,
        "\none              h              ready        12.3    13 MiB        42       7.5     900.0    "
        "1.2 ms   1 of 2      3       4    2\n");
    assert_has(text, "\ntwo              h              silent ");
    assert_has(text, "\nthree            h              dead ");
    free(text);
}

static void what_is_not_known_is_a_dash(void **state)
{
    (void)state;
    char *text = printed("{\"nodes\":[]}", "{\"machines\":[{\"id\":\"0123\",\"state\":\"lost\"}]}");
    assert_has(text, "0 of 0 nodes live");
    assert_has(text, "\n0123                            lost            -         -         -         -");
    free(text);
}

static void what_is_no_answer_is_left_out(void **state)
{
    static const char *const bodies[] = {"",
                                         "nodes",
                                         "[1,2",
                                         "7",
                                         "[]",
                                         "{\"nodes\":7}",
                                         "{\"nodes\":[1,null,\"x\"]}",
                                         "{\"nodes\":[{\"name\":\"\\u001b[2J\",\"life\":\"live\"}]}"};
    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        char *text = printed(bodies[i], bodies[i]);
        assert_null(strchr(text, '\033'));
        free(text);
    }
    char *text = printed(NULL, NULL);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_summed_while_they_live),
        cmocka_unit_test(what_is_not_known_is_a_dash),
        cmocka_unit_test(what_is_no_answer_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
