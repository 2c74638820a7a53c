/* Emits found by their rooms: what a search gives, and a naive model to compare with while everything that can happen
 * to a ring happens. */
#include "err.h"
#include "ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ring *ring;
static struct mesh_emit emit;
static const struct mesh_origin a = {1, 1}, b = {2, 1};

static void make(uint64_t max_ms, uint64_t max_bytes)
{
    ring_free(&ring);
    ring = ring_new(&(struct ring_options){.max_ms = max_ms, .max_bytes = max_bytes});
    assert_non_null(ring);
}

static int set_up(void **state)
{
    (void)state;
    make(1000, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ring_free(&ring);
    return 0;
}

/* Rooms: names with blanks between them; "": the whole namespace. */
static unsigned split(const char *names, struct span *rooms)
{
    unsigned n = 0;
    for (const char *p = names; *p; p += strspn(p, " ")) {
        rooms[n++] = (struct span){p, strcspn(p, " ")};
        p += strcspn(p, " ");
    }
    return n;
}

static int add_to(struct mesh_origin o, uint64_t seq, const char *nsp, const char *rooms, bool is_volatile)
{
    emit.nsp = span_of(nsp);
    emit.n_to = split(rooms, emit.to);
    emit.is_volatile = is_volatile;
    return ring_add(ring, seq, o, seq, SPAN("raw"), &emit);
}

static void add(struct mesh_origin o, uint64_t seq, const char *rooms)
{
    assert_int_equal(add_to(o, seq, "/", rooms, false), 0);
}

struct found {
    char text[4000];
    size_t n;
    unsigned at_most;
};

static bool on_found(void *user, const struct ring_found *f)
{
    struct found *found = user;
    assert_true(f->raw.n == 3 && memcmp(f->raw.p, "raw", 3) == 0);
    assert_int_equal(f->at_ms, f->seq);
    found->n += (size_t)snprintf(found->text + found->n, sizeof(found->text) - found->n, "%s%x:%llu",
                                 found->n ? " " : "", f->origin.tag, (unsigned long long)f->seq);
    assert_true(found->n < sizeof(found->text));
    return --found->at_most > 0;
}

static const char *search_in(const char *nsp, const char *names, const struct offset *since, unsigned at_most)
{
    static struct found found;
    struct span rooms[64];
    unsigned n = split(names, rooms);
    found = (struct found){.at_most = at_most};
    assert_int_equal(
        ring_search(ring,
                    &(struct ring_search){.nsp = span_of(nsp), .rooms = rooms, .n_rooms = n, .since = since},
                    on_found, &found),
        0);
    return found.text;
}

static const char *search(const char *rooms)
{
    static const struct offset none = {.n = 0};
    return search_in("/", rooms, &none, 1000);
}

static void finds_emits_to_these_rooms_and_to_all(void **state)
{
    (void)state;
    assert_string_equal(search("red"), "");
    add(a, 1, "red");
    add(b, 2, "blue");
    add(a, 2, "");
    add(b, 3, "green red");
    assert_int_equal(add_to(a, 3, "/other", "red", false), 0);
    assert_int_equal(add_to(a, 4, "/other", "", false), 0);
    assert_string_equal(search(""), "1:2");
    assert_string_equal(search("red"), "1:1 1:2 2:3");
    assert_string_equal(search("blue"), "2:2 1:2");
    assert_string_equal(search("blue red"), "1:1 2:2 1:2 2:3");
    assert_string_equal(search("nobody"), "1:2");
    assert_string_equal(search_in("/other", "red", &(struct offset){.n = 0}, 1000), "1:3 1:4");
    assert_string_equal(search_in("/none", "red", &(struct offset){.n = 0}, 1000), "");
}

static void an_emit_to_several_rooms_is_found_once(void **state)
{
    (void)state;
    add(a, 1, "red blue green red");
    add(a, 2, "blue");
    assert_string_equal(search("red blue green"), "1:1 1:2");
    assert_string_equal(search("green red red"), "1:1");
}

static void what_is_volatile_or_no_emit_is_not_found(void **state)
{
    (void)state;
    assert_int_equal(add_to(a, 1, "/", "red", true), 0);
    assert_int_equal(ring_add(ring, 2, a, 2, SPAN("raw"), NULL), 0);
    add(a, 3, "red");
    assert_string_equal(search("red"), "1:3");
}

static void numbers_up_to_an_origins_offset_are_not_found(void **state)
{
    (void)state;
    struct offset since = {.n = 2, .entry = {{1, 2}, {9, 100}}};
    for (uint64_t seq = 1; seq <= 4; seq++) {
        add(a, seq, "red");
        add(b, seq, "red");
    }
    assert_string_equal(search_in("/", "red", &since, 1000), "2:1 2:2 1:3 2:3 1:4 2:4");
    since = (struct offset){.n = 2, .entry = {{1, 4}, {2, 3}}};
    assert_string_equal(search_in("/", "red", &since, 1000), "2:4");
    since.entry[1].seq = UINT64_MAX;
    assert_string_equal(search_in("/", "red", &since, 1000), "");
    since = (struct offset){.n = 0};
    assert_string_equal(search_in("/", "red", &since, 3), "1:1 2:1 1:2");
}

static void what_was_restarted_is_not_found(void **state)
{
    (void)state;
    add(a, 1, "red");
    add(b, 2, "red blue");
    ring_restart(ring, a);
    add(a, 7, "red");
    assert_string_equal(search("red"), "2:2 1:7");
    ring_expire(ring, 1002); /* what was forgotten leaves, too */
    assert_string_equal(search("red"), "2:2 1:7");
    ring_expire(ring, 1003);
    assert_string_equal(search("red blue"), "1:7");
}

static void leaves_nothing_behind(void **state)
{
    (void)state;
    char room[20];
    for (uint64_t seq = 1; seq <= 300; seq++) {
        snprintf(room, sizeof(room), "room-%u both", (unsigned)seq);
        add(a, seq, room);
    }
    ring_expire(ring, 5000);
    assert_string_equal(search("both room-7"), "");
    assert_int_equal(ring_bytes(ring), 0);
}

/* Names are told apart whatever bytes they have. */
static void the_end_of_a_namespace_is_no_byte_of_it(void **state)
{
    (void)state;
    static const struct offset none = {.n = 0};
    struct found found = {.at_most = 10};
    emit = (struct mesh_emit){.nsp = {"/x\0y", 4}, .n_to = 1, .to = {{"z", 1}}};
    assert_int_equal(ring_add(ring, 1, a, 1, SPAN("raw"), &emit), 0);
    struct span room = {"y\0z", 3};
    struct ring_search s = {.nsp = SPAN("/x"), .rooms = &room, .n_rooms = 1, .since = &none};
    assert_int_equal(ring_search(ring, &s, on_found, &found), 0);
    assert_string_equal(found.text, "");
}

static void names_that_nobody_can_have_find_nothing(void **state)
{
    (void)state;
    static const struct offset none = {.n = 0};
    static char text[4000];
    struct found found = {.at_most = 10};
    struct span rooms[] = {{text, LIMIT_ROOM_BYTES + 1}, {text, sizeof(text)}};
    struct ring_search s = {.nsp = SPAN("/"), .rooms = rooms, .n_rooms = 2, .since = &none};
    add(a, 1, "red");
    assert_int_equal(ring_search(ring, &s, on_found, &found), 0);
    s.nsp = rooms[1];
    assert_int_equal(ring_search(ring, &s, on_found, &found), 0);
    assert_string_equal(found.text, "");
}

/* ---- a model ---- */

enum { ORIGINS = 4, NAMES = 12, MODEL = 4000 };

static struct model {
    unsigned origin, nsp;
    uint64_t seq;
    uint32_t rooms; /* bits; 0: the whole namespace */
    bool is_found, is_forgotten;
} model[MODEL];
static unsigned n_model;
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static struct mesh_origin origin_of(unsigned i)
{
    return (struct mesh_origin){i + 1, 7};
}

static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
static const char *const nsps[] = {"/", "/b"};

static unsigned name_rooms(uint32_t bits, struct span *rooms)
{
    unsigned n = 0;
    for (unsigned i = 0; i < NAMES; i++)
        if (bits >> i & 1)
            rooms[n++] = span_of(names[i]);
    return n;
}

static uint32_t draw_rooms(void)
{
    uint32_t bits = 0;
    for (uint64_t n = draw(4); n > 0; n--)
        bits |= 1u << draw(NAMES);
    return bits;
}

static void model_add(unsigned o, uint64_t seq, uint64_t now_ms)
{
    struct model *e = &model[n_model++];
    *e = (struct model){.origin = o, .nsp = (unsigned)draw(2), .seq = seq, .rooms = draw_rooms()};
    emit = (struct mesh_emit){.nsp = span_of(nsps[e->nsp]), .is_volatile = draw(10) == 0};
    emit.n_to = name_rooms(e->rooms, emit.to);
    if (emit.n_to && draw(4) == 0)
        emit.to[emit.n_to++] = emit.to[0]; /* named twice */
    bool is_emit = draw(8) > 0;
    e->is_found = is_emit && !emit.is_volatile;
    assert_int_equal(ring_add(ring, now_ms, origin_of(o), seq, SPAN("raw"), is_emit ? &emit : NULL), 0);
}

static bool is_held(const struct model *e)
{
    uint64_t first, last;
    return !e->is_forgotten && ring_range(ring, origin_of(e->origin), &first, &last) && e->seq >= first &&
           e->seq <= last;
}

struct expected {
    unsigned at, nsp;
    uint32_t rooms;
    const struct offset *since;
};

static bool is_wanted(const struct expected *x, const struct model *e)
{
    uint64_t since = 0;
    for (unsigned i = 0; i < x->since->n; i++)
        if (x->since->entry[i].origin == e->origin + 1)
            since = x->since->entry[i].seq;
    return e->is_found && e->nsp == x->nsp && (e->rooms == 0 || e->rooms & x->rooms) && e->seq > since &&
           is_held(e);
}

static void skip_unwanted(struct expected *x)
{
    while (x->at < n_model && !is_wanted(x, &model[x->at]))
        x->at++;
}

static bool compare(void *user, const struct ring_found *f)
{
    struct expected *x = user;
    skip_unwanted(x);
    assert_true(x->at < n_model);
    assert_int_equal(f->origin.tag, model[x->at].origin + 1);
    assert_int_equal(f->seq, model[x->at].seq);
    x->at++;
    return true;
}

static void search_at_random(const uint64_t next[ORIGINS])
{
    struct offset since = {.n = 0};
    struct span rooms[NAMES];
    struct expected x = {.nsp = (unsigned)draw(2), .rooms = draw_rooms() | draw_rooms(), .since = &since};
    for (unsigned o = 0; o < ORIGINS; o++)
        if (draw(2))
            since.entry[since.n++] = (struct offset_entry){o + 1, draw(next[o] + 3)};
    struct ring_search s = {
        .nsp = span_of(nsps[x.nsp]), .rooms = rooms, .n_rooms = name_rooms(x.rooms, rooms), .since = &since};
    assert_int_equal(ring_search(ring, &s, compare, &x), 0);
    skip_unwanted(&x);
    assert_int_equal(x.at, n_model);
}

static void forget(unsigned o)
{
    ring_restart(ring, origin_of(o));
    for (unsigned i = 0; i < n_model; i++)
        model[i].is_forgotten |= model[i].origin == o;
}

static void run_model(uint64_t seed, uint64_t max_bytes)
{
    uint64_t now_ms = 1000, next[ORIGINS] = {1, 1, 1, 1};
    random_state = seed;
    n_model = 0;
    make(500, max_bytes);
    while (n_model < MODEL) {
        unsigned o = (unsigned)draw(ORIGINS);
        now_ms += draw(3) ? 0 : draw(3);
        if (draw(200) == 0) {
            forget(o);
            next[o] += draw(50);
        }
        if (draw(20) == 0)
            ring_expire(ring, now_ms);
        model_add(o, next[o]++, now_ms);
        assert_true(ring_bytes(ring) <= max_bytes);
        if (n_model % 16 == 0)
            search_at_random(next);
    }
    ring_expire(ring, now_ms + 501);
    assert_int_equal(ring_bytes(ring), 0);
    search_at_random(next);
}

static void finds_what_the_model_finds(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        run_model(seed, 1 << 20);
        run_model(seed, 30000);
        run_model(seed, 1500);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(finds_emits_to_these_rooms_and_to_all),
        TEST(an_emit_to_several_rooms_is_found_once),
        TEST(what_is_volatile_or_no_emit_is_not_found),
        TEST(numbers_up_to_an_origins_offset_are_not_found),
        TEST(what_was_restarted_is_not_found),
        TEST(leaves_nothing_behind),
        TEST(the_end_of_a_namespace_is_no_byte_of_it),
        TEST(names_that_nobody_can_have_find_nothing),
        TEST(finds_what_the_model_finds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
