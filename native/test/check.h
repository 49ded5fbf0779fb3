/* Assertions of the C tests: the first failure says where and ends the program with 1. */
#ifndef NAMEGATE_CHECK_H
#define NAMEGATE_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                                         \
    do {                                                                                                      \
        long long a_ = (long long)(actual), e_ = (long long)(expected);                                       \
        if (a_ != e_) {                                                                                       \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #actual, a_, e_);       \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)

/* `hex`: two digits a byte, blanks ignored. Returns the bytes written. */
static inline size_t from_hex(const char *hex, uint8_t *out, size_t capacity) {
    size_t n = 0;
    for (; *hex != 0; hex++) {
        if (*hex == ' ') continue;
        unsigned value = 0;
        CHECK(n < capacity && sscanf(hex, "%2x", &value) == 1);
        out[n++] = (uint8_t)value;
        hex++;
    }
    return n;
}

static inline void check_bytes(const uint8_t *actual, size_t length, const char *hex, int line) {
    uint8_t expected[4096];
    size_t n = from_hex(hex, expected, sizeof expected);
    if (n == length && memcmp(actual, expected, n) == 0) return;
    fprintf(stderr, "line %d: expected %s\n          actual ", line, hex);
    for (size_t i = 0; i < length; i++) fprintf(stderr, "%02x%s", actual[i], i % 4 == 3 ? " " : "");
    fprintf(stderr, "\n");
    exit(1);
}
#define CHECK_BYTES(actual, length, hex) check_bytes(actual, length, hex, __LINE__)

/* xorshift64*: the same numbers in every run. */
static inline uint32_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * 2685821657736338717u >> 32);
}

#endif
