/* The bpf system call: hash maps and the programs that use them, shared with others by a pin in a bpf file system. */
#ifndef NAMEGATE_BPF_H
#define NAMEGATE_BPF_H

#include <stddef.h>
#include <stdint.h>

struct ng_bpf_map {
    int fd; /* -1 when closed */
    uint32_t key_size, value_size;
};

/* All answer 0 (or what is said) or a negative errno. Pins: EPERM, ENOENT, EEXIST, and ENODEV outside of a bpf file system. */

/* preallocated: no element can fail for want of memory, and all of them cost it at once. */
int ng_bpf_map_create(struct ng_bpf_map *map, uint32_t key_size, uint32_t value_size, uint32_t entries, int preallocated,
                      const char *name);
int ng_bpf_map_open(struct ng_bpf_map *map, const char *path);
/* key and value have the map's sizes. -ENOENT: there is no such element. */
int ng_bpf_map_get(const struct ng_bpf_map *map, const void *key, void *value);
int ng_bpf_map_put(const struct ng_bpf_map *map, const void *key, const void *value);
int ng_bpf_map_delete(const struct ng_bpf_map *map, const void *key);
/* The key behind `key`, in the kernel's order; the first one for NULL and for a key that is gone. -ENOENT: that was the last. */
int ng_bpf_map_next(const struct ng_bpf_map *map, const void *key, void *next);

/*
 * A socket filter, which is what xt_bpf runs. instructions: `count` of 8 bytes each, map references already with their
 * descriptors. Answers the descriptor; on a refusal `log` (NUL-terminated, may be empty; log_size > 0) says what the verifier said last.
 */
int ng_bpf_program_load(const void *instructions, uint32_t count, const char *license, const char *name, char *log, uint32_t log_size);
int ng_bpf_program_open(const char *path);
/* What the program answers for a packet that starts with its IP header, which is at least 20 bytes. */
int ng_bpf_program_run(int fd, const void *packet, size_t length, uint32_t *answer);

int ng_bpf_pin(int fd, const char *path);

#endif
