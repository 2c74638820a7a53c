#include "err.h"
#include "json.h"
#include "status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct status status, back;

static void fill(void)
{
    memset(&status, 0, sizeof(status));
    status.name = SPAN("node-1");
    status.host = SPAN("h\xc3\xb6st");
    status.sent_us = 77;
    for (unsigned i = 0; i < STATUS_VALUES; i++)
        status.value[i] = i * 1000;
    status.value[STATUS_STATE] = STATUS_DRAINING;
    status.value[STATUS_STORE] = STATUS_STORE_UP;
    status.n_links = 2;
    status.link[0] = (struct status_link){{0xabcdef, 5}, 1, 2, 3, 4, 5, true};
    status.link[1] = (struct status_link){{1, UINT64_MAX}, 1, 2, 0, 4, 5, false};
}

static void what_is_written_is_read(void **state)
{
    msgpack_sbuffer b;
    (void)state;
    msgpack_sbuffer_init(&b);
    fill();
    assert_int_equal(status_write(&b, &status), 0);
    for (size_t n = 0; n < b.size; n++)
        assert_int_equal(status_read((struct span){b.data, n}, &back), ERR_STATUS);
    assert_int_equal(status_read((struct span){b.data, b.size}, &back), 0);
    assert_true(span_eq(back.name, status.name) && span_eq(back.host, status.host));
    assert_memory_equal(back.value, status.value, sizeof(status.value));
    assert_int_equal(back.n_links, 2);
    assert_int_equal(back.link[0].from.tag, 0xabcdef);
    assert_true(back.link[0].in_hole && !back.link[1].in_hole);
    assert_int_equal(back.link[1].from.boot, UINT64_MAX);
    msgpack_sbuffer_destroy(&b);
}

/* [1, "", "", 0, values, []] */
static int read_values(const char *values, size_t n)
{
    char text[64] = "\x96\x01\xa0\xa0\x00";
    memcpy(text + 5, values, n);
    text[5 + n] = '\x90';
    return status_read((struct span){text, n + 6}, &back);
}

static void other_versions_know_more_or_less(void **state)
{
    (void)state;
    assert_int_equal(read_values("\x92\x05\x06", 3), 0);
    assert_int_equal(back.value[0], 5);
    assert_int_equal(back.value[STATUS_UPTIME_S], 6);
    assert_int_equal(back.value[STATUS_PID], 0);
    assert_int_equal(read_values("\x90", 1), 0);
    assert_int_equal(read_values("\x97\x01\x01\x01\x01\x01\x01\x04", 8), ERR_STATUS); /* no such state */
    assert_int_equal(status_read(SPAN("\x96\x02\xa0\xa0\x00\x90\x90"), &back), ERR_STATUS);
    assert_int_equal(status_read(SPAN("\x97\x01\xa0\xa0\x00\x90\x90\xc0"), &back), 0);
    assert_int_equal(status_read(SPAN("\x96\x01\xa1\xff\xa0\x00\x90\x90"), &back), ERR_STATUS); /* no UTF-8 */
}

static void json_is_what_the_page_says_it_is(void **state)
{
    msgpack_sbuffer b;
    struct span item;
    (void)state;
    msgpack_sbuffer_init(&b);
    fill();
    status.value[STATUS_CORE] = 0;
    status.value[STATUS_CPU] = 1234;
    msgpack_sbuffer_write(&b, "{", 1);
    assert_int_equal(status_json(&b, &status), 0);
    msgpack_sbuffer_write(&b, "}", 1);
    struct span all = {b.data, b.size};
    assert_int_equal(json_check(all, 4), 0);
    assert_true(span_eq(json_get(all, "state"), SPAN("\"draining\"")));
    assert_true(span_eq(json_get(all, "store"), SPAN("\"up\"")));
    assert_true(span_eq(json_get(all, "core"), SPAN("null")));
    assert_true(span_eq(json_get(all, "cpu_pct"), SPAN("12.34")));
    for (unsigned i = 0; i < STATUS_VALUES; i++)
        assert_true(json_get(all, status_key(i)).n > 0);
    struct json_cursor c = json_open(json_get(all, "links"));
    assert_true(json_item(&c, &item));
    assert_true(span_eq(json_get(item, "from"), SPAN("\"abcdef-5\"")));
    assert_true(span_eq(json_get(item, "delay_us"), SPAN("3")));
    assert_true(json_item(&c, &item));
    assert_true(span_eq(json_get(item, "delay_us"), SPAN("null")));
    msgpack_sbuffer_destroy(&b);
}

static void an_id_is_read_as_it_is_written(void **state)
{
    char text[STATUS_ID_BYTES];
    struct mesh_origin o;
    (void)state;
    status_id(text, (struct mesh_origin){0xab, UINT64_MAX});
    assert_string_equal(text, "0000ab-ffffffffffffffff");
    assert_true(status_id_read(span_of(text), &o));
    assert_true(o.tag == 0xab && o.boot == UINT64_MAX);
    static const char *const wrong[] = {
        "", "0000ab", "0000ab-", "0000ag-1", "0000ab-1x", "0000ab_1", "0000ab-11111111111111111"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(status_id_read(span_of(wrong[i]), &o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(other_versions_know_more_or_less),
        cmocka_unit_test(json_is_what_the_page_says_it_is),
        cmocka_unit_test(an_id_is_read_as_it_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
