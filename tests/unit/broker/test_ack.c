/* Acknowledgements that clients owe: all come, some never, some twice, some from those who were not asked. */
#include "ack.h"
#include "container.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PEOPLE = 4, LARGE = 4000 };

static struct world w;
static struct sink people[PEOPLE];
static struct socket *member[PEOPLE];

/* A wait that notes what it is told. */
struct collector {
    struct ack_wait wait;
    unsigned acks, done;
    char text[256];
    struct socket *last;
    unsigned attachments;
    bool frees_itself;
};

static struct collector all;
static unsigned freed;

static void on_ack(struct ack_wait *wait, struct socket *from, struct span args,
                   const struct span *attachments, unsigned n_attachments)
{
    struct collector *c = container_of(wait, struct collector, wait);
    size_t n = strlen(c->text);
    c->acks++;
    c->last = from;
    c->attachments = n_attachments;
    for (unsigned i = 0; i < n_attachments; i++)
        assert_true(attachments[i].n > 0);
    snprintf(c->text + n, sizeof(c->text) - n, "[%.*s]", (int)args.n, args.p);
}

static void on_done(struct ack_wait *wait)
{
    struct collector *c = container_of(wait, struct collector, wait);
    c->done++;
    if (c->frees_itself) {
        freed++;
        free(c);
    }
}

static int set_up(void **state)
{
    (void)state;
    memset(&all, 0, sizeof(all));
    freed = 0;
    world_start(&w, NULL, "*");
    for (unsigned i = 0; i < PEOPLE; i++)
        member[i] = sink_enter(&w, &people[i], "/");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_stop(&w);
    for (unsigned i = 0; i < PEOPLE; i++)
        sink_free(&people[i]);
    return 0;
}

static void ask_with(struct collector *c, struct emit e, uint32_t timeout_ms)
{
    uint64_t seq;
    c->wait.on_ack = on_ack;
    c->wait.on_done = on_done;
    ack_wait_start(&c->wait, w.hub, timeout_ms);
    e.nsp = e.nsp.n ? e.nsp : SPAN("/");
    e.event = SPAN("\"ask\"");
    e.wait = &c->wait;
    assert_int_equal(hub_emit(w.hub, &e, &seq), 0);
}

static void ask(struct emit e, uint32_t timeout_ms)
{
    ask_with(&all, e, timeout_ms);
}

static bool is_done(void *collector)
{
    return ((struct collector *)collector)->done > 0;
}

static void says(struct sink *k, const char *expected)
{
    struct span got = sink_text(k);
    assert_true(span_eq(got, span_of(expected)));
}

static void all_answer(void **state)
{
    (void)state;
    ask((struct emit){0}, 60000);
    world_turn(&w);
    for (unsigned i = 0; i < PEOPLE; i++)
        says(&people[i], "420[\"ask\"]");
    for (unsigned i = 0; i < PEOPLE; i++) {
        char text[16];
        assert_int_equal(all.done, 0);
        snprintf(text, sizeof(text), "30[%u]", i);
        sink_says(&people[i], text);
        assert_ptr_equal(all.last, member[i]);
    }
    assert_int_equal(all.done, 0); /* never from inside of the last answer */
    world_until(&w, is_done, &all);
    assert_string_equal(all.text, "[0][1][2][3]");
    assert_int_equal(all.done, 1);
    assert_int_equal(all.wait.missing, 0);
    world_turn(&w);
    assert_int_equal(all.done, 1);
    assert_false(timer_pending(&all.wait.timeout));
}

static void an_answer_may_be_empty_or_binary(void **state)
{
    (void)state;
    ask((struct emit){0}, 60000);
    sink_says(&people[0], "30[]");
    sink_says(&people[1], "30[{\"a\":[1,2]},\"b\"]");
    sink_says(&people[2], "62-0[{\"_placeholder\":true,\"num\":1}]");
    session_receive_binary(people[2].session, SPAN("one"));
    session_receive_binary(people[2].session, SPAN("two"));
    assert_int_equal(all.attachments, 2);
    sink_says(&people[3], "30[null]");
    world_until(&w, is_done, &all);
    assert_string_equal(all.text, "[][{\"a\":[1,2]},\"b\"][{\"_placeholder\":true,\"num\":1}][null]");
}

static void nobody_is_asked(void **state)
{
    struct span to = SPAN("no such room");
    struct collector here = {0}, nowhere = {0};
    (void)state;
    ask_with(&here, (struct emit){.to = &to, .n_to = 1}, 60000);
    ask_with(&nowhere, (struct emit){.nsp = SPAN("/nowhere")}, 60000);
    assert_int_equal(here.done + nowhere.done, 0); /* not from inside of the emit */
    world_until(&w, is_done, &here);
    world_until(&w, is_done, &nowhere);
    assert_int_equal(here.wait.missing, 0);
    assert_int_equal(nowhere.wait.missing, 0);
}

static void those_who_leave_are_missing(void **state)
{
    (void)state;
    ask((struct emit){0}, 60000);
    sink_says(&people[0], "30[0]");
    session_close(people[1].session, CLOSE_TRANSPORT_CLOSE); /* the connection */
    sink_says(&people[2], "1");                              /* the namespace only */
    assert_int_equal(all.done, 0);
    socket_disconnect(member[3], false); /* thrown out */
    world_until(&w, is_done, &all);
    assert_int_equal(all.acks, 1);
    assert_int_equal(all.wait.missing, 3);
    assert_int_equal(all.done, 1);
}

static void those_who_are_silent_are_missing_after_the_timeout(void **state)
{
    (void)state;
    uint64_t from = reactor_now_ms(w.reactor);
    ask((struct emit){0}, 30);
    sink_says(&people[0], "30[0]");
    world_until(&w, is_done, &all);
    assert_true(reactor_now_ms(w.reactor) >= from + 30);
    assert_int_equal(all.acks, 1);
    assert_int_equal(all.wait.missing, 3);
    sink_says(&people[1], "30[\"late\"]");
    assert_int_equal(all.acks, 1);
    for (unsigned i = 0; i < PEOPLE; i++)
        assert_null(member[i]->acks);
}

static void a_second_answer_does_not_count(void **state)
{
    (void)state;
    ask((struct emit){0}, 60000);
    sink_says(&people[0], "30[1]");
    sink_says(&people[0], "30[2]");
    sink_says(&people[0], "30[3]");
    sink_says(&people[0], "30[4]");
    assert_int_equal(all.acks, 1);
    assert_int_equal(all.done, 0);
    for (unsigned i = 1; i < PEOPLE; i++)
        sink_says(&people[i], "30[]");
    world_until(&w, is_done, &all);
    assert_string_equal(all.text, "[1][][][]");
}

static void answers_that_nobody_asked_for_are_ignored(void **state)
{
    struct span to = {member[0]->sid, ID_CHARS};
    (void)state;
    sink_says(&people[0], "30[\"before\"]");
    ask((struct emit){.to = &to, .n_to = 1}, 60000);
    sink_says(&people[0], "31[\"another id\"]");
    sink_says(&people[0], "318446744073709551615[]");
    sink_says(&people[0], "3[\"no id\"]");
    sink_says(&people[0], "30"); /* without a payload it is an answer of the reference, too */
    sink_says(&people[1], "30[\"was not asked\"]");
    for (unsigned i = 0; i < PEOPLE; i++)
        assert_int_equal(people[i].closes, 0);
    assert_string_equal(all.text, "[]");
    world_until(&w, is_done, &all);
}

static void waits_have_ids_of_their_own(void **state)
{
    struct collector first = {0}, second = {0};
    (void)state;
    ask_with(&first, (struct emit){0}, 60000);
    ask_with(&second, (struct emit){0}, 60000);
    world_turn(&w);
    says(&people[0], "420[\"ask\"]");
    says(&people[0], "421[\"ask\"]");
    for (unsigned i = 0; i < PEOPLE; i++)
        sink_says(&people[i], "31[\"second\"]");
    world_until(&w, is_done, &second);
    assert_int_equal(first.done, 0);
    assert_int_equal(first.acks, 0);
    for (unsigned i = 0; i < PEOPLE; i++)
        sink_says(&people[i], "30[\"first\"]");
    world_until(&w, is_done, &first);
    assert_int_equal(second.acks, PEOPLE);
}

static void a_wait_may_be_cancelled(void **state)
{
    (void)state;
    ask((struct emit){0}, 1);
    sink_says(&people[0], "30[]");
    ack_wait_cancel(&all.wait);
    assert_false(timer_pending(&all.wait.timeout));
    sink_says(&people[1], "30[]");
    session_close(people[2].session, CLOSE_TRANSPORT_CLOSE);
    world_turn(&w);
    assert_int_equal(all.acks, 1);
    assert_int_equal(all.done, 0);
    for (unsigned i = 0; i < PEOPLE; i++)
        assert_true(i == 2 || !member[i]->acks);
}

static void a_wait_that_was_not_used_may_be_cancelled(void **state)
{
    (void)state;
    ack_wait_start(&all.wait, w.hub, 1);
    ack_wait_cancel(&all.wait);
    ack_wait_cancel(&all.wait);
    world_turn(&w);
    assert_int_equal(all.done, 0);
}

static void a_wait_may_free_itself_when_it_is_done(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct collector *c = calloc(1, sizeof(*c));
        assert_non_null(c);
        c->frees_itself = true;
        ask_with(c, (struct emit){0}, i == 0 ? 1 : 60000);
        for (unsigned k = 0; i > 0 && k < PEOPLE; k++) {
            char text[16];
            snprintf(text, sizeof(text), "3%u[]", i);
            sink_says(&people[k], text);
        }
    }
    while (freed < 3)
        world_turn(&w);
}

/* The wait is over before everybody has been asked: it must not go while the fan-out refers to it. */
static void a_timeout_waits_for_the_last_one_to_be_asked(void **state)
{
    static struct sink crowd[LARGE];
    struct collector *c = calloc(1, sizeof(*c));
    (void)state;
    assert_non_null(c);
    for (unsigned i = 0; i < LARGE; i++)
        sink_enter(&w, &crowd[i], "/");
    world_turn(&w);
    c->frees_itself = true;
    ask_with(c, (struct emit){0}, 0);
    unsigned turns = 0;
    for (; !c->wait.all_sent; turns++) {
        world_turn(&w);
        assert_int_equal(freed, 0);
    }
    assert_true(turns > 1);
    while (!freed)
        world_turn(&w);
    for (unsigned i = 0; i < LARGE; i++) {
        says(&crowd[i], "420[\"ask\"]");
        sink_end(&crowd[i]);
    }
}

static void answers_that_come_while_others_are_still_being_asked(void **state)
{
    static struct sink crowd[LARGE];
    unsigned answered = 0;
    (void)state;
    for (unsigned i = 0; i < LARGE; i++)
        sink_enter(&w, &crowd[i], "/");
    world_turn(&w);
    struct span lobby = SPAN("lobby");
    for (unsigned i = 0; i < PEOPLE; i++)
        assert_int_equal(room_join(member[i], lobby), 0);
    ask((struct emit){.except = &lobby, .n_except = 1}, 60000);
    while (answered < LARGE) {
        for (unsigned i = 0; i < LARGE; i++) {
            if (sink_text(&crowd[i]).n) {
                assert_int_equal(all.done, 0);
                sink_says(&crowd[i], "30[]");
                answered++;
            }
        }
        world_turn(&w);
    }
    world_until(&w, is_done, &all);
    assert_int_equal(all.acks, LARGE);
    assert_int_equal(all.wait.missing, 0);
    for (unsigned i = 0; i < LARGE; i++)
        sink_end(&crowd[i]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(all_answer),
        TEST(an_answer_may_be_empty_or_binary),
        TEST(nobody_is_asked),
        TEST(those_who_leave_are_missing),
        TEST(those_who_are_silent_are_missing_after_the_timeout),
        TEST(a_second_answer_does_not_count),
        TEST(answers_that_nobody_asked_for_are_ignored),
        TEST(waits_have_ids_of_their_own),
        TEST(a_wait_may_be_cancelled),
        TEST(a_wait_that_was_not_used_may_be_cancelled),
        TEST(a_wait_may_free_itself_when_it_is_done),
        TEST(a_timeout_waits_for_the_last_one_to_be_asked),
        TEST(answers_that_come_while_others_are_still_being_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
