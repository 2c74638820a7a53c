/* The event loop: its phases and their order, removal within a batch, mail, stopping, ownership. */
#include "container.h"
#include "err.h"
#include "reactor.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct reactor *r;
static char trace[256];

static void note(char c)
{
    size_t n = strlen(trace);

    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
    trace[n + 1] = '\0';
}

static int set_up(void **state)
{
    (void)state;
    trace[0] = '\0';
    r = reactor_new();
    return r ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    reactor_free(&r);
    return r ? -1 : 0;
}

static void stop_now(struct timer *t)
{
    (void)t;
    reactor_stop(r);
}

static void run_for(uint64_t ms)
{
    struct timer end;

    timer_init(&end, stop_now);
    reactor_timer_set(r, &end, ms);
    assert_int_equal(reactor_run(r), 0);
    reactor_timer_cancel(r, &end);
}

/* A task that notes its name and then does one thing more. */
struct step {
    struct reactor_task task;
    char name;
    void (*then)(struct step *s);
    struct step *other;
    int count;
};

static void run_step(struct reactor_task *task)
{
    struct step *s = container_of(task, struct step, task);

    note(s->name);
    if (s->then)
        s->then(s);
}

static struct step step(char name, void (*then)(struct step *), struct step *other)
{
    return (struct step){.task = {.run = run_step}, .name = name, .then = then, .other = other};
}

static void then_stop(struct step *s)
{
    (void)s;
    reactor_stop(r);
}

static void then_work(struct step *s)
{
    reactor_defer(r, &s->other->task, REACTOR_WORK);
}

static void then_flush(struct step *s)
{
    reactor_defer(r, &s->other->task, REACTOR_FLUSH);
}

static void then_again(struct step *s)
{
    if (++s->count < 3)
        reactor_defer(r, &s->task, REACTOR_WORK);
    else
        reactor_stop(r);
}

static void then_undefer_work(struct step *s)
{
    reactor_undefer(r, &s->other->task, REACTOR_WORK);
}

static void flush_runs_after_all_work_of_the_turn(void **state)
{
    struct step end = step('E', then_stop, NULL);
    struct step late_flush = step('y', then_work, &end);
    struct step flush = step('x', then_flush, &late_flush);
    struct step second = step('b', NULL, NULL);
    struct step first = step('a', then_flush, &flush);

    (void)state;
    reactor_defer(r, &first.task, REACTOR_WORK);
    reactor_defer(r, &second.task, REACTOR_WORK);
    reactor_defer(r, &first.task, REACTOR_WORK); /* queued already */
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "abxyE");
}

static void work_queued_by_work_waits_for_the_next_turn(void **state)
{
    struct step mark = step('|', NULL, NULL);
    struct step again = step('w', then_again, NULL);
    struct step first = step('a', then_flush, &mark);
    struct reactor_stats stats;

    (void)state;
    reactor_defer(r, &first.task, REACTOR_WORK);
    reactor_defer(r, &again.task, REACTOR_WORK);
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "aw|ww");
    reactor_take_stats(r, &stats);
    assert_int_equal(stats.turns, 3);
}

static void a_task_taken_back_does_not_run(void **state)
{
    struct step end = step('E', then_stop, NULL);
    struct step last = step('d', NULL, NULL);
    struct step third = step('c', NULL, NULL);
    struct step second = step('b', NULL, NULL);
    struct step killer = step('k', then_undefer_work, &last);

    (void)state;
    reactor_undefer(r, &end.task, REACTOR_FLUSH);
    reactor_defer(r, &killer.task, REACTOR_WORK);
    reactor_defer(r, &second.task, REACTOR_WORK);
    reactor_defer(r, &third.task, REACTOR_WORK);
    reactor_defer(r, &last.task, REACTOR_WORK); /* taken back by k, at the tail of the running list */
    reactor_undefer(r, &second.task, REACTOR_WORK);
    assert_false(second.task.queued);
    reactor_defer(r, &end.task, REACTOR_FLUSH);
    reactor_undefer(r, &end.task, REACTOR_FLUSH);
    reactor_defer(r, &end.task, REACTOR_FLUSH);
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "kcE");
}

static void then_requeue_at_the_tail(struct step *s)
{
    reactor_undefer(r, &s->other->task, REACTOR_WORK);
    reactor_defer(r, &s->other->task, REACTOR_WORK);
}

static void a_task_moved_while_work_runs_waits_for_the_next_turn(void **state)
{
    struct step mark = step('|', NULL, NULL);
    struct step end = step('E', then_stop, NULL);
    struct step mover = step('m', then_requeue_at_the_tail, &end);

    (void)state;
    reactor_defer(r, &mover.task, REACTOR_WORK);
    reactor_defer(r, &end.task, REACTOR_WORK);
    reactor_defer(r, &mark.task, REACTOR_FLUSH);
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "m|E");
}

/* An eventfd that is always ready once raised. */
struct source {
    struct reactor_io io;
    struct source **others;
    size_t n_others;
    int calls;
};

static struct source *source_new(void (*on_ready)(struct reactor_io *, uint32_t))
{
    struct source *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->io = (struct reactor_io){.on_ready = on_ready, .fd = eventfd(1, EFD_NONBLOCK)};
    assert_true(s->io.fd >= 0);
    assert_int_equal(reactor_add(r, &s->io, EPOLLIN), 0);
    return s;
}

static void source_free(struct source *s)
{
    reactor_remove(r, &s->io);
    close(s->io.fd);
    free(s);
}

static void on_first_ready(struct reactor_io *io, uint32_t epoll_events)
{
    struct source *s = container_of(io, struct source, io), **all = s->others;
    size_t n = s->n_others;

    assert_int_equal(epoll_events, EPOLLIN);
    note('r');
    for (size_t i = 0; i < n; i++)
        source_free(all[i]);
}

static void the_first_may_free_all_that_are_ready(void **state)
{
    enum { N = 100 };
    struct source *all[N];

    (void)state;
    for (size_t i = 0; i < N; i++) {
        all[i] = source_new(on_first_ready);
        all[i]->others = all;
        all[i]->n_others = N;
    }
    run_for(5);
    assert_string_equal(trace, "r");
}

static void on_ready_note(struct reactor_io *io, uint32_t epoll_events)
{
    struct source *s = container_of(io, struct source, io);

    note(epoll_events & EPOLLIN ? 'i' : 'o');
    if (++s->calls == 1)
        assert_int_equal(reactor_modify(r, io, EPOLLOUT), 0);
    else
        reactor_stop(r);
}

static void modify_changes_what_is_waited_for(void **state)
{
    struct source *s = source_new(on_ready_note);
    struct reactor_io bad = {.on_ready = on_ready_note, .fd = -1};

    (void)state;
    assert_int_equal(reactor_add(r, &bad, EPOLLIN), ERR_SYSTEM);
    assert_int_equal(reactor_add(r, &s->io, EPOLLIN), ERR_SYSTEM);
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "io");
    source_free(s);
}

static void note_event(struct reactor_io *io, uint32_t epoll_events)
{
    (void)epoll_events;
    note('e');
    reactor_remove(r, io);
}

static void note_timer(struct timer *t)
{
    (void)t;
    note('t');
}

static void note_mail(struct mail *mail)
{
    (void)mail;
    note('m');
}

static void a_turn_has_its_order(void **state)
{
    struct step flush = step('f', then_stop, NULL), work = step('w', NULL, NULL);
    struct timer timer;
    struct mail mail = {.on_delivery = note_mail};
    struct reactor_io io = {.on_ready = note_event, .fd = eventfd(1, EFD_NONBLOCK)};

    (void)state;
    timer_init(&timer, note_timer);
    reactor_defer(r, &flush.task, REACTOR_FLUSH);
    reactor_defer(r, &work.task, REACTOR_WORK);
    reactor_post(r, &mail);
    reactor_timer_set(r, &timer, 0);
    assert_int_equal(reactor_add(r, &io, EPOLLIN), 0);
    assert_int_equal(reactor_run(r), 0);
    assert_string_equal(trace, "etmwf");
    close(io.fd);
}

struct reading {
    struct timer timer;
    uint64_t set_at, after, now;
};

static void on_reading(struct timer *t)
{
    struct reading *reading = container_of(t, struct reading, timer);

    reading->now = reactor_now_ms(r);
    assert_int_equal(reactor_now_ms(r), reading->now);
}

static void timers_are_never_early(void **state)
{
    struct reading readings[20];

    (void)state;
    for (size_t i = 0; i < 20; i++) {
        timer_init(&readings[i].timer, on_reading);
        readings[i].set_at = reactor_now_ms(r);
        readings[i].after = 20 - i;
        readings[i].now = 0;
        reactor_timer_set(r, &readings[i].timer, readings[i].after);
    }
    run_for(21);
    for (size_t i = 0; i < 20; i++)
        assert_true(readings[i].now >= readings[i].set_at + readings[i].after);
}

static void an_endless_timer_does_not_overflow(void **state)
{
    struct timer timer;

    (void)state;
    timer_init(&timer, note_timer);
    reactor_timer_set(r, &timer, UINT64_MAX);
    run_for(3);
    assert_string_equal(trace, "");
    assert_true(timer_pending(&timer));
    reactor_timer_cancel(r, &timer);
}

static void a_sleeping_loop_does_not_turn(void **state)
{
    struct reactor_stats stats;

    (void)state;
    run_for(100);
    reactor_take_stats(r, &stats);
    /* One cascade of the wheel or two, and the timer itself. */
    assert_true(stats.turns <= 5);
}

static void burn_two_ms(struct step *s)
{
    struct timespec t;
    uint64_t start, now;

    (void)s;
    clock_gettime(CLOCK_MONOTONIC, &t);
    start = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    do {
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    } while (now - start < 2000000);
    reactor_stop(r);
}

static void stats_tell_busy_time_and_the_longest_turn_since_the_last_look(void **state)
{
    struct step burn = step('b', burn_two_ms, NULL);
    struct reactor_stats stats;

    (void)state;
    reactor_defer(r, &burn.task, REACTOR_WORK);
    assert_int_equal(reactor_run(r), 0);
    reactor_take_stats(r, &stats);
    assert_int_equal(stats.turns, 1);
    assert_true(stats.busy_us >= 2000 && stats.max_turn_us >= 2000);
    reactor_take_stats(r, &stats);
    assert_true(stats.busy_us >= 2000);
    assert_int_equal(stats.max_turn_us, 0);
}

enum { SENDERS = 3, LETTERS = 20000 };

struct letter {
    struct mail mail;
    int sender, number;
};

static int next_number[SENDERS], delivered;

static void on_letter(struct mail *mail)
{
    struct letter *letter = container_of(mail, struct letter, mail);

    reactor_check_owner(r);
    assert_int_equal(letter->number, next_number[letter->sender]);
    next_number[letter->sender]++;
    free(letter);
    if (++delivered == SENDERS * LETTERS)
        reactor_stop(r);
}

static void *post_letters(void *arg)
{
    int sender = *(int *)arg;

    for (int i = 0; i < LETTERS; i++) {
        struct letter *letter = malloc(sizeof *letter);
        if (!letter)
            abort();
        *letter = (struct letter){.mail = {.on_delivery = on_letter}, .sender = sender, .number = i};
        reactor_post(r, &letter->mail);
    }
    return NULL;
}

static void mail_of_many_threads_arrives_in_order(void **state)
{
    pthread_t threads[SENDERS];
    int numbers[SENDERS];

    (void)state;
    delivered = 0;
    for (int i = 0; i < SENDERS; i++) {
        numbers[i] = i;
        next_number[i] = 0;
        assert_int_equal(pthread_create(&threads[i], NULL, post_letters, &numbers[i]), 0);
    }
    assert_int_equal(reactor_run(r), 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(delivered, SENDERS * LETTERS);
}

static struct mail second_letter = {.on_delivery = note_mail};

static void post_another(struct mail *mail)
{
    (void)mail;
    note('p');
    reactor_check_owner(r);
    reactor_post(r, &second_letter);
}

static void *run_reactor(void *arg)
{
    (void)arg;
    if (reactor_run(r) != 0)
        abort();
    return NULL;
}

static void undelivered_mail_is_delivered_before_the_end(void **state)
{
    struct mail mail = {.on_delivery = post_another};
    pthread_t thread;

    (void)state;
    /* The thread that ran the loop is gone: the one that frees owns the rest. */
    assert_int_equal(pthread_create(&thread, NULL, run_reactor, NULL), 0);
    reactor_stop(r);
    pthread_join(thread, NULL);
    reactor_post(r, &mail);
    reactor_free(&r);
    assert_null(r);
    assert_string_equal(trace, "pm");
    reactor_free(&r);
}

static void on_signal(int number)
{
    if (number == SIGUSR2)
        reactor_stop(r);
}

static void *send_signals(void *arg)
{
    pthread_t target = *(pthread_t *)arg;

    for (int i = 0; i < 50; i++)
        pthread_kill(target, SIGUSR1);
    pthread_kill(target, SIGUSR2);
    return NULL;
}

static void a_signal_interrupts_harmlessly_and_may_stop(void **state)
{
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t main_thread = pthread_self(), thread;

    (void)state;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    assert_int_equal(pthread_create(&thread, NULL, send_signals, &main_thread), 0);
    assert_int_equal(reactor_run(r), 0);
    pthread_join(thread, NULL);
}

static void a_stop_before_the_start_counts_once(void **state)
{
    struct reactor_stats stats;

    (void)state;
    errno = EXDEV;
    reactor_stop(r);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(reactor_run(r), 0);
    reactor_take_stats(r, &stats);
    assert_int_equal(stats.turns, 1);
    run_for(3);
    reactor_take_stats(r, &stats);
    assert_true(stats.turns > 1);
}

static void *use_from_elsewhere(void *arg)
{
    struct step *s = arg;

    reactor_defer(r, &s->task, REACTOR_WORK);
    return NULL;
}

static void a_foreign_thread_is_caught(void **state)
{
    pid_t child = fork();
    int status = 0;

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        struct step s = step('s', NULL, NULL);
        pthread_t thread;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr) || pthread_create(&thread, NULL, use_from_elsewhere, &s) != 0)
            _exit(2);
        pthread_join(thread, NULL);
        _exit(3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(flush_runs_after_all_work_of_the_turn),
        TEST(work_queued_by_work_waits_for_the_next_turn),
        TEST(a_task_taken_back_does_not_run),
        TEST(a_task_moved_while_work_runs_waits_for_the_next_turn),
        TEST(the_first_may_free_all_that_are_ready),
        TEST(modify_changes_what_is_waited_for),
        TEST(a_turn_has_its_order),
        TEST(timers_are_never_early),
        TEST(an_endless_timer_does_not_overflow),
        TEST(a_sleeping_loop_does_not_turn),
        TEST(stats_tell_busy_time_and_the_longest_turn_since_the_last_look),
        TEST(mail_of_many_threads_arrives_in_order),
        TEST(undelivered_mail_is_delivered_before_the_end),
        TEST(a_signal_interrupts_harmlessly_and_may_stop),
        TEST(a_stop_before_the_start_counts_once),
        TEST(a_foreign_thread_is_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
