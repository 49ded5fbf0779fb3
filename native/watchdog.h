/*
 * One thread for all queues of the process, which answers for a worker that does not: it settles packets held for longer than the
 * deadline, and packets that wait unread in a socket while the worker has not read for that long, with the deadline's verdict. It
 * is there while some queue is watched; one wake-up looks at all of them.
 */
#ifndef NAMEGATE_WATCHDOG_H
#define NAMEGATE_WATCHDOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "queue.h"

struct ng_watchdog {
    struct ng_queue *queue;
    /*
     * Called from the watchdog's thread, without the queue's lock, when it settled something or found the socket broken. It must not
     * start or stop a watchdog.
     */
    void (*notify)(void *data);
    void *data;
    struct ng_watchdog *next; /* of those that are watched */
    bool running;
    bool stalled;
    uint64_t stalled_since_ms;
    uint64_t seen_progress;
    struct ng_batch batch;
    uint8_t packets[NG_BATCH_MAX * NG_DISCARD_SLOT];
    uint32_t records[NG_BATCH_MAX * NG_RECORD_WORDS];
};

void ng_watchdog_init(struct ng_watchdog *watchdog, struct ng_queue *queue, void (*notify)(void *), void *data);
/* From now on the queue is watched. 0 or a negative errno. */
int ng_watchdog_start(struct ng_watchdog *watchdog);
/* When it returns nobody looks at the queue any more, nor calls `notify`. Not with the queue's lock held. */
void ng_watchdog_stop(struct ng_watchdog *watchdog);

/* One look at the queue, with its lock held. True when there is something to notify. */
bool ng_watchdog_tick_locked(struct ng_watchdog *watchdog, uint64_t now_ms);

/* How often to look: a quarter of the deadline, 2 .. 250 ms. So a packet waits for at most 1.25 deadlines. */
uint32_t ng_watchdog_period_ms(uint32_t deadline_ms);

#endif
