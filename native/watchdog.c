#include "watchdog.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#define STACK_BYTES (256 * 1024)
#define PERIOD_MIN_MS 2
#define PERIOD_MAX_MS 250

uint32_t ng_watchdog_period_ms(uint32_t deadline_ms) {
    uint32_t period = deadline_ms / 4;
    if (period < PERIOD_MIN_MS) return PERIOD_MIN_MS;
    return period > PERIOD_MAX_MS ? PERIOD_MAX_MS : period;
}

void ng_watchdog_init(struct ng_watchdog *watchdog, struct ng_queue *queue, void (*notify)(void *), void *data) {
    watchdog->queue = queue;
    watchdog->notify = notify;
    watchdog->data = data;
    watchdog->running = watchdog->stop = watchdog->stalled = false;
    watchdog->stalled_since_ms = watchdog->seen_progress = 0;
    ng_batch_init(&watchdog->batch, watchdog->packets, watchdog->records, NG_DISCARD_SLOT, NG_BATCH_MAX);
}

static bool readable(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) > 0;
}

/* True when packets have been waiting, and the worker has not read, for the deadline. */
static bool worker_is_late(struct ng_watchdog *watchdog, uint64_t now_ms) {
    const struct ng_queue *queue = watchdog->queue;
    if (!readable(queue->socket.fd)) {
        watchdog->stalled = false;
        return false;
    }
    if (!watchdog->stalled || watchdog->seen_progress != queue->progress) {
        watchdog->stalled = true;
        watchdog->stalled_since_ms = now_ms;
        watchdog->seen_progress = queue->progress;
        return false;
    }
    if (now_ms - watchdog->stalled_since_ms < queue->options.deadline_ms) return false;
    watchdog->stalled = false; /* what comes next may wait as long again */
    return true;
}

bool ng_watchdog_tick_locked(struct ng_watchdog *watchdog, uint64_t now_ms) {
    struct ng_queue *queue = watchdog->queue;
    if (queue->socket.fd < 0) return false;
    if (queue->failed != 0) return true; /* until the worker opens it again */
    uint64_t deadline = queue->options.deadline_ms;
    uint64_t before = queue->stats.late;
    if (now_ms >= deadline) ng_queue_expire_locked(queue, now_ms - deadline);
    if (worker_is_late(watchdog, now_ms)) ng_queue_discard_locked(queue, &watchdog->batch, now_ms);
    return queue->stats.late != before || queue->failed != 0;
}

static void *run(void *data) {
    struct ng_watchdog *watchdog = data;
    struct ng_queue *queue = watchdog->queue;
    uint32_t period = ng_watchdog_period_ms(queue->options.deadline_ms);
    pthread_mutex_lock(&queue->lock);
    while (!watchdog->stop) {
        uint64_t until = ng_now_ms() + period;
        struct timespec wake = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};
        (void)pthread_cond_timedwait(&watchdog->wake, &queue->lock, &wake);
        if (watchdog->stop) break;
        if (!ng_watchdog_tick_locked(watchdog, ng_now_ms())) continue;
        pthread_mutex_unlock(&queue->lock);
        watchdog->notify(watchdog->data);
        pthread_mutex_lock(&queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

int ng_watchdog_start(struct ng_watchdog *watchdog) {
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    int error = pthread_cond_init(&watchdog->wake, &clock);
    pthread_condattr_destroy(&clock);
    if (error != 0) return -error;

    /* The process's signals are for its other threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    error = pthread_create(&watchdog->thread, &attributes, run, watchdog);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pthread_cond_destroy(&watchdog->wake);
        return -error;
    }
    pthread_setname_np(watchdog->thread, "ng-watchdog");
    watchdog->running = true;
    return 0;
}

void ng_watchdog_stop(struct ng_watchdog *watchdog) {
    if (!watchdog->running) return;
    pthread_mutex_lock(&watchdog->queue->lock);
    watchdog->stop = true;
    pthread_cond_signal(&watchdog->wake);
    pthread_mutex_unlock(&watchdog->queue->lock);
    pthread_join(watchdog->thread, NULL);
    pthread_cond_destroy(&watchdog->wake);
    watchdog->running = false;
}
