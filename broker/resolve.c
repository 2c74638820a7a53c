#include "resolve.h"
#include "container.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The owner, and the thread or the mail that comes of it, hold one reference each. The thread may outlive the
 * reactor: it posts only under the lock, and not when the owner has gone. */
struct resolve {
    struct mail mail;
    struct reactor *reactor;
    resolve_done *done;
    void *user;
    pthread_mutex_t lock;
    bool is_ended;
    unsigned refs;
    char name[256];
    unsigned n;
    char address[RESOLVE_ADDRESSES][RESOLVE_TEXT_BYTES];
    char why[128];
};

static void unref(struct resolve *r)
{
    pthread_mutex_lock(&r->lock);
    bool is_last = --r->refs == 0;
    pthread_mutex_unlock(&r->lock);
    if (!is_last)
        return;
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void on_delivery(struct mail *mail)
{
    struct resolve *r = container_of(mail, struct resolve, mail);
    if (!r->is_ended)
        r->done(r->user, (const char(*)[RESOLVE_TEXT_BYTES])r->address, r->n, r->n ? NULL : r->why);
    unref(r);
}

static void keep(struct resolve *r, const struct addrinfo *found)
{
    for (; found && r->n < RESOLVE_ADDRESSES; found = found->ai_next)
        if (getnameinfo(found->ai_addr, found->ai_addrlen, r->address[r->n], RESOLVE_TEXT_BYTES, NULL, 0,
                        NI_NUMERICHOST) == 0)
            r->n++;
    if (r->n == 0)
        snprintf(r->why, sizeof(r->why), "the name has no address");
}

static void look_up(struct resolve *r, int flags)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(r->name, NULL, &hints, &found);
    if (failure)
        snprintf(r->why, sizeof(r->why), "%s", gai_strerror(failure));
    else
        keep(r, found);
    if (found)
        freeaddrinfo(found);
}

static void *run(void *arg)
{
    struct resolve *r = arg;
    look_up(r, 0);
    pthread_mutex_lock(&r->lock);
    bool is_posted = !r->is_ended;
    if (is_posted)
        reactor_post(r->reactor, &r->mail);
    pthread_mutex_unlock(&r->lock);
    if (!is_posted)
        unref(r);
    return NULL;
}

/* Signals are the main thread's. */
static int start_thread(struct resolve *r)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failure = pthread_create(&thread, &attributes, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failure;
}

static bool is_address(const char *name)
{
    char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

struct resolve *resolve_start(struct reactor *reactor, const char *name, resolve_done *done, void *user)
{
    struct resolve *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->mail.on_delivery = on_delivery;
    r->reactor = reactor;
    r->done = done;
    r->user = user;
    r->refs = 2;
    pthread_mutex_init(&r->lock, NULL);
    snprintf(r->name, sizeof(r->name), "%s", name);
    if (is_address(name)) {
        look_up(r, AI_NUMERICHOST);
        reactor_post(reactor, &r->mail);
    } else if (start_thread(r)) {
        pthread_mutex_destroy(&r->lock);
        free(r);
        return NULL;
    }
    return r;
}

void resolve_end(struct resolve **rp)
{
    struct resolve *r = *rp;
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_ended = true;
    pthread_mutex_unlock(&r->lock);
    *rp = NULL;
    unref(r);
}
