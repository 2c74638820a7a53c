/* A store in Redis when Redis is in trouble: real redis-servers that are killed, frozen, full, demoted, locked, failed over, and
 * servers that are none. Each question is answered once, whatever happens. */
#include "false_server.h"
#include "redis_error.h"
#include "storeworld.h"
#include <dirent.h>

static struct redis_server server;
static struct reply r, s;

static uint64_t metric(enum metric which)
{
    return metrics_get(w.metrics, which);
}

static void open_url(unsigned i, const char *format, ...)
{
    struct store_redis_options o;
    char url[256];
    va_list args;
    va_start(args, format);
    vsnprintf(url, sizeof(url), format, args);
    va_end(args);
    node_name(i);
    node_options(url, &o);
    o.redis.connect_ms = 500;
    o.redis.retry_max_ms = 200;
    node_open_redis(i, &o);
}

static bool is_up(unsigned i)
{
    return w.node[i].ups > w.node[i].downs;
}

static void say(const char *command)
{
    char out[512];
    if (!redis_server_say(&server, command, out, sizeof(out)))
        fail_msg("%s: %s", command, out);
}

/* ---- it goes and comes ---- */

static void test_killed_and_started_again(void **state)
{
    static struct reply lost[50];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("kept"), &r), 0);
    assert_int_equal(append(0, 1, 1, SPAN("one"), &r), 0);
    redis_server_signal(&server, SIGSTOP);
    w.answers = 0;
    for (unsigned i = 0; i < 50; i++)
        ASK(0, put, &lost[i], SPAN("pid"), 1, SPAN("lost"), on_done, &lost[i]);
    world_turn();
    redis_server_kill(&server);
    WAIT_FOR(!is_up(0));
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(lost[i].order, i + 1);
        assert_int_equal(lost[i].err, ERR_STORE);
    }
    assert_int_equal(metric(METRIC_STORE_UP), 0);
    assert_int_equal(metric(METRIC_STORE_PENDING_BYTES), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), ERR_STORE);
    redis_server_start(&server);
    WAIT_FOR(is_up(0));
    assert_int_equal(metric(METRIC_STORE_UP), 1);
    assert_int_equal(metric(METRIC_STORE_CONNECTS), 2);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 1, 1, SPAN("again"), &r), 0);
    assert_int_equal(append(0, 2, 1, SPAN("two"), &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 2);
    ASSERT_TEXT(&r, SPAN("one"));
    assert_int_equal(claim(0, 0, "pid", &r), 0);
}

static void test_not_there_at_first(void **state)
{
    (void)state;
    redis_server_kill(&server);
    open_url(1, "unix://%s", server.socket);
    assert_int_equal(renew(1, 60000, &r), ERR_STORE);
    for (unsigned i = 0; i < 20; i++)
        world_turn();
    assert_false(is_up(1));
    redis_server_start(&server);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(1, 60000, &r), 0);
}

static void test_frozen(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    redis_server_signal(&server, SIGSTOP);
    uint64_t asked_ms = reactor_now_ms(w.reactor);
    struct store_batch b = {1, SPAN("x")};
    ASK(0, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
    ASK(0, append, &s, &b, 1, on_done, &s);
    WAIT_FOR(r.times && s.times);
    assert_int_equal(r.err, ERR_STORE);
    assert_int_equal(s.err, ERR_STORE);
    assert_true(reactor_now_ms(w.reactor) - asked_ms >= 1900);
    WAIT_FOR(!is_up(0));
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), ERR_STORE); /* at once */
    redis_server_signal(&server, SIGCONT);
    WAIT_FOR(is_up(0));
    assert_int_equal(put(0, "pid", 1, SPAN("y"), &r), 0);
}

static void test_data_lost(void **state)
{
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(append(0, 7, 1, SPAN("x"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    say("flushall");
    assert_int_equal(append(0, 8, 1, SPAN("y"), &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("y"), &r), 0);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_non_null(find_member(&r, 0));
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.last[0], 8);
    assert_int_equal(claim(0, 0, "pid", &r), 0);
    ASSERT_TEXT(&r, SPAN("y"));
}

/* Nothing is lost, done twice, or put out of order by a script cache that is emptied all the time. */
static void test_script_flush(void **state)
{
    static struct reply replies[400];
    char entry[16];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    w.answers = 0;
    for (unsigned i = 0; i < 400; i++) {
        snprintf(entry, sizeof(entry), "entry-%u", i);
        ASK(0, put, &replies[i], SPAN("pid"), 1, span_of(entry), on_done, &replies[i]);
        if (i % 20 == 0)
            say("script flush");
        if (i % 7 == 0)
            world_turn();
    }
    WAIT_FOR(w.answers == 400);
    for (unsigned i = 0; i < 400; i++) {
        assert_int_equal(replies[i].err, 0);
        assert_int_equal(replies[i].order, i + 1);
    }
    assert_int_equal(claim(0, 0, "pid", &r), 0);
    assert_int_equal(r.epoch, 2);
    ASSERT_TEXT(&r, SPAN("entry-399"));
    assert_int_equal(metric(METRIC_STORE_ERROR_NOSCRIPT), 0);
}

/* ---- it refuses ---- */

static void test_full(void **state)
{
    (void)state;
    open_url(1, "unix://%s", server.socket);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("entry"), &r), 0);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), 0);
    say("config set maxmemory 1");
    assert_int_equal(put(0, "other", 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(append(0, 2, 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(metric(METRIC_STORE_ERROR_OOM), 2);
    /* leases hold, and sessions are recovered */
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(claim(1, 0, "pid", &r), 0);
    ASSERT_TEXT(&r, SPAN("entry"));
    assert_int_equal(claim(1, 0, "pid", &r), ERR_MOVED);
    assert_int_equal(drop(1, "pid", 2, &r), 0);
    assert_int_equal(resign(1, 1000, &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_true(is_up(0));
    say("config set maxmemory 0");
    assert_int_equal(put(0, "other", 1, SPAN("x"), &r), 0);
    assert_int_equal(append(0, 2, 1, SPAN("x"), &r), 0);
}

static void test_made_a_replica(void **state)
{
    struct redis_server master;
    char command[64];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    redis_server_new(&master, -1);
    redis_server_start(&master);
    snprintf(command, sizeof(command), "replicaof 127.0.0.1 %d", master.port);
    say(command);
    WAIT_FOR(put(0, "pid", 1, SPAN("x"), &r) == ERR_STORE && !is_up(0));
    assert_true(metric(METRIC_STORE_ERROR_READONLY) + metric(METRIC_STORE_ERROR_LOADING) +
                    metric(METRIC_STORE_ERROR_MASTERDOWN) + metric(METRIC_STORE_UNREACHED) >
                0);
    for (unsigned i = 0; i < 100; i++)
        world_turn();
    assert_false(is_up(0));
    say("replicaof no one");
    WAIT_FOR(is_up(0));
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), 0);
    redis_server_free(&master);
}

static void test_keys_of_a_foreign_type(void **state)
{
    char command[128];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    snprintf(command, sizeof(command), "setex 'starling:{%s}:sessions:%06x' 1000 x", w.cluster,
             w.node[0].self.origin.tag);
    say(command);
    assert_int_equal(put(0, "pid", 1, SPAN("x"), &r), ERR_STORE);
    assert_int_equal(claim(0, 0, "pid", &r), ERR_STORE);
    assert_int_equal(metric(METRIC_STORE_ERROR_WRONGTYPE), 2);
    assert_int_equal(append(0, 1, 1, SPAN("x"), &r), 0);
    assert_true(is_up(0));
}

static void test_foreign_values(void **state)
{
    static const char *const values[] = {"x", "=1", "=:x", ">1:", ">1:zz", "=99999999999999999999999:x",
                                         "''"};
    char command[256];
    (void)state;
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(renew(0, 60000, &r), 0);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_int_equal(put(0, "mine", 1, SPAN("x"), &r), 0);
        snprintf(command, sizeof(command), "hset 'starling:{%s}:sessions:%06x' pid '%s'", w.cluster,
                 w.node[0].self.origin.tag, values[i]);
        say(command);
        assert_int_equal(claim(0, 0, "pid", &r), ERR_NOT_FOUND);
    }
    snprintf(command, sizeof(command), "zadd 'starling:{%s}:origins' 9999999999999 nonsense", w.cluster);
    say(command);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(r.n, 1);
    snprintf(command, sizeof(command), "xadd 'starling:{%s}:mirror:%06x-%016" PRIx64 "' '*' a b c d",
             w.cluster, w.node[0].self.origin.tag, w.node[0].self.origin.boot);
    say(command);
    assert_int_equal(renew(0, 60000, &r), 0);
    assert_int_equal(read_mirror(0, 0, 0, 8, &r), 0);
    assert_int_equal(r.n, 0);
    assert_true(is_up(0));
}

/* ---- who may in ---- */

static void test_passwords(void **state)
{
    (void)state;
    say("config set requirepass hunter2");
    open_url(1, "unix://%s", server.socket);
    WAIT_FOR(metric(METRIC_STORE_ERROR_NOAUTH) > 2);
    assert_false(is_up(1));
    open_url(2, "unix://:wrong@%s", server.socket);
    WAIT_FOR(metric(METRIC_STORE_ERROR_WRONGPASS) > 2);
    assert_false(is_up(2));
    node_close(1);
    node_close(2);
    open_url(1, "unix://:hunter2@%s", server.socket);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(renew(0, 60000, &r), 0); /* who is in stays in */
}

static void test_users(void **state)
{
    char command[256];
    (void)state;
    snprintf(command, sizeof(command), "acl setuser bus on '>s3cret/@:' '~starling:{%s}:*' +@all -@dangerous",
             w.cluster);
    say(command);
    open_url(1, "unix://bus:s3cret%%2f%%40%%3a@%s", server.socket);
    WAIT_FOR(is_up(1)); /* though ROLE is forbidden to it */
    assert_int_equal(renew(1, 60000, &r), 0);
    assert_int_equal(append(1, 1, 1, SPAN("x"), &r), 0);
    assert_int_equal(put(1, "pid", 1, SPAN("x"), &r), 0);
    assert_int_equal(claim(1, 1, "pid", &r), 0);
    say("acl setuser bus resetkeys '~other:*'");
    assert_int_equal(append(1, 2, 1, SPAN("x"), &r), ERR_STORE);
    assert_true(metric(METRIC_STORE_ERROR_NOPERM) > 0);
    say("acl deluser bus");
}

static void test_databases_and_names(void **state)
{
    char out[4096], command[256];
    (void)state;
    open_url(1, "unix://%s?db=3", server.socket);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(1, 60000, &r), 0);
    snprintf(command, sizeof(command), "-n 3 exists 'starling:{%s}:origins'", w.cluster);
    assert_true(redis_server_say(&server, command, out, sizeof(out)));
    assert_string_equal(out, "1\n");
    assert_true(redis_server_say(&server, "client list", out, sizeof(out)));
    assert_non_null(strstr(out, "name=starling-test"));
    open_url(2, "unix://%s?db=99", server.socket);
    WAIT_FOR(metric(METRIC_STORE_ERROR_ERR) > 2);
    assert_false(is_up(2));
}

static void test_too_many_clients(void **state)
{
    (void)state;
    say("config set maxclients 2"); /* node 0 has one, redis-cli the other one while it runs */
    open_url(1, "unix://%s", server.socket);
    WAIT_FOR(is_up(1));
    open_url(2, "unix://%s", server.socket);
    for (unsigned i = 0; i < 100; i++)
        world_turn();
    assert_false(is_up(2));
    node_close(1);
    WAIT_FOR(is_up(2));
    node_close(2);
    for (int i = 0; i < 3000 && !redis_server_say(&server, "config set maxclients 10000", NULL, 0); i++)
        usleep(10000);
}

/* ---- by TCP ---- */

static void test_by_name(void **state)
{
    struct redis_server other;
    (void)state;
    redis_server_new(&other, -1);
    redis_server_start(&other);
    open_url(1, "redis://localhost:%d", other.port);
    open_url(2, "redis://127.0.0.1:%d/1", other.port);
    WAIT_FOR(is_up(1) && is_up(2));
    assert_int_equal(renew(1, 60000, &r), 0);
    redis_server_kill(&other);
    WAIT_FOR(!is_up(1) && !is_up(2));
    redis_server_start(&other);
    WAIT_FOR(is_up(1) && is_up(2));
    redis_server_free(&other);
}

static void test_a_name_that_nobody_has(void **state)
{
    (void)state;
    open_url(1, "redis://nobody.invalid");
    for (unsigned i = 0; i < 50; i++)
        world_turn();
    assert_false(is_up(1));
    assert_int_equal(renew(1, 1000, &r), ERR_STORE);
    node_close(1);
    open_url(1, "redis://nobody.invalid"); /* and an end while the name is looked up */
    node_close(1);
}

/* ---- bounds ---- */

static void test_a_bound_on_what_waits(void **state)
{
    static struct reply replies[40];
    static char bytes[10000];
    struct store_redis_options o;
    char url[128];
    unsigned refused = 0;
    (void)state;
    memset(bytes, 'x', sizeof(bytes));
    snprintf(url, sizeof(url), "unix://%s", server.socket);
    node_name(1);
    node_options(url, &o);
    o.redis.pending_bytes = 100000;
    node_open_redis(1, &o);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(1, 60000, &r), 0);
    w.answers = 0;
    for (unsigned i = 0; i < 40; i++)
        ASK(1, put, &replies[i], SPAN("pid"), 1, ((struct span){bytes, sizeof(bytes)}), on_done, &replies[i]);
    assert_true(metric(METRIC_STORE_PENDING_BYTES) <= 100000);
    WAIT_FOR(w.answers == 40);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(replies[i].order, i + 1);
        assert_int_equal(replies[i].err, i < 9 ? 0 : ERR_STORE);
        refused += replies[i].err != 0;
    }
    assert_int_equal(metric(METRIC_STORE_OVERFLOWS), refused);
    assert_int_equal(put(1, "pid", 1, SPAN("x"), &r), 0);
}

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void test_connections_leave_nothing(void **state)
{
    (void)state;
    unsigned before = count_descriptors();
    for (unsigned i = 1; i <= 10; i++) {
        unsigned downs = w.node[0].downs;
        say("client kill type normal skipme yes");
        WAIT_FOR(w.node[0].downs == downs + 1 && is_up(0));
        assert_int_equal(renew(0, 60000, &r), 0);
    }
    assert_int_equal(count_descriptors(), before);
}

/* ---- what is no Redis ---- */

static void check_never_up(const struct false_manners *m)
{
    struct false_server other;
    false_server_start(&other, m);
    open_url(1, "redis://127.0.0.1:%d", other.port);
    ASK(1, renew, &r, &w.node[1].self, 1000, on_members, &r);
    for (unsigned i = 0; i < 300; i++)
        world_turn();
    assert_false(is_up(1));
    assert_int_equal(r.err, ERR_STORE);
    node_close(1);
    false_server_end(&other);
}

static void test_no_redis(void **state)
{
    (void)state;
    check_never_up(&(struct false_manners){.hello = "220 mail.example.org ESMTP\r\n"});
    check_never_up(&(struct false_manners){.hello = "+OK POP3 ready\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n"});
    check_never_up(&(struct false_manners){.hello = "*-2\r\n$99999999999\r\n:x\r\n"});
    check_never_up(&(struct false_manners){.hello = "-ERR max number of clients reached\r\n"});
    check_never_up(&(struct false_manners){.hello = NULL}); /* says nothing */
}

/* hiredis by itself would end the process here. */
static void test_replies_that_nobody_asked_for(void **state)
{
    static const char *const unasked[] = {"+OK\r\n",      ":1\r\n",      "$-1\r\n",     "*0\r\n",
                                          "*1\r\n+x\r\n", "$1\r\nx\r\n", "-ERR bye\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof(unasked) / sizeof(unasked[0]); i++) {
        struct false_server other;
        struct false_manners m = {
            .role = "*1\r\n$6\r\nmaster\r\n", .ping = "+PONG\r\n", .answer = "+OK\r\n", .after = unasked[i]};
        false_server_start(&other, &m);
        open_url(1, "redis://127.0.0.1:%d", other.port);
        WAIT_FOR(w.node[1].downs > 1); /* it was up, and was given up, and again */
        node_close(1);
        false_server_end(&other);
    }
}

static void test_a_replica_and_a_sentinel(void **state)
{
    (void)state;
    check_never_up(&(struct false_manners){.role = "*1\r\n$5\r\nslave\r\n", .ping = "+PONG\r\n"});
    check_never_up(&(struct false_manners){.role = "*1\r\n$8\r\nsentinel\r\n", .ping = "+PONG\r\n"});
    check_never_up(&(struct false_manners){.role = "*1\r\n$6\r\nmaster\r\n",
                                           .ping = "-LOADING Redis is loading the dataset in memory\r\n"});
    assert_true(metric(METRIC_STORE_ERROR_LOADING) > 0);
    check_never_up(&(struct false_manners){.role = "*1\r\n$6\r\nmaster\r\n",
                                           .ping = "-MASTERDOWN Link with MASTER is down\r\n"});
}

/* Replies of the wrong shape are no answer of Redis to what was asked; whatever is made of them, each question has one. */
static void test_answers_of_another_shape(void **state)
{
    static const char *const answers[] = {":0\r\n",
                                          "+OK\r\n",
                                          "$-1\r\n",
                                          "*0\r\n",
                                          "*2\r\n:1\r\n$-1\r\n",
                                          "*1\r\n*2\r\n$1\r\nx\r\n*0\r\n",
                                          "*3\r\n$1\r\n=\r\n$0\r\n\r\n$0\r\n\r\n",
                                          "*3\r\n$1\r\n>\r\n$1\r\n1\r\n$3\r\n-12\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct false_server other;
        struct false_manners m = {
            .role = "*1\r\n$6\r\nmaster\r\n", .ping = "+PONG\r\n", .answer = answers[i]};
        struct store_batch b = {1, SPAN("x")};
        false_server_start(&other, &m);
        open_url(1, "redis://127.0.0.1:%d", other.port);
        WAIT_FOR(is_up(1));
        renew(1, 1000, &r);
        ASK_AND_WAIT(1, put, &r, SPAN("pid"), 1, SPAN("x"), on_done, &r);
        ASK_AND_WAIT(1, append, &r, &b, 1, on_done, &r);
        assert_int_not_equal(claim(1, 1, "pid", &r), 0);
        read_mirror(1, 1, 0, 8, &r);
        assert_int_equal(r.n, 0);
        node_close(1);
        false_server_end(&other);
    }
}

/* What a real server is not easily brought to: each is counted, and the connection goes or stays as it should. */
static void test_errors(void **state)
{
    static const struct {
        const char *answer;
        enum metric counter;
        bool stays;
    } rows[] = {
        {"-MISCONF Redis is configured to save RDB snapshots, but\r\n", METRIC_STORE_ERROR_MISCONF, true},
        {"-NOSCRIPT No matching script.\r\n", METRIC_STORE_ERROR_NOSCRIPT, true},
        {"-EXECABORT Transaction discarded\r\n", METRIC_STORE_ERROR_EXECABORT, true},
        {"-NOREPLICAS Not enough good replicas to write.\r\n", METRIC_STORE_ERROR_NOREPLICAS, true},
        {"-BUSY Redis is busy running a script.\r\n", METRIC_STORE_ERROR_BUSY, true},
        {"-ERR something else\r\n", METRIC_STORE_ERROR_ERR, true},
        {"-READONLY You can't write against a read only replica.\r\n", METRIC_STORE_ERROR_READONLY, false},
        {"-LOADING Redis is loading the dataset in memory\r\n", METRIC_STORE_ERROR_LOADING, false},
        {"-NOAUTH Authentication required.\r\n", METRIC_STORE_ERROR_NOAUTH, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct false_server other;
        struct false_manners m = {
            .role = "*1\r\n$6\r\nmaster\r\n", .ping = "+PONG\r\n", .answer = rows[i].answer};
        uint64_t before = metric(rows[i].counter);
        false_server_start(&other, &m);
        open_url(1, "redis://127.0.0.1:%d", other.port);
        WAIT_FOR(is_up(1));
        assert_int_equal(renew(1, 60000, &r), ERR_STORE);
        assert_true(metric(rows[i].counter) > before);
        if (rows[i].stays)
            assert_true(is_up(1));
        else
            WAIT_FOR(w.node[1].downs > 0);
        node_close(1);
        false_server_end(&other);
    }
}

static void test_names_of_errors(void **state)
{
    static const struct {
        const char *text;
        enum redis_error error;
    } rows[] = {
        {"OOM command not allowed when used memory > 'maxmemory'. script: 5f, on @user_script:1.",
         REDIS_ERROR_OOM},
        {"ERR Error running script (call to f_5f): @user_script:5: @user_script: 5: -OOM command not allowed",
         REDIS_ERROR_OOM},
        {"ERR Error running script (call to f_5f): @user_script:1: READONLY You can't", REDIS_ERROR_READONLY},
        {"ERR the READONLY flag", REDIS_ERROR_ERR},
        {"OOMPH", REDIS_ERROR_ERR},
        {"OOM", REDIS_ERROR_OOM},
        {"WRONGTYPE Operation against a key", REDIS_ERROR_WRONGTYPE},
        {"", REDIS_ERROR_ERR},
        {"ERR", REDIS_ERROR_ERR},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(redis_error_name(redis_error_of(span_of(rows[i].text))),
                            redis_error_name(rows[i].error));
}

/* ---- sentinel ---- */

static void test_a_fail_over(void **state)
{
    struct redis_server master, replica, sentinel;
    char of[12], out[512];
    int silent = redis_server_free_port(); /* a sentinel that is not there */
    (void)state;
    redis_server_new(&master, -1);
    redis_server_start(&master);
    redis_server_new(&replica, -1);
    snprintf(of, sizeof(of), "%d", master.port);
    replica.options[0] = "--replicaof";
    replica.options[1] = "127.0.0.1";
    replica.options[2] = of;
    redis_server_start(&replica);
    redis_server_new(&sentinel, -1);
    redis_server_start_sentinel(&sentinel, master.port);
    open_url(1, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/bus", silent, sentinel.port);
    open_url(2, "redis+sentinel://127.0.0.1:%d/nobody", sentinel.port);
    WAIT_FOR(is_up(1));
    assert_int_equal(renew(1, 600000, &r), 0);
    assert_int_equal(put(1, "pid", 1, SPAN("entry"), &r), 0);
    assert_int_equal(append(1, 1, 1, SPAN("x"), &r), 0);
    /* the sentinel knows the replica, and the replica has all */
    WAIT_FOR(redis_server_say(&sentinel, "sentinel replicas bus", out, sizeof(out)) && strstr(out, "ok") &&
             redis_server_say(&sentinel, "sentinel get-master-addr-by-name bus", NULL, 0));
    WAIT_FOR(redis_server_say(&master, "wait 1 100", out, sizeof(out)) && strcmp(out, "1\n") == 0);
    redis_server_kill(&master);
    WAIT_FOR(w.node[1].downs == 1);
    WAIT_FOR(is_up(1));
    assert_true(redis_server_say(&replica, "role", out, sizeof(out)));
    assert_non_null(strstr(out, "master"));
    assert_int_equal(renew(1, 600000, &r), 0);
    assert_int_equal(claim(1, 1, "pid", &r), 0);
    ASSERT_TEXT(&r, SPAN("entry"));
    assert_int_equal(append(1, 2, 1, SPAN("y"), &r), 0);
    assert_int_equal(read_mirror(1, 1, 0, 8, &r), 0);
    assert_int_equal(r.n, 2);
    assert_false(is_up(2));
    redis_server_free(&sentinel);
    redis_server_free(&replica);
    redis_server_free(&master);
}

/* ---- each test has a server of its own ---- */

static int start(void **state)
{
    (void)state;
    redis_server_new(&server, 0);
    server.options[0] = "--appendonly";
    server.options[1] = "yes";
    server.options[2] = "--appendfsync";
    server.options[3] = "always";
    redis_server_start(&server);
    world_init(&server);
    node_open(0);
    WAIT_FOR(is_up(0));
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_free();
    redis_server_free(&server);
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_killed_and_started_again),
        TEST(test_not_there_at_first),
        TEST(test_frozen),
        TEST(test_data_lost),
        TEST(test_script_flush),
        TEST(test_full),
        TEST(test_made_a_replica),
        TEST(test_keys_of_a_foreign_type),
        TEST(test_foreign_values),
        TEST(test_passwords),
        TEST(test_users),
        TEST(test_databases_and_names),
        TEST(test_too_many_clients),
        TEST(test_by_name),
        TEST(test_a_name_that_nobody_has),
        TEST(test_a_bound_on_what_waits),
        TEST(test_connections_leave_nothing),
        TEST(test_no_redis),
        TEST(test_replies_that_nobody_asked_for),
        TEST(test_a_replica_and_a_sentinel),
        TEST(test_answers_of_another_shape),
        TEST(test_errors),
        cmocka_unit_test(test_names_of_errors),
        TEST(test_a_fail_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
