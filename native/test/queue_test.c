/* A queue whose kernel is the other end of a socket pair: receiving, settling, losses, and the watchdog's decisions. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../raw.h"
#include "../watchdog.h"
#include "check.h"

enum { QUEUE = 7, SLOT = 1024 };

struct fixture {
    struct ng_queue queue;
    struct ng_batch batch;
    struct ng_watchdog watchdog;
    int kernel;
    uint8_t packets[NG_BATCH_MAX * SLOT];
    uint32_t records[NG_BATCH_MAX * NG_RECORD_WORDS];
    atomic_int notified;
};

static void count_notice(void *data) {
    atomic_fetch_add(&((struct fixture *)data)->notified, 1);
}

static struct fixture *setup(uint32_t max_length, uint32_t deadline_ms, uint32_t deadline_verdict) {
    struct fixture *f = calloc(1, sizeof *f);
    struct ng_queue_options options = {.number = QUEUE, .copy_range = 512, .max_length = max_length,
                                       .deadline_ms = deadline_ms, .deadline_verdict = deadline_verdict};
    int pair[2];
    CHECK_EQUAL(ng_queue_init(&f->queue, &options), 0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    f->queue.socket.fd = pair[0];
    f->kernel = pair[1];
    ng_batch_init(&f->batch, f->packets, f->records, SLOT, NG_BATCH_MAX);
    ng_watchdog_init(&f->watchdog, &f->queue, count_notice, f);
    return f;
}

static void teardown(struct fixture *f) {
    ng_watchdog_stop(&f->watchdog);
    ng_queue_close(&f->queue);
    ng_queue_free(&f->queue);
    close(f->kernel);
    free(f);
}

static void deliver(struct fixture *f, uint32_t id) {
    uint8_t message[44];
    from_hex("2c000000 00030000 00000000 00000000 02000007 0b000100 00000000 0800 03 00 0c000a00 45000008 aabbccdd", message, sizeof message);
    uint32_t wire = htonl(id);
    memcpy(message + 24, &wire, 4);
    CHECK_EQUAL(send(f->kernel, message, sizeof message, 0), sizeof message);
}

/* What the kernel got: "id:verdict:mark:payload bytes" of every message of every datagram, datagrams ended by "|". */
static const char *sent(struct fixture *f) {
    static char text[8192];
    static uint8_t data[1 << 17];
    size_t used = 0;
    text[0] = 0;
    ssize_t bytes;
    while ((bytes = recv(f->kernel, data, sizeof data, MSG_DONTWAIT)) > 0) {
        for (size_t at = 0; at < (size_t)bytes;) {
            uint32_t length, verdict, id, mark = 0;
            memcpy(&length, data + at, 4);
            memcpy(&verdict, data + at + 24, 4);
            memcpy(&id, data + at + 28, 4);
            CHECK(length >= 32 && at + length <= (size_t)bytes && data[at + 19] == QUEUE);
            size_t next = at + 32, payload = 0;
            if (next < at + length && data[next + 2] == 3) {
                memcpy(&mark, data + next + 4, 4);
                next += 8;
            }
            if (next < at + length) payload = (size_t)(data[next] | data[next + 1] << 8) - 4;
            used += (size_t)snprintf(text + used, sizeof text - used, "%u:%u:%x:%zu ", ntohl(id), ntohl(verdict), ntohl(mark), payload);
            CHECK(used < sizeof text);
            at += (length + 3) & ~3u;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, "|");
    }
    return text;
}

#define CHECK_SENT(f, expected)                                                                         \
    do {                                                                                                \
        const char *text_ = sent(f);                                                                    \
        if (strcmp(text_, expected) != 0) {                                                             \
            fprintf(stderr, "%s:%d: sent \"%s\", expected \"%s\"\n", __FILE__, __LINE__, text_, expected); \
            exit(1);                                                                                    \
        }                                                                                               \
    } while (0)

static uint32_t receive(struct fixture *f, uint64_t now_ms) {
    uint32_t datagrams;
    return ng_queue_receive(&f->queue, &f->batch, now_ms, &datagrams);
}

static bool tick(struct fixture *f, uint64_t now_ms) {
    pthread_mutex_lock(&f->queue.lock);
    bool something = ng_watchdog_tick_locked(&f->watchdog, now_ms);
    pthread_mutex_unlock(&f->queue.lock);
    return something;
}

static void settles_in_one_datagram(void) {
    struct fixture *f = setup(100, 1000, NG_DROP);
    for (uint32_t id = 1; id <= 4; id++) deliver(f, id);
    CHECK_EQUAL(receive(f, 0), 4);
    CHECK_EQUAL(receive(f, 0), 0);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t *record = f->records + i * NG_RECORD_WORDS;
        CHECK_EQUAL(record[NG_RECORD_ID], i + 1);
        CHECK_EQUAL(record[NG_RECORD_LENGTH], 8);
        CHECK_BYTES(f->packets + record[NG_RECORD_OFFSET], 8, "45000008 aabbccdd");
    }
    const struct ng_verdict verdicts[] = {
        {.id = 1, .verdict = NG_ACCEPT},
        {.id = 3, .verdict = NG_REPEAT, .mark = 0x40},
        {.id = 99, .verdict = NG_ACCEPT}, /* never seen */
        {.id = 4, .verdict = NG_ACCEPT, .payload = (const uint8_t *)"12345", .payload_length = 5},
    };
    ng_queue_settle(&f->queue, verdicts, 4);
    CHECK_SENT(f, "1:1:0:0 3:4:40:0 4:1:0:5 |");
    ng_queue_settle(&f->queue, verdicts, 1);
    CHECK_SENT(f, "");
    CHECK_EQUAL(f->queue.outstanding.count, 1);
    CHECK_EQUAL(f->queue.stats.settled, 3);
    CHECK_EQUAL(f->queue.stats.unknown, 2);
    ng_queue_close(&f->queue); /* 2 gets the deadline's verdict */
    CHECK_SENT(f, "2:0:0:0 |");
    teardown(f);
}

static void splits_what_does_not_fit(void) {
    struct fixture *f = setup(100, 1000, NG_DROP);
    static uint8_t large[40000];
    struct ng_verdict verdicts[4];
    for (uint32_t id = 1; id <= 4; id++) {
        deliver(f, id);
        verdicts[id - 1] = (struct ng_verdict){.id = id, .verdict = NG_ACCEPT, .payload = large, .payload_length = sizeof large};
    }
    verdicts[1].payload_length = 20;
    verdicts[3].payload_length = NG_PAYLOAD_MAX + 1; /* impossible: stays outstanding, for the watchdog */
    CHECK_EQUAL(receive(f, 0), 4);
    ng_queue_settle(&f->queue, verdicts, 4);
    CHECK_SENT(f, "1:1:0:40000 2:1:0:20 |3:1:0:40000 |");
    CHECK_EQUAL(f->queue.outstanding.count, 1);
    teardown(f);
}

static void counts_losses(void) {
    struct fixture *f = setup(3, 1000, NG_DROP);
    deliver(f, 3); /* 1 and 2 never came */
    CHECK_EQUAL(receive(f, 0), 1);
    CHECK_EQUAL(f->queue.stats.gaps, 2);
    CHECK_EQUAL(send(f->kernel, "garbage", 7, 0), 7);
    deliver(f, 4);
    deliver(f, 10);
    deliver(f, 11); /* the fourth outstanding: no room */
    CHECK_EQUAL(receive(f, 0), 2);
    CHECK_EQUAL(f->queue.stats.gaps, 7);
    CHECK_SENT(f, "11:0:0:0 |");
    CHECK_EQUAL(f->queue.outstanding.count, 3);
    CHECK_EQUAL(f->queue.stats.late, 1);
    /* A verdict that the kernel refuses is counted; a refused configuration is a failed socket. */
    uint8_t answer[36];
    from_hex("24000000 0200 0001 05000000 00000000 feffffff 20000000 0103 0100 05000000 00000000", answer, sizeof answer);
    CHECK_EQUAL(send(f->kernel, answer, sizeof answer, 0), sizeof answer);
    CHECK_EQUAL(receive(f, 0), 0);
    CHECK_EQUAL(f->queue.stats.refused, 1);
    CHECK_EQUAL(f->queue.failed, 0);
    answer[24] = 2;
    CHECK_EQUAL(send(f->kernel, answer, sizeof answer, 0), sizeof answer);
    CHECK_EQUAL(receive(f, 0), 0);
    CHECK_EQUAL(f->queue.failed, ENOENT);
    teardown(f);
}

/* After the socket has failed ids go on, so that an old one can not mean a new packet. */
static void keeps_ids_apart(void) {
    struct fixture *f = setup(100, 1000, NG_DROP);
    for (uint32_t id = 1; id <= 3; id++) deliver(f, id);
    CHECK_EQUAL(receive(f, 0), 3);
    f->queue.id_base = f->queue.last_id; /* what ng_queue_open does, without a kernel */
    ng_outstanding_clear(&f->queue.outstanding);
    deliver(f, 1);
    CHECK_EQUAL(receive(f, 0), 1);
    CHECK_EQUAL(f->records[NG_RECORD_ID], 4);
    CHECK_EQUAL(f->queue.stats.gaps, 0);
    ng_queue_settle(&f->queue, &(struct ng_verdict){.id = 1, .verdict = NG_ACCEPT}, 1);
    CHECK_SENT(f, "");
    ng_queue_settle(&f->queue, &(struct ng_verdict){.id = 4, .verdict = NG_ACCEPT}, 1);
    CHECK_SENT(f, "1:1:0:0 |");
    teardown(f);
}

/* Nothing can be sent while the send buffer is full: everything stays outstanding and is settled later, once. */
static void keeps_what_it_could_not_send(void) {
    struct fixture *f = setup(100, 100, NG_DROP);
    for (uint32_t id = 1; id <= 2; id++) deliver(f, id);
    CHECK_EQUAL(receive(f, 0), 2);
    while (send(f->queue.socket.fd, "00000000000000000000000000000000", 32, 0) > 0) continue;
    CHECK_EQUAL(errno, EAGAIN);
    ng_queue_settle(&f->queue, &(struct ng_verdict){.id = 1, .verdict = NG_ACCEPT}, 1);
    CHECK_EQUAL(f->queue.outstanding.count, 2);
    CHECK_EQUAL(f->queue.failed, 0);
    CHECK(!tick(f, 500));
    uint8_t drop[64];
    while (recv(f->kernel, drop, sizeof drop, MSG_DONTWAIT) > 0) continue;
    CHECK(tick(f, 501));
    CHECK_SENT(f, "1:0:0:0 2:0:0:0 |");
    CHECK_EQUAL(f->queue.stats.late, 2);
    teardown(f);
}

static void watchdog_settles_what_is_held(void) {
    struct fixture *f = setup(1000, 100, NG_ACCEPT);
    deliver(f, 1);
    CHECK_EQUAL(receive(f, 1000), 1);
    for (uint32_t id = 2; id <= 100; id++) deliver(f, id);
    CHECK_EQUAL(receive(f, 1050), 64);
    CHECK_EQUAL(receive(f, 1050), 35);
    CHECK(!tick(f, 1099));
    CHECK(tick(f, 1100));
    CHECK_SENT(f, "1:1:0:0 |");
    CHECK(!tick(f, 1149));
    CHECK(tick(f, 1150));
    CHECK_EQUAL(f->queue.outstanding.count, 0);
    CHECK_EQUAL(f->queue.stats.late, 100);
    CHECK(!tick(f, 5000));
    teardown(f);
}

static void watchdog_reads_for_a_stuck_worker(void) {
    struct fixture *f = setup(1000, 100, NG_ACCEPT);
    deliver(f, 1);
    CHECK(!tick(f, 1000));
    CHECK(!tick(f, 1099));
    CHECK_EQUAL(receive(f, 1099), 1); /* the worker is alive */
    deliver(f, 2);
    CHECK(!tick(f, 1105));
    CHECK(!tick(f, 1150));
    CHECK_EQUAL(f->queue.stats.late, 0);
    for (uint32_t id = 3; id <= 200; id++) deliver(f, id);
    CHECK(tick(f, 1205)); /* 1 was held, 2 to 200 unread for too long */
    CHECK_EQUAL(f->queue.stats.late, 200);
    CHECK_EQUAL(f->queue.stats.received, 200);
    CHECK_EQUAL(f->queue.outstanding.count, 0);
    (void)sent(f);
    deliver(f, 201);
    CHECK(!tick(f, 1300)); /* a new wait */
    deliver(f, 202);
    CHECK_EQUAL(receive(f, 1350), 2);
    deliver(f, 203);
    for (uint64_t now = 1350; now < 3000; now += 20) { /* a busy worker is never taken for a stuck one */
        CHECK_EQUAL(receive(f, now), 1);
        const struct ng_verdict verdicts[] = {{.id = 202, .verdict = NG_DROP}, {.id = f->records[0], .verdict = NG_DROP}};
        ng_queue_settle(&f->queue, verdicts, 2);
        deliver(f, f->records[0] + 1);
        (void)tick(f, now);
    }
    CHECK_EQUAL(f->queue.stats.late, 201); /* 201 alone: it was held */
    teardown(f);
}

static void watchdog_sees_a_broken_socket(void) {
    struct fixture *f = setup(10, 100, NG_DROP);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, f->queue.socket.fd);
    close(null);
    CHECK(!tick(f, 1000));
    CHECK(tick(f, 1100));
    CHECK_EQUAL(f->queue.failed, ENOTSOCK);
    CHECK(tick(f, 1200)); /* until it is opened again */
    teardown(f);
}

/* The thread itself, with a worker that receives and settles at the same time. */
static void watchdog_runs(void) {
    struct fixture *f = setup(4096, 8, NG_ACCEPT);
    struct fixture *idle = setup(10, 2000, NG_ACCEPT); /* watched by the same thread, which looks as often as the shortest deadline needs */
    CHECK_EQUAL(ng_watchdog_start(&idle->watchdog), 0);
    CHECK_EQUAL(ng_watchdog_start(&f->watchdog), 0);
    uint64_t random = 7;
    uint32_t id = 1;
    for (uint64_t end = ng_now_ms() + 600; ng_now_ms() < end;) {
        for (uint32_t n = next_random(&random) % 20; n > 0; n--) deliver(f, id++);
        if (next_random(&random) % 4 == 0) poll(NULL, 0, (int)(next_random(&random) % 20)); /* stuck now and then */
        uint32_t count = receive(f, ng_now_ms());
        for (uint32_t i = 0; i < count; i++) {
            if (next_random(&random) % 8 == 0) continue; /* held for ever */
            struct ng_verdict verdict = {.id = f->records[i * NG_RECORD_WORDS], .verdict = NG_DROP};
            ng_queue_settle(&f->queue, &verdict, 1);
        }
        uint8_t data[1 << 12];
        while (recv(f->kernel, data, sizeof data, MSG_DONTWAIT) > 0) continue;
    }
    uint32_t held = 1;
    int failed;
    struct ng_queue_stats stats = {0};
    for (int i = 0; i < 200 && (held > 0 || stats.received < id - 1); i++) {
        poll(NULL, 0, 5);
        stats = ng_queue_look(&f->queue, &held, &failed);
    }
    ng_watchdog_stop(&f->watchdog);
    CHECK_EQUAL(held, 0);
    CHECK_EQUAL(stats.received, id - 1);
    CHECK_EQUAL(stats.settled, id - 1);
    CHECK_EQUAL(stats.gaps, 0);
    CHECK(stats.late > 0 && atomic_load(&f->notified) > 0);
    CHECK_EQUAL(atomic_load(&idle->notified), 0);
    teardown(idle);
    teardown(f);
}

/* Watched or not: queues come and go in any order, and one that is left is still looked after. */
static void watchdog_watches_who_is_left(void) {
    struct fixture *f[3];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 3; i++) {
            f[i] = setup(10, 8, NG_ACCEPT);
            CHECK_EQUAL(ng_watchdog_start(&f[i]->watchdog), 0);
        }
        int left = round % 3;
        for (int i = 0; i < 3; i++)
            if (i != left) ng_watchdog_stop(&f[i]->watchdog);
        for (int i = 0; i < 3; i++) {
            deliver(f[i], 1);
            CHECK_EQUAL(receive(f[i], ng_now_ms()), 1);
        }
        for (int i = 0; i < 400 && atomic_load(&f[left]->notified) == 0; i++) poll(NULL, 0, 5);
        for (int i = 0; i < 3; i++) {
            CHECK_EQUAL(atomic_load(&f[i]->notified) > 0, i == left);
            teardown(f[i]);
        }
    }
}

static void raw_refuses_broken_packets(void) {
    struct ng_raw raw;
    const char *call;
    uint8_t packet[40] = {0x45};
    ng_raw_init(&raw);
    CHECK_EQUAL(ng_raw_send(&raw, packet, 0, 0, &call), -EINVAL);
    CHECK_EQUAL(ng_raw_send(&raw, packet, 19, 0, &call), -EINVAL);
    packet[0] = 0x60;
    CHECK_EQUAL(ng_raw_send(&raw, packet, 39, 0, &call), -EINVAL);
    packet[0] = 0x50;
    CHECK_EQUAL(ng_raw_send(&raw, packet, 40, 0, &call), -EINVAL);
    CHECK_EQUAL(raw.ipv4.fd, -1);
    CHECK_EQUAL(raw.ipv6.fd, -1);
    ng_raw_close(&raw);
}

int main(void) {
    settles_in_one_datagram();
    splits_what_does_not_fit();
    counts_losses();
    keeps_ids_apart();
    keeps_what_it_could_not_send();
    watchdog_settles_what_is_held();
    watchdog_reads_for_a_stuck_worker();
    watchdog_sees_a_broken_socket();
    watchdog_runs();
    watchdog_watches_who_is_left();
    raw_refuses_broken_packets();
    return 0;
}
