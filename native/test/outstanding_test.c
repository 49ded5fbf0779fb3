/* The table against a plain array, over many random steps. */
#include "../outstanding.h"
#include "check.h"

enum { CAPACITY = 37, IDS = 128 };

struct model {
    uint32_t ids[CAPACITY];
    uint64_t since[CAPACITY];
    uint32_t count;
};

static uint32_t index_of(const struct model *model, uint32_t id) {
    uint32_t i = 0;
    while (i < model->count && model->ids[i] != id) i++;
    return i;
}

static void compare(const struct ng_outstanding *table, const struct model *model, uint64_t now) {
    uint32_t ids[CAPACITY + 1];
    CHECK_EQUAL(table->count, model->count);
    CHECK_EQUAL(ng_outstanding_oldest(table, UINT64_MAX, ids, CAPACITY + 1), model->count);
    for (uint32_t i = 0; i < model->count; i++) CHECK_EQUAL(ids[i], model->ids[i]);
    uint64_t until = now > 20 ? now - 20 : 0;
    uint32_t expected = 0;
    while (expected < model->count && model->since[expected] <= until) expected++;
    CHECK_EQUAL(ng_outstanding_oldest(table, until, ids, CAPACITY + 1), expected);
    CHECK_EQUAL(ng_outstanding_oldest(table, UINT64_MAX, ids, 3), model->count < 3 ? model->count : 3);
}

static void walk(uint64_t seed) {
    struct ng_outstanding table;
    struct model model = {.count = 0};
    CHECK(ng_outstanding_init(&table, CAPACITY));
    uint64_t now = 0;
    for (int step = 0; step < 20000; step++) {
        uint32_t id = next_random(&seed) % IDS - IDS / 2; /* around 0: the ids wrap */
        uint32_t at = index_of(&model, id);
        now += next_random(&seed) % 3;
        CHECK_EQUAL(ng_outstanding_has(&table, id), at < model.count);
        uint32_t kind = next_random(&seed) % 1000;
        if (kind == 0) {
            ng_outstanding_clear(&table);
            model.count = 0;
        } else if (kind < 550) {
            bool fits = at < model.count || model.count < CAPACITY;
            CHECK_EQUAL(ng_outstanding_add(&table, id, now), fits);
            if (at == model.count && fits) {
                model.ids[model.count] = id;
                model.since[model.count++] = now;
            }
        } else {
            CHECK_EQUAL(ng_outstanding_remove(&table, id), at < model.count);
            if (at < model.count) {
                model.count--;
                memmove(&model.ids[at], &model.ids[at + 1], (model.count - at) * sizeof model.ids[0]);
                memmove(&model.since[at], &model.since[at + 1], (model.count - at) * sizeof model.since[0]);
            }
        }
        compare(&table, &model, now);
    }
    ng_outstanding_free(&table);
}

int main(void) {
    struct ng_outstanding table;
    CHECK(!ng_outstanding_init(&table, 0));
    CHECK(!ng_outstanding_init(&table, UINT32_MAX));
    ng_outstanding_free(&table);
    for (uint64_t seed = 1; seed <= 10; seed++) walk(seed);
    return 0;
}
