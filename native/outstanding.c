#include "outstanding.h"

#include <stdlib.h>

#define NONE UINT32_MAX
#define CAPACITY_MAX (1u << 24)

bool ng_outstanding_init(struct ng_outstanding *table, uint32_t capacity) {
    *table = (struct ng_outstanding){0};
    if (capacity == 0 || capacity > CAPACITY_MAX) return false;
    uint32_t buckets = 1;
    while (buckets < capacity) buckets *= 2;
    table->entries = malloc((size_t)capacity * sizeof *table->entries);
    table->buckets = malloc((size_t)buckets * sizeof *table->buckets);
    if (table->entries == NULL || table->buckets == NULL) {
        ng_outstanding_free(table);
        return false;
    }
    table->mask = buckets - 1;
    table->capacity = capacity;
    ng_outstanding_clear(table);
    return true;
}

void ng_outstanding_free(struct ng_outstanding *table) {
    free(table->entries);
    free(table->buckets);
    *table = (struct ng_outstanding){0};
}

void ng_outstanding_clear(struct ng_outstanding *table) {
    if (table->capacity == 0) return;
    for (uint32_t i = 0; i <= table->mask; i++) table->buckets[i] = NONE;
    for (uint32_t i = 0; i < table->capacity; i++) table->entries[i].chain = i + 1 < table->capacity ? i + 1 : NONE;
    table->free = 0;
    table->oldest = table->newest = NONE;
    table->count = 0;
}

/* The link (bucket head or chain field) that holds the id's entry, or the NONE at the end of its chain. */
static uint32_t *find(const struct ng_outstanding *table, uint32_t id) {
    uint32_t *link = &table->buckets[id & table->mask];
    while (*link != NONE && table->entries[*link].id != id) link = &table->entries[*link].chain;
    return link;
}

bool ng_outstanding_has(const struct ng_outstanding *table, uint32_t id) {
    return *find(table, id) != NONE;
}

bool ng_outstanding_add(struct ng_outstanding *table, uint32_t id, uint64_t now_ms) {
    uint32_t *link = find(table, id);
    if (*link != NONE) return true;
    uint32_t index = table->free;
    if (index == NONE) return false;
    struct ng_outstanding_entry *entry = &table->entries[index];
    table->free = entry->chain;
    *entry = (struct ng_outstanding_entry){.since_ms = now_ms, .id = id, .chain = NONE, .older = table->newest, .newer = NONE};
    *link = index;
    if (table->newest == NONE) table->oldest = index;
    else table->entries[table->newest].newer = index;
    table->newest = index;
    table->count++;
    return true;
}

bool ng_outstanding_remove(struct ng_outstanding *table, uint32_t id) {
    uint32_t *link = find(table, id);
    uint32_t index = *link;
    if (index == NONE) return false;
    struct ng_outstanding_entry *entry = &table->entries[index];
    *link = entry->chain;
    if (entry->older == NONE) table->oldest = entry->newer;
    else table->entries[entry->older].newer = entry->newer;
    if (entry->newer == NONE) table->newest = entry->older;
    else table->entries[entry->newer].older = entry->older;
    entry->chain = table->free;
    table->free = index;
    table->count--;
    return true;
}

uint32_t ng_outstanding_oldest(const struct ng_outstanding *table, uint64_t until_ms, uint32_t *ids, uint32_t limit) {
    uint32_t found = 0;
    for (uint32_t index = table->oldest; index != NONE && found < limit; index = table->entries[index].newer) {
        if (table->entries[index].since_ms > until_ms) break;
        ids[found++] = table->entries[index].id;
    }
    return found;
}
