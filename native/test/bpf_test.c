/* Maps and programs of a real kernel; where it gives none to us (no root, no CAP_BPF), what is left: closed ones and bounds. */
#include <errno.h>
#include <linux/bpf.h>
#include <unistd.h>

#include "../bpf.h"
#include "check.h"

enum { KEY = 7, VALUE = 12, ENTRIES = 4 };

/* Exact sizes on the heap, so that AddressSanitizer sees a byte too much. */
static uint8_t *exactly(size_t size, uint8_t fill) {
    uint8_t *bytes = malloc(size);
    CHECK(bytes != NULL);
    memset(bytes, fill, size);
    return bytes;
}

static void maps(void) {
    struct ng_bpf_map map;
    CHECK_EQUAL(ng_bpf_map_create(&map, KEY, VALUE, ENTRIES, 1, "a_name_longer_than_the_kernel_takes"), 0);
    CHECK(map.fd >= 0 && map.key_size == KEY && map.value_size == VALUE);
    uint8_t *key = exactly(KEY, 1), *next = exactly(KEY, 0), *value = exactly(VALUE, 9);
    CHECK_EQUAL(ng_bpf_map_get(&map, key, value), -ENOENT);
    CHECK_EQUAL(ng_bpf_map_delete(&map, key), -ENOENT);
    CHECK_EQUAL(ng_bpf_map_next(&map, NULL, next), -ENOENT);
    for (int i = 0; i < ENTRIES; i++) {
        key[0] = value[0] = (uint8_t)i;
        CHECK_EQUAL(ng_bpf_map_put(&map, key, value), 0);
    }
    key[0] = ENTRIES;
    CHECK_EQUAL(ng_bpf_map_put(&map, key, value), -E2BIG);
    int seen = 0;
    for (int status = ng_bpf_map_next(&map, NULL, next); status == 0; status = ng_bpf_map_next(&map, next, next)) {
        CHECK_EQUAL(ng_bpf_map_get(&map, next, value), 0);
        CHECK_EQUAL(value[0], next[0]);
        CHECK_EQUAL(value[VALUE - 1], 9);
        seen++;
    }
    CHECK_EQUAL(seen, ENTRIES);
    key[0] = 0;
    CHECK_EQUAL(ng_bpf_map_delete(&map, key), 0);
    CHECK_EQUAL(ng_bpf_pin(map.fd, "/no/such/folder"), -ENOENT);
    close(map.fd);
    map.fd = -1;
    CHECK_EQUAL(ng_bpf_map_get(&map, key, value), -EBADF);
    CHECK_EQUAL(ng_bpf_map_put(&map, key, value), -EBADF);
    CHECK_EQUAL(ng_bpf_map_next(&map, key, next), -EBADF);
    free(key), free(next), free(value);
}

static void programs(void) {
    const struct bpf_insn seven[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 7}, {.code = BPF_JMP | BPF_EXIT}};
    const struct bpf_insn endless[] = {{.code = BPF_JMP | BPF_JA, .off = -1}, {.code = BPF_JMP | BPF_EXIT}};
    size_t size = 4096;
    char *log = (char *)exactly(size, 'x');
    int fd = ng_bpf_program_load(seven, 2, "Apache-2.0", "seven", log, (uint32_t)size);
    CHECK(fd >= 0);
    CHECK_EQUAL(log[0], 0);
    uint32_t answer = 0;
    uint8_t *packet = exactly(4096, 0x45);
    CHECK_EQUAL(ng_bpf_program_run(fd, packet, 20, &answer), 0);
    CHECK_EQUAL(answer, 7);
    CHECK_EQUAL(ng_bpf_program_run(fd, packet, 0, &answer), -EMSGSIZE);
    CHECK_EQUAL(ng_bpf_program_run(fd, packet, 4097, &answer), -EMSGSIZE);
    CHECK(ng_bpf_program_run(fd, packet, 4096, &answer) <= 0);
    close(fd);
    CHECK_EQUAL(ng_bpf_program_run(-1, packet, 20, &answer), -EBADF);
    CHECK(ng_bpf_program_load(endless, 2, "Apache-2.0", "endless", log, (uint32_t)size) < 0);
    CHECK(strlen(log) > 0 && strlen(log) < size);
    CHECK(ng_bpf_program_load(endless, 2, "Apache-2.0", "endless", log, 128) < 0);
    CHECK(strlen(log) < 128);
    CHECK(ng_bpf_program_load(NULL, 0, "", "", log, (uint32_t)size) < 0);
    free(log), free(packet);
}

int main(void) {
    struct ng_bpf_map map = {.fd = -1};
    uint8_t byte = 0;
    CHECK(ng_bpf_map_get(&map, &byte, &byte) < 0);
    CHECK(ng_bpf_map_open(&map, "/no/such/pin") < 0);
    CHECK(ng_bpf_program_open("/no/such/pin") < 0);
    CHECK(ng_bpf_pin(-1, "/no/such/pin") < 0);
    if (ng_bpf_map_create(&map, KEY, VALUE, ENTRIES, 0, "") == -EPERM) {
        puts("bpf_test: this kernel gives us no maps");
        return 0;
    }
    close(map.fd);
    maps();
    programs();
    return 0;
}
