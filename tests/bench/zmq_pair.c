/* What libzmq can do at best between two processes: a PUB and a SUB in each over ipc, one sends, the other sends back what
 * it receives; both wait in libzmq itself, with no loop around it. Prints one line of JSON as the load client does. */
#include "lib/hist.h"
#include "lib/util.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#define MESSAGE_BYTES 128
#define INFLIGHT_MAX  1024
#define SETTLE_US     300000 /* until both subscriptions are known at the other end */
#define TIMEOUT_MS    10000

struct end {
    void *context, *pub, *sub;
};

static void pin(long core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        die_usage("core %ld: there is no such core", core);
}

static void must(int rc, const char *what)
{
    if (rc < 0)
        die("%s: %s", what, zmq_strerror(zmq_errno()));
}

/* The I/O thread is made after the process was pinned, so it runs on the same core, as that of a node does. */
static struct end open_end(const char *dir, char own, char other)
{
    char endpoint[4096];
    const int timeout_ms = TIMEOUT_MS, unlimited = 0;
    struct end e = {.context = zmq_ctx_new()};
    e.pub = zmq_socket(e.context, ZMQ_PUB);
    e.sub = zmq_socket(e.context, ZMQ_SUB);
    if (!e.pub || !e.sub)
        die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    /* A PUB learns late that its messages were taken: at full speed any mark is reached, and it drops. */
    must(zmq_setsockopt(e.pub, ZMQ_SNDHWM, &unlimited, sizeof(unlimited)), "ZMQ_SNDHWM");
    must(zmq_setsockopt(e.sub, ZMQ_RCVHWM, &unlimited, sizeof(unlimited)), "ZMQ_RCVHWM");
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/%c", dir, own);
    must(zmq_bind(e.pub, endpoint), endpoint);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/%c", dir, other);
    must(zmq_setsockopt(e.sub, ZMQ_SUBSCRIBE, "", 0), "ZMQ_SUBSCRIBE");
    must(zmq_setsockopt(e.sub, ZMQ_RCVTIMEO, &timeout_ms, sizeof(timeout_ms)), "ZMQ_RCVTIMEO");
    must(zmq_connect(e.sub, endpoint), endpoint);
    return e;
}

static _Noreturn void echo(const char *dir, long core)
{
    char message[MESSAGE_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(core);
    struct end e = open_end(dir, 'b', 'a');
    for (;;) {
        int n = zmq_recv(e.sub, message, sizeof(message), 0);
        if (n < 0 && zmq_errno() == EAGAIN)
            exit(1);
        must(n, "zmq_recv");
        must(zmq_send(e.pub, message, (size_t)n, 0), "zmq_send");
    }
}

static void send_one(const struct end *e, uint64_t *sent_ns, uint64_t seq)
{
    char message[MESSAGE_BYTES] = {0};
    memcpy(message, &seq, sizeof(seq));
    sent_ns[seq % INFLIGHT_MAX] = now_ns();
    must(zmq_send(e->pub, message, sizeof(message), 0), "zmq_send");
}

static void play(const struct end *e, unsigned inflight, uint64_t warmup_ns, uint64_t run_ns)
{
    static struct hist times;
    static uint64_t sent_ns[INFLIGHT_MAX];
    uint64_t next = 0, due = 0, done = 0, start = now_ns() + warmup_ns, now;
    while (next < inflight)
        send_one(e, sent_ns, next++);
    do {
        char message[MESSAGE_BYTES];
        uint64_t seq;
        must(zmq_recv(e->sub, message, sizeof(message), 0), "zmq_recv");
        now = now_ns();
        memcpy(&seq, message, sizeof(seq));
        if (seq != due++)
            die("message %llu is due, %llu came", (unsigned long long)due - 1, (unsigned long long)seq);
        if (now >= start) {
            done++;
            hist_add(&times, now - sent_ns[seq % INFLIGHT_MAX]);
        }
        send_one(e, sent_ns, next++);
    } while (now < start + run_ns);
    printf("{\"measure\":\"rtt\",\"target\":\"libzmq\",\"inflight\":%u,\"count\":%llu,\"round_trip_per_s\":%."
           "10g,"
           "\"rtt_p50_us\":%.10g,\"rtt_p99_us\":%.10g}\n",
           inflight, (unsigned long long)done, (double)done / ((double)run_ns / (double)NS_PER_S),
           hist_quantile(&times, 0.50) / NS_PER_US, hist_quantile(&times, 0.99) / NS_PER_US);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/zmq_pair-XXXXXX", file[64];
    if (argc != 6)
        die_usage("usage: zmq_pair INFLIGHT WARMUP_S RUN_S CORE CORE");
    unsigned inflight = (unsigned)parse_number("INFLIGHT", argv[1], 1, INFLIGHT_MAX);
    uint64_t warmup_ns = parse_seconds_ns("WARMUP_S", argv[2]), run_ns = parse_seconds_ns("RUN_S", argv[3]);
    long cores[2];
    for (int i = 0; i < 2; i++)
        cores[i] = parse_number("CORE", argv[4 + i], 0, CPU_SETSIZE - 1);
    if (!mkdtemp(dir))
        die("%s: %s", dir, strerror(errno));
    pid_t child = fork();
    if (child < 0)
        die("fork: %s", strerror(errno));
    if (child == 0)
        echo(dir, cores[1]);
    pin(cores[0]);
    struct end e = open_end(dir, 'a', 'b');
    usleep(SETTLE_US);
    play(&e, inflight, warmup_ns, run_ns);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (char name = 'a'; name <= 'b'; name++) {
        snprintf(file, sizeof(file), "%s/%c", dir, name);
        unlink(file);
    }
    rmdir(dir);
    return 0;
}
