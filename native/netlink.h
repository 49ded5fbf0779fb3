/*
 * A raw AF_NETLINK socket, connected to the kernel (port 0): netlink then refuses messages to us from
 * other processes, so everything received is the kernel's. Functions answer 0 or a byte count, or a negative errno.
 */
#ifndef NAMEGATE_NETLINK_H
#define NAMEGATE_NETLINK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How long one answer may take. nfnetlink answers inside sendmsg, so this is only reached when something is broken. */
#define NG_NETLINK_TIMEOUT_MS 1000

struct ng_netlink {
    int fd;        /* -1 when closed */
    uint32_t port; /* nl_pid the kernel gave us */
};

/* protocol: NETLINK_NETFILTER, NETLINK_ROUTE. receive_buffer: bytes for SO_RCVBUFFORCE (SO_RCVBUF without CAP_NET_ADMIN), 0 keeps the system's default. */
int ng_netlink_open(struct ng_netlink *socket, int protocol, uint32_t receive_buffer);
void ng_netlink_close(struct ng_netlink *socket);

/* Throws away what is waiting (answers of a failed transaction, the rest of an abandoned dump), for at most 1 s. */
void ng_netlink_drain(const struct ng_netlink *socket);

/* One datagram with one or several nlmsg. */
int ng_netlink_send(const struct ng_netlink *socket, const void *request, size_t length);

/* One datagram. -ETIMEDOUT after NG_NETLINK_TIMEOUT_MS, -EMSGSIZE when it was cut. */
ssize_t ng_netlink_receive(const struct ng_netlink *socket, void *reply, size_t capacity);

/*
 * Drains, sends, and receives until `acks` NLMSG_ERROR messages have come. Everything received is put in `reply`, one
 * message behind the other in the kernel's order: the answers, and data messages where the request has some.
 */
ssize_t ng_netlink_transact(const struct ng_netlink *socket, const void *request, size_t length, void *reply,
                            size_t capacity, uint32_t acks);

/* NLMSG_ERROR messages among the `length` bytes at `data`; stops at the first message whose length is impossible. */
uint32_t ng_netlink_count_acks(const uint8_t *data, size_t length);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t ng_now_ms(void);

#endif
