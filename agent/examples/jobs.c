/* A queue of jobs. Workers share the address "jobs"; each job goes to the one with the fewest. A job is a number, its
 * result how many primes lie below it. It is counted in a thread of its own, so that heartbeats go on.
 *
 * usage: jobs work [ENDPOINTS] | jobs count N [ENDPOINTS] */
#include <pthread.h>
#include <starling.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct starling *bus;
struct job {
    struct starling_ref ref;
    long below, primes;
};

/* In the agent's thread. */
static void on_counted(void *user)
{
    struct job *job = user;
    char text[24];
    int n = snprintf(text, sizeof(text), "%ld", job->primes);
    starling_reply_body(bus, job->ref, (struct starling_bytes){text, (size_t)n}, false);
    free(job);
}

static void *count(void *user)
{
    struct job *job = user;
    for (long n = 2; n < job->below; n++) {
        long divisor = 2;
        while (divisor * divisor <= n && n % divisor != 0)
            divisor++;
        job->primes += divisor * divisor > n;
    }
    starling_post(bus, on_counted, job);
    return NULL;
}

static void on_ask(void *user, const struct starling_message *m)
{
    struct job *job = malloc(sizeof(*job));
    pthread_t thread;
    (void)user;
    *job = (struct job){m->ref, strtol(m->body, NULL, 10), 0};
    if (job->below > 0 && job->below <= 10000000 && pthread_create(&thread, NULL, count, job) == 0) {
        pthread_detach(thread);
        return;
    }
    starling_fail(bus, m->ref, "job", "a job is a number up to ten millions", NULL);
    free(job);
}

static int ask(const char *number)
{
    const struct starling_answer *answer;
    starling_ask(bus, "jobs", (struct starling_bytes){number, strlen(number)}, false, 30000, STARLING_WAITED);
    int err = starling_wait(bus, 31000, &answer);
    if (err == STARLING_OK)
        puts(answer->body);
    else
        fprintf(stderr, "jobs: %s\n", err == STARLING_REFUSED ? answer->text : starling_strerror(err));
    return err;
}

int main(int argc, char **argv)
{
    int at = argc > 1 && strcmp(argv[1], "work") == 0 ? 2 : 3; /* where the endpoints are */
    if (argc < at || (at == 3 && strcmp(argv[1], "count") != 0)) {
        fprintf(stderr, "usage: jobs work [ENDPOINTS] | jobs count N [ENDPOINTS]\n");
        return 2;
    }
    struct starling_options o = {.name = "jobs", .endpoints = argc > at ? argv[at] : "tcp://127.0.0.1:7800"};
    struct starling_actor actor = {.address = "jobs", .shared = true, .on_ask = on_ask};
    bus = starling_new(&o);
    int err = !bus || (at == 2 && starling_register(bus, &actor) < 0) ? 1 : at == 2 ? starling_run(bus) : ask(argv[2]);
    starling_free(&bus);
    return err != 0;
}
