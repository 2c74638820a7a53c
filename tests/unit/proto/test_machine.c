#include "err.h"
#include "machine.h"
#include "mp.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct machine_description description, description_back;
static struct machine_tick tick, tick_back;

static struct span bytes_of(const msgpack_sbuffer *b)
{
    return (struct span){b->data, b->size};
}

static void fill_description(void)
{
    description = (struct machine_description){
        .machine = UINT64_MAX,
        .revision = 3,
        .about = {.name = SPAN("web \"1\""),
                  .hostname = SPAN("web1"),
                  .machine_id = SPAN("0123"),
                  .os = SPAN("Debian"),
                  .kernel = SPAN("6.1"),
                  .arch = SPAN("x86_64"),
                  .cpu_model = SPAN("A \xc2\xb5"
                                    "CPU"),
                  .agent_version = SPAN("0.1.0"),
                  .cores = 4,
                  .mhz = 3000,
                  .cpu_limit_milli = 1500,
                  .memory_bytes = 8000,
                  .memory_limit_bytes = 5000,
                  .boot_time_s = 1700000000,
                  .interval_ms = 1000},
        .n_nics = 1,
        .nics = {{SPAN("eth0"), SPAN("02:00:00:00:00:01"), 1000, 1500}},
        .n_drives = 2,
        .drives = {{SPAN("sda"), SPAN("Spinner"), 4096, 1}, {SPAN("nvme0n1"), SPAN(""), 8192, 0}},
    };
}

static void fill_tick(void)
{
    tick = (struct machine_tick){
        .machine = 0x0123456789abcdef,
        .revision = 3,
        .time_ms = 1700000000123,
        .elapsed_ms = 1000,
        .uptime_s = 86400,
        .cpu = {1, 20, 300, 4000, 5, 607, 10000},
        .load = {123, 45, 6, 7, 890},
        .memory = {5000, 4000, 300, 20, 1},
        .has_pressure = true,
        .pressure = {1, 2, 3, 4, 10000},
        .n_cores = 3,
        .cores = {{1, 2, 3, 4}, {MACHINE_CORE_OFFLINE, 0, 0, 0}, {50, 50, 50, 50}},
        .n_disks = 1,
        .disks = {{SPAN("sda"), 11, 12, 13, 14, 1550}},
        .n_filesystems = 1,
        .filesystems = {{SPAN("/"), SPAN("/dev/sda1"), SPAN("ext4"), 100, 60, 35}},
        .n_interfaces = 1,
        .interfaces = {{SPAN("eth0"), 21, 22, 23, 24, 25, 26}},
        .n_temperatures = 2,
        .temperatures = {{SPAN("cpu"), 455}, {SPAN("outside"), -5}},
        .n_processes = 1,
        .processes = {{SPAN("starling-node"), SPAN("web-0"), 4711, 12345, 9000, 5, 77}},
    };
}

static void test_description_comes_back(void **state)
{
    (void)state;
    msgpack_sbuffer once, twice;
    msgpack_sbuffer_init(&once);
    msgpack_sbuffer_init(&twice);
    fill_description();
    assert_int_equal(machine_write_description(&once, &description), 0);
    assert_int_equal(machine_read_description(bytes_of(&once), &description_back), 0);
    const struct machine_about *a = &description_back.about;
    assert_true(description_back.machine == UINT64_MAX && description_back.revision == 3);
    assert_true(span_eq(a->name, SPAN("web \"1\"")) && span_eq(a->agent_version, SPAN("0.1.0")));
    assert_true(a->cores == 4 && a->interval_ms == 1000 && a->memory_limit_bytes == 5000);
    assert_int_equal(description_back.n_drives, 2);
    assert_true(span_eq(description_back.drives[1].name, SPAN("nvme0n1")));
    assert_true(description_back.drives[0].rotates == 1 && description_back.nics[0].mtu == 1500);
    assert_int_equal(machine_write_description(&twice, &description_back), 0);
    assert_true(span_eq(bytes_of(&once), bytes_of(&twice)));
    assert_int_equal(machine_read_tick(bytes_of(&once), &tick_back), ERR_MACHINE);
    msgpack_sbuffer_destroy(&once);
    msgpack_sbuffer_destroy(&twice);
}

static void test_tick_comes_back(void **state)
{
    (void)state;
    msgpack_sbuffer once, twice;
    msgpack_sbuffer_init(&once);
    msgpack_sbuffer_init(&twice);
    fill_tick();
    assert_int_equal(machine_write_tick(&once, &tick), 0);
    assert_int_equal(machine_read_tick(bytes_of(&once), &tick_back), 0);
    uint64_t machine, revision;
    assert_int_equal(machine_read_head(bytes_of(&once), &machine, &revision), MACHINE_TICK);
    assert_true(machine == tick.machine && revision == 3);
    assert_memory_equal(&tick_back.cpu, &tick.cpu, sizeof(tick.cpu));
    assert_memory_equal(&tick_back.load, &tick.load, sizeof(tick.load));
    assert_memory_equal(&tick_back.memory, &tick.memory, sizeof(tick.memory));
    assert_memory_equal(&tick_back.pressure, &tick.pressure, sizeof(tick.pressure));
    assert_memory_equal(tick_back.cores, tick.cores, 3 * sizeof(tick.cores[0]));
    assert_true(tick_back.temperatures[1].decicelsius == -5 && tick_back.processes[0].uptime_s == 77);
    assert_true(tick_back.time_ms == tick.time_ms && tick_back.elapsed_ms == 1000 &&
                tick_back.uptime_s == 86400);
    assert_int_equal(machine_write_tick(&twice, &tick_back), 0);
    assert_true(span_eq(bytes_of(&once), bytes_of(&twice)));
    assert_int_equal(machine_read_description(bytes_of(&once), &description_back), ERR_MACHINE);
    msgpack_sbuffer_destroy(&once);
    msgpack_sbuffer_destroy(&twice);
}

/* Every list full, every text and number the longest: this still fits one message. */
static void test_fullest(void **state)
{
    (void)state;
    static char letters[LIMIT_MACHINE_TEXT_BYTES];
    memset(letters, 'x', sizeof(letters));
    const struct span text = {letters, sizeof(letters)};
    fill_tick();
    tick.n_cores = LIMIT_MACHINE_CORES;
    tick.n_disks = LIMIT_MACHINE_DISKS;
    tick.n_filesystems = LIMIT_MACHINE_FILESYSTEMS;
    tick.n_interfaces = LIMIT_MACHINE_INTERFACES;
    tick.n_temperatures = LIMIT_MACHINE_TEMPERATURES;
    tick.n_processes = LIMIT_MACHINE_PROCESSES;
    for (size_t i = 0; i < LIMIT_MACHINE_DISKS; i++) {
        const uint64_t most = INT64_MAX;
        tick.disks[i] = (struct machine_disk){text, most, most, most, most, MACHINE_WHOLE};
        tick.filesystems[i] = (struct machine_filesystem){text, text, text, most, most, most};
        tick.interfaces[i] = (struct machine_interface){text, most, most, most, most, most, most};
        tick.temperatures[i] = (struct machine_temperature){text, INT64_MIN};
    }
    for (size_t i = 0; i < LIMIT_MACHINE_PROCESSES; i++)
        tick.processes[i] =
            (struct machine_process){text, text, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    msgpack_sbuffer b, json;
    msgpack_sbuffer_init(&b);
    msgpack_sbuffer_init(&json);
    assert_int_equal(machine_write_tick(&b, &tick), 0);
    assert_int_equal(machine_read_tick(bytes_of(&b), &tick_back), 0);
    assert_int_equal(tick_back.n_cores, LIMIT_MACHINE_CORES);
    assert_true(tick_back.temperatures[LIMIT_MACHINE_TEMPERATURES - 1].decicelsius == INT64_MIN);
    assert_int_equal(machine_tick_json(&json, &tick_back), 0);
    json_t *value = json_loadb(json.data, json.size, JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    json_decref(value);
    msgpack_sbuffer_destroy(&b);
    msgpack_sbuffer_destroy(&json);
}

/* Cut off anywhere, or with a byte behind it, it is none. */
static void test_cut_off(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    fill_tick();
    assert_int_equal(machine_write_tick(&b, &tick), 0);
    for (size_t n = 0; n < b.size; n++)
        assert_int_equal(machine_read_tick((struct span){b.data, n}, &tick_back), ERR_MACHINE);
    assert_int_equal(msgpack_sbuffer_write(&b, "\0", 1), 0);
    assert_int_equal(machine_read_tick(bytes_of(&b), &tick_back), ERR_MACHINE);
    msgpack_sbuffer_clear(&b);
    fill_description();
    assert_int_equal(machine_write_description(&b, &description), 0);
    for (size_t n = 0; n < b.size; n++)
        assert_int_equal(machine_read_description((struct span){b.data, n}, &description_back), ERR_MACHINE);
    msgpack_sbuffer_destroy(&b);
}

/* A description whose arrays all have one element more than this version knows, written by hand. */
static void test_later_elements(void **state)
{
    (void)state;
    static const char text[] =
        "\x99\x28\x00\x01\x07\x05"
        "\xdc\x00\x10\xa1n\xa1h\xa0\xa0\xa0\xa0\xa0\xa0\x02\x00\x00\x10\x00\x00\x00\x92\xc0\xc3"
        "\x91\x95\xa1"
        "e\xa0\x00\x00\x81\xa1k\xa1v"
        "\x91\x95\xa1"
        "d\xa0\x00\x00\xcb\0\0\0\0\0\0\0\0"
        "\xa4more";
    struct span message = SPAN(text);
    assert_int_equal(machine_read_description(message, &description_back), 0);
    assert_true(description_back.machine == 7 && description_back.revision == 5);
    assert_true(description_back.about.cores == 2 && description_back.n_nics == 1 &&
                description_back.n_drives == 1);
    assert_true(span_eq(description_back.drives[0].name, SPAN("d")));
}

static void test_versions_and_kinds(void **state)
{
    (void)state;
    static const struct {
        struct span message;
        int result;
    } rows[] = {
        {SPAN("\x95\x28\x00\x01\x07\x05"), MACHINE_DESCRIPTION},
        {SPAN("\x95\x29\x00\x01\x07\x05"), MACHINE_TICK},
        {SPAN("\x95\x2a\x00\x01\x07\x05"), 0},
        {SPAN("\x95\x29\x00\x02\x07\x05"), ERR_VERSION},
        {SPAN("\x94\x29\x00\x01\x07"), ERR_MACHINE},
        {SPAN("\x95\xa1x\x00\x01\x07\x05"), ERR_MACHINE},
        {SPAN("\x90"), ERR_MACHINE},
        {SPAN("\x80"), ERR_MACHINE},
        {{NULL, 0}, ERR_MACHINE},
    };
    uint64_t machine, revision;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (machine_read_head(rows[i].message, &machine, &revision) != rows[i].result)
            fail_msg("row %zu", i);
    assert_int_equal(machine_read_tick(SPAN("\x95\x29\x00\x02\x07\x05"), &tick_back), ERR_VERSION);
}

static int read_again(void)
{
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    assert_int_equal(machine_write_tick(&b, &tick), 0);
    int err = machine_read_tick(bytes_of(&b), &tick_back);
    msgpack_sbuffer_destroy(&b);
    return err;
}

/* The writer does not check what the reader refuses. */
static void test_impossible_values(void **state)
{
    (void)state;
    fill_tick();
    assert_int_equal(read_again(), 0);
    tick.cpu.user = MACHINE_WHOLE + 1;
    assert_int_equal(read_again(), ERR_MACHINE);
    fill_tick();
    tick.disks[0].busy = MACHINE_WHOLE + 1;
    assert_int_equal(read_again(), ERR_MACHINE);
    fill_tick();
    tick.cores[0].system = 194; /* 201 together */
    assert_int_equal(read_again(), ERR_MACHINE);
    tick.cores[0].system = 192;
    assert_int_equal(read_again(), 0);
    tick.memory.total = UINT64_MAX;
    assert_int_equal(read_again(), ERR_MACHINE);
    fill_tick();
    tick.disks[0].name = SPAN("\xff");
    assert_int_equal(read_again(), ERR_MACHINE);
}

static double number_at(json_t *root, const char *group, const char *key)
{
    return json_number_value(json_object_get(group ? json_object_get(root, group) : root, key));
}

static void test_tick_as_json(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    fill_tick();
    assert_int_equal(machine_tick_json(&b, &tick), 0);
    json_t *t = json_loadb(b.data, b.size, 0, NULL);
    assert_non_null(t);
    assert_string_equal(json_string_value(json_object_get(t, "id")), "0123456789abcdef");
    assert_true(number_at(t, NULL, "time_ms") == 1700000000123.0);
    assert_true(number_at(t, "cpu", "busy_pct") == 49.28 && number_at(t, "cpu", "iowait_pct") == 0.05);
    assert_true(number_at(t, "load", "one") == 1.23 && number_at(t, "memory", "total_bytes") == 5000);
    assert_true(number_at(t, "pressure", "io_full_pct") == 100);
    json_t *cores = json_object_get(t, "cores");
    assert_int_equal(json_array_size(cores), 3);
    assert_true(json_real_value(json_array_get(json_array_get(cores, 0), 0)) == 0.5);
    assert_true(json_is_null(json_array_get(cores, 1)));
    json_t *cold = json_array_get(json_object_get(t, "temperatures"), 1);
    assert_true(number_at(cold, NULL, "celsius") == -0.5);
    json_t *process = json_array_get(json_object_get(t, "processes"), 0);
    assert_true(number_at(process, NULL, "cpu_pct") == 123.45);
    assert_string_equal(json_string_value(json_object_get(process, "node")), "web-0");
    json_decref(t);
    msgpack_sbuffer_clear(&b);
    tick.has_pressure = false;
    assert_int_equal(machine_tick_json(&b, &tick), 0);
    t = json_loadb(b.data, b.size, 0, NULL);
    assert_true(json_is_null(json_object_get(t, "pressure")));
    json_decref(t);
    msgpack_sbuffer_destroy(&b);
}

/* The size shown is the container's where that is lower. */
static void test_description_as_json(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_sbuffer_init(&b);
    fill_description();
    assert_int_equal(machine_description_json(&b, &description), 0);
    json_t *d = json_loadb(b.data, b.size, 0, NULL);
    assert_non_null(d);
    assert_string_equal(json_string_value(json_object_get(d, "name")), "web \"1\"");
    assert_true(number_at(d, NULL, "cpus") == 1.5 && number_at(d, NULL, "cpu_limit") == 1.5);
    assert_true(number_at(d, NULL, "memory_bytes") == 5000 &&
                number_at(d, NULL, "host_memory_bytes") == 8000);
    assert_true(json_is_true(json_object_get(json_array_get(json_object_get(d, "disks"), 0), "rotates")));
    json_decref(d);
    msgpack_sbuffer_clear(&b);
    description.about.cpu_limit_milli = 9000;
    description.about.memory_limit_bytes = 0;
    assert_int_equal(machine_description_json(&b, &description), 0);
    d = json_loadb(b.data, b.size, 0, NULL);
    assert_true(number_at(d, NULL, "cpus") == 4 && number_at(d, NULL, "memory_bytes") == 8000);
    assert_true(json_is_null(json_object_get(d, "memory_limit_bytes")));
    json_decref(d);
    msgpack_sbuffer_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description_comes_back),
        cmocka_unit_test(test_tick_comes_back),
        cmocka_unit_test(test_fullest),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_later_elements),
        cmocka_unit_test(test_versions_and_kinds),
        cmocka_unit_test(test_impossible_values),
        cmocka_unit_test(test_tick_as_json),
        cmocka_unit_test(test_description_as_json),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
