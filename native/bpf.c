#include "bpf.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PACKET_MAX 4096 /* of a packet that is tried; the kernel takes less than a page */
#define LOAD_TRIES 5    /* EAGAIN: a signal came while the verifier was at work */

static int bpf(enum bpf_cmd command, union bpf_attr *attributes) {
    long result = syscall(__NR_bpf, command, attributes, sizeof *attributes);
    return result < 0 ? -errno : (int)result;
}

static uint64_t pointer(const void *to) {
    return (uint64_t)(uintptr_t)to;
}

static union bpf_attr nothing(void) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    return attributes;
}

/* BPF_OBJ_NAME_LEN with its NUL; what is longer is cut. */
static void set_name(char *to, const char *name) {
    for (size_t i = 0; i + 1 < BPF_OBJ_NAME_LEN && name[i] != 0; i++) to[i] = name[i];
}

int ng_bpf_map_create(struct ng_bpf_map *map, uint32_t key_size, uint32_t value_size, uint32_t entries, int preallocated,
                      const char *name) {
    union bpf_attr attributes = nothing();
    attributes.map_type = BPF_MAP_TYPE_HASH;
    attributes.key_size = key_size;
    attributes.value_size = value_size;
    attributes.max_entries = entries;
    attributes.map_flags = preallocated ? 0 : BPF_F_NO_PREALLOC;
    set_name(attributes.map_name, name);
    int fd = bpf(BPF_MAP_CREATE, &attributes);
    if (fd < 0) return fd;
    *map = (struct ng_bpf_map){.fd = fd, .key_size = key_size, .value_size = value_size};
    return 0;
}

static int open_pinned(const char *path) {
    union bpf_attr attributes = nothing();
    attributes.pathname = pointer(path);
    return bpf(BPF_OBJ_GET, &attributes);
}

int ng_bpf_map_open(struct ng_bpf_map *map, const char *path) {
    int fd = open_pinned(path);
    if (fd < 0) return fd;
    struct bpf_map_info info;
    memset(&info, 0, sizeof info);
    union bpf_attr attributes = nothing();
    attributes.info.bpf_fd = (uint32_t)fd;
    attributes.info.info_len = sizeof info;
    attributes.info.info = pointer(&info);
    int status = bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes);
    if (status == 0 && info.type != BPF_MAP_TYPE_HASH) status = -EINVAL;
    if (status < 0) {
        close(fd);
        return status;
    }
    *map = (struct ng_bpf_map){.fd = fd, .key_size = info.key_size, .value_size = info.value_size};
    return 0;
}

static int element(enum bpf_cmd command, const struct ng_bpf_map *map, const void *key, const void *value) {
    union bpf_attr attributes = nothing();
    attributes.map_fd = (uint32_t)map->fd;
    attributes.key = pointer(key);
    attributes.value = pointer(value); /* next_key is at the same place */
    return bpf(command, &attributes);
}

int ng_bpf_map_get(const struct ng_bpf_map *map, const void *key, void *value) {
    return element(BPF_MAP_LOOKUP_ELEM, map, key, value);
}

int ng_bpf_map_put(const struct ng_bpf_map *map, const void *key, const void *value) {
    return element(BPF_MAP_UPDATE_ELEM, map, key, value);
}

int ng_bpf_map_delete(const struct ng_bpf_map *map, const void *key) {
    return element(BPF_MAP_DELETE_ELEM, map, key, NULL);
}

int ng_bpf_map_next(const struct ng_bpf_map *map, const void *key, void *next) {
    return element(BPF_MAP_GET_NEXT_KEY, map, key, next);
}

int ng_bpf_program_load(const void *instructions, uint32_t count, const char *license, const char *name, char *log, uint32_t log_size) {
    union bpf_attr attributes = nothing();
    attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attributes.insns = pointer(instructions);
    attributes.insn_cnt = count;
    attributes.license = pointer(license);
    set_name(attributes.prog_name, name);
    log[0] = 0;
    int fd = -EAGAIN;
    for (int i = 0; i < LOAD_TRIES && fd == -EAGAIN; i++) fd = bpf(BPF_PROG_LOAD, &attributes);
    if (fd >= 0) return fd;
    int refusal = fd;
    attributes.log_buf = pointer(log);
    attributes.log_size = log_size;
    attributes.log_level = 1;
    fd = bpf(BPF_PROG_LOAD, &attributes);
    log[log_size - 1] = 0; /* cut (ENOSPC) by a kernel that may not have ended it */
    return fd >= 0 ? fd : refusal;
}

int ng_bpf_program_open(const char *path) {
    return open_pinned(path);
}

int ng_bpf_program_run(int fd, const void *packet, size_t length, uint32_t *answer) {
    uint8_t frame[ETH_HLEN + PACKET_MAX] = {0};
    if (length == 0 || length > PACKET_MAX) return -EMSGSIZE;
    uint16_t type = ((const uint8_t *)packet)[0] >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6;
    frame[12] = (uint8_t)(type >> 8);
    frame[13] = (uint8_t)type;
    memcpy(frame + ETH_HLEN, packet, length);
    union bpf_attr attributes = nothing();
    attributes.test.prog_fd = (uint32_t)fd;
    attributes.test.data_in = pointer(frame);
    attributes.test.data_size_in = (uint32_t)(ETH_HLEN + length);
    int status = bpf(BPF_PROG_TEST_RUN, &attributes);
    if (status < 0) return status;
    *answer = attributes.test.retval;
    return 0;
}

int ng_bpf_pin(int fd, const char *path) {
    union bpf_attr attributes = nothing();
    attributes.bpf_fd = (uint32_t)fd;
    attributes.pathname = pointer(path);
    return bpf(BPF_OBJ_PIN, &attributes);
}
