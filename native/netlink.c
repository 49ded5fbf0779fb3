#include "netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef NETLINK_CAP_ACK
#define NETLINK_CAP_ACK 10
#endif

uint64_t ng_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int ng_netlink_open(struct ng_netlink *nl, int protocol, uint32_t receive_buffer) {
    nl->port = 0;
    nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (nl->fd < 0) return -errno;

    if (receive_buffer > 0) {
        int bytes = receive_buffer > INT32_MAX / 2 ? INT32_MAX / 2 : (int)receive_buffer;
        if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
            (void)setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    /* Errors then carry the request's header only, not the whole request: answers have a bounded size. */
    int on = 1;
    (void)setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);

    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    socklen_t size = sizeof address;
    if (bind(nl->fd, (struct sockaddr *)&address, size) != 0 ||
        connect(nl->fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(nl->fd, (struct sockaddr *)&address, &size) != 0) {
        int error = errno;
        ng_netlink_close(nl);
        return -error;
    }
    nl->port = address.nl_pid;
    return 0;
}

void ng_netlink_close(struct ng_netlink *nl) {
    if (nl->fd >= 0) close(nl->fd);
    nl->fd = -1;
}

void ng_netlink_drain(const struct ng_netlink *nl) {
    uint64_t start = 0;
    for (;;) {
        uint8_t byte;
        if (recv(nl->fd, &byte, sizeof byte, MSG_DONTWAIT | MSG_TRUNC) < 0 && errno != EINTR && errno != ENOBUFS) return;
        uint64_t now = ng_now_ms();
        if (start == 0) start = now;
        if (now - start >= NG_NETLINK_TIMEOUT_MS) return;
    }
}

int ng_netlink_send(const struct ng_netlink *nl, const void *request, size_t length) {
    for (;;) {
        if (send(nl->fd, request, length, 0) >= 0) return 0;
        if (errno != EINTR) return -errno;
    }
}

ssize_t ng_netlink_receive(const struct ng_netlink *nl, void *reply, size_t capacity) {
    uint64_t start = 0;
    for (;;) {
        struct iovec part = {.iov_base = reply, .iov_len = capacity};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        ssize_t bytes = recvmsg(nl->fd, &message, MSG_DONTWAIT);
        if (bytes >= 0) return (message.msg_flags & MSG_TRUNC) != 0 ? -EMSGSIZE : bytes;
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return -errno;

        uint64_t now = ng_now_ms();
        if (start == 0) start = now;
        if (now - start >= NG_NETLINK_TIMEOUT_MS) return -ETIMEDOUT;
        struct pollfd ready = {.fd = nl->fd, .events = POLLIN};
        (void)poll(&ready, 1, (int)(start + NG_NETLINK_TIMEOUT_MS - now));
    }
}

uint32_t ng_netlink_count_acks(const uint8_t *data, size_t length) {
    uint32_t acks = 0;
    while (length >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr header;
        memcpy(&header, data, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > length) return acks;
        if (header.nlmsg_type == NLMSG_ERROR) acks++;
        size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
        if (step >= length) return acks;
        data += step;
        length -= step;
    }
    return acks;
}

ssize_t ng_netlink_transact(const struct ng_netlink *nl, const void *request, size_t length, void *reply,
                            size_t capacity, uint32_t acks) {
    ng_netlink_drain(nl);
    int sent = ng_netlink_send(nl, request, length);
    if (sent < 0) return sent;

    uint8_t *out = reply;
    size_t used = 0;
    while (acks > 0) {
        ssize_t bytes = ng_netlink_receive(nl, out + used, capacity - used);
        if (bytes < 0) return bytes;
        if (bytes == 0) return -EPROTO;
        uint32_t found = ng_netlink_count_acks(out + used, (size_t)bytes);
        acks -= found < acks ? found : acks;
        used += (size_t)bytes;
    }
    return (ssize_t)used;
}
