#include "bundle.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

#include <cmocka.h>

static void test_every_file_inflates_to_itself(void **state)
{
    (void)state;
    assert_true(bundle_files_n > 8);
    for (size_t i = 0; i < bundle_files_n; i++) {
        const struct bundle_file *file = &bundle_files[i];
        unsigned char *plain = malloc(file->n);
        z_stream stream = {.next_in = (unsigned char *)(uintptr_t)file->gzip,
                           .avail_in = (unsigned)file->gzip_n,
                           .next_out = plain,
                           .avail_out = (unsigned)file->n};
        assert_non_null(plain);
        assert_true(file->n > 0 && strlen(file->etag) == 40);
        assert_int_equal(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
        assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
        assert_int_equal(stream.total_out, file->n);
        assert_memory_equal(plain, file->data, file->n);
        inflateEnd(&stream);
        free(plain);
    }
}

static void test_find(void **state)
{
    (void)state;
    const struct bundle_file *script = bundle_find(SPAN("socket.io.min.js"));
    const struct bundle_file *map = bundle_find(SPAN("socket.io.min.js.map"));

    assert_non_null(script);
    assert_string_equal(script->content_type, "application/javascript; charset=utf-8");
    assert_non_null(map);
    assert_string_equal(map->content_type, "application/json; charset=utf-8");
    assert_string_equal(bundle_find(SPAN("/index.html"))->content_type, "text/html; charset=utf-8");
    assert_string_equal(bundle_find(SPAN("/vendor/uplot.js"))->content_type, "application/javascript; charset=utf-8");
    assert_null(bundle_find(SPAN("socket.io.min.j")));
    assert_null(bundle_find(SPAN("../socket.io.js")));
    assert_null(bundle_find((struct span){NULL, 0}));
}

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(bundle_version[0], '4');
    assert_int_equal(bundle_version[1], '.');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_file_inflates_to_itself),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
