/* Whole IP packets through the host's routing (IPPROTO_RAW, header included). Sockets are opened at first use. */
#ifndef NAMEGATE_RAW_H
#define NAMEGATE_RAW_H

#include <stddef.h>
#include <stdint.h>

struct ng_raw_socket {
    int fd; /* -1: not open */
    uint32_t mark;
};

struct ng_raw {
    struct ng_raw_socket ipv4;
    struct ng_raw_socket ipv6;
    int frames; /* -1: not open */
};

void ng_raw_init(struct ng_raw *raw);
void ng_raw_close(struct ng_raw *raw);

/*
 * The family is the packet's version nibble; the destination is read from its header. 0 or a negative errno; `call` is
 * the system call that failed. -EINVAL for a packet too short for its header. The kernel fills in the IPv4 total length
 * and header checksum; everything else goes out as given.
 */
int ng_raw_send(struct ng_raw *raw, const uint8_t *packet, size_t length, uint32_t mark, const char **call);

/*
 * One link-layer frame, header included, out of an interface (AF_PACKET). The socket stays open: the kernel waits a grace period of
 * RCU, some milliseconds, for each that is closed. Returns as above.
 */
int ng_raw_frame(struct ng_raw *raw, uint32_t interface, const uint8_t *frame, size_t length, const char **call);

#endif
