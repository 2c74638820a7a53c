/* Namespaces and rooms: who is where, limits, what a pin keeps in its place, and the text of emits. */
#include "ack.h"
#include "err.h"
#include "limit.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct world w;
static struct sink a, b;
static struct socket *sa, *sb;

static int set_up(void **state)
{
    (void)state;
    world_start(&w, NULL, "*");
    sa = sink_enter(&w, &a, "/");
    sb = sink_enter(&w, &b, "/");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_stop(&w);
    sink_free(&a);
    sink_free(&b);
    return 0;
}

static uint64_t metric(enum metric which)
{
    return metrics_get(w.metrics, which);
}

static struct span name_of(unsigned i)
{
    static char text[16];
    return (struct span){text, (size_t)snprintf(text, sizeof(text), "room-%u", i)};
}

static bool is_in(struct socket *s, const char *room)
{
    struct room *r = room_find(s->nsp, span_of(room));
    return r && room_has(r, s);
}

/* Every member knows its place, every place its member; holes are counted. */
static void check_room(const struct room *room)
{
    uint32_t holes = 0;
    assert_true(room->n <= room->cap);
    for (uint32_t i = 0; i < room->n; i++) {
        const struct socket *s = room->members[i].socket;
        if (!s) {
            holes++;
            continue;
        }
        assert_true(room->members[i].place < s->n_places);
        assert_ptr_equal(s->places[room->members[i].place].room, room);
        assert_int_equal(s->places[room->members[i].place].index, i);
    }
    assert_int_equal(holes, room->holes);
    assert_true(room->pins || !holes);
}

static void check_socket(const struct socket *s)
{
    for (uint32_t i = 0; i < s->n_places; i++) {
        const struct room *room = s->places[i].room;
        assert_ptr_equal(room->members[s->places[i].index].socket, s);
        assert_int_equal(room->members[s->places[i].index].place, i);
        for (uint32_t k = 0; k < i; k++)
            assert_ptr_not_equal(s->places[k].room, room);
    }
}

/* ---- namespaces ---- */

static void a_star_allows_all_namespaces_but_the_dashboard(void **state)
{
    char longest[LIMIT_NAMESPACE_BYTES + 1];
    (void)state;
    memset(longest, 'n', sizeof(longest));
    assert_true(hub_allows(w.hub, SPAN("/")));
    assert_true(hub_allows(w.hub, SPAN("/chat")));
    assert_true(hub_allows(w.hub, SPAN("/admins")));
    assert_false(hub_allows(w.hub, SPAN("/admin")));
    assert_true(hub_allows(w.hub, (struct span){longest, LIMIT_NAMESPACE_BYTES}));
    assert_false(hub_allows(w.hub, (struct span){longest, LIMIT_NAMESPACE_BYTES + 1}));
}

static void a_list_allows_what_it_names(void **state)
{
    (void)state;
    w.hub->options.namespaces = "/,/chat,/admin";
    assert_true(hub_allows(w.hub, SPAN("/")));
    assert_true(hub_allows(w.hub, SPAN("/chat")));
    assert_true(hub_allows(w.hub, SPAN("/admin")));
    assert_false(hub_allows(w.hub, SPAN("/cha")));
    assert_false(hub_allows(w.hub, SPAN("/chat,")));
    assert_false(hub_allows(w.hub, SPAN("/chatter")));
    assert_false(hub_allows(w.hub, SPAN("/,/chat")));
    assert_false(hub_allows(w.hub, SPAN("*")));
    w.hub->options.namespaces = "/chat";
    assert_false(hub_allows(w.hub, SPAN("/")));
}

static void a_namespace_lives_while_it_has_sockets(void **state)
{
    struct sink c, d;
    (void)state;
    assert_null(hub_find(w.hub, SPAN("/chat")));
    struct socket *sc = sink_enter(&w, &c, "/chat");
    assert_int_equal(metric(METRIC_NAMESPACES), 2);
    struct socket *sd = sink_enter(&w, &d, "/chat");
    assert_ptr_equal(sc->nsp, sd->nsp);
    assert_ptr_equal(hub_obtain(w.hub, SPAN("/chat")), sc->nsp);
    assert_int_equal(room_count(sc->nsp->all), 2);
    session_close(c.session, CLOSE_FORCED);
    assert_non_null(hub_find(w.hub, SPAN("/chat")));
    session_close(d.session, CLOSE_FORCED);
    assert_null(hub_find(w.hub, SPAN("/chat")));
    assert_int_equal(metric(METRIC_NAMESPACES), 1);
    sink_end(&c);
    sink_end(&d);
}

static void the_number_of_namespaces_is_bounded(void **state)
{
    char name[16];
    (void)state;
    for (unsigned i = 1; i < LIMIT_NAMESPACES; i++) {
        snprintf(name, sizeof(name), "/n%u", i);
        assert_non_null(hub_obtain(w.hub, span_of(name)));
    }
    assert_null(hub_obtain(w.hub, SPAN("/one-too-many")));
    assert_non_null(hub_obtain(w.hub, SPAN("/n17"))); /* those that are there stay in reach */
    assert_int_equal(metric(METRIC_NAMESPACES), LIMIT_NAMESPACES);
    for (unsigned i = 1; i < LIMIT_NAMESPACES; i++) {
        snprintf(name, sizeof(name), "/n%u", i);
        struct nsp *nsp = hub_find(w.hub, span_of(name));
        room_pin(nsp->all);
        room_unpin(nsp->all); /* the last one who looks at it lets it go */
    }
    assert_int_equal(metric(METRIC_NAMESPACES), 1);
}

static void sockets_are_found_by_their_sid(void **state)
{
    (void)state;
    assert_ptr_equal(nsp_find(sa->nsp, (struct span){sa->sid, ID_CHARS}), sa);
    assert_ptr_equal(nsp_find(sa->nsp, (struct span){sb->sid, ID_CHARS}), sb);
    assert_null(nsp_find(sa->nsp, (struct span){sa->sid, ID_CHARS - 1}));
    assert_null(nsp_find(sa->nsp, SPAN("EjRWAAAAAAAAAAAAAAAA")));
    assert_null(nsp_find(sa->nsp, SPAN("")));
    assert_int_equal(metric(METRIC_SOCKETS), 2);
}

/* ---- rooms ---- */

static void joins_leaves_and_joins_again(void **state)
{
    (void)state;
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_true(is_in(sa, "red"));
    assert_false(is_in(sb, "red"));
    assert_int_equal(room_join(sa, SPAN("red")), 0); /* once more changes nothing */
    assert_int_equal(room_count(room_find(sa->nsp, SPAN("red"))), 1);
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    assert_int_equal(room_count(room_find(sa->nsp, SPAN("red"))), 2);
    assert_int_equal(metric(METRIC_ROOMS), 1);
    room_leave(sa, SPAN("red"));
    room_leave(sa, SPAN("red"));
    assert_false(is_in(sa, "red"));
    assert_true(is_in(sb, "red"));
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_true(is_in(sa, "red"));
    room_leave(sa, SPAN("red"));
    room_leave(sb, SPAN("red"));
    assert_null(room_find(sa->nsp, SPAN("red")));
    assert_int_equal(metric(METRIC_ROOMS), 0);
}

static void leaving_what_one_is_not_in_does_nothing(void **state)
{
    (void)state;
    room_leave(sa, SPAN("nowhere"));
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    room_leave(sa, SPAN("red"));
    assert_true(is_in(sb, "red"));
    assert_int_equal(room_count(sa->nsp->all), 2);
}

static void names_are_bytes(void **state)
{
    (void)state;
    assert_int_equal(room_join(sa, SPAN("a")), 0);
    assert_int_equal(room_join(sa, SPAN("a\0b")), 0);
    assert_int_equal(room_join(sa, SPAN("A")), 0);
    assert_int_equal(metric(METRIC_ROOMS), 3);
    assert_ptr_not_equal(room_find(sa->nsp, SPAN("a")), room_find(sa->nsp, SPAN("a\0b")));
}

static void rooms_belong_to_their_namespace(void **state)
{
    struct sink c;
    (void)state;
    struct socket *sc = sink_enter(&w, &c, "/chat");
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_int_equal(room_join(sc, SPAN("red")), 0);
    assert_int_equal(metric(METRIC_ROOMS), 2);
    assert_ptr_not_equal(room_find(sa->nsp, SPAN("red")), room_find(sc->nsp, SPAN("red")));
    session_close(c.session, CLOSE_FORCED);
    assert_int_equal(metric(METRIC_ROOMS), 1);
    sink_end(&c);
}

static void the_rooms_of_a_socket_are_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LIMIT_ROOMS_PER_SOCKET; i++)
        assert_int_equal(room_join(sa, name_of(i)), 0);
    assert_int_equal(room_join(sa, SPAN("one too many")), ERR_LIMIT);
    assert_null(room_find(sa->nsp, SPAN("one too many")));
    assert_int_equal(room_join(sa, name_of(5)), 0); /* is in it already */
    assert_int_equal(room_join(sb, SPAN("one too many")), 0);
    room_leave(sa, name_of(7));
    assert_int_equal(room_join(sa, SPAN("one too many")), 0);
    assert_int_equal(metric(METRIC_ROOMS), LIMIT_ROOMS_PER_SOCKET);
    check_socket(sa);
}

static void whoever_goes_leaves_all_rooms(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(room_join(sa, name_of(i)), 0);
        if (i % 2)
            assert_int_equal(room_join(sb, name_of(i)), 0);
    }
    session_close(a.session, CLOSE_TRANSPORT_CLOSE);
    assert_int_equal(metric(METRIC_ROOMS), 50);
    assert_int_equal(metric(METRIC_SOCKETS), 1);
    for (unsigned i = 1; i < 100; i += 2)
        check_room(room_find(sb->nsp, name_of(i)));
    check_room(sb->nsp->all);
    check_socket(sb);
}

static void a_pin_keeps_members_in_their_places(void **state)
{
    struct sink c, d;
    (void)state;
    struct socket *sc = sink_enter(&w, &c, "/"), *sd = sink_enter(&w, &d, "/");
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_int_equal(room_join(sb, SPAN("red")), 0);
    assert_int_equal(room_join(sc, SPAN("red")), 0);
    struct room *red = room_find(sa->nsp, SPAN("red"));
    room_pin(red);
    room_leave(sa, SPAN("red"));
    assert_null(red->members[0].socket);
    assert_ptr_equal(red->members[1].socket, sb);
    assert_int_equal(room_count(red), 2);
    assert_int_equal(room_join(sd, SPAN("red")), 0); /* behind the end that walks know */
    assert_ptr_equal(red->members[3].socket, sd);
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    assert_ptr_equal(red->members[4].socket, sa);
    check_room(red);
    room_pin(red);
    room_unpin(red);
    assert_int_equal(red->n, 5); /* somebody else still walks */
    room_unpin(red);
    assert_int_equal(red->n, 4);
    assert_int_equal(red->holes, 0);
    check_room(red);
    sink_end(&c);
    sink_end(&d);
}

static void a_pin_keeps_an_empty_room(void **state)
{
    (void)state;
    assert_int_equal(room_join(sa, SPAN("red")), 0);
    struct room *red = room_find(sa->nsp, SPAN("red"));
    room_pin(red);
    room_leave(sa, SPAN("red"));
    assert_ptr_equal(room_find(sa->nsp, SPAN("red")), red);
    assert_int_equal(room_join(sb, SPAN("red")), 0); /* the same one goes on */
    assert_int_equal(room_count(red), 1);
    room_leave(sb, SPAN("red"));
    room_unpin(red);
    assert_null(room_find(sa->nsp, SPAN("red")));
    assert_int_equal(metric(METRIC_ROOMS), 0);
}

/* ---- at random, against a model ---- */

enum { SOCKETS = 24, ROOMS = 12 };

static struct sink crowd[SOCKETS];
static struct socket *member[SOCKETS];
static bool model[SOCKETS][ROOMS];
static unsigned pinned[ROOMS];
static struct room *pinned_room[ROOMS];

static void equals_the_model(void)
{
    unsigned rooms = 0, sockets = 0;
    for (unsigned r = 0; r < ROOMS; r++) {
        struct room *room = room_find(sa->nsp, name_of(r));
        unsigned count = 0;
        for (unsigned i = 0; i < SOCKETS; i++)
            count += model[i][r];
        assert_int_equal(room != NULL, count > 0 || pinned[r] > 0);
        rooms += room != NULL;
        if (!room)
            continue;
        assert_int_equal(room_count(room), count);
        check_room(room);
        for (unsigned i = 0; i < SOCKETS; i++)
            if (member[i])
                assert_int_equal(room_has(room, member[i]), model[i][r]);
    }
    for (unsigned i = 0; i < SOCKETS; i++) {
        if (member[i])
            check_socket(member[i]);
        sockets += member[i] != NULL;
    }
    assert_int_equal(metric(METRIC_ROOMS), rooms);
    assert_int_equal(metric(METRIC_SOCKETS), sockets + 2);
    check_room(sa->nsp->all);
}

static void come_or_go(unsigned i)
{
    if (member[i]) {
        session_close(crowd[i].session, CLOSE_TRANSPORT_CLOSE);
        sink_free(&crowd[i]);
        member[i] = NULL;
        memset(model[i], 0, sizeof(model[i]));
        world_turn(&w);
    } else {
        member[i] = sink_enter(&w, &crowd[i], "/");
    }
}

static void toggle_pin(unsigned r)
{
    struct room *room = room_find(sa->nsp, name_of(r));
    if (room && pinned[r] < 2) {
        room_pin(room);
        pinned_room[r] = room;
        pinned[r]++;
    } else if (pinned[r]) {
        pinned[r]--;
        room_unpin(pinned_room[r]);
    }
}

static void random_coming_and_going_equals_the_model(void **state)
{
    (void)state;
    srand(20261121);
    for (int step = 0; step < 20000; step++) {
        unsigned i = (unsigned)rand() % SOCKETS, r = (unsigned)rand() % ROOMS;
        switch (rand() % 16) {
        case 0:
            come_or_go(i);
            break;
        case 1:
            toggle_pin(r);
            break;
        default:
            if (!member[i])
                break;
            if (rand() % 2) {
                assert_int_equal(room_join(member[i], name_of(r)), 0);
                model[i][r] = true;
            } else {
                room_leave(member[i], name_of(r));
                model[i][r] = false;
            }
        }
        if (step % 16 == 0)
            equals_the_model();
    }
    for (unsigned r = 0; r < ROOMS; r++)
        while (pinned[r]) {
            pinned[r]--;
            room_unpin(pinned_room[r]);
        }
    equals_the_model();
    for (unsigned i = 0; i < SOCKETS; i++)
        if (member[i])
            come_or_go(i);
    equals_the_model();
}

/* ---- emits ---- */

static void says(struct sink *k, const char *expected)
{
    struct span got = sink_text(k);
    if (!span_eq(got, span_of(expected)))
        print_error("got: %.*s\n", (int)got.n, got.p);
    assert_true(span_eq(got, span_of(expected)));
}

static void an_emit_is_one_event_packet(void **state)
{
    struct sink c;
    uint64_t seq;
    (void)state;
    sink_enter(&w, &c, "/chat");
    struct emit e = {.nsp = SPAN("/"), .event = SPAN("\"hi\"")};
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    e.args = SPAN("1,{\"a\":[2]},\"\xc3\xa4\"");
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    e.nsp = SPAN("/chat");
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    world_turn(&w);
    says(&a, "42[\"hi\"]");
    says(&a, "42[\"hi\",1,{\"a\":[2]},\"\xc3\xa4\"]");
    says(&a, "");
    says(&c, "42/chat,[\"hi\",1,{\"a\":[2]},\"\xc3\xa4\"]");
    says(&c, "");
    sink_end(&c);
}

static void attachments_follow_their_event_at_once(void **state)
{
    static char large[70000];
    const struct span attachments[] = {SPAN("\0\x01\x02"), SPAN(""), {large, sizeof(large)}};
    struct sink_frame frame;
    uint64_t seq;
    (void)state;
    memset(large, 'L', sizeof(large));
    struct emit e = {.nsp = SPAN("/"),
                     .event = SPAN("\"file\""),
                     .args = SPAN("{\"_placeholder\":true,\"num\":0}"),
                     .attachments = attachments,
                     .n_attachments = 3};
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    assert_int_equal(sa->session->out.messages, 4);
    world_turn(&w);
    says(&a, "453-[\"file\",{\"_placeholder\":true,\"num\":0}]");
    for (unsigned i = 0; i < 3; i++) {
        assert_true(sink_next(&a, &frame));
        assert_int_equal(frame.opcode, WS_BINARY);
        assert_true(span_eq(frame.payload, attachments[i]));
    }
    assert_false(sink_next(&a, &frame));
}

static void emits_are_numbered_whoever_gets_them(void **state)
{
    uint64_t seq;
    (void)state;
    struct emit e = {.nsp = SPAN("/"), .event = SPAN("\"hi\"")};
    for (uint64_t i = 1; i <= 10; i++) {
        e.nsp = i % 2 ? SPAN("/") : SPAN("/nobody");
        assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
        assert_int_equal(seq, i);
    }
    assert_int_equal(metric(METRIC_EMITS), 10);
    assert_int_equal(metric(METRIC_DELIVERIES), 5 * 2);
    assert_null(hub_find(w.hub, SPAN("/nobody")));
}

static void one_encoding_is_shared_by_all(void **state)
{
    uint64_t seq;
    (void)state;
    struct emit e = {.nsp = SPAN("/"), .event = SPAN("\"hi\"")};
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
    assert_ptr_equal(outq_at(&sa->session->out, 0).p, outq_at(&sb->session->out, 0).p);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_star_allows_all_namespaces_but_the_dashboard),
        TEST(a_list_allows_what_it_names),
        TEST(a_namespace_lives_while_it_has_sockets),
        TEST(the_number_of_namespaces_is_bounded),
        TEST(sockets_are_found_by_their_sid),
        TEST(joins_leaves_and_joins_again),
        TEST(leaving_what_one_is_not_in_does_nothing),
        TEST(names_are_bytes),
        TEST(rooms_belong_to_their_namespace),
        TEST(the_rooms_of_a_socket_are_bounded),
        TEST(whoever_goes_leaves_all_rooms),
        TEST(a_pin_keeps_members_in_their_places),
        TEST(a_pin_keeps_an_empty_room),
        TEST(random_coming_and_going_equals_the_model),
        TEST(an_emit_is_one_event_packet),
        TEST(attachments_follow_their_event_at_once),
        TEST(emits_are_numbered_whoever_gets_them),
        TEST(one_encoding_is_shared_by_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
