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
    watchdog->next = NULL;
    watchdog->running = watchdog->stalled = false;
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

/* What the thread watches. `door` is taken by who starts or stops, for as long as that takes; the thread takes `lock` only. */
static struct {
    pthread_mutex_t door;
    pthread_mutex_t lock; /* guards `first` and the list; taken before a queue's */
    pthread_cond_t wake;
    pthread_t thread;
    struct ng_watchdog *first;
} all = {.door = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

static void look(struct ng_watchdog *watchdog) {
    pthread_mutex_lock(&watchdog->queue->lock);
    bool something = ng_watchdog_tick_locked(watchdog, ng_now_ms());
    pthread_mutex_unlock(&watchdog->queue->lock);
    if (something) watchdog->notify(watchdog->data);
}

static void *run(void *data) {
    (void)data;
    pthread_mutex_lock(&all.lock);
    while (all.first != NULL) {
        uint32_t period = PERIOD_MAX_MS;
        for (const struct ng_watchdog *one = all.first; one != NULL; one = one->next) {
            uint32_t own = ng_watchdog_period_ms(one->queue->options.deadline_ms);
            if (own < period) period = own;
        }
        uint64_t until = ng_now_ms() + period;
        struct timespec wake = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};
        (void)pthread_cond_timedwait(&all.wake, &all.lock, &wake);
        for (struct ng_watchdog *one = all.first; one != NULL; one = one->next) look(one);
    }
    pthread_mutex_unlock(&all.lock);
    return NULL;
}

/* 0 or an errno. */
static int begin(void) {
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    int error = pthread_cond_init(&all.wake, &clock);
    pthread_condattr_destroy(&clock);
    if (error != 0) return error;

    /* The process's signals are for its other threads. */
    sigset_t signals, before;
    sigfillset(&signals);
    pthread_sigmask(SIG_SETMASK, &signals, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    error = pthread_create(&all.thread, &attributes, run, NULL);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) pthread_setname_np(all.thread, "ng-watchdog");
    else pthread_cond_destroy(&all.wake);
    return error;
}

int ng_watchdog_start(struct ng_watchdog *watchdog) {
    pthread_mutex_lock(&all.door);
    pthread_mutex_lock(&all.lock);
    bool alone = all.first == NULL;
    watchdog->next = all.first;
    all.first = watchdog;
    int error = alone ? begin() : 0;
    if (error != 0) all.first = NULL;
    else if (!alone) pthread_cond_signal(&all.wake); /* its deadline may be the shortest */
    watchdog->running = error == 0;
    pthread_mutex_unlock(&all.lock);
    pthread_mutex_unlock(&all.door);
    return -error;
}

void ng_watchdog_stop(struct ng_watchdog *watchdog) {
    if (!watchdog->running) return;
    pthread_mutex_lock(&all.door);
    pthread_mutex_lock(&all.lock);
    struct ng_watchdog **at = &all.first;
    while (*at != watchdog) at = &(*at)->next;
    *at = watchdog->next;
    watchdog->running = false;
    bool last = all.first == NULL;
    if (last) pthread_cond_signal(&all.wake);
    pthread_mutex_unlock(&all.lock);
    if (last) {
        pthread_join(all.thread, NULL);
        pthread_cond_destroy(&all.wake);
    }
    pthread_mutex_unlock(&all.door);
}
