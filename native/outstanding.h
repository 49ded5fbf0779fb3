/*
 * The packets received and not settled: id -> time received, in order of arrival. A fixed slab with hash chains and a
 * doubly linked list; every operation is O(1). Ids of a queue are consecutive, so id & mask spreads them evenly.
 */
#ifndef NAMEGATE_OUTSTANDING_H
#define NAMEGATE_OUTSTANDING_H

#include <stdbool.h>
#include <stdint.h>

struct ng_outstanding_entry {
    uint64_t since_ms;
    uint32_t id;
    uint32_t chain; /* next entry of the same bucket, or of the free list */
    uint32_t older;
    uint32_t newer;
};

struct ng_outstanding {
    struct ng_outstanding_entry *entries;
    uint32_t *buckets;
    uint32_t mask;
    uint32_t capacity;
    uint32_t count;
    uint32_t free;
    uint32_t oldest;
    uint32_t newest;
};

/* False when there is no memory. capacity: 1 .. 2^24. */
bool ng_outstanding_init(struct ng_outstanding *table, uint32_t capacity);
void ng_outstanding_free(struct ng_outstanding *table);
void ng_outstanding_clear(struct ng_outstanding *table);

/* False when the table is full. An id that is there already keeps its place and time. */
bool ng_outstanding_add(struct ng_outstanding *table, uint32_t id, uint64_t now_ms);
bool ng_outstanding_has(const struct ng_outstanding *table, uint32_t id);
bool ng_outstanding_remove(struct ng_outstanding *table, uint32_t id);

/* Copies up to `limit` of the oldest ids that came at `until_ms` or before. Removes nothing. */
uint32_t ng_outstanding_oldest(const struct ng_outstanding *table, uint64_t until_ms, uint32_t *ids, uint32_t limit);

#endif
