/* The mailbox: order, one signal for a box that was empty, nothing lost between four threads. */
#include "container.h"
#include "mailbox.h"
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SENDERS = 4, LETTERS = 100000 };

struct letter {
    struct mail mail;
    unsigned sender, number;
};

static void takes_in_the_order_of_posting(void **state)
{
    struct mailbox box;
    struct mail a, b, c;
    struct mail *taken;

    (void)state;
    assert_int_equal(mailbox_init(&box), 0);
    assert_null(mailbox_take(&box));
    mailbox_post(&box, &a);
    mailbox_post(&box, &b);
    mailbox_post(&box, &c);
    taken = mailbox_take(&box);
    assert_ptr_equal(taken, &a);
    assert_ptr_equal(taken->next, &b);
    assert_ptr_equal(taken->next->next, &c);
    assert_null(c.next);
    assert_null(mailbox_take(&box));
    mailbox_deinit(&box);
}

static void signals_once_until_it_is_emptied(void **state)
{
    struct mailbox box;
    struct mail a, b;
    eventfd_t count = 0;

    (void)state;
    assert_int_equal(mailbox_init(&box), 0);
    assert_int_equal(eventfd_read(box.event_fd, &count), -1);
    mailbox_post(&box, &a);
    mailbox_post(&box, &b);
    assert_int_equal(eventfd_read(box.event_fd, &count), 0);
    assert_int_equal(count, 1);
    assert_ptr_equal(mailbox_take(&box), &a);

    mailbox_post(&box, &a);
    assert_ptr_equal(mailbox_take(&box), &a);
    assert_int_equal(eventfd_read(box.event_fd, &count), -1);
    mailbox_deinit(&box);
}

struct sender {
    pthread_t thread;
    struct mailbox *box;
    struct letter *letters;
    unsigned number;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;

    for (unsigned i = 0; i < LETTERS; i++) {
        s->letters[i].sender = s->number;
        s->letters[i].number = i;
        mailbox_post(s->box, &s->letters[i].mail);
    }
    return NULL;
}

static void four_senders_lose_nothing(void **state)
{
    struct mailbox box;
    struct sender senders[SENDERS];
    unsigned next[SENDERS] = {0}, total = 0;

    (void)state;
    assert_int_equal(mailbox_init(&box), 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.box = &box, .number = i};
        senders[i].letters = calloc(LETTERS, sizeof *senders[i].letters);
        assert_non_null(senders[i].letters);
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    while (total < SENDERS * LETTERS) {
        /* A lost signal would show here: the time-out is for a failing run only. */
        struct pollfd ready = {.fd = box.event_fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 60000), 1);
        for (struct mail *mail = mailbox_take(&box); mail; mail = mail->next) {
            struct letter *letter = container_of(mail, struct letter, mail);
            assert_int_equal(letter->number, next[letter->sender]);
            next[letter->sender]++;
            total++;
        }
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
        free(senders[i].letters);
    }
    assert_null(mailbox_take(&box));
    mailbox_deinit(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_in_the_order_of_posting),
        cmocka_unit_test(signals_once_until_it_is_emptied),
        cmocka_unit_test(four_senders_lose_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
